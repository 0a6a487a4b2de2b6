//! What a room asks of its driver: signalling messages, commands to its shard, and what happened, for webhooks.

use std::time::Duration;

use livekit_protocol::client_info::Sdk;
use livekit_protocol::participant_info::Kind;
use livekit_protocol::{ParticipantInfo, RpcError, SignalResponse, TrackInfo, TrackSource, TrackType};

use super::explanation::RoomExplanation;
use crate::media::edge::Command;

/// One signalling WebSocket, numbered by the node; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionHandle(pub u64);

/// In the order in which it must happen: a message before the closing of its connection, a command before those that
/// rely on it.
#[derive(Clone, Debug)]
pub enum Output {
    Signal {
        connection: ConnectionHandle,
        message: Box<SignalResponse>,
    },
    /// Send what was queued for this connection, then close it with 1000. The room has forgotten it.
    CloseConnection { connection: ConnectionHandle },
    /// To the shard the room lives on.
    Media(Command),
    /// The end of a call that `Room::perform_rpc` began.
    RpcAnswered {
        call: String,
        /// The response's payload, or the error as LiveKit's clients number and word it.
        answer: Result<String, Box<RpcError>>,
    },
    /// For webhooks, metrics and logs.
    Happened(RoomEvent),
    /// For metrics.
    Waited(Wait),
    /// What `Room::explain` was asked.
    Explained {
        query: u64,
        explanation: Box<RoomExplanation>,
    },
    /// To the pool of workers: an agent is needed. The job has no id yet.
    LaunchJob(Box<livekit_protocol::Job>),
    /// To the pool: the job is over, whatever its worker does.
    EndJob { job: String, failed: bool },
    /// To the pool: a job of before the restart, whose worker may come back to it.
    FollowJob(Box<livekit_protocol::Job>),
    /// To the pool: agents of this dispatch that are still looked for are not needed any more.
    WithdrawJobs { dispatch: String },
    /// The room is over: forget it. Nothing follows.
    Closed,
}

/// What a participant waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiting {
    /// From AddTrack to the track's being there for the others.
    Publish,
    /// From the subscription to its m-line's being negotiated.
    Subscribe,
}

/// One wait that is over, and whose it was. Everything but the duration is one of a few values.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub waiting: Waiting,
    pub source: TrackSource,
    pub kind: TrackType,
    pub sdk: Sdk,
    pub participant: Kind,
    pub duration: Duration,
}

/// `participant` and `track` as they were at that moment.
#[derive(Clone, Debug)]
pub enum RoomEvent {
    RoomStarted,
    /// The primary transport is up: state ACTIVE.
    ParticipantJoined {
        participant: Box<ParticipantInfo>,
    },
    ParticipantLeft {
        participant: Box<ParticipantInfo>,
    },
    /// It left before it was ACTIVE.
    ParticipantConnectionAborted {
        participant: Box<ParticipantInfo>,
    },
    TrackPublished {
        participant: Box<ParticipantInfo>,
        track: Box<TrackInfo>,
    },
    TrackUnpublished {
        participant: Box<ParticipantInfo>,
        track: Box<TrackInfo>,
    },
    RoomFinished,
}
