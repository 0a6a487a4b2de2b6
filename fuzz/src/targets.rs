//! What is fuzzed: every parser of bytes from outside. Used by the libFuzzer binary and, through the stored seeds, by
//! `tests/fuzz_seeds.rs`.
//!
//! A target fails by panicking; where something can be said about the result, it asserts that too.

use std::time::{Duration, Instant};

use livekit_protocol::{DataPacket, SignalRequest};
use patchbay::{
    control::negotiation::{ClientQuirks, PeerConfig, PeerConnection, Role},
    io,
    proto::{
        claims::{self, ApiKeys},
        envelope::{Envelope, Stamp},
        join_request, json,
    },
    rtc,
    rtp::{self, RtpPacket, dependency_descriptor, layers_allocation::LayersAllocation, red, rtcp, rtx, trailer, vp8},
    sdp::SessionDescription,
    turn,
    types::{Codec, IceCredentials, NetPath, NetProtocol, WallClock},
};
use prost::Message;
use stun_types::attribute::{AttributeType, RawAttribute};
use stun_types::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message as Stun, MessageClass, MessageType, MessageWrite,
    MessageWriteExt, MessageWriteVec, Method,
};

/// Its name, which is the name of its seeds' folder too, and what runs one input.
type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("demux", demux),
    ("rtp", rtp_packet),
    ("rtcp", rtcp_compound),
    ("vp8", |data| codec(Codec::Vp8, data)),
    ("vp9", |data| codec(Codec::Vp9, data)),
    ("h264", |data| codec(Codec::H264, data)),
    ("h265", |data| codec(Codec::H265, data)),
    ("av1", |data| codec(Codec::Av1, data)),
    ("red", red_payload),
    ("dependency_descriptor", descriptor),
    ("layers_allocation", layers_allocation),
    ("sdp", session_description),
    ("signal_protobuf", signal_protobuf),
    ("signal_json", signal_json),
    ("join_request", join),
    ("jwt", jwt),
    ("envelope", envelope),
    ("turn", turn_server),
    ("turn_stream", turn_stream),
    ("channel_data", channel_data),
    ("media_stream", media_stream),
    ("opening", stream_opening),
];

fn demux(data: &[u8]) {
    let kind = rtc::classify(data);
    let ufrag = rtc::stun_local_ufrag(data);
    assert!(
        ufrag.is_none() || kind == Ok(rtc::PacketKind::Stun),
        "only STUN names a ufrag"
    );
}

fn rtp_packet(data: &[u8]) {
    let Ok(packet) = RtpPacket::parse(data) else { return };
    assert_eq!(
        packet.header_len() + packet.payload().len() + packet.padding_len(),
        data.len()
    );
    for (id, value) in packet.extensions() {
        assert!(id != 0 && value.len() <= 255);
    }
    let _ = rtx::split(packet.payload());
    assert!(trailer::len(packet.payload(), packet.marker()) <= packet.payload().len());
}

