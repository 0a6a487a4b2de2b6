//! A participant goes to another room.
//!
//! Where both rooms are on one shard its client keeps everything it has: socket, transports, tracks. The one room lets
//! it go as a [`Traveller`], the other takes it in, and the client hears `RoomMoved`. Any other client is told where it
//! belongs, with all it needs to be there, and starts over.

use std::collections::BTreeMap;
use std::time::Instant;

use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DataTrackInfo, DisconnectReason, JobType, ParticipantInfo, RoomMovedResponse, TimedVersion};

use crate::media::edge::{Command, MoveTransport};
use crate::proto::claims;
use crate::types::{Identity, MediaKind, ParticipantHandle, ParticipantId, TrackHandle, TrackId, TransportHandle};

use super::administration::AdministrationError;
use super::data_tracks::DataPublication;
use super::dynacast::Dynacast;
use super::leave::{Departure, Farewell, leave_message};
use super::output::{ConnectionHandle, RoomEvent};
use super::participant::Participant;
use super::publication::Publication;
use super::reception::reception;
use super::regression::Regression;
use super::room::Room;
use super::settings::{MAX_MOVES, TOKEN_MIN_LIFETIME, TOKEN_REFRESH_INTERVAL};

/// A participant between two rooms, as the first one left it.
pub struct Traveller {
    participant: Box<Participant>,
    data_tracks: BTreeMap<u16, DataTrackInfo>,
}

impl Traveller {
    pub fn handle(&self) -> ParticipantHandle {
        self.participant.handle
    }

    pub fn sid(&self) -> &ParticipantId {
        &self.participant.sid
    }

    pub fn connection(&self) -> Option<ConnectionHandle> {
        self.participant.connection
    }

    /// No room takes it in: what its client is told before its socket is closed, and what the shard is to forget.
    pub fn turned_back(self) -> (Option<Message>, Vec<Command>) {
        let reason = DisconnectReason::StateMismatch;
        let message = leave_message(&self.participant.client, reason, Action::Reconnect);
        let opened = self.participant.peers().filter(|peer| peer.opened);
        let commands = opened.map(|peer| Command::CloseTransport {
            transport: peer.transport,
        });
        (message, commands.collect())
    }
}

impl std::fmt::Debug for Traveller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Traveller({})", self.participant.sid)
    }
}

impl Room {
    /// The client hears where it belongs now, gets a token for that room, and is told to connect anew. The others see it
    /// leave. `others` are the participants of `destination`.
    pub fn move_participant(
        &mut self,
        now: Instant,
        identity: &Identity,
        destination: livekit_protocol::Room,
        others: Vec<ParticipantInfo>,
    ) -> Result<(), AdministrationError> {
        let handle = self.find(identity)?;
        if let Some(participant) = self.participants.get_mut(&handle) {
            let grant = participant.claims.video.get_or_insert_default();
            grant.room.clone_from(&destination.name);
        }
        let token = self.token_of(now, handle);
        if let Some(participant) = self.participants.get(&handle) {
            let moved = RoomMovedResponse {
                room: Some(destination),
                token: token.clone(),
                participant: Some(participant.info()),
                other_participants: others,
            };
            // Clients that do not know of moving take a new token all the same.
            self.out.signal(participant, Message::RefreshToken(token));
            self.out.signal(participant, Message::RoomMoved(moved));
        }
        self.full_reconnect(now, handle, DisconnectReason::Migration);
        Ok(())
    }

    fn token_of(&self, now: Instant, handle: ParticipantHandle) -> String {
        let unix = self.wall.unix(now);
        let Some(participant) = self.participants.get(&handle) else {
            return String::new();
        };
        let signer = &participant.signer;
        let lifetime = participant.claims.remaining(unix).max(TOKEN_MIN_LIFETIME);
        let claims = participant.claims.for_refresh();
        claims::sign(&claims, &signer.api_key, &signer.secret, unix, lifetime)
    }

    /// It can go on elsewhere with what it has.
    pub fn can_let_go(&self, identity: &Identity) -> bool {
        let known = self.find(identity).ok();
        let participant = known.and_then(|handle| self.participants.get(&handle));
        participant.is_some_and(|participant| {
            participant.state == State::Active
                && participant.connection.is_some()
                && participant.disconnect_at.is_none()
                && participant.client.reads_room_moved()
                && participant.spent_ssrcs.len() < MAX_MOVES
        })
    }

