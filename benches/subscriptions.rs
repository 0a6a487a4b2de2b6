//! What sending to one participant costs, by how much it is subscribed to: forwarding alone, and with everything that a
//! reporting client adds (estimate, pacing, allocation).
//!
//! ```sh
//! cargo bench --bench subscriptions
//! ```
//!
//! One shard on virtual time, no sockets: the figures are CPU time of the core. A participant has N cameras of 15 frames
//! a second and two packets a frame before it; "plain" clients negotiate no transport-wide feedback, "reporting" ones send
//! it each 50 ms and have an estimate that carries everything.

mod in_memory;

use std::time::{Duration, Instant};

use in_memory::{ROOM, SERVER, Sent, extensions, join, path, vp8};
use patchbay::media::edge::{Command, EncodingParameters, Publish, Subscribe, SubscriptionSettings};
use patchbay::media::{Shard, ShardConfig};
use patchbay::rtc::{DtlsIdentity, SEAL_OVERHEAD};
use patchbay::rtp::{RtpHeader, rtcp};
use patchbay::types::{
    MediaKind, Mid, ParticipantHandle, Pt, Ssrc, SubscriptionHandle, TrackHandle, TransportHandle, WallClock,
};

const FRAME_INTERVAL: Duration = Duration::from_micros(66_667);
const PAYLOAD: usize = 1000;

fn main() {
    println!("subscriptions  client     ns/packet  us/subscription/s  us to subscribe  us/setting");
    for subscriptions in [10, 50, 200] {
        for reports in [false, true] {
            let run = measure(subscriptions, reports);
            println!(
                "{subscriptions:>13}  {:<9}  {:>9.0}  {:>17.1}  {:>15.1}  {:>10.1}",
                if reports { "reporting" } else { "plain" },
                run.spent.as_nanos() as f64 / run.packets as f64,
                run.spent.as_secs_f64() * 1e6 / subscriptions as f64 / run.seconds,
                run.subscribing.as_secs_f64() * 1e6 / subscriptions as f64,
                run.setting.as_secs_f64() * 1e6 / subscriptions as f64,
            );
        }
    }
}

struct Run {
    spent: Duration,
    packets: usize,
    seconds: f64,
    /// To subscribe to everything, one after the other, and to ask for another layer of everything.
    subscribing: Duration,
    setting: Duration,
}

fn publish(track: u64) -> Command {
    Command::Publish(Box::new(Publish {
        room: ROOM,
        participant: ParticipantHandle(1),
        track: TrackHandle(track),
        transport: TransportHandle(1),
        mid: Mid::new(&track.to_string()).expect("a mid"),
        kind: MediaKind::Video,
        codecs: vp8(),
        extensions: extensions(true),
        encodings: vec![EncodingParameters {
            rid: None,
            ssrc: Some(Ssrc(10_000 + track as u32)),
            rtx_ssrc: None,
        }],
        muted: false,
        is_screen: false,
        encrypted: false,
    }))
}

fn subscribe(track: u64, reports: bool) -> Command {
    Command::Subscribe(Box::new(Subscribe {
        room: ROOM,
        participant: ParticipantHandle(2),
        subscription: SubscriptionHandle(track),
        track: TrackHandle(track),
        transport: TransportHandle(2),
        mid: Mid::new(&track.to_string()).expect("a mid"),
        codecs: vp8(),
        extensions: extensions(reports),
        ssrc: Ssrc(20_000 + track as u32),
        rtx_ssrc: Some(Ssrc(30_000 + track as u32)),
        cname: "cname".into(),
        strip_packet_trailer: false,
        settings: SubscriptionSettings::default(),
    }))
}

