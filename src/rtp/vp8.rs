//! VP8 payload descriptor (RFC 7741 §4.2): read, rewrite, and what the key frame header says.

use super::FrameInfo;
use super::cursor::{Reader, Writer};
use crate::types::DropReason;

/// PictureID in the width it was sent with; it wraps at that width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bits.
    Short(u8),
    /// 15 bits.
    Long(u16),
}

impl PictureId {
    pub fn value(self) -> u16 {
        match self {
            Self::Short(id) => u16::from(id),
            Self::Long(id) => id,
        }
    }

    /// The same width with another number, which is cut to it.
    pub fn with_value(self, value: u16) -> Self {
        match self {
            Self::Short(_) => Self::Short((value & 0x7f) as u8),
            Self::Long(_) => Self::Long(value & 0x7fff),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// N: no other frame refers to this one.
    pub non_reference: bool,
    /// S: the payload begins a partition.
    pub start_of_partition: bool,
    /// PID: index of the partition.
    pub partition: u8,
    pub picture_id: Option<PictureId>,
    pub tl0_pic_idx: Option<u8>,
    /// TID, 0..=3.
    pub temporal: Option<u8>,
    /// Y: the frame depends on the base layer only, so a receiver can go up to this temporal layer here.
    pub layer_sync: bool,
    /// KEYIDX, 0..=31.
    pub key_idx: Option<u8>,
    /// Bytes of the descriptor as it was read.
    len: u8,
}

impl Descriptor {
    pub fn parse(payload: &[u8]) -> Result<Self, DropReason> {
        Self::read(payload).ok_or(DropReason::Truncated)
    }

    fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let first = reader.u8()?;
        let extended = if first & 0x80 != 0 { reader.u8()? } else { 0 };
        let picture_id = if extended & 0x80 != 0 {
            let high = reader.u8()?;
            Some(if high & 0x80 != 0 {
                PictureId::Long(u16::from_be_bytes([high & 0x7f, reader.u8()?]))
            } else {
                PictureId::Short(high)
            })
        } else {
            None
        };
        let tl0_pic_idx = if extended & 0x40 != 0 { Some(reader.u8()?) } else { None };
        let layers = if extended & 0x30 != 0 { reader.u8()? } else { 0 };
        let has_temporal = extended & 0x20 != 0;
        Some(Self {
            non_reference: first & 0x20 != 0,
            start_of_partition: first & 0x10 != 0,
            partition: first & 0x07,
            picture_id,
            tl0_pic_idx,
            temporal: has_temporal.then_some(layers >> 6),
            layer_sync: has_temporal && layers & 0x20 != 0,
            key_idx: (extended & 0x10 != 0).then_some(layers & 0x1f),
            len: (payload.len() - reader.rest().len()) as u8, // at most 6
        })
    }

    /// Bytes of the descriptor as it was read; the VP8 bitstream follows.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// A descriptor has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Bytes that `write` needs: other than `len` when a field was added, removed or widened.
    pub fn encoded_len(&self) -> usize {
        let picture_id = match self.picture_id {
            None => 0,
            Some(PictureId::Short(_)) => 1,
            Some(PictureId::Long(_)) => 2,
        };
        let fields = picture_id
            + usize::from(self.tl0_pic_idx.is_some())
            + usize::from(self.temporal.is_some() || self.key_idx.is_some());
        1 + if fields == 0 { 0 } else { 1 + fields }
    }

    /// Writes the descriptor at the front of `buf` and returns its length. In place when `encoded_len` equals `len`;
    /// else the bitstream has to be copied behind it.
    ///
    /// # Errors
    /// `TooLarge` when `buf` is too short.
    pub fn write(&self, buf: &mut [u8]) -> Result<usize, DropReason> {
        let mut writer = Writer::new(buf);
        let has_layers = self.temporal.is_some() || self.key_idx.is_some();
        let extended = self.picture_id.is_some() || self.tl0_pic_idx.is_some() || has_layers;
        writer.u8(u8::from(extended) << 7
            | u8::from(self.non_reference) << 5
            | u8::from(self.start_of_partition) << 4
            | self.partition & 0x07)?;
        if extended {
            writer.u8(u8::from(self.picture_id.is_some()) << 7
                | u8::from(self.tl0_pic_idx.is_some()) << 6
                | u8::from(self.temporal.is_some()) << 5
                | u8::from(self.key_idx.is_some()) << 4)?;
        }
        match self.picture_id {
            Some(PictureId::Short(id)) => writer.u8(id & 0x7f)?,
            Some(PictureId::Long(id)) => writer.u16(id | 0x8000)?,
            None => {}
        }
        if let Some(index) = self.tl0_pic_idx {
            writer.u8(index)?;
        }
        if has_layers {
            writer.u8(self.temporal.unwrap_or(0) << 6
                | u8::from(self.temporal.is_some() && self.layer_sync) << 5
                | self.key_idx.unwrap_or(0) & 0x1f)?;
        }
        Ok(writer.len())
    }

    /// Whether the payload is the first of its frame.
    pub fn starts_frame(&self) -> bool {
        self.start_of_partition && self.partition == 0
    }
}

/// Writes `payload` with `replacement` in place of its own descriptor `original` to the front of `out`, and returns the
/// new length.
///
/// # Errors
/// `TooLarge` when `out` is too short.
pub fn rewrite(
    payload: &[u8],
    original: &Descriptor,
    replacement: &Descriptor,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let bitstream = payload.get(original.len()..).ok_or(DropReason::Truncated)?;
    let len = replacement.write(out)?;
    let end = len + bitstream.len();
    out.get_mut(len..end)
        .ok_or(DropReason::TooLarge)?
        .copy_from_slice(bitstream);
    Ok(end)
}

/// What this payload says about its frame.
pub fn inspect(payload: &[u8], marker: bool) -> Result<FrameInfo, DropReason> {
    let descriptor = Descriptor::parse(payload)?;
    let bitstream = payload.get(descriptor.len()..).unwrap_or_default();
    let start = descriptor.starts_frame();
    // RFC 6386 §9.1: the lowest bit of the frame tag is 0 for key frames.
    let keyframe = start && bitstream.first().is_some_and(|tag| tag & 1 == 0);
    Ok(FrameInfo {
        keyframe,
        start,
        end: marker,
        spatial: 0,
        temporal: descriptor.temporal.unwrap_or(0),
        switch_point: keyframe || descriptor.layer_sync,
        dimensions: if keyframe { dimensions(bitstream) } else { None },
    })
}

/// RFC 6386 §9.1: a start code and two 14-bit sizes, little-endian, follow the 3-byte frame tag.
fn dimensions(bitstream: &[u8]) -> Option<(u16, u16)> {
    let mut reader = Reader::new(bitstream);
    reader.bytes(3)?;
    if reader.array()? != [0x9d, 0x01, 0x2a] {
        return None;
    }
    let width = u16::from_le_bytes(reader.array()?) & 0x3fff;
    let height = u16::from_le_bytes(reader.array()?) & 0x3fff;
    Some((width, height))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A key frame of 1280 × 720 as Chromium sends it: 15-bit PictureID, TL0PICIDX, TID and KEYIDX.
    const KEY_FRAME: [u8; 16] = [
        0x90, 0xf0, 0x81, 0x02, 7, 0x25, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02,
    ];

    #[test]
    fn full_descriptor_and_key_frame_header() {
        let descriptor = Descriptor::parse(&KEY_FRAME).unwrap();
        assert_eq!(descriptor.picture_id, Some(PictureId::Long(0x102)));
        assert_eq!(
            (descriptor.tl0_pic_idx, descriptor.temporal, descriptor.key_idx),
            (Some(7), Some(0), Some(5))
        );
        assert!(descriptor.layer_sync && descriptor.starts_frame() && !descriptor.non_reference);
        assert_eq!((descriptor.len(), descriptor.encoded_len()), (6, 6));
        let info = inspect(&KEY_FRAME, false).unwrap();
        assert!(info.keyframe && info.start && !info.end);
        assert_eq!(info.dimensions, Some((1280, 720)));
    }

    #[test]
    fn one_byte_descriptor() {
        let info = inspect(&[0x10, 0x01], true).unwrap();
        assert!(!info.keyframe && info.start && info.end);
        assert_eq!(Descriptor::parse(&[0x30]).unwrap().len(), 1);
        // A later partition, and the middle of the first one, start no frame whatever the bitstream looks like.
        assert!(!inspect(&[0x11, 0x00], false).unwrap().start);
        assert!(!inspect(&[0x00, 0x00], false).unwrap().keyframe);
    }

    #[test]
    fn key_index_without_temporal_layers() {
        let descriptor = Descriptor::parse(&[0x80, 0x10, 0xff, 0]).unwrap();
        assert_eq!(
            (descriptor.temporal, descriptor.layer_sync, descriptor.key_idx),
            (None, false, Some(31))
        );
        assert_eq!(descriptor.len(), 3);
    }

    #[test]
    fn truncated_descriptors() {
        for len in 0..6 {
            assert_eq!(Descriptor::parse(&KEY_FRAME[..len]).unwrap_err(), DropReason::Truncated);
        }
    }

    #[test]
    fn rewriting_in_place_and_with_another_size() {
        let original = Descriptor::parse(&KEY_FRAME).unwrap();
        let same = Descriptor {
            picture_id: original.picture_id.map(|id| id.with_value(0xffff)),
            tl0_pic_idx: Some(200),
            key_idx: Some(1),
            ..original
        };
        let mut buf = KEY_FRAME;
        assert_eq!(same.write(&mut buf), Ok(6));
        assert_eq!(buf[..6], [0x90, 0xf0, 0xff, 0xff, 200, 0x21]);

        let shorter = Descriptor {
            picture_id: Some(PictureId::Short(9)),
            key_idx: None,
            ..original
        };
        let mut out = [0; 32];
        let len = rewrite(&KEY_FRAME, &original, &shorter, &mut out).unwrap();
        assert_eq!(len, KEY_FRAME.len() - 1);
        assert_eq!(out[..5], [0x90, 0xe0, 9, 7, 0x20]);
        assert_eq!(out[5..len], KEY_FRAME[6..]);
        assert_eq!(
            rewrite(&KEY_FRAME, &original, &original, &mut [0; 15]),
            Err(DropReason::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..20), marker in any::<bool>()) {
            let _ = inspect(&payload, marker);
            if let Ok(descriptor) = Descriptor::parse(&payload) {
                let mut buf = [0; 8];
                let len = descriptor.write(&mut buf).unwrap();
                prop_assert_eq!(len, descriptor.encoded_len());
                let again = Descriptor::parse(&buf[..len]).unwrap();
                prop_assert_eq!(Descriptor { len: descriptor.len, ..again }, descriptor);
            }
        }
    }
}
