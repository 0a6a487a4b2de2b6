//! The server as nothing but the LiveKit of an unmodified Fluxer: its configuration file, its tokens, its calls of
//! RoomService, and the webhooks that it confirms joins by.

use patchbay::proto::claims::{Claims, VideoGrant, sign};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::client::{LIMIT, Signalling, join_request};
use crate::lease;
use crate::process::{KEY, Process, SECRET};

const ROOM: &str = "guild_987_channel_111";
const IDENTITY: &str = "user_123_orca-dragon";

/// The backend's `/webhooks/livekit`: what arrives there.
async fn webhooks() -> (String, mpsc::UnboundedReceiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/webhooks/livekit", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut read = Vec::new();
            let event = loop {
                if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                    break None;
                }
                let text = String::from_utf8_lossy(&read).into_owned();
                if let Some((_, body)) = text.split_once("\r\n\r\n")
                    && let Ok(event) = serde_json::from_str::<Value>(body)
                {
                    break Some(event);
                }
            };
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await;
            if let Some(event) = event {
                let _ = sender.send(event);
            }
        }
    });
    (url, received)
}

async fn told(received: &mut mpsc::UnboundedReceiver<Value>, event: &str) -> Value {
    let wanted = async {
        loop {
            let told = received.recv().await.unwrap();
            if told["event"] == event {
                return told;
            }
        }
    };
    tokio::time::timeout(LIMIT, wanted).await.expect("a webhook in time")
}

/// As the backend makes them: nothing but what it needs.
fn token() -> String {
    let metadata = json!({
        "user_id": "123", "channel_id": "111", "connection_id": "orca-dragon", "region_id": "us-default",
        "server_id": "us-default-server-1", "guild_id": "987", "token_nonce": "n", "issued_at": "1700000000",
    });
    let claims = Claims {
        identity: IDENTITY.into(),
        metadata: metadata.to_string(),
        video: Some(VideoGrant {
            room_join: true,
            room: ROOM.into(),
            can_publish: Some(true),
            can_subscribe: Some(true),
            can_publish_sources: ["microphone", "camera", "screen_share", "screen_share_audio"]
                .map(str::to_owned)
                .into(),
            ..VideoGrant::default()
        }),
        ..Claims::default()
    };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    sign(&claims, KEY, SECRET, now, std::time::Duration::from_secs(600))
}

#[tokio::test]
async fn an_unmodified_fluxer_finds_the_media_server_it_knows() {
    let (url, mut received) = webhooks().await;
    let free = || {
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    let media = || {
        std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    };
    // Every key of its file; addresses and ports are those of this test.
    let mut file = json!({
        "rtc": {
            "tcp_port": free(), "udp_port": media(), "use_external_ip": false, "node_ip": "127.0.0.1",
            "enable_loopback_candidate": false,
        },
        "turn": {
            "enabled": true, "domain": "turn.example.com", "tls_port": free(), "udp_port": media(), "external_tls": true,
        },
        "room": {"auto_create": true, "max_participants": 100, "empty_timeout": 300, "departure_timeout": 20},
        "webhook": {"api_key": KEY, "urls": [url]},
    });
    let redis = lease::real().await;
    if let Some(redis) = &redis {
        let (address, password) = (redis.address.to_string(), "password");
        file["redis"] = json!({"address": address, "username": "name", "password": password, "db": 0});
    }
    let process = Process::start(file).await;
    assert_eq!(process.health().await, (200, "OK".into()));

    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let _alice = Signalling::open(process.address, &target, &token()).await.unwrap();
    let listed = process
        .call("RoomService/ListParticipants", ROOM, json!({"room": ROOM}))
        .await;
    let listed: Value = serde_json::from_str(&listed.body).unwrap();
    assert_eq!(listed["participants"][0]["identity"], IDENTITY);
    assert_eq!(told(&mut received, "room_started").await["room"]["name"], ROOM);

    // Server deafness, then permissions without `canSubscribe`: as it sends them.
    let update = json!({"room": ROOM, "identity": IDENTITY, "permission": {
        "can_publish": true, "can_subscribe": true,
        "can_publish_sources": ["CAMERA", "MICROPHONE", "SCREEN_SHARE", "SCREEN_SHARE_AUDIO"],
    }});
    let updated = process.call("RoomService/UpdateParticipant", ROOM, update).await;
    assert_eq!(updated.status, 200, "{}", updated.body);
    let gone = json!({"room": ROOM, "identity": IDENTITY});
    assert_eq!(
        process
            .call("RoomService/RemoveParticipant", ROOM, gone.clone())
            .await
            .status,
        200
    );
    assert_eq!(
        process.call("RoomService/RemoveParticipant", ROOM, gone).await.status,
        404,
        "which it tolerates"
    );
    // Its media never came: that is an end too, and says whose.
    let left = told(&mut received, "participant_connection_aborted").await;
    assert_eq!(
        (&left["room"]["name"], &left["participant"]["identity"]),
        (&json!(ROOM), &json!(IDENTITY))
    );
    let metadata: Value = serde_json::from_str(left["participant"]["metadata"].as_str().unwrap()).unwrap();
    assert_eq!(metadata["connection_id"], "orca-dragon");
}

#[tokio::test]
async fn the_file_of_a_fluxer_in_development_is_taken_too() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (url, mut received) = webhooks().await;
    let mut file = json!({
        "rtc": {"tcp_port": port},
        "room": {"auto_create": true, "max_participants": 100, "empty_timeout": 300},
        "webhook": {"api_key": KEY, "urls": [url]},
        "development": true,
    });
    let redis = lease::real().await;
    if let Some(redis) = &redis {
        file["redis"] = json!({"address": redis.address.to_string(), "db": 0});
    }
    let process = Process::start(file).await;
    assert_eq!(process.health().await, (200, "OK".into()));
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let _alice = Signalling::open(process.address, &target, &token()).await.unwrap();
    assert_eq!(told(&mut received, "room_started").await["room"]["name"], ROOM);
}
