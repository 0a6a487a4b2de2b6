//! WHIP (RFC 9725) at `/whip/v1`: a publisher that speaks HTTP instead of signalling, as LiveKit's server takes it.
//!
//! Owns one signalling connection for each such publisher, and speaks the client's part on it: the room sees one more
//! participant. Never touches media.

mod publisher;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use self::publisher::{ANSWER_LIMIT, Call, Publisher, description, next_answer};
use super::text;
use crate::node::{IceFragment, JoinFailure, Node, ToClient, WhipOffer};
use crate::proto::claims::Claims;
use crate::proto::join_request::JoinParameters;
use crate::proto::livekit::signal_response::Message as Say;
use crate::proto::livekit::{ClientInfo, IceServer, JoinResponse};

/// Where sessions are made.
pub const PATH: &str = "/whip/v1";
/// In front of a session's id.
pub const PREFIX: &str = "/whip/v1/";

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Bytes of an offer or a fragment.
const MAX_BODY: usize = 256 << 10;
/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// Requests waiting for one session; further ones wait in their own connections.
const CALLS: usize = 16;
/// LiveKit's protocol that is spoken here in the publisher's place.
const PROTOCOL: i32 = 17;

/// The publishers of this server, by the sid of their participants. As many as there are in rooms.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Mutex<HashMap<String, Handle>>>);

#[derive(Clone, Debug)]
struct Handle {
    room: String,
    identity: String,
    calls: mpsc::Sender<Call>,
}

/// One ICE session: what the publisher is told of ours.
#[derive(Clone, Debug)]
struct Session {
    etag: String,
    body: String,
}

/// Why a request fails: a status, and a text that LiveKit puts into JSON.
#[derive(Clone, Debug)]
struct Fault(StatusCode, String);

impl Fault {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self(status, text.into())
    }

    fn denied() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "permissions denied")
    }

    fn gone() -> Self {
        Self::new(StatusCode::NOT_FOUND, "participant does not exist")
    }

    /// LiveKit: JSON under the type that the answer would have had.
    fn under(self, content_type: &'static str) -> Response {
        let Self(status, text) = self;
        let body = format!("{}\n", serde_json::json!({ "error": text }));
        (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
    }
}

impl From<JoinFailure> for Fault {
    fn from(failure: JoinFailure) -> Self {
        let status = match failure {
            JoinFailure::NoSuchRoom => StatusCode::NOT_FOUND,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, failure.to_string())
    }
}

/// Answers a request to `PATH`, or below it.
pub async fn answer(
    node: &Node,
    sessions: &Sessions,
    claims: Option<Claims>,
    path: &str,
    parts: &Parts,
    body: Body,
) -> Response {
    let id = path.strip_prefix(PREFIX);
    match (&parts.method, id) {
        // RFC 9725 §4.1.
        (&Method::GET, _) => StatusCode::NO_CONTENT.into_response(),
        (&Method::OPTIONS, None) => options(),
        (&Method::POST, None) => create(node, sessions, claims, parts, body).await,
        (&Method::PATCH, Some(id)) => patch(sessions, claims, id, parts, body).await,
        (&Method::DELETE, Some(id)) => match end(sessions, claims, id).await {
            Ok(()) => StatusCode::OK.into_response(),
            Err(fault) => fault.under("text/plain; charset=utf-8"),
        },
        (_, id) => {
            let allowed = match id {
                Some(_) => "DELETE, GET, HEAD, PATCH",
                None => "GET, HEAD, OPTIONS, POST",
            };
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

/// One that is no preflight request.
fn options() -> Response {
    let any = HeaderValue::from_static("*");
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, any.clone()),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, any.clone()),
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("PATCH, OPTIONS, GET, POST, DELETE"),
        ),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, any),
    ];
    (StatusCode::OK, headers).into_response()
}

