//! Several nodes serve one API: two processes with one Redis and one PostgreSQL.

use serde_json::{Value, json};

use super::postgres::Postgres;
use super::town::{Backend, FAR_KEY, FAR_SECRET, Far, GUILD, Gateway, SECRET, USERS, user_token};
use crate::lease::{self, Redis};
use crate::process::Process;

/// What nodes share.
struct Ground {
    redis: Redis,
    database: Postgres,
    media: [Far; 2],
}

impl Ground {
    /// None: Redis or PostgreSQL is not installed here.
    async fn found() -> Option<Self> {
        let (Some(redis), Some(database)) = (lease::real().await, Postgres::start()) else {
            eprintln!("redis-server or PostgreSQL is not installed: not tested");
            return None;
        };
        let media = [Far::start().await, Far::start().await];
        Some(Self { redis, database, media })
    }

    fn settings(&self) -> Value {
        let server = |far: &Far, id: &str| {
            json!({
                "region_id": "us", "server_id": id, "endpoint": far.url, "api_key": FAR_KEY, "api_secret": FAR_SECRET,
            })
        };
        json!({"voice": {
            "enabled": true,
            "secret": SECRET,
            "token_secret": USERS,
            "database_url": self.database.url(),
            "redis": {"address": self.redis.address.to_string(), "username": "name", "password": "password"},
            "regions": [{"id": "us", "name": "America"}],
            "servers": [server(&self.media[0], "one"), server(&self.media[1], "two")],
        }})
    }

    async fn node(&self) -> (Process, Backend) {
        let process = Process::start(self.settings()).await;
        let backend = Backend {
            address: process.address,
        };
        (process, backend)
    }
}

fn endpoint(ticket: &Value) -> &str {
    ticket["endpoint"].as_str().unwrap()
}

async fn token(node: &Backend, user: u64, channel: &str) -> Value {
    let path = format!("/channels/{channel}/voice/token");
    let (status, ticket) = node.user(user, "POST", &path, json!({})).await;
    assert_eq!(status, 200, "{ticket}");
    ticket
}

