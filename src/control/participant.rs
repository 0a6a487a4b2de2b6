//! One session of one identity: who it is, what it may, what it publishes and what it wants.
//!
//! Owned by the room, which is the only one to change it; dropped when the session ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::State;
use livekit_protocol::{AddTrackRequest, ParticipantInfo, SessionDescription, TrackSource};

use crate::media::edge::{ConnectionScore, DataParticipant, DataRights, Reception};
use crate::proto::claims::{Claims, VideoGrant};
use crate::types::{Codec, Identity, ParticipantHandle, ParticipantId, RoomHandle, TrackId};

use super::acl::Acl;
use super::client::Client;
use super::data_blobs::DataBlobs;
use super::data_tracks::{DataPublication, DataSubscriptions};
use super::fallback::Way;
use super::forwarding::Original;
use super::ids::SpentSsrcs;
use super::join::Signer;
use super::output::ConnectionHandle;
use super::peer::Peer;
use super::publication::Publication;
use super::subscription::{Subscription, Wish};

pub(super) struct Participant {
    pub handle: ParticipantHandle,
    pub sid: ParticipantId,
    pub identity: Identity,
    /// Name, metadata, attributes and rights as they are now; what a refresh token says.
    pub claims: Claims,
    pub signer: Signer,
    pub client: Client,
    pub state: State,
    /// Counts changes of `info()`; receivers drop what is older.
    pub version: u32,
    /// UNIX time at which the session began.
    pub joined_unix: Duration,
    pub is_publisher: bool,

    /// None while the signalling socket is away.
    pub connection: Option<ConnectionHandle>,
    /// When the last signalling connection went away.
    pub last_signal_at: Instant,
    /// When it last said anything.
    pub heard_at: Instant,
    /// There and back, as the client measures it by its pings.
    pub signal_rtt: Option<Duration>,
    /// How its media is led to us.
    pub way: Way,
    /// The client's publishing connection, or the only one in single form.
    pub publisher: Peer,
    /// The connection we offer; dual form only.
    pub subscriber: Option<Peer>,
    pub subscriber_primary: bool,

    pub auto_subscribe: bool,
    pub auto_subscribe_data: bool,
    pub adaptive_stream: bool,
    /// What the client, or the configuration, says about stopping video that does not fit.
    pub may_pause: bool,
    /// How it is sent media, as its shard knows it.
    pub reception: Reception,

    /// Pending, negotiated and live tracks.
    pub publications: BTreeMap<TrackId, Publication>,
    /// Requests whose cid is in use; at most `MAX_QUEUED_PER_CID` each.
    pub queued: Vec<AddTrackRequest>,
    /// Who may subscribe to what this participant publishes.
    pub acl: Acl,
    /// SSRCs that may have been sent to it in the rooms it came from; at most `MAX_MOVES`.
    pub spent_ssrcs: Vec<SpentSsrcs>,
    /// It has come from another room, and its client still takes its m-lines for those of that room's tracks.
    pub is_arriving: bool,
    /// It is in another room, and only shown here.
    pub original: Option<Original>,
    /// What the client said about single tracks; at most `MAX_WISHES`.
    pub wishes: BTreeMap<TrackId, Wish>,
    pub subscriptions: BTreeMap<TrackId, Subscription>,
    /// The earliest `Subscription::settle_at`.
    pub settle_at: Option<Instant>,
    /// Tracks of which it was told that it may not have them.
    pub denied: BTreeSet<TrackId>,

    /// By the publisher's handle.
    pub data_tracks: BTreeMap<u16, DataPublication>,
    pub data_subscriptions: DataSubscriptions,
    pub blobs: DataBlobs,
    /// Highest sequence of reliable data received from it.
    pub last_data_sequence: u32,

    pub score: Option<ConnectionScore>,
    /// What it was last told about the quality of others and itself.
    pub told_quality: BTreeMap<ParticipantHandle, i32>,

    /// Not ACTIVE by then: removed.
    pub activate_by: Option<Instant>,
    pub refresh_token_at: Instant,
    /// A lost transport was not replaced by then: removed.
    pub disconnect_at: Option<Instant>,
    /// Silent and without a socket, it is not back by then: removed.
    pub gone_at: Option<Instant>,
    /// The end of a simulated speech.
    pub simulated_speech_until: Option<Instant>,
    pub simulated_resume: Option<SimulatedResume>,
    /// An offer that is answered later, and when at the latest: that of a join request, or one that publishes too early (see
    /// `Client::may_miss_early_answer`, `Client::waits_after_early_answer`).
    pub held_offer: Option<(Instant, SessionDescription)>,
}

/// Test scenarios of the clients' own test suites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SimulatedResume {
    /// The next resumed connection is closed after its `ReconnectResponse` …
    DropAfterResponse,
    /// … or before any message.
    DropAtOnce,
}

impl Participant {
    pub(super) fn grant(&self) -> Option<&VideoGrant> {
        self.claims.video.as_ref()
    }

