//! The same over real sockets: a server process of its own, and a WebSocket for every session.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use patchbay::proto::claims::{Claims, sign};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::{FAR, NEAR};

const UPDATES: usize = 100;
const SECRET: &str = "the secret of the backend";
const USERS: &str = "the key of users' tokens";
const KEY: &str = "far-key";
const KEY_SECRET: &str = "the secret of the far server";
/// What an update is known by.
const EVENT: &[u8] = b"\"VOICE_STATE_UPDATE\"";
/// Bytes read at a time.
const READ: usize = 16 << 10;

/// What all clients together have read.
#[derive(Default)]
struct Heard {
    updates: AtomicUsize,
    wanted: AtomicUsize,
    all: Notify,
}

impl Heard {
    fn count(&self, updates: usize) {
        if updates > 0
            && self.updates.fetch_add(updates, Ordering::SeqCst) + updates >= self.wanted.load(Ordering::SeqCst)
        {
            self.all.notify_one();
        }
    }
}

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Times of updates, and bytes of the server for each session: when they are new, and after all updates.
pub fn measure(sessions: u64) -> (Vec<Duration>, usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(sessions))
}

async fn run(sessions: u64) -> (Vec<Duration>, usize, usize) {
    let server = Server::start().await;
    let talker = server.found(sessions).await;
    let before = server.resident();
    let heard = Arc::<Heard>::default();
    // Some at a time: the server's backlog is no part of this.
    for users in (1..=sessions).collect::<Vec<_>>().chunks(200) {
        let ready = users
            .iter()
            .map(|user| client(server.address, *user, Arc::clone(&heard)));
        futures_util::future::join_all(ready).await;
    }
    let held = || server.resident().saturating_sub(before) / sessions as usize;
    let bytes = held();
    let mut times = Vec::new();
    for update in 0..UPDATES {
        heard.updates.store(0, Ordering::SeqCst);
        heard.wanted.store(sessions as usize, Ordering::SeqCst);
        let began = Instant::now();
        let ask = json!({
            "type": "voice_update_participant", "guild_id": "900", "channel_id": "10", "user_id": talker,
            "mute": update % 2 == 0, "deaf": false,
        });
        server.backend("/_rpc", &ask).await;
        let all = tokio::time::timeout(Duration::from_secs(60), heard.all.notified()).await;
        all.expect("everybody hears of it");
        times.push(began.elapsed());
    }
    (times, bytes, held())
}

