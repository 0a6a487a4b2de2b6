//! What clients say, read with care: the first fault decides between an error and the end of the socket.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Intent, Phase};
use crate::voice::domain::Voice;
use crate::voice::effect::{CloseCode, Effect};
use crate::voice::error::VoiceError;
use crate::voice::ids::{ChannelId, ConnectionId, GuildId, SessionId, SocketId, UnixMillis, UserId};
use crate::voice::states::SelfState;
use crate::voice::topology::Coordinates;
use crate::voice::updates::StateUpdate;

/// Bytes of one frame of a client; also told to the WebSocket, which reads no more.
pub const MAX_FRAME: usize = 4096;
/// Events that a client does not want; more than there are.
const MAX_IGNORED: usize = 64;

const HEARTBEAT: u64 = 1;
const IDENTIFY: u64 = 2;
const PRESENCE_UPDATE: u64 = 3;
const VOICE_STATE_UPDATE: u64 = 4;
const VOICE_SERVER_PING: u64 = 5;
const RESUME: u64 = 6;
const REQUEST_GUILD_MEMBERS: u64 = 8;
const HEARTBEAT_ACK: u64 = 11;
const CALL_CONNECT: u64 = 13;
const LAZY_REQUEST: u64 = 14;

#[derive(Clone, Debug, Default)]
pub(super) struct Identify {
    pub ignored_events: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "os")]
    _os: String,
    #[serde(rename = "browser")]
    _browser: String,
    #[serde(rename = "device")]
    _device: String,
}

#[derive(Deserialize)]
struct IdentifyData {
    token: String,
    #[serde(rename = "properties")]
    _properties: Properties,
    #[serde(default)]
    ignored_events: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
struct ResumeData {
    token: String,
    session_id: String,
    seq: u64,
}

impl Voice {
    /// One text frame of a client.
    pub fn handle_frame(&mut self, now: UnixMillis, socket: SocketId, text: &str) {
        let Some(found) = self.gateway.sockets.get_mut(&socket) else {
            return;
        };
        if text.len() > MAX_FRAME {
            return self.close(now, socket, CloseCode::Decode);
        }
        if !found.count(now) {
            return self.close(now, socket, CloseCode::RateLimited);
        }
        if let Err(code) = self.read_frame(now, socket, text) {
            self.close(now, socket, code);
        }
    }

    /// A frame that is not text.
    pub fn handle_undecodable(&mut self, now: UnixMillis, socket: SocketId) {
        if self.gateway.sockets.contains_key(&socket) {
            self.close(now, socket, CloseCode::Decode);
        }
    }

    fn read_frame(&mut self, now: UnixMillis, socket: SocketId, text: &str) -> Result<(), CloseCode> {
        let frame: Map<String, Value> = serde_json::from_str(text).map_err(|_| CloseCode::Decode)?;
        let op = frame.get("op").and_then(Value::as_u64).ok_or(CloseCode::Decode)?;
        let data = frame.get("d").cloned().unwrap_or_default();
        match op {
            HEARTBEAT => self.heartbeat(now, socket, &data),
            HEARTBEAT_ACK => {
                self.heard(now, socket);
                Ok(())
            }
            IDENTIFY => {
                let read: IdentifyData = serde_json::from_value(data).map_err(|_| CloseCode::Decode)?;
                let ignored_events = read.ignored_events.unwrap_or_default();
                if ignored_events.len() > MAX_IGNORED {
                    return Err(CloseCode::Decode);
                }
                self.authenticate(socket, read.token, Intent::Identify(Identify { ignored_events }))
            }
            RESUME => {
                let read: ResumeData = serde_json::from_value(data).map_err(|_| CloseCode::Decode)?;
                let intent = Intent::Resume {
                    session: SessionId(read.session_id),
                    sequence: read.seq,
                };
                self.authenticate(socket, read.token, intent)
            }
            VOICE_STATE_UPDATE => {
                let (session, user) = self.session_at(socket)?;
                if let Err(error) = self.voice_state_frame(now, user, session, &data) {
                    self.refuse(socket, error);
                }
                Ok(())
            }
            CALL_CONNECT => {
                let (session, user) = self.session_at(socket)?;
                if let Err(error) = self.call_frame(now, user, session, &data) {
                    self.refuse(socket, error);
                }
                Ok(())
            }
            // About things that are not kept here.
            PRESENCE_UPDATE | VOICE_SERVER_PING | REQUEST_GUILD_MEMBERS | LAZY_REQUEST => {
                self.session_at(socket).map(|_| ())
            }
            _ => Err(CloseCode::UnknownOpcode),
        }
    }

    fn heartbeat(&mut self, now: UnixMillis, socket: SocketId, data: &Value) -> Result<(), CloseCode> {
        let sequence = match data {
            Value::Null => 0,
            data => data.as_u64().ok_or(CloseCode::Decode)?,
        };
        let known = match self.session_at(socket) {
            Ok((session, _)) => self
                .gateway
                .sessions
                .get(&session)
                .map_or(0, |session| session.sequence),
            Err(_) => 0,
        };
        if sequence > known {
            return Err(CloseCode::InvalidSequence);
        }
        self.heard(now, socket);
        self.send(socket, crate::voice::effect::Frame::HeartbeatAck);
        Ok(())
    }

