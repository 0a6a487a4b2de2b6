//! The domain itself: its parts, its timers, and what leaves it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::calls::Calls;
use super::directory::{Directory, Entry};
use super::effect::{Change, Effect, RoomAction, Table};
use super::gateway::Gateway;
use super::ids::{ChannelId, ConnectionId, Naming, RoomKey, SessionId, SocketId, UnixMillis, UserId};
use super::limits::RateLimits;
use super::marks::Marks;
use super::pins::{PinRecord, Pins};
use super::rights::Signer;
use super::states::States;
use super::topology::{Region, Server, ServerKey, Topology};

/// Two lists of short words make connection ids that people can read to each other.
const FIRST: [&str; 32] = [
    "amber", "birch", "cedar", "coral", "dawn", "delta", "ember", "fern", "flint", "frost", "glade", "hazel", "heron",
    "iris", "ivory", "jade", "lark", "linen", "maple", "mist", "moss", "north", "olive", "opal", "pearl", "pine",
    "quill", "raven", "river", "slate", "thyme", "willow",
];
const SECOND: [&str; 32] = [
    "anchor", "arch", "badger", "basin", "bridge", "canyon", "cloud", "comet", "cove", "crane", "falcon", "field",
    "garden", "harbor", "island", "lantern", "ledge", "meadow", "otter", "path", "pond", "reef", "ridge", "shore",
    "signal", "spruce", "stone", "thicket", "tide", "valley", "wave", "wren",
];

#[derive(Clone, Debug)]
pub struct VoiceSettings {
    pub naming: Naming,
    /// Of LiveKit tokens.
    pub token_ttl: Duration,
    /// From a token to the join with it.
    pub pending_timeout: Duration,
    /// From the last leaver to the end of the pin.
    pub pin_timeout: Duration,
    /// How long a room that is left for another region goes on.
    pub region_grace: Duration,
    /// How long somebody who was moved may still be seen in the old room, without a voice.
    pub move_grace: Duration,
    /// How long a session waits for its client to come back.
    pub resume_window: Duration,
    pub heartbeat_interval: Duration,
    /// Between two looks at who is really in a room.
    pub reconcile_interval: Duration,
    /// Users in a channel above which no camera is switched on.
    pub camera_user_limit: usize,
    /// Fluxer's own rule: who may mute may deafen.
    pub mute_permission_deafens: bool,
}

impl Default for VoiceSettings {
    fn default() -> Self {
        Self {
            naming: Naming::Fluxer,
            token_ttl: Duration::from_secs(6 * 3600),
            pending_timeout: Duration::from_secs(30),
            pin_timeout: Duration::from_secs(20),
            region_grace: Duration::from_secs(10),
            move_grace: Duration::from_secs(5),
            resume_window: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(41_250),
            reconcile_interval: Duration::from_secs(60),
            camera_user_limit: 25,
            mute_permission_deafens: false,
        }
    }
}

/// What has a time. Whoever is called looks for itself whether there still is something to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Pending(ConnectionId),
    Left(ConnectionId),
    Pin(RoomKey),
    Retired(ServerKey, String),
    Reconcile(RoomKey),
    Call(ChannelId),
    Socket(SocketId),
    Session(SessionId),
}

/// What is to leave a server for good: a participant, or without one the room.
pub(super) type Retirement = (ServerKey, String, Option<String>);

/// The voice system of one node.
///
/// Inputs are the methods that take `now`; afterwards `poll_effect` until there is none, and `handle_timeout` when
/// `poll_timeout` is due. Nothing is asked of the outside but through effects.
pub struct Voice {
    pub(super) settings: VoiceSettings,
    pub(super) directory: Directory,
    pub(super) topology: Topology,
    pub(super) pins: Pins,
    pub(super) states: States,
    pub(super) calls: Calls,
    pub(super) gateway: Gateway,
    pub(super) limits: RateLimits,
    /// Who was moved where by a moderator, and may be there for that.
    pub(super) virtual_access: BTreeSet<(UserId, ChannelId)>,
    pub(super) virtual_changed: Marks<(UserId, ChannelId)>,
    pub(super) retired: BTreeMap<Retirement, UnixMillis>,
    pub(super) storage_down: bool,
    /// Pins from before are of an earlier process.
    pub(super) started: UnixMillis,
    pub(super) rng: StdRng,
    signer: Box<dyn Signer>,
    timers: BTreeSet<(UnixMillis, Timer)>,
    out: VecDeque<Effect>,
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice")
            .field("connections", &self.states.len())
            .field("pins", &self.pins.len())
            .finish_non_exhaustive()
    }
}

impl Voice {
    pub fn new(now: UnixMillis, settings: VoiceSettings, signer: Box<dyn Signer>, seed: u64) -> Self {
        Self {
            gateway: Gateway::new(settings.heartbeat_interval, settings.resume_window),
            settings,
            directory: Directory::default(),
            topology: Topology::default(),
            pins: Pins::default(),
            states: States::default(),
            calls: Calls::default(),
            limits: RateLimits::default(),
            virtual_access: BTreeSet::new(),
            virtual_changed: Marks::default(),
            retired: BTreeMap::new(),
            storage_down: false,
            started: now,
            rng: StdRng::seed_from_u64(seed),
            signer,
            timers: BTreeSet::new(),
            out: VecDeque::new(),
        }
    }

