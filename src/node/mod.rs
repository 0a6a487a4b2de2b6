//! L2, the tokio driver: one task per room, placement of rooms on shards, shard handles.
//!
//! Owns the clock, the queues and the names that `control::Room` must not have: a room's task passes it what arrives
//! (joins, requests, shard events, time) and carries out what it asks (messages to clients, commands to its shard).
//! Driven by `signal` and `api`. Never decides what a room decides, and never sees a packet.

mod administration;
mod connection;
mod counts;
mod driver;
mod explanation;
mod histogram;
mod journal;
mod placement;
mod registry;
mod relay;
mod room_task;
#[cfg(test)]
mod tests;
pub mod voice;
mod workers;

pub use crate::control::{
    AdministrationError, IceFragment, JoinError, LayerName, MetadataError, ParticipantExplanation, PublishedTrack,
    ReceivedTrack, RoomEvent, RoomExplanation, TrackNames, WaitingReason, WaitingTrack, WhipOffer,
};
pub use crate::media::edge::{
    Decision, EncodingReport, LayerReason, LayerState, ReceptionReport, SubscriptionReport, TrackReport,
};
pub use administration::{CreateDispatchError, CreateRoomError, MoveError, ShowError};
pub use connection::{Connection, ToClient};
pub use counts::NodeCounts;
pub use driver::{JoinFailure, Node, NodeConfig, ShardLink, new_id};
pub use explanation::ExplainError;
pub use histogram::Histogram;
pub use journal::{Entry, JOURNAL, Journal, Letterbox, NotWritten};
pub use placement::ShardLoad;
pub use room_task::{Happening, RoomGone};
pub use workers::{ToWorker, WorkerConnection};
