//! What must outlive the process is written down here before whoever asked for it hears that it is done: rooms as they
//! are now, and what happened in them as letters to webhooks.
//!
//! Fed by the tasks of rooms in the order in which things happen in each; writes what has come together meanwhile in one
//! transaction. Never decides what is worth keeping, and knows of letters only how many there are.

use std::fmt;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::driver::Node;
use super::room_task::Happening;
use crate::store::{NewLetter, RoomChange, SharedDatabase, Waiting};

/// Entries of all rooms that wait to be written down; a room that finds it full waits.
pub const JOURNAL: usize = 4096;

/// Entries of one transaction.
const BATCH: usize = 256;

/// What was asked for has happened, but would not outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server cannot write its state")]
pub struct NotWritten;

/// Told that what it waits for is written, or is not.
pub(super) type Reply = Box<dyn FnOnce(Result<(), NotWritten>) + Send>;

/// From one room, at one moment.
#[derive(Default)]
pub struct Entry {
    pub(super) room: Option<RoomChange>,
    pub(super) happened: Vec<Happening>,
    pub(super) replies: Vec<Reply>,
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        self.room.is_none() && self.happened.is_empty() && self.replies.is_empty()
    }

    pub(super) fn reply(self, outcome: Result<(), NotWritten>) {
        for reply in self.replies {
            reply(outcome);
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("room", &self.room)
            .field("happened", &self.happened)
            .finish_non_exhaustive()
    }
}

/// Makes letters of what happens, and hears which were written.
pub struct Letterbox {
    pub compose: Box<dyn FnMut(Happening) -> Vec<NewLetter> + Send>,
    pub written: mpsc::Sender<Vec<Waiting>>,
    /// How many were not, because the database failed.
    pub lost: Box<dyn FnMut(u64) + Send>,
}

impl fmt::Debug for Letterbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letterbox").finish_non_exhaustive()
    }
}

/// The running journal.
#[derive(Debug)]
pub struct Journal {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Journal {
    /// Without a letterbox what happens is not kept.
    pub fn start(
        node: Node,
        entries: mpsc::Receiver<Entry>,
        database: SharedDatabase,
        letterbox: Option<Letterbox>,
    ) -> Self {
        let writer = Writer {
            node,
            database,
            letterbox,
        };
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(writer.run(entries, stopped)),
        }
    }

    /// Writes down what has come until now. The letterbox is closed then.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the journal has ended early");
        }
    }
}

struct Writer {
    node: Node,
    database: SharedDatabase,
    letterbox: Option<Letterbox>,
}

impl Writer {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                count = entries.recv_many(&mut batch, BATCH) => if count == 0 {
                    return;
                },
                _ = &mut stopped => break,
            }
            self.write(&mut batch).await;
        }
        while let Ok(entry) = entries.try_recv() {
            batch.push(entry);
        }
        self.write(&mut batch).await;
    }

    async fn write(&mut self, batch: &mut Vec<Entry>) {
        let mut rooms = Vec::new();
        let mut letters = Vec::new();
        let mut replies = Vec::new();
        for entry in batch.drain(..) {
            rooms.extend(entry.room);
            if let Some(letterbox) = &mut self.letterbox {
                letters.extend(
                    entry
                        .happened
                        .into_iter()
                        .flat_map(|happening| (letterbox.compose)(happening)),
                );
            }
            replies.extend(entry.replies);
        }
        let outcome = match rooms.is_empty() && letters.is_empty() {
            true => Ok(()),
            false => self.commit(rooms, letters).await,
        };
        for reply in replies {
            reply(outcome);
        }
    }

    async fn commit(&mut self, rooms: Vec<RoomChange>, letters: Vec<NewLetter>) -> Result<(), NotWritten> {
        let now_ms = u64::try_from(self.node.unix().as_millis()).unwrap_or(u64::MAX);
        let count = letters.len() as u64;
        let written = self
            .database
            .call(move |database| {
                let ids = database.write(&rooms, &letters, now_ms)?;
                let waiting = letters.into_iter().zip(ids).map(|(letter, id)| Waiting {
                    id,
                    url: letter.url,
                    lane: letter.lane,
                    created_ms: now_ms,
                    attempts: 0,
                    due_ms: now_ms,
                });
                Ok::<Vec<Waiting>, crate::store::StoreError>(waiting.collect())
            })
            .await;
        match (written, &mut self.letterbox) {
            (Ok(letters), Some(letterbox)) if !letters.is_empty() => {
                // Its end is that of the whole server.
                let _ = letterbox.written.send(letters).await;
                Ok(())
            }
            (Ok(_), _) => Ok(()),
            (Err(error), letterbox) => {
                tracing::error!(%error, letters = count, "the database cannot be written: rooms and webhooks are lost");
                if let Some(letterbox) = letterbox {
                    (letterbox.lost)(count);
                }
                Err(NotWritten)
            }
        }
    }
}
