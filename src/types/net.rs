//! Where a datagram came from and where it goes.

use std::net::SocketAddr;
use std::time::Instant;

/// The largest datagram that is sent or accepted, in bytes of UDP payload.
pub const MAX_DATAGRAM: usize = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetProtocol {
    Udp,
    /// RFC 4571 frames of a stream.
    Tcp,
    /// Through an allocation of the TURN server in this process: `local` is the media address that the client named as its
    /// peer, `remote` the relayed address. Nothing from the network can take this form.
    Turn,
}

/// A 5-tuple. Replies leave from `local`, the address the request arrived on, which a wildcard-bound socket learns
/// from IP_PKTINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetPath {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub protocol: NetProtocol,
}

/// Where datagrams are written once, in the memory they are sent from (DESIGN D6).
///
/// Call `slot`, write the datagram into it, then `commit` its length; a slot that is not committed is not sent.
/// Consecutive datagrams to one path with one size leave as one GSO send where the kernel can.
pub trait Batch {
    /// `MAX_DATAGRAM` writable bytes (contents unspecified) for the next datagram.
    fn slot(&mut self) -> &mut [u8];

    /// Queues the first `len` bytes of the slot for `path`.
    fn commit(&mut self, path: NetPath, len: usize);

    /// When what is written now leaves; `now` is the turn's. A turn with thousands of packets takes milliseconds, which a
    /// receiver's reports would otherwise show as delay of its path.
    fn departure(&self, now: Instant) -> Instant {
        now
    }
}
