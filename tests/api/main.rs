//! The server as a client sees it over HTTP and WebSocket: statuses, headers and texts as LiveKit's own server gave them
//! to the same requests, and signalling sessions. Media is silent here: no transport ever connects.

mod acme;
mod agents;
mod amplification;
mod anyone;
mod authorisation;
#[cfg(feature = "load-test")]
mod churn;
mod client;
mod connects;
mod draining;
mod durable;
mod explain;
mod forms;
mod hostile;
mod http;
mod lease;
mod limits;
#[cfg(feature = "load-test")]
mod load_test;
mod media_client;
mod media_forms;
mod outside;
mod process;
mod reload;
mod server;
mod serving;
#[cfg(feature = "load-test")]
mod spanning;
mod twirp;
mod voice;
mod webhooks;
mod websocket;
mod whip;
