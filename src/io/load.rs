//! How busy a shard thread is, and with it how long waiting for more packets pays.

use std::time::{Duration, Instant};

/// The share is measured over windows of this length.
const WINDOW: Duration = Duration::from_millis(10);

/// Windows older than this hardly count: longer than the pause between two frames, so that a thread that is busy with each
/// frame of one large room is known to be busy when the next comes; short against a burst of speech.
const MEMORY: Duration = Duration::from_millis(80);

/// A thread that works less than this share of its time handles every packet as it comes: waking for each one is dear
/// (some 12 µs), but there is time enough, and no delay is better than a cheaper packet.
const LIGHT: f64 = 0.3;
/// From here on it gathers longer, up to the longest when it is as good as full.
const HEAVY: f64 = 0.6;
const FULL: f64 = 0.9;

/// The packets of a frame follow each other within less: when none has come for so long, the frame is over.
pub(super) const STEP: Duration = Duration::from_micros(100);
/// A frame is waited for no longer.
const FRAME: Duration = Duration::from_millis(1);
/// Enough for the frames of several publishers to meet.
const GATHER_FULL: Duration = Duration::from_millis(2);

/// How long the first packets of a turn wait for those that follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    /// So long in any case...
    pub(super) least: Duration,
    /// ...and as long as each step brings more, up to this. Zero on a thread with time to spare.
    pub(super) most: Duration,
}

impl Gather {
    const NONE: Self = Self {
        least: Duration::ZERO,
        most: Duration::ZERO,
    };
}

/// The share of time spent working lately.
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
            let share = self.worked.as_secs_f64() / passed.as_secs_f64();
            let weight = 1.0 - (-passed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
            self.share += (share - self.share) * weight;
            self.window_start = now;
            self.worked = Duration::ZERO;
        }
    }

    pub(super) fn gather(&self) -> Gather {
        if self.share < LIGHT {
            return Gather::NONE;
        }
        let part = ((self.share - HEAVY) / (FULL - HEAVY)).clamp(0.0, 1.0);
        let least = GATHER_FULL.mul_f64(part);
        Gather {
            least,
            most: least.max(FRAME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// Turns of `worked` every `cycle` for half a second.
    fn run(load: &mut Load, now: &mut Instant, worked: Duration, cycle: Duration) {
        for _ in 0..(500_000 * MICRO).as_micros() / cycle.as_micros() {
            *now += cycle;
            load.add(*now, worked);
        }
    }

    #[test]
    fn the_busier_a_thread_is_the_longer_it_gathers() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        assert_eq!(load.gather(), Gather::NONE, "nothing is known yet");
        run(&mut load, &mut now, 30 * MICRO, 1000 * MICRO);
        assert_eq!(load.gather(), Gather::NONE);
        run(&mut load, &mut now, 500 * MICRO, 1000 * MICRO);
        assert_eq!((load.gather().least, load.gather().most), (Duration::ZERO, FRAME));
        run(&mut load, &mut now, 750 * MICRO, 1000 * MICRO);
        assert!((STEP..GATHER_FULL).contains(&load.gather().least), "{load:?}");
        run(&mut load, &mut now, 960 * MICRO, 1000 * MICRO);
        assert_eq!(load.gather().least, GATHER_FULL);
        // One packet after a quiet second ends it.
        now += Duration::from_secs(1);
        load.add(now, 30 * MICRO);
        assert_eq!(load.gather(), Gather::NONE);
    }

    #[test]
    fn a_thread_that_is_busy_with_each_frame_is_busy_between_them() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        // 20 ms of work at each frame of 30 in a second, and a report now and then.
        for _ in 0..30 {
            now += Duration::from_millis(20);
            load.add(now, Duration::from_millis(20));
            for _ in 0..13 {
                now += Duration::from_millis(1);
                load.add(now, 20 * MICRO);
            }
            assert!(load.share < 0.8);
        }
        assert!(load.gather() != Gather::NONE, "{load:?}");
    }
}
