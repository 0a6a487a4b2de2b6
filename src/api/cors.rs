//! Cross-origin rules, as LiveKit's server has them: any origin, any header, the methods it uses.

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

const METHODS: [Method; 6] = [
    Method::OPTIONS,
    Method::HEAD,
    Method::GET,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];

/// Seconds a browser may remember a preflight answer.
const MAX_AGE: &str = "86400";

/// The answer to a preflight request; None when it is not one.
pub fn preflight(parts: &Parts) -> Option<Response> {
    let wanted = parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if parts.method != Method::OPTIONS {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::VARY,
        HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    let known = METHODS
        .iter()
        .any(|method| method.as_str().as_bytes() == wanted.as_bytes());
    if let Some(origin) = parts.headers.get(header::ORIGIN).filter(|_| known) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, wanted.clone());
        if let Some(names) = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    }
    Some(response)
}

/// Completes the answer to any other request from `origin`. `open`: a path that any page may read, whoever asked
/// (validation).
pub fn complete(headers: &mut HeaderMap, origin: Option<&HeaderValue>, open: bool) {
    let mut set = |name: HeaderName, value: HeaderValue| {
        headers.insert(name, value);
    };
    set(header::VARY, HeaderValue::from_static("Origin"));
    let any = HeaderValue::from_static("*");
    if let Some(origin) = origin {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        set(header::ACCESS_CONTROL_EXPOSE_HEADERS, any.clone());
    }
    if open {
        set(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    }
}
