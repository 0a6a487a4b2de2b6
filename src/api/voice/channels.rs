//! Voice channels: tokens, a user's own states, moderation, regions.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::route::{Answer, ApiError, Call, Caller, Route, SMALL};
use super::schemas::{
    boolean, connection_id, coordinate, list, object, optional, reference, short_list, snowflake, stream_key, text,
};
use super::text::{Degrees, place};
use crate::voice::{
    Actor, ChannelId, ConnectionId, GuildId, Join, Moderation, RoomKey, SelfState, SessionId, StateUpdate, Ticket,
    UnixMillis, Updated, UserId, Voice, VoiceError,
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/channels/{channel_id}/voice/token",
        name: "createVoiceToken",
        caller: Caller::User,
        summary: "A token for a voice channel or conversation",
        query: &[],
        body: Some(token_request),
        answer: Some((200, || reference("VoiceToken"))),
        max_body: SMALL,
        run: |call| Box::pin(token(call)),
    },
    Route {
        method: "PATCH",
        path: "/guilds/{guild_id}/voice-states/@me",
        name: "updateOwnVoiceState",
        caller: Caller::User,
        summary: "Join, change or leave voice; a null channel leaves",
        query: &[],
        body: Some(own_state),
        answer: Some((200, || reference("VoiceState"))),
        max_body: SMALL,
        run: |call| Box::pin(own(call)),
    },
    Route {
        method: "PATCH",
        path: "/guilds/{guild_id}/members/{user_id}",
        name: "moderateMember",
        caller: Caller::User,
        summary: "Mute, deafen, move or (null channel) disconnect a member",
        query: &[],
        body: Some(moderation),
        answer: Some((200, || reference("Member"))),
        max_body: SMALL,
        run: |call| Box::pin(moderate(call)),
    },
    Route {
        method: "GET",
        path: "/channels/{channel_id}/rtc-regions",
        name: "listChannelRegions",
        caller: Caller::User,
        summary: "Regions that may be chosen for a channel",
        query: &[],
        body: None,
        answer: Some((200, || list(reference("RegionName")))),
        max_body: 0,
        run: |call| Box::pin(regions(call)),
    },
    Route {
        method: "PATCH",
        path: "/channels/{channel_id}",
        name: "updateChannelRegion",
        caller: Caller::User,
        summary: "Set a channel's region; null is automatic",
        query: &[],
        body: Some(|| object(&[("rtc_region", optional(text(64)))], &["rtc_region"])),
        answer: Some((200, || reference("Channel"))),
        max_body: SMALL,
        run: |call| Box::pin(set_region(call)),
    },
];

fn token_request() -> Value {
    object(
        &[
            ("channel_id", optional(snowflake())),
            ("guild_id", optional(snowflake())),
            ("region", optional(text(64))),
            ("latitude", coordinate()),
            ("longitude", coordinate()),
            ("session_id", optional(text(64))),
        ],
        &[],
    )
}

fn own_state() -> Value {
    object(
        &[
            ("channel_id", optional(snowflake())),
            ("connection_id", optional(connection_id())),
            ("session_id", optional(text(64))),
            ("self_mute", optional(boolean())),
            ("self_deaf", optional(boolean())),
            ("self_video", optional(boolean())),
            ("self_stream", optional(boolean())),
            ("is_mobile", optional(boolean())),
            ("viewer_stream_keys", optional(short_list(stream_key(), 32))),
        ],
        &[],
    )
}

fn moderation() -> Value {
    object(
        &[
            ("mute", optional(boolean())),
            ("deaf", optional(boolean())),
            ("channel_id", optional(snowflake())),
            ("connection_id", optional(connection_id())),
        ],
        &[],
    )
}

#[derive(Deserialize)]
struct TokenRequest {
    channel_id: Option<ChannelId>,
    guild_id: Option<GuildId>,
    region: Option<String>,
    latitude: Option<Degrees>,
    longitude: Option<Degrees>,
    session_id: Option<String>,
}

