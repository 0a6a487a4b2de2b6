//! For the backend: directory sync, and what it does to participants by itself.

use serde::Deserialize;
use serde_json::{Value, json};

use super::channels::room_of;
use super::route::{Answer, ApiError, Call, Caller, Route, SMALL, is_named};
use super::schemas::{boolean, connection_id, integer, list, object, optional, reference, snowflake, text};
use crate::node::voice::participants;
use crate::proto::livekit::{ParticipantInfo, participant_info::State};
use crate::voice::{ChannelId, ConnectionId, Disconnected, Entry, GuildId, Rights, RoomKey, UserId, Voice, VoiceError};

/// Bytes of one sync: some 50,000 facts. A larger directory comes in parts.
const MAX_SYNC: usize = 16 << 20;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/voice/directory/sync",
        name: "syncDirectory",
        caller: Caller::Backend,
        summary: "Versioned facts of the backend; older ones are passed over",
        query: &[],
        body: Some(|| object(&[("entries", list(reference("DirectoryEntry")))], &["entries"])),
        answer: Some((200, || {
            object(
                &[("applied", integer()), ("passed_over", integer())],
                &["applied", "passed_over"],
            )
        })),
        max_body: MAX_SYNC,
        run: |call| Box::pin(sync(call)),
    },
    Route {
        method: "GET",
        path: "/channels/{channel_id}/voice/participants",
        name: "listParticipants",
        caller: Caller::Backend,
        summary: "Who is connected to the channel's room",
        query: &["guild_id"],
        body: None,
        answer: Some((200, || {
            object(
                &[("status", text(16)), ("participants", list(reference("Participant")))],
                &["status", "participants"],
            )
        })),
        max_body: 0,
        run: |call| Box::pin(list_participants(call)),
    },
    Route {
        method: "PATCH",
        path: "/channels/{channel_id}/voice/participants/{user_id}",
        name: "updateParticipant",
        caller: Caller::Backend,
        summary: "Mute or deafen a user",
        query: &[],
        body: Some(|| {
            object(
                &[
                    ("guild_id", optional(snowflake())),
                    ("mute", boolean()),
                    ("deaf", boolean()),
                ],
                &["mute", "deaf"],
            )
        }),
        answer: Some((200, || object(&[("success", boolean())], &["success"]))),
        max_body: SMALL,
        run: |call| Box::pin(update(call)),
    },
    Route {
        method: "PATCH",
        path: "/channels/{channel_id}/voice/participants/{user_id}/permissions",
        name: "updateParticipantPermissions",
        caller: Caller::Backend,
        summary: "State what a connection may do from now on",
        query: &[],
        body: Some(|| {
            object(
                &[
                    ("guild_id", optional(snowflake())),
                    ("connection_id", connection_id()),
                    ("can_speak", boolean()),
                    ("can_stream", boolean()),
                    ("can_video", boolean()),
                ],
                &["connection_id", "can_speak", "can_stream", "can_video"],
            )
        }),
        answer: Some((200, || object(&[("success", boolean())], &["success"]))),
        max_body: SMALL,
        run: |call| Box::pin(permissions(call)),
    },
    Route {
        method: "DELETE",
        path: "/channels/{channel_id}/voice/participants/{user_id}/{connection_id}",
        name: "disconnectParticipant",
        caller: Caller::Backend,
        summary: "Disconnect one connection",
        query: &[],
        body: None,
        answer: Some((200, || object(&[("success", boolean())], &["success"]))),
        max_body: SMALL,
        run: |call| Box::pin(disconnect(call)),
    },
    Route {
        method: "POST",
        path: "/channels/{channel_id}/voice/disconnect",
        name: "disconnectChannel",
        caller: Caller::Backend,
        summary: "Disconnect everybody",
        query: &[],
        body: Some(|| object(&[("guild_id", optional(snowflake()))], &[])),
        answer: Some((200, || {
            object(
                &[("success", boolean()), ("disconnected_count", integer())],
                &["success", "disconnected_count"],
            )
        })),
        max_body: SMALL,
        run: |call| Box::pin(disconnect_channel(call)),
    },
];

#[derive(Deserialize)]
struct Sync {
    entries: Vec<Entry>,
}

async fn sync(call: Call) -> Result<Answer, ApiError> {
    let entries = call.json.get("entries").and_then(Value::as_array);
    if !entries.into_iter().flatten().all(|entry| is_named(entry.get("kind"))) {
        return Err(VoiceError::InvalidParameters.into());
    }
    let sync: Sync = call.body()?;
    let summary = call
        .keep(move |voice, now| voice.handle_sync(now, sync.entries))
        .await?;
    Ok(Answer::Json(json!(summary)))
}

/// The room of a channel, with the guild where the directory does not say it.
pub(super) fn room(voice: &Voice, guild: Option<GuildId>, channel: ChannelId) -> RoomKey {
    let known = voice.directory().channel(channel).and_then(|channel| channel.guild);
    room_of(guild.or(known), channel)
}

