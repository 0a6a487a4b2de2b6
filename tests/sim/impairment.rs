//! One direction of a bad link: datagrams in, the same datagrams out when they are due.
//!
//! Knows neither the simulator nor sockets, only lengths and instants, so that a relay between real interfaces runs the same
//! code. A bottleneck (rate and queue, drop tail) comes first, then the path behind it (delay, jitter, reordering,
//! duplication); loss is drawn on arrival. Seeded: the same seed, conditions and arrivals give the same departures. Of
//! datagrams that are due at the same instant the one that came first leaves first.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// IPv4 and UDP headers, which a bottleneck carries as well and `len` leaves out.
pub const HEADERS: usize = 28;

/// How long a jittery link stays at one delay: about the time a Wi-Fi station waits for its turn.
const JITTER_HOLD: Duration = Duration::from_millis(30);

/// A duplicate follows its original this much later.
const DUPLICATE_DELAY: Duration = Duration::from_millis(1);

/// What a link does to datagrams that pass in one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// Bits per second, headers included; None = unlimited.
    pub rate: Option<u64>,
    /// How long the queue before the bottleneck may get, at its rate. Beyond, the arriving datagram is dropped.
    pub queue: Duration,
    pub delay: Duration,
    /// Added to `delay`: a level in 0..=jitter that is drawn anew every 30 ms. The order stays.
    pub jitter: Duration,
    /// Probability 0.0..=1.0 that a datagram is lost.
    pub loss: f64,
    pub burst: Option<Burst>,
    pub reorder: Option<Reorder>,
    /// Probability 0.0..=1.0 that a datagram arrives twice.
    pub duplicate: f64,
    /// Nothing passes while down.
    pub up: bool,
}

impl Conditions {
    /// 10 ms of delay and nothing else.
    pub const CLEAN: Self = Self {
        rate: None,
        queue: Duration::from_millis(300),
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: 0.0,
        burst: None,
        reorder: None,
        duplicate: 0.0,
        up: true,
    };
}

impl Default for Conditions {
    fn default() -> Self {
        Self::CLEAN
    }
}

/// Gilbert-Elliott: a link with a good state, in which nothing is lost, and a bad one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// Probabilities per datagram.
    pub to_bad: f64,
    pub to_good: f64,
    /// While bad.
    pub loss: f64,
}

impl Burst {
    /// Loses `share` of all datagrams, in runs of `mean` on average.
    pub fn of(mean: f64, share: f64) -> Self {
        let to_good = 1.0 / mean;
        Self {
            to_bad: to_good * share / (1.0 - share),
            to_good,
            loss: 1.0,
        }
    }

    /// Of all datagrams, what is lost.
    pub fn share(&self) -> f64 {
        self.loss * self.to_bad / (self.to_bad + self.to_good)
    }
}

/// Some datagrams take longer and are overtaken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reorder {
    /// Probability 0.0..=1.0 per datagram.
    pub share: f64,
    /// The additional delay is uniform in 0..=by.
    pub by: Duration,
}

/// What became of datagrams, counted since the link exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub offered: u64,
    pub delivered: u64,
    /// Headers included.
    pub delivered_bytes: u64,
    pub lost: u64,
    /// Times that a bad state of `Burst` began.
    pub bursts: u64,
    /// The queue was full.
    pub overflowed: u64,
    pub duplicated: u64,
    pub reordered: u64,
}

/// One datagram's way through the bottleneck.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// When its last bit had passed.
    pub at: Instant,
    /// Since it arrived, its own transmission included.
    pub queued: Duration,
    /// Headers included.
    pub bytes: usize,
}

struct Waiting<T> {
    contents: T,
    bytes: usize,
    arrived: Instant,
}

