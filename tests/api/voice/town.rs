//! A server with the voice system, a backend with a small directory, a media server elsewhere, and gateway clients.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use patchbay::app::config::{Config, PortRange};
use patchbay::app::serve::Server;
use patchbay::proto::claims::{Claims, sign};
use patchbay::proto::livekit::participant_info::State;
use patchbay::proto::livekit::{ListParticipantsRequest, ListParticipantsResponse, ParticipantInfo};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Answer, LIMIT, request};

pub const SECRET: &str = "the secret of the backend";
pub const USERS: &str = "the key of users' tokens";
pub const FAR_KEY: &str = "far-key";
pub const FAR_SECRET: &str = "the secret of the far server";
pub const GUILD: &str = "900";
const EVERYONE: u64 = (1 << 9) | (1 << 10) | (1 << 20) | (1 << 21) | (1 << 25);

pub struct Town {
    pub server: Server,
    pub far: Far,
    backend: Backend,
}

/// Whoever speaks to a node of the town.
#[derive(Clone, Copy)]
pub struct Backend {
    pub address: SocketAddr,
}

impl Deref for Town {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.backend
    }
}

/// A media server elsewhere: what it was asked, by method and body (protobuf).
#[derive(Clone)]
pub struct Far {
    pub url: String,
    asked: Asked,
    present: Present,
}

/// Who is in which room.
type Present = Arc<Mutex<Vec<(String, ParticipantInfo)>>>;

/// Method and body.
type Asked = watch::Sender<Vec<(String, Vec<u8>)>>;

impl Far {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = Self {
            url: format!("ws://{}", listener.local_addr().unwrap()),
            asked: Asked::default(),
            present: Present::default(),
        };
        let (asked, present) = (far.asked.clone(), Arc::clone(&far.present));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, asked.clone(), Arc::clone(&present)));
            }
        });
        far
    }

    /// Whoever holds `token` is in its room, whenever that is asked.
    pub fn holds(&self, token: &str) {
        let claims = claims(token);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let participant = ParticipantInfo {
            sid: "PA_1".into(),
            identity: text(&claims["sub"]),
            metadata: text(&claims["metadata"]),
            state: State::Active.into(),
            ..ParticipantInfo::default()
        };
        let there = (text(&claims["video"]["room"]), participant);
        self.present.lock().unwrap().push(there);
    }

    /// Waits until it has been asked `method` about somebody or something; the bodies of all such so far.
    pub async fn asked(&self, method: &str, about: &str) {
        let is_it = |(name, body): &(String, Vec<u8>)| {
            name == method && body.windows(about.len()).any(|window| window == about.as_bytes())
        };
        let mut asked = self.asked.subscribe();
        let wanted = asked.wait_for(|asked| asked.iter().any(is_it));
        let found = tokio::time::timeout(LIMIT, wanted).await;
        drop(found.unwrap_or_else(|_| panic!("{method} about {about} was never asked")));
        self.asked.send_modify(|asked| asked.retain(|asked| !is_it(asked)));
    }
}

async fn answer(mut stream: TcpStream, asked: Asked, present: Present) {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while read.len() < end + length {
        stream.read_buf(&mut read).await.unwrap();
    }
    let target = String::from_utf8_lossy(&read[..end])
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let method = target.rsplit('/').next().unwrap_or_default().to_owned();
    let mut body = Vec::new();
    if method == "ListParticipants" {
        let room = ListParticipantsRequest::decode(&read[end..]).unwrap().room;
        let present = present.lock().unwrap();
        let there = present.iter().filter(|(of, _)| *of == room);
        let participants = there.map(|(_, participant)| participant.clone()).collect();
        body = ListParticipantsResponse { participants }.encode_to_vec();
    }
    asked.send_modify(|asked| asked.push((method, read[end..].to_vec())));
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
}

