//! What another process needs to go on with the sessions of this one: what they were told, and what it was about.
//!
//! Whoever drives the domain takes a batch, stores it, and lets the frames that were made before it out only then. So
//! nobody has seen what is not stored, and what is stored is one moment of the whole: sessions, connections and calls.
//! A dispatch is kept once, with the numbers of the sessions that got it; a session is kept with its place in that list.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;

use super::kept::{self, ConnectionRecord, FORM, LAST, SessionRecord, VERSION};
use super::session::Session;
use crate::voice::domain::Voice;
use crate::voice::ids::{ChannelId, ConnectionId, SessionId, UserId};

/// Dispatches that are kept for those who come back: of an installation with 800 a second those of 10 s. Older ones go.
const MAX_LOG: usize = 8192;
/// Bytes of them.
const MAX_LOG_BYTES: usize = 16 << 20;
/// While so much is added to the list, every session's place in it is written anew, so that no place is forgotten.
const ROUND: usize = MAX_LOG / 4;
const ROUND_BYTES: usize = MAX_LOG_BYTES / 4;
/// Dispatches between two batches. With more of them everything is written anew, and who missed some begins anew.
const MAX_TOLD: usize = MAX_LOG / 4;

/// What is to be stored in one step, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionBatch {
    /// In place of everything that is stored, in several steps if need be: the last record says that all are there.
    pub whole: bool,
    pub put: Vec<(String, String)>,
    pub removed: Vec<String>,
    /// To come after those that are stored.
    pub dispatches: Vec<String>,
    /// So many of the dispatches stay, the newest.
    pub keep: usize,
}

/// What was stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSessions {
    pub records: Vec<(String, String)>,
    /// Oldest first.
    pub dispatches: Vec<String>,
}

#[derive(Clone, Debug)]
struct Told {
    event: &'static str,
    data: Arc<str>,
    sessions: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// What is stored is not known: the next batch is all there is.
    whole: bool,
    /// Since the last batch.
    told: Vec<Told>,
    /// Of sessions that have begun or ended.
    changed: BTreeSet<u64>,
    numbers: BTreeMap<u64, SessionId>,
    next_number: u64,
    /// Number of the last dispatch in the list.
    index: u64,
    /// Bytes of each dispatch in the list.
    log: VecDeque<usize>,
    log_bytes: usize,
    /// The session whose place was written last.
    cursor: u64,
}

impl Journal {
    pub fn begun(&mut self, id: &SessionId) -> u64 {
        self.next_number += 1;
        self.numbers.insert(self.next_number, id.clone());
        self.changed.insert(self.next_number);
        self.next_number
    }

    pub fn ended(&mut self, number: u64) {
        self.numbers.remove(&number);
        self.changed.insert(number);
    }

    pub fn told(&mut self, number: u64, event: &'static str, data: &Arc<str>) {
        if self.whole {
            return;
        }
        if let Some(last) = self.told.last_mut()
            && last.event == event
            && Arc::ptr_eq(&last.data, data)
        {
            return last.sessions.push(number);
        }
        if self.told.len() >= MAX_TOLD {
            return self.forget();
        }
        self.told.push(Told {
            event,
            data: Arc::clone(data),
            sessions: vec![number],
        });
    }

    fn forget(&mut self) {
        self.whole = true;
        self.told = Vec::new();
    }

    fn is_idle(&self) -> bool {
        !self.whole && self.told.is_empty() && self.changed.is_empty()
    }

    /// As many lines as were told, and those that fall out of the list.
    fn lines(&mut self) -> (Vec<String>, usize) {
        let mut lines = Vec::with_capacity(self.told.len());
        for told in std::mem::take(&mut self.told) {
            let mut sessions = told.sessions;
            // One that got the same twice in a row has a second line.
            while !sessions.is_empty() {
                let mut again = Vec::new();
                sessions.sort_unstable();
                sessions.dedup_by(|a, b| {
                    let same = a == b;
                    if same {
                        again.push(*a);
                    }
                    same
                });
                kept::lines(&mut self.index, told.event, &sessions, &told.data, &mut lines);
                sessions = again;
            }
        }
        let added = lines.iter().map(String::len).sum();
        self.log.extend(lines.iter().map(String::len));
        self.log_bytes += added;
        while self.log.len() > MAX_LOG || self.log_bytes > MAX_LOG_BYTES {
            let Some(oldest) = self.log.pop_front() else { break };
            self.log_bytes -= oldest;
        }
        (lines, added)
    }

    /// The sessions whose turn it is to have their place written, after `lines` more of so many bytes.
    fn due(&mut self, lines: usize, bytes: usize) {
        if lines == 0 {
            return;
        }
        let sessions = self.numbers.len();
        let count = (sessions * lines / ROUND + sessions * bytes / ROUND_BYTES + 1).min(sessions);
        let behind = (Bound::Excluded(self.cursor), Bound::Unbounded);
        let round = self.numbers.range(behind).chain(self.numbers.range(..=self.cursor));
        let due: Vec<u64> = round.take(count).map(|(number, _)| *number).collect();
        self.cursor = due.last().copied().unwrap_or_default();
        self.changed.extend(due);
    }
}

