//! What a TCP connection is, from the first bytes that its client sends: the demultiplexer of a port that serves everything.
//!
//! Pure: bytes in, verdict out, as soon as the bytes allow one. Proves nothing; whoever gets the connection checks it again.

use crate::turn;
use crate::types::MAX_DATAGRAM;

/// What a client has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// A ClientHello (RFC 8446 §5.1).
    Tls,
    /// A request line (RFC 9112 §3).
    Http,
    /// A connectivity check in an RFC 4571 frame: ICE-TCP.
    Media,
    /// An Allocate or Binding request as TURN over TCP sends it.
    Turn,
}

/// Nothing that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither TLS, HTTP, TURN nor a connectivity check")]
pub struct Unknown;

/// A TLS record of type handshake, version 3.x.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];
/// The longest method there is in practice (UPDATEREDIRECTREF is of no use here).
const MAX_METHOD: usize = 12;
/// STUN: method and class, length, cookie (RFC 8489 §5).
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const ALLOCATE_REQUEST: [u8; 2] = [0x00, 0x03];
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_HEADER: usize = 20;

/// What begins with `start`; None = more bytes must be seen first, at most 12.
///
/// No two can be mistaken for each other: a frame's length is at least that of a STUN header and at most that of a datagram
/// (0x0014 to 0x05dc), a request of TURN begins with 0x0001 or 0x0003, a TLS record with 0x16, a method with a letter.
///
/// # Errors
/// As soon as the bytes can be none of them.
pub fn opening(start: &[u8]) -> Result<Option<Opening>, Unknown> {
    match start.first() {
        None => Ok(None),
        Some(0x16) => decide(start, &TLS_HANDSHAKE, Opening::Tls),
        Some(b'A'..=b'Z') => http(start),
        Some(_) => stun(start),
    }
}

fn http(start: &[u8]) -> Result<Option<Opening>, Unknown> {
    let method = start.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    match start.get(method) {
        Some(b' ') if method <= MAX_METHOD => Ok(Some(Opening::Http)),
        None if method <= MAX_METHOD => Ok(None),
        _ => Err(Unknown),
    }
}

fn stun(start: &[u8]) -> Result<Option<Opening>, Unknown> {
    let Some((first, rest)) = start.split_first_chunk::<2>() else {
        // Of the first byte alone: the length of a frame, or the zero of a request.
        let longest = (MAX_DATAGRAM >> 8) as u8;
        return if start.iter().all(|byte| *byte <= longest) {
            Ok(None)
        } else {
            Err(Unknown)
        };
    };
    let length = usize::from(u16::from_be_bytes(*first));
    if (STUN_HEADER..=MAX_DATAGRAM).contains(&length) {
        // Its own length stands between type and cookie.
        let Some((kind, rest)) = rest.split_at_checked(2) else {
            return decide(rest, &BINDING_REQUEST, Opening::Media);
        };
        decide(kind, &BINDING_REQUEST, Opening::Media)?;
        return decide(rest.get(2..).unwrap_or_default(), &COOKIE, Opening::Media);
    }
    if *first != BINDING_REQUEST && *first != ALLOCATE_REQUEST {
        return Err(Unknown);
    }
    let Some((length, rest)) = rest.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if !length.is_multiple_of(4) || length > turn::MAX_FRAME - STUN_HEADER {
        return Err(Unknown);
    }
    decide(rest, &COOKIE, Opening::Turn)
}

/// `start` against the only bytes that may stand there.
fn decide(start: &[u8], expected: &[u8], what: Opening) -> Result<Option<Opening>, Unknown> {
    let seen = start.len().min(expected.len());
    match (start.get(..seen), expected.get(..seen)) {
        (Some(start), Some(begun)) if start == begun => Ok((seen == expected.len()).then_some(what)),
        _ => Err(Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    const CHECK: &[u8] = &[0x00, 0x58, 0, 1, 0, 0x44, 0x21, 0x12, 0xa4, 0x42, 9, 9];
    const ALLOCATE: &[u8] = &[0, 3, 0, 8, 0x21, 0x12, 0xa4, 0x42, 9, 9, 9, 9];
    const BINDING: &[u8] = &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 9, 9, 9, 9];

    /// A byte at a time: nothing, nothing, the verdict, and no other after it.
    fn reads(bytes: &[u8], what: Opening, after: usize) {
        for length in 0..=bytes.len() {
            let expected = (length >= after).then_some(what);
            assert_eq!(
                opening(&bytes[..length]),
                Ok(expected),
                "{length} bytes of {bytes:02x?}"
            );
        }
    }

    #[test]
    fn each_is_known_by_its_first_bytes() {
        reads(HELLO, Opening::Tls, 2);
        reads(b"GET / HTTP/1.1\r\n", Opening::Http, 4);
        reads(b"OPTIONS /rtc HTTP/1.1", Opening::Http, 8);
        reads(CHECK, Opening::Media, 10);
        reads(ALLOCATE, Opening::Turn, 8);
        reads(BINDING, Opening::Turn, 8);
    }

    #[test]
    fn nothing_else_is() {
        let strangers: [&[u8]; 14] = [
            &[0x15, 0x03],                               // a TLS alert
            &[0x16, 0x02],                               // SSL 2
            &[0x80, 0x2e],                               // an SSL 2 hello, or RTP
            b"get / HTTP/1.1",                           // methods are in capitals
            b"GETTHEWHOLETHING ",                        // no such method
            b"SSH-2.0-",                                 // an SSH client
            b"A\x00",                                    // neither letter nor space
            &[0x40, 0x00, 0, 4],                         // ChannelData without an allocation
            &[0, 0],                                     // an empty frame
            &[0, 0x13, 0, 1],                            // shorter than STUN
            &[0x05, 0xdd, 0, 1],                         // longer than a datagram
            &[0, 0x58, 0x80, 0x60],                      // RTP before any check
            &[0, 3, 0, 7, 0x21],                         // STUN is padded
            &[0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42], // longer than any request
        ];
        for stranger in strangers {
            assert_eq!(opening(stranger), Err(Unknown), "{stranger:02x?}");
        }
        assert_eq!(opening(&[0x06]), Err(Unknown), "no length begins so");
        let mut cookie = CHECK.to_vec();
        cookie[7] = 0;
        assert_eq!(opening(&cookie), Err(Unknown));
    }

    proptest! {
        /// What was said of the beginning stands, whatever follows; and twelve bytes are always enough, but for a method.
        #[test]
        fn a_verdict_is_final(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut said = None;
            for length in 0..=bytes.len() {
                let verdict = opening(&bytes[..length]);
                if let Some(said) = said {
                    prop_assert_eq!(verdict, said);
                }
                if verdict != Ok(None) {
                    said = Some(verdict);
                }
            }
            prop_assert!(bytes.len() <= MAX_METHOD || said.is_some());
        }
    }
}
