//! What forwarding costs in memory: nothing allocated per packet once warm (DESIGN §6).
//!
//! Counts what the test's own thread allocates: the harness has others.

#![allow(unsafe_code)] // a counting allocator is an `unsafe impl`; it only adds up and calls the system's

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use patchbay::media::edge::{Command, EncodingParameters, Publish, Subscribe, SubscriptionSettings};
use patchbay::media::{RelayLink, Shard, ShardConfig, ShardStats};
use patchbay::rtc::{DtlsIdentity, SEAL_OVERHEAD};
use patchbay::rtp::{RtpHeader, rtcp, rtcp::NackPair};
use patchbay::types::{
    Batch, Codec, CodecParameters, DropReason, Extension, ExtensionMap, Layer, MAX_DATAGRAM, MediaKind, Mid, NetPath,
    ParticipantHandle, Pt, ShardIndex, Ssrc, SubscriptionHandle, TrackHandle, TransportHandle, WallClock,
};

// Handshakes need nothing that the benchmarks of the core do not have.
#[allow(dead_code)] // their codecs and counts are not those counted here
#[path = "../benches/in_memory/mod.rs"]
mod in_memory;

use in_memory::{Client, ROOM, SERVER, join, path};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SUBSCRIBERS: u64 = 10;
/// What each subscriber's streams have; those of retransmissions one more.
const CAMERA: Ssrc = Ssrc(1000);
const SCREEN: Ssrc = Ssrc(1002);
const VOICE: Ssrc = Ssrc(1004);

/// Counts datagrams.
struct Sent {
    slot: Vec<u8>,
    count: usize,
    /// By subscriber.
    to: [Told; SUBSCRIBERS as usize + 1],
}

/// What one subscriber was sent.
#[derive(Clone, Copy, Default)]
struct Told {
    /// All RTP packets: each has a transport-wide number.
    packets: usize,
    reported: usize,
    /// Of the camera's stream.
    sequence: u16,
}

impl Sent {
    fn new() -> Self {
        Self {
            slot: vec![0; MAX_DATAGRAM],
            count: 0,
            to: [Told::default(); _],
        }
    }
}

impl Batch for Sent {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, _len: usize) {
        self.count += 1;
        // RTP, and not RTCP (RFC 5761 §4).
        let is_rtp = self.slot[0] >> 6 == 2 && !(64..96).contains(&(self.slot[1] & 0x7f));
        if let (true, SocketAddr::V4(to)) = (is_rtp, path.remote)
            && let Some(told) = self.to.get_mut(usize::from(to.ip().octets()[3]))
        {
            told.packets += 1;
            if self.slot[8..12] == CAMERA.0.to_be_bytes() {
                told.sequence = u16::from_be_bytes([self.slot[2], self.slot[3]]);
            }
        }
    }
}

fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for (extension, id) in [
        (Extension::AbsSendTime, 2),
        (Extension::TransportCc, 3),
        (Extension::Mid, 4),
        (Extension::AudioLevel, 5),
        (Extension::DependencyDescriptor, 12),
    ] {
        map.insert(extension, id);
    }
    map
}

fn codec(codec: Codec) -> Vec<CodecParameters> {
    let (pt, rtx) = match codec {
        Codec::Vp8 => (96, Some(97)),
        Codec::Av1 => (98, Some(99)),
        _ => (111, None),
    };
    vec![CodecParameters {
        pt: Pt(pt),
        codec,
        rtx: rtx.map(Pt),
        nack: rtx.is_some(),
        pli: rtx.is_some(),
        fir: false,
        transport_cc: true,
        remb: false,
        fmtp: String::new(),
    }]
}

/// A track of the publisher's and everybody's subscription to it, both on the m-line of this number.
fn share(shard: &mut Shard, now: Instant, line: u64, of: Codec, encodings: &[u32], ssrc: Ssrc) {
    let publish = published(line, of, encodings);
    shard.handle_command(now, Command::Publish(Box::new(publish)));
    subscribe_all(shard, now, line, of, ssrc);
}

