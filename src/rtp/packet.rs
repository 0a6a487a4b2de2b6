//! A read-only view of one RTP packet (RFC 3550 §5.1) and of its header extension elements (RFC 8285).

use super::cursor::Reader;
use crate::types::{DropReason, Pt, Ssrc};

/// Profile word of a one-byte-header extension block (RFC 8285 §4.2).
pub(super) const ONE_BYTE_PROFILE: u16 = 0xBEDE;
/// Profile word of a two-byte-header extension block; the low four bits are free (RFC 8285 §4.3).
pub(super) const TWO_BYTE_PROFILE: u16 = 0x1000;

/// One parsed RTP packet. Made once per received packet: the fixed header is decoded, nothing is copied or allocated.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    marker: bool,
    pt: Pt,
    sequence: u16,
    timestamp: u32,
    ssrc: Ssrc,
    padding_len: u8,
    header_len: u16,
    profile: u16,
    extension_block: &'a [u8],
    payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// `packet` is one whole cleartext packet.
    ///
    /// # Errors
    /// `Truncated` when it is shorter than its header says, `Malformed` for another version or a padding count that
    /// cannot be.
    pub fn parse(packet: &'a [u8]) -> Result<Self, DropReason> {
        let mut reader = Reader::new(packet);
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = reader.array().ok_or(DropReason::Truncated)?;
        if first >> 6 != 2 {
            return Err(DropReason::Malformed);
        }
        let csrc_len = usize::from(first & 0x0f) * 4;
        reader.bytes(csrc_len).ok_or(DropReason::Truncated)?;
        let (profile, extension_block) = if first & 0x10 != 0 {
            let profile = reader.u16().ok_or(DropReason::Truncated)?;
            let words = reader.u16().ok_or(DropReason::Truncated)?;
            let block = reader.bytes(usize::from(words) * 4).ok_or(DropReason::Truncated)?;
            (profile, block)
        } else {
            (0, &[][..])
        };
        let body = reader.rest();
        // A datagram is at most 64 KiB; anything longer did not come from one.
        let header_len = u16::try_from(packet.len() - body.len()).map_err(|_| DropReason::TooLarge)?;
        let padding_len = if first & 0x20 != 0 {
            // RFC 3550 §5.1: the last octet counts the padding octets, itself included.
            *body.last().ok_or(DropReason::Truncated)?
        } else {
            0
        };
        if first & 0x20 != 0 && padding_len == 0 {
            return Err(DropReason::Malformed);
        }
        let payload_len = body
            .len()
            .checked_sub(usize::from(padding_len))
            .ok_or(DropReason::Malformed)?;
        Ok(Self {
            marker: second & 0x80 != 0,
            pt: Pt(second & 0x7f),
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: Ssrc(u32::from_be_bytes([c0, c1, c2, c3])),
            padding_len,
            header_len,
            profile,
            extension_block,
            payload: body.get(..payload_len).unwrap_or_default(),
        })
    }

    pub fn marker(&self) -> bool {
        self.marker
    }

    pub fn pt(&self) -> Pt {
        self.pt
    }

    pub fn sequence(&self) -> u16 {
        self.sequence
    }

    /// In ticks of the codec's clock.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    pub fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// Bytes before the payload: fixed header, CSRCs and extension block.
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// Without header and padding.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Bytes of RTP padding behind the payload, the count byte included; 0 = no padding.
    pub fn padding_len(&self) -> usize {
        usize::from(self.padding_len)
    }

    /// The elements of the extension block in the order they were written, whichever of the two forms it has.
    /// A truncated element ends the iteration.
    pub fn extensions(&self) -> Elements<'a> {
        let form = match self.profile {
            ONE_BYTE_PROFILE => Form::OneByte,
            profile if profile & 0xfff0 == TWO_BYTE_PROFILE => Form::TwoByte,
            _ => Form::Unknown,
        };
        Elements {
            form,
            reader: Reader::new(self.extension_block),
        }
    }

    /// The value of the first element with this id.
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions()
            .find_map(|(found, value)| (found == id).then_some(value))
    }
}

#[derive(Clone, Copy, Debug)]
enum Form {
    OneByte,
    TwoByte,
    /// Another profile's extension (RFC 3550 §5.3.1): skipped.
    Unknown,
}

/// Iterator over `(id, value)` of an extension block.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    form: Form,
    reader: Reader<'a>,
}

