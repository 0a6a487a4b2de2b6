//! Requests of a node that does not serve the voice system itself, led to the one that does: HTTP and the gateway's sockets.
//!
//! Nothing is read or decided here: who asks and what they may is found out where the state is.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use super::route::ApiError;
use crate::node::voice::{Https, Passed, Url};
use crate::voice::VoiceError;

/// Says that a request was led on once: two nodes that take each other for the one would do it for ever.
const LED: HeaderName = HeaderName::from_static("x-patchbay-led");

/// Of one connection (RFC 9110 §7.6.1); `Origin` is answered by the node that the browser speaks to.
const OWN: [HeaderName; 7] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    header::ORIGIN,
];

pub(super) async fn answer(https: &Https, url: &Url, parts: &mut Parts, body: &mut Body) -> Response {
    let unavailable = || ApiError::from(VoiceError::StorageDown).into_response();
    if parts.headers.contains_key(LED) {
        return unavailable();
    }
    let client = parts.extensions.remove::<OnUpgrade>();
    let Some(request) = passed_on(parts, std::mem::take(body)) else {
        return unavailable();
    };
    match https.pass(url, request).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => switched(answer, client),
        Ok(answer) => {
            let (mut head, body) = answer.into_parts();
            OWN.iter().for_each(|name| drop(head.headers.remove(name)));
            Response::from_parts(head, Body::new(body))
        }
        Err(error) => {
            tracing::warn!(%error, "the node that serves the voice system does not answer");
            unavailable()
        }
    }
}

fn passed_on(parts: &Parts, body: Body) -> Option<Request<Body>> {
    let target: Uri = parts.uri.path_and_query()?.as_str().parse().ok()?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = target;
    *request.headers_mut() = parts.headers.clone();
    let upgrade = parts.headers.get(header::UPGRADE).cloned();
    let headers = request.headers_mut();
    OWN.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(LED, HeaderValue::from_static("1"));
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Some(request)
}

/// From now on bytes go both ways until either end has enough.
fn switched(mut answer: Passed, client: Option<OnUpgrade>) -> Response {
    let server = hyper::upgrade::on(&mut answer);
    let (head, _) = answer.into_parts();
    tokio::spawn(async move {
        let Some(client) = client else { return };
        if let (Ok(server), Ok(client)) = tokio::join!(server, client) {
            let _ = copy_bidirectional(&mut TokioIo::new(server), &mut TokioIo::new(client)).await;
        }
    });
    Response::from_parts(head, Body::empty())
}
