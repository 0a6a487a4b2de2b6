//! Signalling sessions.

use patchbay::proto::livekit::leave_request::Action;
use patchbay::proto::livekit::signal_request::Message as Ask;
use patchbay::proto::livekit::signal_response::Message as Say;
use patchbay::proto::livekit::{DisconnectReason, LeaveRequest, Ping};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::client::{Refused, Signalling, join_request};
use crate::server::Server;

async fn joined(server: &Server, identity: &str) -> Signalling {
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let mut client = Signalling::open(server.address, &target, &server.token(identity))
        .await
        .unwrap();
    assert!(
        matches!(client.next().await, Say::Join(_)),
        "the JoinResponse is the first message"
    );
    client
}

#[tokio::test]
async fn both_paths_lead_to_a_join_response() {
    let server = Server::start().await;
    let dual = "/rtc?protocol=17&auto_subscribe=1&sdk=js".to_owned();
    let single = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    for (target, identity) in [(dual, "alice"), (single, "bob")] {
        let mut client = Signalling::open(server.address, &target, &server.token(identity))
            .await
            .unwrap();
        let Say::Join(join) = client.next().await else {
            panic!("not a JoinResponse");
        };
        assert_eq!(join.room.unwrap().name, "room");
        assert_eq!(join.participant.unwrap().identity, identity);
        assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
        assert!(join.server_info.unwrap().node_id.starts_with("ND_"));
        assert_eq!(join.subscriber_primary, target.starts_with("/rtc?"));
        assert!(!join.ice_servers.is_empty());
        // Keeps the participant in the room for the next one.
        if identity == "bob" {
            assert!(
                join.other_participants.is_empty(),
                "alice never connected, and left with her socket"
            );
        }
    }
}

#[tokio::test]
async fn a_client_that_closes_is_answered() {
    let server = Server::start().await;
    let mut client = joined(&server, "alice").await;
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    client.frame(Message::Close(Some(frame))).await;
    // Else a browser takes it for a broken connection (1006).
    assert_eq!(client.closed().await, (1000, String::new()));
}

#[tokio::test]
async fn refusals_are_http_statuses() {
    let server = Server::with(|config| config.room.max_participants = 1).await;
    let token = server.token("alice");
    let open =
        |target: &'static str, token: String| async move { Signalling::open(server.address, target, &token).await };
    let refused = open("/rtc", "nonsense".into()).await.unwrap_err();
    assert_eq!(refused, Refused(401, "invalid authorization token".into()));
    let refused = open("/rtc/v1", token.clone()).await.unwrap_err();
    assert_eq!(refused, Refused(400, "join_request is required".into()));
    let refused = open("/rtc/v1?join_request=%25", token.clone()).await.unwrap_err();
    assert_eq!(
        refused,
        Refused(400, "cannot base64 decode wrapped join request".into())
    );
}

#[tokio::test]
async fn a_full_room_ends_the_session_before_it_begins() {
    let server = Server::with(|config| config.room.max_participants = 1).await;
    let _alice = joined(&server, "alice").await;
    let refused = Signalling::open(server.address, "/rtc?protocol=17", &server.token("bob"))
        .await
        .unwrap_err();
    assert_eq!(refused, Refused(500, "connection closed by media".into()));
}