/// Names and numbers: this cannot fail.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn virtual_name(user: UserId, channel: ChannelId) -> String {
    format!("v:{user}:{channel}")
}

impl Voice {
    /// From now on `take_session_batch` says what another process needs to go on with the sessions.
    pub fn share_sessions(&mut self) {
        let mut journal = Journal {
            whole: true,
            ..Journal::default()
        };
        for (id, session) in &mut self.gateway.sessions {
            session.number = journal.begun(id);
        }
        self.gateway.journal = Some(journal);
        self.states.changed.begin();
        self.calls.changed.begin();
        self.virtual_changed.begin();
    }

    /// A batch that was taken is not stored, or may not be.
    pub fn session_batch_lost(&mut self) {
        if let Some(journal) = &mut self.gateway.journal {
            journal.forget();
        }
    }

    /// What has come together since the last one; None: nothing. Everything that was emitted before is told by it.
    pub fn take_session_batch(&mut self) -> Option<SessionBatch> {
        let journal = self.gateway.journal.as_mut()?;
        let (connections, calls) = (self.states.changed.take(), self.calls.changed.take());
        let virtual_access = self.virtual_changed.take();
        if journal.whole {
            return Some(self.everything());
        }
        if journal.is_idle() && connections.is_empty() && calls.is_empty() && virtual_access.is_empty() {
            return None;
        }
        let (dispatches, bytes) = journal.lines();
        journal.due(dispatches.len(), bytes);
        let (index, keep) = (journal.index, journal.log.len());
        let sessions: Vec<(u64, Option<SessionId>)> = std::mem::take(&mut journal.changed)
            .into_iter()
            .map(|number| (number, journal.numbers.get(&number).cloned()))
            .collect();
        let mut batch = SessionBatch {
            dispatches,
            keep,
            ..SessionBatch::default()
        };
        batch.put.push((LAST.to_owned(), index.to_string()));
        let mut note = |name: String, body: Option<String>| match body {
            Some(body) => batch.put.push((name, body)),
            None => batch.removed.push(name),
        };
        for (number, id) in sessions {
            let session = id.and_then(|id| Some((self.gateway.sessions.get(&id)?, id)));
            note(
                format!("s:{number}"),
                session.map(|(session, id)| session_text(index, &id, session)),
            );
        }
        for id in connections {
            note(format!("c:{id}"), self.connected_text(&id));
            note(format!("p:{id}"), self.expected_text(&id));
        }
        for channel in calls {
            note(format!("r:{channel}"), self.calls.find(channel).map(text));
        }
        for (user, channel) in virtual_access {
            let held = self.virtual_access.contains(&(user, channel));
            note(virtual_name(user, channel), held.then(|| "1".to_owned()));
        }
        Some(batch)
    }

    fn everything(&mut self) -> SessionBatch {
        let mut index = 0;
        if let Some(journal) = &mut self.gateway.journal {
            journal.whole = false;
            journal.changed.clear();
            (journal.log, journal.log_bytes) = (VecDeque::new(), 0);
            index = journal.index;
        }
        let mut put = vec![(LAST.to_owned(), index.to_string())];
        for (id, session) in &self.gateway.sessions {
            put.push((format!("s:{}", session.number), session_text(index, id, session)));
        }
        for connection in self.states.all() {
            put.push((format!("c:{}", connection.id), text(&ConnectionRecord::of(connection))));
        }
        for connection in self.states.all_pending() {
            put.push((format!("p:{}", connection.id), text(&ConnectionRecord::of(connection))));
        }
        for (channel, call) in self.calls.iter() {
            put.push((format!("r:{channel}"), text(call)));
        }
        for (user, channel) in &self.virtual_access {
            put.push((virtual_name(*user, *channel), "1".to_owned()));
        }
        put.push((VERSION.to_owned(), FORM.to_owned()));
        SessionBatch {
            whole: true,
            put,
            ..SessionBatch::default()
        }
    }

    fn connected_text(&self, id: &ConnectionId) -> Option<String> {
        let connection = self.states.find(id)?;
        Some(text(&ConnectionRecord::of(connection)))
    }

    fn expected_text(&self, id: &ConnectionId) -> Option<String> {
        let pending = self.states.pending(id)?;
        Some(text(&ConnectionRecord::of(&pending.connection)))
    }
}

fn session_text(index: u64, id: &SessionId, session: &Session) -> String {
    text(&SessionRecord {
        id: id.0.clone(),
        user: session.user,
        ignored: session.ignored.clone(),
        created_at: session.created_at,
        index,
        sequence: session.sequence,
    })
}