async fn token(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let request: TokenRequest = call.body()?;
    if request.channel_id.is_some_and(|named| named != channel) {
        return Err(VoiceError::InvalidParameters.into());
    }
    let ticket = call
        .limited("token", channel.0, 20, move |voice, now| {
            let join = Join {
                region: request.region,
                region_must_exist: true,
                coordinates: place(request.latitude.as_ref(), request.longitude.as_ref()),
                session: own_session(voice, user, request.session_id)?,
                ..Join::new(user, request.guild_id, channel)
            };
            voice.join(now, join)
        })
        .await?;
    Ok(Answer::Json(json!(ticket)))
}

/// A gateway session that the user names is theirs.
fn own_session(voice: &Voice, user: UserId, named: Option<String>) -> Result<Option<SessionId>, VoiceError> {
    let Some(session) = named.map(SessionId) else {
        return Ok(None);
    };
    match voice.gateway().is_session_of(&session, user) {
        true => Ok(Some(session)),
        false => Err(VoiceError::InvalidParameters),
    }
}

#[derive(Deserialize)]
struct OwnState {
    channel_id: Option<ChannelId>,
    connection_id: Option<String>,
    session_id: Option<String>,
    self_mute: Option<bool>,
    self_deaf: Option<bool>,
    self_video: Option<bool>,
    self_stream: Option<bool>,
    is_mobile: Option<bool>,
    viewer_stream_keys: Option<Vec<String>>,
}

impl OwnState {
    /// What is not named stays as it is.
    fn applied_to(self, before: &SelfState) -> SelfState {
        SelfState {
            mute: self.self_mute.unwrap_or(before.mute),
            deaf: self.self_deaf.unwrap_or(before.deaf),
            video: self.self_video.unwrap_or(before.video),
            stream: self.self_stream.unwrap_or(before.stream),
            is_mobile: self.is_mobile.unwrap_or(before.is_mobile),
            viewer_stream_keys: self
                .viewer_stream_keys
                .unwrap_or_else(|| before.viewer_stream_keys.clone()),
        }
    }
}

async fn own(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let guild: GuildId = call.id("guild_id")?;
    let state: OwnState = call.body()?;
    let names_channel = call.names().contains("channel_id");
    let answer = call
        .limited("own state", guild.0, 60, move |voice, now| {
            update_own(voice, now, user, guild, state, names_channel)
        })
        .await?;
    Ok(Answer::Json(answer))
}

fn update_own(
    voice: &mut Voice,
    now: UnixMillis,
    user: UserId,
    guild: GuildId,
    state: OwnState,
    names_channel: bool,
) -> Result<Value, VoiceError> {
    voice.directory().guild(guild).ok_or(VoiceError::GuildNotFound)?;
    // Whoever is not in it hears what they would hear if it were not there.
    voice.directory().member(guild, user).ok_or(VoiceError::GuildNotFound)?;
    let session = own_session(voice, user, state.session_id.clone())?;
    let known = voice.connections_in(user, guild);
    let connection = match &state.connection_id {
        Some(text) => {
            let id = ConnectionId::parse(text).filter(|id| known.contains(id));
            Some(id.ok_or(VoiceError::ConnectionNotFound)?)
        }
        // A user with one device need not name it.
        None => known.first().filter(|_| known.len() == 1).cloned(),
    };
    if names_channel && state.channel_id.is_none() {
        let leaving = connection.map_or(known, |id| vec![id]);
        for id in leaving {
            let update = StateUpdate {
                guild: Some(guild),
                channel: None,
                connection: Some(id),
                own: SelfState::default(),
                coordinates: None,
            };
            voice.handle_update(now, user, None, update)?;
        }
        return Ok(left(user, guild));
    }
    let before = connection.as_ref().and_then(|id| voice.connection(id));
    let channel = state.channel_id.or(before.map(|before| before.room.channel()));
    let channel = channel.ok_or(VoiceError::UserNotInVoice)?;
    let own = state.applied_to(&before.map(|before| before.own.clone()).unwrap_or_default());
    let update = StateUpdate {
        guild: Some(guild),
        channel: Some(channel),
        connection,
        own,
        coordinates: None,
    };
    let (id, ticket) = match voice.handle_update(now, user, session, update)? {
        Updated::Joining(ticket) => (ticket.connection_id.clone(), Some(ticket)),
        Updated::Changed(id) => (id, None),
        Updated::Left => return Ok(left(user, guild)),
    };
    let connection = voice.connection(&id).ok_or(VoiceError::ConnectionNotFound)?;
    let mut answer = json!(voice.voice_state(connection));
    if let (Some(ticket), Some(fields)) = (ticket, answer.as_object_mut()) {
        let Ticket {
            token,
            endpoint,
            token_nonce,
            ..
        } = ticket;
        fields.extend([
            ("token".to_owned(), json!(token)),
            ("endpoint".to_owned(), json!(endpoint)),
            ("token_nonce".to_owned(), json!(token_nonce)),
        ]);
    }
    Ok(answer)
}

