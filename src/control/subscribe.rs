//! Subscribing: what a participant wants and may have, against what it is sent.
//!
//! One rule decides (`reconcile`), whatever has changed: a wish, a permission, a track that came. Everything else here
//! carries a decision out.

use std::time::Instant;

use livekit_protocol::signal_response::Message;
use livekit_protocol::{SubscriptionError, SubscriptionPermissionUpdate, TrackSubscribed};

use crate::media::edge::{Command, Subscribe};
use crate::types::{MediaKind, ParticipantHandle, Ssrc, SubscriptionHandle, TrackId};

use super::explanation::WaitingReason;
use super::layers::{default_settings, subscription_settings};
use super::negotiation::{BoundSender, Sender};
use super::output::Waiting;
use super::participant::Participant;
use super::publication::Publication;
use super::room::Room;
use super::settings::exceeds;
use super::subscription::{Stream, Subscription, TrackSettings, refusal, refuses};

/// What `reconcile` finds about one participant and one live track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Subscribe,
    /// The publisher does not allow it.
    Denied,
    /// It is not wanted, or the participant may receive nothing.
    Leave,
}

impl Room {
    /// All tracks of the room, for one participant.
    pub(super) fn reconcile_subscriber(&mut self, now: Instant, subscriber: ParticipantHandle) {
        let tracks: Vec<TrackId> = self.tracks.keys().cloned().collect();
        for track in tracks {
            self.reconcile(now, subscriber, &track);
        }
    }

    /// One track, for all participants.
    pub(super) fn reconcile_track(&mut self, now: Instant, track: &TrackId) {
        let subscribers: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for subscriber in subscribers {
            self.reconcile(now, subscriber, track);
        }
    }

    pub(super) fn reconcile(&mut self, now: Instant, subscriber: ParticipantHandle, track: &TrackId) {
        let Some(publisher) = self.tracks.get(track).copied() else {
            return;
        };
        if publisher == subscriber {
            return;
        }
        let (Some(from), Some(to)) = (self.participants.get(&publisher), self.participants.get(&subscriber)) else {
            return;
        };
        let Some(publication) = from.publications.get(track).filter(|publication| publication.live) else {
            return;
        };
        if to.is_arriving {
            return; // everything is looked at when it has
        }
        let verdict = verdict(from, to, publication);
        let subscribed = to.subscriptions.contains_key(track);
        match verdict {
            Verdict::Subscribe if subscribed => {}
            Verdict::Subscribe => {
                if self.has_room_for(to, publication.kind) {
                    self.subscribe(now, subscriber, publisher, track, 0);
                }
            }
            Verdict::Denied => {
                let told = self
                    .participants
                    .get_mut(&subscriber)
                    .is_some_and(|participant| !participant.denied.insert(track.clone()));
                if !told {
                    self.send_permission(subscriber, publisher, track, false);
                }
                self.unsubscribe(now, subscriber, track);
            }
            Verdict::Leave => self.unsubscribe(now, subscriber, track),
        }
    }

    /// `limit.subscription_limit_*`.
    fn has_room_for(&self, subscriber: &Participant, kind: MediaKind) -> bool {
        let limits = &self.settings.limits;
        let limit = match kind {
            MediaKind::Audio => limits.subscription_limit_audio,
            MediaKind::Video => limits.subscription_limit_video,
        };
        let same = subscriber
            .subscriptions
            .values()
            .filter(|subscription| subscription.kind == kind);
        !exceeds(same.count() + 1, limit)
    }

