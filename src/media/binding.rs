//! What commands change in a room: which tracks are published, who receives them, mute and settings.

use super::allocation::Allocated;
use super::edge::{Publish, Subscribe, SubscriptionSettings};
use super::fanout::Fanout;
use super::generated::{self, Schedule};
use super::outside::{Outside, Place, TimerKey};
use super::slots::Slot;
use super::subscription::Subscription;
use super::track::{CodecChange, Track};
use super::transport::{MAX_MIDS, Showing, Stream};
use crate::types::{DropReason, Layer, MediaKind};

impl Fanout {
    /// Binds (transport, mid, rid) to a new track; its place. None when the transport is gone or full.
    pub fn publish(&mut self, outside: &mut Outside<'_>, publish: Publish, transport: Slot) -> Option<Slot> {
        let target = outside.transports.get_mut(transport)?;
        if target.receiving.mids.len() >= MAX_MIDS {
            return None;
        }
        let (handle, room, now) = (publish.track, self.slot, outside.now);
        // Of the loudest only: not before the shard that decides has said so.
        let waits = self.loudest.is_some() && self.decided_at(outside).is_some();
        let slot = self.tracks.insert_with(|track| {
            let timer = outside.timers.insert(TimerKey::Track { room, track });
            let mut track = Track::new(publish, transport, timer, now);
            track.is_unheard = waits && track.kind == MediaKind::Audio && !track.is_screen;
            track
        });
        outside.index.tracks.insert(handle, Place { room, slot });
        self.bind(outside, slot);
        self.start_quality(outside);
        Some(slot)
    }

    /// New receive parameters of a known track.
    pub fn republish(&mut self, outside: &mut Outside<'_>, slot: Slot, publish: Publish) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let muted = publish.muted;
        let change = track.renegotiate(publish);
        // A decoder of the new codec cannot begin in the middle of a picture.
        let begins_anew = change == CodecChange::Replaced && track.kind == MediaKind::Video;
        let mut is_watched = false;
        for &subscriber in &track.subscribers {
            let Some(subscription) = self.subscriptions.get_mut(subscriber) else {
                continue;
            };
            subscription.encrypted = track.encrypted;
            if change != CodecChange::None {
                subscription.map_codecs(&track.codecs);
            }
            if begins_anew {
                subscription.rewriter.interrupt();
                is_watched |= !subscription.settings.disabled;
            }
        }
        self.bind(outside, slot);
        self.mute(outside, slot, muted);
        if begins_anew && is_watched {
            self.request_keyframes(outside, slot);
        }
    }

    /// Enters the track's mid and named SSRCs in its transport's table.
    pub fn bind(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(track) = self.tracks.get(slot).filter(|track| !track.is_shown) else {
            return;
        };
        let Some(transport) = outside.transports.get_mut(track.transport) else {
            return;
        };
        let receiving = &mut transport.receiving;
        receiving.merge_extensions(&track.extensions);
        // An m-line is used for one track at a time.
        if let Some(other) = receiving.track(track.mid).filter(|other| *other != slot) {
            receiving.forget_track(other);
        }
        receiving.mids.retain(|(_, bound)| *bound != slot);
        receiving.mids.push((track.mid, slot));
        receiving.streams.retain(|_, stream| stream.track != slot);
        for encoding in &track.encodings {
            for (ssrc, retransmission) in [(encoding.ssrc, false), (encoding.rtx_ssrc, true)] {
                let stream = Stream {
                    track: slot,
                    encoding: encoding.source().encoding,
                    retransmission,
                };
                // An SSRC of another track of this client stays that track's.
                if let Some(Err(reason)) = ssrc.map(|ssrc| receiving.claim(ssrc, stream)) {
                    outside.stats.count_drop(reason);
                }
            }
        }
    }

    /// Takes a track that is gone out of its transport's tables.
    pub fn unbind(&self, outside: &mut Outside<'_>, slot: Slot, track: &Track) {
        let Some(transport) = outside.transports.get_mut(track.transport) else {
            return;
        };
        if track.is_shown {
            let is_its = |showing: &Showing| showing.room == self.slot && showing.track == slot;
            transport.showings.retain(|showing| !is_its(showing));
        } else {
            transport.receiving.forget_track(slot);
            transport.showings.retain(|showing| showing.source != slot);
        }
    }

