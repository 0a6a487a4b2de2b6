//! The gateway over a real socket.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::town::{GUILD, Gateway, Town, user_token};
use crate::client::fetch;

#[tokio::test]
async fn frames_may_be_compressed_and_the_root_leads_there_too() {
    let town = Town::start().await;
    let identify =
        json!({"op": 2, "d": {"token": user_token(3), "properties": {"os": "", "browser": "", "device": ""}}});
    for target in [
        "/gateway?v=1&encoding=json&compress=zstd-stream",
        "/?v=1&encoding=json&compress=none",
        "/gateway/?v=1",
    ] {
        let mut gateway = Gateway::open(town.address, target).await;
        assert_eq!(
            gateway.next().await,
            json!({"op": 10, "d": {"heartbeat_interval": 41_250}})
        );
        gateway.send(identify.clone()).await;
        let ready = gateway.next().await;
        assert_eq!(
            (&ready["t"], &ready["s"], &ready["d"]["user"]["id"]),
            (&json!("READY"), &json!(1), &json!("3"))
        );
    }
    assert_eq!(
        crate::client::fetch(town.address, "/").await.body,
        "OK",
        "health is where it was"
    );
    assert_eq!(crate::client::fetch(town.address, "/gateway?v=1").await.status, 426);
}

#[tokio::test]
async fn faults_end_the_socket_with_their_code() {
    let town = Town::start().await;
    let mut other_version = Gateway::open(town.address, "/gateway?v=9").await;
    assert_eq!(other_version.closed().await, 4012);
    let big = format!(r#"{{"op":1,"d":null,"x":"{}"}}"#, "x".repeat(5000));
    let huge = "x".repeat(60_000);
    let identify = |token: &str| {
        json!({"op": 2, "d": {"token": token, "properties": {"os": "", "browser": "", "device": ""}}}).to_string()
    };
    for (frame, code) in [
        (Message::Text("nonsense".into()), 4002),
        (Message::Text(big.into()), 4002),
        (Message::Text(huge.into()), 4002),
        (Message::Binary(vec![1, 2, 3].into()), 4002),
        (Message::Text(identify("nonsense").into()), 4004),
        (Message::Text(r#"{"op":4,"d":{}}"#.into()), 4003),
        (Message::Text(r#"{"op":77}"#.into()), 4001),
    ] {
        let mut gateway = Gateway::open(town.address, "/gateway?v=1").await;
        gateway.socket.send(frame.clone()).await.unwrap();
        assert_eq!(gateway.closed().await, code, "{frame:.60?}");
    }
    let mut gateway = town.gateway(3).await;
    gateway.event("READY").await;
    for _ in 0..120 {
        gateway.send(json!({"op": 1, "d": null})).await;
    }
    assert_eq!(gateway.closed().await, 4008);
}

#[tokio::test]
async fn a_socket_that_breaks_is_resumed() {
    let town = Town::start().await;
    let mut ann = town.gateway(3).await;
    let session = ann.event("READY").await["session_id"].as_str().unwrap().to_owned();
    drop(ann);
    let ticket = town.join(4, "10").await;
    let mut again = Gateway::open(town.address, "/gateway?v=1").await;
    again.next().await;
    again
        .send(json!({"op": 6, "d": {"token": user_token(3), "session_id": session, "seq": 1}}))
        .await;
    let missed = again.next().await;
    assert_eq!((&missed["t"], &missed["s"]), (&json!("VOICE_STATE_UPDATE"), &json!(2)));
    assert_eq!(missed["d"]["connection_id"], ticket["connection_id"]);
    assert_eq!(again.next().await, json!({"op": 0, "t": "RESUMED", "s": 2, "d": null}));
    let mut thief = Gateway::open(town.address, "/gateway?v=1").await;
    thief.next().await;
    thief
        .send(json!({"op": 6, "d": {"token": user_token(5), "session_id": session, "seq": 1}}))
        .await;
    assert_eq!(thief.next().await, json!({"op": 9, "d": false}));
}

#[tokio::test]
async fn errors_leave_the_socket_open_and_the_end_of_the_server_is_told() {
    let town = Town::start().await;
    let mut ann = town.gateway(3).await;
    ann.event("READY").await;
    for (update, code) in [
        (
            json!({"guild_id": GUILD, "channel_id": "13"}),
            "VOICE_PERMISSION_DENIED",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "connection_id": "gone"}),
            "VOICE_CONNECTION_NOT_FOUND",
        ),
        (json!({"guild_id": "901", "channel_id": "10"}), "VOICE_GUILD_NOT_FOUND"),
        (
            json!({"guild_id": "x", "channel_id": "10"}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "9".repeat(3000)}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": 10}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "9223372036854775807"}),
            "VOICE_CHANNEL_NOT_FOUND",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "connection_id": "x".repeat(3000)}),
            "VOICE_CONNECTION_NOT_FOUND",
        ),
    ] {
        ann.send(json!({"op": 4, "d": update})).await;
        assert_eq!(ann.error().await, code);
    }
    let told = async {
        assert_eq!(ann.next().await, json!({"op": 7, "d": null}));
    };
    tokio::join!(town.server.stop(), told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_cut_off_and_holds_nobody_up() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let town = Town::with(|config| config.prometheus.port = port).await;
    // Frames as large as they may be, so that what lies between the two is soon full.
    let roles: Vec<String> = (1..=1000u64)
        .map(|role| (1_000_000_000_000_000 + role).to_string())
        .collect();
    town.sync(
        2,
        vec![json!({"kind": "member", "guild_id": GUILD, "user_id": "3", "roles": roles})],
    )
    .await;
    let (mut lazy, mut bob) = (town.gateway(4).await, town.gateway(5).await);
    lazy.event("READY").await;
    bob.event("READY").await;
    town.join(3, "10").await;
    bob.event("VOICE_STATE_UPDATE").await;
    let cut = async || {
        let page = fetch(town.server.measured()[0], "/metrics").await.body;
        let line = page
            .lines()
            .find(|line| line.starts_with("patchbay_voice_sockets_cut_total"))
            .unwrap();
        line.ends_with(" 1")
    };
    let mut updates = 0;
    while !cut().await {
        for _ in 0..20 {
            let mute = json!({"type": "voice_update_participant", "guild_id": GUILD, "channel_id": "10", "user_id": "3",
                "mute": updates % 2 == 0, "deaf": false});
            assert_eq!(town.backend("POST", "/_rpc", mute).await.0, 200);
            bob.event("VOICE_STATE_UPDATE").await;
            updates += 1;
        }
        assert!(updates < 20_000, "it is never cut off");
    }
    // It ends without a farewell, and short of the last news.
    let mut read = 0;
    while let Some(Ok(message)) = lazy.socket.next().await {
        assert!(!message.is_close());
        read += 1;
    }
    assert!(read < updates);
}