fn rtcp_compound(data: &[u8]) {
    for packet in rtcp::parse(data) {
        match packet {
            Ok(rtcp::Packet::Nack { pairs, .. }) => {
                assert!(pairs.flat_map(rtcp::NackPair::sequences).count() <= data.len() * 17);
            }
            Ok(rtcp::Packet::TransportFeedback(feedback)) => {
                assert!(feedback.statuses().count() <= usize::from(u16::MAX));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
}

fn codec(codec: Codec, data: &[u8]) {
    for marker in [false, true] {
        let _ = rtp::inspect(codec, data, marker);
    }
    if codec == Codec::Vp8
        && let Ok(original) = vp8::Descriptor::parse(data)
    {
        let mut out = [0; 2 * 4096];
        let written = vp8::rewrite(data, &original, &original, &mut out).expect("room for its own size");
        let again = vp8::Descriptor::parse(&out[..written]).expect("what was written can be read");
        // Its length may differ: an empty extension byte is not written back.
        let read = |d: &vp8::Descriptor| (d.picture_id, d.tl0_pic_idx, d.temporal, d.key_idx, d.start_of_partition);
        assert_eq!(read(&again), read(&original));
    }
}

fn red_payload(data: &[u8]) {
    if let Ok((_, primary)) = red::primary(data) {
        assert!(primary.len() <= data.len());
    }
}

fn descriptor(data: &[u8]) {
    // The first byte splits the input: a descriptor that may bring a structure, then one that needs it.
    let Some((&at, rest)) = data.split_first() else { return };
    let (first, second) = rest.split_at(usize::from(at).min(rest.len()));
    let (mut new, mut newer) = (None, None);
    if dependency_descriptor::Descriptor::parse(first, None, &mut new).is_ok() {
        let _ = dependency_descriptor::Descriptor::parse(second, new.as_ref(), &mut newer);
    }
}

fn layers_allocation(data: &[u8]) {
    if let Ok(allocation) = LayersAllocation::parse(data) {
        assert!((1..=4).contains(&allocation.streams));
    }
}

fn session_description(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(description) = SessionDescription::parse(text) {
        let written = description.to_string();
        SessionDescription::parse(&written).expect("what was written can be read");
    }
    for role in [Role::Publisher, Role::Single] {
        let mut peer = PeerConnection::new(PeerConfig {
            role,
            local: IceCredentials {
                ufrag: "abcd".into(),
                pwd: "abcdefghijklmnopqrstuvwx".into(),
            },
            fingerprint: [7; 32],
            ice_lite: true,
            candidates: vec![([127, 0, 0, 1], 7882).into()],
            warp: true,
            snap: true,
            tcp_candidates: Vec::new(),
            publish_codecs: Codec::ALL.to_vec(),
            subscribe_codecs: Codec::ALL.to_vec(),
            quirks: ClientQuirks::default(),
            session_id: 1,
        });
        let fresh = IceCredentials {
            ufrag: "efgh".into(),
            pwd: "abcdefghijklmnopqrstuvwx".into(),
        };
        if let Ok(answer) = peer.handle_offer(text, &[], fresh) {
            SessionDescription::parse(&answer.sdp).expect("an answer can be read");
        }
    }
}

fn signal_protobuf(data: &[u8]) {
    let _ = SignalRequest::decode(data);
}

fn signal_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = json::signal_request_from_json(text);
}

fn join(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = join_request::decode_join_request(text);
    let _ = join_request::JoinParameters::from_query([("join_request", text)], true);
    let _ = join_request::JoinParameters::from_query([("attributes", text), ("sdk", text), ("protocol", text)], false);
}

fn jwt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let keys: ApiKeys = [("devkey", "a-secret-that-no-fuzzer-finds-in-a-lifetime")]
        .into_iter()
        .collect();
    assert!(
        claims::verify(text, &keys, std::time::Duration::from_secs(1_790_000_000)).is_err(),
        "a token that we did not sign"
    );
}

fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data) else { return };
    let mut out = Vec::new();
    envelope.write_stamped(
        Stamp {
            participant_identity: Some("alice"),
            participant_sid: "PA_alice",
            lossy: true,
            hidden: false,
        },
        &mut out,
    );
    if DataPacket::decode(data).is_ok() {
        let stamped = DataPacket::decode(out.as_slice()).expect("a stamped packet is a packet");
        assert_eq!(stamped.participant_sid, "PA_alice");
    }
}

/// Everybody's password is `password`.
struct OnePassword;

impl turn::Credentials for OnePassword {
    fn account(&self, username: &str, _: Duration) -> Option<turn::Account> {
        Some(turn::Account {
            user: username.to_owned(),
            password: "password".to_owned(),
        })
    }
}

