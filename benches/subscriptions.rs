//! What sending to one participant costs, by how much it is subscribed to and by what its client reports.
//!
//! ```sh
//! cargo bench --bench subscriptions
//! ```
//!
//! One shard on virtual time, no sockets: the figures are CPU time of the core, sealing included. A participant has N small
//! cameras of 15 frames a second and two packets a frame before it. All clients send receiver reports each second. Those of
//! "losses" say nothing else, so that neither estimator nor allocator nor pacer limits anything: the figures of forwarding
//! alone. "remb" clients add an estimate each second that carries everything, "arrivals" clients transport-wide feedback
//! every 50 ms (Chromium: 50 to 100). What they cost more, per subscription, is the price of estimator, allocator and pacer.

#![allow(unsafe_code)] // a counting allocator is an `unsafe impl`; it only adds up and calls the system's

#[allow(dead_code)] // packets are counted here by viewer
mod in_memory;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use in_memory::{Client, ROOM, SERVER, extensions, join, path, vp8};
use patchbay::media::edge::{Command, EncodingParameters, Publish, Subscribe, SubscriptionSettings};
use patchbay::media::{Shard, ShardConfig};
use patchbay::rtc::{DtlsIdentity, SEAL_OVERHEAD};
use patchbay::rtp::rtcp::{self, ReportBlock};
use patchbay::rtp::{RtpHeader, RtpPacket};
use patchbay::types::{
    Batch, CodecParameters, DropReason, MAX_DATAGRAM, MediaKind, Mid, NetPath, ParticipantHandle, Pt, Ssrc,
    SubscriptionHandle, TrackHandle, TransportHandle, WallClock,
};

const FRAME_INTERVAL: Duration = Duration::from_micros(66_667);
const PACKETS_A_FRAME: u32 = 2;
/// Of a thumbnail of 36 kbit/s: 200 of them fit what an estimate reaches within seconds.
const PAYLOAD: usize = 150;
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Until the estimate carries everything and all tables have their size.
const WARM_FRAMES: u32 = 150;
const FRAMES: u32 = 150;
/// Of each row the least is said: what else this machine does only adds.
const ROUNDS: usize = 5;
const MOST: usize = 200;
/// SSRCs of the tracks, of what viewers are sent, and of retransmissions begin here.
const PUBLISHED: u32 = 10_000;
const SUBSCRIBED: u32 = 20_000;
const REPAIRS: u32 = 40_000;
/// Between the SSRCs of two viewers.
const OF_VIEWER: u32 = 1_000;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts the bytes that are allocated.
struct Counting;

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reports {
    Losses,
    Remb,
    Arrivals,
}

