//! L0: LiveKit's protobuf messages, their JSON forms, token claims, the data-packet envelope, TURN credentials.
//!
//! Owns how bytes and texts of LiveKit's protocol are read and written. Driven by whoever has such bytes; holds no
//! state, reads no clock, and never decides what a message means for a room.

pub mod claims;
pub mod envelope;
pub mod join_request;
pub mod json;
pub mod relay;
pub mod room_record;

/// LiveKit's messages as prost structs (`livekit::SignalRequest`, …).
pub use livekit_protocol as livekit;
