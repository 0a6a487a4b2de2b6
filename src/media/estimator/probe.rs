//! Probes: short bursts at a higher rate, which show what the path carries beyond what is sent.
//!
//! Decides when and how fast; the pacer fills them, with media first. One at a time: what one has shown decides on the
//! next.

use super::{MAX_RATE, Micros};

/// A probe lasts at least this and has at least this many packets: enough to see a rate, too short for a queue.
const DURATION: Micros = 25_000;
const MIN_PACKETS: u32 = 6;
/// One that cannot be filled is given up.
const MAX_DURATION: Micros = 150_000;
/// Without a report for so long it has told nothing.
const REPORT_TIMEOUT: Micros = 1_000_000;
/// Packets that have to arrive for a result.
const MIN_RECEIVED: u32 = 3;

/// Rate of the first, times the first estimate; with the next that makes the usual three and six times.
const FIRST_FACTOR: f64 = 3.0;
/// Rate of a later one, times the estimate.
const FACTOR: f64 = 2.0;
/// Slower than this, the smallest packets do not make a probe within its time, and a rate once so low would stay there.
const MIN_PROBE: f64 = 150_000.0;
/// Never above this many times what is wanted...
const DEMAND_FACTOR: f64 = 2.0;
/// ...and none at all when the estimate carries what is wanted with this room for key frames.
const CARRIED: f64 = 1.5;
/// A probe that would tell nothing new is not sent.
const WORTHWHILE: f64 = 1.15;
/// Arriving at this part of the rate it was sent at, it did not fill the path.
const UNSATURATED: f64 = 0.9;

/// Between probes: longer each time that nothing was gained.
const MIN_INTERVAL: Micros = 1_000_000;
const MAX_INTERVAL: Micros = 5_000_000;
/// The same for a while after the estimate fell far: the path may be back any moment.
const MAX_EAGER_INTERVAL: Micros = 2_500_000;
const EAGER_TIME: Micros = 60_000_000;
const BACKOFF: f64 = 1.4;
/// After a decrease, queues drain first.
const RECOVERY_DELAY: Micros = 700_000;

#[derive(Clone, Copy, Debug)]
struct Cluster {
    id: u8,
    /// Bits a second.
    rate: f64,
    planned: Micros,
    /// First and last departure; `packets` is 0 before the first.
    first: Micros,
    last: Micros,
    packets: u32,
    bytes: u32,
    last_size: u16,
    is_sent: bool,
    received: Received,
}

/// The packets of it that arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    packets: u32,
    bytes: u32,
    first_departure: Micros,
    last_departure: Micros,
    last_departure_size: u16,
    first_arrival: Micros,
    first_arrival_size: u16,
    last_arrival: Micros,
}

/// What a probe has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Bits a second.
    pub rate: f64,
    /// The path was full: it carries no more.
    pub saturated: bool,
}

#[derive(Debug)]
pub struct Probes {
    demand: f64,
    /// The first one has been sent.
    has_begun: bool,
    cluster: Option<Cluster>,
    last_id: u8,
    /// Departures of the last one, and what its packets delay behind it.
    disturbed: Option<(Micros, Micros)>,
    next_at: Micros,
    interval: Micros,
    eager_until: Micros,
}

impl Probes {
    pub fn new() -> Self {
        Self {
            demand: 0.0,
            has_begun: false,
            cluster: None,
            last_id: 0,
            disturbed: None,
            next_at: 0,
            interval: MIN_INTERVAL,
            eager_until: 0,
        }
    }

    /// What would be sent if the path carried anything. Zero = never probe.
    pub fn set_demand(&mut self, demand: f64) {
        self.demand = demand;
    }

    /// Packets are to be sent at this rate now.
    pub fn wanted(&self) -> Option<f64> {
        let cluster = self.cluster.as_ref().filter(|cluster| !cluster.is_sent)?;
        Some(cluster.rate)
    }

    /// When a probe under way is to be given up by `plan`. New ones begin with feedback, as long as media flows.
    pub fn poll_timeout(&self) -> Option<Micros> {
        let cluster = self.cluster.as_ref()?;
        Some(if cluster.is_sent {
            cluster.last + REPORT_TIMEOUT
        } else {
            cluster.planned + MAX_DURATION
        })
    }

    /// When the next one is due, if none is under way and one is worthwhile.
    pub fn due(&self, estimate: f64) -> Option<Micros> {
        (self.cluster.is_none() && self.wants_more(estimate)).then_some(self.next_at)
    }

    fn wants_more(&self, estimate: f64) -> bool {
        self.demand > 0.0 && estimate < self.demand * CARRIED
    }

