//! RTP identifiers and header extensions as values.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// RTP payload type, 0..=127.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pt(pub u8);

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Pt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A short ASCII token kept inline, so that it is `Copy` and needs no allocation on the packet path.
macro_rules! inline_token {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            len: u8,
            bytes: [u8; $max],
        }

        impl $name {
            pub const MAX_LEN: usize = $max;

            /// None when empty, longer than `MAX_LEN`, or not printable ASCII.
            pub fn new(text: &str) -> Option<Self> {
                Self::from_bytes(text.as_bytes())
            }

            /// As `new`, from the bytes of a header extension.
            pub fn from_bytes(text: &[u8]) -> Option<Self> {
                if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
                    return None;
                }
                let mut bytes = [0; $max];
                bytes.get_mut(..text.len())?.copy_from_slice(text);
                Some(Self { len: text.len() as u8, bytes })
            }

            pub fn as_bytes(&self) -> &[u8] {
                self.bytes.get(..usize::from(self.len)).unwrap_or_default()
            }

            pub fn as_str(&self) -> &str {
                std::str::from_utf8(self.as_bytes()).unwrap_or_default()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

inline_token!(/** Media section identification, RFC 8843 §15. */ Mid, 16);
inline_token!(/** RTP stream id of a simulcast encoding, RFC 8852. */ Rid, 16);

/// Every header extension that is read or written. Others are not negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AudioLevel,
    AbsSendTime,
    TransportCc,
    DependencyDescriptor,
    PlayoutDelay,
    VideoOrientation,
    AbsCaptureTime,
    VideoLayersAllocation,
}

impl Extension {
    pub const ALL: [Extension; 11] = [
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::DependencyDescriptor,
        Self::PlayoutDelay,
        Self::VideoOrientation,
        Self::AbsCaptureTime,
        Self::VideoLayersAllocation,
    ];

    pub fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::VideoLayersAllocation => "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00",
        }
    }

    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|extension| extension.uri() == uri)
    }
}

/// The negotiated id of each extension: 1..=14 in the one-byte form, up to 255 in the two-byte form (RFC 8285).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionMap {
    ids: [u8; Extension::ALL.len()],
}

impl ExtensionMap {
    /// Id 0 is padding and 15 reserved in the one-byte form: both are ignored.
    pub fn insert(&mut self, extension: Extension, id: u8) {
        if id != 0 && id != 15 {
            self.ids[extension as usize] = id;
        }
    }

    pub fn id(&self, extension: Extension) -> Option<u8> {
        Some(self.ids[extension as usize]).filter(|id| *id != 0)
    }

    pub fn extension(&self, id: u8) -> Option<Extension> {
        Extension::ALL
            .into_iter()
            .find(|extension| id != 0 && self.ids[*extension as usize] == id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Extension, u8)> + '_ {
        Extension::ALL
            .into_iter()
            .filter_map(|extension| Some((extension, self.id(extension)?)))
    }
}
