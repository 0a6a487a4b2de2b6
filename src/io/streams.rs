//! The TCP connections of one shard thread: media in RFC 4571 frames, and TURN, with or without TLS.
//!
//! Owns their descriptors and bounded queues. What comes in is cut into frames and handed on; what goes out is taken whole
//! or dropped, never waited for: the kernel is given only what the network takes (TCP_NOTSENT_LOWAT), so that what is too
//! much stands in the queue here, where video makes way for everything else.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustls::ServerConnection;

use super::sys::{self, Epoll};
use crate::types::{MAX_DATAGRAM, NetPath, NetProtocol};
use crate::{rtc, turn};

/// Connections of one shard: more than participants that it can serve.
const MAX_STREAMS: usize = 16_384;
/// Large media packets are taken up to here: half a second of a 1 Mbit/s link. Congestion control must see the queue, and a
/// picture that waits longer is of no use.
const SOFT_LIMIT: usize = 64 << 10;
/// … and while nothing stands in the queue for longer than this: with what the kernel and the network hold, half a second.
const MAX_WAIT: Duration = Duration::from_millis(250);
/// How exactly the age of the queue is known.
const MARK_EVERY: Duration = Duration::from_millis(10);
/// Everything else is: audio, RTCP, handshakes, data. Beyond, the client reads nothing at all.
const HARD_LIMIT: usize = 256 << 10;
/// RTP packets longer than this are video: audio of 20 ms is at most some 300 bytes.
const LARGE_PACKET: usize = 400;
/// Bytes the kernel may hold that the network has not taken.
const NOT_SENT: i32 = 16 << 10;
/// Bytes the kernel may hold in all, sent and not acknowledged with them: what a link of 5 Mbit/s has under way in 200 ms. It
/// would let them grow to megabytes, which is seconds of a slow link (it doubles the number, for its own bookkeeping).
const SEND_BUFFER: i32 = 128 << 10;
/// Plain bytes given to TLS at a time: one record. What it has made of them leaves first.
const TLS_RECORD: usize = 16 << 10;
/// Bytes read from one connection in one turn.
const READ: usize = 64 << 10;
/// A connection must be of use within this time: carry a checked ICE path, or an allocation.
const GRACE: Duration = Duration::from_secs(10);
/// How often useless ones are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Tokens of connections in the epoll, above those of sockets.
const TOKENS: u64 = 1 << 32;

/// How a stream is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// RFC 4571: ICE-TCP.
    Media,
    /// STUN and ChannelData.
    Turn,
}

/// An accepted connection that has shown what it is, on its way to a shard.
#[derive(Debug)]
pub struct AdoptedStream {
    pub socket: TcpStream,
    pub tls: Option<Box<ServerConnection>>,
    pub framing: Framing,
    /// Read before, decrypted: the beginning of what the client has said.
    pub received: Vec<u8>,
}

struct Stream {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
    framing: Framing,
    path: NetPath,
    opened: Instant,
    /// Less than one frame, between turns.
    input: Vec<u8>,
    /// Plain; sent up to `sent`.
    output: Vec<u8>,
    sent: usize,
    /// Bytes ever queued.
    queued: u64,
    /// Of what waits, oldest first: all that was queued up to a byte was there at that time. As many as `MAX_WAIT` has room
    /// for; with more the queue is late, and stays as it is.
    marks: VecDeque<(u64, Instant)>,
    is_late: bool,
    is_readable: bool,
    /// The kernel takes no more; epoll says when.
    is_blocked: bool,
    /// Epoll was asked to say so.
    is_watched: bool,
    is_dirty: bool,
}

/// Why a connection was not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAdopted {
    #[error("there are too many")]
    Full,
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Default)]
pub(super) struct Streams {
    places: Vec<Option<Box<Stream>>>,
    by_path: HashMap<NetPath, usize>,
    /// Places of connections with something to read, and with something to write.
    readable: Vec<usize>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    next_sweep: Option<Instant>,
    /// Paths of those that have ended, for whoever keeps something by them.
    ended: Vec<NetPath>,
}