    /// Revokes the binding and ends its subscriptions.
    pub fn unpublish(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(track) = self.tracks.remove(slot) else { return };
        self.end_mirror(outside, &track);
        self.unbind(outside, slot, &track);
        if let Some(loudest) = &mut self.loudest {
            loudest.forget(slot);
        }
        outside.timers.remove(track.timer);
        outside.index.tracks.remove(&track.handle);
        for subscriber in track.subscribers {
            self.end_subscription(outside, subscriber);
        }
    }

    pub fn mute(&mut self, outside: &mut Outside<'_>, slot: Slot, muted: bool) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let now = outside.now;
        if !track.set_muted(muted, now) {
            return;
        }
        track.scorer.set_muted(muted, now);
        if let Some(level) = &mut track.level {
            level.reset();
        }
        if let Some(loudest) = self.loudest.as_mut().filter(|_| muted) {
            loudest.forget(slot);
        }
        // What was lost before a pause is no longer worth asking for.
        track.encodings.iter_mut().for_each(|encoding| encoding.nack.reset());
        for &subscriber in &track.subscribers {
            let Some(subscription) = self.subscriptions.get_mut(subscriber) else {
                continue;
            };
            subscription.scorer.set_muted(muted, now);
            let is_audio = subscription.kind == MediaKind::Audio;
            if !muted {
                continue; // the next packet of the source ends the silence and finds its own timestamp
            }
            subscription.freezes.interrupt();
            let was_sent = subscription.rewriter.source().is_some();
            subscription.rewriter.interrupt();
            if is_audio && was_sent && !subscription.settings.disabled {
                subscription.schedule = Some(Schedule::silence(now));
            }
            subscription.announce(now);
            outside.arm(subscription.timer, subscription.deadline());
        }
        let mut at = 0;
        while let Some(&subscriber) = self.tracks.get(slot).and_then(|track| track.subscribers.get(at)) {
            at += 1;
            if let Some(transport) = self.subscriptions.get(subscriber).map(|its| its.transport) {
                self.allocate_soon(outside, transport);
            }
            self.bring(outside, subscriber);
        }
    }

    /// Starts forwarding; the subscription's place.
    pub fn subscribe(
        &mut self,
        outside: &mut Outside<'_>,
        subscribe: Subscribe,
        track_slot: Slot,
        transport_slot: Slot,
    ) -> Option<Slot> {
        let seed = outside.next_seed();
        let track = self.tracks.get_mut(track_slot)?;
        let transport = outside.transports.get_mut(transport_slot)?;
        let ssrcs = [Some(subscribe.ssrc), subscribe.rtx_ssrc];
        // Two streams under one SSRC would be sealed with the same packet indices.
        if ssrcs.iter().flatten().any(|ssrc| transport.sending.contains_key(ssrc)) {
            return None;
        }
        let (handle, room, now) = (subscribe.subscription, self.slot, outside.now);
        let slot = self.subscriptions.insert_with(|subscription| {
            let timer = outside.timers.insert(TimerKey::Subscription { room, subscription });
            Subscription::new(subscribe, (track_slot, track), transport_slot, timer, seed, now)
        });
        if let Some(subscription) = self.subscriptions.get_mut(slot) {
            subscription.is_connected = transport.is_connected;
            if track.muted {
                subscription.announce(now);
            }
        }
        outside.index.subscriptions.insert(handle, Place { room, slot });
        for ssrc in ssrcs.into_iter().flatten() {
            transport.sending.insert(ssrc, slot);
        }
        track.subscribers.push(slot);
        transport.allocation.subscriptions.push(slot);
        self.arm_subscription(outside, slot);
        if self.allocate_soon(outside, transport_slot) == Allocated::Later {
            // Until then it is given what fits soonest.
            let track = self.tracks.get(track_slot);
            let lowest = track.map(|track| track.choose(Layer::default()));
            self.set_target(outside, slot, lowest, false);
        }
        self.bring(outside, slot);
        Some(slot)
    }

