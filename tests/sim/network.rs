//! The access links of all peers, by virtual time, and what is measured at them.

use std::{
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use crate::impairment::{Conditions, Impairment};

#[derive(Clone, Debug)]
pub struct Datagram {
    pub source: SocketAddr,
    pub contents: Vec<u8>,
}

/// Between one peer and the server; each direction has its own conditions and its own randomness.
pub struct Link {
    /// From the peer.
    pub up: Impairment<Datagram>,
    /// To the peer.
    pub down: Impairment<Datagram>,
    /// Connectivity checks pass by the queues, with the same delay and loss: their times are drawn by the ICE engines, not
    /// from the seed, and must not decide what becomes of a media packet beside them.
    checks_up: Impairment<Datagram>,
    checks_down: Impairment<Datagram>,
    /// What a translator of addresses shows instead of the peer's own.
    pub shown_as: Option<SocketAddr>,
    /// When connectivity checks of the peer arrived.
    pub checks: Vec<Instant>,
}

impl Link {
    pub fn new(seed: u64, now: Instant) -> Self {
        let direction = |index| Impairment::new(Conditions::CLEAN, seed.wrapping_mul(4).wrapping_add(index), now);
        Self {
            up: direction(0),
            down: direction(1),
            checks_up: direction(2),
            checks_down: direction(3),
            shown_as: None,
            checks: Vec::new(),
        }
    }

    pub fn send_up(&mut self, now: Instant, datagram: Datagram) {
        let way = if is_check(&datagram) {
            &mut self.checks_up
        } else {
            &mut self.up
        };
        way.offer(now, datagram.contents.len(), datagram);
    }

    pub fn send_down(&mut self, now: Instant, datagram: Datagram) {
        let way = if is_check(&datagram) {
            &mut self.checks_down
        } else {
            &mut self.down
        };
        way.offer(now, datagram.contents.len(), datagram);
    }

    pub fn take_up(&mut self, now: Instant) -> Option<Datagram> {
        let check = self.checks_up.take(now);
        self.checks.extend(check.is_some().then_some(now));
        check.or_else(|| self.up.take(now))
    }

    pub fn take_down(&mut self, now: Instant) -> Option<Datagram> {
        self.checks_down.take(now).or_else(|| self.down.take(now))
    }

    /// Both directions from now on.
    pub fn set(&mut self, now: Instant, conditions: Conditions) {
        self.up.set(now, conditions);
        self.down.set(now, conditions);
        // They are seconds apart: a burst of packets takes one of them, not the next ones as well.
        let burst = conditions.burst.map_or(0.0, |burst| burst.share());
        let unlimited = Conditions {
            rate: None,
            burst: None,
            loss: conditions.loss + burst * (1.0 - conditions.loss),
            ..conditions
        };
        self.checks_up.set(now, unlimited);
        self.checks_down.set(now, unlimited);
    }

    pub fn next_due(&self) -> Option<Instant> {
        let ways = [&self.up, &self.down, &self.checks_up, &self.checks_down];
        ways.into_iter().filter_map(Impairment::next_due).min()
    }
}

/// RFC 7983: STUN begins with 0 to 3.
fn is_check(datagram: &Datagram) -> bool {
    datagram.contents.first().is_some_and(|first| *first < 4)
}

/// What went through the bottleneck of one direction while it had a rate.
pub trait Measures {
    /// Time in the queue that `share` (0.0..=1.0) of the datagrams of an interval did not exceed.
    fn queueing(&self, interval: Range<Instant>, share: f64) -> Duration;
    /// Bits per second through the bottleneck, headers included.
    fn throughput(&self, interval: Range<Instant>) -> f64;
}

impl Measures for Impairment<Datagram> {
    fn queueing(&self, interval: Range<Instant>, share: f64) -> Duration {
        let mut queued: Vec<Duration> = self
            .passages
            .iter()
            .filter(|passage| interval.contains(&passage.at))
            .map(|passage| passage.queued)
            .collect();
        queued.sort();
        let at = (queued.len() as f64 * share) as usize;
        queued
            .get(at.min(queued.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    fn throughput(&self, interval: Range<Instant>) -> f64 {
        let bytes: usize = self
            .passages
            .iter()
            .filter(|passage| interval.contains(&passage.at))
            .map(|passage| passage.bytes)
            .sum();
        bytes as f64 * 8.0 / (interval.end - interval.start).as_secs_f64()
    }
}
