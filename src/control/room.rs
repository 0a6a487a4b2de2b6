//! One life of one room: its participants, its clock work and its end.
//!
//! Driven by the node: any number of `handle_*` calls, then `poll_output` until it is empty, then `poll_timeout` (an
//! instant in the past = call `handle_timeout` again now). Deterministic: the same calls with the same times and the
//! same seed give the same outputs. What a client or the shard causes here is in the files beside this one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::State;
use livekit_protocol::{AgentDispatch, DisconnectReason, ParticipantInfo};

use crate::media::edge::{Command, Event};
use crate::proto::relay::IceServerSource;
use crate::types::{
    CloseReason, Codec, Identity, ParticipantHandle, RoomHandle, RoomId, RoomName, SubscriptionHandle, TrackHandle,
    TrackId, TransportHandle, WallClock,
};

use super::demand::Demands;
use super::explanation::Asked;
use super::fallback::Fallbacks;
use super::ids::Ids;
use super::join::MediaAddresses;
use super::outbox::Outbox;
use super::output::{ConnectionHandle, Output, RoomEvent};
use super::participant::Participant;
use super::participants::Participants;
use super::peer::Peer;
use super::rpc::Call;
use super::settings::{GONE_WINDOW, QUALITY_INTERVAL, RoomSettings, UPDATE_BATCH_INTERVAL};

/// LiveKit: lengths of the texts that clients see in `Room.turn_password` and `JoinResponse.sif_trailer`.
const TURN_PASSWORD_LENGTH: usize = 44;
const SIF_TRAILER_LENGTH: usize = 43;

pub struct Room {
    pub(super) name: RoomName,
    pub(super) handle: RoomHandle,
    pub(super) sid: RoomId,
    pub(super) settings: RoomSettings,
    pub(super) wall: WallClock,
    pub(super) ids: Ids,
    pub(super) out: Outbox,

    pub(super) created_at: Instant,
    pub(super) turn_password: String,
    /// Marks server-injected frames of end-to-end encrypted tracks.
    pub(super) sif_trailer: Vec<u8>,
    pub(super) metadata: String,
    /// At most `MAX_DISPATCHES`.
    pub(super) dispatches: Vec<AgentDispatch>,
    /// Jobs of before the restart whose agents and workers may still come back; at most those of `dispatches`.
    pub(super) restored_jobs: BTreeSet<String>,
    /// At most `MAX_CALLS`.
    pub(super) calls: Vec<Call>,
    pub(super) closed: bool,

    /// Every map below holds entries of living participants only: `end_session` removes them all.
    pub(super) participants: Participants,
    pub(super) identities: BTreeMap<Identity, ParticipantHandle>,
    pub(super) connections: BTreeMap<ConnectionHandle, ParticipantHandle>,
    pub(super) transports: BTreeMap<TransportHandle, ParticipantHandle>,
    /// The publisher of every track, pending ones included.
    pub(super) tracks: BTreeMap<TrackId, ParticipantHandle>,
    pub(super) track_handles: BTreeMap<TrackHandle, TrackId>,
    pub(super) subscriptions: BTreeMap<SubscriptionHandle, (ParticipantHandle, TrackId)>,
    /// The publisher of every data track, and its handle for it.
    pub(super) data_tracks: BTreeMap<TrackId, (ParticipantHandle, u16)>,
    /// Orders announcements of tracks.
    pub(super) publication_counter: u64,

    /// Updates that wait for the next batch; at most one for every identity.
    pub(super) updates: BTreeMap<Identity, ParticipantInfo>,
    pub(super) next_update_batch: Instant,
    pub(super) next_quality: Instant,
    /// For clients that resume; at most `MAX_DEPARTED`.
    pub(super) departed: VecDeque<Departed>,
    pub(super) room_update_at: Option<Instant>,
    pub(super) last_room_update: Instant,
    /// Whom to tell of which tracks whether their video is sent; at `streams_at`, which is the end of the turn.
    pub(super) changed_streams: BTreeSet<(ParticipantHandle, TrackId)>,
    pub(super) streams_at: Option<Instant>,
    /// Explanations that the shard was asked for; at most `MAX_QUERIES`.
    pub(super) queries: BTreeMap<u64, Asked>,
    pub(super) last_query: u64,
    /// Quantised levels of those who speak.
    pub(super) speakers: BTreeMap<ParticipantHandle, f32>,

