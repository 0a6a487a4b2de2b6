//! The task that owns the domain.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::https::Https;
use super::lanes::{Lanes, seen};
use super::sharing::{Sharing, Stored};
use super::statistics::{Told, VoiceCounts, VoiceStatistics};
use super::tokens::Jwt;
use super::users::{UserTokens, Who};
use super::{Input, ToSocket, VoiceLink};
use crate::control::RoomEvent;
use crate::node::{Happening, Node};
use crate::store::{StoreError, VoiceStore};
use crate::voice::{
    Change, CloseCode, Effect, Frame, Region, RoomKey, Server, ServerKey, SocketId, Table, UnixMillis, Voice,
    VoiceError, VoiceSettings,
};

/// Inputs handled before what they led to is carried out.
const INPUTS_PER_TURN: usize = 64;
/// Between two tries to write what could not be written.
const RETRY: Duration = Duration::from_secs(1);

/// What the voice system is told once, at start.
#[derive(Clone, Debug, Default)]
pub struct VoiceConfig {
    pub settings: VoiceSettings,
    /// Made where there are no regions yet, or changed to what they say.
    pub regions: Vec<Region>,
    pub servers: Vec<Server>,
    pub statistics: Arc<VoiceStatistics>,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("voice database: {0}")]
    Store(#[from] StoreError),
    #[error("voice region or server {id}: {}", .error.http().2)]
    Record { id: String, error: VoiceError },
}

/// The running system.
#[derive(Debug)]
pub struct VoiceTask {
    link: VoiceLink,
    task: JoinHandle<()>,
}

struct Task {
    voice: Voice,
    node: Node,
    users: UserTokens,
    lanes: Lanes,
    mailbox: mpsc::WeakSender<Input>,
    sockets: HashMap<SocketId, mpsc::Sender<ToSocket>>,
    /// Not written yet, the latest of each; as many as there are things to keep.
    unwritten: BTreeMap<(Table, String), Change>,
    writer: Writer,
    /// Where other nodes may go on with the sessions.
    sharing: Option<Sharing>,
    statistics: Arc<VoiceStatistics>,
    lost_events: Arc<AtomicU64>,
}

/// The store is with the task that writes, or here.
struct Writer {
    idle: Option<VoiceStore>,
    returned: mpsc::Receiver<(VoiceStore, Result<(), StoreError>, Vec<Change>)>,
    returns: mpsc::Sender<(VoiceStore, Result<(), StoreError>, Vec<Change>)>,
    not_before: Instant,
    /// The last write has failed, which was said.
    failing: bool,
    /// Whoever waits for the write under way, and for the next; each has a request open.
    covered: Vec<oneshot::Sender<bool>>,
    waiting: Vec<oneshot::Sender<bool>>,
}

impl VoiceLink {
    /// A way to the system before it runs: rooms need it first. What is sent waits.
    pub fn prepare() -> (Self, PreparedInbox) {
        let (link, inbox) = Self::new();
        (link, PreparedInbox(inbox))
    }
}

/// What will be handled when the system runs.
#[derive(Debug)]
pub struct PreparedInbox(mpsc::Receiver<Input>);

