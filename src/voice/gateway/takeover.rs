//! Another process has ended: its sessions, connections and calls go on here.
//!
//! What is taken over is a moment of that process that its clients have not seen more than. What has changed since is found
//! out as after any restart, by looking at rooms and at the directory, and told like any change.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::MAX_SESSIONS;
use super::journal::StoredSessions;
use super::kept::{self, ConnectionRecord, FORM, LAST, Line, SessionRecord, VERSION};
use super::session::{MAX_REPLAY, Session};
use crate::voice::calls::Call;
use crate::voice::domain::{Timer, Voice};
use crate::voice::ids::{ChannelId, ConnectionId, RoomKey, SessionId, UnixMillis, UserId};
use crate::voice::states::{Connection, Pending};

/// What became of what was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    pub sessions: usize,
    pub connections: usize,
    /// Records that are not of our form.
    pub unreadable: usize,
}

#[derive(Default)]
struct Records {
    last: u64,
    sessions: Vec<(u64, SessionRecord)>,
    connections: Vec<Connection>,
    pending: Vec<Connection>,
    calls: Vec<(ChannelId, Call)>,
    virtual_access: Vec<(UserId, ChannelId)>,
}

impl Records {
    fn read(&mut self, name: &str, body: &str) -> Option<()> {
        let (kind, id) = name.split_once(':')?;
        match kind {
            "s" => self.sessions.push((id.parse().ok()?, serde_json::from_str(body).ok()?)),
            "c" => self.connections.push(connection(id, body)?),
            "p" => self.pending.push(connection(id, body)?),
            "r" => self.calls.push((id.parse().ok()?, serde_json::from_str(body).ok()?)),
            "v" => {
                let (user, channel) = id.split_once(':')?;
                self.virtual_access.push((user.parse().ok()?, channel.parse().ok()?));
            }
            _ => return None,
        }
        Some(())
    }
}

fn connection(id: &str, body: &str) -> Option<Connection> {
    let id = ConnectionId::parse(id)?;
    serde_json::from_str::<ConnectionRecord>(body).ok()?.connection(id)
}

/// The list, if it is whole: one after the other up to `last`.
fn list(dispatches: &[String], last: u64) -> Option<Vec<Line>> {
    let lines: Vec<Line> = dispatches.iter().map(|text| kept::line(text)).collect::<Option<_>>()?;
    let in_row = lines
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a.index.checked_add(1) == Some(b.index)));
    let ends = lines.last().is_none_or(|line| line.index == last);
    (in_row && ends).then_some(lines)
}

/// A session, and what of the list it got.
struct Reader {
    record: SessionRecord,
    /// Since its record was written.
    count: u64,
    got: VecDeque<usize>,
}

impl Voice {
    /// To be called after `restore`, and before anything else is.
    pub fn take_over(&mut self, now: UnixMillis, stored: StoredSessions) -> TakenOver {
        let mut taken = TakenOver::default();
        let mut records = Records::default();
        let (mut version, mut last) = (None, None);
        for (name, body) in &stored.records {
            match name.as_str() {
                VERSION => version = Some(body.as_str()),
                LAST => last = body.parse().ok(),
                name => taken.unreadable += usize::from(records.read(name, body).is_none()),
            }
        }
        let (Some(FORM), Some(last)) = (version, last) else {
            // Of another version, or not written to the end: nothing is known.
            taken.unreadable = stored.records.len();
            return taken;
        };
        records.last = last;
        let sessions = std::mem::take(&mut records.sessions);
        match list(&stored.dispatches, last) {
            Some(lines) => taken.sessions = self.take_sessions(now, sessions, &lines, last),
            None => taken.unreadable += stored.dispatches.len(),
        }
        taken.connections = self.take_connections(now, records);
        taken
    }

