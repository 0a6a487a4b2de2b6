//! Who is really in the rooms: what LiveKit's servers tell, and the comparison with what is believed here.

use std::collections::BTreeSet;
use std::time::Duration;

use super::domain::{Timer, Voice};
use super::effect::RoomAction;
use super::error::VoiceError;
use super::ids::{ConnectionId, RoomKey, UnixMillis, UserId, identity, parse_identity};
use super::rights::MediaGrant;
use super::states::Connection;
use super::topology::ServerKey;

/// How long somebody who left may come back with the token they have: a client whose connection failed tries again
/// with it.
const RETURN_WINDOW: Duration = Duration::from_secs(60);

/// A look at a room may be this old when it is told of: who came or left since is not judged by it.
const LOOK_AGE: Duration = Duration::from_secs(10);

/// After a start of this process: whoever was in a room before it may still come, or be found, with the token they have.
const RESTORE_WINDOW: Duration = Duration::from_secs(300);

/// A participant as its room knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub identity: String,
    /// LiveKit's id of this session; empty = not told.
    pub participant: String,
    /// From the metadata of its token; None: there is none.
    pub nonce: Option<String>,
}

/// What became of somebody who appeared in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Known now, or known before.
    Confirmed,
    /// To be removed, which is on its way.
    Rejected(VoiceError),
    /// Nothing of the voice system.
    Foreign,
}

impl Voice {
    /// Somebody is connected to a room on `server`.
    pub fn handle_participant_joined(
        &mut self,
        now: UnixMillis,
        server: &ServerKey,
        room: &str,
        seen: &Seen,
    ) -> Arrival {
        let Some(key) = RoomKey::parse(room) else {
            return Arrival::Foreign;
        };
        let Some((user, id)) = parse_identity(&seen.identity) else {
            return Arrival::Foreign;
        };
        match self.arrive(now, server, key, user, &id, seen) {
            Ok(()) => Arrival::Confirmed,
            Err(error) => {
                let identity = seen.identity.clone();
                self.ask_room(server.clone(), key, RoomAction::Remove { identity });
                Arrival::Rejected(error)
            }
        }
    }

    fn arrive(
        &mut self,
        now: UnixMillis,
        server: &ServerKey,
        room: RoomKey,
        user: UserId,
        id: &ConnectionId,
        seen: &Seen,
    ) -> Result<(), VoiceError> {
        let fits = |connection: &Connection| {
            let nonce = seen.nonce.as_ref().is_none_or(|nonce| *nonce == connection.nonce);
            let place = connection.user == user && connection.room == room && connection.server == *server;
            match (place, nonce) {
                (false, _) => Err(VoiceError::UserMismatch),
                (true, false) => Err(VoiceError::NonceMismatch),
                (true, true) => Ok(()),
            }
        };
        if let Some(pending) = self.states.pending(id) {
            fits(&pending.connection)?;
            if pending.expires <= now {
                return Err(VoiceError::PendingExpired);
            }
            let pending = self.states.forget_pending(id).ok_or(VoiceError::PendingExpired)?;
            self.confirm(now, pending.connection, seen);
            return Ok(());
        }
        if let Some(connection) = self.states.find_mut(id) {
            fits(connection)?;
            // It came again with a token that may say more than is so by now.
            connection.participant.clone_from(&seen.participant);
            connection.enforced = None;
            self.enforce(id);
            return Ok(());
        }
        let Some(left) = self.states.left(id) else {
            return match self.restored(now, server, room, user, id, seen) {
                true => Ok(()),
                false => Err(VoiceError::ConnectionNotFound),
            };
        };
        fits(left)?;
        let mut connection = left.clone();
        connection.enforced = None;
        if self.pins.find(room).is_some_and(|pin| pin.server != *server) {
            return Err(VoiceError::ConnectionNotFound);
        }
        self.states.take_left(id);
        if !connection.asserted {
            let standing = self.standing(now, user, room)?;
            (connection.rights, connection.mute, connection.deaf) = (standing.rights, standing.mute, standing.deaf);
        }
        if self.pins.find(room).is_none() {
            self.pin(now, room, server.clone());
        }
        self.confirm(now, connection, seen);
        Ok(())
    }

    fn confirm(&mut self, now: UnixMillis, mut connection: Connection, seen: &Seen) {
        let id = connection.id.clone();
        connection.participant.clone_from(&seen.participant);
        connection.since = now;
        self.pins.used(connection.room);
        self.retired.remove(&self.retirement(&connection));
        if connection.room.guild().is_none() {
            self.replace_in_call(now, &connection);
        }
        if let Some(before) = self.states.disconnect(&id) {
            self.topology.disconnected(&before.server);
        }
        self.topology.connected(&connection.server);
        let (room, user) = (connection.room, connection.user);
        self.states.connect(connection);
        self.announce(now, &id);
        self.enforce(&id);
        self.joined_call(now, room, user);
    }

