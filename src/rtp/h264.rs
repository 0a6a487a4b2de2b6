//! H.264 payloads (RFC 6184): which NAL units a packet carries, and the picture size of a sequence parameter set.

use super::FrameInfo;
use super::bits::BitReader;
use super::cursor::Reader;
use crate::types::DropReason;

/// `nal_unit_type` of ITU-T H.264 table 7-1.
const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const AUD: u8 = 9;
/// RFC 6184 §5.2.
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// What this payload says about its frame. H.264 has no frame marks: `start` is set where a frame can begin, which
/// several packets of one key frame may say (parameter sets, then the picture); a new timestamp decides.
pub fn inspect(payload: &[u8], marker: bool) -> Result<FrameInfo, DropReason> {
    let mut info = FrameInfo {
        end: marker,
        ..FrameInfo::default()
    };
    let mut reader = Reader::new(payload);
    let header = reader.u8().ok_or(DropReason::Truncated)?;
    match header & 0x1f {
        STAP_A => {
            let mut first = true;
            while let Some(nal) = reader.u16().and_then(|len| reader.bytes(usize::from(len))) {
                let Some((header, body)) = nal.split_first() else {
                    continue;
                };
                add(&mut info, header & 0x1f, body, first);
                first = false;
            }
        }
        FU_A => {
            let fragment = reader.u8().ok_or(DropReason::Truncated)?;
            // Only the fragment with the S bit begins a NAL unit.
            if fragment & 0x80 != 0 {
                add(&mut info, fragment & 0x1f, reader.rest(), true);
            }
        }
        kind => add(&mut info, kind, reader.rest(), true),
    }
    info.switch_point = info.keyframe;
    Ok(info)
}

/// `body` is what follows the NAL header, as far as the packet has it; `first` when the NAL is the packet's first.
fn add(info: &mut FrameInfo, kind: u8, body: &[u8], first: bool) {
    // A slice whose first_mb_in_slice is 0 has its first bit set: ue(v).
    let first_slice = (1..=IDR).contains(&kind) && body.first().is_some_and(|byte| byte & 0x80 != 0);
    info.start |= first && (first_slice || matches!(kind, SEI | SPS | PPS | AUD));
    info.keyframe |= matches!(kind, IDR | SPS);
    if kind == SPS {
        info.dimensions = dimensions(body).or(info.dimensions);
    }
}

/// Longest part of a sequence parameter set that is looked at; sizes stand in its first bytes.
const MAX_SPS: usize = 128;

/// Removes emulation prevention bytes (00 00 03, ITU-T H.264 §7.4.1.1, H.265 §7.4.2.2) from the first bytes of a NAL.
fn unescape(body: &[u8], out: &mut [u8; MAX_SPS]) -> usize {
    let mut zeros = 0;
    let mut len = 0;
    for byte in body {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        let Some(target) = out.get_mut(len) else { break };
        *target = *byte;
        len += 1;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
    }
    len
}

