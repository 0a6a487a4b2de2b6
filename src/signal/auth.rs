//! Who asks: the token of a request, for every path.

use std::borrow::Cow;

use axum::extract::Query;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::node::{JoinError, JoinFailure, Node};
use crate::proto::claims::{Claims, TokenError, verify};
use crate::proto::join_request::JoinRequestError;

/// A status with a text, as LiveKit words it: clients show the text, and some match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    pub text: Cow<'static, str>,
}

impl Refusal {
    pub fn text(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    pub(super) fn unauthorized(text: &'static str) -> Self {
        Self::text(StatusCode::UNAUTHORIZED, text)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (
            self.status,
            [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
            self.text,
        )
            .into_response()
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        Self::text(StatusCode::UNAUTHORIZED, error.to_string())
    }
}

impl From<JoinRequestError> for Refusal {
    fn from(error: JoinRequestError) -> Self {
        Self::text(StatusCode::BAD_REQUEST, error.to_string())
    }
}

impl From<JoinFailure> for Refusal {
    fn from(failure: JoinFailure) -> Self {
        let status = match failure {
            // LiveKit: clients match the text; another 404 means "no /rtc/v1 here" to them.
            JoinFailure::NoSuchRoom => StatusCode::NOT_FOUND,
            JoinFailure::NodeFull | JoinFailure::Draining => StatusCode::SERVICE_UNAVAILABLE,
            JoinFailure::Refused(
                JoinError::IdentityEmpty | JoinError::IdentityTooLong { .. } | JoinError::NameTooLong { .. },
            ) => StatusCode::BAD_REQUEST,
            JoinFailure::Refused(JoinError::NotAllowed) => StatusCode::UNAUTHORIZED,
            // LiveKit: these happen past its HTTP layer, which only sees the session end.
            JoinFailure::Refused(_) => {
                return Self::text(StatusCode::INTERNAL_SERVER_ERROR, JoinFailure::Closed.to_string());
            }
            JoinFailure::TimedOut | JoinFailure::Closed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::text(status, failure.to_string())
    }
}

/// The claims of a request's token: the `Authorization` header, or else the `access_token` parameter. None without a
/// token, which is for whoever answers the path to judge.
///
/// # Errors
/// A token is there and no good: 401 on every path, `/` included.
pub fn authenticate(node: &Node, parts: &Parts) -> Result<Option<Claims>, Refusal> {
    let header = parts
        .headers
        .get(header::AUTHORIZATION)
        .filter(|value| !value.is_empty());
    let token = match header {
        Some(value) => match value.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) => Cow::Borrowed(token),
            None => {
                return Err(Refusal::unauthorized(
                    "invalid authorization header. Must start with Bearer ",
                ));
            }
        },
        None => {
            let pairs = query_pairs(&parts.uri);
            match pairs.into_iter().find(|(name, _)| name == "access_token") {
                Some((_, token)) if !token.is_empty() => Cow::Owned(token),
                _ => return Ok(None),
            }
        }
    };
    Ok(Some(verify(&token, &node.keys(), node.unix())?))
}

/// The decoded pairs of a query string; none where it is not readable.
pub fn query_pairs(uri: &Uri) -> Vec<(String, String)> {
    Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default()
}