fn left(user: UserId, guild: GuildId) -> Value {
    json!({
        "guild_id": guild,
        "channel_id": null,
        "user_id": user,
        "connection_id": null,
        "session_id": "",
        "mute": false,
        "deaf": false,
        "self_mute": false,
        "self_deaf": false,
        "self_video": false,
        "self_stream": false,
        "is_mobile": false,
        "suppress": false,
        "viewer_stream_key": null,
        "viewer_stream_keys": [],
        "version": 0,
    })
}

#[derive(Deserialize)]
struct ModerationRequest {
    mute: Option<bool>,
    deaf: Option<bool>,
    /// The outer None: not named; the inner: null.
    #[serde(default, deserialize_with = "named")]
    channel_id: Option<Option<ChannelId>>,
    connection_id: Option<String>,
}

fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<ChannelId>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

async fn moderate(call: Call) -> Result<Answer, ApiError> {
    let moderator = call.user()?;
    let (guild, user): (GuildId, UserId) = (call.id("guild_id")?, call.id("user_id")?);
    let request: ModerationRequest = call.body()?;
    let connection = match request.connection_id {
        Some(text) => Some(ConnectionId::parse(&text).ok_or(VoiceError::ConnectionNotFound)?),
        None => None,
    };
    let moderation = Moderation {
        mute: request.mute,
        deaf: request.deaf,
        channel: request.channel_id,
        connection,
    };
    let member = call
        .limited("moderation", guild.0, 60, move |voice, now| {
            voice.moderate(now, Actor::User(moderator), guild, user, &moderation)?;
            voice.member_json(guild, user).ok_or(VoiceError::MemberNotFound)
        })
        .await?;
    Ok(Answer::Json(member))
}

async fn regions(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let regions = call
        .limited("regions", channel.0, 60, move |voice, _| {
            let regions = voice.regions_for(user, channel)?;
            let shown =
                |region: &&crate::voice::Region| json!({"id": region.id, "name": region.name, "emoji": region.emoji});
            Ok(regions.iter().map(shown).collect::<Vec<Value>>())
        })
        .await?;
    Ok(Answer::Json(json!(regions)))
}

#[derive(Deserialize)]
struct RegionRequest {
    rtc_region: Option<String>,
}

async fn set_region(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let request: RegionRequest = call.body()?;
    if !call.names().contains("rtc_region") {
        return Err(VoiceError::InvalidParameters.into());
    }
    let region = request.rtc_region;
    let wanted = region.clone().unwrap_or_default();
    let changed = call
        .limited("channel", channel.0, 10, move |voice, now| {
            voice.set_region(now, user, channel, region)?;
            let found = voice.directory().channel(channel).ok_or(VoiceError::ChannelNotFound)?;
            Ok(json!({
                "id": found.id,
                "guild_id": found.guild,
                "type": found.kind.number(),
                "name": found.name,
                "user_limit": found.user_limit,
                "rtc_region": found.rtc_region,
            }))
        })
        .await;
    let restricted = VoiceError::RestrictedRegion.http().2;
    match changed {
        Ok(channel) => Ok(Answer::Json(channel)),
        Err(error) if error.text == restricted => {
            Err(error.at("rtc_region", format!("Invalid or restricted RTC region: {wanted:.64}")))
        }
        Err(error) => Err(error),
    }
}

/// The room of a channel as the backend names it.
pub(super) fn room_of(guild: Option<GuildId>, channel: ChannelId) -> RoomKey {
    match guild {
        Some(guild) => RoomKey::Guild { guild, channel },
        None => RoomKey::Dm { channel },
    }
}
