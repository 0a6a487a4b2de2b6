//! The task of one room: it owns the `control::Room`, reads the clock for it, and does what it asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::connection::{Outbox, ToClient};
use super::counts::Tally;
use super::journal::{Entry, Reply};
use super::placement::{self, Seat, Shard};
use super::registry::Registry;
use super::relay::Guests;
use super::workers::{Pool, PoolInput};
use crate::control::{
    AdministrationError, ConnectionHandle, Join, JoinError, Output, Room, RoomEvent, RoomExplanation,
};
use crate::media::edge::{Command, Event, Span};
use crate::proto::livekit::{Job, JobState, PerformRpcRequest, RpcError, SignalRequest};
use crate::store::RoomChange;
use crate::types::{Identity, RoomHandle, RoomName, ShardIndex};

/// Inputs waiting for one room. Whoever finds it full waits: a client's socket is not read meanwhile, and a shard's
/// coalescable events are dropped.
pub(super) const MAILBOX: usize = 1024;

/// Inputs handled before the room's outputs are carried out.
const INPUTS_PER_TURN: usize = 64;

pub(super) type Mailbox = mpsc::Sender<RoomInput>;

/// Looks at the room, or changes it, between its other inputs; sends its answer itself.
pub(super) type Question = Box<dyn FnOnce(&mut Room, Instant) + Send>;

/// Changes the room; what it returns is called when that is written down.
pub(super) type Change = Box<dyn FnOnce(&mut Room, Instant) -> Reply + Send>;

/// The payload of the response, the error of the call, or why there was none.
pub(super) type RpcOutcome = Result<Result<String, Box<RpcError>>, AdministrationError>;

pub(super) enum RoomInput {
    Join {
        join: Box<Join>,
        /// Where its media is served, unless it has been let in before.
        shard: ShardIndex,
        outbox: Outbox,
        /// Where it is.
        answer: oneshot::Sender<Result<ShardIndex, JoinError>>,
    },
    Request {
        connection: ConnectionHandle,
        request: Box<SignalRequest>,
    },
    ConnectionClosed(ConnectionHandle),
    Event(ShardIndex, Event),
    Question(Question),
    Change(Change),
    PerformRpc {
        request: Box<PerformRpcRequest>,
        answer: oneshot::Sender<RpcOutcome>,
    },
    /// About one participant, or everybody. Not answered when too many are asked for at a time, or the room ends.
    Explain {
        identity: Option<Identity>,
        answer: Explained,
    },
    /// What became of a job that the room asked for.
    JobAssigned(Box<Job>),
    JobUpdated {
        job: String,
        state: Box<JobState>,
    },
    /// Everybody is told, then the room ends.
    Shutdown,
}

/// Explanations under way in one room: its shard answers within milliseconds, so that more waiting means that somebody
/// asks faster than anybody reads. Further ones are not answered.
const MAX_EXPLANATIONS: usize = 16;

pub(super) type Explained = oneshot::Sender<Result<Box<RoomExplanation>, AdministrationError>>;

/// For webhooks: something that happened in a room, and the room as it was then.
#[derive(Clone, Debug)]
pub struct Happening {
    pub room: crate::proto::livekit::Room,
    pub event: RoomEvent,
}

/// Whom a room's task tells of what happens in it, beside its clients.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) tally: Tally,
    pub(super) journal: Option<mpsc::Sender<Entry>>,
    pub(super) durable: bool,
    pub(super) guests: Guests,
    pub(super) pool: Pool,
}

/// The room has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room has ended")]
pub struct RoomGone;

struct RoomTask {
    room: Room,
    name: RoomName,
    handle: RoomHandle,
    inbox: mpsc::Receiver<RoomInput>,
    shards: Arc<[Shard]>,
    seat: Seat,
    span: Span,
    outboxes: HashMap<ConnectionHandle, Outbox>,
    /// As many as the room has calls under way.
    calls: HashMap<String, oneshot::Sender<RpcOutcome>>,
    /// By number, oldest first; at most `MAX_EXPLANATIONS`.
    explanations: BTreeMap<u64, Explained>,
    /// What has happened since the last entry of the journal, and who waits for the next.
    entry: Entry,
    telling: Telling,
}

