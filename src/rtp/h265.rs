//! H.265 payloads (RFC 7798): which NAL units a packet carries and their temporal layer.

use super::FrameInfo;
use super::cursor::Reader;
use crate::types::DropReason;

/// `nal_unit_type` of ITU-T H.265 table 7-1: 0..=31 are slices, 16..=23 intra random access points.
const LAST_SLICE: u8 = 31;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const AUD: u8 = 35;
const PREFIX_SEI: u8 = 39;
/// RFC 7798 §4.4.2 and §4.4.3.
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

/// What this payload says about its frame. H.265 has no frame marks: `start` is set where a frame can begin, which
/// several packets of one key frame may say; a new timestamp decides.
pub fn inspect(payload: &[u8], marker: bool) -> Result<FrameInfo, DropReason> {
    let mut reader = Reader::new(payload);
    let [high, low] = reader.array().ok_or(DropReason::Truncated)?;
    let mut info = FrameInfo {
        end: marker,
        // RFC 7798 §1.1.4: TID is the temporal layer plus one; 0 is not allowed.
        temporal: (low & 0x07).saturating_sub(1),
        ..FrameInfo::default()
    };
    match nal_type(high) {
        AGGREGATION => {
            let mut first = true;
            while let Some(nal) = reader.u16().and_then(|len| reader.bytes(usize::from(len))) {
                let [high, _, body @ ..] = nal else { continue };
                add(&mut info, nal_type(*high), body, first);
                first = false;
            }
        }
        FRAGMENTATION => {
            let fragment = reader.u8().ok_or(DropReason::Truncated)?;
            if fragment & 0x80 != 0 {
                add(&mut info, fragment & 0x3f, reader.rest(), true);
            }
        }
        kind => add(&mut info, kind, reader.rest(), true),
    }
    info.switch_point |= info.keyframe;
    Ok(info)
}

fn nal_type(first: u8) -> u8 {
    first >> 1 & 0x3f
}

/// `body` is what follows the two bytes of NAL header, as far as the packet has it.
fn add(info: &mut FrameInfo, kind: u8, body: &[u8], first: bool) {
    // first_slice_segment_in_pic_flag is the first bit of every slice segment header.
    let first_slice = kind <= LAST_SLICE && body.first().is_some_and(|byte| byte & 0x80 != 0);
    info.start |= first && (first_slice || matches!(kind, VPS | SPS | PPS | AUD | PREFIX_SEI));
    info.keyframe |= matches!(kind, 16..=23 | VPS | SPS);
    // TSA and STSA pictures (table 7-1: 2..=5) allow switching up to their temporal layer.
    info.switch_point |= matches!(kind, 2..=5);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nal_units_and_temporal_layers() {
        let idr = inspect(&[19 << 1, 1, 0x80], true).unwrap();
        assert!(idr.keyframe && idr.start && idr.end && idr.temporal == 0);
        let delta = inspect(&[1 << 1, 3, 0x80], false).unwrap();
        assert!(!delta.keyframe && delta.start && !delta.switch_point);
        assert_eq!(delta.temporal, 2);
        assert!(inspect(&[2 << 1, 2, 0x80], false).unwrap().switch_point);
        assert_eq!(inspect(&[2], false), Err(DropReason::Truncated));
    }

    #[test]
    fn aggregates_and_fragments() {
        let aggregate = [48 << 1, 1, 0, 3, 32 << 1, 1, 0, 0, 3, 33 << 1, 1, 0];
        let info = inspect(&aggregate, false).unwrap();
        assert!(info.keyframe && info.start);
        let first = inspect(&[49 << 1, 1, 0x80 | 20, 0x80], false).unwrap();
        assert!(first.keyframe && first.start);
        let middle = inspect(&[49 << 1, 1, 20, 0x80], false).unwrap();
        assert!(!middle.keyframe && !middle.start);
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..100), kind in prop::option::of(0u8..64), marker in any::<bool>()) {
            let mut payload = payload;
            if let (Some(kind), Some(first)) = (kind, payload.first_mut()) {
                *first = kind << 1;
            }
            let _ = inspect(&payload, marker);
        }
    }
}
