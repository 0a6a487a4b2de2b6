use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::proto::livekit::data_stream::header::ContentHeader;
use crate::proto::livekit::data_stream::{ByteHeader, Header, TextHeader};
use crate::proto::livekit::{ChatMessage, DataPacket, SipDtmf, UserPacket, data_packet};

const STAMP: Stamp<'static> = Stamp {
    participant_sid: "PA_sender",
    participant_identity: Some("alice"),
    lossy: false,
    hidden: false,
};

fn stamped(packet: &DataPacket, stamp: Stamp<'_>) -> DataPacket {
    let bytes = packet.encode_to_vec();
    let mut out = Vec::new();
    Envelope::parse(&bytes).unwrap().write_stamped(stamp, &mut out);
    DataPacket::decode(out.as_slice()).unwrap()
}

#[allow(deprecated)]
fn user_packet() -> DataPacket {
    DataPacket {
        kind: 0,
        participant_identity: "mallory".into(),
        destination_identities: Vec::new(),
        sequence: 7,
        participant_sid: "PA_forged".into(),
        value: Some(data_packet::Value::User(UserPacket {
            participant_sid: "PA_forged".into(),
            participant_identity: "mallory".into(),
            payload: vec![9; 300],
            destination_sids: vec!["PA_1".into()],
            destination_identities: vec!["bob".into(), "carol".into()],
            topic: Some("t".into()),
            id: Some("i".into()),
            start_time: Some(1 << 40),
            end_time: None,
            nonce: (0..16).collect(),
        })),
    }
}

#[test]
fn reads_what_forwarding_needs() {
    let bytes = user_packet().encode_to_vec();
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.value(), Some(ValueKind::User));
    assert_eq!((envelope.sequence(), envelope.lossy()), (7, false));
    assert_eq!(envelope.destination_identities().collect::<Vec<_>>(), ["bob", "carol"]);
    assert_eq!(envelope.destination_sids().collect::<Vec<_>>(), ["PA_1"]);
    assert!(envelope.is_addressed());
    assert_eq!(envelope.nonce(), Some(std::array::from_fn(|index| index as u8)));
}

#[test]
#[allow(deprecated)]
fn the_senders_true_name_replaces_what_the_packet_says() {
    let sent = user_packet();
    let got = stamped(&sent, Stamp { lossy: true, ..STAMP });
    assert_eq!((got.kind, got.sequence), (1, 7));
    assert_eq!(
        (got.participant_identity.as_str(), got.participant_sid.as_str()),
        ("alice", "PA_sender")
    );
    assert_eq!(got.destination_identities, ["bob", "carol"], "copied from user");
    let (Some(data_packet::Value::User(before)), Some(data_packet::Value::User(after))) = (sent.value, got.value)
    else {
        panic!("value lost");
    };
    assert_eq!(
        after,
        UserPacket {
            participant_sid: "PA_sender".into(),
            participant_identity: "alice".into(),
            ..before
        }
    );
}

#[test]
#[allow(deprecated)]
fn packet_destinations_win_over_those_of_user() {
    let sent = DataPacket {
        destination_identities: vec!["dave".into()],
        ..user_packet()
    };
    let bytes = sent.encode_to_vec();
    assert_eq!(
        Envelope::parse(&bytes)
            .unwrap()
            .destination_identities()
            .collect::<Vec<_>>(),
        ["dave"]
    );
    let got = stamped(&sent, STAMP);
    let Some(data_packet::Value::User(user)) = got.value else {
        panic!("value lost")
    };
    assert_eq!(user.destination_identities, ["dave"]);
    assert_eq!(got.destination_identities, ["dave"]);
}

#[test]
#[allow(deprecated)]
fn a_hidden_sender_is_not_named() {
    let got = stamped(
        &user_packet(),
        Stamp {
            participant_identity: Some(""),
            hidden: true,
            ..STAMP
        },
    );
    assert_eq!(got.participant_identity, "");
    let Some(data_packet::Value::User(user)) = got.value else {
        panic!("value lost")
    };
    assert_eq!(
        (user.participant_sid.as_str(), user.participant_identity.as_str()),
        ("", "")
    );
}