    /// Starts a probe when one is due and worthwhile. `is_quiet`: nothing queues in the path.
    pub fn plan(&mut self, now: Micros, estimate: f64, is_quiet: bool) {
        if let Some(cluster) = &mut self.cluster {
            let given_up = !cluster.is_sent && now - cluster.planned >= MAX_DURATION;
            let unreported = cluster.is_sent && now - cluster.last >= REPORT_TIMEOUT;
            if !given_up && !unreported {
                return;
            }
            self.cluster = None;
            self.back_off(now);
        }
        if now < self.next_at || !is_quiet || !self.wants_more(estimate) {
            return;
        }
        let factor = if self.has_begun { FACTOR } else { FIRST_FACTOR };
        self.has_begun = true;
        let rate = (estimate * factor)
            .max(MIN_PROBE)
            .min(self.demand * DEMAND_FACTOR)
            .min(MAX_RATE);
        if rate < estimate * WORTHWHILE {
            self.next_at = now + self.interval;
            return;
        }
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.cluster = Some(Cluster {
            id: self.last_id,
            rate,
            planned: now,
            first: now,
            last: now,
            packets: 0,
            bytes: 0,
            last_size: 0,
            is_sent: false,
            received: Received::default(),
        });
    }

    /// A packet has left: the probe it belongs to, 0 = none.
    pub fn handle_sent(&mut self, now: Micros, size: u16) -> u8 {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| !cluster.is_sent) else {
            return 0;
        };
        if cluster.packets == 0 {
            cluster.first = now;
        }
        cluster.last = now;
        cluster.last_size = size;
        cluster.packets += 1;
        cluster.bytes += u32::from(size);
        let enough = f64::from(cluster.bytes) * 8.0 >= cluster.rate * DURATION as f64 / 1e6;
        cluster.is_sent = enough && cluster.packets >= MIN_PACKETS;
        self.disturbed = Some((cluster.first, cluster.last));
        cluster.id
    }

    /// A packet of a probe arrived.
    pub fn handle_received(&mut self, id: u8, departure: Micros, arrival: Micros, size: u16) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.id == id) else {
            return;
        };
        let received = &mut cluster.received;
        if received.packets == 0 {
            *received = Received {
                first_departure: departure,
                last_departure: departure,
                last_departure_size: size,
                first_arrival: arrival,
                first_arrival_size: size,
                last_arrival: arrival,
                ..Received::default()
            };
        }
        received.packets += 1;
        received.bytes += u32::from(size);
        received.first_departure = received.first_departure.min(departure);
        if departure >= received.last_departure {
            received.last_departure = departure;
            received.last_departure_size = size;
        }
        if arrival < received.first_arrival {
            received.first_arrival = arrival;
            received.first_arrival_size = size;
        }
        received.last_arrival = received.last_arrival.max(arrival);
    }

    /// What the probe has shown, once: when reports have come to packets behind it. `reported` is the newest departure
    /// that was reported on.
    pub fn take_outcome(&mut self, now: Micros, reported: Micros, estimate: f64) -> Option<Outcome> {
        let cluster = self
            .cluster
            .filter(|cluster| cluster.is_sent && reported >= cluster.last)?;
        self.cluster = None;
        let outcome = cluster.outcome();
        match outcome {
            Some(outcome) if outcome.rate > estimate * WORTHWHILE => {
                self.interval = MIN_INTERVAL;
                self.next_at = if outcome.saturated { now + self.interval } else { now };
            }
            _ => self.back_off(now),
        }
        outcome
    }

    /// Whether a packet that left then was in the last probe or right behind it: its delay is the probe's doing.
    pub fn disturbs(&self, departure: Micros) -> bool {
        self.disturbed
            .is_some_and(|(first, last)| (first..=last + DURATION).contains(&departure))
    }

    /// The estimate fell far: look soon, and often for a while, whether the path is back.
    pub fn recover(&mut self, now: Micros) {
        self.interval = MIN_INTERVAL;
        self.eager_until = now + EAGER_TIME;
        self.next_at = now + RECOVERY_DELAY;
    }

    fn back_off(&mut self, now: Micros) {
        let longest = if now < self.eager_until {
            MAX_EAGER_INTERVAL
        } else {
            MAX_INTERVAL
        };
        self.next_at = now + self.interval.min(longest);
        self.interval = ((self.interval as f64 * BACKOFF) as Micros).min(longest);
    }
}

