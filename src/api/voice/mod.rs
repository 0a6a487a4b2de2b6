//! The voice API: HTTP for users, moderators, the backend and administration, the gateway's WebSocket, webhooks in.
//!
//! Owns routes, rights of callers, shapes of bodies and the OpenAPI document, which is made from the table of routes.
//! Driven by the HTTP entry in `app`; asks the voice task in `node` for everything else. Nothing that an end user sends
//! states a right or another user's id.

mod admin;
mod backend;
mod calls;
mod channels;
mod elsewhere;
mod gateway;
mod openapi;
mod previews;
mod route;
mod rpc;
mod schemas;
mod text;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use self::route::{Answer, ApiError, Call, Caller, Route};
use crate::node::Node;
use crate::node::voice::{Https, Place, PlaceWatch, Told, UserTokens, VoiceLink, VoiceStatistics, Who};
use crate::voice::{UserId, VoiceError};

/// How long a body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Every route, in the order in which paths are tried.
fn routes() -> impl Iterator<Item = &'static Route> {
    channels::ROUTES
        .iter()
        .chain(calls::ROUTES)
        .chain(previews::ROUTES)
        .chain(backend::ROUTES)
        .chain(rpc::ROUTES)
        .chain(admin::ROUTES)
        .chain(webhook::ROUTES)
        .chain(openapi::ROUTES)
}

/// What the API needs. Cheap to clone.
#[derive(Clone)]
pub struct VoiceSite {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    place: PlaceWatch,
    https: Https,
    users: UserTokens,
    /// SHA-256 of the backend's secret; None: nobody is the backend.
    secret: Option<[u8; 32]>,
    previews: previews::Previews,
    statistics: Arc<VoiceStatistics>,
}

impl std::fmt::Debug for VoiceSite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoiceSite").finish_non_exhaustive()
    }
}

impl VoiceSite {
    /// An empty secret is nobody's.
    pub fn new(
        node: Node,
        place: PlaceWatch,
        users: UserTokens,
        secret: &str,
        statistics: Arc<VoiceStatistics>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                node,
                place,
                https: Https::default(),
                users,
                secret: (!secret.is_empty()).then(|| hash(secret)),
                previews: previews::Previews::default(),
                statistics,
            }),
        }
    }

    /// Everything of the voice API; None: the path is somebody else's.
    pub async fn answer(&self, path: &str, parts: &mut Parts, body: &mut Body) -> Option<Response> {
        let is_gateway = gateway::is_wanted(path, parts);
        let found: Vec<_> = routes()
            .filter_map(|route| Some((route, route.matches(path)?)))
            .collect();
        if found.is_empty() && !is_gateway {
            return None;
        }
        let place = self.inner.place.borrow().clone();
        let link = match place {
            Place::Here(link) => link,
            Place::There(url) => return Some(elsewhere::answer(&self.inner.https, &url, parts, body).await),
            Place::Nowhere => return Some(ApiError::from(VoiceError::StorageDown).into_response()),
        };
        if is_gateway {
            return Some(gateway::connect(link, parts).await);
        }
        // The first path that fits is the most exact one.
        let path = found.first().map(|(route, _)| route.path);
        let found = found.into_iter().filter(|(route, _)| Some(route.path) == path);
        let found: Vec<_> = found.collect();
        let allowed: Vec<&str> = found.iter().map(|(route, _)| route.method).collect();
        let mut fitting = found
            .into_iter()
            .filter(|(route, _)| route.method == parts.method.as_str());
        if let Some((route, parameters)) = fitting.next() {
            let body = std::mem::take(body);
            return Some(match self.run(route, link, parameters, parts, body).await {
                Ok(answer) => answer.into_response(),
                Err(error) => {
                    self.inner.statistics.refused(Told::Http, error.code);
                    error.into_response()
                }
            });
        }
        let mut refusal = ApiError::new(405, "METHOD_NOT_ALLOWED", "Method not allowed").into_response();
        if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
            refusal.headers_mut().insert(header::ALLOW, allowed);
        }
        Some(refusal)
    }

    async fn run(
        &self,
        route: &'static Route,
        link: VoiceLink,
        parameters: Vec<(&'static str, String)>,
        parts: &Parts,
        body: Body,
    ) -> Result<Answer, ApiError> {
        let user = self.caller(route.caller, parts).await?;
        let raw = read(parts, body, route.max_body).await?;
        let json = match route.body {
            Some(_) => object(&raw)?,
            None => Map::new(),
        };
        let call = Call {
            site: self.clone(),
            link,
            user,
            parameters,
            query: parts.uri.query().unwrap_or_default().to_owned(),
            authorization: authorization(parts).to_owned(),
            json,
            raw,
        };
        (route.run)(call).await
    }

    async fn caller(&self, caller: Caller, parts: &Parts) -> Result<Option<UserId>, ApiError> {
        let token = bearer(authorization(parts));
        match caller {
            Caller::Anybody => Ok(None),
            Caller::Backend if self.is_backend(token) => Ok(None),
            Caller::Backend => Err(VoiceError::Unauthorized.into()),
            Caller::User => match self.inner.users.who(token).await {
                Who::User(user) => Ok(Some(user)),
                Who::Nobody => Err(VoiceError::Unauthorized.into()),
                Who::Unknown => Err(VoiceError::StorageDown.into()),
            },
        }
    }

    /// Of the secrets their hashes are compared, in constant time: neither content nor length shows.
    fn is_backend(&self, token: &str) -> bool {
        let known = self.inner.secret.as_ref();
        known.is_some_and(|known| verify_slices_are_equal(known, &hash(token)).is_ok())
    }
}

