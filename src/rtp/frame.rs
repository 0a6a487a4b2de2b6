//! One question for all codecs: what does this packet say about its frame?

use super::{av1, h264, h265, vp8, vp9};
use crate::types::{Codec, DropReason};

/// What one packet says about the frame it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// Decoding can begin with this packet's frame: set on the first packet of a key frame (for H.264 and H.265 on every
    /// packet that begins a parameter set or key slice). Always set for audio.
    pub keyframe: bool,
    /// First packet of the (layer) frame.
    pub start: bool,
    /// Last packet of the (layer) frame.
    pub end: bool,
    /// Spatial layer within the stream; 0 for simulcast, where the encoding says it.
    pub spatial: u8,
    /// Temporal layer; 0 where the codec does not say.
    pub temporal: u8,
    /// A receiver of lower temporal layers can be given this one from here on.
    pub switch_point: bool,
    /// Width and height of the largest layer, on packets that say it.
    pub dimensions: Option<(u16, u16)>,
}

/// Reads the payload (without padding) as far as needed. Where the packet carries a dependency descriptor, prefer
/// `dependency_descriptor::Descriptor::frame_info`: it is readable under end-to-end encryption too.
///
/// # Errors
/// `Truncated` when the codec's own descriptor is cut off.
pub fn inspect(codec: Codec, payload: &[u8], marker: bool) -> Result<FrameInfo, DropReason> {
    match codec {
        Codec::Vp8 => vp8::inspect(payload, marker),
        Codec::Vp9 => vp9::inspect(payload),
        Codec::H264 => h264::inspect(payload, marker),
        Codec::H265 => h265::inspect(payload, marker),
        Codec::Av1 => av1::inspect(payload, marker),
        // Every audio packet is a frame of its own.
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => Ok(FrameInfo {
            keyframe: true,
            start: true,
            end: true,
            switch_point: true,
            ..FrameInfo::default()
        }),
    }
}
