//! L3: the load tester, `patchbay load-test`: LiveKit clients by the hundred against any server that speaks its signalling.
//!
//! Owns clients, their model of what encoders send, and the arithmetic of the report. Driven by `app`, in a process that
//! does not serve (a server it tests is another process). It shares no media code with the server: clients are str0m, and
//! what they do beside it (counting, RTCP of cheap subscribers) is written here. Everything runs on one thread, so that a
//! machine with two cores has one left for the server.
//!
//! A subscriber either *verifies*: str0m opens every packet, answers loss and the body's hash is checked. Or it *counts*:
//! str0m connects, then RTP is read by its clear header only, transport-wide feedback and reports are sent, and one packet
//! in [`subscriber::SAMPLE`] is opened to see how long it took. Their sockets are read in rounds ([`sink`]), so that the
//! tester's core carries more packets than the server's.

mod client;
mod counter;
mod failure;
mod feedback;
mod garbage;
mod histogram;
mod keys;
mod metrics;
pub mod model;
mod options;
mod payload;
mod process;
mod publisher;
mod report;
mod run;
mod server;
mod signalling;
pub mod sink;
mod srtp;
mod subscriber;
mod tally;
mod way;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use failure::Failure;
pub use options::{Options, Profile, Scenario, Video, VideoCodec};
pub use run::run;

/// Since 1970: the clock of the kernel's receive stamps.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
