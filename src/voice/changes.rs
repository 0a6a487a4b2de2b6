//! What changes while people are connected: rights by the directory, a channel's region, a server that is gone.

use std::collections::BTreeSet;

use serde::Serialize;

use super::directory::{ChannelType, Entry, Touched};
use super::domain::Voice;
use super::effect::{Change, Table};
use super::error::VoiceError;
use super::ids::{ChannelId, ConnectionId, RoomKey, UnixMillis, UserId};
use super::join::Standing;
use super::permissions::Permissions;
use super::rights::{MediaGrant, Rights};
use super::states::Connection;
use super::topology::{Access, Region, Server, ServerKey, Wish};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SyncSummary {
    pub applied: usize,
    pub passed_over: usize,
}

impl Voice {
    /// Takes the backend's facts; rooms follow at once.
    ///
    /// # Errors
    /// Nothing is taken when any of them is not acceptable.
    pub fn handle_sync(&mut self, now: UnixMillis, entries: Vec<Entry>) -> Result<SyncSummary, VoiceError> {
        if self.storage_down {
            return Err(VoiceError::StorageDown);
        }
        let outcome = self.directory.sync(entries)?;
        let summary = SyncSummary {
            applied: outcome.applied.len(),
            passed_over: outcome.passed_over,
        };
        for stored in outcome.applied {
            self.keep(Change::put(Table::Directory, stored.name, &stored.entry));
        }
        self.reapply(now, &outcome.touched);
        for channel in outcome.touched.regions {
            self.region_changed(now, channel);
        }
        Ok(summary)
    }

    /// Looks again at everybody whom a change may concern.
    fn reapply(&mut self, now: UnixMillis, touched: &Touched) {
        let concerns = |connection: &&Connection| {
            touched.users.contains(&connection.user)
                || touched.channels.contains(&connection.room.channel())
                || connection
                    .room
                    .guild()
                    .is_some_and(|guild| touched.guilds.contains(&guild))
        };
        let connected: Vec<ConnectionId> = self
            .states
            .all()
            .filter(concerns)
            .map(|connection| connection.id.clone())
            .collect();
        let pending = self.states.all_pending().filter(concerns);
        let pending: Vec<ConnectionId> = pending.map(|connection| connection.id.clone()).collect();
        self.reapply_to(now, connected, pending);
    }

    pub(super) fn reapply_to(&mut self, now: UnixMillis, connected: Vec<ConnectionId>, pending: Vec<ConnectionId>) {
        for id in connected {
            let Some(connection) = self.states.find(&id) else {
                continue;
            };
            match self.standing_of(now, connection) {
                Ok(standing) => self.set_standing(now, &id, standing),
                Err(_) => self.expel(now, &id),
            }
        }
        for id in pending {
            let Some(pending) = self.states.pending(&id) else {
                continue;
            };
            match self.standing_of(now, &pending.connection) {
                Ok(standing) => {
                    if let Some(pending) = self.states.pending_mut(&id) {
                        let connection = &mut pending.connection;
                        (connection.rights, connection.mute, connection.deaf) =
                            (standing.rights, standing.mute, standing.deaf);
                    }
                }
                Err(_) => self.withdraw(now, &id),
            }
        }
    }

    /// The token is good for nothing any more.
    pub(super) fn withdraw(&mut self, now: UnixMillis, id: &ConnectionId) {
        if let Some(pending) = self.states.forget_pending(id) {
            self.after_departure(now, pending.connection.room, pending.connection.user);
        }
    }

    fn standing_of(&self, now: UnixMillis, connection: &Connection) -> Result<Standing, VoiceError> {
        if !connection.asserted {
            return self.standing(now, connection.user, connection.room);
        }
        let standing = Standing {
            rights: connection.rights,
            mute: connection.mute,
            deaf: connection.deaf,
        };
        // What was asserted holds; who has left the guild, or may not speak at all for a time, is out nevertheless.
        let Some(guild) = connection.room.guild().filter(|_| self.directory.facts() > 0) else {
            return Ok(standing);
        };
        let member = self
            .directory
            .member(guild, connection.user)
            .ok_or(VoiceError::MemberNotFound)?;
        self.directory
            .channel(connection.room.channel())
            .ok_or(VoiceError::ChannelNotFound)?;
        match member.is_timed_out(now) {
            true => Err(VoiceError::TimedOut),
            false => Ok(standing),
        }
    }

