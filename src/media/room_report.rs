//! The explanation of a room: who is sent what, why not more, and how it arrives.
//!
//! Collects what tracks, subscriptions and transports know of themselves, when control asks; changes nothing.

use std::time::{Duration, Instant};

use super::edge::Event;
use super::encoding::Encoding;
use super::explain::{
    EncodingReport, Explanation, LayerFacts, LayerReason, LayerState, ReceptionReport, SubscriptionReport, TrackReport,
};
use super::fanout::Fanout;
use super::layers::EVERYTHING;
use super::outside::Outside;
use super::slots::Slot;
use super::subscription::Subscription;
use super::track::Track;
use super::transport::MediaTransport;
use crate::types::{Bitrate, Layer, MediaKind, ParticipantHandle, ShardIndex};

/// Subscriptions in one report: about 5 MB with all their decisions. A larger room is asked about by participant; the
/// rest is left out, and the report says so.
const MAX_SUBSCRIPTIONS: usize = 2000;

impl Fanout {
    /// Answers `Command::Explain`.
    pub fn explain(&mut self, outside: &mut Outside<'_>, participant: Option<ParticipantHandle>, query: u64) {
        let now = outside.now;
        let concerns = |of: ParticipantHandle| participant.is_none_or(|wanted| wanted == of);
        let mut report = Explanation::default();
        let mut received: Vec<Slot> = Vec::new();
        for (_, subscription) in self.subscriptions.iter().filter(|(_, s)| concerns(s.participant)) {
            if subscription.ends_at.is_some() {
                continue;
            }
            let Some(track) = self.tracks.get(subscription.track) else {
                continue;
            };
            if report.subscriptions.len() >= MAX_SUBSCRIPTIONS {
                report.truncated = true;
                break;
            }
            let Some(transport) = outside.transports.get(subscription.transport) else {
                continue;
            };
            received.push(subscription.track);
            report
                .subscriptions
                .push(subscription_report(subscription, track, transport, now));
        }
        received.sort_unstable();
        received.dedup();
        for (slot, track) in self.tracks.iter() {
            if concerns(track.participant) || received.binary_search(&slot).is_ok() {
                report.tracks.push(track_report(track, now));
            }
        }
        let transports = outside.transports.iter();
        for (_, transport) in transports.filter(|(_, t)| t.room == self.slot && concerns(t.participant)) {
            if !transport.sending.is_empty() {
                let shard = outside.relays.me;
                report.receptions.push(self.reception_report(now, transport, shard));
            }
        }
        outside.events.push(Event::Explanation {
            room: self.handle,
            query,
            report: Box::new(report),
        });
    }

    fn reception_report(&self, now: Instant, transport: &MediaTransport, shard: ShardIndex) -> ReceptionReport {
        let subscriptions = transport.allocation.subscriptions.iter();
        let subscriptions = subscriptions.filter_map(|slot| self.subscriptions.get(*slot));
        let reported = subscriptions.fold((None, 0f32), |(rtt, loss), subscription| {
            let its = subscription.rtt_measured.then_some(subscription.rtt);
            (its.max(rtt), loss.max(subscription.loss.fraction))
        });
        let rate = &transport.sending_rate;
        let outcome = transport.allocation.outcome;
        ReceptionReport {
            transport: transport.handle,
            shard,
            participant: transport.participant,
            connected: transport.is_connected,
            estimate: rate.estimate(),
            budget: transport.budget(now).total(),
            allocated: outcome.map(|outcome| outcome.allocated).unwrap_or_default(),
            wanted: outcome.map(|outcome| outcome.wanted).unwrap_or_default(),
            may_pause: transport.reception.may_pause,
            max_bitrate: transport.reception.max_bitrate,
            rtt: rate.rtt().or(reported.0),
            loss: if rate.is_initial() {
                reported.1
            } else {
                rate.loss() as f32
            },
            queued_packets: (transport.queue.len() + transport.waiting.len()) as u32,
            queue_delay: rate.queue_delay(),
        }
    }
}

