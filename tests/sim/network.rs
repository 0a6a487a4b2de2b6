//! Links with delay, jitter (which reorders) and random loss, all drawn from the world's seed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{RngExt, rngs::SmallRng};

/// One peer's access link, both directions alike.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Added to `delay`, uniform in 0..=jitter: beyond the packet spacing it reorders.
    pub jitter: Duration,
    /// Probability 0.0..=1.0 that a datagram is lost.
    pub loss: f64,
    /// Nothing passes while down.
    pub up: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            up: true,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    pub due: Instant,
    /// Keeps datagrams of one instant in the order they were sent.
    order: u64,
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub contents: Vec<u8>,
}

#[derive(Default)]
pub struct Network {
    in_flight: BinaryHeap<Reverse<Datagram>>,
    sent: u64,
}

impl Network {
    pub fn send(
        &mut self,
        now: Instant,
        rng: &mut SmallRng,
        link: Link,
        source: SocketAddr,
        destination: SocketAddr,
        contents: Vec<u8>,
    ) {
        self.sent += 1;
        if !link.up || rng.random_bool(link.loss) {
            return;
        }
        let jitter = link.jitter.mul_f64(rng.random_range(0.0..=1.0));
        self.in_flight.push(Reverse(Datagram {
            due: now + link.delay + jitter,
            order: self.sent,
            source,
            destination,
            contents,
        }));
    }

    pub fn next_due(&self) -> Option<Instant> {
        self.in_flight.peek().map(|Reverse(datagram)| datagram.due)
    }

    pub fn receive(&mut self, now: Instant) -> Option<Datagram> {
        if self.next_due()? > now {
            return None;
        }
        self.in_flight.pop().map(|Reverse(datagram)| datagram)
    }
}
