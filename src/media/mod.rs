//! L1, sans-IO: what an SFU is: shard, tracks, fanout, subscriptions, retransmission, data, speakers.
//!
//! A packet's way, one function each: `shard` (`handle_datagram`: which transport), `track` (`on_rtp`: which encoding),
//! `fanout` (`forward`: for each subscriber), `subscription` (select, rewrite), `pacer` (release into the batch).
//! [`edge`] is the only way between here and control. Driven by `io`'s shard thread; owns no socket, clock or thread.

pub mod data;
pub mod edge;
pub mod estimator;
pub mod nack;
pub mod pacing;
pub mod quality;
pub mod receiver_stats;
pub mod speakers;
pub mod transport_feedback;

mod allocation;
mod allocator;
mod beside;
mod binding;
mod data_link;
mod data_tracks;
mod encoding;
mod explain;
mod fanout;
mod feedback;
mod generated;
mod layers;
mod lossy;
mod loudest;
mod moving;
mod outside;
mod pacer;
mod playout;
mod recovery;
mod relay;
mod remb;
mod repairs;
mod replay;
mod resend;
mod rewrite;
mod ring;
mod room_quality;
mod room_report;
mod send_queue;
mod shard;
mod showing;
mod slots;
mod span;
mod spread;
mod stats;
mod subscription;
mod timeline;
mod timers;
mod track;
mod transport;

pub use relay::RelayLink;
pub use shard::{Population, Shard, ShardConfig};
pub use spread::Spread;
pub use stats::{PathSpreads, ShardStats};