fn main() {
    println!(
        "subscriptions  client    sent %  ns/packet  us/subscription/s: media  reports  timers  us to subscribe  us/setting"
    );
    for subscriptions in [10, 50, MOST] {
        for reports in [Reports::Losses, Reports::Remb, Reports::Arrivals] {
            let runs = (0..ROUNDS).map(|_| measure(subscriptions, reports));
            let run = runs.reduce(Run::least).expect("rounds");
            let each = |spent: Duration| spent.as_secs_f64() * 1e6 / subscriptions as f64;
            let seconds = FRAME_INTERVAL.as_secs_f64() * f64::from(FRAMES);
            let spent = run.spent;
            println!(
                "{subscriptions:>13}  {:<8}  {:>6.1}  {:>9.0}  {:>24.1}  {:>7.1}  {:>6.1}  {:>15.1}  {:>10.1}",
                format!("{reports:?}").to_lowercase(),
                100.0 * run.packets as f64 / (subscriptions * (FRAMES * PACKETS_A_FRAME) as usize) as f64,
                (spent.media + spent.reports + spent.timers).as_nanos() as f64 / run.packets as f64,
                each(spent.media) / seconds,
                each(spent.reports) / seconds,
                each(spent.timers) / seconds,
                each(run.subscribing),
                each(run.setting),
            );
        }
    }
    println!("\nsubscriptions  bytes of each beyond the first ten, the rings not counted");
    const FIRST: usize = 10;
    let first = memory(FIRST);
    for subscriptions in [50, MOST] {
        let bytes = memory(subscriptions).saturating_sub(first);
        println!("{subscriptions:>13}  {:>6}", bytes / (subscriptions - FIRST));
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// Taking in packets and sending them on.
    media: Duration,
    reports: Duration,
    timers: Duration,
}

struct Run {
    spent: Spent,
    packets: usize,
    /// To subscribe to everything, one after the other, and to ask for another layer of everything.
    subscribing: Duration,
    setting: Duration,
}

impl Run {
    fn least(self, other: Self) -> Self {
        Self {
            spent: Spent {
                media: self.spent.media.min(other.spent.media),
                reports: self.spent.reports.min(other.spent.reports),
                timers: self.spent.timers.min(other.spent.timers),
            },
            packets: self.packets.min(other.packets),
            subscribing: self.subscribing.min(other.subscribing),
            setting: self.setting.min(other.setting),
        }
    }
}

/// What one viewer was sent.
struct Told {
    packets: usize,
    /// Of media, retransmissions and probes not counted.
    media: usize,
    /// By subscription: extended, from the first on.
    highest: [u32; MOST],
}

struct Counted {
    slot: Vec<u8>,
    /// By viewer; their addresses end in 2 and 3.
    to: [Told; 2],
}

impl Counted {
    fn new() -> Self {
        let told = || Told {
            packets: 0,
            media: 0,
            highest: [0; MOST],
        };
        Self {
            slot: vec![0; MAX_DATAGRAM],
            to: [told(), told()],
        }
    }
}

impl Batch for Counted {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        let viewer = match path.remote.ip() {
            std::net::IpAddr::V4(address) => usize::from(address.octets()[3]).wrapping_sub(2),
            std::net::IpAddr::V6(_) => return,
        };
        // RTP, and not RTCP (RFC 5761 §4).
        if self.slot[0] >> 6 != 2 || (64..96).contains(&(self.slot[1] & 0x7f)) {
            return;
        }
        let (Some(told), Ok(packet)) = (self.to.get_mut(viewer), RtpPacket::parse(&self.slot[..len])) else {
            return;
        };
        told.packets += 1;
        let at = packet.ssrc().0.wrapping_sub(SUBSCRIBED + OF_VIEWER * viewer as u32) as usize;
        if let Some(highest) = told.highest.get_mut(at) {
            told.media += 1;
            *highest = match *highest {
                0 => u32::from(packet.sequence()),
                known => known.wrapping_add_signed(i32::from(packet.sequence().wrapping_sub(known as u16) as i16)),
            };
        }
    }
}

/// One that looks at everything.
struct Viewer {
    client: Client,
    reports: Reports,
    subscriptions: usize,
    /// Packets that were reported on.
    reported: usize,
    count: u8,
    next_feedback: Instant,
    next_report: Instant,
}

struct Stage {
    shard: Shard,
    identity: DtlsIdentity,
    publisher: Client,
    viewers: Vec<Viewer>,
    sent: Counted,
    tracks: usize,
    frame: u32,
    start: Instant,
    now: Instant,
    spent: Spent,
    arrivals: Vec<Option<i64>>,
}

impl Stage {
    fn new(tracks: usize) -> Self {
        let mut now = Instant::now();
        let identity = DtlsIdentity::generate().expect("an identity");
        let wall = WallClock::new(now, Duration::from_secs(1_800_000_000));
        let mut shard = Shard::new(ShardConfig::new(vec![SERVER.into()], identity.clone(), 1, wall), now);
        let room = Command::OpenRoom {
            room: ROOM,
            sif_trailer: Vec::new(),
            audio_last_n: 0,
        };
        shard.handle_command(now, room);
        let publisher = join(&mut shard, &identity, &mut now, 1);
        for track in 0..tracks {
            shard.handle_command(now, publish(track));
        }
        Self {
            shard,
            identity,
            publisher,
            viewers: Vec::new(),
            sent: Counted::new(),
            tracks,
            frame: 0,
            start: now,
            now,
            spent: Spent::default(),
            arrivals: Vec::with_capacity(1 << 10),
        }
    }

    fn join(&mut self, reports: Reports) {
        let number = 2 + self.viewers.len() as u64;
        let client = join(&mut self.shard, &self.identity, &mut self.now, number);
        self.viewers.push(Viewer {
            client,
            reports,
            subscriptions: 0,
            reported: 0,
            count: 0,
            next_feedback: self.now,
            next_report: self.now + REPORT_INTERVAL,
        });
    }

