//! The trace that leaving layers out leaves on the packets that are sent.

use crate::types::Layer;

/// Up to which layer of its stream a packet's neighbours were sent: what it has to say instead of the publisher's own
/// marker bit and active decode targets. One byte, kept with a packet's numbers, so that a retransmission says the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut(u8);

impl Cut {
    /// Everything of the stream is sent.
    pub const NONE: Self = Self(0);

    pub fn at(limit: Layer) -> Self {
        if limit == super::EVERYTHING {
            Self::NONE
        } else {
            Self(0x80 | (limit.spatial & 0x07) << 3 | limit.temporal & 0x07)
        }
    }

    /// The highest layer that is sent.
    pub fn limit(self) -> Option<Layer> {
        (self.0 != 0).then_some(Layer {
            spatial: self.0 >> 3 & 0x07,
            temporal: self.0 & 0x07,
        })
    }

    /// The marker bit of a packet with these marks: it stands on the last packet of a picture that is sent (RFC 9628
    /// §4.1, AV1 RTP specification §4.2).
    pub fn marker(self, own: bool, ends_frame: bool, spatial: u8) -> bool {
        own || ends_frame && self.limit().is_some_and(|limit| limit.spatial == spatial)
    }
}
