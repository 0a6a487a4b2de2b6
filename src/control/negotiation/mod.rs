//! Offer and answer for one SDP session: text in, text and plain values out (DESIGN D2).
//!
//! Owns what the two ends have agreed on m-line by m-line. Driven by the participant whose connection it is; shards
//! never see any of it. It never reads a clock or draws randomness (ICE credentials are arguments), and it learns
//! nothing from packets: an SSRC a description does not name is learned on the shard, by mid and rid.

mod answer;
mod codecs;
mod encodings;
mod extensions;
mod offer;
mod peer;
mod quirks;
mod remote;
mod types;

#[cfg(test)]
mod tests;

pub use peer::PeerConnection;
pub use quirks::{ClientDescription, ClientQuirks};
pub use types::{
    Answer, AnswerOutcome, BoundSender, NegotiationError, PeerConfig, PendingCodec, PendingTrack, ReceivedSection,
    Role, Sender,
};
