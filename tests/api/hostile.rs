//! What no client says: tokens that are none, requests that do not end, frames in crumbs, and a crowd at the door. Every
//! answer is a clear one, or a clean end, and memory stays where it was.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use patchbay::proto::livekit::signal_response::Message as Say;
use patchbay::proto::livekit::{SignalRequest, WrappedJoinRequest, signal_request};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{LIMIT, Refused, Signalling, fetch, join_request, request};
use crate::server::{KEY, SECRET, Server};

fn base64(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Signed with this secret, whatever the parts are.
fn signed(header: &str, payload: &str, secret: &str) -> String {
    let message = format!("{header}.{payload}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

/// Each would open the room "room" but for one thing, which its name says.
fn hostile_tokens(now: i64) -> Vec<(String, String)> {
    let good = json!({
        "iss": KEY, "sub": "eve", "nbf": now - 10, "exp": now + 600,
        "video": { "roomJoin": true, "room": "room" }
    });
    let header = json!({"alg": "HS256", "typ": "JWT"});
    let mut tokens = Vec::new();
    let mut add = |name: &str, token: String| tokens.push((name.to_owned(), token));
    let whole = signed(&base64(&header), &base64(&good), SECRET);
    let (head, payload, signature) = {
        let mut parts = whole.split('.').map(str::to_owned);
        (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
    };
    // The header.
    for algorithm in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "HS384",
        "HS512",
        "RS256",
        "ES256",
        "PS256",
        "EdDSA",
        "",
        "HS256\u{0}",
    ] {
        let header = base64(&json!({"alg": algorithm}));
        add(&format!("alg {algorithm:?}"), signed(&header, &payload, SECRET));
        add(
            &format!("alg {algorithm:?} without a signature"),
            format!("{header}.{payload}."),
        );
    }
    for header in [
        json!({}),
        json!({"alg": null}),
        json!({"alg": ["HS256"]}),
        json!({"alg": 5}),
        json!([]),
        json!("HS256"),
    ] {
        add(&format!("header {header}"), signed(&base64(&header), &payload, SECRET));
    }
    // The signature.
    add("another secret", signed(&head, &payload, "another secret"));
    add("an empty secret", signed(&head, &payload, ""));
    add("the key as secret", signed(&head, &payload, KEY));
    add("no signature", format!("{head}.{payload}."));
    add(
        "half a signature",
        format!("{head}.{payload}.{}", &signature[..signature.len() / 2]),
    );
    add("a longer signature", format!("{whole}AA"));
    add("a padded signature", format!("{whole}="));
    add("a signature in the other alphabet", {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let tag = hmac::sign(&key, format!("{head}.{payload}").as_bytes());
        format!("{head}.{payload}.{}", STANDARD.encode(tag))
    });
    add("two parts", format!("{head}.{payload}"));
    add("four parts", format!("{whole}.{signature}"));
    add(
        "five parts",
        format!("{head}.{payload}.{signature}.{signature}.{signature}"),
    );
    add("dots", "..".to_owned());
    // The claims.
    let with = |change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        signed(&head, &base64(&claims), SECRET)
    };
    let mut claim = |name: &str, field: &str, value: Value| {
        add(name, with(&|claims| claims[field] = value.clone()));
    };
    claim("expired", "exp", json!(now - 3600));
    claim("not yet", "nbf", json!(now + 3600));
    claim("exp as a text", "exp", json!("tomorrow"));
    claim("exp as a list", "exp", json!([now]));
    claim("exp below all", "exp", json!(-1));
    claim("nobody's key", "iss", json!("nobody"));
    claim("key as a number", "iss", json!(1));
    claim("key as nothing", "iss", Value::Null);
    claim("key as an object", "iss", json!({ "a": 1 }));
    claim("identity as a number", "sub", json!(7));
    claim("identity as an object", "sub", json!({ "a": 1 }));
    claim("video as a list", "video", json!([]));
    claim("video as a text", "video", json!("{\"roomJoin\":true}"));
    claim(
        "roomJoin as a text",
        "video",
        json!({ "roomJoin": "true", "room": "room" }),
    );
    claim(
        "roomJoin as a number",
        "video",
        json!({ "roomJoin": 1, "room": "room" }),
    );
    claim("room as a number", "video", json!({ "roomJoin": true, "room": 5 }));
    claim("room as a list", "video", json!({ "roomJoin": true, "room": ["room"] }));
    claim(
        "sources as a text",
        "video",
        json!({ "roomJoin": true, "room": "room", "canPublishSources": "camera" }),
    );
    claim("attributes as a list", "attributes", json!(["a"]));
    claim("attributes of numbers", "attributes", json!({ "a": 1 }));
    claim("name as an object", "name", json!({}));
    claim("metadata as a list", "metadata", json!([1]));
    claim("no right to join", "video", json!({ "room": "room" }));
    claim("a right to nothing", "video", json!({}));
    add("claims that are a list", signed(&head, &base64(&json!([good])), SECRET));
    add(
        "claims that are a text",
        signed(&head, &base64(&json!(good.to_string())), SECRET),
    );
    add(
        "claims twice encoded",
        signed(&head, &URL_SAFE_NO_PAD.encode(base64(&good)), SECRET),
    );
    add(
        "claims that are no JSON",
        signed(&head, &URL_SAFE_NO_PAD.encode("{roomJoin: true}"), SECRET),
    );
    add(
        "claims that are no text",
        signed(&head, &URL_SAFE_NO_PAD.encode([0xff, 0xfe]), SECRET),
    );
    add(
        "claims of a thousand levels",
        signed(&head, &URL_SAFE_NO_PAD.encode("[".repeat(1000)), SECRET),
    );
    add(
        "claims in the other alphabet",
        signed(&head, &STANDARD.encode(good.to_string() + "?>?>"), SECRET),
    );
    tokens
}

#[tokio::test]
async fn tokens_that_are_none_open_nothing() {
    let server = Server::start().await;
    let now = i64::try_from(server.node.unix().as_secs()).unwrap();
    let tokens = hostile_tokens(now);
    assert!(tokens.len() >= 60, "{}", tokens.len());
    for (name, token) in &tokens {
        for path in ["/rtc/validate", "/rtc/v1/validate"] {
            let authorization = format!("authorization: Bearer {}", token.replace(['\0', '\n'], ""));
            let answer = request(server.address, "GET", path, &[&authorization], "").await;
            assert!(
                matches!(answer.status, 400 | 401),
                "{name} {path}: {} {}",
                answer.status,
                answer.body
            );
        }
        let headers = [
            "content-type: application/json",
            &format!("authorization: Bearer {}", token.replace(['\0', '\n'], "")),
        ];
        let answer = request(
            server.address,
            "POST",
            "/twirp/livekit.RoomService/ListRooms",
            &headers,
            "{}",
        )
        .await;
        assert!(
            matches!(answer.status, 401 | 403),
            "{name}: {} {}",
            answer.status,
            answer.body
        );
    }
    assert_eq!(server.node.counts().rooms, 0);
    // One more, to see that only those things were wrong.
    let token = server.token("alice");
    let answer = fetch(server.address, &format!("/rtc/validate?access_token={token}")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "success"));
}

async fn joined(server: &Server, identity: &str) -> Signalling {
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let mut client = Signalling::open(server.address, &target, &server.token(identity))
        .await
        .unwrap();
    assert!(matches!(client.next().await, Say::Join(_)));
    client
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_off() {
    let server = Server::start().await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.unwrap();
    // Others are served meanwhile.
    assert_eq!(fetch(server.address, "/").await.status, 200);
    let mut end = Vec::new();
    let ended = async {
        loop {
            if slow.write_all(b"a").await.is_err() {
                return;
            }
            let read = tokio::time::timeout(Duration::from_millis(500), slow.read_buf(&mut end)).await;
            if matches!(read, Ok(Ok(0) | Err(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(2 * LIMIT, ended).await.expect("it is cut off");
}

#[tokio::test]
async fn a_head_may_be_long_but_not_endless() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let line = format!("X-Long: {}\r\n", "a".repeat(60_000));
    let mut sent = 0;
    while sent < 64 << 20 {
        match stream.write_all(line.as_bytes()).await {
            Ok(()) => sent += line.len(),
            Err(_) => break,
        }
    }
    assert!(sent < 16 << 20, "{sent} bytes of a head were taken");
    assert_eq!(fetch(server.address, "/").await.status, 200);
}

/// A frame of its own for every byte (RFC 6455 §5.4), masked with zeros.
fn crumbs(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, byte) in payload.iter().enumerate() {
        let fin = if at + 1 == payload.len() { 0x80 } else { 0 };
        let code = if at == 0 { opcode } else { 0 };
        bytes.extend([fin | code, 0x81, 0, 0, 0, 0, *byte]);
    }
    bytes
}

#[tokio::test]
async fn a_message_in_crumbs_is_a_message_and_an_endless_one_is_not() {
    let server = Server::start().await;
    let mut client = joined(&server, "alice").await;
    let ping = SignalRequest {
        message: Some(signal_request::Message::Ping(7)),
    };
    let bytes = crumbs(2, &ping.encode_to_vec());
    for byte in &bytes {
        client.socket.get_mut().write_all(&[*byte]).await.unwrap();
    }
    client
        .until(|message| match message {
            Say::Pong(_) => Some(()),
            _ => None,
        })
        .await;

    // Fragments without end: cut at the limit of a message, not at the end of memory.
    let before = resident();
    let mut stream = client.socket.into_inner();
    let mut fragment = vec![0x02, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    fragment.extend(vec![b'x'; 1 << 16]);
    let mut sent = 0;
    while sent < 256 << 20 {
        if stream.write_all(&fragment).await.is_err() {
            break;
        }
        fragment[0] = 0x00; // continuation
        sent += fragment.len();
    }
    assert!(sent < 64 << 20, "{sent} bytes of one message were taken");
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB", grown >> 20);
    joined(&server, "bob").await;
}

/// Bytes of memory this process holds.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn a_join_request_that_unpacks_to_a_gigabyte_is_refused() {
    let server = Server::start().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![0; 1 << 20];
    // As much as fits an address.
    for _ in 0..40 {
        std::io::Write::write_all(&mut encoder, &block).unwrap();
    }
    let wrapped = WrappedJoinRequest {
        compression: 1,
        join_request: encoder.finish().unwrap(),
    };
    let text = URL_SAFE.encode(wrapped.encode_to_vec()).replace('=', "%3D");
    assert!(text.len() < 65_000);
    let before = resident();
    let target = format!("/rtc/v1?join_request={text}");
    let refused = Signalling::open(server.address, &target, &server.token("eve"))
        .await
        .unwrap_err();
    assert_eq!(refused, Refused(400, "join request too large".into()));
    assert!(resident().saturating_sub(before) < 32 << 20);
}

#[tokio::test]
async fn json_that_is_almost_right_ends_cleanly() {
    let inner = r#"{"pingReq":{"timestamp":"42"}}"#;
    let twice = serde_json::to_string(inner).unwrap();
    let deep = format!("{}{}", r#"{"updateMetadata":"#.repeat(3000), "}".repeat(3000));
    // What is not understood ends the session with 1000; what is merely unknown does not.
    let ends: [&str; 9] = [
        &twice,
        "[]",
        "null",
        "5",
        "{\"mute\":{\"sid\":{}}}",
        "{\"mute\":{\"muted\":\"yes\"}}",
        "{\"ping\":1e400}",
        "{\"pingReq\":{\"timestamp\":\"-\"}}",
        &deep,
    ];
    let goes_on: [&str; 5] = [
        "{}",
        "{\"nothingOfTheKind\":{}}",
        "{\"mute\":null}",
        // Values that the enum may have one day.
        "{\"trackSetting\":{\"trackSids\":[\"TR_x\"],\"quality\":99}}",
        "{\"trackSetting\":{\"trackSids\":[\"TR_x\"],\"quality\":\"HOLOGRAM\"}}",
    ];
    let server = Server::start().await;
    for text in ends {
        let mut client = joined(&server, "eve").await;
        client.frame(Message::Text(text.into())).await;
        let short: String = text.chars().take(60).collect();
        assert_eq!(client.closed().await, (1000, String::new()), "{short}");
    }
    for text in goes_on {
        let mut client = joined(&server, "eve").await;
        client.frame(Message::Text(text.into())).await;
        client.frame(Message::Text(inner.into())).await;
        loop {
            match client.next_frame().await {
                Some(Message::Text(answer)) if answer.contains("pongResp") => break,
                Some(Message::Text(_) | Message::Binary(_)) => {}
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn bodies_that_are_twice_encoded_or_of_unknown_words_have_livekits_codes() {
    let server = Server::start().await;
    let token = server.token_with("backend", |claims| {
        let video = claims.video.get_or_insert_default();
        (video.room_create, video.room_list, video.room_admin) = (true, true, true);
    });
    let authorization = format!("authorization: Bearer {token}");
    let headers = ["content-type: application/json", authorization.as_str()];
    let plain = r#"{"name":"room"}"#;
    let twice = serde_json::to_string(plain).unwrap();
    let bodies = [
        ("CreateRoom", twice.as_str(), 400),
        ("CreateRoom", "[]", 400),
        ("CreateRoom", r#"{"name":{"a":1}}"#, 400),
        ("CreateRoom", r#"{"emptyTimeout":"a while"}"#, 400),
        ("CreateRoom", r#"{"emptyTimeout":-1}"#, 400),
        ("CreateRoom", r#"{"emptyTimeout":99999999999}"#, 400),
        ("CreateRoom", "{", 400),
        ("CreateRoom", "", 400),
        ("CreateRoom", r#"{"name":"room","unheardOf":[1]}"#, 200),
        // LiveKit: an enum value that is not known counts as left out.
        ("SendData", r#"{"room":"room","kind":"SOMEHOW"}"#, 200),
        ("SendData", r#"{"room":"room","kind":["SOMEHOW"]}"#, 400),
        ("SendData", r#"{"room":"room","data":"not base64!"}"#, 400),
        (
            "UpdateParticipant",
            r#"{"room":"room","identity":"a","permission":7}"#,
            400,
        ),
    ];
    for (method, body, status) in bodies {
        let target = format!("/twirp/livekit.RoomService/{method}");
        let answer = request(server.address, "POST", &target, &headers, body).await;
        assert_eq!(answer.status, status, "{method} {body}: {}", answer.body);
    }
}
