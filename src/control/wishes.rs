//! What clients say about tracks (subscribe, settings, who may have mine), kept whether it can be carried out or not.

use std::collections::BTreeSet;
use std::time::Instant;

use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    SubscriptionError, SubscriptionPermission, SubscriptionResponse, UpdateSubscription, UpdateTrackSettings,
};

use crate::media::edge::Command;
use crate::types::{ParticipantHandle, TrackId};

use super::acl::Acl;
use super::layers::subscription_settings;
use super::room::Room;
use super::settings::{MAX_WISHES, SETTLE_DELAY, TRACK_NOT_FOUND_TIMEOUT};
use super::subscribe::settings_of;
use super::subscription::{TrackSettings, Wish};

impl Room {
    pub(super) fn handle_subscription(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        request: &UpdateSubscription,
    ) {
        // LiveKit: the JS client names a track in both lists; it counts once.
        let listed = request.participant_tracks.iter().flat_map(|tracks| &tracks.track_sids);
        let mut seen = BTreeSet::new();
        for sid in request.track_sids.iter().chain(listed).take(2 * MAX_WISHES) {
            if seen.insert(sid) {
                self.wish_for(now, handle, &TrackId(sid.clone()), request.subscribe);
            }
        }
    }

    pub(super) fn wish_for(&mut self, now: Instant, handle: ParticipantHandle, track: &TrackId, subscribe: bool) {
        let known = self.tracks.contains_key(track);
        if !known && !subscribe {
            return;
        }
        let Some(wish) = self.wish_mut(handle, track) else {
            return;
        };
        wish.subscribe = Some(subscribe);
        if !subscribe {
            // LiveKit: settings end with the subscription; the next one begins with the defaults.
            wish.settings = None;
        }
        wish.missing_until = (!known).then(|| now + TRACK_NOT_FOUND_TIMEOUT);
        self.reconcile(now, handle, track);
    }

    fn wish_mut(&mut self, handle: ParticipantHandle, track: &TrackId) -> Option<&mut Wish> {
        let wishes = &mut self.participants.get_mut(&handle)?.wishes;
        if wishes.len() >= MAX_WISHES && !wishes.contains_key(track) {
            return None;
        }
        Some(wishes.entry(track.clone()).or_default())
    }

    pub(super) fn give_up_missing_tracks(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let missing = |wish: &Wish| wish.missing_until.is_some_and(|at| at <= now);
        let tracks: Vec<TrackId> = participant
            .wishes
            .iter()
            .filter(|(_, wish)| missing(wish))
            .map(|(track, _)| track.clone())
            .collect();
        for track in tracks {
            if self.tracks.contains_key(&track) {
                if let Some(wish) = self.wish_mut(handle, &track) {
                    wish.missing_until = None;
                }
                continue;
            }
            let asked = self
                .wish_mut(handle, &track)
                .is_some_and(|wish| wish.subscribe == Some(true));
            if asked {
                self.fail_subscription(handle, &track, SubscriptionError::SeTrackNotfound);
            }
            if let Some(participant) = self.participants.get_mut(&handle) {
                participant.wishes.remove(&track);
            }
        }
    }

    pub(super) fn handle_track_setting(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        request: &UpdateTrackSettings,
    ) {
        let settings = TrackSettings::from(request);
        for sid in request.track_sids.iter().take(MAX_WISHES) {
            self.set_track_settings(now, handle, &TrackId(sid.clone()), settings);
        }
    }

