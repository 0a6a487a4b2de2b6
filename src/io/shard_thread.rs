//! The thread that drives one shard: everything a shard does happens inside one turn of this loop.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::counters::{IoCounters, IoSnapshot, add};
use super::forwarding::Forwarding;
use super::load::{Load, Work};
use super::receive::Receiver;
use super::relay::{Destination, Relay, RelayHome};
use super::send::SendBatch;
use super::strays::Strays;
use super::streams::{AdoptedStream, Framing};
use super::sys::{self, Epoll};
use super::udp::UdpSocket;
use super::ways::{WayEnd, Ways};
use crate::media::edge::{Command, Event};
use crate::media::{RelayLink, Shard, ShardStats};
use crate::types::{NetPath, ShardIndex};
use crate::{rtc, turn};

/// Commands waiting for a shard. A room of 1,000 that resubscribes everybody sends a few thousand; a sender that finds
/// the queue full waits (control may wait for a shard).
const COMMAND_QUEUE: usize = 4096;

/// Commands applied in one turn: opening a transport costs some 50 µs, so media waits at most a few milliseconds.
const COMMANDS_PER_TURN: usize = 128;

/// Things handed over to a shard: connections, words about participants, and datagrams between the TURN server's home and
/// the other shards: some 5 ms of a full relay. A datagram that finds it full is dropped and counted; the rest waits.
const HANDOVER_QUEUE: usize = 4096;

/// Of those, in one turn.
const HANDOVERS_PER_TURN: usize = 512;

/// Events waiting for the node, per shard. When it is full, levels and quality are dropped and counted; edges wait in
/// the thread.
pub const EVENT_QUEUE: usize = 4096;

/// Edges kept while the node's queue is full: several for every participant a shard can carry. Beyond that the node has
/// been dead for a long time; the oldest is dropped and counted.
const EVENT_BACKLOG: usize = 65_536;

/// How soon a backlog of events is offered again.
const BACKLOG_RETRY: Duration = Duration::from_millis(5);

/// How soon a batch is offered again to another shard whose queue was full.
const WAY_RETRY: Duration = Duration::from_millis(1);

/// Datagrams taken from one socket in one turn, so that no flow keeps commands and timers waiting.
const DATAGRAMS_PER_TURN: usize = 256;

/// How much later than asked the kernel may wake the thread. Its default of 50 µs is a sixth of the latency budget.
const TIMER_SLACK: Duration = Duration::from_micros(5);

/// How often the shard's own counters are published.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// What a shard thread drives: a sans-IO core. `media::Shard` is one; tests use an echo.
///
/// Call order: any number of `handle_*`, then `poll_transmit` once, then `poll_event` until None, then `poll_timeout`
/// (an instant in the past = call again now).
pub trait DatagramCore {
    fn handle_command(&mut self, now: Instant, command: Command);
    /// `datagram` may be changed in place (it is decrypted there); it is gone afterwards.
    fn handle_datagram(&mut self, now: Instant, path: NetPath, datagram: &mut [u8]);
    /// As `handle_datagram`; `arrival` is when the kernel took it in, shortly before or after the turn's `now`.
    fn handle_arrival(&mut self, now: Instant, _arrival: Instant, path: NetPath, datagram: &mut [u8]) {
        self.handle_datagram(now, path, datagram);
    }
    fn handle_timeout(&mut self, now: Instant);
    fn poll_transmit(&mut self, now: Instant, batch: &mut SendBatch);
    fn poll_event(&mut self) -> Option<Event>;
    fn poll_timeout(&self) -> Option<Instant>;
    /// One of its transports is checked by this name (ICE ufrag).
    fn has_ufrag(&self, _ufrag: &str) -> bool {
        true
    }
    /// One of its transports has verified this path.
    fn has_flow(&self, _path: NetPath) -> bool {
        true
    }
    /// A batch that the core of another thread has sent.
    fn handle_relay(&mut self, _now: Instant, _from: ShardIndex, _batch: &[u8]) {}
    /// Sends what waits for other threads; true when a way was full.
    fn poll_relay(&mut self, _now: Instant, _link: &mut impl RelayLink) -> bool {
        false
    }
    /// Packets of media that have come since it was made.
    fn media_received(&self) -> u64 {
        0
    }
    /// Datagrams since then that belong to nobody here.
    fn refused(&self) -> u64 {
        0
    }
    /// What it has counted since it was made.
    fn stats(&self) -> ShardStats {
        ShardStats::default()
    }
}

