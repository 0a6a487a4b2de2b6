//! L1, sans-IO: one transport's ICE, DTLS, SRTP and SCTP.
//!
//! Owns everything between a datagram and cleartext: [`Transport`] demultiplexes (RFC 7983), answers connectivity checks,
//! runs the DTLS handshake, opens and seals SRTP in place and carries data channels. A shard drives it; it never touches
//! a socket or a clock, and never looks at what is inside a media packet beyond its header.
//!
//! Randomness: the protocol engines draw some themselves, from the operating system. `is`: STUN transaction ids and the
//! ICE tie-breaker. `dimpl`: hello randoms, ephemeral keys, retransmission jitter. `sctp-proto`: tags, initial TSN,
//! cookies. SRTP draws none. So a run is replayable from injected keys on, not through the handshake.

mod classify;
mod dcep;
mod dtls;
mod framing;
mod ice;
mod sctp;
mod selection;
mod sped;
mod srtp;
mod transport;

#[cfg(test)]
mod tests;

pub use classify::{PacketKind, classify, stun_local_ufrag};
pub use dtls::{DtlsIdentity, DtlsVersions, IdentityError};
pub use framing::{BadFrame, FRAME_HEADER, frame_length};
pub use sctp::{ChannelId, MAX_RECEIVE_MESSAGE_SIZE, MAX_SEND_MESSAGE_SIZE, SendDataError};
pub use srtp::{OpenContext, SEAL_OVERHEAD, SealContext, SrtpKeys};
pub use transport::{Received, Transport, TransportConfig, TransportEvent, TransportStats};