pub struct Impairment<T> {
    conditions: Conditions,
    /// Changes to come, by time.
    plan: VecDeque<(Instant, Conditions)>,
    rng: SmallRng,
    queue: VecDeque<Waiting<T>>,
    queued_bytes: usize,
    /// Until when the head of the queue is being transmitted, and since when that was worked out.
    head: Option<(Instant, Instant)>,
    /// On the path, by due time and order.
    in_flight: BTreeMap<(Instant, u64), (T, usize)>,
    order: u64,
    /// Nothing that keeps the order is due before.
    in_order: Instant,
    jitter_level: f64,
    jitter_until: Instant,
    is_bad: bool,
    pub counts: Counts,
    /// One per datagram that passed while a rate was set.
    pub passages: Vec<Passage>,
}

impl<T: Clone> Impairment<T> {
    pub fn new(conditions: Conditions, seed: u64, now: Instant) -> Self {
        Self {
            conditions,
            plan: VecDeque::new(),
            rng: SmallRng::seed_from_u64(seed),
            queue: VecDeque::new(),
            queued_bytes: 0,
            head: None,
            in_flight: BTreeMap::new(),
            order: 0,
            in_order: now,
            jitter_level: 0.0,
            jitter_until: now,
            is_bad: false,
            counts: Counts::default(),
            passages: Vec::new(),
        }
    }

    /// From now on; plans are forgotten. What is queued leaves at the new rate.
    pub fn set(&mut self, now: Instant, conditions: Conditions) {
        self.advance(now);
        self.plan.clear();
        self.apply(now, conditions);
    }

    /// At a time to come, later than those planned before.
    pub fn plan(&mut self, at: Instant, conditions: Conditions) {
        self.plan.push_back((at, conditions));
    }

    /// A datagram of `len` bytes arrives at the link.
    pub fn offer(&mut self, now: Instant, len: usize, contents: T) {
        self.advance(now);
        self.counts.offered += 1;
        if self.is_lost() {
            self.counts.lost += 1;
            return;
        }
        let bytes = len + HEADERS;
        let Some(rate) = self.conditions.rate else {
            return self.send(now, bytes, contents);
        };
        let limit = self.conditions.queue.as_secs_f64() * rate as f64 / 8.0;
        if self.queued_bytes + bytes > limit as usize && !self.queue.is_empty() {
            self.counts.overflowed += 1;
            return;
        }
        self.queued_bytes += bytes;
        self.queue.push_back(Waiting {
            contents,
            bytes,
            arrived: now,
        });
        self.start(now);
    }

    /// When `take` has something, or the link changes.
    pub fn next_due(&self) -> Option<Instant> {
        let head = self.head.map(|(until, _)| until);
        let flight = self.in_flight.keys().next().map(|(due, _)| *due);
        let plan = self.plan.front().map(|(at, _)| *at).filter(|_| !self.queue.is_empty());
        [head, flight, plan].into_iter().flatten().min()
    }

    /// A datagram that has arrived at the other end.
    pub fn take(&mut self, now: Instant) -> Option<T> {
        self.advance(now);
        let entry = self.in_flight.first_entry().filter(|entry| entry.key().0 <= now)?;
        let (contents, bytes) = entry.remove();
        self.counts.delivered += 1;
        self.counts.delivered_bytes += bytes as u64;
        Some(contents)
    }

    fn is_lost(&mut self) -> bool {
        let conditions = self.conditions;
        let mut lost = conditions.loss > 0.0 && self.rng.random_bool(conditions.loss);
        if let Some(burst) = conditions.burst {
            let change = if self.is_bad { burst.to_good } else { burst.to_bad };
            if self.rng.random_bool(change) {
                self.is_bad = !self.is_bad;
                self.counts.bursts += u64::from(self.is_bad);
            }
            lost |= self.is_bad && self.rng.random_bool(burst.loss);
        }
        lost || !conditions.up
    }

    /// Lets pass what has passed, with changes of the plan at their times.
    fn advance(&mut self, now: Instant) {
        loop {
            let change = self.plan.front().map(|(at, _)| *at).filter(|at| *at <= now);
            let passed = self.head.map(|(until, _)| until).filter(|until| *until <= now);
            match (change, passed) {
                (Some(change), passed) if passed.is_none_or(|passed| change < passed) => {
                    if let Some((at, conditions)) = self.plan.pop_front() {
                        self.apply(at, conditions);
                    }
                }
                (_, Some(at)) => self.pass(at),
                _ => return,
            }
        }
    }