    /// How long that takes.
    fn subscribe(&mut self, viewer: usize, subscriptions: usize) -> Duration {
        let reports = self.viewers[viewer].reports;
        let commands: Vec<Command> = (0..subscriptions)
            .map(|track| subscribe(viewer, track, reports))
            .collect();
        self.viewers[viewer].subscriptions = subscriptions;
        let at = Instant::now();
        for command in commands {
            self.shard.handle_command(self.now, command);
        }
        at.elapsed()
    }

    /// A frame of each camera; they are not in step.
    fn run_frame(&mut self) {
        for track in 0..self.tracks {
            for packet in 0..PACKETS_A_FRAME {
                let mut buf = [7u8; PAYLOAD + SEAL_OVERHEAD + 64];
                let header = RtpHeader {
                    marker: packet + 1 == PACKETS_A_FRAME,
                    pt: Pt(96),
                    sequence: (self.frame * PACKETS_A_FRAME + packet) as u16,
                    timestamp: self.frame * 6000,
                    ssrc: Ssrc(PUBLISHED + track as u32),
                };
                let header_len = header.write(&mut buf, &extensions(true), &[]).expect("room").len;
                // VP8: start of a frame, and the frame tag's lowest bit (0 = key frame). One every second.
                buf[header_len] = if packet == 0 { 0x10 } else { 0 };
                buf[header_len + 1] = u8::from(!self.frame.is_multiple_of(15));
                let len = header_len + PAYLOAD;
                let rtc = &mut self.publisher.rtc;
                let len = rtc.seal_rtp(&mut buf, header_len, len, 0).expect("sealed");
                let from = path(self.publisher.address);
                let at = Instant::now();
                self.shard.handle_datagram(self.now, from, &mut buf[..len]);
                self.shard.poll_transmit(self.now, &mut self.sent);
                self.spent.media += at.elapsed();
            }
            self.now += FRAME_INTERVAL / self.tracks as u32;
            let at = Instant::now();
            if self.shard.poll_timeout().is_some_and(|due| due <= self.now) {
                self.shard.handle_timeout(self.now);
                self.shard.poll_transmit(self.now, &mut self.sent);
            }
            self.spent.timers += at.elapsed();
            (0..self.viewers.len()).for_each(|viewer| self.report(viewer));
        }
        while self.shard.poll_event().is_some() {}
        self.frame += 1;
    }

    fn report(&mut self, viewer: usize) {
        const ME: Ssrc = Ssrc(1);
        let reports = self.viewers[viewer].reports;
        let first_ssrc = Ssrc(SUBSCRIBED + OF_VIEWER * viewer as u32);
        if reports == Reports::Arrivals && self.now >= self.viewers[viewer].next_feedback {
            self.viewers[viewer].next_feedback = self.now + FEEDBACK_INTERVAL;
            let (from, to) = (self.viewers[viewer].reported, self.sent.to[viewer].packets);
            self.viewers[viewer].reported = to;
            // 20 ms behind the departure, in ticks of 250 us.
            let arrival = (self.now - self.start).as_micros() as i64 / 250 + 80;
            let mut arrivals = std::mem::take(&mut self.arrivals);
            arrivals.clear();
            arrivals.resize(to - from, Some(arrival));
            let mut done = 0;
            while done < arrivals.len() {
                let count = self.viewers[viewer].count;
                let part = &arrivals[done..arrivals.len().min(done + 400)];
                // Numbers begin at 1.
                let base = (from + done + 1) as u16;
                self.send(viewer, |writer| {
                    done += writer.transport_feedback(ME, first_ssrc, base, count, part)?;
                    Ok(())
                });
                self.viewers[viewer].count = count.wrapping_add(1);
            }
            self.arrivals = arrivals;
        }
        if self.now < self.viewers[viewer].next_report {
            return;
        }
        self.viewers[viewer].next_report = self.now + REPORT_INTERVAL;
        let highest = self.sent.to[viewer].highest;
        let blocks: Vec<ReportBlock> = (0u32..)
            .zip(&highest[..self.viewers[viewer].subscriptions])
            .filter(|(_, highest)| **highest > 0)
            .map(|(at, highest)| ReportBlock {
                ssrc: Ssrc(first_ssrc.0 + at),
                fraction_lost: 0,
                cumulative_lost: 0,
                highest_sequence: *highest,
                jitter: 0,
                last_sender_report: 0,
                delay_since_last_sender_report: 0,
            })
            .collect();
        for blocks in blocks.chunks(31) {
            self.send(viewer, |writer| writer.receiver_report(ME, blocks));
        }
        if reports == Reports::Remb {
            self.send(viewer, |writer| writer.remb(ME, 100_000_000, &[first_ssrc]));
        }
    }

