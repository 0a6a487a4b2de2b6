//! Why a packet went no further: one closed list, so that every drop can be counted.

use std::fmt;

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            pub const ALL: &[DropReason] = &[$(Self::$name,)*];

            /// The metric label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// First byte belongs to no protocol of RFC 7983.
    UnknownProtocol => "unknown_protocol",
    /// A datagram from an address no transport has verified.
    UnknownPath => "unknown_path",
    /// A STUN username that names no transport.
    UnknownUfrag => "unknown_ufrag",
    /// Not STUN after all, or its integrity check failed.
    BadStun => "bad_stun",
    /// DTLS or SRTP from a 5-tuple without a successful ICE check.
    IceUnverified => "ice_unverified",
    BadDtls => "bad_dtls",
    /// SRTP before the handshake has given keys.
    NoKeys => "no_keys",
    /// Shorter than its own header says, or otherwise not parseable.
    Truncated => "truncated",
    Malformed => "malformed",
    /// SRTP authentication failed.
    BadTag => "bad_tag",
    /// SRTP index seen before (RFC 3711 §3.3.2).
    Replayed => "replayed",
    /// SRTP index older than the replay window.
    TooOld => "too_old",
    BadSctp => "bad_sctp",
    /// SSRC that no mid, rid or description explains.
    UnknownSsrc => "unknown_ssrc",
    /// Media that no `Command::Publish` has bound.
    NotPublished => "not_published",
    UnknownPayloadType => "unknown_payload_type",
    /// A second copy of a packet that is already in the ring.
    Duplicate => "duplicate",
    /// Too far behind the newest packet of its encoding to be kept.
    Late => "late",
    /// Padding without payload; probes end here.
    PaddingOnly => "padding_only",
    /// The publisher's track is muted.
    Muted => "muted",
    /// The subscriber disabled this subscription, or it has no connected transport.
    Disabled => "disabled",
    /// Nothing of this track is sent to this subscriber now: its bandwidth does not carry it.
    Paused => "paused",
    /// A voice that is not among the loudest of its room.
    NotLoudest => "not_among_loudest",
    /// Not the layer this subscriber is given.
    OtherLayer => "other_layer",
    /// Waiting for a key frame before this subscriber can be served.
    AwaitingKeyframe => "awaiting_keyframe",
    /// The subscriber has not negotiated this codec.
    CodecNotNegotiated => "codec_not_negotiated",
    /// A queued descriptor whose ring slot was used again.
    SlotReused => "slot_reused",
    /// A retransmission request for a packet that is no longer kept, too recent or too often asked for.
    RtxUnavailable => "rtx_unavailable",
    /// Retransmissions have used up their share of what is sent.
    RtxBudget => "rtx_budget",
    /// It would have waited too long for its turn on a slow path; its subscription goes on with the next key frame.
    Congested => "congested",
    TooLarge => "too_large",
    /// A bounded queue was full.
    QueueFull => "queue_full",
    /// The way to another shard was full: the stream goes on there with its next key frame.
    RelayFull => "relay_full",
    /// The socket would not take the datagram.
    SendFailed => "send_failed",
    /// A data packet its sender has no right to send.
    DataNotAllowed => "data_not_allowed",
    /// A reliable data packet with a sequence number already seen.
    DataDuplicate => "data_duplicate",
    /// Lossy data to a reader whose channel is full.
    DataSlowReader => "data_slow_reader",
    /// A data packet meant for the server, not for other participants (client metrics).
    DataNotForwarded => "data_not_forwarded",
    /// A command that names something gone.
    StaleCommand => "stale_command",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
