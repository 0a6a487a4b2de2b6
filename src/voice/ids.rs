//! Names of the voice domain: snowflakes of the backend, connections, sessions, sockets, and moments.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds between 1970 and the first snowflake, as Fluxer counts them.
const EPOCH_MS: u64 = 1_420_070_400_000;

/// Not a decimal number from 1 to 2^63 - 1 in its shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snowflake")]
pub struct NotASnowflake;

fn snowflake(text: &str) -> Result<u64, NotASnowflake> {
    let plain = !text.starts_with('0') && text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: i64 = if plain { text.parse().ok() } else { None }.ok_or(NotASnowflake)?;
    Ok(number.unsigned_abs())
}

/// A 64-bit number that is written as a decimal string, because JavaScript's numbers end at 2^53.
macro_rules! snowflake_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = NotASnowflake;
            fn from_str(text: &str) -> Result<Self, NotASnowflake> {
                snowflake(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

snowflake_id!(/** A person or bot of the backend. */ UserId);
snowflake_id!(/** A community; also the id of its everyone role. */ GuildId);
snowflake_id!(/** A voice channel, a direct conversation or a group. */ ChannelId);
snowflake_id!(RoleId);
snowflake_id!(/** Of a call, as the conversation shows it. */ MessageId);

impl MessageId {
    /// `count` tells messages of one millisecond apart.
    pub fn at(now: UnixMillis, count: u64) -> Self {
        Self((now.0.saturating_sub(EPOCH_MS) << 22) | (count & 0x3f_ffff))
    }
}

/// One device of a user in one voice room; part of its LiveKit identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ConnectionId(String);

impl ConnectionId {
    /// Bytes; generated ones have some twenty.
    const MAX: usize = 64;

    /// None: empty, too long, or with characters that do not belong into an identity.
    pub fn parse(text: &str) -> Option<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let good = !text.is_empty() && text.len() <= Self::MAX && text.bytes().all(known);
        good.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One gateway session; outlives its sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SessionId(pub String);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One WebSocket of the gateway; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u64);

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    pub fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// What is one LiveKit room: a channel of a guild, or a conversation outside of guilds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RoomKey {
    Guild { guild: GuildId, channel: ChannelId },
    Dm { channel: ChannelId },
}

/// How rooms are named towards LiveKit. Both are understood when read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Naming {
    /// As Fluxer does: `dm_channel_…` for every conversation.
    #[default]
    Fluxer,
    /// As its documents say: `dm_…`, `group_…`.
    Docs,
}

impl RoomKey {
    pub fn channel(self) -> ChannelId {
        match self {
            Self::Guild { channel, .. } | Self::Dm { channel } => channel,
        }
    }

    pub fn guild(self) -> Option<GuildId> {
        match self {
            Self::Guild { guild, .. } => Some(guild),
            Self::Dm { .. } => None,
        }
    }

    pub fn name(self, naming: Naming, is_group: bool) -> String {
        match (self, naming) {
            (Self::Guild { guild, channel }, _) => format!("guild_{guild}_channel_{channel}"),
            (Self::Dm { channel }, Naming::Fluxer) => format!("dm_channel_{channel}"),
            (Self::Dm { channel }, Naming::Docs) if is_group => format!("group_{channel}"),
            (Self::Dm { channel }, Naming::Docs) => format!("dm_{channel}"),
        }
    }

    /// None: no room of the voice system.
    pub fn parse(room: &str) -> Option<Self> {
        if let Some(rest) = room.strip_prefix("guild_") {
            let (guild, channel) = rest.split_once("_channel_")?;
            let (guild, channel) = (guild.parse().ok()?, channel.parse().ok()?);
            return Some(Self::Guild { guild, channel });
        }
        let prefixes = ["dm_channel_", "dm_", "group_"];
        let channel = prefixes.iter().find_map(|prefix| room.strip_prefix(prefix))?;
        let channel = channel.parse().ok()?;
        Some(Self::Dm { channel })
    }
}