impl DatagramCore for Shard {
    fn handle_command(&mut self, now: Instant, command: Command) {
        Shard::handle_command(self, now, command);
    }

    fn handle_datagram(&mut self, now: Instant, path: NetPath, datagram: &mut [u8]) {
        Shard::handle_datagram(self, now, path, datagram);
    }

    fn handle_arrival(&mut self, now: Instant, arrival: Instant, path: NetPath, datagram: &mut [u8]) {
        Shard::handle_arrival(self, now, arrival, path, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        Shard::handle_timeout(self, now);
    }

    fn poll_transmit(&mut self, now: Instant, batch: &mut SendBatch) {
        Shard::poll_transmit(self, now, batch);
    }

    fn poll_event(&mut self) -> Option<Event> {
        Shard::poll_event(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Shard::poll_timeout(self)
    }

    fn has_ufrag(&self, ufrag: &str) -> bool {
        Shard::has_ufrag(self, ufrag)
    }

    fn has_flow(&self, path: NetPath) -> bool {
        Shard::has_flow(self, path)
    }

    fn handle_relay(&mut self, now: Instant, from: ShardIndex, batch: &[u8]) {
        Shard::handle_relay(self, now, from, batch);
    }

    fn poll_relay(&mut self, now: Instant, link: &mut impl RelayLink) -> bool {
        Shard::poll_relay(self, now, link)
    }

    fn media_received(&self) -> u64 {
        Shard::stats(self).rtp_received
    }

    fn refused(&self) -> u64 {
        Shard::stats(self).refused()
    }

    fn stats(&self) -> ShardStats {
        Shard::stats(self).clone()
    }
}

/// What reaches a shard thread beside commands and datagrams: everything about streams and the TURN server.
#[derive(Debug)]
pub enum Handover {
    /// A connection. Media that names no transport here goes on to the next of `others`, and is closed after the last.
    Stream {
        stream: Box<AdoptedStream>,
        others: Vec<ShardHandle>,
    },
    /// This thread has the TURN server from now on.
    RelayHome(Box<RelayHome>),
    /// That thread has it.
    RelayAt(ShardHandle),
    /// To the home: addresses of this machine that have become known, and which shard has the media at them.
    RelayReached {
        ips: Vec<IpAddr>,
        routes: Vec<(SocketAddr, Option<ShardHandle>)>,
    },
    /// To the home: a participant may use the relay …
    Admit(String),
    /// … and may no more.
    Revoke(String),
    /// From the home: a relayed client's datagram for this shard.
    FromClient { path: NetPath, datagram: Vec<u8> },
    /// To the home: this shard's datagram for a relayed client.
    ToClient { path: NetPath, datagram: Vec<u8> },
    /// An end of a way between this thread and another one.
    Way(Box<WayEnd>),
    /// All of these threads have one port; this one is at that place.
    SharedPort { me: usize, all: Vec<ShardHandle> },
    /// A datagram that came to another of those. `asked_by`: that one does not know whose the flow is.
    Stray {
        path: NetPath,
        datagram: Vec<u8>,
        asked_by: Option<usize>,
    },
    /// The flow is the thread's at that place.
    FlowAt { path: NetPath, at: usize },
}

#[derive(Clone, Debug, Default)]
pub struct ThreadConfig {
    /// Name of the thread, as `top -H` shows it (15 bytes).
    pub name: String,
    /// The n-th processor this process may use; None = let the kernel place the thread.
    pub pin: Option<usize>,
}

/// The shard's thread has ended: it was stopped, or it has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the media shard has ended")]
pub struct Ended;

/// How the rest of the process speaks to a shard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    handovers: mpsc::Sender<Handover>,
    wake: Arc<Wake>,
    counters: Arc<IoCounters>,
    stats: Arc<Mutex<ShardStats>>,
}

impl ShardHandle {
    /// Queues a command; waits while the shard is `COMMAND_QUEUE` commands behind. One sender's commands keep their order.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn send(&self, command: Command) -> Result<(), Ended> {
        self.commands.send(command).await.map_err(|_| Ended)?;
        self.wake.signal();
        Ok(())
    }