async fn create(node: &Node, sessions: &Sessions, claims: Option<Claims>, parts: &Parts, body: Body) -> Response {
    if let Err(fault) = check_type(parts, SDP) {
        return fault.under("text/plain; charset=utf-8");
    }
    match start(node, sessions, claims, body).await {
        Ok((join, session)) => created(join, session),
        Err(fault) => fault.under(SDP),
    }
}

fn created(join: JoinResponse, session: Session) -> Response {
    let sid = join.participant.map(|participant| participant.sid).unwrap_or_default();
    let mut response = (StatusCode::CREATED, [(header::CONTENT_TYPE, SDP)], session.body).into_response();
    let headers = response.headers_mut();
    let mut add = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name, value);
        }
    };
    add(header::LOCATION, format!("{PREFIX}{sid}"));
    add(header::ETAG, session.etag);
    for server in &join.ice_servers {
        for url in &server.urls {
            add(header::LINK, link(server, url));
        }
    }
    response
}

/// RFC 9725 §4.6.
fn link(server: &IceServer, url: &str) -> String {
    let mut link = format!("<{}>; rel=\"ice-server\"", url.replace('?', "%3F"));
    for (name, value) in [("username", &server.username), ("credential", &server.credential)] {
        if !value.is_empty() {
            link += &format!("; {name}=\"{value}\"");
        }
    }
    link
}

/// The room and the identity of a token that may be here.
fn admitted(claims: Option<Claims>) -> Result<Claims, Fault> {
    let claims = claims.ok_or_else(Fault::denied)?;
    let grant = claims
        .video
        .as_ref()
        .filter(|grant| grant.room_join)
        .ok_or_else(Fault::denied)?;
    if grant.room.is_empty() {
        return Err(Fault::new(StatusCode::UNAUTHORIZED, "room name cannot be empty"));
    }
    if claims.identity.is_empty() {
        return Err(Fault::new(StatusCode::BAD_REQUEST, "identity cannot be empty"));
    }
    Ok(claims)
}

async fn start(
    node: &Node,
    sessions: &Sessions,
    claims: Option<Claims>,
    body: Body,
) -> Result<(JoinResponse, Session), Fault> {
    let claims = admitted(claims)?;
    let grant = claims.video.clone().unwrap_or_default();
    if !grant.can_publish() {
        return Err(Fault::denied());
    }
    let max = node.config().max_room_name_length;
    if max > 0 && grant.room.len() > max {
        let text = format!("room name length exceeds limits: max length {max}");
        return Err(Fault::new(StatusCode::BAD_REQUEST, text));
    }
    let offer = read(body, "SDP offer").await?;
    let offer = WhipOffer::parse(&offer)
        .map_err(|error| Fault::new(StatusCode::BAD_REQUEST, format!("malformed SDP offer: {error}")))?;
    let identity = claims.identity.clone();
    let parameters = JoinParameters {
        single_connection: true,
        client_info: ClientInfo {
            protocol: PROTOCOL,
            ..Default::default()
        },
        add_track_requests: offer.tracks.clone(),
        publisher_offer: Some(description(&offer, 1)),
        ..JoinParameters::default()
    };
    let (mut connection, first) = node.join(claims, parameters).await?;
    let Some(Say::Join(join)) = message(first) else {
        return Err(JoinFailure::Closed.into());
    };
    let answer = timeout(ANSWER_LIMIT, next_answer(&mut connection)).await;
    let answer = answer.map_err(|_| JoinFailure::TimedOut)?.ok_or(JoinFailure::Closed)?;
    let etag = IceFragment::of(&answer).unwrap_or_default().ufrag;
    let sid = join.participant.clone().unwrap_or_default().sid;
    let (calls, inbox) = mpsc::channel(CALLS);
    let handle = Handle {
        room: grant.room,
        identity,
        calls,
    };
    sessions.lock().insert(sid.clone(), handle);
    let publisher = Publisher::new(connection, offer, etag.clone());
    let sessions = sessions.clone();
    tokio::spawn(async move {
        publisher.run(inbox).await;
        sessions.lock().remove(&sid);
    });
    Ok((join, Session { etag, body: answer }))
}