    /// Participants that other rooms show, and the version they were told last.
    pub(super) forwarded: BTreeMap<ParticipantHandle, u32>,
    pub(super) demands: Demands,

    /// When the last participant who counts left; None = nobody has left yet.
    /// Outlives those whose connections have failed, so that they are led another way when they come back.
    pub(super) fallbacks: Fallbacks,
    pub(super) departed_at: Option<Instant>,
    /// It is over in this process only.
    pub(super) kept: bool,
    /// `take_record` has something new to say.
    pub(super) unsaved: bool,
}

pub(super) struct Departed {
    pub at: Instant,
    pub info: ParticipantInfo,
}

impl Room {
    /// `handle` is never reused; `seed` must be unpredictable, since ICE passwords come from it.
    pub fn new(
        name: RoomName,
        handle: RoomHandle,
        settings: RoomSettings,
        wall: WallClock,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut room = Self::make(name, handle, settings, wall, seed, now);
        room.open();
        room.dispatch_configured_agents(now);
        room.unsaved = true;
        room.out.happened(RoomEvent::RoomStarted);
        room
    }

    /// Nothing is asked of anybody yet.
    pub(super) fn make(
        name: RoomName,
        handle: RoomHandle,
        settings: RoomSettings,
        wall: WallClock,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut ids = Ids::new(handle, seed);
        Self {
            name,
            handle,
            sid: ids.room_id(),
            turn_password: ids.secret(TURN_PASSWORD_LENGTH),
            sif_trailer: ids.secret(SIF_TRAILER_LENGTH).into_bytes(),
            metadata: settings.metadata.clone(),
            dispatches: Vec::new(),
            restored_jobs: BTreeSet::new(),
            calls: Vec::new(),
            settings,
            wall,
            ids,
            out: Outbox::default(),
            created_at: now,
            closed: false,
            participants: Participants::default(),
            identities: BTreeMap::new(),
            connections: BTreeMap::new(),
            transports: BTreeMap::new(),
            tracks: BTreeMap::new(),
            track_handles: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            data_tracks: BTreeMap::new(),
            publication_counter: 0,
            updates: BTreeMap::new(),
            next_update_batch: now + UPDATE_BATCH_INTERVAL,
            next_quality: now + QUALITY_INTERVAL,
            departed: VecDeque::new(),
            room_update_at: None,
            last_room_update: now,
            changed_streams: BTreeSet::new(),
            queries: BTreeMap::new(),
            last_query: 0,
            streams_at: None,
            speakers: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            demands: Demands::default(),
            fallbacks: Fallbacks::default(),
            departed_at: None,
            kept: false,
            unsaved: false,
        }
    }

    pub(super) fn open(&mut self) {
        self.out.media(Command::OpenRoom {
            room: self.handle,
            sif_trailer: self.sif_trailer.clone(),
            audio_last_n: self.settings.audio_last_n,
        });
    }

    pub(super) fn start_clock(&mut self, now: Instant) {
        self.next_update_batch = now + UPDATE_BATCH_INTERVAL;
        self.next_quality = now + QUALITY_INTERVAL;
        self.last_room_update = now;
    }

    /// The signalling socket is gone without a `Leave`. A participant whose transport has been up stays until that
    /// fails; any other is lost with its socket.
    pub fn handle_connection_closed(&mut self, now: Instant, connection: ConnectionHandle) {
        let Some(handle) = self.connections.remove(&connection) else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.lose_connection(now);
        if !participant.peers().any(|peer| peer.connected) {
            self.close_participant(
                now,
                handle,
                DisconnectReason::SignalClose,
                super::leave::Farewell::Silent,
            );
        }
    }