/// `user_{user}_{connection}`.
pub fn identity(user: UserId, connection: &ConnectionId) -> String {
    format!("user_{user}_{connection}")
}

/// None: no participant of the voice system.
pub fn parse_identity(identity: &str) -> Option<(UserId, ConnectionId)> {
    let (user, connection) = identity.strip_prefix("user_")?.split_once('_')?;
    Some((user.parse().ok()?, ConnectionId::parse(connection)?))
}

/// What a viewer watches: `{guild}:{channel}:{connection}`, or `dm:{channel}:{connection}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamKey {
    pub room: RoomKey,
    pub connection: ConnectionId,
}

impl FromStr for StreamKey {
    type Err = NotASnowflake;

    fn from_str(text: &str) -> Result<Self, NotASnowflake> {
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or(NotASnowflake);
        let (guild, channel, connection) = (next()?, next()?, next()?);
        let channel = channel.parse()?;
        let room = match guild {
            "dm" => RoomKey::Dm { channel },
            guild => RoomKey::Guild {
                guild: guild.parse()?,
                channel,
            },
        };
        let connection = ConnectionId::parse(connection).ok_or(NotASnowflake)?;
        Ok(Self { room, connection })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snowflakes_are_decimal_strings() {
        assert_eq!("9007199254740993".parse(), Ok(UserId(9_007_199_254_740_993)));
        let huge = "9".repeat(40);
        for bad in [
            "",
            "0",
            "01",
            "-1",
            "+1",
            "1.0",
            "abc",
            " 1",
            "9223372036854775808",
            huge.as_str(),
        ] {
            assert_eq!(bad.parse::<UserId>(), Err(NotASnowflake), "{bad:?}");
        }
        assert_eq!(serde_json::to_string(&ChannelId(7)).unwrap(), "\"7\"");
        assert!(
            serde_json::from_str::<ChannelId>("7").is_err(),
            "a number would lose digits in a browser"
        );
        assert_eq!(serde_json::from_str::<ChannelId>("\"7\"").unwrap(), ChannelId(7));
    }

    #[test]
    fn both_forms_of_room_names_are_read() {
        let guild = RoomKey::Guild {
            guild: GuildId(9),
            channel: ChannelId(1),
        };
        let dm = RoomKey::Dm { channel: ChannelId(5) };
        assert_eq!(guild.name(Naming::Fluxer, false), "guild_9_channel_1");
        assert_eq!(dm.name(Naming::Fluxer, true), "dm_channel_5");
        assert_eq!(dm.name(Naming::Docs, true), "group_5");
        assert_eq!(dm.name(Naming::Docs, false), "dm_5");
        for naming in [Naming::Fluxer, Naming::Docs] {
            for (room, is_group) in [(guild, false), (dm, true), (dm, false)] {
                assert_eq!(RoomKey::parse(&room.name(naming, is_group)), Some(room));
            }
        }
        for other in ["", "room", "guild_9", "guild_x_channel_1", "dm_x", "guild_9_channel_"] {
            assert_eq!(RoomKey::parse(other), None, "{other}");
        }
    }

    #[test]
    fn identities_may_have_connections_with_underscores() {
        let (user, connection) = parse_identity("user_123_conn_abc").unwrap();
        assert_eq!((user, connection.as_str()), (UserId(123), "conn_abc"));
        assert_eq!(identity(user, &connection), "user_123_conn_abc");
        for other in ["", "user_", "user_1", "user_x_a", "user_1_", "viewer_1_a"] {
            assert_eq!(parse_identity(other), None, "{other}");
        }
    }

    #[test]
    fn stream_keys_name_a_connection_in_a_room() {
        let key: StreamKey = "9:1:orca-dragon".parse().unwrap();
        assert_eq!(key.room.guild(), Some(GuildId(9)));
        assert_eq!("dm:5:a".parse::<StreamKey>().unwrap().room.channel(), ChannelId(5));
        for bad in ["", "9:1", "x:1:a", "9:x:a", "9:1:", "dm:1:a b"] {
            assert!(bad.parse::<StreamKey>().is_err(), "{bad}");
        }
    }
}