    /// In the best codec that the client takes. `refused`: those that it turned out not to, one bit each.
    fn subscribe(
        &mut self,
        now: Instant,
        subscriber: ParticipantHandle,
        publisher: ParticipantHandle,
        track: &TrackId,
        refused: u8,
    ) {
        let (Some(from), Some(to)) = (self.participants.get(&publisher), self.participants.get(&subscriber)) else {
            return;
        };
        let Some(publication) = from.publications.get(track) else {
            return;
        };
        let Some(codec) = best_codec(publication, to, refused) else {
            return;
        };
        let kind = publication.kind;
        let cname = publication.cname.clone();
        let first_of_publisher = !to.is_subscribed_to(publisher);
        let Some(sender) = self.new_sender(subscriber, publisher, track, codec) else {
            return;
        };
        let handle = sender.subscription;
        let Some(to) = self.participants.get_mut(&subscriber) else {
            return;
        };
        if !to.sending_peer().negotiator.add_sender(sender) {
            tracing::info!(participant = %to.sid, %track, "no m-line left for another subscription");
            return;
        }
        let subscription = Subscription {
            handle,
            publisher,
            kind,
            cname,
            codec,
            refused,
            replaces: None,
            since: Some(now),
            bound: None,
            sending: None,
            settings: settings_of(to, track),
            settle_at: None,
            applied: None,
            stream: Stream::default(),
            shown: None,
        };
        to.subscriptions.insert(track.clone(), subscription);
        to.denied.remove(track);
        self.subscriptions.insert(handle, (subscriber, track.clone()));
        if let Some(publication) = self.publication_mut(publisher, track) {
            publication.subscribers.insert(subscriber);
        }
        self.send_permission(subscriber, publisher, track, true);
        self.want_negotiation(now, subscriber);
        if first_of_publisher {
            self.show_speaker(subscriber, publisher);
        }
    }

    /// One that was never sent on the participant's transports: the cipher's numbering begins anew with it.
    fn fresh_ssrc(&mut self, subscriber: ParticipantHandle) -> Ssrc {
        let spent = self.participants.get(&subscriber).map(|its| its.spent_ssrcs.as_slice());
        let spent = spent.unwrap_or_default();
        loop {
            let ssrc = self.ids.ssrc();
            if !spent.iter().any(|spent| spent.contains(ssrc)) {
                return ssrc;
            }
        }
    }

    /// What the negotiator is told of a subscription, under a handle and SSRCs of its own.
    fn new_sender(
        &mut self,
        subscriber: ParticipantHandle,
        publisher: ParticipantHandle,
        track: &TrackId,
        codec: usize,
    ) -> Option<Sender> {
        let subscription = self.ids.subscription_handle();
        let ssrc = self.fresh_ssrc(subscriber);
        let rtx_ssrc = self.fresh_ssrc(subscriber);
        let (from, to) = (self.participants.get(&publisher)?, self.participants.get(&subscriber)?);
        let publication = from.publications.get(track)?;
        let with_stream = self.settings.sync_streams && to.client.accepts_sync_streams();
        Some(Sender {
            subscription,
            track: track.clone(),
            publisher: from.sid.clone(),
            kind: publication.kind,
            codec: publication.codecs.get(codec)?.sent()?,
            stream: with_stream.then(|| publication.info.stream.clone()),
            ssrc,
            rtx_ssrc: (publication.kind == MediaKind::Video).then_some(rtx_ssrc),
            cname: publication.cname.clone(),
            stereo: publication.info.stereo,
        })
    }

    /// The subscription goes on in another of the track's codecs, on the same m-line. Until that is negotiated the shard
    /// sends what it did.
    pub(super) fn switch_codec(&mut self, now: Instant, subscriber: ParticipantHandle, track: &TrackId, codec: usize) {
        let Some(publisher) = self.tracks.get(track).copied() else {
            return;
        };
        let Some(sender) = self.new_sender(subscriber, publisher, track, codec) else {
            return;
        };
        let handle = sender.subscription;
        let Some(to) = self.participants.get_mut(&subscriber) else {
            return;
        };
        let Some(subscription) = to.subscriptions.get_mut(track) else {
            return;
        };
        let before = std::mem::replace(&mut subscription.handle, handle);
        if subscription.sending.take().is_some() {
            subscription.replaces = Some(before);
        }
        subscription.codec = codec;
        subscription.bound = None;
        subscription.applied = None;
        subscription.stream = Stream::default();
        subscription.shown = None;
        to.sending_peer().negotiator.replace_sender(before, sender);
        self.subscriptions.remove(&before);
        self.subscriptions.insert(handle, (subscriber, track.clone()));
        self.want_negotiation(now, subscriber);
    }

    /// Nothing of the subscription is sent any more.
    fn end_sending(&mut self, subscription: &mut Subscription) {
        let current = subscription.sending.take().map(|_| subscription.handle);
        for subscription in [current, subscription.replaces.take()].into_iter().flatten() {
            self.out.media(Command::Unsubscribe { subscription });
        }
    }

