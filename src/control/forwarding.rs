//! A participant of one room is shown in another, with what it publishes, for as long as it is in its own.
//!
//! The room it is in says what there is to show ([`Forwarding`], whole each time); the other keeps a participant without
//! connections that follows it. Both rooms are on one shard, which shows the packets of the one to the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::{KindDetail, State};
use livekit_protocol::{DisconnectReason, JobType, TrackInfo};

use crate::media::edge::{Command, LayerShape, Publish};
use crate::proto::claims::Claims;
use crate::types::{Codec, Identity, MediaKind, ParticipantHandle, TrackHandle, TrackId};

use super::administration::AdministrationError;
use super::client::Client;
use super::dynacast::Dynacast;
use super::join::{MediaAddresses, Signer};
use super::leave::Farewell;
use super::output::RoomEvent;
use super::publication::{Publication, PublishedCodec};
use super::publish::Unpublished;
use super::regression::Regression;
use super::room::Room;
use super::session::Form;

/// Nothing of a participant without a client is ever renewed.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A participant as another room shows it.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// In its own room; names it between the rooms.
    pub source: ParticipantHandle,
    claims: Claims,
    signer: Signer,
    client: Client,
    tracks: Vec<ForwardedTrack>,
}

#[derive(Clone, Debug)]
struct ForwardedTrack {
    info: TrackInfo,
    kind: MediaKind,
    codecs: Vec<ForwardedCodec>,
}

#[derive(Clone, Debug)]
struct ForwardedCodec {
    codec: Option<Codec>,
    seen: Option<Codec>,
    shapes: [LayerShape; 3],
    bound: Option<Box<Publish>>,
}

/// What a participant that is shown here is in its own room.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) source: ParticipantHandle,
    /// The tracks' handles there, one for each codec.
    tracks: BTreeMap<TrackId, Vec<Option<TrackHandle>>>,
}

/// Why a participant is not shown in another room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    #[error("the destination room has a participant of this identity")]
    IdentityTaken,
    #[error("room has exceeded its max participants")]
    Full,
    #[error("room has already closed")]
    Closed,
}

impl ForwardedTrack {
    fn handles(&self) -> Vec<Option<TrackHandle>> {
        let bound = self.codecs.iter().map(|codec| codec.bound.as_ref());
        bound.map(|bound| bound.map(|publish| publish.track)).collect()
    }
}

impl Room {
    /// From now on `take_forwarded` tells of this participant.
    pub fn forward(&mut self, identity: &Identity) -> Result<Box<Forwarding>, AdministrationError> {
        let handle = self.find(identity)?;
        let forwarding = self.forwarding(handle).ok_or(AdministrationError::NoParticipant)?;
        let version = self.participants.get(&handle).map_or(0, |its| its.version);
        self.forwarded.insert(handle, version);
        Ok(forwarding)
    }

    /// No room shows it any more.
    pub fn stop_forwarding(&mut self, source: ParticipantHandle) {
        self.forwarded.remove(&source);
    }

    /// What has changed about forwarded participants; None = it has left. To be called when the outputs are carried out.
    pub fn take_forwarded(&mut self) -> Vec<(ParticipantHandle, Option<Box<Forwarding>>)> {
        let mut changes = Vec::new();
        if self.forwarded.is_empty() {
            return changes;
        }
        let known: Vec<(ParticipantHandle, u32)> = self.forwarded.iter().map(|(its, told)| (*its, *told)).collect();
        for (source, told) in known {
            match self.participants.get(&source).map(|participant| participant.version) {
                Some(version) if version == told => {}
                Some(version) => {
                    self.forwarded.insert(source, version);
                    changes.push((source, self.forwarding(source)));
                }
                None => {
                    self.forwarded.remove(&source);
                    changes.push((source, None));
                }
            }
        }
        changes
    }

