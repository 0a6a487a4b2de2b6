//! AV1 payloads: the aggregation header of the AV1 RTP specification §4.4, and the sequence header's picture size.

use super::FrameInfo;
use super::bits::BitReader;
use super::cursor::Reader;
use crate::types::DropReason;

/// `obu_type` of the AV1 bitstream specification §6.2.2.
const SEQUENCE_HEADER: u8 = 1;

/// OBU elements of one packet that are looked at; a sequence header comes first or right behind a temporal delimiter.
const MAX_ELEMENTS: usize = 4;

/// What this payload says about its frame, from the aggregation header and OBU headers alone. Where a stream carries a
/// dependency descriptor, that says more.
pub fn inspect(payload: &[u8], marker: bool) -> Result<FrameInfo, DropReason> {
    let mut reader = Reader::new(payload);
    let aggregation = reader.u8().ok_or(DropReason::Truncated)?;
    let continues = aggregation & 0x80 != 0;
    let count = usize::from(aggregation >> 4 & 0x03);
    let new_sequence = aggregation & 0x08 != 0;
    let mut info = FrameInfo {
        keyframe: new_sequence,
        start: !continues,
        end: marker,
        ..FrameInfo::default()
    };
    for at in 0..MAX_ELEMENTS {
        if reader.is_empty() || (count > 0 && at >= count) {
            break;
        }
        // §4.4: with W > 0 the last element has no length.
        let element = if count > 0 && at + 1 == count {
            reader.bytes(reader.rest().len())
        } else {
            leb128(&mut reader).and_then(|len| reader.bytes(len))
        };
        let Some(element) = element else {
            // A length beyond the packet: what was seen before still stands.
            break;
        };
        if at == 0 && continues {
            continue; // the middle of an OBU: no header
        }
        let Some(obu) = Obu::read(element) else { continue };
        if let Some((temporal, spatial)) = obu.layer {
            (info.temporal, info.spatial) = (temporal, spatial);
        }
        if obu.kind == SEQUENCE_HEADER {
            info.keyframe = true;
            info.dimensions = dimensions(obu.payload);
        }
    }
    info.switch_point = info.keyframe;
    Ok(info)
}

struct Obu<'a> {
    kind: u8,
    /// Temporal and spatial id, when the header is extended.
    layer: Option<(u8, u8)>,
    payload: &'a [u8],
}

impl<'a> Obu<'a> {
    fn read(element: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(element);
        let header = reader.u8()?;
        let layer = if header & 0x04 != 0 {
            let extension = reader.u8()?;
            Some((extension >> 5, extension >> 3 & 0x03))
        } else {
            None
        };
        if header & 0x02 != 0 {
            leb128(&mut reader)?; // obu_size; senders leave it out (§4.5)
        }
        Some(Self {
            kind: header >> 3 & 0x0f,
            layer,
            payload: reader.rest(),
        })
    }
}

/// AV1 bitstream specification §4.10.5; lengths beyond 32 bits are no lengths of elements.
fn leb128(reader: &mut Reader<'_>) -> Option<usize> {
    let mut value = 0usize;
    for at in 0..5 {
        let byte = reader.u8()?;
        value |= usize::from(byte & 0x7f) << (at * 7);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Largest frame size of a sequence header OBU (AV1 bitstream specification §5.5.1).
fn dimensions(payload: &[u8]) -> Option<(u16, u16)> {
    let mut bits = BitReader::new(payload);
    bits.skip(3 + 1)?; // seq_profile, still_picture
    if bits.flag()? {
        bits.skip(5)?; // reduced_still_picture_header: one level, nothing else
    } else {
        let mut decoder_model_bits = None;
        if bits.flag()? {
            bits.skip(64)?; // num_units_in_display_tick, time_scale
            if bits.flag()? {
                bits.exp_golomb()?; // num_ticks_per_picture_minus_1, uvlc
            }
            if bits.flag()? {
                decoder_model_bits = Some(bits.bits(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let display_delays = bits.flag()?;
        for _ in 0..=bits.bits(5)? {
            bits.skip(12)?; // operating_point_idc
            if bits.bits(5)? > 7 {
                bits.skip(1)?; // seq_tier
            }
            if let Some(width) = decoder_model_bits
                && bits.flag()?
            {
                bits.skip(width as usize * 2 + 1)?;
            }
            if display_delays && bits.flag()? {
                bits.skip(4)?;
            }
        }
    }
    let width_bits = bits.bits(4)? + 1;
    let height_bits = bits.bits(4)? + 1;
    let width = bits.bits(width_bits)? + 1;
    let height = bits.bits(height_bits)? + 1;
    Some((u16::try_from(width).ok()?, u16::try_from(height).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtp::bits::BitWriter;

    fn sequence_header(width: u32, height: u32) -> Vec<u8> {
        let mut buf = [0; 32];
        let mut bits = BitWriter::new(&mut buf);
        bits.bits(0, 5).unwrap(); // profile 0, no still picture, no reduced header
        bits.flag(false).unwrap(); // no timing info
        bits.flag(false).unwrap(); // no display delay
        bits.bits(0, 5).unwrap(); // one operating point
        bits.bits(0, 12).unwrap();
        bits.bits(8, 5).unwrap(); // level 4.0 has a tier
        bits.flag(false).unwrap();
        bits.bits(10, 4).unwrap();
        bits.bits(9, 4).unwrap();
        bits.bits(width - 1, 11).unwrap();
        bits.bits(height - 1, 10).unwrap();
        let len = bits.len();
        buf[..len].to_vec()
    }

    #[test]
    fn a_new_sequence_with_its_header() {
        // W = 2, N = 1: a sequence header with a length, then a frame without one.
        let header = sequence_header(1280, 720);
        let mut payload = vec![0b0010_1000, header.len() as u8 + 1, SEQUENCE_HEADER << 3];
        payload.extend(&header);
        payload.extend([6 << 3 | 4, 0b0101_0000, 0xaa]);
        let info = inspect(&payload, false).unwrap();
        assert!(info.keyframe && info.start && !info.end);
        assert_eq!(info.dimensions, Some((1280, 720)));
        assert_eq!((info.temporal, info.spatial), (2, 2));
    }

    #[test]
    fn fragments_and_delta_frames() {
        let middle = inspect(&[0b1101_0000, SEQUENCE_HEADER << 3], true).unwrap();
        assert!(
            !middle.keyframe && !middle.start && middle.end,
            "the first byte of a fragment is no OBU header"
        );
        let delta = inspect(&[0b0001_0000, 6 << 3, 1, 2], true).unwrap();
        assert!(!delta.keyframe && delta.start);
        // W = 0: every element has a length.
        let sequence = inspect(&[0, 2, 2 << 3, 0, 1, SEQUENCE_HEADER << 3], false).unwrap();
        assert!(sequence.keyframe && sequence.dimensions.is_none());
        assert_eq!(inspect(&[], true), Err(DropReason::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..100), marker in any::<bool>()) {
            let _ = inspect(&payload, marker);
            let _ = dimensions(&payload);
        }
    }
}