    /// Tells the room what has changed, and everybody where that shows.
    pub(super) fn set_standing(&mut self, now: UnixMillis, id: &ConnectionId, standing: Standing) {
        let Some(connection) = self.states.find_mut(id) else {
            return;
        };
        let shows = (connection.mute, connection.deaf) != (standing.mute, standing.deaf);
        (connection.rights, connection.mute, connection.deaf) = (standing.rights, standing.mute, standing.deaf);
        connection.version += u64::from(shows);
        // Media first: what is told is true then.
        self.enforce(id);
        if shows {
            self.announce(now, id);
        }
    }

    /// The backend states what one connection may do from now on.
    ///
    /// # Errors
    /// `ConnectionNotFound`.
    pub fn assert_rights(&mut self, now: UnixMillis, id: &ConnectionId, rights: Rights) -> Result<(), VoiceError> {
        if let Some(pending) = self.states.pending_mut(id) {
            (pending.connection.rights, pending.connection.asserted) = (rights, true);
            return Ok(());
        }
        let connection = self.states.find_mut(id).ok_or(VoiceError::ConnectionNotFound)?;
        connection.asserted = true;
        let standing = Standing {
            rights,
            mute: connection.mute,
            deaf: connection.deaf,
        };
        self.set_standing(now, id, standing);
        Ok(())
    }

    /// Regions that `user` may choose for a channel that they can see.
    ///
    /// # Errors
    /// `ChannelNotFound`.
    pub fn regions_for(&self, user: UserId, channel: ChannelId) -> Result<Vec<&Region>, VoiceError> {
        if !self.directory.can_see(channel, user) {
            return Err(VoiceError::ChannelNotFound);
        }
        let access = self.access(user, channel);
        Ok(self.topology.accessible_regions(access).collect())
    }

