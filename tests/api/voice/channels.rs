//! Tokens, one's own states, regions, previews, and who may ask.

use serde_json::json;

use super::town::{FAR_KEY, GUILD, SECRET, Town, claims, token_until, user_token};

#[tokio::test]
async fn a_token_leads_to_the_room_and_a_state() {
    let town = Town::start().await;
    let body = json!({"channel_id": "10", "guild_id": GUILD, "latitude": "37.77", "longitude": "-122.41"});
    let (status, ticket) = town.user(3, "POST", "/channels/10/voice/token", body).await;
    assert_eq!(status, 200, "{ticket}");
    assert_eq!(ticket["endpoint"], town.far.url.as_str());
    let claims = claims(ticket["token"].as_str().unwrap());
    assert_eq!(claims["iss"], FAR_KEY);
    let connection = ticket["connection_id"].as_str().unwrap();
    assert_eq!(claims["sub"], format!("user_3_{connection}"));
    let video = &claims["video"];
    assert_eq!(video["room"], "guild_900_channel_10");
    assert_eq!(
        (&video["roomJoin"], &video["canPublish"], &video["canSubscribe"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!(
        video["canPublishSources"],
        json!(["microphone", "camera", "screen_share", "screen_share_audio"])
    );
    let metadata: serde_json::Value = serde_json::from_str(claims["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(metadata["token_nonce"], ticket["token_nonce"]);
    assert_eq!(
        town.tell("participant_joined", ticket["token"].as_str().unwrap()).await,
        200
    );
    let mut bob = town.gateway(4).await;
    let ready = bob.event("READY").await;
    assert_eq!(ready["guilds"][0]["voice_states"][0]["connection_id"], connection);
    // Here, where this process is the media server.
    let (_, ticket) = town
        .user(3, "POST", "/channels/11/voice/token", json!({"region": "eu"}))
        .await;
    assert_eq!(ticket["endpoint"], "ws://here.test");
    assert_eq!(super::town::claims(ticket["token"].as_str().unwrap())["iss"], "devkey");
}

#[tokio::test]
async fn every_refusal_of_a_token_has_its_status_and_code() {
    let town = Town::start().await;
    let facts = vec![
        json!({"kind": "channel", "id": "14", "guild_id": GUILD, "type": 2, "user_limit": 1}),
        json!({"kind": "channel", "id": "15", "guild_id": GUILD, "type": 2,
            "permission_overwrites": [{"id": GUILD, "type": 0, "deny": (1u64 << 20).to_string()}]}),
        json!({"kind": "user", "id": "6", "unclaimed": true}),
        json!({"kind": "user", "id": "5", "suspicious": true}),
        json!({"kind": "channel", "id": "22", "type": 1, "recipients": ["6", "3"]}),
        json!({"kind": "guild", "id": "901", "owner_id": "1"}),
    ];
    town.sync(2, facts).await;
    town.join(4, "14").await;
    let long = "9".repeat(30);
    for (user, channel, body, status, code) in [
        (3, "x", json!({}), 400, "INVALID_FORM_BODY"),
        (3, long.as_str(), json!({}), 400, "INVALID_FORM_BODY"),
        (3, "0", json!({}), 400, "INVALID_FORM_BODY"),
        (3, "10", json!({"guild_id": 900}), 400, "INVALID_FORM_BODY"),
        (3, "10", json!({"channel_id": "11"}), 400, "INVALID_FORM_BODY"),
        (3, "10", json!({"session_id": "unknown"}), 400, "INVALID_FORM_BODY"),
        (3, "99", json!({}), 404, "UNKNOWN_CHANNEL"),
        (7, "10", json!({}), 404, "UNKNOWN_CHANNEL"),
        (7, "20", json!({}), 404, "UNKNOWN_CHANNEL"),
        (7, "10", json!({"guild_id": GUILD}), 404, "UNKNOWN_MEMBER"),
        (7, "99", json!({"guild_id": GUILD}), 404, "UNKNOWN_MEMBER"),
        (3, "10", json!({"guild_id": "901"}), 404, "UNKNOWN_MEMBER"),
        (3, "10", json!({"guild_id": "902"}), 404, "UNKNOWN_GUILD"),
        (77, "20", json!({}), 404, "UNKNOWN_CHANNEL"),
        (3, "12", json!({}), 400, "INVALID_FORM_BODY"),
        (3, "13", json!({}), 403, "MISSING_PERMISSIONS"),
        (3, "15", json!({}), 403, "MISSING_PERMISSIONS"),
        (3, "14", json!({}), 400, "VOICE_CHANNEL_FULL"),
        (3, "10", json!({"region": "nowhere"}), 404, "UNKNOWN_VOICE_REGION"),
        (5, "10", json!({}), 403, "ACCOUNT_SUSPICIOUS_ACTIVITY"),
        (6, "10", json!({}), 400, "UNCLAIMED_ACCOUNT_CANNOT_JOIN_VOICE_CHANNELS"),
        (
            6,
            "22",
            json!({}),
            400,
            "UNCLAIMED_ACCOUNT_CANNOT_JOIN_ONE_ON_ONE_VOICE_CALLS",
        ),
    ] {
        let path = format!("/channels/{channel}/voice/token");
        assert_eq!(
            town.refused(user, "POST", &path, body.clone()).await,
            (status, code.to_owned()),
            "{user} {channel} {body}"
        );
    }
    for id in ["us", "eu"] {
        let (status, _) = town
            .backend("POST", "/admin/voice/regions/delete", json!({"id": id}))
            .await;
        assert_eq!(status, 200);
    }
    let answer = town
        .call("POST", "/channels/10/voice/token", &user_token(3), &json!({}))
        .await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert!(answer.body.contains("FEATURE_TEMPORARILY_DISABLED"));
    let rpc = json!({"type": "voice_get_token", "guild_id": GUILD, "channel_id": "10", "user_id": "3"});
    let (status, body) = town.backend("POST", "/_rpc", rpc).await;
    assert_eq!((status, &body["code"]), (403, &json!("FEATURE_TEMPORARILY_DISABLED")));
    assert_eq!(body["message"], "This feature is temporarily disabled");
}

#[tokio::test]
async fn nobody_gets_anything_without_a_good_token() {
    let town = Town::start().await;
    let user_paths = [
        ("POST", "/channels/10/voice/token"),
        ("PATCH", "/guilds/900/voice-states/@me"),
        ("PATCH", "/guilds/900/members/3"),
        ("GET", "/channels/10/rtc-regions"),
        ("PATCH", "/channels/10"),
        ("GET", "/channels/20/call"),
        ("POST", "/channels/20/call"),
        ("PATCH", "/channels/20/call"),
        ("POST", "/channels/20/call/ring"),
        ("POST", "/channels/20/call/stop-ringing"),
        ("POST", "/channels/20/call/end"),
        ("GET", "/streams/900:10:a/preview"),
        ("POST", "/streams/900:10:a/preview"),
        ("PATCH", "/streams/900:10:a/stream"),
    ];
    let backend_paths = [
        ("POST", "/voice/directory/sync"),
        ("POST", "/_rpc"),
        ("GET", "/channels/10/voice/participants"),
        ("PATCH", "/channels/10/voice/participants/3"),
        ("PATCH", "/channels/10/voice/participants/3/permissions"),
        ("DELETE", "/channels/10/voice/participants/3/a"),
        ("POST", "/channels/10/voice/disconnect"),
        ("POST", "/admin/voice/servers/list"),
        ("POST", "/admin/voice/regions/create"),
    ];
    let good = user_token(3);
    let expired = token_until(3, 1_000_000_000);
    for (method, path) in user_paths {
        for token in ["", "nonsense", expired.as_str(), SECRET] {
            let answer = town.call(method, path, token, &json!({})).await;
            assert_eq!(answer.status, 401, "{method} {path} {token}");
        }
    }
    for (method, path) in backend_paths {
        for token in ["", "nonsense", good.as_str()] {
            let answer = town.call(method, path, token, &json!({})).await;
            assert_eq!(answer.status, 401, "{method} {path} {token}");
        }
    }
    let answer = town.call("DELETE", "/channels/20/call/ring", &good, &json!(null)).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let huge = json!({"region": "x".repeat(70_000)});
    assert_eq!(
        town.call("POST", "/channels/10/voice/token", &good, &huge).await.status,
        413
    );
}

#[tokio::test]
async fn ones_own_state_joins_changes_moves_and_leaves() {
    let town = Town::start().await;
    let own = "/guilds/900/voice-states/@me";
    assert_eq!(
        town.refused(3, "PATCH", own, json!({"self_mute": true})).await,
        (400, "USER_NOT_IN_VOICE".into())
    );
    assert_eq!(
        town.refused(7, "PATCH", own, json!({"channel_id": "10"})).await,
        (404, "UNKNOWN_GUILD".into())
    );
    assert_eq!(
        town.refused(3, "PATCH", "/guilds/x/voice-states/@me", json!({}))
            .await
            .0,
        400
    );
    let (status, state) = town
        .user(3, "PATCH", own, json!({"channel_id": "10", "self_mute": true}))
        .await;
    assert_eq!(status, 200, "{state}");
    assert_eq!(
        (&state["channel_id"], &state["self_mute"], &state["suppress"]),
        (&json!("10"), &json!(true), &json!(false))
    );
    assert_eq!(
        town.tell("participant_joined", state["token"].as_str().unwrap()).await,
        200
    );
    let mut bob = town.gateway(4).await;
    bob.event("READY").await;
    let (_, state) = town.user(3, "PATCH", own, json!({"self_deaf": true})).await;
    assert_eq!(
        (&state["self_mute"], &state["self_deaf"], &state["token"]),
        (&json!(true), &json!(true), &json!(null))
    );
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["self_deaf"], true);
    let (_, moved) = town.user(3, "PATCH", own, json!({"channel_id": "11"})).await;
    assert_eq!(moved["connection_id"], state["connection_id"]);
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["channel_id"], json!(null));
    assert_eq!(
        town.tell("participant_joined", moved["token"].as_str().unwrap()).await,
        200
    );
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["channel_id"], "11");
    let (status, left) = town.user(3, "PATCH", own, json!({"channel_id": null})).await;
    assert_eq!((status, &left["channel_id"]), (200, &json!(null)));
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["channel_id"], json!(null));
    town.far.asked("RemoveParticipant", "user_3_").await;
    let wrong = json!({"self_mute": true, "connection_id": "gone"});
    assert_eq!(
        town.refused(3, "PATCH", own, wrong).await,
        (404, "VOICE_CONNECTION_NOT_FOUND".into())
    );
}

#[tokio::test]
async fn a_channels_region_is_shown_and_set() {
    let town = Town::start().await;
    let (status, regions) = town.user(3, "GET", "/channels/10/rtc-regions", json!(null)).await;
    assert_eq!(status, 200);
    assert_eq!(
        regions,
        json!([{"id": "eu", "name": "Europe", "emoji": ""}, {"id": "us", "name": "America", "emoji": ""}])
    );
    assert_eq!(
        town.refused(7, "GET", "/channels/10/rtc-regions", json!(null)).await,
        (404, "UNKNOWN_CHANNEL".into())
    );
    let mut ann = town.gateway(3).await;
    ann.event("READY").await;
    ann.send(json!({"op": 4, "d": {"guild_id": GUILD, "channel_id": "10", "connection_id": null}}))
        .await;
    let first = ann.event("VOICE_SERVER_UPDATE").await;
    assert_eq!(
        town.tell("participant_joined", first["token"].as_str().unwrap()).await,
        200
    );
    assert_eq!(
        town.refused(3, "PATCH", "/channels/10", json!({"rtc_region": "eu"}))
            .await,
        (403, "MISSING_PERMISSIONS".into())
    );
    assert_eq!(
        town.refused(2, "PATCH", "/channels/12", json!({"rtc_region": "eu"}))
            .await
            .0,
        400
    );
    assert_eq!(town.refused(2, "PATCH", "/channels/10", json!({})).await.0, 400);
    let (status, fault) = town
        .user(2, "PATCH", "/channels/10", json!({"rtc_region": "moon"}))
        .await;
    assert_eq!((status, &fault["code"]), (400, &json!("INVALID_FORM_BODY")));
    assert_eq!(
        fault["errors"],
        json!([{"path": "rtc_region", "message": "Invalid or restricted RTC region: moon"}])
    );
    let (status, channel) = town.user(2, "PATCH", "/channels/10", json!({"rtc_region": "eu"})).await;
    assert_eq!((status, &channel["rtc_region"]), (200, &json!("eu")));
    let second = ann.event("VOICE_SERVER_UPDATE").await;
    assert_eq!(
        (&second["endpoint"], &second["guild_id"]),
        (&json!("ws://here.test"), &json!(GUILD))
    );
    assert_ne!(second["connection_id"], first["connection_id"]);
}

#[tokio::test]
async fn a_streams_picture_is_for_those_who_may_join() {
    let town = Town::start().await;
    let ticket = town.join(3, "10").await;
    let key = format!("{GUILD}:10:{}", ticket["connection_id"].as_str().unwrap());
    let path = format!("/streams/{}/preview", key.replace(':', "%3A"));
    let picture = json!({"channel_id": "10", "thumbnail": "aGVsbG8="});
    assert_eq!(
        town.refused(3, "GET", &path, json!(null)).await,
        (404, "UNKNOWN_STREAM_PREVIEW".into())
    );
    assert_eq!(
        town.refused(4, "POST", &path, picture.clone()).await,
        (403, "VOICE_USER_MISMATCH".into())
    );
    assert_eq!(
        town.refused(3, "POST", &path, json!({"channel_id": "11", "thumbnail": ""}))
            .await
            .0,
        400
    );
    assert_eq!(
        town.refused(3, "POST", &path, json!({"channel_id": "10", "thumbnail": "?"}))
            .await
            .0,
        400
    );
    let long = json!({"channel_id": "10", "thumbnail": "aaaa".repeat(500_001)});
    assert_eq!(town.refused(3, "POST", &path, long).await.0, 400);
    let page = json!({"channel_id": "10", "thumbnail": "aGVsbG8=", "content_type": "text/html"});
    assert_eq!(town.refused(3, "POST", &path, page).await.0, 400);
    assert_eq!(town.user(3, "POST", &path, picture).await.0, 204);
    let answer = town.call("GET", &path, &user_token(4), &json!(null)).await;
    assert_eq!(
        (answer.status, answer.header("content-type"), answer.body.as_str()),
        (200, Some("image/jpeg"), "hello")
    );
    assert_eq!(
        town.refused(7, "GET", &path, json!(null)).await,
        (404, "UNKNOWN_CHANNEL".into())
    );
    assert_eq!(
        town.refused(4, "GET", "/streams/nonsense/preview", json!(null)).await.0,
        400
    );
    let stream = path.replace("preview", "stream");
    assert_eq!(town.user(3, "PATCH", &stream, json!({"region": "eu"})).await.0, 204);
    assert_eq!(
        town.refused(3, "PATCH", &stream, json!({"region": "moon"})).await,
        (404, "UNKNOWN_VOICE_REGION".into())
    );
}

#[tokio::test]
async fn the_document_is_served() {
    let town = Town::start().await;
    let answer = crate::client::fetch(town.address, "/voice/openapi.json").await;
    let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/channels/{channel_id}/voice/token"]["post"].is_object());
}
