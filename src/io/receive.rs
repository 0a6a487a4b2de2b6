//! Takes datagrams out of a socket, one by one, from the messages the kernel grouped them into.

use std::io;
use std::net::SocketAddr;

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

    /// One recvmmsg call; every datagram is given to `handle` and gone afterwards.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        counters: &IoCounters,
        mut handle: impl FnMut(NetPath, &mut [u8]),
    ) -> io::Result<Received> {
        let messages = match self.arena.receive(socket.fd()) {
            Ok(messages) => messages,
            Err(error) if is_transient(&error) => return Ok(Received::default()),
            Err(error) => return Err(error),
        };
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
            for datagram in message.bytes.chunks_mut(message.segment) {
                if datagram.len() > MAX_DATAGRAM {
                    dropped += 1;
                    continue;
                }
                datagrams += 1;
                bytes += datagram.len() as u64;
                handle(path, datagram);
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
fn is_transient(error: &io::Error) -> bool {
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