    /// Hands something over; waits while the shard is far behind.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn hand_over(&self, handover: Handover) -> Result<(), Ended> {
        self.handovers.send(handover).await.map_err(|_| Ended)?;
        self.wake.signal();
        Ok(())
    }

    /// As `hand_over`, without waiting. False: there was no room.
    pub fn try_hand_over(&self, handover: Handover) -> bool {
        let taken = self.handovers.try_send(handover).is_ok();
        self.wake.signal();
        taken
    }

    /// Something was left for the thread that it does not wait for.
    pub(super) fn wake(&self) {
        self.wake.signal();
    }

    pub fn counters(&self) -> IoSnapshot {
        self.counters.snapshot()
    }

    /// What the shard has counted, at most `STATS_INTERVAL` old while it works.
    pub fn stats(&self) -> ShardStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the thread has ended.
    pub async fn ended(&self) {
        self.commands.closed().await;
    }

    /// Asks the thread to end after it has applied and sent what is queued now.
    pub fn stop(&self) {
        self.wake.stop.store(true, Ordering::Release);
        self.wake.signal();
    }
}

/// Wakes the thread out of its wait; many signals before it wakes cost one system call.
#[derive(Debug)]
struct Wake {
    fd: OwnedFd,
    pending: AtomicBool,
    stop: AtomicBool,
}

impl Wake {
    fn signal(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            sys::signal_event(self.fd.as_fd());
        }
    }

    /// A command queued before this returns is seen by a look into the queue after it.
    fn clear(&self) {
        sys::clear_event(self.fd.as_fd());
        self.pending.swap(false, Ordering::AcqRel);
    }
}

/// The epoll token of the eventfd; sockets have their index.
const WAKE_TOKEN: u64 = u64::MAX;

/// One socket and whether it may have something to read.
#[derive(Clone, Copy, Debug)]
struct Readiness {
    readable: bool,
}

/// What a turn did, for the wait after it.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Something was left for the next turn.
    more: bool,
    /// Waited within it for packets that followed.
    waited: Duration,
}

pub struct ShardThread<C> {
    core: C,
    /// Those of media, then those of the TURN server.
    sockets: Vec<Arc<UdpSocket>>,
    media_sockets: usize,
    /// The media sockets are the TURN server's as well.
    shares_media: bool,
    ready: Vec<Readiness>,
    epoll: Epoll,
    wake: Arc<Wake>,
    commands: mpsc::Receiver<Command>,
    handovers: mpsc::Receiver<Handover>,
    events: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    receiver: Receiver,
    batch: SendBatch,
    counters: Arc<IoCounters>,
    stats: Arc<Mutex<ShardStats>>,
    next_stats: Instant,
    forwarding: Forwarding,
    load: Load,
    strays: Strays,
    ways: Ways,
    /// A way was full.
    is_crossing: bool,
    /// Relayed addresses have come or gone that their sockets could not be told of yet.
    is_untold: bool,
}

