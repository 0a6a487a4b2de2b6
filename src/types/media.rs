//! Codecs, layers and their negotiated parameters.

use super::Pt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    Audio,
    Video,
}

/// Every codec that is forwarded. RTX is not a codec here: it is a property of one (`CodecParameters::rtx`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    Opus,
    /// Redundant Opus, RFC 2198; forwarded as it is.
    Red,
    Pcmu,
    Pcma,
    Vp8,
    Vp9,
    H264,
    H265,
    Av1,
}

impl Codec {
    pub const ALL: [Codec; 9] = [
        Self::Opus,
        Self::Red,
        Self::Pcmu,
        Self::Pcma,
        Self::Vp8,
        Self::Vp9,
        Self::H264,
        Self::H265,
        Self::Av1,
    ];

    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::Red | Self::Pcmu | Self::Pcma => MediaKind::Audio,
            _ => MediaKind::Video,
        }
    }

    /// RTP clock in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus | Self::Red => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
            _ => 90_000,
        }
    }

    /// The encoding name of `a=rtpmap`, in the case browsers write it.
    pub fn rtpmap_name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Red => "red",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Av1 => "AV1",
        }
    }

    /// `audio/opus`, `video/VP8`: the form of `TrackInfo.mime_type` after publication.
    pub fn mime_type(self) -> String {
        let kind = match self.kind() {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        };
        format!("{kind}/{}", self.rtpmap_name())
    }

    /// Accepts `vp8`, `video/VP8`, `audio/opus`… in any case, as clients write codecs.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.rsplit('/').next().unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|codec| codec.rtpmap_name().eq_ignore_ascii_case(name))
    }
}

/// A point of a track's scalability: spatial 0..=2 (0 is the smallest picture), temporal 0..=3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layer {
    pub spatial: u8,
    pub temporal: u8,
}

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bitrate(pub u64);

impl Bitrate {
    pub const ZERO: Self = Self(0);

    pub const fn kbps(kbps: u64) -> Self {
        Self(kbps * 1000)
    }

    pub const fn as_kbps(self) -> u64 {
        self.0 / 1000
    }
}

/// One negotiated payload type, with what RFC 8829 calls its feedback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecParameters {
    pub pt: Pt,
    pub codec: Codec,
    /// The payload type of its retransmissions (RFC 4588), when negotiated.
    pub rtx: Option<Pt>,
    pub nack: bool,
    pub pli: bool,
    pub fir: bool,
    pub transport_cc: bool,
    pub remb: bool,
    /// The `a=fmtp` text as negotiated, without the payload type; empty when none.
    pub fmtp: String,
}
