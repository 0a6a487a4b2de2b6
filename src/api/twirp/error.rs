//! Twirp's errors: a code, its HTTP status, and a JSON body whatever the request's coding was.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    InvalidArgument,
    Malformed,
    DeadlineExceeded,
    NotFound,
    BadRoute,
    Canceled,
    Unauthenticated,
    ResourceExhausted,
    FailedPrecondition,
    Internal,
    Unavailable,
}

impl Code {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Malformed => "malformed",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::NotFound => "not_found",
            Self::BadRoute => "bad_route",
            Self::Canceled => "canceled",
            Self::Unauthenticated => "unauthenticated",
            Self::ResourceExhausted => "resource_exhausted",
            Self::FailedPrecondition => "failed_precondition",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// Twirp's specification, "Error Codes".
    fn status(self) -> StatusCode {
        match self {
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::InvalidArgument | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded | Self::Canceled => StatusCode::REQUEST_TIMEOUT,
            Self::NotFound | Self::BadRoute => StatusCode::NOT_FOUND,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
            Self::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TwirpError {
    pub code: Code,
    pub text: Cow<'static, str>,
    /// One entry of `meta`.
    pub meta: Option<(&'static str, String)>,
}

impl TwirpError {
    pub fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            text: text.into(),
            meta: None,
        }
    }

    /// LiveKit: texts that come from behind its own message bus arrive with this in front.
    pub fn service(code: Code, text: impl std::fmt::Display) -> Self {
        Self::new(code, format!("twirp error unknown: {text}"))
    }

    /// LiveKit: what its API layer itself finds wrong with a field.
    pub fn argument(fault: &str, expected: impl std::fmt::Display) -> Self {
        Self {
            meta: Some(("argument", fault.to_owned())),
            ..Self::new(Code::InvalidArgument, format!("{fault} {expected}"))
        }
    }

    pub fn bad_route(text: String, method: &str, path: &str) -> Self {
        Self {
            meta: Some(("twirp_invalid_route", format!("{method} {path}"))),
            ..Self::new(Code::BadRoute, text)
        }
    }

    /// LiveKit: a missing right is not `permission_denied`.
    pub fn denied() -> Self {
        Self::new(Code::Unauthenticated, "permissions denied")
    }

    /// LiveKit: what a call to a room or participant that is not there ends in. It comes at once here.
    pub fn nobody_answers() -> Self {
        Self::service(Code::Unavailable, "no response from servers")
    }

    pub fn no_room() -> Self {
        Self::service(Code::NotFound, "requested room does not exist")
    }
}

impl IntoResponse for TwirpError {
    fn into_response(self) -> Response {
        // In this order, as clients print it.
        let mut body = format!("{{\"code\":\"{}\",\"msg\":{}", self.code.name(), json!(self.text));
        if let Some((name, value)) = self.meta {
            body += &format!(",\"meta\":{}", json!({ name: value }));
        }
        body += "}";
        let headers = [(header::CONTENT_TYPE, "application/json")];
        (self.code.status(), headers, body).into_response()
    }
}
