//! Who may call what: every path and every method of the server APIs with every kind of token. A new one without a row
//! here fails.

use std::collections::BTreeSet;
use std::time::Duration;

use patchbay::api::twirp::{self, PREFIX};
use patchbay::app::http::PLACES;
use patchbay::proto::claims::{Claims, SipGrant, VideoGrant, sign};

use crate::client::{join_request, request};
use crate::server::{KEY, SECRET, Server};

/// No good for anything: refused in plain text, whatever is asked for.
const BAD: &[&str] = &[
    "garbage",
    "alg none",
    "wrong secret",
    "unknown key",
    "expired",
    "not yet valid",
];

/// Good ones, each with one right and no other. All but two are for the room "room".
const GOOD: &[&str] = &[
    "no grant",
    "roomJoin",
    "roomCreate",
    "roomList",
    "roomRecord",
    "roomAdmin",
    "roomAdmin elsewhere",
    "roomAdmin destinationRoom",
    "ingressAdmin",
    "hidden recorder agent",
    "sip.admin",
    "sip.call",
];

/// Methods and the tokens that open them. A token is required for each.
const METHODS: &[(&str, &[&str])] = &[
    ("livekit.RoomService/CreateRoom", &["roomCreate"]),
    ("livekit.RoomService/ListRooms", &["roomList"]),
    ("livekit.RoomService/DeleteRoom", &["roomCreate"]),
    ("livekit.RoomService/ListParticipants", ADMIN),
    ("livekit.RoomService/GetParticipant", ADMIN),
    ("livekit.RoomService/RemoveParticipant", ADMIN),
    ("livekit.RoomService/MutePublishedTrack", ADMIN),
    ("livekit.RoomService/UpdateParticipant", ADMIN),
    ("livekit.RoomService/UpdateSubscriptions", ADMIN),
    ("livekit.RoomService/SendData", ADMIN),
    ("livekit.RoomService/UpdateRoomMetadata", ADMIN),
    ("livekit.RoomService/MoveParticipant", &["roomAdmin destinationRoom"]),
    ("livekit.RoomService/ForwardParticipant", &["roomAdmin destinationRoom"]),
    ("livekit.RoomService/PerformRpc", ADMIN),
    ("livekit.AgentDispatchService/CreateDispatch", ADMIN),
    ("livekit.AgentDispatchService/DeleteDispatch", ADMIN),
    ("livekit.AgentDispatchService/ListDispatch", ADMIN),
    ("livekit.Egress/StartEgress", RECORD),
    ("livekit.Egress/StartRoomCompositeEgress", RECORD),
    ("livekit.Egress/StartWebEgress", RECORD),
    ("livekit.Egress/StartParticipantEgress", RECORD),
    ("livekit.Egress/StartTrackCompositeEgress", RECORD),
    ("livekit.Egress/StartTrackEgress", RECORD),
    ("livekit.Egress/UpdateLayout", RECORD),
    ("livekit.Egress/UpdateStream", RECORD),
    ("livekit.Egress/ListEgress", RECORD),
    ("livekit.Egress/StopEgress", RECORD),
    ("livekit.Ingress/CreateIngress", &["ingressAdmin"]),
    ("livekit.Ingress/UpdateIngress", &["ingressAdmin"]),
    ("livekit.Ingress/ListIngress", &["ingressAdmin"]),
    ("livekit.Ingress/DeleteIngress", &["ingressAdmin"]),
    ("livekit.SIP/ListSIPTrunk", SIP),
    ("livekit.SIP/CreateSIPInboundTrunk", SIP),
    ("livekit.SIP/CreateSIPOutboundTrunk", SIP),
    ("livekit.SIP/UpdateSIPInboundTrunk", SIP),
    ("livekit.SIP/UpdateSIPOutboundTrunk", SIP),
    ("livekit.SIP/GetSIPInboundTrunk", SIP),
    ("livekit.SIP/GetSIPOutboundTrunk", SIP),
    ("livekit.SIP/ListSIPInboundTrunk", SIP),
    ("livekit.SIP/ListSIPOutboundTrunk", SIP),
    ("livekit.SIP/DeleteSIPTrunk", SIP),
    ("livekit.SIP/CreateSIPDispatchRule", SIP),
    ("livekit.SIP/UpdateSIPDispatchRule", SIP),
    ("livekit.SIP/ListSIPDispatchRule", SIP),
    ("livekit.SIP/DeleteSIPDispatchRule", SIP),
    ("livekit.SIP/CreateSIPParticipant", &["sip.call"]),
    ("livekit.SIP/TransferSIPParticipant", &["sip.call"]),
];

