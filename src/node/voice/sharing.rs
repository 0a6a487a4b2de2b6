//! Sessions for other nodes to go on with: batches of the domain stored one after the other, and frames that wait for them.
//!
//! A frame goes to its client when everything that led to it is stored, so that whichever node goes on knows whatever a
//! client has seen. While nothing can be stored frames go at once, and no other node goes on with what they said.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::ToSocket;
use super::statistics::VoiceStatistics;
use crate::store::{SharedSessions, StoreError};
use crate::voice::{SessionBatch, SocketId, UnixMillis, Voice};

/// How long frames wait for a batch; then it counts as not stored. Redis answers within a millisecond or two.
const LIMIT: Duration = Duration::from_millis(500);
/// The same of a batch with everything in it, for which no frame waits.
const WHOLE_LIMIT: Duration = Duration::from_secs(5);
/// Between two tries to store everything anew.
const RETRY: Duration = Duration::from_secs(1);
/// What is stored is renewed at least this often; without it it runs out after ten seconds.
const RENEWAL: Duration = Duration::from_secs(1);

type Waiting = Vec<(SocketId, ToSocket)>;

/// What became of a batch; None: none was under way, and it is time for the next.
pub(super) type Stored = Option<Outcome>;
type Outcome = (Box<SharedSessions>, Result<(), StoreError>);

pub(super) struct Sharing {
    /// None: a batch is being stored.
    sessions: Option<Box<SharedSessions>>,
    returned: mpsc::Receiver<Outcome>,
    returns: mpsc::Sender<Outcome>,
    /// All that happened until the batch under way is stored: frames may wait for the next.
    follows: bool,
    /// What cannot be stored was said.
    complained: bool,
    /// Frames that the batch under way tells of, and those after it; as many as were made within `LIMIT`.
    covered: Waiting,
    held: Waiting,
    /// The next batch is due, even an empty one; not before when there is nothing stored.
    due: Instant,
    statistics: Arc<VoiceStatistics>,
}

impl Sharing {
    /// Takes up what another node has left.
    pub async fn start(
        mut sessions: Box<SharedSessions>,
        voice: &mut Voice,
        now: UnixMillis,
        statistics: Arc<VoiceStatistics>,
    ) -> Self {
        let mut complained = false;
        match sessions.load().await {
            Ok(stored) => {
                let taken = voice.take_over(now, stored);
                if taken.unreadable > 0 {
                    let unreadable = taken.unreadable;
                    tracing::warn!(unreadable, "stored sessions cannot be read and are left out");
                }
                let (sessions, connections) = (taken.sessions, taken.connections);
                if sessions + connections > 0 {
                    tracing::info!(sessions, connections, "sessions of another node go on here");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "stored sessions cannot be read: clients begin anew");
                complained = true;
            }
        }
        voice.share_sessions();
        let (returns, returned) = mpsc::channel(1);
        Self {
            sessions: Some(sessions),
            returned,
            returns,
            follows: false,
            complained,
            covered: Vec::new(),
            held: Vec::new(),
            due: Instant::now(),
            statistics,
        }
    }

    pub fn holds(&self) -> bool {
        self.follows
    }

    pub fn hold(&mut self, socket: SocketId, what: ToSocket) {
        self.held.push((socket, what));
    }

    pub fn is_storing(&self) -> bool {
        self.sessions.is_none()
    }

    /// Starts the next batch where none is under way; what need not wait.
    pub fn store(&mut self, voice: &mut Voice) -> Waiting {
        let is_due = Instant::now() >= self.due;
        if !self.follows && !is_due {
            return Vec::new();
        }
        let Some(mut sessions) = self.sessions.take() else {
            return Vec::new();
        };
        let batch = voice.take_session_batch();
        let Some(batch) = batch.or_else(|| is_due.then(SessionBatch::default)) else {
            self.sessions = Some(sessions);
            return std::mem::take(&mut self.held);
        };
        if batch.whole {
            // Too much came together: what has been told is not all in it.
            self.follows = false;
        }
        let free = match self.follows {
            true => {
                self.covered = std::mem::take(&mut self.held);
                Vec::new()
            }
            false => std::mem::take(&mut self.held),
        };
        let returns = self.returns.clone();
        tokio::spawn(async move {
            let limit = if batch.whole { WHOLE_LIMIT } else { LIMIT };
            let outcome = timeout(limit, sessions.write(&batch)).await;
            let _ = returns.send((sessions, outcome.unwrap_or(Err(StoreError::Late)))).await;
        });
        free
    }

    /// Waits for the batch under way, or until the next is due.
    pub async fn outcome(sharing: &mut Option<Self>) -> Stored {
        let Some(sharing) = sharing else {
            return std::future::pending().await;
        };
        if sharing.is_storing() {
            return match sharing.returned.recv().await {
                Some(outcome) => Some(outcome),
                // We hold a sender ourselves.
                None => std::future::pending().await,
            };
        }
        sleep_until(sharing.due).await;
        None
    }

    /// Frames that have waited for it.
    pub fn stored(&mut self, voice: &mut Voice, outcome: Stored) -> Waiting {
        let Some((sessions, outcome)) = outcome else {
            return Vec::new();
        };
        self.sessions = Some(sessions);
        let mut free = std::mem::take(&mut self.covered);
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.complained) {
                    tracing::info!("sessions are stored for other nodes again");
                }
                self.follows = true;
                self.due = Instant::now() + RENEWAL;
            }
            Err(error) => {
                voice.session_batch_lost();
                self.statistics.unshared();
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(%error, "sessions cannot be stored: no other node goes on with them");
                }
                self.follows = false;
                self.due = Instant::now() + RETRY;
                free.append(&mut self.held);
            }
        }
        free
    }
}
