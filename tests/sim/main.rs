//! Whole calls on virtual time: a real shard, str0m peers in client mode, and a seeded network between them.
//!
//! No socket, thread or sleep: an hour runs in seconds and a failure replays from its seed. Stories start from commands
//! (what negotiation would have produced); signalling has stories of its own.

mod adaptation;
mod call;
mod churn;
mod codecs;
mod crowded;
mod data;
mod dependencies;
mod feedback;
mod hostile;
mod impairment;
mod loss;
mod loudest;
mod media;
mod network;
mod oracles;
mod peer;
mod randomness;
mod raw;
mod receiver;
mod recovery;
mod remb;
mod replay;
mod roaming;
mod rules;
mod schedule;
mod seeds;
mod signalling;
mod sources;
mod span;
mod steered;
mod trace;
mod world;
