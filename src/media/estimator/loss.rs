//! What loss says beside delay: whether packets are lost because there are too many of them.
//!
//! A path that loses a tenth of everything loses a tenth at any rate; one that is too narrow loses what is too much. So
//! what was sent and lost in the last seconds is explained twice, once by random loss alone and once by random loss and a
//! narrow path, and the second counts only where it explains clearly more (a likelihood ratio). Where a queue grows,
//! delay has said it already.

use super::Micros;

/// An observation covers at least this, and this many packets.
const MIN_SPAN: Micros = 250_000;
const MIN_PACKETS: u32 = 15;
/// It ends anyway after so long.
const MAX_SPAN: Micros = 1_000_000;
/// Five seconds.
const OBSERVATIONS: usize = 20;
/// What each observation counts less than the one after it.
const FADE: f64 = 0.93;
/// Loss below this needs no explanation.
const HARMLESS: f64 = 0.02;
/// An interval with more is an outage, which says nothing of rates.
const OUTAGE: f64 = 0.9;
/// Random loss above this is not believed: such a path is too narrow whatever the cause.
const MAX_RANDOM: f64 = 0.42;
/// Packets in two seconds from which a share of lost ones is one.
const MANY: f64 = 100.0;
/// How much more likely (natural logarithm) a narrow path has to be.
const CLEARLY: f64 = 6.0;
/// A path is never held for narrower than this part of what it delivers.
const DELIVERED_PART: f64 = 0.95;
/// Growth of the bound per observation once nothing supports it, and where it ends.
const RELEASE: f64 = 1.1;
const RELEASED: f64 = 1.5;
/// Observations in `LossBound::loss`: a second.
const RECENT: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    packets: f64,
    lost: f64,
    /// Bits a second, sent and delivered.
    sent: f64,
    delivered: f64,
}

#[derive(Debug, Default)]
struct Pending {
    since: Option<Micros>,
    until: Micros,
    packets: u32,
    lost: u32,
    bytes: u64,
    delivered: u64,
}

#[derive(Debug)]
pub struct LossBound {
    pending: Pending,
    observations: [Observation; OBSERVATIONS],
    count: usize,
    bound: Option<f64>,
}

impl LossBound {
    pub fn new() -> Self {
        Self {
            pending: Pending::default(),
            observations: [Observation::default(); OBSERVATIONS],
            count: 0,
            bound: None,
        }
    }

    /// A packet that was reported on, as received or lost.
    pub fn handle_packet(&mut self, departure: Micros, size: u16, received: bool) {
        let pending = &mut self.pending;
        pending.since.get_or_insert(departure);
        pending.until = pending.until.max(departure);
        pending.packets += 1;
        pending.bytes += u64::from(size);
        if received {
            pending.delivered += u64::from(size);
        } else {
            pending.lost += 1;
        }
    }

    /// A packet reported as lost has arrived after all.
    pub fn handle_revived(&mut self, size: u16) {
        if self.pending.lost > 0 {
            self.pending.lost -= 1;
            self.pending.delivered += u64::from(size);
        }
    }

    /// Bits a second; None = loss limits nothing.
    pub fn bound(&self) -> Option<f64> {
        self.bound
    }

    /// A probe has passed at `rate`.
    pub fn release(&mut self, rate: f64) {
        self.bound = self.bound.filter(|bound| *bound > rate);
    }

    /// Part of the packets of the last second, 0.0..=1.0.
    pub fn loss(&self) -> f64 {
        let (mut packets, mut lost) = (f64::from(self.pending.packets), f64::from(self.pending.lost));
        for observation in self.newest_first().take(RECENT) {
            packets += observation.packets;
            lost += observation.lost;
        }
        if packets < 1.0 { 0.0 } else { lost / packets }
    }

    /// Looks at what has been reported so far; `rate` is what the other estimates allow.
    pub fn update(&mut self, rate: f64) {
        let pending = &self.pending;
        let Some(since) = pending.since else { return };
        let span = pending.until - since;
        if span < MAX_SPAN && (span < MIN_SPAN || pending.packets < MIN_PACKETS) {
            return;
        }
        let seconds = span as f64 / 1e6;
        let observation = Observation {
            packets: f64::from(pending.packets),
            lost: f64::from(pending.lost),
            sent: pending.bytes as f64 * 8.0 / seconds,
            delivered: pending.delivered as f64 * 8.0 / seconds,
        };
        self.pending = Pending {
            since: Some(pending.until),
            until: pending.until,
            ..Pending::default()
        };
        if observation.lost > observation.packets * OUTAGE {
            return;
        }
        if let Some(place) = self.observations.get_mut(self.count % OBSERVATIONS) {
            *place = observation;
        }
        self.count += 1;
        match self.narrow() {
            Some(width) => {
                let least = self.delivered() * DELIVERED_PART;
                self.bound = Some(width.max(least));
            }
            None => {
                self.bound = self
                    .bound
                    .map(|bound| bound * RELEASE)
                    .filter(|bound| *bound < rate * RELEASED);
            }
        }
    }