impl Server {
    async fn start() -> Self {
        let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("ws://{}", far.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = far.accept().await {
                tokio::spawn(agree(stream));
            }
        });
        let free = || {
            std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let (address, media) = (
            free(),
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
        );
        let config = json!({
            "port": address.port(),
            "bind_addresses": ["127.0.0.1"],
            "keys": {"devkey": "secret"},
            "rtc": {"udp_port": media.port(), "tcp_port": 0, "node_ip": "127.0.0.1"},
            "voice": {
                "enabled": true, "secret": SECRET, "token_secret": USERS,
                "regions": [{"id": "us", "name": "us"}],
                "servers": [{"region_id": "us", "server_id": "a", "endpoint": endpoint, "api_key": KEY, "api_secret": KEY_SECRET}],
            },
        });
        let process = Command::new(env!("CARGO_BIN_EXE_patchbay"))
            .args(["--dev", "--config-body", &config.to_string()])
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, address }
    }

    /// Everybody with a session is a member of guild 900, and fifty are in its channel; guild 901 has the other talkers.
    /// One of the fifty.
    async fn found(&self, sessions: u64) -> String {
        let strangers = 1_000_001..=1_000_000 + FAR;
        let places = [
            ("900", "10", 1..=sessions, 1..=NEAR),
            ("901", "11", strangers.clone(), strangers),
        ];
        for (guild, channel, members, talkers) in places {
            let mut facts = vec![
                json!({"kind": "guild", "version": 1, "id": guild}),
                json!({"kind": "role", "version": 1, "guild_id": guild, "id": guild, "permissions": "3146752"}),
                json!({"kind": "channel", "version": 1, "id": channel, "guild_id": guild, "type": 2}),
            ];
            for user in members {
                facts.push(json!({"kind": "user", "version": 1, "id": user.to_string()}));
                facts.push(json!({"kind": "member", "version": 1, "guild_id": guild, "user_id": user.to_string()}));
            }
            self.backend("/voice/directory/sync", &json!({ "entries": facts }))
                .await;
            for user in talkers {
                self.talk(guild, channel, user).await;
            }
        }
        "1".to_owned()
    }

    async fn talk(&self, guild: &str, channel: &str, user: u64) {
        let ask =
            json!({"type": "voice_get_token", "guild_id": guild, "channel_id": channel, "user_id": user.to_string()});
        let ticket = self.backend("/_rpc", &ask).await;
        let token = ticket["data"]["token"].as_str().unwrap();
        let claims = token.split('.').nth(1).unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let event = json!({
            "event": "participant_joined",
            "room": {"name": claims["video"]["room"]},
            "participant": {"sid": "PA_1", "identity": claims["sub"], "metadata": claims["metadata"]},
        });
        let body = event.to_string();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
        let claims = Claims {
            sha256: STANDARD.encode(digest),
            ..Claims::default()
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let token = sign(&claims, KEY, KEY_SECRET, now, Duration::from_secs(60));
        self.post("/webhooks/livekit", &token, &body).await;
    }

    async fn backend(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, &format!("Bearer {SECRET}"), &body.to_string()).await;
        serde_json::from_str(&answer).unwrap()
    }

    async fn post(&self, path: &str, authorization: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\nAuthorization: {authorization}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer:.300}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// Bytes.
    fn resident(&self) -> usize {
        let pages = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id())).unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
}

/// The media server does what it is asked.
async fn agree(stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim().to_lowercase();
        if let Some(text) = line.strip_prefix("content-length: ") {
            length = text.parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(answer).await.ok()
}

/// Returns when it has READY; counts updates from then on.
async fn client(server: SocketAddr, user: u64, heard: Arc<Heard>) {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let request = "GET /gateway?v=1&encoding=json HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let claims = json!({"sub": user.to_string(), "exp": 4_000_000_000u64});
    let key = EncodingKey::from_secret(USERS.as_bytes());
    let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
    let properties = json!({"os": "", "browser": "", "device": ""});
    stream
        .write_all(&frame(
            &json!({"op": 2, "d": {"token": token, "properties": properties}}).to_string(),
        ))
        .await
        .unwrap();
    let mut read = Vec::with_capacity(32 << 10);
    let mut is_open = false;
    loop {
        assert_ne!(
            stream.read_buf(&mut read).await.unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&read)
        );
        if let Some(end) = find(&read, b"\r\n\r\n").filter(|_| !is_open) {
            read.drain(..end + 4);
            is_open = true;
        }
        if is_open && take(&mut read, b"\"READY\"") == 1 {
            break;
        }
    }
    tokio::spawn(async move {
        read.shrink_to(READ);
        loop {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
            heard.count(take(&mut read, EVENT));
        }
    });
}

/// One text frame of a client (RFC 6455 §5.2), masked with nothing.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    let mut frame = vec![0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Frames with `what` in them among the whole ones in `read`, which are taken out.
fn take(read: &mut Vec<u8>, what: &[u8]) -> usize {
    let mut found = 0;
    loop {
        let (header, length) = match read.get(1).map(|byte| byte & 0x7f) {
            None => return found,
            Some(126) if read.len() >= 4 => (4, usize::from(u16::from_be_bytes([read[2], read[3]]))),
            Some(126) => return found,
            Some(127) if read.len() >= 10 => {
                let mut length = [0; 8];
                length.copy_from_slice(&read[2..10]);
                (10, u64::from_be_bytes(length) as usize)
            }
            Some(127) => return found,
            Some(length) => (2, usize::from(length)),
        };
        if read.len() < header + length {
            return found;
        }
        found += usize::from(find(&read[header..header + length], what).is_some());
        read.drain(..header + length);
    }
}
