//! What a room is told when it is made: configuration as plain values, and every limit with its reason.
//!
//! Built by the node from the configuration file, the `CreateRoom` request and the shard the room was placed on. Never
//! changes while the room lives, apart from metadata (`Room::update_metadata`).

use std::net::SocketAddr;
use std::time::Duration;

use livekit_protocol as livekit;

use crate::media::edge::PlayoutDelay;
use crate::proto::relay::IceServerSource;
use crate::types::Codec;

/// LiveKit's protocol number that this server speaks; clients that announce a higher one are treated as this one.
pub const PROTOCOL_VERSION: u32 = 17;
/// `JoinResponse.ping_interval` and `ping_timeout`, seconds; the signalling socket answers the pings.
pub const PING_INTERVAL: i32 = 5;
pub const PING_TIMEOUT: i32 = 15;

/// A participant that never connects its primary transport is removed after this.
pub(super) const ACTIVATION_TIMEOUT: Duration = Duration::from_secs(60);
/// After a transport has failed, how long the client has to come back before the others see it leave.
pub(super) const RECONNECT_WINDOW: Duration = Duration::from_secs(5);
/// After a client's transports have fallen silent and its socket has ended, how long it has to come back. Its next try may
/// be 7 s away.
pub(super) const GONE_WINDOW: Duration = Duration::from_secs(10);
/// A subscriber offer without an answer for this long ends in a full reconnect.
pub(super) const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(15);
/// Of the answer to a join request's offer for `Client::may_miss_early_answer`: applying an offer takes them milliseconds.
pub(super) const JOIN_ANSWER_DELAY: Duration = Duration::from_millis(50);
/// Of the answer to an offer that publishes while the transport is not up, for `Client::waits_after_early_answer`: by then a
/// transport is up that will ever be, on most networks; no media is later for it.
pub(super) const EARLY_PUBLISH_DELAY: Duration = Duration::from_secs(1);
/// Tokens are renewed at this interval …
pub(super) const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// … and live at least this long.
pub(super) const TOKEN_MIN_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Negotiation that was quiet for `NEGOTIATION_QUIET` starts after the short delay, otherwise after the long one.
pub(super) const NEGOTIATION_DELAY: Duration = Duration::from_millis(10);
pub(super) const NEGOTIATION_QUIET: Duration = Duration::from_millis(150);
/// Updates about participants who publish nothing are collected this long.
pub(super) const UPDATE_BATCH_INTERVAL: Duration = Duration::from_secs(3);
/// Participant counts are announced at most this often.
pub(super) const ROOM_UPDATE_INTERVAL: Duration = Duration::from_secs(5);
pub(super) const QUALITY_INTERVAL: Duration = Duration::from_secs(5);
/// A wish for a track that nobody publishes is given up after this (`SE_TRACK_NOTFOUND`).
pub(super) const TRACK_NOT_FOUND_TIMEOUT: Duration = Duration::from_secs(60);
/// A changed wish about a track (size, quality, off) takes effect after this, so that only the last of a burst does.
pub(super) const SETTLE_DELAY: Duration = Duration::from_millis(100);
/// A publisher without subscribers is told so after this: by then those who are in the room have subscribed.
pub(super) const FIRST_QUALITY_WAIT: Duration = Duration::from_secs(10);

/// How often a participant is taken to another room with what it has; after that it connects anew. Bounds what is kept of
/// the rooms it has been in.
pub(super) const MAX_MOVES: usize = 64;

/// Announced but not yet negotiated tracks of one participant. LiveKit: 20; more are answered LIMIT_EXCEEDED.
pub(super) const MAX_PENDING_TRACKS: usize = 20;
/// Tracks waiting for the end of an earlier publication with the same cid. LiveKit: 3; more are answered LIMIT_EXCEEDED.
pub(super) const MAX_QUEUED_PER_CID: usize = 3;
/// Negotiated tracks of one participant: bounds what one client can make every other one hold. More are LIMIT_EXCEEDED.
pub(super) const MAX_PUBLISHED_TRACKS: usize = 200;
/// Data tracks of one participant. More are answered LIMIT_EXCEEDED.
pub(super) const MAX_DATA_TRACKS: usize = 200;
/// Per-track wishes (subscribe, settings) of one participant: every track of a large room, and no more. The newest is
/// ignored when full.
pub(super) const MAX_WISHES: usize = 8192;
/// Entries of one publisher's subscription ACL, and tracks in one entry. The rest of a longer request is ignored, which
/// errs towards denying.
pub(super) const MAX_TRACK_PERMISSIONS: usize = 4096;
/// Trickled candidates kept until the first remote description. Later ones are ignored.
pub(super) const MAX_EARLY_CANDIDATES: usize = 64;
/// Bytes of one candidate's text; real ones have 200 at most. Longer ones are ignored.
pub(super) const MAX_CANDIDATE_TEXT: usize = 1024;
/// Identities in one batch of updates; a fuller batch goes out early.
pub(super) const MAX_QUEUED_UPDATES: usize = 4096;
/// Participants who left that a resuming client can be told of. The oldest is forgotten first.
pub(super) const MAX_DEPARTED: usize = 256;
/// Names of layers, streams and tracks and other short texts of a request, bytes. Longer ones are refused.
pub(super) const MAX_SHORT_TEXT: usize = 256;
/// Declared layers and codecs of one track. The rest is ignored.
pub(super) const MAX_LAYERS: usize = 4;
pub(super) const MAX_CODECS: usize = 4;

