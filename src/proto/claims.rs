//! Access tokens: HS256 JWTs whose claims say who somebody is and what they may do.
//!
//! Owns reading, checking and signing; the time is an argument. Error texts are LiveKit's: they are the body of the 401
//! response, and clients and tests match on them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::json;
use super::livekit::participant_info::{Kind, KindDetail};
use super::livekit::{ParticipantPermission, RoomConfiguration, TrackSource};

/// How far clocks may differ: a token is good this long after `exp` and before `nbf`.
pub const LEEWAY: Duration = Duration::from_secs(60);

/// Longer tokens are refused unread. The largest sensible one holds 512 KiB of metadata, base64-coded.
pub const MAX_TOKEN: usize = 2 << 20;

/// API keys and their secrets, in the order of their names; `first` signs what the server issues.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiKeys(BTreeMap<String, String>);

impl ApiKeys {
    pub fn insert(&mut self, key: impl Into<String>, secret: impl Into<String>) {
        self.0.insert(key.into(), secret.into());
    }

    pub fn secret(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The key and secret that sign tokens for clients whose own key is not known.
    pub fn first(&self) -> Option<(&str, &str)> {
        self.iter().next()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, secret)| (key.as_str(), secret.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Secrets must not reach a log.
impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, S: Into<String>> FromIterator<(K, S)> for ApiKeys {
    fn from_iter<T: IntoIterator<Item = (K, S)>>(pairs: T) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(key, secret)| (key.into(), secret.into()))
                .collect(),
        )
    }
}

/// Why a token was refused; always a 401 whose body is the `Display` text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, or its registered claims are not readable.
    #[error("invalid authorization token")]
    Malformed,
    /// `iss` names no key of ours.
    #[error("invalid API key")]
    UnknownKey,
    #[error("invalid authorization token: {0}")]
    Invalid(InvalidToken),
}

/// The texts of golang-jwt v5.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    #[error("token signature is invalid: signing method {0} is invalid")]
    Algorithm(String),
    #[error("token signature is invalid: signature is invalid")]
    Signature,
    #[error("token has invalid claims: token is missing required claim: exp claim is required")]
    NoExpiry,
    #[error("token has invalid claims: token is expired")]
    Expired,
    #[error("token has invalid claims: token is not valid yet")]
    NotYetValid,
    #[error("token has invalid claims: token is expired, token is not valid yet")]
    ExpiredAndNotYetValid,
    #[error("token is malformed: could not JSON decode claim: {0}")]
    Claims(String),
}

/// What a token says. `identity` is `sub`, or `jti` where that is empty; the `identity` claim itself is ignored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The API key (`iss`) that signed it.
    #[serde(skip)]
    pub api_key: String,
    #[serde(skip_deserializing, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// UNIX seconds.
    #[serde(skip)]
    pub expires_at: u64,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub name: String,
    /// Lower-case; read it with `participant_kind`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub kind_details: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference: Option<InferenceGrant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observability: Option<ObservabilityGrant>,
    /// Applied when this participant's join creates the room.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "room_config")]
    pub room_config: Option<RoomConfiguration>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub room_preset: String,
    /// Standard base64 of the SHA-256 of a webhook's body.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub sha256: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub metadata: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub attributes: BTreeMap<String, String>,
}

