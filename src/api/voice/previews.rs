//! Previews of streams: a small picture per stream, in memory, for those who may join the channel.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::route::{Answer, ApiError, Call, Caller, Route, SMALL};
use super::schemas::{object, optional, snowflake, text};
use crate::voice::{ChannelId, Permissions, RoomKey, StreamKey, UserId, Voice, VoiceError};

/// Characters of a picture, base64-coded.
const MAX_THUMBNAIL: usize = 2_000_000;
/// Bytes of all pictures together; the oldest goes first.
const MAX_BYTES: usize = 64 << 20;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "PATCH",
        path: "/streams/{stream_key}/stream",
        name: "updateStream",
        caller: Caller::User,
        summary: "The region of a stream, which is that of its room",
        query: &[],
        body: Some(|| object(&[("region", optional(text(64)))], &[])),
        answer: None,
        max_body: SMALL,
        run: |call| Box::pin(update(call)),
    },
    Route {
        method: "GET",
        path: "/streams/{stream_key}/preview",
        name: "getStreamPreview",
        caller: Caller::User,
        summary: "The stream's picture",
        query: &[],
        body: None,
        answer: Some((200, || json!({}))),
        max_body: 0,
        run: |call| Box::pin(show(call)),
    },
    Route {
        method: "POST",
        path: "/streams/{stream_key}/preview",
        name: "putStreamPreview",
        caller: Caller::User,
        summary: "A new picture of the user's own stream",
        query: &[],
        body: Some(|| {
            object(
                &[
                    ("channel_id", snowflake()),
                    ("thumbnail", text(MAX_THUMBNAIL)),
                    (
                        "content_type",
                        optional(json!({"enum": ["image/jpeg", "image/png", "image/webp"]})),
                    ),
                ],
                &["channel_id", "thumbnail"],
            )
        }),
        answer: None,
        max_body: MAX_THUMBNAIL + SMALL,
        run: |call| Box::pin(put(call)),
    },
];

#[derive(Clone, Debug)]
struct Picture {
    content_type: &'static str,
    bytes: Bytes,
    number: u64,
}

/// By stream key.
#[derive(Debug, Default)]
pub(super) struct Previews(Mutex<BTreeMap<String, Picture>>);

impl Previews {
    fn put(&self, key: String, content_type: &'static str, bytes: Bytes) {
        let mut pictures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = pictures.values().map(|picture| picture.number + 1).max().unwrap_or(0);
        let picture = Picture {
            content_type,
            bytes,
            number,
        };
        pictures.insert(key, picture);
        while pictures.values().map(|picture| picture.bytes.len()).sum::<usize>() > MAX_BYTES {
            let oldest = pictures
                .iter()
                .min_by_key(|(_, picture)| picture.number)
                .map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => pictures.remove(&oldest),
                None => return,
            };
        }
    }

    fn find(&self, key: &str) -> Option<Picture> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

/// The stream of a key, for somebody who may join its channel.
fn stream(voice: &Voice, user: UserId, key: &str) -> Result<StreamKey, VoiceError> {
    let key: StreamKey = key.parse().map_err(|_| VoiceError::InvalidParameters)?;
    let channel = key.room.channel();
    let known = voice
        .directory()
        .channel(channel)
        .is_some_and(|found| found.guild == key.room.guild());
    if !known || !voice.directory().can_see(channel, user) {
        return Err(VoiceError::ChannelNotFound);
    }
    match key.room {
        RoomKey::Guild { .. } if !voice.may_moderate(user, key.room, Permissions::CONNECT) => {
            Err(VoiceError::PermissionDenied)
        }
        _ => Ok(key),
    }
}

#[derive(Deserialize)]
struct Update {
    region: Option<String>,
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let (key, update): (String, Update) = (call.text("stream_key").to_owned(), call.body()?);
    call.limited("stream", 0, 20, move |voice, _| {
        stream(voice, user, &key)?;
        match update
            .region
            .is_none_or(|region| voice.topology().region(&region).is_some())
        {
            true => Ok(()),
            false => Err(VoiceError::UnknownRegion),
        }
    })
    .await?;
    Ok(Answer::Nothing)
}

async fn show(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let key = call.text("stream_key").to_owned();
    let asked = key.clone();
    call.limited("show preview", 0, 100, move |voice, _| {
        let key = stream(voice, user, &asked)?;
        // Pictures end with their streams.
        voice
            .connection(&key.connection)
            .map(|_| ())
            .ok_or(VoiceError::ConnectionNotFound)
    })
    .await?;
    let picture = call.site.inner.previews.find(&key);
    let picture = picture.ok_or_else(|| ApiError::new(404, "UNKNOWN_STREAM_PREVIEW", "Unknown stream preview"))?;
    Ok(Answer::Bytes {
        content_type: picture.content_type.to_owned(),
        bytes: picture.bytes,
    })
}

#[derive(Deserialize)]
struct Put {
    channel_id: ChannelId,
    thumbnail: String,
    content_type: Option<String>,
}

async fn put(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let (key, put): (String, Put) = (call.text("stream_key").to_owned(), call.body()?);
    let content_type = match put.content_type.as_deref() {
        None | Some("image/jpeg") => "image/jpeg",
        Some("image/png") => "image/png",
        Some("image/webp") => "image/webp",
        Some(_) => return Err(VoiceError::InvalidParameters.into()),
    };
    if put.thumbnail.len() > MAX_THUMBNAIL {
        return Err(VoiceError::InvalidParameters.into());
    }
    let bytes = STANDARD
        .decode(&put.thumbnail)
        .map_err(|_| VoiceError::InvalidParameters)?;
    let named = key.clone();
    call.limited("put preview", 0, 20, move |voice, _| {
        let key = stream(voice, user, &named)?;
        if key.room.channel() != put.channel_id {
            return Err(VoiceError::InvalidParameters);
        }
        let connection = voice
            .connection(&key.connection)
            .filter(|connection| connection.room == key.room);
        match connection.ok_or(VoiceError::ConnectionNotFound)?.user == user {
            true => Ok(()),
            false => Err(VoiceError::UserMismatch),
        }
    })
    .await?;
    call.site.inner.previews.put(key, content_type, bytes.into());
    Ok(Answer::Nothing)
}
