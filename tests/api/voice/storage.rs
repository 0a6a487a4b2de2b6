//! What outlives the process.

use serde_json::json;

use super::postgres::Postgres;
use super::town::{Backend, FAR_KEY, FAR_SECRET, Far, GUILD, SECRET, USERS, user_token};
use crate::client::request;
use crate::process::Process;

#[tokio::test]
async fn directory_regions_and_pins_are_there_after_a_restart() {
    let voice = json!({"enabled": true, "secret": SECRET, "token_secret": USERS});
    let mut process = Process::start(json!({"voice": voice})).await;
    let post = async |process: &Process, path: &str, token: &str, body: serde_json::Value| {
        let authorization = format!("Authorization: Bearer {token}");
        let answer = request(process.address, "POST", path, &[&authorization], &body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()
    };
    let facts = json!({"entries": [
        {"kind": "user", "version": 1, "id": "3"},
        {"kind": "guild", "version": 1, "id": GUILD},
        {"kind": "role", "version": 1, "guild_id": GUILD, "id": GUILD, "permissions": "3146752"},
        {"kind": "member", "version": 1, "guild_id": GUILD, "user_id": "3"},
        {"kind": "channel", "version": 1, "id": "10", "guild_id": GUILD, "type": 2},
    ]});
    post(&process, "/voice/directory/sync", SECRET, facts).await;
    let region = json!({"id": "moon", "name": "Moon"});
    post(&process, "/admin/voice/regions/create", SECRET, region).await;
    let ticket = post(&process, "/channels/10/voice/token", &user_token(3), json!({})).await;
    process.signal("TERM");
    process.ended().await;
    process.run().await;
    let again = post(&process, "/channels/10/voice/token", &user_token(3), json!({})).await;
    assert_eq!(again["endpoint"], ticket["endpoint"]);
    let regions = post(&process, "/admin/voice/regions/list", SECRET, json!({})).await;
    assert_eq!(regions["regions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_installation_without_a_backend_has_its_directory_in_a_file() {
    let path = std::env::temp_dir().join(format!("patchbay-directory-{}.json", std::process::id()));
    let write = |version: u64, permissions: &str| {
        let facts = json!({"entries": [
            {"kind": "user", "version": 1, "id": "3"},
            {"kind": "guild", "version": 1, "id": GUILD},
            {"kind": "role", "version": version, "guild_id": GUILD, "id": GUILD, "permissions": permissions},
            {"kind": "member", "version": 1, "guild_id": GUILD, "user_id": "3"},
            {"kind": "channel", "version": 1, "id": "10", "guild_id": GUILD, "type": 2},
        ]});
        std::fs::write(&path, facts.to_string()).unwrap();
    };
    write(2, "3146752");
    let voice = json!({"enabled": true, "token_secret": USERS, "directory_file": path});
    let mut process = Process::start(json!({"voice": voice})).await;
    let ask = async |process: &Process| {
        let authorization = format!("Authorization: Bearer {}", user_token(3));
        let path = "/channels/10/voice/token";
        request(process.address, "POST", path, &[&authorization], "{}")
            .await
            .status
    };
    assert_eq!(ask(&process).await, 200);
    // Read at every start; what is older than what is known changes nothing.
    for (version, permissions, status) in [(1, "0", 200), (3, "0", 403)] {
        write(version, permissions);
        process.signal("TERM");
        process.ended().await;
        process.run().await;
        assert_eq!(ask(&process).await, status);
    }
    process.signal("TERM");
    process.ended().await;
    std::fs::write(&path, "[{]").unwrap();
    let said = Process::refused(json!({"voice": {"enabled": true, "directory_file": path}})).await;
    assert!(said.contains("voice.directory_file"), "{said}");
    let _ = std::fs::remove_file(&path);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_calls_go_on_and_nobody_new_comes() {
    let Some(mut database) = Postgres::start() else {
        eprintln!("PostgreSQL is not installed: not tested");
        return;
    };
    let far = Far::start().await;
    let mut process = Process::logging(json!({"voice": {
        "enabled": true, "secret": SECRET, "token_secret": USERS, "database_url": database.url(),
        "regions": [{"id": "us", "name": "America"}],
        "servers": [{
            "region_id": "us", "server_id": "far", "endpoint": far.url, "api_key": FAR_KEY, "api_secret": FAR_SECRET,
        }],
    }}))
    .await;
    let town = Backend {
        address: process.address,
    };
    town.found().await;
    let (mut ann, mut bob) = (town.gateway(3).await, town.gateway(4).await);
    ann.event("READY").await;
    bob.event("READY").await;
    let ticket = town.join(3, "10").await;
    assert_eq!(
        ann.event("VOICE_STATE_UPDATE").await["connection_id"],
        ticket["connection_id"]
    );
    database.stop();
    // What cannot be written is not acknowledged, and makes it known.
    let facts = json!({"entries": [{"kind": "user", "version": 2, "id": "5"}]});
    let token = user_token(4);
    let ask = json!({"type": "voice_get_token", "guild_id": GUILD, "channel_id": "11", "user_id": "4"});
    for (method, path, token, body) in [
        ("POST", "/voice/directory/sync", SECRET, facts.clone()),
        ("POST", "/channels/11/voice/token", &token, json!({})),
        ("POST", "/channels/20/voice/token", &token, json!({})),
        (
            "PATCH",
            "/guilds/900/voice-states/@me",
            &token,
            json!({"channel_id": "11"}),
        ),
        ("POST", "/_rpc", SECRET, ask),
        (
            "POST",
            "/admin/voice/regions/create",
            SECRET,
            json!({"id": "eu", "name": "Europe"}),
        ),
    ] {
        let refused = town.call(method, path, token, &body).await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("5")),
            "{method} {path}"
        );
    }
    bob.send(json!({"op": 4, "d": {"guild_id": GUILD, "channel_id": "11"}}))
        .await;
    assert_eq!(bob.error().await, "VOICE_TOKEN_FAILED");
    let update =
        json!({"guild_id": GUILD, "channel_id": "10", "connection_id": ticket["connection_id"], "self_mute": true});
    ann.send(json!({"op": 4, "d": update})).await;
    assert_eq!(
        ann.event("VOICE_STATE_UPDATE").await["self_mute"],
        true,
        "whoever is there goes on"
    );
    database.run();
    process.logs("the voice database is written again").await;
    assert_eq!(town.backend("POST", "/voice/directory/sync", facts).await.0, 200);
    bob.send(json!({"op": 4, "d": {"guild_id": GUILD, "channel_id": "11"}}))
        .await;
    bob.event("VOICE_SERVER_UPDATE").await;
    town.join(5, "11").await;
}

#[tokio::test]
async fn what_a_sync_was_acknowledged_for_outlives_a_process_that_dies() {
    let voice = json!({"enabled": true, "secret": SECRET, "token_secret": USERS});
    let mut process = Process::start(json!({"voice": voice})).await;
    let town = Backend {
        address: process.address,
    };
    town.found().await;
    process.kill().await;
    process.run().await;
    let (status, regions) = town.user(3, "GET", "/channels/10/rtc-regions", json!(null)).await;
    assert_eq!(status, 200, "{regions}");
}