fn published(line: u64, of: Codec, encodings: &[u32]) -> Publish {
    let mid = Mid::new(&line.to_string()).expect("a mid");
    let described = encodings.iter().map(|ssrc| EncodingParameters {
        ssrc: Some(Ssrc(*ssrc)),
        ..EncodingParameters::default()
    });
    Publish {
        room: ROOM,
        participant: ParticipantHandle(100),
        track: TrackHandle(line),
        transport: TransportHandle(100),
        mid,
        kind: of.kind(),
        codecs: codec(of),
        extensions: extensions(),
        encodings: described.collect(),
        muted: false,
        is_screen: false,
        encrypted: false,
    }
}

fn subscribe_all(shard: &mut Shard, now: Instant, line: u64, of: Codec, ssrc: Ssrc) {
    let mid = Mid::new(&line.to_string()).expect("a mid");
    for number in 1..=SUBSCRIBERS {
        let subscribe = Subscribe {
            room: ROOM,
            participant: ParticipantHandle(number),
            subscription: SubscriptionHandle(line * 100 + number),
            track: TrackHandle(line),
            transport: TransportHandle(number),
            mid,
            codecs: codec(of),
            extensions: extensions(),
            ssrc,
            rtx_ssrc: (of.kind() == MediaKind::Video).then_some(Ssrc(ssrc.0 + 1)),
            cname: "cname".into(),
            strip_packet_trailer: false,
            settings: SubscriptionSettings::default(),
        };
        shard.handle_command(now, Command::Subscribe(Box::new(subscribe)));
    }
}

/// Assembles bytes from readable groups of bits.
fn bits(groups: &str) -> Vec<u8> {
    let bits: Vec<u8> = groups
        .bytes()
        .filter(|bit| *bit != b' ')
        .map(|bit| bit - b'0')
        .collect();
    let byte = |chunk: &[u8]| (0..8).fold(0, |byte, at| byte << 1 | chunk.get(at).copied().unwrap_or(0));
    bits.chunks(8).map(byte).collect()
}

/// The dependency descriptor of a key frame with two temporal layers (AV1 RTP specification A.8): its structure (templates,
/// decode targets, differences, a chain, a resolution), then what the frame itself replaces.
fn key_descriptor() -> Vec<u8> {
    bits(
        "11 000000 0000000000000000 10011 \
         000000 00001 01 11 1010 0001 100010 100000 10 0010 0001 1 0000010011111111 0000001011001111 \
         00 00000000",
    )
}

/// Counts what the shard allocates.
struct Counted {
    shard: Shard,
    now: Instant,
    sent: Sent,
    is_warm: bool,
    /// The second of two.
    is_far: bool,
    allocations: usize,
    spent: Duration,
}

impl Counted {
    fn run(&mut self, call: impl FnOnce(&mut Shard, Instant, &mut Sent)) {
        let before = (ALLOCATIONS.get(), Instant::now());
        call(&mut self.shard, self.now, &mut self.sent);
        if self.is_warm {
            self.allocations += ALLOCATIONS.get() - before.0;
            self.spent += before.1.elapsed();
        }
    }

    fn receive(&mut self, from: SocketAddr, datagram: &mut [u8]) {
        self.run(|shard, now, _| shard.handle_datagram(now, path(from), datagram));
    }

    fn transmit(&mut self) {
        self.run(|shard, now, sent| shard.poll_transmit(now, sent));
    }
}

/// Seals one packet of the publisher's and lets it be received. `payload` is what it begins with, `len` of how many bytes.
fn send(
    counted: &mut Counted,
    publisher: &mut Client,
    transport_cc: &mut u16,
    header: RtpHeader,
    element: (Extension, &[u8]),
    (payload, len): (&[u8], usize),
) {
    let mut buf = [7u8; 1100 + SEAL_OVERHEAD + 128];
    *transport_cc = transport_cc.wrapping_add(1);
    let number = transport_cc.to_be_bytes();
    let elements = [(Extension::TransportCc, &number[..]), element];
    let elements = if element.1.is_empty() {
        &elements[..1]
    } else {
        &elements[..]
    };
    let header_len = header.write(&mut buf, &extensions(), elements).expect("room").len;
    buf[header_len..header_len + payload.len()].copy_from_slice(payload);
    let len = header_len + len;
    let len = publisher.rtc.seal_rtp(&mut buf, header_len, len, 0).expect("sealed");
    counted.receive(publisher.address, &mut buf[..len]);
}

