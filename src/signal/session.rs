//! One signalling WebSocket from its first message to its close.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::SinkExt;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::frames::{Encoding, Incoming};
use crate::node::{Connection, Node, ToClient};
use crate::proto::livekit::{Pong, SignalResponse, signal_request, signal_response};

/// LiveKit: the server pings the WebSocket this often, and asks for no answer.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A client that takes nothing for this long has gone, or never reads: its socket is dropped.
pub(super) const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How long the last messages and the close frame may take to leave.
pub(super) const CLOSE_FLUSH: Duration = Duration::from_millis(250);

/// How long the client's own close frame is waited for; closing TCP earlier could lose what it has not read yet.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// The socket is of no more use.
struct Broken;

/// What follows a frame.
enum Next {
    Continue,
    Close,
}

struct Session {
    node: Node,
    socket: WebSocket,
    encoding: Encoding,
}

/// Serves the connection until either side ends it. Dropping `connection` on the way out tells the room.
pub(super) async fn run(
    node: Node,
    socket: WebSocket,
    encoding: Encoding,
    mut connection: Connection,
    first: ToClient,
) {
    let mut session = Session { node, socket, encoding };
    if session.serve(&mut connection, first).await.is_ok() {
        session.close().await;
    }
}

impl Session {
    /// Ok = close the socket properly; an error = there is nobody to close it with.
    async fn serve(&mut self, connection: &mut Connection, first: ToClient) -> Result<(), Broken> {
        let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Some(first);
        loop {
            while let Some(what) = next.take() {
                match what {
                    ToClient::Message(message) => self.feed(&message).await?,
                    ToClient::Close => return Ok(()),
                }
                next = connection.try_next();
            }
            self.flush().await?;
            tokio::select! {
                what = connection.next() => match what {
                    Some(what) => next = Some(what),
                    None => return Ok(()),
                },
                frame = self.socket.recv() => {
                    let Some(Ok(frame)) = frame else {
                        return Err(Broken);
                    };
                    if let Next::Close = self.handle_frame(connection, &frame).await? {
                        return Ok(());
                    }
                }
                _ = ping.tick() => self.write(Message::Ping(axum::body::Bytes::new())).await?,
            }
        }
    }

    async fn handle_frame(&mut self, connection: &mut Connection, frame: &Message) -> Result<Next, Broken> {
        let request = match self.encoding.read(frame) {
            Incoming::Request(request) => request,
            Incoming::Control => return Ok(Next::Continue),
            Incoming::Closed => {
                // Reading it has queued the answer; without it a browser takes the end for a broken connection (1006).
                let _ = self.flush().await;
                return Err(Broken);
            }
            Incoming::Undecodable => {
                self.node.count_undecodable();
                tracing::debug!("a signalling frame is not readable; closing");
                return Ok(Next::Close);
            }
        };
        let answer = match &request.message {
            Some(signal_request::Message::Ping(_)) => signal_response::Message::Pong(self.unix_millis()),
            Some(signal_request::Message::PingReq(ping)) => {
                let pong = Pong {
                    last_ping_timestamp: ping.timestamp,
                    timestamp: self.unix_millis(),
                };
                self.answer(signal_response::Message::PongResp(pong)).await?;
                // The room knows by it that the client is there.
                let passed_on = connection.request(*request).await;
                return Ok(passed_on.map_or(Next::Close, |()| Next::Continue));
            }
            // A message of a later protocol.
            None => return Ok(Next::Continue),
            Some(_) => {
                let passed_on = connection.request(*request).await;
                return Ok(passed_on.map_or(Next::Close, |()| Next::Continue));
            }
        };
        self.answer(answer).await?;
        Ok(Next::Continue)
    }

    fn unix_millis(&self) -> i64 {
        i64::try_from(self.node.unix().as_millis()).unwrap_or(i64::MAX)
    }

    async fn answer(&mut self, message: signal_response::Message) -> Result<(), Broken> {
        self.feed(&SignalResponse { message: Some(message) }).await
    }

    async fn feed(&mut self, message: &SignalResponse) -> Result<(), Broken> {
        match self.encoding.write(message) {
            Some(frame) => self.write(frame).await,
            None => {
                tracing::error!(?message, "a message has no JSON form and is not sent");
                Ok(())
            }
        }
    }

    async fn write(&mut self, frame: Message) -> Result<(), Broken> {
        match timeout(WRITE_LIMIT, self.socket.feed(frame)).await {
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

    /// LiveKit: 1000 without a reason, whatever the reason was.
    async fn close(&mut self) {
        let frame = Message::Close(Some(CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        }));
        if !matches!(timeout(CLOSE_FLUSH, self.socket.send(frame)).await, Ok(Ok(()))) {
            return;
        }
        let answered = async {
            while let Some(Ok(frame)) = self.socket.recv().await {
                if matches!(frame, Message::Close(_)) {
                    break;
                }
            }
        };
        let _ = timeout(CLOSE_WAIT, answered).await;
    }
}