/// The `video` claim. Three-valued rights are read through the methods, which know what their absence means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub room_record: bool,
    /// For `room` only.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub room_admin: bool,
    /// For `room` only.
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// `camera`, `microphone`, `screen_share`, `screen_share_audio`; empty = no restriction.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub ingress_admin: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub hidden: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub recorder: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub agent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "or_default")]
    pub destination_room: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SipGrant {
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub admin: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub call: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentGrant {
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub admin: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub simulation_admin: bool,
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub database_admin: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InferenceGrant {
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub perform: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObservabilityGrant {
    #[serde(skip_serializing_if = "is_false", deserialize_with = "or_default")]
    pub write: bool,
}

impl VideoGrant {
    pub fn can_publish(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }

    pub fn can_subscribe(&self) -> bool {
        self.can_subscribe.unwrap_or(true)
    }

    /// Absent = as `can_publish`.
    pub fn can_publish_data(&self) -> bool {
        self.can_publish_data.unwrap_or(self.can_publish())
    }

    pub fn can_update_own_metadata(&self) -> bool {
        self.can_update_own_metadata.unwrap_or(false)
    }

    pub fn can_subscribe_metrics(&self) -> bool {
        self.can_subscribe_metrics.unwrap_or(false)
    }

    pub fn can_manage_agent_session(&self) -> bool {
        self.can_manage_agent_session.unwrap_or(false)
    }

    /// `can_publish: false` denies whatever the list says; an empty list restricts nothing.
    pub fn can_publish_source(&self, source: TrackSource) -> bool {
        self.can_publish()
            && (self.can_publish_sources.is_empty()
                || self.can_publish_sources.iter().any(|name| *name == source_name(source)))
    }

    /// Unknown names become `Unknown`, so that a list of only those still restricts.
    pub fn publish_sources(&self) -> Vec<TrackSource> {
        self.can_publish_sources
            .iter()
            .map(|name| source_from_name(name))
            .collect()
    }

    /// The rights as `ParticipantInfo.permission` shows them.
    pub fn permission(&self) -> ParticipantPermission {
        // `agent` and `recorder` are deprecated in the messages but clients still read them.
        #[allow(deprecated)]
        ParticipantPermission {
            can_subscribe: self.can_subscribe(),
            can_publish: self.can_publish(),
            can_publish_data: self.can_publish_data(),
            can_publish_sources: self.publish_sources().into_iter().map(|source| source as i32).collect(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.can_update_own_metadata(),
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics(),
            can_manage_agent_session: self.can_manage_agent_session(),
        }
    }

    /// Replaces all of them, as `UpdateParticipant` does: a flag left out of the message is false.
    #[allow(deprecated)]
    pub fn set_permission(&mut self, permission: &ParticipantPermission) {
        self.can_subscribe = Some(permission.can_subscribe);
        self.can_publish = Some(permission.can_publish);
        self.can_publish_data = Some(permission.can_publish_data);
        self.can_publish_sources = permission
            .can_publish_sources()
            .map(|source| source_name(source).to_owned())
            .collect();
        self.can_update_own_metadata = Some(permission.can_update_metadata);
        self.hidden = permission.hidden;
        self.recorder = permission.recorder;
        self.agent = permission.agent;
        self.can_subscribe_metrics = Some(permission.can_subscribe_metrics);
        self.can_manage_agent_session = Some(permission.can_manage_agent_session);
    }
}

impl Claims {
    /// Unknown names are `Standard`.
    pub fn participant_kind(&self) -> Kind {
        Kind::from_str_name(&self.kind.to_ascii_uppercase()).unwrap_or(Kind::Standard)
    }

    pub fn set_participant_kind(&mut self, kind: Kind) {
        self.kind = kind.as_str_name().to_ascii_lowercase();
    }

    /// Unknown names are left out.
    pub fn participant_kind_details(&self) -> Vec<KindDetail> {
        self.kind_details
            .iter()
            .filter_map(|name| KindDetail::from_str_name(&name.to_ascii_uppercase()))
            .collect()
    }

    /// May send transcriptions, and chat or text streams on behalf of others.
    pub fn is_agent(&self) -> bool {
        self.participant_kind() == Kind::Agent || self.video.as_ref().is_some_and(|video| video.agent)
    }

    pub fn is_recorder(&self) -> bool {
        self.participant_kind() == Kind::Egress || self.video.as_ref().is_some_and(|video| video.recorder)
    }

    /// Does not keep a room open and is not counted among its participants.
    pub fn is_dependent(&self) -> bool {
        self.is_agent() || self.is_recorder()
    }

    /// The claims a refresh token carries: LiveKit leaves out the rights that are not about the room.
    pub fn for_refresh(&self) -> Self {
        let mut claims = Self {
            kind_details: Vec::new(),
            sip: None,
            agent: None,
            inference: None,
            observability: None,
            sha256: String::new(),
            ..self.clone()
        };
        claims.set_participant_kind(self.participant_kind());
        claims
    }

    /// How long the token is still good, without leeway.
    pub fn remaining(&self, now_unix: Duration) -> Duration {
        Duration::from_secs(self.expires_at).saturating_sub(now_unix)
    }
}

/// Checks a token in LiveKit's order: readable, key known, HS256, signature, times, claims.
///
/// `now_unix` is the time since 1970.
pub fn verify(token: &str, keys: &ApiKeys, now_unix: Duration) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
    // A dot in `payload` (more than three parts) is no base64 character.
    let header = decode_part(header)?;
    let claims = decode_part(payload)?;
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(TokenError::Malformed)?;
    if !known_algorithm(algorithm) {
        return Err(TokenError::Malformed);
    }
    let registered = Registered::read(&claims)?;

    let secret = keys.secret(&registered.issuer).ok_or(TokenError::UnknownKey)?;
    if algorithm != "HS256" {
        return Err(TokenError::Invalid(InvalidToken::Algorithm(algorithm.to_owned())));
    }
    let key = DecodingKey::from_secret(secret.as_bytes());
    // An empty secret would be one that everybody knows.
    let good = !secret.is_empty()
        && jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, Algorithm::HS256).unwrap_or(false);
    if !good {
        return Err(TokenError::Invalid(InvalidToken::Signature));
    }
    registered.check_times(now_unix).map_err(TokenError::Invalid)?;

    let mut claims =
        Claims::deserialize(claims).map_err(|error| TokenError::Invalid(InvalidToken::Claims(error.to_string())))?;
    claims.api_key = registered.issuer;
    claims.identity = registered.identity;
    claims.expires_at = registered.expires.unwrap_or(0.0).max(0.0) as u64;
    Ok(claims)
}

/// Issues a token with `claims`, valid from `now_unix` for `ttl`; `claims.api_key` and `claims.expires_at` are not read.
pub fn sign(claims: &Claims, key: &str, secret: &str, now_unix: Duration, ttl: Duration) -> String {
    #[derive(Serialize)]
    struct Payload<'a> {
        iss: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        sub: &'a str,
        iat: u64,
        nbf: u64,
        exp: u64,
        #[serde(flatten)]
        claims: &'a Claims,
    }
    let now = now_unix.as_secs();
    let payload = Payload {
        iss: key,
        sub: &claims.identity,
        iat: now,
        nbf: now,
        exp: now.saturating_add(ttl.as_secs()),
        claims,
    };
    // Strings, numbers and maps with string keys always serialize; the one exception is an enum number inside
    // `roomConfig` that its type does not know, which signing without it answers best.
    let payload = serde_json::to_string(&payload).unwrap_or_else(|_| {
        let claims = Claims {
            room_config: None,
            ..claims.clone()
        };
        serde_json::to_string(&Payload {
            claims: &claims,
            ..payload
        })
        .unwrap_or_default()
    });
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = jsonwebtoken::crypto::sign(
        message.as_bytes(),
        &EncodingKey::from_secret(secret.as_bytes()),
        Algorithm::HS256,
    )
    .unwrap_or_default();
    format!("{message}.{signature}")
}

/// The registered claims of RFC 7519 §4.1 that are checked.
struct Registered {
    issuer: String,
    identity: String,
    /// UNIX seconds; a NumericDate may have a fraction.
    expires: Option<f64>,
    not_before: Option<f64>,
}

impl Registered {
    fn read(claims: &Value) -> Result<Self, TokenError> {
        let text = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(TokenError::Malformed),
        };
        let date = |name: &str| match claims.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(TokenError::Malformed),
        };
        if !claims.is_object() {
            return Err(TokenError::Malformed);
        }
        let subject = text("sub")?;
        date("iat")?;
        Ok(Self {
            issuer: text("iss")?,
            identity: if subject.is_empty() { text("jti")? } else { subject },
            expires: date("exp")?,
            not_before: date("nbf")?,
        })
    }

    fn check_times(&self, now_unix: Duration) -> Result<(), InvalidToken> {
        let now = now_unix.as_secs_f64();
        let expires = self.expires.ok_or(InvalidToken::NoExpiry)?;
        let expired = now >= expires + LEEWAY.as_secs_f64();
        let early = self.not_before.is_some_and(|start| now < start - LEEWAY.as_secs_f64());
        match (expired, early) {
            (false, false) => Ok(()),
            (true, false) => Err(InvalidToken::Expired),
            (false, true) => Err(InvalidToken::NotYetValid),
            (true, true) => Err(InvalidToken::ExpiredAndNotYetValid),
        }
    }
}