impl Streams {
    /// Takes over a connection. What it has sent already is there to be read.
    pub(super) fn adopt(&mut self, now: Instant, epoll: &Epoll, adopted: AdoptedStream) -> Result<(), NotAdopted> {
        if self.by_path.len() >= MAX_STREAMS {
            return Err(NotAdopted::Full);
        }
        let AdoptedStream {
            socket,
            tls,
            framing,
            received,
        } = adopted;
        let prepare = || {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            // A kernel without it keeps up to its send buffer, and delay grows with it.
            let _ = sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, NOT_SENT);
            let _ = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER);
            Ok(NetPath {
                local: plain(socket.local_addr()?),
                remote: plain(socket.peer_addr()?),
                protocol: NetProtocol::Tcp,
            })
        };
        let path = prepare().map_err(NotAdopted::Io)?;
        let place = match self.places.iter().position(Option::is_none) {
            Some(place) => place,
            None => {
                self.places.push(None);
                self.places.len() - 1
            }
        };
        epoll
            .add(socket.as_fd(), TOKENS + place as u64)
            .map_err(NotAdopted::Io)?;
        self.places[place] = Some(Box::new(Stream {
            socket,
            tls,
            framing,
            path,
            opened: now,
            input: received,
            output: Vec::new(),
            sent: 0,
            queued: 0,
            marks: VecDeque::new(),
            is_late: false,
            is_readable: false,
            is_blocked: false,
            is_watched: false,
            is_dirty: false,
        }));
        self.by_path.insert(path, place);
        self.next_sweep.get_or_insert(now + SWEEP);
        self.mark_ready(TOKENS + place as u64);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// The epoll's word that a connection can be read or written. False for another's token.
    pub(super) fn mark_ready(&mut self, token: u64) -> bool {
        let Some(place) = token.checked_sub(TOKENS).and_then(|place| usize::try_from(place).ok()) else {
            return false;
        };
        let Some(Some(stream)) = self.places.get_mut(place) else {
            return place < self.places.len();
        };
        if !std::mem::replace(&mut stream.is_readable, true) {
            self.readable.push(place);
        }
        if stream.is_blocked {
            stream.is_blocked = false;
            mark(&mut self.dirty, stream, place);
        }
        true
    }

    pub(super) fn has_readable(&self) -> bool {
        !self.readable.is_empty()
    }

    /// Reads what is there of every ready connection, at most `READ` bytes each, and hands out whole messages: with RFC
    /// 4571 without their length. `handle` says whether the connection may go on.
    pub(super) fn read(&mut self, mut handle: impl FnMut(NetPath, Framing, &mut [u8]) -> bool) {
        self.buffer.resize(READ, 0);
        for place in std::mem::take(&mut self.readable) {
            let Some(Some(stream)) = self.places.get_mut(place) else {
                continue;
            };
            stream.is_readable = false;
            let goes_on = stream.receive(&mut self.buffer) && stream.frames(&mut handle);
            if stream.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
                mark(&mut self.dirty, stream, place);
            }
            if !goes_on {
                self.end(place);
            }
        }
    }

    /// Queues one datagram for the client behind `path`. False: there is no such connection, or no room.
    pub(super) fn send(&mut self, path: NetPath, datagram: &[u8]) -> bool {
        let Some((place, stream)) = self
            .by_path
            .get(&path)
            .and_then(|place| Some((*place, self.places.get_mut(*place)?.as_mut()?)))
        else {
            return false;
        };
        let is_video = datagram.len() > LARGE_PACKET && !matches!(datagram.first(), Some(0..=63));
        let limit = if is_video { SOFT_LIMIT } else { HARD_LIMIT };
        if stream.waiting() + datagram.len() > limit || (is_video && stream.is_late) {
            return false;
        }
        let before = stream.output.len();
        if stream.framing == Framing::Media {
            let length = datagram.len().min(MAX_DATAGRAM) as u16;
            stream.output.extend_from_slice(&length.to_be_bytes());
        }
        stream.output.extend_from_slice(datagram);
        stream.queued += (stream.output.len() - before) as u64;
        mark(&mut self.dirty, stream, place);
        true
    }

    /// Bytes that wait for the network, of one connection.
    #[cfg(test)]
    pub(super) fn waiting(&self, path: NetPath) -> usize {
        let place = self
            .by_path
            .get(&path)
            .and_then(|place| self.places.get(*place)?.as_ref());
        place.map_or(0, |stream| stream.waiting())
    }

    /// Gives the kernel what it takes.
    pub(super) fn flush(&mut self, now: Instant, epoll: &Epoll) {
        for place in std::mem::take(&mut self.dirty) {
            let Some(Some(stream)) = self.places.get_mut(place) else {
                continue;
            };
            stream.is_dirty = false;
            if stream.is_blocked {
                stream.note_age(now);
                continue;
            }
            let written = stream.write();
            match written {
                Ok(done) => {
                    stream.note_age(now);
                    stream.is_blocked = !done;
                    // Level-triggered: to be asked for only while there is something to write.
                    if std::mem::replace(&mut stream.is_watched, !done) == done {
                        let _ = epoll.watch(stream.socket.as_fd(), TOKENS + place as u64, !done);
                    }
                }
                Err(_) => self.end(place),
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Closes the connections that lead nowhere.
    pub(super) fn handle_timeout(&mut self, now: Instant, mut is_useful: impl FnMut(NetPath, Framing) -> bool) {
        if self.next_sweep.is_none_or(|due| now < due) {
            return;
        }
        for place in 0..self.places.len() {
            if let Some(Some(stream)) = self.places.get(place)
                && now.saturating_duration_since(stream.opened) >= GRACE
                && !is_useful(stream.path, stream.framing)
            {
                self.end(place);
            }
        }
        self.next_sweep = (!self.is_empty()).then_some(now + SWEEP);
    }

    /// Those that have ended since it was asked last.
    pub(super) fn take_ended(&mut self) -> Vec<NetPath> {
        std::mem::take(&mut self.ended)
    }

    fn end(&mut self, place: usize) {
        // Dropping the descriptor takes it out of the epoll.
        if let Some(stream) = self.places.get_mut(place).and_then(Option::take) {
            self.by_path.remove(&stream.path);
            self.ended.push(stream.path);
        }
    }
}

fn mark(dirty: &mut Vec<usize>, stream: &mut Stream, place: usize) {
    if !std::mem::replace(&mut stream.is_dirty, true) {
        dirty.push(place);
    }
}

impl Stream {
    /// Bytes that the kernel has not been given.
    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether the oldest of what waits has waited for too long.
    fn note_age(&mut self, now: Instant) {
        let taken = self.queued - self.waiting() as u64;
        while self.marks.front().is_some_and(|(end, _)| *end <= taken) {
            self.marks.pop_front();
        }
        let passed = |since: Instant| now.saturating_duration_since(since);
        self.is_late = self.marks.front().is_some_and(|(_, since)| passed(*since) > MAX_WAIT);
        let is_new = self
            .marks
            .back()
            .is_none_or(|(end, since)| *end < self.queued && passed(*since) >= MARK_EVERY);
        if !self.is_late && self.waiting() > 0 && is_new {
            self.marks.push_back((self.queued, now));
        }
    }

    /// One read. False when the peer is done or the connection broken.
    fn receive(&mut self, buffer: &mut [u8]) -> bool {
        let count = match self.socket.read(buffer) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) if is_retriable(&error) => 0,
            Err(_) => return false,
        };
        let mut bytes = buffer.get(..count).unwrap_or_default();
        let Some(tls) = &mut self.tls else {
            self.input.extend_from_slice(bytes);
            return true;
        };
        loop {
            let before = bytes.len();
            while !bytes.is_empty() {
                match tls.read_tls(&mut bytes) {
                    Ok(0) => break,
                    Ok(_) => {}
                    // Its buffer is full: it must be read first.
                    Err(_) => break,
                }
            }
            let Ok(state) = tls.process_new_packets() else {
                return false;
            };
            let plain = state.plaintext_bytes_to_read();
            if plain > 0 {
                let start = self.input.len();
                self.input.resize(start + plain, 0);
                let Some(target) = self.input.get_mut(start..) else {
                    return false;
                };
                if tls.reader().read_exact(target).is_err() {
                    return false;
                }
            }
            if state.peer_has_closed() {
                return false;
            }
            if bytes.is_empty() {
                return true;
            }
            if bytes.len() == before {
                return false; // nothing is taken any more
            }
        }
    }

    fn frames(&mut self, handle: &mut impl FnMut(NetPath, Framing, &mut [u8]) -> bool) -> bool {
        let mut start = 0;
        let mut goes_on = true;
        while goes_on {
            let rest = self.input.get(start..).unwrap_or_default();
            let (length, header) = match self.framing {
                Framing::Media => (rtc::frame_length(rest).map_err(|_| ()), rtc::FRAME_HEADER),
                Framing::Turn => (turn::frame_length(rest).map_err(|_| ()), 0),
            };
            let Ok(length) = length else {
                return false;
            };
            let Some(frame) = length.and_then(|length| self.input.get_mut(start..start + length)) else {
                break;
            };
            start += frame.len();
            if let Some(message) = frame.get_mut(header..).filter(|message| !message.is_empty()) {
                goes_on = handle(self.path, self.framing, message);
            }
        }
        self.input.drain(..start);
        goes_on
    }

    /// True when everything has been taken.
    fn write(&mut self) -> io::Result<bool> {
        loop {
            if let Some(tls) = &mut self.tls {
                while tls.wants_write() {
                    match tls.write_tls(&mut self.socket) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(_) => {}
                        Err(error) if is_retriable(&error) => return Ok(false),
                        Err(error) => return Err(error),
                    }
                }
            }
            let rest = self.output.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.sent = 0;
                // What a slow moment took is given back.
                match self.output.capacity() > SOFT_LIMIT {
                    true => self.output = Vec::new(),
                    false => self.output.clear(),
                }
                return Ok(true);
            }
            let taken = match &mut self.tls {
                Some(tls) => tls.writer().write(rest.get(..TLS_RECORD).unwrap_or(rest)),
                None => self.socket.write(rest),
            };
            match taken {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.sent += taken,
                Err(error) if is_retriable(&error) => {
                    self.output.drain(..self.sent);
                    self.sent = 0;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_retriable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