impl Cluster {
    fn outcome(&self) -> Option<Outcome> {
        let received = &self.received;
        let departed = received.last_departure - received.first_departure;
        let arrived = received.last_arrival - received.first_arrival;
        if received.packets < MIN_RECEIVED || departed <= 0 || !(0..=REPORT_TIMEOUT).contains(&arrived) {
            return None;
        }
        let rate = |bytes: u32, span: Micros| f64::from(bytes) * 8e6 / span as f64;
        // The same packets on both sides, so that loss does not look like a narrow path. The first to arrive opens the
        // span, and the last to leave closes it: neither counts.
        let sent = rate(received.bytes - u32::from(received.last_departure_size), departed);
        let arrived = rate(received.bytes - u32::from(received.first_arrival_size), arrived.max(1));
        let saturated = arrived < sent * UNSATURATED;
        let all = rate(self.bytes - u32::from(self.last_size), (self.last - self.first).max(1));
        Some(Outcome {
            rate: if saturated { arrived } else { all.min(self.rate) },
            saturated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends the probe that is wanted over a path of `link` bits a second; the outcome.
    fn send(probes: &mut Probes, now: &mut Micros, link: f64, loses: impl Fn(u32) -> bool) -> Option<Outcome> {
        let rate = probes.wanted().unwrap();
        let (mut free, mut n) = (0.0f64, 0);
        while probes.wanted().is_some() {
            let id = probes.handle_sent(*now, 1000);
            free = free.max(*now as f64) + 8e9 / link;
            if !loses(n) {
                probes.handle_received(id, *now, 5_000_000 + free as Micros, 1000);
            }
            n += 1;
            *now += (8e9 / rate) as Micros;
        }
        let reported = *now;
        *now += 50_000;
        probes.take_outcome(*now, reported, rate / 3.0)
    }

    #[test]
    fn the_first_probes_climb_until_the_path_is_full() {
        let mut probes = Probes::new();
        let mut now = 0;
        probes.plan(now, 1e6, true);
        assert_eq!(probes.wanted(), None, "nothing is wanted");
        probes.set_demand(10e6);
        probes.plan(now, 1e6, true);
        assert_eq!(probes.wanted(), Some(3e6));
        let outcome = send(&mut probes, &mut now, 5e6, |_| false).unwrap();
        assert!(!outcome.saturated);
        assert!((2.8e6..=3e6).contains(&outcome.rate));
        probes.plan(now, 3e6, true);
        assert_eq!(probes.wanted(), Some(6e6), "at once");
        let outcome = send(&mut probes, &mut now, 5e6, |_| false).unwrap();
        assert!(outcome.saturated);
        assert!((4.8e6..5.2e6).contains(&outcome.rate));
        probes.plan(now, 4.8e6, true);
        assert_eq!(probes.wanted(), None, "later");
        probes.plan(now + MIN_INTERVAL, 4.8e6, true);
        assert_eq!(probes.wanted(), Some(9.6e6));
    }

    #[test]
    fn loss_does_not_look_like_a_narrow_path() {
        let mut probes = Probes::new();
        probes.set_demand(10e6);
        probes.plan(0, 1e6, true);
        let outcome = send(&mut probes, &mut 0, 50e6, |n| n % 4 == 1).unwrap();
        assert!(!outcome.saturated);
        assert!((2.7e6..3.1e6).contains(&outcome.rate));
    }

    #[test]
    fn nothing_is_probed_that_is_carried_or_while_something_queues() {
        let mut probes = Probes::new();
        probes.set_demand(1e6);
        probes.plan(0, 1.6e6, true);
        assert_eq!(probes.wanted(), None);
        probes.plan(0, 1.0e6, false);
        assert_eq!(probes.wanted(), None);
        probes.plan(0, 1.0e6, true);
        assert_eq!(probes.wanted(), Some(2e6), "not above twice the demand");
    }

    #[test]
    fn the_lowest_rate_is_left_again() {
        let mut probes = Probes::new();
        probes.set_demand(150e3);
        let mut now = 0;
        probes.plan(now, 40e3, true);
        let rate = probes.wanted().unwrap();
        // Padding of 255 bytes with its headers.
        while probes.wanted().is_some() {
            probes.handle_sent(now, 300);
            now += (300.0 * 8e6 / rate) as Micros;
        }
        assert!(now < MAX_DURATION, "{now}");
    }

    #[test]
    fn one_that_cannot_be_filled_or_is_not_reported_is_given_up() {
        let mut probes = Probes::new();
        probes.set_demand(10e6);
        probes.plan(0, 1e6, true);
        let at = probes.poll_timeout().unwrap();
        probes.plan(at, 1e6, true);
        assert_eq!(probes.wanted(), None);
        let mut now = at + MIN_INTERVAL;
        probes.plan(now, 1e6, true);
        while probes.wanted().is_some() {
            probes.handle_sent(now, 1000);
            now += 2000;
        }
        now = probes.poll_timeout().unwrap();
        probes.plan(now, 1e6, true);
        assert_eq!(probes.take_outcome(now, now, 1e6), None);
        assert_eq!(probes.poll_timeout(), None);
    }
}
