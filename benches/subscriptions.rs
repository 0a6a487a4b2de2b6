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

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use patchbay::media::edge::{
    Command, EncodingParameters, OpenTransport, Publish, Reception, Subscribe, SubscriptionSettings,
};
use patchbay::media::{Shard, ShardConfig};
use patchbay::rtc::{DtlsIdentity, SEAL_OVERHEAD, Transport, TransportConfig};
use patchbay::rtp::{RtpHeader, rtcp};
use patchbay::types::{
    Batch, Codec, CodecParameters, DtlsRole, Extension, ExtensionMap, IceCredentials, MAX_DATAGRAM, MediaKind, Mid,
    NetPath, NetProtocol, ParticipantHandle, Pt, RemoteParameters, RoomHandle, Ssrc, SubscriptionHandle, TrackHandle,
    TransportHandle, WallClock,
};

const ROOM: RoomHandle = RoomHandle(1);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);
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

struct Client {
    address: SocketAddr,
    rtc: Transport,
}

/// Counts datagrams, or keeps them for a handshake.
struct Sent {
    slot: Vec<u8>,
    kept: Option<Vec<(NetPath, Vec<u8>)>>,
    media: usize,
}

impl Sent {
    fn new(keeps: bool) -> Self {
        Self {
            slot: vec![0; MAX_DATAGRAM],
            kept: keeps.then(Vec::new),
            media: 0,
        }
    }
}

impl Batch for Sent {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        // RTP, and not RTCP (RFC 5761 §4), to the subscriber: every one of them is numbered.
        let is_rtp = self.slot[0] >> 6 == 2 && !(64..96).contains(&(self.slot[1] & 0x7f));
        self.media += usize::from(is_rtp);
        if let Some(kept) = &mut self.kept {
            kept.push((path, self.slot[..len].to_vec()));
        }
    }
}

fn path(remote: SocketAddr) -> NetPath {
    NetPath {
        local: SERVER.into(),
        remote,
        protocol: NetProtocol::Udp,
    }
}

fn extensions(reports: bool) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    map.insert(Extension::AbsSendTime, 2);
    map.insert(Extension::Mid, 4);
    if reports {
        map.insert(Extension::TransportCc, 3);
    }
    map
}

fn vp8() -> Vec<CodecParameters> {
    vec![CodecParameters {
        pt: Pt(96),
        codec: Codec::Vp8,
        rtx: Some(Pt(97)),
        nack: true,
        pli: true,
        fir: false,
        transport_cc: true,
        remb: false,
        fmtp: String::new(),
    }]
}

/// Opens a transport and drives it and a client of ours until both are connected.
fn join(shard: &mut Shard, identity: &DtlsIdentity, now: &mut Instant, number: u64) -> Client {
    let address = SocketAddr::from(([10, 0, 1, number as u8], 5000));
    let transport = TransportHandle(number);
    let credentials = |name: &str| IceCredentials {
        ufrag: format!("ufrag{name}{number}"),
        pwd: format!("0123456789abcdef0123{name}{number}"),
    };
    let (ours, theirs) = (credentials("s"), credentials("c"));
    let client_identity = DtlsIdentity::generate().expect("an identity");
    shard.handle_command(
        *now,
        Command::OpenTransport(Box::new(OpenTransport {
            room: ROOM,
            participant: ParticipantHandle(number),
            transport,
            local: ours.clone(),
            ice_lite: true,
            ice_controlling: false,
            open_channels: Vec::new(),
            reception: Reception::default(),
        })),
    );
    let remote = |ice, identity: &DtlsIdentity, dtls_role| RemoteParameters {
        ice,
        fingerprint: identity.fingerprint(),
        dtls_role,
        sctp_max_message_size: None,
    };
    let to_server = remote(theirs.clone(), &client_identity, DtlsRole::Passive);
    shard.handle_command(
        *now,
        Command::SetRemote {
            transport,
            remote: Box::new(to_server),
        },
    );
    let config = TransportConfig {
        local: theirs,
        ice_lite: false,
        ice_controlling: true,
        local_addresses: vec![address],
        open_channels: Vec::new(),
    };
    let mut rtc = Transport::new(config, &client_identity, *now);
    rtc.set_remote(*now, &remote(ours, identity, DtlsRole::Active));
    rtc.add_remote_candidate(*now, "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host");
    for _ in 0..2000 {
        while let Some((_, mut datagram)) = rtc.poll_transmit() {
            shard.handle_datagram(*now, path(address), &mut datagram);
        }
        let mut sent = Sent::new(true);
        shard.poll_transmit(*now, &mut sent);
        for (path, mut datagram) in sent.kept.into_iter().flatten() {
            let back = NetPath {
                local: path.remote,
                remote: path.local,
                protocol: NetProtocol::Udp,
            };
            let _ = rtc.handle_datagram(*now, back, &mut datagram);
        }
        while rtc.poll_event().is_some() {}
        if rtc.is_connected() {
            return Client { address, rtc };
        }
        *now += Duration::from_millis(1);
        shard.handle_timeout(*now);
        rtc.handle_timeout(*now);
    }
    panic!("never connected");
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
    const WARM: u32 = 60;
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
    for frame in 0..WARM + FRAMES {
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
                buf[header_len + 1] = u8::from(frame != 0);
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
        if frame + 1 == WARM {
            spent = Duration::ZERO;
            packets = 0;
        } else {
            packets += sent.media - before_frame;
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
