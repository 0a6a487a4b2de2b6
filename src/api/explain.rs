//! `GET /debug/rooms/{room}/explain` and `…/{room}/participants/{identity}/explain`: who is sent which layer of what, why
//! not a better one, and how it arrives, as JSON.
//!
//! Owns the path, the right (`roomAdmin` of that room), the form and the sentences; the node has the facts.

use std::time::Duration;

use axum::Json;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::text;
use crate::node::{
    Decision, EncodingReport, ExplainError, LayerReason, LayerState, Node, ParticipantExplanation, PublishedTrack,
    ReceivedTrack, ReceptionReport, RoomExplanation, TrackNames, WaitingReason, WaitingTrack,
};
use crate::proto::claims::Claims;
use crate::types::{Bitrate, Layer, MediaKind};

pub const PREFIX: &str = "/debug/rooms/";

/// What is asked about.
#[derive(Debug, PartialEq, Eq)]
struct Subject {
    room: String,
    identity: Option<String>,
}

impl Subject {
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix(PREFIX)?.split('/').collect();
        match parts.as_slice() {
            [room, "explain"] => Some(Self {
                room: decode(room)?,
                identity: None,
            }),
            [room, "participants", identity, "explain"] => Some(Self {
                room: decode(room)?,
                identity: Some(decode(identity)?),
            }),
            _ => None,
        }
    }
}

/// RFC 3986 §2.1. None where the escapes are broken or do not spell UTF-8.
fn decode(part: &str) -> Option<String> {
    let mut bytes = part.bytes();
    let mut decoded = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Answers a request below `PREFIX`. `path` is as it was sent, percent-encoded.
pub async fn answer(node: &Node, claims: Option<&Claims>, path: &str, parts: &Parts) -> Response {
    let Some(subject) = Subject::of(path) else {
        return super::not_found();
    };
    if parts.method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed");
    }
    let Some(claims) = claims else {
        return text(StatusCode::UNAUTHORIZED, "permissions denied");
    };
    let grant = claims.video.as_ref();
    if !grant.is_some_and(|grant| grant.room_admin && grant.room == subject.room) {
        return text(StatusCode::FORBIDDEN, "the token must hold roomAdmin for this room");
    }
    match node.explain(&subject.room, subject.identity.as_deref()).await {
        Ok(explanation) => Json(of_room(&explanation)).into_response(),
        Err(error) => {
            let status = match error {
                ExplainError::NoRoom | ExplainError::NoParticipant => StatusCode::NOT_FOUND,
                ExplainError::NoAnswer => StatusCode::SERVICE_UNAVAILABLE,
            };
            text(status, error.to_string())
        }
    }
}

fn of_room(room: &RoomExplanation) -> Value {
    json!({
        "room": room.name.as_str(),
        "sid": room.sid.as_str(),
        "truncated": room.truncated,
        "participants": room.participants.iter().map(of_participant).collect::<Vec<_>>(),
    })
}

fn of_participant(participant: &ParticipantExplanation) -> Value {
    json!({
        "identity": participant.identity.as_str(),
        "sid": participant.sid.as_str(),
        "reception": participant.reception.as_ref().map(of_reception),
        "receives": participant.receives.iter().map(of_received).collect::<Vec<_>>(),
        "waits_for": participant.waits.iter().map(of_waiting).collect::<Vec<_>>(),
        "publishes": participant.publishes.iter().map(of_published).collect::<Vec<_>>(),
    })
}

fn of_reception(reception: &ReceptionReport) -> Value {
    json!({
        "shard": reception.shard.0,
        "connected": reception.connected,
        "estimate_kbps": kbps(reception.estimate),
        "budget_kbps": kbps(reception.budget),
        "allocated_kbps": reception.allocated.as_kbps(),
        "wanted_kbps": reception.wanted.as_kbps(),
        "cap_kbps": kbps(reception.max_bitrate),
        "may_pause": reception.may_pause,
        "rtt_ms": reception.rtt.map(ms),
        "loss": rounded(reception.loss),
        "queued_packets": reception.queued_packets,
        "queue_ms": ms(reception.queue_delay),
    })
}

fn of_received(received: &ReceivedTrack) -> Value {
    let (track, report) = (&received.track, &received.report);
    let mut value = of_track(track);
    extend(&mut value, of_layers(track, &report.layers));
    extend(
        &mut value,
        json!({
            "explanation": sentence(&report.layers),
            "priority": report.priority,
            "rtt_ms": report.rtt.map(ms),
            "loss": rounded(report.fraction_lost),
            "lost": report.lost,
            "jitter_ms": ms(report.jitter),
            "packets": report.packets,
            "bytes": report.bytes,
            "nacked": report.repair.nacked,
            "retransmitted": report.repair.retransmitted,
            "keyframe_requests": report.repair.keyframe_requests,
            "keyframe_replays": report.repair.keyframe_replays,
            "freezes": report.freezes,
            "frozen_ms": ms(report.frozen),
            "mos": rounded(report.score.mos),
            "lost_connection": report.score.lost,
            "arrives": received.arrives.iter().map(of_encoding).collect::<Vec<_>>(),
            "decisions": report.decisions.iter().map(|decision| of_decision(track, decision)).collect::<Vec<_>>(),
        }),
    );
    value
}

fn of_decision(track: &TrackNames, decision: &Decision) -> Value {
    let mut value = of_layers(track, &decision.layers);
    extend(
        &mut value,
        json!({ "ago_ms": ms(decision.age), "estimate_kbps": kbps(decision.estimate) }),
    );
    value
}

fn of_layers(track: &TrackNames, layers: &LayerState) -> Value {
    let layer = |layer: Option<Layer>| layer.map(|layer| of_layer(track, layer));
    json!({
        "wanted": layer(layers.wanted),
        "target": layer(layers.target),
        "sent": layer(layers.sent),
        "reason": layers.reason.as_str(),
    })
}

