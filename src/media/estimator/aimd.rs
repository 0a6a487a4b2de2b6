//! The rate that delay allows: up in steps while nothing queues, down to what arrives when something does
//! (draft-ietf-rmcat-gcc-02 §5.5).

use super::trend::Usage;
use super::{MAX_RATE, MIN_RATE, Micros};

/// Growth per second far from the last congestion.
const GROWTH: f64 = 1.08;
/// Bits of a packet: what is added per response time near the last congestion.
const PACKET_BITS: f64 = 9_600.0;
/// And never more than this part of the rate per second: on a slow path a packet is much.
const MAX_STEP: f64 = 0.025;
/// A report's own time, beside the round trip.
const REPORT_TIME: f64 = 0.1;
/// After overuse the rate is this part of what arrives: more is taken off the longer the queue that has to drain.
const KEEP_SHORT_QUEUE: f64 = 0.92;
const KEEP_LONG_QUEUE: f64 = 0.8;
/// What counts as long.
const LONG_QUEUE: Micros = 200_000;
/// What is sent varies, and with it what arrives: while the queue is shorter than this, the rate is not taken below this
/// part of itself at once.
const SHORT_QUEUE: Micros = 50_000;
const KEEP_AT_ONCE: f64 = 0.93;
/// The rate grows by itself only while it is used: otherwise nothing tests it, and it would grow past the link. Probes
/// are for that.
const TESTED: f64 = 0.95;
/// Never so far above what arrives.
const MAX_AHEAD: f64 = 1.5;
/// A second decrease waits for the first to show, unless the path is known to carry less than this part of the rate.
const FAR_BELOW: f64 = 0.85;
const MIN_DECREASE_INTERVAL: Micros = 150_000;

/// Rates at which the path was congested, as mean and deviation.
#[derive(Clone, Copy, Debug)]
struct Congestion {
    mean: f64,
    /// Mean square of the relative deviation.
    variance: f64,
}

impl Congestion {
    /// Weight of a new sample.
    const WEIGHT: f64 = 0.1;

    fn add(&mut self, rate: f64) {
        let off = (rate - self.mean) / self.mean.max(1.0);
        self.variance = (1.0 - Self::WEIGHT) * self.variance + Self::WEIGHT * off * off;
        self.mean += Self::WEIGHT * (rate - self.mean);
    }

    /// At least 5 %, at most a fifth.
    fn spread(&self) -> f64 {
        (3.0 * self.variance.sqrt()).clamp(0.05, 0.2)
    }

    fn is_near(&self, rate: f64) -> bool {
        (rate - self.mean).abs() <= self.spread() * self.mean
    }
}

#[derive(Debug)]
pub struct RateControl {
    /// Bits a second.
    rate: f64,
    last_update: Option<Micros>,
    last_decrease: Option<Micros>,
    congestion: Option<Congestion>,
    holds: bool,
}