    fn send_permission(
        &mut self,
        subscriber: ParticipantHandle,
        publisher: ParticipantHandle,
        track: &TrackId,
        allowed: bool,
    ) {
        let Some(publisher) = self.participants.get(&publisher) else {
            return;
        };
        let update = SubscriptionPermissionUpdate {
            participant_sid: publisher.sid.0.clone(),
            track_sid: track.0.clone(),
            allowed,
        };
        if let Some(subscriber) = self.participants.get(&subscriber) {
            self.out
                .signal(subscriber, Message::SubscriptionPermissionUpdate(update));
        }
    }

    /// Takes a subscription back; nothing if there is none.
    fn unsubscribe(&mut self, now: Instant, subscriber: ParticipantHandle, track: &TrackId) {
        let Some(mut subscription) = self.drop_subscription(now, subscriber, track) else {
            return;
        };
        self.end_sending(&mut subscription);
        if let Some(publication) = self.publication_mut(subscription.publisher, track) {
            publication.subscribers.remove(&subscriber);
        }
        self.update_dynacast(now, subscription.publisher, track);
    }

    /// Removes a subscription on the subscriber's side.
    pub(super) fn drop_subscription(
        &mut self,
        now: Instant,
        subscriber: ParticipantHandle,
        track: &TrackId,
    ) -> Option<Subscription> {
        let participant = self.participants.get_mut(&subscriber)?;
        let subscription = participant.subscriptions.remove(track)?;
        participant.sending_peer().negotiator.remove_sender(subscription.handle);
        let last_of_publisher = !participant.is_subscribed_to(subscription.publisher);
        self.subscriptions.remove(&subscription.handle);
        if last_of_publisher {
            self.hide_speaker(subscriber, subscription.publisher);
        }
        self.want_negotiation(now, subscriber);
        self.fill_freed_place(now, subscriber, subscription.kind);
        Some(subscription)
    }

    /// With `limit.subscription_limit_*` another track may have waited for this place.
    fn fill_freed_place(&mut self, now: Instant, subscriber: ParticipantHandle, kind: MediaKind) {
        let limits = &self.settings.limits;
        let limited = match kind {
            MediaKind::Audio => limits.subscription_limit_audio > 0,
            MediaKind::Video => limits.subscription_limit_video > 0,
        };
        if limited {
            let tracks: Vec<TrackId> = self.tracks.keys().cloned().collect();
            for track in tracks {
                let subscribed = |participant: &Participant| participant.subscriptions.contains_key(&track);
                if !self.participants.get(&subscriber).is_some_and(subscribed) {
                    self.reconcile(now, subscriber, &track);
                }
            }
        }
    }

