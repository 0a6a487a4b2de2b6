//! Frames of the signalling WebSocket: protobuf in binary ones, its JSON form in text ones.

use axum::body::Bytes;
use axum::extract::ws::Message;
use axum::http::Uri;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::auth::query_pairs;
use crate::proto::json::{from_json, to_json};
use crate::proto::livekit::{SignalRequest, SignalResponse};

/// What the next message to this client is written as. Starts in binary; the client's latest frame decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    #[default]
    Binary,
    Json,
}

/// One frame from the client, as far as it concerns a session.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming<M = SignalRequest> {
    Request(Box<M>),
    /// Not protobuf, or not JSON: LiveKit ends the connection.
    Undecodable,
    /// Ping or pong; the socket has answered already.
    Control,
    Closed,
}

impl Encoding {
    /// What the first message is written as. `format=json` asks for the JSON form from the start, for clients without
    /// protobuf such as the built-in page; LiveKit, which has no such parameter, always begins in binary.
    pub(super) fn asked_for(uri: &Uri) -> Self {
        let json = query_pairs(uri)
            .iter()
            .any(|(name, value)| name == "format" && value == "json");
        if json { Self::Json } else { Self::Binary }
    }

    /// Reads a frame and takes its form for the answers.
    pub(super) fn read(&mut self, frame: &Message) -> Incoming {
        self.read_message(frame)
    }

    /// As `read`, of any message.
    pub(super) fn read_message<M: prost::Message + Default + DeserializeOwned>(
        &mut self,
        frame: &Message,
    ) -> Incoming<M> {
        let request = match frame {
            Message::Binary(bytes) => {
                *self = Self::Binary;
                M::decode(bytes.as_ref()).ok()
            }
            Message::Text(text) => {
                *self = Self::Json;
                from_json(text).ok()
            }
            Message::Ping(_) | Message::Pong(_) => return Incoming::Control,
            Message::Close(_) => return Incoming::Closed,
        };
        request.map_or(Incoming::Undecodable, |request| Incoming::Request(Box::new(request)))
    }

    /// None for a message that has no JSON form (an enum number its type does not know).
    pub(super) fn write(self, message: &SignalResponse) -> Option<Message> {
        self.write_message(message)
    }

    /// As `write`, of any message.
    pub(super) fn write_message<M: prost::Message + Serialize>(self, message: &M) -> Option<Message> {
        match self {
            Self::Binary => Some(Message::Binary(Bytes::from(message.encode_to_vec()))),
            Self::Json => to_json(message).ok().map(|text| Message::Text(text.into())),
        }
    }
}
