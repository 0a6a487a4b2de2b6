//! One route: its path, who may ask, what it reads and answers, and the way through it.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::VoiceSite;
use crate::node::voice::{VoiceGone, VoiceLink};
use crate::voice::{Limit, UnixMillis, UserId, Voice, VoiceError};

/// Bytes of an ordinary body.
pub(super) const SMALL: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// With a token of the backend.
    User,
    /// With the server's secret.
    Backend,
    Anybody,
}

/// Makes the JSON Schema of a body.
pub(super) type Schema = fn() -> Value;

pub(super) type Answering = BoxFuture<'static, Result<Answer, ApiError>>;

pub(super) struct Route {
    pub method: &'static str,
    /// `{name}` stands for one segment.
    pub path: &'static str,
    pub name: &'static str,
    pub caller: Caller,
    pub summary: &'static str,
    /// Ids that the query may name.
    pub query: &'static [&'static str],
    /// Of the request; None: it has no JSON body.
    pub body: Option<Schema>,
    /// Of a good answer; None: without a body.
    pub answer: Option<(u16, Schema)>,
    pub max_body: usize,
    pub run: fn(Call) -> Answering,
}

impl Route {
    /// The named segments of `path`; None: it is another path.
    pub fn matches(&self, path: &str) -> Option<Vec<(&'static str, String)>> {
        let mut parameters = Vec::new();
        let mut segments = path.split('/');
        for pattern in self.path.split('/') {
            let segment = segments.next()?;
            match pattern.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                Some(name) => parameters.push((name, decoded(segment)?)),
                None if decoded(segment).is_some_and(|segment| segment == pattern) => {}
                None => return None,
            }
        }
        segments.next().is_none().then_some(parameters)
    }
}

/// What tells kinds of objects apart is a text. Serde takes the number of a kind for its name too, which no document says.
pub(super) fn is_named(tag: Option<&Value>) -> bool {
    tag.is_some_and(Value::is_string)
}

/// RFC 3986 §2.1. None: not UTF-8, or half an escape.
pub(super) fn decoded(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?.to_owned();
        bytes.push(u8::from_str_radix(&digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[derive(Debug)]
pub(super) enum Answer {
    /// 204.
    Nothing,
    /// 200 without a body.
    Empty,
    Json(Value),
    Bytes {
        content_type: String,
        bytes: Bytes,
    },
}

#[derive(Clone, Debug)]
pub(super) struct ApiError {
    pub status: u16,
    pub code: &'static str,
    pub text: String,
    /// The field that is at fault.
    pub path: Option<&'static str>,
    pub retry_after: Option<Duration>,
}

impl ApiError {
    pub fn new(status: u16, code: &'static str, text: &str) -> Self {
        Self {
            status,
            code,
            text: text.to_owned(),
            path: None,
            retry_after: None,
        }
    }

    pub fn at(mut self, path: &'static str, text: String) -> Self {
        (self.path, self.text) = (Some(path), text);
        self
    }
}

impl From<VoiceError> for ApiError {
    fn from(error: VoiceError) -> Self {
        let (status, code, text) = error.http();
        Self {
            status,
            code,
            text,
            path: None,
            retry_after: error.retry_after(),
        }
    }
}

impl From<VoiceGone> for ApiError {
    fn from(_: VoiceGone) -> Self {
        VoiceError::StorageDown.into()
    }
}

/// A request on its way to its route.
pub(super) struct Call {
    pub site: VoiceSite,
    pub link: VoiceLink,
    /// Who asks, of routes for users.
    pub user: Option<UserId>,
    pub parameters: Vec<(&'static str, String)>,
    pub query: String,
    pub authorization: String,
    pub json: Map<String, Value>,
    pub raw: Bytes,
}

impl Call {
    pub fn user(&self) -> Result<UserId, ApiError> {
        self.user.ok_or_else(|| VoiceError::Unauthorized.into())
    }

    pub fn text(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(known, _)| *known == name);
        found.map_or("", |(_, text)| text)
    }

    /// An id of the path.
    pub fn id<T: FromStr>(&self, name: &str) -> Result<T, ApiError> {
        self.text(name).parse().map_err(|_| VoiceError::InvalidSnowflake.into())
    }

    pub fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_value(Value::Object(self.json.clone())).map_err(|error| {
            let text = error.to_string();
            ApiError {
                text: format!("Invalid form body: {text:.200}"),
                ..VoiceError::InvalidParameters.into()
            }
        })
    }

    /// Names that the body has, null or not.
    pub fn names(&self) -> BTreeSet<&str> {
        self.json.keys().map(String::as_str).collect()
    }

    /// One parameter of the query, as it stands.
    pub fn query(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let mut found = pairs.filter(|(known, _)| *known == name);
        found.next().and_then(|(_, value)| decoded(value))
    }

    pub async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Voice, UnixMillis) -> R + Send + 'static,
    ) -> Result<R, ApiError> {
        Ok(self.link.ask(question).await?)
    }

    /// As `ask`, for what may be refused.
    pub async fn try_ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Voice, UnixMillis) -> Result<R, VoiceError> + Send + 'static,
    ) -> Result<R, ApiError> {
        self.ask(question).await?.map_err(Into::into)
    }

    /// As `try_ask`, and answered when it is written down: whoever told us so does not tell it again.
    ///
    /// What was asked for is so nevertheless where it cannot be written, and is written when that is possible again.
    pub async fn keep<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Voice, UnixMillis) -> Result<R, VoiceError> + Send + 'static,
    ) -> Result<R, ApiError> {
        let answer = self.try_ask(question).await?;
        match self.link.kept().await? {
            true => Ok(answer),
            false => Err(VoiceError::StorageDown.into()),
        }
    }

    /// As `try_ask`, so many times in ten seconds for one user at one place.
    pub async fn limited<R: Send + 'static>(
        &self,
        what: &'static str,
        place: u64,
        count: u32,
        question: impl FnOnce(&mut Voice, UnixMillis) -> Result<R, VoiceError> + Send + 'static,
    ) -> Result<R, ApiError> {
        const WINDOW: Duration = Duration::from_secs(10);
        let user = self.user()?;
        self.try_ask(move |voice, now| {
            voice.take_limit(now, (user.0, what, place), Limit::new(count, WINDOW))?;
            question(voice, now)
        })
        .await
    }
}
