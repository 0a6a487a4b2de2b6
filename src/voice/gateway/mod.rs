//! Gateway sessions: who listens, what they missed, and whether they still live.
//!
//! Owns sockets and sessions. A session outlives its socket for a while, with what was sent since, so that a client that
//! comes back misses nothing. Driven by `handle_socket_…` and `handle_frame`; what clients are told comes from the rest
//! of the domain through `dispatch`.

mod frames;
mod journal;
mod kept;
mod ready;
mod session;
mod takeover;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::domain::{Timer, Voice};
use super::effect::{CloseCode, Effect, Frame};
use super::error::VoiceError;
use super::ids::{SessionId, SocketId, UnixMillis, UserId};
use frames::Identify;
use journal::Journal;
use session::{Session, Socket};

pub use frames::MAX_FRAME;
pub use journal::{SessionBatch, StoredSessions};
pub use takeover::TakenOver;

/// Sessions of one process, those that wait for their client among them. Further ones are told to come again later.
const MAX_SESSIONS: usize = 100_000;
/// Sessions of one user; the oldest ends when there are more.
const MAX_SESSIONS_OF_USER: usize = 25;
/// A client that was asked for a sign of life has this long to answer; one that has said nothing yet too.
const ANSWER: Duration = Duration::from_secs(45);

#[derive(Clone, Debug)]
pub struct Gateway {
    sockets: HashMap<SocketId, Socket>,
    sessions: HashMap<SessionId, Session>,
    by_user: HashMap<UserId, BTreeSet<SessionId>>,
    heartbeat_interval: Duration,
    resume_window: Duration,
    /// Where other processes may go on with the sessions.
    journal: Option<Journal>,
}

/// What a token that is being checked is for.
#[derive(Clone, Debug)]
enum Intent {
    Identify(Identify),
    Resume { session: SessionId, sequence: u64 },
}

#[derive(Clone, Debug)]
enum Phase {
    Fresh,
    Authenticating(Intent),
    Ready(SessionId),
}

impl Gateway {
    pub fn new(heartbeat_interval: Duration, resume_window: Duration) -> Self {
        Self {
            sockets: HashMap::new(),
            sessions: HashMap::new(),
            by_user: HashMap::new(),
            heartbeat_interval,
            resume_window,
            journal: None,
        }
    }

    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn users(&self) -> impl Iterator<Item = (UserId, &BTreeSet<SessionId>)> {
        self.by_user.iter().map(|(user, sessions)| (*user, sessions))
    }

    pub(super) fn sessions_of(&self, user: UserId) -> Vec<SessionId> {
        self.by_user.get(&user).into_iter().flatten().cloned().collect()
    }

    /// The session that a user's HTTP request may speak for: one of theirs.
    pub fn is_session_of(&self, session: &SessionId, user: UserId) -> bool {
        self.sessions.get(session).is_some_and(|session| session.user == user)
    }
}

impl Voice {
    /// A client has connected and asked for `version` of the protocol.
    pub fn handle_socket_opened(&mut self, now: UnixMillis, socket: SocketId, version: Option<&str>) {
        if version.is_some_and(|version| version != "1") || version.is_none() {
            return self.emit(Effect::Close {
                socket,
                code: CloseCode::InvalidApiVersion,
            });
        }
        self.gateway.sockets.insert(socket, Socket::new(now));
        let interval = self.gateway.heartbeat_interval;
        let heartbeat_interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        self.send(socket, Frame::Hello { heartbeat_interval });
        self.at(now.after(ANSWER), Timer::Socket(socket));
    }

    /// It is closed, by whomever. What was sent to it since it was closed may be lost; its session knows.
    pub fn handle_socket_closed(&mut self, now: UnixMillis, socket: SocketId) {
        let Some(closed) = self.gateway.sockets.remove(&socket) else {
            return;
        };
        let Phase::Ready(id) = closed.phase else { return };
        let window = self.gateway.resume_window;
        if let Some(session) = self
            .gateway
            .sessions
            .get_mut(&id)
            .filter(|session| session.socket == Some(socket))
        {
            session.socket = None;
            session.detached_at = now;
            self.at(now.after(window), Timer::Session(id));
        }
    }

