//! What the node as a whole allows: keys that come and go, and how much it carries.

use patchbay::proto::claims::{ApiKeys, Claims, VideoGrant, sign};
use patchbay::proto::livekit::signal_request::Message as Ask;
use patchbay::proto::livekit::signal_response::Message as Say;
use patchbay::proto::livekit::{AddTrackRequest, TrackSource};

use crate::client::{LIMIT, Signalling, fetch, join_request};
use crate::server::{KEY, SECRET, Server};

#[tokio::test]
async fn keys_are_replaced_while_the_server_runs() {
    let server = Server::start().await;
    let old = server.token("alice");
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
    let new = sign(&claims, "second", "another secret", server.node.unix(), hour);
    let validate = async |token: &str| {
        let answer = fetch(server.address, &format!("/rtc/validate?access_token={token}")).await;
        (answer.status, answer.body)
    };
    let unknown = (401, "invalid API key".to_owned());
    assert_eq!(validate(&new).await, unknown);
    let both: ApiKeys = [(KEY, SECRET), ("second", "another secret")].into_iter().collect();
    server.node.replace_keys(both);
    assert_eq!((validate(&old).await.0, validate(&new).await.0), (200, 200));
    server
        .node
        .replace_keys([("second", "another secret")].into_iter().collect());
    assert_eq!(validate(&old).await, unknown);
    assert_eq!(validate(&new).await.0, 200);
}

#[tokio::test]
async fn a_node_that_is_full_lets_nobody_new_in() {
    let server = Server::with(|config| config.max_tracks = 1).await;
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let mut alice = Signalling::open(server.address, &target, &server.token("alice"))
        .await
        .unwrap();
    let camera = AddTrackRequest {
        cid: "camera".into(),
        r#type: 1,
        source: TrackSource::Camera as i32,
        ..Default::default()
    };
    alice.send(Ask::AddTrack(camera)).await;
    alice
        .until(|message| match message {
            Say::TrackPublished(_) => Some(()),
            _ => None,
        })
        .await;
    let bob = server.token("bob");
    let full = async {
        loop {
            // The sum is made when the message is out already.
            let answer = fetch(server.address, &format!("/rtc/validate?access_token={bob}")).await;
            if answer.status != 200 {
                return (answer.status, answer.body);
            }
        }
    };
    let answer = tokio::time::timeout(LIMIT, full).await.expect("a full node");
    assert_eq!(answer, (503, "node has exceeded its configured limit".to_owned()));
    let resume = format!(
        "/rtc/validate?reconnect=1&sid=PA_x&access_token={}",
        server.token("alice")
    );
    assert_eq!(
        fetch(server.address, &resume).await.status,
        200,
        "who is in may come back"
    );
    drop(alice);
    assert_eq!(server.node.counts().sessions_started, 1);
}
