//! What waits for one reader of data: packets its channel would not take yet, and packets from before it had a channel.
//!
//! Owned by the data plane, one of each per participant. Packets are shared, so a waiting one costs a reference for each
//! reader, and its bytes once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::media::data::DataLink;
use crate::rtc::{ChannelId, SendDataError};
use crate::types::{DropReason, TransportHandle};

/// Bytes waiting behind a full reliable channel (which holds 128 KiB itself) from which on senders are held back.
const RELIABLE_BUDGET: usize = 128 * 1024;
/// Held-back senders go on when the reader is down to this.
const RELIABLE_CAUGHT_UP: usize = RELIABLE_BUDGET / 2;
/// Held-back senders may have one SCTP window each in flight already. A reader whose senders together exceed this is cut
/// at once: the memory of a room must not follow its slowest reader.
const RELIABLE_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes waiting behind a full lossy channel; the oldest packet is dropped first (`DataSlowReader`).
const LOSSY_BUDGET: usize = 64 * 1024;
/// What a queued packet costs beside its bytes: small packets must not pile up by the hundred thousand.
const PACKET_OVERHEAD: usize = 64;

/// LiveKit's bounds for participants that are still connecting: sequenced packets (which a client of the sender would
/// send again) for 2 s and 100 kB, oldest first to go; others, mostly the server's own, up to 100 kB, newest refused.
const PENDING_TIME: Duration = Duration::from_secs(2);
const PENDING_SEQUENCED: usize = 100_000;
const PENDING_OTHER: usize = 100_000;

/// Packets behind a full channel, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    packets: VecDeque<Bytes>,
    /// Packet bytes and overhead.
    size: usize,
}

impl Backlog {
    /// Sends now, or queues behind what waits already; the caller bounds what may wait.
    pub(super) fn send_or_wait(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        channel: ChannelId,
        packet: &Bytes,
    ) {
        if !self.packets.is_empty() || !Self::send(now, link, transport, channel, packet) {
            self.push(packet.clone());
        }
    }

    /// As `send_or_wait`, within the lossy budget.
    pub(super) fn send_or_drop_oldest(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        channel: ChannelId,
        packet: &Bytes,
    ) {
        self.send_or_wait(now, link, transport, channel, packet);
        while self.size > LOSSY_BUDGET && self.packets.len() > 1 {
            self.pop();
            link.count_drop(DropReason::DataSlowReader);
        }
    }

    /// Sends what the channel takes.
    pub(super) fn flush(
        &mut self,
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        channel: ChannelId,
    ) {
        while let Some(packet) = self.packets.front().cloned() {
            if !Self::send(now, link, transport, channel, &packet) {
                break;
            }
            self.pop();
        }
    }

    pub(super) fn is_over_budget(&self) -> bool {
        self.size > RELIABLE_BUDGET
    }

    pub(super) fn is_over_limit(&self) -> bool {
        self.size > RELIABLE_LIMIT
    }

    pub(super) fn has_caught_up(&self) -> bool {
        self.size <= RELIABLE_CAUGHT_UP
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn push(&mut self, packet: Bytes) {
        self.size += packet.len() + PACKET_OVERHEAD;
        self.packets.push_back(packet);
    }

    fn pop(&mut self) -> Option<Bytes> {
        let packet = self.packets.pop_front()?;
        self.size -= packet.len() + PACKET_OVERHEAD;
        Some(packet)
    }

    /// False when the packet has to wait. One that can never be sent is counted and done with.
    fn send(
        now: Instant,
        link: &mut impl DataLink,
        transport: TransportHandle,
        channel: ChannelId,
        packet: &[u8],
    ) -> bool {
        match link.send_data(now, transport, channel, true, packet) {
            Ok(()) => true,
            Err(SendDataError::Full) => false,
            Err(SendDataError::Closed) => {
                link.count_drop(DropReason::Disabled);
                true
            }
            Err(SendDataError::TooLarge) => {
                link.count_drop(DropReason::TooLarge);
                true
            }
        }
    }
}

/// Reliable packets for a participant that has no open channel yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    packets: VecDeque<PendingPacket>,
    sequenced_bytes: usize,
    other_bytes: usize,
}

#[derive(Debug)]
struct PendingPacket {
    at: Instant,
    sequenced: bool,
    packet: Bytes,
}

impl Pending {
    pub(super) fn push(&mut self, now: Instant, link: &mut impl DataLink, sequenced: bool, packet: &Bytes) {
        let cost = packet.len() + PACKET_OVERHEAD;
        if sequenced {
            self.sequenced_bytes += cost;
        } else if self.other_bytes + cost > PENDING_OTHER {
            return link.count_drop(DropReason::QueueFull);
        } else {
            self.other_bytes += cost;
        }
        self.packets.push_back(PendingPacket {
            at: now,
            sequenced,
            packet: packet.clone(),
        });
        let mut excess = self.sequenced_bytes.saturating_sub(PENDING_SEQUENCED);
        let mut freed = 0;
        self.packets.retain(|waiting| {
            let expired = now.saturating_duration_since(waiting.at) > PENDING_TIME;
            let dropped = waiting.sequenced && (excess > 0 || expired);
            if dropped {
                let cost = waiting.packet.len() + PACKET_OVERHEAD;
                excess = excess.saturating_sub(cost);
                freed += cost;
                link.count_drop(DropReason::DataSlowReader);
            }
            !dropped
        });
        self.sequenced_bytes -= freed;
    }

    /// What is still worth sending, in order.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Bytes> {
        let fresh =
            |waiting: &PendingPacket| !waiting.sequenced || now.saturating_duration_since(waiting.at) <= PENDING_TIME;
        std::mem::take(self)
            .packets
            .into_iter()
            .filter(fresh)
            .map(|waiting| waiting.packet)
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}