    /// The width that explains the losses clearly better than chance.
    fn narrow(&self) -> Option<f64> {
        let (mut packets, mut lost) = (0.0, 0.0);
        for observation in self.newest_first().take(RECENT * 2) {
            packets += observation.packets;
            lost += observation.lost;
        }
        if lost < packets * HARMLESS {
            return None;
        }
        let (by_chance, random) = self.explain(f64::INFINITY);
        let candidates = self.newest_first().filter(|observation| observation.lost > 0.0);
        let explained = candidates.map(|candidate| (self.explain(candidate.delivered).0, candidate.delivered));
        let (likelihood, width) = explained.max_by(|a, b| a.0.total_cmp(&b.0))?;
        if likelihood > by_chance + CLEARLY {
            Some(width)
        } else if random >= MAX_RANDOM && packets >= MANY {
            Some(self.delivered())
        } else {
            None
        }
    }

    /// How likely the losses are on a path of `width` bits a second with the best random loss beside; and that.
    fn explain(&self, width: f64) -> (f64, f64) {
        let excess = |observation: &Observation| (1.0 - width / observation.sent.max(1.0)).max(0.0);
        let (mut left, mut passed, mut weight) = (0.0, 0.0, 1.0);
        for observation in self.newest_first() {
            left += weight * (observation.lost - observation.packets * excess(observation));
            passed += weight * observation.packets * (1.0 - excess(observation));
            weight *= FADE;
        }
        let random = (left / passed.max(1.0)).clamp(0.001, MAX_RANDOM);
        let (mut likelihood, mut weight) = (0.0, 1.0);
        for observation in self.newest_first() {
            let loss = (random + (1.0 - random) * excess(observation)).clamp(0.001, 0.999);
            let received = observation.packets - observation.lost;
            likelihood += weight * (observation.lost * loss.ln() + received * (1.0 - loss).ln());
            weight *= FADE;
        }
        (likelihood, random)
    }

    /// Mean of the last second.
    fn delivered(&self) -> f64 {
        let (sum, count) = self
            .newest_first()
            .take(RECENT)
            .fold((0.0, 0.0), |(sum, count), observation| {
                (sum + observation.delivered, count + 1.0)
            });
        if count == 0.0 { 0.0 } else { sum / count }
    }

    fn newest_first(&self) -> impl Iterator<Item = &Observation> {
        let kept = self.count.min(OBSERVATIONS);
        (1..=kept).filter_map(move |back| self.observations.get((self.count - back) % OBSERVATIONS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends 1,000-byte packets for `seconds` at rates that `rate` gives for each quarter of a second; `lost` says of the
    /// n-th packet, with the rate of the moment, whether it is.
    fn run(
        bound: &mut LossBound,
        from: Micros,
        quarters: u64,
        rate: impl Fn(u64) -> f64,
        lost: impl Fn(u64, f64) -> bool,
    ) {
        let (mut at, mut n) = (from, 0);
        for quarter in 0..quarters {
            let rate = rate(quarter);
            let end = from + (quarter as i64 + 1) * 250_000;
            while at < end {
                bound.handle_packet(at, 1000, !lost(n, rate));
                n += 1;
                at += (8e9 / rate) as Micros;
            }
            bound.update(5e6);
        }
    }

    /// Well spread, the same at every run.
    fn chance(n: u64) -> f64 {
        (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64
    }

    #[test]
    fn random_loss_limits_nothing() {
        for loss in [0.05, 0.1, 0.2, 0.3] {
            let mut bound = LossBound::new();
            let rates = |quarter: u64| if quarter.is_multiple_of(5) { 4e6 } else { 1.5e6 };
            run(&mut bound, 0, 80, rates, |n, _| chance(n) < loss);
            assert_eq!(bound.bound(), None, "{loss}");
            assert!((bound.loss() - loss).abs() < 0.1);
        }
    }

    #[test]
    fn a_narrow_path_is_found_with_and_without_random_loss() {
        for random in [0.0, 0.1] {
            let mut bound = LossBound::new();
            let rates = |quarter: u64| [0.8e6, 2e6, 3e6, 1.5e6][quarter as usize % 4];
            run(&mut bound, 0, 40, rates, |n, rate| {
                chance(n) < 1.0 - (1e6 / rate).min(1.0) * (1.0 - random)
            });
            let found = bound.bound().unwrap();
            assert!((0.8e6..1.8e6).contains(&found), "{found}");
            run(&mut bound, 20_000_000, 60, |_| 2e6, |_, _| false);
            assert_eq!(bound.bound(), None, "forgotten once it is wide again");
        }
    }

    #[test]
    fn what_nothing_random_explains_is_narrow() {
        let mut bound = LossBound::new();
        run(&mut bound, 0, 20, |_| 2e6, |n, _| chance(n) < 0.6);
        assert!((0.6e6..1.2e6).contains(&bound.bound().unwrap()));
    }
}
