//! Which video the server has stopped sending to whom for want of bandwidth (`StreamStateUpdate`).
//!
//! What a turn brings for one participant goes out in one message.

use std::time::Instant;

use livekit_protocol::signal_response::Message;
use livekit_protocol::{StreamState, StreamStateInfo, StreamStateUpdate};

use crate::types::{MediaKind, ParticipantHandle, SubscriptionHandle, TrackId};

use super::room::Room;

impl Room {
    /// Media of a subscription flows.
    pub(super) fn subscription_started(&mut self, now: Instant, handle: SubscriptionHandle) {
        let Some((subscriber, track)) = self.subscriptions.get(&handle).cloned() else {
            return;
        };
        // LiveKit: only in the dual form is every new stream announced.
        let announces = |is_single: bool, kind: MediaKind| !is_single && kind == MediaKind::Video;
        let known = self.participants.get(&subscriber).is_some_and(|participant| {
            let subscription = participant.subscriptions.get(&track);
            subscription.is_some_and(|subscription| announces(participant.is_single(), subscription.kind))
        });
        if known {
            self.stream_changed(now, subscriber, &track);
        }
    }

    /// The shard has stopped a subscription, or goes on with it.
    pub(super) fn stream_paused(&mut self, now: Instant, handle: SubscriptionHandle, paused: bool) {
        let Some((subscriber, track)) = self.subscriptions.get(&handle).cloned() else {
            return;
        };
        let Some(subscription) = self
            .participants
            .get_mut(&subscriber)
            .and_then(|participant| participant.subscriptions.get_mut(&track))
        else {
            return;
        };
        if paused {
            subscription.shown = None;
        }
        if std::mem::replace(&mut subscription.stream.paused, paused) != paused {
            self.stream_changed(now, subscriber, &track);
        }
    }

    /// The shard sends another spatial layer of a picture.
    pub(super) fn layer_sent(&mut self, handle: SubscriptionHandle, spatial: u8) {
        let Some((subscriber, track)) = self.subscriptions.get(&handle) else {
            return;
        };
        let participant = self.participants.get_mut(subscriber);
        if let Some(subscription) = participant.and_then(|participant| participant.subscriptions.get_mut(track)) {
            subscription.shown = Some(spatial);
        }
    }

    fn stream_changed(&mut self, now: Instant, subscriber: ParticipantHandle, track: &TrackId) {
        self.changed_streams.insert((subscriber, track.clone()));
        self.streams_at.get_or_insert(now);
    }

    /// What the client may have missed while its socket was away.
    pub(super) fn repeat_streams(&mut self, now: Instant, subscriber: ParticipantHandle) {
        let Some(participant) = self.participants.get(&subscriber) else {
            return;
        };
        let missed: Vec<TrackId> = participant
            .subscriptions
            .iter()
            .filter(|(_, subscription)| {
                let told_paused = subscription.stream.told == Some(StreamState::Paused);
                told_paused != subscription.stream.paused
            })
            .map(|(track, _)| track.clone())
            .collect();
        for track in missed {
            self.stream_changed(now, subscriber, &track);
        }
    }

    pub(super) fn send_stream_states(&mut self) {
        self.streams_at = None;
        let mut changed = std::mem::take(&mut self.changed_streams).into_iter().peekable();
        while let Some((subscriber, track)) = changed.next() {
            let mut tracks = vec![track];
            while let Some((_, track)) = changed.next_if(|(other, _)| *other == subscriber) {
                tracks.push(track);
            }
            let stream_states: Vec<StreamStateInfo> = tracks
                .into_iter()
                .filter_map(|track| self.stream_state(subscriber, track))
                .collect();
            if let Some(participant) = self.participants.get(&subscriber).filter(|_| !stream_states.is_empty()) {
                let update = StreamStateUpdate { stream_states };
                self.out.signal(participant, Message::StreamStateUpdate(update));
            }
        }
    }

    /// The state of one stream, as told from now on; None where nobody is there to be told.
    fn stream_state(&mut self, subscriber: ParticipantHandle, track: TrackId) -> Option<StreamStateInfo> {
        let publisher = self.tracks.get(&track)?;
        let participant_sid = self.participants.get(publisher)?.sid.0.clone();
        let participant = self.participants.get_mut(&subscriber)?;
        participant.connection?;
        let stream = &mut participant.subscriptions.get_mut(&track)?.stream;
        let state = if stream.paused {
            StreamState::Paused
        } else {
            StreamState::Active
        };
        stream.told = Some(state);
        Some(StreamStateInfo {
            participant_sid,
            track_sid: track.0,
            state: state as i32,
        })
    }
}
