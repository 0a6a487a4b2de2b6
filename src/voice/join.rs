//! The way in: who may come, where to, and the token that says so.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;

use super::directory::ChannelType;
use super::domain::{Timer, Voice};
use super::effect::RoomAction;
use super::error::VoiceError;
use super::ids::{ChannelId, ConnectionId, GuildId, RoomKey, SessionId, StreamKey, UnixMillis, UserId, identity};
use super::permissions::Permissions;
use super::rights::{Claim, MediaGrant, Rights};
use super::states::{Connection, Pending, SelfState};
use super::topology::Coordinates;

/// Devices of one user in voice, or on their way there: an account that has more is not a person.
const MAX_CONNECTIONS_OF_USER: usize = 32;
/// Joins expected at a time; each waits 30 s at most. Further ones are refused.
const MAX_PENDING: usize = 50_000;
/// Streams that one viewer names.
const MAX_VIEWER_KEYS: usize = 32;
/// Bytes of a nonce that the backend chose.
const MAX_NONCE: usize = 128;

/// Who says what a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    Directory,
    /// The backend, which was asked by the user.
    Asserted {
        rights: Rights,
        mute: bool,
        deaf: bool,
    },
}

#[derive(Clone, Debug)]
pub struct Join {
    pub user: UserId,
    /// None: as the channel says.
    pub guild: Option<GuildId>,
    pub channel: ChannelId,
    /// To be told; None: whoever asks takes the answer.
    pub session: Option<SessionId>,
    /// Kept through a move of one's own.
    pub connection: Option<ConnectionId>,
    pub nonce: Option<String>,
    pub region: Option<String>,
    /// A region that does not exist is an error, not "as you like".
    pub region_must_exist: bool,
    pub coordinates: Option<Coordinates>,
    pub own: SelfState,
    pub authority: Authority,
}

impl Join {
    pub fn new(user: UserId, guild: Option<GuildId>, channel: ChannelId) -> Self {
        Self {
            user,
            guild,
            channel,
            session: None,
            connection: None,
            nonce: None,
            region: None,
            region_must_exist: false,
            coordinates: None,
            own: SelfState::default(),
            authority: Authority::Directory,
        }
    }
}

/// What a client connects with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    pub token: String,
    pub endpoint: String,
    pub connection_id: ConnectionId,
    pub token_nonce: String,
    pub region_id: String,
    pub server_id: String,
}

/// How a user stands towards a room, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub rights: Rights,
    pub mute: bool,
    pub deaf: bool,
}

impl Voice {
    /// A token for a room. The join is expected from now on; nobody sees it before it happens.
    ///
    /// # Errors
    /// The first documented reason against it; nothing has changed then.
    pub fn join(&mut self, now: UnixMillis, join: Join) -> Result<Ticket, VoiceError> {
        let (room, standing) = self.check(now, &join)?;
        self.check_capacity(room, &join)?;
        self.check_viewer_keys(room, &join.own.viewer_stream_keys)?;
        self.check_bounds(&join)?;
        if self.storage_down {
            return Err(VoiceError::StorageDown);
        }
        let server = self.place(now, room, &join)?;
        let id = match join.connection {
            Some(id) => id,
            None => self.new_connection_id(),
        };
        let nonce = match join.nonce {
            Some(nonce) => nonce,
            None => self.new_nonce(),
        };
        let connection = Connection {
            id,
            user: join.user,
            room,
            server,
            session: join.session,
            nonce,
            own: join.own,
            rights: standing.rights,
            asserted: join.authority != Authority::Directory,
            mute: standing.mute,
            deaf: standing.deaf,
            version: 0,
            since: now,
            participant: String::new(),
            enforced: Some(MediaGrant::token(standing.rights, standing.deaf)),
        };
        Ok(self.expect(now, connection))
    }

    /// Gives a token for `connection`, and tells its session.
    pub(super) fn expect(&mut self, now: UnixMillis, connection: Connection) -> Ticket {
        let ticket = self.ticket(now, &connection);
        if let Some(session) = &connection.session {
            let mut update = json!({
                "token": ticket.token,
                "endpoint": ticket.endpoint,
                "channel_id": connection.room.channel(),
                "connection_id": connection.id,
            });
            if let (Some(guild), Some(fields)) = (connection.room.guild(), update.as_object_mut()) {
                fields.insert("guild_id".to_owned(), json!(guild));
            }
            self.dispatch(
                now,
                session.clone(),
                "VOICE_SERVER_UPDATE",
                Arc::from(update.to_string()),
            );
        }
        let expires = now.after(self.settings.pending_timeout);
        self.at(expires, Timer::Pending(connection.id.clone()));
        self.pins.used(connection.room);
        self.states.expect(Pending { connection, expires });
        ticket
    }