    /// New parameters of a known subscription.
    pub fn resubscribe(&mut self, outside: &mut Outside<'_>, slot: Slot, subscribe: Subscribe) {
        let settings = subscribe.settings;
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        let Some(track) = self.tracks.get(subscription.track) else {
            return;
        };
        let Some(transport) = outside.transports.get_mut(subscription.transport) else {
            return;
        };
        // The SSRC is a subscription's for life: its numbering and its sealed packets go with it.
        if subscription.ssrc != subscribe.ssrc {
            outside.stats.count_drop(DropReason::StaleCommand);
            return;
        }
        if let Some(rtx_ssrc) = subscribe.rtx_ssrc {
            transport.sending.insert(rtx_ssrc, slot);
        }
        subscription.renegotiate(subscribe, track);
        self.update_subscription(outside, slot, settings);
    }

    pub fn update_subscription(&mut self, outside: &mut Outside<'_>, slot: Slot, settings: SubscriptionSettings) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        let Some(track) = self.tracks.get(subscription.track) else {
            return;
        };
        let enabled = subscription.settings.disabled && !settings.disabled;
        if settings.disabled {
            subscription.rewriter.interrupt();
            subscription.freezes.interrupt();
        }
        subscription.settings = settings;
        subscription.scorer.set_disabled(settings.disabled, outside.now);
        if track.muted {
            subscription.announce(outside.now);
            outside.arm(subscription.timer, subscription.deadline());
        }
        let transport = subscription.transport;
        self.allocate_soon(outside, transport);
        if enabled {
            self.bring(outside, slot);
        }
    }

    /// Stops forwarding. A picture is blanked first (LiveKit: clients show the last one for ever).
    pub fn end_subscription(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        if let Some(track) = self.tracks.get_mut(subscription.track) {
            track.subscribers.retain(|subscriber| *subscriber != slot);
        }
        outside.index.subscriptions.remove(&subscription.handle);
        subscription.next_report = None;
        if let Some(transport) = outside.transports.get_mut(subscription.transport) {
            transport.allocation.subscriptions.retain(|known| *known != slot);
        }
        let shows_picture = subscription.kind == MediaKind::Video
            && !subscription.settings.disabled
            && subscription.rewriter.has_sent()
            && subscription
                .last_output
                .is_some_and(|output| generated::exists(output.codec));
        if !shows_picture {
            return self.drop_subscription(outside, slot);
        }
        subscription.schedule = Some(Schedule::blank(outside.now));
        outside.arm(subscription.timer, subscription.deadline());
    }

    /// Forgets it at once.
    pub fn drop_subscription(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(subscription) = self.subscriptions.remove(slot) else {
            return;
        };
        if let Some(track) = self.tracks.get_mut(subscription.track) {
            track.subscribers.retain(|subscriber| *subscriber != slot);
        }
        outside.timers.remove(subscription.timer);
        outside.index.subscriptions.remove(&subscription.handle);
        if let Some(transport) = outside.transports.get_mut(subscription.transport) {
            transport.sending.retain(|_, bound| *bound != slot);
            transport.allocation.subscriptions.retain(|known| *known != slot);
            if !transport.is_closed {
                self.allocate_soon(outside, subscription.transport);
            }
        }
    }

    /// A transport has gone: its tracks end, and so does everything sent on it.
    pub fn transport_closed(&mut self, outside: &mut Outside<'_>, transport: Slot) {
        let subscriptions = self.subscriptions.iter();
        let subscriptions = subscriptions.filter(|(_, subscription)| subscription.transport == transport);
        let subscriptions: Vec<Slot> = subscriptions.map(|(slot, _)| slot).collect();
        let tracks = self.tracks.iter().filter(|(_, track)| track.transport == transport);
        let tracks: Vec<Slot> = tracks.map(|(slot, _)| slot).collect();
        if let Some(handle) = outside.transports.get(transport).map(|transport| transport.handle) {
            self.data.on_transport_closed(outside, handle);
            self.data_changed(outside);
        }
        for slot in subscriptions {
            self.drop_subscription(outside, slot);
        }
        for slot in tracks {
            self.unpublish(outside, slot);
        }
    }
}