impl<C: DatagramCore + 'static> ShardThread<C> {
    /// Starts the thread. `core` is built on it, so it need not be `Send`; events go to `events`, which is never waited
    /// for. The thread runs until [`ShardHandle::stop`]; join it by the handle returned.
    ///
    /// # Errors
    /// When descriptors or threads cannot be had.
    pub fn spawn(
        config: ThreadConfig,
        sockets: Vec<UdpSocket>,
        events: mpsc::Sender<Event>,
        core: impl FnOnce(Instant) -> C + Send + 'static,
    ) -> io::Result<(ShardHandle, JoinHandle<()>)> {
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (handover_sender, handovers) = mpsc::channel(HANDOVER_QUEUE);
        let wake = Arc::new(Wake {
            fd: sys::event_fd()?,
            pending: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let epoll = Epoll::new()?;
        epoll.add(wake.fd.as_fd(), WAKE_TOKEN)?;
        for (index, socket) in sockets.iter().enumerate() {
            epoll.add(socket.fd(), index as u64)?;
        }
        let counters = Arc::new(IoCounters::default());
        let stats = Arc::new(Mutex::new(ShardStats::default()));
        let handle = ShardHandle {
            commands: command_sender,
            handovers: handover_sender,
            wake: Arc::clone(&wake),
            counters: Arc::clone(&counters),
            stats: Arc::clone(&stats),
        };
        let thread = std::thread::Builder::new().name(config.name.clone()).spawn(move || {
            if let Some(index) = config.pin {
                pin(index);
            }
            sys::set_timer_slack(TIMER_SLACK);
            let sockets: Vec<Arc<UdpSocket>> = sockets.into_iter().map(Arc::new).collect();
            let shard = Self {
                core: core(Instant::now()),
                ready: vec![Readiness { readable: true }; sockets.len()],
                epoll,
                wake,
                commands,
                handovers,
                events,
                backlog: VecDeque::new(),
                receiver: Receiver::new(),
                batch: SendBatch::new(sockets.clone(), Arc::clone(&counters)),
                media_sockets: sockets.len(),
                shares_media: false,
                sockets,
                counters,
                stats,
                next_stats: Instant::now(),
                forwarding: Forwarding::new(),
                load: Load::new(Instant::now()),
                strays: Strays::new(Instant::now()),
                ways: Ways::default(),
                is_crossing: false,
                is_untold: false,
            };
            if let Err(error) = shard.run() {
                tracing::error!(%error, "a media shard has stopped");
            }
        })?;
        Ok((handle, thread))
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            let started = Instant::now();
            let stopping = self.wake.stop.load(Ordering::Acquire);
            let before = self.traffic();
            let (refused, media) = (self.core.refused(), self.core.media_received());
            let turn = self.tick(started)?;
            let ended = Instant::now();
            let after = self.traffic();
            if after.0 > before.0 && after.1 > before.1 {
                self.forwarding.record(ended - started);
            }
            add(&self.counters.turns, 1);
            let worked = (ended - started).saturating_sub(turn.waited);
            add(&self.counters.busy_nanos, worked.as_nanos() as u64);
            let work = Work {
                time: worked,
                refused: self.core.refused() - refused,
                media: self.core.media_received() - media,
                sent: after.1 - before.1,
            };
            self.load.add(ended, work);
            if stopping || ended >= self.next_stats {
                self.next_stats = ended + STATS_INTERVAL;
                self.publish_stats();
            }
            if stopping && !turn.more {
                return Ok(());
            }
            self.wait(ended, turn)?;
        }
    }

    /// Datagrams that have come and that have left. Read by who writes them.
    fn traffic(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            read(&self.counters.datagrams_received),
            read(&self.counters.datagrams_sent),
        )
    }

    /// One turn: commands, datagrams in, timers, datagrams out, events out.
    fn tick(&mut self, mut now: Instant) -> io::Result<Turn> {
        let mut turn = Turn {
            // Before media: what was revoked or muted is not forwarded in this turn any more.
            more: self.apply_commands(now),
            waited: Duration::ZERO,
        };
        self.batch.relay.set_now(now);
        turn.more |= self.take_handovers(now)?;
        if !turn.more {
            // Behind all commands: those that their sender has acted on are among them.
            let core = &mut self.core;
            let left = self
                .ways
                .receive(&self.counters, |from, batch| core.handle_relay(now, from, batch));
            turn.more |= left;
        }
        let before = (self.core.media_received(), self.core.refused());
        self.receive_all(now, &mut turn)?;
        let is_flood = self.load.is_flooded() && self.core.refused() != before.1;
        if self.core.media_received() != before.0 || is_flood {
            now = self.gather(now, &mut turn)?;
        }
        self.read_streams(now);
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
        }
        self.look_after_clients(now);
        self.core.poll_transmit(now, &mut self.batch);
        self.batch.flush();
        self.batch.flush_streams(now, &self.epoll);
        self.is_crossing = self.core.poll_relay(now, &mut self.ways.sender(&self.counters));
        turn.more |= self.batch.streams.has_readable();
        self.report_events();
        Ok(turn)
    }

    /// True when commands are left for the next turn.
    fn apply_commands(&mut self, now: Instant) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => self.core.handle_command(now, command),
                Err(_) => return false,
            }
        }
        true
    }

    fn receive_all(&mut self, now: Instant, turn: &mut Turn) -> io::Result<()> {
        for index in 0..self.sockets.len() {
            self.receive(now, index)?;
            turn.more |= self.ready[index].readable;
        }
        Ok(())
    }

    /// Under load the first packet waits a moment for those that follow it: more segments in a send, fewer turns. Not in a
    /// turn that leaves something over: it has enough. The time it is then.
    fn gather(&mut self, started: Instant, turn: &mut Turn) -> io::Result<Instant> {
        let gather = self.load.gather();
        let mut now = started;
        while !turn.more && turn.waited < gather.most {
            let asleep = Instant::now();
            std::thread::sleep(gather.step);
            now = Instant::now();
            turn.waited += now - asleep;
            let before = self.core.media_received();
            self.ready.iter_mut().for_each(|socket| socket.readable = true);
            self.receive_all(now, turn)?;
            if self.core.media_received() == before && turn.waited >= gather.least {
                break;
            }
        }
        Ok(now)
    }

    fn receive(&mut self, now: Instant, index: usize) -> io::Result<()> {
        let mut total = 0;
        let is_turn = index >= self.media_sockets;
        let may_be_turn = self.shares_media;
        while self.ready[index].readable && total < DATAGRAMS_PER_TURN {
            let core = &mut self.core;
            let (batch, strays, counters) = (&mut self.batch, &mut self.strays, &self.counters);
            let received = self
                .receiver
                .receive(&self.sockets[index], counters, |arrival, path, datagram| {
                    if is_turn || (may_be_turn && turn::is_for_server(datagram)) {
                        relay(now, path, datagram, core, (batch, strays), counters);
                    } else if strays.has_others() && !is_here(core, path, datagram) {
                        strays.pass_on(now, path, datagram, counters);
                    } else {
                        core.handle_arrival(now, arrival, path, datagram);
                    }
                })?;
            total += received.datagrams;
            // Anything short of a full call was all there was; epoll is level-triggered and will say when there is more.
            self.ready[index].readable = received.full;
        }
        Ok(())
    }

    /// True when some are left for the next turn.
    fn take_handovers(&mut self, now: Instant) -> io::Result<bool> {
        for _ in 0..HANDOVERS_PER_TURN {
            let Ok(handover) = self.handovers.try_recv() else {
                return Ok(false);
            };
            match handover {
                Handover::Stream { stream, others } => self.adopt(now, *stream, others),
                Handover::RelayHome(home) => self.become_home(now, *home)?,
                Handover::RelayAt(home) => self.batch.relay = Relay::At(home),
                Handover::RelayReached { ips, routes } => self.batch.relay.add_addresses(&ips, routes),
                Handover::Admit(user) => {
                    if let Some(server) = self.batch.relay.server() {
                        server.admit(&user);
                    }
                }
                Handover::Revoke(user) => {
                    if let Some(server) = self.batch.relay.server() {
                        server.revoke(&user);
                    }
                    self.batch.relay.report(&self.counters);
                }
                Handover::FromClient { path, mut datagram } => self.core.handle_datagram(now, path, &mut datagram),
                Handover::ToClient { path, datagram } => self.batch.send(path, &datagram),
                Handover::Way(end) => self.ways.add(*end),
                Handover::SharedPort { me, all } => self.strays.share(me, all),
                Handover::Stray {
                    path,
                    mut datagram,
                    asked_by,
                } => {
                    if asked_by.is_some() && !is_here(&self.core, path, &datagram) {
                        continue;
                    }
                    add(&self.counters.strays_in, 1);
                    self.core.handle_datagram(now, path, &mut datagram);
                    if let Some(asked_by) = asked_by.filter(|_| self.core.has_flow(path)) {
                        self.strays.claim(asked_by, path);
                    }
                }
                Handover::FlowAt { path, at } => self.strays.learn(path, at),
            }
        }
        Ok(true)
    }

    fn adopt(&mut self, now: Instant, stream: AdoptedStream, mut others: Vec<ShardHandle>) {
        let is_ours = match stream.framing {
            Framing::Turn => self.batch.relay.server().is_some(),
            Framing::Media => stream
                .received
                .get(rtc::FRAME_HEADER..)
                .and_then(rtc::stun_local_ufrag)
                .is_some_and(|ufrag| self.core.has_ufrag(ufrag)),
        };
        if !is_ours {
            // Dropped after the last one, and with it closed: no byte was ever sent.
            if let Some(next) = others.pop() {
                let stream = Box::new(stream);
                next.try_hand_over(Handover::Stream { stream, others });
            }
            return;
        }
        match self.batch.streams.adopt(now, &self.epoll, stream) {
            Ok(()) => add(&self.counters.streams_opened, 1),
            Err(error) => tracing::debug!(%error, "a connection was not taken over"),
        }
    }

    fn become_home(&mut self, now: Instant, home: RelayHome) -> io::Result<()> {
        let RelayHome {
            sockets,
            shares_media,
            server,
            routes,
            peers,
        } = home;
        for socket in sockets {
            let socket = Arc::new(socket);
            self.epoll.add(socket.fd(), self.sockets.len() as u64)?;
            self.ready.push(Readiness { readable: true });
            self.sockets.push(Arc::clone(&socket));
            self.batch.add_socket(socket);
        }
        self.shares_media = shares_media;
        self.batch.relay = Relay::home(server, routes, peers, now);
        Ok(())
    }

    /// Messages of TCP clients.
    fn read_streams(&mut self, now: Instant) {
        if !self.batch.streams.has_readable() {
            return;
        }
        let mut streams = std::mem::take(&mut self.batch.streams);
        let (core, batch, counters) = (&mut self.core, &mut self.batch, &self.counters);
        let strays = &mut self.strays;
        streams.read(|path, framing, message| {
            match framing {
                Framing::Media => core.handle_datagram(now, path, message),
                Framing::Turn => deliver(now, path, message, core, (batch, strays), counters),
            }
            true
        });
        self.batch.streams = streams;
        answer(&mut self.batch);
    }

    /// Ends what has expired: allocations, connections that lead nowhere.
    fn look_after_clients(&mut self, now: Instant) {
        let (streams, relay) = (&mut self.batch.streams, &mut self.batch.relay);
        let core = &self.core;
        streams.handle_timeout(now, |path, framing| match framing {
            Framing::Media => core.has_flow(path),
            Framing::Turn => relay.server().is_some_and(|server| server.has_allocation(path)),
        });
        for path in streams.take_ended() {
            if let Some(server) = relay.server() {
                server.handle_disconnect(path);
            }
        }
        if let Some(server) = relay.server()
            && server.poll_timeout().is_some_and(|due| due <= now)
        {
            server.handle_timeout(now);
        }
        self.is_untold = relay.report(&self.counters);
    }

    /// Hands events to the node in their order, without ever waiting for it.
    fn report_events(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(TrySendError::Full(event)) = self.events.try_send(event) {
                self.backlog.push_front(event);
                break;
            }
        }
        while let Some(event) = self.core.poll_event() {
            let refused = if self.backlog.is_empty() {
                match self.events.try_send(event) {
                    // A closed queue: the node is going down, and nobody is left to tell.
                    Ok(()) | Err(TrySendError::Closed(_)) => continue,
                    Err(TrySendError::Full(event)) => event,
                }
            } else {
                event
            };
            if is_coalescable(&refused) {
                add(&self.counters.events_dropped, 1);
                continue;
            }
            if self.backlog.len() >= EVENT_BACKLOG {
                self.backlog.pop_front();
                add(&self.counters.events_dropped, 1);
            }
            self.backlog.push_back(refused);
        }
    }

    fn publish_stats(&mut self) {
        // A reader at this very moment gets the older numbers: the shard waits for nobody.
        if let Ok(mut published) = self.stats.try_lock() {
            *published = self.core.stats();
            self.forwarding.report(&mut published);
        }
    }

    fn wait(&mut self, now: Instant, turn: Turn) -> io::Result<()> {
        let relay_due = self.batch.relay.server().and_then(|server| server.poll_timeout());
        let dues = [self.core.poll_timeout(), self.batch.streams.poll_timeout(), relay_due];
        let due = dues.into_iter().flatten().min();
        let mut timeout = due.map(|due| due.saturating_duration_since(now));
        if !self.backlog.is_empty() {
            timeout = Some(timeout.unwrap_or(BACKLOG_RETRY).min(BACKLOG_RETRY));
        }
        if self.is_crossing || self.is_untold {
            timeout = Some(timeout.unwrap_or(WAY_RETRY).min(WAY_RETRY));
        }
        if turn.more {
            timeout = Some(Duration::ZERO);
        }
        let (ready, streams, wake) = (&mut self.ready, &mut self.batch.streams, &self.wake);
        self.epoll.wait(timeout, |token| match ready.get_mut(token as usize) {
            Some(socket) => socket.readable = true,
            None if token == WAKE_TOKEN => wake.clear(),
            None => _ = streams.mark_ready(token),
        })?;
        Ok(())
    }
}

