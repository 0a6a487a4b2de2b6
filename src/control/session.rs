//! A new session: checks, peer connections, the JoinResponse, and everything a client hears right after it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, IceServer, JobType, JoinResponse, ServerInfo};

use crate::media::edge::{Command, OpenTransport, Reception};
use crate::proto::claims::Claims;
use crate::proto::join_request::JoinParameters;
use crate::types::{ChannelLabel, Codec, Identity, MediaKind, ParticipantHandle};

use super::acl::Acl;
use super::client::Client;
use super::data_blobs::DataBlobs;
use super::data_tracks::DataSubscriptions;
use super::fallback::{Way, of_way};
use super::join::{Join, JoinError, MediaAddresses, Signer};
use super::leave::{Departure, Farewell};
use super::negotiation::{ClientDescription, ClientQuirks, PeerConfig, PeerConnection, Role};
use super::participant::Participant;
use super::peer::{Peer, Turn};
use super::reception::{MAX_BITRATE_ATTRIBUTE, reception};
use super::room::{Room, codec_info};
use super::settings::{
    ACTIVATION_TIMEOUT, JOIN_ANSWER_DELAY, Limits, PING_INTERVAL, PING_TIMEOUT, PROTOCOL_VERSION, RoomSettings,
    TOKEN_REFRESH_INTERVAL, exceeds,
};

/// LiveKit: `ServerInfo.agent_protocol`.
const AGENT_PROTOCOL: i32 = 1;

/// How a client connects.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// One peer connection instead of one for each direction.
    pub single: bool,
    /// It wants no ICE-lite peer.
    pub full_ice: bool,
    /// Where its media is served.
    pub media: MediaAddresses,
}

impl Room {
    /// On success the first signal for `join.connection` is the JoinResponse; for a resume it is the ReconnectResponse,
    /// or a Leave where there is nothing to resume (the returned handle then names nobody).
    pub fn handle_join(&mut self, now: Instant, join: Join) -> Result<ParticipantHandle, JoinError> {
        if self.closed {
            return Err(JoinError::RoomClosed);
        }
        let claims = merged_claims(join.claims.clone(), &join.parameters, &self.settings.limits)?;
        let identity = Identity(claims.identity.clone());
        let known = self.identities.get(&identity).copied();
        if join.parameters.reconnect {
            if let Some(known) = known {
                self.heed_reconnect(now, known, join.parameters.reconnect_reason);
            }
            return Ok(self.resume(now, join.connection, known));
        }
        if let Some(known) = known {
            let farewell = Farewell::Leave(Action::Disconnect);
            self.end_session(
                now,
                known,
                DisconnectReason::DuplicateIdentity,
                farewell,
                Departure::Replaced,
            );
        }
        let count = self.count(|participant| !participant.is_dependent());
        let limit = self.settings.max_participants;
        if limit > 0 && count >= limit && !claims.is_dependent() {
            return Err(JoinError::RoomFull);
        }
        Ok(self.admit(now, join, claims, identity, known.is_some()))
    }

    fn admit(
        &mut self,
        now: Instant,
        join: Join,
        claims: Claims,
        identity: Identity,
        replaced: bool,
    ) -> ParticipantHandle {
        let Join {
            connection,
            signer,
            parameters,
            media,
            ..
        } = join;
        let media = media.unwrap_or_else(|| MediaAddresses {
            udp: self.settings.udp_candidates.clone(),
            tcp: self.settings.tcp_candidates.clone(),
        });
        let client = Client::new(parameters.client_info);
        let single = parameters.single_connection;
        let form = Form {
            single,
            full_ice: parameters.disable_ice_lite,
            media,
        };
        let mut participant = self.make_participant(now, (claims, signer, client), form);
        let handle = participant.handle;
        participant.take_way(self.fallbacks.way(now, &identity));
        let claims = &participant.claims;
        let can_subscribe = claims.video.as_ref().is_some_and(|grant| grant.can_subscribe());
        participant.subscriber_primary = !single && can_subscribe && participant.client.accepts_subscriber_primary();
        participant.connection = Some(connection);
        participant.auto_subscribe = parameters.auto_subscribe;
        participant.auto_subscribe_data = parameters.auto_subscribe_data_track;
        participant.adaptive_stream = parameters.adaptive_stream;
        participant.may_pause = parameters.subscriber_allow_pause.unwrap_or(self.settings.allow_pause);
        participant.reception = reception(&self.settings, &participant.client, claims, participant.may_pause);
        for peer in participant.peers() {
            self.transports.insert(peer.transport, handle);
        }
        self.connections.insert(connection, handle);
        self.identities.insert(identity, handle);
        let response = self.join_response(now, &participant);
        self.unsaved |= !participant.is_dependent() && !self.is_occupied();
        self.participants.insert(handle, participant);
        self.send_data_rights(handle);
        self.out.signal_connection(connection, Message::Join(response));

        self.after_join(now, handle, replaced);
        for request in parameters.add_track_requests {
            self.handle_add_track(now, handle, request);
        }
        if let Some(offer) = parameters.publisher_offer {
            match self.participants.get_mut(&handle) {
                Some(participant) if participant.client.may_miss_early_answer() => {
                    participant.held_offer = Some((now + JOIN_ANSWER_DELAY, offer));
                }
                _ => self.handle_offer(now, handle, offer),
            }
        }
        handle
    }

