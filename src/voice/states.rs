//! Who is connected to voice, and who is about to be.
//!
//! Owns connections (confirmed by the room they are in), pending joins (a token was given, nobody has come yet) and those
//! that left a moment ago. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::ids::{ChannelId, ConnectionId, GuildId, RoomKey, SessionId, UnixMillis, UserId};
use super::marks::Marks;
use super::rights::{MediaGrant, Rights};
use super::topology::ServerKey;

/// What the client says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfState {
    pub mute: bool,
    pub deaf: bool,
    pub video: bool,
    pub stream: bool,
    pub is_mobile: bool,
    /// What it watches.
    pub viewer_stream_keys: Vec<String>,
}

/// One device of a user in a room, or on its way there.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    pub id: ConnectionId,
    pub user: UserId,
    pub room: RoomKey,
    pub server: ServerKey,
    pub session: Option<SessionId>,
    pub nonce: String,
    pub own: SelfState,
    pub rights: Rights,
    /// The backend stated the rights itself: the directory does not change them.
    pub asserted: bool,
    /// Mute and deafness as asserted with the token; a member's come from the directory.
    pub mute: bool,
    pub deaf: bool,
    /// Grows with every change that is told.
    pub version: u64,
    /// When its room told of it.
    pub since: UnixMillis,
    /// LiveKit's id of the session in the room; empty where it was not told.
    pub participant: String,
    /// What the room was told last; None: not known, because a token of some earlier time counts there.
    pub enforced: Option<MediaGrant>,
}

/// A token was given; whoever holds it has until `expires`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    pub connection: Connection,
    pub expires: UnixMillis,
}

/// The state as every client sees it; a superset of what the generations of Fluxer send.
#[derive(Clone, Debug, Serialize)]
pub struct VoiceState<'a> {
    pub guild_id: Option<GuildId>,
    /// None: not connected any more.
    pub channel_id: Option<ChannelId>,
    pub user_id: UserId,
    pub connection_id: &'a ConnectionId,
    pub session_id: &'a str,
    pub mute: bool,
    pub deaf: bool,
    pub self_mute: bool,
    pub self_deaf: bool,
    pub self_video: bool,
    pub self_stream: bool,
    pub is_mobile: bool,
    pub suppress: bool,
    pub viewer_stream_key: Option<&'a str>,
    pub viewer_stream_keys: &'a [String],
    pub version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Default)]
pub struct States {
    connected: BTreeMap<ConnectionId, Connection>,
    pending: BTreeMap<ConnectionId, Pending>,
    by_room: BTreeMap<RoomKey, BTreeSet<ConnectionId>>,
    by_user: HashMap<UserId, BTreeSet<ConnectionId>>,
    pending_by_room: BTreeMap<RoomKey, BTreeSet<ConnectionId>>,
    /// Gone for less than the time in which they may come back with the token they have.
    left: BTreeMap<ConnectionId, (Connection, UnixMillis)>,
    /// Connected or expected, or not any more.
    pub(super) changed: Marks<ConnectionId>,
}

impl States {
    pub fn find(&self, id: &ConnectionId) -> Option<&Connection> {
        self.connected.get(id)
    }

    pub fn find_mut(&mut self, id: &ConnectionId) -> Option<&mut Connection> {
        self.changed.mark(id);
        self.connected.get_mut(id)
    }

    pub fn pending(&self, id: &ConnectionId) -> Option<&Pending> {
        self.pending.get(id)
    }

    pub fn pending_mut(&mut self, id: &ConnectionId) -> Option<&mut Pending> {
        self.changed.mark(id);
        self.pending.get_mut(id)
    }

    pub fn len(&self) -> usize {
        self.connected.len()
    }

    pub fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// Nobody else is, was a moment ago or is about to be called that.
    pub fn is_free(&self, id: &ConnectionId) -> bool {
        !self.connected.contains_key(id) && !self.pending.contains_key(id) && !self.left.contains_key(id)
    }

    pub fn all(&self) -> impl Iterator<Item = &Connection> {
        self.connected.values()
    }

    pub fn all_pending(&self) -> impl Iterator<Item = &Connection> {
        self.pending.values().map(|pending| &pending.connection)
    }