/// What a subscription wants, is to be given and is given, and why it is not better.
pub fn layers(subscription: &Subscription, track: &Track, transport: &MediaTransport, now: Instant) -> LayerState {
    let offered = track.offered(now);
    // Temporal layers beyond those there are mean all of them.
    let known = |layer: Layer| Layer {
        spatial: layer.spatial.min(offered.spatial.saturating_sub(1)),
        temporal: layer.temporal.min(offered.temporal.saturating_sub(1)),
    };
    let asked = match subscription.kind {
        MediaKind::Video => subscription.settings.max_layer,
        MediaKind::Audio => Layer::default(),
    };
    let disabled = subscription.settings.disabled;
    let is_unheard = track.is_unheard && !track.muted && !disabled;
    let target = subscription
        .target()
        .filter(|_| !disabled && !track.muted && !is_unheard)
        .map(known);
    let sent = subscription.current().map(known);
    let flowing = offered.best(asked);
    let facts = LayerFacts {
        connected: subscription.is_connected,
        codec_negotiated: subscription.takes_any(),
        muted: track.muted,
        disabled,
        asked,
        top: known(EVERYTHING),
        flowing,
        target,
        sent,
        capped: transport.budget(now).is_capped(),
    };
    LayerState {
        wanted: (!disabled).then(|| known(asked)),
        target,
        sent,
        reason: match facts.reason() {
            // Of the reasons that a picture can have only this one means anything for sound, which is sent whole.
            reason if reason.is_about_layers() && subscription.kind == MediaKind::Audio => match flowing {
                _ if is_unheard => LayerReason::NotLoudest,
                Some(_) => LayerReason::Best,
                None => LayerReason::NotSent,
            },
            reason => reason,
        },
    }
}

/// Remembers the subscription's layers if they are others than before.
pub fn note(outside: &Outside<'_>, subscription: &mut Subscription, track: &Track) {
    let Some(transport) = outside.transports.get(subscription.transport) else {
        return;
    };
    let layers = layers(subscription, track, transport, outside.now);
    let estimate = transport.sending_rate.estimate();
    subscription.decisions.note(layers, estimate, outside.now);
}

fn subscription_report(
    subscription: &Subscription,
    track: &Track,
    transport: &MediaTransport,
    now: Instant,
) -> SubscriptionReport {
    let clock_rate = track.codecs.first().map_or(90_000, |codec| codec.codec.clock_rate());
    let jitter = u64::from(subscription.loss.jitter) * 1_000_000_000 / u64::from(clock_rate.max(1));
    SubscriptionReport {
        subscription: subscription.handle,
        track: track.handle,
        subscriber: subscription.participant,
        publisher: track.participant,
        transport: transport.handle,
        kind: subscription.kind,
        is_screen: track.is_screen,
        priority: subscription.settings.priority,
        layers: layers(subscription, track, transport, now),
        rtt: subscription.rtt_measured.then_some(subscription.rtt),
        packets: subscription.packets,
        bytes: subscription.octets,
        lost: subscription.loss.cumulative,
        fraction_lost: subscription.loss.fraction,
        jitter: Duration::from_nanos(jitter),
        repair: subscription.repair,
        freezes: subscription.freezes.count,
        frozen: subscription.freezes.total,
        score: subscription.scorer.current(),
        decisions: subscription.decisions.list(now),
    }
}

fn track_report(track: &Track, now: Instant) -> TrackReport {
    let encodings = track
        .encodings
        .iter()
        .map(|encoding| encoding_report(track, encoding, now));
    TrackReport {
        track: track.handle,
        publisher: track.participant,
        is_mirrored: track.mirror.is_some(),
        kind: track.kind,
        is_screen: track.is_screen,
        muted: track.muted,
        subscribers: track.subscribers.len() as u32,
        score: track.scorer.current(),
        encodings: encodings.collect(),
    }
}

fn encoding_report(track: &Track, encoding: &Encoding, now: Instant) -> EncodingReport {
    let totals = encoding.stats.as_ref().map(|stats| stats.totals()).unwrap_or_default();
    let offered = track.offered(now);
    let spatial = if track.is_simulcast() {
        encoding.source().encoding
    } else {
        offered.spatial.saturating_sub(1)
    };
    let row = offered.rate.get(usize::from(spatial)).copied().unwrap_or_default();
    let rate = row.into_iter().max().unwrap_or_default();
    let newest = encoding.highest().and_then(|highest| encoding.stored(highest, now));
    let codec = newest.and_then(|newest| track.codecs.get(usize::from(newest.info.codec)));
    EncodingReport {
        rid: encoding.parameters.rid,
        ssrc: encoding.ssrc.filter(|_| encoding.has_started()),
        codec: codec.map(|codec| codec.codec),
        is_flowing: rate > Bitrate::ZERO,
        rate,
        packets: totals.packets,
        bytes: totals.bytes,
        lost: totals.lost,
        jitter: encoding.stats.as_ref().map(|stats| stats.jitter()).unwrap_or_default(),
        nacked: encoding.counts.nacked,
        recovered: encoding.counts.recovered,
        keyframe_requests: encoding.counts.keyframe_requests,
    }
}