    /// The others see it leave; its client is told nothing, and its transports stay as they are.
    ///
    /// # Errors
    /// There is nobody of that name.
    pub fn let_go(&mut self, now: Instant, identity: &Identity) -> Result<Traveller, AdministrationError> {
        let handle = self.find(identity)?;
        self.let_go_subscriptions(now, handle);
        let spent = self.ids.spent_ssrcs();
        let participant = self.participants.get(&handle);
        let participant = participant.ok_or(AdministrationError::NoParticipant)?;
        let data_tracks = participant.data_tracks.iter();
        let data_tracks = data_tracks.map(|(its, track)| (*its, track.info.clone())).collect();
        let tracks: Vec<TrackId> = participant.publications.keys().cloned().collect();
        let mut publications = BTreeMap::new();
        for track in tracks {
            if let Some(publication) = self.detach_publication(now, handle, &track) {
                publications.insert(track, publication);
            }
        }
        self.drop_all_data_tracks(handle);
        let reason = DisconnectReason::Migration;
        let mut participant = self
            .take_out(now, handle, reason, Departure::Announced)
            .ok_or(AdministrationError::NoParticipant)?;
        if let Some(connection) = participant.connection {
            self.connections.remove(&connection);
        }
        participant.publications = publications;
        participant.spent_ssrcs.push(spent);
        Ok(Traveller {
            participant: Box::new(participant),
            data_tracks,
        })
    }

    /// It receives nothing of this room any more; its m-lines are free.
    fn let_go_subscriptions(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let senders: Vec<_> = participant.subscriptions.values().map(|its| its.handle).collect();
        let negotiator = &mut participant.sending_peer().negotiator;
        for sender in &senders {
            negotiator.remove_sender(*sender);
        }
        if !senders.is_empty() {
            participant.is_arriving = true;
            self.want_negotiation(now, handle);
        }
        self.drop_all_subscriptions(now, handle);
    }

    /// The participant is of this room from now on: with new handles towards the shard, and the ids that clients know.
    ///
    /// # Errors
    /// Gives it back when the room is closed or full.
    pub fn take_in(&mut self, now: Instant, traveller: Traveller) -> Result<(), Traveller> {
        let dependent = traveller.participant.is_dependent();
        let limit = self.settings.max_participants;
        let is_full = limit > 0 && !dependent && self.count(|participant| !participant.is_dependent()) >= limit;
        if self.closed || is_full {
            return Err(traveller);
        }
        let Traveller {
            mut participant,
            data_tracks,
        } = traveller;
        let known = self.identities.get(&participant.identity).copied();
        if let Some(known) = known {
            let farewell = Farewell::Leave(Action::Disconnect);
            let reason = DisconnectReason::DuplicateIdentity;
            self.end_session(now, known, reason, farewell, Departure::Replaced);
        }
        let handle = self.ids.participant_handle();
        self.make_own(now, &mut participant, handle);
        self.unsaved |= !dependent && !self.is_occupied();
        self.identities.insert(participant.identity.clone(), handle);
        if let Some(connection) = participant.connection {
            self.connections.insert(connection, handle);
        }
        let others = self.participants.values().filter(|other| !other.is_hidden());
        let others: Vec<ParticipantInfo> = others.map(Participant::info).collect();
        self.participants.insert(handle, *participant);
        self.send_data_rights(handle);
        for (publisher_handle, info) in data_tracks {
            self.take_in_data_track(handle, publisher_handle, info);
        }
        self.welcome(now, handle, others);
        Ok(())
    }

    /// Names, rights and handles of this room.
    fn make_own(&mut self, now: Instant, participant: &mut Participant, handle: ParticipantHandle) {
        participant.handle = handle;
        participant.version += 1;
        participant.joined_unix = self.wall.unix(now);
        participant.refresh_token_at = now + TOKEN_REFRESH_INTERVAL;
        let grant = participant.claims.video.get_or_insert_default();
        grant.room.clone_from(&self.name.0);
        participant.wishes.clear();
        participant.denied.clear();
        participant.told_quality.clear();
        participant.settle_at = None;
        participant.data_subscriptions.forget_wishes();

        let mut renamed: Vec<(TransportHandle, MoveTransport)> = Vec::new();
        for peer in std::iter::once(&mut participant.publisher).chain(&mut participant.subscriber) {
            let from = std::mem::replace(&mut peer.transport, self.ids.transport_handle());
            self.transports.insert(peer.transport, handle);
            let its = MoveTransport {
                from,
                room: self.handle,
                participant: handle,
                transport: peer.transport,
                tracks: Vec::new(),
            };
            if peer.opened {
                renamed.push((from, its));
            }
        }
        let transport = participant.publisher.transport;
        for publication in participant.publications.values_mut() {
            let tracks = self.make_publication_own(now, publication, (handle, transport));
            // Everything is published on the first connection.
            if let Some((_, its)) = renamed.first_mut() {
                its.tracks.extend(tracks);
            }
        }
        for (_, its) in renamed {
            self.out.media(Command::MoveTransport(Box::new(its)));
        }
        let reception = reception(
            &self.settings,
            &participant.client,
            &participant.claims,
            participant.may_pause,
        );
        if participant.reception != reception {
            participant.reception = reception;
            for peer in participant.peers().filter(|peer| peer.opened) {
                let transport = peer.transport;
                self.out.media(Command::UpdateReception { transport, reception });
            }
        }
    }

