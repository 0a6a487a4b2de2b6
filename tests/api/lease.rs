//! One node at a time serves with a Redis. A Redis of the test's own stands in for the real one, which is asked as well
//! where the machine has it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Process;

type Keys = Arc<Mutex<HashMap<String, (String, Instant)>>>;

/// Whatever the lease asks of a Redis.
fn answer(keys: &Keys, words: &[&str]) -> String {
    let mut keys = keys.lock().unwrap();
    let now = Instant::now();
    keys.retain(|_, (_, until)| *until > now);
    let text = |value: &str| format!("${}\r\n{value}\r\n", value.len());
    let until = |life: &str| now + Duration::from_millis(life.parse().unwrap());
    match words {
        ["AUTH", "name", "password"] | ["SELECT", "2"] => "+OK\r\n".into(),
        ["SET", key, _, "NX", "PX", _] if keys.contains_key(*key) => "$-1\r\n".into(),
        ["SET", key, value, "NX", "PX", life] => {
            keys.insert((*key).into(), ((*value).into(), until(life)));
            "+OK\r\n".into()
        }
        ["PTTL", key] => match keys.get(*key) {
            Some((_, until)) => format!(":{}\r\n", (*until - now).as_millis()),
            None => ":-2\r\n".into(),
        },
        ["GET", key] => keys.get(*key).map_or("$-1\r\n".into(), |(value, _)| text(value)),
        ["EVAL", script, "1", key, value, rest @ ..] => {
            let is_ours = keys.get(*key).map(|(held, _)| held == value);
            match (is_ours, rest) {
                (Some(false), _) => ":0\r\n".into(),
                (_, [life]) if script.contains("pexpire") => {
                    keys.insert((*key).into(), ((*value).into(), until(life)));
                    ":1\r\n".into()
                }
                _ => {
                    keys.remove(*key);
                    ":1\r\n".into()
                }
            }
        }
        other => format!("-ERR unknown command {other:?}\r\n"),
    }
}

async fn serve(keys: Keys, mut socket: TcpStream) -> Option<()> {
    let (reader, mut writer) = socket.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.ok().filter(|len| *len > 0)?;
        let count: usize = line.trim().strip_prefix('*')?.parse().ok()?;
        let mut words = Vec::new();
        for _ in 0..count {
            line.clear();
            reader.read_line(&mut line).await.ok()?;
            let len: usize = line.trim().strip_prefix('$')?.parse().ok()?;
            let mut word = vec![0; len + 2];
            reader.read_exact(&mut word).await.ok()?;
            word.truncate(len);
            words.push(String::from_utf8(word).ok()?);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        writer.write_all(answer(&keys, &words).as_bytes()).await.ok()?;
    }
}

pub struct Redis {
    pub address: SocketAddr,
    child: Option<Child>,
    keys: Keys,
}

impl Redis {
    /// One command without spaces in its words, and the first line of the answer.
    pub async fn say(&self, command: &str) -> String {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let text = format!("AUTH name password\r\n{command}\r\n");
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(socket).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        lines.next_line().await.unwrap().unwrap()
    }

    /// It is there again, and knows nothing.
    pub async fn run(&mut self) {
        self.stop();
        self.child = Some(served(self.address).await.unwrap());
    }

    /// It is gone, with all it knew.
    pub fn stop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn stand_in() -> Redis {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let keys = Keys::default();
    let held = Arc::clone(&keys);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(Arc::clone(&held), socket));
        }
    });
    Redis {
        address,
        child: None,
        keys,
    }
}

/// A server of its own, whose user "name" has the password "password". None where the machine has none.
pub async fn real() -> Option<Redis> {
    let address = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
    Some(Redis {
        address,
        child: Some(served(address).await?),
        keys: Keys::default(),
    })
}

async fn served(address: SocketAddr) -> Option<Child> {
    let port = address.port().to_string();
    let arguments = [
        "--port",
        &port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ];
    let users = ["--user", "name", "on", ">password", "~*", "+@all"];
    let mut child = Command::new("redis-server")
        .args(arguments)
        .args(users)
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    let said = child.stdout.take()?;
    let ready = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(said));
        let mut lines = lines.map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("Ready to accept connections"));
        // Read to its end, so that it never waits for somebody to.
        std::thread::spawn(move || lines.for_each(drop));
        is_ready
    });
    let ready = tokio::time::timeout(crate::client::LIMIT, ready).await;
    assert!(ready.expect("a start").unwrap(), "redis-server does not start");
    Some(child)
}

fn with(redis: &Redis) -> serde_json::Value {
    json!({ "redis": { "address": redis.address.to_string(), "username": "name", "password": "password", "db": 2 } })
}

async fn one_at_a_time(redis: &Redis) {
    let mut first = Process::start(with(redis)).await;
    let refusal = Process::refused(with(redis)).await;
    assert!(refusal.contains("serves with the Redis at 127.0.0.1:"), "{refusal}");
    assert!(refusal.contains("a room would be split"), "{refusal}");
    assert!(!refusal.contains("password\""), "{refusal}");
    assert_eq!(first.health().await.0, 200, "the first one goes on");
    // One that ends gives it back, so that the next need not wait.
    first.signal("TERM");
    assert!(first.ended().await.success());
    let began = Instant::now();
    let mut second = Process::start(with(redis)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // One that was killed is waited for, but not for ever.
    second.kill().await;
    second.run().await;
    assert_eq!(second.health().await.0, 200);
    second.signal("TERM");
    assert!(second.ended().await.success());
}

#[tokio::test]
async fn a_second_node_does_not_start() {
    one_at_a_time(&stand_in().await).await;
}

#[tokio::test]
async fn a_second_node_does_not_start_with_a_real_redis() {
    if let Some(redis) = real().await {
        one_at_a_time(&redis).await;
    }
}

#[tokio::test]
async fn a_node_that_has_lost_its_lease_ends() {
    let redis = stand_in().await;
    let mut node = Process::start(with(&redis)).await;
    let until = Instant::now() + Duration::from_secs(60);
    let other = ("somebody else".to_owned(), until);
    redis
        .keys
        .lock()
        .unwrap()
        .values_mut()
        .for_each(|held| *held = other.clone());
    assert!(!node.ended().await.success());
    assert_eq!(
        redis.keys.lock().unwrap().values().next(),
        Some(&other),
        "it takes nothing away"
    );
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refusal = Process::refused(json!({ "redis": { "address": port.to_string() } })).await;
    assert!(
        refusal.contains(&format!("cannot use the Redis at {port}")),
        "{refusal}"
    );
}
