//! Moderators and the backend: what they ask reaches the media server.

use serde_json::json;

use super::town::{FAR_KEY, FAR_SECRET, GUILD, Town, claims};

#[tokio::test]
async fn a_moderator_mutes_moves_and_disconnects() {
    let town = Town::start().await;
    let ticket = town.join(3, "10").await;
    let identity = claims(ticket["token"].as_str().unwrap())["sub"]
        .as_str()
        .unwrap()
        .to_owned();
    let member = "/guilds/900/members/3";
    for body in [
        json!({"mute": true}),
        json!({"deaf": true}),
        json!({"channel_id": "11"}),
        json!({"channel_id": null}),
    ] {
        assert_eq!(
            town.refused(4, "PATCH", member, body.clone()).await,
            (403, "MISSING_PERMISSIONS".into()),
            "{body}"
        );
        assert_eq!(
            town.refused(7, "PATCH", member, body).await,
            (404, "UNKNOWN_GUILD".into())
        );
    }
    assert_eq!(
        town.refused(2, "PATCH", "/guilds/900/members/7", json!({"mute": true}))
            .await,
        (404, "UNKNOWN_MEMBER".into())
    );
    assert_eq!(
        town.refused(2, "PATCH", "/guilds/900/members/4", json!({"mute": true}))
            .await,
        (400, "USER_NOT_IN_VOICE".into())
    );
    assert_eq!(
        town.refused(2, "PATCH", member, json!({"channel_id": "12"})).await.0,
        400
    );
    assert_eq!(
        town.refused(2, "PATCH", member, json!({"channel_id": "99"})).await.0,
        400
    );

    let (status, muted) = town.user(2, "PATCH", member, json!({"mute": true})).await;
    assert_eq!((status, &muted["mute"]), (200, &json!(true)));
    // Its microphone is looked for, and its rights end.
    town.far.asked("ListParticipants", "guild_900_channel_10").await;
    town.far.asked("UpdateParticipant", &identity).await;

    let mut phone = town.gateway(3).await;
    phone.event("READY").await;
    phone
        .send(json!({"op": 4, "d": {"guild_id": GUILD, "channel_id": "10", "connection_id": null}}))
        .await;
    let there = phone.event("VOICE_SERVER_UPDATE").await;
    town.tell("participant_joined", there["token"].as_str().unwrap()).await;
    let move_phone = json!({"channel_id": "11", "connection_id": there["connection_id"]});
    assert_eq!(town.user(2, "PATCH", member, move_phone).await.0, 200);
    let moved = phone.event("VOICE_SERVER_UPDATE").await;
    assert_eq!(moved["channel_id"], "11");
    assert_ne!(moved["connection_id"], there["connection_id"]);

    assert_eq!(town.user(2, "PATCH", member, json!({"channel_id": null})).await.0, 200);
    town.far.asked("RemoveParticipant", &identity).await;
    assert_eq!(
        town.refused(2, "PATCH", member, json!({"mute": false})).await,
        (400, "USER_NOT_IN_VOICE".into())
    );
}

