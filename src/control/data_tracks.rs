//! Data tracks: published by name, subscribed one by one, addressed in packets by 16-bit handles of either side.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use livekit_protocol::data_track_frame_encoding::Value;
use livekit_protocol::data_track_subscriber_handles::PublishedDataTrack;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DataTrackInfo, DataTrackSubscriberHandles, PublishDataTrackRequest, PublishDataTrackResponse,
    SubscriptionPermissionUpdate, UnpublishDataTrackRequest, UnpublishDataTrackResponse, UpdateDataSubscription,
};

use prost::Message as _;

use crate::media::edge::Command;
use crate::types::{DataTrackHandle, ParticipantHandle, TrackId};

use super::participant::Participant;
use super::room::Room;
use super::settings::{MAX_DATA_TRACKS, MAX_SHORT_TEXT, MAX_WISHES, exceeds};
use super::subscribe::may_receive;

pub(super) struct DataPublication {
    pub info: DataTrackInfo,
    pub handle: DataTrackHandle,
    pub subscribers: BTreeSet<ParticipantHandle>,
}

/// What one participant receives.
pub(super) struct DataSubscriptions {
    /// The handles in packets sent to it, 1..=65535.
    handles: BTreeMap<TrackId, u16>,
    /// What it asked for, there or not, allowed or not; at most `MAX_WISHES`.
    wishes: BTreeSet<TrackId>,
    next: u16,
}

impl DataSubscriptions {
    /// `first` is the handle of the first subscription. LiveKit: a random one, so that handles of an earlier session
    /// do not match by accident.
    pub(super) fn new(first: u32) -> Self {
        Self {
            handles: BTreeMap::new(),
            wishes: BTreeSet::new(),
            next: u16::try_from(first).unwrap_or(1).max(1),
        }
    }

    /// Of another room's tracks.
    pub(super) fn forget_wishes(&mut self) {
        self.wishes.clear();
    }

    /// An unused handle; None when all 65535 are taken.
    fn assign(&mut self, track: &TrackId) -> Option<u16> {
        let used: BTreeSet<u16> = self.handles.values().copied().collect();
        if used.len() >= usize::from(u16::MAX) {
            return None;
        }
        while used.contains(&self.next) {
            self.next = self.next.checked_add(1).unwrap_or(1);
        }
        let handle = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        self.handles.insert(track.clone(), handle);
        Some(handle)
    }
}

impl Room {
    pub(super) fn handle_publish_data_track(&mut self, handle: ParticipantHandle, request: PublishDataTrackRequest) {
        if let Some((reason, text)) = self.data_track_refusal(handle, &request) {
            return self.refuse(handle, 0, reason, text, Some(Request::PublishDataTrack(request)));
        }
        let Ok(publisher_handle) = u16::try_from(request.pub_handle) else {
            return;
        };
        let sid = self.ids.data_track_id();
        let track = self.ids.data_track_handle();
        let info = DataTrackInfo {
            pub_handle: request.pub_handle,
            sid: sid.0.clone(),
            name: request.name,
            encryption: request.encryption,
            frame_encoding: request.frame_encoding,
            schema: request.schema,
        };
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let publication = DataPublication {
            info: info.clone(),
            handle: track,
            subscribers: BTreeSet::new(),
        };
        participant.data_tracks.insert(publisher_handle, publication);
        participant.is_publisher = true;
        self.data_tracks.insert(sid, (handle, publisher_handle));
        self.out.media(Command::PublishDataTrack {
            room: self.handle,
            publisher: handle,
            track,
            publisher_handle,
        });
        let response = PublishDataTrackResponse { info: Some(info) };
        if let Some(participant) = self.participants.get(&handle) {
            self.out
                .signal(participant, Message::PublishDataTrackResponse(response));
        }
        self.changed_now(handle);
        let others: Vec<ParticipantHandle> = self
            .participants
            .values()
            .filter(|other| other.auto_subscribe_data && other.handle != handle)
            .map(|other| other.handle)
            .collect();
        for other in others {
            self.auto_subscribe_data(other);
        }
    }

    fn data_track_refusal(
        &self,
        handle: ParticipantHandle,
        request: &PublishDataTrackRequest,
    ) -> Option<(Reason, &'static str)> {
        let participant = self.participants.get(&handle)?;
        if !self.settings.enable_data_tracks || !participant.can_publish_data() {
            return Some((Reason::NotAllowed, "does not have permission to publish data"));
        }
        if request.pub_handle == 0 || request.pub_handle > u32::from(u16::MAX) {
            return Some((Reason::InvalidHandle, "handle should be > 0 AND < 65536"));
        }
        if request.name.is_empty() || request.name.len() > MAX_SHORT_TEXT {
            return Some((
                Reason::InvalidName,
                "name should not be empty and should not exceed 256 characters",
            ));
        }
        let custom = request
            .frame_encoding
            .as_ref()
            .and_then(|encoding| encoding.value.as_ref());
        if let Some(Value::Custom(name)) = custom
            && exceeds(name.len(), self.settings.limits.max_data_track_custom_encoding_length)
        {
            return Some((Reason::InvalidRequest, "custom frame encoding too long"));
        }
        let schema = request.schema.as_ref();
        if schema.is_some_and(|schema| schema.encoded_len() > 2 * MAX_SHORT_TEXT) {
            return Some((Reason::InvalidRequest, "schema name too long"));
        }
        if participant
            .data_tracks
            .values()
            .any(|track| track.info.pub_handle == request.pub_handle)
        {
            return Some((Reason::DuplicateHandle, "a data track with same handle already exists"));
        }
        if participant
            .data_tracks
            .values()
            .any(|track| track.info.name == request.name)
        {
            return Some((Reason::DuplicateName, "a data track with same name already exists"));
        }
        if participant.data_tracks.len() >= MAX_DATA_TRACKS {
            return Some((Reason::LimitExceeded, "too many data tracks"));
        }
        None
    }

