//! Names that clients see (strings) and handles that shards use (numbers, never reused within a process).

use std::fmt;

/// A string id; `Display` prints the bare text.
macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
    };
}

string_id!(/** A room as its users name it; at most `limit.max_room_name_length` bytes. */ RoomName);
string_id!(/** `RM_` + 12 characters: one life of a room. */ RoomId);
string_id!(/** A participant as its backend names it (the token's `sub`). */ Identity);
string_id!(/** `PA_` + 12 characters: one session of an identity. */ ParticipantId);
string_id!(/** `TR_` + two letters + 12 characters (`DTR_` for data tracks). */ TrackId);

/// A number that names something on a shard. Given out by the control side, never reused within a process, so a
/// command that arrives after its target has gone can only miss, never hit something else.
macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

handle!(/** One live room. */ RoomHandle);
handle!(/** One participant's session. */ ParticipantHandle);
handle!(/** One ICE + DTLS + SRTP association. */ TransportHandle);
handle!(/** One published source in one codec (a backup codec has a handle of its own). */ TrackHandle);
handle!(/** One participant receiving one track. */ SubscriptionHandle);
handle!(/** One published data track. */ DataTrackHandle);

/// One media thread of a node, counted from 0 in the order of their start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u16);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
