//! What the voice system counts.

use serde_json::json;

use super::town::{GUILD, Town};
use crate::client::fetch;

#[tokio::test]
async fn the_metrics_page_has_the_voice_system_and_nothing_that_clients_choose() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let town = Town::with(|config| config.prometheus.port = port).await;
    let mut ann = town.gateway(3).await;
    ann.event("READY").await;
    town.join(3, "10").await;
    ann.event("VOICE_STATE_UPDATE").await;
    let expected = town.user(4, "POST", "/channels/11/voice/token", json!({})).await;
    assert_eq!(expected.0, 200);
    assert_eq!(town.user(3, "POST", "/channels/20/call", json!({})).await.0, 200);
    for channel in ["77", "78"] {
        ann.send(json!({"op": 4, "d": {"guild_id": GUILD, "channel_id": channel}}))
            .await;
        ann.error().await;
    }
    let path = "/channels/7777777/voice/token";
    assert_eq!(town.refused(3, "POST", path, json!({})).await.0, 404);
    // What was counted last is seen when the next question has been answered.
    ann.settled().await;
    let page = fetch(town.server.measured()[0], "/metrics").await.body;
    let value = |name: &str, label: &str| {
        let line = page
            .lines()
            .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        let line = line.unwrap_or_else(|| panic!("no {name} {label} in {page}"));
        line.rsplit(' ').next().unwrap().to_owned()
    };
    for (name, label, count) in [
        ("patchbay_voice_sockets", "", "1"),
        ("patchbay_voice_sessions", "", "1"),
        ("patchbay_voice_states", "", "1"),
        ("patchbay_voice_pending_joins", "", "1"),
        ("patchbay_voice_pins", "", "2"),
        ("patchbay_voice_calls", "", "1"),
        (
            "patchbay_voice_refusals_total",
            "told=\"gateway\",code=\"VOICE_CHANNEL_NOT_FOUND\"",
            "2",
        ),
        (
            "patchbay_voice_refusals_total",
            "told=\"http\",code=\"UNKNOWN_CHANNEL\"",
            "1",
        ),
        ("patchbay_voice_sockets_cut_total", "", "0"),
        ("patchbay_voice_room_events_lost_total", "", "0"),
        ("patchbay_voice_sessions_not_shared_total", "", "0"),
    ] {
        assert_eq!(value(name, label), count, "{name} {label}");
    }
    for chosen in ["7777777", "user3", "\"900\""] {
        assert!(!page.contains(chosen), "{chosen}");
    }
}