fn measure(subscriptions: u64, reports: bool) -> Run {
    /// Until everything is sent, or not: then the figures are those of what is. Five minutes.
    const MAX_WARM: u32 = 4_500;
    const FRAMES: u32 = 300;
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
    let mut subscriber = join(&mut shard, &identity, &mut now, 2);
    for track in 1..=subscriptions {
        shard.handle_command(now, publish(track));
    }
    let subscribes: Vec<Command> = (1..=subscriptions).map(|track| subscribe(track, reports)).collect();
    let at = Instant::now();
    for command in subscribes {
        shard.handle_command(now, command);
    }
    let subscribing = at.elapsed();
    while shard.poll_event().is_some() {}
    let start = now;
    let mut sent = Sent::new(false);
    let mut spent = Duration::ZERO;
    let (mut reported, mut count, mut packets) = (0, 0u8, 0);
    let mut arrivals = Vec::new();
    let mut last_report = now;
    let mut warm = None;
    for frame in 0.. {
        let before_frame = sent.media;
        for track in 1..=subscriptions {
            for packet in 0..2u32 {
                let mut buf = [7u8; PAYLOAD + SEAL_OVERHEAD + 64];
                let header = RtpHeader {
                    marker: packet == 1,
                    pt: Pt(96),
                    sequence: (frame * 2 + packet) as u16,
                    timestamp: frame * 6000,
                    ssrc: Ssrc(10_000 + track as u32),
                };
                let header_len = header.write(&mut buf, &extensions(true), &[]).expect("room").len;
                // VP8: start of a frame, and the frame tag's lowest bit (0 = key frame).
                buf[header_len] = if packet == 0 { 0x10 } else { 0 };
                // Every second, for those that are begun later.
                buf[header_len + 1] = u8::from(frame % 15 != 0);
                let len = header_len + PAYLOAD;
                let len = publisher.rtc.seal_rtp(&mut buf, header_len, len, 0).expect("sealed");
                let at = Instant::now();
                shard.handle_datagram(now, path(publisher.address), &mut buf[..len]);
                shard.poll_transmit(now, &mut sent);
                spent += at.elapsed();
            }
            // Publishers are not in step.
            now += FRAME_INTERVAL / subscriptions as u32;
            let at = Instant::now();
            if shard.poll_timeout().is_some_and(|due| due <= now) {
                shard.handle_timeout(now);
                shard.poll_transmit(now, &mut sent);
            }
            spent += at.elapsed();
            // 20 ms behind the departure, in ticks of 250 us.
            arrivals.resize(sent.media, Some((now - start).as_micros() as i64 / 250 + 80));
            if reports && now - last_report >= Duration::from_millis(50) && sent.media > reported {
                last_report = now;
                while reported < sent.media {
                    let end = sent.media.min(reported + 400);
                    let mut buf = [0; 1500];
                    let mut out = rtcp::Writer::new(&mut buf);
                    // Numbers begin at 1.
                    let base = (reported + 1) as u16;
                    let written = out
                        .transport_feedback(Ssrc(1), Ssrc(2), base, count, &arrivals[reported..end])
                        .expect("room");
                    let len = out.len();
                    count = count.wrapping_add(1);
                    reported += written;
                    let len = subscriber.rtc.seal_rtcp(&mut buf, len).expect("sealed");
                    let at = Instant::now();
                    shard.handle_datagram(now, path(subscriber.address), &mut buf[..len]);
                    spent += at.elapsed();
                }
            }
        }
        while shard.poll_event().is_some() {}
        let in_frame = sent.media - before_frame;
        packets += in_frame;
        match warm {
            None if in_frame >= 2 * subscriptions as usize || frame >= MAX_WARM => {
                warm = Some(frame);
                (spent, packets) = (Duration::ZERO, 0);
            }
            Some(warm) if frame == warm + FRAMES => break,
            _ => {}
        }
    }
    let at = Instant::now();
    for track in 1..=subscriptions {
        let mut settings = SubscriptionSettings::default();
        settings.max_layer.temporal = 1;
        let subscription = SubscriptionHandle(track);
        shard.handle_command(now, Command::UpdateSubscription { subscription, settings });
    }
    let setting = at.elapsed();
    Run {
        subscribing,
        setting,
        spent,
        packets,
        seconds: FRAME_INTERVAL.as_secs_f64() * f64::from(FRAMES),
    }
}