async fn list_participants(call: Call) -> Result<Answer, ApiError> {
    let channel: ChannelId = call.id("channel_id")?;
    let guild = call.query("guild_id").map(|guild| guild.parse()).transpose();
    let guild: Option<GuildId> = guild.map_err(|_| VoiceError::InvalidSnowflake)?;
    let place = call
        .ask(move |voice, _| {
            let room = room(voice, guild, channel);
            let pin = voice.pins().find(room)?;
            let server = voice.topology().server(&pin.server)?.clone();
            let name = voice
                .directory()
                .channel(channel)
                .is_some_and(|channel| channel.kind == crate::voice::ChannelType::GroupDm);
            Some((server, room.name(voice.settings().naming, name)))
        })
        .await?;
    // Nobody has been there for a while.
    let Some((server, room)) = place else {
        return Ok(Answer::Json(json!({"status": "success", "participants": []})));
    };
    let found = participants(&call.site.inner.node, &server, &room)
        .await
        .map_err(|error| {
            tracing::warn!(error, "participants cannot be listed");
            VoiceError::FeatureDisabled
        })?;
    let shown: Vec<Value> = found.iter().map(participant_json).collect();
    Ok(Answer::Json(json!({"status": "success", "participants": shown})))
}

fn participant_json(participant: &ParticipantInfo) -> Value {
    let tracks = participant.tracks.iter().map(|track| {
        json!({
            "sid": track.sid,
            "type": track.r#type().as_str_name(),
            "source": track.source().as_str_name(),
            "name": track.name,
            "muted": track.muted,
        })
    });
    let state = State::try_from(participant.state).map_or("UNKNOWN", |state| state.as_str_name());
    json!({
        "identity": participant.identity,
        "sid": participant.sid,
        "name": participant.name,
        "state": state,
        "tracks": tracks.collect::<Vec<Value>>(),
        "metadata": participant.metadata,
        "joined_at": participant.joined_at,
    })
}

#[derive(Deserialize)]
struct Update {
    guild_id: Option<GuildId>,
    mute: bool,
    deaf: bool,
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let (channel, user): (ChannelId, UserId) = (call.id("channel_id")?, call.id("user_id")?);
    let update: Update = call.body()?;
    call.ask(move |voice, now| {
        let room = room(voice, update.guild_id, channel);
        voice.assert_voice(now, room, user, update.mute, update.deaf);
    })
    .await?;
    Ok(success())
}

#[derive(Deserialize)]
struct Permission {
    guild_id: Option<GuildId>,
    connection_id: String,
    can_speak: bool,
    can_stream: bool,
    can_video: bool,
}

async fn permissions(call: Call) -> Result<Answer, ApiError> {
    let (channel, user): (ChannelId, UserId) = (call.id("channel_id")?, call.id("user_id")?);
    let wanted: Permission = call.body()?;
    let id = ConnectionId::parse(&wanted.connection_id).ok_or(VoiceError::ConnectionNotFound)?;
    let rights = Rights {
        speak: wanted.can_speak,
        stream: wanted.can_stream,
        video: wanted.can_video,
    };
    call.try_ask(move |voice, now| {
        let room = room(voice, wanted.guild_id, channel);
        let connection = voice.connection(&id).filter(|connection| connection.room == room);
        let connection = connection.ok_or(VoiceError::ConnectionNotFound)?;
        if connection.user != user {
            return Err(VoiceError::UserMismatch);
        }
        voice.assert_rights(now, &id, rights)
    })
    .await?;
    Ok(success())
}

async fn disconnect(call: Call) -> Result<Answer, ApiError> {
    let (channel, user): (ChannelId, UserId) = (call.id("channel_id")?, call.id("user_id")?);
    let id = ConnectionId::parse(call.text("connection_id")).ok_or(VoiceError::ConnectionNotFound)?;
    call.ask(move |voice, now| {
        let room = voice
            .connection(&id)
            .map_or_else(|| room(voice, None, channel), |connection| connection.room);
        if room.channel() == channel {
            voice.assert_disconnect(now, room, user, &id);
        }
    })
    .await?;
    Ok(success())
}

#[derive(Deserialize)]
struct Whole {
    guild_id: Option<GuildId>,
}

async fn disconnect_channel(call: Call) -> Result<Answer, ApiError> {
    let channel: ChannelId = call.id("channel_id")?;
    let whole: Whole = call.body()?;
    let done: Disconnected = call
        .ask(move |voice, now| {
            let room = room(voice, whole.guild_id, channel);
            voice.disconnect_channel(now, room)
        })
        .await?;
    Ok(Answer::Json(json!(done)))
}

fn success() -> Answer {
    Answer::Json(json!({"success": true}))
}
