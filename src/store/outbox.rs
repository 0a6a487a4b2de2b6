//! Letters that wait for their receiver: written before anybody relies on them, removed when they have arrived.

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use super::database::{Database, signed};

/// Rows of one lane leave in the order of their ids. Times are UNIX milliseconds.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS webhook_outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        url TEXT NOT NULL,
        lane TEXT NOT NULL,
        body BLOB NOT NULL,
        created_ms INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_ms INTEGER NOT NULL
    ) STRICT;
";

/// What is to be sent, and in which order beside what else: letters of one lane to one URL arrive one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLetter {
    pub url: String,
    pub lane: String,
    pub body: Vec<u8>,
}

/// A letter that has not arrived yet, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub id: i64,
    pub url: String,
    pub lane: String,
    /// UNIX time, milliseconds.
    pub created_ms: u64,
    /// Tries that failed.
    pub attempts: u32,
    /// Not before this UNIX time, milliseconds.
    pub due_ms: u64,
}

/// Their ids, in order.
pub(super) fn append(connection: &Connection, letters: &[NewLetter], now_ms: u64) -> Result<Vec<i64>, StoreError> {
    let mut ids = Vec::with_capacity(letters.len());
    let mut insert = connection.prepare_cached(
        "INSERT INTO webhook_outbox (url, lane, body, created_ms, due_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?;
    for letter in letters {
        ids.push(insert.insert(params![letter.url, letter.lane, letter.body, signed(now_ms)])?);
    }
    Ok(ids)
}

impl Database {
    /// At most `limit`, oldest first.
    pub fn waiting(&self, limit: usize) -> Result<Vec<Waiting>, StoreError> {
        let mut select = self
            .connection
            .prepare("SELECT id, url, lane, created_ms, attempts, due_ms FROM webhook_outbox ORDER BY id LIMIT ?1")?;
        let rows = select.query_map([signed(limit as u64)], |row| {
            Ok(Waiting {
                id: row.get(0)?,
                url: row.get(1)?,
                lane: row.get(2)?,
                created_ms: row.get::<_, i64>(3)?.unsigned_abs(),
                attempts: row.get(4)?,
                due_ms: row.get::<_, i64>(5)?.unsigned_abs(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// None: it has been removed.
    pub fn body(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut select = self
            .connection
            .prepare_cached("SELECT body FROM webhook_outbox WHERE id = ?1")?;
        Ok(select.query_row([id], |row| row.get(0)).optional()?)
    }

    pub fn remove(&mut self, id: i64) -> Result<(), StoreError> {
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM webhook_outbox WHERE id = ?1")?;
        delete.execute([id])?;
        Ok(())
    }

    pub fn postpone(&mut self, id: i64, attempts: u32, due_ms: u64) -> Result<(), StoreError> {
        let mut update = self
            .connection
            .prepare_cached("UPDATE webhook_outbox SET attempts = ?2, due_ms = ?3 WHERE id = ?1")?;
        update.execute(params![id, attempts, signed(due_ms)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(lane: &str, body: &str) -> NewLetter {
        NewLetter {
            url: "http://receiver/".into(),
            lane: lane.into(),
            body: body.into(),
        }
    }

    #[test]
    fn letters_wait_in_order_until_they_are_removed() {
        let mut outbox = Database::in_memory().unwrap();
        let ids = outbox
            .write(&[], &[letter("a", "1"), letter("b", "2"), letter("a", "3")], 1_000)
            .unwrap();
        outbox.postpone(ids[0], 2, 5_000).unwrap();
        outbox.remove(ids[1]).unwrap();
        let waiting = outbox.waiting(10).unwrap();
        assert_eq!(
            waiting.iter().map(|letter| letter.id).collect::<Vec<_>>(),
            [ids[0], ids[2]]
        );
        assert_eq!(
            (waiting[0].attempts, waiting[0].due_ms, waiting[0].created_ms),
            (2, 5_000, 1_000)
        );
        assert_eq!((waiting[1].attempts, waiting[1].due_ms), (0, 1_000));
        assert_eq!(outbox.body(ids[2]).unwrap().as_deref(), Some(b"3".as_slice()));
        assert_eq!(outbox.body(ids[1]).unwrap(), None);
        assert_eq!(outbox.waiting(1).unwrap().len(), 1);
        let more = outbox.write(&[], &[letter("a", "4")], 2_000).unwrap();
        assert!(more[0] > ids[2], "ids are never used again");
    }

    #[test]
    fn a_file_keeps_them_for_the_next_process_and_for_one_at_a_time() {
        let path = std::env::temp_dir().join(format!("outbox-{}-{:p}.db", std::process::id(), &SCHEMA));
        let _ = std::fs::remove_file(&path);
        let mut first = Database::open(&path).unwrap();
        first.write(&[], &[letter("a", "1")], 1).unwrap();
        let second = Connection::open(&path).unwrap();
        assert!(
            second.execute("DELETE FROM webhook_outbox", []).is_err(),
            "the file is held"
        );
        drop((first, second));
        let again = Database::open(&path).unwrap();
        assert_eq!(again.waiting(10).unwrap().len(), 1);
        drop(again);
        std::fs::remove_file(&path).unwrap();
    }
}
