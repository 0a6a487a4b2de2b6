//! The task of one room: it owns the `control::Room`, reads the clock for it, and does what it asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{mpsc, oneshot};

use super::connection::{self, Outbox, ToClient};
use super::counts::Tally;
use super::journal::{Entry, Reply};
use super::placement::{self, Seat, Shard};
use super::registry::Registry;
use super::relay::Guests;
use super::voice::VoiceLink;
use super::workers::{Pool, PoolInput};
use crate::control::{
    AdministrationError, ConnectionHandle, Demand, ForwardError, Forwarding, Join, JoinError, MediaAddresses, Output,
    Room, RoomEvent, RoomExplanation, Traveller,
};
use crate::media::edge::{Command, Event, Span};
use crate::proto::livekit::{Job, JobState, PerformRpcRequest, RpcError, SignalRequest, SignalResponse};
use crate::proto::relay::IceServerSource;
use crate::store::RoomChange;
use crate::types::{Identity, ParticipantHandle, RoomHandle, RoomName, ShardIndex};

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
    /// To the room that `destination` is the mailbox of, on the same shard.
    LetGo {
        identity: Identity,
        destination: Mailbox,
        answer: Moved,
    },
    /// From another room of the same shard.
    TakeIn(Box<Arrival>),
    /// To be shown in the room that `to` is the mailbox of, on the same shard.
    Forward {
        identity: Identity,
        to: (RoomHandle, Mailbox),
        /// This room's own.
        from: Mailbox,
        answer: Shown,
    },
    /// A participant of another room, from its own.
    Show {
        forwarding: Box<Forwarding>,
        from: Mailbox,
        answer: Shown,
    },
    /// What has become of it; None = it has left.
    Follow {
        source: ParticipantHandle,
        forwarding: Option<Box<Forwarding>>,
    },
    /// The room does not show the participant any more.
    ForwardOver {
        source: ParticipantHandle,
        room: RoomHandle,
    },
    /// What a room that shows a participant of this one wants of its tracks.
    Demand {
        demand: Demand,
        room: RoomHandle,
    },
    /// A client that went to another room sends what it asks there from now on.
    Handover {
        connection: ConnectionHandle,
        done: oneshot::Sender<()>,
    },
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
    /// Its worker is gone for good.
    JobLost(String),
    /// How clients reach the shards from now on, in their order, and which ICE servers they are told.
    Addresses {
        fresh: Arc<[MediaAddresses]>,
        ice_servers: Vec<IceServerSource>,
    },
    /// Everybody is told, then the room ends.
    Shutdown,
}

/// Whether a participant is shown in another room from now on.
pub(super) type Shown = oneshot::Sender<Result<(), NotShown>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotShown {
    NoParticipant,
    /// One of the rooms is on several shards.
    Apart,
    Refused(ForwardError),
}

/// How long one room waits for another that is a whole mailbox behind. Not for ever: the other may wait for this one.
const BETWEEN_ROOMS: Duration = Duration::from_secs(1);

/// Rooms that show one participant; a backend asks for each.
const MAX_FORWARDS: usize = 64;

/// How a participant's way to another room ended.
pub(super) type Moved = oneshot::Sender<Result<(), NotMoved>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotMoved {
    NoParticipant,
    /// Its client has to start over there.
    NotPortable,
    /// The other room is full, or over: its client starts over where it was.
    TurnedBack,
}

