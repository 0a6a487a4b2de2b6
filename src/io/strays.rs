//! Several threads on one port: what the kernel gave to another one than it is for.
//!
//! The kernel spreads the flows of a shared port (SO_REUSEPORT) by a hash of their addresses; which thread a flow is for is
//! known by the ufrag of its first check only, so that neither that hash nor a filter on packets can find it. A connected
//! socket for each flow would be found, but then costs a descriptor and a read of its own, and the kernel's walk over all
//! sockets of the port for each packet. So a datagram for another thread is handed over by value: one copy and, in a burst,
//! one wake. Only what comes in is concerned, which is the smaller part by far: every thread sends by its own socket. A port
//! for each thread costs none of this.
//!
//! Owns where flows belong that arrive here, as their threads have said; a flood of what belongs to nobody is not passed on
//! beyond a small number.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::counters::{IoCounters, add};
use super::shard_thread::{Handover, ShardHandle};
use crate::rtc;
use crate::types::NetPath;

/// Flows of other threads that are remembered; beyond, all are forgotten and learned again by their next checks (every few
/// seconds).
const MAX_KNOWN: usize = 65_536;

/// Checks of unknown flows that are shown to the other threads in one window: some 6,000 a second, more than clients that
/// join. What is beyond is dropped; clients check again.
const OFFERS: u32 = 64;
const WINDOW: Duration = Duration::from_millis(10);

/// The threads that share a port. Empty: this one has its own.
#[derive(Debug)]
pub(super) struct Strays {
    me: usize,
    all: Vec<ShardHandle>,
    known: HashMap<NetPath, usize>,
    window_start: Instant,
    offers: u32,
}

impl Strays {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            me: 0,
            all: Vec::new(),
            known: HashMap::new(),
            window_start: now,
            offers: 0,
        }
    }

    /// `me` is this thread's place among `all`.
    pub(super) fn share(&mut self, me: usize, all: Vec<ShardHandle>) {
        (self.me, self.all) = (me, all);
    }

    pub(super) fn has_others(&self) -> bool {
        !self.all.is_empty()
    }

    /// A thread has said that this flow is its own.
    pub(super) fn learn(&mut self, path: NetPath, at: usize) {
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(path, at);
    }

    /// Hands over what is not for this thread.
    pub(super) fn pass_on(&mut self, now: Instant, path: NetPath, datagram: &[u8], counters: &IoCounters) {
        if let Some(other) = self.known.get(&path).and_then(|at| self.all.get(*at)) {
            return give(other, path, datagram, None, counters);
        }
        if now.saturating_duration_since(self.window_start) >= WINDOW {
            (self.window_start, self.offers) = (now, 0);
        }
        let is_check = rtc::classify(datagram) == Ok(rtc::PacketKind::Stun);
        if !is_check || self.offers >= OFFERS {
            return add(&counters.receive_dropped, 1);
        }
        self.offers += 1;
        let others = self.all.iter().enumerate().filter(|(at, _)| *at != self.me);
        for (_, other) in others {
            give(other, path, datagram, Some(self.me), counters);
        }
    }

    /// The flow belongs here: the thread at that place should know.
    pub(super) fn claim(&self, asked_by: usize, path: NetPath) {
        if let Some(other) = self.all.get(asked_by) {
            other.try_hand_over(Handover::FlowAt { path, at: self.me });
        }
    }
}

fn give(other: &ShardHandle, path: NetPath, datagram: &[u8], asked_by: Option<usize>, counters: &IoCounters) {
    let datagram = datagram.to_vec();
    let stray = Handover::Stray {
        path,
        datagram,
        asked_by,
    };
    let counter = match other.try_hand_over(stray) {
        true => &counters.strays_out,
        false => &counters.receive_dropped,
    };
    add(counter, 1);
}