    pub(super) fn handle_unpublish_data_track(
        &mut self,
        handle: ParticipantHandle,
        request: UnpublishDataTrackRequest,
    ) {
        let removed = u16::try_from(request.pub_handle)
            .ok()
            .and_then(|publisher_handle| self.drop_data_track(handle, publisher_handle));
        let Some(publication) = removed else {
            let request = Some(Request::UnpublishDataTrack(request));
            return self.refuse(handle, 0, Reason::NotFound, "data track not found", request);
        };
        self.changed_now(handle);
        self.tell_data_track_unpublished(handle, publication.info);
    }

    fn tell_data_track_unpublished(&mut self, handle: ParticipantHandle, info: DataTrackInfo) {
        let response = UnpublishDataTrackResponse { info: Some(info) };
        if let Some(participant) = self.participants.get(&handle) {
            self.out
                .signal(participant, Message::UnpublishDataTrackResponse(response));
        }
    }

    /// Removes a data track and every subscription to it, without an update.
    fn drop_data_track(&mut self, handle: ParticipantHandle, publisher_handle: u16) -> Option<DataPublication> {
        let publication = self
            .participants
            .get_mut(&handle)?
            .data_tracks
            .remove(&publisher_handle)?;
        let sid = TrackId(publication.info.sid.clone());
        self.data_tracks.remove(&sid);
        self.out.media(Command::UnpublishDataTrack {
            track: publication.handle,
        });
        for participant in self.participants.values_mut() {
            participant.data_subscriptions.wishes.remove(&sid);
            participant.denied.remove(&sid);
        }
        for subscriber in &publication.subscribers {
            if let Some(subscriber) = self.participants.get_mut(subscriber) {
                subscriber.data_subscriptions.handles.remove(&sid);
            }
            self.send_data_handles(*subscriber);
        }
        Some(publication)
    }

    /// The right to publish data was taken away.
    pub(super) fn revoke_data_tracks(&mut self, handle: ParticipantHandle) {
        let handles: Vec<u16> = self
            .participants
            .get(&handle)
            .map(|participant| participant.data_tracks.keys().copied().collect())
            .unwrap_or_default();
        if handles.is_empty() {
            return;
        }
        let dropped: Vec<DataPublication> = handles
            .into_iter()
            .filter_map(|publisher_handle| self.drop_data_track(handle, publisher_handle))
            .collect();
        self.changed_now(handle);
        for publication in dropped {
            self.tell_data_track_unpublished(handle, publication.info);
        }
    }

    /// The participant goes: its data tracks and its subscriptions to those of others.
    pub(super) fn drop_all_data_tracks(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let own: Vec<u16> = participant.data_tracks.keys().copied().collect();
        let subscribed = std::mem::take(&mut participant.data_subscriptions.handles);
        for publisher_handle in own {
            self.drop_data_track(handle, publisher_handle);
        }
        for track in subscribed.into_keys() {
            if let Some(publication) = self.data_publication_mut(&track) {
                publication.subscribers.remove(&handle);
                let track = publication.handle;
                self.out.media(Command::UnsubscribeDataTrack {
                    track,
                    subscriber: handle,
                });
            }
        }
    }

    fn data_publication_mut(&mut self, track: &TrackId) -> Option<&mut DataPublication> {
        let (publisher, publisher_handle) = self.data_tracks.get(track)?;
        self.participants
            .get_mut(publisher)?
            .data_tracks
            .get_mut(publisher_handle)
    }

    pub(super) fn handle_data_subscription(&mut self, handle: ParticipantHandle, request: UpdateDataSubscription) {
        let mut changed = false;
        for update in request.updates.into_iter().take(MAX_WISHES) {
            let track = TrackId(update.track_sid);
            let Some(participant) = self.participants.get_mut(&handle) else {
                return;
            };
            let wishes = &mut participant.data_subscriptions.wishes;
            if !update.subscribe {
                wishes.remove(&track);
            } else if wishes.len() < MAX_WISHES {
                wishes.insert(track.clone());
            }
            changed |= self.reconcile_data(handle, &track);
        }
        if changed {
            self.send_data_handles(handle);
        }
    }