    /// What an earlier process kept; to be called before anything else. Rooms with a pin are looked at soon, because
    /// people may have stayed in them. The number of records that could not be read.
    pub fn restore(&mut self, now: UnixMillis, changes: Vec<Change>) -> usize {
        let mut unreadable = 0;
        // Servers need their regions, pins their servers: as the tables are ordered.
        for table in Table::ALL {
            for change in changes.iter().filter(|change| change.table == table) {
                let body = change.body.as_deref().unwrap_or_default();
                unreadable += usize::from(self.restore_one(now, table, body).is_none());
            }
        }
        unreadable
    }

    fn restore_one(&mut self, now: UnixMillis, table: Table, body: &str) -> Option<()> {
        match table {
            Table::Regions => self
                .topology
                .put_region(serde_json::from_str::<Region>(body).ok()?)
                .ok(),
            Table::Servers => self
                .topology
                .put_server(serde_json::from_str::<Server>(body).ok()?)
                .ok(),
            Table::Pins => {
                let record: PinRecord = serde_json::from_str(body).ok()?;
                let room = RoomKey::parse(&record.room)?;
                let server = ServerKey {
                    region: record.region_id,
                    server: record.server_id,
                };
                self.pins.pin(record.updated_at, room, server, record.endpoint);
                self.pins.unused(now, room);
                self.at(now, Timer::Reconcile(room));
                // A look must have been answered before the pin can be let go.
                self.at(now.after(self.settings.reconcile_interval), Timer::Pin(room));
                Some(())
            }
            Table::Directory => {
                let entry: Entry = serde_json::from_str(body).ok()?;
                self.directory.sync(vec![entry]).ok().map(|_| ())
            }
            // History: nobody is called any more.
            Table::Calls => Some(()),
        }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    pub fn states(&self) -> &States {
        &self.states
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    pub fn settings(&self) -> &VoiceSettings {
        &self.settings
    }

    /// The database cannot be written, or can be again. Until then nobody new is let in.
    pub fn set_storage_down(&mut self, down: bool) {
        self.storage_down = down;
    }

    pub fn poll_timeout(&self) -> Option<UnixMillis> {
        self.timers.first().map(|(due, _)| *due)
    }

    pub fn handle_timeout(&mut self, now: UnixMillis) {
        while let Some((due, timer)) = self.timers.pop_first() {
            if due > now {
                self.timers.insert((due, timer));
                return;
            }
            match timer {
                Timer::Pending(id) => self.pending_due(now, &id),
                Timer::Left(id) => self.states.forget_left(now, &id),
                Timer::Pin(room) => self.pin_due(now, room),
                Timer::Retired(server, room) => self.retirement_due(now, &server, &room),
                Timer::Reconcile(room) => self.reconcile_due(now, room),
                Timer::Call(channel) => self.call_due(now, channel),
                Timer::Socket(socket) => self.socket_due(now, socket),
                Timer::Session(session) => self.session_due(now, &session),
            }
        }
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }

    pub(super) fn at(&mut self, due: UnixMillis, timer: Timer) {
        self.timers.insert((due, timer));
    }

    pub(super) fn emit(&mut self, effect: Effect) {
        self.out.push_back(effect);
    }

    pub(super) fn keep(&mut self, change: Change) {
        self.emit(Effect::Keep(change));
    }

    pub(super) fn ask_room(&mut self, server: ServerKey, room: RoomKey, action: RoomAction) {
        let room = self.room_name(room);
        self.emit(Effect::Room { server, room, action });
    }

    pub(super) fn room_name(&self, room: RoomKey) -> String {
        let channel = self.directory.channel(room.channel());
        let is_group = channel.is_some_and(|channel| channel.kind == super::directory::ChannelType::GroupDm);
        room.name(self.settings.naming, is_group)
    }

    pub(super) fn sign(&self, claim: &super::rights::Claim) -> String {
        self.signer.sign(claim)
    }

    /// Of two words and four digits; nobody else's.
    pub(super) fn new_connection_id(&mut self) -> ConnectionId {
        loop {
            let [first, second] = [FIRST, SECOND].map(|words| {
                let index = self.rng.random_range(0..words.len());
                words.get(index).copied().unwrap_or_default()
            });
            let number = self.rng.random_range(0..10_000);
            let id = ConnectionId::parse(&format!("{first}-{second}-{number:04}"));
            if let Some(id) = id.filter(|id| self.states.is_free(id)) {
                return id;
            }
        }
    }

    /// In the form of a random UUID (RFC 9562 §5.4).
    pub(super) fn new_nonce(&mut self) -> String {
        let bits: u128 = self.rng.random();
        let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let text = format!("{bits:032x}");
        let mut parts = Vec::with_capacity(5);
        let mut rest = text.as_str();
        for length in [8, 4, 4, 4, 12] {
            let (part, behind) = rest.split_at(length);
            parts.push(part);
            rest = behind;
        }
        parts.join("-")
    }

    pub(super) fn new_session_id(&mut self) -> SessionId {
        SessionId(format!("{:032x}", self.rng.random::<u128>()))
    }
}