fn decode_part(part: &str) -> Result<Value, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

/// Those golang-jwt knows: they fail at the signature, others before it.
fn known_algorithm(name: &str) -> bool {
    let family = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|bits| ["256", "384", "512"].contains(&bits))
    };
    ["HS", "RS", "ES", "PS"].into_iter().any(family) || name == "EdDSA" || name == "none"
}

fn source_name(source: TrackSource) -> &'static str {
    match source {
        TrackSource::Unknown => "unknown",
        TrackSource::Camera => "camera",
        TrackSource::Microphone => "microphone",
        TrackSource::ScreenShare => "screen_share",
        TrackSource::ScreenShareAudio => "screen_share_audio",
    }
}

fn source_from_name(name: &str) -> TrackSource {
    [
        TrackSource::Camera,
        TrackSource::Microphone,
        TrackSource::ScreenShare,
        TrackSource::ScreenShareAudio,
    ]
    .into_iter()
    .find(|source| source_name(*source) == name)
    .unwrap_or(TrackSource::Unknown)
}

/// Go's JSON reads `null` as the zero value.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// protojson: camelCase or snake_case, unknown fields ignored.
fn room_config<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RoomConfiguration>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => json::from_value(value).map(Some).map_err(serde::de::Error::custom),
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests;