    /// For clients that asked for every data track at join.
    pub(super) fn auto_subscribe_data(&mut self, handle: ParticipantHandle) {
        if !self
            .participants
            .get(&handle)
            .is_some_and(|participant| participant.auto_subscribe_data)
        {
            return;
        }
        let tracks: Vec<TrackId> = self.data_tracks.keys().cloned().collect();
        let mut changed = false;
        for track in tracks {
            let Some(participant) = self.participants.get_mut(&handle) else {
                return;
            };
            if participant.data_subscriptions.wishes.len() < MAX_WISHES {
                participant.data_subscriptions.wishes.insert(track.clone());
            }
            changed |= self.reconcile_data(handle, &track);
        }
        if changed {
            self.send_data_handles(handle);
        }
    }

    /// A right of the subscriber has changed.
    pub(super) fn reconcile_data_subscriber(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let wishes = participant.data_subscriptions.wishes.clone();
        let mut changed = false;
        for track in wishes {
            changed |= self.reconcile_data(handle, &track);
        }
        if changed {
            self.send_data_handles(handle);
        }
        self.auto_subscribe_data(handle);
    }

    /// The publisher's ACL has changed.
    pub(super) fn reconcile_data_tracks_of(&mut self, publisher: ParticipantHandle) {
        let tracks: Vec<TrackId> = self
            .participants
            .get(&publisher)
            .map(|participant| {
                participant
                    .data_tracks
                    .values()
                    .map(|track| TrackId(track.info.sid.clone()))
                    .collect()
            })
            .unwrap_or_default();
        if tracks.is_empty() {
            return;
        }
        let others: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for other in others {
            let mut changed = false;
            for track in &tracks {
                changed |= self.reconcile_data(other, track);
            }
            if changed {
                self.send_data_handles(other);
            }
        }
    }

    /// Brings one subscription in line with wish and rights; true = the handle map has changed.
    fn reconcile_data(&mut self, handle: ParticipantHandle, track: &TrackId) -> bool {
        let Some((publisher, publisher_handle)) = self.data_tracks.get(track).copied() else {
            return false;
        };
        let (Some(from), Some(to)) = (self.participants.get(&publisher), self.participants.get(&handle)) else {
            return false;
        };
        let wanted = to.data_subscriptions.wishes.contains(track) && to.can_subscribe() && publisher != handle;
        let allowed = wanted && may_receive(from, to, track);
        let subscribed = to.data_subscriptions.handles.contains_key(track);
        if allowed == subscribed {
            return false;
        }
        let permission = SubscriptionPermissionUpdate {
            participant_sid: from.sid.0.clone(),
            track_sid: track.0.clone(),
            allowed,
        };
        let Some(data_track) = from
            .data_tracks
            .get(&publisher_handle)
            .map(|publication| publication.handle)
        else {
            return false;
        };
        let Some(subscriber) = self.participants.get_mut(&handle) else {
            return false;
        };
        if wanted {
            self.out
                .signal(subscriber, Message::SubscriptionPermissionUpdate(permission));
        }
        if allowed {
            let Some(subscriber_handle) = subscriber.data_subscriptions.assign(track) else {
                return false;
            };
            self.out.media(Command::SubscribeDataTrack {
                track: data_track,
                subscriber: handle,
                subscriber_handle,
            });
        } else {
            subscriber.data_subscriptions.handles.remove(track);
            self.out.media(Command::UnsubscribeDataTrack {
                track: data_track,
                subscriber: handle,
            });
        }
        if let Some(publication) = self.data_publication_mut(track) {
            if allowed {
                publication.subscribers.insert(handle);
            } else {
                publication.subscribers.remove(&handle);
            }
        }
        true
    }

    /// The whole map, as clients expect it on each change.
    fn send_data_handles(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let describe = |(track, subscriber_handle): (&TrackId, &u16)| {
            let (publisher, _) = self.data_tracks.get(track)?;
            let publisher: &Participant = self.participants.get(publisher)?;
            let track = PublishedDataTrack {
                publisher_identity: publisher.identity.0.clone(),
                publisher_sid: publisher.sid.0.clone(),
                track_sid: track.0.clone(),
            };
            Some((u32::from(*subscriber_handle), track))
        };
        let sub_handles: HashMap<u32, PublishedDataTrack> = participant
            .data_subscriptions
            .handles
            .iter()
            .filter_map(describe)
            .collect();
        let handles = DataTrackSubscriberHandles { sub_handles };
        self.out
            .signal(participant, Message::DataTrackSubscriberHandles(handles));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_wrap_and_skip_what_is_in_use() {
        let mut subscriptions = DataSubscriptions::new(65_535);
        assert_eq!(subscriptions.assign(&"DTR_a".into()), Some(65_535));
        assert_eq!(subscriptions.assign(&"DTR_b".into()), Some(1));
        subscriptions.next = 65_535;
        assert_eq!(subscriptions.assign(&"DTR_c".into()), Some(2));
    }
}
