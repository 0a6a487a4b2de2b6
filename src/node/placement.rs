//! Which shard a new room is served by, and who joins a room whose shard is full: the least loaded, by what the shards'
//! threads and sockets say of themselves.
//!
//! Owns the list of shards and how busy each was lately, measured by a task of its own twice a second. Never moves what
//! is placed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::connection::LoadShare;
use crate::control::MediaAddresses;
use crate::io::{IoSnapshot, ShardHandle};
use crate::types::ShardIndex;

/// Shards are looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Weight of the newest look: the load is that of the last second or two.
const SMOOTHING: f64 = 0.4;

/// Datagrams a second, both ways, at which a shard counts as full although its thread finds the time: about what one core
/// forwards (DESIGN D5). Of a thread that shares its core with others the time it worked says too little.
const FULL_PACKETS: f64 = 500_000.0;

/// In thousandths of a shard. A connection counts as this much until a look has seen what it really costs.
const UNSEEN_CONNECTION: u32 = 2;

/// Differences below this are noise, in thousandths of a shard: then the shard with fewer connections is taken.
const STEP: u32 = 20;

/// In thousandths of a shard. A room goes over to another one only where there is so much less to do: each of its streams
/// has to be copied there.
const MARGIN: u32 = 100;

/// How much of a shard is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardLoad {
    /// 0.0..=1.0: the larger of the share of time its thread works and its packets against what a core forwards.
    pub share: f64,
    /// Datagrams a second in both directions.
    pub packets_per_second: u32,
    /// Clients whose rooms, or who themselves, are placed there.
    pub connections: usize,
}

/// One running shard and how its clients reach it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) handle: ShardHandle,
    /// Read for each room, written when the outside's view of this machine is learned late.
    addresses: RwLock<MediaAddresses>,
    connections: Arc<AtomicUsize>,
    /// As of the last look. Thousandths.
    share: AtomicU32,
    packets: AtomicU32,
    connections_seen: AtomicUsize,
}

impl Shard {
    pub(super) fn new(handle: ShardHandle, udp: Vec<SocketAddr>, tcp: Vec<SocketAddr>) -> Self {
        Self {
            handle,
            addresses: RwLock::new(MediaAddresses { udp, tcp }),
            connections: Arc::default(),
            share: AtomicU32::new(0),
            packets: AtomicU32::new(0),
            connections_seen: AtomicUsize::new(0),
        }
    }

    /// A connection placed here, for as long as it lives.
    pub(super) fn occupy(&self) -> LoadShare {
        LoadShare::new(&self.connections)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.load(Ordering::Relaxed) == 0
    }