    /// The participant goes: its publishers lose a subscriber.
    pub(super) fn drop_all_subscriptions(&mut self, now: Instant, subscriber: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&subscriber) else {
            return;
        };
        let subscriptions = std::mem::take(&mut participant.subscriptions);
        for (track, mut subscription) in subscriptions {
            self.subscriptions.remove(&subscription.handle);
            self.end_sending(&mut subscription);
            if let Some(publication) = self.publication_mut(subscription.publisher, &track) {
                publication.subscribers.remove(&subscriber);
            }
            self.update_dynacast(now, subscription.publisher, &track);
        }
    }

    pub(super) fn publication_mut(
        &mut self,
        publisher: ParticipantHandle,
        track: &TrackId,
    ) -> Option<&mut Publication> {
        self.participants.get_mut(&publisher)?.publications.get_mut(track)
    }

    /// Negotiated senders start; returns the tracks whose publishers have to be told.
    pub(super) fn bind_senders(
        &mut self,
        now: Instant,
        subscriber: ParticipantHandle,
        bound: &[BoundSender],
    ) -> Vec<TrackId> {
        let mut tracks = Vec::new();
        for sender in bound {
            let Some((_, track)) = self.subscriptions.get(&sender.subscription).cloned() else {
                continue;
            };
            let Some(participant) = self.participants.get_mut(&subscriber) else {
                break;
            };
            let Some(subscription) = participant.subscriptions.get_mut(&track) else {
                continue;
            };
            subscription.bound = Some(sender.clone());
            let (since, publisher) = (subscription.since.take(), subscription.publisher);
            if participant.adaptive_stream
                && let Some(settings) = participant
                    .wishes
                    .get_mut(&track)
                    .and_then(|wish| wish.settings.as_mut())
            {
                // LiveKit: a client that disabled the old element would otherwise stay without picture on the new one.
                settings.disabled = false;
            }
            let settings = settings_of(participant, &track);
            if let Some(subscription) = participant.subscriptions.get_mut(&track) {
                subscription.settings = settings;
                subscription.settle_at = None;
            }
            self.start_sending(subscriber, &track);
            let info = self.publication_mut(publisher, &track).map(|known| known.info.clone());
            if let (Some(info), Some(since)) = (info, since) {
                self.waited(now, subscriber, Waiting::Subscribe, &info, since);
            }
            tracks.push(track);
        }
        tracks
    }

    /// Tells the shard to forward, once both the m-line and the codec are there.
    fn start_sending(&mut self, subscriber: ParticipantHandle, track: &TrackId) {
        let Some(publisher) = self.tracks.get(track).copied() else {
            return;
        };
        let (Some(from), Some(to)) = (self.participants.get(&publisher), self.participants.get(&subscriber)) else {
            return;
        };
        let (Some(publication), Some(subscription)) = (from.publications.get(track), to.subscriptions.get(track))
        else {
            return;
        };
        let Some(source) = publication
            .codecs
            .get(subscription.codec)
            .and_then(|codec| codec.handle())
        else {
            return;
        };
        let Some(bound) = &subscription.bound else {
            return;
        };
        let transport = to.subscriber.as_ref().unwrap_or(&to.publisher).transport;
        let settings = subscription_settings(&publication.source(subscription.codec), &subscription.settings);
        let command = Subscribe {
            room: self.handle,
            participant: subscriber,
            subscription: subscription.handle,
            track: source,
            transport,
            mid: bound.mid,
            codecs: bound.codecs.clone(),
            extensions: bound.extensions.clone(),
            ssrc: bound.ssrc,
            rtx_ssrc: bound.rtx_ssrc,
            cname: subscription.cname.clone(),
            strip_packet_trailer: !to.client.reads_packet_trailer(),
            settings,
        };
        if let Some(subscription) = self
            .participants
            .get_mut(&subscriber)
            .and_then(|participant| participant.subscriptions.get_mut(track))
        {
            subscription.sending = Some(source);
            subscription.applied = Some(settings);
            if let Some(subscription) = subscription.replaces.take() {
                self.out.media(Command::Unsubscribe { subscription });
            }
        }
        self.out.media(Command::Subscribe(Box::new(command)));
    }

    /// The client took the m-line away; the sender waits for another one.
    pub(super) fn unbind_sender(&mut self, subscriber: ParticipantHandle, handle: SubscriptionHandle) {
        let Some((_, track)) = self.subscriptions.get(&handle) else {
            return;
        };
        let Some(subscription) = self
            .participants
            .get_mut(&subscriber)
            .and_then(|participant| participant.subscriptions.get_mut(track))
        else {
            return;
        };
        subscription.bound = None;
        let current = subscription.sending.take().map(|_| handle);
        for subscription in [current, subscription.replaces.take()].into_iter().flatten() {
            self.out.media(Command::Unsubscribe { subscription });
        }
    }

    /// A backup codec got its m-line: whoever waited for it is served.
    pub(super) fn start_waiting_subscriptions(&mut self, track: &TrackId, codec: usize) {
        for subscriber in self.subscribers_with(track, codec) {
            self.start_sending(subscriber, track);
        }
    }

    /// A backup codec lost its m-line.
    pub(super) fn stop_sending(&mut self, track: &TrackId, codec: usize) {
        for subscriber in self.subscribers_with(track, codec) {
            if let Some(subscription) = self
                .participants
                .get_mut(&subscriber)
                .and_then(|participant| participant.subscriptions.get_mut(track))
            {
                subscription.sending = None;
            }
        }
    }

    fn subscribers_with(&self, track: &TrackId, codec: usize) -> Vec<ParticipantHandle> {
        self.participants
            .values()
            .filter(|participant| {
                participant
                    .subscriptions
                    .get(track)
                    .is_some_and(|subscription| subscription.codec == codec)
            })
            .map(|participant| participant.handle)
            .collect()
    }

    /// After binding: what the publishers should encode, and that somebody watches.
    pub(super) fn tell_publishers(&mut self, now: Instant, subscriber: ParticipantHandle, tracks: Vec<TrackId>) {
        // LiveKit: that somebody hidden watches shows in what is wanted, and nowhere else.
        let hidden = self.participants.get(&subscriber).is_some_and(Participant::is_hidden);
        for track in tracks {
            let Some(publisher) = self.tracks.get(&track).copied() else {
                continue;
            };
            self.update_dynacast(now, publisher, &track);
            let Some(participant) = self.participants.get_mut(&publisher) else {
                continue;
            };
            let Some(publication) = participant.publications.get_mut(&track) else {
                continue;
            };
            if hidden {
                continue;
            }
            if !std::mem::replace(&mut publication.subscribed_told, true) && participant.client.reads_late_messages() {
                let message = TrackSubscribed {
                    track_sid: track.0.clone(),
                };
                self.out.signal(participant, Message::TrackSubscribed(message));
            }
        }
    }

    /// The client cannot receive the codec of a subscription: the next declared one, or the end.
    pub(super) fn try_next_codec(&mut self, now: Instant, handle: SubscriptionHandle) {
        let Some((subscriber, track)) = self.subscriptions.get(&handle).cloned() else {
            return;
        };
        let Some(publisher) = self.tracks.get(&track).copied() else {
            return;
        };
        let Some(refused) = self
            .participants
            .get(&subscriber)
            .and_then(|participant| participant.subscriptions.get(&track))
            .map(|subscription| subscription.refused | refusal(subscription.codec))
        else {
            return;
        };
        self.unsubscribe(now, subscriber, &track);
        let (Some(from), Some(to)) = (self.participants.get(&publisher), self.participants.get(&subscriber)) else {
            return;
        };
        let another = from
            .publications
            .get(&track)
            .and_then(|publication| best_codec(publication, to, refused));
        if another.is_some() {
            return self.subscribe(now, subscriber, publisher, &track, refused);
        }
        self.fail_subscription(subscriber, &track, SubscriptionError::SeCodecUnsupported);
    }
}