    fn access(&self, user: UserId, channel: ChannelId) -> Access<'_> {
        let guild = self.directory.channel(channel).and_then(|channel| channel.guild);
        let features = guild
            .and_then(|guild| self.directory.guild(guild))
            .map(|guild| &guild.features);
        Access {
            user,
            guild: guild.map(|guild| (guild, features)),
        }
    }

    /// A user sets a channel's region; None = automatic.
    ///
    /// # Errors
    /// `ChannelNotFound`, `InvalidChannelType`, `PermissionDenied`, `RestrictedRegion`.
    pub fn set_region(
        &mut self,
        now: UnixMillis,
        user: UserId,
        channel: ChannelId,
        region: Option<String>,
    ) -> Result<(), VoiceError> {
        if !self.directory.can_see(channel, user) {
            return Err(VoiceError::ChannelNotFound);
        }
        let found = self.directory.channel(channel).ok_or(VoiceError::ChannelNotFound)?;
        let guild = found
            .guild
            .filter(|_| found.kind == ChannelType::Voice)
            .ok_or(VoiceError::InvalidChannelType)?;
        let may = self.directory.permissions(guild, channel, user).unwrap_or_default();
        if !may.contains(Permissions::UPDATE_RTC_REGION) {
            return Err(VoiceError::PermissionDenied);
        }
        if let Some(region) = &region {
            let access = self.access(user, channel);
            let accessible = self
                .topology
                .accessible_regions(access)
                .any(|known| known.id == *region);
            if !accessible {
                return Err(VoiceError::RestrictedRegion);
            }
        }
        if found.rtc_region == region {
            return Ok(());
        }
        if let Some(stored) = self.directory.set_rtc_region(channel, region) {
            self.keep(Change::put(Table::Directory, stored.name, &stored.entry));
        }
        self.region_changed(now, channel);
        Ok(())
    }

    /// The channel's region is another one: a new pin, and everybody is told where to go.
    fn region_changed(&mut self, now: UnixMillis, channel: ChannelId) {
        let Some(found) = self.directory.channel(channel) else {
            return;
        };
        let Some(guild) = found.guild else { return };
        let region = found.rtc_region.clone();
        self.move_room(now, RoomKey::Guild { guild, channel }, region.as_deref());
    }

    /// Pins a room anew, and sends everybody after it. Without anybody in it the next join chooses.
    pub(super) fn move_room(&mut self, now: UnixMillis, room: RoomKey, region: Option<&str>) {
        let Some(pin) = self.pins.find(room) else { return };
        if region.is_some_and(|region| region == pin.server.region) {
            return;
        }
        let first = self.states.in_room(room).chain(self.states.pending_in(room)).next();
        let Some(user) = first.map(|connection| connection.user) else {
            return self.unpin(room);
        };
        let features = room.guild().and_then(|guild| self.directory.guild(guild));
        let features = features.map(|guild| guild.features.clone());
        let wish = Wish {
            access: Access {
                user,
                guild: room.guild().map(|guild| (guild, features.as_ref())),
            },
            region,
            coordinates: None,
            room,
        };
        let Some(server) = self.topology.choose(&wish) else {
            return;
        };
        self.pin(now, room, server);
        self.follow_pin(now, room);
    }

    /// Everybody who is not where the room is pinned gets a new token, under a new name; the old room goes on for the
    /// time that takes.
    pub(super) fn follow_pin(&mut self, now: UnixMillis, room: RoomKey) {
        let Some(server) = self.pins.find(room).map(|pin| pin.server.clone()) else {
            return;
        };
        let grace = self.settings.region_grace;
        let mut left: BTreeSet<ServerKey> = BTreeSet::new();
        let connected: Vec<Connection> = self.states.in_room(room).cloned().collect();
        let pending: Vec<Connection> = self.states.pending_in(room).cloned().collect();
        for old in connected.into_iter().filter(|old| old.server != server) {
            self.retire(now, &old, grace);
            left.insert(old.server.clone());
            self.invite(now, old, room, server.clone());
        }
        for old in pending.into_iter().filter(|old| old.server != server) {
            self.states.forget_pending(&old.id);
            self.invite(now, old, room, server.clone());
        }
        for old in left {
            self.retire_room(now, old, room, grace);
        }
    }

    /// A token for a room, for the device of `old`, under a new name. A device without a session cannot be told.
    pub(super) fn invite(&mut self, now: UnixMillis, old: Connection, room: RoomKey, server: ServerKey) {
        if old.session.is_none() {
            return;
        }
        let connection = Connection {
            id: self.new_connection_id(),
            nonce: self.new_nonce(),
            room,
            server,
            version: 0,
            participant: String::new(),
            enforced: Some(MediaGrant::token(old.rights, old.deaf)),
            ..old
        };
        self.expect(now, connection);
    }

    /// # Errors
    /// The record is not acceptable, or cannot be kept.
    pub fn put_region(&mut self, region: Region) -> Result<(), VoiceError> {
        self.check_storage()?;
        self.topology.put_region(region.clone())?;
        self.keep(Change::put(Table::Regions, region.id.clone(), &region));
        Ok(())
    }

    /// A server that is switched off is left at once by the rooms that are on it.
    ///
    /// # Errors
    /// The record is not acceptable, its region is not there, or it cannot be kept.
    pub fn put_server(&mut self, now: UnixMillis, server: Server) -> Result<(), VoiceError> {
        self.check_storage()?;
        let key = server.key();
        self.topology.put_server(server.clone())?;
        self.keep(Change::put(Table::Servers, server_id(&key), &server));
        if !self.topology.is_usable(&key) {
            self.evacuate(now, &key);
        }
        Ok(())
    }

    /// # Errors
    /// `UnknownRegion`.
    pub fn remove_region(&mut self, now: UnixMillis, id: &str) -> Result<(), VoiceError> {
        self.check_storage()?;
        let servers = self.topology.remove_region(id).ok_or(VoiceError::UnknownRegion)?;
        self.keep(Change::remove(Table::Regions, id));
        for key in servers {
            self.keep(Change::remove(Table::Servers, server_id(&key)));
            self.evacuate(now, &key);
        }
        Ok(())
    }

    /// # Errors
    /// `UnknownServer`.
    pub fn remove_server(&mut self, now: UnixMillis, key: &ServerKey) -> Result<(), VoiceError> {
        self.check_storage()?;
        self.topology.remove_server(key).ok_or(VoiceError::UnknownServer)?;
        self.keep(Change::remove(Table::Servers, server_id(key)));
        self.evacuate(now, key);
        Ok(())
    }

    /// The driver has found a server away, or back.
    pub fn handle_server_health(&mut self, now: UnixMillis, key: &ServerKey, down: bool) {
        if self.topology.set_down(key, down) && down {
            self.evacuate(now, key);
        }
    }

    fn evacuate(&mut self, now: UnixMillis, key: &ServerKey) {
        let rooms: Vec<RoomKey> = self
            .pins
            .iter()
            .filter(|(_, pin)| pin.server == *key)
            .map(|(room, _)| room)
            .collect();
        for room in rooms {
            self.move_room(now, room, None);
        }
    }

    fn check_storage(&self) -> Result<(), VoiceError> {
        match self.storage_down {
            true => Err(VoiceError::StorageDown),
            false => Ok(()),
        }
    }
}

fn server_id(key: &ServerKey) -> String {
    format!("{}/{}", key.region, key.server)
}
