//! The HTTP listener, and what a request goes through: CORS, the token, then the path.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};

use super::relay_health::RelayHealth;
use crate::api::twirp::{self, ApiStatistics};
use crate::api::voice::VoiceSite;
use crate::api::{self, cors, explain, whip};
use crate::io::WebConnection;
use crate::node::Node;
use crate::signal::{self, Form};

/// HTTP connections of one listener at a time. Signalling WebSockets are not among them: an upgraded connection gives its
/// place back. Further ones wait in the kernel's backlog.
const MAX_CONNECTIONS: u32 = 4096;

/// A request's head must be there within this time, so that a slow sender cannot keep its place; an idle connection is
/// closed after it.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a request's head, as in LiveKit (Go's default): offers ride in the URL, metadata in tokens. The URL by itself
/// cannot be longer than 65,534 bytes here (414).
const MAX_HEAD: usize = 1 << 20;

/// Bytes of a form in a request's body: a token and some parameters. A longer one is as if it were not there; with the
/// address it has to stay below what an address can be.
const MAX_FORM: usize = 48 << 10;

/// Pause after a failed accept, which usually means that the process has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a path is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Signal(Form),
    Validate(Form),
    Agent,
    /// Publishers over HTTP.
    Whip,
    /// Health, and in development mode the built-in page.
    Front,
    /// In development mode only.
    DevToken,
    /// What this server finds of the TURN servers of others.
    Relays,
}

/// Every path beside the server APIs and the page's files. A test insists that each has its row in the table of rights.
pub const PLACES: &[(&str, Place)] = &[
    ("/", Place::Front),
    ("/rtc", Place::Signal(Form::V0)),
    ("/rtc/v1", Place::Signal(Form::V1)),
    ("/rtc/validate", Place::Validate(Form::V0)),
    ("/rtc/v1/validate", Place::Validate(Form::V1)),
    ("/agent", Place::Agent),
    (whip::PATH, Place::Whip),
    ("/dev/token", Place::DevToken),
    ("/doctor/relays", Place::Relays),
];

/// What every request may need.
#[derive(Clone, Debug)]
pub struct Site {
    pub node: Node,
    /// The built-in page and its token endpoint are offered.
    pub development: bool,
    pub statistics: Arc<ApiStatistics>,
    pub whip: whip::Sessions,
    pub relays: RelayHealth,
    /// Where it is switched on.
    pub voice: Option<VoiceSite>,
}

/// What is behind a listener.
pub trait Answers: Clone + Send + Sync + 'static {
    fn answer(&self, request: Request) -> impl Future<Output = Response> + Send;
}

impl Answers for Site {
    async fn answer(&self, request: Request) -> Response {
        entry(self, request).await
    }
}

/// Accepts connections until `stopping` becomes true, then waits for the requests under way.
pub async fn serve<S: Answers>(listener: TcpListener, site: S, mut stopping: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            accepted = accepted => accepted,
            () = stopped(&mut stopping) => break,
        };
        match stream {
            Ok((stream, peer)) => {
                // Signalling messages are small and wait for each other: never hold one back for the next.
                let _ = stream.set_nodelay(true);
                let (site, stopping) = (site.clone(), stopping.clone());
                tokio::spawn(async move {
                    serve_connection(stream, peer, site, stopping).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let _ = places.acquire_many(MAX_CONNECTIONS).await;
}

/// Serves connections that a port which serves other things too has let in; until `stopping` becomes true, then as `serve`.
/// `plain`: who answers those without TLS.
pub async fn serve_handed<S: Answers, P: Answers>(
    mut connections: mpsc::Receiver<WebConnection>,
    site: S,
    plain: P,
    mut stopping: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, connections.recv().await)
        };
        let (place, connection) = tokio::select! {
            next = next => next,
            () = stopped(&mut stopping) => break,
        };
        let Some(WebConnection {
            stream,
            peer,
            is_secure,
        }) = connection
        else {
            break;
        };
        let (site, plain, stopping) = (site.clone(), plain.clone(), stopping.clone());
        tokio::spawn(async move {
            match is_secure {
                true => serve_connection(stream, peer, site, stopping).await,
                false => serve_connection(stream, peer, plain, stopping).await,
            }
            drop(place);
        });
    }
    let _ = places.acquire_many(MAX_CONNECTIONS).await;
}

/// Sends whoever comes without TLS to the same place with it: nothing else is answered, tokens travel in addresses.
#[derive(Clone, Copy, Debug)]
pub struct ToHttps;