    /// Brings a room to what the directory says, where that has changed since the room was told.
    pub(super) fn enforce(&mut self, id: &ConnectionId) {
        let Some(connection) = self.states.find_mut(id) else {
            return;
        };
        let grant = MediaGrant::live(connection.rights, connection.mute, connection.deaf);
        if connection.enforced == Some(grant) {
            return;
        }
        let silenced = connection.enforced.is_none_or(|before| before.microphone) && !grant.microphone;
        connection.enforced = Some(grant);
        let (server, room) = (connection.server.clone(), connection.room);
        let identity = identity(connection.user, id);
        if silenced {
            // Clients show it, and servers that keep a track without the right to publish it fall silent.
            let (identity, muted) = (identity.clone(), true);
            self.ask_room(server.clone(), room, RoomAction::MuteMicrophone { identity, muted });
        }
        self.ask_room(server, room, RoomAction::Permit { identity, grant });
    }

    /// Somebody has left a room on `server`, or never got as far as being connected (`participant_connection_aborted`).
    pub fn handle_participant_left(&mut self, now: UnixMillis, server: &ServerKey, room: &str, seen: &Seen) {
        let Some(key) = RoomKey::parse(room) else { return };
        self.retired
            .remove(&(server.clone(), room.to_owned(), Some(seen.identity.clone())));
        let Some((_, id)) = parse_identity(&seen.identity) else {
            return;
        };
        let gone = self.states.find(&id).filter(|connection| {
            let other_session = !seen.participant.is_empty()
                && !connection.participant.is_empty()
                && connection.participant != seen.participant;
            connection.room == key && connection.server == *server && !other_session
        });
        if gone.is_some() {
            self.depart(now, &id, true);
            return;
        }
        let aborted = self.states.pending(&id).filter(|pending| {
            let same_nonce = seen
                .nonce
                .as_ref()
                .is_none_or(|nonce| *nonce == pending.connection.nonce);
            pending.connection.room == key && pending.connection.server == *server && same_nonce
        });
        if aborted.is_some()
            && let Some(pending) = self.states.forget_pending(&id)
        {
            self.remember(now, pending.connection.clone());
            self.after_departure(now, key, pending.connection.user);
        }
    }

    fn remember(&mut self, now: UnixMillis, connection: Connection) {
        let until = now.after(RETURN_WINDOW);
        self.at(until, Timer::Left(connection.id.clone()));
        self.states.remember(connection, until);
    }

    /// A connection ends: everybody who could see it is told. `may_return`: with the token it has.
    pub(super) fn depart(&mut self, now: UnixMillis, id: &ConnectionId, may_return: bool) -> Option<Connection> {
        let mut connection = self.states.disconnect(id)?;
        self.topology.disconnected(&connection.server);
        connection.version += 1;
        self.announce_departure(now, &connection);
        if may_return {
            self.remember(now, connection.clone());
        }
        self.after_departure(now, connection.room, connection.user);
        self.left_call(now, connection.room);
        Some(connection)
    }

    /// As `depart`, and out of the room, at once.
    pub(super) fn expel(&mut self, now: UnixMillis, id: &ConnectionId) {
        if let Some(connection) = self.depart(now, id, false) {
            let identity = identity(connection.user, id);
            self.ask_room(connection.server, connection.room, RoomAction::Remove { identity });
        }
    }

    /// A room has closed by itself, or was deleted.
    pub fn handle_room_finished(&mut self, now: UnixMillis, server: &ServerKey, room: &str) {
        let Some(key) = RoomKey::parse(room) else { return };
        self.retired.retain(|(of, name, _), _| of != server || name != room);
        // Of a server that it was moved away from: whoever was left there is gone, the rest is not concerned.
        let there: Vec<ConnectionId> = self
            .states
            .in_room(key)
            .filter(|connection| connection.server == *server)
            .map(|connection| connection.id.clone())
            .collect();
        for id in there {
            self.depart(now, &id, true);
        }
        let is_pinned = self.pins.find(key).is_some_and(|pin| pin.server == *server);
        if is_pinned && !self.states.is_used(key) {
            self.unpin(key);
        }
    }

    /// It takes no part any more, and is out after `grace` unless it leaves by itself.
    pub(super) fn retire(&mut self, now: UnixMillis, connection: &Connection, grace: Duration) {
        let retirement = self.retirement(connection);
        let due = now.after(grace);
        self.at(due, Timer::Retired(retirement.0.clone(), retirement.1.clone()));
        self.retired.insert(retirement, due);
    }

