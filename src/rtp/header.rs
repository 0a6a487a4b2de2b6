//! Writing RTP headers into the buffer they are sent from, and the few fields that are patched just before sealing.

use super::cursor::Writer;
use super::packet::{ONE_BYTE_PROFILE, TWO_BYTE_PROFILE};
use crate::types::{DropReason, Extension, ExtensionMap, Pt, Ssrc};

/// Bytes of the fixed header (RFC 3550 §5.1).
pub const FIXED_HEADER_LEN: usize = 12;

/// Stands in for a transport-wide sequence number that is known only at release.
pub const TRANSPORT_CC_UNSET: [u8; 2] = [0; 2];
/// Stands in for a send time that is known only at release.
pub const ABS_SEND_TIME_UNSET: [u8; 3] = [0; 3];

/// The fixed header of a packet to be sent. No CSRCs, no padding (see [`append_padding`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    pub marker: bool,
    pub pt: Pt,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: Ssrc,
}

/// Where things went. Offsets are from the start of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenHeader {
    /// Fixed header and extension block; the payload follows.
    pub len: usize,
    /// For [`patch_transport_cc`].
    pub transport_cc: Option<u16>,
    /// For [`patch_abs_send_time`].
    pub abs_send_time: Option<u16>,
}

impl RtpHeader {
    /// Writes the header and, when an element of `elements` was negotiated in `ids`, the extension block: one-byte form
    /// where every element fits it, else two-byte form (RFC 8285 §4.1.2: mixing within a stream needs
    /// `extmap-allow-mixed`). Elements that were not negotiated are left out.
    ///
    /// # Errors
    /// `TooLarge` when `buf` is too short or an element is longer than 255 bytes.
    pub fn write(
        &self,
        buf: &mut [u8],
        ids: &ExtensionMap,
        elements: &[(Extension, &[u8])],
    ) -> Result<WrittenHeader, DropReason> {
        let mut any = false;
        let mut one_byte = true;
        for (extension, value) in elements {
            if let Some(id) = ids.id(*extension) {
                any = true;
                one_byte &= id < 15 && (1..=16).contains(&value.len());
            }
        }
        let mut writer = Writer::new(buf);
        let first = if any { 0x90 } else { 0x80 };
        let second = u8::from(self.marker) << 7 | (self.pt.0 & 0x7f);
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.0.to_be_bytes();
        writer.put(&[first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3])?;
        let mut written = WrittenHeader {
            len: FIXED_HEADER_LEN,
            transport_cc: None,
            abs_send_time: None,
        };
        if !any {
            return Ok(written);
        }
        writer.u16(if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE })?;
        writer.u16(0)?; // the length, patched below
        let start = writer.len();
        for (extension, value) in elements {
            let Some(id) = ids.id(*extension) else { continue };
            let len = u8::try_from(value.len()).map_err(|_| DropReason::TooLarge)?;
            if one_byte {
                writer.u8(id << 4 | (len - 1))?;
            } else {
                writer.put(&[id, len])?;
            }
            match extension {
                Extension::TransportCc => written.transport_cc = u16::try_from(writer.len()).ok(),
                Extension::AbsSendTime => written.abs_send_time = u16::try_from(writer.len()).ok(),
                _ => {}
            }
            writer.put(value)?;
        }
        writer.align4(start)?;
        let words = u16::try_from((writer.len() - start) / 4).map_err(|_| DropReason::TooLarge)?;
        writer.patch(start - 2, &words.to_be_bytes());
        written.len = writer.len();
        Ok(written)
    }
}

impl RtpHeader {
    /// Writes it over the fixed part of a header that has the same extensions.
    pub fn patch(&self, packet: &mut [u8]) {
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.0.to_be_bytes();
        let second = u8::from(self.marker) << 7 | (self.pt.0 & 0x7f);
        patch(packet, 1, [second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]);
    }
}

/// Writes the transport-wide sequence number at an offset that [`RtpHeader::write`] returned.
pub fn patch_transport_cc(packet: &mut [u8], offset: u16, sequence: u16) {
    patch(packet, usize::from(offset), sequence.to_be_bytes());
}

/// Writes an abs-send-time value (24 bits, see `extension::abs_send_time`) at an offset that [`RtpHeader::write`]
/// returned.
pub fn patch_abs_send_time(packet: &mut [u8], offset: u16, value: u32) {
    let [_, a, b, c] = value.to_be_bytes();
    patch(packet, usize::from(offset), [a, b, c]);
}

/// Overwrites the sequence number of a written header.
pub fn patch_sequence(packet: &mut [u8], sequence: u16) {
    patch(packet, 2, sequence.to_be_bytes());
}

fn patch<const N: usize>(packet: &mut [u8], offset: usize, value: [u8; N]) {
    if let Some(target) = packet.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<N>()) {
        *target = value;
    }
}

