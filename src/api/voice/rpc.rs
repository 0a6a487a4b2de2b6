//! `POST /_rpc`: the backend's own gateway states who wants what, and takes the answer to its user.

use serde::Deserialize;
use serde_json::{Value, json};

use super::backend::room;
use super::route::{Answer, ApiError, Call, Caller, Route, SMALL, is_named};
use super::schemas::{boolean, connection_id, coordinate, object, optional, snowflake, tagged, text};
use super::text::{Degrees, Text, place};
use crate::voice::{Authority, ChannelId, ConnectionId, GuildId, Join, Rights, SelfState, UserId, VoiceError};

pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/_rpc",
    name: "rpc",
    caller: Caller::Backend,
    summary: "Assertion calls of the backend's gateway",
    query: &[],
    body: Some(asks),
    answer: Some((200, || {
        object(&[("type", text(64)), ("data", object(&[], &[]))], &["type", "data"])
    })),
    max_body: SMALL,
    run: |call| Box::pin(rpc(call)),
}];

fn asks() -> Value {
    let place = || vec![("guild_id", optional(snowflake())), ("channel_id", snowflake())];
    let person = || [place(), vec![("user_id", snowflake())]].concat();
    let connection = || [person(), vec![("connection_id", connection_id())]].concat();
    let may = |may: fn() -> Value| vec![("can_speak", may()), ("can_stream", may()), ("can_video", may())];
    let maybe = || optional(boolean());
    let token = vec![
        ("connection_id", optional(connection_id())),
        ("latitude", coordinate()),
        ("longitude", coordinate()),
        ("mute", maybe()),
        ("deaf", maybe()),
        ("region", optional(text(64))),
        (
            "token_nonce",
            optional(json!({"type": "string", "minLength": 1, "maxLength": 32})),
        ),
    ];
    let in_channel: &[&str] = &["channel_id"];
    let of_person: &[&str] = &["channel_id", "user_id"];
    let of_connection: &[&str] = &["channel_id", "user_id", "connection_id"];
    let rights: &[&str] = &[
        "channel_id",
        "user_id",
        "connection_id",
        "can_speak",
        "can_stream",
        "can_video",
    ];
    let state = [person(), vec![("mute", boolean()), ("deaf", boolean())]].concat();
    tagged(
        "type",
        vec![
            ("voice_get_token", [person(), token, may(maybe)].concat(), of_person),
            ("voice_force_disconnect_participant", connection(), of_connection),
            (
                "voice_update_participant",
                state,
                &["channel_id", "user_id", "mute", "deaf"],
            ),
            ("voice_force_disconnect_channel", place(), in_channel),
            (
                "voice_update_participant_permissions",
                [connection(), may(boolean)].concat(),
                rights,
            ),
            ("call_ended", Vec::new(), &[]),
        ],
    )
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Ask {
    VoiceGetToken {
        guild_id: Option<GuildId>,
        channel_id: ChannelId,
        user_id: UserId,
        connection_id: Option<String>,
        latitude: Option<Degrees>,
        longitude: Option<Degrees>,
        can_speak: Option<bool>,
        can_stream: Option<bool>,
        can_video: Option<bool>,
        mute: Option<bool>,
        deaf: Option<bool>,
        region: Option<Text<0, 64>>,
        token_nonce: Option<Text<1, 32>>,
    },
    VoiceForceDisconnectParticipant {
        guild_id: Option<GuildId>,
        channel_id: ChannelId,
        user_id: UserId,
        connection_id: String,
    },
    VoiceUpdateParticipant {
        guild_id: Option<GuildId>,
        channel_id: ChannelId,
        user_id: UserId,
        mute: bool,
        deaf: bool,
    },
    VoiceForceDisconnectChannel {
        guild_id: Option<GuildId>,
        channel_id: ChannelId,
    },
    VoiceUpdateParticipantPermissions {
        guild_id: Option<GuildId>,
        channel_id: ChannelId,
        user_id: UserId,
        connection_id: String,
        can_speak: bool,
        can_stream: bool,
        can_video: bool,
    },
    /// The backend's gateway ends a call of its own: nothing of ours.
    CallEnded {},
}

async fn rpc(call: Call) -> Result<Answer, ApiError> {
    let kind = call.json.get("type").cloned().unwrap_or_default();
    if !is_named(Some(&kind)) {
        return Err(VoiceError::InvalidParameters.into());
    }
    let ask: Ask = call.body()?;
    let data = match carry_out(&call, ask).await {
        Ok(data) => data,
        // This way the status is Fluxer's.
        Err(error) if error.code == "FEATURE_TEMPORARILY_DISABLED" => {
            return Err(ApiError::new(403, error.code, "This feature is temporarily disabled"));
        }
        Err(error) => return Err(error),
    };
    Ok(Answer::Json(json!({"type": kind, "data": data})))
}

async fn carry_out(call: &Call, ask: Ask) -> Result<Value, ApiError> {
    let connection = |text: &str| ConnectionId::parse(text).ok_or(VoiceError::ConnectionNotFound);
    match ask {
        Ask::VoiceGetToken { .. } => token(call, ask).await,
        Ask::VoiceForceDisconnectParticipant {
            guild_id,
            channel_id,
            user_id,
            connection_id,
        } => {
            let id = connection(&connection_id)?;
            call.ask(move |voice, now| {
                let room = room(voice, guild_id, channel_id);
                voice.assert_disconnect(now, room, user_id, &id);
            })
            .await?;
            Ok(json!({"success": true}))
        }
        Ask::VoiceUpdateParticipant {
            guild_id,
            channel_id,
            user_id,
            mute,
            deaf,
        } => {
            call.ask(move |voice, now| {
                let room = room(voice, guild_id, channel_id);
                voice.assert_voice(now, room, user_id, mute, deaf);
            })
            .await?;
            Ok(json!({"success": true}))
        }
        Ask::VoiceForceDisconnectChannel { guild_id, channel_id } => {
            let done = call
                .ask(move |voice, now| {
                    let room = room(voice, guild_id, channel_id);
                    voice.disconnect_channel(now, room)
                })
                .await?;
            Ok(json!(done))
        }
        Ask::VoiceUpdateParticipantPermissions {
            guild_id,
            channel_id,
            user_id,
            connection_id,
            can_speak,
            can_stream,
            can_video,
        } => {
            let id = connection(&connection_id)?;
            let rights = Rights {
                speak: can_speak,
                stream: can_stream,
                video: can_video,
            };
            call.try_ask(move |voice, now| {
                let room = room(voice, guild_id, channel_id);
                let found = voice
                    .connection(&id)
                    .filter(|found| found.room == room && found.user == user_id);
                found.ok_or(VoiceError::ConnectionNotFound)?;
                voice.assert_rights(now, &id, rights)
            })
            .await?;
            Ok(json!({"success": true}))
        }
        Ask::CallEnded {} => Ok(json!({"success": true})),
    }
}

async fn token(call: &Call, ask: Ask) -> Result<Value, ApiError> {
    let Ask::VoiceGetToken {
        guild_id,
        channel_id,
        user_id,
        connection_id,
        latitude,
        longitude,
        can_speak,
        can_stream,
        can_video,
        mute,
        deaf,
        region,
        token_nonce,
    } = ask
    else {
        return Err(VoiceError::InvalidParameters.into());
    };
    let connection = match connection_id {
        Some(text) => Some(ConnectionId::parse(&text).ok_or(VoiceError::InvalidParameters)?),
        None => None,
    };
    let rights = Rights {
        speak: can_speak.unwrap_or(true),
        stream: can_stream.unwrap_or(true),
        video: can_video.unwrap_or(true),
    };
    let authority = Authority::Asserted {
        rights,
        mute: mute.unwrap_or(false),
        deaf: deaf.unwrap_or(false),
    };
    let ticket = call
        .try_ask(move |voice, now| {
            let join = Join {
                connection,
                nonce: token_nonce.map(|nonce| nonce.0),
                region: region.map(|region| region.0),
                coordinates: place(latitude.as_ref(), longitude.as_ref()),
                own: SelfState::default(),
                authority,
                ..Join::new(user_id, guild_id, channel_id)
            };
            voice.join(now, join)
        })
        .await?;
    Ok(json!({
        "token": ticket.token,
        "endpoint": ticket.endpoint,
        "connectionId": ticket.connection_id,
        "tokenNonce": ticket.token_nonce,
        "regionId": ticket.region_id,
        "serverId": ticket.server_id,
    }))
}
