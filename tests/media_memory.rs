//! What forwarding costs in memory: nothing allocated per packet once warm (DESIGN §6).
//!
//! One test only: the counter is the process's.

#![allow(unsafe_code)] // a counting allocator is an `unsafe impl`; it only adds up and calls the system's

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use patchbay::media::edge::{
    Command, EncodingParameters, OpenTransport, Publish, Reception, Subscribe, SubscriptionSettings,
};
use patchbay::media::{Shard, ShardConfig};
use patchbay::rtc::{DtlsIdentity, SEAL_OVERHEAD, Transport, TransportConfig};
use patchbay::rtp::RtpHeader;
use patchbay::types::{
    Batch, Codec, CodecParameters, DtlsRole, Extension, ExtensionMap, IceCredentials, MAX_DATAGRAM, MediaKind, Mid,
    NetPath, NetProtocol, ParticipantHandle, Pt, RemoteParameters, RoomHandle, Ssrc, SubscriptionHandle, TrackHandle,
    TransportHandle, WallClock,
};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
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

const ROOM: RoomHandle = RoomHandle(1);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);

struct Client {
    address: SocketAddr,
    rtc: Transport,
}

/// Keeps datagrams, or only counts them.
struct Sent {
    slot: Vec<u8>,
    kept: Option<Vec<(NetPath, Vec<u8>)>>,
    count: usize,
}

impl Batch for Sent {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        self.count += 1;
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

fn credentials(name: &str) -> IceCredentials {
    IceCredentials {
        ufrag: format!("ufrag{name}"),
        pwd: format!("0123456789abcdef0123{name}"),
    }
}

fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for (extension, id) in [
        (Extension::AbsSendTime, 2),
        (Extension::TransportCc, 3),
        (Extension::Mid, 4),
    ] {
        map.insert(extension, id);
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
    let ours = credentials(&format!("s{number}"));
    let theirs = credentials(&format!("c{number}"));
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
        let mut sent = Sent {
            slot: vec![0; MAX_DATAGRAM],
            kept: Some(Vec::new()),
            count: 0,
        };
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

#[test]
fn forwarding_allocates_nothing() {
    const SUBSCRIBERS: u64 = 10;
    const FRAMES: u32 = 150;
    const PACKETS: u32 = 5;
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
    let mut publisher = join(&mut shard, &identity, &mut now, 100);
    shard.handle_command(
        now,
        Command::Publish(Box::new(Publish {
            room: ROOM,
            participant: ParticipantHandle(100),
            track: TrackHandle(1),
            transport: TransportHandle(100),
            mid: Mid::new("0").expect("a mid"),
            kind: MediaKind::Video,
            codecs: vp8(),
            extensions: extensions(),
            encodings: vec![EncodingParameters::default()],
            muted: false,
            is_screen: false,
            encrypted: false,
        })),
    );
    for number in 1..=SUBSCRIBERS {
        join(&mut shard, &identity, &mut now, number);
        shard.handle_command(
            now,
            Command::Subscribe(Box::new(Subscribe {
                room: ROOM,
                participant: ParticipantHandle(number),
                subscription: SubscriptionHandle(number),
                track: TrackHandle(1),
                transport: TransportHandle(number),
                mid: Mid::new("0").expect("a mid"),
                codecs: vp8(),
                extensions: extensions(),
                ssrc: Ssrc(1000),
                rtx_ssrc: Some(Ssrc(1001)),
                cname: "cname".into(),
                strip_packet_trailer: false,
                settings: SubscriptionSettings::default(),
            })),
        );
    }
    while shard.poll_event().is_some() {}
    let mut sent = Sent {
        slot: vec![0; MAX_DATAGRAM],
        kept: None,
        count: 0,
    };
    let (mut allocations, mut forwarded, mut spent) = (0, 0, Duration::ZERO);
    for frame in 0..FRAMES {
        let warm = frame >= FRAMES / 2;
        for packet in 0..PACKETS {
            let sequence = (frame * PACKETS + packet) as u16;
            let mut buf = [7u8; 1100 + SEAL_OVERHEAD + 64];
            let header = RtpHeader {
                marker: packet + 1 == PACKETS,
                pt: Pt(96),
                sequence,
                timestamp: frame * 3000,
                ssrc: Ssrc(5),
            };
            let elements = [
                (Extension::Mid, &b"0"[..]),
                (Extension::TransportCc, &sequence.to_be_bytes()),
            ];
            let header_len = header.write(&mut buf, &extensions(), &elements).expect("room").len;
            // VP8: start of a frame, and the frame tag's lowest bit (0 = key frame).
            buf[header_len] = if packet == 0 { 0x10 } else { 0 };
            buf[header_len + 1] = u8::from(frame != 0);
            let len = header_len + 1100 - (packet as usize & 1);
            let len = publisher.rtc.seal_rtp(&mut buf, header_len, len, 0).expect("sealed");
            let before = (ALLOCATIONS.load(Relaxed), sent.count, Instant::now());
            shard.handle_datagram(now, path(publisher.address), &mut buf[..len]);
            if packet + 1 == PACKETS {
                shard.poll_transmit(now, &mut sent);
            }
            if warm {
                allocations += ALLOCATIONS.load(Relaxed) - before.0;
                forwarded += sent.count - before.1;
                spent += before.2.elapsed();
            }
        }
        for _ in 0..33 {
            now += Duration::from_millis(1);
            let before = ALLOCATIONS.load(Relaxed);
            shard.handle_timeout(now);
            shard.poll_transmit(now, &mut sent);
            if warm {
                allocations += ALLOCATIONS.load(Relaxed) - before;
            }
        }
    }
    println!("{forwarded} packets, {:?} each", spent / forwarded as u32);
    assert!(forwarded >= (FRAMES / 2 * PACKETS) as usize * SUBSCRIBERS as usize);
    assert_eq!(allocations, 0, "with timers, reports and feedback");
}
