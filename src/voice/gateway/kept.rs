//! Sessions, and what they were told of, as another process reads them: records by name, and a list of dispatches.
//!
//! Written and read by the same version of the form. What is read may be anybody's: every record is checked by itself, and
//! one that cannot be read is left out.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::voice::ids::{ConnectionId, Naming, RoomKey, SessionId, UnixMillis, UserId};
use crate::voice::rights::Rights;
use crate::voice::states::{Connection, SelfState};
use crate::voice::topology::ServerKey;

/// Raised with every change of what is written; another one is not read.
pub(super) const FORM: &str = "1";
/// Records that there is one of.
pub(super) const VERSION: &str = "version";
pub(super) const LAST: &str = "last";

/// Bytes of the data of one dispatch. A longer one is kept as having been: nobody resumes across it.
const MAX_DATA: usize = 64 << 10;
/// Bytes of the names of those who got one dispatch; with more it is kept several times.
const MAX_NAMES: usize = 32 << 10;
/// What is dispatched; a name that is none of these was not written by us.
const EVENTS: [&str; 5] = [
    "VOICE_STATE_UPDATE",
    "VOICE_SERVER_UPDATE",
    "CALL_CREATE",
    "CALL_UPDATE",
    "CALL_DELETE",
];
/// Bytes of the name of a session; ours have 32.
const MAX_SESSION_ID: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SessionRecord {
    pub id: String,
    pub user: UserId,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ignored: BTreeSet<String>,
    pub created_at: UnixMillis,
    /// When the session stood at `sequence`, this was the last dispatch of all.
    pub index: u64,
    pub sequence: u64,
}

impl SessionRecord {
    pub fn session(&self) -> Option<SessionId> {
        (self.id.len() <= MAX_SESSION_ID).then(|| SessionId(self.id.clone()))
    }
}

/// A connection, or one that is expected.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ConnectionRecord {
    user: UserId,
    room: String,
    region: String,
    server: String,
    session: Option<String>,
    nonce: String,
    own: SelfState,
    rights: Rights,
    asserted: bool,
    mute: bool,
    deaf: bool,
    version: u64,
    participant: String,
}

impl ConnectionRecord {
    pub fn of(connection: &Connection) -> Self {
        Self {
            user: connection.user,
            room: connection.room.name(Naming::Fluxer, false),
            region: connection.server.region.clone(),
            server: connection.server.server.clone(),
            session: connection.session.as_ref().map(|session| session.0.clone()),
            nonce: connection.nonce.clone(),
            own: connection.own.clone(),
            rights: connection.rights,
            asserted: connection.asserted,
            mute: connection.mute,
            deaf: connection.deaf,
            version: connection.version,
            participant: connection.participant.clone(),
        }
    }

    /// None: of no room. It has been there for long, and what its room was told last is not known.
    pub fn connection(self, id: ConnectionId) -> Option<Connection> {
        Some(Connection {
            id,
            user: self.user,
            room: RoomKey::parse(&self.room)?,
            server: ServerKey {
                region: self.region,
                server: self.server,
            },
            session: self.session.map(SessionId),
            nonce: self.nonce,
            own: self.own,
            rights: self.rights,
            asserted: self.asserted,
            mute: self.mute,
            deaf: self.deaf,
            version: self.version,
            since: UnixMillis(0),
            participant: self.participant,
            enforced: None,
        })
    }
}

/// One dispatch of the list.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub index: u64,
    pub event: &'static str,
    /// First and last of each row of sessions that got it.
    pub sessions: Vec<(u64, u64)>,
    /// None: it was too long to be kept.
    pub data: Option<Arc<str>>,
}

