//! Plain HTTP. The expected statuses, headers and texts are those LiveKit's own server gave.

use std::time::Duration;

use patchbay::proto::claims::{Claims, sign};

use crate::client::{fetch, join_request, request};
use crate::server::{KEY, SECRET, Server};

const EXPIRED: &str = "invalid authorization token: token has invalid claims: token is expired";
const WRONG_SECRET: &str = "invalid authorization token: token signature is invalid: signature is invalid";
const NO_PERMISSION: &str = "no permissions to access the room";

/// Tokens by the names the table uses.
fn token(server: &Server, kind: &str) -> String {
    let now = server.node.unix();
    let hour = Duration::from_secs(3600);
    let good = Claims {
        identity: "alice".into(),
        ..Claims::default()
    };
    match kind {
        "garbage" => "nonsense".into(),
        "wrong secret" => sign(&good, KEY, "another", now, hour),
        "unknown key" => sign(&good, "nobody", SECRET, now, hour),
        "expired" => sign(&good, KEY, SECRET, now - hour, Duration::from_secs(60)),
        "no video grant" => sign(&good, KEY, SECRET, now, hour),
        "no roomJoin" => server.token_with("alice", |claims| claims.video.as_mut().unwrap().room_join = false),
        "no room" => server.token_with("alice", |claims| claims.video.as_mut().unwrap().room.clear()),
        "no identity" => server.token(""),
        "long room" => server.token_with("alice", |claims| claims.video.as_mut().unwrap().room = "r".repeat(257)),
        "long identity" => server.token(&"i".repeat(257)),
        "good" => server.token("alice"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn validation_answers_in_livekits_words() {
    let server = Server::start().await;
    let cases = [
        ("garbage", 401, "invalid authorization token"),
        ("wrong secret", 401, WRONG_SECRET),
        ("unknown key", 401, "invalid API key"),
        ("expired", 401, EXPIRED),
        ("no video grant", 401, NO_PERMISSION),
        ("no roomJoin", 401, "permissions denied"),
        ("no room", 400, "no room name"),
        ("no identity", 400, "identity cannot be empty"),
        ("long room", 400, "room name length exceeds limits: max length 256"),
        (
            "long identity",
            400,
            "participant identity length exceeds limits: max length 256",
        ),
        ("good", 200, "success"),
    ];
    let join = join_request(|_| {});
    for (kind, status, body) in cases {
        let token = token(&server, kind);
        for target in [
            format!("/rtc/validate?access_token={token}"),
            format!("/rtc/v1/validate?access_token={token}&join_request={join}"),
        ] {
            let answer = fetch(server.address, &target).await;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (status, body),
                "{kind}: {target}"
            );
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            assert_eq!(answer.header("access-control-expose-headers"), None);
            assert_eq!(answer.header("vary"), Some("Origin"));
            assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()));
        }
        // Without a join request, `v1` stops there once it knows who asks.
        let answer = fetch(server.address, &format!("/rtc/v1/validate?access_token={token}")).await;
        let expected = if status == 401 && kind != "no roomJoin" {
            (401, body)
        } else {
            (400, "join_request is required")
        };
        assert_eq!((answer.status, answer.body.as_str()), expected, "{kind}");
    }
    for path in ["/rtc/validate", "/rtc/v1/validate"] {
        let answer = fetch(server.address, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, NO_PERMISSION));
    }
}