#[tokio::test]
async fn what_the_directory_takes_away_is_taken_from_the_room() {
    let town = Town::start().await;
    let ticket = town.join(3, "10").await;
    let identity = claims(ticket["token"].as_str().unwrap())["sub"]
        .as_str()
        .unwrap()
        .to_owned();
    let summary = town
        .sync(
            2,
            vec![json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": "1049600"})],
        )
        .await;
    assert_eq!(summary, json!({"applied": 1, "passed_over": 0}));
    town.far.asked("UpdateParticipant", &identity).await;
    let kicked = vec![json!({"kind": "member", "guild_id": GUILD, "user_id": "3", "deleted": true})];
    town.sync(3, kicked.clone()).await;
    town.far.asked("RemoveParticipant", &identity).await;
    assert_eq!(
        town.sync(3, kicked).await,
        json!({"applied": 0, "passed_over": 1}),
        "the same again is nothing new"
    );
    let bad = json!({"entries": [{"kind": "channel", "version": 1, "id": "x"}]});
    assert_eq!(town.backend("POST", "/voice/directory/sync", bad).await.0, 400);
}

#[tokio::test]
async fn the_backend_states_what_is_so() {
    let town = Town::start().await;
    let rpc = |body: serde_json::Value| town.backend("POST", "/_rpc", body);
    let ask = json!({
        "type": "voice_get_token", "guild_id": GUILD, "channel_id": "13", "user_id": "3", "token_nonce": "nonce-1",
        "connection_id": "orca-dragon", "can_speak": true, "can_stream": false, "can_video": false,
    });
    let (status, answer) = rpc(ask).await;
    assert_eq!((status, &answer["type"]), (200, &json!("voice_get_token")));
    let data = &answer["data"];
    assert_eq!(
        (&data["connectionId"], &data["tokenNonce"]),
        (&json!("orca-dragon"), &json!("nonce-1"))
    );
    let token = data["token"].as_str().unwrap();
    assert_eq!(claims(token)["video"]["canPublishSources"], json!(["microphone"]));
    assert_eq!(town.tell("participant_joined", token).await, 200);
    let who = json!({"guild_id": GUILD, "channel_id": "13", "user_id": "3", "connection_id": "orca-dragon"});
    let with = |more: serde_json::Value| {
        let mut body = who.clone();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let permissions = json!({"type": "voice_update_participant_permissions", "can_speak": false, "can_stream": true, "can_video": true});
    assert_eq!(rpc(with(permissions)).await.1["data"], json!({"success": true}));
    town.far.asked("UpdateParticipant", "user_3_orca-dragon").await;
    let update = json!({"type": "voice_update_participant", "mute": true, "deaf": true});
    assert_eq!(rpc(with(update)).await.1["data"], json!({"success": true}));
    town.far.asked("UpdateParticipant", "user_3_orca-dragon").await;
    let (_, list) = town
        .backend("GET", "/channels/13/voice/participants", json!(null))
        .await;
    assert_eq!(list["status"], "success");
    assert_eq!(
        rpc(with(json!({"type": "voice_force_disconnect_participant"}))).await.1["data"],
        json!({"success": true})
    );
    town.far.asked("RemoveParticipant", "user_3_orca-dragon").await;
    town.join(4, "10").await;
    let all = json!({"type": "voice_force_disconnect_channel", "guild_id": GUILD, "channel_id": "10"});
    assert_eq!(
        rpc(all).await.1["data"],
        json!({"success": true, "disconnected_count": 1})
    );
    for (body, status, code) in [
        (json!({"type": "unheard_of"}), 400, "INVALID_FORM_BODY"),
        (
            json!({"type": "voice_get_token", "channel_id": "10", "user_id": "x"}),
            400,
            "INVALID_FORM_BODY",
        ),
        (
            json!({"type": "voice_get_token", "guild_id": GUILD, "channel_id": "10", "user_id": "77"}),
            404,
            "UNKNOWN_USER",
        ),
        (
            json!({"type": "voice_get_token", "guild_id": GUILD, "channel_id": "77", "user_id": "3"}),
            404,
            "UNKNOWN_CHANNEL",
        ),
        (
            json!({"type": "voice_get_token", "guild_id": GUILD, "channel_id": "10", "user_id": "7"}),
            404,
            "UNKNOWN_MEMBER",
        ),
    ] {
        let (found, answer) = rpc(body.clone()).await;
        assert_eq!((found, answer["code"].as_str()), (status, Some(code)), "{body}");
    }
}

#[tokio::test]
async fn a_token_that_was_replaced_lets_nobody_in() {
    let town = Town::start().await;
    let ask = async |nonce: &str| {
        let ask = json!({
            "type": "voice_get_token", "guild_id": GUILD, "channel_id": "10", "user_id": "3", "token_nonce": nonce,
            "connection_id": "orca-dragon",
        });
        let (status, answer) = town.backend("POST", "/_rpc", ask).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"]["token"].as_str().unwrap().to_owned()
    };
    let (old, new) = (ask("one").await, ask("two").await);
    let mut bob = town.gateway(4).await;
    bob.event("READY").await;
    assert_eq!(town.tell("participant_joined", &old).await, 200);
    town.far.asked("RemoveParticipant", "user_3_orca-dragon").await;
    assert_eq!(bob.settled().await, [json!(null); 0], "nobody has come");
    assert_eq!(town.tell("participant_joined", &new).await, 200);
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["connection_id"], "orca-dragon");
    // Nor later, when it is played again.
    assert_eq!(town.tell("participant_joined", &old).await, 200);
    town.far.asked("RemoveParticipant", "user_3_orca-dragon").await;
    assert_eq!(town.tell("participant_left", &new).await, 200);
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["channel_id"], json!(null));
    assert_eq!(town.tell("participant_joined", &old).await, 200);
    town.far.asked("RemoveParticipant", "user_3_orca-dragon").await;
    assert_eq!(bob.settled().await, [json!(null); 0]);
}