    fn forwarding(&self, handle: ParticipantHandle) -> Option<Box<Forwarding>> {
        // What is shown here is another room's to forward.
        let participant = self.participants.get(&handle).filter(|its| its.original.is_none())?;
        let live = participant.publications.values().filter(|publication| publication.live);
        let tracks = live.map(|publication| ForwardedTrack {
            info: publication.info.clone(),
            kind: publication.kind,
            codecs: publication
                .codecs
                .iter()
                .map(|codec| ForwardedCodec {
                    codec: codec.codec,
                    seen: codec.seen,
                    shapes: codec.shapes,
                    bound: codec.bound.clone(),
                })
                .collect(),
        });
        Some(Box::new(Forwarding {
            source: handle,
            claims: participant.claims.clone(),
            signer: participant.signer.clone(),
            client: participant.client.clone(),
            tracks: tracks.collect(),
        }))
    }

    /// Begins to show a participant of another room.
    pub fn show(&mut self, now: Instant, forwarding: Forwarding) -> Result<(), ForwardError> {
        if self.closed {
            return Err(ForwardError::Closed);
        }
        let identity = Identity(forwarding.claims.identity.clone());
        if let Some(known) = self.identities.get(&identity) {
            let shown = self.participants.get(known).and_then(|its| its.original.as_ref());
            // Asked for twice is asked for once.
            return match shown.is_some_and(|original| original.source == forwarding.source) {
                true => Ok(()),
                false => Err(ForwardError::IdentityTaken),
            };
        }
        let limit = self.settings.max_participants;
        let count = self.count(|participant| !participant.is_dependent());
        if limit > 0 && count >= limit && !forwarding.claims.is_dependent() {
            return Err(ForwardError::Full);
        }
        let mut claims = forwarding.claims.clone();
        claims.kind_details.push(KindDetail::Forwarded.as_str_name().to_owned());
        let parties = (claims, forwarding.signer.clone(), forwarding.client.clone());
        // It has no connection: any would do.
        let form = Form {
            single: true,
            full_ice: false,
            media: MediaAddresses::default(),
        };
        let mut participant = self.make_participant(now, parties, form);
        let handle = participant.handle;
        participant.state = State::Active;
        participant.version = 1;
        participant.activate_by = None;
        participant.refresh_token_at = now + NEVER;
        participant.original = Some(Original {
            source: forwarding.source,
            tracks: BTreeMap::new(),
        });
        let info = participant.info();
        self.unsaved |= !participant.is_dependent() && !self.is_occupied();
        self.identities.insert(identity, handle);
        self.participants.insert(handle, participant);
        self.out.happened(RoomEvent::ParticipantJoined {
            participant: Box::new(info),
        });
        self.send_current_info(handle);
        self.room_changed(now);
        self.launch_for(handle, JobType::JtParticipant);
        self.follow(now, forwarding);
        Ok(())
    }

    /// What is shown here of that participant; None = nothing.
    fn shown_of(&self, source: ParticipantHandle) -> Option<ParticipantHandle> {
        let is_its = |original: &Original| original.source == source;
        let mut participants = self.participants.values();
        let shown = participants.find(|participant| participant.original.as_ref().is_some_and(is_its));
        shown.map(|participant| participant.handle)
    }

    pub fn shows(&self, source: ParticipantHandle) -> bool {
        self.shown_of(source).is_some()
    }

    /// It has left its own room, or is not to be shown any more.
    pub fn stop_showing(&mut self, now: Instant, source: ParticipantHandle) {
        if let Some(handle) = self.shown_of(source) {
            self.close_participant(now, handle, DisconnectReason::ClientInitiated, Farewell::Silent);
        }
    }

    /// What is shown becomes as it is in its own room.
    pub fn follow(&mut self, now: Instant, forwarding: Forwarding) {
        let Some(handle) = self.shown_of(forwarding.source) else {
            return;
        };
        self.follow_claims(handle, &forwarding.claims);
        let wanted: BTreeSet<TrackId> = forwarding
            .tracks
            .iter()
            .map(|its| TrackId(its.info.sid.clone()))
            .collect();
        let known = self.participants.get(&handle).and_then(|its| its.original.as_ref());
        let known: Vec<TrackId> = known
            .map(|its| its.tracks.keys().cloned().collect())
            .unwrap_or_default();
        for track in known.iter().filter(|track| !wanted.contains(track)) {
            self.stop_showing_track(now, handle, track);
        }
        for track in forwarding.tracks {
            self.follow_track(now, handle, track);
        }
    }

