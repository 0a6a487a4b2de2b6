//! Handshakes whose messages come in pieces (RFC 6347 §4.2.3), as a network and its retransmissions bring them, and pieces that
//! nobody meant well.
//!
//! The peer is a bare `dimpl`, with a ClientHello larger than a datagram and a certificate of some 5 KB; the pieces are cut and
//! mixed here.

use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate, Output};

use super::raw::binding_request;
use super::*;
use crate::rtc::DtlsVersions;
use crate::types::SrtpProfile;

/// libwebrtc's ClientHello with a post-quantum key share is some 1500 bytes; this one is padded to twice that.
const HELLO: usize = 3000;
/// First retransmission of the peer's.
const PEER_RTO: Duration = Duration::from_millis(100);

/// A record in the clear with one piece in it, or any other datagram.
#[derive(Clone, Debug)]
struct Part {
    /// Kind, length and sequence of the message, where the piece begins, what it says. None: another record, in `bytes`.
    piece: Option<(u8, usize, u16, usize, Vec<u8>)>,
    bytes: Vec<u8>,
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn three(number: usize) -> [u8; 3] {
    [(number >> 16) as u8, (number >> 8) as u8, number as u8]
}

fn part(kind: u8, length: usize, sequence: u16, offset: usize, body: &[u8]) -> Part {
    let mut bytes = vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, sequence as u8];
    bytes.extend((body.len() as u16 + 12).to_be_bytes());
    bytes.push(kind);
    bytes.extend(three(length));
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(three(offset));
    bytes.extend(three(body.len()));
    bytes.extend(body);
    Part {
        piece: Some((kind, length, sequence, offset, body.to_vec())),
        bytes,
    }
}

/// Cuts the messages of a flight into pieces of so many bytes, one beginning every `step`.
fn cut(flight: &[Vec<u8>], size: usize, step: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    for datagram in flight {
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            // A record of DTLS 1.3 that is encrypted takes the rest of its datagram.
            let is_clear = rest[0] == 22 && rest[3..5] == [0, 0];
            let end = if rest[0] & 0xe0 == 0x20 {
                rest.len()
            } else {
                13 + number(&rest[11..13])
            };
            let (record, after) = rest.split_at(end);
            rest = after;
            if !is_clear {
                parts.push(Part {
                    piece: None,
                    bytes: record.to_vec(),
                });
                continue;
            }
            let mut body = &record[13..];
            while !body.is_empty() {
                let (length, sequence) = (number(&body[1..4]), number(&body[4..6]) as u16);
                let (from, here) = (number(&body[6..9]), number(&body[9..12]));
                let message = &body[12..12 + here];
                for at in (0..here.max(1)).step_by(step) {
                    let piece = &message[at..here.min(at + size)];
                    parts.push(part(body[0], length, sequence, from + at, piece));
                }
                body = &body[12 + here..];
            }
        }
    }
    parts
}

fn datagrams(parts: Vec<Part>) -> Vec<Vec<u8>> {
    parts.into_iter().map(|part| part.bytes).collect()
}

/// Pieces turned round; what is behind them (ChangeCipherSpec, Finished) stays behind: that is not for pieces to solve.
fn backwards(parts: Vec<Part>) -> Vec<Part> {
    let (mut pieces, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.piece.is_some());
    pieces.reverse();
    pieces.extend(rest);
    pieces
}

fn certificate() -> DtlsCertificate {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names: Vec<_> = (0..200).map(|number| format!("name-{number}.example.com")).collect();
    let parameters = rcgen::CertificateParams::new(names).expect("names");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    assert!(certificate.der().len() > 4000);
    DtlsCertificate {
        certificate: certificate.der().to_vec(),
        private_key: key.serialize_der(),
    }
}

/// How a handshake went: how long, and with which profile.
#[derive(Debug)]
struct Outcome {
    took: Duration,
    profile: SrtpProfile,
    /// Datagrams that the peer sent before it was mixed with.
    flights: Vec<Vec<Vec<u8>>>,
}