    /// One that nobody knows of yet: it may do what `claims` say, and wants nothing.
    pub(super) fn make_participant(
        &mut self,
        now: Instant,
        (claims, signer, client): (Claims, Signer, Client),
        form: Form,
    ) -> Participant {
        let handle = self.ids.participant_handle();
        let mut quirks = quirks(&client, form.full_ice || !self.settings.ice_lite);
        // LiveKit: a line that changes its stream is not played in step.
        quirks.no_transceiver_reuse |= self.settings.sync_streams || !client.reuses_transceivers();
        let role = if form.single { Role::Single } else { Role::Publisher };
        let publisher = self.new_peer(role, quirks.clone(), form.media.clone());
        let subscriber = (!form.single).then(|| self.new_peer(Role::Subscriber, quirks, form.media));
        Participant {
            handle,
            sid: self.ids.participant_id(),
            identity: Identity(claims.identity.clone()),
            claims,
            signer,
            client,
            state: State::Joining,
            version: 0,
            joined_unix: self.wall.unix(now),
            is_publisher: false,
            connection: None,
            last_signal_at: now,
            heard_at: now,
            signal_rtt: None,
            way: Way::Any,
            publisher,
            subscriber,
            subscriber_primary: false,
            auto_subscribe: false,
            auto_subscribe_data: false,
            adaptive_stream: false,
            may_pause: self.settings.allow_pause,
            reception: Reception::default(),
            publications: BTreeMap::new(),
            queued: Vec::new(),
            acl: Acl::default(),
            spent_ssrcs: Vec::new(),
            is_arriving: false,
            original: None,
            wishes: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            settle_at: None,
            denied: BTreeSet::new(),
            data_tracks: BTreeMap::new(),
            data_subscriptions: DataSubscriptions::new(self.ids.number(1..=u32::from(u16::MAX))),
            blobs: DataBlobs::default(),
            last_data_sequence: 0,
            score: None,
            told_quality: BTreeMap::new(),
            activate_by: Some(now + ACTIVATION_TIMEOUT),
            refresh_token_at: now + TOKEN_REFRESH_INTERVAL,
            disconnect_at: None,
            gone_at: None,
            simulated_speech_until: None,
            simulated_resume: None,
            held_offer: None,
        }
    }

    /// From here on the participant is told what happens in the room.
    fn after_join(&mut self, now: Instant, handle: ParticipantHandle, replaced: bool) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.state = State::Joined;
        participant.version += 1;
        if replaced {
            // The others have not seen the old session go: they learn the new sid at once.
            self.send_current_info(handle);
        } else if !self.participants.get(&handle).is_some_and(Participant::is_dependent) {
            self.room_changed(now);
        }
        if !replaced {
            self.launch_for(handle, JobType::JtParticipant);
        }
        self.send_refresh_token(now, handle);
        self.open_subscriber(now, handle);
        self.reconcile_subscriber(now, handle);
        self.auto_subscribe_data(handle);
    }

    /// The ICE servers of a client, with credentials that begin to count now.
    pub(super) fn ice_servers(&self, now: Instant, participant: &Participant) -> Vec<IceServer> {
        let unix = self.wall.unix(now);
        let signer = &participant.signer;
        let servers = self.settings.ice_servers.iter();
        let servers = servers
            .map(|server| server.for_participant(participant.sid.as_str(), &signer.api_key, &signer.secret, unix))
            .collect();
        of_way(participant.way, servers)
    }

    fn join_response(&self, now: Instant, participant: &Participant) -> JoinResponse {
        let settings = &self.settings;
        JoinResponse {
            room: Some(self.info()),
            participant: Some(participant.info()),
            other_participants: self
                .participants
                .values()
                .filter(|other| !other.is_hidden())
                .map(Participant::info)
                .collect(),
            server_version: settings.server_version.clone(),
            ice_servers: self.ice_servers(now, participant),
            subscriber_primary: participant.subscriber_primary,
            server_region: settings.region.clone(),
            ping_timeout: PING_TIMEOUT,
            ping_interval: PING_INTERVAL,
            server_info: Some(server_info(settings)),
            sif_trailer: self.sif_trailer.clone(),
            enabled_publish_codecs: publish_codecs(&settings.enabled_codecs)
                .into_iter()
                .map(codec_info)
                .collect(),
            client_configuration: participant.configuration(),
            // LiveKit: whoever needs a relay is asked to wait for it.
            fast_publish: participant.can_publish() && participant.way != Way::Relay,
            ..Default::default()
        }
    }

    fn new_peer(&mut self, role: Role, quirks: ClientQuirks, media: MediaAddresses) -> Peer {
        let settings = &self.settings;
        let local = self.ids.ice_credentials();
        let ice_lite = !quirks.full_ice;
        let negotiator = PeerConnection::new(PeerConfig {
            role,
            local: local.clone(),
            fingerprint: settings.fingerprint,
            ice_lite,
            candidates: media.udp,
            tcp_candidates: media.tcp,
            warp: settings.warp,
            snap: settings.snap,
            publish_codecs: settings.enabled_codecs.clone(),
            subscribe_codecs: settings.enabled_codecs.clone(),
            quirks,
            session_id: self.ids.session_id(),
        });
        Peer {
            transport: self.ids.transport_handle(),
            negotiator,
            local,
            ice_lite,
            opened: false,
            remote: None,
            connected: false,
            silent: false,
            connected_at: None,
            early_candidates: Vec::new(),
            candidates_sent: false,
            // LiveKit: offers of the server start at a random number, so that a stale answer is noticed.
            turn: Turn::starting_at(self.ids.number(1..=256)),
        }
    }

    /// Tells the shard of a transport, once.
    pub(super) fn open_transport(&mut self, handle: ParticipantHandle, subscriber: bool) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let reception = participant.reception;
        let peer = match &mut participant.subscriber {
            Some(peer) if subscriber => peer,
            _ => &mut participant.publisher,
        };
        if std::mem::replace(&mut peer.opened, true) {
            return;
        }
        let offers = peer.negotiator.role() == Role::Subscriber;
        self.out.media(Command::OpenTransport(Box::new(OpenTransport {
            room: self.handle,
            participant: handle,
            transport: peer.transport,
            local: peer.local.clone(),
            ice_lite: peer.ice_lite,
            ice_controlling: offers,
            open_channels: match offers {
                true => vec![ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack],
                false => Vec::new(),
            },
            reception,
        })));
    }
}