impl VoiceTask {
    /// Takes up what an earlier process kept.
    ///
    /// # Errors
    /// The database cannot be read, or the configuration's regions are not acceptable.
    pub async fn start(
        config: VoiceConfig,
        node: Node,
        mut store: VoiceStore,
        users: UserTokens,
        link: VoiceLink,
        inbox: PreparedInbox,
    ) -> Result<Self, StartError> {
        let https = Https::default();
        let kept = store.load().await?;
        let now = unix(&node);
        let mut voice = Voice::new(now, config.settings, Box::new(Jwt(node.clone())), rand::rng().random());
        let unreadable = voice.restore(now, kept);
        if unreadable > 0 {
            tracing::warn!(
                unreadable,
                "records of the voice system cannot be read and are left out"
            );
        }
        for region in config.regions {
            let id = region.id.clone();
            voice
                .put_region(region)
                .map_err(|error| StartError::Record { id, error })?;
        }
        for server in config.servers {
            let id = server.server_id.clone();
            voice
                .put_server(now, server)
                .map_err(|error| StartError::Record { id, error })?;
        }
        let sharing = match store.take_sessions() {
            Some(sessions) => Some(Sharing::start(sessions, &mut voice, now, Arc::clone(&config.statistics)).await),
            None => None,
        };
        let (returns, returned) = mpsc::channel(1);
        let mailbox = link.mailbox.downgrade();
        let task = Task {
            voice,
            lanes: Lanes::new(node.clone(), https, mailbox.clone()),
            node,
            users,
            mailbox,
            sockets: HashMap::new(),
            unwritten: BTreeMap::new(),
            writer: Writer {
                idle: Some(store),
                returned,
                returns,
                not_before: Instant::now(),
                failing: false,
                covered: Vec::new(),
                waiting: Vec::new(),
            },
            sharing,
            statistics: config.statistics,
            lost_events: Arc::clone(&link.lost_events),
        };
        let task = tokio::spawn(task.run(inbox.0));
        Ok(Self { link, task })
    }

    pub fn link(&self) -> &VoiceLink {
        &self.link
    }

