//! Counting subscribers that have their media: read and answered for in turns, many with each turn.
//!
//! Owns the sockets' other half. A subscriber that is still joining is woken by each datagram; once media flows nobody
//! waits for a single packet any more, so its socket leaves the event loop and is read every [`ROUND`]: a thread that
//! sleeps between is cheap, and so is a server whose sends wake nobody. Arrival times are the kernel's, so that the
//! server's estimate sees what it would see of a browser.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::client::Shared;
use super::failure::Failure;
use super::keys::Exported;
use super::subscriber::{Counting, Streams};
use super::tally::Tally;
use super::wall_clock;
use super::way::Way;

/// How often each socket is read. Its buffer holds 8 MB; a subscriber of 50 Mbit/s gets 125 kB in that time.
pub const ROUND: Duration = Duration::from_millis(20);
/// A round is made in so many steps, so that no step keeps the publishers waiting.
pub const STEPS: u32 = 10;

/// recvmmsg calls for one socket in one step: 128 messages, of which each may hold many datagrams.
const MAX_CALLS: usize = 4;
/// Datagrams kept for str0m: checks, handshakes, data messages. The oldest goes first; all are repeated.
const MAX_LETTERS: usize = 256;

/// One such subscriber; the rest of it (str0m, signalling) is a `Client`.
pub struct Sink {
    way: Rc<Way>,
    state: RefCell<State>,
    /// There are letters, or the socket has failed.
    news: Notify,
}

struct State {
    counting: Counting,
    streams: Streams,
    /// Where RTCP goes: the source of the last datagram.
    server: Option<SocketAddr>,
    letters: VecDeque<Letter>,
    failure: Option<String>,
}

/// A datagram that is not media.
pub struct Letter {
    pub at: Duration,
    pub from: SocketAddr,
    pub datagram: Vec<u8>,
}

impl Sink {
    pub fn new(way: Rc<Way>, counting: Counting, streams: Streams) -> Rc<Self> {
        Rc::new(Self {
            way,
            state: RefCell::new(State {
                counting,
                streams,
                server: None,
                letters: VecDeque::new(),
                failure: None,
            }),
            news: Notify::new(),
        })
    }

    pub fn set_keys(&self, exported: &Exported) {
        self.state.borrow_mut().counting.set_keys(exported);
    }

    pub fn has_media(&self) -> bool {
        !self.state.borrow().streams.is_empty()
    }

    /// RTP and RTCP are its own; true when the datagram was one of them.
    pub fn take(&self, at: Duration, from: SocketAddr, datagram: &mut [u8], tally: &mut Tally) -> bool {
        self.state.borrow_mut().take(at, from, datagram, tally)
    }

    /// Its own address, and the server's for media.
    pub fn route(&self) -> Option<(IpAddr, SocketAddr)> {
        Some((self.way.socket.local().ip(), self.state.borrow().server?))
    }

    /// Waits until there is something for str0m.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    pub fn letter(&self) -> Result<Option<Letter>, Failure> {
        let mut state = self.state.borrow_mut();
        match state.failure.take() {
            Some(failure) => Err(Failure::Machine(failure)),
            None => Ok(state.letters.pop_front()),
        }
    }

    /// Takes what waits in the socket, and reports what is due.
    fn turn(&self, shared: &Shared, now: Instant, wall: Duration) {
        let mut state = self.state.borrow_mut();
        let mut batch = shared.batch.borrow_mut();
        let mut tally = shared.tally.borrow_mut();
        for _ in 0..MAX_CALLS {
            let received = batch.receive(&self.way.socket, |at, from, datagram| {
                let (from, datagram) = self.way.open(from, datagram);
                if !state.take(at, from, datagram, &mut tally) {
                    state.keep(at, from, datagram);
                }
            });
            match received {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    state.failure.get_or_insert(error.to_string());
                    break;
                }
            }
        }
        if state.failure.is_some() || !state.letters.is_empty() {
            self.news.notify_one();
        }
        let State {
            counting,
            streams,
            server: Some(server),
            ..
        } = &mut *state
        else {
            return;
        };
        while let Some(packet) = counting.poll(streams, now, wall) {
            self.way.send_to(packet, *server);
        }
    }
}

impl State {
    fn take(&mut self, at: Duration, from: SocketAddr, datagram: &mut [u8], tally: &mut Tally) -> bool {
        self.server = Some(from);
        self.counting.take(&mut self.streams, datagram, at, tally)
    }

    fn keep(&mut self, at: Duration, from: SocketAddr, datagram: &[u8]) {
        if self.letters.len() >= MAX_LETTERS {
            self.letters.pop_front();
        }
        self.letters.push_back(Letter {
            at,
            from,
            datagram: datagram.to_vec(),
        });
    }
}

/// Reads all sinks of `shared`, each once in a round, for ever.
pub async fn make_rounds(shared: Rc<Shared>) {
    let mut ticks = tokio::time::interval(ROUND / STEPS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut step = 0;
    loop {
        ticks.tick().await;
        step = (step + 1) % STEPS as usize;
        let (now, wall) = (Instant::now(), wall_clock());
        for sink in shared.sinks.borrow().iter().skip(step).step_by(STEPS as usize) {
            sink.turn(&shared, now, wall);
        }
    }
}