    fn ticket(&self, now: UnixMillis, connection: &Connection) -> Ticket {
        let server = self.topology.server(&connection.server);
        let mut metadata = json!({
            "user_id": connection.user,
            "channel_id": connection.room.channel(),
            "connection_id": connection.id,
            "region_id": connection.server.region,
            "server_id": connection.server.server,
            "token_nonce": connection.nonce,
            "issued_at": now.seconds().to_string(),
        });
        if let Some(fields) = metadata.as_object_mut() {
            match connection.room.guild() {
                Some(guild) => fields.insert("guild_id".to_owned(), json!(guild)),
                None => fields.insert("dm_call".to_owned(), json!("true")),
            };
        }
        let claim = Claim {
            identity: identity(connection.user, &connection.id),
            room: self.room_name(connection.room),
            metadata: metadata.to_string(),
            grant: MediaGrant::token(connection.rights, connection.deaf),
            api_key: server.map(|server| server.api_key.clone()).unwrap_or_default(),
            api_secret: server.map(|server| server.api_secret.clone()).unwrap_or_default(),
            ttl: self.settings.token_ttl.as_secs(),
            now: now.seconds(),
        };
        Ticket {
            token: self.sign(&claim),
            endpoint: server.map(|server| server.endpoint.clone()).unwrap_or_default(),
            connection_id: connection.id.clone(),
            token_nonce: connection.nonce.clone(),
            region_id: connection.server.region.clone(),
            server_id: connection.server.server.clone(),
        }
    }

    fn check(&self, now: UnixMillis, join: &Join) -> Result<(RoomKey, Standing), VoiceError> {
        match join.authority {
            Authority::Directory => {
                let room = self.room_for(join.user, join.guild, join.channel)?;
                let standing = self.standing(now, join.user, room)?;
                self.check_account(join.user, room)?;
                Ok((room, standing))
            }
            Authority::Asserted { rights, mute, deaf } => self.check_asserted(join, rights, mute, deaf),
        }
    }

    /// Without a directory the backend's word is all there is; with one it must not contradict it.
    fn check_asserted(
        &self,
        join: &Join,
        rights: Rights,
        mute: bool,
        deaf: bool,
    ) -> Result<(RoomKey, Standing), VoiceError> {
        let channel = join.channel;
        let room = match join.guild {
            Some(guild) => RoomKey::Guild { guild, channel },
            None => RoomKey::Dm { channel },
        };
        let mut standing = Standing { rights, mute, deaf };
        if self.directory.facts() > 0 {
            self.directory.user(join.user).ok_or(VoiceError::UserUnknown)?;
            let known = self.directory.channel(channel).ok_or(VoiceError::ChannelNotFound)?;
            if known.guild != join.guild {
                return Err(VoiceError::ChannelNotFound);
            }
            self.check_account(join.user, room)?;
            if let Some(guild) = join.guild {
                let member = self
                    .directory
                    .member(guild, join.user)
                    .ok_or(VoiceError::MemberNotFound)?;
                standing.mute |= member.mute;
                standing.deaf |= member.deaf;
            }
        }
        Ok((room, standing))
    }

    /// The room of a channel, as far as `user` may know of it.
    pub(super) fn room_for(
        &self,
        user: UserId,
        guild: Option<GuildId>,
        channel: ChannelId,
    ) -> Result<RoomKey, VoiceError> {
        if let Some(guild) = guild {
            self.directory.guild(guild).ok_or(VoiceError::GuildNotFound)?;
            self.directory.member(guild, user).ok_or(VoiceError::MemberNotFound)?;
            let found = self.directory.channel(channel).ok_or(VoiceError::ChannelNotFound)?;
            if found.guild != Some(guild) {
                return Err(VoiceError::ChannelNotFound);
            }
            return Ok(RoomKey::Guild { guild, channel });
        }
        let found = self.directory.channel(channel).ok_or(VoiceError::DmChannelNotFound)?;
        match found.guild {
            // Whoever is not in that guild hears what they would hear of a channel that is not there.
            Some(guild) => {
                self.directory
                    .member(guild, user)
                    .ok_or(VoiceError::DmChannelNotFound)?;
                Ok(RoomKey::Guild { guild, channel })
            }
            None => Ok(RoomKey::Dm { channel }),
        }
    }

    /// What `user` may do in `room` by the directory, or why they may not be there at all.
    pub(super) fn standing(&self, now: UnixMillis, user: UserId, room: RoomKey) -> Result<Standing, VoiceError> {
        let RoomKey::Guild { guild, channel } = room else {
            return self.standing_in_conversation(user, room.channel());
        };
        let guild = self.directory.guild(guild).ok_or(VoiceError::GuildNotFound)?;
        let member = guild.members.get(&user).ok_or(VoiceError::MemberNotFound)?;
        let found = self
            .directory
            .channel(channel)
            .filter(|found| found.guild == Some(guild.id));
        let found = found.ok_or(VoiceError::ChannelNotFound)?;
        if found.kind != ChannelType::Voice {
            return Err(VoiceError::InvalidChannelType);
        }
        if member.is_timed_out(now) {
            return Err(VoiceError::TimedOut);
        }
        let may = super::permissions::channel_permissions(guild, member, found);
        let rights = if self.virtual_access.contains(&(user, channel)) {
            Rights::ALL
        } else if may.contains(Permissions::VIEW_CHANNEL | Permissions::CONNECT) {
            let stream = may.contains(Permissions::STREAM);
            Rights {
                speak: may.contains(Permissions::SPEAK),
                stream,
                video: stream,
            }
        } else {
            return Err(VoiceError::PermissionDenied);
        };
        Ok(Standing {
            rights,
            mute: member.mute,
            deaf: member.deaf,
        })
    }

