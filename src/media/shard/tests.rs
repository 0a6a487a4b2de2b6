//! Whole rooms on virtual time: peers with injected keys send and receive real datagrams.

mod forwarding;
mod repair;
mod world;
