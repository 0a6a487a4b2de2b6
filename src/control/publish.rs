//! Publishing: AddTrack, the m-line that carries the track, its first packet, mute, and the end.

use std::collections::BTreeSet;
use std::time::Instant;

use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    AddTrackRequest, AudioTrackFeature, JobType, MuteTrackRequest, TimedVersion, TrackInfo, TrackPublishedResponse,
    TrackSource, TrackUnpublishedResponse, UpdateLocalAudioTrack, UpdateLocalVideoTrack,
};

use crate::media::edge::{Command, LayerShape, Publish};
use crate::types::{Codec, MediaKind, Mid, ParticipantHandle, Ssrc, TrackHandle, TrackId};

use super::dynacast::Dynacast;
use super::negotiation::{PendingTrack, ReceivedSection};
use super::output::{RoomEvent, Waiting};
use super::publication::{Publication, PublishedCodec, id_letters, kind_of};
use super::regression::Regression;
use super::room::Room;
use super::settings::{MAX_CODECS, MAX_PENDING_TRACKS, MAX_PUBLISHED_TRACKS, MAX_QUEUED_PER_CID, MAX_SHORT_TEXT};
use super::track_info::{MAX_FEATURES, codec_info, complete_info, describe, pending_track, set_layer_ssrc};

/// A track that waits for its m-line, as the negotiator is told of it.
pub(super) struct Pending {
    track: TrackId,
    pub wish: PendingTrack,
}

