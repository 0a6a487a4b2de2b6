//! The plain values that go into and come out of a negotiation.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::media::edge::EncodingParameters;
use crate::sdp::SdpError;
use crate::types::{
    Codec, CodecParameters, ExtensionMap, IceCredentials, MediaKind, Mid, ParticipantId, RemoteParameters, Rid, Ssrc,
    SubscriptionHandle, TrackId,
};

use super::quirks::ClientQuirks;

/// What one SDP session is for, which also says who offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dual mode, client to server: the client offers, we answer; we only receive.
    Publisher,
    /// Dual mode, server to client: we offer, the client answers; we only send.
    Subscriber,
    /// Single connection: the client offers, we answer, and send on the m-lines it offers `recvonly`.
    Single,
}

#[derive(Clone, Debug)]
pub struct PeerConfig {
    pub role: Role,
    pub local: IceCredentials,
    /// SHA-256 of our DTLS certificate.
    pub fingerprint: [u8; 32],
    pub ice_lite: bool,
    /// UDP host candidates, most preferred first.
    pub candidates: Vec<SocketAddr>,
    /// Passive ICE-TCP host candidates (RFC 6544), most preferred first.
    pub tcp_candidates: Vec<SocketAddr>,
    /// DTLS handshakes in connectivity checks are offered, and agreed to.
    pub warp: bool,
    /// SCTP's first chunks are answered.
    pub snap: bool,
    /// What may be published; others are left out of answers.
    pub publish_codecs: Vec<Codec>,
    /// What may be sent to this client.
    pub subscribe_codecs: Vec<Codec>,
    pub quirks: ClientQuirks,
    /// The number in our `o=` line; any value (its top bit is cleared, since some parsers read it as signed).
    pub session_id: u64,
}

/// A track the client has announced (AddTrack) and not yet offered, with what it asked for.
#[derive(Clone, Debug)]
pub struct PendingTrack {
    pub cid: String,
    pub kind: MediaKind,
    /// `AddTrackRequest.simulcast_codecs`: m-lines that carry this track in some codec, by their own cid.
    pub codecs: Vec<PendingCodec>,
    /// The codec to put first when none of `codecs` names the m-line's cid.
    pub codec: Option<Codec>,
    /// Audio: prefer RED. False when `disable_red` is set or the track is encrypted.
    pub red: bool,
    /// Audio: let the client stop sending in silence. False with `NO_DTX`.
    pub dtx: bool,
    pub stereo: bool,
    /// The rids of the layers as AddTrack listed them, smallest picture first; empty when it did not.
    pub rids: Vec<Rid>,
}

#[derive(Clone, Debug)]
pub struct PendingCodec {
    pub cid: String,
    pub codec: Codec,
}

/// A track to be sent to the client of this session.
#[derive(Clone, Debug)]
pub struct Sender {
    pub subscription: SubscriptionHandle,
    pub track: TrackId,
    pub publisher: ParticipantId,
    pub kind: MediaKind,
    /// What the publisher sends. `Red` is satisfied by a client that takes Opus: the primary block is sent then.
    pub codec: Codec,
    /// The part of the stream id behind `PA_…|`: the stream name with `sync_streams`; None = the track id.
    pub stream: Option<String>,
    pub ssrc: Ssrc,
    /// Video only.
    pub rtx_ssrc: Option<Ssrc>,
    pub cname: String,
    pub stereo: bool,
}

/// What an offer led to. Nothing of it is incremental except `stopped` and `bound`.
#[derive(Clone, Debug)]
pub struct Answer {
    pub sdp: String,
    pub remote: RemoteParameters,
    /// The offer changed its ufrag or password: the credentials given to `handle_offer` are the local ones now.
    pub ice_restart: bool,
    /// Every m-line on which the client sends, in m-line order.
    pub received: Vec<ReceivedSection>,
    /// M-lines whose track of before has ended. One may be in `received` too, with another cid: end first, then begin.
    pub stopped: Vec<Mid>,
    /// Senders that got an m-line with this answer, or whose parameters changed.
    pub bound: Vec<BoundSender>,
    /// Senders that lost their m-line (the client stopped it); they wait for another one.
    pub unbound: Vec<SubscriptionHandle>,
    /// Senders whose codec the client cannot receive. They hold no m-line; remove them.
    pub rejected: Vec<SubscriptionHandle>,
    /// All bound senders; empty unless `Role::Single`.
    pub mid_to_track: HashMap<String, String>,
}

/// An m-line on which the client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSection {
    pub mid: Mid,
    pub kind: MediaKind,
    /// The track id of `a=msid` (or of `a=ssrc … msid`); what AddTrack calls `cid`.
    pub cid: Option<String>,
    /// The index in `pending` of the track this m-line was matched with in this offer: by cid, else the first
    /// unmatched one of the kind. None when it was matched by an earlier offer, or never.
    pub pending: Option<usize>,
    /// In the order of the answer: the first is the one the client will use.
    pub codecs: Vec<CodecParameters>,
    pub extensions: ExtensionMap,
    /// Smallest picture first, never empty; one entry without rid and ssrc = learn it from the mid.
    pub encodings: Vec<EncodingParameters>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSender {
    pub subscription: SubscriptionHandle,
    pub mid: Mid,
    /// What the client accepts there, most preferred first.
    pub codecs: Vec<CodecParameters>,
    pub extensions: ExtensionMap,
    pub ssrc: Ssrc,
    /// None when the client takes no retransmission format.
    pub rtx_ssrc: Option<Ssrc>,
}

/// What the client's answer to our offer led to.
#[derive(Clone, Debug)]
pub struct AnswerOutcome {
    pub remote: RemoteParameters,
    /// The client's ufrag or password differs from its last description's.
    pub ice_restart: bool,
    /// Senders accepted with this answer, or whose parameters changed.
    pub bound: Vec<BoundSender>,
    /// Senders the client refused, m-line or codec. They hold no m-line; remove them.
    pub rejected: Vec<SubscriptionHandle>,
    pub mid_to_track: HashMap<String, String>,
}

/// Why a description was refused. All of these are the peer's fault except `WrongRole`; the session is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    #[error(transparent)]
    Sdp(#[from] SdpError),
    #[error("this session does not take that kind of description")]
    WrongRole,
    #[error("an answer without an outstanding offer")]
    NoOfferOutstanding,
    #[error("the description has no usable m-line")]
    NothingUsable,
    #[error("m-line {0} has no a=mid")]
    MissingMid(usize),
    #[error("a=mid:{0} is used twice")]
    DuplicateMid(Mid),
    #[error("{got} m-lines where {expected} were expected")]
    SectionCount { expected: usize, got: usize },
    #[error("m-line {index} has a=mid:{got} where {expected} was expected")]
    MidMismatch { index: usize, expected: Mid, got: Mid },
    #[error("the m-line of mid {0} changed its media type")]
    KindChanged(Mid),
    #[error("no a=ice-ufrag and a=ice-pwd")]
    MissingIce,
    #[error("no a=fingerprint")]
    MissingFingerprint,
    #[error("fingerprint hash {0} is not supported, only sha-256")]
    UnsupportedFingerprint(String),
    #[error("the certificate fingerprint changed within a session")]
    FingerprintChanged,
    #[error("a=setup:holdconn is not supported")]
    UnsupportedSetup,
}
