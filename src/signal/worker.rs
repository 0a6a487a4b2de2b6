//! The WebSocket of an agent worker, `/agent`: who may open one, and its frames.

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::auth::Refusal;
use super::frames::{Encoding, Incoming};
use super::session::{CLOSE_FLUSH, PING_INTERVAL, WRITE_LIMIT};
use super::{MAX_WRITE_BUFFER, READ_BUFFER, WRITE_BUFFER, is_websocket, message_limit};
use crate::node::{Node, ToWorker, WorkerConnection};
use crate::proto::claims::Claims;
use crate::proto::livekit::{ServerMessage, WorkerMessage};

/// `GET /agent`.
pub async fn connect_worker(node: &Node, claims: Option<Claims>, mut parts: Parts) -> Response {
    if !is_websocket(&parts) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let is_agent = |claims: &Claims| claims.video.as_ref().is_some_and(|grant| grant.agent);
    let Some(claims) = claims.filter(is_agent) else {
        return Refusal::unauthorized("permissions denied").into_response();
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade,
        Err(_) => return Refusal::text(StatusCode::BAD_REQUEST, "Bad Request").into_response(),
    };
    let limit = message_limit(node);
    let node = node.clone();
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(limit)
        .max_frame_size(limit)
        .on_upgrade(async move |socket| {
            let connection = node.connect_worker(&claims).await;
            run(node, socket, connection).await;
        })
}

/// Until either side ends it. Dropping `connection` on the way out tells the pool.
async fn run(node: Node, mut socket: WebSocket, mut connection: WorkerConnection) {
    let mut encoding = Encoding::default();
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            what = connection.next() => match what {
                Some(ToWorker::Message(message)) => match encoding.write_message::<ServerMessage>(&message) {
                    Some(frame) => frame,
                    None => continue,
                },
                Some(ToWorker::Close) | None => break,
            },
            frame = socket.recv() => {
                let Some(Ok(frame)) = frame else { return };
                match encoding.read_message::<WorkerMessage>(&frame) {
                    Incoming::Request(message) => connection.message(*message).await,
                    Incoming::Control => {}
                    Incoming::Closed => {
                        // Reading it has queued the answer.
                        let _ = timeout(WRITE_LIMIT, socket.flush()).await;
                        return;
                    }
                    Incoming::Undecodable => {
                        node.count_undecodable();
                        break;
                    }
                }
                continue;
            }
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        if !matches!(timeout(WRITE_LIMIT, socket.send(frame)).await, Ok(Ok(()))) {
            return;
        }
    }
    let goodbye = CloseFrame {
        code: close_code::NORMAL,
        reason: "".into(),
    };
    let _ = timeout(CLOSE_FLUSH, socket.send(Message::Close(Some(goodbye)))).await;
}
