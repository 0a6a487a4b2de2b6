//! What an HTTP request goes through: CORS, the token, then the path.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::{self, cors};
use crate::node::Node;
use crate::signal::{self, Form};

/// What every request may need.
#[derive(Clone, Debug)]
pub struct Site {
    pub node: Node,
    /// The built-in page and its token endpoint are offered.
    pub development: bool,
}

/// The whole HTTP side, to be served with connect info (`SocketAddr`).
pub fn router(site: Site) -> Router {
    Router::new().fallback(entry).with_state(site)
}

async fn entry(State(site): State<Site>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(response) = cors::preflight(&parts) {
        return response;
    }
    let path = canonical_path(&parts).to_owned();
    let origin = parts.headers.get(header::ORIGIN).cloned();
    let open = matches!(path.as_str(), "/rtc/validate" | "/rtc/v1/validate");
    let mut response = route(&site, &path, parts, body).await;
    cors::complete(response.headers_mut(), origin.as_ref(), open);
    response
}

async fn route(site: &Site, path: &str, parts: Parts, body: axum::body::Body) -> Response {
    // LiveKit: a bad token is refused on every path.
    let claims = match signal::authenticate(&site.node, &parts) {
        Ok(claims) => claims,
        Err(refusal) => return refusal.into_response(),
    };
    match path {
        "/rtc" => signal::connect(&site.node, claims, parts, Form::V0).await,
        "/rtc/v1" => signal::connect(&site.node, claims, parts, Form::V1).await,
        "/rtc/validate" => signal::validate(&site.node, claims, &parts, Form::V0),
        "/rtc/v1/validate" => signal::validate(&site.node, claims, &parts, Form::V1),
        "/agent" => StatusCode::NOT_FOUND.into_response(),
        "/" if !(site.development && api::wants_page(&parts)) => api::health(),
        "/dev/token" if site.development && parts.method == Method::POST => api::dev_token(&site.node, body).await,
        path if site.development => api::asset(path).unwrap_or_else(api::not_found),
        _ => api::not_found(),
    }
}

/// LiveKit: clients whose configured URL ends in a slash ask for `//rtc`.
fn canonical_path(parts: &Parts) -> &str {
    let path = parts.uri.path();
    let extra = path.bytes().take_while(|byte| *byte == b'/').count().saturating_sub(1);
    path.get(extra..).unwrap_or(path)
}
