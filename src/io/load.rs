//! How busy a shard thread is, and with it how long waiting for more packets pays.

use std::time::{Duration, Instant};

/// The share is measured over windows of this length.
const WINDOW: Duration = Duration::from_millis(10);

/// Windows older than this hardly count: longer than the pause between two frames, so that a thread that is busy with each
/// frame of one large room is known to be busy when the next comes; short against a burst of speech.
const MEMORY: Duration = Duration::from_millis(80);

/// A thread that works less than this share of its time handles every packet as it comes: waking for each one is dear
/// (some 12 µs), but there is time enough, and no delay is better than a cheaper packet.
const IDLE: f64 = 0.05;
/// Up to here it waits for the packets of a frame that follow each other at once, and no longer …
const LIGHT: f64 = 0.3;
/// … and only where a packet goes to so many, at a microsecond or two each, that handling it takes as long as waiting.
const MANY: f64 = 30.0;
/// From here on it gathers longer, up to the longest when it is as good as full.
const HEAVY: f64 = 0.6;
const FULL: f64 = 0.9;

/// The packets of a frame follow each other within less: when none has come for so long, the frame is over.
const STEP: Duration = Duration::from_micros(100);
/// A frame is waited for no longer …
const FRAME: Duration = Duration::from_millis(1);
/// … and where there is time, no longer than this.
const FRAME_LIGHT: Duration = Duration::from_micros(300);
/// Enough for the frames of several publishers to meet.
const GATHER_FULL: Duration = Duration::from_millis(2);

/// Refused in a second from which on it is a flood: more than all clients of a full shard would have refused that join or
/// change their network. Waking for each of its datagrams would cost more than refusing it.
const FLOOD: f64 = 10_000.0;
/// In a flood, what has come waits so long for more. Half of what a call may lose by it.
const GATHER_FLOOD: Duration = Duration::from_millis(1);

/// How long the first packets of a turn wait for those that follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    /// So long in any case...
    pub(super) least: Duration,
    /// ...and as long as each step brings more, up to this. Zero on a thread with time to spare.
    pub(super) most: Duration,
    /// How long it sleeps between two looks.
    pub(super) step: Duration,
}

impl Gather {
    const NONE: Self = Self {
        least: Duration::ZERO,
        most: Duration::ZERO,
        step: STEP,
    };
}

/// What a turn, or a window of turns, was about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) time: Duration,
    /// Datagrams that belong to nobody here.
    pub(super) refused: u64,
    /// Packets of media that came.
    pub(super) media: u64,
    /// Datagrams that left.
    pub(super) sent: u64,
}

/// The share of time spent working lately, and on what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    window_start: Instant,
    window: Work,
    share: f64,
    /// Datagrams a second.
    refusals: f64,
    /// Datagrams out for each packet of media in.
    fan_out: f64,
}

