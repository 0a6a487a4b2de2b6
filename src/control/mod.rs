//! L1, sans-IO: rooms, participants, permissions, negotiation, wanted subscriptions.
//!
//! Owns what clients are told and what shards are asked: one [`Room`] takes joins, `SignalRequest`s and media events
//! and gives `SignalResponse`s and `media::edge` commands. Driven by `node` (one task per room), which passes the time
//! in. Never touches a socket, a clock, a packet, or another room.

mod join;
pub mod negotiation;
mod output;
mod settings;

pub use join::{Join, JoinError, Signer};
pub use output::{ConnectionHandle, Output, RoomEvent};
pub use settings::{Limits, PING_INTERVAL, PING_TIMEOUT, PROTOCOL_VERSION, RoomSettings};
