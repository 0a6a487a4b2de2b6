//! L2: what outlives the process, in SQLite.
//!
//! Owns files, tables and their migrations. Driven by `app` (which opens it) and by whoever keeps something in it, from
//! threads that may block. Never decides what is worth keeping.

mod outbox;

pub use outbox::{NewLetter, Outbox, Waiting};

/// Any failure of the database; the text is for the log.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(#[from] rusqlite::Error);
