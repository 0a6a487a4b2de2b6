//! What is fuzzed: every parser of bytes from outside. Used by the libFuzzer binary and, through the stored seeds, by
//! `tests/fuzz_seeds.rs`.
//!
//! A target fails by panicking; where something can be said about the result, it asserts that too.

use livekit_protocol::{DataPacket, SignalRequest};
use patchbay::{
    control::negotiation::{ClientQuirks, PeerConfig, PeerConnection, Role},
    proto::{
        claims::{self, ApiKeys},
        envelope::{Envelope, Stamp},
        join_request, json,
    },
    rtc,
    rtp::{self, RtpPacket, dependency_descriptor, red, rtcp, rtx, trailer, vp8},
    sdp::SessionDescription,
    types::{Codec, IceCredentials},
};
use prost::Message;

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
    ("sdp", session_description),
    ("signal_protobuf", signal_protobuf),
    ("signal_json", signal_json),
    ("join_request", join),
    ("jwt", jwt),
    ("envelope", envelope),
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
    let Ok(descriptor) = dependency_descriptor::Descriptor::parse(first, None) else {
        return;
    };
    if let Some(structure) = &descriptor.structure {
        let _ = dependency_descriptor::Descriptor::parse(second, Some(structure));
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