/// `sessions` in ascending order: as many lines as their names need. `index`: of the last line before; counts on.
pub(super) fn lines(index: &mut u64, event: &str, sessions: &[u64], data: &str, out: &mut Vec<String>) {
    let data = if data.len() > MAX_DATA { "" } else { data };
    let mut names = String::new();
    let mut close = |names: &mut String| {
        *index += 1;
        out.push(format!("{index} {event} {names} {data}"));
        names.clear();
    };
    for row in sessions.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        let (Some(first), Some(last)) = (row.first(), row.last()) else {
            continue;
        };
        let comma = if names.is_empty() { "" } else { "," };
        // Into a string: this cannot fail.
        let _ = match first == last {
            true => write!(names, "{comma}{first}"),
            false => write!(names, "{comma}{first}-{last}"),
        };
        if names.len() > MAX_NAMES {
            close(&mut names);
        }
    }
    if !names.is_empty() {
        close(&mut names);
    }
}

/// None: not a line of ours.
pub(super) fn line(text: &str) -> Option<Line> {
    let mut parts = text.splitn(4, ' ');
    let index = parts.next()?.parse().ok()?;
    let name = parts.next()?;
    let event = EVENTS.into_iter().find(|event| *event == name)?;
    let row = |row: &str| {
        let (first, last) = row.split_once('-').unwrap_or((row, row));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        (first <= last).then_some((first, last))
    };
    let sessions = parts.next()?.split(',').map(row).collect::<Option<Vec<_>>>()?;
    let data = parts.next()?;
    let data = match data.is_empty() {
        true => None,
        false => {
            serde_json::from_str::<IgnoredAny>(data).ok()?;
            Some(Arc::from(data))
        }
    };
    Some(Line {
        index,
        event,
        sessions,
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dispatch_is_kept_once_for_all_who_got_it() {
        let (mut index, mut out) = (6, Vec::new());
        lines(
            &mut index,
            "CALL_DELETE",
            &[1, 2, 3, 5, 8, 9],
            r#"{"a b":"c d"}"#,
            &mut out,
        );
        assert_eq!(out, [r#"7 CALL_DELETE 1-3,5,8-9 {"a b":"c d"}"#]);
        let read = line(&out[0]).unwrap();
        assert_eq!(
            (read.index, read.event, read.sessions),
            (7, "CALL_DELETE", vec![(1, 3), (5, 5), (8, 9)])
        );
        assert_eq!(read.data.as_deref(), Some(r#"{"a b":"c d"}"#));
        // Ten thousand in a row take no more room than one.
        out.clear();
        lines(
            &mut index,
            "CALL_DELETE",
            &(1..=10_000).collect::<Vec<_>>(),
            "{}",
            &mut out,
        );
        assert_eq!(out, ["8 CALL_DELETE 1-10000 {}"]);
    }

    #[test]
    fn lines_have_bounds() {
        let (mut index, mut out) = (0, Vec::new());
        let sessions: Vec<u64> = (0..100_000).map(|number| 2 * number).collect();
        lines(&mut index, "CALL_UPDATE", &sessions, "{}", &mut out);
        assert_eq!(index, u64::try_from(out.len()).unwrap());
        assert!(out.iter().all(|line| line.len() < MAX_NAMES + 100), "{}", out.len());
        let read: Vec<Line> = out.iter().map(|text| line(text).unwrap()).collect();
        assert_eq!(read.iter().map(|line| line.sessions.len()).sum::<usize>(), 100_000);
        out.clear();
        let long = format!("\"{}\"", "x".repeat(MAX_DATA));
        lines(&mut index, "CALL_UPDATE", &[1], &long, &mut out);
        assert_eq!(line(&out[0]).unwrap().data, None, "only that it was");
    }

    #[test]
    fn what_is_no_line_is_not_read() {
        for bad in [
            "",
            "rubbish",
            "1",
            "x CALL_UPDATE 1 {}",
            "1 READY 1 {}",
            "1 CALL_UPDATE x {}",
            "1 CALL_UPDATE 3-1 {}",
            "1 CALL_UPDATE  {}",
            "1 CALL_UPDATE 1",
            "1 CALL_UPDATE 1 {",
            "1 CALL_UPDATE 1 {}{}",
            "99999999999999999999 CALL_UPDATE 1 {}",
        ] {
            assert_eq!(line(bad), None, "{bad}");
        }
    }
}