    fn apply(&mut self, now: Instant, conditions: Conditions) {
        let old = std::mem::replace(&mut self.conditions, conditions);
        let Some(rate) = conditions.rate else {
            while !self.queue.is_empty() {
                self.pass(now);
            }
            return;
        };
        if let (Some((until, _)), Some(old)) = (self.head, old.rate) {
            let left = until.saturating_duration_since(now).mul_f64(old as f64 / rate as f64);
            self.head = Some((now + left, now));
        }
    }

    /// The head of the queue has left the bottleneck.
    fn pass(&mut self, at: Instant) {
        self.head = None;
        let Some(Waiting {
            contents,
            bytes,
            arrived,
        }) = self.queue.pop_front()
        else {
            return;
        };
        self.queued_bytes -= bytes;
        self.passages.push(Passage {
            at,
            queued: at.saturating_duration_since(arrived),
            bytes,
        });
        self.start(at);
        self.send(at, bytes, contents);
    }

    fn start(&mut self, now: Instant) {
        if let (None, Some(head), Some(rate)) = (self.head, self.queue.front(), self.conditions.rate) {
            let nanos = head.bytes as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
            self.head = Some((now + Duration::from_nanos(nanos as u64), now));
        }
    }

    /// Onto the path behind the bottleneck.
    fn send(&mut self, now: Instant, bytes: usize, contents: T) {
        let conditions = self.conditions;
        if conditions.jitter > Duration::ZERO && now >= self.jitter_until {
            self.jitter_level = self.rng.random_range(0.0..=1.0);
            self.jitter_until = now + JITTER_HOLD;
        }
        let arrival = now + conditions.delay + conditions.jitter.mul_f64(self.jitter_level);
        let late = conditions
            .reorder
            .filter(|reorder| self.rng.random_bool(reorder.share))
            .map(|reorder| reorder.by.mul_f64(self.rng.random_range(0.0..=1.0)));
        let due = match late {
            Some(by) => {
                self.counts.reordered += 1;
                arrival.max(self.in_order) + by
            }
            None => {
                self.in_order = self.in_order.max(arrival);
                self.in_order
            }
        };
        if conditions.duplicate > 0.0 && self.rng.random_bool(conditions.duplicate) {
            self.counts.duplicated += 1;
            self.fly(due + DUPLICATE_DELAY, bytes, contents.clone());
        }
        self.fly(due, bytes, contents);
    }

