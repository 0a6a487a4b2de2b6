//! The outgoing batch: datagrams are written once, where they are sent from, and leave grouped by destination.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{IoCounters, add};
use super::relay::{Relay, Wrapped};
use super::streams::Streams;
use super::sys::{self, Epoll, Outgoing, SEND_MESSAGES, SendScratch};
use super::udp::UdpSocket;
use crate::turn::MAX_CARRIAGE;
use crate::types::{Batch, MAX_DATAGRAM, NetPath, NetProtocol};

/// Bytes that a slot needs: a datagram, and what a relay may put around it.
const SLOT: usize = MAX_DATAGRAM + MAX_CARRIAGE;

/// Bytes gathered before the batch sends itself: some 230 packets of 1,100 bytes, small enough that a packet is still
/// in the second-level cache when the kernel copies it.
const ARENA_BYTES: usize = 256 << 10;

/// Groups gathered before the batch sends itself.
const MAX_GROUPS: usize = 4 * SEND_MESSAGES;

/// UDP_MAX_SEGMENTS of kernels before 6.9; later ones take 128.
const MAX_SEGMENTS: u16 = 64;

/// Bytes of one GSO group: 65,535 less the IPv6 and UDP headers, rounded down.
const MAX_GROUP_BYTES: usize = 65_000;

/// Groups refused one after the other, after which none is tried any more. A few for paths with a small MTU; a kernel or a
/// sandbox that takes the option and refuses each group with it would cost every group two system calls.
const MAX_REFUSED: u8 = 16;

/// How long a full socket is waited for, once per flush; what it refuses after that is dropped and counted. A socket
/// buffer of 8 MB is full only when the link is far behind, so waiting longer would delay every other transport to save
/// packets that are late already.
const SEND_WAIT: Duration = Duration::from_millis(1);

/// Consecutive datagrams for one path with one size (the last may be shorter).
#[derive(Clone, Copy, Debug)]
struct Group {
    path: NetPath,
    socket: usize,
    start: usize,
    length: usize,
    /// Size of every datagram but perhaps the last.
    segment: usize,
    count: u16,
}

impl Group {
    fn takes(&self, path: NetPath, len: usize) -> bool {
        // A shorter datagram has ended the group.
        let even = self.length == self.segment * usize::from(self.count);
        even && len <= self.segment
            && self.count < MAX_SEGMENTS
            && self.length + len <= MAX_GROUP_BYTES
            && self.path == path
    }
}

/// [`Batch`] over the sockets of one shard. Sends by itself when it is full; otherwise on [`SendBatch::flush`]. What goes to
/// a TCP connection is queued there at once; what goes through the TURN server is wrapped where it lies and goes on with
/// the rest.
pub struct SendBatch {
    pub(super) streams: Streams,
    pub(super) relay: Relay,
    sockets: Vec<Arc<UdpSocket>>,
    /// Per socket: groups may leave as one send. Taken back when a device turns out not to support it.
    gso: Vec<bool>,
    /// Per socket: groups refused since the last that was taken.
    refused: Vec<u8>,
    /// Test hook: the kernel refuses groups with this error.
    #[cfg(test)]
    pub(super) refusal: Option<i32>,
    counters: Arc<IoCounters>,
    arena: Box<[u8]>,
    used: usize,
    groups: Vec<Group>,
    outgoing: Vec<Outgoing>,
    scratch: SendScratch,
}

impl SendBatch {
    pub fn new(sockets: Vec<Arc<UdpSocket>>, counters: Arc<IoCounters>) -> Self {
        Self {
            gso: sockets.iter().map(|socket| socket.offload.gso).collect(),
            refused: vec![0; sockets.len()],
            #[cfg(test)]
            refusal: None,
            streams: Streams::default(),
            relay: Relay::default(),
            sockets,
            counters,
            arena: vec![0; ARENA_BYTES].into(),
            used: 0,
            groups: Vec::with_capacity(MAX_GROUPS),
            outgoing: Vec::with_capacity(MAX_GROUPS),
            scratch: SendScratch::new(),
        }
    }

    /// A socket that came later.
    pub(super) fn add_socket(&mut self, socket: Arc<UdpSocket>) {
        self.gso.push(socket.offload.gso);
        self.refused.push(0);
        self.sockets.push(socket);
    }

    /// One datagram that is already in memory.
    pub(super) fn send(&mut self, path: NetPath, datagram: &[u8]) {
        if let Some(target) = self.slot().get_mut(..datagram.len()) {
            target.copy_from_slice(datagram);
            self.commit(path, datagram.len());
        }
    }

    pub(super) fn flush_streams(&mut self, now: Instant, epoll: &Epoll) {
        self.streams.flush(now, epoll);
    }

    fn queue_on_stream(&mut self, path: NetPath, start: usize, len: usize) {
        let datagram = self.arena.get(start..start + len).unwrap_or_default();
        if !self.streams.send(path, datagram) {
            add(&self.counters.stream_dropped, 1);
        }
    }

    /// Sends everything that was committed. What cannot be sent is dropped and counted, never kept.
    pub fn flush(&mut self) {
        if !self.groups.is_empty() {
            for index in 0..self.sockets.len() {
                self.outgoing.clear();
                let socket = &self.sockets[index];
                let groups = self.groups.iter().filter(|group| group.socket == index);
                self.outgoing.extend(groups.map(|group| outgoing(socket, group)));
                self.send_all(index);
            }
            self.groups.clear();
        }
        self.used = 0;
    }