    fn heard(&mut self, now: UnixMillis, socket: SocketId) {
        if let Some(socket) = self.gateway.sockets.get_mut(&socket) {
            (socket.heard_at, socket.asked_at) = (now, None);
        }
    }

    fn authenticate(&mut self, socket: SocketId, token: String, intent: Intent) -> Result<(), CloseCode> {
        let found = self.gateway.sockets.get_mut(&socket).ok_or(CloseCode::Unknown)?;
        match found.phase {
            Phase::Fresh => found.phase = Phase::Authenticating(intent),
            Phase::Authenticating(_) | Phase::Ready(_) => return Err(CloseCode::AlreadyAuthenticated),
        }
        self.emit(Effect::Authenticate { socket, token });
        Ok(())
    }

    fn session_at(&self, socket: SocketId) -> Result<(SessionId, UserId), CloseCode> {
        let phase = self.gateway.sockets.get(&socket).map(|socket| &socket.phase);
        let Some(Phase::Ready(id)) = phase else {
            return Err(CloseCode::NotAuthenticated);
        };
        let session = self.gateway.sessions.get(id).ok_or(CloseCode::NotAuthenticated)?;
        Ok((id.clone(), session.user))
    }

    fn voice_state_frame(
        &mut self,
        now: UnixMillis,
        user: UserId,
        session: SessionId,
        data: &Value,
    ) -> Result<(), VoiceError> {
        let update = read_update(data)?;
        if let (None, Some(channel)) = (update.guild, update.channel) {
            let own = |id: &ConnectionId| self.connection(id).filter(|connection| connection.user == user);
            if update
                .connection
                .as_ref()
                .and_then(own)
                .is_some_and(|own| own.room.guild().is_some())
            {
                return Err(VoiceError::GuildIdMissing);
            }
            // A guild's channel must be asked for with its guild.
            let found = self.directory.channel(channel);
            if found.is_some_and(|found| found.guild.is_some()) {
                return match self.directory.can_see(channel, user) {
                    true => Err(VoiceError::DmInvalidChannelType),
                    false => Err(VoiceError::DmChannelNotFound),
                };
            }
        }
        self.handle_update(now, user, Some(session), update).map(|_| ())
    }

    fn call_frame(
        &mut self,
        now: UnixMillis,
        user: UserId,
        session: SessionId,
        data: &Value,
    ) -> Result<(), VoiceError> {
        let channel = data
            .get("channel_id")
            .and_then(Value::as_str)
            .ok_or(VoiceError::InvalidChannelId)?;
        let channel: ChannelId = channel.parse().map_err(|_| VoiceError::InvalidSnowflake)?;
        if !self.directory.can_see(channel, user) {
            return Err(VoiceError::DmChannelNotFound);
        }
        let created_at = self.calls.find(channel).map(|call| call.created_at);
        if let (Some(mut call), Some(created_at)) = (self.call_json(channel), created_at) {
            if let Some(fields) = call.as_object_mut() {
                fields.insert("created_at".to_owned(), json!(created_at));
            }
            self.dispatch(now, session, "CALL_CREATE", call.to_string().into());
        }
        Ok(())
    }
}

/// Op 4's data.
fn read_update(data: &Value) -> Result<StateUpdate, VoiceError> {
    let data = data.as_object().ok_or(VoiceError::InvalidParameters)?;
    let guild: Option<GuildId> = snowflake(data.get("guild_id"))?;
    let channel: Option<ChannelId> = snowflake(data.get("channel_id"))?;
    if !data.contains_key("channel_id") {
        return Err(VoiceError::InvalidChannelId);
    }
    let connection = match data.get("connection_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(ConnectionId::parse(text).ok_or(VoiceError::ConnectionNotFound)?),
        Some(_) => return Err(VoiceError::InvalidParameters),
    };
    let flag = |name: &str| match data.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(VoiceError::InvalidParameters),
    };
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let own = SelfState {
        mute: flag("self_mute")?,
        deaf: flag("self_deaf")?,
        video: flag("self_video")?,
        stream: flag("self_stream")?,
        is_mobile: flag("is_mobile")?,
        viewer_stream_keys: viewer_keys(data)?,
    };
    Ok(StateUpdate {
        guild,
        channel,
        connection,
        own,
        coordinates: Coordinates::parse(text("latitude"), text("longitude")),
    })
}

fn snowflake<T: std::str::FromStr>(value: Option<&Value>) -> Result<Option<T>, VoiceError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| VoiceError::InvalidSnowflake),
        Some(_) => Err(VoiceError::InvalidSnowflake),
    }
}

/// One, or a list of them.
fn viewer_keys(data: &Map<String, Value>) -> Result<Vec<String>, VoiceError> {
    let one = match data.get("viewer_stream_key") {
        None | Some(Value::Null) => None,
        Some(Value::String(key)) => Some(key.clone()),
        Some(_) => return Err(VoiceError::InvalidState),
    };
    match data.get("viewer_stream_keys") {
        None | Some(Value::Null) => Ok(one.into_iter().collect()),
        Some(Value::Array(keys)) => {
            let keys = keys.iter().map(|key| key.as_str().map(str::to_owned));
            keys.collect::<Option<Vec<String>>>().ok_or(VoiceError::InvalidState)
        }
        Some(_) => Err(VoiceError::InvalidState),
    }
}
