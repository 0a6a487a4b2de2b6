//! The task of the pool of agent workers: it owns the `control::Workers`, reads the clock for it, and carries what it says
//! to workers' sockets and to rooms.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use super::registry::Registry;
use super::room_task::RoomInput;
use crate::control::{Signer, WorkerHandle, Workers, WorkersOutput};
use crate::proto::livekit::{Job, JobType, ServerMessage, WorkerMessage};
use crate::types::RoomHandle;

/// Inputs waiting for the pool. Rooms and workers' sockets that find it full wait; it waits for none of them.
const MAILBOX: usize = 4096;

/// Messages waiting for one worker, a job each. One with more outstanding has stopped reading, and is cut off.
const QUEUE: usize = 1024;

/// What the pool says to one worker, in order.
#[derive(Clone, Debug)]
pub enum ToWorker {
    Message(Box<ServerMessage>),
    /// Close the WebSocket; nothing follows.
    Close,
}

#[derive(Debug)]
pub(super) enum PoolInput {
    Connected {
        worker: WorkerHandle,
        signer: Signer,
        outbox: mpsc::Sender<ToWorker>,
    },
    Message(WorkerHandle, Box<WorkerMessage>),
    Disconnected(WorkerHandle),
    Launch(RoomHandle, Box<Job>),
    End(String),
    Restored(RoomHandle, Box<Job>),
    Withdraw(String),
    RoomOver(RoomHandle),
    Shutdown,
}

/// The way to the pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    inputs: mpsc::Sender<PoolInput>,
    registered: Arc<AtomicUsize>,
}

impl Pool {
    pub(super) fn start(workers: Workers, registry: Arc<Registry>) -> Self {
        let (inputs, inbox) = mpsc::channel(MAILBOX);
        let registered = Arc::<AtomicUsize>::default();
        let task = Task {
            workers,
            registry,
            outboxes: HashMap::new(),
            registered: Arc::clone(&registered),
        };
        tokio::spawn(task.run(inbox));
        Self { inputs, registered }
    }

    pub(super) async fn send(&self, input: PoolInput) {
        // It ends with the process only.
        let _ = self.inputs.send(input).await;
    }

    /// Without any worker only an agent that is asked for by name is worth the pool's while.
    pub(super) async fn launch(&self, room: RoomHandle, job: Box<Job>) {
        let may_wait = !job.agent_name.is_empty() && job.r#type() == JobType::JtRoom;
        if may_wait || self.registered.load(Ordering::Relaxed) > 0 {
            self.send(PoolInput::Launch(room, job)).await;
        }
    }

    pub(super) async fn connect(&self, worker: WorkerHandle, signer: Signer) -> WorkerConnection {
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let input = PoolInput::Connected { worker, signer, outbox };
        self.send(input).await;
        WorkerConnection {
            handle: worker,
            inbox,
            pool: self.inputs.clone(),
        }
    }
}

/// A worker's link to the pool. Dropping it tells the pool that the worker's socket is gone.
#[derive(Debug)]
pub struct WorkerConnection {
    handle: WorkerHandle,
    inbox: mpsc::Receiver<ToWorker>,
    pool: mpsc::Sender<PoolInput>,
}

impl WorkerConnection {
    /// The next thing to tell the worker. None: it does not read, or the server stops.
    pub async fn next(&mut self) -> Option<ToWorker> {
        self.inbox.recv().await
    }

    /// Passes on what the worker says; waits while the pool is behind.
    pub async fn message(&self, message: WorkerMessage) {
        let _ = self.pool.send(PoolInput::Message(self.handle, Box::new(message))).await;
    }
}

impl Drop for WorkerConnection {
    fn drop(&mut self) {
        let Err(mpsc::error::TrySendError::Full(input)) = self.pool.try_send(PoolInput::Disconnected(self.handle))
        else {
            return;
        };
        // The pool must hear of it even when it is behind.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let pool = self.pool.clone();
            runtime.spawn(async move {
                let _ = pool.send(input).await;
            });
        }
    }
}

struct Task {
    workers: Workers,
    registry: Arc<Registry>,
    outboxes: HashMap<WorkerHandle, mpsc::Sender<ToWorker>>,
    registered: Arc<AtomicUsize>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<PoolInput>) {
        loop {
            let due = self.workers.poll_timeout();
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                input = inbox.recv() => match input {
                    Some(input) => self.handle(Instant::now(), input),
                    None => return,
                },
                () = timeout => self.workers.handle_timeout(Instant::now()),
            }
            self.carry_out();
            self.registered.store(self.workers.registered(), Ordering::Relaxed);
        }
    }

    fn handle(&mut self, now: Instant, input: PoolInput) {
        match input {
            PoolInput::Connected { worker, signer, outbox } => {
                self.outboxes.insert(worker, outbox);
                self.workers.handle_connected(now, worker, signer);
            }
            PoolInput::Message(worker, message) => self.workers.handle_message(now, worker, *message),
            PoolInput::Disconnected(worker) => {
                self.outboxes.remove(&worker);
                self.workers.handle_disconnected(now, worker);
            }
            PoolInput::Launch(room, job) => self.workers.handle_launch(now, room, *job),
            PoolInput::End(job) => self.workers.handle_end(&job),
            PoolInput::Restored(room, job) => self.workers.handle_restored(now, room, *job),
            PoolInput::Withdraw(dispatch) => self.workers.handle_withdraw(&dispatch),
            PoolInput::RoomOver(room) => self.workers.handle_room_over(room),
            PoolInput::Shutdown => self.workers.handle_shutdown(),
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.workers.poll_output() {
            match output {
                WorkersOutput::Send { worker, message } => {
                    let Some(outbox) = self.outboxes.get(&worker) else {
                        continue;
                    };
                    if let Err(mpsc::error::TrySendError::Full(_)) = outbox.try_send(ToWorker::Message(message)) {
                        tracing::warn!(worker = worker.0, "a worker does not read its messages and is cut off");
                        self.outboxes.remove(&worker);
                        self.workers.handle_disconnected(Instant::now(), worker);
                    }
                }
                WorkersOutput::Close { worker } => {
                    if let Some(outbox) = self.outboxes.remove(&worker) {
                        // A full queue: dropping the outbox cuts the worker off, which is all a Close would do.
                        let _ = outbox.try_send(ToWorker::Close);
                    }
                }
                WorkersOutput::Assigned { room, job } => self.tell(room, RoomInput::JobAssigned(job)),
                WorkersOutput::Updated { room, job, state } => self.tell(room, RoomInput::JobUpdated { job, state }),
                WorkersOutput::Lost { room, job } => self.tell(room, RoomInput::JobLost(job)),
            }
        }
    }

    /// Never waits for a room, since rooms wait for the pool.
    fn tell(&self, room: RoomHandle, input: RoomInput) {
        let Some(mailbox) = self.registry.mailbox(room) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(input)) = mailbox.try_send(input) {
            tokio::spawn(async move {
                let _ = mailbox.send(input).await;
            });
        }
    }
}
