//! L3: the `/rtc` WebSocket of clients, the `/agent` WebSocket of workers, and what decides who may open one.
//!
//! Owns tokens on the way in, LiveKit's statuses and texts for those who do not get in, and the frames of those who do.
//! Driven by the HTTP entry in `app`. Never decides anything about a room: it asks the node.

mod admission;
mod auth;
mod client_info;
mod frames;
mod session;
#[cfg(test)]
mod tests;
mod worker;

use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

pub use admission::{Form, Strictness};
pub use auth::{Refusal, authenticate, query_pairs};
pub use worker::connect_worker;

use self::frames::Encoding;
use crate::node::Node;
use crate::proto::claims::Claims;

/// Bytes read from a socket at a time. A connection holds this for as long as it lives (DESIGN §6); tungstenite's own
/// default is 128 KiB.
const READ_BUFFER: usize = 4 << 10;

/// Bytes gathered before they are written to the socket; a burst of messages leaves in few writes.
const WRITE_BUFFER: usize = 16 << 10;

/// The largest burst kept for one socket: above the largest single message (a JoinResponse of a very large room).
const MAX_WRITE_BUFFER: usize = 16 << 20;

/// Where `limit.signal_message_size_limit` is 0: memory is not unlimited.
const MAX_MESSAGE: usize = 64 << 20;

/// `GET /rtc/validate` and `/rtc/v1/validate`: everything that would refuse a connection, without one.
pub fn validate(node: &Node, claims: Option<Claims>, parts: &Parts, form: Form) -> Response {
    match admission::admit(node, claims, parts, form, Strictness::Validate) {
        Ok(_) => Refusal::text(StatusCode::OK, "success").into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

/// `GET /rtc` and `/rtc/v1`. The session is started, and its first message there, before the upgrade is answered, so that
/// a failure is an HTTP status.
pub async fn connect(node: &Node, claims: Option<Claims>, mut parts: Parts, form: Form) -> Response {
    if !is_websocket(&parts) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (claims, parameters) = match admission::admit(node, claims, &parts, form, Strictness::Connect) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(_) => return Refusal::text(StatusCode::BAD_REQUEST, "Bad Request").into_response(),
    };
    let (connection, first) = match node.join(claims, parameters).await {
        Ok(joined) => joined,
        Err(failure) => return Refusal::from(failure).into_response(),
    };
    let limit = message_limit(node);
    let node = node.clone();
    let encoding = Encoding::asked_for(&parts.uri);
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(move |socket| session::run(node, socket, encoding, connection, first))
}

/// Bytes of one message.
fn message_limit(node: &Node) -> usize {
    match node.config().signal_message_size_limit {
        0 => MAX_MESSAGE,
        limit => limit.min(MAX_MESSAGE),
    }
}

/// RFC 6455 §4.2.1: both headers name the upgrade, in any case, perhaps among other tokens.
fn is_websocket(parts: &Parts) -> bool {
    let names = |name: header::HeaderName, token: &str| {
        parts
            .headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    names(header::CONNECTION, "upgrade") && names(header::UPGRADE, "websocket")
}
