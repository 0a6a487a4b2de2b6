//! What the voice system keeps: in the SQLite file or in PostgreSQL, with the same tables; pins in Redis where several nodes
//! serve.

mod postgres;

use rusqlite::params;

use super::StoreError;
use super::database::SharedDatabase;
use super::seat::SharedPins;
use super::sessions::SharedSessions;
use crate::voice::{Change, Table};
pub use postgres::Postgres;

/// In order; each is done once. What both databases understand.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE voice_record (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, id)
    )
"];

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS voice_migration (version INTEGER PRIMARY KEY)";
const DONE: &str = "SELECT COUNT(*) FROM voice_migration";
const ENTER: &str = "INSERT INTO voice_migration (version) VALUES ($1)";
const LOAD: &str = "SELECT kind, id, body FROM voice_record ORDER BY kind, id";
const PUT: &str = "INSERT INTO voice_record (kind, id, body) VALUES ($1, $2, $3) ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body";
const REMOVE: &str = "DELETE FROM voice_record WHERE kind = $1 AND id = $2";

/// Rows of a kind that is not known (of a later version) are left out, and stay.
fn change(kind: &str, id: String, body: String) -> Option<Change> {
    let table = Table::ALL.into_iter().find(|table| table.name() == kind)?;
    Some(Change {
        table,
        id,
        body: Some(body),
    })
}

/// Where the voice system keeps its state.
#[derive(Debug)]
pub enum VoiceStore {
    Sqlite(SharedDatabase),
    Postgres(Box<Postgres>),
    /// Of several nodes: pins are where the right to write them is.
    Shared {
        rest: Box<Self>,
        pins: Box<SharedPins>,
        /// Taken by whoever serves the gateway.
        sessions: Option<Box<SharedSessions>>,
    },
}

impl VoiceStore {
    /// Makes the tables where there are none.
    ///
    /// # Errors
    /// The database cannot be opened or written.
    pub fn sqlite(database: SharedDatabase) -> Result<Self, StoreError> {
        database.with(|database| migrate(&mut database.connection))?;
        Ok(Self::Sqlite(database))
    }

    /// `postgres://user:password@host:port/name`; connects when it is first needed. With `?sslmode=require` under TLS, to a
    /// server whose certificate `authority` (a PEM file; empty = the machine's authorities) has signed.
    ///
    /// # Errors
    /// The URL or the file cannot be read.
    pub fn postgres(url: &str, authority: &str) -> Result<Self, StoreError> {
        Ok(Self::Postgres(Box::new(Postgres::new(url, authority)?)))
    }

    /// Where gateway sessions are kept for other nodes, where there are any.
    pub fn take_sessions(&mut self) -> Option<Box<SharedSessions>> {
        match self {
            Self::Shared { sessions, .. } => sessions.take(),
            Self::Sqlite(_) | Self::Postgres(_) => None,
        }
    }

    /// # Errors
    /// The database cannot be read.
    pub async fn load(&mut self) -> Result<Vec<Change>, StoreError> {
        match self {
            Self::Sqlite(database) => database.call(|database| load(&database.connection)).await,
            Self::Postgres(postgres) => postgres.load().await,
            Self::Shared { rest, pins, .. } => {
                let mut found = Box::pin(rest.load()).await?;
                found.retain(|change| change.table != Table::Pins);
                found.extend(pins.load().await?);
                Ok(found)
            }
        }
    }

    /// All of it or nothing; of several nodes pins first, by themselves.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(database) => {
                database
                    .call(move |database| write(&mut database.connection, &changes))
                    .await
            }
            Self::Postgres(postgres) => postgres.write(&changes).await,
            Self::Shared { rest, pins, .. } => {
                let (own, others): (Vec<_>, Vec<_>) =
                    changes.into_iter().partition(|change| change.table == Table::Pins);
                pins.write(&own).await?;
                match others.is_empty() {
                    true => Ok(()),
                    false => Box::pin(rest.write(others)).await,
                }
            }
        }
    }
}

fn migrate(connection: &mut rusqlite::Connection) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    transaction.execute(VERSIONS, [])?;
    let done: i64 = transaction.query_row(DONE, [], |row| row.get(0))?;
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(StoreError::TooNew);
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.execute_batch(migration)?;
        transaction.execute(ENTER, params![i64::try_from(index).unwrap_or(i64::MAX)])?;
    }
    Ok(transaction.commit()?)
}

fn load(connection: &rusqlite::Connection) -> Result<Vec<Change>, StoreError> {
    let mut select = connection.prepare(LOAD)?;
    let rows = select.query_map([], |row| {
        let kind: String = row.get(0)?;
        Ok(change(&kind, row.get(1)?, row.get(2)?))
    })?;
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    Ok(rows.into_iter().flatten().collect())
}

fn write(connection: &mut rusqlite::Connection, changes: &[Change]) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    for change in changes {
        let kind = change.table.name();
        match &change.body {
            Some(body) => transaction
                .prepare_cached(PUT)?
                .execute(params![kind, change.id, body])?,
            None => transaction.prepare_cached(REMOVE)?.execute(params![kind, change.id])?,
        };
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests;
