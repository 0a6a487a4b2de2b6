//! The one file, and the transaction that everything new goes through.
//!
//! `rusqlite` and not an asynchronous pool: one writer, calls of some ten microseconds, no second engine to speak to.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::StoreError;
use super::outbox::{self, NewLetter};
use super::rooms::{self, RoomChange};

/// How long to wait for another process that is letting go of the file.
const BUSY: Duration = Duration::from_secs(2);

/// 1: the outbox; 2: rooms.
const SCHEMA_VERSION: i64 = 2;

#[derive(Debug)]
pub struct Database {
    pub(super) connection: Connection,
}

impl Database {
    /// Makes the file where there is none. It belongs to this process until it is closed: a second one would have the
    /// same rooms and send everything again.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        // A killed process loses nothing, since the kernel has every committed page. A power cut may lose the last
        // transactions, but not their order; it ends every call of the machine as well, and a disk's flush for each
        // batch and each delivered webhook (milliseconds) would be paid every day for it.
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Self::with(connection)
    }

    /// Ends with the process.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(connection: Connection) -> Result<Self, StoreError> {
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > SCHEMA_VERSION {
            return Err(StoreError::TooNew);
        }
        connection.execute_batch(outbox::SCHEMA)?;
        connection.execute_batch(rooms::SCHEMA)?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        Ok(Self { connection })
    }

    /// All of it or nothing; the ids of the letters, in order.
    pub fn write(&mut self, rooms: &[RoomChange], letters: &[NewLetter], now_ms: u64) -> Result<Vec<i64>, StoreError> {
        let transaction = self.connection.transaction()?;
        rooms::apply(&transaction, rooms)?;
        let ids = outbox::append(&transaction, letters, now_ms)?;
        transaction.commit()?;
        Ok(ids)
    }
}

/// For the journal, which adds, and webhooks, which take away.
#[derive(Clone, Debug)]
pub struct SharedDatabase(Arc<Mutex<Database>>);

impl SharedDatabase {
    pub fn new(database: Database) -> Self {
        Self(Arc::new(Mutex::new(database)))
    }

    /// Blocks, for what others are doing as well.
    pub fn with<R>(&self, call: impl FnOnce(&mut Database) -> R) -> R {
        // SQLite's own transactions keep it whole.
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// On a thread that may block.
    pub async fn call<R: Send + 'static>(&self, call: impl FnOnce(&mut Database) -> R + Send + 'static) -> R {
        let database = self.clone();
        match tokio::task::spawn_blocking(move || database.with(call)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// SQLite's integers are signed.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
