use super::*;
use crate::media::layers::Cut;
use crate::media::pacer::Kind;
use crate::media::rewrite::Source;
use crate::media::ring::PictureNumbers;
use crate::media::slots::Slots;

fn descriptor(subscription: Slot, sequence_out: u64, kind: Kind) -> Descriptor {
    Descriptor {
        subscription,
        sequence_out,
        sequence_in: 0,
        timestamp: 0,
        picture: PictureNumbers::default(),
        source: Source { encoding: 0, epoch: 0 },
        kind,
        cut: Cut::NONE,
    }
}

/// Voice is what the server makes itself, for these tests.
fn class(descriptor: &Descriptor) -> Class {
    match descriptor.kind {
        Kind::Media => Class::Video,
        Kind::Retransmission => Class::Repair,
        _ => Class::Prompt,
    }
}

/// 4 Mbit/s: a packet of 1,000 bytes each 2 ms.
const PACE: Pace = Pace {
    bypass: BYPASS,
    rate: Bitrate(4_000_000),
    quantum: QUANTUM,
    is_probe: false,
};

struct World {
    queue: SendQueue,
    now: Instant,
    slot: Slot,
    scratch: Vec<Descriptor>,
    refused: usize,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut queue = SendQueue::new(now);
        queue.packet = 1000.0;
        Self {
            queue,
            now,
            slot: Slots::default().insert(()),
            scratch: Vec::new(),
            refused: 0,
        }
    }

    /// One turn: what leaves, as kind and number.
    fn turn(&mut self, queued: &[(Kind, u64)]) -> Vec<(Kind, u64)> {
        self.turn_at(PACE, queued)
    }

    fn turn_at(&mut self, pace: Pace, queued: &[(Kind, u64)]) -> Vec<(Kind, u64)> {
        let mut queued: Vec<_> = queued
            .iter()
            .map(|(kind, n)| descriptor(self.slot, *n, *kind))
            .collect();
        let size = |_: &Descriptor| Some(1000);
        self.refused += self
            .queue
            .admit(self.now, pace, &mut queued, &mut self.scratch, class, size);
        queued.iter().for_each(|_| self.queue.spend(Share::Picture, 1000));
        self.queue.plan(self.now, Some(pace), Duration::from_millis(1));
        queued.iter().map(|gone| (gone.kind, gone.sequence_out)).collect()
    }

    /// Time passes to the next release, which lets this leave.
    fn next(&mut self) -> Vec<(Kind, u64)> {
        self.now = self.queue.poll_timeout().unwrap();
        self.turn(&[])
    }
}

#[test]
fn an_ordinary_frame_leaves_in_its_turn() {
    let mut world = World::new();
    let frame: Vec<_> = (0..8).map(|n| (Kind::Media, n)).collect();
    assert_eq!(world.turn(&frame), frame);
    assert!(world.queue.is_empty());
    assert_eq!(world.queue.poll_timeout(), None);
    world.now += Duration::from_millis(33);
    assert_eq!(world.turn(&frame), frame);
}

#[test]
fn a_path_without_a_queue_takes_a_frame_of_40_ms_at_once() {
    let mut world = World::new();
    let frame: Vec<_> = (0..20).map(|n| (Kind::Media, n)).collect();
    let calm = Pace {
        bypass: CALM_BYPASS,
        ..PACE
    };
    assert_eq!(world.turn_at(calm, &frame), frame);
    // What it owes is paid before the next leaves so.
    world.now += Duration::from_millis(33);
    assert_ne!(world.turn_at(calm, &frame), frame);
}

#[test]
fn a_busy_server_keeps_the_rate_and_fills_a_probe_though_its_turns_are_long() {
    let mut world = World::new();
    let turn = Duration::from_millis(20);
    // 1,000 bytes each 2 ms: what a turn lets leave of a queue that is never empty.
    let frame: Vec<_> = (0..300).map(|n| (Kind::Media, n)).collect();
    let mut left = world.turn(&frame).len();
    for _ in 0..10 {
        world.now += turn;
        left += world.turn(&[]).len();
    }
    assert!((100..=106).contains(&left), "{left} in 200 ms");

    let mut world = World::new();
    let probe = Pace {
        is_probe: true,
        quantum: PROBE_QUANTUM,
        ..PACE
    };
    world.now += Duration::from_secs(1); // nothing of this is made up for
    let mut filled = Vec::new();
    for _ in 0..4 {
        world.turn_at(probe, &[]);
        let mut fills = 0;
        while world.queue.wants_fill(probe) {
            world.queue.spend(Share::Probe, 1000);
            fills += 1;
        }
        world.queue.plan(world.now, Some(probe), Duration::from_millis(1));
        filled.push(fills);
        world.now += turn;
    }
    assert_eq!(filled, [1, 10, 10, 10]);
}

