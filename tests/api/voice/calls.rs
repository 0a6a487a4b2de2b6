//! Calls over HTTP and the gateway.

use serde_json::json;

use super::town::Town;

#[tokio::test]
async fn a_call_rings_is_taken_and_ends() {
    let town = Town::start().await;
    let (mut ann, mut bob, mut carol) = (town.gateway(3).await, town.gateway(4).await, town.gateway(5).await);
    for client in [&mut ann, &mut bob, &mut carol] {
        client.event("READY").await;
    }
    let call = "/channels/20/call";
    let (status, eligible) = town.user(3, "GET", call, json!(null)).await;
    assert_eq!((status, eligible), (200, json!({"ringable": true, "silent": false})));
    assert_eq!(town.user(3, "POST", "/channels/20/call/ring", json!({})).await.0, 204);
    for client in [&mut ann, &mut bob] {
        let call = client.event("CALL_CREATE").await;
        assert_eq!(
            (&call["channel_id"], &call["ringing"], &call["voice_states"]),
            (&json!("20"), &json!(["4"]), &json!([]))
        );
    }
    bob.send(json!({"op": 4, "d": {"guild_id": null, "channel_id": "20", "connection_id": null}}))
        .await;
    let update = bob.event("VOICE_SERVER_UPDATE").await;
    assert!(update.get("guild_id").is_none());
    town.tell("participant_joined", update["token"].as_str().unwrap()).await;
    let state = ann.event("VOICE_STATE_UPDATE").await;
    assert_eq!(
        (&state["guild_id"], &state["connection_id"]),
        (&json!(null), &update["connection_id"])
    );
    let call_now = ann.event("CALL_UPDATE").await;
    assert_eq!(
        (&call_now["ringing"], call_now["voice_states"].as_array().map(Vec::len)),
        (&json!([]), Some(1))
    );
    ann.send(json!({"op": 13, "d": {"channel_id": "20"}})).await;
    assert!(ann.event("CALL_CREATE").await["created_at"].is_u64());
    assert_eq!(town.user(3, "PATCH", call, json!({"region": "eu"})).await.0, 204);
    assert_eq!(bob.event("VOICE_SERVER_UPDATE").await["endpoint"], "ws://here.test");
    bob.send(json!({"op": 4, "d": {"guild_id": null, "channel_id": null, "connection_id": null}}))
        .await;
    assert_eq!(ann.event("CALL_DELETE").await, json!({"channel_id": "20"}));
    assert_eq!(carol.settled().await, [json!(null); 0], "nobody else hears of it");
}

#[tokio::test]
async fn every_refusal_of_a_call_has_its_status_and_code() {
    let town = Town::start().await;
    let facts = vec![
        json!({"kind": "user", "id": "6", "unclaimed": true}),
        json!({"kind": "channel", "id": "22", "type": 1, "recipients": ["6", "3"]}),
        json!({"kind": "channel", "id": "23", "type": 1, "recipients": ["5", "3"]}),
        json!({"kind": "block", "user_id": "5", "other_id": "3"}),
    ];
    town.sync(2, facts).await;
    let ring = |channel: &str| format!("/channels/{channel}/call/ring");
    for (user, method, path, body, status, code) in [
        (
            3,
            "GET",
            "/channels/99/call".to_owned(),
            json!(null),
            404,
            "UNKNOWN_CHANNEL",
        ),
        (
            7,
            "GET",
            "/channels/20/call".into(),
            json!(null),
            404,
            "UNKNOWN_CHANNEL",
        ),
        (
            3,
            "GET",
            "/channels/10/call".into(),
            json!(null),
            400,
            "INVALID_CHANNEL_TYPE_FOR_CALL",
        ),
        (3, "POST", ring("10"), json!({}), 400, "INVALID_CHANNEL_TYPE_FOR_CALL"),
        (
            6,
            "POST",
            ring("22"),
            json!({}),
            400,
            "UNCLAIMED_ACCOUNT_CANNOT_JOIN_ONE_ON_ONE_VOICE_CALLS",
        ),
        (3, "POST", ring("23"), json!({}), 403, "CANNOT_SEND_MESSAGES_TO_USER"),
        (
            3,
            "POST",
            ring("20"),
            json!({"recipients": ["7"]}),
            400,
            "INVALID_FORM_BODY",
        ),
        (
            3,
            "POST",
            ring("20"),
            json!({"recipients": "4"}),
            400,
            "INVALID_FORM_BODY",
        ),
        (
            3,
            "PATCH",
            "/channels/20/call".into(),
            json!({"region": "eu"}),
            404,
            "NO_ACTIVE_CALL",
        ),
        (
            3,
            "POST",
            "/channels/20/call/stop-ringing".into(),
            json!({}),
            404,
            "NO_ACTIVE_CALL",
        ),
        (
            3,
            "POST",
            "/channels/20/call/end".into(),
            json!({}),
            404,
            "NO_ACTIVE_CALL",
        ),
    ] {
        assert_eq!(
            town.refused(user, method, &path, body).await,
            (status, code.to_owned()),
            "{user} {method} {path}"
        );
    }
    assert_eq!(town.user(3, "POST", "/channels/20/call", json!({})).await.0, 200);
    assert_eq!(
        town.refused(3, "POST", "/channels/20/call", json!({})).await,
        (400, "CALL_ALREADY_EXISTS".into())
    );
    for _ in 0..4 {
        assert_eq!(town.user(4, "POST", &ring("20"), json!({})).await.0, 204);
    }
    town.user(4, "POST", &ring("20"), json!({})).await;
    let (status, limited) = town.user(4, "POST", &ring("20"), json!({})).await;
    assert_eq!((status, &limited["code"]), (429, &json!("RATE_LIMITED")));
    assert!(limited["retry_after"].as_f64().is_some_and(|wait| wait > 0.0));
}

#[tokio::test]
async fn calls_have_the_documented_limits_by_user_and_channel() {
    let town = Town::start().await;
    for (method, path, count) in [
        ("POST", "call/ring", 5),
        ("GET", "call", 60),
        ("PATCH", "call", 10),
        ("POST", "call/stop-ringing", 20),
        ("POST", "call/end", 10),
    ] {
        let ask = async |user: u64, channel: &str| {
            let path = format!("/channels/{channel}/{path}");
            let body = if method == "GET" { json!(null) } else { json!({}) };
            town.user(user, method, &path, body).await
        };
        // The last one has no call any more, which counts as well.
        let is_served = |status: u16| matches!(status, 200 | 204 | 404);
        for index in 0..count {
            assert!(is_served(ask(3, "20").await.0), "{method} {path} {index}");
        }
        let (status, limited) = ask(3, "20").await;
        assert_eq!(
            (status, &limited["code"]),
            (429, &json!("RATE_LIMITED")),
            "{method} {path}"
        );
        assert!(is_served(ask(3, "21").await.0), "{method} {path} elsewhere");
        assert!(is_served(ask(4, "20").await.0), "{method} {path} of another");
    }
}
