//! L4: configuration, command line, wiring, shutdown order.

pub mod config;

pub use config::Config;