#[tokio::test]
async fn the_token_may_stand_in_the_header_and_must_look_like_one() {
    let server = Server::start().await;
    let bearer = format!("Authorization: Bearer {}", server.token("alice"));
    let answer = request(server.address, "GET", "/rtc/validate", &[&bearer], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "success"));

    let good_parameter = format!("/rtc/validate?access_token={}", server.token("alice"));
    let answer = request(
        server.address,
        "GET",
        &good_parameter,
        &["Authorization: Basic abc"],
        "",
    )
    .await;
    assert_eq!(answer.status, 401, "the header wins");
    assert_eq!(answer.body, "invalid authorization header. Must start with Bearer ");

    for path in ["/", "/nothing", "/twirp/livekit.RoomService/ListRooms"] {
        let answer = fetch(server.address, &format!("{path}?access_token=nonsense")).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (401, "invalid authorization token"),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn parameters_may_come_as_a_form() {
    let server = Server::start().await;
    let form = ["Content-Type: application/x-www-form-urlencoded; charset=utf-8"];
    let token = server.token("alice");
    let body = format!("access_token={token}");
    let post = async |target: &str, headers: &[&str], body: &str| {
        let answer = request(server.address, "POST", target, headers, body).await;
        (answer.status, answer.body)
    };
    let good = (200, "success".to_owned());
    assert_eq!(post("/rtc/validate", &form, &body).await, good);
    let both = format!("{body}&join_request={}", join_request(|_| {}));
    assert_eq!(
        post("/rtc/v1/validate", &form, &both).await,
        good,
        "not the token alone"
    );
    let target = "/rtc/validate?access_token=nonsense";
    assert_eq!(post(target, &form, &body).await, good, "the form comes first");

    let none = (401, NO_PERMISSION.to_owned());
    assert_eq!(
        post("/rtc/validate", &[], &body).await,
        none,
        "it has to say that it is one"
    );
    for unreadable in ["access_token=\u{e9}\0", &"x".repeat(49 << 10)] {
        assert_eq!(post("/rtc/validate", &form, unreadable).await, none);
    }
    let target = format!("/rtc/validate?{body}");
    assert_eq!(post(&target, &form, "unreadable \0").await, good);
}

#[tokio::test]
async fn paths_that_are_not_there() {
    let server = Server::start().await;
    let answer = fetch(server.address, "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let page = request(server.address, "GET", "/", &["Accept: text/html"], "").await;
    assert_eq!(page.body, "OK", "the page is for development only");

    for path in ["/nothing", "/settings/regions", "/style.css", "/dev/token"] {
        let answer = fetch(server.address, path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    let token = server.token("alice");
    for path in [
        "/rtc".to_owned(),
        format!("/rtc/v1?access_token={token}"),
        "/agent".to_owned(),
    ] {
        let answer = fetch(server.address, &path).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{path}");
        assert_eq!(answer.header("content-length"), Some("0"));
        assert_eq!(answer.header("content-type"), None);
    }
    let doubled = fetch(server.address, &format!("//rtc/validate?access_token={token}")).await;
    assert_eq!((doubled.status, doubled.body.as_str()), (200, "success"));
}

#[tokio::test]
async fn cross_origin_rules() {
    let server = Server::start().await;
    let origin = "Origin: http://example.test";
    let headers = [
        origin,
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization,content-type",
    ];
    let answer = request(
        server.address,
        "OPTIONS",
        "/twirp/livekit.RoomService/ListRooms",
        &headers,
        "",
    )
    .await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://example.test")
    );
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(
        answer.header("access-control-allow-headers"),
        Some("authorization,content-type")
    );
    assert_eq!(answer.header("access-control-max-age"), Some("86400"));
    assert_eq!(
        answer.header("vary"),
        Some("Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    );

    let answer = request(server.address, "GET", "/rtc/validate", &[origin], "").await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
    let answer = request(server.address, "GET", "/", &[origin], "").await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://example.test")
    );
}

#[tokio::test]
async fn own_metadata_needs_its_right_and_must_be_readable() {
    let server = Server::start().await;
    let plain = server.token("alice");
    let allowed = server.token_with("alice", |claims| {
        claims.video.as_mut().unwrap().can_update_own_metadata = Some(true);
    });
    // {"a":"b"}
    let attributes = "eyJhIjoiYiJ9";
    for (token, attributes, status, body) in [
        (&plain, attributes, 401, NO_PERMISSION),
        (&allowed, attributes, 200, "success"),
        (&allowed, "!", 400, "cannot decode attributes"),
    ] {
        let target = format!("/rtc/validate?access_token={token}&attributes={attributes}");
        let answer = fetch(server.address, &target).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body));
    }
    let cannot_publish = server.token_with("alice", |claims| {
        claims.video.as_mut().unwrap().can_publish = Some(false)
    });
    let target = format!("/rtc/validate?access_token={cannot_publish}&publish=second");
    assert_eq!(fetch(server.address, &target).await.status, 401);
}

#[tokio::test]
async fn a_room_that_may_not_be_made_is_not_found() {
    let server = Server::with(|config| config.auto_create = false).await;
    let target = format!("/rtc/validate?access_token={}", server.token("alice"));
    let answer = fetch(server.address, &target).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "requested room does not exist")
    );
    let creator = server.token_with("alice", |claims| claims.video.as_mut().unwrap().room_create = true);
    let target = format!("/rtc/validate?access_token={creator}");
    assert_eq!(fetch(server.address, &target).await.status, 200);
}

#[tokio::test]
async fn offers_in_the_url_fit_and_longer_ones_are_refused() {
    let server = Server::start().await;
    let token = server.token("alice");
    let target = format!("/rtc/validate?access_token={token}&filler={}", "x".repeat(60_000));
    assert_eq!(fetch(server.address, &target).await.status, 200);
    let target = format!("/rtc/validate?access_token={token}&filler={}", "x".repeat(70_000));
    assert_eq!(fetch(server.address, &target).await.status, 414);
}