/// A participant on its way between two rooms.
#[derive(Debug)]
pub(super) struct Arrival {
    traveller: Traveller,
    outbox: Outbox,
    answer: Moved,
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
    pub(super) voice: Option<VoiceLink>,
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
    /// Clients that went to another room and may not know it yet; as many as there are of these.
    moved: HashMap<ConnectionHandle, Mailbox>,
    /// Of this turn.
    departures: Vec<(Mailbox, Arrival)>,
    turned_back: Vec<Arrival>,
    /// Which rooms show participants of this one; at most `MAX_FORWARDS` each.
    forwards: HashMap<ParticipantHandle, Vec<(RoomHandle, Mailbox)>>,
    /// The rooms of those who are shown here.
    shown: HashMap<ParticipantHandle, Mailbox>,
    /// Of this turn.
    forwarded: Vec<(Mailbox, RoomInput)>,
    /// Not said yet to the rooms of those who are shown here: one for each of their tracks.
    demands: Vec<Demand>,
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
        moved: HashMap::new(),
        departures: Vec::new(),
        turned_back: Vec::new(),
        forwards: HashMap::new(),
        shown: HashMap::new(),
        forwarded: Vec::new(),
        demands: Vec::new(),
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
            self.leave_the_orphaned(now);
            let goes_on = self.carry_out(now).await;
            self.send_off().await;
            self.send_forwarded(goes_on).await;
            self.write_down().await;
            if !goes_on {
                return;
            }
        }
    }

    fn handle(&mut self, now: Instant, input: RoomInput) {
        match input {
            RoomInput::Join {
                mut join,
                mut shard,
                outbox,
                answer,
            } => {
                if self.span.is_bound() {
                    (join.media, shard) = (None, self.seat.home);
                }
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
            RoomInput::Addresses { fresh, ice_servers } => {
                if let Some(home) = fresh.get(usize::from(self.seat.home.0)) {
                    self.room.replace_addresses(home.clone(), ice_servers);
                }
            }
            RoomInput::Request { connection, request } => match self.moved.get(&connection) {
                Some(room) => pass_on(room, RoomInput::Request { connection, request }),
                None => {
                    self.telling.tally.message_received();
                    self.room.handle_request(now, connection, *request);
                }
            },
            RoomInput::ConnectionClosed(connection) => match self.moved.remove(&connection) {
                Some(room) => pass_on(&room, RoomInput::ConnectionClosed(connection)),
                None => {
                    self.outboxes.remove(&connection);
                    self.room.handle_connection_closed(now, connection);
                }
            },
            RoomInput::LetGo {
                identity,
                destination,
                answer,
            } => self.let_go(now, &identity, destination, answer),
            RoomInput::TakeIn(arrival) => self.take_in(now, *arrival),
            RoomInput::Forward {
                identity,
                to,
                from,
                answer,
            } => self.forward(&identity, to, from, answer),
            RoomInput::Show {
                forwarding,
                from,
                answer,
            } => {
                let source = forwarding.source;
                let result = match self.span.is_apart() {
                    true => Err(NotShown::Apart),
                    false => self.room.show(now, *forwarding).map_err(NotShown::Refused),
                };
                match result {
                    Ok(()) => drop(self.shown.insert(source, from)),
                    Err(_) => self.forwarded.push((from, self.over(source))),
                }
                let _ = answer.send(result);
            }
            RoomInput::Follow {
                forwarding: Some(forwarding),
                ..
            } => self.room.follow(now, *forwarding),
            RoomInput::Follow { source, .. } => {
                self.shown.remove(&source);
                self.room.stop_showing(now, source);
            }
            RoomInput::ForwardOver { source, room } => self.forward_over(now, source, room),
            RoomInput::Demand { demand, room } => {
                let rooms = self.forwards.get(&demand.source);
                if rooms.is_some_and(|rooms| rooms.iter().any(|(known, _)| *known == room)) {
                    self.room.handle_demand(now, room, demand);
                }
            }
            RoomInput::Handover { connection, done } => {
                self.moved.remove(&connection);
                let _ = done.send(());
            }
            RoomInput::Event(shard, event) => {
                if let Some(event) = self.span.handle_event(shard, event) {
                    self.telling.tally.observe(&event);
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
            RoomInput::JobLost(job) => self.room.job_lost(now, &job),
            RoomInput::Shutdown => self.room.shut_down(now, self.telling.durable),
        }
    }

    fn let_go(&mut self, now: Instant, identity: &Identity, destination: Mailbox, answer: Moved) {
        if self.span.is_apart() || !self.room.can_let_go(identity) {
            let _ = answer.send(Err(NotMoved::NotPortable));
            return;
        }
        let Ok(traveller) = self.room.let_go(now, identity) else {
            let _ = answer.send(Err(NotMoved::NoParticipant));
            return;
        };
        self.telling.guests.pass_on(traveller.handle());
        self.span.let_go(traveller.handle());
        let connection = traveller.connection();
        let Some((connection, outbox)) = connection.and_then(|its| Some((its, self.outboxes.remove(&its)?))) else {
            // Its socket went away in this very turn. There is nobody to tell: it starts over.
            let (outbox, _) = connection::queue();
            self.turned_back.push(Arrival {
                traveller,
                outbox,
                answer,
            });
            return;
        };
        // A full queue cuts the client off; it finds the other room with the token it was given there.
        let _ = outbox.moved(destination.clone());
        self.moved.insert(connection, destination.clone());
        let arrival = Arrival {
            traveller,
            outbox,
            answer,
        };
        self.departures.push((destination, arrival));
    }

    fn take_in(&mut self, now: Instant, arrival: Arrival) {
        let Arrival {
            traveller,
            outbox,
            answer,
        } = arrival;
        let connection = traveller.connection();
        let taken = match self.span.is_apart() {
            true => Err(traveller),
            false => self.room.take_in(now, traveller),
        };
        match taken {
            Ok(()) => {
                if let Some(connection) = connection {
                    self.outboxes.insert(connection, outbox);
                }
                let _ = answer.send(Ok(()));
            }
            Err(traveller) => self.turned_back.push(Arrival {
                traveller,
                outbox,
                answer,
            }),
        }
    }

    fn over(&self, source: ParticipantHandle) -> RoomInput {
        let room = self.handle;
        RoomInput::ForwardOver { source, room }
    }

    fn forward(&mut self, identity: &Identity, (room, mailbox): (RoomHandle, Mailbox), from: Mailbox, answer: Shown) {
        if self.span.is_apart() {
            let _ = answer.send(Err(NotShown::Apart));
            return;
        }
        let Ok(forwarding) = self.room.forward(identity) else {
            let _ = answer.send(Err(NotShown::NoParticipant));
            return;
        };
        let rooms = self.forwards.entry(forwarding.source).or_default();
        rooms.retain(|(known, _)| *known != room);
        if rooms.len() >= MAX_FORWARDS {
            let _ = answer.send(Err(NotShown::Refused(ForwardError::Full)));
            return;
        }
        rooms.push((room, mailbox.clone()));
        let show = RoomInput::Show {
            forwarding,
            from,
            answer,
        };
        self.forwarded.push((mailbox, show));
    }

    fn forward_over(&mut self, now: Instant, source: ParticipantHandle, room: RoomHandle) {
        let Some(rooms) = self.forwards.get_mut(&source) else {
            return;
        };
        rooms.retain(|(known, _)| *known != room);
        self.room.forget_demands(now, source, room);
        if rooms.is_empty() {
            self.forwards.remove(&source);
            self.room.stop_forwarding(source);
        }
    }

    /// Whose room has ended without a word (a panic) is shown no longer.
    fn leave_the_orphaned(&mut self, now: Instant) {
        let ended = self.shown.iter().filter(|(_, room)| room.is_closed());
        let ended: Vec<ParticipantHandle> = ended.map(|(source, _)| *source).collect();
        for source in ended {
            self.shown.remove(&source);
            self.room.stop_showing(now, source);
        }
    }

    /// What other rooms are to show, and to whom it must be said that this one shows nothing more.
    async fn send_forwarded(&mut self, goes_on: bool) {
        for (mailbox, input) in std::mem::take(&mut self.forwarded) {
            // A room that is over, or too late, drops the answer of who asked.
            let _ = mailbox.send_timeout(input, BETWEEN_ROOMS).await;
        }
        let mut changes = self.room.take_forwarded();
        if !goes_on {
            // Whatever ended the room ended it for everybody.
            changes = self.forwards.keys().map(|source| (*source, None)).collect();
        }
        for (source, forwarding) in changes {
            let rooms = match forwarding {
                Some(_) => self.forwards.get(&source).cloned().unwrap_or_default(),
                None => self.forwards.remove(&source).unwrap_or_default(),
            };
            for (_, mailbox) in rooms {
                let forwarding = forwarding.clone();
                let follow = RoomInput::Follow { source, forwarding };
                let _ = mailbox.send_timeout(follow, BETWEEN_ROOMS).await;
            }
        }
        self.send_demands();
        if self.shown.is_empty() {
            return;
        }
        let room = &self.room;
        let ended: Vec<ParticipantHandle> = self.shown.keys().copied().filter(|its| !room.shows(*its)).collect();
        for source in ended {
            let over = self.over(source);
            if let Some(from) = self.shown.remove(&source) {
                // Two rooms that show each other's participants must not wait for each other; one that is full goes on
                // asking its publisher for what nobody sees, until that leaves.
                let _ = from.try_send(over);
            }
        }
    }

    /// What is wanted here of those who are shown. A room that is full is told in the next turn, with the latest word.
    fn send_demands(&mut self) {
        for demand in self.room.take_demands() {
            self.demands.retain(|older| !demand.replaces(older));
            self.demands.push(demand);
        }
        let room = self.handle;
        self.demands.retain(|demand| {
            let Some(home) = self.shown.get(&demand.source) else {
                return false;
            };
            let input = RoomInput::Demand {
                demand: demand.clone(),
                room,
            };
            matches!(home.try_send(input), Err(mpsc::error::TrySendError::Full(_)))
        });
    }

    /// Those who leave for another room, after everything that this room had to say of them.
    async fn send_off(&mut self) {
        for (destination, arrival) in std::mem::take(&mut self.departures) {
            let take_in = RoomInput::TakeIn(Box::new(arrival));
            if let Err(
                SendTimeoutError::Timeout(RoomInput::TakeIn(arrival))
                | SendTimeoutError::Closed(RoomInput::TakeIn(arrival)),
            ) = destination.send_timeout(take_in, BETWEEN_ROOMS).await
            {
                self.turned_back.push(*arrival);
            }
        }
        for arrival in std::mem::take(&mut self.turned_back) {
            let Arrival {
                traveller,
                outbox,
                answer,
            } = arrival;
            self.telling.guests.turn_away(traveller.sid()).await;
            let (message, commands) = traveller.turned_back();
            for command in commands {
                if let Some(shard) = placement::shard(&self.shards, self.seat.home) {
                    let _ = shard.handle.send(command).await;
                }
            }
            if message.is_some() {
                let _ = outbox.send(ToClient::Message(Box::new(SignalResponse { message })));
            }
            let _ = outbox.send(ToClient::Close);
            let _ = answer.send(Err(NotMoved::TurnedBack));
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
                    self.telling.tally.happened(&event, self.room.unix(now));
                    if let Some(voice) = &self.telling.voice
                        && VoiceLink::wants(&self.name.0, &event)
                    {
                        let (room, event) = (self.room.info(), event.clone());
                        voice.happened(Happening { room, event });
                    }
                    if self.telling.journal.is_some() {
                        let room = self.room.info();
                        self.entry.happened.push(Happening { room, event });
                    }
                }
                Output::Waited(wait) => self.telling.tally.waited(&wait),
                Output::LaunchJob(job) => self.telling.pool.launch(self.handle, job).await,
                Output::EndJob { job, failed } => {
                    tracing::info!(room = %self.name, job, failed, "an agent's job ends");
                    self.telling.pool.send(PoolInput::End(job)).await;
                }
                Output::FollowJob(job) => self.telling.pool.send(PoolInput::Restored(self.handle, job)).await,
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
        self.seat.set_span(self.span.shards(), self.span.is_bound());
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
        let sent = outbox.send(ToClient::Message(message));
        self.telling.tally.message_sent(sent.is_ok());
        if sent.is_err() {
            tracing::warn!(room = %self.name, connection = connection.0, "a client does not read its messages and is cut off");
            self.outboxes.remove(&connection);
            self.room.handle_connection_closed(now, connection);
        }
    }
}

/// To the room that a client went to. One that is a whole mailbox behind loses it, as a client loses what it asks of a
/// server that does not answer.
fn pass_on(room: &Mailbox, input: RoomInput) {
    if room.try_send(input).is_err() {
        tracing::warn!("a request of a client that went to another room is lost");
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
