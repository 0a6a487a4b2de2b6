//! Calls of a backend to a method that a participant has registered: the server takes the part of the calling client.
//!
//! A call is a reliable packet to the participant, whose acknowledgement and response are addressed to the call's id
//! as to a participant; the shard gives those to us (`Command::AwaitRpc`) and forwards them to nobody.

use std::time::{Duration, Instant};

use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::{DataPacket, PerformRpcRequest, RpcError, RpcRequest, rpc_response};
use prost::Message as _;

use crate::media::edge::Command;
use crate::types::{Identity, ParticipantHandle};

use super::administration::AdministrationError;
use super::output::Output;
use super::room::Room;

/// LiveKit's protocol of these packets that any client reads.
const VERSION: u32 = 1;
/// LiveKit: no acknowledgement by then means that nobody is there.
const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Where the request sets no time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer ones are cut to it: a call holds a request of the backend.
const MAX_RESPONSE_TIMEOUT: Duration = Duration::from_secs(110);
/// Bytes. LiveKit's clients send no more in one packet.
const MAX_PAYLOAD: usize = 15_360;
/// Calls of one room under way. Further ones are refused.
const MAX_CALLS: usize = 256;

/// LiveKit's numbers and texts; a participant's own errors have theirs.
fn fault(code: u32) -> RpcError {
    let message = match code {
        1402 => "Request payload too large",
        1501 => "Connection timeout",
        1502 => "Response timeout",
        1503 => "Recipient disconnected",
        _ => "Application error in method handler",
    };
    RpcError {
        code,
        message: message.into(),
        data: String::new(),
    }
}

/// One call under way.
#[derive(Debug)]
pub(super) struct Call {
    id: String,
    participant: ParticipantHandle,
    /// None once it is acknowledged.
    acknowledge_by: Option<Instant>,
    respond_by: Instant,
}

impl Call {
    fn due(&self) -> Instant {
        self.acknowledge_by
            .map_or(self.respond_by, |at| at.min(self.respond_by))
    }
}

impl Room {
    /// Starts a call. Its id comes with `Output::RpcAnswered`, unless the room ends first.
    pub fn perform_rpc(&mut self, now: Instant, request: PerformRpcRequest) -> Result<String, AdministrationError> {
        let participant = self.find(&Identity(request.destination_identity))?;
        if self.calls.len() >= MAX_CALLS {
            return Err(AdministrationError::TooManyCalls);
        }
        let id = self.ids.call_id();
        if request.payload.len() > MAX_PAYLOAD {
            self.out.push(Output::RpcAnswered {
                call: id.clone(),
                answer: Err(Box::new(fault(1402))),
            });
            return Ok(id);
        }
        let timeout = match request.response_timeout_ms {
            0 => RESPONSE_TIMEOUT,
            wanted => Duration::from_millis(wanted.into()).min(MAX_RESPONSE_TIMEOUT),
        };
        self.calls.push(Call {
            id: id.clone(),
            participant,
            acknowledge_by: Some(now + ACK_TIMEOUT),
            respond_by: now + timeout,
        });
        self.out.media(Command::AwaitRpc {
            room: self.handle,
            call: id.clone(),
        });
        let packet = DataPacket {
            kind: Kind::Reliable as i32,
            participant_identity: id.clone(),
            value: Some(Value::RpcRequest(RpcRequest {
                id: id.clone(),
                method: request.method,
                payload: request.payload,
                response_timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
                version: VERSION,
                ..Default::default()
            })),
            ..Default::default()
        };
        self.out.media(Command::SendData {
            room: self.handle,
            to: vec![participant],
            reliable: true,
            packet: packet.encode_to_vec(),
        });
        Ok(id)
    }

    /// A packet of `participant` that is addressed to a call. Anybody may send such; only the one who was called counts.
    pub(super) fn rpc_answered(&mut self, participant: ParticipantHandle, packet: &[u8]) {
        let Ok(packet) = DataPacket::decode(packet) else { return };
        let position = |calls: &[Call], id: &str| {
            let is_it = |call: &Call| call.id == id && call.participant == participant;
            calls.iter().position(is_it)
        };
        match packet.value {
            Some(Value::RpcAck(ack)) => {
                if let Some(at) = position(&self.calls, &ack.request_id) {
                    self.calls[at].acknowledge_by = None;
                }
            }
            Some(Value::RpcResponse(response)) => {
                let Some(at) = position(&self.calls, &response.request_id) else {
                    return;
                };
                let answer = match response.value {
                    Some(rpc_response::Value::Payload(payload)) => Ok(payload),
                    Some(rpc_response::Value::Error(error)) => Err(error),
                    // Only for callers that have announced to read it, and an empty one is no answer.
                    Some(rpc_response::Value::CompressedPayload(_)) | None => Err(fault(1500)),
                };
                self.end_call(at, answer);
            }
            _ => {}
        }
    }

    fn end_call(&mut self, at: usize, answer: Result<String, RpcError>) {
        let call = self.calls.remove(at);
        self.out.media(Command::EndRpc {
            room: self.handle,
            call: call.id.clone(),
        });
        self.out.push(Output::RpcAnswered {
            call: call.id,
            answer: answer.map_err(Box::new),
        });
    }

    /// The participant has left.
    pub(super) fn end_calls_to(&mut self, participant: ParticipantHandle) {
        while let Some(at) = self.calls.iter().position(|call| call.participant == participant) {
            self.end_call(at, Err(fault(1503)));
        }
    }

    pub(super) fn next_call_timeout(&self) -> Option<Instant> {
        self.calls.iter().map(Call::due).min()
    }

    pub(super) fn end_late_calls(&mut self, now: Instant) {
        while let Some(at) = self.calls.iter().position(|call| call.due() <= now) {
            let unheard = self.calls[at].acknowledge_by.is_some_and(|by| by <= now);
            self.end_call(at, Err(fault(if unheard { 1501 } else { 1502 })));
        }
    }
}
