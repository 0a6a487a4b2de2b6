//! The room service over HTTP. The expected statuses and texts are those LiveKit's own server gave to the same requests.

use patchbay::proto::claims::VideoGrant;
use patchbay::proto::livekit::leave_request::Action;
use patchbay::proto::livekit::signal_response::Message;
use patchbay::proto::livekit::{
    CreateRoomRequest, DisconnectReason, ListRoomsRequest, ListRoomsResponse, Room, RoomConfiguration,
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::client::{Answer, Signalling, join_request, request, request_bytes};
use crate::server::Server;

const JSON: &str = "content-type: application/json";
const PROTOBUF: &str = "content-type: application/protobuf";

/// A backend with every right over the room "room".
struct Backend<'a> {
    server: &'a Server,
    authorization: String,
}

impl<'a> Backend<'a> {
    fn new(server: &'a Server) -> Self {
        let token = server.token_with("backend", |claims| {
            claims.video = Some(VideoGrant {
                room_create: true,
                room_list: true,
                room_admin: true,
                room: "room".into(),
                destination_room: "elsewhere".into(),
                ..VideoGrant::default()
            });
        });
        Self {
            server,
            authorization: format!("authorization: Bearer {token}"),
        }
    }

    async fn post(&self, method: &str, content_type: &str, body: &[u8]) -> Answer {
        let target = format!("/twirp/livekit.{method}");
        let headers = [content_type, self.authorization.as_str()];
        request_bytes(self.server.address, "POST", &target, &headers, body).await
    }

    async fn call(&self, method: &str, body: Value) -> Answer {
        let method = if method.contains('/') {
            method.to_owned()
        } else {
            format!("RoomService/{method}")
        };
        self.post(&method, JSON, body.to_string().as_bytes()).await
    }

    /// The answer to a call that succeeds.
    async fn ok(&self, method: &str, body: Value) -> Value {
        let answer = self.call(method, body).await;
        assert_eq!(answer.status, 200, "{method}: {}", answer.body);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        serde_json::from_str(&answer.body).unwrap()
    }
}

async fn join(server: &Server, identity: &str) -> Signalling {
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let token = server.token_with(identity, |claims| {
        claims.video.as_mut().unwrap().can_update_own_metadata = Some(true);
    });
    let mut client = Signalling::open(server.address, &target, &token).await.unwrap();
    client
        .until(|message| match message {
            Message::Join(_) => Some(()),
            _ => None,
        })
        .await;
    client
}