impl RateControl {
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            last_update: None,
            last_decrease: None,
            congestion: None,
            holds: false,
        }
    }

    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Measured otherwise, by a probe.
    pub fn set(&mut self, now: Micros, rate: f64) {
        if let Some(congestion) = self.congestion
            && rate > congestion.mean * (1.0 + congestion.spread())
        {
            self.congestion = None;
        }
        self.rate = rate.clamp(MIN_RATE, MAX_RATE);
        self.last_update = Some(now);
    }

    /// May be called as often as there is news. True = the rate was taken down.
    pub fn update(&mut self, now: Micros, usage: Usage, input: Input) -> bool {
        let elapsed = self.last_update.map_or(0, |last| now - last).clamp(0, 1_000_000);
        self.last_update = Some(now);
        match usage {
            Usage::Over => {
                self.holds = true;
                return self.decrease(now, input);
            }
            Usage::Under => self.holds = true,
            Usage::Normal if self.holds => self.holds = false,
            Usage::Normal => self.increase(elapsed as f64 / 1e6, input),
        }
        false
    }

    fn increase(&mut self, elapsed: f64, input: Input) {
        let Some(delivered) = input.delivered else { return };
        if delivered < self.rate * TESTED {
            return;
        }
        if let Some(congestion) = self.congestion
            && delivered > congestion.mean * (1.0 + congestion.spread())
        {
            self.congestion = None;
        }
        let near = self.congestion.is_some_and(|congestion| congestion.is_near(self.rate));
        let grown = if near {
            let response = input.rtt as f64 / 1e6 + REPORT_TIME;
            self.rate + (PACKET_BITS / response).min(self.rate * MAX_STEP) * elapsed
        } else {
            self.rate * GROWTH.powf(elapsed)
        };
        let limit = (delivered * MAX_AHEAD + 10_000.0).max(self.rate);
        self.rate = grown.min(limit).clamp(MIN_RATE, MAX_RATE);
    }

    fn decrease(&mut self, now: Micros, input: Input) -> bool {
        let wait = input.rtt.max(MIN_DECREASE_INTERVAL);
        let is_far = input.busy.is_some_and(|busy| busy < self.rate * FAR_BELOW);
        let waits = !is_far && self.last_decrease.is_some_and(|last| now - last < wait);
        let Some(delivered) = input.busy.or(input.delivered).filter(|_| !waits) else {
            return false;
        };
        let part = input.queue.clamp(0, LONG_QUEUE) as f64 / LONG_QUEUE as f64;
        let keep = KEEP_SHORT_QUEUE + (KEEP_LONG_QUEUE - KEEP_SHORT_QUEUE) * part;
        self.last_decrease = Some(now);
        match &mut self.congestion {
            Some(congestion) if delivered >= congestion.mean * (1.0 - congestion.spread()) => congestion.add(delivered),
            congestion => {
                *congestion = Some(Congestion {
                    mean: delivered,
                    variance: 0.0004,
                });
            }
        }
        let least = if input.queue < SHORT_QUEUE {
            self.rate * KEEP_AT_ONCE
        } else {
            MIN_RATE
        };
        let target = (delivered * keep).max(least).clamp(MIN_RATE, MAX_RATE);
        let falls = target < self.rate;
        self.rate = self.rate.min(target);
        falls
    }
}

/// What a step is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// What arrives; None = not known yet.
    pub delivered: Option<f64>,
    /// What arrived lately while packets waited the whole time; None = they did not, or too few did to tell.
    pub busy: Option<f64>,
    pub rtt: Micros,
    /// Delay above the smallest seen, and above what a packet takes.
    pub queue: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(delivered: f64) -> Input {
        Input {
            delivered: Some(delivered),
            busy: None,
            rtt: 50_000,
            queue: 60_000,
        }
    }

    #[test]
    fn grows_while_it_is_used_and_slowly_near_the_last_congestion() {
        let mut control = RateControl::new(1e6);
        for n in 0..=20 {
            control.update(n * 50_000, Usage::Normal, input(control.rate()));
        }
        assert!((1.07e6..1.09e6).contains(&control.rate()), "{}", control.rate());
        let unused = control.rate();
        for n in 20..=60 {
            control.update(n * 50_000, Usage::Normal, input(unused / 2.0));
        }
        assert_eq!(control.rate(), unused);
        assert!(control.update(3_000_000, Usage::Over, input(1e6)));
        assert!((control.rate() - 0.884e6).abs() < 1.0);
        let before = control.rate();
        let short = Input {
            queue: 20_000,
            ..input(0.5e6)
        };
        assert!(control.update(3_200_000, Usage::Over, short));
        assert!((control.rate() - before * KEEP_AT_ONCE).abs() < 1.0);
        control.update(3_250_000, Usage::Normal, input(1e6));
        for n in 0..20 {
            control.update(3_300_000 + n * 50_000, Usage::Normal, input(control.rate()));
        }
        assert!((1.0e6..1.08e6).contains(&control.rate()) || control.rate() < 1.0e6);
    }

    #[test]
    fn a_decrease_waits_for_the_one_before() {
        let mut control = RateControl::new(5e6);
        assert!(control.update(0, Usage::Over, input(3e6)));
        assert!(!control.update(100_000, Usage::Over, input(1e6)));
        assert!(control.update(200_000, Usage::Over, input(1e6)));
        let busy = Input {
            busy: Some(0.5e6),
            ..input(1e6)
        };
        assert!(
            control.update(250_000, Usage::Over, busy),
            "the path is known to be narrower"
        );
        assert!(!control.update(300_000, Usage::Over, busy));
        assert!(!control.update(
            900_000,
            Usage::Over,
            Input {
                delivered: None,
                ..input(0.0)
            }
        ));
        for n in 1..100 {
            control.update(n * 1_000_000, Usage::Over, input(0.0));
        }
        assert_eq!(control.rate(), MIN_RATE);
    }
}