fn hash(secret: &str) -> [u8; 32] {
    let mut hashed = [0; 32];
    hashed.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hashed
}

fn authorization(parts: &Parts) -> &str {
    let value = parts.headers.get(header::AUTHORIZATION);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn bearer(authorization: &str) -> &str {
    match authorization.strip_prefix("Bearer") {
        Some(token) if token.is_empty() || token.starts_with(' ') => token.trim(),
        _ => authorization.trim(),
    }
}

async fn read(parts: &Parts, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(413, "PAYLOAD_TOO_LARGE", "The request body is too large");
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced: Option<usize> = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_LIMIT, to_bytes(body, limit)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(ApiError::new(
            408,
            "REQUEST_TIMEOUT",
            "The request body did not arrive in time",
        )),
    }
}

/// No body is an empty object.
fn object(raw: &Bytes) -> Result<Map<String, Value>, ApiError> {
    if raw.is_empty() {
        return Ok(Map::new());
    }
    let mut object: Map<String, Value> = serde_json::from_slice(raw).map_err(|_| VoiceError::InvalidParameters)?;
    object.values_mut().for_each(whole_numbers);
    Ok(object)
}

/// `1.0` is an integer (RFC 8259 §6 knows one kind of numbers, and so does JSON Schema), up to where such are exact.
fn whole_numbers(value: &mut Value) {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number
                .as_f64()
                .filter(|number| number.fract() == 0.0 && number.abs() <= EXACT);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Nothing => StatusCode::NO_CONTENT.into_response(),
            Self::Empty => StatusCode::OK.into_response(),
            Self::Json(value) => axum::Json(value).into_response(),
            Self::Bytes { content_type, bytes } => {
                let headers = [
                    (header::CONTENT_TYPE, content_type),
                    (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
                ];
                (headers, bytes).into_response()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({"code": self.code, "message": self.text});
        if let (Some(path), Some(fields)) = (self.path, body.as_object_mut()) {
            let error = json!([{"path": path, "message": self.text}]);
            fields.insert("errors".to_owned(), error);
        }
        let wait = self.retry_after.map(|wait| wait.as_secs_f64());
        if let (Some(wait), Some(fields)) = (wait.filter(|_| self.status == 429), body.as_object_mut()) {
            fields.insert("retry_after".to_owned(), json!(wait));
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(body)).into_response();
        if let Some(wait) = wait {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait.ceil().max(1.0) as u64));
        }
        response
    }
}