/// What a client says of a frame time: a packet it wants again, and when everything else has come.
fn report(counted: &mut Counted, client: &mut Client, number: usize, origin: Instant) {
    let mut buf = [0; 1500];
    let mut out = rtcp::Writer::new(&mut buf);
    let told = counted.sent.to[number];
    let pair = NackPair {
        pid: told.sequence.wrapping_sub(3),
        blp: 0,
    };
    out.nack(Ssrc(1), CAMERA, &[pair]).expect("room");
    // 20 ms behind the departure, in ticks of 250 us; numbers begin at 1.
    let arrival = Some((counted.now - origin).as_micros() as i64 / 250 + 80);
    let arrivals = [arrival; 400];
    let fresh = (told.packets - told.reported).min(arrivals.len());
    if fresh > 0 {
        let base = (told.reported + 1) as u16;
        let count = told.reported as u8;
        out.transport_feedback(Ssrc(1), CAMERA, base, count, &arrivals[..fresh])
            .expect("room");
    }
    counted.sent.to[number].reported += fresh;
    let len = out.len();
    let len = client.rtc.seal_rtcp(&mut buf, len).expect("sealed");
    counted.receive(client.address, &mut buf[..len]);
}

#[test]
fn forwarding_allocates_nothing() {
    // Five seconds: then connection qualities are told, which is no part of forwarding.
    const FRAMES: u32 = 148;
    const PACKETS: u32 = 3;
    let mut now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let wall = WallClock::new(now, Duration::from_secs(1_800_000_000));
    let mut shard = Shard::new(ShardConfig::new(vec![SERVER.into()], identity.clone(), 1, wall), now);
    let open = Command::OpenRoom {
        room: ROOM,
        sif_trailer: Vec::new(),
        audio_last_n: 0,
    };
    shard.handle_command(now, open);
    let mut publisher = join(&mut shard, &identity, &mut now, 100);
    let mut clients: Vec<Client> = (1..=SUBSCRIBERS)
        .map(|number| join(&mut shard, &identity, &mut now, number))
        .collect();
    share(&mut shard, now, 0, Codec::Vp8, &[5, 6], CAMERA);
    share(&mut shard, now, 1, Codec::Av1, &[7], SCREEN);
    share(&mut shard, now, 2, Codec::Opus, &[8], VOICE);
    while shard.poll_event().is_some() {}
    let key_structure = key_descriptor();
    let origin = now;
    let mut counted = Counted {
        shard,
        now,
        sent: Sent::new(),
        is_warm: false,
        is_far: false,
        allocations: 0,
        spent: Duration::ZERO,
    };
    let (mut transport_cc, mut warm) = (0, ShardStats::default());
    for frame in 0..FRAMES {
        if frame == FRAMES / 2 {
            counted.is_warm = true;
            warm = counted.shard.stats().clone();
        }
        // Every ten frames each subscriber wants another layer; key frames come every fifteen.
        for number in (1..=SUBSCRIBERS).filter(|_| frame % 10 == 0) {
            let turn = u64::from(frame / 10) + number;
            let settings = SubscriptionSettings {
                max_layer: Layer {
                    spatial: (turn % 2) as u8,
                    temporal: (turn % 3) as u8,
                },
                ..SubscriptionSettings::default()
            };
            for subscription in [number, 100 + number].map(SubscriptionHandle) {
                let change = Command::UpdateSubscription { subscription, settings };
                counted.shard.handle_command(counted.now, change);
            }
        }
        let is_key = frame % 15 == 0;
        for at in 0..2 * PACKETS {
            let (encoding, packet) = (at / PACKETS, at % PACKETS);
            // VP8: start of a frame, picture id, TL0PICIDX, temporal layers 0 2 1 2 that can be entered anywhere, and the
            // frame tag's lowest bit (0 = key frame).
            let temporal = if is_key { 0 } else { [0u8, 2, 1, 2][frame as usize % 4] };
            let [high, low] = (frame as u16 | 0x8000).to_be_bytes();
            let start = if packet == 0 { 0x90 } else { 0x80 };
            let payload = [
                start,
                0xe0,
                high,
                low,
                frame as u8,
                temporal << 6 | 0x20,
                u8::from(!is_key),
            ];
            let header = RtpHeader {
                marker: packet + 1 == PACKETS,
                pt: Pt(96),
                sequence: (frame * PACKETS + packet) as u16,
                timestamp: frame * 3000,
                ssrc: Ssrc(5 + encoding),
            };
            let len = 1100 - (packet as usize & 1);
            let mid = (Extension::Mid, &b"0"[..]);
            send(
                &mut counted,
                &mut publisher,
                &mut transport_cc,
                header,
                mid,
                (&payload, len),
            );
        }
        // A picture of one packet with a descriptor: template 0 or 1, and the frame's number.
        let [high, low] = (frame as u16).to_be_bytes();
        let mut descriptor = [0; 64];
        let len = if is_key { key_structure.len() } else { 3 };
        descriptor[..key_structure.len()].copy_from_slice(&key_structure);
        descriptor[..3].copy_from_slice(&[0xc0 | u8::from(frame % 15 % 2 == 1), high, low]);
        let header = RtpHeader {
            marker: true,
            pt: Pt(98),
            sequence: frame as u16,
            timestamp: frame * 3000,
            ssrc: Ssrc(7),
        };
        let element = (Extension::DependencyDescriptor, &descriptor[..len]);
        send(
            &mut counted,
            &mut publisher,
            &mut transport_cc,
            header,
            element,
            (&[0x10], 900),
        );
        counted.transmit();
        for step in 0..33 {
            // Nobody speaks up: who does is told every 400 ms, which is no part of forwarding.
            if step % 16 == 0 {
                let header = RtpHeader {
                    marker: false,
                    pt: Pt(111),
                    sequence: (frame * 3 + step / 16) as u16,
                    timestamp: (frame * 3 + step / 16) * 960,
                    ssrc: Ssrc(8),
                };
                let level = (Extension::AudioLevel, &[127u8][..]);
                send(
                    &mut counted,
                    &mut publisher,
                    &mut transport_cc,
                    header,
                    level,
                    (&[0x78], 80),
                );
                counted.transmit();
            }
            counted.now += Duration::from_millis(1);
            counted.run(|shard, now, sent| {
                shard.handle_timeout(now);
                shard.poll_transmit(now, sent);
            });
        }
        for (number, client) in clients.iter_mut().enumerate() {
            report(&mut counted, client, number + 1, origin);
        }
        counted.transmit();
        while counted.shard.poll_event().is_some() {}
    }
    let stats = counted.shard.stats();
    let sent = stats.rtp_sent - warm.rtp_sent;
    println!("{sent} packets, {:?} each", counted.spent / sent as u32);
    // Of each camera at most one encoding, of a third of the subscribers every fourth frame only; and the voice.
    assert!(sent > u64::from(FRAMES / 2 * (PACKETS / 3 + 3)) * SUBSCRIBERS, "{sent}");
    assert!(stats.retransmitted - warm.retransmitted > 100, "{stats:?}");
    let left_out = stats.dropped(DropReason::OtherLayer) - warm.dropped(DropReason::OtherLayer);
    assert!(
        left_out > u64::from(FRAMES / 2 * PACKETS / 2) * SUBSCRIBERS,
        "{left_out}"
    );
    assert_eq!(
        counted.allocations, 0,
        "with timers, reports, feedback and changes of layers"
    );
}

