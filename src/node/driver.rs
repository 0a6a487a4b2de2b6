//! The node: rooms by name, their placement on shards, and the way in for clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rand::RngExt;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use super::connection::{self, Connection, ToClient};
use super::counts::{Counts, NodeCounts, Tally};
use super::histogram::Histogram;
use super::journal::Entry;
use super::placement::{self, Seat, Shard, ShardLoad};
use super::registry::{LiveRoom, Registry};
use super::relay::Guests;
use super::room_task::{self, MAILBOX, RoomInput, Telling};
use super::voice::VoiceLink;
use super::workers::{Pool, PoolInput, WorkerConnection};
use crate::control::{
    ConnectionHandle, Join, JoinError, MediaAddresses, Room, RoomSettings, Signer, WorkerHandle, Workers,
    playout_delay, server_info,
};
use crate::io::ShardHandle;
use crate::media::edge::Event;
use crate::proto::claims::{ApiKeys, Claims};
use crate::proto::join_request::JoinParameters;
use crate::proto::livekit::RoomConfiguration;
use crate::proto::relay::IceServerSource;
use crate::proto::room_record::RoomRecord;
use crate::types::{
    ParticipantHandle, RoomHandle, RoomName, ShardIndex, SubscriptionHandle, TrackHandle, TransportHandle, WallClock,
};

/// How often a join that meets a closing room tries again with a new one.
const JOIN_ATTEMPTS: usize = 3;

/// How long the first message for a new connection may take. It comes with the join itself; only a node far behind is
/// this late. LiveKit waits 3 s at first.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long rooms get to say goodbye when the node stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// LiveKit's alphabet for ids: no 0, 1, I, O, l.
const ID_ALPHABET: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const ID_LENGTH: usize = 12;

/// Traffic is measured over this time at least.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(2);

/// What the node is told once, at start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Until `Node::replace_keys`.
    pub keys: ApiKeys,
    /// False: a room must be made (or its token must hold `roomCreate`) before anybody joins.
    pub auto_create: bool,
    /// What every room starts from; identity, fingerprint and addresses are filled in by the node.
    pub room: RoomSettings,
    /// `room.room_configurations`: what a token's `roomPreset` may name.
    pub presets: BTreeMap<String, RoomConfiguration>,
    /// Bytes; 0 = no limit.
    pub max_room_name_length: usize,
    /// Bytes of one signalling message; 0 = no limit.
    pub signal_message_size_limit: usize,
    /// The shard thread with the TURN server, if there is one.
    pub relay: Option<ShardHandle>,
    /// The load of a shard, 0.0..=1.0, from which on those who join a room of it are served by another; 0 = always.
    pub room_spill: f64,
    /// Bytes of one request of the server API; 0 = no limit.
    pub max_api_request_body_size: usize,
    /// Tracks in both directions from which on nobody new is let in; 0 = no limit.
    pub max_tracks: u64,
    /// Bytes a second in both directions from which on nobody new is let in; 0 = no limit.
    pub max_bytes_per_second: f64,
    /// Where rooms, and what happens in them, are written down; they wait while it is full. None: nothing is kept.
    pub journal: Option<mpsc::Sender<Entry>>,
    /// What is written down is there for the next process.
    pub durable: bool,
    /// The voice system, which hears of what happens in its rooms.
    pub voice: Option<VoiceLink>,
}

impl Default for NodeConfig {
    /// LiveKit's limits, and no keys.
    fn default() -> Self {
        Self {
            keys: ApiKeys::default(),
            auto_create: true,
            room: RoomSettings::default(),
            presets: BTreeMap::new(),
            max_room_name_length: 256,
            signal_message_size_limit: 2 << 20,
            relay: None,
            room_spill: 0.7,
            max_api_request_body_size: 10 << 20,
            max_tracks: 0,
            max_bytes_per_second: 0.0,
            journal: None,
            durable: false,
            voice: None,
        }
    }
}

