//! How busy a shard thread is, and with it whether waiting a moment for more packets pays.

use std::time::{Duration, Instant};

/// The share is measured over windows of this length: long enough for several turns, short against a burst of speech.
const WINDOW: Duration = Duration::from_millis(10);

/// A thread that works this share of its time gathers. Below it every packet is handled as it comes: waking for each
/// one is dear (some 12 µs), but there is time enough, and no delay is better than a cheaper packet.
const BUSY_SHARE: f64 = 0.3;

/// The share of time spent working in the last whole window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    window_start: Instant,
    worked: Duration,
    share: f64,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window_start: now,
            worked: Duration::ZERO,
            share: 0.0,
        }
    }

    /// A turn that took `worked` ended at `now`.
    pub(super) fn add(&mut self, now: Instant, worked: Duration) {
        self.worked += worked;
        let passed = now.saturating_duration_since(self.window_start);
        if passed >= WINDOW {
            self.share = self.worked.as_secs_f64() / passed.as_secs_f64();
            self.window_start = now;
            self.worked = Duration::ZERO;
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.share >= BUSY_SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// Turns of `worked` every `cycle` for 50 ms.
    fn run(load: &mut Load, now: &mut Instant, worked: Duration, cycle: Duration) {
        for _ in 0..(50_000 * MICRO).as_micros() / cycle.as_micros() {
            *now += cycle;
            load.add(*now, worked);
        }
    }

    #[test]
    fn only_a_thread_that_works_a_third_of_its_time_gathers() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        assert!(!load.is_busy(), "nothing is known yet");
        run(&mut load, &mut now, 30 * MICRO, 1000 * MICRO);
        assert!(!load.is_busy());
        run(&mut load, &mut now, 500 * MICRO, 1000 * MICRO);
        assert!(load.is_busy());
        // One packet after a quiet second ends it.
        now += Duration::from_secs(1);
        load.add(now, 30 * MICRO);
        assert!(!load.is_busy());
    }
}
