//! The voice system of this node: the task that owns the domain, and what it reaches by it.
//!
//! `task` reads the clock, keeps what is to be kept and hands effects on; `lanes` carries out what is asked of rooms, here
//! or on other servers; `users` finds out who an end user is. Driven by `api` (requests, sockets, webhooks) and by rooms'
//! tasks (what happens in them). Decides nothing that the domain decides.

mod https;
mod lanes;
mod sharing;
mod statistics;
mod task;
mod tokens;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot, watch};

use super::room_task::Happening;
use crate::control::RoomEvent;
use crate::voice::{Frame, RoomKey, Seen, ServerKey, SocketId, UnixMillis, Voice};
pub use https::{Https, Passed, Url, UrlError};
pub use lanes::participants;
pub use statistics::{Told, VoiceCounts, VoiceStatistics};
pub use task::{PreparedInbox, StartError, VoiceConfig, VoiceTask};
pub use tokens::nonce_of;
pub use users::{UserTokens, Who};

/// Inputs waiting for the domain. Requests wait when it is full; room events are lost then, and the next look at the room
/// finds what they would have told.
const MAILBOX: usize = 8192;

/// Frames waiting for one client: a burst of everybody in a large channel coming at once. One that leaves more unread is
/// cut off, and may resume.
const SOCKET_QUEUE: usize = 256;

type Question = Box<dyn FnOnce(&mut Voice, UnixMillis) + Send>;

enum Input {
    Question(Question),
    SocketOpened {
        socket: SocketId,
        version: Option<String>,
        outbox: mpsc::Sender<ToSocket>,
    },
    Frame {
        socket: SocketId,
        text: String,
    },
    Undecodable(SocketId),
    SocketClosed(SocketId),
    Authenticated {
        socket: SocketId,
        who: Who,
    },
    /// In a room of this node.
    Happened(Box<Happening>),
    Participants {
        server: ServerKey,
        room: String,
        seen: Vec<Seen>,
    },
    Health {
        server: ServerKey,
        down: bool,
    },
    /// To be answered when all that is to be kept is written, or cannot be.
    Kept(oneshot::Sender<bool>),
    Stop(oneshot::Sender<()>),
}

/// What a gateway client is to be told.
#[derive(Clone, Debug)]
pub enum ToSocket {
    Frame(Frame),
    Close { code: u16, reason: &'static str },
}

/// Which process the voice system runs in, of those that serve its API.
#[derive(Clone, Debug)]
pub enum Place {
    Here(VoiceLink),
    /// In that of the node with this URL.
    There(Url),
    /// In none for now.
    Nowhere,
}

/// Where the voice system is, at any moment.
pub type PlaceWatch = watch::Receiver<Place>;

/// The voice system is not running any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the voice system has ended")]
pub struct VoiceGone;

/// The way to the domain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct VoiceLink {
    mailbox: mpsc::Sender<Input>,
    sockets: Arc<AtomicU64>,
    /// Room events that found the mailbox full, since start.
    lost_events: Arc<AtomicU64>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

/// One client's end of its queue. Dropping it says that the socket is closed.
#[derive(Debug)]
pub struct VoiceSocket {
    id: SocketId,
    mailbox: mpsc::Sender<Input>,
    inbox: mpsc::Receiver<ToSocket>,
}

impl VoiceLink {
    /// A link, and the inputs that come through it.
    fn new() -> (Self, mpsc::Receiver<Input>) {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let link = Self {
            mailbox,
            sockets: Arc::default(),
            lost_events: Arc::default(),
        };
        (link, inbox)
    }

    /// Asks the domain, or changes it, between its other inputs.
    ///
    /// # Errors
    /// The system has ended.
    pub async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Voice, UnixMillis) -> R + Send + 'static,
    ) -> Result<R, VoiceGone> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |voice, now| {
            // Whoever asked may have given up.
            let _ = answer.send(question(voice, now));
        });
        self.mailbox
            .send(Input::Question(question))
            .await
            .map_err(|_| VoiceGone)?;
        answered.await.map_err(|_| VoiceGone)
    }

    /// Waits until what has been asked for before is written down; false: it cannot be for now.
    ///
    /// # Errors
    /// The system has ended.
    pub async fn kept(&self) -> Result<bool, VoiceGone> {
        let (answer, answered) = oneshot::channel();
        self.mailbox.send(Input::Kept(answer)).await.map_err(|_| VoiceGone)?;
        answered.await.map_err(|_| VoiceGone)
    }

    /// A gateway client, with the version of the protocol that it asks for.
    ///
    /// # Errors
    /// The system has ended.
    pub async fn open_socket(&self, version: Option<String>) -> Result<VoiceSocket, VoiceGone> {
        let id = SocketId(self.sockets.fetch_add(1, Ordering::Relaxed));
        let (outbox, inbox) = mpsc::channel(SOCKET_QUEUE);
        let opened = Input::SocketOpened {
            socket: id,
            version,
            outbox,
        };
        self.mailbox.send(opened).await.map_err(|_| VoiceGone)?;
        Ok(VoiceSocket {
            id,
            mailbox: self.mailbox.clone(),
            inbox,
        })
    }

    /// Whether the domain is to hear of something that happens in a room of this node.
    pub(super) fn wants(room: &str, event: &RoomEvent) -> bool {
        let tells = matches!(
            event,
            RoomEvent::ParticipantJoined { .. }
                | RoomEvent::ParticipantLeft { .. }
                | RoomEvent::ParticipantConnectionAborted { .. }
                | RoomEvent::RoomFinished
        );
        tells && RoomKey::parse(room).is_some()
    }

    /// Never waits: rooms must not depend on this.
    pub(super) fn happened(&self, happening: Happening) {
        if self.mailbox.try_send(Input::Happened(Box::new(happening))).is_err() {
            self.lost_events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Clients are asked to come again, and what is to be kept is written down.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.mailbox.send(Input::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

impl VoiceSocket {
    /// None: it is cut off.
    pub async fn next(&mut self) -> Option<ToSocket> {
        self.inbox.recv().await
    }

    /// What waits already.
    pub fn try_next(&mut self) -> Option<ToSocket> {
        self.inbox.try_recv().ok()
    }

    /// # Errors
    /// The system has ended.
    pub async fn frame(&self, text: String) -> Result<(), VoiceGone> {
        let frame = Input::Frame { socket: self.id, text };
        self.mailbox.send(frame).await.map_err(|_| VoiceGone)
    }

    /// A frame that is not text.
    ///
    /// # Errors
    /// The system has ended.
    pub async fn undecodable(&self) -> Result<(), VoiceGone> {
        self.mailbox
            .send(Input::Undecodable(self.id))
            .await
            .map_err(|_| VoiceGone)
    }
}

impl Drop for VoiceSocket {
    fn drop(&mut self) {
        let closed = Input::SocketClosed(self.id);
        if let Err(mpsc::error::TrySendError::Full(closed)) = self.mailbox.try_send(closed) {
            // A session must not wait for a socket that is gone.
            let mailbox = self.mailbox.clone();
            tokio::spawn(async move {
                let _ = mailbox.send(closed).await;
            });
        }
    }
}
