//! The whole server, started as the program starts it, on ports that the kernel chooses.

use patchbay::app::config::{Config, PortRange};
use patchbay::app::serve::Server;
use patchbay::proto::claims::{Claims, VideoGrant, sign};
use patchbay::proto::livekit::DisconnectReason;
use patchbay::proto::livekit::signal_response::Message as Say;

use crate::client::{Signalling, fetch, join_request, request};

fn config() -> Config {
    let mut config = Config {
        port: 0,
        bind_addresses: vec![[127, 0, 0, 1].into()],
        development: true,
        ..Config::default()
    };
    config.keys.insert("devkey", "secret");
    config.rtc.udp_port = Some(PortRange { start: 0, end: 0 });
    config
}

#[tokio::test]
async fn a_started_server_lets_people_in_and_says_goodbye() {
    let server = Server::start(&config()).await.unwrap();
    let address = server.listening()[0];
    assert_eq!(fetch(address, "/").await.body, "OK");

    let claims = Claims {
        identity: "alice".into(),
        video: Some(VideoGrant {
            room_join: true,
            room: "room".into(),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    let hour = std::time::Duration::from_secs(3600);
    let token = sign(&claims, "devkey", "secret", server.node().unix(), hour);
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let mut client = Signalling::open(address, &target, &token).await.unwrap();
    let Say::Join(join) = client.next().await else {
        panic!("not a JoinResponse");
    };
    assert_eq!(join.room.unwrap().enabled_codecs.len(), 10, "RTX is listed too");
    assert!(
        join.ice_servers[0]
            .urls
            .contains(&"stun:stun.l.google.com:19302".to_owned())
    );

    let goodbye = async {
        let leave = client
            .until(|message| match message {
                Say::Leave(leave) => Some(leave),
                _ => None,
            })
            .await;
        assert_eq!(leave.reason(), DisconnectReason::ServerShutdown);
        assert_eq!(client.closed().await, (1000, String::new()));
    };
    tokio::join!(server.stop(), goodbye);
}

#[tokio::test]
async fn development_offers_the_page_and_tokens_for_it() {
    let server = Server::start(&config()).await.unwrap();
    let address = server.listening()[0];
    let page = request(address, "GET", "/?room=x", &["Accept: text/html,*/*"], "").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    for asset in ["/style.css", "/call.js", "/session.js", "/packets.js", "/why.js"] {
        assert_eq!(fetch(address, asset).await.status, 200, "{asset}");
    }
    let body = r#"{"room":"r","identity":"alice","name":"Alice"}"#;
    let answer = request(address, "POST", "/dev/token", &["Content-Type: application/json"], body).await;
    let token: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let target = format!("/rtc/validate?access_token={}", token["token"].as_str().unwrap());
    assert_eq!(fetch(address, &target).await.body, "success");
    for bad in ["{", "{}", r#"{"room":"","identity":"a"}"#] {
        assert_eq!(
            request(address, "POST", "/dev/token", &[], bad).await.status,
            400,
            "{bad}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn every_shard_has_a_port_of_its_own() {
    let mut config = config();
    config.rtc.udp_port = None;
    (config.rtc.port_range_start, config.rtc.port_range_end) = (42_000, 42_999);
    config.rtc.shards = 3;
    let first = Server::start(&config).await.unwrap();
    // The second server finds the first ports taken and goes on to the next.
    let second = Server::start(&config).await.unwrap();
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn metrics_have_a_port_of_their_own_and_a_password() {
    let mut config = config();
    config.prometheus.port = free_port();
    (config.prometheus.username, config.prometheus.password) = ("reader".into(), "secret".into());
    config.webhook.urls = vec!["http://127.0.0.1:9/nobody".into()];
    config.webhook.api_key = "devkey".into();
    let server = Server::start(&config).await.unwrap();
    let (address, measured) = (server.listening()[0], server.measured()[0]);
    assert_eq!(fetch(measured, "/metrics").await.status, 401);
    let wrong = request(
        measured,
        "GET",
        "/metrics",
        &["authorization: Basic cmVhZGVyOndyb25n"],
        "",
    )
    .await;
    assert_eq!(wrong.status, 401);
    assert_eq!(fetch(address, "/metrics").await.status, 404);

    let claims = Claims {
        identity: "alice".into(),
        video: Some(VideoGrant {
            room_join: true,
            room_create: true,
            room: "room".into(),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    let hour = std::time::Duration::from_secs(3600);
    let token = sign(&claims, "devkey", "secret", server.node().unix(), hour);
    let authorization = format!("authorization: Bearer {token}");
    let api = [authorization.as_str(), "content-type: application/json"];
    let create = "/twirp/livekit.RoomService/CreateRoom";
    assert_eq!(
        request(address, "POST", create, &api, r#"{"name":"other"}"#)
            .await
            .status,
        200
    );
    let list = "/twirp/livekit.RoomService/ListRooms";
    assert_eq!(request(address, "POST", list, &api, "{}").await.status, 401);

    let page = request(measured, "GET", "/", &["authorization: Basic cmVhZGVyOnNlY3JldA=="], "").await;
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let node = &server.node().config().room.node_id;
    let labels = format!("node_id=\"{node}\",node_type=\"SERVER\"");
    let status = "livekit_node_twirp_request_status";
    for line in [
        format!("livekit_room_total{{{labels}}} 1\n"),
        format!("{status}{{{labels},service=\"RoomService\",method=\"CreateRoom\",status=\"success\",code=\"\"}} 1\n"),
        format!(
            "{status}{{{labels},service=\"RoomService\",method=\"ListRooms\",status=\"error\",code=\"unauthenticated\"}} 1\n"
        ),
        format!("livekit_packet_total{{{labels},direction=\"incoming\",transmission=\"initial\",country=\"\"}} 0\n"),
        format!("patchbay_shard_turns_total{{{labels},shard=\"0\"}} "),
        format!("patchbay_shard_load_ratio{{{labels},shard=\"0\"}} 0"),
        format!("patchbay_shard_connections{{{labels},shard=\"0\"}} 0\n"),
        format!("patchbay_tasks{{{labels}}} "),
        // Its room has started, and nothing waited before that.
        format!("livekit_webhook_queue_length_bucket{{{labels},le=\"0\"}} 1\n"),
        format!("livekit_webhook_queue_length_count{{{labels}}} 1\n"),
        format!("patchbay_webhooks_waiting{{{labels}}} 1\n"),
        format!("patchbay_dropped_total{{{labels},reason=\"unknown_path\"}} 0\n"),
    ] {
        assert!(page.body.contains(&line), "{line}\n{}", page.body);
    }
    for name in LIVEKITS {
        assert!(page.body.contains(&format!("# TYPE {name} ")), "{name}");
    }
    well_formed(&page.body);
    // Nothing that a client or a backend has chosen is a label.
    for chosen in ["alice", "\"other\""] {
        assert!(!page.body.contains(chosen), "{chosen}\n{}", page.body);
    }
    server.stop().await;
}

/// What LiveKit's dashboard and alerts ask for, of what there is here.
const LIVEKITS: &[&str] = &[
    "livekit_connection_total",
    "livekit_datapacket_stream_bytes",
    "livekit_datapacket_stream_dest_count",
    "livekit_fir_total",
    "livekit_forward_jitter",
    "livekit_forward_latency",
    "livekit_forward_latency_ns",
    "livekit_jitter_us",
    "livekit_messagebus_messages",
    "livekit_nack_total",
    "livekit_node_messages",
    "livekit_node_packet_total",
    "livekit_node_service_operation",
    "livekit_node_twirp_request_latency_ms",
    "livekit_node_twirp_request_status",
    "livekit_packet_bytes",
    "livekit_packet_loss_percent",
    "livekit_packet_loss_total",
    "livekit_packet_out_of_order_percent",
    "livekit_packet_out_of_order_total",
    "livekit_packet_total",
    "livekit_participant_join_total",
    "livekit_participant_total",
    "livekit_peer_connection_state",
    "livekit_pli_total",
    "livekit_pubsubtime_ms",
    "livekit_quality_rating",
    "livekit_quality_score",
    "livekit_room_duration_seconds",
    "livekit_room_total",
    "livekit_rtt_ms",
    "livekit_session_duration_ms",
    "livekit_session_join_latency_ms",
    "livekit_session_start_time_ms",
    "livekit_track_publish_counter",
    "livekit_track_published_total",
    "livekit_track_subscribe_counter",
    "livekit_track_subscribed_total",
    "livekit_webhook_dispatch_total",
    "livekit_webhook_queue_length",
];

/// Every line has a declared name, each of which is declared once, and a number at its end.
fn well_formed(page: &str) {
    let mut declared = std::collections::BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(declared.insert(name.to_owned()), "{name} is declared twice");
            continue;
        }
        let (name, rest) = line.split_once('{').unwrap_or_else(|| panic!("{line}"));
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(declared.contains(name) || declared.contains(base), "{line}");
        assert!(rest.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
    }
    assert!(declared.len() > 20);
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
