//! A room on two media threads, with real clients on both.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::fetch;
use crate::process::{KEY, Process, SECRET};

/// The sum of a metric's lines with these labels.
fn sum(page: &str, name: &str, labels: &str) -> u64 {
    let lines = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(labels));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_on_two_shards_are_given_everything() {
    let page = call_over_two_shards("40000-40999", &PICTURES).await;
    assert_eq!(sum(&page, "patchbay_shard_strays_total{", ""), 0, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shards_on_one_port_hand_over_what_is_not_theirs() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let page = call_over_two_shards(&port, &VOICES).await;
    // The kernel spreads clients over the two sockets as it likes: of eighteen at least one comes to the wrong one, but for four
    // times in a million.
    assert!(sum(&page, "patchbay_shard_strays_total{", "incoming") > 0, "{page}");
}

/// Who is in a call of three seconds, beside two publishers of sound and data.
struct Call {
    subscribers: u64,
    video: &'static str,
    /// Of each publisher.
    tracks: u64,
    /// Packets that cross at least: each of both publishers' once, whoever has how many subscribers.
    relayed: u64,
}

const PICTURES: Call = Call {
    subscribers: 4,
    video: "720p",
    tracks: 2,
    relayed: 500,
};
const VOICES: Call = Call {
    subscribers: 16,
    video: "none",
    tracks: 1,
    relayed: 200,
};

/// A short call in which nobody misses a packet. Returns the page of metrics.
async fn call_over_two_shards(udp_port: &str, call: &Call) -> String {
    let metrics = crate::serving::free_port();
    let process = Process::start(json!({
        "rtc": {
            "udp_port": udp_port,
            "tcp_port": 0,
            "node_ip": "127.0.0.1",
            "shards": 2,
            // Everybody goes where there are fewest.
            "room_spill": 0.0,
        },
        "prometheus": { "port": metrics },
    }))
    .await;
    let url = format!("ws://{}", process.address);
    let (subscribers, video) = (call.subscribers.to_string(), call.video);
    let output = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_patchbay"))
            .args(["load-test", "--url", &url, "--api-key", KEY, "--api-secret", SECRET])
            .args(["--publishers", "2", "--subscribers", &subscribers, "--verify", "4"])
            .args(["--video", video])
            .args(["--audio", "--data", "--duration", "3s", "--json"])
            .stdin(Stdio::null())
            .output()
            .expect("the program runs")
    })
    .await
    .expect("no panic");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["packets_lost"], 0, "{report}");
    assert_eq!(report["packets_spoilt"], 0, "{report}");
    assert_eq!(
        report["tracks_received"],
        2 * call.tracks * call.subscribers,
        "{report}"
    );
    assert!(report["messages_received"].as_u64() > Some(60), "{report}");

    let page = fetch(([127, 0, 0, 1], metrics).into(), "/metrics").await.body;
    let relayed = |direction: &str| sum(&page, "patchbay_relayed_packets_total{", direction);
    let (out, into) = (relayed("outgoing"), relayed("incoming"));
    assert!(out > call.relayed, "{page}");
    assert!(out.abs_diff(into) * 50 < out, "{out} and {into}");
    assert_eq!(
        sum(&page, "patchbay_dropped_total{", "reason=\"relay_full\""),
        0,
        "{page}"
    );
    page
}