#[tokio::test]
async fn pings_are_answered_in_the_form_they_came_in() {
    let server = Server::start().await;
    let mut client = joined(&server, "alice").await;
    client.send(Ask::Ping(1)).await;
    let now = i64::try_from(server.node.unix().as_millis()).unwrap();
    let pong = client
        .until(|message| match message {
            Say::Pong(time) => Some(time),
            _ => None,
        })
        .await;
    assert!((now - 5_000..now + 5_000).contains(&pong), "{pong} is about {now}");

    client
        .frame(Message::Text(r#"{"pingReq":{"timestamp":"42","rtt":"3"}}"#.into()))
        .await;
    let text = loop {
        match client.next_frame().await {
            Some(Message::Text(text)) => break text,
            Some(Message::Binary(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(
        text.starts_with(r#"{"pongResp":{"lastPingTimestamp":"42","timestamp":""#),
        "{text}"
    );

    client.send(Ask::PingReq(Ping { timestamp: 43, rtt: 0 })).await;
    let pong = client
        .until(|message| match message {
            Say::PongResp(pong) => Some(pong),
            _ => None,
        })
        .await;
    assert_eq!(pong.last_ping_timestamp, 43);
}

#[tokio::test]
async fn a_later_protocols_message_is_ignored_and_garbage_ends_the_session() {
    let server = Server::start().await;
    let garbage = [Message::Binary(vec![255; 30].into()), Message::Text("{".into())];
    for (index, frame) in garbage.into_iter().enumerate() {
        let mut client = joined(&server, "alice").await;
        // Field 900, a varint.
        client.frame(Message::Binary(vec![0xa0, 0x38, 0x01].into())).await;
        client.frame(Message::Binary(Vec::new().into())).await;
        client.send(Ask::Ping(1)).await;
        client
            .until(|message| matches!(message, Say::Pong(_)).then_some(()))
            .await;
        client.frame(frame).await;
        assert_eq!(client.closed().await, (1000, String::new()));
        assert_eq!(server.node.undecodable_frames(), index as u64 + 1);
    }
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_session() {
    let server = Server::with(|config| config.signal_message_size_limit = 10_000).await;
    let mut client = joined(&server, "alice").await;
    client.frame(Message::Binary(vec![0; 20_000].into())).await;
    loop {
        match futures_util::StreamExt::next(&mut client.socket).await {
            None | Some(Err(_)) | Some(Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn leaving_is_echoed_and_closed() {
    let server = Server::start().await;
    let mut client = joined(&server, "alice").await;
    client
        .send(Ask::Leave(LeaveRequest {
            reason: DisconnectReason::ClientInitiated as i32,
            ..Default::default()
        }))
        .await;
    let leave = client
        .until(|message| match message {
            Say::Leave(leave) => Some(leave),
            _ => None,
        })
        .await;
    assert_eq!(leave.reason(), DisconnectReason::ClientInitiated);
    assert_eq!(client.closed().await, (1000, String::new()));
}

#[tokio::test]
async fn the_same_identity_again_sends_the_first_away() {
    let server = Server::start().await;
    let mut first = joined(&server, "alice").await;
    let _second = joined(&server, "alice").await;
    let leave = first
        .until(|message| match message {
            Say::Leave(leave) => Some(leave),
            _ => None,
        })
        .await;
    assert_eq!(leave.reason(), DisconnectReason::DuplicateIdentity);
    assert_eq!(first.closed().await, (1000, String::new()));
}

#[tokio::test]
async fn resuming_what_is_gone_is_answered_by_a_leave() {
    let server = Server::start().await;
    let resume = join_request(|request| {
        request.reconnect = true;
        request.participant_sid = "PA_gone".into();
    });
    let target = format!("/rtc/v1?join_request={resume}");
    let mut client = Signalling::open(server.address, &target, &server.token("alice"))
        .await
        .unwrap();
    let Say::Leave(leave) = client.next().await else {
        panic!("not a Leave");
    };
    assert_eq!(leave.reason(), DisconnectReason::StateMismatch);
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(client.closed().await, (1000, String::new()));
}

#[tokio::test]
async fn everybody_is_told_when_the_server_stops() {
    let server = Server::start().await;
    let mut alice = joined(&server, "alice").await;
    let mut bob = joined(&server, "bob").await;
    let told = async |client: &mut Signalling| {
        let leave = client
            .until(|message| match message {
                Say::Leave(leave) => Some(leave),
                _ => None,
            })
            .await;
        assert_eq!(leave.reason(), DisconnectReason::ServerShutdown);
        assert_eq!(client.closed().await, (1000, String::new()));
    };
    let stop = server.node.shut_down();
    tokio::join!(stop, told(&mut alice), told(&mut bob));
}