    /// Returns the old and new handles of what is bound.
    fn make_publication_own(
        &mut self,
        now: Instant,
        publication: &mut Publication,
        (handle, transport): (ParticipantHandle, TransportHandle),
    ) -> Vec<(TrackHandle, TrackHandle)> {
        let unix = self.wall.unix(now);
        self.publication_counter += 1;
        publication.order = self.publication_counter;
        publication.subscribers.clear();
        publication.subscribed_told = false;
        publication.dynacast = Dynacast::default();
        publication.regression = Regression::default();
        if publication.live {
            publication.info.version = Some(TimedVersion {
                unix_micro: i64::try_from(unix.as_micros()).unwrap_or(i64::MAX),
                ..Default::default()
            });
        }
        if publication.live && publication.kind == MediaKind::Video {
            publication.dynacast.start(now);
        }
        self.tracks.insert(publication.sid.clone(), handle);
        let mut renamed = Vec::new();
        for publish in publication.codecs.iter_mut().filter_map(|codec| codec.bound.as_mut()) {
            let old = std::mem::replace(&mut publish.track, self.ids.track_handle());
            publish.room = self.handle;
            publish.participant = handle;
            publish.transport = transport;
            self.track_handles.insert(publish.track, publication.sid.clone());
            renamed.push((old, publish.track));
        }
        renamed
    }

    fn take_in_data_track(&mut self, handle: ParticipantHandle, publisher_handle: u16, info: DataTrackInfo) {
        let track = self.ids.data_track_handle();
        let sid = TrackId(info.sid.clone());
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let publication = DataPublication {
            info,
            handle: track,
            subscribers: Default::default(),
        };
        participant.data_tracks.insert(publisher_handle, publication);
        self.data_tracks.insert(sid, (handle, publisher_handle));
        self.out.media(Command::PublishDataTrack {
            room: self.handle,
            publisher: handle,
            track,
            publisher_handle,
        });
    }

    /// What it is told, and what the others are.
    fn welcome(&mut self, now: Instant, handle: ParticipantHandle, other_participants: Vec<ParticipantInfo>) {
        let token = self.token_of(now, handle);
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let info = participant.info();
        let is_publisher = participant.is_publisher;
        let is_arriving = participant.is_arriving;
        let live = participant.publications.values().filter(|publication| publication.live);
        let live: Vec<_> = live.map(|its| (its.sid.clone(), its.info.clone())).collect();
        let moved = RoomMovedResponse {
            room: Some(self.info()),
            token,
            participant: Some(info.clone()),
            other_participants,
        };
        self.out.signal(participant, Message::RoomMoved(moved));
        self.out.happened(RoomEvent::ParticipantJoined {
            participant: Box::new(info.clone()),
        });
        self.changed_now(handle);
        self.room_changed(now);
        self.launch_for(handle, JobType::JtParticipant);
        if is_publisher {
            self.launch_for(handle, JobType::JtPublisher);
        }
        for (track, its) in live {
            self.out.happened(RoomEvent::TrackPublished {
                participant: Box::new(info.clone()),
                track: Box::new(its),
            });
            self.reconcile_track(now, &track);
        }
        if !is_arriving {
            self.reconcile_subscriber(now, handle);
        }
        let members: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for member in members {
            self.auto_subscribe_data(member);
        }
    }

    /// A description has shown the client that what it received in the room before is gone. LiveKit: a client notices a
    /// track on a reused m-line only if the m-line was idle in between.
    pub(super) fn has_arrived(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if std::mem::take(&mut participant.is_arriving) {
            self.reconcile_subscriber(now, handle);
        }
    }
}
