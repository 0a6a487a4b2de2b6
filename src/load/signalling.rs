//! LiveKit's signalling as a client speaks it: `/rtc/v1` over a WebSocket, one peer connection.

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::failure::Failure;
use crate::proto::livekit::{
    AddTrackRequest, ClientInfo, ConnectionSettings, JoinRequest, LeaveRequest, SessionDescription, SignalRequest,
    SignalResponse, WrappedJoinRequest, signal_request, signal_response, wrapped_join_request,
};
use crate::tls::{self, Trust};

/// Reaching the server and its answer to the join, each.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the server is.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: Option<tokio_rustls::TlsConnector>,
    /// In front of `/rtc/v1`, without a slash at the end.
    path: String,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, Failure> {
        let usage = |reason: &str| Failure::Usage(format!("--url {url}: {reason}"));
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| usage("should begin with ws:// or wss://"))?;
        let secure = match scheme {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(usage("should begin with ws:// or wss://")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| usage("no port"))?),
            _ => (authority, if secure { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(usage("no host"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            tls: secure
                .then(|| tls::connector(Trust::Machine))
                .transpose()
                .map_err(|error| usage(&error.to_string()))?,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// Connects; the address of this end is where its media socket belongs, too.
    pub async fn reach(&self) -> Result<(Box<dyn Pipe>, IpAddr), Failure> {
        let place = format!("{}:{}", self.host, self.port);
        let unreachable = |reason: String| Failure::Unreachable(format!("{place}: {reason}"));
        let stream = timeout(PATIENCE, TcpStream::connect((self.host.as_str(), self.port)))
            .await
            .map_err(|_| unreachable("no answer".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let local = stream
            .local_addr()
            .map_err(|error| unreachable(error.to_string()))?
            .ip();
        let Some(tls) = &self.tls else {
            return Ok((Box::new(stream), local));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(|error| unreachable(error.to_string()))?;
        let stream = timeout(PATIENCE, tls.connect(name, stream))
            .await
            .map_err(|_| unreachable("no TLS answer".into()))?
            .map_err(|error| unreachable(error.to_string()))?;
        Ok((Box::new(stream), local))
    }
}

/// TCP, or TLS over it.
pub trait Pipe: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Pipe for T {}

pub struct Signalling {
    socket: WebSocketStream<Box<dyn Pipe>>,
    who: String,
}

/// How a participant wants to join.
#[derive(Default)]
pub struct Join {
    pub offer: String,
    pub tracks: Vec<AddTrackRequest>,
    pub subscribe: bool,
    /// The session that is to be taken up again; then the offer comes later, and tracks are known.
    pub resumed: Option<String>,
}

impl Signalling {
    pub async fn join(
        target: &Target,
        pipe: Box<dyn Pipe>,
        token: &str,
        who: &str,
        join: Join,
    ) -> Result<Self, Failure> {
        let request = JoinRequest {
            client_info: Some(ClientInfo {
                sdk: 8, // Rust
                protocol: 16,
                version: env!("CARGO_PKG_VERSION").into(),
                ..ClientInfo::default()
            }),
            connection_settings: Some(ConnectionSettings {
                auto_subscribe: join.subscribe,
                ..ConnectionSettings::default()
            }),
            add_track_requests: join.tracks,
            publisher_offer: join.resumed.is_none().then(|| description("offer", join.offer, 1)),
            reconnect: join.resumed.is_some(),
            participant_sid: join.resumed.unwrap_or_default(),
            ..JoinRequest::default()
        };
        // As LiveKit's clients do; an offer with fifty streams would not fit into a request line otherwise.
        let wrapped = WrappedJoinRequest {
            compression: wrapped_join_request::Compression::Gzip as i32,
            join_request: gzip(&request.encode_to_vec()),
        };
        let encoded = base64::engine::general_purpose::URL_SAFE
            .encode(wrapped.encode_to_vec())
            .replace('=', "%3D");
        let host = if target.host.contains(':') {
            format!("[{}]", target.host)
        } else {
            target.host.clone()
        };
        let scheme = if target.tls.is_some() { "wss" } else { "ws" };
        let url = format!(
            "{scheme}://{host}:{}{}/rtc/v1?access_token={token}&join_request={encoded}",
            target.port, target.path
        );
        let refused = |reason: String| Failure::Refused {
            who: who.to_owned(),
            reason,
        };
        let handshake = timeout(PATIENCE, client_async(url, pipe))
            .await
            .map_err(|_| refused("no answer to the join within 10 s".into()))?;
        match handshake {
            Ok((socket, _)) => Ok(Self {
                socket,
                who: who.to_owned(),
            }),
            Err(SocketError::Http(response)) => {
                let body = response
                    .body()
                    .as_deref()
                    .map(String::from_utf8_lossy)
                    .unwrap_or_default();
                Err(refused(
                    format!("{} {}", response.status(), body.trim()).trim_end().to_owned(),
                ))
            }
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// The next message; may be cancelled.
    pub async fn next(&mut self) -> Result<signal_response::Message, Failure> {
        let vanished = |reason: String, who: &str| Failure::Vanished {
            who: who.to_owned(),
            reason,
        };
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let response = SignalResponse::decode(bytes.as_ref())
                        .map_err(|error| vanished(format!("not a signal response: {error}"), &self.who))?;
                    if let Some(message) = response.message {
                        return Ok(message);
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| format!(" ({})", frame.reason)).unwrap_or_default();
                    return Err(vanished(
                        format!("it closed the signalling connection{reason}"),
                        &self.who,
                    ));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(vanished(error.to_string(), &self.who)),
                None => return Err(vanished("the signalling connection ended".into(), &self.who)),
            }
        }
    }

    pub async fn send(&mut self, message: signal_request::Message) -> Result<(), Failure> {
        let request = SignalRequest { message: Some(message) };
        self.socket
            .send(Message::Binary(request.encode_to_vec().into()))
            .await
            .map_err(|error| Failure::Vanished {
                who: self.who.clone(),
                reason: error.to_string(),
            })
    }

    pub async fn leave(&mut self) {
        let _ = self.send(signal_request::Message::Leave(LeaveRequest::default())).await;
        let _ = self.socket.close(None).await;
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .unwrap_or_else(|error| unreachable!("writing into memory does not fail: {error}"))
}

pub fn description(kind: &str, sdp: String, id: u32) -> SessionDescription {
    SessionDescription {
        r#type: kind.into(),
        sdp,
        id,
        ..SessionDescription::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_form_are_read() {
        let read = |url: &str| {
            let target = Target::parse(url).expect("a URL");
            (target.host, target.port, target.path, target.tls.is_some())
        };
        assert_eq!(read("ws://a:7880"), ("a".into(), 7880, String::new(), false));
        assert_eq!(read("http://a/sfu/"), ("a".into(), 80, "/sfu".into(), false));
        assert_eq!(read("ws://[::1]:1"), ("::1".into(), 1, String::new(), false));
        assert_eq!(read("ws://[::1]"), ("::1".into(), 80, String::new(), false));
        assert_eq!(read("wss://a.example"), ("a.example".into(), 443, String::new(), true));
        for url in ["a:7880", "ftp://a", "ws://", "ws://a:x", "ws://:1"] {
            assert!(matches!(Target::parse(url), Err(Failure::Usage(_))), "{url}");
        }
    }
}
