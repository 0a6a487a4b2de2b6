//! Explanations: who may ask, about what, and in which form the answer comes.

use crate::client::{Answer, Signalling, join_request, request};
use crate::server::Server;

async fn ask(server: &Server, path: &str, token: Option<&str>) -> Answer {
    let header = token.map(|token| format!("Authorization: Bearer {token}"));
    let headers: Vec<&str> = header.iter().map(String::as_str).collect();
    request(server.address, "GET", path, &headers, "").await
}

#[tokio::test]
async fn only_the_rooms_administration_is_answered() {
    let server = Server::start().await;
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let _alice = Signalling::open(server.address, &target, &server.token("alice"))
        .await
        .unwrap();
    let admin_of = |room: &str| {
        server.token_with("boss", |claims| {
            let grant = claims.video.as_mut().unwrap();
            (grant.room_admin, grant.room) = (true, room.into());
        })
    };
    let (admin, other, member) = (admin_of("room"), admin_of("elsewhere"), server.token("alice"));
    let lacking = "the token must hold roomAdmin for this room";
    let nobody = "participant does not exist";
    let everybody = "/debug/rooms/room/explain";
    let cases = [
        (everybody, None, 401, "permissions denied"),
        (everybody, Some("nonsense"), 401, "invalid authorization token"),
        (everybody, Some(member.as_str()), 403, lacking),
        (everybody, Some(other.as_str()), 403, lacking),
        (
            "/debug/rooms/elsewhere/explain",
            Some(&other),
            404,
            "requested room does not exist",
        ),
        ("/debug/rooms/room/participants/bob/explain", Some(&admin), 404, nobody),
        ("/debug/rooms/room", Some(&admin), 404, "404 page not found\n"),
        (
            "/debug/rooms/room/explain/more",
            Some(&admin),
            404,
            "404 page not found\n",
        ),
    ];
    for (path, token, status, body) in cases {
        let answer = ask(&server, path, token).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path}");
    }
    let header = format!("Authorization: Bearer {admin}");
    let answer = request(server.address, "POST", everybody, &[&header], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (405, "only GET is allowed"));

    for path in [everybody, "/debug/rooms/room/participants/%61lice/explain"] {
        let answer = ask(&server, path, Some(&admin)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let explanation: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(explanation["room"], "room");
        assert_eq!(explanation["truncated"], false);
        let alice = &explanation["participants"][0];
        assert_eq!(alice["identity"], "alice");
        assert!(alice["sid"].as_str().unwrap().starts_with("PA_"));
        for list in ["receives", "waits_for", "publishes"] {
            assert_eq!(alice[list], serde_json::json!([]), "{list}");
        }
    }
}