impl Answers for ToHttps {
    async fn answer(&self, request: Request) -> Response {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let moved = host.map(|host| format!("https://{host}{path}"));
        match moved.and_then(|place| HeaderValue::try_from(place).ok()) {
            Some(place) => (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, place)]).into_response(),
            None => (StatusCode::BAD_REQUEST, "this port speaks HTTPS").into_response(),
        }
    }
}

async fn serve_connection<S: Answers, I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: I,
    peer: SocketAddr,
    site: S,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let site = site.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            Ok::<_, Infallible>(site.answer(request).await)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        result = &mut connection => Some(result),
        () = stopped(&mut stopping) => None,
    };
    let result = match ended {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

/// Waits for the word to stop; a sender that is gone has given it.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn entry(site: &Site, request: Request) -> Response {
    let (mut parts, mut body) = request.into_parts();
    if let Some(response) = cors::preflight(&parts) {
        return response;
    }
    if is_form(&parts) {
        let form = tokio::time::timeout(HEAD_LIMIT, to_bytes(body, MAX_FORM)).await;
        if let Some(uri) = form
            .ok()
            .and_then(Result::ok)
            .and_then(|form| with_form(&parts.uri, &form))
        {
            parts.uri = uri;
        }
        body = Body::empty();
    }
    let path = canonical_path(&parts).to_owned();
    let origin = parts.headers.get(header::ORIGIN).cloned();
    // Its tokens are not LiveKit's.
    if let Some(voice) = &site.voice
        && let Some(mut response) = voice.answer(&path, &mut parts, &mut body).await
    {
        cors::complete(response.headers_mut(), origin.as_ref(), false);
        return response;
    }
    let place = PLACES.iter().find(|(known, _)| *known == path).map(|(_, place)| *place);
    let open = matches!(place, Some(Place::Validate(_)));
    let mut response = route(site, &path, place, parts, body).await;
    cors::complete(response.headers_mut(), origin.as_ref(), open);
    response
}

async fn route(site: &Site, path: &str, place: Option<Place>, parts: Parts, body: Body) -> Response {
    // LiveKit: a bad token is refused on every path.
    let claims = match signal::authenticate(&site.node, &parts) {
        Ok(claims) => claims,
        Err(refusal) => return refusal.into_response(),
    };
    match place {
        Some(Place::Signal(form)) => signal::connect(&site.node, claims, parts, form).await,
        Some(Place::Validate(form)) => signal::validate(&site.node, claims, &parts, form),
        Some(Place::Agent) => signal::connect_worker(&site.node, claims, parts).await,
        Some(Place::Front) if !(site.development && api::wants_page(&parts)) => api::health(&site.node),
        Some(Place::DevToken) if site.development && parts.method == Method::POST => {
            api::dev_token(&site.node, body).await
        }
        // Told to those who are told the servers themselves.
        Some(Place::Relays) => match claims
            .and_then(|claims| claims.video)
            .is_some_and(|grant| grant.room_join)
        {
            true => site.relays.answer(),
            false => api::refused(),
        },
        Some(Place::Whip) => whip::answer(&site.node, &site.whip, claims, path, &parts, body).await,
        None if path.starts_with(whip::PREFIX) => {
            whip::answer(&site.node, &site.whip, claims, path, &parts, body).await
        }
        None if path.starts_with(twirp::PREFIX) => {
            twirp::answer(&site.node, &site.statistics, claims, path, &parts, body).await
        }
        None if path.starts_with(explain::PREFIX) => explain::answer(&site.node, claims.as_ref(), path, &parts).await,
        _ if site.development => {
            let asset = api::asset(path).or_else(|| api::doctor(path));
            asset.unwrap_or_else(api::not_found)
        }
        _ => api::doctor(path).unwrap_or_else(api::not_found),
    }
}

/// LiveKit: parameters, the token among them, may also come as a form in the body (Go's `FormValue`).
fn is_form(parts: &Parts) -> bool {
    let kind = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|value| value.split(';').next()).map_or("", str::trim);
    [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method)
        && kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The address with the pairs of a form before its own, as if they had been written there: the first of a name counts.
/// None when they cannot be.
fn with_form(uri: &Uri, form: &[u8]) -> Option<Uri> {
    let pairs = std::str::from_utf8(form).ok()?;
    let path = format!("{}?{pairs}&{}", uri.path(), uri.query().unwrap_or_default());
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// LiveKit: clients whose configured URL ends in a slash ask for `//rtc`.
fn canonical_path(parts: &Parts) -> &str {
    let path = parts.uri.path();
    let extra = path.bytes().take_while(|byte| *byte == b'/').count().saturating_sub(1);
    path.get(extra..).unwrap_or(path)
}