/// The first of the track's codecs that the client takes. Where it is known to take none, one that it has not refused
/// yet: negotiation has the last word.
fn best_codec(publication: &Publication, subscriber: &Participant, refused: u8) -> Option<usize> {
    // While the backup is sent to everybody there is nothing else to have.
    let first = usize::from(publication.regression.is_active());
    let last = if publication.regression.is_active() {
        1
    } else {
        usize::MAX
    };
    let open = || {
        let codecs = publication
            .codecs
            .iter()
            .enumerate()
            .take(last.saturating_add(1))
            .skip(first);
        codecs.filter_map(|(index, codec)| Some((index, codec.sent()?)).filter(|_| !refuses(refused, index)))
    };
    let taken = open().find(|(_, codec)| subscriber.accepts(*codec));
    taken.or_else(|| open().next()).map(|(index, _)| index)
}

impl Room {
    /// Why a participant has no subscription to a track that it wants; None = it does not want it.
    pub(super) fn kept_from(
        &self,
        publisher: &Participant,
        subscriber: &Participant,
        publication: &Publication,
    ) -> Option<WaitingReason> {
        match verdict(publisher, subscriber, publication) {
            Verdict::Leave => None,
            Verdict::Denied => Some(WaitingReason::NotAllowed),
            Verdict::Subscribe if !self.has_room_for(subscriber, publication.kind) => Some(WaitingReason::Limit),
            Verdict::Subscribe => Some(WaitingReason::Negotiating),
        }
    }
}

fn verdict(publisher: &Participant, subscriber: &Participant, publication: &Publication) -> Verdict {
    let wish = subscriber.wishes.get(&publication.sid).and_then(|wish| wish.subscribe);
    let wanted = wish.unwrap_or(subscriber.auto_subscribe);
    // A hidden publisher is not known to the others, so that they could not make sense of its tracks.
    if !wanted || !subscriber.can_subscribe() || publisher.is_hidden() {
        return Verdict::Leave;
    }
    if may_receive(publisher, subscriber, &publication.sid) {
        Verdict::Subscribe
    } else {
        Verdict::Denied
    }
}

/// The publisher's word; recorders are exempt from it.
pub(super) fn may_receive(publisher: &Participant, subscriber: &Participant, track: &TrackId) -> bool {
    subscriber.is_recorder() || publisher.acl.allows(&subscriber.identity, &subscriber.sid, track)
}

/// What the participant said it wants of the track.
pub(super) fn settings_of(subscriber: &Participant, track: &TrackId) -> TrackSettings {
    subscriber
        .wishes
        .get(track)
        .and_then(|wish| wish.settings)
        .unwrap_or_else(|| default_settings(subscriber.adaptive_stream))
}
