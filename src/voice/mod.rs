//! L1: the voice domain, sans-IO: voice channels and calls as Fluxer has them, on top of LiveKit rooms.
//!
//! Owns who may be where (directory, permissions), where rooms are (topology, pins), who is there (states), calls, and the
//! gateway's sessions. Driven by `node`, which brings requests, room events and sockets in and carries effects out.
//! Holds no clock, socket, thread or randomness: `now` and a seed are arguments, and the same inputs give the same
//! effects. Never mints a token itself (`Signer`), and never speaks to a media server (`RoomAction`).

mod announce;
mod calls;
mod changes;
mod directory;
mod domain;
mod effect;
mod error;
mod gateway;
mod ids;
mod join;
mod limits;
mod marks;
mod moderation;
mod permissions;
mod pins;
mod placing;
mod presence;
mod rights;
mod states;
mod topology;
mod updates;

pub use calls::{Call, Calls};
pub use changes::SyncSummary;
pub use directory::{
    Channel, ChannelType, Directory, Entry, Fact, Guild, IncomingCalls, Member, Overwrite, OverwriteKind, Ringable,
    Role, SyncError, User,
};
pub use domain::{Voice, VoiceSettings};
pub use effect::{Change, CloseCode, Effect, Frame, RoomAction, Table};
pub use error::VoiceError;
pub use gateway::{Gateway, MAX_FRAME, SessionBatch, StoredSessions, TakenOver};
pub use ids::{
    ChannelId, ConnectionId, GuildId, MessageId, Naming, NotASnowflake, RoleId, RoomKey, SessionId, SocketId,
    StreamKey, UnixMillis, UserId, identity, parse_identity,
};
pub use join::{Authority, Join, Ticket};
pub use limits::{Bucket, Limit, RateLimits};
pub use moderation::{Actor, Disconnected, Moderation};
pub use permissions::{Permissions, channel_permissions, guild_permissions};
pub use pins::{Pin, PinRecord, Pins};
pub use presence::{Arrival, Seen};
pub use rights::{Claim, MediaGrant, Rights, Signer};
pub use states::{Connection, Pending, SelfState, States, VoiceState};
pub use topology::{
    Access, Coordinates, RecordError, Region, Restrictions, Server, ServerKey, ServerView, Topology, Wish,
};
pub use updates::{StateUpdate, Updated};

#[cfg(test)]
mod tests;
