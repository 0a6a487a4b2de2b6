//! The server as an operator runs it: the program itself, its signals, its end and its next start.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use patchbay::proto::claims::{Claims, VideoGrant, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::client::{Answer, LIMIT, Signalling, fetch, join_request, request};

pub const KEY: &str = "key";
pub const SECRET: &str = "a secret of the tests, long enough";

/// One life of the server after the other, on the same port and the same files.
pub struct Process {
    child: Option<Child>,
    /// Lines of its log, where that is listened to.
    log: Option<mpsc::UnboundedReceiver<String>>,
    is_logging: bool,
    pub address: SocketAddr,
    config: serde_json::Value,
    directory: PathBuf,
}

impl Process {
    /// Starts it with `settings` over what every such server has here.
    pub async fn start(settings: serde_json::Value) -> Self {
        let mut process = Self::prepare(settings);
        process.run().await;
        process
    }

    /// As `start`, and what it logs can be waited for.
    pub async fn logging(settings: serde_json::Value) -> Self {
        let mut process = Self::prepare(settings);
        process.is_logging = true;
        process.run().await;
        process
    }

    /// Reads its log up to a line with that in it.
    pub async fn logs(&mut self, text: &str) {
        self.logs_all(&[text]).await;
    }

    /// Up to the last of several, in any order.
    pub async fn logs_all(&mut self, texts: &[&str]) {
        let log = self.log.as_mut().unwrap();
        let mut wanted = texts.to_vec();
        let found = async {
            while !wanted.is_empty() {
                let Some(line) = log.recv().await else {
                    panic!("its log ends without {wanted:?}");
                };
                wanted.retain(|text| !line.contains(text));
            }
        };
        let found = tokio::time::timeout(LIMIT, found).await;
        assert!(found.is_ok(), "not logged: {texts:?}");
    }

    /// What a server that does not start with these settings says.
    pub async fn refused(settings: serde_json::Value) -> String {
        let process = Self::prepare(settings);
        let child = process.command().stderr(Stdio::piped()).spawn().unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = tokio::time::timeout(LIMIT, ended).await.expect("an end").unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(!output.status.success(), "it starts: {said:?}");
        said.concat()
    }

    fn prepare(settings: serde_json::Value) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("patchbay-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let media = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = serde_json::json!({
            "port": port.port(),
            "bind_addresses": ["127.0.0.1"],
            "keys": { KEY: SECRET },
            "rtc": { "udp_port": media.port(), "tcp_port": 0, "node_ip": "127.0.0.1" },
            "database": directory.join("state.db"),
        });
        for (name, value) in settings.as_object().unwrap() {
            config[name] = value.clone();
        }
        Self {
            child: None,
            log: None,
            is_logging: false,
            address: port,
            config,
            directory,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patchbay"));
        command
            .args(["--config-body", &self.config.to_string()])
            .current_dir(&self.directory)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if self.is_logging {
            command.env("RUST_LOG", "info").stderr(Stdio::piped());
        }
        command
    }

    /// The next life. Returns when it answers.
    pub async fn run(&mut self) {
        let mut child = self.command().spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        if let Some(stderr) = child.stderr.take() {
            let (lines, log) = mpsc::unbounded_channel();
            self.log = Some(log);
            std::thread::spawn(move || {
                let said = BufReader::new(stderr).lines().map_while(Result::ok);
                // Read to its end, so that it never waits for somebody to.
                said.for_each(|line| drop(lines.send(line)));
            });
        }
        self.child = Some(child);
        // It says so when its sockets are open; a server that ends says nothing.
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            line
        });
        let line = tokio::time::timeout(LIMIT, line).await.expect("a start").unwrap();
        assert!(line.contains(" serves http"), "the server does not start: {line:?}");
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().unwrap();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// How it ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
        tokio::time::timeout(LIMIT, ended).await.expect("an end").unwrap()
    }

    pub async fn kill(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        self.ended().await;
    }

    pub fn token(&self, identity: &str, grant: VideoGrant) -> String {
        let claims = Claims {
            identity: identity.into(),
            video: Some(grant),
            ..Claims::default()
        };
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        sign(&claims, KEY, SECRET, now, Duration::from_secs(600))
    }

    /// Somebody in `room`, whose media never connects.
    pub async fn join(&self, identity: &str, room: &str) -> Result<Signalling, crate::client::Refused> {
        let grant = VideoGrant {
            room_join: true,
            room: room.into(),
            ..VideoGrant::default()
        };
        let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
        Signalling::open(self.address, &target, &self.token(identity, grant)).await
    }

    /// One call of a server API, with every right in `room`.
    pub async fn call(&self, method: &str, room: &str, body: serde_json::Value) -> Answer {
        let authorization = format!("authorization: Bearer {}", self.token("backend", every_right(room)));
        let headers = ["content-type: application/json", &authorization];
        request(
            self.address,
            "POST",
            &format!("/twirp/livekit.{method}"),
            &headers,
            &body.to_string(),
        )
        .await
    }

    /// As `call`; the JSON of an answer with status 200 that came whole. None for any other end.
    pub async fn acknowledged(&self, method: &str, room: &str, body: serde_json::Value) -> Option<serde_json::Value> {
        let (token, body) = (self.token("backend", every_right(room)), body.to_string());
        let request = format!(
            "POST /twirp/livekit.{method} HTTP/1.1\r\nHost: server\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200 ")
            .then(|| serde_json::from_str(body).ok())?
    }

    pub async fn health(&self) -> (u16, String) {
        let answer = fetch(self.address, "/").await;
        (answer.status, answer.body)
    }
}

fn every_right(room: &str) -> VideoGrant {
    VideoGrant {
        room_create: true,
        room_list: true,
        room_admin: true,
        room: room.into(),
        ..VideoGrant::default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