/// Sound has one layer, which needs no name.
fn of_layer(track: &TrackNames, layer: Layer) -> Value {
    let mut value = json!({ "spatial": layer.spatial, "temporal": layer.temporal });
    let declared = track.layers.get(usize::from(layer.spatial));
    if let Some(declared) = declared.filter(|_| track.kind == MediaKind::Video) {
        let named = json!({
            "quality": declared.quality.as_str_name(),
            "width": declared.width,
            "height": declared.height,
        });
        extend(&mut value, named);
    }
    value
}

fn of_waiting(waiting: &WaitingTrack) -> Value {
    let (reason, sentence) = match waiting.reason {
        WaitingReason::Negotiating => ("negotiating", "Its place in the connection is being negotiated."),
        WaitingReason::AwaitingCodec => (
            "awaiting_codec",
            "The publisher was asked for a codec that this participant can receive.",
        ),
        WaitingReason::NotAllowed => ("not_allowed", "The publisher does not let this participant have it."),
        WaitingReason::Limit => (
            "subscription_limit",
            "The participant has as many tracks as the server's limit lets it have.",
        ),
    };
    let mut value = of_track(&waiting.track);
    extend(&mut value, json!({ "reason": reason, "explanation": sentence }));
    value
}

fn of_published(published: &PublishedTrack) -> Value {
    let report = &published.report;
    let mut value = of_track(&published.track);
    extend(
        &mut value,
        json!({
            "muted": report.muted,
            "subscribers": report.subscribers,
            "mos": rounded(report.score.mos),
            "lost_connection": report.score.lost,
            "encodings": report.encodings.iter().map(of_encoding).collect::<Vec<_>>(),
        }),
    );
    value
}

fn of_encoding(encoding: &EncodingReport) -> Value {
    json!({
        "rid": encoding.rid.map(|rid| rid.to_string()),
        "ssrc": encoding.ssrc.map(|ssrc| ssrc.0),
        "codec": encoding.codec.map(|codec| codec.rtpmap_name()),
        "flowing": encoding.is_flowing,
        "kbps": encoding.rate.as_kbps(),
        "packets": encoding.packets,
        "bytes": encoding.bytes,
        "lost": encoding.lost,
        "recovered": encoding.recovered,
        "nacked": encoding.nacked,
        "jitter_ms": ms(encoding.jitter),
        "keyframe_requests": encoding.keyframe_requests,
    })
}

fn of_track(track: &TrackNames) -> Value {
    json!({
        "track_sid": track.sid.as_str(),
        "track_name": track.name,
        "kind": match track.kind { MediaKind::Audio => "audio", MediaKind::Video => "video" },
        "source": track.source.as_str_name(),
        "codec": track.codec.map(|codec| codec.rtpmap_name()),
        "publisher_identity": track.publisher.as_str(),
        "publisher_sid": track.publisher_sid.as_str(),
    })
}

/// Puts the members of one object into another.
fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

fn kbps(rate: Option<Bitrate>) -> Option<u64> {
    rate.map(Bitrate::as_kbps)
}

/// Milliseconds, to a tenth.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

fn rounded(number: f32) -> f64 {
    (f64::from(number) * 1000.0).round() / 1000.0
}

fn sentence(layers: &LayerState) -> &'static str {
    match layers.reason {
        LayerReason::NotSent if layers.sent.is_none() => "The publisher sends nothing now.",
        LayerReason::Best => "This is the best there is.",
        LayerReason::ClientAskedLess => "The viewer asks for no more: its picture is small, or it chose so.",
        LayerReason::NotSent => "The publisher sends nothing better now.",
        LayerReason::Bandwidth => "Nothing better fits the bandwidth to this participant.",
        LayerReason::ParticipantCap => "Nothing better fits the bit rate that this participant is limited to.",
        LayerReason::AwaitingKeyframe => "A better layer begins with its next key frame.",
        LayerReason::Muted => "The publisher has muted it.",
        LayerReason::Paused => "Not even its lowest layer fits the bandwidth: it is paused.",
        LayerReason::Disabled => "The viewer wants nothing of it now: it is out of sight or turned off.",
        LayerReason::CodecNotNegotiated => "The viewer can receive none of the codecs that come.",
        LayerReason::NotConnected => "The viewer's connection for media is not up.",
        LayerReason::NotLoudest => "Others are louder, and only the loudest are sent in this room.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_room_and_perhaps_a_participant() {
        let subject = |room: &str, identity: Option<&str>| {
            Some(Subject {
                room: room.into(),
                identity: identity.map(str::to_owned),
            })
        };
        assert_eq!(Subject::of("/debug/rooms/demo/explain"), subject("demo", None));
        assert_eq!(
            Subject::of("/debug/rooms/a%2Fb%20c/participants/d%C3%A9j%C3%A0/explain"),
            subject("a/b c", Some("déjà"))
        );
        for nothing in [
            "/debug/rooms/demo",
            "/debug/rooms/demo/explain/more",
            "/debug/rooms/demo/participants/bob",
            "/debug/rooms/%ff/explain",
        ] {
            assert_eq!(Subject::of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn every_reason_has_a_sentence_of_its_own() {
        let sent = [Some(Layer::default()), None];
        let states = LayerReason::ALL.into_iter().flat_map(|reason| {
            sent.map(|sent| LayerState {
                sent,
                reason,
                ..LayerState::default()
            })
        });
        let mut sentences: Vec<&str> = states.map(|state| sentence(&state)).collect();
        sentences.sort_unstable();
        sentences.dedup();
        assert_eq!(sentences.len(), LayerReason::ALL.len() + 1, "two of what is not sent");
    }
}
