//! L2: sockets, batches, pinned shard threads, timers.
//!
//! Owns every media socket and the thread that reads and writes it. A [`ShardThread`] drives one `media::Shard`: it is
//! the only code that reads the clock for a shard, and the only code in the crate that may be `unsafe` (in `sys`, for
//! the batch system calls). It never looks into a datagram and never knows what a room is.
//!
//! Media over TCP and the TURN server are at home here too: connections that `door` has let in belong to the thread whose
//! transport they are for, and the TURN server's core to one of the threads.

mod batch;
mod counters;
mod door;
mod forwarding;
mod half_open;
mod interfaces;
mod load;
mod opening;
mod peers;
mod receive;
mod relay;
mod send;
mod shard_thread;
mod strays;
mod streams;
mod sys;
#[cfg(test)]
mod tests;
mod tls;
mod udp;
mod ways;

pub use batch::DatagramBatch;
pub use counters::{IoCounters, IoSnapshot};
pub use door::{ByteStream, Cover, Door, Guests, WEB_QUEUE, WebConnection};
pub use interfaces::{LocalAddress, local_addresses};
pub use opening::{Opening, Unknown, opening};
pub use peers::{PeerSockets, Peers, peers};
pub use relay::{RelayHome, TurnServer};
pub use send::SendBatch;
pub use shard_thread::{DatagramCore, EVENT_QUEUE, Ended, Handover, ShardHandle, ShardThread, ThreadConfig};
pub use streams::{AdoptedStream, Framing};
pub use tls::{CertificateFiles, Tls, TlsError};
pub use udp::{Offload, UdpSocket};
pub use ways::{WayEnd, WayIn, WayOut, way};