    fn fly(&mut self, due: Instant, bytes: usize, contents: T) {
        self.order += 1;
        self.in_flight.insert((due, self.order), (contents, bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a datagram of `len` bytes every `interval`; who arrived when, in milliseconds.
    fn run(link: &mut Impairment<u32>, start: Instant, count: u32, interval: Duration, len: usize) -> Vec<(u32, f64)> {
        let mut arrived = Vec::new();
        let end = start + interval * count + Duration::from_secs(2);
        let mut next = 0;
        let mut now = start;
        while now < end {
            while next < count && start + interval * next <= now {
                link.offer(now, len, next);
                next += 1;
            }
            while let Some(number) = link.take(now) {
                arrived.push((number, (now - start).as_secs_f64() * 1000.0));
            }
            let offer = (next < count).then(|| start + interval * next);
            now = [link.next_due(), offer, Some(end)]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(end);
        }
        arrived
    }

    fn link(conditions: Conditions, seed: u64) -> (Impairment<u32>, Instant) {
        let start = Instant::now();
        (Impairment::new(conditions, seed, start), start)
    }

    #[test]
    fn a_bottleneck_passes_its_rate_and_drops_at_the_tail() {
        let conditions = Conditions {
            rate: Some(1_000_000),
            queue: Duration::from_millis(200),
            ..Conditions::CLEAN
        };
        let (mut link, start) = link(conditions, 1);
        // 972 and 28 bytes: 8 ms each at this rate, twice as many are sent.
        let arrived = run(&mut link, start, 1000, Duration::from_millis(4), 972);
        assert!((515..=530).contains(&arrived.len()), "{}", arrived.len());
        assert_eq!(arrived.len() as u64 + link.counts.overflowed, 1000);
        let longest = link
            .passages
            .iter()
            .map(|passage| passage.queued)
            .max()
            .expect("passages");
        assert!((190..=200).contains(&longest.as_millis()), "{longest:?}");
    }

    #[test]
    fn a_change_of_rate_counts_for_what_is_queued() {
        let slow = Conditions {
            rate: Some(100_000),
            ..Conditions::CLEAN
        };
        let (mut link, start) = link(slow, 1);
        let fast = Conditions {
            rate: Some(1_000_000),
            ..slow
        };
        link.plan(start + Duration::from_millis(40), fast);
        link.offer(start, 972, 1);
        link.offer(start, 972, 2);
        let arrived = run(&mut link, start, 0, Duration::ZERO, 0);
        // Half at 80 ms each, the rest at 8: 40 + 4, then 8; and 10 of delay.
        assert_eq!(arrived, [(1, 54.0), (2, 62.0)]);
    }

    #[test]
    fn losses_come_in_runs_of_their_mean_length() {
        let conditions = Conditions {
            burst: Some(Burst::of(5.0, 0.03)),
            ..Conditions::CLEAN
        };
        let (mut link, start) = link(conditions, 3);
        let arrived = run(&mut link, start, 100_000, Duration::from_millis(1), 100);
        let holes: Vec<u32> = arrived
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0 - 1)
            .filter(|hole| *hole > 0)
            .collect();
        let lost: u32 = holes.iter().sum();
        // 600 runs: the means scatter by about 5 %.
        assert!((2500..3500).contains(&lost), "{lost} of 100,000");
        let mean = f64::from(lost) / holes.len() as f64;
        assert!((4.4..5.6).contains(&mean), "{mean}");
    }

    #[test]
    fn jitter_and_ties_keep_the_order_and_reordering_does_not() {
        let jittery = Conditions {
            jitter: Duration::from_millis(50),
            ..Conditions::CLEAN
        };
        let (mut link_, start) = link(jittery, 4);
        for number in 0..50 {
            link_.offer(start, 100, number);
        }
        let arrived = run(&mut link_, start, 0, Duration::ZERO, 0);
        assert!(arrived.windows(2).all(|pair| pair[0].0 < pair[1].0), "at one instant");
        let (mut link_, start) = link(jittery, 4);
        let arrived = run(&mut link_, start, 5000, Duration::from_millis(1), 100);
        assert!(arrived.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let most = arrived
            .iter()
            .map(|(sent, at)| at - f64::from(*sent))
            .fold(0.0, f64::max);
        assert!((50.0..=60.0).contains(&most), "{most}");

        let reordering = Conditions {
            reorder: Some(Reorder {
                share: 0.02,
                by: Duration::from_millis(20),
            }),
            duplicate: 0.01,
            ..Conditions::CLEAN
        };
        let (mut link_, start) = link(reordering, 4);
        let arrived = run(&mut link_, start, 10_000, Duration::from_millis(1), 100);
        let overtaken = arrived.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        assert!((150..400).contains(&overtaken), "{overtaken}");
        assert_eq!(arrived.len() as u64, 10_000 + link_.counts.duplicated);
        assert!((60..150).contains(&link_.counts.duplicated));
        assert!((150..250).contains(&link_.counts.reordered));
    }

    #[test]
    fn the_seed_decides() {
        let conditions = Conditions {
            loss: 0.1,
            jitter: Duration::from_millis(20),
            ..Conditions::CLEAN
        };
        let runs = [1, 1, 2].map(|seed| {
            let (mut link, start) = link(conditions, seed);
            run(&mut link, start, 500, Duration::from_millis(3), 100)
        });
        assert_eq!(runs[0], runs[1]);
        assert_ne!(runs[0], runs[2]);
    }
}