#[test]
fn content_on_behalf_of_others_is_marked() {
    let chat = data_packet::Value::ChatMessage(ChatMessage {
        message: "hi".into(),
        ..Default::default()
    });
    let text = |content| {
        data_packet::Value::StreamHeader(Header {
            stream_id: "s".into(),
            content_header: Some(content),
            ..Default::default()
        })
    };
    let text_stream = text(ContentHeader::TextHeader(TextHeader {
        version: 3,
        ..Default::default()
    }));
    let byte_stream = text(ContentHeader::ByteHeader(ByteHeader { name: "n".into() }));
    let dtmf = data_packet::Value::SipDtmf(SipDtmf {
        code: 1,
        digit: "1".into(),
    });
    for (value, allowed) in [(chat, true), (text_stream, true), (byte_stream, false), (dtmf, false)] {
        let packet = DataPacket {
            participant_identity: "bob".into(),
            value: Some(value),
            ..Default::default()
        };
        let bytes = packet.encode_to_vec();
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(envelope.on_behalf_of("agent"), allowed.then_some("bob"));
        assert_eq!(envelope.on_behalf_of("bob"), None);
        if !allowed {
            continue;
        }
        let got = stamped(
            &packet,
            Stamp {
                participant_identity: None,
                ..STAMP
            },
        );
        assert_eq!(got.participant_identity, "bob");
        match got.value.unwrap() {
            data_packet::Value::ChatMessage(chat) => assert!(chat.generated && chat.message == "hi"),
            data_packet::Value::StreamHeader(header) => {
                let Some(ContentHeader::TextHeader(text)) = header.content_header else {
                    panic!("no text header")
                };
                assert!(text.generated && text.version == 3 && header.stream_id == "s");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn fields_of_a_later_version_pass_through() {
    let mut bytes = DataPacket {
        sequence: 3,
        ..Default::default()
    }
    .encode_to_vec();
    put_bytes(&mut bytes, 99, b"new");
    let mut out = Vec::new();
    let envelope = Envelope::parse(&bytes).unwrap();
    assert_eq!(envelope.value(), None);
    envelope.write_stamped(STAMP, &mut out);
    assert!(out.ends_with(b"\x03new"), "{out:?}");
}

#[test]
fn refuses_what_readers_would_read_differently() {
    let mut two = user_packet().encode_to_vec();
    put_bytes(&mut two, ValueKind::ChatMessage as u32, b"");
    assert_eq!(Envelope::parse(&two).unwrap_err(), EnvelopeError::SeveralValues);
    for bad in [
        &[0x00][..],               // field number 0
        &[0x0b],                   // group
        &[0x12, 0x05, 0x00],       // longer than the packet
        &[0x2a, 0x01, 0xff],       // identity that is not UTF-8
        &[0x0a, 0x00],             // kind as bytes
        &[0x10, 0x00],             // user as varint
        &[0x12, 0x02, 0x18, 0x00], // destination_sids as varint inside user
        &[0x80; 11],               // endless varint
    ] {
        assert_eq!(Envelope::parse(bad).unwrap_err(), EnvelopeError::Malformed, "{bad:?}");
    }
    assert_eq!(
        Envelope::parse(&vec![0; MAX_PACKET + 1]).unwrap_err(),
        EnvelopeError::TooLarge
    );
}

#[test]
#[allow(deprecated)]
fn a_payload_of_an_unlabeled_channel_becomes_a_user_packet() {
    let mut out = Vec::new();
    write_user(b"raw", STAMP, &mut out);
    let packet = DataPacket::decode(out.as_slice()).unwrap();
    assert_eq!(
        (packet.participant_identity.as_str(), packet.participant_sid.as_str()),
        ("alice", "PA_sender")
    );
    let Some(data_packet::Value::User(user)) = packet.value else {
        panic!("no user")
    };
    assert_eq!(
        (user.payload.as_slice(), user.participant_identity.as_str()),
        (&b"raw"[..], "alice")
    );
}

proptest! {
    /// Whatever the scanner accepts, prost accepts too, and stamping keeps it readable.
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        if let Ok(envelope) = Envelope::parse(&bytes) {
            let _ = (envelope.destination_identities().count(), envelope.destination_sids().count());
            let mut out = Vec::new();
            envelope.write_stamped(STAMP, &mut out);
            let again = Envelope::parse(&out).unwrap();
            prop_assert_eq!(again.participant_identity(), "alice");
            prop_assert_eq!((again.value(), again.sequence()), (envelope.value(), envelope.sequence()));
            envelope.write_stamped(Stamp { participant_identity: None, ..STAMP }, &mut Vec::new());
        }
    }

    #[test]
    #[allow(deprecated)]
    fn agrees_with_the_generated_decoder(
        kind in 0..2_i32, sequence in any::<u32>(), to in proptest::collection::vec("[a-z\u{e9}]{0,200}", 0..4),
        sids in proptest::collection::vec("PA_[a-z]{1,4}", 0..3), payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let user = UserPacket { destination_sids: sids.clone(), payload, ..Default::default() };
        let packet = DataPacket {
            kind, sequence, destination_identities: to.clone(),
            value: Some(data_packet::Value::User(user)), ..Default::default()
        };
        let bytes = packet.encode_to_vec();
        let envelope = Envelope::parse(&bytes).unwrap();
        prop_assert_eq!(envelope.sequence(), sequence);
        prop_assert_eq!(envelope.lossy(), kind == 1);
        prop_assert_eq!(envelope.destination_identities().collect::<Vec<_>>(), to.clone());
        prop_assert_eq!(envelope.destination_sids().collect::<Vec<_>>(), sids);
        let got = stamped(&packet, STAMP);
        let Some(data_packet::Value::User(mut user)) = got.value.clone() else { panic!("value lost") };
        prop_assert_eq!(&user.destination_identities, &to);
        user.participant_sid.clear();
        user.participant_identity.clear();
        user.destination_identities.clear();
        let back = DataPacket {
            kind, participant_identity: String::new(), participant_sid: String::new(),
            value: Some(data_packet::Value::User(user)), ..got
        };
        prop_assert_eq!(back, packet);
    }
}
