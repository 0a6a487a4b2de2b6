//! JSON of the server APIs and webhooks, written from a message's protobuf form and the tables in `schema`.
//!
//! The generated serde code of `livekit-protocol` leaves zero values out and fails on an enum number it does not know,
//! which a client may have put into its own description; LiveKit's server writes zero values and numbers. Only our own
//! encodings are read here: what cannot be read is left out.

use std::fmt::Write as _;

/// Which of LiveKit's two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Twirp answers: snake_case, zero values written, `null` for an absent message.
    Api,
    /// Webhooks: camelCase, zero values left out.
    Webhook,
}

/// A message whose fields are in the tables.
pub trait Described: prost::Message {
    const SCHEMA: &'static Message;
}

/// Compact JSON; fields in the order of their declaration, map entries in that of their keys.
pub fn render<M: Described>(message: &M, form: Form) -> String {
    let mut out = String::new();
    write_message(&mut out, &message.encode_to_vec(), M::SCHEMA, form);
    out
}

#[derive(Debug)]
pub struct Message(pub(super) &'static [Field]);

#[derive(Debug)]
pub struct Enum(pub(super) &'static [(i32, &'static str)]);

/// Those that the tables have.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Double,
    Text,
    Named(&'static Enum),
    Nested(&'static Message),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Single,
    /// Explicit presence: left out when it is not there, in both forms.
    Optional,
    Repeated,
    Map,
}

#[derive(Debug)]
pub struct Field {
    number: u32,
    name: &'static str,
    kind: Kind,
    shape: Shape,
}

const fn field(number: u32, name: &'static str, kind: Kind, shape: Shape) -> Field {
    Field {
        number,
        name,
        kind,
        shape,
    }
}

pub(super) const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    field(number, name, kind, Shape::Single)
}

pub(super) const fn maybe(number: u32, name: &'static str, kind: Kind) -> Field {
    field(number, name, kind, Shape::Optional)
}

pub(super) const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    field(number, name, kind, Shape::Repeated)
}

/// From strings.
pub(super) const fn map(number: u32, name: &'static str, kind: Kind) -> Field {
    field(number, name, kind, Shape::Map)
}

macro_rules! described {
    ($($message:ident => $schema:ident,)*) => {
        $(impl super::render::Described for crate::proto::livekit::$message {
            const SCHEMA: &'static Message = &$schema;
        })*
    };
}
pub(super) use described;

/// One value as it stands in a protobuf encoding.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

fn write_message(out: &mut String, bytes: &[u8], schema: &Message, form: Form) {
    let present = fields_of(bytes);
    let values = |number: u32| {
        present
            .iter()
            .filter(move |(found, _)| *found == number)
            .map(|(_, wire)| *wire)
    };
    out.push('{');
    let mut separator = "";
    for field in schema.0 {
        let mut values = values(field.number).peekable();
        let required = form == Form::Api && field.shape != Shape::Optional;
        if values.peek().is_none() && !required {
            continue;
        }
        out.push_str(separator);
        separator = ",";
        write_name(out, field.name, form);
        out.push(':');
        match field.shape {
            Shape::Single | Shape::Optional => write_value(out, values.last(), field.kind, form),
            Shape::Repeated => write_list(out, values, field.kind, form),
            Shape::Map => write_map(out, values, field.kind, form),
        }
    }
    out.push('}');
}

fn write_list<'a>(out: &mut String, values: impl Iterator<Item = Wire<'a>>, kind: Kind, form: Form) {
    out.push('[');
    let mut separator = "";
    for wire in values {
        for value in unpacked(wire, kind) {
            out.push_str(separator);
            separator = ",";
            write_value(out, Some(value), kind, form);
        }
    }
    out.push(']');
}

