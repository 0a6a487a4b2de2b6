//! What a datagram is, from its first bytes: the demultiplexing of RFC 7983 and RFC 5761, and the ICE username that a
//! shard needs to find the transport of a first contact.

use crate::types::DropReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    Stun,
    Dtls,
    /// TURN ChannelData (RFC 8656 §12.4).
    TurnChannel,
    Rtp,
    Rtcp,
}

/// STUN header, RFC 8489 §5.
const STUN_HEADER: usize = 20;
const STUN_MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const STUN_USERNAME: u16 = 0x0006;
/// RFC 3550 §5.1 and §6.4.2: the shortest RTP header and the shortest RTCP packet.
const RTP_HEADER: usize = 12;
const RTCP_HEADER: usize = 8;

/// Sorts a datagram by its first byte (RFC 7983 §7), and RTCP from RTP by its packet type (RFC 5761 §4).
///
/// 20..=63 is DTLS: DTLS 1.3 ciphertext records start with 0x20..=0x3f (RFC 9147 §4).
pub fn classify(datagram: &[u8]) -> Result<PacketKind, DropReason> {
    let (shortest, kind) = match datagram.first() {
        None => return Err(DropReason::Truncated),
        Some(0..=3) => (STUN_HEADER, PacketKind::Stun),
        Some(20..=63) => (1, PacketKind::Dtls),
        Some(64..=79) => (4, PacketKind::TurnChannel),
        Some(128..=191) => match datagram.get(1) {
            Some(192..=223) => (RTCP_HEADER, PacketKind::Rtcp),
            _ => (RTP_HEADER, PacketKind::Rtp),
        },
        Some(_) => return Err(DropReason::UnknownProtocol),
    };
    if datagram.len() < shortest {
        return Err(DropReason::Truncated);
    }
    Ok(kind)
}

/// The first half of the USERNAME of a STUN binding request: the receiver's own ufrag (RFC 8445 §7.2.2). None for every
/// other datagram. Proves nothing: only the transport can check the message's integrity.
pub fn stun_local_ufrag(datagram: &[u8]) -> Option<&str> {
    let (header, mut attributes) = datagram.split_at_checked(STUN_HEADER)?;
    if header.get(..2)? != STUN_BINDING_REQUEST || header.get(4..8)? != STUN_MAGIC {
        return None;
    }
    loop {
        let kind = u16::from_be_bytes(attributes.get(..2)?.try_into().ok()?);
        let length = usize::from(u16::from_be_bytes(attributes.get(2..4)?.try_into().ok()?));
        let value = attributes.get(4..4 + length)?;
        if kind == STUN_USERNAME {
            let (local, _) = std::str::from_utf8(value).ok()?.split_once(':')?;
            return Some(local);
        }
        // RFC 8489 §14: attributes are padded to four bytes.
        attributes = attributes.get(4 + length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_byte_table_of_rfc7983() {
        for byte in 0..=255u8 {
            let mut datagram = [0u8; 64];
            datagram[0] = byte;
            let expected = match byte {
                0..=3 => Ok(PacketKind::Stun),
                20..=63 => Ok(PacketKind::Dtls),
                64..=79 => Ok(PacketKind::TurnChannel),
                128..=191 => Ok(PacketKind::Rtp),
                _ => Err(DropReason::UnknownProtocol),
            };
            assert_eq!(classify(&datagram), expected, "first byte {byte}");
        }
    }

    #[test]
    fn rtcp_packet_types_of_rfc5761() {
        for second in 0..=255u8 {
            let mut datagram = [0u8; 64];
            datagram[0] = 0x80;
            datagram[1] = second;
            let expected = if (192..=223).contains(&second) {
                PacketKind::Rtcp
            } else {
                PacketKind::Rtp
            };
            assert_eq!(classify(&datagram), Ok(expected), "second byte {second}");
        }
    }

    #[test]
    fn short_datagrams_are_truncated() {
        assert_eq!(classify(&[]), Err(DropReason::Truncated));
        assert_eq!(classify(&[0x00, 0x01, 0, 0]), Err(DropReason::Truncated));
        assert_eq!(classify(&[0x80, 96, 0, 1]), Err(DropReason::Truncated));
        assert_eq!(classify(&[0x80, 200, 0, 1]), Err(DropReason::Truncated));
        assert_eq!(classify(&[22]), Ok(PacketKind::Dtls));
    }

    /// RFC 5769 §2.1.
    pub(crate) const SAMPLE_REQUEST: [u8; 108] = [
        0x00, 0x01, 0x00, 0x58, 0x21, 0x12, 0xa4, 0x42, 0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87,
        0xdf, 0xae, 0x80, 0x22, 0x00, 0x10, 0x53, 0x54, 0x55, 0x4e, 0x20, 0x74, 0x65, 0x73, 0x74, 0x20, 0x63, 0x6c,
        0x69, 0x65, 0x6e, 0x74, 0x00, 0x24, 0x00, 0x04, 0x6e, 0x00, 0x01, 0xff, 0x80, 0x29, 0x00, 0x08, 0x93, 0x2f,
        0xf9, 0xb1, 0x51, 0x26, 0x3b, 0x36, 0x00, 0x06, 0x00, 0x09, 0x65, 0x76, 0x74, 0x6a, 0x3a, 0x68, 0x36, 0x76,
        0x59, 0x20, 0x20, 0x20, 0x00, 0x08, 0x00, 0x14, 0x9a, 0xea, 0xa7, 0x0c, 0xbf, 0xd8, 0xcb, 0x56, 0x78, 0x1e,
        0xf2, 0xb5, 0xb2, 0xd3, 0xf2, 0x49, 0xc1, 0xb5, 0x71, 0xa2, 0x80, 0x28, 0x00, 0x04, 0xe5, 0x7a, 0x3b, 0xcf,
    ];

    #[test]
    fn rfc5769_sample_request() {
        assert_eq!(classify(&SAMPLE_REQUEST), Ok(PacketKind::Stun));
        assert_eq!(stun_local_ufrag(&SAMPLE_REQUEST), Some("evtj"));
        let message = is::stun::StunMessage::parse(&SAMPLE_REQUEST).expect("a valid message");
        assert_eq!(message.split_username(), Some(("evtj", "h6vY")));
        assert_eq!(message.prio(), Some(0x6e00_01ff));
        assert!(message.verify(b"VOkJxbRl1RmTxUk/WvJxBt", |key, parts| {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
            let mut context = aws_lc_rs::hmac::Context::with_key(&key);
            parts.iter().for_each(|part| context.update(part));
            context.sign().as_ref().try_into().expect("20 bytes")
        }));
    }

    #[test]
    fn only_binding_requests_have_an_ufrag() {
        let mut response = SAMPLE_REQUEST;
        response[0] = 0x01;
        assert_eq!(stun_local_ufrag(&response), None);
        let mut other_cookie = SAMPLE_REQUEST;
        other_cookie[4] = 0;
        assert_eq!(stun_local_ufrag(&other_cookie), None);
        for cut in 0..SAMPLE_REQUEST.len() {
            let _ = stun_local_ufrag(&SAMPLE_REQUEST[..cut]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_classified_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = classify(&bytes);
            let _ = stun_local_ufrag(&bytes);
        }
    }
}