    fn send(&mut self, viewer: usize, write: impl FnOnce(&mut rtcp::Writer<'_>) -> Result<(), DropReason>) {
        let mut buf = [0; 1500];
        let mut writer = rtcp::Writer::new(&mut buf);
        write(&mut writer).expect("room");
        let len = writer.len();
        let client = &mut self.viewers[viewer].client;
        let len = client.rtc.seal_rtcp(&mut buf, len).expect("sealed");
        let from = path(client.address);
        let at = Instant::now();
        self.shard.handle_datagram(self.now, from, &mut buf[..len]);
        self.shard.poll_transmit(self.now, &mut self.sent);
        self.spent.reports += at.elapsed();
    }
}

fn publish(track: usize) -> Command {
    Command::Publish(Box::new(Publish {
        room: ROOM,
        participant: ParticipantHandle(1),
        track: TrackHandle(1 + track as u64),
        transport: TransportHandle(1),
        mid: Mid::new(&track.to_string()).expect("a mid"),
        kind: MediaKind::Video,
        codecs: vp8(),
        extensions: extensions(true),
        encodings: vec![EncodingParameters {
            rid: None,
            ssrc: Some(Ssrc(PUBLISHED + track as u32)),
            rtx_ssrc: None,
        }],
        muted: false,
        is_screen: false,
        encrypted: false,
    }))
}

fn handle(viewer: usize, track: usize) -> SubscriptionHandle {
    SubscriptionHandle((1 + viewer * OF_VIEWER as usize + track) as u64)
}

fn subscribe(viewer: usize, track: usize, reports: Reports) -> Command {
    let number = 2 + viewer as u64;
    let offset = OF_VIEWER * viewer as u32 + track as u32;
    let codec = |codec: CodecParameters| CodecParameters {
        transport_cc: reports == Reports::Arrivals,
        remb: reports == Reports::Remb,
        ..codec
    };
    Command::Subscribe(Box::new(Subscribe {
        room: ROOM,
        participant: ParticipantHandle(number),
        subscription: handle(viewer, track),
        track: TrackHandle(1 + track as u64),
        transport: TransportHandle(number),
        mid: Mid::new(&track.to_string()).expect("a mid"),
        codecs: vp8().into_iter().map(codec).collect(),
        extensions: extensions(reports == Reports::Arrivals),
        ssrc: Ssrc(SUBSCRIBED + offset),
        rtx_ssrc: Some(Ssrc(REPAIRS + offset)),
        cname: "cname".into(),
        strip_packet_trailer: false,
        settings: SubscriptionSettings::default(),
    }))
}

fn measure(subscriptions: usize, reports: Reports) -> Run {
    let mut stage = Stage::new(subscriptions);
    stage.join(reports);
    let subscribing = stage.subscribe(0, subscriptions);
    (0..WARM_FRAMES).for_each(|_| stage.run_frame());
    let before = stage.sent.to[0].media;
    stage.spent = Spent::default();
    (0..FRAMES).for_each(|_| stage.run_frame());
    let (spent, packets) = (stage.spent, stage.sent.to[0].media - before);
    let at = Instant::now();
    for track in 0..subscriptions {
        let mut settings = SubscriptionSettings::default();
        settings.max_layer.temporal = 1;
        let subscription = handle(0, track);
        stage
            .shard
            .handle_command(stage.now, Command::UpdateSubscription { subscription, settings });
    }
    Run {
        setting: at.elapsed(),
        subscribing,
        spent,
        packets,
    }
}

/// Bytes that a participant's transport and its subscriptions hold once warm. The rings are another subscriber's as well
/// and have their size before.
fn memory(subscriptions: usize) -> usize {
    let mut stage = Stage::new(subscriptions.max(10));
    stage.join(Reports::Arrivals);
    stage.subscribe(0, stage.tracks);
    (0..WARM_FRAMES).for_each(|_| stage.run_frame());
    let before = LIVE.load(Ordering::Relaxed);
    stage.join(Reports::Arrivals);
    stage.subscribe(1, subscriptions);
    (0..WARM_FRAMES).for_each(|_| stage.run_frame());
    LIVE.load(Ordering::Relaxed).saturating_sub(before)
}
