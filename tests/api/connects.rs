//! A crowd with bad tokens at the door, and clients with good ones who come in beside it.
//!
//! `CONNECTS_SECONDS=20` (`make connects`): 2,000 connections a second for so long, and the figures have to be at their goals.
//! Otherwise a moment of a smaller crowd, which shows that the measuring works.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use patchbay::proto::livekit::signal_response::Message as Say;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::process::Process;

/// As many clients in waiting; more are not started, so that a slow server is asked less and not more.
const MAX_WAITING: usize = 1024;

/// Addresses that the crowd comes from: one has no more than 28,000 ports a minute.
const SOURCES: u64 = 64;

const JOIN_GOAL: Duration = Duration::from_secs(1);
const MEMORY_GOAL: f64 = 64.0;

fn resident_mib(pid: u32) -> f64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: f64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages / 256.0
}

/// Tokens of several kinds, all bad: nonsense, an unknown key, a wrong signature, one that is over.
fn bad_tokens(server: &Process) -> Vec<String> {
    let good = server.token("crowd", patchbay::proto::claims::VideoGrant::default());
    let (signed, _) = good.rsplit_once('.').unwrap();
    let claims = patchbay::proto::claims::Claims::default();
    let minute = Duration::from_secs(60);
    let (key, secret) = (crate::process::KEY, crate::process::SECRET);
    vec![
        "a.b.c".into(),
        format!("{signed}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        patchbay::proto::claims::sign(&claims, "nobody", secret, minute * 1_000, minute),
        patchbay::proto::claims::sign(&claims, key, secret, minute, minute),
    ]
}

/// One connection; true when it is refused as it should be.
async fn refused(server: std::net::SocketAddr, number: u64, token: &str) -> Option<bool> {
    let socket = TcpSocket::new_v4().ok()?;
    let source = [127, 0, 1, u8::try_from(number % SOURCES).ok()? + 1];
    socket.bind((source, 0).into()).ok()?;
    let mut stream = socket.connect(server).await.ok()?;
    let head = format!(
        "GET /rtc?access_token={token} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.ok()?;
    Some(&answer == b"HTTP/1.1 401")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_without_tokens_keeps_nobody_out() {
    static REFUSED: AtomicU64 = AtomicU64::new(0);
    static OTHERS: AtomicU64 = AtomicU64::new(0);
    let asked: Option<u64> = std::env::var("CONNECTS_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = asked.map_or(Duration::from_millis(500), Duration::from_secs);
    let per_tick = if asked.is_some() { 20 } else { 2 };
    let server = Process::start(json!({})).await;
    let address = server.address;
    let tokens: std::sync::Arc<[String]> = bad_tokens(&server).into();
    // What a first join makes for good is no crowd's doing.
    drop(joined(&server, "first").await);
    let before = resident_mib(server.pid());
    let began = Instant::now();
    let crowd = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut waiting = tokio::task::JoinSet::new();
        let mut number = 0;
        while began.elapsed() < time {
            tick.tick().await;
            while waiting.try_join_next().is_some() {}
            for _ in 0..per_tick {
                if waiting.len() >= MAX_WAITING {
                    break;
                }
                number += 1;
                let tokens = tokens.clone();
                waiting.spawn(async move {
                    let token = &tokens[number as usize % tokens.len()];
                    let counter = match refused(address, number, token).await {
                        Some(true) => &REFUSED,
                        _ => &OTHERS,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                });
            }
        }
        while waiting.join_next().await.is_some() {}
        number as f64 / began.elapsed().as_secs_f64()
    });
    let (mut joins, mut highest) = (Vec::new(), before);
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    while !crowd.is_finished() {
        pace.tick().await;
        let asked = Instant::now();
        drop(joined(&server, &format!("guest {}", joins.len())).await);
        joins.push(asked.elapsed());
        highest = highest.max(resident_mib(server.pid()));
    }
    let rate = crowd.await.unwrap();
    joins.sort();
    let p95 = joins[(joins.len() * 95).div_ceil(100) - 1];
    let (refused, others) = (REFUSED.load(Ordering::Relaxed), OTHERS.load(Ordering::Relaxed));
    println!(
        "{rate:.0} a second: {refused} refused, {others} otherwise; {} joins, median {:?}, p95 {p95:?}; memory {before:.1} MiB +{:.1}",
        joins.len(),
        joins[joins.len() / 2],
        highest - before,
    );
    assert!(refused > 0 && others == 0, "{refused} refused, {others} otherwise");
    assert!(highest - before <= MEMORY_GOAL, "+{:.1} MiB", highest - before);
    if asked.is_some() {
        assert!(
            rate >= 1_900.0,
            "the crowd is smaller than it should be: {rate:.0} a second"
        );
        assert!(p95 <= JOIN_GOAL, "{p95:?}");
    }
}

async fn joined(server: &Process, identity: &str) -> crate::client::Signalling {
    let mut client = server.join(identity, "room").await.unwrap();
    assert!(matches!(client.next().await, Say::Join(_)));
    client
}