    /// Kept for a track that is not subscribed yet, or not even there.
    ///
    /// LiveKit: what a scrolling page says comes in bursts, and only the last of it counts; a picture that comes into
    /// view does not wait.
    pub(super) fn set_track_settings(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        track: &TrackId,
        settings: TrackSettings,
    ) {
        let known = self.tracks.contains_key(track);
        let before = self
            .participants
            .get(&handle)
            .map(|participant| settings_of(participant, track));
        let Some(wish) = self.wish_mut(handle, track) else {
            return;
        };
        if wish.settings == Some(settings) {
            return;
        }
        wish.settings = Some(settings);
        if !known {
            // Forgotten with the wish if the track never comes.
            wish.missing_until.get_or_insert(now + TRACK_NOT_FOUND_TIMEOUT);
            return;
        }
        let enables = before.is_some_and(|before| before.disabled) && !settings.disabled;
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let Some(subscription) = participant.subscriptions.get_mut(track) else {
            return;
        };
        if subscription.bound.is_none() {
            return;
        }
        if enables {
            return self.settle(now, handle, track);
        }
        let at = now + SETTLE_DELAY;
        subscription.settle_at = Some(at);
        let due = participant.settle_at.map_or(at, |due| due.min(at));
        participant.settle_at = Some(due);
    }

    /// The wishes that have waited long enough take effect.
    pub(super) fn settle_due(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if participant.settle_at.is_none_or(|at| at > now) {
            return;
        }
        let waiting = participant.subscriptions.iter();
        let waiting = waiting.filter_map(|(track, subscription)| Some((track, subscription.settle_at?)));
        let (due, later): (Vec<_>, Vec<_>) = waiting.partition(|(_, at)| *at <= now);
        let due: Vec<TrackId> = due.into_iter().map(|(track, _)| track.clone()).collect();
        participant.settle_at = later.into_iter().map(|(_, at)| at).min();
        for track in due {
            self.settle(now, handle, &track);
        }
    }

    /// What the client has said of a track counts from now on: for the shard, and for what the publisher encodes.
    pub(super) fn settle(&mut self, now: Instant, handle: ParticipantHandle, track: &TrackId) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let settings = settings_of(participant, track);
        let Some(subscription) = participant.subscriptions.get_mut(track) else {
            return;
        };
        subscription.settle_at = None;
        subscription.settings = settings;
        let publisher = subscription.publisher;
        self.apply_settings(handle, track);
        self.update_dynacast(now, publisher, track);
    }

    /// Tells the shard what is new.
    pub(super) fn apply_settings(&mut self, handle: ParticipantHandle, track: &TrackId) {
        let Some(publisher) = self.tracks.get(track) else {
            return;
        };
        let (Some(from), Some(to)) = (self.participants.get(publisher), self.participants.get(&handle)) else {
            return;
        };
        let (Some(publication), Some(subscription)) = (from.publications.get(track), to.subscriptions.get(track))
        else {
            return;
        };
        if subscription.sending.is_none() {
            return;
        }
        let settings = subscription_settings(&publication.source(subscription.codec), &subscription.settings);
        let Some(subscription) = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.subscriptions.get_mut(track))
        else {
            return;
        };
        if subscription.applied.replace(settings) != Some(settings) {
            self.out.media(Command::UpdateSubscription {
                subscription: subscription.handle,
                settings,
            });
        }
    }

    /// The publisher says who may subscribe to its tracks.
    pub(super) fn handle_subscription_permission(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        request: SubscriptionPermission,
    ) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let acl = Acl::new(request);
        if participant.acl == acl {
            return;
        }
        participant.acl = acl;
        let tracks: Vec<TrackId> = participant.publications.keys().cloned().collect();
        for track in tracks {
            self.reconcile_track(now, &track);
        }
        self.reconcile_data_tracks_of(handle);
    }

    /// The client is told, and the wish is taken back so that nobody tries again.
    pub(super) fn fail_subscription(
        &mut self,
        subscriber: ParticipantHandle,
        track: &TrackId,
        error: SubscriptionError,
    ) {
        let Some(participant) = self.participants.get_mut(&subscriber) else {
            return;
        };
        let wish = participant.wishes.entry(track.clone()).or_default();
        wish.subscribe = Some(false);
        wish.missing_until = None;
        let response = SubscriptionResponse {
            track_sid: track.0.clone(),
            err: error as i32,
        };
        self.out.signal(participant, Message::SubscriptionResponse(response));
    }
}
