//! What of a room outlives the process, as it is kept in the database. Tags are never used again.

use super::livekit::{AgentDispatch, Room};

/// A room without those who are in it: they come back by themselves.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RoomRecord {
    /// Its counts are not read.
    #[prost(message, optional, tag = "1")]
    pub room: Option<Room>,
    #[prost(message, repeated, tag = "2")]
    pub dispatches: Vec<AgentDispatch>,
    /// Milliseconds; both 0 = none.
    #[prost(uint32, tag = "3")]
    pub min_playout_delay: u32,
    #[prost(uint32, tag = "4")]
    pub max_playout_delay: u32,
    #[prost(bool, tag = "5")]
    pub sync_streams: bool,
    /// Somebody who counts was in it.
    #[prost(bool, tag = "6")]
    pub occupied: bool,
    /// When the last one who counts had left, UNIX milliseconds.
    #[prost(uint64, optional, tag = "7")]
    pub departed_ms: Option<u64>,
}