#[tokio::test]
async fn what_is_no_call_is_answered_in_livekits_words() {
    let server = Server::start().await;
    let backend = Backend::new(&server);
    let list = "RoomService/ListRooms";
    let malformed = r#"{"code":"malformed","msg":"the json request could not be decoded"}"#;
    for (method, content_type, body, status, expected) in [
        (list, JSON, "{nope", 400, malformed),
        (list, JSON, "", 400, malformed),
        (list, JSON, "[1]", 400, malformed),
        (list, JSON, r#"{"zzz":1}"#, 200, r#"{"rooms":[]}"#),
        (list, JSON, r#"{"names":null}"#, 200, r#"{"rooms":[]}"#),
        ("RoomService/CreateRoom", JSON, r#"{"name":5}"#, 400, malformed),
        (
            "RoomService/Nothing",
            JSON,
            "{}",
            404,
            r#"{"code":"bad_route","msg":"no handler for path \"/twirp/livekit.RoomService/Nothing\"","meta":{"twirp_invalid_route":"POST /twirp/livekit.RoomService/Nothing"}}"#,
        ),
        (
            list,
            "content-type: text/plain",
            "{}",
            404,
            r#"{"code":"bad_route","msg":"unexpected Content-Type: \"text/plain\"","meta":{"twirp_invalid_route":"POST /twirp/livekit.RoomService/ListRooms"}}"#,
        ),
        (
            list,
            "content-type: application/json; charset=utf-8",
            "{}",
            200,
            r#"{"rooms":[]}"#,
        ),
        (list, PROTOBUF, "", 200, ""),
        ("Nope/X", JSON, "{}", 404, "404 page not found\n"),
        ("Connector/DialWhatsAppCall", JSON, "{}", 404, "404 page not found\n"),
        (
            "Ingress/ListIngress",
            JSON,
            "{}",
            401,
            r#"{"code":"unauthenticated","msg":"permissions denied"}"#,
        ),
    ] {
        let answer = backend.post(method, content_type, body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, expected),
            "{method} {body}"
        );
    }
    let answer = backend.post(list, PROTOBUF, b"\xff\xff\xff").await;
    assert_eq!(
        answer.body,
        r#"{"code":"malformed","msg":"the protobuf request could not be decoded"}"#
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let target = "/twirp/livekit.RoomService/ListRooms";
    let answer = request(server.address, "GET", target, &[], "").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            404,
            r#"{"code":"bad_route","msg":"unsupported method \"GET\" (only POST is allowed)","meta":{"twirp_invalid_route":"GET /twirp/livekit.RoomService/ListRooms"}}"#
        )
    );
}

#[tokio::test]
async fn faults_have_livekits_codes_and_texts() {
    let server = Server::with(|config| config.room.limits.max_metadata_size = 1000).await;
    let backend = Backend::new(&server);
    backend.ok("CreateRoom", json!({"name": "room"})).await;
    let long = "n".repeat(300);
    let large = "m".repeat(2000);
    let no_participant = r#"{"code":"not_found","msg":"twirp error unknown: participant does not exist"}"#;
    let no_room = r#"{"code":"not_found","msg":"twirp error unknown: requested room does not exist"}"#;
    let nobody = r#"{"code":"unavailable","msg":"twirp error unknown: no response from servers"}"#;
    let metadata = r#"{"code":"invalid_argument","msg":"metadata size exceeds limits 1000","meta":{"argument":"metadata size exceeds limits"}}"#;
    for (method, body, status, expected) in [
        (
            "CreateRoom",
            json!({"name": long}),
            400,
            r#"{"code":"invalid_argument","msg":"twirp error unknown: room name length exceeds limits: max length 256"}"#,
        ),
        (
            "CreateRoom",
            json!({"name": "p", "room_preset": "nope"}),
            400,
            r#"{"code":"invalid_argument","msg":"twirp error unknown: unknown room configuration in create room request"}"#,
        ),
        ("CreateRoom", json!({"name": "p", "metadata": large}), 400, metadata),
        (
            "ForwardParticipant",
            json!({"room": "room", "identity": "zz", "destination_room": "elsewhere"}),
            404,
            no_participant,
        ),
        ("DeleteRoom", json!({"room": "nope"}), 404, no_room),
        (
            "GetParticipant",
            json!({"room": "room", "identity": "zz"}),
            404,
            no_participant,
        ),
        (
            "RemoveParticipant",
            json!({"room": "room", "identity": "zz"}),
            404,
            no_participant,
        ),
        (
            "UpdateParticipant",
            json!({"room": "room", "identity": "zz"}),
            404,
            no_participant,
        ),
        (
            "UpdateParticipant",
            json!({"room": "room", "identity": "zz", "name": long}),
            400,
            r#"{"code":"invalid_argument","msg":"name length exceeds limits 256","meta":{"argument":"name length exceeds limits"}}"#,
        ),
        (
            "UpdateParticipant",
            json!({"room": "room", "identity": "zz", "metadata": large}),
            400,
            metadata,
        ),
        (
            "UpdateParticipant",
            json!({"room": "room", "identity": "zz", "attributes": {"a": "x".repeat(70_000)}}),
            400,
            r#"{"code":"invalid_argument","msg":"attribute size exceeds limits 65536","meta":{"argument":"attribute size exceeds limits"}}"#,
        ),
        (
            "UpdateRoomMetadata",
            json!({"room": "room", "metadata": large}),
            400,
            metadata,
        ),
        (
            "MutePublishedTrack",
            json!({"room": "room", "identity": "zz", "muted": true}),
            503,
            nobody,
        ),
        (
            "UpdateSubscriptions",
            json!({"room": "room", "identity": "zz"}),
            503,
            nobody,
        ),
        (
            "SendData",
            json!({"room": "room", "data": "aGVsbG8=", "nonce": "aGVsbG8="}),
            400,
            r#"{"code":"invalid_argument","msg":"nonce should be 16-bytes or not present, got: 5 bytes"}"#,
        ),
        (
            "AgentDispatchService/DeleteDispatch",
            json!({"room": "room", "dispatch_id": "AD_nope"}),
            404,
            r#"{"code":"not_found","msg":"twirp error unknown: dispatch ID not found"}"#,
        ),
    ] {
        let answer = backend.call(method, body.clone()).await;
        let body = body.to_string();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, expected),
            "{method} {body:.80}"
        );
    }
    backend.ok("DeleteRoom", json!({"room": "room"})).await;
    for (method, body, status, expected) in [
        ("UpdateRoomMetadata", json!({"room": "room"}), 404, no_room),
        ("SendData", json!({"room": "room"}), 503, nobody),
        (
            "AgentDispatchService/ListDispatch",
            json!({"room": "room"}),
            503,
            nobody,
        ),
        (
            "ListParticipants",
            json!({"room": "room"}),
            200,
            r#"{"participants":[]}"#,
        ),
    ] {
        let answer = backend.call(method, body).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, expected),
            "{method}, no room"
        );
    }
}

