//! Rooms that live, as they are made again by the next process.

use prost::Message as _;
use rusqlite::{Connection, params};

use super::StoreError;
use super::database::Database;
use crate::proto::room_record::RoomRecord;

pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS room (
        name TEXT PRIMARY KEY,
        sid TEXT NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
";

#[derive(Clone, Debug, PartialEq)]
pub enum RoomChange {
    /// In place of what was known of a room of its name.
    Keep(Box<RoomRecord>),
    /// It is over. A later room of the same name stays.
    Forget { name: String, sid: String },
}

pub(super) fn apply(connection: &Connection, changes: &[RoomChange]) -> Result<(), StoreError> {
    for change in changes {
        match change {
            RoomChange::Keep(record) => {
                let (name, sid) = record.room.as_ref().map(|room| (&room.name, &room.sid)).unzip();
                connection
                    .prepare_cached("INSERT OR REPLACE INTO room (name, sid, record) VALUES (?1, ?2, ?3)")?
                    .execute(params![name, sid, record.encode_to_vec()])?;
            }
            RoomChange::Forget { name, sid } => {
                connection
                    .prepare_cached("DELETE FROM room WHERE name = ?1 AND sid = ?2")?
                    .execute(params![name, sid])?;
            }
        }
    }
    Ok(())
}

impl Database {
    /// By name. One that cannot be read (of a later version, which was taken back) is left out, and stays.
    pub fn rooms(&self) -> Result<Vec<RoomRecord>, StoreError> {
        let mut select = self.connection.prepare("SELECT record FROM room ORDER BY name")?;
        let records = select.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        let records = records.collect::<Result<Vec<_>, _>>()?;
        Ok(records
            .iter()
            .filter_map(|record| RoomRecord::decode(record.as_slice()).ok())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::livekit::Room;

    fn record(name: &str, sid: &str) -> RoomRecord {
        RoomRecord {
            room: Some(Room {
                name: name.into(),
                sid: sid.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_last_room_of_a_name_stays_until_it_is_forgotten_itself() {
        let mut database = Database::in_memory().unwrap();
        let keep = |name: &str, sid: &str| RoomChange::Keep(Box::new(record(name, sid)));
        let forget = |name: &str, sid: &str| RoomChange::Forget {
            name: name.into(),
            sid: sid.into(),
        };
        database
            .write(&[keep("b", "RM_1"), keep("a", "RM_2"), keep("b", "RM_3")], &[], 0)
            .unwrap();
        database.write(&[forget("b", "RM_1")], &[], 0).unwrap();
        assert_eq!(database.rooms().unwrap(), [record("a", "RM_2"), record("b", "RM_3")]);
        database
            .write(&[forget("b", "RM_3"), forget("c", "RM_4")], &[], 0)
            .unwrap();
        assert_eq!(database.rooms().unwrap(), [record("a", "RM_2")]);
    }
}
