//! The estimate over links with a rate, a queue, loss and jitter, in virtual time: what it must find and how soon.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::{INITIAL, SendingRate};
use crate::media::pacing::{PROBE_QUANTUM, Pacing, QUANTUM};
use crate::media::transport_feedback::FeedbackGenerator;
use crate::rtp::rtcp::{self, Packet};
use crate::types::{Bitrate, Ssrc};

const STEP: Duration = Duration::from_millis(1);
const PACKET: usize = 1200;

#[derive(Clone, Copy)]
struct Link {
    /// Bits a second.
    rate: f64,
    /// What the queue before it holds, as time.
    queue: Duration,
    /// One way.
    delay: Duration,
    jitter: Duration,
    loss: f64,
    feedback_loss: f64,
    /// Part of the packets that comes up to 20 ms late.
    reordered: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            rate: 10e6,
            queue: Duration::from_millis(300),
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: 0.0,
            feedback_loss: 0.0,
            reordered: 0.0,
        }
    }
}

/// What the sender would send.
#[derive(Clone, Copy)]
enum Media {
    /// As much as is estimated.
    Greedy,
    /// So many bits a second, whatever is estimated.
    Fixed(f64),
    /// The best of a camera's three layers that fits.
    Layers,
}

struct World {
    now: Instant,
    start: Instant,
    link: Link,
    media: Media,
    rate: SendingRate,
    pacing: Pacing,
    queue: VecDeque<usize>,
    owed: f64,
    next_frame: Instant,
    busy: Instant,
    last_arrival: Instant,
    arrivals: BinaryHeap<Reverse<(Instant, u16)>>,
    receiver: FeedbackGenerator,
    feedback: VecDeque<(Instant, Vec<u8>)>,
    scratch: Vec<super::Acknowledged>,
    seed: u64,
    sent: u64,
    overflowed: u64,
    /// (time, estimate, delay of the link's queue), every 10 ms.
    trace: Vec<(Duration, f64, Duration)>,
    rate_feedback: bool,
}

impl World {
    fn new(link: Link, media: Media, seed: u64) -> Self {
        let start = Instant::now();
        let mut rate = SendingRate::new(start);
        rate.set_demand(Bitrate(30_000_000));
        Self {
            now: start,
            start,
            link,
            media,
            rate,
            pacing: Pacing::new(start),
            queue: VecDeque::new(),
            owed: 0.0,
            next_frame: start,
            busy: start,
            last_arrival: start,
            arrivals: BinaryHeap::new(),
            receiver: FeedbackGenerator::new(start),
            feedback: VecDeque::new(),
            scratch: Vec::new(),
            seed,
            sent: 0,
            overflowed: 0,
            trace: Vec::new(),
            rate_feedback: true,
        }
    }

    fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn estimate(&self) -> f64 {
        self.rate.estimate().unwrap().0 as f64
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_secs_f64(seconds);
        while self.now < end {
            self.now += STEP;
            self.produce();
            self.send();
            self.receive();
            if self.rate.poll_timeout().is_some_and(|at| at <= self.now) {
                self.rate.handle_timeout(self.now);
            }
            if (self.now - self.start).as_millis().is_multiple_of(10) {
                let queued = self.busy.saturating_duration_since(self.now);
                self.trace.push((self.now - self.start, self.estimate(), queued));
            }
        }
    }

    fn produce(&mut self) {
        if self.now < self.next_frame {
            return;
        }
        self.next_frame += Duration::from_micros(33_333);
        let estimate = self.estimate();
        let rate = match self.media {
            Media::Greedy => estimate,
            Media::Fixed(rate) => rate,
            Media::Layers => [150e3, 500e3, 1.7e6, 2.5e6]
                .into_iter()
                .filter(|rate| *rate <= estimate)
                .fold(150e3, f64::max),
        };
        self.owed += rate / 30.0 / 8.0;
        while self.owed >= PACKET as f64 {
            self.owed -= PACKET as f64;
            self.queue.push_back(PACKET);
        }
        if self.owed > 200.0 {
            self.queue.push_back(self.owed as usize);
            self.owed = 0.0;
        }
    }