    /// Ends at once, and writes nothing.
    pub async fn abandon(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Clients are asked to come again; what is to be kept is written down.
    pub async fn stop(self) {
        self.link.stop().await;
        drop(self.link);
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        let mut inputs = Vec::with_capacity(INPUTS_PER_TURN);
        let mut stopping: Option<oneshot::Sender<()>> = None;
        loop {
            self.carry_out();
            self.write_down();
            self.share();
            self.statistics
                .look_at(&self.voice, self.lost_events.load(Ordering::Relaxed));
            if let Some(done) = stopping.take() {
                self.write_all().await;
                self.share_all().await;
                self.statistics.set(VoiceCounts::default());
                let _ = done.send(());
                return;
            }
            let due = self.voice.poll_timeout();
            let wait = due.map(|due| due.since(unix(&self.node)));
            let timeout = async {
                match wait {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let retry = self.writer.not_before.saturating_duration_since(Instant::now());
            let waits_to_write = self.writer.idle.is_some() && !self.unwritten.is_empty();
            tokio::select! {
                count = inbox.recv_many(&mut inputs, INPUTS_PER_TURN) => if count == 0 {
                    return;
                },
                Some((store, outcome, changes)) = self.writer.returned.recv() => self.written(store, outcome, changes),
                outcome = Sharing::outcome(&mut self.sharing) => self.shared(outcome),
                () = timeout => {}
                () = sleep(retry), if waits_to_write => {}
            }
            let now = unix(&self.node);
            for input in inputs.drain(..) {
                match input {
                    Input::Stop(done) => {
                        self.voice.ask_to_reconnect();
                        stopping = Some(done);
                    }
                    input => self.handle(now, input),
                }
            }
            if self.voice.poll_timeout().is_some_and(|due| due <= now) {
                self.voice.handle_timeout(now);
            }
        }
    }

    fn handle(&mut self, now: UnixMillis, input: Input) {
        let voice = &mut self.voice;
        match input {
            Input::Question(question) => question(voice, now),
            Input::SocketOpened {
                socket,
                version,
                outbox,
            } => {
                self.sockets.insert(socket, outbox);
                voice.handle_socket_opened(now, socket, version.as_deref());
            }
            Input::Frame { socket, text } => voice.handle_frame(now, socket, &text),
            Input::Undecodable(socket) => voice.handle_undecodable(now, socket),
            Input::SocketClosed(socket) => {
                self.sockets.remove(&socket);
                voice.handle_socket_closed(now, socket);
            }
            Input::Authenticated { socket, who } => match who {
                Who::User(user) => voice.handle_authenticated(now, socket, Some(user)),
                Who::Nobody => voice.handle_authenticated(now, socket, None),
                // Nothing is known of the token: the client may try again.
                Who::Unknown => self.cut(now, socket, CloseCode::Unknown),
            },
            Input::Happened(happening) => self.happened(now, *happening),
            Input::Participants { server, room, seen } => voice.handle_participants(now, &server, &room, &seen),
            Input::Health { server, down } => voice.handle_server_health(now, &server, down),
            Input::Kept(done) if !self.unwritten.is_empty() => self.writer.waiting.push(done),
            Input::Kept(done) if self.writer.idle.is_none() => self.writer.covered.push(done),
            Input::Kept(done) => answer([done], true),
            Input::Stop(_) => {}
        }
        // What one input leads to comes before what the next does.
        self.carry_out();
    }

    fn happened(&mut self, now: UnixMillis, happening: Happening) {
        let room = happening.room.name;
        let Some(server) = self.local_server(&room) else { return };
        match happening.event {
            RoomEvent::ParticipantJoined { participant } => {
                self.voice
                    .handle_participant_joined(now, &server, &room, &seen(&participant));
            }
            RoomEvent::ParticipantLeft { participant } | RoomEvent::ParticipantConnectionAborted { participant } => {
                self.voice
                    .handle_participant_left(now, &server, &room, &seen(&participant));
            }
            RoomEvent::RoomFinished => self.voice.handle_room_finished(now, &server, &room),
            _ => {}
        }
    }

    /// This process may be several servers: the one that the room is pinned to, else the first.
    fn local_server(&self, room: &str) -> Option<ServerKey> {
        let topology = self.voice.topology();
        let is_local = |key: &ServerKey| topology.server(key).is_some_and(|server| server.local);
        let pin = RoomKey::parse(room).and_then(|room| self.voice.pins().find(room));
        let pinned = pin.map(|pin| pin.server.clone()).filter(is_local);
        pinned.or_else(|| topology.servers().find(|server| server.local).map(Server::key))
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.voice.poll_effect() {
            match effect {
                Effect::Authenticate { socket, token } => self.authenticate(socket, token),
                Effect::Frame { socket, frame } => self.tell(socket, ToSocket::Frame(frame)),
                Effect::Close { socket, code } => {
                    let (code, reason) = (code.number(), code.reason());
                    self.tell(socket, ToSocket::Close { code, reason });
                }
                Effect::Room { server, room, action } => {
                    if let Some(server) = self.voice.topology().server(&server).cloned() {
                        self.lanes.send(&server, room, action);
                    }
                }
                Effect::Keep(change) => {
                    self.unwritten.insert((change.table, change.id.clone()), change);
                }
            }
        }
    }

    fn authenticate(&self, socket: SocketId, token: String) {
        let (users, mailbox) = (self.users.clone(), self.mailbox.clone());
        tokio::spawn(async move {
            let who = users.who(&token).await;
            if let Some(mailbox) = mailbox.upgrade() {
                let _ = mailbox.send(Input::Authenticated { socket, who }).await;
            }
        });
    }

    fn tell(&mut self, socket: SocketId, what: ToSocket) {
        if let ToSocket::Frame(Frame::Error { code, .. }) = &what {
            self.statistics.refused(Told::Gateway, code);
        }
        match &mut self.sharing {
            // Nobody sees what is not stored.
            Some(sharing) if sharing.holds() => sharing.hold(socket, what),
            _ => self.deliver(socket, what),
        }
    }

    fn deliver(&mut self, socket: SocketId, what: ToSocket) {
        let Some(outbox) = self.sockets.get(&socket) else {
            return;
        };
        if matches!(what, ToSocket::Close { .. }) {
            let _ = outbox.try_send(what);
            self.sockets.remove(&socket);
            return;
        }
        if outbox.try_send(what).is_err() {
            // It does not read. Dropping the queue cuts it off; its session waits for another socket.
            self.statistics.cut();
            self.sockets.remove(&socket);
            self.voice.handle_socket_closed(unix(&self.node), socket);
        }
    }

    fn cut(&mut self, now: UnixMillis, socket: SocketId, code: CloseCode) {
        let (code, reason) = (code.number(), code.reason());
        self.tell(socket, ToSocket::Close { code, reason });
        self.voice.handle_socket_closed(now, socket);
    }

    /// Starts writing what has come together, if nothing is being written.
    fn write_down(&mut self) {
        if self.unwritten.is_empty() || Instant::now() < self.writer.not_before {
            return;
        }
        let Some(mut store) = self.writer.idle.take() else {
            return;
        };
        let changes: Vec<Change> = std::mem::take(&mut self.unwritten).into_values().collect();
        self.writer.covered.append(&mut self.writer.waiting);
        let returns = self.writer.returns.clone();
        tokio::spawn(async move {
            let outcome = store.write(changes.clone()).await;
            let _ = returns.send((store, outcome, changes)).await;
        });
    }

    fn written(&mut self, store: VoiceStore, outcome: Result<(), StoreError>, changes: Vec<Change>) {
        self.writer.idle = Some(store);
        self.voice.set_storage_down(outcome.is_err());
        answer(self.writer.covered.drain(..), outcome.is_ok());
        let was_failing = std::mem::replace(&mut self.writer.failing, outcome.is_err());
        let Err(error) = outcome else {
            if was_failing {
                tracing::info!("the voice database is written again");
            }
            return;
        };
        answer(self.writer.waiting.drain(..), false);
        if !was_failing {
            tracing::error!(%error, "the voice database cannot be written: nobody new is let in");
        }
        self.writer.not_before = Instant::now() + RETRY;
        for change in changes {
            // What has changed since is newer.
            self.unwritten
                .entry((change.table, change.id.clone()))
                .or_insert(change);
        }
    }

    /// Starts storing what other nodes need, if nothing is being stored; what need not wait for that goes out.
    fn share(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        for (socket, what) in sharing.store(&mut self.voice) {
            self.deliver(socket, what);
        }
    }

    fn shared(&mut self, outcome: Stored) {
        let Some(sharing) = &mut self.sharing else { return };
        for (socket, what) in sharing.stored(&mut self.voice, outcome) {
            self.deliver(socket, what);
        }
    }

    /// The last batch, and whatever waits for it.
    async fn share_all(&mut self) {
        // One that is under way, then the last.
        for _ in 0..2 {
            if self.sharing.as_ref().is_some_and(Sharing::is_storing) {
                let outcome = Sharing::outcome(&mut self.sharing).await;
                self.shared(outcome);
            }
            self.share();
        }
        if self.sharing.as_ref().is_some_and(Sharing::is_storing) {
            let outcome = Sharing::outcome(&mut self.sharing).await;
            self.shared(outcome);
        }
    }

    async fn write_all(&mut self) {
        if self.writer.idle.is_none()
            && let Some((store, outcome, changes)) = self.writer.returned.recv().await
        {
            self.written(store, outcome, changes);
        }
        if let Some(store) = &mut self.writer.idle
            && !self.unwritten.is_empty()
        {
            let changes = std::mem::take(&mut self.unwritten).into_values().collect();
            let outcome = store.write(changes).await;
            answer(self.writer.waiting.drain(..), outcome.is_ok());
            if let Err(error) = outcome {
                tracing::error!(%error, "the voice database cannot be written at the end");
            }
        }
    }
}

/// Whoever waits may have given up.
fn answer(waiting: impl IntoIterator<Item = oneshot::Sender<bool>>, kept: bool) {
    for done in waiting {
        let _ = done.send(kept);
    }
}

fn unix(node: &Node) -> UnixMillis {
    UnixMillis(u64::try_from(node.unix().as_millis()).unwrap_or(u64::MAX))
}
