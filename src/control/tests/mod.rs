//! Stories on virtual time: scripted clients speak real SDP to a room, and the shard's part is played by the world.

mod data;
mod endings;
mod joining;
mod lifecycle;
mod publishing;
mod rights;
mod subscribing;
mod world;
