//! VP9 payload descriptor (RFC 9628 §4.2): read only; its numbers are the same for every subscriber.

use super::FrameInfo;
use super::cursor::Reader;
use crate::types::DropReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// 7 or 15 bits, see `long_picture_id`.
    pub picture_id: Option<u16>,
    pub long_picture_id: bool,
    /// P: the frame refers to frames of earlier pictures.
    pub inter_picture_predicted: bool,
    /// F: references are written out in each packet.
    pub flexible: bool,
    /// B: first packet of the layer frame.
    pub start: bool,
    /// E: last packet of the layer frame.
    pub end: bool,
    /// Z: no higher spatial layer refers to this layer frame.
    pub not_for_upper_layers: bool,
    pub layer: Option<LayerIndices>,
    /// Sizes of the spatial layers, when the packet carries a scalability structure with them.
    pub structure: Option<Structure>,
    len: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerIndices {
    /// TID, 0..=7.
    pub temporal: u8,
    /// U: no frame of a higher temporal layer before this one is needed from here on.
    pub switching_up_point: bool,
    /// SID, 0..=7.
    pub spatial: u8,
    /// D: predicted from the spatial layer below in the same picture.
    pub inter_layer_predicted: bool,
    /// Only in non-flexible mode.
    pub tl0_pic_idx: Option<u8>,
}

/// The part of the scalability structure that is used: how many spatial layers there are and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Structure {
    /// 1..=8.
    pub spatial_layers: u8,
    /// Width and height, smallest layer first; (0, 0) where not given.
    pub dimensions: [(u16, u16); 8],
}

impl Descriptor {
    pub fn parse(payload: &[u8]) -> Result<Self, DropReason> {
        Self::read(payload).ok_or(DropReason::Truncated)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let [
            has_picture_id,
            predicted,
            has_layers,
            flexible,
            start,
            end,
            has_structure,
            not_for_upper_layers,
        ] = std::array::from_fn(|bit| first & 0x80 >> bit != 0);
        let mut long_picture_id = false;
        let picture_id = if has_picture_id {
            let high = reader.u8()?;
            long_picture_id = high & 0x80 != 0;
            Some(if long_picture_id {
                u16::from_be_bytes([high & 0x7f, reader.u8()?])
            } else {
                u16::from(high)
            })
        } else {
            None
        };
        let layer = if has_layers {
            let byte = reader.u8()?;
            Some(LayerIndices {
                temporal: byte >> 5,
                switching_up_point: byte & 0x10 != 0,
                spatial: byte >> 1 & 0x07,
                inter_layer_predicted: byte & 1 != 0,
                tl0_pic_idx: if flexible { None } else { Some(reader.u8()?) },
            })
        } else {
            None
        };
        if flexible && predicted {
            // Up to three reference differences; the lowest bit says that another follows.
            for _ in 0..3 {
                if reader.u8()? & 1 == 0 {
                    break;
                }
            }
        }
        let structure = if has_structure {
            Some(structure(&mut reader)?)
        } else {
            None
        };
        Some(Self {
            picture_id,
            long_picture_id,
            inter_picture_predicted: predicted,
            flexible,
            start,
            end,
            not_for_upper_layers,
            layer,
            structure,
            len: u16::try_from(payload.len() - reader.rest().len()).ok()?,
        })
    }

    /// Bytes of the descriptor; the VP9 bitstream follows.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// A descriptor has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub fn spatial(&self) -> u8 {
        self.layer.map_or(0, |layer| layer.spatial)
    }

    pub fn temporal(&self) -> u8 {
        self.layer.map_or(0, |layer| layer.temporal)
    }
}

/// RFC 9628 §4.2.1.
fn structure(reader: &mut Reader<'_>) -> Option<Structure> {
    let head = reader.u8()?;
    let spatial_layers = (head >> 5) + 1;
    let mut dimensions = [(0, 0); 8];
    if head & 0x10 != 0 {
        for size in dimensions.iter_mut().take(usize::from(spatial_layers)) {
            *size = (reader.u16()?, reader.u16()?);
        }
    }
    if head & 0x08 != 0 {
        for _ in 0..reader.u8()? {
            let references = reader.u8()? >> 2 & 0x03;
            reader.bytes(usize::from(references))?;
        }
    }
    Some(Structure {
        spatial_layers,
        dimensions,
    })
}