    fn follow_claims(&mut self, handle: ParticipantHandle, theirs: &Claims) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let claims = &mut participant.claims;
        let unchanged = claims.name == theirs.name
            && claims.metadata == theirs.metadata
            && claims.attributes == theirs.attributes
            && claims.video == theirs.video;
        if unchanged {
            return;
        }
        claims.name.clone_from(&theirs.name);
        claims.metadata.clone_from(&theirs.metadata);
        claims.attributes.clone_from(&theirs.attributes);
        claims.video.clone_from(&theirs.video);
        self.changed_now(handle);
    }

    fn follow_track(&mut self, now: Instant, handle: ParticipantHandle, track: ForwardedTrack) {
        let sid = TrackId(track.info.sid.clone());
        let participant = self.participants.get(&handle);
        let known = participant.and_then(|its| its.original.as_ref()?.tracks.get(&sid));
        if known.is_some_and(|known| *known != track.handles()) {
            self.stop_showing_track(now, handle, &sid);
        }
        let participant = self.participants.get(&handle);
        if participant.is_some_and(|participant| !participant.publications.contains_key(&sid)) {
            return self.show_track(now, handle, sid, track);
        }
        self.set_muted(handle, &sid, track.info.muted);
        let Some(publication) = self.publication_mut(handle, &sid) else {
            return;
        };
        for (codec, theirs) in publication.codecs.iter_mut().zip(&track.codecs) {
            codec.seen = theirs.seen;
        }
        let info = TrackInfo {
            version: publication.info.version,
            ..track.info
        };
        if publication.info != info {
            publication.info = info;
            self.changed_now(handle);
        }
    }

    fn show_track(&mut self, now: Instant, handle: ParticipantHandle, sid: TrackId, track: ForwardedTrack) {
        let handles = track.handles();
        let cname = self.ids.cname();
        let mut codecs = Vec::new();
        for codec in track.codecs {
            let bound = codec.bound.map(|theirs| {
                let source = theirs.track;
                let publish = Publish {
                    room: self.handle,
                    participant: handle,
                    track: self.ids.track_handle(),
                    ..*theirs
                };
                self.track_handles.insert(publish.track, sid.clone());
                let publish = Box::new(publish);
                self.out.media(Command::ShowTrack {
                    source,
                    publish: publish.clone(),
                });
                publish
            });
            codecs.push(PublishedCodec {
                cid: String::new(),
                codec: codec.codec,
                seen: codec.seen,
                shapes: codec.shapes,
                bound,
            });
        }
        self.publication_counter += 1;
        let publication = Publication {
            sid: sid.clone(),
            info: track.info,
            kind: track.kind,
            order: self.publication_counter,
            cname,
            codecs,
            since: None,
            live: false,
            subscribers: BTreeSet::new(),
            subscribed_told: false,
            dynacast: Dynacast::default(),
            regression: Regression::default(),
        };
        self.tracks.insert(sid.clone(), handle);
        if let Some(participant) = self.participants.get_mut(&handle) {
            participant.publications.insert(sid.clone(), publication);
            if let Some(original) = &mut participant.original {
                original.tracks.insert(sid.clone(), handles);
            }
        }
        self.announce_all(now, handle, vec![sid]);
    }

    fn stop_showing_track(&mut self, now: Instant, handle: ParticipantHandle, sid: &TrackId) {
        let participant = self.participants.get_mut(&handle);
        if let Some(original) = participant.and_then(|participant| participant.original.as_mut()) {
            original.tracks.remove(sid);
        }
        self.unpublish(now, handle, sid, Unpublished::ByClient);
    }
}
