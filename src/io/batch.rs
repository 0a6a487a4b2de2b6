//! Receiving in batches outside a shard: for programs with hundreds of sockets on one thread, as the load tester is.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::receive::is_transient;
use super::sys::{RECEIVE_MESSAGES, ReceiveArena};
use super::udp::UdpSocket;

/// The memory datagrams arrive in; one serves any number of sockets that are read one after another.
pub struct DatagramBatch {
    arena: ReceiveArena,
}

impl Default for DatagramBatch {
    fn default() -> Self {
        Self {
            arena: ReceiveArena::new(),
        }
    }
}

impl DatagramBatch {
    /// One recvmmsg call. Every datagram is given to `handle` with the time since 1970 at which the kernel took it in (the
    /// present where the kernel does not say) and its source. True when the socket may have more.
    ///
    /// # Errors
    /// A broken descriptor; an empty socket and ICMP errors of earlier sends are none.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut handle: impl FnMut(Duration, SocketAddr, &mut [u8]),
    ) -> io::Result<bool> {
        let messages = match self.arena.receive(socket.fd()) {
            Ok(messages) => messages,
            Err(error) if is_transient(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for index in 0..messages {
            let Some(message) = self.arena.message(index) else {
                continue;
            };
            for datagram in message.bytes.chunks_mut(message.segment) {
                handle(message.stamp.unwrap_or(now), message.from, datagram);
            }
        }
        Ok(messages == RECEIVE_MESSAGES)
    }
}
