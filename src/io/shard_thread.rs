//! The thread that drives one shard: everything a shard does happens inside one turn of this loop.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::counters::{IoCounters, IoSnapshot, add};
use super::load::Load;
use super::receive::Receiver;
use super::send::SendBatch;
use super::sys::{self, Epoll};
use super::udp::UdpSocket;
use crate::media::edge::{Command, Event};
use crate::media::{Shard, ShardStats};
use crate::types::NetPath;

/// Commands waiting for a shard. A room of 1,000 that resubscribes everybody sends a few thousand; a sender that finds
/// the queue full waits (control may wait for a shard).
const COMMAND_QUEUE: usize = 4096;

/// Commands applied in one turn: opening a transport costs some 50 µs, so media waits at most a few milliseconds.
const COMMANDS_PER_TURN: usize = 128;

/// Events waiting for the node, per shard. When it is full, levels and quality are dropped and counted; edges wait in
/// the thread.
pub const EVENT_QUEUE: usize = 4096;

/// Edges kept while the node's queue is full: several for every participant a shard can carry. Beyond that the node has
/// been dead for a long time; the oldest is dropped and counted.
const EVENT_BACKLOG: usize = 65_536;

/// How soon a backlog of events is offered again.
const BACKLOG_RETRY: Duration = Duration::from_millis(5);

/// Datagrams taken from one socket in one turn, so that no flow keeps commands and timers waiting.
const DATAGRAMS_PER_TURN: usize = 256;

/// A busy thread (`Load`) sleeps this long before it looks for packets again, so that a turn finds more of them for each
/// destination: more segments per send, and fewer wakes. An idle or lightly loaded shard never waits. To be set by
/// measurement: the price is half of it in mean added latency (DESIGN §6 allows 0.3 ms at half load).
const GATHER: Duration = Duration::from_micros(250);

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
    fn handle_timeout(&mut self, now: Instant);
    fn poll_transmit(&mut self, now: Instant, batch: &mut SendBatch);
    fn poll_event(&mut self) -> Option<Event>;
    fn poll_timeout(&self) -> Option<Instant>;
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

    fn stats(&self) -> ShardStats {
        Shard::stats(self).clone()
    }
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
}

pub struct ShardThread<C> {
    core: C,
    sockets: Arc<[UdpSocket]>,
    ready: Vec<Readiness>,
    epoll: Epoll,
    wake: Arc<Wake>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    receiver: Receiver,
    batch: SendBatch,
    counters: Arc<IoCounters>,
    stats: Arc<Mutex<ShardStats>>,
    next_stats: Instant,
    load: Load,
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
            wake: Arc::clone(&wake),
            counters: Arc::clone(&counters),
            stats: Arc::clone(&stats),
        };
        let thread = std::thread::Builder::new().name(config.name.clone()).spawn(move || {
            if let Some(index) = config.pin {
                pin(index);
            }
            sys::set_timer_slack(TIMER_SLACK);
            let sockets: Arc<[UdpSocket]> = sockets.into();
            let shard = Self {
                core: core(Instant::now()),
                ready: vec![Readiness { readable: true }; sockets.len()],
                epoll,
                wake,
                commands,
                events,
                backlog: VecDeque::new(),
                receiver: Receiver::new(),
                batch: SendBatch::new(Arc::clone(&sockets), Arc::clone(&counters)),
                sockets,
                counters,
                stats,
                next_stats: Instant::now(),
                load: Load::new(Instant::now()),
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
            let turn = self.tick(started)?;
            let ended = Instant::now();
            add(&self.counters.turns, 1);
            add(&self.counters.busy_nanos, (ended - started).as_nanos() as u64);
            self.load.add(ended, ended - started);
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

    /// One turn: commands, datagrams in, timers, datagrams out, events out.
    fn tick(&mut self, now: Instant) -> io::Result<Turn> {
        let mut turn = Turn {
            // Before media: what was revoked or muted is not forwarded in this turn any more.
            more: self.apply_commands(now),
        };
        for index in 0..self.sockets.len() {
            self.receive(now, index)?;
            turn.more |= self.ready[index].readable;
        }
        if self.core.poll_timeout().is_some_and(|due| due <= now) {
            self.core.handle_timeout(now);
        }
        self.core.poll_transmit(now, &mut self.batch);
        self.batch.flush();
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

    fn receive(&mut self, now: Instant, index: usize) -> io::Result<()> {
        let mut total = 0;
        while self.ready[index].readable && total < DATAGRAMS_PER_TURN {
            let core = &mut self.core;
            let received = self
                .receiver
                .receive(&self.sockets[index], &self.counters, |path, datagram| {
                    core.handle_datagram(now, path, datagram);
                })?;
            total += received.datagrams;
            // Anything short of a full call was all there was; epoll is level-triggered and will say when there is more.
            self.ready[index].readable = received.full;
        }
        Ok(())
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
        }
    }

    fn wait(&mut self, now: Instant, turn: Turn) -> io::Result<()> {
        let mut timeout = self.core.poll_timeout().map(|due| due.saturating_duration_since(now));
        if !self.backlog.is_empty() {
            timeout = Some(timeout.unwrap_or(BACKLOG_RETRY).min(BACKLOG_RETRY));
        }
        if turn.more {
            timeout = Some(Duration::ZERO);
        } else if self.load.is_busy() {
            let pause = timeout.unwrap_or(GATHER).min(GATHER);
            std::thread::sleep(pause);
            timeout = timeout.map(|timeout| timeout.saturating_sub(pause));
        }
        let (ready, wake) = (&mut self.ready, &self.wake);
        self.epoll.wait(timeout, |token| match ready.get_mut(token as usize) {
            Some(socket) => socket.readable = true,
            None => wake.clear(),
        })
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
