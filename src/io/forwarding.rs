//! How long packets are in the process: from the turn's first datagram to the end of the sending.
//!
//! What a pacer holds back on purpose is not in it.

use std::time::Duration;

use crate::media::{ShardStats, Spread};

/// Turns in which something came and something left.
#[derive(Debug)]
pub(super) struct Forwarding {
    spread: Spread,
    /// Since the last report: how many, their sum and the sum of their squares, in microseconds.
    turns: u64,
    sum: f64,
    squares: f64,
    latency: u64,
    jitter: u64,
}

impl Forwarding {
    pub(super) fn new() -> Self {
        Self {
            spread: ShardStats::default().forwarding,
            turns: 0,
            sum: 0.0,
            squares: 0.0,
            latency: 0,
            jitter: 0,
        }
    }

    pub(super) fn record(&mut self, took: Duration) {
        self.spread.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        let micros = took.as_secs_f64() * 1e6;
        self.turns += 1;
        self.sum += micros;
        self.squares += micros * micros;
    }

    /// Into `stats`; the next interval begins.
    pub(super) fn report(&mut self, stats: &mut ShardStats) {
        if self.turns > 0 {
            let mean = self.sum / self.turns as f64;
            let variance = (self.squares / self.turns as f64 - mean * mean).max(0.0);
            (self.latency, self.jitter) = ((mean * 1e3) as u64, (variance.sqrt() * 1e3) as u64);
            (self.turns, self.sum, self.squares) = (0, 0.0, 0.0);
        }
        stats.forwarding.clone_from(&self.spread);
        (stats.forward_latency, stats.forward_jitter) = (self.latency, self.jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_spread_are_of_the_last_interval_with_anything() {
        let mut forwarding = Forwarding::new();
        let mut stats = ShardStats::default();
        for micros in [10, 30] {
            forwarding.record(Duration::from_micros(micros));
        }
        for _ in 0..2 {
            forwarding.report(&mut stats);
            assert_eq!((stats.forward_latency, stats.forward_jitter), (20_000, 10_000));
        }
        assert_eq!(stats.forwarding.sum(), 40_000);
        forwarding.record(Duration::from_micros(70));
        forwarding.report(&mut stats);
        assert_eq!((stats.forward_latency, stats.forward_jitter), (70_000, 0));
    }
}
