//! How a subscription comes to the layer it is to be given: from the ring, or by asking the publisher.
//!
//! Called by the room when a subscription begins, changes its target or is enabled again. A key frame that has just
//! arrived is sent once more to who needs it, with the little that followed it; otherwise one is asked for, throttled.

use std::ops::RangeInclusive;

use super::edge::Event;
use super::encoding::Arrived;
use super::fanout::Fanout;
use super::outside::Outside;
use super::room_report;
use super::slots::Slot;
use super::subscription::Subscription;
use super::track::Track;
use crate::types::{DropReason, Layer, MediaKind};

/// Packets that are sent at once to a subscriber whose key frame arrived behind them.
const MAX_CATCH_UP: u64 = 256;

impl Fanout {
    /// What a subscription is to be given from now on; None = nothing. `urgent`: what it is given now must stop, even if
    /// nothing can take its place yet.
    pub fn set_target(&mut self, outside: &mut Outside<'_>, slot: Slot, target: Option<Layer>, urgent: bool) {
        self.forward_pending(outside);
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        let Some(track) = self.tracks.get(subscription.track) else {
            return;
        };
        if subscription.target() == target && !urgent {
            return;
        }
        let needed = subscription.set_target(track, target, urgent);
        if urgent
            && needed.is_some()
            && let Some(transport) = outside.transports.get_mut(subscription.transport)
        {
            // The key frame that comes next supersedes all that waits, and is not to stand behind it.
            let dropped = transport.forget_video(slot);
            (0..dropped).for_each(|_| outside.stats.count_drop(DropReason::Congested));
            subscription.abandon(subscription.rewriter.newest());
        }
        room_report::note(outside, subscription, track);
        if needed.is_some() {
            self.bring(outside, slot);
        }
    }

    /// Gives a subscription the key frame it waits for, or asks for it.
    pub fn bring(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        self.forward_pending(outside);
        if self.decider.is_some() {
            self.raise_demand(outside, slot);
        }
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        let Some(track) = self.tracks.get(subscription.track) else {
            return;
        };
        if !subscription.is_waiting() || !subscription.is_connected || track.muted {
            return;
        }
        let now = outside.now;
        let (track_slot, wanted) = (subscription.track, subscription.wanted_encoding());
        let replayable = |encoding: u8| track.replayable(encoding, now);
        let current = subscription.rewriter.source().map(|source| source.encoding);
        if current != Some(wanted)
            && let Some(packet) = replayable(wanted)
            && replay(outside, slot, subscription, track, &packet)
        {
            return;
        }
        // Something to see until it comes.
        if current.is_none()
            && let Some(packet) = (0..wanted).rev().find_map(replayable)
        {
            replay(outside, slot, subscription, track, &packet);
        }
        self.request_keyframe(outside, track_slot, wanted);
    }
}

/// Sends a stored key frame, which `packet` begins, and what followed it. False when this subscriber is not to have it.
fn replay(
    outside: &mut Outside<'_>,
    slot: Slot,
    subscription: &mut Subscription,
    track: &Track,
    packet: &Arrived,
) -> bool {
    let Ok(descriptor) = subscription.begin_at(slot, track, packet) else {
        return false;
    };
    outside.stats.replayed_keyframes += 1;
    subscription.repair.keyframe_replays = subscription.repair.keyframe_replays.wrapping_add(1);
    outside.queue(subscription.transport, descriptor);
    begin(outside, slot, subscription, track, packet);
    true
}

/// Another layer leaves for a subscription from now on.
pub fn note_layer(outside: &mut Outside<'_>, subscription: &mut Subscription, track: &Track) {
    room_report::note(outside, subscription, track);
    if let Some(spatial) = subscription.take_entered() {
        outside.events.push(Event::LayerSent {
            subscription: subscription.handle,
            spatial,
        });
    }
}

/// A subscription has been given a new source: reports begin, and what is stored behind the key frame follows it: what
/// overtook it, and what came since. The numbers of those, as the publisher counts.
pub fn begin(
    outside: &mut Outside<'_>,
    slot: Slot,
    subscription: &mut Subscription,
    track: &Track,
    packet: &Arrived,
) -> RangeInclusive<u64> {
    note_layer(outside, subscription, track);
    outside.stats.switches_by_arrival += u64::from(subscription.timeline.is_by_arrival());
    subscription.plan_report(outside.now);
    outside.arm(subscription.timer, subscription.deadline());
    if track.kind == MediaKind::Audio {
        // It begins with any packet: who lets it begin with an older one says what follows.
        return packet.sequence..=packet.sequence;
    }
    let encoding = track.encodings.get(usize::from(packet.source.encoding));
    let Some((encoding, highest)) = encoding.and_then(|encoding| Some((encoding, encoding.highest()?))) else {
        return packet.sequence..=packet.sequence;
    };
    let behind = packet.sequence + 1..=highest.min(packet.sequence + MAX_CATCH_UP);
    for sequence in behind.clone() {
        let Some(stored) = encoding.stored(sequence, outside.now) else {
            continue;
        };
        let packet = Arrived {
            sequence,
            info: *stored.info,
            ..*packet
        };
        match subscription.forward(slot, track, &packet) {
            Ok(descriptor) => outside.queue(subscription.transport, descriptor),
            Err(reason) => outside.stats.count_drop(reason),
        }
    }
    behind
}