/// Picture size of a sequence parameter set (ITU-T H.264 §7.3.2.1.1), cropping applied. `body` follows the NAL header.
fn dimensions(body: &[u8]) -> Option<(u16, u16)> {
    let mut plain = [0; MAX_SPS];
    let len = unescape(body, &mut plain);
    let mut bits = BitReader::new(plain.get(..len)?);
    let profile = bits.bits(8)?;
    bits.skip(16)?; // constraint flags, level
    bits.exp_golomb()?; // seq_parameter_set_id
    let mut chroma_format = 1;
    let mut separate_planes = false;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        chroma_format = bits.exp_golomb()?;
        if chroma_format == 3 {
            separate_planes = bits.flag()?;
        }
        bits.exp_golomb()?; // bit_depth_luma_minus8
        bits.exp_golomb()?; // bit_depth_chroma_minus8
        bits.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if bits.flag()? {
            for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                if bits.flag()? {
                    scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.exp_golomb()?; // log2_max_frame_num_minus4
    match bits.exp_golomb()? {
        0 => {
            bits.exp_golomb()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            bits.skip(1)?; // delta_pic_order_always_zero_flag
            bits.signed_exp_golomb()?;
            bits.signed_exp_golomb()?;
            for _ in 0..bits.exp_golomb()? {
                bits.signed_exp_golomb()?; // ends at the end of the bits at the latest
            }
        }
        _ => {}
    }
    bits.exp_golomb()?; // max_num_ref_frames
    bits.skip(1)?; // gaps_in_frame_num_value_allowed_flag
    let width = bits.exp_golomb()?.checked_add(1)?.checked_mul(16)?;
    let map_units = bits.exp_golomb()?.checked_add(1)?.checked_mul(16)?;
    let frames_only = bits.flag()?;
    let height = map_units.checked_mul(if frames_only { 1 } else { 2 })?;
    if !frames_only {
        bits.skip(1)?; // mb_adaptive_frame_field_flag
    }
    bits.skip(1)?; // direct_8x8_inference_flag
    let (mut crop_width, mut crop_height) = (0, 0);
    if bits.flag()? {
        let [left, right, top, bottom] = [
            bits.exp_golomb()?,
            bits.exp_golomb()?,
            bits.exp_golomb()?,
            bits.exp_golomb()?,
        ];
        // §7.4.2.1.1: crop units are chroma samples.
        let (unit_x, unit_y) = match chroma_format {
            _ if separate_planes => (1, 1),
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        let unit_y = if frames_only { unit_y } else { unit_y * 2 };
        crop_width = left.checked_add(right)?.checked_mul(unit_x)?;
        crop_height = top.checked_add(bottom)?.checked_mul(unit_y)?;
    }
    let width = u16::try_from(width.checked_sub(crop_width)?).ok()?;
    let height = u16::try_from(height.checked_sub(crop_height)?).ok()?;
    Some((width, height))
}

/// ITU-T H.264 §7.3.2.1.1.1.
fn scaling_list(bits: &mut BitReader<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.signed_exp_golomb()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 1280 × 720 constrained baseline, as x264 writes it (without the NAL header).
    const SPS_720: [u8; 22] = [
        0x42, 0xc0, 0x1f, 0xd9, 0x00, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03,
        0x03, 0xc0, 0xf1, 0x83,
    ];

    #[test]
    fn single_nal_units() {
        let idr = inspect(&[0x65, 0x88, 0], true).unwrap();
        assert!(idr.keyframe && idr.start && idr.end);
        let delta = inspect(&[0x41, 0x9a, 0], false).unwrap();
        assert!(!delta.keyframe && delta.start && !delta.end);
        let second_slice = inspect(&[0x41, 0x40, 0], false).unwrap();
        assert!(!second_slice.start);
        assert_eq!(inspect(&[], false), Err(DropReason::Truncated));
    }

    #[test]
    fn an_aggregate_of_parameter_sets() {
        let mut payload = vec![0x78, 0, 23, 0x67];
        payload.extend(SPS_720);
        payload.extend([0, 2, 0x68, 0xce]);
        let info = inspect(&payload, false).unwrap();
        assert!(info.keyframe && info.start);
        assert_eq!(info.dimensions, Some((1280, 720)));
    }

    #[test]
    fn fragments() {
        let first = inspect(&[0x7c, 0x85, 0x88], false).unwrap();
        assert!(first.keyframe && first.start);
        let middle = inspect(&[0x7c, 0x05, 0x88], false).unwrap();
        assert!(!middle.keyframe && !middle.start);
        assert_eq!(inspect(&[0x7c], false), Err(DropReason::Truncated));
    }

    #[test]
    fn cropping_of_1080_lines() {
        // Baseline, 1920 × 1088 cropped by 8 lines: bottom offset 4 in units of two.
        let mut bits = String::from("010000101100000000011110"); // profile 66, constraints, level 30
        bits += "1"; // sps id 0
        bits += "1"; // frame num
        bits += "011"; // poc type 2
        bits += "010"; // ref frames 1
        bits += "0"; // no gaps
        bits += "0000001111000"; // 119: width 120 macroblocks
        bits += "0000001000100"; // 67: height 68 macroblocks
        bits += "1"; // frames only
        bits += "0"; // direct 8x8
        bits += "1"; // cropping
        bits += "11100101"; // 0, 0, 0, 4
        let bytes: Vec<u8> = bits
            .as_bytes()
            .chunks(8)
            .map(|chunk| {
                chunk
                    .iter()
                    .enumerate()
                    .fold(0, |byte, (at, bit)| byte | (bit - b'0') << (7 - at))
            })
            .collect();
        assert_eq!(dimensions(&bytes), Some((1920, 1080)));
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..200), kind in prop::option::of(0u8..32), marker in any::<bool>()) {
            let mut payload = payload;
            if let (Some(kind), Some(first)) = (kind, payload.first_mut()) {
                *first = kind;
            }
            let _ = inspect(&payload, marker);
            let _ = dimensions(&payload);
        }
    }
}
