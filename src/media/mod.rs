//! L1, sans-IO: what an SFU is: shard, tracks, fanout, subscriptions, retransmission, data, speakers.

pub mod data;
mod data_tracks;
pub mod edge;
pub mod nack;
pub mod quality;
pub mod receiver_stats;
pub mod speakers;
pub mod transport_feedback;
