//! L0: plain values that every layer speaks: ids, codecs, RTP identifiers, network paths, units, drop reasons.
//!
//! Owns no behaviour beyond parsing and printing; depends on nothing but std and serde.

mod address;
mod drop_reason;
mod ids;
mod media;
mod net;
mod rtp;
mod time;
mod transport;

pub use address::{Network, NotANetwork, embedded_v4, is_link_local, is_metadata_service, is_public};
pub use drop_reason::DropReason;
pub use ids::{
    DataTrackHandle, Identity, ParticipantHandle, ParticipantId, RoomHandle, RoomId, RoomName, ShardIndex,
    SubscriptionHandle, TrackHandle, TrackId, TransportHandle,
};
pub use media::{Bitrate, Codec, CodecParameters, Layer, MediaKind};
pub use net::{Batch, MAX_DATAGRAM, NetPath, NetProtocol};
pub use rtp::{Extension, ExtensionMap, Mid, Pt, Rid, Ssrc};
pub use time::WallClock;
pub use transport::{
    ChannelLabel, CloseReason, DtlsRole, IceCredentials, RemoteParameters, SCTP_RECEIVE_WINDOW, SctpInit, SrtpProfile,
};