/// A script of one client: each step is a byte that says what, a length, and that many bytes.
fn turn_server(data: &[u8]) {
    let mut now = Instant::now();
    let address = |text: &str| text.parse().expect("an address");
    let peers = vec![address("203.0.113.5:7882"), address("[2001:db8::5]:7882")];
    let config = turn::ServerConfig {
        realm: "livekit".into(),
        relay_ips: peers.iter().map(std::net::SocketAddr::ip).collect(),
        relay_ports: 30_000..=30_010,
        peers: peers.clone().into(),
        allocations_per_user: 2,
        secret: [7; 32],
        wall: WallClock::new(now, Duration::from_secs(1_790_000_000)),
    };
    let mut server = turn::Server::new(config, Box::new(OnePassword), now);
    server.admit("alice");
    let mut client = NetPath {
        local: address("203.0.113.5:3478"),
        remote: address("198.51.100.7:4000"),
        protocol: NetProtocol::Udp,
    };
    let key = LongTermKeyCredentials::new("alice".into(), "password".into(), "livekit".into())
        .make_key(IntegrityAlgorithm::Sha1);
    let mut nonce = Vec::new();
    let mut back = None;
    let mut rest = data;
    while let [what, length, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let message = match what % 8 {
            0 => bytes.to_vec(),
            // Attributes of the fuzzer's, signed: how far an authentic client gets with nonsense.
            1 | 2 => signed(*what, bytes, &nonce, &key),
            3 => {
                now += Duration::from_secs(u64::from(*length) * 8);
                server.handle_timeout(now);
                continue;
            }
            4 => {
                server.revoke("alice");
                server.admit("alice");
                continue;
            }
            5 => {
                server.handle_disconnect(client);
                continue;
            }
            6 => {
                client.remote.set_port(4000 + u16::from(*length % 4));
                continue;
            }
            _ => {
                if let Some(carriage) = back.and_then(|path| server.carriage(now, path, 100)) {
                    let mut buffer = [0; 256 + turn::MAX_CARRIAGE];
                    carriage.wrap(&mut buffer, bytes.len()).expect("there is room");
                }
                continue;
            }
        };
        if let Ok(Some(relayed)) = server.handle_message(now, client, &message) {
            assert!(peers.contains(&relayed.path.local), "a peer that is not ours");
            assert!(message.get(relayed.payload).is_some());
            back = Some(relayed.path);
        }
        while let Some((_, answer)) = server.poll_transmit() {
            let answer = Stun::from_bytes(&answer).expect("a STUN message");
            if let Some(found) = answer.raw_attribute(AttributeType::new(0x15)) {
                nonce = found.value.to_vec();
            }
        }
        assert!(server.population().allocations <= 2);
    }
}

/// A request for the method that `what` names, with the attributes in `bytes` (type, length, value).
fn signed(what: u8, bytes: &[u8], nonce: &[u8], key: &stun_types::message::IntegrityKey) -> Vec<u8> {
    let method = [0x003, 0x004, 0x008, 0x009][usize::from(what >> 3) % 4];
    let kind = MessageType::from_class_method(MessageClass::Request, Method::new(method));
    let mut write = Stun::builder(kind, 7.into(), MessageWriteVec::new());
    let mut put = |kind: u16, value: &[u8]| {
        // Those that end a message cannot be written so.
        if !matches!(kind, 0x0008 | 0x001c | 0x8028) {
            let _ = write.add_attribute(&RawAttribute::new(AttributeType::new(kind), value));
        }
    };
    let mut rest = bytes;
    while let [a, b, length, behind @ ..] = rest {
        let (value, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        put(u16::from_be_bytes([*a, *b]), value);
    }
    for (kind, value) in [(0x06, b"alice".as_slice()), (0x14, b"livekit"), (0x15, nonce)] {
        put(kind, value);
    }
    let _ = write.add_message_integrity_with_key(key, IntegrityAlgorithm::Sha1);
    write.finish()
}

fn turn_stream(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(length)) = turn::frame_length(rest) {
        assert!((4..=turn::MAX_FRAME).contains(&length));
        match rest.get(length..) {
            Some(behind) => rest = behind,
            None => break,
        }
    }
}