const ADMIN: &[&str] = &["roomAdmin", "roomAdmin destinationRoom"];
const RECORD: &[&str] = &["roomRecord"];
const SIP: &[&str] = &["sip.admin"];

/// What a path answers to those who may not.
#[derive(Clone, Copy)]
enum Otherwise {
    /// Nobody needs a right there.
    Open,
    /// 401 in plain text.
    Refused,
}

/// Paths, the query they need, and the tokens that open them.
const PATHS: &[(&str, &[&str], Otherwise)] = &[
    ("/", &[], Otherwise::Open),
    ("/rtc", &[], Otherwise::Open), // without an upgrade: not found, whoever asks
    ("/rtc/v1", &[], Otherwise::Open),
    ("/rtc/validate", &["roomJoin"], Otherwise::Refused),
    ("/rtc/v1/validate", &["roomJoin"], Otherwise::Refused),
    ("/agent", &[], Otherwise::Open),
    ("/whip/v1", &[], Otherwise::Open),   // what needs a right there is in WHIP
    ("/dev/token", &[], Otherwise::Open), // not there outside development mode
    ("/doctor/relays", &["roomJoin"], Otherwise::Refused),
];

/// Requests of WHIP, their content type, and the tokens that open them.
const WHIP: &[(&str, &str, &str, &[&str])] = &[
    ("POST", "/whip/v1", "application/sdp", &["roomJoin"]),
    (
        "PATCH",
        "/whip/v1/PA_nobody",
        "application/trickle-ice-sdpfrag",
        &["roomJoin"],
    ),
    ("DELETE", "/whip/v1/PA_nobody", "text/plain", &["roomJoin"]),
];

