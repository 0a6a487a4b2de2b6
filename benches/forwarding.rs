//! The steps of forwarding one packet, each by itself: parse, decrypt, seal, the way through a shard to 1 … 500 subscribers,
//! and the flush over loopback.
//!
//! ```sh
//! cargo bench --bench forwarding
//! ```
//!
//! Each figure is the median of nine rounds, in nanoseconds of time on one core, for a packet of 1,100 bytes of VP8. What
//! selecting and rewriting cost is the difference between the way through the shard and sealing: a shard does the three in
//! one pass, and they are not reachable one by one.

mod in_memory;

use std::{
    hint::black_box,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use in_memory::{ROOM, SERVER, Sent, extensions, join, path, vp8};
use patchbay::{
    io::{DatagramBatch, IoCounters, Offload, SendBatch, UdpSocket},
    media::{
        Shard, ShardConfig,
        edge::{Command, EncodingParameters, Publish, Subscribe, SubscriptionSettings},
    },
    rtc::{DtlsIdentity, SEAL_OVERHEAD, SrtpKeys},
    rtp::{self, RtpHeader, RtpPacket},
    types::{
        Batch, Codec, DtlsRole, Extension, MediaKind, Mid, NetPath, NetProtocol, ParticipantHandle, Pt, SrtpProfile,
        Ssrc, SubscriptionHandle, TrackHandle, TransportHandle, WallClock,
    },
};

const PAYLOAD: usize = 1100;
const ROUNDS: usize = 9;
const PACKETS_PER_FRAME: u32 = 7;
const FRAME_INTERVAL: Duration = Duration::from_micros(33_333);

fn main() {
    println!("{:44} {:>12}", "step", "ns/packet");
    let row = |name: &str, figure: f64| println!("{name:44} {figure:12.1}");
    row("parse header, extensions, VP8 descriptor", parse());
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::AeadAes256Gcm] {
        let (seal, open) = srtp(profile);
        row(&format!("decrypt, {profile:?}"), open);
        row(&format!("copy, then seal in place, {profile:?}"), seal);
    }
    for subscribers in [1, 10, 50, 200, 500] {
        row(
            &format!("through a shard to {subscribers}, for each of them"),
            fan_out(subscribers),
        );
    }
    for together in [1, 2, 4, 7] {
        row(
            &format!("flush over loopback, {together} at once to each of 50"),
            flush(together),
        );
    }
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// One packet in clear, with its header's length and its own.
fn packet(frame: u32, number: u32, buf: &mut [u8]) -> (usize, usize) {
    let header = RtpHeader {
        marker: number + 1 == PACKETS_PER_FRAME,
        pt: Pt(96),
        sequence: (frame * PACKETS_PER_FRAME + number) as u16,
        timestamp: frame * 3000,
        ssrc: Ssrc(10_001),
    };
    let header_len = header.write(buf, &extensions(true), &[]).expect("room").len;
    // VP8: start of a frame, and the frame tag's lowest bit (0 = key frame).
    buf[header_len] = if number == 0 { 0x10 } else { 0 };
    buf[header_len + 1] = u8::from(frame != 0);
    (header_len, header_len + PAYLOAD)
}

fn parse() -> f64 {
    const PACKETS: u32 = 200_000;
    let mut buf = [7; PAYLOAD + 64];
    let (_, len) = packet(1, 0, &mut buf);
    let map = extensions(true);
    let wide = map.id(Extension::TransportCc).expect("an id");
    let round = || {
        let began = Instant::now();
        for _ in 0..PACKETS {
            let packet = RtpPacket::parse(black_box(&buf[..len])).expect("a packet");
            black_box(packet.extension(wide));
            black_box(rtp::inspect(Codec::Vp8, packet.payload(), packet.marker())).expect("VP8");
        }
        began.elapsed().as_nanos() as f64 / f64::from(PACKETS)
    };
    median((0..ROUNDS).map(|_| round()).collect())
}

/// Sealing and opening.
fn srtp(profile: SrtpProfile) -> (f64, f64) {
    const PACKETS: u32 = 20_000;
    let keys = SrtpKeys::new(profile, &[7; 88]).expect("material");
    let (mut sealer, _) = keys.contexts(DtlsRole::Active).expect("keys");
    let mut sealing = Vec::new();
    let mut opening = Vec::new();
    let mut clear = [7; PAYLOAD + SEAL_OVERHEAD + 64];
    let (header_len, len) = packet(0, 0, &mut clear);
    let stride = clear.len();
    let mut arena = vec![0; stride * PACKETS as usize];
    for _ in 0..ROUNDS {
        // A number is opened once: each round has a receiver of its own.
        let (_, mut opener) = keys.contexts(DtlsRole::Passive).expect("keys");
        let mut sealed = 0;
        let began = Instant::now();
        for (number, slot) in (0..PACKETS).zip(arena.chunks_exact_mut(stride)) {
            slot[..len].copy_from_slice(&clear[..len]);
            slot[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            sealed = sealer.seal_rtp(slot, header_len, len, 0).expect("sealed");
        }
        sealing.push(began.elapsed().as_nanos() as f64 / f64::from(PACKETS));
        let began = Instant::now();
        for slot in arena.chunks_exact_mut(stride) {
            black_box(opener.open_rtp(&mut slot[..sealed]).expect("opened"));
        }
        opening.push(began.elapsed().as_nanos() as f64 / f64::from(PACKETS));
    }
    (median(sealing), median(opening))
}

/// From a datagram to as many sealed ones in memory, for each of these.
fn fan_out(subscribers: u64) -> f64 {
    const WARM: u32 = 60;
    let frames = (60_000 / (subscribers as u32 * PACKETS_PER_FRAME)).clamp(30, 2000);
    let mut now = Instant::now();
    let identity = DtlsIdentity::generate().expect("an identity");
    let wall = WallClock::new(now, Duration::from_secs(1_800_000_000));
    let mut shard = Shard::new(ShardConfig::new(vec![SERVER.into()], identity.clone(), 1, wall), now);
    shard.handle_command(
        now,
        Command::OpenRoom {
            room: ROOM,
            sif_trailer: Vec::new(),
            audio_last_n: 0,
        },
    );
    let mut publisher = join(&mut shard, &identity, &mut now, 1);
    shard.handle_command(now, publish());
    for number in 2..2 + subscribers {
        let _ = join(&mut shard, &identity, &mut now, number);
        shard.handle_command(now, subscribe(number));
    }
    while shard.poll_event().is_some() {}
    let mut sent = Sent::new(false);
    let mut rounds = Vec::new();
    let mut frame = 0;
    for round in 0..=ROUNDS {
        let (mut spent, before) = (Duration::ZERO, sent.media);
        for _ in 0..if round == 0 { WARM } else { frames } {
            for number in 0..PACKETS_PER_FRAME {
                let mut buf = [7; PAYLOAD + SEAL_OVERHEAD + 64];
                let (header_len, len) = packet(frame, number, &mut buf);
                let roc = (frame * PACKETS_PER_FRAME + number) >> 16;
                let len = publisher.rtc.seal_rtp(&mut buf, header_len, len, roc).expect("sealed");
                let at = Instant::now();
                shard.handle_datagram(now, path(publisher.address), &mut buf[..len]);
                shard.poll_transmit(now, &mut sent);
                spent += at.elapsed();
            }
            frame += 1;
            now += FRAME_INTERVAL;
            let at = Instant::now();
            shard.handle_timeout(now);
            shard.poll_transmit(now, &mut sent);
            spent += at.elapsed();
            while shard.poll_event().is_some() {}
        }
        let packets = (sent.media - before) as f64;
        if round == 0 {
            assert!(packets > 0.0, "subscribers get media");
        } else {
            rounds.push(spent.as_nanos() as f64 / packets);
        }
    }
    median(rounds)
}

fn publish() -> Command {
    Command::Publish(Box::new(Publish {
        room: ROOM,
        participant: ParticipantHandle(1),
        track: TrackHandle(1),
        transport: TransportHandle(1),
        mid: Mid::new("1").expect("a mid"),
        kind: MediaKind::Video,
        codecs: vp8(),
        extensions: extensions(true),
        encodings: vec![EncodingParameters {
            rid: None,
            ssrc: Some(Ssrc(10_001)),
            rtx_ssrc: None,
        }],
        muted: false,
        is_screen: false,
        encrypted: false,
    }))
}

fn subscribe(number: u64) -> Command {
    Command::Subscribe(Box::new(Subscribe {
        room: ROOM,
        participant: ParticipantHandle(number),
        subscription: SubscriptionHandle(number),
        track: TrackHandle(1),
        transport: TransportHandle(number),
        mid: Mid::new("1").expect("a mid"),
        codecs: vp8(),
        extensions: extensions(false),
        ssrc: Ssrc(20_001),
        rtx_ssrc: Some(Ssrc(30_001)),
        cname: "cname".into(),
        strip_packet_trailer: false,
        settings: SubscriptionSettings::default(),
    }))
}

/// Copy into the batch and flush, `together` packets to each of 50 sockets that are emptied in between, unmeasured. The
/// kernel does the receivers' work in the send, as in every test on one machine.
fn flush(together: usize) -> f64 {
    const RECEIVERS: usize = 50;
    const FLUSHES: usize = 100;
    let bind = |offload| UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), offload).expect("a socket");
    let sender = Arc::new(bind(Offload::ALL));
    let receivers: Vec<UdpSocket> = (0..RECEIVERS)
        .map(|_| bind(Offload { gso: true, gro: false }))
        .collect();
    let local = sender.local();
    let mut batch = SendBatch::new(vec![sender], Arc::new(IoCounters::default()));
    let mut arena = DatagramBatch::default();
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (mut spent, mut packets) = (Duration::ZERO, 0);
        for _ in 0..FLUSHES {
            let began = Instant::now();
            for receiver in &receivers {
                let path = NetPath {
                    local,
                    remote: receiver.local(),
                    protocol: NetProtocol::Udp,
                };
                for _ in 0..together {
                    batch.slot()[..PAYLOAD].fill(7);
                    batch.commit(path, PAYLOAD);
                }
            }
            batch.flush();
            spent += began.elapsed();
            for receiver in &receivers {
                while arena.receive(receiver, |_, _, _| packets += 1).expect("a socket") {}
            }
        }
        rounds.push(spent.as_nanos() as f64 / f64::from(packets));
    }
    median(rounds)
}