    /// In the order of their ids.
    pub fn in_room(&self, room: RoomKey) -> impl Iterator<Item = &Connection> {
        let ids = self.by_room.get(&room).into_iter().flatten();
        ids.filter_map(|id| self.connected.get(id))
    }

    pub fn pending_in(&self, room: RoomKey) -> impl Iterator<Item = &Connection> {
        let ids = self.pending_by_room.get(&room).into_iter().flatten();
        ids.filter_map(|id| self.pending.get(id))
            .map(|pending| &pending.connection)
    }

    pub fn of_user(&self, user: UserId) -> impl Iterator<Item = &Connection> {
        let ids = self.by_user.get(&user).into_iter().flatten();
        ids.filter_map(|id| self.connected.get(id))
    }

    pub fn of_user_in_guild(&self, user: UserId, guild: GuildId) -> impl Iterator<Item = &Connection> {
        self.of_user(user)
            .filter(move |connection| connection.room.guild() == Some(guild))
    }

    /// Rooms with somebody in them, or expected.
    pub fn rooms(&self) -> BTreeSet<RoomKey> {
        self.by_room
            .keys()
            .chain(self.pending_by_room.keys())
            .copied()
            .collect()
    }

    pub fn is_used(&self, room: RoomKey) -> bool {
        self.by_room.contains_key(&room) || self.pending_by_room.contains_key(&room)
    }

    /// Distinct users in the room or expected, `except` not counted.
    pub fn users_in(&self, room: RoomKey, except: UserId) -> usize {
        let users: BTreeSet<UserId> = self
            .in_room(room)
            .chain(self.pending_in(room))
            .map(|connection| connection.user)
            .filter(|user| *user != except)
            .collect();
        users.len()
    }

    pub fn expect(&mut self, pending: Pending) {
        let (id, room) = (pending.connection.id.clone(), pending.connection.room);
        self.forget_pending(&id);
        self.changed.mark(&id);
        self.pending_by_room.entry(room).or_default().insert(id.clone());
        self.pending.insert(id, pending);
    }

    pub fn forget_pending(&mut self, id: &ConnectionId) -> Option<Pending> {
        let pending = self.pending.remove(id)?;
        self.changed.mark(id);
        remove_from(&mut self.pending_by_room, &pending.connection.room, id);
        Some(pending)
    }

    /// Replaces a connection of the same name.
    pub fn connect(&mut self, connection: Connection) {
        self.disconnect(&connection.id.clone());
        self.left.remove(&connection.id);
        self.changed.mark(&connection.id);
        self.by_room
            .entry(connection.room)
            .or_default()
            .insert(connection.id.clone());
        self.by_user
            .entry(connection.user)
            .or_default()
            .insert(connection.id.clone());
        self.connected.insert(connection.id.clone(), connection);
    }

    pub fn disconnect(&mut self, id: &ConnectionId) -> Option<Connection> {
        let connection = self.connected.remove(id)?;
        self.changed.mark(id);
        remove_from(&mut self.by_room, &connection.room, id);
        if let Some(ids) = self.by_user.get_mut(&connection.user) {
            ids.remove(id);
            if ids.is_empty() {
                self.by_user.remove(&connection.user);
            }
        }
        Some(connection)
    }

    /// It may come back until `until`.
    pub fn remember(&mut self, connection: Connection, until: UnixMillis) {
        self.left.insert(connection.id.clone(), (connection, until));
    }

    pub fn left(&self, id: &ConnectionId) -> Option<&Connection> {
        self.left.get(id).map(|(connection, _)| connection)
    }

    /// Until when somebody who has left may come back.
    pub fn left_until(&self, id: &ConnectionId) -> Option<UnixMillis> {
        self.left.get(id).map(|(_, until)| *until)
    }

    pub fn forget_left(&mut self, now: UnixMillis, id: &ConnectionId) {
        if self.left.get(id).is_some_and(|(_, until)| *until <= now) {
            self.left.remove(id);
        }
    }

    pub fn take_left(&mut self, id: &ConnectionId) -> Option<Connection> {
        self.left.remove(id).map(|(connection, _)| connection)
    }
}

fn remove_from(index: &mut BTreeMap<RoomKey, BTreeSet<ConnectionId>>, room: &RoomKey, id: &ConnectionId) {
    if let Some(ids) = index.get_mut(room) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(room);
        }
    }
}
