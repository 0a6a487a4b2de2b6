//! The server APIs: LiveKit's Twirp services under `/twirp/`, in protobuf and JSON.
//!
//! Owns routes, rights, codings and error texts. Driven by the HTTP entry in `app`; asks the node for everything that
//! has to do with a room. The table of methods is what routes and what the authorisation tests go through.

mod absent;
mod dispatches;
mod endpoint;
mod error;
mod rooms;
mod statistics;

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::request::Parts;
use axum::http::{Method as HttpMethod, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

pub use endpoint::{Method, Right};
pub use statistics::ApiStatistics;

use self::endpoint::{Call, Coding};
use self::error::{Code, TwirpError};
use super::{not_found, text};
use crate::node::Node;
use crate::proto::claims::Claims;

pub const PREFIX: &str = "/twirp/";

/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// How long a method may take where the client sets no shorter time; a room answers in milliseconds, a client that is
/// called through the API may take its own time.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Where `limit.max_api_request_body_size` is 0: memory is not unlimited.
const MAX_BODY: usize = 64 << 20;

/// Every method there is.
pub fn methods() -> impl Iterator<Item = &'static Method> {
    rooms::METHODS.iter().chain(dispatches::METHODS).chain(absent::METHODS)
}

/// Answers a request below `PREFIX`. `path` has no doubled slash in front.
pub async fn answer(
    node: &Node,
    statistics: &ApiStatistics,
    claims: Option<Claims>,
    path: &str,
    parts: &Parts,
    body: Body,
) -> Response {
    let (service, name) = path
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('/'))
        .unwrap_or_default();
    // LiveKit: a service that is not registered is no route at all.
    if !methods().any(|method| method.service == service) {
        return not_found();
    }
    let (method, coding) = match route(path, service, name, parts) {
        Ok(found) => found,
        Err(error) => return error.into_response(),
    };
    // LiveKit reads the body first; nobody unknown has to be listened to here.
    let Some(claims) = claims else {
        return TwirpError::denied().into_response();
    };
    let body = match read(node, parts, body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let call = Call {
        node: node.clone(),
        claims,
        coding,
        body,
    };
    let began = Instant::now();
    let span = tracing::trace_span!(
        target: "patchbay::trace",
        "twirp",
        service = method.service,
        method = method.name,
        traceparent = parts.headers.get("traceparent").and_then(|value| value.to_str().ok()),
        error = tracing::field::Empty,
    );
    let running = tokio::time::timeout(time_limit(parts), (method.run)(call));
    let outcome = running.instrument(span.clone()).await;
    let outcome = outcome.unwrap_or_else(|_| Err(TwirpError::new(Code::DeadlineExceeded, "context deadline exceeded")));
    let code = outcome.as_ref().err().map(|error| error.code);
    if let Some(code) = code {
        span.record("error", code.name());
    }
    statistics.record(method, code, began.elapsed());
    match outcome {
        Ok(answer) => ([(header::CONTENT_TYPE, coding.content_type())], answer).into_response(),
        Err(error) => error.into_response(),
    }
}

fn route(path: &str, service: &str, name: &str, parts: &Parts) -> Result<(&'static Method, Coding), TwirpError> {
    let verb = parts.method.as_str();
    let bad_route = |text: String| TwirpError::bad_route(text, verb, path);
    if parts.method != HttpMethod::POST {
        return Err(bad_route(format!("unsupported method {verb:?} (only POST is allowed)")));
    }
    let method = methods()
        .find(|method| method.service == service && method.name == name)
        .ok_or_else(|| bad_route(format!("no handler for path {path:?}")))?;
    let content_type = parts.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let coding =
        Coding::of(content_type).ok_or_else(|| bad_route(format!("unexpected Content-Type: {content_type:?}")))?;
    Ok((method, coding))
}

async fn read(node: &Node, parts: &Parts, body: Body) -> Result<Bytes, Response> {
    let limit = match node.config().max_api_request_body_size {
        0 => MAX_BODY,
        limit => limit.min(MAX_BODY),
    };
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced: Option<usize> = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    let too_large = || text(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large");
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_LIMIT, to_bytes(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        // Of a body without an announced length, or one whose sender has gone away.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            "the request body did not arrive in time",
        )),
    }
}

/// LiveKit: clients may say how long they wait.
fn time_limit(parts: &Parts) -> Duration {
    let wanted = parts.headers.get("x-twirp-timeout-ms");
    let wanted: Option<u64> = wanted.and_then(|value| value.to_str().ok()?.parse().ok());
    wanted.map_or(CALL_LIMIT, Duration::from_millis).min(CALL_LIMIT)
}