    pub(super) fn load(&self) -> ShardLoad {
        ShardLoad {
            share: f64::from(self.share.load(Ordering::Relaxed)) / 1000.0,
            packets_per_second: self.packets.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }

    /// Thousandths of a shard, those who have come since the last look included.
    fn expected(&self) -> u32 {
        let (now, seen) = (
            self.connections.load(Ordering::Relaxed),
            self.connections_seen.load(Ordering::Relaxed),
        );
        let unseen = u32::try_from(now.saturating_sub(seen)).unwrap_or(u32::MAX);
        let share = self.share.load(Ordering::Relaxed);
        share.saturating_add(unseen.saturating_mul(UNSEEN_CONNECTION))
    }

    fn look(&self, load: &Measured) {
        self.share.store((load.share * 1000.0) as u32, Ordering::Relaxed);
        self.packets.store(load.packets as u32, Ordering::Relaxed);
        self.connections_seen
            .store(self.connections.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Where a room lives, and where else it is.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    pub(super) home: ShardIndex,
    /// A bit for each shard that has the room. Told by its task; those beyond the 64th are not remembered.
    spans: Arc<AtomicU64>,
    /// It cannot be on other shards: it has what only its home has.
    is_bound: Arc<AtomicBool>,
}

impl Seat {
    pub(super) fn new(home: ShardIndex) -> Self {
        Self {
            home,
            spans: Arc::default(),
            is_bound: Arc::default(),
        }
    }

    pub(super) fn set_span(&self, shards: &[ShardIndex], is_bound: bool) {
        self.is_bound.store(is_bound, Ordering::Relaxed);
        let bits = shards.iter().fold(0, |bits, shard| bits | bit(*shard));
        self.spans.store(bits, Ordering::Relaxed);
    }

    /// Both rooms are on one shard only, the same.
    pub(super) fn is_with(&self, other: &Self) -> bool {
        let is_whole = |seat: &Self| seat.spans.load(Ordering::Relaxed) & !bit(seat.home) == 0;
        self.home == other.home && is_whole(self) && is_whole(other)
    }

    fn has(&self, shard: ShardIndex) -> bool {
        self.spans.load(Ordering::Relaxed) & bit(shard) != 0
    }
}

fn bit(shard: ShardIndex) -> u64 {
    1u64.checked_shl(shard.0.into()).unwrap_or(0)
}

pub(super) fn shard(shards: &[Shard], index: ShardIndex) -> Option<&Shard> {
    shards.get(usize::from(index.0))
}

fn weight(shard: &Shard) -> (u32, usize) {
    (shard.expected() / STEP, shard.connections.load(Ordering::Relaxed))
}

/// For a new room.
pub(super) fn least_loaded(shards: &[Shard]) -> ShardIndex {
    let all = (0..).map(ShardIndex).zip(shards);
    all.min_by_key(|(_, shard)| weight(shard))
        .map_or(ShardIndex(0), |(index, _)| index)
}

/// For somebody who joins a room: its home, unless that is loaded to `spill` (0.0..=1.0) or more. Then a shard that has the
/// room and is not, then the least loaded. `spill` 0: whichever has the fewest connections; 1:
/// its home always.
pub(super) fn for_participant(shards: &[Shard], seat: &Seat, spill: f64) -> ShardIndex {
    let all = || (0..).map(ShardIndex).zip(shards);
    if seat.is_bound.load(Ordering::Relaxed) {
        return seat.home;
    }
    let limit = (spill * 1000.0) as u32;
    if limit >= 1000 {
        return seat.home; // never
    }
    let Some(home) = shard(shards, seat.home) else {
        return seat.home;
    };
    if limit == 0 {
        let fewest = all().min_by_key(|(_, shard)| shard.connections.load(Ordering::Relaxed));
        return fewest.map_or(seat.home, |(index, _)| index);
    }
    if home.expected() < limit {
        return seat.home;
    }
    let known = all().filter(|(index, shard)| seat.has(*index) && shard.expected() < limit);
    let known = known.min_by_key(|(_, shard)| weight(shard));
    let other = known.or_else(|| {
        let best = all().min_by_key(|(_, shard)| weight(shard));
        best.filter(|(_, shard)| shard.expected().saturating_add(MARGIN) <= home.expected())
    });
    other.map_or(seat.home, |(index, _)| index)
}

/// How a client reaches that shard.
pub(super) fn addresses(shards: &[Shard], index: ShardIndex) -> Option<MediaAddresses> {
    let known = &shard(shards, index)?.addresses;
    Some(known.read().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Clients that come from now on are told these, shard by shard.
pub(super) fn replace_addresses(shards: &[Shard], fresh: Vec<MediaAddresses>) {
    for (shard, fresh) in shards.iter().zip(fresh) {
        *shard.addresses.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

/// Looks at the shards until they are gone. Must be spawned where tokio's timers run.
pub(super) async fn watch(shards: std::sync::Weak<[Shard]>) {
    let mut measured: Vec<Measured> = Vec::new();
    let mut last = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(shards) = shards.upgrade() else { return };
        let passed = last.elapsed();
        last += passed;
        measured.resize_with(shards.len(), Measured::default);
        for (shard, measured) in shards.iter().zip(&mut measured) {
            measured.add(&shard.handle.counters(), passed);
            shard.look(measured);
        }
    }
}

/// Smoothed figures of one shard.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    busy_nanos: u64,
    datagrams: u64,
    share: f64,
    /// A second.
    packets: f64,
}

impl Measured {
    /// `counters` since start; `passed` since the call before.
    fn add(&mut self, counters: &IoSnapshot, passed: Duration) {
        let datagrams = counters.datagrams_received + counters.datagrams_sent;
        let seconds = passed.as_secs_f64().max(1e-3);
        let worked = counters.busy_nanos.saturating_sub(self.busy_nanos) as f64 / 1e9 / seconds;
        let packets = datagrams.saturating_sub(self.datagrams) as f64 / seconds;
        let share = worked.max(packets / FULL_PACKETS).min(1.0);
        self.share += (share - self.share) * SMOOTHING;
        self.packets += (packets - self.packets) * SMOOTHING;
        (self.busy_nanos, self.datagrams) = (counters.busy_nanos, datagrams);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::sync::mpsc;

    use super::*;
    use crate::io::{DatagramCore, SendBatch, ShardThread, ThreadConfig};
    use crate::media::edge::{Command, Event};
    use crate::types::NetPath;

    const SECOND: Duration = Duration::from_secs(1);

    struct Silent;

    impl DatagramCore for Silent {
        fn handle_command(&mut self, _now: Instant, _command: Command) {}
        fn handle_datagram(&mut self, _now: Instant, _path: NetPath, _datagram: &mut [u8]) {}
        fn handle_timeout(&mut self, _now: Instant) {}
        fn poll_transmit(&mut self, _now: Instant, _batch: &mut SendBatch) {}
        fn poll_event(&mut self) -> Option<Event> {
            None
        }
        fn poll_timeout(&self) -> Option<Instant> {
            None
        }
    }

    fn counters(busy_millis: u64, datagrams: u64) -> IoSnapshot {
        IoSnapshot {
            busy_nanos: busy_millis * 1_000_000,
            datagrams_sent: datagrams,
            ..IoSnapshot::default()
        }
    }

    #[test]
    fn a_shard_is_as_loaded_as_its_time_or_its_packets_say() {
        let (mut slow, mut starved) = (Measured::default(), Measured::default());
        for second in 1..=20 {
            slow.add(&counters(600 * second, 1000 * second), SECOND);
            starved.add(&counters(100 * second, 250_000 * second), SECOND);
        }
        assert!((slow.share - 0.6).abs() < 0.01, "{slow:?}");
        assert!((starved.share - 0.5).abs() < 0.01, "{starved:?}");
        assert!((slow.packets - 1000.0).abs() < 10.0);
        // It ends within a few looks.
        for _ in 0..10 {
            slow.add(&counters(12_000, 20_000), SECOND);
        }
        assert!(slow.share < 0.01, "{slow:?}");
    }

    /// Ends the threads with the test.
    struct Threads(Vec<Shard>);

    impl Drop for Threads {
        fn drop(&mut self) {
            self.0.iter().for_each(|shard| shard.handle.stop());
        }
    }

    fn shards(count: usize) -> Threads {
        let spawn = |_| {
            let (events, _) = mpsc::channel(1);
            let (handle, _) = ShardThread::spawn(ThreadConfig::default(), Vec::new(), events, |_| Silent).unwrap();
            Shard::new(handle, Vec::new(), Vec::new())
        };
        Threads((0..count).map(spawn).collect())
    }

    #[test]
    fn rooms_go_where_there_is_most_left_and_equals_share_them() {
        let Threads(shards) = &shards(3);
        let share = |at: usize, share: f64| {
            shards[at].look(&Measured {
                share,
                ..Measured::default()
            })
        };
        // Nobody works: by connections.
        let first: Vec<_> = (0..3)
            .map(|_| {
                let at = least_loaded(shards).0;
                (at, shards[usize::from(at)].occupy())
            })
            .collect();
        assert_eq!(first.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2]);
        // One connection may cost more than a hundred others.
        share(0, 0.5);
        share(1, 0.1);
        share(2, 0.3);
        let many: Vec<_> = (0..100).map(|_| shards[1].occupy()).collect();
        share(1, 0.1);
        assert_eq!(least_loaded(shards), ShardIndex(1));
        // Who has come since the last look is not lost sight of.
        let newcomers: Vec<_> = (0..120).map(|_| shards[1].occupy()).collect();
        assert_eq!(least_loaded(shards), ShardIndex(2));
        drop((many, newcomers, first));
        assert!(shards.iter().all(Shard::is_empty));
    }

    #[test]
    fn a_full_shard_s_rooms_go_over_to_others_and_stay_on_few() {
        let Threads(shards) = &shards(3);
        let loads = |loads: [f64; 3]| {
            for (shard, share) in shards.iter().zip(loads) {
                shard.look(&Measured {
                    share,
                    ..Measured::default()
                });
            }
        };
        let seat = Seat::new(ShardIndex(0));
        seat.set_span(&[ShardIndex(0)], false);
        let place = |spill: f64| for_participant(shards, &seat, spill).0;
        loads([0.6, 0.1, 0.2]);
        assert_eq!(place(0.7), 0);
        loads([0.8, 0.3, 0.2]);
        assert_eq!(place(0.7), 2, "the least loaded");
        let other = Seat::new(ShardIndex(0));
        assert!(seat.is_with(&other));
        seat.set_span(&[ShardIndex(0), ShardIndex(1)], false);
        assert!(!seat.is_with(&other) && !other.is_with(&seat));
        assert_eq!(place(0.7), 1, "which has the room already");
        seat.set_span(&[ShardIndex(0)], true);
        assert_eq!(place(0.7), 0, "what the room has is there only");
        seat.set_span(&[ShardIndex(0), ShardIndex(1)], false);
        loads([0.8, 0.9, 0.75]);
        assert_eq!(place(0.7), 0, "nowhere is much better");
        // Forced: in turns.
        let _one = shards[0].occupy();
        assert_eq!(place(0.0), 1);
        let _two = shards[1].occupy();
        assert_eq!(place(0.0), 2);
    }
}