impl<'a> Elements<'a> {
    fn one_byte(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let head = self.reader.u8()?;
            match (head >> 4, head & 0x0f) {
                (0, 0) => continue,
                // RFC 8285 §4.2: id 0 with a length, and id 15, end the block.
                (0, _) | (15, _) => return None,
                (id, len) => return Some((id, self.reader.bytes(usize::from(len) + 1)?)),
            }
        }
    }

    fn two_byte(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            // RFC 8285 §4.3: id 0 is a single padding byte without a length.
            let id = self.reader.u8()?;
            if id == 0 {
                continue;
            }
            let len = self.reader.u8()?;
            return Some((id, self.reader.bytes(usize::from(len))?));
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let element = match self.form {
            Form::OneByte => self.one_byte(),
            Form::TwoByte => self.two_byte(),
            Form::Unknown => None,
        };
        if element.is_none() {
            self.form = Form::Unknown; // what follows a broken element is not read as elements
        }
        element
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(first: u8, block: &[u8], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 96, 0x12, 0x34, 0, 0, 0, 90, 0xde, 0xad, 0xbe, 0xef];
        bytes.extend_from_slice(block);
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn fixed_header_and_payload() {
        let bytes = packet(0x80, &[], b"payload");
        let packet = RtpPacket::parse(&bytes).unwrap();
        assert!(packet.marker());
        assert_eq!(packet.pt(), Pt(96));
        assert_eq!(packet.sequence(), 0x1234);
        assert_eq!(packet.timestamp(), 90);
        assert_eq!(packet.ssrc(), Ssrc(0xdead_beef));
        assert_eq!((packet.header_len(), packet.payload()), (12, &b"payload"[..]));
        assert_eq!(packet.extensions().count(), 0);
    }

    #[test]
    fn csrcs_are_skipped() {
        let bytes = packet(0x82, &[1; 8], b"x");
        let packet = RtpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.header_len(), packet.payload()), (20, &b"x"[..]));
        assert_eq!(RtpPacket::parse(&bytes[..19]).unwrap_err(), DropReason::Truncated);
    }

    #[test]
    fn padding_of_1_and_255() {
        let bytes = packet(0xa0, &[], &[7, 7, 1]);
        let view = RtpPacket::parse(&bytes).unwrap();
        assert_eq!((view.payload(), view.padding_len()), (&[7, 7][..], 1));

        let mut probe = vec![0; 255];
        probe[254] = 255;
        let bytes = packet(0xa0, &[], &probe);
        let view = RtpPacket::parse(&bytes).unwrap();
        assert_eq!((view.payload(), view.padding_len()), (&[][..], 255));
    }

    #[test]
    fn impossible_padding_is_refused() {
        for rest in [&[7, 0][..], &[7, 3], &[255]] {
            let bytes = packet(0xa0, &[], rest);
            assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), DropReason::Malformed);
        }
        let bytes = packet(0xa0, &[], &[]);
        assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), DropReason::Truncated);
    }

    #[test]
    fn one_byte_elements() {
        // Padding between elements, an element of three bytes, then id 15, which hides what follows.
        let block = [
            0xbe, 0xde, 0, 3, 0x10, 0xaa, 0, 0x22, 1, 2, 3, 0, 0xf0, 0xff, 0x30, 0xbb,
        ];
        let bytes = packet(0x90, &block, b"p");
        let packet = RtpPacket::parse(&bytes).unwrap();
        let elements: Vec<_> = packet.extensions().collect();
        assert_eq!(elements, [(1, &[0xaa][..]), (2, &[1, 2, 3])]);
        assert_eq!(packet.extension(2), Some(&[1, 2, 3][..]));
        assert_eq!(packet.extension(3), None);
        assert_eq!(packet.payload(), b"p");
    }

    #[test]
    fn id_0_with_a_length_ends_a_one_byte_block() {
        let block = [0xbe, 0xde, 0, 2, 0x10, 0xaa, 0x01, 0x02, 0x03, 0x20, 0xbb, 0];
        let bytes = packet(0x90, &block, &[]);
        assert_eq!(RtpPacket::parse(&bytes).unwrap().extensions().count(), 1);
    }

    #[test]
    fn two_byte_elements() {
        // Id 15 is an ordinary id here, an element may be empty, and the low bits of the profile are ignored.
        let block = [0x10, 0x03, 0, 3, 15, 1, 0xcc, 0, 16, 0, 200, 2, 9, 8, 0, 0];
        let bytes = packet(0x90, &block, &[]);
        let packet = RtpPacket::parse(&bytes).unwrap();
        let elements: Vec<_> = packet.extensions().collect();
        assert_eq!(elements, [(15, &[0xcc][..]), (16, &[]), (200, &[9, 8])]);
    }

    #[test]
    fn truncated_elements_end_the_block() {
        let one = packet(0x90, &[0xbe, 0xde, 0, 1, 0x10, 0xaa, 0x2f, 0xbb], &[]);
        assert_eq!(RtpPacket::parse(&one).unwrap().extensions().count(), 1);
        let two = packet(0x90, &[0x10, 0, 0, 1, 1, 9, 0xaa, 0xbb], &[]);
        assert_eq!(RtpPacket::parse(&two).unwrap().extensions().count(), 0);
    }

    #[test]
    fn a_block_longer_than_the_packet_is_truncated() {
        let bytes = packet(0x90, &[0xbe, 0xde, 0, 9, 0x10, 0xaa, 0, 0], &[]);
        assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), DropReason::Truncated);
    }

    #[test]
    fn another_version_is_malformed() {
        assert_eq!(
            RtpPacket::parse(&packet(0x40, &[], &[])).unwrap_err(),
            DropReason::Malformed
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), version in any::<bool>()) {
            if version && let Some(first) = bytes.first_mut() {
                *first = 0x80 | (*first & 0x3f);
            }
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                prop_assert_eq!(packet.header_len() + packet.payload().len() + packet.padding_len(), bytes.len());
                for (_, value) in packet.extensions() {
                    prop_assert!(value.len() <= 255);
                }
            }
        }
    }
}