    /// The whole room ends after `grace`.
    pub(super) fn retire_room(&mut self, now: UnixMillis, server: ServerKey, room: RoomKey, grace: Duration) {
        let name = self.room_name(room);
        let due = now.after(grace);
        self.at(due, Timer::Retired(server.clone(), name.clone()));
        self.retired.insert((server, name, None), due);
    }

    fn retirement(&self, connection: &Connection) -> super::domain::Retirement {
        let identity = identity(connection.user, &connection.id);
        (
            connection.server.clone(),
            self.room_name(connection.room),
            Some(identity),
        )
    }

    pub(super) fn retirement_due(&mut self, now: UnixMillis, server: &ServerKey, room: &str) {
        let due: Vec<_> = self
            .retired
            .iter()
            .filter(|((of, name, _), due)| of == server && name == room && **due <= now)
            .map(|(retirement, _)| retirement.clone())
            .collect();
        for retirement in due {
            self.retired.remove(&retirement);
            let (server, name, who) = retirement;
            let Some(key) = RoomKey::parse(&name) else { continue };
            let Some(identity) = who else {
                // It may have been chosen again meanwhile.
                if self.pins.find(key).is_none_or(|pin| pin.server != server) {
                    self.ask_room(server, key, RoomAction::Delete);
                }
                continue;
            };
            if let Some((_, id)) = parse_identity(&identity) {
                let is_it = |connection: &&Connection| connection.room == key && connection.server == server;
                if self.states.find(&id).filter(is_it).is_some() {
                    self.depart(now, &id, false);
                }
            }
            self.ask_room(server, key, RoomAction::Remove { identity });
        }
    }

    pub(super) fn reconcile_due(&mut self, now: UnixMillis, room: RoomKey) {
        let Some(pin) = self.pins.find(room) else { return };
        let server = pin.server.clone();
        // Rooms begin at different times, so that their looks are spread by themselves.
        self.at(now.after(self.settings.reconcile_interval), Timer::Reconcile(room));
        self.ask_room(server, room, RoomAction::List);
    }

    /// Everybody who is connected to a room on `server`: what is not known here is confirmed or removed, what is only
    /// known here has ended.
    pub fn handle_participants(&mut self, now: UnixMillis, server: &ServerKey, room: &str, seen: &[Seen]) {
        let Some(key) = RoomKey::parse(room) else { return };
        for participant in seen {
            let Some((user, id)) = parse_identity(&participant.identity) else {
                continue;
            };
            let known = self.states.find(&id).is_some_and(|connection| {
                connection.user == user && connection.room == key && connection.server == *server
            });
            let retiring = (server.clone(), room.to_owned(), Some(participant.identity.clone()));
            let left_since = self
                .states
                .left_until(&id)
                .is_some_and(|until| until.since(now) > RETURN_WINDOW.saturating_sub(LOOK_AGE));
            if known || left_since || self.retired.contains_key(&retiring) {
                continue;
            }
            self.handle_participant_joined(now, server, room, participant);
        }
        let present: BTreeSet<&str> = seen.iter().map(|participant| participant.identity.as_str()).collect();
        let ghosts: Vec<ConnectionId> = self
            .states
            .in_room(key)
            .filter(|connection| connection.server == *server && now.since(connection.since) >= LOOK_AGE)
            .filter(|connection| !present.contains(identity(connection.user, &connection.id).as_str()))
            .map(|connection| connection.id.clone())
            .collect();
        for id in ghosts {
            self.depart(now, &id, true);
        }
    }

    /// After a restart of this process whoever is still in a pinned room, with a token of ours and the rights to be
    /// there, is taken up again.
    fn restored(
        &mut self,
        now: UnixMillis,
        server: &ServerKey,
        room: RoomKey,
        user: UserId,
        id: &ConnectionId,
        seen: &Seen,
    ) -> bool {
        let pin = self.pins.find(room).filter(|pin| pin.server == *server);
        let from_before = pin.is_some_and(|pin| pin.updated_at < self.started);
        let from_before = from_before && now < self.started.after(RESTORE_WINDOW);
        let Some(nonce) = seen.nonce.clone().filter(|_| from_before && self.states.is_free(id)) else {
            return false;
        };
        let Ok(standing) = self.standing(now, user, room) else {
            return false;
        };
        let connection = Connection {
            id: id.clone(),
            user,
            room,
            server: server.clone(),
            session: None,
            nonce,
            own: Default::default(),
            rights: standing.rights,
            asserted: false,
            mute: standing.mute,
            deaf: standing.deaf,
            version: 0,
            since: now,
            participant: seen.participant.clone(),
            enforced: None,
        };
        self.confirm(now, connection, seen);
        true
    }
}