impl Town {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Region us is elsewhere, eu here.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let far = Far::start().await;
        let mut config = Config {
            port: 0,
            bind_addresses: vec![[127, 0, 0, 1].into()],
            development: true,
            ..Config::default()
        };
        config.keys.insert("devkey", "secret");
        config.rtc.udp_port = Some(PortRange { start: 0, end: 0 });
        config.voice.enabled = true;
        config.voice.secret = SECRET.into();
        config.voice.token_secret = USERS.into();
        config.voice.endpoint = "ws://here.test".into();
        config.voice.regions = serde_json::from_value(json!([
            {"id": "us", "name": "America", "latitude": 39.8, "longitude": -98.5, "is_default": true},
            {"id": "eu", "name": "Europe", "latitude": 50.0, "longitude": 14.4},
        ]))
        .unwrap();
        config.voice.servers = serde_json::from_value(json!([
            {"region_id": "us", "server_id": "far", "endpoint": far.url, "api_key": FAR_KEY, "api_secret": FAR_SECRET},
            {"region_id": "eu", "server_id": "here", "endpoint": "ws://here.test", "local": true},
        ]))
        .unwrap();
        change(&mut config);
        let server = Server::start(&config).await.unwrap();
        let backend = Backend {
            address: server.listening()[0],
        };
        backend.found().await;
        Self { server, far, backend }
    }
}

impl Backend {
    /// Guild 900 of owner 1 with voice channels 10 and 11, text 12, hidden 13; members 1 to 6, moderator 2;
    /// conversations 20 (3, 4) and 21 (3, 4, 5).
    pub async fn found(&self) {
        let channel = |id: &str, kind: u16, overwrites: Value| json!({"kind": "channel", "id": id, "guild_id": GUILD, "type": kind, "permission_overwrites": overwrites});
        let mut facts = vec![
            json!({"kind": "guild", "id": GUILD, "owner_id": "1"}),
            json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": EVERYONE.to_string()}),
            json!({"kind": "role", "guild_id": GUILD, "id": "70", "permissions": (0x7u64 << 22 | 1 << 53).to_string()}),
            channel("10", 2, json!([])),
            channel("11", 2, json!([])),
            channel("12", 0, json!([])),
            channel("13", 2, json!([{"id": GUILD, "type": 0, "deny": "1024"}])),
            json!({"kind": "channel", "id": "20", "type": 1, "recipients": ["3", "4"]}),
            json!({"kind": "channel", "id": "21", "type": 3, "recipients": ["3", "4", "5"]}),
        ];
        for user in 1..=7 {
            facts.push(json!({"kind": "user", "id": user.to_string(), "username": format!("user{user}")}));
            let roles: &[&str] = if user == 2 { &["70"] } else { &[] };
            if user <= 6 {
                facts.push(json!({"kind": "member", "guild_id": GUILD, "user_id": user.to_string(), "roles": roles}));
            }
        }
        self.sync(1, facts).await;
    }

    pub async fn sync(&self, version: u64, mut facts: Vec<Value>) -> Value {
        facts.iter_mut().for_each(|fact| fact["version"] = json!(version));
        let (status, body) = self
            .backend("POST", "/voice/directory/sync", json!({"entries": facts}))
            .await;
        assert_eq!(status, 200, "{body}");
        body
    }

    pub async fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Answer {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let authorization = format!("Authorization: Bearer {token}");
        request(
            self.address,
            method,
            path,
            &["Content-Type: application/json", &authorization],
            &text,
        )
        .await
    }

    pub async fn user(&self, user: u64, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.call(method, path, &user_token(user), &body).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
    }

