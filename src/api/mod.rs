//! L3: HTTP beside signalling: the server APIs, webhooks, explanations, health, the built-in page, CORS, and what is not there.
//!
//! Owns these answers only; which path leads where is decided by the HTTP entry in `app`.

pub mod cors;
pub mod explain;
mod page;
pub mod twirp;
pub mod voice;
pub mod webhooks;
pub mod whip;

use axum::body::{Body, to_bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

pub use page::{asset, doctor, wants_page};

use crate::node::Node;
use crate::proto::claims::{Claims, VideoGrant, sign};

/// Bytes of a `POST /dev/token` body.
const MAX_TOKEN_REQUEST: usize = 8 << 10;

/// Life of a development token.
const DEV_TOKEN_TTL: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

/// `GET /`: LiveKit's health answer, which load balancers and clients ask for. A node that stops is not ready.
pub fn health(node: &Node) -> Response {
    match node.is_draining() {
        // LiveKit: the status and the first line of a node that should get nothing new.
        true => text(StatusCode::NOT_ACCEPTABLE, "Not Ready\nNode Shutting Down"),
        false => text(StatusCode::OK, "OK"),
    }
}

/// To whoever may not.
pub fn refused() -> Response {
    text(StatusCode::UNAUTHORIZED, "permissions denied")
}

/// What Go's `http.NotFound` answers.
pub fn not_found() -> Response {
    let mut response = text(StatusCode::NOT_FOUND, "404 page not found\n");
    response.headers_mut().insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    response
}

#[derive(Debug, Deserialize)]
struct TokenRequest {
    room: String,
    identity: String,
    #[serde(default)]
    name: String,
    /// Not to join: to ask the server about the room.
    #[serde(default)]
    admin: bool,
}

#[derive(Debug, Serialize)]
struct TokenAnswer {
    token: String,
}

/// `POST /dev/token`: a token for whoever asks. The entry offers it in development mode only.
pub async fn dev_token(node: &Node, body: Body) -> Response {
    let Ok(body) = to_bytes(body, MAX_TOKEN_REQUEST).await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the request is too large");
    };
    let request: TokenRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("not a token request: {error}")),
    };
    if request.room.is_empty() || request.identity.is_empty() {
        return text(StatusCode::BAD_REQUEST, "room and identity are required");
    }
    let keys = node.keys();
    let Some((key, secret)) = keys.first() else {
        return not_found();
    };
    let claims = Claims {
        identity: request.identity,
        name: request.name,
        video: Some(VideoGrant {
            room_join: !request.admin,
            room_admin: request.admin,
            room: request.room,
            can_update_own_metadata: Some(true),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    axum::Json(TokenAnswer {
        token: sign(&claims, key, secret, node.unix(), DEV_TOKEN_TTL),
    })
    .into_response()
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        body.into(),
    )
        .into_response()
}