    /// How clients reach the home shard from now on, and which ICE servers they are told.
    pub fn replace_addresses(&mut self, fresh: MediaAddresses, ice_servers: Vec<IceServerSource>) {
        let settings = &mut self.settings;
        let old = MediaAddresses {
            udp: std::mem::replace(&mut settings.udp_candidates, fresh.udp.clone()),
            tcp: std::mem::replace(&mut settings.tcp_candidates, fresh.tcp.clone()),
        };
        settings.ice_servers = ice_servers;
        for participant in self.participants.values_mut() {
            let peers = std::iter::once(&mut participant.publisher).chain(&mut participant.subscriber);
            for peer in peers {
                peer.negotiator.replace_candidates(&old, &fresh);
            }
        }
    }

    /// What the shard reports. Events about something gone are normal and ignored.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::TransportConnected { transport, .. } => self.transport_connected(now, transport),
            Event::TransportSilent { transport, silent } => self.transport_silent(now, transport, silent),
            Event::TransportLossy { transport, rtt } => self.transport_lossy(now, transport, rtt),
            Event::TransportClosed { transport, reason } => self.transport_closed(now, transport, reason),
            Event::EncodingSeen {
                track,
                encoding,
                ssrc,
                codec,
                ..
            } => self.encoding_seen(now, track, usize::from(encoding), ssrc, codec),
            Event::LayersMeasured { track, layers } => self.layers_measured(now, track, layers),
            Event::SubscriptionStarted { subscription } => self.subscription_started(now, subscription),
            Event::CodecUnsupported { subscription, .. } => self.try_next_codec(now, subscription),
            Event::LayerSent { subscription, spatial } => self.layer_sent(subscription, spatial),
            Event::StreamState { subscription, paused } => self.stream_paused(now, subscription, paused),
            Event::Speakers { speakers, .. } => self.speakers_changed(&speakers),
            Event::Quality { participant, score } => {
                if let Some(participant) = self.participants.get_mut(&participant) {
                    participant.score = Some(score);
                }
            }
            Event::DataSequence { participant, sequence } => {
                if let Some(participant) = self.participants.get_mut(&participant) {
                    participant.last_data_sequence = participant.last_data_sequence.max(sequence);
                }
            }
            Event::RpcAnswer { participant, packet } => self.rpc_answered(participant, &packet),
            // Replaying reliable data to a late reader is the shard's.
            Event::ChannelsOpen { .. } => {}
            Event::Explanation { query, report, .. } => self.explained(query, *report),
            Event::RoomPanicked { .. } => self.close_for_reconnect(now),
        }
    }

    fn transport_connected(&mut self, now: Instant, transport: TransportHandle) {
        let Some(handle) = self.transports.get(&transport).copied() else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if let Some(peer) = participant.peer_mut(transport) {
            peer.connected = true;
            peer.connected_at.get_or_insert(now);
        }
        if participant.primary().transport != transport || participant.state == State::Active {
            return;
        }
        participant.state = State::Active;
        participant.activate_by = None;
        let info = participant.info();
        let held = participant.held_offer.take();
        self.changed(handle);
        self.out.happened(RoomEvent::ParticipantJoined {
            participant: Box::new(info),
        });
        self.reconcile_subscriber(now, handle);
        if let Some((_, offer)) = held {
            self.answer_offer(now, handle, offer);
        }
    }

    /// A network that is gone may be back in a while, and a client that is gone is not: whose socket has ended too has
    /// little time.
    fn transport_silent(&mut self, now: Instant, transport: TransportHandle, silent: bool) {
        let participant = self.transports.get(&transport);
        let Some(participant) = participant.and_then(|handle| self.participants.get_mut(handle)) else {
            return;
        };
        if let Some(peer) = participant.peer_mut(transport) {
            peer.silent = silent;
        }
        participant.review_silence(now);
    }

    fn transport_closed(&mut self, now: Instant, transport: TransportHandle, reason: CloseReason) {
        let Some(handle) = self.transports.get(&transport).copied() else {
            return;
        };
        let mut since = None;
        if let Some(peer) = self
            .participants
            .get_mut(&handle)
            .and_then(|participant| participant.peer_mut(transport))
        {
            peer.connected = false;
            peer.opened = false;
            since = peer.connected_at.take();
        }
        self.note_failure(now, handle, since, reason);
        self.forget_bindings(handle, transport);
        self.lose_transport(now, handle);
    }

    /// With a transport the shard has forgotten the tracks on it and who received them, and what was sent on it: commands
    /// about those would name nothing.
    fn forget_bindings(&mut self, handle: ParticipantHandle, transport: TransportHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if participant.sending_peer().transport == transport {
            for subscription in participant.subscriptions.values_mut() {
                subscription.bound = None;
                subscription.sending = None;
            }
        }
        let mut gone = Vec::new();
        for (track, publication) in &mut participant.publications {
            for (index, codec) in publication.codecs.iter_mut().enumerate() {
                if let Some(publish) = codec.bound.take_if(|publish| publish.transport == transport) {
                    gone.push((track.clone(), index, publish.track));
                }
            }
        }
        for (track, index, published) in gone {
            self.track_handles.remove(&published);
            self.stop_sending(&track, index);
        }
    }

    /// The earliest deadline. Never None while the room lives.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let participants = self.participants.next_timeout();
        let batch = (!self.updates.is_empty()).then_some(self.next_update_batch);
        let quality = (!self.participants.is_empty()).then_some(self.next_quality);
        let own = [
            batch,
            quality,
            self.room_update_at,
            self.streams_at,
            self.end_at(),
            self.next_call_timeout(),
        ];
        own.into_iter().flatten().chain(participants).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        for handle in self.participants.due(now) {
            self.participant_timeout(now, handle);
        }
        if self.streams_at.is_some_and(|at| at <= now) {
            self.send_stream_states();
        }
        if self.next_update_batch <= now {
            self.next_update_batch = next_tick(self.created_at, UPDATE_BATCH_INTERVAL, now);
            self.flush_updates();
        }
        if self.next_quality <= now {
            self.next_quality = next_tick(self.created_at, QUALITY_INTERVAL, now);
            self.send_connection_quality();
        }
        if self.room_update_at.is_some_and(|at| at <= now) {
            self.send_room_update(now);
        }
        self.end_late_calls(now);
        if self.end_at().is_some_and(|at| at <= now) {
            self.close(now, DisconnectReason::RoomClosed);
        }
    }

    fn participant_timeout(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if let Some((_, offer)) = participant.held_offer.take_if(|(at, _)| *at <= now) {
            self.answer_offer(now, handle, offer);
        }
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if passed(participant.activate_by) {
            return self.expire(now, handle, DisconnectReason::JoinFailure);
        }
        if passed(participant.disconnect_at) || passed(participant.gone_at) {
            return self.expire(now, handle, DisconnectReason::ConnectionTimeout);
        }
        if participant.is_silent() {
            participant.publisher.turn.wait_longer(now);
            if let Some(subscriber) = &mut participant.subscriber {
                subscriber.turn.wait_longer(now);
            }
        }
        if participant.peers().any(|peer| peer.turn.timed_out(now)) {
            return self.full_reconnect(now, handle, DisconnectReason::StateMismatch);
        }
        if passed(participant.simulated_speech_until) {
            participant.simulated_speech_until = None;
            self.simulate_speaker(handle, 0.0);
        }
        if self
            .participants
            .get(&handle)
            .is_some_and(|it| it.refresh_token_at <= now)
        {
            self.send_refresh_token(now, handle);
        }
        self.give_up_missing_tracks(now, handle);
        self.settle_due(now, handle);
        self.publications_due(now, handle);
        self.negotiate_due(now, handle);
    }

    fn expire(&mut self, now: Instant, handle: ParticipantHandle, reason: DisconnectReason) {
        let disconnect = livekit_protocol::leave_request::Action::Disconnect;
        self.close_participant(now, handle, reason, super::leave::Farewell::Leave(disconnect));
    }

    /// What its tracks have waited for.
    fn publications_due(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let publications = participant.publications.values();
        let due: Vec<TrackId> = publications
            .filter(|publication| passed(publication.next_timeout()))
            .map(|publication| publication.sid.clone())
            .collect();
        for track in due {
            let Some(publication) = self.publication_mut(handle, &track) else {
                continue;
            };
            let downgrades = passed(publication.dynacast.downgrade_at);
            let unwatched = passed(publication.dynacast.unwatched_at);
            let regresses = passed(publication.regression.next_timeout());
            if unwatched {
                self.tell_unwatched(handle, &track);
            }
            if downgrades {
                self.downgrade_dynacast(now, handle, &track);
            }
            if regresses {
                self.regression_due(now, handle, &track);
            }
        }
    }

    /// When the room ends unless somebody joins; None while somebody who counts is in it.
    fn end_at(&self) -> Option<Instant> {
        if self.is_occupied() {
            return None;
        }
        Some(match self.departed_at {
            Some(left) => left + self.settings.departure_timeout,
            None => self.created_at + self.settings.empty_timeout,
        })
    }

    /// In the order in which they must happen; None = all done, the room waits for the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop()
    }

    /// As clients see it.
    pub fn info(&self) -> livekit_protocol::Room {
        let unix = self.wall.unix(self.created_at);
        let rtx = livekit_protocol::Codec {
            mime: "video/rtx".into(),
            ..Default::default()
        };
        livekit_protocol::Room {
            sid: self.sid.0.clone(),
            name: self.name.0.clone(),
            empty_timeout: seconds(self.settings.empty_timeout),
            departure_timeout: seconds(self.settings.departure_timeout),
            max_participants: self.settings.max_participants,
            creation_time: i64::try_from(unix.as_secs()).unwrap_or(i64::MAX),
            creation_time_ms: i64::try_from(unix.as_millis()).unwrap_or(i64::MAX),
            turn_password: self.turn_password.clone(),
            enabled_codecs: self
                .settings
                .enabled_codecs
                .iter()
                .copied()
                .map(codec_info)
                .chain([rtx])
                .collect(),
            metadata: self.metadata.clone(),
            num_participants: self.count(|participant| !participant.is_dependent()),
            num_publishers: self.count(|participant| participant.is_publisher),
            active_recording: self.participants.values().any(Participant::is_recorder),
            ..Default::default()
        }
    }

    pub(super) fn count(&self, counts: impl Fn(&Participant) -> bool) -> u32 {
        u32::try_from(
            self.participants
                .values()
                .filter(|participant| counts(participant))
                .count(),
        )
        .unwrap_or(u32::MAX)
    }

    /// Closed here, and written down for the next process.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Participant {
    pub(super) fn lose_connection(&mut self, now: Instant) -> Option<ConnectionHandle> {
        self.last_signal_at = now;
        self.publisher.turn.pause();
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.turn.pause();
        }
        let connection = self.connection.take();
        self.review_silence(now);
        connection
    }

    /// Nothing comes on any of its transports that was up.
    pub(super) fn is_silent(&self) -> bool {
        let mut connected = self.peers().filter(|peer| peer.connected).peekable();
        connected.peek().is_some() && connected.all(|peer| peer.silent)
    }

    pub(super) fn review_silence(&mut self, now: Instant) {
        let is_gone = self.connection.is_none() && self.is_silent();
        self.gone_at = is_gone.then(|| self.gone_at.unwrap_or(now + GONE_WINDOW));
    }

    pub(super) fn peer_mut(&mut self, transport: TransportHandle) -> Option<&mut Peer> {
        std::iter::once(&mut self.publisher)
            .chain(&mut self.subscriber)
            .find(|peer| peer.transport == transport)
    }
}

pub(super) fn codec_info(codec: Codec) -> livekit_protocol::Codec {
    livekit_protocol::Codec {
        mime: codec.mime_type(),
        ..Default::default()
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// The first multiple of `interval` after `start` that is later than `now`.
pub(super) fn next_tick(start: Instant, interval: Duration, now: Instant) -> Instant {
    let elapsed = now.saturating_duration_since(start);
    let ticks = elapsed.as_millis() / interval.as_millis().max(1) + 1;
    start + interval * u32::try_from(ticks).unwrap_or(u32::MAX)
}