/// Sizes a client may reach. 0 = no limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of participant or room metadata.
    pub max_metadata_size: usize,
    /// Bytes of all attribute keys and values together.
    pub max_attributes_size: usize,
    pub max_participant_identity_length: usize,
    pub max_participant_name_length: usize,
    /// Bytes of all data blobs of one participant together.
    pub max_data_blobs_size: usize,
    pub max_data_blob_key_length: usize,
    /// Bytes of a data track's custom frame encoding name.
    pub max_data_track_custom_encoding_length: usize,
    /// Subscriptions of one participant that may exist at a time; further ones wait.
    pub subscription_limit_video: usize,
    pub subscription_limit_audio: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_metadata_size: 512 * 1024,
            max_attributes_size: 64 * 1024,
            max_participant_identity_length: 256,
            max_participant_name_length: 256,
            max_data_blobs_size: 64_000,
            max_data_blob_key_length: 256,
            max_data_track_custom_encoding_length: 32,
            subscription_limit_video: 0,
            subscription_limit_audio: 0,
        }
    }
}

/// `limit > 0 && size > limit`: 0 switches a limit off.
pub(super) fn exceeds(size: usize, limit: usize) -> bool {
    limit > 0 && size > limit
}

#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// `ND_…`, shown in `ServerInfo`.
    pub node_id: String,
    pub region: String,
    /// `ServerInfo.version` and `JoinResponse.server_version`: the LiveKit version whose behaviour clients may expect.
    pub server_version: String,
    /// Codecs that may be published and subscribed, in the order of the configuration.
    pub enabled_codecs: Vec<Codec>,
    /// STUN and TURN servers that clients are told, with credentials of their own where the server takes such.
    pub ice_servers: Vec<IceServerSource>,
    /// SHA-256 of the DTLS certificate of the room's shard.
    pub fingerprint: [u8; 32],
    /// Addresses of the room's shard that clients can reach, best first: UDP …
    pub udp_candidates: Vec<SocketAddr>,
    /// … and passive ICE-TCP (RFC 6544).
    pub tcp_candidates: Vec<SocketAddr>,
    /// False: full ICE for every client. True: ICE-lite except for Firefox and where a client asks otherwise.
    pub ice_lite: bool,
    /// How long a room nobody has joined lives, from its creation.
    pub empty_timeout: Duration,
    /// How long a room lives after the last participant left.
    pub departure_timeout: Duration,
    /// 0 = no limit. Agents and egress do not count.
    pub max_participants: u32,
    pub metadata: String,
    /// Asked for when the room is made.
    pub agents: Vec<livekit::RoomAgentDispatch>,
    /// A lower wanted quality reaches the publisher after this; a higher one at once.
    pub dynacast_pause_delay: Duration,
    pub enable_remote_unmute: bool,
    pub enable_data_tracks: bool,
    pub enable_participant_data_blob: bool,
    /// Up to fewer participants than this a track with a backup codec falls back to it for everybody (`PREFER_REGRESSION`);
    /// 0 = always.
    pub codec_regression_threshold: usize,
    /// Video that does not fit a subscriber's bandwidth may be stopped, where the client does not say.
    pub allow_pause: bool,
    /// Clients whose connections fail are led another way.
    pub tcp_fallback: bool,
    /// To TCP only with a shorter round trip of their signalling; zero = always.
    pub tcp_fallback_rtt_threshold: Duration,
    /// Clients whose UDP loses much for long are led to TCP; needs the threshold.
    pub udp_unstable_fallback: bool,
    /// DTLS handshakes within connectivity checks, with clients that offer it.
    pub warp: bool,
    /// SCTP's first chunks in descriptions, with clients that offer it.
    pub snap: bool,
    /// Only so many voices, the loudest, are forwarded at a time; 0 = all.
    pub audio_last_n: u16,
    /// What receivers are asked to wait before they show a picture; None = their own judgement.
    pub playout_delay: Option<PlayoutDelay>,
    /// One media stream per publisher and source group, so that clients synchronise sound and picture.
    pub sync_streams: bool,
    /// Bytes of one `ParticipantUpdate`; longer lists are split.
    pub update_batch_target_size: usize,
    pub limits: Limits,
}

impl Default for RoomSettings {
    /// LiveKit's defaults; node identity and addresses are empty.
    fn default() -> Self {
        use Codec::{Av1, H264, H265, Opus, Pcma, Pcmu, Red, Vp8, Vp9};
        Self {
            node_id: String::new(),
            region: String::new(),
            server_version: "1.13.5".into(),
            enabled_codecs: vec![Pcmu, Pcma, Opus, Red, Vp8, H264, Vp9, Av1, H265],
            ice_servers: vec![IceServerSource::Fixed(livekit::IceServer {
                urls: vec![
                    "stun:global.stun.twilio.com:3478".into(),
                    "stun:stun.l.google.com:19302".into(),
                    "stun:stun1.l.google.com:19302".into(),
                ],
                ..Default::default()
            })],
            fingerprint: [0; 32],
            udp_candidates: Vec::new(),
            tcp_candidates: Vec::new(),
            ice_lite: true,
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            metadata: String::new(),
            agents: Vec::new(),
            dynacast_pause_delay: Duration::from_secs(5),
            enable_remote_unmute: false,
            enable_data_tracks: true,
            enable_participant_data_blob: false,
            codec_regression_threshold: 5,
            allow_pause: true,
            tcp_fallback: true,
            tcp_fallback_rtt_threshold: Duration::ZERO,
            udp_unstable_fallback: false,
            warp: false,
            snap: true,
            audio_last_n: 0,
            playout_delay: None,
            sync_streams: false,
            update_batch_target_size: 128 * 1024,
            limits: Limits::default(),
        }
    }
}