#[tokio::test]
async fn publishing_over_http_opens_for_its_right_and_for_no_other() {
    let server = Server::start().await;
    for (method, target, content_type, opens) in WHIP {
        for kind in GOOD.iter().chain(BAD).map(Some).chain([None]) {
            let authorization = kind.map(|kind| format!("authorization: Bearer {}", token(&server, kind)));
            let content_type = format!("content-type: {content_type}");
            let mut headers = vec![content_type.as_str(), "if-match: x"];
            headers.extend(authorization.as_deref());
            let answer = request(server.address, method, target, &headers, "no description").await;
            let may = kind.is_some_and(|kind| !BAD.contains(kind) && opens.contains(kind));
            assert_eq!(
                answer.status != 401,
                may,
                "{method} {target} with {kind:?}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn every_method_opens_for_its_right_and_for_no_other() {
    let server = Server::start().await;
    // Names of every kind of field that a scope is read from.
    let body = r#"{"name":"fresh","room":"room","destination_room":"elsewhere","identity":"nobody"}"#;
    for (path, opens) in METHODS {
        let target = format!("{PREFIX}{path}");
        let answer = request(
            server.address,
            "POST",
            &target,
            &["content-type: application/json"],
            body,
        )
        .await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (401, r#"{"code":"unauthenticated","msg":"permissions denied"}"#),
            "{path} without a token"
        );
        for kind in GOOD.iter().chain(BAD) {
            let authorization = format!("authorization: Bearer {}", token(&server, kind));
            let headers = ["content-type: application/json", authorization.as_str()];
            let answer = request(server.address, "POST", &target, &headers, body).await;
            let plain = answer.header("content-type") == Some("text/plain; charset=utf-8");
            let expected = match (BAD.contains(kind), opens.contains(kind)) {
                (true, _) => answer.status == 401 && plain,
                (false, true) => answer.status != 401,
                (false, false) => answer.status == 401 && answer.body.contains("permissions denied") && !plain,
            };
            assert!(expected, "{path} with {kind}: {} {}", answer.status, answer.body);
        }
    }
}

#[tokio::test]
async fn every_path_opens_for_its_right_and_for_no_other() {
    let server = Server::start().await;
    let join = join_request(|_| {});
    for (path, opens, otherwise) in PATHS {
        let target = format!("{path}?join_request={join}");
        for kind in GOOD.iter().chain(BAD) {
            let authorization = format!("authorization: Bearer {}", token(&server, kind));
            let answer = request(server.address, "GET", &target, &[&authorization], "").await;
            let may = !BAD.contains(kind) && (opens.contains(kind) || matches!(otherwise, Otherwise::Open));
            assert_eq!(
                answer.status != 401,
                may,
                "{path} with {kind}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
}

#[test]
fn every_path_and_method_has_its_row() {
    let methods: BTreeSet<String> = twirp::methods()
        .map(|method| format!("{}/{}", method.service, method.name))
        .collect();
    let rows: BTreeSet<String> = METHODS.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(rows, methods);
    let paths: BTreeSet<&str> = PLACES.iter().map(|(path, _)| *path).collect();
    let rows: BTreeSet<&str> = PATHS.iter().map(|(path, _, _)| *path).collect();
    assert_eq!(rows, paths);
}

fn token(server: &Server, kind: &str) -> String {
    let now = server.node.unix();
    let hour = Duration::from_secs(3600);
    let mut grant = VideoGrant {
        room: "room".into(),
        ..VideoGrant::default()
    };
    let mut claims = Claims {
        identity: "backend".into(),
        ..Claims::default()
    };
    let full = VideoGrant {
        room_create: true,
        room_list: true,
        room_admin: true,
        room_join: true,
        room: "room".into(),
        ..VideoGrant::default()
    };
    match kind {
        "no grant" => return sign(&claims, KEY, SECRET, now, hour),
        "roomJoin" => grant.room_join = true,
        "roomCreate" => grant.room_create = true,
        "roomList" => grant.room_list = true,
        "roomRecord" => grant.room_record = true,
        "roomAdmin" => grant.room_admin = true,
        "roomAdmin elsewhere" => {
            grant.room_admin = true;
            grant.room = "elsewhere".into();
        }
        "roomAdmin destinationRoom" => {
            grant.room_admin = true;
            grant.destination_room = "elsewhere".into();
        }
        "ingressAdmin" => grant.ingress_admin = true,
        "hidden recorder agent" => (grant.hidden, grant.recorder, grant.agent) = (true, true, true),
        "sip.admin" => {
            claims.sip = Some(SipGrant {
                admin: true,
                call: false,
            })
        }
        "sip.call" => {
            claims.sip = Some(SipGrant {
                admin: false,
                call: true,
            })
        }
        _ => grant = full,
    }
    claims.video = Some(grant);
    match kind {
        "garbage" => "nonsense".into(),
        "alg none" => {
            // {"alg":"none","typ":"JWT"}, the claims of a good one, no signature.
            let good = sign(&claims, KEY, SECRET, now, hour);
            let payload = good.split('.').nth(1).unwrap();
            format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.")
        }
        "wrong secret" => sign(&claims, KEY, "another", now, hour),
        "unknown key" => sign(&claims, "nobody", SECRET, now, hour),
        "expired" => sign(&claims, KEY, SECRET, now - hour, Duration::from_secs(60)),
        "not yet valid" => sign(&claims, KEY, SECRET, now + hour, hour),
        _ => sign(&claims, KEY, SECRET, now, hour),
    }
}
