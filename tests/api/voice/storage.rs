//! What outlives the process.

use serde_json::json;

use super::town::{GUILD, SECRET, USERS, user_token};
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
