//! Why a client's message had no effect: one closed list, so that each can be counted.

use std::fmt;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            pub const ALL: &[Refusal] = &[$(Self::$name,)*];

            /// The metric label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

refusals! {
    /// Neither STUN nor ChannelData, or not whole.
    Malformed => "malformed",
    /// A method that a TURN server without RFC 6062 does not have; not answered.
    UnknownMethod => "unknown_method",
    /// More questions without a password from one network than its share; not answered.
    TooMany => "too_many",
    /// No MESSAGE-INTEGRITY: the ordinary first request (401).
    Unauthenticated => "unauthenticated",
    /// A nonce that is old or not ours (438).
    StaleNonce => "stale_nonce",
    /// Unknown or expired username, a participant that is gone, a wrong password or realm (401).
    BadCredentials => "bad_credentials",
    /// Another user's request on an allocation's 5-tuple (441).
    WrongUser => "wrong_user",
    /// Authentic but not according to the specification (400, 420).
    BadRequest => "bad_request",
    /// What is asked for is not offered: TCP relays, reserved ports, an address family (440, 442, 508).
    Unsupported => "unsupported",
    /// The peer is of another family than the allocation (443).
    FamilyMismatch => "family_mismatch",
    /// The peer is none that may be reached (403, or nothing for data).
    PeerRefused => "peer_refused",
    /// This participant has as many allocations as it may (486).
    QuotaReached => "quota_reached",
    /// The server is full, or an allocation's permissions or channels are (508).
    Full => "full",
    /// No such allocation (437, or nothing for data), or already one.
    NoAllocation => "no_allocation",
    /// Data for a channel or peer that nothing was bound to.
    NotPermitted => "not_permitted",
    /// More to or from peers elsewhere than one allocation may bring.
    OverRate => "over_rate",
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often each refusal has happened since start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    refused: [u64; Refusal::ALL.len()],
}

impl Counts {
    pub(super) fn add(&mut self, refusal: Refusal) {
        if let Some(count) = self.refused.get_mut(refusal as usize) {
            *count += 1;
        }
    }

    pub fn of(&self, refusal: Refusal) -> u64 {
        self.refused.get(refusal as usize).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.refused.iter().sum()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.iter().map(|refusal| (*refusal, self.of(*refusal)))
    }
}
