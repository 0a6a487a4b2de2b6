//! The gateway's WebSocket: JSON in text frames, or each frame compressed with zstd by itself.

use std::cell::RefCell;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt;
use tokio::time::timeout;

use super::route::{ApiError, decoded};
use crate::node::voice::{ToSocket, VoiceLink, VoiceSocket};
use crate::voice::MAX_FRAME;

const PATHS: [&str; 2] = ["/gateway", "/gateway/"];

/// Bytes read at a time; a session holds this for as long as it lives, and clients send less.
const READ_BUFFER: usize = 1 << 10;
const WRITE_BUFFER: usize = 2 << 10;
/// READY of a user in many guilds.
const MAX_WRITE_BUFFER: usize = 8 << 20;

/// Frames above the domain's limit are read up to here, so that their sender hears the close code instead of a reset.
const MAX_READ: usize = 16 * MAX_FRAME;

/// A client that takes nothing for this long does not read.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long the client's own close frame is waited for.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// As Fluxer does.
const COMPRESSION_LEVEL: i32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    None,
    Zstd,
}

/// `/gateway`, or a WebSocket at the root that names a version of the protocol.
pub(super) fn is_wanted(path: &str, parts: &Parts) -> bool {
    PATHS.contains(&path) || (path == "/" && parts.headers.contains_key(header::UPGRADE) && query(parts, "v").is_some())
}

fn query(parts: &Parts, name: &str) -> Option<String> {
    let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(known, _)| *known == name);
    found.next().and_then(|(_, value)| decoded(value))
}

pub(super) async fn connect(link: VoiceLink, parts: &mut Parts) -> Response {
    let version = query(parts, "v");
    let compression = match query(parts, "compress").as_deref() {
        Some("zstd-stream") => Compression::Zstd,
        _ => Compression::None,
    };
    let Ok(upgrade) = WebSocketUpgrade::from_request_parts(parts, &()).await else {
        return ApiError::new(426, "UPGRADE_REQUIRED", "The gateway speaks WebSocket").into_response();
    };
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(MAX_READ)
        .max_frame_size(MAX_READ)
        .on_upgrade(move |socket| async move {
            if let Ok(session) = link.open_socket(version).await {
                Socket { socket, compression }.run(session).await;
            }
        })
}

/// The socket is of no more use.
struct Broken;

struct Socket {
    socket: WebSocket,
    compression: Compression,
}

impl Socket {
    async fn run(mut self, mut session: VoiceSocket) {
        // Dropping the session on the way out tells the domain.
        let _ = self.serve(&mut session).await;
    }

    async fn serve(&mut self, session: &mut VoiceSocket) -> Result<(), Broken> {
        loop {
            tokio::select! {
                what = session.next() => {
                    // Cut off: a client that does not read gets no farewell either.
                    let mut next = Some(what.ok_or(Broken)?);
                    while let Some(what) = next.take() {
                        match what {
                            ToSocket::Frame(frame) => self.feed(&frame.to_json()).await?,
                            ToSocket::Close { code, reason } => return self.close(code, reason).await,
                        }
                        next = session.try_next();
                    }
                    self.flush().await?;
                }
                frame = self.socket.recv() => match frame {
                    Some(Ok(Message::Text(text))) => session.frame(text.to_string()).await.map_err(|_| Broken)?,
                    Some(Ok(Message::Binary(_))) => session.undecodable().await.map_err(|_| Broken)?,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_))) => {
                        let _ = self.flush().await;
                        return Err(Broken);
                    }
                    // Above even the larger limit: there is no reading on.
                    Some(Err(_)) => return self.close(4002, "Decode error").await,
                    None => return Err(Broken),
                },
            }
        }
    }

    async fn feed(&mut self, text: &str) -> Result<(), Broken> {
        let message = match self.compression {
            Compression::None => Message::Text(text.into()),
            Compression::Zstd => Message::Binary(compressed(text).ok_or(Broken)?),
        };
        match timeout(WRITE_LIMIT, self.socket.feed(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Broken),
        }
    }

    async fn flush(&mut self) -> Result<(), Broken> {
        match timeout(WRITE_LIMIT, self.socket.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Broken),
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) -> Result<(), Broken> {
        let frame = Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }));
        let sent = timeout(CLOSE_WAIT, self.socket.send(frame)).await;
        sent.map_err(|_| Broken)?.map_err(|_| Broken)?;
        let answered = async {
            while let Some(Ok(frame)) = self.socket.recv().await {
                if matches!(frame, Message::Close(_)) {
                    break;
                }
            }
        };
        let _ = timeout(CLOSE_WAIT, answered).await;
        Ok(())
    }
}

/// One whole zstd frame. The compressor's tables are shared by all clients of a thread: they hold nothing between frames.
fn compressed(text: &str) -> Option<Bytes> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            *compressor = zstd::bulk::Compressor::new(COMPRESSION_LEVEL).ok();
        }
        let compressed = compressor.as_mut()?.compress(text.as_bytes()).ok()?;
        Some(compressed.into())
    })
}
