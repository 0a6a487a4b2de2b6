//! The least of an HTTP client and of a signalling client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use futures_util::{SinkExt, StreamExt};
use patchbay::proto::livekit::{
    ClientInfo, ConnectionSettings, JoinRequest, SignalRequest, SignalResponse, WrappedJoinRequest, signal_request,
    signal_response,
};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;

/// Nothing here takes a hundredth of it; a story that hangs fails instead.
pub const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As text, where it is one.
    pub body: String,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// One request on a connection of its own. `headers` are whole lines.
pub async fn request(address: SocketAddr, method: &str, target: &str, headers: &[&str], body: &str) -> Answer {
    request_bytes(address, method, target, headers, body.as_bytes()).await
}

pub async fn request_bytes(address: SocketAddr, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        text += &format!("{header}\r\n");
    }
    text += &format!("Content-Length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(address).await.unwrap();
    // An over-long request is answered before it is read to its end.
    let _ = stream.write_all(&[text.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer))
        .await
        .expect("an answer");
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("a whole head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let bytes = answer[end + 4..].to_vec();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: String::from_utf8_lossy(&bytes).into_owned(),
        bytes,
    }
}

pub async fn fetch(address: SocketAddr, target: &str) -> Answer {
    request(address, "GET", target, &[], "").await
}

/// Asks again and again, for what no event tells of.
pub async fn until<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("in time")
}

/// A `join_request` parameter as the JavaScript client makes it, uncompressed.
pub fn join_request(change: impl FnOnce(&mut JoinRequest)) -> String {
    let mut request = JoinRequest {
        client_info: Some(ClientInfo {
            protocol: 17,
            ..Default::default()
        }),
        connection_settings: Some(ConnectionSettings {
            auto_subscribe: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    change(&mut request);
    let wrapped = WrappedJoinRequest {
        compression: 0,
        join_request: request.encode_to_vec(),
    };
    URL_SAFE.encode(wrapped.encode_to_vec()).replace('=', "%3D")
}

/// A signalling WebSocket.
#[derive(Debug)]
pub struct Signalling {
    pub socket: WebSocketStream<TcpStream>,
}

/// Status and body of an upgrade that was refused.
#[derive(Debug, PartialEq)]
pub struct Refused(pub u16, pub String);

impl Signalling {
    pub async fn open(address: SocketAddr, target: &str, token: &str) -> Result<Self, Refused> {
        let mut request = format!("ws://{address}{target}").into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        let stream = TcpStream::connect(address).await.unwrap();
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err(Refused(response.status().as_u16(), String::from_utf8(body).unwrap()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub async fn send(&mut self, message: signal_request::Message) {
        let request = SignalRequest { message: Some(message) };
        self.frame(Message::Binary(request.encode_to_vec().into())).await;
    }

    pub async fn frame(&mut self, frame: Message) {
        self.socket.send(frame).await.unwrap();
    }

    /// The next frame that is no ping.
    pub async fn next_frame(&mut self) -> Option<Message> {
        loop {
            let frame = tokio::time::timeout(LIMIT, self.socket.next())
                .await
                .expect("a frame in time")?;
            match frame.expect("a whole frame") {
                Message::Ping(_) => {}
                frame => return Some(frame),
            }
        }
    }

    /// The next binary message.
    pub async fn next(&mut self) -> signal_response::Message {
        match self.next_frame().await {
            Some(Message::Binary(bytes)) => SignalResponse::decode(bytes.as_ref()).unwrap().message.unwrap(),
            other => panic!("not a binary message: {other:?}"),
        }
    }

    /// The first message that `wanted` accepts.
    pub async fn until<T>(&mut self, wanted: impl Fn(signal_response::Message) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    /// Reads until the close frame; its code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next_frame().await {
                Some(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Message::Close(None)) => panic!("a close frame without a code"),
                Some(_) => {}
                None => panic!("the socket ended without a close frame"),
            }
        }
    }
}
