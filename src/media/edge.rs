//! The only way between control and media: `Command` to a shard, `Event` from it (DESIGN §3).
//!
//! Plain values; SDP never crosses. A command that names something gone is normal: it is counted
//! (`DropReason::StaleCommand`) and ignored. Commands for one room must reach the shard in the order they were made.

use std::net::SocketAddr;
use std::time::Duration;

pub use super::explain::{
    Decision, EncodingReport, Explanation, LayerReason, LayerState, ReceptionReport, RepairCounts, SubscriptionReport,
    TrackReport,
};
pub use super::span::Span;
use crate::types::{
    Bitrate, ChannelLabel, CloseReason, Codec, CodecParameters, DataTrackHandle, ExtensionMap, IceCredentials, Layer,
    MediaKind, Mid, NetProtocol, ParticipantHandle, Pt, RemoteParameters, Rid, RoomHandle, ShardIndex, SrtpProfile,
    Ssrc, SubscriptionHandle, TrackHandle, TransportHandle,
};

/// What control asks of a shard. State changes only; nothing here is per packet.
#[derive(Clone, Debug)]
pub enum Command {
    OpenRoom {
        room: RoomHandle,
        sif_trailer: Vec<u8>,
        /// Only so many voices, the loudest, are forwarded at a time; 0 = all.
        audio_last_n: u16,
    },
    /// Closes everything in it.
    CloseRoom {
        room: RoomHandle,
    },

    OpenTransport(Box<OpenTransport>),
    /// What the peer's first description says. ICE may run before (lite needs no remote credentials); DTLS may not.
    SetRemote {
        transport: TransportHandle,
        remote: Box<RemoteParameters>,
    },
    /// An ICE restart: new local credentials; `remote` too when the peer's are known already (it offered).
    RestartIce {
        transport: TransportHandle,
        local: IceCredentials,
        remote: Option<IceCredentials>,
    },
    /// RFC 8839 §5.1 candidate-attribute text, with or without the `candidate:` prefix. Full ICE only; lite ignores it.
    AddRemoteCandidate {
        transport: TransportHandle,
        candidate: String,
    },
    CloseTransport {
        transport: TransportHandle,
    },
    /// A transport goes into another room of this shard, with what is published on it: ICE, DTLS and the numbering of
    /// its cipher go on. What was sent on it ends, and so do subscriptions of others to its tracks. One that is gone
    /// meanwhile, or whose new room is, is answered with `Event::TransportClosed`.
    MoveTransport(Box<MoveTransport>),
    /// For everything that is sent on this transport from now on.
    UpdateReception {
        transport: TransportHandle,
        reception: Reception,
    },

    /// Binds (transport, mid, rid) to a track: media is forwarded from here on. For a known track handle it replaces the
    /// receive parameters (renegotiation).
    Publish(Box<Publish>),
    /// A track of another room of this shard is published in this one too, under the handle of `publish`, whose transport
    /// is the publisher's in that room. What arrives of it is stored and forwarded here as well; lost packets are asked
    /// for there.
    ShowTrack {
        source: TrackHandle,
        publish: Box<Publish>,
    },
    /// The publisher's intent; nothing is forwarded while muted, and subscribers get silence first.
    MuteTrack {
        track: TrackHandle,
        muted: bool,
    },
    /// Revokes the binding, whatever the client does; subscriptions to the track end too.
    Unpublish {
        track: TrackHandle,
    },
    /// Ask the publisher for a key frame (throttled).
    RequestKeyframe {
        track: TrackHandle,
    },

    /// Starts (or, for a known handle, renegotiates) forwarding of a track to a participant.
    Subscribe(Box<Subscribe>),
    UpdateSubscription {
        subscription: SubscriptionHandle,
        settings: SubscriptionSettings,
    },
    Unsubscribe {
        subscription: SubscriptionHandle,
    },

    /// A participant as the data path needs it; sent at join and whenever one of the fields changes.
    SetParticipant(Box<DataParticipant>),
    RemoveParticipant {
        room: RoomHandle,
        participant: ParticipantHandle,
    },
    /// An encoded `livekit.DataPacket` from the server itself, sent as it is. Empty `to` = everyone in the room.
    SendData {
        room: RoomHandle,
        to: Vec<ParticipantHandle>,
        reliable: bool,
        packet: Vec<u8>,
    },
    /// Acknowledgements and responses addressed to this call of the server's own come as `Event::RpcAnswer`.
    AwaitRpc {
        room: RoomHandle,
        call: String,
    },
    EndRpc {
        room: RoomHandle,
        call: String,
    },
    PublishDataTrack {
        room: RoomHandle,
        publisher: ParticipantHandle,
        track: DataTrackHandle,
        /// The handle in packets the publisher sends, 1..=65535.
        publisher_handle: u16,
    },
    UnpublishDataTrack {
        track: DataTrackHandle,
    },
    /// `subscriber_handle` is what packets to this subscriber carry instead of the publisher's.
    SubscribeDataTrack {
        track: DataTrackHandle,
        subscriber: ParticipantHandle,
        subscriber_handle: u16,
    },
    UnsubscribeDataTrack {
        track: DataTrackHandle,
        subscriber: ParticipantHandle,
    },

