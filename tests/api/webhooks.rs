//! Webhooks as a receiver sees them: signed, in order, again after a failure, and after a restart.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use patchbay::api::webhooks::{Target, WebhookCounters, WebhookSettings, Webhooks};
use patchbay::node::{JOURNAL, Journal};
use patchbay::proto::claims::verify;
use patchbay::proto::livekit::CreateRoomRequest;
use patchbay::store::{Database, SharedDatabase};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::client::LIMIT;
use crate::server::{KEY, SECRET, Server};

/// One POST as it arrived.
#[derive(Debug)]
struct Received {
    head: String,
    body: String,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        found.next().unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The event and the room it is about.
    fn name(&self) -> (String, String) {
        let event = self.event();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["event"]), text(&event["room"]["name"]))
    }

    fn id(&self) -> String {
        self.event()["id"].as_str().unwrap().to_owned()
    }
}

/// Answers every POST with the next of its statuses, then with `otherwise`.
struct Receiver {
    url: String,
    otherwise: Arc<AtomicU16>,
    received: mpsc::Receiver<Received>,
}

impl Receiver {
    async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?a=b", listener.local_addr().unwrap());
        let (sender, received) = mpsc::channel(100);
        let mut statuses: Vec<u16> = statuses.to_vec();
        let otherwise = Arc::new(AtomicU16::new(200));
        let status_otherwise = Arc::clone(&otherwise);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let (head, length) = loop {
                    if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                        panic!("a whole request")
                    }
                    let text = String::from_utf8_lossy(&bytes);
                    if let Some((head, _)) = text.split_once("\r\n\r\n") {
                        let lower = head.to_lowercase();
                        let length = lower.split("content-length: ").nth(1).unwrap();
                        break (
                            head.to_owned(),
                            length.lines().next().unwrap().parse::<usize>().unwrap(),
                        );
                    }
                };
                while bytes.len() < head.len() + 4 + length {
                    stream.read_buf(&mut bytes).await.unwrap();
                }
                let body = String::from_utf8(bytes[head.len() + 4..].to_vec()).unwrap();
                let status = match statuses.is_empty() {
                    true => status_otherwise.load(Ordering::Relaxed),
                    false => statuses.remove(0),
                };
                let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                if sender.send(Received { head, body }).await.is_err() {
                    return;
                }
            }
        });
        Self {
            url,
            otherwise,
            received,
        }
    }

    async fn next(&mut self) -> Received {
        let next = tokio::time::timeout(LIMIT, self.received.recv()).await;
        next.expect("a webhook in time").unwrap()
    }
}

/// What takes happenings to their URLs.
struct Mail {
    journal: Journal,
    webhooks: Webhooks,
}

impl Mail {
    fn counters(&self) -> &Arc<WebhookCounters> {
        self.webhooks.counters()
    }

    async fn stop(self) {
        self.journal.stop().await;
        self.webhooks.stop().await;
    }
}

/// A server whose happenings go to `urls`.
async fn with_webhooks(database: Database, urls: &[&str], change: impl FnOnce(&mut WebhookSettings)) -> (Server, Mail) {
    let (sender, entries) = mpsc::channel(JOURNAL);
    let server = Server::with(|config| config.journal = Some(sender)).await;
    let targets = urls.iter().map(|url| Target::parse(url).unwrap()).collect();
    let mut settings = WebhookSettings {
        allow_private: true,
        first_retry: Duration::from_millis(10),
        ..WebhookSettings::new(targets, KEY.into())
    };
    change(&mut settings);
    let database = SharedDatabase::new(database);
    let (webhooks, letterbox) = Webhooks::start(settings, database.clone(), server.node.clone());
    let journal = Journal::start(server.node.clone(), entries, database, Some(letterbox));
    (server, Mail { journal, webhooks })
}

async fn create(server: &Server, name: &str) {
    let request = CreateRoomRequest {
        name: name.into(),
        ..Default::default()
    };
    server.node.create_room(request).await.unwrap();
}

fn file() -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("webhooks-{}-{number}.db", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn named(event: &str, room: &str) -> (String, String) {
    (event.to_owned(), room.to_owned())
}

#[tokio::test]
async fn a_webhook_has_livekits_headers_and_signature() {
    let mut receiver = Receiver::start(&[]).await;
    let (server, webhooks) = with_webhooks(Database::in_memory().unwrap(), &[&receiver.url], |_| {}).await;
    create(&server, "room").await;
    let received = receiver.next().await;
    assert!(received.head.starts_with("POST /hook?a=b HTTP/1.1\r\n"));
    assert_eq!(received.header("content-type"), "application/webhook+json");
    assert_eq!(received.header("user-agent"), "LiveKit");
    let claims = verify(
        received.header("authorization"),
        &[(KEY, SECRET)].into_iter().collect(),
        server.node.unix(),
    )
    .unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, received.body.as_bytes());
    assert_eq!((claims.sha256, claims.identity.as_str()), (STANDARD.encode(digest), ""));
    assert!(claims.expires_at > server.node.unix().as_secs() + 200);
    assert_eq!(received.name(), named("room_started", "room"));
    assert!(received.id().starts_with("EV_"));
    assert!(received.event()["room"]["turnPassword"].is_string() && received.event()["room"]["version"].is_null());
    server.node.delete_room("room").await.unwrap().unwrap();
    assert_eq!(receiver.next().await.name(), named("room_finished", "room"));
    let counters = Arc::clone(webhooks.counters());
    webhooks.stop().await;
    let totals = counters.totals();
    assert_eq!((totals.delivered, totals.waiting, totals.failures), (2, 0, 0));
}