/// A handshake over a verified path. `arrive`: what comes of a flight of the peer's, numbered from 0.
fn connect(
    role: DtlsRole,
    versions: DtlsVersions,
    mut arrive: impl FnMut(usize, Vec<Vec<u8>>) -> Vec<Vec<u8>>,
) -> Outcome {
    let start = Instant::now();
    let certificate = certificate();
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &certificate.certificate);
    let identity = DtlsIdentity::with_versions(versions).expect("an identity");
    let mut transport = Transport::new(config(true, SERVER), &identity, start);
    let remote = RemoteParameters {
        ice: credentials("peer"),
        fingerprint: fingerprint.as_ref().try_into().expect("32 bytes"),
        dtls_role: role,
        sctp_max_message_size: None,
        sctp_init: None,
        sped: false,
    };
    let mut check = binding_request(&credentials("one"), "ufragpeer", true);
    let checked = transport.handle_datagram(start, path(SERVER, CLIENT), &mut check);
    assert_eq!(checked, Ok(Received::Consumed));
    transport.set_remote(start, &remote);

    // As client its hello is padded to the largest datagram it knows.
    let is_client = role == DtlsRole::Passive;
    let settings = Config::builder()
        .mtu(if is_client { HELLO } else { 1150 })
        .use_server_cookie(false)
        .flight_start_rto(PEER_RTO)
        .flight_retries(9)
        .build()
        .expect("settings");
    let new = if is_client || versions != DtlsVersions::Only12 {
        Dtls::new_auto
    } else {
        Dtls::new_12
    };
    let mut peer = new(settings.into(), certificate, start);
    peer.set_active(is_client);

    let (mut ours, mut theirs) = (None, false);
    let mut flights = Vec::new();
    let mut now = start;
    loop {
        assert!(now < start + Duration::from_secs(10), "it never ends");
        peer.handle_timeout(now).expect("alive");
        let mut flight = Vec::new();
        let mut buffer = vec![0; 20_000];
        loop {
            match peer.poll_output(&mut buffer) {
                Output::Packet(packet) => flight.push(packet.to_vec()),
                Output::Timeout(_) => break,
                Output::PeerCert(der) => assert_eq!(
                    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref(),
                    identity.fingerprint()
                ),
                Output::KeyingMaterial(..) => theirs = true,
                _ => {}
            }
        }
        if !flight.is_empty() {
            for mut datagram in arrive(flights.len(), flight.clone()) {
                let _ = transport.handle_datagram(now, path(SERVER, CLIENT), &mut datagram);
            }
            flights.push(flight);
        }
        let mut is_quiet = true;
        while let Some((_, datagram)) = transport.poll_transmit() {
            assert!(datagram.len() <= LARGEST, "{} bytes", datagram.len());
            if datagram[0] >= 20 {
                is_quiet = false;
                peer.handle_packet(&datagram).expect("taken");
            }
        }
        while let Some(event) = transport.poll_event() {
            match event {
                TransportEvent::Connected { profile } => ours = Some(profile),
                other => panic!("{other:?}"),
            }
        }
        if let (true, Some(profile)) = (theirs, ours) {
            return Outcome {
                took: now - start,
                profile,
                flights,
            };
        }
        if is_quiet {
            now += Duration::from_millis(10);
            if transport.poll_timeout().is_some_and(|at| at <= now) {
                transport.handle_timeout(now);
            }
        }
    }
}

/// The peer as client with its two flights, and as server with its one.
const ROLES: [DtlsRole; 2] = [DtlsRole::Passive, DtlsRole::Active];

#[test]
fn a_hello_of_two_datagrams_and_a_large_certificate() {
    for versions in [DtlsVersions::Only12, DtlsVersions::Either] {
        for size in [1100, 700, 250] {
            let outcome = connect(DtlsRole::Passive, versions, |_, flight| {
                datagrams(cut(&flight, size, size))
            });
            assert_eq!(outcome.took, Duration::ZERO, "{versions:?}, {size}");
            assert_eq!(outcome.flights.len(), 2);
            assert!(outcome.flights[0].concat().len() >= HELLO);
            if versions == DtlsVersions::Only12 {
                assert_eq!(outcome.profile, SrtpProfile::AeadAes256Gcm);
            }
        }
    }
}

/// Nothing is lost, so no time passes.
#[test]
fn pieces_in_any_order_and_more_than_once() {
    type Mixed = fn(Vec<Part>) -> Vec<Vec<u8>>;
    let mixes: [(&str, Mixed); 5] = [
        ("in order", datagrams),
        ("backwards", |parts| datagrams(backwards(parts))),
        ("every second one first", |parts| {
            let (pieces, rest): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.piece.is_some());
            let odd = pieces.iter().skip(1).step_by(2).cloned();
            datagrams(odd.chain(pieces.iter().step_by(2).cloned()).chain(rest).collect())
        }),
        ("each of them twice, and all of them again", |parts| {
            let twice = parts.iter().flat_map(|part| [part.clone(), part.clone()]);
            datagrams(twice.chain(backwards(parts.clone())).collect())
        }),
        ("all of them in one datagram", |parts| vec![datagrams(parts).concat()]),
    ];
    for role in ROLES {
        for (name, mixed) in mixes {
            for (size, step) in [(400, 400), (150, 150), (400, 250), (150, 140)] {
                println!("{name}, {size} every {step}, {role:?}");
                let outcome = connect(role, DtlsVersions::Only12, |_, flight| mixed(cut(&flight, size, step)));
                assert_eq!(outcome.took, Duration::ZERO, "{name}, {size} every {step}, {role:?}");
                assert_eq!(outcome.profile, SrtpProfile::AeadAes256Gcm);
            }
        }
    }
}

