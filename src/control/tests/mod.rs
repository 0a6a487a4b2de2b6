//! Stories on virtual time: scripted clients speak real SDP to a room, and the shard's part is played by the world.

mod data;
mod endings;
mod explaining;
mod falling_back;
mod forwarding;
mod jobs;
mod joining;
mod lifecycle;
mod moving;
mod pausing;
mod publishing;
mod regressing;
mod rights;
mod rpc;
mod settling;
mod subscribing;
mod transcripts;
mod world;