/// proto3: lists of numbers are one length-delimited run.
fn unpacked(wire: Wire<'_>, kind: Kind) -> Vec<Wire<'_>> {
    let (Wire::Bytes(mut rest), false) = (wire, matches!(kind, Kind::Text | Kind::Nested(_))) else {
        return vec![wire];
    };
    let wire_type = match kind {
        Kind::Double => 1,
        _ => 0,
    };
    std::iter::from_fn(|| value_of(&mut rest, wire_type)).collect()
}

fn write_map<'a>(out: &mut String, entries: impl Iterator<Item = Wire<'a>>, kind: Kind, form: Form) {
    let mut sorted: Vec<(String, Option<Wire<'a>>)> = entries
        .map(|entry| {
            let fields = fields_of(entry.bytes());
            let find = |number: u32| fields.iter().find(|(found, _)| *found == number).map(|(_, wire)| *wire);
            let key = find(1).map(Wire::bytes).unwrap_or_default();
            (String::from_utf8_lossy(key).into_owned(), find(2))
        })
        .collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.push('{');
    let mut separator = "";
    for (key, value) in sorted {
        out.push_str(separator);
        separator = ",";
        write_text(out, &key);
        out.push(':');
        match (value, kind) {
            (None, Kind::Nested(schema)) => write_message(out, &[], schema, form),
            (value, kind) => write_value(out, value, kind, form),
        }
    }
    out.push('}');
}

/// None = the zero value.
fn write_value(out: &mut String, value: Option<Wire<'_>>, kind: Kind, form: Form) {
    let number = match value {
        Some(Wire::Varint(number) | Wire::Fixed64(number)) => number,
        Some(Wire::Fixed32(number)) => u64::from(number),
        _ => 0,
    };
    let bytes = value.map(Wire::bytes).unwrap_or_default();
    // Writing to a String does not fail. Negative 32-bit numbers are sign-extended to 64 bits on the wire.
    let _ = match kind {
        Kind::Bool => write!(out, "{}", number != 0),
        Kind::Int32 => write!(out, "{}", number as i32),
        Kind::Uint32 => write!(out, "{}", number as u32),
        // protojson: JavaScript's numbers do not hold 64 bits.
        Kind::Int64 => write!(out, "\"{}\"", number as i64),
        Kind::Double => {
            write_float(out, f64::from_bits(number));
            Ok(())
        }
        Kind::Text => {
            write_text(out, &String::from_utf8_lossy(bytes));
            Ok(())
        }
        Kind::Named(names) => match names.0.iter().find(|(known, _)| *known == number as i32) {
            Some((_, name)) => write!(out, "\"{name}\""),
            None => write!(out, "{}", number as i32),
        },
        Kind::Nested(schema) => {
            match value {
                Some(_) => write_message(out, bytes, schema, form),
                None => out.push_str("null"),
            }
            Ok(())
        }
    };
}

fn write_float(out: &mut String, number: f64) {
    let _ = if number.is_finite() {
        write!(out, "{number}")
    } else if number.is_nan() {
        write!(out, "\"NaN\"")
    } else {
        write!(out, "\"{}Infinity\"", if number > 0.0 { "" } else { "-" })
    };
}

fn write_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn write_name(out: &mut String, name: &str, form: Form) {
    out.push('"');
    let mut raised = false;
    for c in name.chars() {
        match c {
            '_' if form == Form::Webhook => raised = true,
            c => {
                out.push(if raised { c.to_ascii_uppercase() } else { c });
                raised = false;
            }
        }
    }
    out.push('"');
}

fn fields_of(mut bytes: &[u8]) -> Vec<(u32, Wire<'_>)> {
    std::iter::from_fn(|| {
        let tag = varint(&mut bytes)?;
        Some((u32::try_from(tag >> 3).ok()?, value_of(&mut bytes, tag & 7)?))
    })
    .collect()
}

fn value_of<'a>(bytes: &mut &'a [u8], wire_type: u64) -> Option<Wire<'a>> {
    match wire_type {
        0 => varint(bytes).map(Wire::Varint),
        1 => {
            let (value, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(Wire::Fixed64(u64::from_le_bytes(*value)))
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(Wire::Bytes(value))
        }
        5 => {
            let (value, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(Wire::Fixed32(u32::from_le_bytes(*value)))
        }
        _ => None,
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(deprecated)] // fields that clients in use still read
mod tests {
    use super::*;
    use crate::proto::livekit::{
        AgentDispatch, EgressInfo, MuteRoomTrackResponse, ParticipantInfo, ParticipantPermission, Room, TrackInfo,
        WebhookEvent, egress_info, participant_info,
    };

    #[test]
    fn an_empty_message_has_every_zero_value_in_an_answer_and_none_in_a_webhook() {
        assert_eq!(
            render(&Room::default(), Form::Api),
            r#"{"sid":"","name":"","empty_timeout":0,"departure_timeout":0,"max_participants":0,"creation_time":"0","creation_time_ms":"0","turn_password":"","enabled_codecs":[],"metadata":"","num_participants":0,"num_publishers":0,"active_recording":false,"version":null}"#
        );
        assert_eq!(render(&Room::default(), Form::Webhook), "{}");
        assert_eq!(
            render(&MuteRoomTrackResponse::default(), Form::Api),
            r#"{"track":null}"#
        );
    }

    #[test]
    fn every_kind_of_value_is_written_as_protojson_writes_it() {
        let participant = ParticipantInfo {
            identity: "a \"quoted\"\nname \u{1f600}".into(),
            state: participant_info::State::Active as i32,
            joined_at_ms: -5,
            permission: Some(ParticipantPermission {
                can_publish_sources: vec![2, 1, 99],
                ..Default::default()
            }),
            attributes: [("b", "2"), ("a", "")].map(|(k, v)| (k.into(), v.into())).into(),
            kind_details: vec![1],
            ..Default::default()
        };
        assert_eq!(
            render(&participant, Form::Webhook),
            r#"{"identity":"a \"quoted\"\nname 😀","state":"ACTIVE","joinedAtMs":"-5","permission":{"canPublishSources":["MICROPHONE","CAMERA",99]},"attributes":{"a":"","b":"2"},"kindDetails":["FORWARDED"]}"#
        );
        let egress = EgressInfo {
            status: 99,
            request: Some(egress_info::Request::Web(Default::default())),
            ..Default::default()
        };
        assert_eq!(render(&egress, Form::Webhook), r#"{"status":99,"web":{}}"#);
        let answer = render(&egress, Form::Api);
        assert!(
            answer.contains(r#""status":99"#) && !answer.contains("\"track\""),
            "{answer}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok());
    }

    /// What the generated code reads back is what was written, for messages with something in every field.
    #[test]
    fn answers_are_read_back_as_they_were() {
        fn there_and_back<M: Described + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(message: M) {
            for form in [Form::Api, Form::Webhook] {
                let text = render(&message, form);
                let read: M = crate::proto::json::from_json(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert_eq!(read, message, "{text}");
            }
        }
        let track = TrackInfo {
            sid: "TR_1".into(),
            width: 640,
            layers: vec![Default::default(), Default::default()],
            audio_features: vec![0, 3],
            version: Some(crate::proto::livekit::TimedVersion {
                unix_micro: 1_795_238_649_309_417,
                ticks: 3,
            }),
            ..Default::default()
        };
        there_and_back(track.clone());
        there_and_back(WebhookEvent {
            event: "track_published".into(),
            track: Some(track),
            room: Some(Room {
                enabled_codecs: vec![Default::default()],
                ..Default::default()
            }),
            created_at: i64::MAX,
            ..Default::default()
        });
        there_and_back(AgentDispatch {
            attributes: [("k".to_owned(), "v".to_owned())].into(),
            state: Some(Default::default()),
            ..Default::default()
        });
    }
}
