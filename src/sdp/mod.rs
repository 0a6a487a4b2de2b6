//! L0: session descriptions: parse, model, write (RFC 8866, with the WebRTC attributes of RFC 8829).
//!
//! Owns the text form only: `SessionDescription::parse` and `Display`. What is said, and why, is decided in
//! `control::negotiation`, the one user. The model holds the attributes that are acted on and nothing else, so
//! that an unknown attribute of a peer cannot be echoed by accident.
//!
//! Any text may come in: sizes are bounded by the constants here, errors name the line, nothing panics.

mod candidate;
mod error;
mod model;
mod parse;
mod write;

#[cfg(test)]
mod tests;

pub use candidate::HostCandidate;
pub use error::SdpError;
pub use model::{
    Direction, ExtMap, Fingerprint, MediaSection, Msid, Origin, Payload, RidLine, SectionKind, SessionDescription,
    Setup, SsrcAttribute, SsrcGroup, TransportAttributes,
};

/// Longest description read, in bytes. An offer with 250 video m-lines from Chromium (5.5 kB each) stays below.
pub const MAX_DESCRIPTION_BYTES: usize = 2 << 20;
/// Most m-lines read or offered: one per subscription of a very large room, and what browsers still answer within seconds.
pub const MAX_SECTIONS: usize = 512;
/// Most attributes in one m-line's section or the session part. Chromium's longest section has about 190.
pub const MAX_ATTRIBUTES: usize = 1024;
/// Longest line, in bytes. The longest real ones are `m=video` (150) and `a=group:BUNDLE` with every mid.
pub const MAX_LINE_BYTES: usize = 16 << 10;