/// Appends `padding` bytes (RFC 3550 §5.1) to the packet in `buf[..len]` that has none, and returns the new length.
/// 0 leaves it as it is.
///
/// # Errors
/// `TooLarge` when `buf` is too short.
pub fn append_padding(buf: &mut [u8], len: usize, padding: u8) -> Result<usize, DropReason> {
    let Some(zeros) = padding.checked_sub(1) else {
        return Ok(len);
    };
    let end = len + usize::from(padding);
    let tail = buf.get_mut(len..end).ok_or(DropReason::TooLarge)?;
    let (count, fill) = tail.split_last_mut().ok_or(DropReason::TooLarge)?;
    debug_assert_eq!(fill.len(), usize::from(zeros));
    fill.fill(0);
    *count = padding;
    let first = buf.first_mut().ok_or(DropReason::TooLarge)?;
    *first |= 0x20;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtp::RtpPacket;

    const HEADER: RtpHeader = RtpHeader {
        marker: true,
        pt: Pt(111),
        sequence: 65_535,
        timestamp: 0x0102_0304,
        ssrc: Ssrc(7),
    };

    fn ids() -> ExtensionMap {
        let mut ids = ExtensionMap::default();
        ids.insert(Extension::TransportCc, 3);
        ids.insert(Extension::AbsSendTime, 2);
        ids.insert(Extension::AudioLevel, 1);
        ids.insert(Extension::DependencyDescriptor, 12);
        ids.insert(Extension::AbsCaptureTime, 18);
        ids
    }

    #[test]
    fn without_negotiated_elements_there_is_no_block() {
        let mut buf = [0xff; 64];
        let elements = [(Extension::Mid, &b"0"[..])];
        let written = HEADER.write(&mut buf, &ids(), &elements).unwrap();
        assert_eq!(written.len, 12);
        let packet = RtpPacket::parse(&buf[..12]).unwrap();
        assert_eq!(packet.extensions().count(), 0);
        assert_eq!(
            (
                packet.marker(),
                packet.pt(),
                packet.sequence(),
                packet.timestamp(),
                packet.ssrc()
            ),
            (true, Pt(111), 65_535, 0x0102_0304, Ssrc(7))
        );
    }

    #[test]
    fn offsets_point_at_the_values_in_both_forms() {
        let long = [5; 17];
        for descriptor in [&[1, 2, 3][..], &long] {
            let mut buf = [0xff; 128];
            let elements = [
                (Extension::AudioLevel, &[9][..]),
                (Extension::AbsSendTime, &ABS_SEND_TIME_UNSET),
                (Extension::TransportCc, &TRANSPORT_CC_UNSET),
                (Extension::DependencyDescriptor, descriptor),
            ];
            let written = HEADER.write(&mut buf, &ids(), &elements).unwrap();
            patch_transport_cc(&mut buf, written.transport_cc.unwrap(), 0xabcd);
            patch_abs_send_time(&mut buf, written.abs_send_time.unwrap(), 0x11_2233);
            patch_sequence(&mut buf, 77);
            let packet = RtpPacket::parse(&buf[..written.len]).unwrap();
            assert_eq!(packet.sequence(), 77);
            assert_eq!(packet.header_len(), written.len);
            assert_eq!(packet.extension(1), Some(&[9][..]));
            assert_eq!(packet.extension(2), Some(&[0x11, 0x22, 0x33][..]));
            assert_eq!(packet.extension(3), Some(&[0xab, 0xcd][..]));
            assert_eq!(packet.extension(12), Some(descriptor));
            assert_eq!(buf[12], if descriptor.len() > 16 { 0x10 } else { 0xbe });
        }
    }

    #[test]
    fn an_id_above_14_or_an_empty_value_needs_the_two_byte_form() {
        for elements in [
            [(Extension::AbsCaptureTime, &[0; 8][..])],
            [(Extension::AudioLevel, &[][..])],
        ] {
            let mut buf = [0; 64];
            let written = HEADER.write(&mut buf, &ids(), &elements).unwrap();
            assert_eq!(&buf[12..14], &[0x10, 0]);
            let packet = RtpPacket::parse(&buf[..written.len]).unwrap();
            assert_eq!(packet.extensions().count(), 1);
        }
    }

    #[test]
    fn too_small_a_buffer_is_an_error() {
        let elements = [(Extension::TransportCc, &TRANSPORT_CC_UNSET[..])];
        for len in 0..20 {
            let mut buf = vec![0; len];
            assert_eq!(HEADER.write(&mut buf, &ids(), &elements), Err(DropReason::TooLarge));
        }
        let huge = [0; 256];
        let elements = [(Extension::AbsCaptureTime, &huge[..])];
        assert_eq!(
            HEADER.write(&mut [0; 400], &ids(), &elements),
            Err(DropReason::TooLarge)
        );
    }

    #[test]
    fn padding_round_trip() {
        for padding in [0, 1, 2, 255] {
            let mut buf = [0xee; 400];
            let written = HEADER.write(&mut buf, &ids(), &[]).unwrap();
            let len = append_padding(&mut buf, written.len + 5, padding).unwrap();
            let packet = RtpPacket::parse(&buf[..len]).unwrap();
            assert_eq!(
                (packet.payload(), packet.padding_len()),
                (&[0xee; 5][..], usize::from(padding))
            );
        }
        assert_eq!(append_padding(&mut [0; 20], 12, 9), Err(DropReason::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in proptest::collection::vec((0usize..Extension::ALL.len(), proptest::collection::vec(any::<u8>(), 0..40)), 0..5)) {
            let mut map = ExtensionMap::default();
            let mut elements: Vec<(Extension, &[u8])> = Vec::new();
            for (index, value) in &values {
                let extension = Extension::ALL[*index];
                if map.id(extension).is_none() {
                    map.insert(extension, *index as u8 + 6);
                    elements.push((extension, value));
                }
            }
            elements.retain(|(extension, _)| map.id(*extension).is_some()); // id 15 is never negotiated
            let mut buf = [0; 512];
            let written = HEADER.write(&mut buf, &map, &elements).unwrap();
            let packet = RtpPacket::parse(&buf[..written.len]).unwrap();
            let read: Vec<_> = packet.extensions().collect();
            let wrote: Vec<_> = elements.iter().map(|(extension, value)| (map.id(*extension).unwrap(), *value)).collect();
            prop_assert_eq!(read, wrote);
        }
    }
}
