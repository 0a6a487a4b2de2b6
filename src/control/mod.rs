//! L1, sans-IO: rooms, participants, permissions, negotiation, wanted subscriptions.
//!
//! Owns what clients are told and what shards are asked: one [`Room`] takes joins, `SignalRequest`s and media events
//! and gives `SignalResponse`s and `media::edge` commands. Driven by `node` (one task per room), which passes the time
//! in. Never touches a socket, a clock, a packet, or another room.
//!
//! | file | what it does |
//! |---|---|
//! | `room` | the map of everything, timers, events of the shard |
//! | `join`, `session`, `resume`, `leave` | how a session begins, goes on after a lost socket, and ends |
//! | `requests` | one arm per client message |
//! | `negotiate`, `peer`, [`negotiation`] | offers, answers and candidates |
//! | `publish`, `publication` | announced → bound → live tracks |
//! | `wishes`, `subscribe`, `subscription`, `acl`, `layers` | who receives what, in which quality |
//! | `dynacast`, `regression` | what publishers are asked to encode, in which codec |
//! | `reception`, `streams` | what limits a participant's media, and what was stopped for want of bandwidth |
//! | `explanation` | who is sent what, and why not more |
//! | `updates`, `speakers`, `quality` | what everybody hears about everybody |
//! | `permissions`, `administration` | rights and names, changed by the participant or by the API |
//! | `data_tracks`, `data_blobs` | data beside media |
//! | `dispatches` | the agents a room asks for |
//! | `rpc`, `moving`, `forwarding` | a backend calls a participant, takes it to another room, or shows it there |

// Fields that LiveKit marks deprecated are what clients in use still send and read.
#![allow(deprecated)]

mod acl;
mod administration;
mod client;
mod data_blobs;
mod data_tracks;
mod demand;
mod dispatches;
mod dynacast;
mod explanation;
mod fallback;
mod forwarding;
mod ids;
mod jobs;
mod join;
mod layers;
mod leave;
mod moving;
mod negotiate;
pub mod negotiation;
mod outbox;
mod output;
mod participant;
mod participants;
mod peer;
mod permissions;
mod publication;
mod publish;
mod quality;
mod reception;
mod record;
mod regression;
mod requests;
mod resume;
mod room;
mod rpc;
mod session;
mod settings;
mod simulate;
mod speakers;
mod streams;
mod subscribe;
mod subscription;
mod track_info;
mod updates;
mod waits;
mod whip;
mod wishes;
mod workers;

#[cfg(test)]
mod tests;

pub use administration::{AdministrationError, Sizes};
pub use demand::Demand;
pub use dispatches::TooManyDispatches;
pub use explanation::{
    LayerName, ParticipantExplanation, PublishedTrack, ReceivedTrack, RoomExplanation, TrackNames, WaitingReason,
    WaitingTrack,
};
pub use forwarding::{ForwardError, Forwarding};
pub use join::{Join, JoinError, MediaAddresses, Signer};
pub use moving::Traveller;
pub use output::{ConnectionHandle, Output, RoomEvent, Wait, Waiting};
pub use permissions::MetadataError;
pub use quality::grade;
pub use reception::{MAX_BITRATE_ATTRIBUTE, playout_delay};
pub use room::Room;
pub use session::server_info;
pub use settings::{Limits, PING_INTERVAL, PING_TIMEOUT, PROTOCOL_VERSION, RoomSettings};
pub use whip::{IceFragment, WhipOffer};
pub use workers::{WorkerHandle, Workers, WorkersOutput};
