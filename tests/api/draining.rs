//! How the server stops: what it lets go on, whom it tells what, and what ends its patience.

use patchbay::proto::livekit::DisconnectReason;
use patchbay::proto::livekit::leave_request::Action;
use patchbay::proto::livekit::signal_response::Message as Say;
use serde_json::json;

use crate::client::{LIMIT, Refused, Signalling};
use crate::process::Process;

async fn unready(server: &Process) {
    let turned = async {
        while server.health().await != (406, "Not Ready\nNode Shutting Down".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, turned).await.expect("unready");
}

/// It is told to connect anew, since this server is going away.
async fn told(client: &mut Signalling) {
    let leave = client
        .until(|message| match message {
            Say::Leave(leave) => Some(leave),
            _ => None,
        })
        .await;
    assert_eq!(
        (leave.reason(), leave.action()),
        (DisconnectReason::ServerShutdown, Action::Reconnect)
    );
    assert_eq!(client.closed().await, (1000, String::new()));
}

#[tokio::test]
async fn a_server_that_stops_lets_calls_end_and_begins_none() {
    let mut server = Process::start(json!({})).await;
    assert_eq!(server.health().await, (200, "OK".to_owned()));
    let alice = server.join("alice", "call").await.unwrap();
    server.signal("TERM");
    unready(&server).await;
    let refused = server.join("carol", "new").await.unwrap_err();
    assert_eq!(refused, Refused(503, "node is shutting down".into()));
    let refused = server.call("RoomService/CreateRoom", "", json!({"name": "new"})).await;
    assert_eq!(
        (refused.status, refused.body.contains("node is shutting down")),
        (503, true)
    );
    let created = server.call("RoomService/CreateRoom", "", json!({"name": "call"})).await;
    assert_eq!(created.status, 200, "a room that is there is found");
    let bob = server.join("bob", "call").await.unwrap();
    drop(alice);
    assert_eq!(server.health().await.0, 406, "bob is still there");
    drop(bob);
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn who_stays_is_sent_elsewhere_when_the_time_is_over() {
    let mut server = Process::start(json!({"drain_timeout": "100ms"})).await;
    let mut alice = server.join("alice", "call").await.unwrap();
    server.signal("TERM");
    told(&mut alice).await;
    assert!(server.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_the_waiting() {
    let mut server = Process::start(json!({})).await;
    let mut alice = server.join("alice", "call").await.unwrap();
    server.signal("TERM");
    unready(&server).await;
    server.signal("INT");
    told(&mut alice).await;
    assert!(server.ended().await.success());
}