    /// The answer to `Effect::Authenticate`; None: the token is not good.
    pub fn handle_authenticated(&mut self, now: UnixMillis, socket: SocketId, user: Option<UserId>) {
        let Some(found) = self.gateway.sockets.get_mut(&socket) else {
            return;
        };
        let Phase::Authenticating(intent) = std::mem::replace(&mut found.phase, Phase::Fresh) else {
            return;
        };
        let Some(user) = user else {
            return self.close(now, socket, CloseCode::AuthenticationFailed);
        };
        match intent {
            Intent::Identify(identify) => self.identified(now, socket, user, identify),
            Intent::Resume { session, sequence } => self.resumed(now, socket, user, &session, sequence),
        }
    }

    fn identified(&mut self, now: UnixMillis, socket: SocketId, user: UserId, identify: Identify) {
        if self.gateway.sessions.len() >= MAX_SESSIONS {
            return self.send(socket, Frame::InvalidSession { resumable: false });
        }
        let of_user = self.gateway.sessions_of(user);
        if of_user.len() >= MAX_SESSIONS_OF_USER {
            let oldest = of_user
                .iter()
                .min_by_key(|id| self.gateway.sessions.get(id).map(|session| session.created_at));
            if let Some(oldest) = oldest.cloned() {
                if let Some(socket) = self.gateway.sessions.get(&oldest).and_then(|session| session.socket) {
                    self.close(now, socket, CloseCode::SessionTimedOut);
                }
                self.end_session(now, &oldest);
            }
        }
        let id = self.new_session_id();
        let ready = self.ready(user, &id);
        let mut session = Session::new(now, user, socket, identify.ignored_events);
        if let Some(journal) = &mut self.gateway.journal {
            session.number = journal.begun(&id);
        }
        let ready = session.begin("READY", Arc::from(ready.to_string()));
        self.gateway.sessions.insert(id.clone(), session);
        self.gateway.by_user.entry(user).or_default().insert(id.clone());
        if let Some(socket) = self.gateway.sockets.get_mut(&socket) {
            socket.phase = Phase::Ready(id.clone());
        }
        self.at(now, Timer::Socket(socket));
        if let Some((socket, frame)) = ready {
            self.send(socket, frame);
        }
        let conversations: Vec<_> = self
            .directory
            .conversations_of(user)
            .map(|channel| channel.id)
            .collect();
        for channel in conversations {
            if let Some(call) = self.call_json(channel) {
                self.dispatch(now, id.clone(), "CALL_CREATE", Arc::from(call.to_string()));
            }
        }
    }

    fn resumed(&mut self, now: UnixMillis, socket: SocketId, user: UserId, id: &SessionId, sequence: u64) {
        let session = self.gateway.sessions.get_mut(id).filter(|session| session.user == user);
        let Some(session) = session else {
            return self.send(socket, Frame::InvalidSession { resumable: false });
        };
        if session.known_until.is_some_and(|known| sequence > known) {
            // Later ones of here have the same numbers as those that it has seen.
            self.forget_session(id);
            return self.send(socket, Frame::InvalidSession { resumable: false });
        }
        if sequence > session.sequence {
            return self.close(now, socket, CloseCode::InvalidSequence);
        }
        let Some(missed) = session.since(sequence) else {
            return self.send(socket, Frame::InvalidSession { resumable: false });
        };
        session.known_until = None;
        let before = session.socket.replace(socket);
        let last = session.sequence;
        if let Some(before) = before {
            self.gateway.sockets.remove(&before);
            self.emit(Effect::Close {
                socket: before,
                code: CloseCode::Replaced,
            });
        }
        if let Some(found) = self.gateway.sockets.get_mut(&socket) {
            found.phase = Phase::Ready(id.clone());
        }
        self.at(now, Timer::Socket(socket));
        for frame in missed {
            self.send(socket, frame);
        }
        let (event, data) = ("RESUMED", Arc::from("null"));
        self.send(
            socket,
            Frame::Dispatch {
                event,
                sequence: last,
                data,
            },
        );
    }