/// Overwrites picture id and TL0PICIDX where the payload has them, each in the width it has.
pub fn patch_picture(payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) {
    let Some(first) = payload.first().copied() else { return };
    let mut at = 1;
    if first & 0x80 != 0 {
        let long = payload.get(at).is_some_and(|high| high & 0x80 != 0);
        let [high, low] = (picture_id & 0x7fff).to_be_bytes();
        if long && let Some(target) = payload.get_mut(at..at + 2) {
            target.copy_from_slice(&[high | 0x80, low]);
        } else if !long && let Some(target) = payload.get_mut(at) {
            *target = low & 0x7f;
        }
        at += 1 + usize::from(long);
    }
    // L without F: TL0PICIDX follows the layer indices.
    if first & 0x30 == 0x20
        && let Some(target) = payload.get_mut(at + 1)
    {
        *target = tl0_pic_idx;
    }
}

/// What this payload says about its layer frame.
pub fn inspect(payload: &[u8]) -> Result<FrameInfo, DropReason> {
    let descriptor = Descriptor::parse(payload)?;
    let spatial = descriptor.spatial();
    // Upper layers of a key picture are predicted from below: only its lowest layer is a key frame.
    let keyframe = descriptor.start && !descriptor.inter_picture_predicted && spatial == 0;
    let largest = descriptor.structure.and_then(|structure| {
        structure
            .dimensions
            .get(usize::from(structure.spatial_layers) - 1)
            .copied()
    });
    Ok(FrameInfo {
        keyframe,
        start: descriptor.start,
        end: descriptor.end,
        spatial,
        temporal: descriptor.temporal(),
        switch_point: keyframe || descriptor.layer.is_some_and(|layer| layer.switching_up_point),
        dimensions: largest.filter(|size| *size != (0, 0)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_picture_with_structure() {
        // I L B V, PictureID 15 bits, TID 0 U SID 0, TL0PICIDX, SS: three layers with sizes and one group entry.
        let mut payload = vec![0b1010_1010, 0x81, 0x00, 0b0001_0000, 9, 0b0101_1000];
        for (width, height) in [(320u16, 180u16), (640, 360), (1280, 720)] {
            payload.extend(width.to_be_bytes());
            payload.extend(height.to_be_bytes());
        }
        payload.extend([1, 0b0001_0100, 5, 0xaa]);
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!((descriptor.picture_id, descriptor.long_picture_id), (Some(0x100), true));
        assert_eq!(descriptor.layer.unwrap().tl0_pic_idx, Some(9));
        assert_eq!(descriptor.len(), payload.len() - 1);
        assert_eq!(descriptor.structure.unwrap().dimensions[1], (640, 360));
        let info = inspect(&payload).unwrap();
        assert!(info.keyframe && info.start && !info.end && info.switch_point);
        assert_eq!(info.dimensions, Some((1280, 720)));
    }

    #[test]
    fn an_upper_layer_of_a_key_picture_is_no_key_frame() {
        let info = inspect(&[0b0010_1100, 0b0100_0101, 3]).unwrap();
        assert_eq!((info.spatial, info.temporal), (2, 2));
        assert!(!info.keyframe && info.start && info.end);
    }

    #[test]
    fn flexible_mode_references() {
        let descriptor = Descriptor::parse(&[0b1111_0000, 5, 0b0010_0000, 0x03, 0x05, 0x06, 0xff]).unwrap();
        assert_eq!((descriptor.len(), descriptor.temporal()), (6, 1));
        assert_eq!(descriptor.layer.unwrap().tl0_pic_idx, None);
        assert!(descriptor.inter_picture_predicted);
    }

    #[test]
    fn numbers_are_patched_in_their_width() {
        let patched = |mut payload: Vec<u8>| {
            patch_picture(&mut payload, 0x1234, 77);
            let descriptor = Descriptor::parse(&payload).unwrap();
            (
                descriptor.picture_id,
                descriptor.layer.and_then(|layer| layer.tl0_pic_idx),
            )
        };
        assert_eq!(
            patched(vec![0b1010_1000, 0x81, 0x00, 0b0001_0000, 9]),
            (Some(0x1234), Some(77))
        );
        assert_eq!(patched(vec![0b1010_1000, 0x01, 0b0001_0000, 9]), (Some(0x34), Some(77)));
        assert_eq!(
            patched(vec![0b1011_1000, 0x81, 0x00, 0b0001_0000]),
            (Some(0x1234), None)
        );
        assert_eq!(patched(vec![0b0000_1000]), (None, None));
        patch_picture(&mut [0b1010_1000, 0x81], 1, 1);
        patch_picture(&mut [], 1, 1);
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = inspect(&payload);
            if let Ok(descriptor) = Descriptor::parse(&payload) {
                prop_assert!(descriptor.len() <= payload.len());
                prop_assert!(Descriptor::parse(&payload[..descriptor.len() - 1]).is_err());
            }
        }
    }
}
