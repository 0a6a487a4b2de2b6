//! What outlives the process.

use serde_json::json;

use super::postgres::Postgres;
use super::town::{GUILD, SECRET, Town, USERS, user_token};
use crate::client::{Answer, LIMIT, request};
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
    let url = database.url();
    let town = Town::with(|config| config.voice.database_url = url).await;
    let mut ann = town.gateway(3).await;
    ann.event("READY").await;
    let ticket = town.join(3, "10").await;
    assert_eq!(
        ann.event("VOICE_STATE_UPDATE").await["connection_id"],
        ticket["connection_id"]
    );
    database.stop();
    // The first whose pin cannot be written makes it known.
    let refused = until(&town, 503).await;
    assert_eq!(refused.header("retry-after"), Some("5"));
    let update =
        json!({"guild_id": GUILD, "channel_id": "10", "connection_id": ticket["connection_id"], "self_mute": true});
    ann.send(json!({"op": 4, "d": update})).await;
    assert_eq!(
        ann.event("VOICE_STATE_UPDATE").await["self_mute"],
        true,
        "whoever is there goes on"
    );
    database.run();
    until(&town, 200).await;
}

/// Asks for tokens until the answer has that status. Each takes another room, so that there is something to write.
async fn until(town: &Town, status: u16) -> Answer {
    let limit = tokio::time::Instant::now() + LIMIT;
    loop {
        let mut last = None;
        for (user, channel) in [(4, "11"), (4, "20"), (5, "21")] {
            let path = format!("/channels/{channel}/voice/token");
            let answer = town.call("POST", &path, &user_token(user), &json!({})).await;
            if answer.status == status {
                return answer;
            }
            last = Some(answer);
        }
        assert!(tokio::time::Instant::now() < limit, "{last:?}");
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    }
}
