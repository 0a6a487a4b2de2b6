//! Whole rooms on virtual time: peers with injected keys send and receive real datagrams.

mod allocation;
mod data;
mod explanation;
mod forwarding;
mod keyframes;
mod layers;
mod layers_source;
mod lossy;
mod loudest;
mod moving;
mod pacing;
mod paths;
mod renegotiation;
mod repair;
mod showing;
mod shown;
mod world;