    fn send_all(&mut self, index: usize) {
        let fd = self.sockets[index].fd();
        let mut next = 0;
        let mut may_wait = true;
        while let Some(rest) = self.outgoing.get(next..).filter(|rest| !rest.is_empty()) {
            #[cfg(test)]
            let forced = self.refusal.filter(|_| rest[0].segment.is_some());
            #[cfg(not(test))]
            let forced = None;
            let sent = match forced {
                Some(error) => Err(io::Error::from_raw_os_error(error)),
                None => self.scratch.send(fd, &self.arena, rest),
            };
            match sent {
                Ok(taken) if taken > 0 => {
                    if rest[0].segment.is_some() {
                        self.refused[index] = 0;
                    }
                    count_sent(&self.counters, &rest[..taken.min(rest.len())]);
                    next += taken;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_full(&error) && may_wait => {
                    may_wait = false;
                    sys::wait_writable(fd, SEND_WAIT);
                }
                Err(error) if is_full(&error) => {
                    count_dropped(&self.counters, rest);
                    return;
                }
                Err(error) if rest[0].segment.is_some() && refuses_group(&error) => {
                    self.refused[index] = self.refused[index].saturating_add(1);
                    let is_sure = error.raw_os_error() == Some(libc::EIO) || self.refused[index] >= MAX_REFUSED;
                    if is_sure && std::mem::take(&mut self.gso[index]) {
                        tracing::warn!(local = %self.sockets[index].local(), %error, "UDP groups are refused; sending datagrams one by one");
                    }
                    add(&self.counters.groups_split, 1);
                    let group = rest[0];
                    send_split(&mut self.scratch, fd, &self.arena, group, &self.counters);
                    next += 1;
                }
                // Unreachable network, a firewall's refusal, a datagram above the path's limit: this message only.
                Ok(_) | Err(_) => {
                    count_dropped(&self.counters, &rest[..1]);
                    next += 1;
                }
            }
        }
    }
}

impl Batch for SendBatch {
    fn departure(&self, now: Instant) -> Instant {
        Instant::now().max(now)
    }

    fn slot(&mut self) -> &mut [u8] {
        if self.groups.len() >= MAX_GROUPS || self.used + SLOT > self.arena.len() {
            self.flush();
        }
        &mut self.arena[self.used..self.used + MAX_DATAGRAM]
    }

    fn commit(&mut self, mut path: NetPath, len: usize) {
        let mut len = len.min(MAX_DATAGRAM).min(self.arena.len() - self.used);
        if len == 0 {
            return;
        }
        let start = self.used;
        if path.protocol == NetProtocol::Turn {
            add(&self.counters.relayed_out, 1);
            let slot = self.arena.get_mut(start..).unwrap_or_default();
            match self.relay.wrap(path, slot, len) {
                Wrapped::For(client, wrapped) => (path, len) = (client, wrapped),
                Wrapped::Elsewhere => return add(&self.counters.relayed_across, 1),
                Wrapped::Dropped => return add(&self.counters.send_dropped, 1),
            }
        }
        if path.protocol == NetProtocol::Tcp {
            return self.queue_on_stream(path, start, len);
        }
        if let Some(group) = self.groups.last_mut()
            && group.start + group.length == start
            && self.gso[group.socket]
            && group.takes(path, len)
        {
            group.length += len;
            group.count += 1;
            self.used += len;
            return;
        }
        let Some(socket) = self.sockets.iter().position(|socket| socket.serves(path.local)) else {
            add(&self.counters.send_dropped, 1);
            return;
        };
        self.used += len;
        self.groups.push(Group {
            path,
            socket,
            start,
            length: len,
            segment: len,
            count: 1,
        });
    }
}

/// The datagrams of one group, each as a message of its own.
fn send_split(scratch: &mut SendScratch, fd: BorrowedFd<'_>, arena: &[u8], group: Outgoing, counters: &IoCounters) {
    let segment = usize::from(group.segment.unwrap_or(u16::MAX)).max(1);
    let end = group.start + group.length;
    for start in (group.start..end).step_by(segment) {
        let single = Outgoing {
            start,
            length: segment.min(end - start),
            segment: None,
            ..group
        };
        match scratch.send(fd, arena, &[single]) {
            Ok(_) => count_sent(counters, &[single]),
            Err(_) => count_dropped(counters, &[single]),
        }
    }
}

fn outgoing(socket: &UdpSocket, group: &Group) -> Outgoing {
    Outgoing {
        to: group.path.remote,
        from: socket.source(group.path.local),
        start: group.start,
        length: group.length,
        segment: (group.count > 1).then_some(group.segment as u16),
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// EIO: no checksum offload in the device. The others: segments larger than this path's MTU, which concern this
/// destination only and must not change anything for the others.
fn refuses_group(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)
    )
}

fn datagrams(message: &Outgoing) -> u64 {
    match message.segment {
        Some(segment) => message.length.div_ceil(usize::from(segment).max(1)) as u64,
        None => 1,
    }
}

fn count_sent(counters: &IoCounters, messages: &[Outgoing]) {
    add(&counters.messages_sent, messages.len() as u64);
    add(&counters.datagrams_sent, messages.iter().map(datagrams).sum());
    let grouped = messages.iter().filter(|message| message.segment.is_some());
    add(&counters.datagrams_grouped, grouped.map(datagrams).sum());
    add(
        &counters.bytes_sent,
        messages.iter().map(|message| message.length as u64).sum(),
    );
}

fn count_dropped(counters: &IoCounters, messages: &[Outgoing]) {
    add(&counters.send_dropped, messages.iter().map(datagrams).sum());
}
