//! Whole calls on virtual time: a real shard, str0m peers in client mode, and a seeded network between them.
//!
//! No socket, thread or sleep: an hour runs in seconds and a failure replays from its seed. Stories start from commands
//! (what negotiation would have produced); signalling has stories of its own.

mod churn;
mod codecs;
mod data;
mod loss;
mod media;
mod network;
mod peer;
mod rules;
mod world;
