//! Services whose workers this server does not have: it answers as a LiveKit server without them does.

use super::endpoint::{Answering, Call, Method, Right, Scope};
use super::error::{Code, TwirpError};

const EGRESS: &str = "livekit.Egress";
const INGRESS: &str = "livekit.Ingress";
const SIP: &str = "livekit.SIP";

pub(super) const METHODS: &[Method] = &[
    egress("StartEgress", no_recorder),
    egress("StartRoomCompositeEgress", no_recorder),
    egress("StartWebEgress", no_recorder),
    egress("StartParticipantEgress", no_recorder),
    egress("StartTrackCompositeEgress", no_recorder),
    egress("StartTrackEgress", no_recorder),
    egress("UpdateLayout", no_egress),
    egress("UpdateStream", no_egress),
    egress("ListEgress", no_egress),
    egress("StopEgress", no_egress),
    ingress("CreateIngress"),
    ingress("UpdateIngress"),
    ingress("ListIngress"),
    ingress("DeleteIngress"),
    sip("ListSIPTrunk"),
    sip("CreateSIPInboundTrunk"),
    sip("CreateSIPOutboundTrunk"),
    sip("UpdateSIPInboundTrunk"),
    sip("UpdateSIPOutboundTrunk"),
    sip("GetSIPInboundTrunk"),
    sip("GetSIPOutboundTrunk"),
    sip("ListSIPInboundTrunk"),
    sip("ListSIPOutboundTrunk"),
    sip("DeleteSIPTrunk"),
    sip("CreateSIPDispatchRule"),
    sip("UpdateSIPDispatchRule"),
    sip("ListSIPDispatchRule"),
    sip("DeleteSIPDispatchRule"),
    absent(SIP, "CreateSIPParticipant", Right::SipCall, no_calls),
    absent(SIP, "TransferSIPParticipant", Right::SipCall, no_calls),
];

const fn egress(name: &'static str, run: fn(Call) -> Answering) -> Method {
    absent(EGRESS, name, Right::RoomRecord, run)
}

const fn ingress(name: &'static str) -> Method {
    absent(INGRESS, name, Right::IngressAdmin, no_ingress)
}

const fn sip(name: &'static str) -> Method {
    absent(SIP, name, Right::SipAdmin, no_trunks)
}

const fn absent(service: &'static str, name: &'static str, right: Right, run: fn(Call) -> Answering) -> Method {
    Method {
        service,
        name,
        right,
        run,
    }
}

/// LiveKit asks its message bus for a recorder, for some 20 seconds; the answer is known at once here.
fn no_recorder(call: Call) -> Answering {
    refuse(&call, Right::RoomRecord, TwirpError::nobody_answers())
}

fn no_egress(call: Call) -> Answering {
    refuse(&call, Right::RoomRecord, not_connected("egress"))
}

fn no_ingress(call: Call) -> Answering {
    refuse(&call, Right::IngressAdmin, not_connected("ingress"))
}

fn no_trunks(call: Call) -> Answering {
    refuse(&call, Right::SipAdmin, not_connected("sip"))
}

fn no_calls(call: Call) -> Answering {
    refuse(&call, Right::SipCall, not_connected("sip"))
}

fn refuse(call: &Call, right: Right, fault: TwirpError) -> Answering {
    let fault = match right.is_given(&call.claims, Scope::default()) {
        true => fault,
        false => TwirpError::denied(),
    };
    Box::pin(std::future::ready(Err(fault)))
}

/// LiveKit: its workers are reached through Redis, and clients know this text.
fn not_connected(service: &str) -> TwirpError {
    TwirpError::service(Code::Internal, format_args!("{service} not connected (redis required)"))
}