#[test]
fn pieces_of_one_byte() {
    let outcome = connect(DtlsRole::Passive, DtlsVersions::Only12, |_, flight| {
        datagrams(cut(&flight, 1, 1))
    });
    assert_eq!(outcome.took, Duration::ZERO);
}

/// Each piece of the handshake once; the flight that comes again is cut alike, or otherwise.
#[test]
fn a_lost_piece_comes_again() {
    for role in ROLES {
        for again in [400, 170] {
            let mut lost = 0;
            loop {
                let mut count = 0;
                let outcome = connect(role, DtlsVersions::Only12, |number, flight| {
                    let size = if number % 2 == 0 { 400 } else { again };
                    let mut parts = cut(&flight, size, size);
                    parts.retain(|_| {
                        count += 1;
                        count != lost + 1
                    });
                    datagrams(parts)
                });
                if count <= lost {
                    break;
                }
                // A quarter of jitter, and the peer's timer doubles where two flights wait for each other.
                assert!(outcome.took <= 4 * PEER_RTO, "{role:?}, {lost}: {:?}", outcome.took);
                lost += 1;
            }
            assert!(lost > 12, "{lost} pieces");
        }
    }
}

/// What was there before counts, however the next flight is cut: a third of each is lost.
#[test]
fn cuts_that_differ_make_one_message() {
    let mut random = 1u32;
    for role in ROLES {
        let outcome = connect(role, DtlsVersions::Only12, |number, flight| {
            let size = [400, 330, 270][number % 3];
            let mut parts = cut(&flight, size, size);
            parts.retain(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                !(random >> 16).is_multiple_of(3)
            });
            datagrams(parts)
        });
        // Six flights at most, each twice as far from the one before.
        assert!(outcome.took <= 63 * PEER_RTO, "{role:?}: {:?}", outcome.took);
    }
}

/// Around every piece that is meant well come some that are not.
#[test]
fn bad_pieces_do_not_break_a_handshake() {
    let mut beginnings = 0;
    for role in ROLES {
        let outcome = connect(role, DtlsVersions::Only12, |_, flight| {
            let mut arriving = Vec::new();
            for good in cut(&flight, 400, 400) {
                if let Some((kind, length, sequence, offset, body)) = &good.piece {
                    let (kind, length, sequence, offset) = (*kind, *length, *sequence, *offset);
                    let mut bad = vec![
                        // 16 MiB, and the same message longer and shorter than it is.
                        part(kind, (1 << 24) - 1, sequence, offset, body),
                        part(kind, length + 1, sequence, offset, body),
                        part(kind, length + 4000, sequence, 0, body),
                        part(kind, 1, sequence, offset, body),
                        // Behind its end, over its end, nothing at all.
                        part(kind, length, sequence, length, b"x"),
                        part(kind, length, sequence, length.saturating_sub(1), b"xyz"),
                        part(kind, length, sequence, (1 << 24) - 1, b"xyz"),
                        part(kind, length, sequence, 0, b""),
                        // Of another kind.
                        part(kind ^ 0x40, length, sequence, offset, &[7; 100]),
                        part(11, 5000, 900, 0, &[7; 100]),
                    ];
                    let mut beginning = || {
                        beginnings += 1;
                        part(11, 6000 + beginnings % 7000, (beginnings % 40) as u16, 0, b"abc")
                    };
                    bad.extend(std::iter::repeat_with(&mut beginning).take(40));
                    let mut long = part(kind, length, sequence, 0, &[7; 20]);
                    long.bytes[24] = 200; // longer than its record
                    bad.push(long);
                    arriving.extend(datagrams(bad));
                    // Records that are no messages, and a ChangeCipherSpec each.
                    arriving.push(vec![22, 254, 253, 0, 0, 0, 0, 0, 0, 0, offset as u8, 0, 3, 1, 2, 3]);
                    arriving.push(vec![20, 254, 253, 0, 0, 0, 0, 0, 0, 1, offset as u8, 0, 1, 1]);
                }
                arriving.push(good.bytes);
            }
            arriving
        });
        println!("{role:?}: {:?}, {} flights", outcome.took, outcome.flights.len());
        assert!(outcome.took <= 4 * PEER_RTO, "{role:?}: {:?}", outcome.took);
    }
    assert!(beginnings > 1000);
}