    fn standing_in_conversation(&self, user: UserId, channel: ChannelId) -> Result<Standing, VoiceError> {
        let found = self.directory.channel(channel).ok_or(VoiceError::DmChannelNotFound)?;
        if !found.kind.is_call() || found.guild.is_some() {
            return Err(VoiceError::DmInvalidChannelType);
        }
        if !found.recipients.contains(&user) {
            return Err(VoiceError::DmNotRecipient);
        }
        Ok(Standing {
            rights: Rights::ALL,
            mute: false,
            deaf: false,
        })
    }

    fn check_account(&self, user: UserId, room: RoomKey) -> Result<(), VoiceError> {
        let account = self.directory.user(user).ok_or(VoiceError::UserUnknown)?;
        if account.suspicious {
            return Err(VoiceError::Suspicious);
        }
        if !account.unclaimed || account.bot {
            return Ok(());
        }
        match room.guild() {
            Some(guild) if self.directory.guild(guild).and_then(|guild| guild.owner_id) == Some(user) => Ok(()),
            Some(_) => Err(VoiceError::UnclaimedChannel),
            None => {
                let channel = self.directory.channel(room.channel());
                match channel.is_some_and(|channel| channel.kind == ChannelType::Dm) {
                    true => Err(VoiceError::UnclaimedOneOnOne),
                    false => Ok(()),
                }
            }
        }
    }

    fn check_capacity(&self, room: RoomKey, join: &Join) -> Result<(), VoiceError> {
        let others = self.states.users_in(room, join.user);
        let limit = self
            .directory
            .channel(room.channel())
            .map_or(0, |channel| channel.user_limit) as usize;
        // Only a guild's channels have a limit, and the backend that asserts has counted by itself.
        if join.authority == Authority::Directory && room.guild().is_some() && limit > 0 && others >= limit {
            return Err(VoiceError::ChannelFull);
        }
        match join.own.video {
            true => self.check_camera(room, join.user),
            false => Ok(()),
        }
    }

    /// Whether `user` may switch a camera on among those who are there.
    pub(super) fn check_camera(&self, room: RoomKey, user: UserId) -> Result<(), VoiceError> {
        match self.states.users_in(room, user) + 1 > self.settings.camera_user_limit {
            true => Err(VoiceError::CameraLimit),
            false => Ok(()),
        }
    }

    /// Every key names a connection in this room.
    pub(super) fn check_viewer_keys(&self, room: RoomKey, keys: &[String]) -> Result<(), VoiceError> {
        if keys.len() > MAX_VIEWER_KEYS {
            return Err(VoiceError::InvalidState);
        }
        for key in keys {
            let key: StreamKey = key.parse().map_err(|_| VoiceError::InvalidState)?;
            if key.room != room {
                return Err(VoiceError::InvalidState);
            }
            let watched = self.states.find(&key.connection).filter(|watched| watched.room == room);
            watched.ok_or(VoiceError::ConnectionNotFound)?;
        }
        Ok(())
    }

    fn check_bounds(&self, join: &Join) -> Result<(), VoiceError> {
        if join
            .nonce
            .as_ref()
            .is_some_and(|nonce| nonce.is_empty() || nonce.len() > MAX_NONCE)
        {
            return Err(VoiceError::InvalidParameters);
        }
        if let Some(id) = &join.connection {
            let taken = self
                .states
                .find(id)
                .or(self.states.pending(id).map(|pending| &pending.connection));
            if taken.is_some_and(|taken| taken.user != join.user) {
                return Err(VoiceError::UserMismatch);
            }
        }
        let of_user = self.states.of_user(join.user).count();
        let expected = self
            .states
            .all_pending()
            .filter(|pending| pending.user == join.user)
            .count();
        match of_user + expected >= MAX_CONNECTIONS_OF_USER || self.states.pending_len() >= MAX_PENDING {
            true => Err(VoiceError::Full),
            false => Ok(()),
        }
    }

    pub(super) fn pending_due(&mut self, now: UnixMillis, id: &ConnectionId) {
        if self.states.pending(id).is_none_or(|pending| pending.expires > now) {
            return;
        }
        if let Some(pending) = self.states.forget_pending(id) {
            let connection = pending.connection;
            // It may have come without our being told.
            if self.states.find(id).is_none() {
                let identity = identity(connection.user, id);
                self.ask_room(connection.server, connection.room, RoomAction::Remove { identity });
            }
            self.after_departure(now, connection.room, connection.user);
        }
    }
}
