//! How fast a transport sends: a leaky bucket that everything it sends is poured into.
//!
//! Owns one number. The pacer asks it whether a packet may leave and when it should look again; it never holds a packet.

use std::time::{Duration, Instant};

use crate::types::Bitrate;

/// What may leave at once, as time at the pacing rate: one GSO send. It is also what a voice packet finds before it in
/// the path's own queue.
pub const QUANTUM: Duration = Duration::from_millis(5);
/// The same within a probe, whose packets should be spread as evenly as a timer allows.
pub const PROBE_QUANTUM: Duration = Duration::from_millis(2);
/// Debt beyond this is forgiven, so that a voice that never waits or a fallen estimate cannot hold video back for long.
const MAX_DEBT: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Pacing {
    /// Bytes sent ahead of the rate.
    debt: f64,
    at: Instant,
}

impl Pacing {
    pub fn new(now: Instant) -> Self {
        Self { debt: 0.0, at: now }
    }

    /// Time has passed at `rate`.
    pub fn settle(&mut self, now: Instant, rate: Bitrate) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let limit = bytes(rate, MAX_DEBT);
        self.debt = (self.debt - rate.0 as f64 / 8.0 * elapsed).clamp(0.0, limit);
    }

    /// Whether a packet may leave now. `settle` first.
    pub fn has_room(&self, rate: Bitrate, quantum: Duration) -> bool {
        self.debt < bytes(rate, quantum).max(1.0)
    }

    pub fn spend(&mut self, size: usize) {
        self.debt += size as f64;
    }

    /// When a whole quantum may leave again.
    pub fn ready_at(&self, rate: Bitrate) -> Instant {
        self.at + Duration::from_secs_f64(self.debt * 8.0 / rate.0.max(1) as f64)
    }
}

fn bytes(rate: Bitrate, time: Duration) -> f64 {
    rate.0 as f64 / 8.0 * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quanta_follow_each_other_at_the_rate() {
        let start = Instant::now();
        let rate = Bitrate(8_000_000); // a byte a microsecond
        let mut pacing = Pacing::new(start);
        let mut now = start;
        let mut sent = 0;
        while now < start + Duration::from_secs(1) {
            pacing.settle(now, rate);
            let mut burst = 0;
            while pacing.has_room(rate, QUANTUM) {
                pacing.spend(1000);
                burst += 1;
            }
            assert!((5..=6).contains(&burst), "{burst}");
            sent += burst;
            now = pacing.ready_at(rate);
        }
        assert!((995..=1010).contains(&sent), "{sent}");
    }

    #[test]
    fn debt_has_a_limit() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        pacing.spend(10_000_000);
        pacing.settle(start, Bitrate(80_000));
        assert_eq!(pacing.ready_at(Bitrate(80_000)), start + MAX_DEBT);
    }
}
