//! L2: sockets, batches, pinned shard threads, timers.
//!
//! Owns every media socket and the thread that reads and writes it. A [`ShardThread`] drives one `media::Shard`: it is
//! the only code that reads the clock for a shard, and the only code in the crate that may be `unsafe` (in `sys`, for
//! the batch system calls). It never looks into a datagram and never knows what a room is.

mod counters;
mod interfaces;
mod load;
mod receive;
mod send;
mod shard_thread;
mod sys;
#[cfg(test)]
mod tests;
mod udp;

pub use counters::{IoCounters, IoSnapshot};
pub use interfaces::{LocalAddress, local_addresses};
pub use send::SendBatch;
pub use shard_thread::{DatagramCore, EVENT_QUEUE, Ended, ShardHandle, ShardThread, ThreadConfig};
pub use udp::{Offload, UdpSocket};
