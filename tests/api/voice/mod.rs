//! The voice API over real sockets, in front of a media server that does as it is told and tells what happens by webhooks.

mod admin;
mod calls;
mod channels;
mod errors;
mod fluxer;
mod gateway;
mod introspection;
mod metrics;
mod moderation;
mod nodes;
mod postgres;
mod storage;
mod town;
