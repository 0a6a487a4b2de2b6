//! What moderators and the backend do to others: mute, deafen, move, disconnect.

use serde::Serialize;

use super::directory::ChannelType;
use super::domain::Voice;
use super::effect::{Change, Table};
use super::error::VoiceError;
use super::ids::{ChannelId, ConnectionId, GuildId, RoomKey, UnixMillis, UserId};
use super::join::{Join, Standing};
use super::permissions::{Permissions, guild_permissions};
use super::states::Connection;

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    User(UserId),
    /// The backend, which has looked for itself.
    Backend,
}

#[derive(Clone, Debug, Default)]
pub struct Moderation {
    pub mute: Option<bool>,
    pub deaf: Option<bool>,
    /// The inner None: disconnect.
    pub channel: Option<Option<ChannelId>>,
    /// Only this one is moved or disconnected.
    pub connection: Option<ConnectionId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disconnected {
    pub success: bool,
    pub disconnected_count: usize,
}

impl Voice {
    /// Moves first, then mutes. Nothing is done when anything is not allowed.
    ///
    /// # Errors
    /// `MemberNotFound`, `PermissionDenied`, `UserNotInVoice`, `InvalidChannelId`, `InvalidChannelType`, …
    pub fn moderate(
        &mut self,
        now: UnixMillis,
        actor: Actor,
        guild: GuildId,
        user: UserId,
        moderation: &Moderation,
    ) -> Result<(), VoiceError> {
        self.check_moderator(actor, guild, user, moderation)?;
        if moderation.mute.is_some() || moderation.deaf.is_some() || moderation.channel.is_some() {
            let in_voice = self.states.of_user_in_guild(user, guild).next().is_some();
            if !in_voice && self.ids_of(user, |room| room.guild() == Some(guild)).is_empty() {
                return Err(VoiceError::UserNotInVoice);
            }
        }
        match moderation.channel {
            Some(Some(channel)) => {
                self.check_destination(actor, guild, channel)?;
                self.move_user(now, guild, user, channel, moderation.connection.as_ref())?;
            }
            Some(None) => self.disconnect_user(now, guild, user, moderation.connection.as_ref())?,
            None => {}
        }
        if moderation.mute.is_some() || moderation.deaf.is_some() {
            self.set_member_voice(now, guild, user, moderation.mute, moderation.deaf);
        }
        Ok(())
    }

    fn check_moderator(
        &self,
        actor: Actor,
        guild: GuildId,
        user: UserId,
        moderation: &Moderation,
    ) -> Result<(), VoiceError> {
        let found = self.directory.guild(guild).ok_or(VoiceError::GuildNotFound)?;
        if let Actor::User(actor) = actor {
            // Whoever is not in it hears nothing of it.
            let member = found.members.get(&actor).ok_or(VoiceError::GuildNotFound)?;
            let may = guild_permissions(found, member);
            let deafens = match self.settings.mute_permission_deafens {
                true => Permissions::MUTE_MEMBERS,
                false => Permissions::DEAFEN_MEMBERS,
            };
            let needed = [
                (moderation.mute.is_some(), Permissions::MUTE_MEMBERS),
                (moderation.deaf.is_some(), deafens),
                (moderation.channel.is_some(), Permissions::MOVE_MEMBERS),
            ];
            if needed
                .iter()
                .any(|(asked, permission)| *asked && !may.contains(*permission))
            {
                return Err(VoiceError::PermissionDenied);
            }
        }
        found.members.get(&user).map(|_| ()).ok_or(VoiceError::MemberNotFound)
    }

    fn check_destination(&self, actor: Actor, guild: GuildId, channel: ChannelId) -> Result<(), VoiceError> {
        let found = self
            .directory
            .channel(channel)
            .filter(|found| found.guild == Some(guild));
        let found = found.ok_or(VoiceError::InvalidChannelId)?;
        if found.kind != ChannelType::Voice {
            return Err(VoiceError::InvalidChannelType);
        }
        let Actor::User(actor) = actor else { return Ok(()) };
        let may = self.directory.permissions(guild, channel, actor).unwrap_or_default();
        match may.contains(Permissions::VIEW_CHANNEL | Permissions::CONNECT) {
            true => Ok(()),
            false => Err(VoiceError::ModeratorCannotConnect),
        }
    }

    fn chosen(
        &self,
        guild: GuildId,
        user: UserId,
        only: Option<&ConnectionId>,
    ) -> Result<Vec<ConnectionId>, VoiceError> {
        let mut ids = self.ids_of(user, |room| room.guild() == Some(guild));
        if let Some(only) = only {
            ids.retain(|id| id == only);
            if ids.is_empty() {
                return Err(VoiceError::ConnectionNotFound);
            }
        }
        Ok(ids)
    }