    fn take_sessions(
        &mut self,
        now: UnixMillis,
        sessions: Vec<(u64, SessionRecord)>,
        lines: &[Line],
        last: u64,
    ) -> usize {
        let first = lines.first().map_or(last.saturating_add(1), |line| line.index);
        // Of one whose place is not in the list any more it is not known what it got since.
        let known = |record: &SessionRecord| record.index <= last && record.index.saturating_add(1) >= first;
        let sessions = sessions.into_iter().filter(|(_, record)| known(record));
        let mut readers: BTreeMap<u64, Reader> = sessions
            .take(MAX_SESSIONS)
            .map(|(number, record)| {
                let reader = Reader {
                    record,
                    count: 0,
                    got: VecDeque::new(),
                };
                (number, reader)
            })
            .collect();
        for (at, line) in lines.iter().enumerate() {
            for (from, to) in &line.sessions {
                for (_, reader) in readers.range_mut(from..=to) {
                    reader.count += u64::from(line.index > reader.record.index);
                    if line.data.is_none() {
                        reader.got.clear();
                        continue;
                    }
                    if reader.got.len() >= MAX_REPLAY {
                        reader.got.pop_front();
                    }
                    reader.got.push_back(at);
                }
            }
        }
        let mut count = 0;
        for (_, reader) in readers {
            count += usize::from(self.take_session(now, reader, lines).is_some());
        }
        count
    }

    fn take_session(&mut self, now: UnixMillis, reader: Reader, lines: &[Line]) -> Option<()> {
        let Reader { record, count, got } = reader;
        let id = record.session().filter(|id| !self.gateway.sessions.contains_key(id))?;
        let sent = got.iter().map(|at| {
            let line = lines.get(*at);
            let data = line.and_then(|line| line.data.clone()).unwrap_or_else(|| Arc::from(""));
            (line.map_or("", |line| line.event), data)
        });
        let sequence = record.sequence.checked_add(count)?;
        let of = (record.user, record.created_at);
        let session = Session::taken_over(now, of, record.ignored, sequence, sent)?;
        self.gateway.sessions.insert(id.clone(), session);
        self.gateway.by_user.entry(record.user).or_default().insert(id.clone());
        self.at(now.after(self.gateway.resume_window), Timer::Session(id));
        Some(())
    }

    fn take_connections(&mut self, now: UnixMillis, records: Records) -> usize {
        self.virtual_access.extend(records.virtual_access);
        for (channel, call) in records.calls {
            self.take_up_call(now, channel, call);
        }
        let (mut connected, mut expected) = (Vec::new(), Vec::new());
        for connection in records.connections {
            if !self.states.is_free(&connection.id) {
                continue;
            }
            connected.push(connection.id.clone());
            self.topology.connected(&connection.server);
            self.take_up_room(now, &connection);
            self.states.connect(connection);
        }
        for connection in records.pending {
            // One that is connected may be expected elsewhere.
            if self.states.pending(&connection.id).is_some() {
                continue;
            }
            expected.push(connection.id.clone());
            self.take_up_room(now, &connection);
            let expires = now.after(self.settings.pending_timeout);
            self.at(expires, Timer::Pending(connection.id.clone()));
            self.states.expect(Pending { connection, expires });
        }
        let count = connected.len();
        for room in self.states.rooms() {
            // It may have been sent elsewhere in the last moment.
            self.follow_pin(now, room);
        }
        self.reapply_to(now, connected, expected);
        count
    }

    fn take_up_room(&mut self, now: UnixMillis, connection: &Connection) {
        let room: RoomKey = connection.room;
        if self.pins.find(room).is_none() {
            self.pin(now, room, connection.server.clone());
            self.at(now, Timer::Reconcile(room));
        }
        self.pins.used(room);
    }

    /// Its client begins anew, and keeps the connections that it has.
    pub(super) fn forget_session(&mut self, id: &SessionId) {
        let Some(session) = self.drop_session(id) else { return };
        for connection in self.ids_of(session.user, |_| true) {
            let is_its = |connection: &Connection| connection.session.as_ref() == Some(id);
            if let Some(found) = self.states.find_mut(&connection).filter(|found| is_its(found)) {
                found.session = None;
            }
            if let Some(found) = self
                .states
                .pending_mut(&connection)
                .filter(|found| is_its(&found.connection))
            {
                found.connection.session = None;
            }
        }
    }
}