/// ChannelData of a client with one bound channel: what comes out is a part of what went in, for the one peer; and what is
/// wrapped for the client can be read again.
fn channel_data(data: &[u8]) {
    let now = Instant::now();
    let address = |text: &str| text.parse().expect("an address");
    let peer: std::net::SocketAddr = address("203.0.113.5:7882");
    let config = turn::ServerConfig {
        realm: "livekit".into(),
        relay_ips: vec![peer.ip()],
        relay_ports: 30_000..=30_010,
        peers: vec![peer].into(),
        allocations_per_user: 1,
        secret: [7; 32],
        wall: WallClock::new(now, Duration::from_secs(1_790_000_000)),
    };
    for protocol in [NetProtocol::Udp, NetProtocol::Tcp] {
        let mut server = turn::Server::new(config.clone(), Box::new(OnePassword), now);
        server.admit("alice");
        let client = NetPath {
            local: address("203.0.113.5:3478"),
            remote: address("198.51.100.7:4000"),
            protocol,
        };
        let key = LongTermKeyCredentials::new("alice".into(), "password".into(), "livekit".into())
            .make_key(IntegrityAlgorithm::Sha1);
        let mut nonce = Vec::new();
        // 203.0.113.5:7882 under the cookie; channel 0x4000. Allocate twice, for the nonce, then bind.
        let bind = [
            0, 0x0c, 4, 0x40, 0, 0, 0, 0, 0x12, 8, 0, 1, 0x3f, 0xd8, 0xea, 0x12, 0xd5, 0x47,
        ];
        let udp = [0, 0x19, 4, 17, 0, 0, 0];
        for (what, attributes) in [(0, &udp[..]), (0, &udp), (3 << 3, &bind)] {
            let _ = server.handle_message(now, client, &signed(what, attributes, &nonce, &key));
            let (_, answer) = server.poll_transmit().expect("an answer");
            let answer = Stun::from_bytes(&answer).expect("a STUN message");
            if let Some(found) = answer.raw_attribute(AttributeType::new(0x15)) {
                nonce = found.value.to_vec();
            }
        }
        if !matches!(data.first(), Some(0x40..=0x7f)) {
            return;
        }
        let Ok(Some(relayed)) = server.handle_message(now, client, data) else {
            continue;
        };
        assert_eq!(relayed.path.local, peer);
        let payload = data.get(relayed.payload).expect("a part of the message");
        let carriage = server.carriage(now, relayed.path, 100).expect("its channel is bound");
        let mut buffer = [payload, &[0; turn::MAX_CARRIAGE]].concat();
        let length = carriage.wrap(&mut buffer, payload.len()).expect("there is room");
        let wrapped = &buffer[..length];
        assert_eq!(&wrapped[4..4 + payload.len()], payload);
        let framed = turn::frame_length(wrapped);
        assert!(protocol == NetProtocol::Udp || length > turn::MAX_FRAME || framed == Ok(Some(length)));
    }
}

/// RFC 4571: frames one after the other, each a datagram at most.
fn media_stream(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(length)) = rtc::frame_length(rest) {
        assert!((rtc::FRAME_HEADER..=rtc::FRAME_HEADER + patchbay::types::MAX_DATAGRAM).contains(&length));
        let Some(frame) = rest.get(..length) else { break };
        let _ = rtc::classify(&frame[rtc::FRAME_HEADER..]);
        rest = &rest[length..];
    }
}

/// What a connection is: a verdict stands, whatever follows.
fn stream_opening(data: &[u8]) {
    let mut said = None;
    for length in 0..=data.len().min(64) {
        let verdict = io::opening(&data[..length]);
        if let Some(said) = said {
            assert_eq!(verdict, said);
        }
        if verdict != Ok(None) {
            said = Some(verdict);
        }
    }
    assert!(
        !turn::is_for_server(data) || rtc::stun_local_ufrag(data).is_none(),
        "a connectivity check is media's"
    );
}