fn quirks(client: &Client, full_ice: bool) -> ClientQuirks {
    let info = &client.info;
    let mut quirks = ClientQuirks::detect(ClientDescription {
        browser: &info.browser,
        browser_version: &info.browser_version,
        os: &info.os,
        device_model: &info.device_model,
    });
    quirks.full_ice |= full_ice || !client.accepts_ice_lite();
    quirks
}

/// What clients and workers are told of the server.
pub fn server_info(settings: &RoomSettings) -> ServerInfo {
    ServerInfo {
        version: settings.server_version.clone(),
        protocol: i32::try_from(PROTOCOL_VERSION).unwrap_or(i32::MAX),
        region: settings.region.clone(),
        node_id: settings.node_id.clone(),
        agent_protocol: AGENT_PROTOCOL,
        ..Default::default()
    }
}

/// VP8, H264, the other video codecs, then audio. LiveKit: clients take the first as the fallback for publishing.
fn publish_codecs(enabled: &[Codec]) -> Vec<Codec> {
    let rank = |codec: &Codec| match (codec, codec.kind()) {
        (Codec::Vp8, _) => 0,
        (Codec::H264, _) => 1,
        (_, MediaKind::Video) => 2,
        (_, MediaKind::Audio) => 3,
    };
    let mut codecs = enabled.to_vec();
    codecs.sort_by_key(rank);
    codecs
}

/// The token's claims with what the connection itself asks for: metadata, attributes, the publish-only form.
fn merged_claims(mut claims: Claims, parameters: &JoinParameters, limits: &Limits) -> Result<Claims, JoinError> {
    let grant = claims.video.get_or_insert_default();
    if let Some(publish) = parameters.publish.as_deref().filter(|publish| !publish.is_empty()) {
        if !grant.can_publish() {
            return Err(JoinError::NotAllowed);
        }
        grant.can_subscribe = Some(false);
        claims.identity = format!("{}#{publish}", claims.identity);
    }
    let grant = claims.video.get_or_insert_default();
    if (!parameters.metadata.is_empty() || !parameters.attributes.is_empty()) && !grant.can_update_own_metadata() {
        return Err(JoinError::NotAllowed);
    }
    if !parameters.metadata.is_empty() {
        claims.metadata = parameters.metadata.clone();
    }
    // Limits of the participant are not its own to set.
    let own = |(key, _): &(&String, &String)| key.as_str() != MAX_BITRATE_ATTRIBUTE;
    let attributes = parameters
        .attributes
        .iter()
        .filter(own)
        .map(|(key, value)| (key.clone(), value.clone()));
    claims.attributes.extend(attributes);

    if claims.identity.is_empty() {
        return Err(JoinError::IdentityEmpty);
    }
    let max = limits.max_participant_identity_length;
    if exceeds(claims.identity.len(), max) {
        return Err(JoinError::IdentityTooLong { max });
    }
    let max = limits.max_participant_name_length;
    if exceeds(claims.name.len(), max) {
        return Err(JoinError::NameTooLong { max });
    }
    if exceeds(claims.metadata.len(), limits.max_metadata_size) {
        return Err(JoinError::MetadataTooLarge);
    }
    if exceeds(attributes_size(&claims.attributes), limits.max_attributes_size) {
        return Err(JoinError::AttributesTooLarge);
    }
    Ok(claims)
}

/// Bytes of all keys and values.
pub(super) fn attributes_size(attributes: &BTreeMap<String, String>) -> usize {
    attributes.iter().map(|(key, value)| key.len() + value.len()).sum()
}
