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
    /// SCTP needs no handshake: its first chunks are in the descriptions.
    pub sctp_init: Option<SctpInit>,
    /// Both ends carry DTLS handshakes in their connectivity checks.
    pub sped: bool,
}

/// The INIT chunks of both ends, as `a=sctp-init` carries them (draft-hancke-tsvwg-snap-01): two round trips less until data
/// flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SctpInit {
    pub local: Vec<u8>,
    pub remote: Vec<u8>,
}

/// Bytes of received data that wait to be read or completed (DESIGN §6). At the limit the window is closed: the peer waits.
pub const SCTP_RECEIVE_WINDOW: u32 = 128 * 1024;

impl SctpInit {
    /// The longest that the SCTP engine takes.
    const MAX: usize = 2048;

    /// Our chunk, made of `secret` (DTLS protects the association: tag and sequence have to be new, not unknown), to go with
    /// the peer's. None when that is not an INIT chunk (RFC 9260 §3.3.2) with a tag and a sequence number.
    pub fn answering(remote: &[u8], secret: &str) -> Option<Self> {
        let (header, value) = remote.split_first_chunk::<4>()?;
        let [kind, flags, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (tag, sequence) = (value.get(..4)?, value.get(12..16)?);
        let is_init = (kind, flags) == (1, 0) && (20..=remote.len()).contains(&length) && remote.len() <= Self::MAX;
        if !is_init || tag == [0; 4] || sequence == [0; 4] {
            return None;
        }
        // FNV-1a, the upper half: the same everywhere, for descriptions that are the same again.
        let number = |salt: u8| {
            let bytes = [salt].into_iter().chain(secret.bytes()).chain(remote.iter().copied());
            let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            ((hash >> 32) as u32).max(1).to_be_bytes()
        };
        let mut local = vec![1, 0, 0, 30];
        local.extend(number(0));
        local.extend(SCTP_RECEIVE_WINDOW.to_be_bytes());
        local.extend([0xff; 4]); // streams out and in: as many as the peer wants
        local.extend(number(1));
        // FORWARD-TSN (RFC 3758 §3.1), and as an extension beside RE-CONFIG (RFC 5061 §4.2.7).
        local.extend([0xc0, 0, 0, 4, 0x80, 0x08, 0, 6, 130, 192]);
        (local.get(4..8)? != tag).then(|| Self {
            local,
            remote: remote.to_vec(),
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_init_chunk_is_answered() {
        let mut init = vec![1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 9, 0, 9, 0, 0, 0, 5];
        let answered = SctpInit::answering(&init, "secret").expect("an INIT");
        assert_eq!((answered.remote.clone(), answered.local.len()), (init.clone(), 30));
        assert_eq!(Some(&answered), SctpInit::answering(&init, "secret").as_ref());
        assert_ne!(Some(&answered), SctpInit::answering(&init, "another").as_ref());
        for length in 0..init.len() {
            assert_eq!(SctpInit::answering(&init[..length], "secret"), None);
        }
        for (at, value) in [(0, 2), (1, 1), (3, 19), (3, 21), (7, 0), (19, 0)] {
            let before = std::mem::replace(&mut init[at], value);
            assert_eq!(SctpInit::answering(&init, "secret"), None, "byte {at} is {value}");
            init[at] = before;
        }
        init.resize(3000, 0);
        assert_eq!(SctpInit::answering(&init, "secret"), None);
    }
}
