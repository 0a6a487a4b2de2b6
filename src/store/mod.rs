//! L2: what outlives the process, in SQLite or PostgreSQL; and who may serve, in Redis.
//!
//! Owns the file, its tables and their migrations, the lease of the one node of a Redis, and the voice system's seat, pins
//! and gateway sessions there. Driven by `app` (which opens it), by the journal in `node` and by webhooks, from threads that may block. Never decides what is worth keeping.

mod database;
mod lease;
mod outbox;
mod redis;
mod rooms;
mod seat;
mod sessions;
mod voice;

pub use database::{Database, SharedDatabase};
pub use lease::{Lease, LeaseError};
pub use outbox::{NewLetter, Waiting};
pub use redis::{RedisError, RedisSettings, Sentinel};
pub use rooms::RoomChange;
pub use seat::{SEAT_LOOK, Sat, Seat, SharedPins};
pub use sessions::SharedSessions;
pub use voice::VoiceStore;

/// Any failure of the database; the text is for the log.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    /// The next process would not know what it reads.
    #[error("the file was written by a later version of the server")]
    TooNew,
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("the authority of PostgreSQL's certificate: {0}")]
    Certificates(#[source] crate::tls::TlsError),
    #[error("the database does not answer in time")]
    Late,
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    /// What it wrote would undo what that one has written.
    #[error("another node serves the voice system now")]
    Unseated,
}