    /// Wherever the user's own rights end: a moved user may be there.
    fn move_user(
        &mut self,
        now: UnixMillis,
        guild: GuildId,
        user: UserId,
        channel: ChannelId,
        only: Option<&ConnectionId>,
    ) -> Result<(), VoiceError> {
        let room = RoomKey::Guild { guild, channel };
        let ids = self.chosen(guild, user, only)?;
        let was_granted = !self.virtual_access.insert((user, channel));
        self.virtual_changed.mark(&(user, channel));
        for id in ids {
            let pending = self.states.pending(&id).map(|pending| &pending.connection);
            let Some(old) = self.states.find(&id).or(pending).cloned() else {
                continue;
            };
            if old.room == room {
                continue;
            }
            let destination = self.destination(now, user, room);
            let (standing, server) = match destination {
                Ok(destination) => destination,
                Err(error) => {
                    if !was_granted {
                        self.end_virtual_access(user, channel);
                    }
                    return Err(error);
                }
            };
            let was_connected = self.depart(now, &id, false).is_some();
            self.withdraw(now, &id);
            if was_connected {
                // Silent and deaf at once; out when the client had the time to go by itself.
                let grace = self.settings.move_grace;
                self.silence(&old);
                self.retire(now, &old, grace);
            }
            let new = Connection {
                rights: standing.rights,
                mute: standing.mute,
                deaf: standing.deaf,
                asserted: false,
                ..old
            };
            self.invite(now, new, room, server);
        }
        if !self
            .states
            .in_room(room)
            .chain(self.states.pending_in(room))
            .any(|connection| connection.user == user)
        {
            self.end_virtual_access(user, channel);
        }
        Ok(())
    }

    fn destination(
        &mut self,
        now: UnixMillis,
        user: UserId,
        room: RoomKey,
    ) -> Result<(Standing, super::topology::ServerKey), VoiceError> {
        let standing = self.standing(now, user, room)?;
        let join = Join::new(user, room.guild(), room.channel());
        let server = self.place(now, room, &join)?;
        Ok((standing, server))
    }

    fn silence(&mut self, old: &Connection) {
        let identity = super::ids::identity(old.user, &old.id);
        let grant = super::rights::MediaGrant {
            subscribe: false,
            microphone: false,
            camera: false,
            screen: false,
        };
        let action = super::effect::RoomAction::Permit { identity, grant };
        self.ask_room(old.server.clone(), old.room, action);
    }

    fn disconnect_user(
        &mut self,
        now: UnixMillis,
        guild: GuildId,
        user: UserId,
        only: Option<&ConnectionId>,
    ) -> Result<(), VoiceError> {
        for id in self.chosen(guild, user, only)? {
            self.disconnect(now, &id);
        }
        Ok(())
    }

    fn set_member_voice(
        &mut self,
        now: UnixMillis,
        guild: GuildId,
        user: UserId,
        mute: Option<bool>,
        deaf: Option<bool>,
    ) {
        if let Some(stored) = self.directory.set_member_voice(guild, user, mute, deaf) {
            self.keep(Change::put(Table::Directory, stored.name, &stored.entry));
        }
        let concerns = |room: RoomKey| room.guild() == Some(guild);
        for id in self.ids_of(user, concerns) {
            self.set_voice_of(now, &id, mute, deaf);
        }
    }

    /// Mute and deafness of one connection.
    pub(super) fn set_voice_of(&mut self, now: UnixMillis, id: &ConnectionId, mute: Option<bool>, deaf: Option<bool>) {
        if let Some(pending) = self.states.pending_mut(id) {
            let connection = &mut pending.connection;
            connection.mute = mute.unwrap_or(connection.mute);
            connection.deaf = deaf.unwrap_or(connection.deaf);
        }
        if let Some(connection) = self.states.find(id) {
            let standing = Standing {
                rights: connection.rights,
                mute: mute.unwrap_or(connection.mute),
                deaf: deaf.unwrap_or(connection.deaf),
            };
            self.set_standing(now, id, standing);
        }
    }

    /// The backend mutes or deafens whatever a user has in a room.
    pub fn assert_voice(&mut self, now: UnixMillis, room: RoomKey, user: UserId, mute: bool, deaf: bool) {
        if let Some(guild) = room.guild()
            && self.directory.member(guild, user).is_some()
        {
            return self.set_member_voice(now, guild, user, Some(mute), Some(deaf));
        }
        for id in self.ids_of(user, |of| of == room) {
            self.set_voice_of(now, &id, Some(mute), Some(deaf));
        }
    }

    /// The backend ends one connection. One that is not there is gone already.
    pub fn assert_disconnect(&mut self, now: UnixMillis, room: RoomKey, user: UserId, id: &ConnectionId) {
        let pending = self.states.pending(id).map(|pending| &pending.connection);
        let found = self.states.find(id).or(pending);
        if found.is_some_and(|found| found.user == user && found.room == room) {
            self.disconnect(now, id);
        } else if let Some(pin) = self.pins.find(room) {
            // It may be in the room without our knowing.
            let identity = super::ids::identity(user, id);
            let server = pin.server.clone();
            self.ask_room(server, room, super::effect::RoomAction::Remove { identity });
        }
    }

    /// Everybody in a channel is out.
    pub fn disconnect_channel(&mut self, now: UnixMillis, room: RoomKey) -> Disconnected {
        let connected: Vec<ConnectionId> = self
            .states
            .in_room(room)
            .map(|connection| connection.id.clone())
            .collect();
        let pending: Vec<ConnectionId> = self
            .states
            .pending_in(room)
            .map(|connection| connection.id.clone())
            .collect();
        let disconnected_count = connected.len();
        for id in connected.into_iter().chain(pending) {
            self.disconnect(now, &id);
        }
        Disconnected {
            success: true,
            disconnected_count,
        }
    }

    /// Whether `user` may act on what others do in a channel: mute them or send them away.
    pub fn may_moderate(&self, user: UserId, room: RoomKey, permission: Permissions) -> bool {
        let Some(guild) = room.guild() else { return false };
        let may = self.directory.permissions(guild, room.channel(), user);
        may.is_some_and(|may| may.contains(Permissions::VIEW_CHANNEL | permission))
    }
}
