//! Calls in conversations.

use serde::Deserialize;
use serde_json::json;

use super::route::{Answer, ApiError, Call, Caller, Route, SMALL};
use super::schemas::{boolean, coordinate, list, object, optional, reference, snowflake, text};
use super::text::{Degrees, place};
use crate::voice::{ChannelId, UserId};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/channels/{channel_id}/call",
        name: "getCallEligibility",
        caller: Caller::User,
        summary: "Whether the user may ring here",
        query: &[],
        body: None,
        answer: Some((200, || {
            object(
                &[("ringable", boolean()), ("silent", boolean())],
                &["ringable", "silent"],
            )
        })),
        max_body: 0,
        run: |call| Box::pin(eligibility(call)),
    },
    Route {
        method: "POST",
        path: "/channels/{channel_id}/call",
        name: "startCall",
        caller: Caller::User,
        summary: "Begin a call without ringing",
        query: &[],
        body: Some(|| object(&[], &[])),
        answer: Some((200, || reference("Call"))),
        max_body: SMALL,
        run: |call| Box::pin(start(call)),
    },
    Route {
        method: "PATCH",
        path: "/channels/{channel_id}/call",
        name: "updateCall",
        caller: Caller::User,
        summary: "Another region for the call",
        query: &[],
        body: Some(|| object(&[("region", optional(text(64)))], &[])),
        answer: None,
        max_body: SMALL,
        run: |call| Box::pin(update(call)),
    },
    Route {
        method: "POST",
        path: "/channels/{channel_id}/call/ring",
        name: "ringCall",
        caller: Caller::User,
        summary: "Ring the recipients, all by default",
        query: &[],
        body: Some(recipients),
        answer: None,
        max_body: SMALL,
        run: |call| Box::pin(ring(call)),
    },
    Route {
        method: "POST",
        path: "/channels/{channel_id}/call/stop-ringing",
        name: "stopRinging",
        caller: Caller::User,
        summary: "Stop ringing, the user's own devices by default",
        query: &[],
        body: Some(recipients),
        answer: None,
        max_body: SMALL,
        run: |call| Box::pin(stop_ringing(call)),
    },
    Route {
        method: "POST",
        path: "/channels/{channel_id}/call/end",
        name: "endCall",
        caller: Caller::User,
        summary: "Leave the call; the last one ends it",
        query: &[],
        body: Some(|| object(&[], &[])),
        answer: None,
        max_body: SMALL,
        run: |call| Box::pin(end(call)),
    },
];

fn recipients() -> serde_json::Value {
    let fields = [
        ("recipients", optional(list(snowflake()))),
        ("latitude", coordinate()),
        ("longitude", coordinate()),
    ];
    object(&fields, &[])
}

#[derive(Deserialize)]
struct Ring {
    recipients: Option<Vec<UserId>>,
    latitude: Option<Degrees>,
    longitude: Option<Degrees>,
}

#[derive(Deserialize)]
struct Update {
    region: Option<String>,
}

async fn eligibility(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let found = call
        .limited("call", channel.0, 60, move |voice, _| voice.eligibility(user, channel))
        .await?;
    Ok(Answer::Json(
        json!({"ringable": found.ringable, "silent": found.silent}),
    ))
}

async fn start(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let started = call
        .limited("start call", channel.0, 5, move |voice, now| {
            voice.start_call(now, user, channel)
        })
        .await?;
    Ok(Answer::Json(started))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let wanted: Update = call.body()?;
    call.limited("update call", channel.0, 10, move |voice, now| {
        voice.set_call_region(now, user, channel, wanted.region)
    })
    .await?;
    Ok(Answer::Nothing)
}

async fn ring(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let wanted: Ring = call.body()?;
    let coordinates = place(wanted.latitude.as_ref(), wanted.longitude.as_ref());
    call.limited("ring", channel.0, 5, move |voice, now| {
        voice.ring(now, user, channel, wanted.recipients, coordinates)
    })
    .await?;
    Ok(Answer::Nothing)
}

async fn stop_ringing(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    let wanted: Ring = call.body()?;
    call.limited("stop ringing", channel.0, 20, move |voice, now| {
        voice.stop_ringing(now, user, channel, wanted.recipients)
    })
    .await?;
    Ok(Answer::Nothing)
}

async fn end(call: Call) -> Result<Answer, ApiError> {
    let user = call.user()?;
    let channel: ChannelId = call.id("channel_id")?;
    call.limited("end call", channel.0, 10, move |voice, now| {
        voice.end_call(now, user, channel)
    })
    .await?;
    Ok(Answer::Nothing)
}
