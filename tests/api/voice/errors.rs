//! The table of the API's errors: every documented code, and a request that brings it about.

use std::collections::BTreeMap;

use patchbay::voice::VoiceError;
use serde_json::{Value, json};

use super::town::{Backend, GUILD, SECRET, Town, user_token};

/// Told by sending whoever comes out of the room, never by an answer.
const NEVER: [&str; 2] = ["VOICE_NONCE_MISMATCH", "VOICE_PENDING_EXPIRED"];

/// Codes that have been seen, with their statuses.
struct Seen<'a> {
    town: &'a Backend,
    codes: BTreeMap<String, u16>,
}

impl Seen<'_> {
    async fn ask(&mut self, token: &str, method: &str, path: &str, body: Value) {
        let answer = self.town.call(method, path, token, &body).await;
        let refusal: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let code = refusal["code"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status >= 400, "{method} {path}: {}", answer.body);
        assert!(
            refusal["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{refusal}"
        );
        match answer.status {
            429 => assert!(
                refusal["retry_after"].as_f64().is_some_and(|wait| wait > 0.0),
                "{refusal}"
            ),
            503 => assert!(answer.header("retry-after").is_some(), "{refusal}"),
            _ => assert_eq!(refusal["retry_after"], Value::Null),
        }
        self.codes.insert(code, answer.status);
    }

    async fn user(&mut self, user: u64, method: &str, path: &str, body: Value) {
        self.ask(&user_token(user), method, path, body).await;
    }

    async fn backend(&mut self, method: &str, path: &str, body: Value) {
        self.ask(SECRET, method, path, body).await;
    }
}

async fn rpc_token(town: &Backend, user: u64, channel: &str) -> Value {
    let ask = json!({"type": "voice_get_token", "guild_id": GUILD, "channel_id": channel, "user_id": user.to_string()});
    let (status, answer) = town.backend("POST", "/_rpc", ask).await;
    assert_eq!(status, 200, "{answer}");
    answer["data"]["connectionId"].clone()
}

#[tokio::test]
async fn every_code_of_the_api_is_brought_about() {
    let town = Town::start().await;
    let user = |id: u64| json!({"kind": "user", "id": id.to_string()});
    let member = |id: u64| json!({"kind": "member", "guild_id": GUILD, "user_id": id.to_string()});
    let mut facts = vec![
        json!({"kind": "channel", "id": "14", "guild_id": GUILD, "type": 2, "user_limit": 1}),
        json!({"kind": "channel", "id": "15", "guild_id": GUILD, "type": 2}),
        json!({"kind": "user", "id": "6", "suspicious": true}),
        json!({"kind": "user", "id": "8", "unclaimed": true}),
        member(8),
        json!({"kind": "channel", "id": "22", "type": 1, "recipients": ["3", "8"]}),
        member(9),
        user(10),
        json!({"kind": "channel", "id": "24", "type": 1, "recipients": ["3", "10"]}),
        json!({"kind": "block", "user_id": "10", "other_id": "3"}),
        user(11),
        json!({"kind": "member", "guild_id": GUILD, "user_id": "11", "communication_disabled_until": 4_000_000_000_000u64}),
    ];
    for id in 101..=125 {
        facts.extend([user(id), member(id)]);
    }
    town.sync(2, facts).await;
    let mut seen = Seen {
        town: &town,
        codes: BTreeMap::new(),
    };
    let token = |channel: &str| format!("/channels/{channel}/voice/token");
    let own = format!("/guilds/{GUILD}/voice-states/@me");

    seen.ask("nonsense", "POST", &token("10"), json!({})).await;
    seen.user(3, "POST", &token("x"), json!({})).await;
    seen.user(3, "POST", &token("99"), json!({})).await;
    seen.user(3, "POST", &token("13"), json!({})).await;
    seen.user(3, "POST", &token("10"), json!({"guild_id": "902"})).await;
    seen.user(7, "POST", &token("10"), json!({"guild_id": GUILD})).await;
    seen.user(3, "POST", &token("10"), json!({"region": "nowhere"})).await;
    seen.user(6, "POST", &token("10"), json!({})).await;
    seen.user(8, "POST", &token("10"), json!({})).await;
    seen.user(8, "POST", &token("22"), json!({})).await;
    seen.user(9, "POST", &token("10"), json!({})).await;
    seen.user(11, "POST", &token("10"), json!({})).await;
    seen.user(3, "PATCH", &own, json!({"channel_id": "10", "connection_id": "gone"}))
        .await;
    seen.backend(
        "POST",
        "/admin/voice/servers/get",
        json!({"region_id": "us", "server_id": "x"}),
    )
    .await;

    let fourth = rpc_token(&town, 4, "14").await;
    seen.user(3, "POST", &token("14"), json!({})).await;
    let rights = json!({"connection_id": fourth, "can_speak": true, "can_stream": true, "can_video": true});
    seen.backend("PATCH", "/channels/14/voice/participants/3/permissions", rights)
        .await;
    for id in 101..=125 {
        rpc_token(&town, id, "15").await;
    }
    seen.user(3, "PATCH", &own, json!({"channel_id": "15", "self_video": true}))
        .await;

    let moderated = format!("/guilds/{GUILD}/members/3");
    seen.user(2, "PATCH", &moderated, json!({"channel_id": "11"})).await;
    seen.user(3, "PATCH", "/channels/21/call", json!({"region": "eu"}))
        .await;
    seen.user(3, "GET", "/channels/10/call", Value::Null).await;
    seen.user(3, "POST", "/channels/24/call/ring", json!({})).await;
    assert_eq!(town.user(3, "POST", "/channels/20/call", json!({})).await.0, 200);
    seen.user(4, "POST", "/channels/20/call", json!({})).await;

    for _ in 0..60 {
        assert_eq!(
            town.user(3, "GET", "/channels/10/rtc-regions", Value::Null).await.0,
            200
        );
    }
    seen.user(3, "GET", "/channels/10/rtc-regions", Value::Null).await;
    for _ in 0..32 {
        rpc_token(&town, 5, "10").await;
    }
    seen.user(5, "POST", &token("10"), json!({})).await;
    for (region, server) in [("us", "far"), ("eu", "here")] {
        let off = json!({"region_id": region, "server_id": server, "is_active": false});
        assert_eq!(town.backend("POST", "/admin/voice/servers/update", off).await.0, 200);
    }
    seen.user(3, "POST", &token("11"), json!({})).await;

    let documented = VoiceError::ALL.iter().map(|error| error.http());
    let documented = documented.map(|(status, code, _)| (code.to_owned(), status));
    let documented: BTreeMap<String, u16> = documented.filter(|(code, _)| !NEVER.contains(&code.as_str())).collect();
    assert_eq!(seen.codes, documented);
}
