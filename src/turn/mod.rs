//! L1, sans-IO: the TURN server in front of this process's own media ports (RFC 8656, RFC 8489).
//!
//! Owns allocations, permissions, channels and nonces. A media thread drives it with datagrams and stream frames; whatever
//! a client sends to one of our media addresses comes out as a range of the memory it arrived in, for the shard, and what
//! the shard answers is wrapped where it lies. There are no relay sockets: a relayed address is a name that no socket
//! listens on, and the only peers are the addresses in [`PeerPolicy::media`], compared as they are. So nothing can be
//! reached through it that a client could not reach without it. Where [`PeerPolicy::others`] lets peers elsewhere be
//! reached, relayed addresses are to be opened (`poll_port`).
//!
//! Never reads a clock, draws randomness of its own or touches a socket. Before a client has shown a password it costs no
//! memory here, and no answer is more than three times its question.

mod allocation;
mod attributes;
mod credentials;
mod frame;
mod limiter;
mod nonce;
mod policy;
mod refusal;
mod reply;
mod requests;
mod server;

#[cfg(test)]
pub(crate) mod tests;

pub use allocation::{Carriage, MAX_CARRIAGE};
pub use credentials::{Account, Credentials};
pub use frame::{BadFrame, MAX_FRAME, frame_length, is_for_server};
pub use policy::{OtherPeers, PeerPolicy};
pub use refusal::{Counts, Refusal};
pub use server::{Population, PortChange, Relayed, Server, ServerConfig};
