//! The JSON forms of LiveKit's messages. Signalling, as LiveKit's server reads and writes it in WebSocket text frames:
//! protobuf's JSON mapping with camelCase names, defaults left out, 64-bit integers as strings. Answers of the server
//! APIs and webhooks: `render`.
//!
//! Input is read as LiveKit's protojson reads it: camelCase or snake_case names, enums as names or numbers, unknown fields
//! and unknown enum values ignored, `null` = not there.

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
    match T::deserialize(&value) {
        Ok(read) => Ok(read),
        Err(error) => Ok(read_without_unknown(value, &error).ok_or(error)?),
    }
}

/// Enum values of a later protocol in one message; with more of them it is refused. Each costs a few readings of it.
const MAX_UNKNOWN: usize = 8;
/// Places where the same word may stand that are looked at.
const MAX_PLACES: usize = 16;

/// `value` without the enum values that its type does not know. The generated code says which word it stumbles over, not
/// where that stands: the place is the one without which it gets further.
fn read_without_unknown<T: DeserializeOwned>(mut value: Value, error: &serde_json::Error) -> Option<T> {
    let mut stumbles_over = error.to_string();
    for _ in 0..MAX_UNKNOWN {
        let unknown = unknown_value(&stumbles_over)?;
        let mut places = 0..MAX_PLACES;
        let (without, result) = places.find_map(|place| {
            let mut without = value.clone();
            let mut left = place;
            if !remove(&mut without, &unknown, &mut left) {
                return None;
            }
            match T::deserialize(&without) {
                Ok(read) => Some((without, Ok(read))),
                Err(error) if error.to_string() == stumbles_over => None,
                Err(error) => Some((without, Err(error))),
            }
        })?;
        match result {
            Ok(read) => return Some(read),
            Err(error) => (value, stumbles_over) = (without, error.to_string()),
        }
    }
    None
}

/// The name or number that an error of the generated code is about.
fn unknown_value(error: &str) -> Option<Value> {
    let quoted = |rest: &str| Some(rest.split_once('`')?.0.to_owned());
    if let Some(rest) = error.strip_prefix("unknown variant `") {
        return quoted(rest).map(Value::String);
    }
    let number = quoted(error.strip_prefix("invalid value: integer `")?)?;
    Some(Value::Number(number.parse::<i64>().ok()?.into()))
}

/// Takes `unknown` away at the place of that number, counted from 0. False: there are fewer.
fn remove(value: &mut Value, unknown: &Value, place: &mut usize) -> bool {
    let is_it = |item: &Value, place: &mut usize| {
        if item != unknown {
            return false;
        }
        let is_it = *place == 0;
        *place = place.saturating_sub(1);
        is_it
    };
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields
                .iter()
                .find_map(|(name, item)| is_it(item, place).then(|| name.clone()))
            {
                return fields.remove(&name).is_some();
            }
            fields.values_mut().any(|field| remove(field, unknown, place))
        }
        Value::Array(items) => {
            if let Some(at) = items.iter().position(|item| is_it(item, place)) {
                items.remove(at);
                return true;
            }
            items.iter_mut().any(|item| remove(item, unknown, place))
        }
        _ => false,
    }
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
    fn enum_values_of_later_protocols_are_left_out() {
        for source in ["\"HOLOGRAM\"", "77"] {
            let text = format!(
                r#"{{"addTrack":{{"cid":"HOLOGRAM","width":77,"source":{source},"type":"VIDEO","audioFeatures":["TF_STEREO","TF_SMELL","TF_NO_DTX"],"encryption":{source}}}}}"#
            );
            let signal_request::Message::AddTrack(read) = request(&text) else {
                panic!("{text}");
            };
            assert_eq!((read.cid.as_str(), read.width, read.source), ("HOLOGRAM", 77, 0));
            assert_eq!((read.r#type, read.encryption, read.audio_features.len()), (1, 0, 2));
        }
        let many = vec!["\"X\""; 20].join(",");
        let text = format!(r#"{{"addTrack":{{"audioFeatures":[{many}]}}}}"#);
        assert!(signal_request_from_json(&text).is_err(), "too many");
        assert!(signal_request_from_json(r#"{"addTrack":{"width":"HOLOGRAM"}}"#).is_err());
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