#[tokio::test]
async fn a_room_is_made_listed_and_deleted() {
    let server = Server::with(|config| {
        config.presets.insert(
            "small".into(),
            RoomConfiguration {
                max_participants: 3,
                metadata: "of the preset".into(),
                ..Default::default()
            },
        );
    })
    .await;
    let backend = Backend::new(&server);
    let wanted = json!({"name": "room", "empty_timeout": 60, "departureTimeout": 10, "room_preset": "small",
        "metadata": "m", "agents": [{"agent_name": "echo", "metadata": "am"}], "tags": {"a": "b"}});
    let room = backend.ok("CreateRoom", wanted).await;
    assert!(room["sid"].as_str().unwrap().starts_with("RM_"));
    assert!(room["version"]["unix_micro"].is_string() && room["creation_time_ms"].is_string());
    for (field, value) in [
        ("name", json!("room")),
        ("empty_timeout", json!(60)),
        ("departure_timeout", json!(10)),
        ("max_participants", json!(3)),
        ("metadata", json!("m")),
        ("num_participants", json!(0)),
        ("active_recording", json!(false)),
    ] {
        assert_eq!(room[field], value, "{field}");
    }
    assert_eq!(
        room["enabled_codecs"][0],
        json!({"mime": "audio/PCMU", "fmtp_line": ""})
    );

    let again = backend
        .ok("CreateRoom", json!({"name": "room", "metadata": "other"}))
        .await;
    assert_eq!((&again["sid"], &again["metadata"]), (&room["sid"], &json!("m")));
    backend
        .ok("CreateRoom", json!({"name": "another", "maxParticipants": "7"}))
        .await;

    let names = |answer: Value| -> Vec<String> {
        let rooms = answer["rooms"].as_array().unwrap().clone();
        rooms
            .iter()
            .map(|room| room["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(backend.ok("ListRooms", json!({})).await), ["another", "room"]);
    assert_eq!(
        names(backend.ok("ListRooms", json!({"names": ["room", "zzz"]})).await),
        ["room"]
    );
    let dispatches = backend
        .ok("AgentDispatchService/ListDispatch", json!({"room": "room"}))
        .await;
    assert_eq!(dispatches["agent_dispatches"][0]["agent_name"], "echo");
    assert_eq!(dispatches["agent_dispatches"][0]["restart_policy"], "JRP_ON_FAILURE");

    let deleted = backend.call("DeleteRoom", json!({"room": "room"})).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (200, "{}"));
    assert_eq!(names(backend.ok("ListRooms", json!({})).await), ["another"]);
    let fresh = backend.ok("CreateRoom", json!({"name": "room"})).await;
    assert_ne!(fresh["sid"], room["sid"]);
}

#[tokio::test]
async fn protobuf_says_the_same() {
    let server = Server::start().await;
    let backend = Backend::new(&server);
    let request = CreateRoomRequest {
        name: "room".into(),
        max_participants: 4,
        ..Default::default()
    };
    let answer = backend
        .post("RoomService/CreateRoom", PROTOBUF, &request.encode_to_vec())
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("application/protobuf"))
    );
    let room = Room::decode(answer.bytes.as_slice()).unwrap();
    assert_eq!((room.name.as_str(), room.max_participants), ("room", 4));
    let request = ListRoomsRequest::default().encode_to_vec();
    let answer = backend.post("RoomService/ListRooms", PROTOBUF, &request).await;
    let listed = ListRoomsResponse::decode(answer.bytes.as_slice()).unwrap().rooms;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].sid, &listed[0].enabled_codecs),
        (&room.sid, &room.enabled_codecs)
    );
}

