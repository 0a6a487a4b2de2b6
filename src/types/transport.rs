//! What two ends of a transport tell each other, as values.

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

/// RFC 8842 §5: who sends the ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// `a=setup:active`: DTLS client.
    Active,
    /// `a=setup:passive`: DTLS server.
    Passive,
}

/// The data channels that LiveKit's protocol knows; any other label a client opens is `Unlabeled` data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelLabel {
    /// `_reliable`: ordered.
    Reliable,
    /// `_lossy`: unordered, no retransmission.
    Lossy,
    /// `_data_track`: unordered, no retransmission.
    DataTrack,
}

impl ChannelLabel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reliable => "_reliable",
            Self::Lossy => "_lossy",
            Self::DataTrack => "_data_track",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteParameters {
    pub ice: IceCredentials,
    /// SHA-256 of the peer's certificate (32 bytes), from `a=fingerprint:sha-256`.
    pub fingerprint: [u8; 32],
    /// Our role.
    pub dtls_role: DtlsRole,
    /// `a=max-message-size` (RFC 8841 §6); None = no SCTP in the description.
    pub sctp_max_message_size: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrtpProfile {
    AeadAes128Gcm,
    AeadAes256Gcm,
    Aes128CmHmacSha1_80,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// `Command::CloseTransport` or `CloseRoom`.
    Requested,
    /// RFC 7675 consent expired, or ICE never connected.
    IceFailed,
    DtlsFailed,
    /// The certificate does not match the description; no key was ever used.
    FingerprintMismatch,
    /// DTLS close_notify or SCTP ABORT from the peer.
    ClosedByPeer,
    /// A reliable data reader over its budget for 10 s (DESIGN D8b).
    DataReaderStuck,
    /// A panic in this transport's code was contained.
    Panicked,
}