#[tokio::test]
async fn a_failed_one_comes_again_before_what_followed_and_holds_up_no_other_room() {
    let mut receiver = Receiver::start(&[500, 503, 429]).await;
    let (server, webhooks) = with_webhooks(Database::in_memory().unwrap(), &[&receiver.url], |_| {}).await;
    create(&server, "a").await;
    let first = receiver.next().await;
    server.node.delete_room("a").await.unwrap().unwrap();
    create(&server, "b").await;
    let mut rest = Vec::new();
    while rest.len() < 5 {
        rest.push(receiver.next().await);
    }
    let of_a: Vec<&Received> = rest.iter().filter(|received| received.name().1 == "a").collect();
    let last = of_a.last().unwrap();
    assert_eq!(last.name().0, "room_finished");
    assert!(
        of_a.iter().rev().skip(1).all(|again| again.id() == first.id()),
        "repeats have the same id"
    );
    assert!(
        rest.iter()
            .any(|received| received.name() == named("room_started", "b"))
    );
    assert_eq!(rest.len() + 1, 3 + 3, "three failures, three events");
    let counters = Arc::clone(webhooks.counters());
    webhooks.stop().await;
    let totals = counters.totals();
    assert_eq!((totals.delivered, totals.failures, totals.waiting), (3, 3, 0));
}

#[tokio::test]
async fn one_that_its_receiver_refuses_is_not_sent_again() {
    let mut receiver = Receiver::start(&[400]).await;
    let (server, webhooks) = with_webhooks(Database::in_memory().unwrap(), &[&receiver.url], |_| {}).await;
    create(&server, "a").await;
    server.node.delete_room("a").await.unwrap().unwrap();
    assert_eq!(receiver.next().await.name().0, "room_started");
    assert_eq!(receiver.next().await.name().0, "room_finished");
    let counters = Arc::clone(webhooks.counters());
    webhooks.stop().await;
    assert_eq!((counters.totals().rejected, counters.totals().delivered), (1, 1));
}

#[tokio::test]
async fn a_restart_loses_none() {
    let path = file();
    let mut receiver = Receiver::start(&[]).await;
    receiver.otherwise.store(503, Ordering::Relaxed);
    let (server, webhooks) = with_webhooks(Database::open(&path).unwrap(), &[&receiver.url], |_| {}).await;
    create(&server, "a").await;
    server.node.delete_room("a").await.unwrap().unwrap();
    create(&server, "b").await;
    let first = receiver.next().await;
    let counters = Arc::clone(webhooks.counters());
    webhooks.stop().await;
    assert_eq!(counters.totals().delivered, 0);
    drop(server);

    // The receiver is well again; another server goes on.
    while receiver.received.try_recv().is_ok() {}
    receiver.otherwise.store(200, Ordering::Relaxed);
    let (_server, webhooks) = with_webhooks(Database::open(&path).unwrap(), &[&receiver.url], |_| {}).await;
    let mut delivered = Vec::new();
    while delivered.len() < 3 {
        delivered.push(receiver.next().await);
    }
    let of_a: Vec<&Received> = delivered.iter().filter(|received| received.name().1 == "a").collect();
    let names: Vec<String> = of_a.iter().map(|received| received.name().0).collect();
    assert_eq!(names, ["room_started", "room_finished"]);
    let repeated = delivered.iter().any(|received| received.id() == first.id());
    assert!(repeated, "a repeat has the same id");
    assert!(
        delivered
            .iter()
            .any(|received| received.name() == named("room_started", "b"))
    );
    webhooks.stop().await;
    assert_eq!(Database::open(&path).unwrap().waiting(10).unwrap(), []);
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn filters_and_several_urls_work_and_a_private_address_that_is_written_down_is_allowed() {
    let (mut first, mut second) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    let urls = [first.url.clone(), second.url.clone()];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let (server, webhooks) = with_webhooks(Database::in_memory().unwrap(), &urls, |settings| {
        settings.filter.exclude = vec!["room_started".into()];
    })
    .await;
    create(&server, "a").await;
    server.node.delete_room("a").await.unwrap().unwrap();
    let (one, other) = (first.next().await, second.next().await);
    assert_eq!((one.name().0.as_str(), one.id()), ("room_finished", other.id()));
    webhooks.stop().await;

    let mut third = Receiver::start(&[]).await;
    let (server, webhooks) = with_webhooks(Database::in_memory().unwrap(), &[&third.url], |settings| {
        settings.allow_private = false;
    })
    .await;
    create(&server, "a").await;
    assert_eq!(third.next().await.name().0, "room_started");
    webhooks.stop().await;
}
