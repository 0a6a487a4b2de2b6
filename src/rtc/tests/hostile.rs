//! Bytes that nobody meant well: no datagram makes a transport panic, and none that is not authentic ends it.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::raw::{binding_request, transport};
use super::*;

/// A datagram of some protocol: a first byte that leads somewhere, then anything.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![0..4u8, 20..64u8, 64..80u8, 128..192u8, any::<u8>()];
    (first, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(first, rest)| {
        let mut datagram = vec![first];
        datagram.extend(rest);
        datagram
    })
}

/// A DTLS record header with anything in it, in the clear or claiming to be encrypted.
fn record() -> impl Strategy<Value = Vec<u8>> {
    let fields = (
        20..27u8,
        0..2u16,
        any::<u8>(),
        0..30u8,
        proptest::collection::vec(any::<u8>(), 0..120),
    );
    fields.prop_map(|(kind, epoch, sequence, message, body)| {
        let mut record = vec![kind, 0xfe, 0xfd];
        record.extend(epoch.to_be_bytes());
        record.extend([0, 0, 0, 0, 0, sequence]);
        record.extend((body.len() as u16 + 12).to_be_bytes());
        let length = (body.len() as u32).to_be_bytes();
        record.push(message);
        record.extend(&length[1..]);
        record.extend([0, 0, 0, 0, 0]);
        record.extend(&length[1..]);
        record.extend(body);
        record
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_datagrams(datagrams in proptest::collection::vec(prop_oneof![datagram(), record()], 1..40)) {
        let mut now = Instant::now();
        let client = DtlsIdentity::generate().expect("an identity");
        let (mut transport, _) = transport(now, &client);
        let from = path(SERVER, CLIENT);
        let mut request = binding_request(&credentials("one"), "ufragpeer", true);
        prop_assert_eq!(transport.handle_datagram(now, from, &mut request), Ok(Received::Consumed));
        for mut datagram in datagrams {
            let _ = transport.handle_datagram(now, from, &mut datagram);
            now += Duration::from_millis(1);
            while transport.poll_transmit().is_some() {}
            while transport.poll_event().is_some() {}
            if transport.poll_timeout().is_some_and(|at| at <= now) {
                transport.handle_timeout(now);
            }
        }
    }

    #[test]
    fn changed_bits_of_a_good_check(bit in 0usize..800, cut in 0usize..200) {
        let now = Instant::now();
        let client = DtlsIdentity::generate().expect("an identity");
        let (mut transport, _) = transport(now, &client);
        let mut request = binding_request(&credentials("one"), "ufragpeer", true);
        let bit = bit % (request.len() * 8);
        request[bit / 8] ^= 1 << (bit % 8);
        let cut = request.len().saturating_sub(cut % 8);
        let _ = transport.handle_datagram(now, path(SERVER, CLIENT), &mut request[..cut]);
    }

    #[test]
    fn any_candidate(text in "(a=)?(candidate:)?[ -~]{0,80}") {
        let now = Instant::now();
        let identity = DtlsIdentity::generate().expect("an identity");
        let mut transport = Transport::new(config(false, SERVER), &identity, now);
        transport.add_remote_candidate(now, &text);
    }
}