    fn send(&mut self) {
        let probe = self.rate.probe();
        let paced = Bitrate((self.estimate() * 1.05) as u64);
        let (rate, quantum) = match probe {
            Some(probe) => (probe.max(paced), PROBE_QUANTUM),
            None => (paced, QUANTUM),
        };
        self.pacing.settle(self.now, rate, !self.queue.is_empty());
        while self.pacing.room(rate, quantum) > 0.0 {
            if let Some(size) = self.queue.pop_front() {
                self.transmit(size);
            } else if let Some(probe) = self.rate.probe() {
                self.transmit(if probe.0 < 1_000_000 { 255 } else { 1000 });
            } else {
                break;
            }
        }
    }

    fn transmit(&mut self, size: usize) {
        self.pacing.spend(size);
        let sequence = self.rate.next_sequence();
        self.rate.handle_sent(self.now, size, true);
        self.sent += 1;
        if self.random() < self.link.loss {
            return;
        }
        if self.busy.saturating_duration_since(self.now) > self.link.queue {
            self.overflowed += 1;
            return;
        }
        self.busy = self.busy.max(self.now) + Duration::from_secs_f64(size as f64 * 8.0 / self.link.rate);
        let jitter = self.link.jitter.mul_f64(self.random());
        let mut arrival = (self.busy + self.link.delay + jitter).max(self.last_arrival);
        self.last_arrival = arrival;
        if self.random() < self.link.reordered {
            arrival += Duration::from_millis(20).mul_f64(self.random());
        }
        self.arrivals.push(Reverse((arrival, sequence)));
    }

    fn receive(&mut self) {
        while let Some(Reverse((at, sequence))) = self.arrivals.peek().copied().filter(|first| first.0.0 <= self.now) {
            self.arrivals.pop();
            self.receiver.handle_packet(sequence, at);
        }
        loop {
            let mut buf = [0; 1200];
            let mut out = rtcp::Writer::new(&mut buf);
            if !self.receiver.write(self.now, Ssrc(1), Ssrc(2), &mut out).unwrap() {
                break;
            }
            let len = out.len();
            if self.rate_feedback && self.random() >= self.link.feedback_loss {
                self.feedback
                    .push_back((self.now + self.link.delay, buf[..len].to_vec()));
            }
        }
        while self.feedback.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, bytes) = self.feedback.pop_front().unwrap();
            self.report(&bytes);
        }
    }

    fn report(&mut self, bytes: &[u8]) {
        for packet in rtcp::parse(bytes) {
            if let Ok(Packet::TransportFeedback(feedback)) = packet {
                self.rate.handle_feedback(self.now, &feedback, &mut self.scratch);
            }
        }
    }

    /// Estimates between two moments, smallest and largest, and the delay that 95 % of the time is not exceeded.
    fn measured(&self, from: f64, to: f64) -> (f64, f64, Duration) {
        let window = self
            .trace
            .iter()
            .filter(|(at, ..)| (from..to).contains(&at.as_secs_f64()));
        let (mut least, mut most, mut delays) = (f64::MAX, 0.0f64, Vec::new());
        for (_, estimate, delay) in window {
            least = least.min(*estimate);
            most = most.max(*estimate);
            delays.push(*delay);
        }
        delays.sort_unstable();
        (least, most, delays[delays.len() * 95 / 100])
    }
}

const LINKS: [f64; 6] = [0.2e6, 0.5e6, 1e6, 2e6, 5e6, 10e6];