#[tokio::test]
async fn the_seeds_participant_operations_are_there() {
    let town = Town::start().await;
    let ticket = town.join(3, "10").await;
    let connection = ticket["connection_id"].as_str().unwrap();
    let path = "/channels/10/voice/participants/3";
    assert_eq!(
        town.backend("PATCH", path, json!({"mute": true, "deaf": false})).await,
        (200, json!({"success": true}))
    );
    let rights = json!({"connection_id": connection, "can_speak": false, "can_stream": true, "can_video": true});
    let permissions = format!("{path}/permissions");
    assert_eq!(town.backend("PATCH", &permissions, rights.clone()).await.0, 200);
    let of_other = "/channels/10/voice/participants/4/permissions";
    assert_eq!(town.backend("PATCH", of_other, rights).await.0, 403);
    let one = format!("{path}/{connection}");
    assert_eq!(town.backend("DELETE", &one, json!(null)).await.0, 200);
    town.far.asked("RemoveParticipant", connection).await;
    town.join(4, "10").await;
    let (_, done) = town
        .backend("POST", "/channels/10/voice/disconnect", json!({"guild_id": GUILD}))
        .await;
    assert_eq!(done, json!({"success": true, "disconnected_count": 1}));
}

#[tokio::test]
async fn webhooks_count_only_with_a_good_signature() {
    let town = Town::start().await;
    let (_, ticket) = town.user(3, "POST", "/channels/10/voice/token", json!({})).await;
    let claims = claims(ticket["token"].as_str().unwrap());
    let event = |identity: &serde_json::Value| {
        json!({"event": "participant_joined", "room": {"name": claims["video"]["room"]},
            "participant": {"sid": "PA_1", "identity": identity, "metadata": claims["metadata"]}})
        .to_string()
    };
    let good = event(&claims["sub"]);
    assert_eq!(town.webhook(&good, FAR_KEY, "another secret").await, 400);
    assert_eq!(town.webhook(&good, "another-key", FAR_SECRET).await, 400);
    assert_eq!(
        town.webhook(&good, "devkey", "secret").await,
        400,
        "this process needs no webhooks of its own"
    );
    assert_eq!(town.webhook("nonsense", FAR_KEY, FAR_SECRET).await, 400);
    let other = event(&json!("user_5_ghost"));
    assert_eq!(
        town.webhook_signed(&good, &other, FAR_KEY, FAR_SECRET).await,
        400,
        "of another body"
    );
    let unsigned = crate::client::request(town.address, "POST", "/webhooks/livekit", &[], &good).await;
    assert_eq!(
        (unsigned.status, unsigned.body.contains("Invalid webhook")),
        (400, true)
    );
    let mut bob = town.gateway(4).await;
    assert_eq!(
        bob.event("READY").await["guilds"][0]["voice_states"],
        json!([]),
        "nothing has counted"
    );
    // Somebody with a token that was never given is sent out.
    let forged = event(&json!("user_5_ghost"));
    assert_eq!(town.webhook(&forged, FAR_KEY, FAR_SECRET).await, 200);
    town.far.asked("RemoveParticipant", "user_5_ghost").await;
    assert_eq!(town.webhook(&good, FAR_KEY, FAR_SECRET).await, 200);
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["user_id"], "3");
    assert_eq!(
        town.tell("participant_left", ticket["token"].as_str().unwrap()).await,
        200
    );
    assert_eq!(bob.event("VOICE_STATE_UPDATE").await["channel_id"], json!(null));
    assert_eq!(
        town.webhook(r#"{"event":"unheard_of"}"#, FAR_KEY, FAR_SECRET).await,
        200
    );
}
