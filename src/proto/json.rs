//! The JSON forms of LiveKit's messages. Signalling, as LiveKit's server reads and writes it in WebSocket text frames:
//! protobuf's JSON mapping with camelCase names, defaults left out, 64-bit integers as strings. Answers of the server
//! APIs and webhooks: `render`.
//!
//! Input is read as protojson reads it: camelCase or snake_case names, enums as names or numbers, unknown fields
//! ignored, `null` = not there.

mod render;
#[rustfmt::skip]
mod schema;

pub use render::{Described, Form, render};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::livekit::{SignalRequest, SignalResponse};

/// The text is not JSON, or not this message.
#[derive(Debug, thiserror::Error)]
#[error("not a JSON form of this message: {0}")]
pub struct JsonError(#[from] serde_json::Error);

/// Reads any message of `livekit`. Nesting is limited by serde_json (128 levels); the caller bounds the length.
pub fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, JsonError> {
    from_value(serde_json::from_str(text)?)
}

/// As `from_json`, for a part of a larger JSON document.
pub fn from_value<T: DeserializeOwned>(mut value: Value) -> Result<T, JsonError> {
    normalise(&mut value);
    Ok(T::deserialize(value)?)
}

/// Writes any message of `livekit`: camelCase, default values left out.
pub fn to_json<T: Serialize>(message: &T) -> Result<String, JsonError> {
    Ok(serde_json::to_string(message)?)
}

pub fn signal_request_from_json(text: &str) -> Result<SignalRequest, JsonError> {
    from_json(text)
}

/// Fails only for a message that holds an enum number its type does not know.
pub fn signal_response_to_json(message: &SignalResponse) -> Result<String, JsonError> {
    to_json(message)
}

/// What protojson accepts and the generated code does not: `null` for every field, which means its default, and whole
/// numbers that are written like `7.0` or `1e3`.
fn normalise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(normalise);
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() <= MAX_WHOLE {
                *number = (float as i64).into();
            }
        }
        _ => {}
    }
}

/// Up to here every whole number is a 64-bit float of its own: 2^53.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::livekit::{
        AddTrackRequest, JoinResponse, LeaveRequest, Room, TrackSource, leave_request, signal_request, signal_response,
    };

    fn request(text: &str) -> signal_request::Message {
        signal_request_from_json(text).unwrap().message.unwrap()
    }

    #[test]
    fn reads_names_numbers_and_both_cases() {
        for text in [
            r#"{"addTrack":{"cid":"c1","source":"MICROPHONE"}}"#,
            r#"{"addTrack":{"cid":"c1","source":2,"someday":{"new":[1]}},"other":null}"#,
            r#"{"add_track":{"cid":"c1","source":"MICROPHONE","name":null}}"#,
        ] {
            let signal_request::Message::AddTrack(AddTrackRequest { cid, source, .. }) = request(text) else {
                panic!("{text}");
            };
            assert_eq!((cid.as_str(), source), ("c1", TrackSource::Microphone as i32));
        }
    }

    #[test]
    fn reads_64_bit_integers_as_strings_and_numbers() {
        assert_eq!(
            request(r#"{"ping":"1700000000000"}"#),
            signal_request::Message::Ping(1_700_000_000_000)
        );
        assert_eq!(request(r#"{"ping":17}"#), signal_request::Message::Ping(17));
    }

    #[test]
    fn reads_whole_numbers_that_are_written_as_fractions() {
        for text in [r#"{"ping":1e3}"#, r#"{"ping":1000.0}"#] {
            assert_eq!(request(text), signal_request::Message::Ping(1000), "{text}");
        }
        assert!(signal_request_from_json(r#"{"ping":1.5}"#).is_err());
    }

    #[test]
    fn an_unknown_request_has_no_message() {
        assert_eq!(signal_request_from_json(r#"{"brandNew":{}}"#).unwrap().message, None);
        assert!(signal_request_from_json("{").is_err());
        assert!(signal_request_from_json(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn writes_camel_case_without_defaults() {
        let join = JoinResponse {
            room: Some(Room {
                creation_time_ms: 5,
                ..Default::default()
            }),
            ping_interval: 5,
            ..Default::default()
        };
        let message = SignalResponse {
            message: Some(signal_response::Message::Join(join)),
        };
        assert_eq!(
            signal_response_to_json(&message).unwrap(),
            r#"{"join":{"room":{"creationTimeMs":"5"},"pingInterval":5}}"#
        );
        let leave = LeaveRequest {
            action: leave_request::Action::Reconnect as i32,
            ..Default::default()
        };
        let message = SignalResponse {
            message: Some(signal_response::Message::Leave(leave)),
        };
        assert_eq!(
            signal_response_to_json(&message).unwrap(),
            r#"{"leave":{"action":"RECONNECT"}}"#
        );
    }
}