#[test]
fn a_large_frame_leaves_in_quanta_and_a_voice_overtakes_it() {
    let mut world = World::new();
    let frame: Vec<_> = (0..100).map(|n| (Kind::Media, n)).collect();
    // 20 ms at once.
    let first = world.turn(&frame);
    assert_eq!(first, frame[..10]);
    let start = world.now;
    let voice = world.turn(&[(Kind::Generated, 7)]);
    assert_eq!(voice, [(Kind::Generated, 7)]);
    let repair: Vec<_> = world
        .turn(&[(Kind::Retransmission, 1)])
        .into_iter()
        .chain(world.next())
        .collect();
    assert_eq!(repair[0], (Kind::Retransmission, 1), "before the rest of the frame");
    let mut left = 10 + repair.len() - 1;
    while !world.queue.is_empty() {
        let quantum = world.next();
        assert!((1..=4).contains(&quantum.len()), "{}", quantum.len());
        left += quantum.len();
    }
    assert_eq!(left, 100);
    let took = world.now - start;
    assert!((190..=210).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn probes_fill_only_what_nothing_else_waits_for() {
    let mut world = World::new();
    let probe = Pace {
        is_probe: true,
        quantum: PROBE_QUANTUM,
        ..PACE
    };
    world.turn_at(probe, &[]);
    assert!(world.queue.wants_fill(probe));
    let frame: Vec<_> = (0..10).map(|n| (Kind::Media, n)).collect();
    let mut left = world.turn_at(probe, &frame).len();
    while !world.queue.is_empty() {
        assert!(!world.queue.wants_fill(probe), "{left} of 10 have left");
        world.now = world.queue.poll_timeout().unwrap();
        left += world.turn_at(probe, &[]).len();
    }
    assert_eq!(left, 10);
    world.now = world.queue.poll_timeout().unwrap();
    world.turn_at(probe, &[]);
    assert!(world.queue.wants_fill(probe));

    // What was let leave and was not there any more has left room: for the frame, not for probes.
    let mut queued: Vec<_> = frame
        .iter()
        .map(|(kind, n)| descriptor(world.slot, *n, *kind))
        .collect();
    let size = |_: &Descriptor| Some(1000);
    world
        .queue
        .admit(world.now, probe, &mut queued, &mut world.scratch, class, size);
    assert!((1..10).contains(&queued.len()));
    assert!(!world.queue.wants_fill(probe));
}

#[test]
fn what_would_wait_too_long_is_cut() {
    let mut world = World::new();
    let frame: Vec<_> = (0..300).map(|n| (Kind::Media, n)).collect();
    world.turn(&frame[..240]);
    assert_eq!(world.queue.overflow(PACE.rate, |_| 0), None);
    world.turn(&frame[240..]);
    assert_eq!(world.queue.overflow(PACE.rate, |_| 0), Some((world.slot, 299)));
    let cut = world.queue.cut(world.slot);
    assert!((290..300).contains(&cut), "{cut}");
    assert!(world.queue.is_empty());
}

#[test]
fn who_fills_the_queue_is_cut_not_who_came_last() {
    let mut world = World::new();
    let mut slots = Slots::default();
    let (camera, screen) = (slots.insert(()), slots.insert(()));
    // A camera's frame, a screen's key frame, and frames of the camera behind it.
    for (slot, numbers) in [(camera, 0..8), (screen, 0..260), (camera, 8..24)] {
        world.slot = slot;
        world.turn(&numbers.map(|n| (Kind::Media, n)).collect::<Vec<_>>());
    }
    assert_eq!(world.queue.overflow(PACE.rate, |_| 0), Some((screen, 259)));
    assert!(world.queue.cut(screen) > 200);
    assert_eq!(world.queue.overflow(PACE.rate, |_| 0), None);
    assert!(world.queue.video.iter().all(|waits| waits.subscription == camera));
    assert!(world.queue.len() >= 16, "the camera goes on");
}

#[test]
fn a_screen_is_not_cut_where_cameras_can_be() {
    let mut world = World::new();
    let mut slots = Slots::default();
    let [screen, first, second] = [(); 3].map(|()| slots.insert(()));
    for (slot, count) in [(screen, 180), (first, 40), (second, 60)] {
        world.slot = slot;
        world.turn(&(0..count).map(|n| (Kind::Media, n)).collect::<Vec<_>>());
    }
    let cut = world.queue.overflow(PACE.rate, |slot| slot == screen);
    assert_eq!(cut, Some((second, 59)), "the larger of the cameras");
    world.queue.cut(second);
    assert_eq!(world.queue.overflow(PACE.rate, |slot| slot == screen), None);
}

#[test]
fn retransmissions_have_a_limit() {
    let mut world = World::new();
    let repairs: Vec<_> = (0..300).map(|n| (Kind::Retransmission, n)).collect();
    world.turn(&repairs);
    assert_eq!(world.refused, 300 - MAX_REPAIRS);
}

#[test]
fn the_repair_budget_is_a_share_of_what_is_sent() {
    for (loss, share) in [(0.0, 0.2f64), (0.05, 0.2), (0.2, 0.375), (0.3, 0.643), (0.9, 1.5)] {
        let mut budget = RepairBudget::default();
        while budget.take(100, loss, 0.0) {}
        let mut taken = 0.0;
        for _ in 0..10_000 {
            budget.earn(1000);
            while budget.take(100, loss, 0.0) {
                taken += 100.0;
            }
        }
        let part = taken / 1e7;
        assert!((part - share).abs() < 0.01, "{loss}: {part}");
    }
}

#[test]
fn what_is_spare_leaves_the_reserve_alone() {
    let mut budget = RepairBudget::default();
    while budget.take(1000, 0.3, RepairBudget::RESERVE) {}
    let kept = std::iter::from_fn(|| budget.take(1000, 0.3, 0.0).then_some(1000.0)).sum::<f64>();
    assert!((kept - RepairBudget::RESERVE).abs() <= 1000.0, "{kept}");
}