    /// To one session, now or when its client comes back.
    pub(super) fn dispatch(&mut self, now: UnixMillis, id: SessionId, event: &'static str, data: Arc<str>) {
        let _ = now;
        let Some(session) = self.gateway.sessions.get_mut(&id) else {
            return;
        };
        if session.ignores(event) {
            return;
        }
        if let Some(journal) = &mut self.gateway.journal {
            journal.told(session.number, event, &data);
        }
        if let Some((socket, frame)) = session.dispatch(event, data) {
            self.send(socket, frame);
        }
    }

    /// Asks every client to come again, because this process ends.
    pub fn ask_to_reconnect(&mut self) {
        let sockets: Vec<SocketId> = self.gateway.sockets.keys().copied().collect();
        for socket in sockets {
            self.send(socket, Frame::Reconnect);
        }
    }

    fn send(&mut self, socket: SocketId, frame: Frame) {
        self.emit(Effect::Frame { socket, frame });
    }

    fn refuse(&mut self, socket: SocketId, error: VoiceError) {
        let (code, message) = error.gateway();
        self.send(socket, Frame::Error { code, message });
    }

    fn close(&mut self, now: UnixMillis, socket: SocketId, code: CloseCode) {
        self.emit(Effect::Close { socket, code });
        self.handle_socket_closed(now, socket);
    }

    pub(super) fn socket_due(&mut self, now: UnixMillis, id: SocketId) {
        let quiet = self.gateway.heartbeat_interval.mul_f64(0.9);
        let Some(socket) = self.gateway.sockets.get_mut(&id) else {
            return;
        };
        let silent_since = match (&socket.phase, socket.asked_at) {
            (Phase::Ready(_), None) => {
                let due = socket.heard_at.after(quiet);
                if due > now {
                    return self.at(due, Timer::Socket(id));
                }
                socket.asked_at = Some(now);
                self.send(id, Frame::HeartbeatRequest);
                return self.at(now.after(ANSWER), Timer::Socket(id));
            }
            (Phase::Ready(_), Some(asked)) => asked,
            // Whoever has not said who they are is not asked.
            (Phase::Fresh | Phase::Authenticating(_), _) => socket.opened_at,
        };
        match silent_since.after(ANSWER) {
            due if due > now => self.at(due, Timer::Socket(id)),
            _ => self.close(now, id, CloseCode::SessionTimedOut),
        }
    }

    pub(super) fn session_due(&mut self, now: UnixMillis, id: &SessionId) {
        let window = self.gateway.resume_window;
        let over = |session: &Session| session.socket.is_none() && now >= session.detached_at.after(window);
        if self.gateway.sessions.get(id).is_some_and(over) {
            self.end_session(now, id);
        }
    }

    fn drop_session(&mut self, id: &SessionId) -> Option<Session> {
        let session = self.gateway.sessions.remove(id)?;
        if let Some(journal) = &mut self.gateway.journal {
            journal.ended(session.number);
        }
        if let Some(sessions) = self.gateway.by_user.get_mut(&session.user) {
            sessions.remove(id);
            if sessions.is_empty() {
                self.gateway.by_user.remove(&session.user);
            }
        }
        Some(session)
    }

    /// Nobody will come back to it: its joins that are still expected are off, and its part in calls ends. In a guild's
    /// channel the room says who is there.
    fn end_session(&mut self, now: UnixMillis, id: &SessionId) {
        let Some(session) = self.drop_session(id) else { return };
        let of_it = self.ids_of(session.user, |_| true);
        for connection in of_it {
            let in_call = self
                .states
                .find(&connection)
                .is_some_and(|connection| connection.session.as_ref() == Some(id) && connection.room.guild().is_none());
            let expected = self
                .states
                .pending(&connection)
                .is_some_and(|pending| pending.connection.session.as_ref() == Some(id));
            if in_call {
                self.expel(now, &connection);
            } else if expected {
                self.withdraw(now, &connection);
            }
        }
    }
}