/// Runs the room until it is over, then forgets it. A panic in it ends this room only: its connections are cut, its
/// media is dropped, and the next join makes a new one.
pub(super) async fn run(
    room: Room,
    name: RoomName,
    handle: RoomHandle,
    inbox: mpsc::Receiver<RoomInput>,
    (seat, shards): (Seat, Arc<[Shard]>),
    registry: Arc<Registry>,
    telling: Telling,
) {
    let pool = telling.pool.clone();
    let task = RoomTask {
        room,
        name: name.clone(),
        handle,
        inbox,
        shards: Arc::clone(&shards),
        span: Span::new(seat.home),
        seat,
        outboxes: HashMap::new(),
        calls: HashMap::new(),
        explanations: BTreeMap::new(),
        entry: Entry::default(),
        telling,
    };
    if let Err(panic) = tokio::spawn(task.run()).await {
        tracing::error!(room = %name, %panic, "a room has panicked and is gone");
        for shard in shards.iter() {
            let _ = shard.handle.send(Command::CloseRoom { room: handle }).await;
        }
    }
    registry.remove(&name, handle);
    pool.send(PoolInput::RoomOver(handle)).await;
}

impl RoomTask {
    async fn run(mut self) {
        let mut inputs = Vec::with_capacity(INPUTS_PER_TURN);
        loop {
            let due = self.room.poll_timeout();
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = self.inbox.recv_many(&mut inputs, INPUTS_PER_TURN) => if count == 0 {
                    return;
                },
                () = timeout => {}
            }
            let now = Instant::now();
            for input in inputs.drain(..) {
                self.handle(now, input);
            }
            if self.room.poll_timeout().is_some_and(|due| due <= now) {
                self.room.handle_timeout(now);
            }
            let goes_on = self.carry_out(now).await;
            self.write_down().await;
            if !goes_on {
                return;
            }
        }
    }

    fn handle(&mut self, now: Instant, input: RoomInput) {
        match input {
            RoomInput::Join {
                join,
                shard,
                outbox,
                answer,
            } => {
                let connection = join.connection;
                self.outboxes.insert(connection, outbox);
                let result = self.room.handle_join(now, *join);
                let result = result.map(|participant| self.span.place(participant, shard));
                if result.is_err() {
                    self.outboxes.remove(&connection);
                }
                // Whoever asked may have given up; then its `Connection` says so.
                let _ = answer.send(result);
            }
            RoomInput::Request { connection, request } => self.room.handle_request(now, connection, *request),
            RoomInput::ConnectionClosed(connection) => {
                self.outboxes.remove(&connection);
                self.room.handle_connection_closed(now, connection);
            }
            RoomInput::Event(shard, event) => {
                if let Some(event) = self.span.handle_event(shard, event) {
                    self.room.handle_event(now, event);
                }
            }
            RoomInput::Question(question) => question(&mut self.room, now),
            RoomInput::Change(change) => {
                let reply = change(&mut self.room, now);
                self.entry.replies.push(reply);
            }
            RoomInput::PerformRpc { request, answer } => match self.room.perform_rpc(now, *request) {
                Ok(call) => {
                    self.calls.insert(call, answer);
                }
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            },
            RoomInput::Explain { identity, answer } => self.explain(identity.as_ref(), answer),
            RoomInput::JobAssigned(job) => self.room.job_assigned(*job),
            RoomInput::JobUpdated { job, state } => self.room.job_updated(&job, *state),
            RoomInput::Shutdown => self.room.shut_down(now, self.telling.durable),
        }
    }

    /// False when the room is over.
    async fn carry_out(&mut self, now: Instant) -> bool {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Signal { connection, message } => self.tell(now, connection, message),
                Output::CloseConnection { connection } => {
                    if let Some(outbox) = self.outboxes.remove(&connection) {
                        // A full queue: dropping the outbox cuts the client off, which is all a Close would do.
                        let _ = outbox.send(ToClient::Close);
                    }
                }
                Output::Media(command) => {
                    self.telling.guests.observe(&command).await;
                    self.span.handle_command(command);
                    if !self.command().await {
                        return false;
                    }
                }
                Output::RpcAnswered { call, answer } => {
                    if let Some(asked) = self.calls.remove(&call) {
                        // Whoever asked may have given up.
                        let _ = asked.send(Ok(answer));
                    }
                }
                Output::Happened(event) => {
                    log(&self.name, &event);
                    self.telling.tally.happened(&event);
                    if self.telling.journal.is_some() {
                        let room = self.room.info();
                        self.entry.happened.push(Happening { room, event });
                    }
                }
                Output::LaunchJob(job) => self.telling.pool.launch(self.handle, job).await,
                Output::EndJob { job, failed } => {
                    tracing::info!(room = %self.name, job, failed, "an agent's job ends");
                    self.telling.pool.send(PoolInput::End(job)).await;
                }
                Output::WithdrawJobs { dispatch } => {
                    self.telling.pool.send(PoolInput::Withdraw(dispatch)).await;
                }
                Output::Explained { query, explanation } => {
                    if let Some(answer) = self.explanations.remove(&query) {
                        let _ = answer.send(Ok(explanation));
                    }
                }
                Output::Closed => return false,
            }
        }
        self.telling.tally.set(self.room.sizes());
        self.command().await
    }

    /// Sends what shards are to do. False: one of them has ended.
    async fn command(&mut self) -> bool {
        while let Some((shard, command)) = self.span.poll_command() {
            let Some(shard) = placement::shard(&self.shards, shard) else {
                continue;
            };
            if shard.handle.send(command).await.is_err() {
                tracing::error!(room = %self.name, "the room's shard has ended");
                return false;
            }
        }
        self.seat.set_span(self.span.shards());
        true
    }

    /// Everything of this turn goes into the journal as one: it is written whole or not at all.
    async fn write_down(&mut self) {
        let mut entry = std::mem::take(&mut self.entry);
        let Some(journal) = &self.telling.journal else {
            return entry.reply(Ok(()));
        };
        entry.room = match self.room.take_record() {
            Some(record) => Some(RoomChange::Keep(Box::new(record))),
            None if self.room.is_closed() && !self.room.is_kept() => Some(RoomChange::Forget {
                name: self.name.0.clone(),
                sid: self.room.sid().0.clone(),
            }),
            None => None,
        };
        if !entry.is_empty() {
            // Its end is that of the whole server: whoever waits hears that nobody answers.
            let _ = journal.send(entry).await;
        }
    }

    fn explain(&mut self, identity: Option<&Identity>, answer: Explained) {
        self.explanations.retain(|_, waiting| !waiting.is_closed());
        if self.explanations.len() >= MAX_EXPLANATIONS {
            return;
        }
        match self.room.explain(identity) {
            Ok(query) => {
                self.explanations.insert(query, answer);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    fn tell(
        &mut self,
        now: Instant,
        connection: ConnectionHandle,
        message: Box<crate::proto::livekit::SignalResponse>,
    ) {
        let Some(outbox) = self.outboxes.get(&connection) else {
            return;
        };
        if outbox.send(ToClient::Message(message)).is_err() {
            tracing::warn!(room = %self.name, connection = connection.0, "a client does not read its messages and is cut off");
            self.outboxes.remove(&connection);
            self.room.handle_connection_closed(now, connection);
        }
    }
}

fn log(room: &RoomName, event: &RoomEvent) {
    match event {
        RoomEvent::RoomStarted => tracing::info!(%room, "room started"),
        RoomEvent::RoomFinished => tracing::info!(%room, "room finished"),
        RoomEvent::ParticipantJoined { participant } => {
            tracing::info!(%room, participant = participant.identity, sid = participant.sid, "participant joined");
        }
        RoomEvent::ParticipantLeft { participant } => {
            tracing::info!(%room, participant = participant.identity, sid = participant.sid, "participant left");
        }
        RoomEvent::ParticipantConnectionAborted { participant } => {
            tracing::info!(%room, participant = participant.identity, sid = participant.sid, "participant never connected");
        }
        RoomEvent::TrackPublished { participant, track } => {
            tracing::info!(%room, participant = participant.identity, track = track.sid, mime = track.mime_type, "track published");
        }
        RoomEvent::TrackUnpublished { participant, track } => {
            tracing::info!(%room, participant = participant.identity, track = track.sid, "track unpublished");
        }
    }
}
