//! What a room may reach beyond itself while it handles one input: the transports it sends on, timers, events, counters.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::edge::Event;
use super::pacer::{Descriptor, MAX_QUEUED};
use super::relay::Relays;
use super::slots::{Slot, Slots};
use super::stats::ShardStats;
use super::timers::{TimerId, Timers};
use super::transport::MediaTransport;
use crate::rtp::rtcp;
use crate::types::{DataTrackHandle, DropReason, RoomHandle, SubscriptionHandle, TrackHandle, TransportHandle};

/// Events that wait for `poll_event`. They follow commands and first packets, so a driver that polls after every turn
/// never sees a tenth of it; beyond, coalesced ones (levels, quality) are dropped and edges are still taken.
const MAX_EVENTS: usize = 65_536;

/// Descriptors that room is made for at least, 1 KiB: what a frame and a few voices take.
const FIRST_QUEUED: usize = 32;

/// The resolution of timers: epoll's.
pub const MIN_DELAY: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub struct Events {
    queue: VecDeque<Event>,
}

impl Events {
    pub fn push(&mut self, event: Event) {
        let repeated = matches!(
            event,
            Event::Speakers { .. } | Event::Quality { .. } | Event::DataSequence { .. }
        );
        if self.queue.len() < MAX_EVENTS || !repeated {
            self.queue.push_back(event);
        }
    }

    pub fn pop(&mut self) -> Option<Event> {
        self.queue.pop_front()
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerKey {
    Transport(Slot),
    /// The bandwidth of a transport.
    Allocation(Slot),
    Room(Slot),
    Track {
        room: Slot,
        track: Slot,
    },
    Subscription {
        room: Slot,
        subscription: Slot,
    },
}

/// Transports with something to send, each at most once (`MediaTransport::is_dirty`).
#[derive(Debug, Default)]
pub struct Dirty {
    pub slots: Vec<Slot>,
}

impl Dirty {
    pub fn mark(&mut self, slot: Slot, transport: &mut MediaTransport) {
        if !transport.is_dirty {
            transport.is_dirty = true;
            self.slots.push(slot);
        }
    }
}

/// Something inside a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub room: Slot,
    pub slot: Slot,
}

/// What commands name, resolved once per command; packets are led by slots.
#[derive(Debug, Default)]
pub struct Index {
    pub rooms: HashMap<RoomHandle, Slot>,
    pub transports: HashMap<TransportHandle, Slot>,
    pub tracks: HashMap<TrackHandle, Place>,
    pub subscriptions: HashMap<SubscriptionHandle, Place>,
    /// Their rooms.
    pub data_tracks: HashMap<DataTrackHandle, Slot>,
}

/// Borrowed parts of the shard, for one call into a room.
pub struct Outside<'a> {
    pub now: Instant,
    /// When the datagram in hand came; only for its own handling.
    pub arrival: Instant,
    /// Each value is used once: first sequence numbers.
    pub seed: &'a mut u64,
    pub transports: &'a mut Slots<MediaTransport>,
    pub timers: &'a mut Timers<TimerKey>,
    pub events: &'a mut Events,
    pub stats: &'a mut ShardStats,
    pub dirty: &'a mut Dirty,
    pub index: &'a mut Index,
    /// Transports whose protocols the room has called, each at most once (`MediaTransport::is_touched`): their events and
    /// deadlines are looked at when the room's turn is over.
    pub touched: &'a mut Vec<Slot>,
    /// Rooms where packets wait to be forwarded, each at most once (`Fanout::is_pending`).
    pub pending: &'a mut Vec<Slot>,
    /// What goes to other shards.
    pub relays: &'a mut Relays,
    /// The room's data waits for a way to another shard.
    pub waits_for_way: bool,
}

impl Outside<'_> {
    /// Queues one packet for `poll_transmit`.
    pub fn queue(&mut self, transport: Slot, descriptor: Descriptor) {
        let result = match self.transports.get_mut(transport) {
            Some(target) if !target.is_connected => Err(DropReason::Disabled),
            Some(target) if target.queue.len() + target.waiting.len() >= MAX_QUEUED => Err(DropReason::QueueFull),
            Some(target) => {
                if target.queue.len() == target.queue.capacity() {
                    target.queue.reserve(FIRST_QUEUED);
                }
                target.queue.push(descriptor);
                self.dirty.mark(transport, target);
                Ok(())
            }
            None => Err(DropReason::Disabled),
        };
        if let Err(reason) = result {
            self.stats.count_drop(reason);
        }
    }

    /// Appends RTCP packets to what leaves in this turn's `poll_transmit`.
    pub fn rtcp(&mut self, transport: Slot, write: impl FnOnce(&mut rtcp::Writer<'_>) -> Result<(), DropReason>) {
        let Some(target) = self.transports.get_mut(transport) else {
            return;
        };
        if !target.is_connected {
            return;
        }
        match target.rtcp.append(write) {
            Ok(()) => self.dirty.mark(transport, target),
            Err(reason) => self.stats.count_drop(reason),
        }
    }

    /// Never for this very turn: what is due again at once is served in the next, so that no input can keep a turn busy.
    pub fn arm(&mut self, timer: TimerId, at: Option<Instant>) {
        if let Some(at) = at {
            self.timers.arm_at_latest(timer, at.max(self.now + MIN_DELAY));
        }
    }

    /// SplitMix64: distinct, well-spread values from one seed.
    pub fn next_seed(&mut self) -> u64 {
        *self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