/// Batches between two shards, whose buffers go back and forth.
#[derive(Default)]
struct Between {
    batches: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl RelayLink for Between {
    fn send(&mut self, _to: ShardIndex, batch: &mut Vec<u8>) -> bool {
        let empty = self.spare.pop().unwrap_or_default();
        self.batches.push(std::mem::replace(batch, empty));
        true
    }
}

/// What one shard has for the other.
fn cross(from: &mut Counted, to: &mut Counted, link: &mut Between) {
    from.run(|shard, now, _| {
        shard.poll_relay(now, link);
    });
    let sender = ShardIndex(u16::from(from.is_far));
    while let Some(mut batch) = link.batches.pop() {
        to.run(|shard, now, _| shard.handle_relay(now, sender, &batch));
        batch.clear();
        link.spare.push(batch);
    }
}

#[test]
fn relaying_allocates_nothing() {
    const FRAMES: u32 = 140;
    const PACKETS: u32 = 3;
    let mut now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let wall = WallClock::new(now, Duration::from_secs(1_800_000_000));
    let mut shards = [0, 1].map(|index| {
        let config = ShardConfig {
            index: ShardIndex(index),
            ..ShardConfig::new(vec![SERVER.into()], identity.clone(), 1, wall)
        };
        let mut shard = Shard::new(config, now);
        shard.handle_command(
            now,
            Command::OpenRoom {
                room: ROOM,
                sif_trailer: Vec::new(),
                audio_last_n: 0,
            },
        );
        let span = Command::SpanRoom {
            room: ROOM,
            home: ShardIndex(0),
            shards: vec![ShardIndex(0), ShardIndex(1)],
        };
        shard.handle_command(now, span);
        shard
    });
    let [home, far] = &mut shards;
    let mut publisher = join(home, &identity, &mut now, 100);
    for number in 1..=SUBSCRIBERS {
        join(far, &identity, &mut now, number);
    }
    for (line, of, encodings, ssrc) in [(0, Codec::Vp8, 5, CAMERA), (2, Codec::Opus, 8, VOICE)] {
        let publish = published(line, of, &[encodings]);
        home.handle_command(now, Command::Publish(Box::new(publish.clone())));
        let publish = Box::new(publish);
        far.handle_command(
            now,
            Command::MirrorTrack {
                publish,
                home: ShardIndex(0),
            },
        );
        subscribe_all(far, now, line, of, ssrc);
    }
    let [mut home, mut far] = shards.map(|shard| Counted {
        shard,
        now,
        sent: Sent::new(),
        is_warm: false,
        is_far: false,
        allocations: 0,
        spent: Duration::ZERO,
    });
    far.is_far = true;
    let mut link = Between {
        batches: Vec::with_capacity(8),
        spare: Vec::with_capacity(8),
    };
    let (mut transport_cc, mut warm) = (0, ShardStats::default());
    for frame in 0..FRAMES {
        if frame == FRAMES / 2 {
            (home.is_warm, far.is_warm) = (true, true);
            warm = far.shard.stats().clone();
        }
        let is_key = frame % 15 == 0;
        for packet in 0..PACKETS {
            let [high, low] = (frame as u16 | 0x8000).to_be_bytes();
            let start = if packet == 0 { 0x90 } else { 0x80 };
            let payload = [start, 0xe0, high, low, frame as u8, 0x20, u8::from(!is_key)];
            let header = RtpHeader {
                marker: packet + 1 == PACKETS,
                pt: Pt(96),
                sequence: (frame * PACKETS + packet) as u16,
                timestamp: frame * 3000,
                ssrc: Ssrc(5),
            };
            let mid = (Extension::Mid, &b"0"[..]);
            let parts = (&payload[..], 900);
            send(&mut home, &mut publisher, &mut transport_cc, header, mid, parts);
        }
        for step in 0..33 {
            if step % 16 == 0 {
                let header = RtpHeader {
                    marker: false,
                    pt: Pt(111),
                    sequence: (frame * 3 + step / 16) as u16,
                    timestamp: (frame * 3 + step / 16) * 960,
                    ssrc: Ssrc(8),
                };
                let level = (Extension::AudioLevel, &[127u8][..]);
                let parts = (&[0x78][..], 80);
                send(&mut home, &mut publisher, &mut transport_cc, header, level, parts);
            }
            cross(&mut home, &mut far, &mut link);
            cross(&mut far, &mut home, &mut link);
            for shard in [&mut home, &mut far] {
                shard.transmit();
                while shard.shard.poll_event().is_some() {}
                shard.now += Duration::from_millis(1);
                shard.run(|shard, now, sent| {
                    shard.handle_timeout(now);
                    shard.poll_transmit(now, sent);
                });
            }
        }
    }
    let stats = far.shard.stats();
    let (relayed, sent) = (stats.relayed_in - warm.relayed_in, stats.rtp_sent - warm.rtp_sent);
    assert_eq!(relayed, u64::from(FRAMES / 2 * (PACKETS + 3)));
    assert_eq!(sent, relayed * SUBSCRIBERS);
    assert_eq!(home.allocations, 0, "where it is published");
    assert_eq!(far.allocations, 0, "where it is received");
}