    pub(super) fn can_publish(&self) -> bool {
        self.grant().is_some_and(VideoGrant::can_publish)
    }

    pub(super) fn can_publish_source(&self, source: TrackSource) -> bool {
        self.grant().is_some_and(|grant| grant.can_publish_source(source))
    }

    pub(super) fn can_subscribe(&self) -> bool {
        self.grant().is_some_and(VideoGrant::can_subscribe)
    }

    pub(super) fn can_publish_data(&self) -> bool {
        self.grant().is_some_and(VideoGrant::can_publish_data)
    }

    pub(super) fn can_update_own_metadata(&self) -> bool {
        self.grant().is_some_and(VideoGrant::can_update_own_metadata)
    }

    pub(super) fn is_hidden(&self) -> bool {
        self.grant().is_some_and(|grant| grant.hidden)
    }

    pub(super) fn is_recorder(&self) -> bool {
        self.claims.is_recorder()
    }

    pub(super) fn is_dependent(&self) -> bool {
        self.claims.is_dependent()
    }

    /// The one connection, or both.
    pub(super) fn peers(&self) -> impl Iterator<Item = &Peer> {
        std::iter::once(&self.publisher).chain(&self.subscriber)
    }

    /// The connection whose being up makes the participant ACTIVE and carries data towards it.
    pub(super) fn primary(&self) -> &Peer {
        match &self.subscriber {
            Some(subscriber) if self.subscriber_primary => subscriber,
            _ => &self.publisher,
        }
    }

    /// The connection on which tracks are sent to it.
    pub(super) fn sending_peer(&mut self) -> &mut Peer {
        self.subscriber.as_mut().unwrap_or(&mut self.publisher)
    }

    /// It can receive the codec, as far as its descriptions have shown.
    pub(super) fn accepts(&self, codec: Codec) -> bool {
        let peer = self.subscriber.as_ref().unwrap_or(&self.publisher);
        peer.negotiator.may_receive(codec)
    }

    pub(super) fn is_single(&self) -> bool {
        self.subscriber.is_none()
    }

    /// It receives something of `publisher`: then it is told how that one speaks and how well it is connected.
    pub(super) fn is_subscribed_to(&self, publisher: ParticipantHandle) -> bool {
        self.subscriptions
            .values()
            .any(|subscription| subscription.publisher == publisher)
    }

    pub(super) fn info(&self) -> ParticipantInfo {
        ParticipantInfo {
            sid: self.sid.0.clone(),
            identity: self.identity.0.clone(),
            state: self.state as i32,
            tracks: self
                .publications
                .values()
                .filter(|publication| publication.live)
                .map(|publication| publication.info.clone())
                .collect(),
            metadata: self.claims.metadata.clone(),
            joined_at: i64::try_from(self.joined_unix.as_secs()).unwrap_or(i64::MAX),
            joined_at_ms: i64::try_from(self.joined_unix.as_millis()).unwrap_or(i64::MAX),
            name: self.claims.name.clone(),
            version: self.version,
            permission: self.grant().map(VideoGrant::permission),
            is_publisher: self.is_publisher,
            kind: self.claims.participant_kind() as i32,
            kind_details: self
                .claims
                .participant_kind_details()
                .into_iter()
                .map(|detail| detail as i32)
                .collect(),
            attributes: self.claims.attributes.clone().into_iter().collect(),
            data_tracks: self.data_tracks.values().map(|track| track.info.clone()).collect(),
            client_protocol: self.client.info.client_protocol,
            // LiveKit: RPC and data streams of the clients depend on these being mirrored.
            capabilities: self.client.info.capabilities.clone(),
            ..Default::default()
        }
    }

    pub(super) fn data_participant(&self, room: RoomHandle) -> DataParticipant {
        DataParticipant {
            room,
            participant: self.handle,
            sid: self.sid.0.clone(),
            identity: self.identity.0.clone(),
            transport: self.primary().transport,
            rights: DataRights {
                can_publish_data: self.can_publish_data(),
                hidden: self.is_hidden(),
                agent: self.claims.is_agent(),
                can_receive: self.state != State::Disconnected,
            },
        }
    }

    /// The earliest of its own deadlines.
    pub(super) fn next_timeout(&self) -> Instant {
        let peers = self.peers().filter_map(Peer::next_timeout);
        let publications = self.publications.values().filter_map(Publication::next_timeout);
        let wishes = self.wishes.values().filter_map(|wish| wish.missing_until);
        let held_offer = self.held_offer.as_ref().map(|(at, _)| *at);
        [
            self.activate_by,
            self.disconnect_at,
            self.gone_at,
            self.simulated_speech_until,
            held_offer,
            self.settle_at,
        ]
        .into_iter()
        .flatten()
        .chain(peers)
        .chain(publications)
        .chain(wishes)
        .fold(self.refresh_token_at, Instant::min)
    }
}
