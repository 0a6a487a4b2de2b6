//! `POST /webhooks/livekit`: what happens in rooms on other servers, signed with a key that this server knows.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::bearer;
use super::route::{Answer, ApiError, Call, Caller, Route};
use crate::node::voice::nonce_of;
use crate::proto::claims::{ApiKeys, verify};
use crate::proto::json::from_value;
use crate::proto::livekit::{ParticipantInfo, WebhookEvent};
use crate::voice::{RoomKey, Seen, Server, ServerKey, Voice};

/// Bytes of an event: a room and a participant with their metadata.
const MAX_EVENT: usize = 2 << 20;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/webhooks/livekit",
    name: "livekitWebhook",
    caller: Caller::Anybody,
    summary: "Events of LiveKit servers, signed with their keys",
    query: &[],
    body: None,
    answer: Some((200, || serde_json::json!({}))),
    max_body: MAX_EVENT,
    run: |call| Box::pin(webhook(call)),
}];

async fn webhook(call: Call) -> Result<Answer, ApiError> {
    let servers: Vec<Server> = call
        .ask(|voice, _| {
            voice
                .topology()
                .servers()
                .filter(|server| !server.local)
                .cloned()
                .collect()
        })
        .await?;
    let now = call.site.inner.node.unix();
    let invalid = || ApiError::new(400, "INVALID_WEBHOOK", "Invalid webhook");
    let signer = signer(&servers, bearer(&call.authorization), &call.raw, now).ok_or_else(invalid)?;
    let event = serde_json::from_slice(&call.raw).map_err(|_| invalid())?;
    let event: WebhookEvent = from_value(event).map_err(|_| invalid())?;
    call.ask(move |voice, now| {
        let room = event.room.as_ref().map(|room| room.name.clone()).unwrap_or_default();
        let Some(server) = origin(voice, &signer, &room) else {
            return;
        };
        match (event.event.as_str(), &event.participant) {
            ("participant_joined", Some(participant)) => {
                voice.handle_participant_joined(now, &server, &room, &seen(participant));
            }
            ("participant_left" | "participant_connection_aborted", Some(participant)) => {
                voice.handle_participant_left(now, &server, &room, &seen(participant));
            }
            ("room_finished", _) => voice.handle_room_finished(now, &server, &room),
            _ => {}
        }
    })
    .await?;
    Ok(Answer::Empty)
}

/// Servers whose key has signed this body; several may share one.
fn signer(servers: &[Server], token: &str, body: &[u8], now: Duration) -> Option<Vec<ServerKey>> {
    // Two servers may have the same key with different secrets: each is tried.
    let signed = |server: &&Server| {
        let keys: ApiKeys = [(server.api_key.as_str(), server.api_secret.as_str())]
            .into_iter()
            .collect();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
        verify(token, &keys, now).is_ok_and(|claims| claims.sha256 == STANDARD.encode(digest))
    };
    let found: Vec<ServerKey> = servers.iter().filter(signed).map(Server::key).collect();
    (!found.is_empty()).then_some(found)
}

/// Of servers that share a key it is the one that the room is on, as far as that is known.
fn origin(voice: &Voice, signers: &[ServerKey], room: &str) -> Option<ServerKey> {
    let pin = RoomKey::parse(room).and_then(|room| voice.pins().find(room));
    let pinned = pin.map(|pin| &pin.server).filter(|pinned| signers.contains(pinned));
    pinned.or(signers.first()).cloned()
}

fn seen(participant: &ParticipantInfo) -> Seen {
    Seen {
        identity: participant.identity.clone(),
        participant: participant.sid.clone(),
        nonce: nonce_of(&participant.metadata),
    }
}
