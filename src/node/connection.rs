//! The two ends of one client's signalling: the room's task writes into an [`Outbox`], the WebSocket reads from a
//! [`Connection`] and sends requests through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::room_task::{Mailbox, RoomGone, RoomInput};
use crate::control::ConnectionHandle;
use crate::proto::livekit::{SignalRequest, SignalResponse};

/// Messages waiting for one client. Joining a room of a thousand tracks brings one or two messages per track at once;
/// a client with more than this outstanding has stopped reading, and is cut off.
const QUEUE_MESSAGES: usize = 4096;

/// Bytes (protobuf-encoded) waiting for one client; bounds what a client that stops reading can hold. One ParticipantUpdate
/// is at most 128 KiB, the JoinResponse of a large room a few megabytes. A message is let in while the queue is below.
const QUEUE_BYTES: usize = 8 << 20;

/// What the room says to one client, in order.
#[derive(Clone, Debug)]
pub enum ToClient {
    Message(Box<SignalResponse>),
    /// Close the WebSocket with 1000; nothing follows.
    Close,
}

#[derive(Debug)]
struct Queued {
    bytes: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    ToClient(ToClient),
    /// What the client asks from now on is for this room.
    Moved(Mailbox),
}

/// The queue of this client is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overflow;

/// The room's end. Dropping it without a `Close` cuts the client off.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Queued>,
    waiting: Arc<AtomicUsize>,
}

impl Outbox {
    pub(super) fn send(&self, what: ToClient) -> Result<(), Overflow> {
        let bytes = match &what {
            ToClient::Message(message) => message.encoded_len(),
            ToClient::Close => 0,
        };
        self.push(bytes, What::ToClient(what))
    }

    /// The client is in another room from here on.
    pub(super) fn moved(&self, room: Mailbox) -> Result<(), Overflow> {
        self.push(0, What::Moved(room))
    }

    fn push(&self, bytes: usize, what: What) -> Result<(), Overflow> {
        if self.waiting.load(Ordering::Relaxed) > QUEUE_BYTES {
            return Err(Overflow);
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        match self.queue.try_send(Queued { bytes, what }) {
            // A closed queue: the WebSocket has ended, and its own report of that is on the way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Overflow),
        }
    }
}

/// The reading end of a queue that has no room yet.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Queued>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
    let waiting = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox {
        queue: sender,
        waiting: Arc::clone(&waiting),
    };
    (
        outbox,
        Inbox {
            queue: receiver,
            waiting,
        },
    )
}

/// Counts one connection in its shard's load for as long as it lives.
#[derive(Debug)]
pub(super) struct LoadShare(Arc<AtomicUsize>);

impl LoadShare {
    pub(super) fn new(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for LoadShare {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client's link to its room. Dropping it tells the room that the client's socket is gone.
#[derive(Debug)]
pub struct Connection {
    handle: ConnectionHandle,
    inbox: Inbox,
    room: Mailbox,
    /// The room it was in before, which may still have requests of this client to pass on.
    before: Option<Mailbox>,
    load: Option<LoadShare>,
}

impl Connection {
    pub(super) fn new(handle: ConnectionHandle, inbox: Inbox, room: Mailbox) -> Self {
        Self {
            handle,
            inbox,
            room,
            before: None,
            load: None,
        }
    }

    /// It is known which shard serves it.
    pub(super) fn occupy(&mut self, load: LoadShare) {
        self.load = Some(load);
    }

    /// The next thing to tell the client. None: the room is gone, or has cut off a client that does not read.
    pub async fn next(&mut self) -> Option<ToClient> {
        loop {
            let queued = self.inbox.queue.recv().await?;
            if let Some(what) = self.taken(queued) {
                return Some(what);
            }
        }
    }

    /// The next thing to tell the client, if it is there already.
    pub fn try_next(&mut self) -> Option<ToClient> {
        loop {
            let queued = self.inbox.queue.try_recv().ok()?;
            if let Some(what) = self.taken(queued) {
                return Some(what);
            }
        }
    }

    fn taken(&mut self, Queued { bytes, what }: Queued) -> Option<ToClient> {
        self.inbox.waiting.fetch_sub(bytes, Ordering::Relaxed);
        match what {
            What::ToClient(what) => Some(what),
            What::Moved(room) => {
                let before = std::mem::replace(&mut self.room, room);
                // Of two moves in a row the earlier room has nothing left: it passes on to the later one, or has ended.
                self.before.get_or_insert(before);
                None
            }
        }
    }

    /// Passes on what the client asks; waits while the room is behind, so that the client's socket is not read meanwhile.
    ///
    /// # Errors
    /// When the room has ended.
    pub async fn request(&mut self, request: SignalRequest) -> Result<(), RoomGone> {
        let connection = self.handle;
        if let Some(before) = self.before.take() {
            // Nothing may overtake what is still on its way through the room before.
            let (done, passed_on) = oneshot::channel();
            if before.send(RoomInput::Handover { connection, done }).await.is_ok() {
                let _ = passed_on.await;
            }
        }
        self.room
            .send(RoomInput::Request {
                connection,
                request: Box::new(request),
            })
            .await
            .map_err(|_| RoomGone)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // One that is full forgets it when it ends.
            let _ = before.try_send(RoomInput::ConnectionClosed(self.handle));
        }
        let Err(mpsc::error::TrySendError::Full(input)) = self.room.try_send(RoomInput::ConnectionClosed(self.handle))
        else {
            return;
        };
        // The room must hear of it even when it is behind.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let room = self.room.clone();
            runtime.spawn(async move {
                let _ = room.send(input).await;
            });
        }
    }
}
