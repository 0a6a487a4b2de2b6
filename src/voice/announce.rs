//! Who is told what: voice states to those who may see the channel, and nobody else.

use std::sync::Arc;

use serde_json::{Value, json};

use super::domain::Voice;
use super::ids::{ChannelId, ConnectionId, GuildId, RoomKey, SessionId, UnixMillis, UserId};
use super::states::{Connection, VoiceState};

impl Voice {
    /// A connection as clients see it.
    pub fn voice_state<'a>(&self, connection: &'a Connection) -> VoiceState<'a> {
        let own = &connection.own;
        VoiceState {
            guild_id: connection.room.guild(),
            channel_id: Some(connection.room.channel()),
            user_id: connection.user,
            connection_id: &connection.id,
            session_id: connection.session.as_ref().map_or("", |session| &session.0),
            mute: connection.mute,
            deaf: connection.deaf,
            self_mute: own.mute,
            self_deaf: own.deaf,
            self_video: own.video,
            self_stream: own.stream,
            is_mobile: own.is_mobile,
            suppress: false,
            viewer_stream_key: own.viewer_stream_keys.first().map(String::as_str),
            viewer_stream_keys: &own.viewer_stream_keys,
            version: connection.version,
            member: connection
                .room
                .guild()
                .and_then(|guild| self.member_json(guild, connection.user)),
        }
    }

    /// A member as HTTP and voice states show it.
    pub fn member_json(&self, guild: GuildId, user: UserId) -> Option<Value> {
        let member = self.directory.member(guild, user)?;
        let mut value = json!({
            "user": self.user_json(user),
            "nick": member.nick,
            "roles": member.roles,
            "mute": member.mute,
            "deaf": member.deaf,
        });
        if let (Some(until), Some(fields)) = (member.communication_disabled_until, value.as_object_mut()) {
            fields.insert("communication_disabled_until".to_owned(), json!(until));
        }
        Some(value)
    }

    pub(super) fn user_json(&self, user: UserId) -> Value {
        let known = self.directory.user(user);
        json!({
            "id": user,
            "username": known.map_or("", |user| user.username.as_str()),
            "bot": known.is_some_and(|user| user.bot),
        })
    }

    pub(super) fn announce(&mut self, now: UnixMillis, id: &ConnectionId) {
        let Some(connection) = self.states.find(id) else { return };
        let state = self.voice_state(connection);
        let (room, data) = (connection.room, text(&state));
        self.tell(now, room, "VOICE_STATE_UPDATE", data);
    }

    /// To those who could see the channel, which the state itself does not name any more.
    pub(super) fn announce_departure(&mut self, now: UnixMillis, connection: &Connection) {
        let state = VoiceState {
            channel_id: None,
            ..self.voice_state(connection)
        };
        let data = text(&state);
        self.tell(now, connection.room, "VOICE_STATE_UPDATE", data.clone());
        // Who was sent away with the right to see the channel is told as well.
        if let Some(session) = connection.session.clone()
            && !self.directory.can_see(connection.room.channel(), connection.user)
        {
            self.dispatch(now, session, "VOICE_STATE_UPDATE", data);
        }
    }

    fn tell(&mut self, now: UnixMillis, room: RoomKey, event: &'static str, data: Arc<str>) {
        for session in self.audience(room.channel()) {
            self.dispatch(now, session, event, data.clone());
        }
    }

    /// Sessions of everybody who may see the channel.
    fn audience(&self, channel: ChannelId) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for (user, of_user) in self.gateway.users() {
            if self.directory.can_see(channel, user) {
                sessions.extend(of_user.iter().cloned());
            }
        }
        sessions
    }

    /// To every recipient of a conversation.
    pub(super) fn tell_conversation(&mut self, now: UnixMillis, channel: ChannelId, event: &'static str, data: Value) {
        let data: Arc<str> = Arc::from(data.to_string());
        let recipients = self
            .directory
            .channel(channel)
            .map(|channel| channel.recipients.clone());
        for user in recipients.unwrap_or_default() {
            self.tell_user(now, user, event, &data);
        }
    }

    fn tell_user(&mut self, now: UnixMillis, user: UserId, event: &'static str, data: &Arc<str>) {
        for session in self.gateway.sessions_of(user) {
            self.dispatch(now, session, event, data.clone());
        }
    }
}

/// Plain strings, numbers and lists: this cannot fail.
fn text(state: &VoiceState<'_>) -> Arc<str> {
    Arc::from(serde_json::to_string(state).unwrap_or_default())
}
