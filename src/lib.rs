//! Patchbay: a self-hosted WebRTC media server (SFU) that takes LiveKit's place.
//!
//! # Layout
//!
//! Modules are layers; a module may use those the table in `tests/layering.rs` lists and no other.
//!
//! | module | layer | what it owns |
//! |---|---|---|
//! | [`types`] | 0 | ids, units, codecs, drop reasons |
//! | [`proto`] | 0 | LiveKit's messages, their JSON forms, token claims, the data-packet envelope |
//! | [`rtp`] | 0 | views and writers of RTP, RTCP, header extensions and codec descriptors |
//! | [`sdp`] | 0 | session descriptions: parse, model, write |
//! | [`rtc`] | 1 | sans-IO transport: ICE, DTLS, SRTP, SCTP |
//! | [`turn`] | 1 | sans-IO TURN server in front of the media ports |
//! | [`media`] | 1 | sans-IO forwarding: shard, fanout, track, subscription, data |
//! | [`control`] | 1 | sans-IO rooms: participants, permissions, negotiation |
//! | [`voice`] | 1 | sans-IO voice domain: directory, permissions, regions, voice states, calls, gateway sessions |
//! | [`io`] | 2 | sockets, batches, pinned shard threads |
//! | [`node`] | 2 | the tokio driver: a task per room, shard handles |
//! | [`signal`] | 3 | the `/rtc` WebSocket |
//! | [`api`] | 3 | HTTP beside it: health, validate, the built-in page |
//! | `load` | 3 | the load tester (feature `load-test`) |
//! | [`app`] | 4 | configuration, command line, wiring |
//!
//! Cores (`rtc`, `media`, `turn`, `control`, `voice`) hold no socket, thread, clock or randomness: inputs are `handle_*`, outputs
//! `poll_*`, and `now` is an argument.

pub mod api;
pub mod app;
pub mod control;
pub mod io;
#[cfg(feature = "load-test")]
pub mod load;
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "bytes from outside are read here with checked access: a panic would be a remote crash"
    )
)]
pub mod media;
pub mod node;
pub mod proto;
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "bytes from outside are read here with checked access: a panic would be a remote crash"
    )
)]
pub mod rtc;
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "bytes from outside are read here with checked access: a panic would be a remote crash"
    )
)]
pub mod rtp;
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "bytes from outside are read here with checked access: a panic would be a remote crash"
    )
)]
pub mod sdp;
pub mod signal;
pub mod store;
pub mod tls;
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "bytes from outside are read here with checked access: a panic would be a remote crash"
    )
)]
pub mod turn;
pub mod types;
#[cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "bytes from outside are read here with checked access: a panic would be a remote crash"
    )
)]
pub mod voice;
