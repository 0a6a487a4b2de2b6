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
    resume_window: &'static str,
}

impl Ground {
    /// None: Redis or PostgreSQL is not installed here.
    async fn found() -> Option<Self> {
        let (Some(redis), Some(database)) = (lease::real().await, Postgres::start()) else {
            eprintln!("redis-server or PostgreSQL is not installed: not tested");
            return None;
        };
        let media = [Far::start().await, Far::start().await];
        Some(Self {
            redis,
            database,
            media,
            resume_window: "10s",
        })
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
            "resume_window": self.resume_window,
            "regions": [{"id": "us", "name": "America"}],
            "servers": [server(&self.media[0], "one"), server(&self.media[1], "two")],
        }})
    }

    async fn node(&self) -> (Process, Backend) {
        let process = Process::logging(self.settings()).await;
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

/// What a node logs when the voice system begins to run there.
const SERVES: &str = "the voice system of all nodes runs here now";

#[tokio::test(flavor = "multi_thread")]
async fn the_next_node_takes_over_from_one_that_ends() {
    let Some(ground) = Ground::found().await else { return };
    let ((mut first, a), (mut second, b)) = (ground.node().await, ground.node().await);
    a.found().await;
    let mut bob = b.gateway(4).await;
    let session = bob.event("READY").await["session_id"].as_str().unwrap().to_owned();
    let place = token(&a, 3, "10").await;
    first.signal("TERM");
    loop {
        if bob.next().await["op"] == 7 {
            break;
        }
    }
    assert!(first.ended().await.success());
    second.logs(SERVES).await;
    let again = token(&b, 3, "10").await;
    assert_eq!(endpoint(&again), endpoint(&place), "pins outlive their node");
    let mut bob = resume(&b, 4, &session, 1).await;
    assert_eq!(bob.next().await["t"], "RESUMED", "and so do sessions");
}

/// Somebody in a channel, as everybody believes.
struct Talker {
    gateway: Gateway,
    session: String,
    connection: Value,
}

impl Talker {
    async fn join(ground: &Ground, node: &Backend, user: u64) -> Self {
        let mut gateway = node.gateway(user).await;
        let session = gateway.event("READY").await["session_id"].as_str().unwrap().to_owned();
        let ticket = node.join(user, "10").await;
        for media in &ground.media {
            media.holds(ticket["token"].as_str().unwrap());
        }
        gateway.event("VOICE_STATE_UPDATE").await;
        Self {
            gateway,
            session,
            connection: ticket["connection_id"].clone(),
        }
    }

    async fn says(&mut self, muted: bool) {
        let update =
            json!({"guild_id": GUILD, "channel_id": "10", "connection_id": self.connection, "self_mute": muted});
        self.gateway.send(json!({"op": 4, "d": update})).await;
    }

    async fn hears(&mut self, muted: bool) {
        assert_eq!(self.gateway.event("VOICE_STATE_UPDATE").await["self_mute"], muted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_outlive_a_node_that_dies() {
    let Some(ground) = Ground::found().await else { return };
    let ((mut first, a), (mut second, b)) = (ground.node().await, ground.node().await);
    a.found().await;
    let mut ann = a.gateway(3).await;
    let session = ann.event("READY").await["session_id"].as_str().unwrap().to_owned();
    let mut bob = Talker::join(&ground, &b, 4).await;
    ann.event("VOICE_STATE_UPDATE").await;
    let known = ann.sequence();
    drop(ann);
    // Changes that he sees and she does not, and one in whose midst it dies.
    for muted in [true, false, true] {
        bob.says(muted).await;
        bob.hears(muted).await;
    }
    let seen = bob.gateway.sequence();
    bob.says(false).await;
    first.kill().await;
    second.logs(SERVES).await;

    // Of another one, and of nobody.
    for (user, session) in [(5, session.as_str()), (3, "unknown")] {
        let mut refused = resume(&b, user, session, known).await;
        assert_eq!(refused.next().await, json!({"op": 9, "d": false}), "{user} {session}");
    }
    let mut ann = resume(&b, 3, &session, known).await;
    let mut told = Vec::new();
    loop {
        let frame = ann.next().await;
        if frame["t"] == "RESUMED" {
            break;
        }
        told.push((frame["s"].as_u64().unwrap(), frame["d"]["self_mute"] == true));
    }
    let last_one = told.len() == 4;
    let expected = [true, false, true, false].into_iter().enumerate();
    let expected: Vec<_> = expected
        .map(|(index, muted)| (known + 1 + index as u64, muted))
        .take(if last_one { 4 } else { 3 })
        .collect();
    assert_eq!(told, expected, "in order, without a gap, and nothing twice");
    // He has seen the same, and goes on: what was lost with the node he says again.
    bob.gateway = resume(&b, 4, &bob.session, seen).await;
    if last_one {
        bob.hears(false).await;
    }
    assert_eq!(bob.gateway.next().await["t"], "RESUMED");
    bob.says(true).await;
    bob.hears(true).await;
    assert_eq!(ann.event("VOICE_STATE_UPDATE").await["self_mute"], true);
    assert_eq!(ann.sequence(), known + told.len() as u64 + 1);

    // The other way round, and one that has seen more than was stored.
    first.run().await;
    let (known, seen) = (ann.sequence(), bob.gateway.sequence());
    second.kill().await;
    first.logs(SERVES).await;
    let mut ann = resume(&a, 3, &session, known).await;
    assert_eq!(ann.next().await["t"], "RESUMED");
    let mut late = resume(&a, 4, &bob.session, seen + 1).await;
    assert_eq!(late.next().await, json!({"op": 9, "d": false}));
    late.identify(&user_token(4)).await;
    let ready = late.event("READY").await;
    assert_eq!(ready["guilds"][0]["voice_states"][0]["self_mute"], true, "still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_over_or_rubbish_are_not_taken_over() {
    let Some(mut ground) = Ground::found().await else {
        return;
    };
    ground.resume_window = "1ms";
    let ((mut first, a), (mut second, b)) = (ground.node().await, ground.node().await);
    a.found().await;
    let session = async |node: &Backend| {
        let mut gateway = node.gateway(3).await;
        let ready = gateway.event("READY").await;
        ready["session_id"].as_str().unwrap().to_owned()
    };
    let over = session(&a).await;
    first.kill().await;
    second.logs(SERVES).await;
    let mut ann = resume(&b, 3, &over, 1).await;
    assert_eq!(ann.next().await, json!({"op": 9, "d": false}), "its time is over");
    // Somebody writes under our names, and a node dies before it has seen to that.
    first.run().await;
    let bob = Talker::join(&ground, &b, 4).await;
    second.kill().await;
    ground
        .redis
        .say("DEL {patchbay:voice}:sessions {patchbay:voice}:dispatches")
        .await;
    ground.redis.say("SET {patchbay:voice}:sessions rubbish").await;
    ground.redis.say("RPUSH {patchbay:voice}:dispatches rubbish").await;
    first.logs("stored sessions cannot be read").await;
    first.logs(SERVES).await;
    let mut refused = resume(&a, 4, &bob.session, bob.gateway.sequence()).await;
    assert_eq!(refused.next().await, json!({"op": 9, "d": false}));
    // It is served all the same, and what it stores is good again.
    let mut again = a.gateway(4).await;
    again.event("READY").await;
    first.logs("sessions are stored for other nodes again").await;
    assert_eq!(ground.redis.say("TYPE {patchbay:voice}:sessions").await, "+hash");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_those_who_are_there_go_on() {
    let Some(mut ground) = Ground::found().await else {
        return;
    };
    let (mut first, a) = ground.node().await;
    a.found().await;
    let mut ann = Talker::join(&ground, &a, 3).await;
    ground.redis.stop();
    ann.says(true).await;
    ann.hears(true).await;
    first
        .logs_all(&["sessions cannot be stored", "seat cannot be looked after"])
        .await;
    let refused = a
        .call("POST", "/channels/11/voice/token", &user_token(4), &json!({}))
        .await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.header("retry-after"), Some("5"));
    ann.says(false).await;
    ann.hears(false).await;
    // By itself, when it is back: the next node goes on.
    ground.redis.run().await;
    first.logs("sessions are stored for other nodes again").await;
    let (mut second, b) = ground.node().await;
    ann.says(true).await;
    ann.hears(true).await;
    let seen = ann.gateway.sequence();
    first.kill().await;
    second.logs(SERVES).await;
    let mut ann = resume(&b, 3, &ann.session, seen).await;
    assert_eq!(ann.next().await["t"], "RESUMED");
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