impl Load {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window_start: now,
            window: Work::default(),
            share: 0.0,
            refusals: 0.0,
            fan_out: 0.0,
        }
    }

    /// A turn ended at `now`.
    pub(super) fn add(&mut self, now: Instant, turn: Work) {
        let window = &mut self.window;
        window.time += turn.time;
        window.refused += turn.refused;
        window.media += turn.media;
        window.sent += turn.sent;
        let passed = now.saturating_duration_since(self.window_start);
        if passed >= WINDOW {
            let passed = passed.as_secs_f64();
            let weight = 1.0 - (-passed / MEMORY.as_secs_f64()).exp();
            let approach = |mean: &mut f64, value: f64| *mean += (value - *mean) * weight;
            approach(&mut self.share, window.time.as_secs_f64() / passed);
            approach(&mut self.refusals, window.refused as f64 / passed);
            if window.media > 0 {
                approach(&mut self.fan_out, window.sent as f64 / window.media as f64);
            }
            (self.window_start, self.window) = (now, Work::default());
        }
    }

    /// What comes is mostly refused: even without media among it, it is worth waiting for more.
    pub(super) fn is_flooded(&self) -> bool {
        self.refusals >= FLOOD
    }

    pub(super) fn gather(&self) -> Gather {
        if self.is_flooded() {
            return Gather {
                least: GATHER_FLOOD,
                most: GATHER_FLOOD,
                step: GATHER_FLOOD / 2,
            };
        }
        let is_light = self.share < LIGHT;
        if self.share < IDLE || (is_light && self.fan_out < MANY) {
            return Gather::NONE;
        }
        let frame = if is_light { FRAME_LIGHT } else { FRAME };
        let part = ((self.share - HEAVY) / (FULL - HEAVY)).clamp(0.0, 1.0);
        let least = GATHER_FULL.mul_f64(part);
        Gather {
            least,
            most: least.max(frame),
            step: STEP,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// A packet to a hundred.
    fn work(time: Duration) -> Work {
        Work {
            time,
            media: 1,
            sent: 100,
            refused: 0,
        }
    }

    /// Turns of `worked` every `cycle` for half a second.
    fn run(load: &mut Load, now: &mut Instant, worked: Duration, cycle: Duration) {
        for _ in 0..(500_000 * MICRO).as_micros() / cycle.as_micros() {
            *now += cycle;
            load.add(*now, work(worked));
        }
    }

    #[test]
    fn the_busier_a_thread_is_the_longer_it_gathers() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        assert_eq!(load.gather(), Gather::NONE, "nothing is known yet");
        run(&mut load, &mut now, 30 * MICRO, 1000 * MICRO);
        assert_eq!(load.gather(), Gather::NONE);
        run(&mut load, &mut now, 100 * MICRO, 1000 * MICRO);
        assert_eq!((load.gather().least, load.gather().most), (Duration::ZERO, FRAME_LIGHT));
        run(&mut load, &mut now, 500 * MICRO, 1000 * MICRO);
        assert_eq!((load.gather().least, load.gather().most), (Duration::ZERO, FRAME));
        run(&mut load, &mut now, 750 * MICRO, 1000 * MICRO);
        assert!((STEP..GATHER_FULL).contains(&load.gather().least), "{load:?}");
        run(&mut load, &mut now, 960 * MICRO, 1000 * MICRO);
        assert_eq!(load.gather().least, GATHER_FULL);
        // One packet after a quiet second ends it.
        now += Duration::from_secs(1);
        load.add(now, work(30 * MICRO));
        assert_eq!(load.gather(), Gather::NONE);
    }

    #[test]
    fn a_thread_that_is_busy_with_each_frame_is_busy_between_them() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        // 20 ms of work at each frame of 30 in a second, and a report now and then.
        for _ in 0..30 {
            now += Duration::from_millis(20);
            load.add(now, work(Duration::from_millis(20)));
            for _ in 0..13 {
                now += Duration::from_millis(1);
                load.add(now, work(20 * MICRO));
            }
            assert!(load.share < 0.8);
        }
        assert!(load.gather() != Gather::NONE, "{load:?}");
    }

    #[test]
    fn a_flood_is_read_in_gulps_and_soon_forgotten() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        let mut run = |load: &mut Load, refused: u64, ms: u64| {
            for _ in 0..ms {
                now += Duration::from_millis(1);
                load.add(
                    now,
                    Work {
                        refused,
                        ..work(50 * MICRO)
                    },
                );
            }
        };
        run(&mut load, 5, 1000);
        assert!(!load.is_flooded() && load.gather() == Gather::NONE);
        run(&mut load, 200, 100);
        assert!(load.is_flooded());
        assert_eq!(load.gather().least, GATHER_FLOOD);
        run(&mut load, 0, 500);
        assert!(!load.is_flooded() && load.gather() == Gather::NONE);
    }

    #[test]
    fn a_light_thread_waits_only_where_a_packet_goes_to_many() {
        let mut now = Instant::now();
        let mut load = Load::new(now);
        let mut run = |load: &mut Load, time: Duration, sent: u64| {
            for _ in 0..500 {
                now += Duration::from_millis(1);
                load.add(now, Work { sent, ..work(time) });
            }
        };
        run(&mut load, 100 * MICRO, 10);
        assert_eq!(load.gather(), Gather::NONE);
        run(&mut load, 100 * MICRO, 40);
        assert_eq!(load.gather().most, FRAME_LIGHT);
        run(&mut load, 400 * MICRO, 10);
        assert_eq!(load.gather().most, FRAME);
    }
}