/// It came where a check of this core's came from, or names one of its transports.
fn is_here<C: DatagramCore>(core: &C, path: NetPath, datagram: &[u8]) -> bool {
    core.has_flow(path) || rtc::stun_local_ufrag(datagram).is_some_and(|ufrag| core.has_ufrag(ufrag))
}

/// One datagram on a socket of the TURN server.
fn relay<C: DatagramCore>(
    now: Instant,
    client: NetPath,
    message: &mut [u8],
    core: &mut C,
    (batch, strays): (&mut SendBatch, &mut Strays),
    counters: &IoCounters,
) {
    deliver(now, client, message, core, (batch, strays), counters);
    answer(batch);
}

/// A TURN client's message: to the server, and what is in it to its shard.
fn deliver<C: DatagramCore>(
    now: Instant,
    client: NetPath,
    message: &mut [u8],
    core: &mut C,
    (batch, strays): (&mut SendBatch, &mut Strays),
    counters: &IoCounters,
) {
    let Some(destination) = batch.relay.handle_message(now, client, message) else {
        return;
    };
    add(&counters.relayed_in, 1);
    match destination {
        Destination::Here(relayed) => {
            let (path, datagram) = (relayed.path, message.get_mut(relayed.payload).unwrap_or_default());
            // Of threads with one port the first is named for all.
            if strays.has_others() && !is_here(core, path, datagram) {
                strays.pass_on(now, path, datagram, counters);
            } else {
                core.handle_datagram(now, path, datagram);
            }
        }
        Destination::There(shard, relayed) => {
            add(&counters.relayed_across, 1);
            let datagram = message.get(relayed.payload).unwrap_or_default().to_vec();
            let path = relayed.path;
            if !shard.try_hand_over(Handover::FromClient { path, datagram }) {
                add(&counters.receive_dropped, 1);
            }
        }
        Destination::Elsewhere(peers, relayed) => {
            let datagram = message.get(relayed.payload).unwrap_or_default();
            if !peers.send(relayed.path, datagram) {
                add(&counters.receive_dropped, 1);
            }
        }
    }
}

/// What the TURN server has to say.
fn answer(batch: &mut SendBatch) {
    while let Some((client, message)) = batch.relay.server().and_then(|server| server.poll_transmit()) {
        batch.send(client, &message);
    }
}

fn pin(index: usize) {
    let cores = sys::allowed_cores();
    let Some(core) = cores.get(index % cores.len().max(1)) else {
        return;
    };
    if let Err(error) = sys::pin_to_core(*core) {
        tracing::warn!(core, %error, "a media shard runs unpinned");
    }
}

/// Events of which only the latest counts.
fn is_coalescable(event: &Event) -> bool {
    matches!(
        event,
        Event::Speakers { .. } | Event::Quality { .. } | Event::DataSequence { .. }
    )
}