fn check_constant(media: impl Fn(f64) -> Media, name: &str) {
    let mut wrong = Vec::new();
    for rate in LINKS {
        for seed in 0..3 {
            let link = Link {
                rate,
                ..Link::default()
            };
            let mut world = World::new(link, media(rate), seed);
            world.run(10.0);
            (world.sent, world.overflowed) = (0, 0);
            world.run(50.0);
            let (least, most, delay) = world.measured(10.0, 60.0);
            let (low, high) = (least / rate, most / rate);
            let lost = world.overflowed as f64 / world.sent as f64;
            println!("{name} {rate}: {low:.3}..{high:.3} p95 {delay:?} lost {lost:.4}");
            // On the slowest a single packet takes 48 ms.
            let one = Duration::from_secs_f64(PACKET as f64 * 8.0 / rate);
            if low < 0.85 || high > 1.05 + one.as_secs_f64() || delay > Duration::from_millis(60) + one || lost > 0.01 {
                wrong.push((rate, low, high, delay, lost));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn finds_a_constant_link_that_media_fills() {
    check_constant(|_| Media::Greedy, "greedy");
}

#[test]
fn finds_a_constant_link_that_media_uses_in_part() {
    check_constant(|rate| Media::Fixed(rate * 0.6), "60 %");
}

#[test]
fn finds_a_constant_link_under_layers() {
    check_constant(|_| Media::Layers, "layers");
}

#[test]
fn follows_a_link_down_and_up_again() {
    for (media, name) in [(Media::Layers, "layers"), (Media::Greedy, "greedy")] {
        for seed in 0..5 {
            let mut world = World::new(Link::default(), media, seed);
            world.run(15.0);
            world.link.rate = 0.8e6;
            // What waits at the moment of the change goes on waiting at the new rate.
            world.run(20.0);
            let queued_late = world
                .trace
                .iter()
                .rev()
                .find(|(at, _, delay)| at.as_secs_f64() < 35.0 && *delay > Duration::from_millis(150))
                .map_or(0.0, |(at, ..)| at.as_secs_f64() - 15.0);
            let (least, most, _) = world.measured(25.0, 35.0);
            world.link.rate = 10e6;
            world.run(15.0);
            let back = |rate: f64| {
                let first = world
                    .trace
                    .iter()
                    .find(|(at, estimate, _)| at.as_secs_f64() > 35.0 && *estimate >= rate);
                first.map_or(f64::MAX, |(at, ..)| at.as_secs_f64() - 35.0)
            };
            let (two, three) = (back(2e6), back(3e6));
            println!(
                "{name}: queue over 150 ms until {queued_late:.2} s, then {:.2}..{:.2} of the link; 2 Mbit/s after {two:.2} s, 3 after {three:.2}",
                least / 0.8e6,
                most / 0.8e6
            );
            assert!(queued_late <= 3.0);
            assert!(two <= 4.0 && three <= 4.5);
            assert!(least > 0.7 * 0.8e6 && most < 1.1 * 0.8e6);
        }
    }
}

#[test]
fn random_loss_is_not_congestion() {
    for loss in [0.05, 0.1, 0.2, 0.3] {
        for seed in 0..5 {
            let link = Link {
                delay: Duration::from_millis(30),
                loss,
                feedback_loss: loss,
                ..Link::default()
            };
            let mut world = World::new(link, Media::Layers, seed);
            world.run(40.0);
            let (least, most, _) = world.measured(2.0, 40.0);
            println!("{loss}: {least:.0}..{most:.0}");
            assert!(least > 150e3);
            let (least, ..) = world.measured(10.0, 40.0);
            assert!(least > 1e6, "{loss}: {least}");
        }
    }
}

#[test]
fn jitter_and_reordering_are_not_congestion() {
    let jitter = Link {
        jitter: Duration::from_millis(50),
        ..Link::default()
    };
    let reordered = Link {
        reordered: 0.02,
        ..Link::default()
    };
    for (link, name) in [(jitter, "jitter"), (reordered, "reordered")] {
        for seed in 0..5 {
            let mut world = World::new(link, Media::Layers, seed);
            world.run(60.0);
            let (least, most, _) = world.measured(10.0, 60.0);
            println!("{name}: {least:.0}..{most:.0}");
            assert!(least > 2.5e6, "{name}: {least}");
        }
    }
}

#[test]
fn an_outage_ends_in_a_quick_return() {
    let mut world = World::new(Link::default(), Media::Layers, 1);
    world.run(10.0);
    world.link.loss = 1.0;
    world.run(3.0);
    assert!(world.estimate() < 5e6);
    world.link.loss = 0.0;
    world.run(4.0);
    assert!(world.estimate() > 2.5e6, "{}", world.estimate());
}

#[test]
fn nothing_is_probed_without_demand() {
    let mut world = World::new(Link::default(), Media::Fixed(40e3), 1);
    world.rate.set_demand(Bitrate::ZERO);
    world.run(10.0);
    assert!(world.sent < 350, "{}", world.sent);
    assert_eq!(world.estimate(), INITIAL.0 as f64);
}

#[test]
fn what_a_receiver_leaves_out_between_two_reports_is_lost() {
    // Of four packets three arrive. Each is reported by itself; `every`: of so many reports the last is missing.
    for (every, loss, delivered) in [(usize::MAX, 0.25, 600e3), (2, 0.0, 800e3)] {
        let mut world = World::new(Link::default(), Media::Fixed(0.0), 1);
        for n in 0..400usize {
            world.now += Duration::from_millis(10);
            world.rate.handle_sent(world.now, 1000, true);
            if n % 4 == 1 || n % every == every - 1 {
                continue;
            }
            let mut buf = [0; 64];
            let mut out = rtcp::Writer::new(&mut buf);
            let count = if every == 2 { n } else { n - n.div_ceil(4) };
            out.transport_feedback(Ssrc(1), Ssrc(2), n as u16 + 1, count as u8, &[Some(n as i64 * 40)])
                .unwrap();
            let len = out.len();
            world.report(&buf[..len]);
        }
        let seen = (world.rate.loss(), world.rate.delivered().unwrap().0 as f64);
        assert!((seen.0 - loss).abs() < 0.03, "{seen:?}, {loss}");
        assert!((seen.1 / delivered - 1.0).abs() < 0.1, "{seen:?}, {delivered}");
    }
}

#[test]
fn forged_feedback_does_no_harm() {
    let mut world = World::new(Link::default(), Media::Layers, 1);
    world.run(5.0);
    for n in 0..20_000u32 {
        let mut arrivals: Vec<Option<i64>> = (0..50)
            .map(|_| (world.random() < 0.7).then(|| (world.random() * 2e4) as i64 - 10_000))
            .collect();
        arrivals.push(Some(0));
        let mut buf = [0; 1200];
        let mut out = rtcp::Writer::new(&mut buf);
        let base = (world.random() * 65_536.0) as u16;
        let written = out.transport_feedback(Ssrc(1), Ssrc(2), base, n as u8, &arrivals);
        let len = out.len();
        if written.is_ok() {
            // Any reference time.
            let reference = (world.random() * 16_777_216.0) as u32;
            buf[16..19].copy_from_slice(&reference.to_be_bytes()[1..]);
            world.report(&buf[..len]);
        }
        let estimate = world.estimate();
        assert!(estimate.is_finite() && (40e3..=200e6).contains(&estimate));
    }
}

#[test]
fn a_client_that_reports_nothing_is_not_limited() {
    let mut world = World::new(Link::default(), Media::Fixed(1e6), 1);
    world.rate_feedback = false;
    assert_eq!(world.rate.estimate(), Some(INITIAL));
    for _ in 0..3_900 {
        world.now += STEP;
        world.produce();
        world.send();
    }
    assert_eq!(world.rate.estimate(), Some(INITIAL));
    world.now += Duration::from_millis(200);
    assert!(world.rate.poll_timeout().unwrap() <= world.now);
    world.rate.handle_timeout(world.now);
    assert_eq!(world.rate.estimate(), None);
    assert!(world.rate.take_change());
    world.rate.handle_remb(world.now, 700_000);
    assert_eq!(world.rate.estimate(), Some(Bitrate(700_000)));
    assert!(world.rate.take_change());
    assert!(!world.rate.take_change());
}

#[test]
fn loss_limits_where_there_is_nothing_else() {
    let start = Instant::now();
    let mut rate = SendingRate::new(start);
    let at = |ms: u64| start + Duration::from_millis(ms);
    for ms in 0..20_000 {
        rate.handle_sent(at(ms), 250, false); // 2 Mbit/s
        if ms % 1000 == 0 {
            rate.handle_loss(at(ms), if ms > 10_000 { 200 } else { 0 }, 1000);
        }
        if ms == 9_999 {
            assert_eq!(rate.estimate(), None);
        }
    }
    assert!(rate.estimate().unwrap().0 < 1_900_000);
}

#[test]
fn a_path_on_which_everything_was_stopped_is_looked_at_now_and_then() {
    for seed in 0..5 {
        let mut world = World::new(Link::default(), Media::Layers, seed);
        world.run(10.0);
        world.link.rate = 60e3;
        world.run(5.0);
        world.media = Media::Fixed(0.0);
        let sent = world.sent;
        world.run(20.0);
        let used = (world.sent - sent) as f64 / 20.0;
        assert!(world.estimate() < 70e3, "{}", world.estimate());
        assert!((0.5..6.0).contains(&used), "{used} packets a second");
        world.link.rate = 10e6;
        world.run(4.0);
        assert!(world.estimate() > 2e6, "{}", world.estimate());
    }
}