impl Room {
    pub(super) fn handle_add_track(&mut self, now: Instant, handle: ParticipantHandle, request: AddTrackRequest) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        if let Some((reason, text)) = self.refusal(handle, &request) {
            return self.refuse(handle, 0, reason, text, Some(Request::AddTrack(request)));
        }
        let mut known = participant.publications.values();
        if !request.sid.is_empty() {
            return self.add_backup_codec(handle, request);
        }
        if known.any(|publication| publication.uses_cid(&request.cid)) {
            return self.queue_track(handle, request);
        }
        self.announce_to_publisher(now, handle, request);
    }

    fn refusal(&self, handle: ParticipantHandle, request: &AddTrackRequest) -> Option<(Reason, &'static str)> {
        let participant = self.participants.get(&handle)?;
        if !participant.can_publish_source(request.source()) {
            return Some((Reason::NotAllowed, "does not have permission to publish"));
        }
        if kind_of(request.r#type).is_none() {
            return Some((Reason::UnsupportedType, "unsupported track type"));
        }
        let texts = [&request.cid, &request.name, &request.stream, &request.sid];
        if texts.into_iter().any(|text| text.len() > MAX_SHORT_TEXT) {
            return Some((Reason::LimitExceeded, "text too long"));
        }
        let pending = participant
            .publications
            .values()
            .filter(|track| track.is_pending())
            .count();
        if pending >= MAX_PENDING_TRACKS || participant.publications.len() >= MAX_PUBLISHED_TRACKS {
            return Some((Reason::LimitExceeded, "too many tracks"));
        }
        None
    }

    /// The cid is in use: the track is added when the earlier one ends.
    fn queue_track(&mut self, handle: ParticipantHandle, request: AddTrackRequest) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let same = participant
            .queued
            .iter()
            .filter(|queued| queued.cid == request.cid)
            .count();
        let (reason, text) = if same < MAX_QUEUED_PER_CID {
            participant.queued.push(request.clone());
            (
                Reason::Queued,
                "track with the same client id is already published or pending",
            )
        } else {
            (Reason::LimitExceeded, "too many tracks queued")
        };
        self.refuse(handle, 0, reason, text, Some(Request::AddTrack(request)));
    }

    /// A further codec of a track that is published already.
    fn add_backup_codec(&mut self, handle: ParticipantHandle, request: AddTrackRequest) {
        let track = TrackId(request.sid.clone());
        let enabled = self.settings.enabled_codecs.clone();
        let known = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.publications.get_mut(&track));
        let Some(publication) = known else {
            return self.refuse(
                handle,
                0,
                Reason::NotFound,
                "track not found",
                Some(Request::AddTrack(request)),
            );
        };
        for simulcast in request.simulcast_codecs.iter().take(MAX_CODECS) {
            let Some(codec) = Codec::parse(&simulcast.codec).filter(|codec| enabled.contains(codec)) else {
                continue;
            };
            if simulcast.cid.len() > MAX_SHORT_TEXT {
                continue;
            }
            let info = codec_info(Some(codec), simulcast, &request.layers);
            let declared = publication.codecs.iter().position(|known| known.codec == Some(codec));
            if let Some(index) = declared {
                if let (Some(known), Some(shown)) = (
                    publication.codecs.get_mut(index),
                    publication.info.codecs.get_mut(index),
                ) && known.bound.is_none()
                {
                    known.cid.clone_from(&simulcast.cid);
                    *shown = info;
                }
            } else if publication.codecs.len() < MAX_CODECS {
                publication.codecs.push(PublishedCodec {
                    cid: simulcast.cid.clone(),
                    codec: Some(codec),
                    seen: None,
                    shapes: Default::default(),
                    bound: None,
                });
                publication.info.codecs.push(info);
            }
        }
        let response = TrackPublishedResponse {
            cid: request.cid,
            track: Some(publication.info.clone()),
        };
        if let Some(participant) = self.participants.get(&handle) {
            self.out.signal(participant, Message::TrackPublished(response));
        }
    }

    fn announce_to_publisher(&mut self, now: Instant, handle: ParticipantHandle, request: AddTrackRequest) {
        let Some(kind) = kind_of(request.r#type) else {
            return;
        };
        let sid = self.ids.track_id(&id_letters(kind, request.source()));
        let cname = self.ids.cname();
        self.publication_counter += 1;
        let (info, codecs) = describe(&sid, kind, &request, &self.settings.enabled_codecs);
        let publication = Publication {
            sid: sid.clone(),
            info: info.clone(),
            kind,
            order: self.publication_counter,
            cname,
            codecs,
            since: Some(now),
            live: false,
            subscribers: BTreeSet::new(),
            subscribed_told: false,
            dynacast: Dynacast::default(),
            regression: Regression::default(),
        };
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        self.tracks.insert(sid.clone(), handle);
        participant.publications.insert(sid, publication);
        let response = TrackPublishedResponse {
            cid: request.cid,
            track: Some(info),
        };
        self.out.signal(participant, Message::TrackPublished(response));
    }

    /// Announced tracks and codecs without an m-line, oldest first.
    pub(super) fn pending_tracks(&self, handle: ParticipantHandle) -> Vec<Pending> {
        let Some(participant) = self.participants.get(&handle) else {
            return Vec::new();
        };
        let mut publications: Vec<&Publication> = participant
            .publications
            .values()
            .filter(|publication| {
                publication
                    .codecs
                    .iter()
                    .any(|codec| codec.bound.is_none() && !codec.cid.is_empty())
            })
            .collect();
        publications.sort_by_key(|publication| publication.order);
        publications
            .into_iter()
            .filter_map(|publication| {
                Some(Pending {
                    track: publication.sid.clone(),
                    wish: pending_track(publication)?,
                })
            })
            .collect()
    }

    /// Takes over what an answer settled about the client's m-lines. Returns the tracks that can be announced.
    pub(super) fn bind_received(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        pending: &[Pending],
        received: &[ReceivedSection],
        stopped: &[Mid],
    ) -> Vec<TrackId> {
        for mid in stopped {
            self.stop_section(now, handle, *mid);
        }
        let mut ready = Vec::new();
        for section in received {
            let matched = section.pending.and_then(|index| pending.get(index));
            let track = match matched {
                Some(pending) => {
                    // The m-line carried another track until now: that one has ended.
                    if self
                        .section_track(handle, section.mid)
                        .is_some_and(|(known, _)| known != pending.track)
                    {
                        self.stop_section(now, handle, section.mid);
                    }
                    self.bind_section(handle, &pending.track, section)
                }
                None => self.rebind_section(handle, section),
            };
            ready.extend(track);
        }
        ready
    }

    /// The track, and which of its codecs, that an m-line carries.
    fn section_track(&self, handle: ParticipantHandle, mid: Mid) -> Option<(TrackId, usize)> {
        let publications = self.participants.get(&handle)?.publications.values();
        publications
            .filter_map(|publication| Some((publication.sid.clone(), publication.codec_on(mid)?)))
            .next()
    }

    fn bind_section(
        &mut self,
        handle: ParticipantHandle,
        track: &TrackId,
        section: &ReceivedSection,
    ) -> Option<TrackId> {
        let track_handle = self.ids.track_handle();
        let participant = self.participants.get_mut(&handle)?;
        let transport = participant.publisher.transport;
        let publication = participant.publications.get_mut(track)?;
        let cid = section.cid.clone().unwrap_or_default();
        let by_cid = publication
            .codecs
            .iter()
            .position(|codec| codec.bound.is_none() && !cid.is_empty() && codec.cid == cid);
        let index = by_cid.or_else(|| publication.codecs.iter().position(|codec| codec.bound.is_none()))?;
        let primary = index == 0;
        let publish = Publish {
            room: self.handle,
            participant: handle,
            track: track_handle,
            transport,
            mid: section.mid,
            kind: section.kind,
            codecs: section.codecs.clone(),
            extensions: section.extensions.clone(),
            encodings: section.encodings.clone(),
            muted: publication.info.muted,
            is_screen: matches!(
                publication.info.source(),
                TrackSource::ScreenShare | TrackSource::ScreenShareAudio
            ),
            encrypted: publication.is_encrypted(),
        };
        let codec = publication.codecs.get_mut(index)?;
        codec.bound = Some(Box::new(publish.clone()));
        let sent = codec.sent();
        if let Some(shown) = publication.info.codecs.get_mut(index) {
            shown.mid = section.mid.to_string();
            if shown.cid != cid {
                shown.sdp_cid = cid;
            }
        }
        if primary {
            publication.info.mid = section.mid.to_string();
        }
        complete_info(publication, index, sent);
        self.track_handles.insert(track_handle, track.clone());
        self.out.media(Command::Publish(Box::new(publish)));
        self.start_waiting_subscriptions(track, index);
        // LiveKit: with an SSRC in the description the track is there; a rid shows itself with its first packet.
        let named = section.encodings.iter().any(|encoding| encoding.ssrc.is_some());
        (primary && named).then(|| track.clone())
    }

    /// A later offer about an m-line that is bound already.
    fn rebind_section(&mut self, handle: ParticipantHandle, section: &ReceivedSection) -> Option<TrackId> {
        let (track, index) = self.section_track(handle, section.mid)?;
        let participant = self.participants.get_mut(&handle)?;
        let publication = participant.publications.get_mut(&track)?;
        let muted = publication.info.muted;
        let publish = publication.codecs.get_mut(index)?.bound.as_mut()?;
        let unchanged = publish.codecs == section.codecs
            && publish.extensions == section.extensions
            && publish.encodings == section.encodings;
        if unchanged {
            return None;
        }
        let before = publish.codecs.first().map(|codec| codec.codec);
        publish.codecs.clone_from(&section.codecs);
        publish.extensions = section.extensions.clone();
        publish.encodings.clone_from(&section.encodings);
        publish.muted = muted;
        let after = publish.codecs.first().map(|codec| codec.codec);
        self.out.media(Command::Publish(publish.clone()));
        if before != after {
            if let Some(codec) = publication.codecs.get_mut(index) {
                codec.seen = None;
            }
            complete_info(publication, index, after);
            if publication.live {
                self.changed_now(handle);
            }
        }
        None
    }

    /// The client no longer sends on an m-line: its track ends, or only the backup codec that it carried.
    fn stop_section(&mut self, now: Instant, handle: ParticipantHandle, mid: Mid) {
        let Some((track, index)) = self.section_track(handle, mid) else {
            return;
        };
        if index == 0 {
            return self.unpublish(now, handle, &track, Unpublished::ByClient);
        }
        let Some(codec) = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.publications.get_mut(&track))
            .and_then(|publication| publication.codecs.get_mut(index))
        else {
            return;
        };
        if let Some(publish) = codec.bound.take() {
            codec.cid.clear();
            codec.seen = None;
            self.track_handles.remove(&publish.track);
            self.out.media(Command::Unpublish { track: publish.track });
            self.stop_sending(&track, index);
            self.end_regression(now, handle, &track);
        }
    }

    pub(super) fn announce_all(&mut self, now: Instant, handle: ParticipantHandle, tracks: Vec<TrackId>) {
        for track in tracks {
            self.announce(now, handle, &track);
        }
    }

    /// Shows a bound track to everybody.
    fn announce(&mut self, now: Instant, handle: ParticipantHandle, track: &TrackId) {
        let unix = self.wall.unix(now);
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let Some(publication) = participant.publications.get_mut(track) else {
            return;
        };
        if std::mem::replace(&mut publication.live, true) {
            return;
        }
        publication.info.version = Some(TimedVersion {
            unix_micro: i64::try_from(unix.as_micros()).unwrap_or(i64::MAX),
            ..Default::default()
        });
        if publication.kind == MediaKind::Video {
            publication.dynacast.start(now);
        }
        let info = publication.info.clone();
        let since = publication.since.take();
        let first = !std::mem::replace(&mut participant.is_publisher, true);
        if let Some(since) = since {
            self.waited(now, handle, Waiting::Publish, &info, since);
        }
        self.changed_now(handle);
        if first {
            self.room_changed(now);
            self.launch_for(handle, JobType::JtPublisher);
        }
        if let Some(participant) = self.participants.get(&handle) {
            self.out.happened(RoomEvent::TrackPublished {
                participant: Box::new(participant.info()),
                track: Box::new(info),
            });
        }
        self.reconcile_track(now, track);
    }

    /// The first packet of an encoding.
    pub(super) fn encoding_seen(
        &mut self,
        now: Instant,
        track_handle: TrackHandle,
        encoding: usize,
        ssrc: Ssrc,
        codec: Codec,
    ) {
        let Some(track) = self.track_handles.get(&track_handle).cloned() else {
            return;
        };
        let Some(handle) = self.tracks.get(&track).copied() else {
            return;
        };
        let Some(publication) = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.publications.get_mut(&track))
        else {
            return;
        };
        let Some(index) = publication.codec_of(track_handle) else {
            return;
        };
        let before = publication.info.clone();
        if let Some(published) = publication.codecs.get_mut(index) {
            published.seen = Some(codec);
        }
        set_layer_ssrc(publication, index, encoding, ssrc);
        complete_info(publication, index, Some(codec));
        let changed = before != publication.info;
        if !publication.live && index == 0 {
            self.announce(now, handle, &track);
        } else if publication.live && changed {
            self.changed_now(handle);
        }
        self.update_dynacast(now, handle, &track);
    }

    /// Settings that ask for a size or a frame rate may mean another layer now.
    pub(super) fn layers_measured(&mut self, now: Instant, track_handle: TrackHandle, layers: [LayerShape; 3]) {
        let Some(track) = self.track_handles.get(&track_handle).cloned() else {
            return;
        };
        let Some(publisher) = self.tracks.get(&track).copied() else {
            return;
        };
        let Some(publication) = self.publication_mut(publisher, &track) else {
            return;
        };
        let Some(codec) = publication.codec_of(track_handle) else {
            return;
        };
        if let Some(published) = publication.codecs.get_mut(codec) {
            published.shapes = layers;
        }
        let subscribers = publication.subscribers.clone();
        for subscriber in subscribers {
            self.apply_settings(subscriber, &track);
        }
        self.update_dynacast(now, publisher, &track);
    }

    pub(super) fn handle_mute(&mut self, handle: ParticipantHandle, request: MuteTrackRequest) {
        if !self.set_muted(handle, &TrackId(request.sid.clone()), request.muted) {
            self.refuse(
                handle,
                0,
                Reason::NotFound,
                "track not found",
                Some(Request::Mute(request)),
            );
        }
    }

    /// False: there is no such track.
    pub(super) fn set_muted(&mut self, handle: ParticipantHandle, track: &TrackId, muted: bool) -> bool {
        let Some(publication) = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.publications.get_mut(track))
        else {
            return false;
        };
        if publication.info.muted == muted {
            return true;
        }
        publication.info.muted = muted;
        let live = publication.live;
        for handle in publication.codecs.iter().filter_map(PublishedCodec::handle) {
            self.out.media(Command::MuteTrack { track: handle, muted });
        }
        if live {
            self.changed_now(handle);
        }
        true
    }

    pub(super) fn handle_update_audio_track(&mut self, handle: ParticipantHandle, request: UpdateLocalAudioTrack) {
        let features = request.features.clone();
        let updated = self.update_track_info(handle, &request.track_sid, MediaKind::Audio, |info| {
            info.stereo = features.contains(&(AudioTrackFeature::TfStereo as i32));
            info.disable_dtx = features.contains(&(AudioTrackFeature::TfNoDtx as i32));
            info.audio_features = features.into_iter().take(MAX_FEATURES).collect();
        });
        if !updated {
            let request = Some(Request::UpdateAudioTrack(request));
            self.refuse(handle, 0, Reason::NotFound, "track not found", request);
        }
    }

    pub(super) fn handle_update_video_track(&mut self, handle: ParticipantHandle, request: UpdateLocalVideoTrack) {
        let (width, height) = (request.width, request.height);
        let updated = self.update_track_info(handle, &request.track_sid, MediaKind::Video, |info| {
            info.width = width;
            info.height = height;
        });
        if !updated {
            let request = Some(Request::UpdateVideoTrack(request));
            self.refuse(handle, 0, Reason::NotFound, "track not found", request);
        }
    }

    fn update_track_info(
        &mut self,
        handle: ParticipantHandle,
        sid: &str,
        kind: MediaKind,
        update: impl FnOnce(&mut TrackInfo),
    ) -> bool {
        let publication = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.publications.get_mut(&TrackId::from(sid)))
            .filter(|publication| publication.kind == kind);
        let Some(publication) = publication else {
            return false;
        };
        let before = publication.info.clone();
        update(&mut publication.info);
        if publication.live && before != publication.info {
            self.changed_now(handle);
        }
        true
    }

    /// Ends a track and shows it to everybody; the next queued one with its cid takes its place.
    pub(super) fn unpublish(&mut self, now: Instant, handle: ParticipantHandle, track: &TrackId, cause: Unpublished) {
        let Some(publication) = self.drop_publication(now, handle, track) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if cause == Unpublished::ByServer {
            let message = if participant.client.reads_track_unpublished() {
                Message::TrackUnpublished(TrackUnpublishedResponse {
                    track_sid: track.0.clone(),
                })
            } else {
                Message::Mute(MuteTrackRequest {
                    sid: track.0.clone(),
                    muted: true,
                })
            };
            self.out.signal(participant, message);
        }
        let next = participant
            .queued
            .iter()
            .position(|queued| publication.uses_cid(&queued.cid));
        let next = next.map(|index| participant.queued.remove(index));
        if publication.live {
            self.changed_now(handle);
        }
        if let Some(next) = next {
            self.handle_add_track(now, handle, next);
        }
    }

    /// Removes a track everywhere, without telling its participant or updating the others.
    pub(super) fn drop_publication(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        track: &TrackId,
    ) -> Option<Publication> {
        let publication = self.detach_publication(now, handle, track)?;
        for track in publication.codecs.iter().filter_map(PublishedCodec::handle) {
            self.out.media(Command::Unpublish { track });
        }
        Some(publication)
    }

    /// As `drop_publication`, and the shard is told nothing.
    pub(super) fn detach_publication(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        track: &TrackId,
    ) -> Option<Publication> {
        let publication = self.participants.get_mut(&handle)?.publications.remove(track)?;
        self.tracks.remove(track);
        for codec in publication.codecs.iter().filter_map(PublishedCodec::handle) {
            self.track_handles.remove(&codec);
        }
        for subscriber in &publication.subscribers {
            self.drop_subscription(now, *subscriber, track);
        }
        for participant in self.participants.values_mut() {
            participant.wishes.remove(track);
            participant.denied.remove(track);
        }
        if publication.live
            && let Some(participant) = self.participants.get(&handle)
        {
            self.out.happened(RoomEvent::TrackUnpublished {
                participant: Box::new(participant.info()),
                track: Box::new(publication.info.clone()),
            });
        }
        Some(publication)
    }
}

/// Who ended a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpublished {
    ByClient,
    /// The client is told.
    ByServer,
}
