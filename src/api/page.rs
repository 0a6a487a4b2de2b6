//! The built-in pages: a call in the browser without anything to install, in development mode only; and the examination of a
//! browser's ways to the server, which needs a token to find anything out.

use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Names and messages come from other people: nothing but the page's own files may run, load or be called. `ws:` beside
/// 'self', because older browsers do not count a WebSocket to the same origin as 'self'.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self' ws: wss:; img-src data:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Path, content type and contents of every file of the page.
const ASSETS: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/style.css", CSS, include_str!("page/style.css")),
    ("/call.js", SCRIPT, include_str!("page/call.js")),
    ("/session.js", SCRIPT, include_str!("page/session.js")),
    ("/why.js", SCRIPT, include_str!("page/why.js")),
    ("/packets.js", SCRIPT, include_str!("page/packets.js")),
];

/// The same of the examination.
const DOCTOR: [(&str, &str, &str); 3] = [
    ("/doctor", HTML, include_str!("page/doctor.html")),
    ("/doctor.js", SCRIPT, include_str!("page/doctor.js")),
    ("/doctor.css", CSS, include_str!("page/style.css")),
];

/// A browser asks for a page to show; health checks and SDKs do not.
pub fn wants_page(parts: &Parts) -> bool {
    parts
        .headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

/// The file at `path`, of the call.
pub fn asset(path: &str) -> Option<Response> {
    file(&ASSETS, path)
}

/// The file at `path`, of the examination.
pub fn doctor(path: &str) -> Option<Response> {
    file(&DOCTOR, path)
}

fn file(files: &[(&str, &'static str, &'static str)], path: &str) -> Option<Response> {
    let (_, kind, contents) = files.iter().find(|(name, _, _)| *name == path)?;
    // A page of an older build must not outlive an upgrade of the binary it came from.
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ];
    Some((headers, *contents).into_response())
}
