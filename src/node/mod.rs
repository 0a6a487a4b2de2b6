//! L2, the tokio driver: one task per room, placement of rooms on shards, shard handles.
//!
//! Owns the clock, the queues and the names that `control::Room` must not have: a room's task passes it what arrives
//! (joins, requests, shard events, time) and carries out what it asks (messages to clients, commands to its shard).
//! Driven by `signal` and `api`. Never decides what a room decides, and never sees a packet.

mod administration;
mod connection;
mod driver;
mod explanation;
mod registry;
mod room_task;
#[cfg(test)]
mod tests;

pub use crate::control::{
    AdministrationError, JoinError, LayerName, MetadataError, ParticipantExplanation, PublishedTrack, ReceivedTrack,
    RoomExplanation, TrackNames, WaitingReason, WaitingTrack,
};
pub use crate::media::edge::{
    Decision, EncodingReport, LayerReason, LayerState, ReceptionReport, SubscriptionReport, TrackReport,
};
pub use administration::{CreateDispatchError, CreateRoomError, MoveError};
pub use connection::{Connection, ToClient};
pub use driver::{JoinFailure, Node, NodeConfig, ShardLink};
pub use explanation::ExplainError;
pub use room_task::RoomGone;
