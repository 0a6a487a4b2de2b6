//! How fast a transport sends: a leaky bucket that everything it sends is poured into.
//!
//! Owns one number. The send queue asks it whether a packet may leave and when to look again; it never holds a packet.

use std::time::{Duration, Instant};

use crate::types::Bitrate;

/// What may leave at once, as time at the pacing rate: one GSO send. It is also what a voice packet finds before it in
/// the path's own queue.
pub const QUANTUM: Duration = Duration::from_millis(5);
/// The same within a probe, whose packets should be spread as evenly as a timer allows.
pub const PROBE_QUANTUM: Duration = Duration::from_millis(2);
/// What waits while a timer is late leaves when it fires, up to so much: on a busy server whole turns lie between two
/// releases, in which the path had nothing to carry. Less, and the rate could not be kept; a longer pause is not made up
/// for, because the path may not be what it was.
const MAX_LATE: Duration = Duration::from_millis(40);
/// Debt beyond this is forgiven, so that a voice that never waits or a fallen estimate cannot hold video back for long.
const MAX_DEBT: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub struct Pacing {
    /// Bytes sent ahead of the rate. Below zero: behind it, because a timer was late.
    debt: f64,
    at: Instant,
}

impl Pacing {
    pub fn new(now: Instant) -> Self {
        Self { debt: 0.0, at: now }
    }

    /// Time has passed at `rate`. If something has waited for it, what comes late is made up for.
    pub fn settle(&mut self, now: Instant, rate: Bitrate, waits: bool) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let least = if waits { -bytes(rate, MAX_LATE) } else { 0.0 };
        self.debt = (self.debt - rate.0 as f64 / 8.0 * elapsed).clamp(least, bytes(rate, MAX_DEBT));
    }

    /// Bytes that may leave now, the last packet whole. `settle` first.
    pub fn room(&self, rate: Bitrate, quantum: Duration) -> f64 {
        // At the lowest rates a quantum is less than a packet: one may leave when nothing is owed.
        bytes(rate, quantum).max(1.0) - self.debt
    }

    pub fn spend(&mut self, size: usize) {
        self.debt += size as f64;
    }

    /// When a whole quantum may leave again.
    pub fn ready_at(&self, rate: Bitrate) -> Instant {
        self.at + Duration::from_secs_f64(self.debt.max(0.0) * 8.0 / rate.0.max(1) as f64)
    }
}

fn bytes(rate: Bitrate, time: Duration) -> f64 {
    rate.0 as f64 / 8.0 * time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends 1,000-byte packets at 8 Mbit/s for a second with a timer that is `late`: how many.
    fn packets_in_a_second(late: Duration) -> u32 {
        let start = Instant::now();
        let rate = Bitrate(8_000_000); // a byte a microsecond
        let mut pacing = Pacing::new(start);
        let mut now = start;
        let mut sent = 0;
        while now < start + Duration::from_secs(1) {
            pacing.settle(now, rate, true);
            let mut burst = 0;
            while pacing.room(rate, QUANTUM) > 0.0 {
                pacing.spend(1000);
                burst += 1;
            }
            let most = 11 + late.as_millis() as u32;
            assert!((5..=most).contains(&burst), "{burst}");
            sent += burst;
            now = pacing.ready_at(rate) + late;
        }
        sent
    }

    #[test]
    fn quanta_follow_each_other_at_the_rate_though_timers_are_late() {
        for late in [0, 500, 2000, 15_000, 30_000] {
            let sent = packets_in_a_second(Duration::from_micros(late));
            // The last release of the second may be one as late as all.
            let least = 990 - late / 1000;
            assert!((least..=1011).contains(&u64::from(sent)), "{sent}");
        }
    }

    #[test]
    fn debt_has_a_limit() {
        let start = Instant::now();
        let mut pacing = Pacing::new(start);
        pacing.spend(10_000_000);
        pacing.settle(start, Bitrate(80_000), false);
        assert_eq!(pacing.ready_at(Bitrate(80_000)), start + MAX_DEBT);
    }
}
