//! What users say of their own connections: here I am, muted, elsewhere, gone.

use super::domain::Voice;
use super::effect::RoomAction;
use super::error::VoiceError;
use super::ids::{ChannelId, ConnectionId, GuildId, RoomKey, SessionId, UnixMillis, UserId, identity};
use super::join::{Join, Ticket};
use super::limits::{Bucket, Limit};
use super::states::{Connection, SelfState};
use super::topology::Coordinates;

/// Of one user; a person toggles faster only for fun.
const UPDATES: Limit = Limit::new(60, std::time::Duration::from_secs(10));

/// Op 4, and its like over HTTP.
#[derive(Clone, Debug)]
pub struct StateUpdate {
    pub guild: Option<GuildId>,
    /// None: leave.
    pub channel: Option<ChannelId>,
    /// None: a new connection, or with no channel: all of them.
    pub connection: Option<ConnectionId>,
    pub own: SelfState,
    pub coordinates: Option<Coordinates>,
}

/// What an update came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// A token was given, for a new connection or another channel.
    Joining(Ticket),
    Changed(ConnectionId),
    Left,
}

impl Voice {
    /// # Errors
    /// The first documented reason against it; nothing has changed then.
    pub fn handle_update(
        &mut self,
        now: UnixMillis,
        user: UserId,
        session: Option<SessionId>,
        update: StateUpdate,
    ) -> Result<Updated, VoiceError> {
        let bucket = (user.0, "voice state", 0);
        self.limits
            .take(now, bucket, UPDATES)
            .map_err(|_| VoiceError::UpdateRateLimited)?;
        let Some(channel) = update.channel else {
            return self.leave(now, user, &update).map(|()| Updated::Left);
        };
        match update.connection.clone() {
            None => {
                let join = Join {
                    session,
                    own: update.own,
                    coordinates: update.coordinates,
                    ..Join::new(user, update.guild, channel)
                };
                self.join(now, join).map(Updated::Joining)
            }
            Some(id) => self.update(now, user, session, &id, channel, update),
        }
    }

    fn update(
        &mut self,
        now: UnixMillis,
        user: UserId,
        session: Option<SessionId>,
        id: &ConnectionId,
        channel: ChannelId,
        update: StateUpdate,
    ) -> Result<Updated, VoiceError> {
        let pending = self.states.pending(id).map(|pending| &pending.connection);
        let connection = pending.or(self.states.find(id)).ok_or(VoiceError::ConnectionNotFound)?;
        if connection.user != user {
            return Err(VoiceError::UserMismatch);
        }
        let room = connection.room;
        if room.guild() != update.guild && update.guild.is_some() {
            return Err(VoiceError::InvalidGuildId);
        }
        if room.channel() != channel {
            return self.change_channel(now, user, session, id, channel, update);
        }
        if update.own.video && !connection.own.video {
            self.check_camera(room, user)?;
        }
        self.check_viewer_keys(room, &update.own.viewer_stream_keys)?;
        // Who is on the way there shows it on arrival.
        if let Some(pending) = self.states.pending_mut(id) {
            pending.connection.own = update.own;
        } else if let Some(connection) = self.states.find_mut(id) {
            connection.own = update.own;
            connection.version += 1;
            if session.is_some() {
                connection.session = session;
            }
            self.announce(now, id);
        }
        Ok(Updated::Changed(id.clone()))
    }

    /// The same connection in another channel: as if it came anew, and gone from the old one when nothing is against it.
    fn change_channel(
        &mut self,
        now: UnixMillis,
        user: UserId,
        session: Option<SessionId>,
        id: &ConnectionId,
        channel: ChannelId,
        update: StateUpdate,
    ) -> Result<Updated, VoiceError> {
        let join = Join {
            session,
            connection: Some(id.clone()),
            own: update.own,
            coordinates: update.coordinates,
            ..Join::new(user, update.guild, channel)
        };
        let before = self.states.pending(id).map(|pending| pending.connection.room);
        let ticket = self.join(now, join)?;
        if let Some(room) = before {
            self.after_departure(now, room, user);
        }
        if let Some(old) = self.depart(now, id, false) {
            let grace = self.settings.move_grace;
            self.retire(now, &old, grace);
        }
        Ok(Updated::Joining(ticket))
    }

    fn leave(&mut self, now: UnixMillis, user: UserId, update: &StateUpdate) -> Result<(), VoiceError> {
        let ids: Vec<ConnectionId> = match (&update.connection, update.guild) {
            (Some(id), _) => {
                let pending = self.states.pending(id).map(|pending| &pending.connection);
                let connection = self.states.find(id).or(pending).ok_or(VoiceError::ConnectionNotFound)?;
                if connection.user != user {
                    return Err(VoiceError::UserMismatch);
                }
                vec![id.clone()]
            }
            (None, Some(_)) => return Err(VoiceError::MissingConnectionId),
            (None, None) => self.ids_of(user, |_| true),
        };
        for id in ids {
            self.disconnect(now, &id);
        }
        Ok(())
    }

    /// A connection, or one that is expected.
    pub fn connection(&self, id: &ConnectionId) -> Option<&Connection> {
        let pending = self.states.pending(id).map(|pending| &pending.connection);
        self.states.find(id).or(pending)
    }

    /// A user's connections in a guild, expected ones too.
    pub fn connections_in(&self, user: UserId, guild: GuildId) -> Vec<ConnectionId> {
        self.ids_of(user, |room| room.guild() == Some(guild))
    }

    /// # Errors
    /// `RateLimited`, with the time to wait.
    pub fn take_limit(&mut self, now: UnixMillis, bucket: Bucket, limit: Limit) -> Result<(), VoiceError> {
        self.limits.take(now, bucket, limit).map_err(VoiceError::RateLimited)
    }

    /// Connections of a user, pending ones too.
    pub(super) fn ids_of(&self, user: UserId, concerns: impl Fn(RoomKey) -> bool) -> Vec<ConnectionId> {
        let pending = self.states.all_pending().filter(|pending| pending.user == user);
        let mut ids: Vec<ConnectionId> = self
            .states
            .of_user(user)
            .chain(pending)
            .filter(|connection| concerns(connection.room))
            .map(|connection| connection.id.clone())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Out at once, wherever it is on its way.
    pub(super) fn disconnect(&mut self, now: UnixMillis, id: &ConnectionId) {
        if let Some(pending) = self.states.forget_pending(id) {
            let connection = pending.connection;
            let identity = identity(connection.user, id);
            self.ask_room(connection.server, connection.room, RoomAction::Remove { identity });
            self.after_departure(now, connection.room, connection.user);
        }
        self.expel(now, id);
    }
}
