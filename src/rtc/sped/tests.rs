use proptest::prelude::*;

use super::*;
use crate::types::{IceCredentials, NetProtocol};

const PASSWORD: &str = "0123456789abcdef01234567";

fn path() -> NetPath {
    NetPath {
        local: "10.0.0.1:7882".parse().unwrap(),
        remote: "10.0.0.2:5000".parse().unwrap(),
        protocol: NetProtocol::Udp,
    }
}

fn record(number: u8, length: usize) -> Vec<u8> {
    let mut record = vec![number; length];
    record[..3].copy_from_slice(&[HANDSHAKE, 254, 253]);
    record
}

/// An ordinary check, proven with `PASSWORD`.
fn check() -> Vec<u8> {
    let credentials = IceCredentials {
        ufrag: "abcd".into(),
        pwd: PASSWORD.into(),
    };
    crate::rtc::tests::binding_request(&credentials, "efgh", true)
}

/// What a STUN implementation that knows nothing of this says of the message.
fn is_proven(message: &[u8]) -> bool {
    use stun_types::message::{Message, MessageIntegrityCredentials, ShortTermCredentials};
    let message = Message::from_bytes(message).expect("a STUN message with a right fingerprint");
    let credentials = ShortTermCredentials::new(PASSWORD.to_owned());
    message
        .validate_integrity(&MessageIntegrityCredentials::from(credentials))
        .is_ok()
}

#[test]
fn a_message_with_records_is_proven_as_before() {
    let mut sped = Sped::default();
    sped.note(&record(7, 60));
    assert!(sped.capture(path(), &record(1, 501)));
    let mut message = check();
    assert!(is_proven(&message));
    sped.embed(&mut message, PASSWORD);
    assert!(is_proven(&message));
    let ack = crc32(&record(7, 60)).to_be_bytes();
    let embedded = Embedded {
        data: Some(&record(1, 501)),
        acks: Some(&ack),
    };
    assert_eq!(read(&message), Some(embedded));
    let flipped = message.iter().position(|byte| *byte == 1).unwrap();
    message[flipped + 300] ^= 1;
    assert!(read(&message) != Some(embedded));
}

#[test]
fn records_ride_until_they_are_acknowledged() {
    let mut ours = Sped::default();
    for number in 1..=2 {
        assert!(ours.capture(path(), &record(number, 100)));
    }
    let ride = |ours: &mut Sped| {
        let mut message = check();
        ours.embed(&mut message, PASSWORD);
        read(&message).and_then(|embedded| Some(embedded.data?[5]))
    };
    let rides = [(); 4].map(|()| ride(&mut ours));
    assert_eq!(rides, [Some(1), Some(2), Some(1), Some(2)], "in turns");
    assert_eq!(ours.poll_alone(), None, "they have left");
    let ack = crc32(&record(1, 100)).to_be_bytes();
    let acks = |acks| Embedded {
        data: None,
        acks: Some(acks),
    };
    assert_eq!(ours.handle(acks(&ack)), Ok(None));
    assert_eq!([ride(&mut ours), ride(&mut ours)], [Some(2), Some(2)]);
    assert_eq!(ours.handle(acks(&crc32(&record(2, 100)).to_be_bytes())), Ok(None));
    assert!(ours.is_drained());
    assert_eq!(ride(&mut ours), None);
}

#[test]
fn what_does_not_fit_or_is_no_handshake_goes_by_itself() {
    let mut sped = Sped::default();
    assert!(!sped.capture(path(), &record(1, MAX_EMBEDDED + 1)));
    let mut application = record(1, 60);
    application[0] = 23;
    assert!(!sped.capture(path(), &application));
    let taken = (0..20)
        .filter(|number| sped.capture(path(), &record(*number, 60)))
        .count();
    assert_eq!(taken, MAX_PENDING);
    assert_eq!(sped.poll_alone(), Some((path(), record(0, 60))));
    // The next flight is in nobody's way.
    sped.begin();
    assert!(sped.capture(path(), &record(99, 60)));
    assert_eq!(sped.poll_alone(), Some((path(), record(99, 60))));
    assert_eq!(sped.poll_alone(), None);
}

#[test]
fn a_peer_that_does_not_do_it_is_believed() {
    let mut sped = Sped::default();
    assert_eq!(sped.handle(Embedded::default()), Err(Unsupported));
    let empty = Embedded {
        data: None,
        acks: Some(&[]),
    };
    assert_eq!(sped.handle(empty), Ok(None));
    assert_eq!(
        sped.handle(Embedded::default()),
        Ok(None),
        "it does, and has no more to say"
    );
}

#[test]
fn no_more_is_remembered_than_can_be_said() {
    let mut sped = Sped::default();
    (0..100).for_each(|number| sped.note(&record(number, 60)));
    (99..100).for_each(|number| sped.note(&record(number, 60)));
    let last: Vec<u32> = (96..100).map(|number| crc32(&record(number, 60))).collect();
    assert_eq!(sped.seen, last);
}

proptest! {
    #[test]
    fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in any::<bool>()) {
        let mut message = if start { [&check()[..40], &bytes].concat() } else { bytes };
        let mut sped = Sped::default();
        sped.capture(path(), &record(1, 60));
        if let Some(embedded) = read(&message) {
            let _ = sped.handle(embedded);
        }
        sped.embed(&mut message, PASSWORD);
    }
}