    pub async fn backend(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let answer = self.call(method, path, SECRET, &body).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_default())
    }

    /// Status and code of a refusal.
    pub async fn refused(&self, user: u64, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, body) = self.user(user, method, path, body).await;
        assert!(
            body["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{status} {body}"
        );
        (status, body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The far server tells of somebody who connected with, or left, `ticket`.
    pub async fn tell(&self, event: &str, token: &str) -> u16 {
        let claims = claims(token);
        let event = json!({
            "event": event,
            "room": {"name": claims["video"]["room"]},
            "participant": {"sid": "PA_1", "identity": claims["sub"], "metadata": claims["metadata"]},
        });
        self.webhook(&event.to_string(), FAR_KEY, FAR_SECRET).await
    }

    pub async fn webhook(&self, body: &str, key: &str, secret: &str) -> u16 {
        self.webhook_signed(body, body, key, secret).await
    }

    /// With the signature of what may be another body.
    pub async fn webhook_signed(&self, body: &str, signed: &str, key: &str, secret: &str) -> u16 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed.as_bytes());
        let claims = Claims {
            sha256: STANDARD.encode(digest),
            ..Claims::default()
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let token = sign(&claims, key, secret, now, Duration::from_secs(60));
        let authorization = format!("Authorization: {token}");
        request(self.address, "POST", "/webhooks/livekit", &[&authorization], body)
            .await
            .status
    }

    /// Asks for a token and connects with it.
    pub async fn join(&self, user: u64, channel: &str) -> Value {
        let path = format!("/channels/{channel}/voice/token");
        let (status, ticket) = self.user(user, "POST", &path, json!({})).await;
        assert_eq!(status, 200, "{ticket}");
        assert_eq!(
            self.tell("participant_joined", ticket["token"].as_str().unwrap()).await,
            200
        );
        ticket
    }

    pub async fn gateway(&self, user: u64) -> Gateway {
        let mut gateway = Gateway::open(self.address, "/gateway?v=1&encoding=json").await;
        assert_eq!(gateway.next().await["op"], 10);
        gateway.identify(&user_token(user)).await;
        gateway
    }
}

pub fn user_token(user: u64) -> String {
    token_until(user, 4_000_000_000)
}

pub fn token_until(user: u64, end: u64) -> String {
    let key = EncodingKey::from_secret(USERS.as_bytes());
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &json!({"sub": user.to_string(), "exp": end}),
        &key,
    )
    .unwrap()
}

/// The payload of a LiveKit token.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .unwrap();
    serde_json::from_slice(&payload).unwrap()
}

pub struct Gateway {
    pub socket: WebSocketStream<TcpStream>,
    sequence: u64,
}

impl Gateway {
    pub async fn open(address: SocketAddr, target: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://{address}{target}"), stream)
            .await
            .unwrap();
        Self { socket, sequence: 0 }
    }

    /// Of the last dispatch.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub async fn identify(&mut self, token: &str) {
        let properties = json!({"os": "", "browser": "", "device": ""});
        self.send(json!({"op": 2, "d": {"token": token, "properties": properties}}))
            .await;
    }

    pub async fn send(&mut self, frame: Value) {
        self.socket.send(Message::Text(frame.to_string().into())).await.unwrap();
    }

    async fn message(&mut self) -> Message {
        let message = tokio::time::timeout(LIMIT, self.socket.next())
            .await
            .expect("a message in time");
        message.expect("an open socket").unwrap()
    }

    pub async fn next(&mut self) -> Value {
        let frame: Value = match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            Message::Binary(bytes) => serde_json::from_slice(&zstd::decode_all(bytes.as_ref()).unwrap()).unwrap(),
            other => panic!("{other:?}"),
        };
        self.sequence = frame["s"].as_u64().unwrap_or(self.sequence);
        frame
    }

    /// The data of the next dispatch of a kind; others before it are passed over.
    pub async fn event(&mut self, event: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["t"] == event {
                return frame["d"].clone();
            }
            assert_ne!(frame["op"], 12, "instead of {event}: {frame}");
        }
    }

    /// Code of the next error.
    pub async fn error(&mut self) -> String {
        loop {
            let frame = self.next().await;
            if frame["op"] == 12 {
                return frame["d"]["code"].as_str().unwrap().to_owned();
            }
        }
    }

    /// Everything until an answer to a heartbeat: what was under way has arrived.
    pub async fn settled(&mut self) -> Vec<Value> {
        self.send(json!({"op": 1, "d": null})).await;
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            if frame["op"] == 11 {
                return frames;
            }
            frames.push(frame);
        }
    }

    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.message().await {
                Message::Close(Some(frame)) => return frame.code.into(),
                Message::Close(None) => panic!("without a code"),
                _ => {}
            }
        }
    }
}