#[tokio::test]
async fn a_backend_looks_at_a_participant_changes_it_and_puts_it_out() {
    let server = Server::start().await;
    let backend = Backend::new(&server);
    let mut alice = join(&server, "alice").await;
    let of_alice = |more: Value| {
        let mut body = json!({"room": "room", "identity": "alice"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };

    let listed = backend.ok("ListParticipants", json!({"room": "room"})).await;
    let listed = listed["participants"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 1);
    let got = backend.ok("GetParticipant", of_alice(json!({}))).await;
    assert_eq!(got, listed[0]);
    assert_eq!(
        (
            &got["state"],
            &got["kind"],
            &got["tracks"],
            &got["permission"]["can_update_metadata"]
        ),
        (&json!("JOINED"), &json!("STANDARD"), &json!([]), &json!(true))
    );

    let change = json!({"name": "Alice", "metadata": "new", "attributes": {"k": "", "n": "1"}});
    let changed = backend.ok("UpdateParticipant", of_alice(change)).await;
    assert_eq!(
        (&changed["name"], &changed["metadata"], &changed["attributes"]),
        (&json!("Alice"), &json!("new"), &json!({"n": "1"}))
    );
    let permission = json!({"permission": {"can_subscribe": true, "can_publish_sources": ["MICROPHONE"]}});
    let changed = backend.ok("UpdateParticipant", of_alice(permission)).await;
    assert_eq!(changed["permission"]["can_publish"], false);
    assert_eq!(changed["permission"]["can_publish_sources"], json!(["MICROPHONE"]));
    assert_eq!(changed["metadata"], "new", "what is left out stays");

    let unmuted = backend
        .call(
            "MutePublishedTrack",
            of_alice(json!({"track_sid": "TR_nope", "muted": false})),
        )
        .await;
    assert_eq!(
        (unmuted.status, unmuted.body.as_str()),
        (
            412,
            r#"{"code":"failed_precondition","msg":"twirp error unknown: remote unmute not enabled"}"#
        )
    );
    let muted = of_alice(json!({"track_sid": "TR_nope", "muted": true}));
    assert_eq!(backend.ok("MutePublishedTrack", muted).await, json!({"track": null}));
    let wish = of_alice(json!({"track_sids": ["TR_nope"], "subscribe": true}));
    assert_eq!(backend.ok("UpdateSubscriptions", wish).await, json!({}));
    let data = json!({"room": "room", "data": "aGVsbG8=", "kind": "RELIABLE", "topic": "t",
        "nonce": "MDEyMzQ1Njc4OWFiY2RlZg=="});
    assert_eq!(backend.ok("SendData", data).await, json!({}));

    let room = backend
        .ok("UpdateRoomMetadata", json!({"room": "room", "metadata": "a view"}))
        .await;
    assert_eq!(
        (&room["metadata"], &room["num_participants"]),
        (&json!("a view"), &json!(1))
    );
    alice
        .until(|message| match message {
            Message::RoomUpdate(update) => update.room.filter(|room| room.metadata == "a view"),
            _ => None,
        })
        .await;

    backend.ok("RemoveParticipant", of_alice(json!({}))).await;
    let reason = alice
        .until(|message| match message {
            Message::Leave(leave) => Some(leave.reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, DisconnectReason::ParticipantRemoved as i32);
    assert_eq!(alice.closed().await, (1000, String::new()));
    let listed = backend.ok("ListParticipants", json!({"room": "room"})).await;
    assert_eq!(listed, json!({"participants": []}));

    let mut bob = join(&server, "bob").await;
    backend.ok("DeleteRoom", json!({"room": "room"})).await;
    let reason = bob
        .until(|message| match message {
            Message::Leave(leave) => Some(leave.reason),
            _ => None,
        })
        .await;
    assert_eq!(reason, DisconnectReason::RoomDeleted as i32);
}

#[tokio::test]
async fn agents_are_asked_for_and_no_longer() {
    let server = Server::with(|config| config.auto_create = false).await;
    let backend = Backend::new(&server);
    let wanted = json!({"room": "room", "agent_name": "a1", "metadata": "x", "attributes": {"a": "b"}});
    let answer = backend
        .call("AgentDispatchService/CreateDispatch", wanted.clone())
        .await;
    assert_eq!(answer.status, 404, "rooms do not make themselves here: {}", answer.body);
    backend.ok("CreateRoom", json!({"name": "room"})).await;
    let made = backend.ok("AgentDispatchService/CreateDispatch", wanted).await;
    let id = made["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("AD_"));
    assert_eq!(
        (
            &made["state"]["jobs"],
            &made["state"]["deleted_at"],
            &made["attributes"]
        ),
        (&json!([]), &json!("0"), &json!({"a": "b"}))
    );
    let all = backend
        .ok("AgentDispatchService/ListDispatch", json!({"room": "room"}))
        .await;
    let names: Vec<&Value> = all["agent_dispatches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["agent_name"])
        .collect();
    // LiveKit: a room that names no agent asks for one without a name.
    assert_eq!(names, ["", "a1"]);
    let one = json!({"room": "room", "dispatch_id": id});
    let listed = backend.ok("AgentDispatchService/ListDispatch", one.clone()).await;
    assert_eq!(listed["agent_dispatches"], json!([made]));
    assert_eq!(
        backend.ok("AgentDispatchService/DeleteDispatch", one.clone()).await,
        made
    );
    let listed = backend.ok("AgentDispatchService/ListDispatch", one).await;
    assert_eq!(listed["agent_dispatches"], json!([]));
}

#[tokio::test]
async fn a_participant_is_moved_to_another_room() {
    let server = Server::start().await;
    let backend = Backend::new(&server);
    let mut alice = join(&server, "alice").await;
    let body = json!({"room": "room", "identity": "alice", "destination_room": "elsewhere"});
    assert_eq!(backend.ok("MoveParticipant", body.clone()).await, json!({}));
    let moved = alice
        .until(|message| match message {
            Message::RoomMoved(moved) => Some(moved),
            _ => None,
        })
        .await;
    assert_eq!(moved.room.as_ref().unwrap().name, "elsewhere");
    assert_eq!(moved.participant.unwrap().identity, "alice");
    let leave = alice
        .until(|message| match message {
            Message::Leave(leave) => Some(leave),
            _ => None,
        })
        .await;
    assert_eq!(leave.action(), Action::Reconnect);
    assert_eq!(alice.closed().await, (1000, String::new()));
    // The token it was given opens the other room.
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let mut alice = Signalling::open(server.address, &target, &moved.token).await.unwrap();
    let joined = alice
        .until(|message| match message {
            Message::Join(join) => join.room,
            _ => None,
        })
        .await;
    assert_eq!(
        (&joined.name, &joined.sid),
        (&"elsewhere".to_owned(), &moved.room.unwrap().sid)
    );
    let left = backend.ok("ListParticipants", json!({"room": "room"})).await;
    assert_eq!(left, json!({"participants": []}));
    let gone = backend.call("MoveParticipant", body).await;
    assert_eq!(gone.status, 404, "{}", gone.body);
}

#[tokio::test]
async fn a_call_to_a_participant_that_does_not_answer_ends() {
    let server = Server::start().await;
    let backend = Backend::new(&server);
    let alice = join(&server, "alice").await;
    let body = json!({"room": "room", "destination_identity": "alice", "method": "m", "response_timeout_ms": 1});
    let answer = backend.call("PerformRpc", body).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            408,
            r#"{"code":"canceled","msg":"twirp error unknown: RpcError 1502: Response timeout"}"#
        )
    );
    let large = json!({"room": "room", "destination_identity": "alice", "payload": "x".repeat(15_361)});
    let answer = backend.call("PerformRpc", large).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            400,
            r#"{"code":"invalid_argument","msg":"twirp error unknown: RpcError 1402: Request payload too large"}"#
        )
    );
    let body = json!({"room": "room", "destination_identity": "alice", "method": "m"});
    let (answer, ()) = tokio::join!(backend.call("PerformRpc", body), async {
        // The call is under way when its participant is put out, or finds it gone: both are told at once.
        backend
            .ok("RemoveParticipant", json!({"room": "room", "identity": "alice"}))
            .await;
    });
    assert_eq!(answer.status, 503, "{}", answer.body);
    drop(alice);
    for (body, status, expected) in [
        (
            json!({"room": "room", "method": "m"}),
            400,
            r#"{"code":"invalid_argument","msg":"twirp error unknown: destination identity is required"}"#,
        ),
        (
            json!({"room": "room", "destination_identity": "zz"}),
            503,
            r#"{"code":"unavailable","msg":"twirp error unknown: no response from servers"}"#,
        ),
    ] {
        let answer = backend.call("PerformRpc", body).await;
        assert_eq!((answer.status, answer.body.as_str()), (status, expected));
    }
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let server = Server::with(|config| config.max_api_request_body_size = 1000).await;
    let backend = Backend::new(&server);
    let answer = backend.post("RoomService/ListRooms", JSON, &vec![b' '; 2000]).await;
    assert_eq!(answer.status, 413);
}