/// One running shard and how its clients reach it.
#[derive(Debug)]
pub struct ShardLink {
    pub handle: ShardHandle,
    pub events: mpsc::Receiver<Event>,
    /// Best first.
    pub udp_candidates: Vec<SocketAddr>,
    /// Passive ICE-TCP.
    pub tcp_candidates: Vec<SocketAddr>,
}

/// Why a client did not get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinFailure {
    /// LiveKit: clients match this text.
    #[error("requested room does not exist")]
    NoSuchRoom,
    #[error("node has exceeded its configured limit")]
    NodeFull,
    /// It lets nobody begin anything; asked again, a load balancer names another node.
    #[error("node is shutting down")]
    Draining,
    #[error(transparent)]
    Refused(JoinError),
    #[error("timed out while waiting for signal response")]
    TimedOut,
    /// The room ended, or cut the connection, before its first message.
    #[error("connection closed by media")]
    Closed,
}

/// One process's rooms and shards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: NodeConfig,
    /// Read for every request, replaced when they have been read again.
    keys: RwLock<Arc<ApiKeys>>,
    shards: Arc<[Shard]>,
    /// Of rooms that are made from now on.
    ice_servers: RwLock<Vec<IceServerSource>>,
    registry: Arc<Registry>,
    counts: Arc<Counts>,
    traffic: Mutex<Traffic>,
    wall: WallClock,
    next_connection: AtomicU64,
    undecodable_frames: AtomicU64,
    draining: AtomicBool,
    pool: Pool,
}

impl Node {
    /// Takes over the running shards; must be called inside a tokio runtime. `shards` must not be empty.
    pub fn start(mut config: NodeConfig, shards: Vec<ShardLink>) -> Self {
        if config.room.node_id.is_empty() {
            config.room.node_id = new_id("ND_");
        }
        let registry = Arc::new(Registry::default());
        let mut next = ShardIndex(0);
        let shards: Arc<[Shard]> = shards
            .into_iter()
            .map(|link| {
                let index = next;
                next.0 += 1;
                tokio::spawn(deliver_events(index, link.events, Arc::clone(&registry)));
                Shard::new(link.handle, link.udp_candidates, link.tcp_candidates)
            })
            .collect();
        tokio::spawn(placement::watch(Arc::downgrade(&shards)));
        let unix = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let wall = WallClock::new(Instant::now(), unix);
        let workers = Workers::new(server_info(&config.room), wall, rand::rng().random());
        Self {
            inner: Arc::new(Inner {
                keys: RwLock::new(Arc::new(std::mem::take(&mut config.keys))),
                ice_servers: RwLock::new(std::mem::take(&mut config.room.ice_servers)),
                config,
                shards,
                pool: Pool::start(workers, Arc::clone(&registry)),
                registry,
                counts: Arc::default(),
                traffic: Mutex::new(Traffic {
                    since: Instant::now(),
                    bytes: 0,
                    per_second: 0.0,
                }),
                wall,
                next_connection: AtomicU64::new(1),
                undecodable_frames: AtomicU64::new(0),
                draining: AtomicBool::new(false),
            }),
        }
    }

