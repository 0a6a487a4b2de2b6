//! One method of a service: its right, its messages, and the way from a body to an answer.

use std::future::Future;

use axum::body::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use serde::de::DeserializeOwned;

use super::error::{Code, TwirpError};
use crate::node::Node;
use crate::proto::claims::{Claims, VideoGrant};
use crate::proto::json::{Described, Form, from_value, render};

/// What a token must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    RoomCreate,
    RoomList,
    /// In the room that the request names.
    RoomAdmin,
    /// `RoomAdmin`, and `destinationRoom` is the one that the request names.
    RoomAdminTo,
    RoomRecord,
    IngressAdmin,
    SipAdmin,
    SipCall,
}

/// The rooms that a request names; empty where its method has none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scope<'a> {
    pub room: &'a str,
    pub destination: &'a str,
}

impl Right {
    pub(super) fn is_given(self, claims: &Claims, scope: Scope<'_>) -> bool {
        let video = |allows: fn(&VideoGrant) -> bool| claims.video.as_ref().is_some_and(allows);
        let admin = || {
            let is_of_room = |grant: &VideoGrant| grant.room_admin && grant.room == scope.room;
            claims.video.as_ref().is_some_and(is_of_room)
        };
        match self {
            Self::RoomCreate => video(|grant| grant.room_create),
            Self::RoomList => video(|grant| grant.room_list),
            Self::RoomAdmin => admin(),
            Self::RoomAdminTo => {
                let leads_there = |grant: &VideoGrant| grant.destination_room == scope.destination;
                admin() && claims.video.as_ref().is_some_and(leads_there)
            }
            Self::RoomRecord => video(|grant| grant.room_record),
            Self::IngressAdmin => video(|grant| grant.ingress_admin),
            Self::SipAdmin => claims.sip.as_ref().is_some_and(|grant| grant.admin),
            Self::SipCall => claims.sip.as_ref().is_some_and(|grant| grant.call),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Json,
    Protobuf,
}

impl Coding {
    /// LiveKit: parameters of the content type are passed over, its case too.
    pub fn of(content_type: &str) -> Option<Self> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/json" => Some(Self::Json),
            "application/protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/protobuf",
        }
    }

    fn decode<M: Message + Default + DeserializeOwned>(self, body: &Bytes) -> Result<M, TwirpError> {
        let malformed = |coding| TwirpError::new(Code::Malformed, format!("the {coding} request could not be decoded"));
        match self {
            Self::Json => serde_json::from_slice(body)
                .map_err(Into::into)
                .and_then(from_value)
                .map_err(|_| malformed("json")),
            Self::Protobuf => M::decode(body.clone()).map_err(|_| malformed("protobuf")),
        }
    }

    fn encode<M: Described>(self, answer: &M) -> Vec<u8> {
        match self {
            Self::Json => render(answer, Form::Api).into_bytes(),
            Self::Protobuf => answer.encode_to_vec(),
        }
    }
}

/// A request on its way to a method.
pub(super) struct Call {
    pub node: Node,
    pub claims: Claims,
    pub coding: Coding,
    pub body: Bytes,
}

pub(super) type Answering = BoxFuture<'static, Result<Vec<u8>, TwirpError>>;

/// One row of the table of methods.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    pub service: &'static str,
    pub name: &'static str,
    pub right: Right,
    pub(super) run: fn(Call) -> Answering,
}

pub(super) trait Endpoint: 'static {
    type Request: Message + Default + DeserializeOwned + Send;
    type Answer: Described;
    const RIGHT: Right;

    fn scope(_request: &Self::Request) -> Scope<'_> {
        Scope::default()
    }

    /// Called with the right checked.
    fn run(
        node: Node,
        claims: Claims,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Answer, TwirpError>> + Send;
}

pub(super) const fn method<E: Endpoint>(service: &'static str, name: &'static str) -> Method {
    Method {
        service,
        name,
        right: E::RIGHT,
        run: |call| Box::pin(run::<E>(call)),
    }
}

async fn run<E: Endpoint>(call: Call) -> Result<Vec<u8>, TwirpError> {
    let Call {
        node,
        claims,
        coding,
        body,
    } = call;
    let request: E::Request = coding.decode(&body)?;
    drop(body);
    if !E::RIGHT.is_given(&claims, E::scope(&request)) {
        return Err(TwirpError::denied());
    }
    let answer = E::run(node, claims, request).await?;
    Ok(coding.encode(&answer))
}