    /// The room is on all of these shards; `home` decides who speaks and who is heard. `shards` with one entry = it is here
    /// only. Made by `Span`, as the next two.
    SpanRoom {
        room: RoomHandle,
        home: ShardIndex,
        shards: Vec<ShardIndex>,
    },
    /// A track that is published on the shard `home` can be subscribed to here. For a known track handle it replaces the
    /// receive parameters.
    MirrorTrack {
        publish: Box<Publish>,
        home: ShardIndex,
    },
    /// The packets of a data track published here go to that shard too, or do not any more.
    RelayDataTrack {
        track: DataTrackHandle,
        to: ShardIndex,
        relayed: bool,
    },

    /// Answered by `Event::Explanation` with the same `query`. With a participant only what concerns it: what it is sent,
    /// what it publishes, and the tracks it receives.
    Explain {
        room: RoomHandle,
        participant: Option<ParticipantHandle>,
        query: u64,
    },
}

#[derive(Clone, Debug)]
pub struct OpenTransport {
    pub room: RoomHandle,
    pub participant: ParticipantHandle,
    pub transport: TransportHandle,
    pub local: IceCredentials,
    /// RFC 8445 §2.5. False = a full agent that sends checks (Firefox, `disable_ice_lite`).
    pub ice_lite: bool,
    /// Only for full ICE: RFC 8445 §6.1.1. The offerer of the first description controls unless the other is lite.
    pub ice_controlling: bool,
    /// Data channels that the server opens by DCEP once SCTP is up (the subscriber connection of dual mode).
    pub open_channels: Vec<ChannelLabel>,
    pub reception: Reception,
}

/// New handles are the new room's.
#[derive(Clone, Debug)]
pub struct MoveTransport {
    pub from: TransportHandle,
    pub room: RoomHandle,
    pub participant: ParticipantHandle,
    pub transport: TransportHandle,
    /// Old and new. Tracks that are not named end.
    pub tracks: Vec<(TrackHandle, TrackHandle)>,
}

/// How a participant is sent media, all subscriptions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// Video that does not fit is stopped, and the client told; otherwise its lowest layer stays.
    pub may_pause: bool,
    /// A cap set for the participant, beside what its network allows.
    pub max_bitrate: Option<Bitrate>,
    /// Asked of the receiver's video jitter buffer; None = the extension is not written by us.
    pub playout_delay: Option<PlayoutDelay>,
}

impl Default for Reception {
    fn default() -> Self {
        Self {
            may_pause: true,
            max_bitrate: None,
            playout_delay: None,
        }
    }
}

/// LiveKit: `room.playout_delay`. Milliseconds, 0..=40,950 (the extension counts 10 ms in 12 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    pub min: u16,
    pub max: u16,
}

/// One RTP stream a publisher may send on a mid. From `a=rid`, or from `a=ssrc` lines where the client names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodingParameters {
    pub rid: Option<Rid>,
    pub ssrc: Option<Ssrc>,
    pub rtx_ssrc: Option<Ssrc>,
}

#[derive(Clone, Debug)]
pub struct Publish {
    pub room: RoomHandle,
    pub participant: ParticipantHandle,
    pub track: TrackHandle,
    pub transport: TransportHandle,
    pub mid: Mid,
    pub kind: MediaKind,
    /// In the order of the answer; the client may use any of them.
    pub codecs: Vec<CodecParameters>,
    pub extensions: ExtensionMap,
    /// By spatial layer, smallest picture first. Never empty; one entry without rid and ssrc = learn it from the mid.
    pub encodings: Vec<EncodingParameters>,
    pub muted: bool,
    /// Bandwidth goes to screens before cameras where priorities say nothing.
    pub is_screen: bool,
    /// The client encrypts frames end to end: payloads cannot be read past what descriptors say.
    pub encrypted: bool,
}

#[derive(Clone, Debug)]
pub struct Subscribe {
    pub room: RoomHandle,
    /// The subscriber.
    pub participant: ParticipantHandle,
    pub subscription: SubscriptionHandle,
    pub track: TrackHandle,
    /// The subscriber's transport.
    pub transport: TransportHandle,
    pub mid: Mid,
    /// What the subscriber accepts on this m-line.
    pub codecs: Vec<CodecParameters>,
    pub extensions: ExtensionMap,
    /// Never used before on this transport, this one and the next: packet indices of the cipher begin anew with it.
    pub ssrc: Ssrc,
    /// Video only, when RTX was negotiated.
    pub rtx_ssrc: Option<Ssrc>,
    pub cname: String,
    /// LiveKit's packet trailer (`LKTS`) is removed for clients without CAP_PACKET_TRAILER.
    pub strip_packet_trailer: bool,
    pub settings: SubscriptionSettings,
}