    /// Its keys are those of `keys`.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    pub fn keys(&self) -> Arc<ApiKeys> {
        let keys = self.inner.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Tokens of a key that is gone are refused from now on; those who are in stay.
    pub fn replace_keys(&self, keys: ApiKeys) {
        *self.inner.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    pub fn counts(&self) -> NodeCounts {
        self.inner.counts.snapshot()
    }

    /// LiveKit's names of them, and what they hold.
    pub fn histograms(&self) -> [(&'static str, &Histogram); 6] {
        let counts = &self.inner.counts;
        [
            ("livekit_room_duration_seconds", &counts.room_durations.0),
            ("livekit_session_join_latency_ms", &counts.join_latencies.0),
            ("livekit_session_start_time_ms", &counts.session_starts.0),
            ("livekit_session_duration_ms", &counts.session_durations.0),
            ("livekit_quality_rating", &counts.quality.ratings),
            ("livekit_quality_score", &counts.quality.scores),
        ]
    }

    /// Prometheus lines of `name`, with `labels` in each: how long media was waited for.
    pub fn write_media_waits(&self, out: &mut String, name: &str, labels: &str) {
        self.inner.counts.waits.write(out, name, labels);
    }

    /// Media of all shards in both directions, bytes a second over the last two seconds or more.
    fn bytes_per_second(&self) -> f64 {
        let mut traffic = self.inner.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = traffic.since.elapsed();
        if passed >= TRAFFIC_INTERVAL {
            let io = self.inner.shards.iter().map(|shard| shard.handle.counters());
            let bytes = io.map(|io| io.bytes_received + io.bytes_sent).sum();
            *traffic = Traffic {
                since: Instant::now(),
                bytes,
                per_second: bytes.saturating_sub(traffic.bytes) as f64 / passed.as_secs_f64(),
            };
        }
        traffic.per_second
    }

    /// How much of each shard is in use, in their order.
    pub fn shard_loads(&self) -> Vec<ShardLoad> {
        self.inner.shards.iter().map(Shard::load).collect()
    }

    /// It carries as much as it may (`limit.num_tracks`, `limit.bytes_per_sec`).
    pub fn is_full(&self) -> bool {
        let NodeConfig {
            max_tracks,
            max_bytes_per_second,
            ..
        } = self.inner.config;
        (max_tracks > 0 && self.inner.counts.all_tracks() >= max_tracks)
            || (max_bytes_per_second > 0.0 && self.bytes_per_second() >= max_bytes_per_second)
    }

    /// Time since 1970, as tokens and pongs carry it.
    pub fn unix(&self) -> Duration {
        self.inner.wall.unix(Instant::now())
    }

    /// Whether a join with these claims would find or make its room. `resume`: it has been let in before.
    ///
    /// # Errors
    /// `NoSuchRoom`, `NodeFull`, `Draining`.
    pub fn check_room(&self, claims: &Claims, resume: bool) -> Result<(), JoinFailure> {
        if !resume && self.is_full() {
            return Err(JoinFailure::NodeFull);
        }
        if self.is_draining() {
            // LiveKit: rooms that live here go on, and who belongs into them may still come.
            return match self.inner.registry.find(&room_name(claims)) {
                Some(_) => Ok(()),
                None => Err(JoinFailure::Draining),
            };
        }
        let may_create = self.inner.config.auto_create || claims.video.as_ref().is_some_and(|grant| grant.room_create);
        if may_create || self.inner.registry.find(&room_name(claims)).is_some() {
            Ok(())
        } else {
            Err(JoinFailure::NoSuchRoom)
        }
    }

    /// Brings a client into the room its claims name. On success the first message is there already: the JoinResponse,
    /// or what a resume is answered with.
    ///
    /// # Errors
    /// See [`JoinFailure`]; nothing is left behind.
    pub async fn join(
        &self,
        claims: Claims,
        parameters: JoinParameters,
    ) -> Result<(Connection, ToClient), JoinFailure> {
        let began = Instant::now();
        let span = tracing::trace_span!(
            target: "patchbay::trace",
            "join",
            room = room_name(&claims).0,
            identity = claims.identity,
            reconnect = parameters.reconnect,
            error = tracing::field::Empty,
        );
        let joined = self.try_join(claims, parameters).instrument(span.clone()).await;
        if let Err(failure) = &joined {
            span.record("error", tracing::field::debug(failure));
        }
        let counts = &self.inner.counts;
        if joined.is_ok() {
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            counts.join_latencies.0.record(took);
        }
        let counter = match joined {
            Ok(_) => &counts.sessions_started,
            Err(_) => &counts.sessions_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        joined
    }

    async fn try_join(
        &self,
        claims: Claims,
        parameters: JoinParameters,
    ) -> Result<(Connection, ToClient), JoinFailure> {
        self.check_room(&claims, parameters.reconnect)?;
        let name = room_name(&claims);
        for _ in 0..JOIN_ATTEMPTS {
            let room = self.room(&name, &claims)?;
            let handle = ConnectionHandle(self.inner.next_connection.fetch_add(1, Ordering::Relaxed));
            let shards = &self.inner.shards;
            let shard = placement::for_participant(shards, &room.seat, self.inner.config.room_spill);
            let join = Join {
                connection: handle,
                signer: self.signer(&claims),
                claims: claims.clone(),
                parameters: parameters.clone(),
                media: placement::addresses(shards, shard).filter(|_| shard != room.seat.home),
            };
            match self.join_room(&room, join, shard).await {
                // It was closing: the name is free for a new one.
                Err(JoinFailure::Refused(JoinError::RoomClosed)) => {
                    self.inner.registry.forget_name(&name, room.handle);
                }
                result => return result,
            }
        }
        Err(JoinFailure::Closed)
    }

    async fn join_room(
        &self,
        room: &LiveRoom,
        join: Join,
        shard: ShardIndex,
    ) -> Result<(Connection, ToClient), JoinFailure> {
        let gone = JoinFailure::Refused(JoinError::RoomClosed);
        let (outbox, inbox) = connection::queue();
        let (answer, answered) = oneshot::channel();
        let handle = join.connection;
        let input = RoomInput::Join {
            join: Box::new(join),
            shard,
            outbox,
            answer,
        };
        room.mailbox.send(input).await.map_err(|_| gone)?;
        // From here on dropping the connection tells the room.
        let mut connection = Connection::new(handle, inbox, room.mailbox.clone());
        let first = async {
            match answered.await {
                Ok(Ok(shard)) => {
                    if let Some(shard) = placement::shard(&self.inner.shards, shard) {
                        connection.occupy(shard.occupy());
                    }
                    connection.next().await.ok_or(JoinFailure::Closed)
                }
                Ok(Err(error)) => Err(JoinFailure::Refused(error)),
                // The task has ended with the join still in its mailbox.
                Err(_) => Err(gone),
            }
        };
        let first = tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, first)
            .await
            .map_err(|_| JoinFailure::TimedOut)??;
        Ok((connection, first))
    }

    /// A worker with these claims has connected; it must register itself.
    pub async fn connect_worker(&self, claims: &Claims) -> WorkerConnection {
        let handle = WorkerHandle(self.inner.next_connection.fetch_add(1, Ordering::Relaxed));
        self.inner.pool.connect(handle, self.signer(claims)).await
    }

    /// Counts a signalling frame that was neither protobuf nor JSON.
    pub fn count_undecodable(&self) {
        self.inner.undecodable_frames.fetch_add(1, Ordering::Relaxed);
    }

    /// Signalling frames that could not be read, since start.
    pub fn undecodable_frames(&self) -> u64 {
        self.inner.undecodable_frames.load(Ordering::Relaxed)
    }

    /// From now on no room is made; those there are go on.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// Tells everybody in every room that the server stops, and waits until their sockets are closed (at most 2 s).
    pub async fn shut_down(&self) {
        self.inner.pool.send(PoolInput::Shutdown).await;
        for mailbox in self.inner.registry.mailboxes() {
            let _ = mailbox.send(RoomInput::Shutdown).await;
        }
        let deadline = tokio::time::Instant::now() + SHUTDOWN_LIMIT;
        let is_quiet = || {
            let shards = &self.inner.shards;
            self.inner.registry.is_empty() && shards.iter().all(Shard::is_empty)
        };
        while !is_quiet() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn signer(&self, claims: &Claims) -> Signer {
        Signer {
            api_key: claims.api_key.clone(),
            secret: self.keys().secret(&claims.api_key).unwrap_or_default().to_owned(),
        }
    }

    /// The live room of that name, or a new one as the claims describe it.
    fn room(&self, name: &RoomName, claims: &Claims) -> Result<LiveRoom, JoinFailure> {
        let preset = self.inner.config.presets.get(&claims.room_preset);
        let configurations: Vec<RoomConfiguration> = preset.into_iter().chain(&claims.room_config).cloned().collect();
        self.find_or_create(name, &configurations, None)
            .ok_or_else(|| match self.is_draining() {
                true => JoinFailure::Draining,
                false => JoinFailure::NodeFull,
            })
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// The live room of that name, or a new one on this shard, or on the least loaded one. Later configurations win. None:
    /// the node is full, or makes no more rooms.
    pub(super) fn find_or_create(
        &self,
        name: &RoomName,
        configurations: &[RoomConfiguration],
        shard: Option<ShardIndex>,
    ) -> Option<LiveRoom> {
        if self.is_draining() {
            return self.inner.registry.find(name);
        }
        let create = |handle| {
            self.spawn_room(name.clone(), (handle, shard), |mut settings, wall, seed, now| {
                for configuration in configurations {
                    apply(&mut settings, configuration);
                }
                Room::new(name.clone(), handle, settings, wall, seed, now)
            })
        };
        self.inner.registry.find_or_create(name, create)
    }

    /// Makes the rooms of an earlier process again; to be called before anybody can ask for them.
    pub fn restore(&self, records: Vec<RoomRecord>) {
        for record in records {
            let name = RoomName(record.room.as_ref().map(|room| room.name.clone()).unwrap_or_default());
            let create = |handle| {
                self.spawn_room(name.clone(), (handle, None), |settings, wall, seed, now| {
                    Room::restore(record, handle, settings, wall, seed, now)
                })
            };
            self.inner.registry.find_or_create(&name, create);
        }
    }

    /// How clients reach the shards from now on, in their order, and which ICE servers they are told. A client that is there
    /// is told with its next description.
    pub async fn replace_addresses(&self, fresh: Vec<MediaAddresses>, ice_servers: Vec<IceServerSource>) {
        placement::replace_addresses(&self.inner.shards, fresh.clone());
        {
            let mut known = self.inner.ice_servers.write().unwrap_or_else(PoisonError::into_inner);
            known.clone_from(&ice_servers);
        }
        // Rooms that are made meanwhile know already; those that are there learn it.
        let fresh: Arc<[MediaAddresses]> = fresh.into();
        for mailbox in self.inner.registry.mailboxes() {
            let (fresh, ice_servers) = (Arc::clone(&fresh), ice_servers.clone());
            // Err: it has ended.
            let _ = mailbox.send(RoomInput::Addresses { fresh, ice_servers }).await;
        }
    }

    fn spawn_room(
        &self,
        name: RoomName,
        (handle, shard): (RoomHandle, Option<ShardIndex>),
        make: impl FnOnce(RoomSettings, WallClock, u64, Instant) -> Room,
    ) -> LiveRoom {
        let shards = &self.inner.shards;
        let seat = Seat::new(shard.unwrap_or_else(|| placement::least_loaded(shards)));
        let mut settings = self.inner.config.room.clone();
        if let Some(media) = placement::addresses(shards, seat.home) {
            (settings.udp_candidates, settings.tcp_candidates) = (media.udp, media.tcp);
        }
        let ice_servers = self.inner.ice_servers.read();
        settings.ice_servers = ice_servers.unwrap_or_else(PoisonError::into_inner).clone();
        let seed = rand::rng().random();
        let room = make(settings, self.inner.wall, seed, Instant::now());
        let telling = Telling {
            tally: Tally::new(Arc::clone(&self.inner.counts)),
            journal: self.inner.config.journal.clone(),
            durable: self.inner.config.durable,
            guests: Guests::new(self.inner.config.relay.clone()),
            pool: self.inner.pool.clone(),
            voice: self.inner.config.voice.clone(),
        };
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let registry = Arc::clone(&self.inner.registry);
        tokio::spawn(room_task::run(
            room,
            name,
            handle,
            inbox,
            (seat.clone(), Arc::clone(shards)),
            registry,
            telling,
        ));
        LiveRoom { handle, mailbox, seat }
    }
}

fn room_name(claims: &Claims) -> RoomName {
    RoomName(
        claims
            .video
            .as_ref()
            .map(|grant| grant.room.clone())
            .unwrap_or_default(),
    )
}

/// What a token, a preset or a request says about the room it creates; zero and empty mean "as configured".
fn apply(settings: &mut RoomSettings, wanted: &RoomConfiguration) {
    if wanted.empty_timeout > 0 {
        settings.empty_timeout = Duration::from_secs(wanted.empty_timeout.into());
    }
    if wanted.departure_timeout > 0 {
        settings.departure_timeout = Duration::from_secs(wanted.departure_timeout.into());
    }
    if wanted.max_participants > 0 {
        settings.max_participants = wanted.max_participants;
    }
    if !wanted.metadata.is_empty() {
        settings.metadata.clone_from(&wanted.metadata);
    }
    if wanted.min_playout_delay > 0 || wanted.max_playout_delay > 0 {
        settings.playout_delay = Some(playout_delay(wanted.min_playout_delay, wanted.max_playout_delay));
    }
    settings.sync_streams |= wanted.sync_streams;
    if wanted.egress.is_some() {
        tracing::warn!("a room that is to be recorded by itself is not: there is no recorder");
    }
    if !wanted.agents.is_empty() {
        settings.agents.clone_from(&wanted.agents);
    }
}

/// Bytes in both directions up to `since`.
#[derive(Debug)]
struct Traffic {
    since: Instant,
    bytes: u64,
    per_second: f64,
}

/// `prefix` and twelve characters of chance.
pub fn new_id(prefix: &str) -> String {
    let mut random = rand::rng();
    let id: String = (0..ID_LENGTH)
        .map(|_| char::from(ID_ALPHABET[random.random_range(0..ID_ALPHABET.len())]))
        .collect();
    format!("{prefix}{id}")
}

/// Passes a shard's events on to the rooms they belong to. Levels and quality are dropped for a room that is behind;
/// edges wait for it (a room waits only for its shard's command queue, which empties without us).
async fn deliver_events(shard: ShardIndex, mut events: mpsc::Receiver<Event>, registry: Arc<Registry>) {
    while let Some(event) = events.recv().await {
        let Some(mailbox) = registry.mailbox(room_of(&event)) else {
            continue;
        };
        if is_coalescable(&event) {
            let _ = mailbox.try_send(RoomInput::Event(shard, event));
        } else {
            let _ = mailbox.send(RoomInput::Event(shard, event)).await;
        }
    }
}

fn is_coalescable(event: &Event) -> bool {
    matches!(
        event,
        Event::Speakers { .. } | Event::Quality { .. } | Event::DataSequence { .. }
    )
}

/// The room's number is the upper half of every handle made in it.
fn room_of(event: &Event) -> RoomHandle {
    let inside = match event {
        Event::Speakers { room, .. } | Event::Explanation { room, .. } | Event::RoomPanicked { room } => return *room,
        Event::TransportConnected {
            transport: TransportHandle(handle),
            ..
        }
        | Event::ChannelsOpen {
            transport: TransportHandle(handle),
        }
        | Event::TransportSilent {
            transport: TransportHandle(handle),
            ..
        }
        | Event::TransportLossy {
            transport: TransportHandle(handle),
            ..
        }
        | Event::TransportClosed {
            transport: TransportHandle(handle),
            ..
        }
        | Event::EncodingSeen {
            track: TrackHandle(handle),
            ..
        }
        | Event::LayersMeasured {
            track: TrackHandle(handle),
            ..
        }
        | Event::SubscriptionStarted {
            subscription: SubscriptionHandle(handle),
        }
        | Event::LayerSent {
            subscription: SubscriptionHandle(handle),
            ..
        }
        | Event::StreamState {
            subscription: SubscriptionHandle(handle),
            ..
        }
        | Event::CodecUnsupported {
            subscription: SubscriptionHandle(handle),
            ..
        }
        | Event::Quality {
            participant: ParticipantHandle(handle),
            ..
        }
        | Event::RpcAnswer {
            participant: ParticipantHandle(handle),
            ..
        }
        | Event::DataSequence {
            participant: ParticipantHandle(handle),
            ..
        } => handle,
    };
    RoomHandle(inside >> 32)
}
