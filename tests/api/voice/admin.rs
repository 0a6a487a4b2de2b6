//! Regions and servers by administration.

use serde_json::json;

use super::town::{GUILD, Town};

#[tokio::test]
async fn regions_and_servers_come_change_and_go_and_secrets_stay() {
    let town = Town::start().await;
    let region = |action: &str| format!("/admin/voice/regions/{action}");
    let server = |action: &str| format!("/admin/voice/servers/{action}");
    let asia =
        json!({"id": "asia", "name": "Asia", "latitude": 35.6, "longitude": 139.6, "required_guild_features": ["TEA"]});
    let (status, created) = town.backend("POST", &region("create"), asia).await;
    assert_eq!(
        (status, &created["region"]["required_guild_features"]),
        (200, &json!(["TEA"]))
    );
    let one = json!({"region_id": "asia", "server_id": "one", "endpoint": "wss://one.test", "api_key": "k-one", "api_secret": "s3cret"});
    let (status, created) = town.backend("POST", &server("create"), one.clone()).await;
    assert_eq!((status, &created["server"]["is_active"]), (200, &json!(true)));
    let (_, all) = town.backend("POST", &server("list"), json!({})).await;
    assert_eq!(all["servers"].as_array().unwrap().len(), 3);
    let (_, of_asia) = town
        .backend("POST", &server("list"), json!({"region_id": "asia"}))
        .await;
    let (_, shown) = town
        .backend("POST", &server("get"), json!({"region_id": "asia", "server_id": "one"}))
        .await;
    for text in [
        created.to_string(),
        all.to_string(),
        of_asia.to_string(),
        shown.to_string(),
    ] {
        assert!(!text.contains("s3cret") && !text.contains("k-one"), "{text}");
    }
    // Only for guilds with tea.
    let (_, regions) = town.user(3, "GET", "/channels/10/rtc-regions", json!(null)).await;
    assert_eq!(regions.as_array().unwrap().len(), 2);
    let (status, updated) = town
        .backend(
            "POST",
            &region("update"),
            json!({"id": "asia", "required_guild_features": []}),
        )
        .await;
    assert_eq!((status, &updated["region"]["name"]), (200, &json!("Asia")));
    let (_, ticket) = town
        .user(
            3,
            "POST",
            "/channels/10/voice/token",
            json!({"guild_id": GUILD, "region": "asia"}),
        )
        .await;
    assert_eq!(ticket["endpoint"], "wss://one.test");
    let off = json!({"region_id": "asia", "server_id": "one", "is_active": false});
    assert_eq!(town.backend("POST", &server("update"), off).await.0, 200);
    let (_, regions) = town.user(3, "GET", "/channels/10/rtc-regions", json!(null)).await;
    assert_eq!(
        regions.as_array().unwrap().len(),
        2,
        "a region without a server is none"
    );
    for (path, body, status, code) in [
        (region("get"), json!({"id": "moon"}), 404, "UNKNOWN_VOICE_REGION"),
        (region("update"), json!({"id": "moon"}), 404, "UNKNOWN_VOICE_REGION"),
        (region("delete"), json!({"id": "moon"}), 404, "UNKNOWN_VOICE_REGION"),
        (
            region("create"),
            json!({"id": "a b", "name": "x"}),
            400,
            "INVALID_FORM_BODY",
        ),
        (
            region("create"),
            json!({"id": "x", "name": "x", "latitude": 100.0}),
            400,
            "INVALID_FORM_BODY",
        ),
        (region("create"), json!({"id": "x"}), 400, "INVALID_FORM_BODY"),
        (
            server("get"),
            json!({"region_id": "asia", "server_id": "two"}),
            404,
            "UNKNOWN_VOICE_SERVER",
        ),
        (
            server("update"),
            json!({"region_id": "asia", "server_id": "two"}),
            404,
            "UNKNOWN_VOICE_SERVER",
        ),
        (
            server("delete"),
            json!({"region_id": "asia", "server_id": "two"}),
            404,
            "UNKNOWN_VOICE_SERVER",
        ),
        (
            server("create"),
            json!({"region_id": "moon", "server_id": "x", "endpoint": "wss://x", "api_key": "k", "api_secret": "s"}),
            404,
            "UNKNOWN_VOICE_REGION",
        ),
        (
            server("create"),
            json!({"region_id": "asia", "server_id": "x", "endpoint": "nonsense", "api_key": "k", "api_secret": "s"}),
            400,
            "INVALID_FORM_BODY",
        ),
    ] {
        let (found, answer) = town.backend("POST", &path, body.clone()).await;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{path} {body}");
    }
    assert_eq!(
        town.backend(
            "POST",
            &server("delete"),
            json!({"region_id": "asia", "server_id": "one"})
        )
        .await
        .0,
        200
    );
    assert_eq!(
        town.backend("POST", &region("delete"), json!({"id": "asia"})).await.0,
        200
    );
}
