//! One session with what its client may have missed, and one socket.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Phase;
use crate::voice::effect::Frame;
use crate::voice::ids::{SocketId, UnixMillis, UserId};

/// Dispatches kept for a client that comes back; a client that missed more asks for everything anew.
pub(super) const MAX_REPLAY: usize = 256;
/// Bytes of them. Most are shared with everybody who got the same.
const MAX_REPLAY_BYTES: usize = 256 << 10;

/// Frames of one client in `WINDOW`.
const MAX_FRAMES: u32 = 120;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Sent {
    sequence: u64,
    event: &'static str,
    data: Arc<str>,
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub user: UserId,
    pub socket: Option<SocketId>,
    /// Since when there is no socket, where there is none.
    pub detached_at: UnixMillis,
    pub created_at: UnixMillis,
    /// Of the last dispatch.
    pub sequence: u64,
    /// Its name in the journal.
    pub number: u64,
    /// Another process has begun it, and this is the last dispatch of that one which is known. A client that has seen a
    /// later one has seen what nobody knows of any more. None since it has resumed here.
    pub known_until: Option<u64>,
    pub ignored: BTreeSet<String>,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
}

impl Session {
    pub fn new(now: UnixMillis, user: UserId, socket: SocketId, ignored: BTreeSet<String>) -> Self {
        Self {
            user,
            socket: Some(socket),
            detached_at: now,
            created_at: now,
            sequence: 0,
            number: 0,
            known_until: None,
            ignored,
            sent: VecDeque::new(),
            sent_bytes: 0,
        }
    }

    /// Of another process: its last dispatches are `sent`, up to `sequence`.
    pub fn taken_over(
        now: UnixMillis,
        (user, created_at): (UserId, UnixMillis),
        ignored: BTreeSet<String>,
        sequence: u64,
        sent: impl ExactSizeIterator<Item = (&'static str, Arc<str>)>,
    ) -> Option<Self> {
        let mut session = Self {
            user,
            socket: None,
            detached_at: now,
            created_at,
            // READY was the first.
            sequence: sequence
                .checked_sub(u64::try_from(sent.len()).ok()?)
                .filter(|ready| *ready > 0)?,
            number: 0,
            known_until: None,
            ignored: BTreeSet::new(),
            sent: VecDeque::new(),
            sent_bytes: 0,
        };
        for (event, data) in sent {
            session.dispatch(event, data);
        }
        session.ignored = ignored;
        session.known_until = Some(session.sequence);
        Some(session)
    }

    pub fn ignores(&self, event: &str) -> bool {
        self.ignored.contains(event)
    }

    /// What comes first. Not remembered: a client that has not got it does not know the session's name, and it is the
    /// longest there is.
    pub fn begin(&mut self, event: &'static str, data: Arc<str>) -> Option<(SocketId, Frame)> {
        self.sequence += 1;
        let sequence = self.sequence;
        let frame = Frame::Dispatch { event, sequence, data };
        self.socket.map(|socket| (socket, frame))
    }

    /// Remembers it; where to send it now, if anywhere.
    pub fn dispatch(&mut self, event: &'static str, data: Arc<str>) -> Option<(SocketId, Frame)> {
        if self.ignores(event) {
            return None;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        self.sent_bytes += data.len();
        let sent = Sent {
            sequence,
            event,
            data: data.clone(),
        };
        // Before it is full: a list that is one longer takes twice the memory.
        while self.sent.len() >= MAX_REPLAY || self.sent_bytes > MAX_REPLAY_BYTES {
            let Some(oldest) = self.sent.pop_front() else { break };
            self.sent_bytes -= oldest.data.len();
        }
        self.sent.push_back(sent);
        let frame = Frame::Dispatch { event, sequence, data };
        self.socket.map(|socket| (socket, frame))
    }

    /// What came after `sequence`; None: not all of it is known any more.
    pub fn since(&self, sequence: u64) -> Option<Vec<Frame>> {
        let missed: Vec<Frame> = self
            .sent
            .iter()
            .filter(|sent| sent.sequence > sequence)
            .map(|sent| Frame::Dispatch {
                event: sent.event,
                sequence: sent.sequence,
                data: sent.data.clone(),
            })
            .collect();
        let count = u64::try_from(missed.len()).unwrap_or(u64::MAX);
        (count == self.sequence.saturating_sub(sequence)).then_some(missed)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Socket {
    pub phase: Phase,
    pub opened_at: UnixMillis,
    /// The last sign of life.
    pub heard_at: UnixMillis,
    /// Since when one is waited for.
    pub asked_at: Option<UnixMillis>,
    window: UnixMillis,
    frames: u32,
}

impl Socket {
    pub fn new(now: UnixMillis) -> Self {
        Self {
            phase: Phase::Fresh,
            opened_at: now,
            heard_at: now,
            asked_at: None,
            window: now,
            frames: 0,
        }
    }

    /// Counts a frame; false: too many.
    pub fn count(&mut self, now: UnixMillis) -> bool {
        if now >= self.window.after(WINDOW) {
            (self.window, self.frames) = (now, 0);
        }
        self.frames += 1;
        self.frames <= MAX_FRAMES
    }
}
