//! What the domain wants done.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::ids::SocketId;
use super::rights::MediaGrant;
use super::topology::ServerKey;

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To be answered with `handle_authenticated`.
    Authenticate {
        socket: SocketId,
        token: String,
    },
    Frame {
        socket: SocketId,
        frame: Frame,
    },
    /// No more frames; the session behind it may live on.
    Close {
        socket: SocketId,
        code: CloseCode,
    },
    Room {
        server: ServerKey,
        room: String,
        action: RoomAction,
    },
    Keep(Change),
}

/// What is asked of a room, on whichever server it is. A participant that is not there (any more) is no error.
#[derive(Clone, Debug, PartialEq)]
pub enum RoomAction {
    /// Replaces every right.
    Permit {
        identity: String,
        grant: MediaGrant,
    },
    MuteMicrophone {
        identity: String,
        muted: bool,
    },
    Remove {
        identity: String,
    },
    Delete,
    /// To be answered with `handle_participants`.
    List,
}

/// What is to outlive the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub table: Table,
    pub id: String,
    /// JSON; None = removed.
    pub body: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Regions,
    Servers,
    Pins,
    Directory,
    Calls,
}

impl Table {
    pub const ALL: [Self; 5] = [Self::Regions, Self::Servers, Self::Pins, Self::Directory, Self::Calls];

    pub fn name(self) -> &'static str {
        match self {
            Self::Regions => "regions",
            Self::Servers => "servers",
            Self::Pins => "pins",
            Self::Directory => "directory",
            Self::Calls => "calls",
        }
    }
}

impl Change {
    pub fn put(table: Table, id: impl Into<String>, value: &impl Serialize) -> Self {
        Self {
            table,
            id: id.into(),
            // Maps with string keys, strings and numbers: this cannot fail.
            body: Some(serde_json::to_string(value).unwrap_or_default()),
        }
    }

    pub fn remove(table: Table, id: impl Into<String>) -> Self {
        Self {
            table,
            id: id.into(),
            body: None,
        }
    }
}

/// One message of the gateway to a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Hello {
        heartbeat_interval: u64,
    },
    HeartbeatRequest,
    HeartbeatAck,
    Reconnect,
    InvalidSession {
        resumable: bool,
    },
    Error {
        code: &'static str,
        message: &'static str,
    },
    /// The data is shared by everybody who gets it.
    Dispatch {
        event: &'static str,
        sequence: u64,
        data: Arc<str>,
    },
}

impl Frame {
    pub fn to_json(&self) -> String {
        let plain = |value: Value| value.to_string();
        match self {
            Self::Hello { heartbeat_interval } => {
                plain(serde_json::json!({"op": 10, "d": {"heartbeat_interval": heartbeat_interval}}))
            }
            Self::HeartbeatRequest => r#"{"op":1,"d":null}"#.to_owned(),
            Self::HeartbeatAck => r#"{"op":11}"#.to_owned(),
            Self::Reconnect => r#"{"op":7,"d":null}"#.to_owned(),
            Self::InvalidSession { resumable } => format!(r#"{{"op":9,"d":{resumable}}}"#),
            Self::Error { code, message } => {
                plain(serde_json::json!({"op": 12, "d": {"code": code, "message": message}}))
            }
            Self::Dispatch { event, sequence, data } => {
                format!(r#"{{"op":0,"t":"{event}","s":{sequence},"d":{data}}}"#)
            }
        }
    }
}

/// Why the gateway closes a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    Unknown,
    UnknownOpcode,
    Decode,
    NotAuthenticated,
    AuthenticationFailed,
    AlreadyAuthenticated,
    InvalidSequence,
    RateLimited,
    SessionTimedOut,
    InvalidShard,
    ShardingRequired,
    InvalidApiVersion,
    /// The session was taken up by another socket.
    Replaced,
}

impl CloseCode {
    pub fn number(self) -> u16 {
        match self {
            Self::Replaced => 1000,
            Self::Unknown => 4000,
            Self::UnknownOpcode => 4001,
            Self::Decode => 4002,
            Self::NotAuthenticated => 4003,
            Self::AuthenticationFailed => 4004,
            Self::AlreadyAuthenticated => 4005,
            Self::InvalidSequence => 4007,
            Self::RateLimited => 4008,
            Self::SessionTimedOut => 4009,
            Self::InvalidShard => 4010,
            Self::ShardingRequired => 4011,
            Self::InvalidApiVersion => 4012,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown error",
            Self::UnknownOpcode => "Unknown opcode",
            Self::Decode => "Decode error",
            Self::NotAuthenticated => "Not authenticated",
            Self::AuthenticationFailed => "Authentication failed",
            Self::AlreadyAuthenticated => "Already authenticated",
            Self::InvalidSequence => "Invalid sequence",
            Self::RateLimited => "Rate limited",
            Self::SessionTimedOut => "Session timed out",
            Self::InvalidShard => "Invalid shard",
            Self::ShardingRequired => "Sharding required",
            Self::InvalidApiVersion => "Invalid API version",
            Self::Replaced => "Session resumed elsewhere",
        }
    }
}