async fn resume(node: &Backend, user: u64, session: &str, sequence: u64) -> Gateway {
    let mut gateway = Gateway::open(node.address, "/gateway?v=1").await;
    gateway.next().await;
    gateway
        .send(json!({"op": 6, "d": {"token": user_token(user), "session_id": session, "seq": sequence}}))
        .await;
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_answer_as_one() {
    let Some(ground) = Ground::found().await else { return };
    let ((_first, a), (_second, b)) = (ground.node().await, ground.node().await);
    // The directory goes to one, and both know it.
    b.found().await;
    let (mut ann, mut bob) = (a.gateway(3).await, b.gateway(4).await);
    ann.event("READY").await;
    let session = bob.event("READY").await["session_id"].as_str().unwrap().to_owned();
    // Everybody asks both nodes at once, and every channel gets one server.
    for channel in ["10", "11", "20", "21"] {
        let asked =
            [(a, 3), (b, 4), (a, 4), (b, 3)].map(|(node, user)| async move { token(&node, user, channel).await });
        let tickets = futures_util::future::join_all(asked).await;
        let places: Vec<&str> = tickets.iter().map(endpoint).collect();
        assert!(places.iter().all(|place| *place == places[0]), "{channel}: {places:?}");
    }
    // A join told to one node is heard at both.
    let ticket = a.join(3, "10").await;
    for gateway in [&mut ann, &mut bob] {
        let told = gateway.event("VOICE_STATE_UPDATE").await;
        assert_eq!(told["connection_id"], ticket["connection_id"]);
    }
    // A client that breaks off at one node misses nothing at the other.
    let known = bob.sequence();
    drop(bob);
    let (status, _) = b
        .user(2, "PATCH", &format!("/guilds/{GUILD}/members/3"), json!({"mute": true}))
        .await;
    assert_eq!(status, 200);
    let mut bob = resume(&a, 4, &session, known).await;
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["mute"], true);
    assert_eq!(bob.next().await["t"], "RESUMED");
    // Errors come as they are, and what no node has stays unknown.
    assert_eq!(
        b.refused(3, "POST", "/channels/77/voice/token", json!({})).await,
        a.refused(3, "POST", "/channels/77/voice/token", json!({})).await
    );
    let stranger = b
        .call(
            "POST",
            "/voice/directory/sync",
            "not the secret",
            &json!({"entries": []}),
        )
        .await;
    assert_eq!(stranger.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_node_takes_over_from_one_that_ends_and_from_one_that_dies() {
    let Some(ground) = Ground::found().await else { return };
    let ((mut first, a), (mut second, b)) = (ground.node().await, ground.node().await);
    a.found().await;
    let mut bob = b.gateway(4).await;
    let session = bob.event("READY").await["session_id"].as_str().unwrap().to_owned();
    let place = token(&a, 3, "10").await;
    // It says that it goes, and its sessions go with it.
    first.signal("TERM");
    loop {
        if bob.next().await["op"] == 7 {
            break;
        }
    }
    assert!(first.ended().await.success());
    let again = until_served(&b, "10").await;
    assert_eq!(endpoint(&again), endpoint(&place), "pins outlive their node");
    let mut bob = resume(&b, 4, &session, 1).await;
    assert_eq!(bob.next().await, json!({"op": 9, "d": false}));
    let mut bob = b.gateway(4).await;
    bob.event("READY").await;
    // Nobody says anything, and the lease runs out.
    first.run().await;
    let place = token(&a, 3, "11").await;
    second.kill().await;
    let again = until_served(&a, "11").await;
    assert_eq!(endpoint(&again), endpoint(&place));
    let other = token(&a, 4, "10").await;
    assert_eq!(endpoint(&other), endpoint(&token(&a, 3, "10").await));
}

/// Asks until the node that takes over has done so; meanwhile the answer is 503.
async fn until_served(node: &Backend, channel: &str) -> Value {
    let path = format!("/channels/{channel}/voice/token");
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let (status, ticket) = node.user(3, "POST", &path, json!({})).await;
        match status {
            200 => return ticket,
            // Of one user's questions only so many are answered.
            429 | 503 => {}
            other => panic!("{other}: {ticket}"),
        }
        assert!(tokio::time::Instant::now() < limit, "nobody takes over: {ticket}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_those_who_are_there_go_on() {
    let Some(mut ground) = Ground::found().await else {
        return;
    };
    let (_process, a) = ground.node().await;
    a.found().await;
    let mut ann = a.gateway(3).await;
    ann.event("READY").await;
    let ticket = a.join(3, "10").await;
    ann.event("VOICE_STATE_UPDATE").await;
    ground.redis.stop();
    let limit = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    let refused = loop {
        let answer = a
            .call("POST", "/channels/11/voice/token", &user_token(4), &json!({}))
            .await;
        if answer.status == 503 {
            break answer;
        }
        assert!(tokio::time::Instant::now() < limit, "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    assert_eq!(refused.header("retry-after"), Some("5"));
    let update =
        json!({"guild_id": GUILD, "channel_id": "10", "connection_id": ticket["connection_id"], "self_mute": true});
    ann.send(json!({"op": 4, "d": update})).await;
    assert_eq!(ann.event("VOICE_STATE_UPDATE").await["self_mute"], true);
}

#[tokio::test]
async fn what_nodes_must_share_is_said() {
    let mut settings = json!({"voice": {"enabled": true, "redis": {"address": "127.0.0.1:1"}}});
    let said = Process::refused(settings.clone()).await;
    assert!(said.contains("need one voice.database_url"), "{said}");
    settings["voice"]["database_url"] = json!("postgres://voice@127.0.0.1:1/voice");
    let said = Process::refused(settings.clone()).await;
    assert!(said.contains("name their media servers in voice.servers"), "{said}");
    settings["voice"]["regions"] = json!([{"id": "us", "name": "America"}]);
    settings["voice"]["servers"] =
        json!([{"region_id": "us", "server_id": "a", "endpoint": "ws://a", "api_key": "k", "api_secret": "s"}]);
    let said = Process::refused(settings).await;
    assert!(said.contains("voice.redis: "), "{said}");
}