async fn patch(sessions: &Sessions, claims: Option<Claims>, id: &str, parts: &Parts, body: Body) -> Response {
    if let Err(fault) = check_type(parts, FRAGMENT) {
        return fault.under("text/plain; charset=utf-8");
    }
    match change(sessions, claims, id, parts, body).await {
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(session)) => {
            let headers = [
                (header::CONTENT_TYPE, FRAGMENT.to_owned()),
                (header::ETAG, session.etag),
            ];
            (StatusCode::OK, headers, session.body).into_response()
        }
        Err(fault) => fault.under(FRAGMENT),
    }
}

/// The new ICE session of a restart.
async fn change(
    sessions: &Sessions,
    claims: Option<Claims>,
    id: &str,
    parts: &Parts,
    body: Body,
) -> Result<Option<Session>, Fault> {
    let etag = parts
        .headers
        .get(header::IF_MATCH)
        .and_then(|value| value.to_str().ok());
    let etag = etag.filter(|etag| !etag.is_empty());
    let etag = etag.ok_or_else(|| Fault::new(StatusCode::PRECONDITION_REQUIRED, "missing entity tag"))?;
    let handle = sessions.find(id, claims)?;
    let fragment = read(body, "SDP fragment").await?;
    let fragment =
        IceFragment::parse(&fragment).ok_or_else(|| Fault::new(StatusCode::BAD_REQUEST, "invalid sdp fragment"))?;
    // RFC 9725 §4.3.3: a restart is for whatever session there is.
    if etag == "*" {
        let (answer, answered) = oneshot::channel();
        let call = Call::Restart { fragment, answer };
        handle.calls.send(call).await.map_err(|_| Fault::gone())?;
        return answered.await.map_err(|_| Fault::gone())?.map(Some);
    }
    let (answer, answered) = oneshot::channel();
    let etag = etag.trim_matches('"').to_owned();
    let call = Call::Trickle { etag, fragment, answer };
    handle.calls.send(call).await.map_err(|_| Fault::gone())?;
    answered.await.map_err(|_| Fault::gone())?.map(|()| None)
}

async fn end(sessions: &Sessions, claims: Option<Claims>, id: &str) -> Result<(), Fault> {
    let handle = sessions.find(id, claims)?;
    let (answer, answered) = oneshot::channel();
    handle.calls.send(Call::End(answer)).await.map_err(|_| Fault::gone())?;
    // Its end is what was asked for.
    let _ = answered.await;
    Ok(())
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, for whom it belongs to.
    fn find(&self, id: &str, claims: Option<Claims>) -> Result<Handle, Fault> {
        let claims = admitted(claims)?;
        let room = claims.video.map(|grant| grant.room).unwrap_or_default();
        let handle = self.lock().get(id).cloned();
        handle
            .filter(|handle| handle.room == room && handle.identity == claims.identity)
            .ok_or_else(Fault::gone)
    }
}

/// LiveKit compares the whole header.
fn check_type(parts: &Parts, wanted: &str) -> Result<(), Fault> {
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    match content_type == wanted {
        true => Ok(()),
        false => Err(Fault::new(
            StatusCode::BAD_REQUEST,
            format!("unsupported content-type: {content_type}"),
        )),
    }
}

async fn read(body: Body, what: &str) -> Result<String, Fault> {
    let missing = || Fault::new(StatusCode::BAD_REQUEST, format!("body does not have {what}"));
    let bytes = timeout(BODY_LIMIT, to_bytes(body, MAX_BODY)).await;
    let bytes = bytes
        .ok()
        .and_then(Result::ok)
        .filter(|bytes| !bytes.is_empty())
        .ok_or_else(missing)?;
    String::from_utf8(bytes.into()).map_err(|_| missing())
}

fn message(what: ToClient) -> Option<Say> {
    match what {
        ToClient::Message(message) => message.message,
        ToClient::Close => None,
    }
}
