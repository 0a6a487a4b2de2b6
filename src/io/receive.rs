//! Takes datagrams out of a socket, one by one, from the messages the kernel grouped them into.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::counters::{IoCounters, add};
use super::sys::{RECEIVE_MESSAGES, ReceiveArena};
use super::udp::UdpSocket;
use crate::types::{MAX_DATAGRAM, NetPath, NetProtocol};

/// What one receive call brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) datagrams: usize,
    /// The call was filled to the brim: the socket probably has more.
    pub(super) full: bool,
}

/// Both clocks at one moment. Stamps are wall-clock time, which may be set at any moment; everything here runs on the
/// monotonic clock. Pairing them anew for every call leaves a step of the wall clock nothing to move but the stamps taken
/// within that very call's reach, and those are limited.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    monotonic: Instant,
    wall: Duration,
}

/// A datagram that seems to have waited longer was stamped by another clock: the socket's buffer holds a few milliseconds.
const MAX_WAIT: Duration = Duration::from_millis(500);

impl Clocks {
    fn now() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// When a datagram came that the kernel has stamped so.
    fn arrival(&self, stamp: Option<Duration>) -> Instant {
        let waited = stamp.and_then(|stamp| self.wall.checked_sub(stamp));
        let waited = waited.filter(|waited| *waited <= MAX_WAIT).unwrap_or_default();
        self.monotonic.checked_sub(waited).unwrap_or(self.monotonic)
    }
}

/// The memory datagrams arrive in; it lives for one turn.
pub(super) struct Receiver {
    arena: ReceiveArena,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            arena: ReceiveArena::new(),
        }
    }

    /// One recvmmsg call; every datagram is given to `handle`, with the time it arrived, and gone afterwards.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        counters: &IoCounters,
        mut handle: impl FnMut(Instant, NetPath, &mut [u8]),
    ) -> io::Result<Received> {
        let messages = match self.arena.receive(socket.fd()) {
            Ok(messages) => messages,
            Err(error) if is_transient(&error) => return Ok(Received::default()),
            Err(error) => return Err(error),
        };
        let clocks = Clocks::now();
        let (mut datagrams, mut bytes, mut dropped) = (0, 0, 0);
        for index in 0..messages {
            let Some(message) = self.arena.message(index) else {
                dropped += 1;
                continue;
            };
            let path = NetPath {
                local: socket.arrival(message.local),
                remote: canonical(message.from),
                protocol: NetProtocol::Udp,
            };
            let arrival = clocks.arrival(message.stamp);
            for datagram in message.bytes.chunks_mut(message.segment) {
                if datagram.len() > MAX_DATAGRAM {
                    dropped += 1;
                    continue;
                }
                datagrams += 1;
                bytes += datagram.len() as u64;
                handle(arrival, path, datagram);
            }
        }
        add(&counters.messages_received, messages as u64);
        add(&counters.datagrams_received, datagrams as u64);
        add(&counters.bytes_received, bytes);
        add(&counters.receive_dropped, dropped);
        Ok(Received {
            datagrams,
            full: messages == RECEIVE_MESSAGES,
        })
    }
}

/// Everything but a broken descriptor or argument, which is a bug: a signal, nothing there, no memory for a moment, an
/// ICMP error about something sent earlier.
pub(super) fn is_transient(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL)
    )
}

/// The scope of a global IPv6 address says nothing and must not make two paths of one.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) if !v6.ip().is_unicast_link_local() => {
            v6.set_scope_id(0);
            SocketAddr::V6(v6)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_of_the_wall_clock_moves_no_arrival() {
        let clocks = Clocks {
            monotonic: Instant::now() + Duration::from_secs(10),
            wall: Duration::from_secs(1_800_000_000),
        };
        let ago = |ms: u64| clocks.monotonic - Duration::from_millis(ms);
        let stamp = |ms: u64| Some(clocks.wall - Duration::from_millis(ms));
        assert_eq!(clocks.arrival(stamp(3)), ago(3));
        assert_eq!(clocks.arrival(None), ago(0));
        // Set an hour forward or back between the stamp and now.
        assert_eq!(clocks.arrival(stamp(3_600_000)), ago(0));
        assert_eq!(clocks.arrival(Some(clocks.wall + Duration::from_secs(3600))), ago(0));
    }
}