/// What a subscriber wants of a track (`UpdateTrackSettings`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionSettings {
    /// No media, while the m-line stays.
    pub disabled: bool,
    /// The best layer that may be sent.
    pub max_layer: Layer,
    /// 1..=255, larger is more important; 0 = by source.
    pub priority: u8,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self {
            disabled: false,
            max_layer: Layer {
                spatial: 2,
                temporal: 3,
            },
            priority: 0,
        }
    }
}

#[derive(Clone, Debug)]
pub struct DataParticipant {
    pub room: RoomHandle,
    pub participant: ParticipantHandle,
    /// `PA_…`, stamped as `participant_sid`.
    pub sid: String,
    pub identity: String,
    /// Where packets to this participant go: the primary connection.
    pub transport: TransportHandle,
    pub rights: DataRights,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataRights {
    pub can_publish_data: bool,
    /// Its identity is not shown to receivers.
    pub hidden: bool,
    /// May send transcriptions, and chat or text streams on behalf of others.
    pub agent: bool,
    /// Data packets reach it (state ACTIVE reached or joined; false once it is leaving).
    pub can_receive: bool,
}

/// What a shard reports. Edges at once; levels and statistics coalesced, latest wins (DESIGN §3).
#[derive(Clone, Debug)]
pub enum Event {
    /// ICE and DTLS are up.
    TransportConnected {
        transport: TransportHandle,
        srtp_profile: SrtpProfile,
        remote: SocketAddr,
        protocol: NetProtocol,
    },
    /// `_reliable` and `_lossy` are open: reliable data can flow.
    ChannelsOpen { transport: TransportHandle },
    /// Nothing is heard of a transport that was connected, and nothing is sent on it any more (true), or it is back.
    TransportSilent { transport: TransportHandle, silent: bool },
    /// Over UDP a quarter of what leaves is lost, in most of half a minute's seconds. `rtt`: there and back on that way.
    TransportLossy { transport: TransportHandle, rtt: Duration },
    /// The transport is gone; the shard has forgotten it.
    TransportClosed {
        transport: TransportHandle,
        reason: CloseReason,
    },
    /// The first RTP packet of an encoding.
    EncodingSeen {
        track: TrackHandle,
        encoding: u8,
        ssrc: Ssrc,
        rtx_ssrc: Option<Ssrc>,
        pt: Pt,
        codec: Codec,
    },
    /// What the spatial layers of a video track have shown, smallest first; every 5 s in which something was new.
    LayersMeasured {
        track: TrackHandle,
        layers: [LayerShape; 3],
    },
    /// The first packet of this subscription has left.
    SubscriptionStarted { subscription: SubscriptionHandle },
    /// The server has stopped sending a subscription for want of bandwidth, or goes on with it.
    StreamState {
        subscription: SubscriptionHandle,
        paused: bool,
    },
    /// Another spatial layer of a picture leaves for a subscriber than before, counted as `SubscriptionSettings::max_layer`
    /// is. That nothing leaves any more is not told.
    LayerSent {
        subscription: SubscriptionHandle,
        spatial: u8,
    },
    /// The subscriber negotiated none of the codecs that the publisher sends.
    CodecUnsupported {
        subscription: SubscriptionHandle,
        codec: Codec,
    },
    /// Who speaks in a room, loudest first; every `audio.update_interval` while someone does, then one empty list.
    /// `level` is linear, 0.0..=1.0.
    Speakers {
        room: RoomHandle,
        speakers: Vec<SpeakerLevel>,
    },
    /// Every 5 s per participant with media.
    Quality {
        participant: ParticipantHandle,
        score: ConnectionScore,
    },
    /// Highest sequence of reliable data received from a participant (`ReconnectResponse.last_message_seq`).
    DataSequence {
        participant: ParticipantHandle,
        sequence: u32,
    },
    /// An encoded `livekit.DataPacket` from this participant to a call of the server's own.
    RpcAnswer {
        participant: ParticipantHandle,
        packet: Vec<u8>,
    },
    /// Who is sent what, and why not more; asked for by `Command::Explain`.
    Explanation {
        room: RoomHandle,
        query: u64,
        report: Box<Explanation>,
    },
    /// A panic was caught in this room; the shard has discarded it (DESIGN D10).
    RoomPanicked { room: RoomHandle },
}

/// One spatial layer of a video track, as its packets have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerShape {
    /// Pixels; 0 = not known.
    pub width: u16,
    pub height: u16,
    /// Frames a second of each temporal layer, with all below it; all 0 = not known.
    pub frame_rates: [u8; 4],
}

impl LayerShape {
    /// By more than a tenth of a frame rate, or in size.
    pub fn differs(&self, other: &Self) -> bool {
        let rates = self.frame_rates.iter().zip(other.frame_rates);
        let mut rates = rates.map(|(old, new)| old.abs_diff(new) > (old / 10).max(1));
        (self.width, self.height) != (other.width, other.height) || rates.any(|differs| differs)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeakerLevel {
    pub participant: ParticipantHandle,
    pub level: f32,
}

/// LiveKit's connection quality scale: MOS 1.0..=4.5.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConnectionScore {
    pub mos: f32,
    /// No packets and no feedback for a whole interval.
    pub lost: bool,
}
