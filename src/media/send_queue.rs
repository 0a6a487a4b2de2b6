//! What waits to leave on a transport, by class, and how much of it may leave now.
//!
//! Owned by a `MediaTransport`, driven by `pacer::Release`. Holds descriptors, never bytes. A voice never waits; then come
//! retransmissions, then video; probes fill what is left. A transport with room to spare never holds anything: what was
//! queued in a turn leaves in that turn.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::beside::{Beside, Share};
use super::estimator::SendingRate;
use super::pacer::Descriptor;
use super::pacing::{PROBE_QUANTUM, Pacing, QUANTUM};
use super::repairs::InFlight;
use super::slots::Slot;
use crate::types::{Bitrate, MAX_DATAGRAM};

/// Packets leave at this part of the estimate, which lies a little below what the path carries. More, and a key frame of
/// half a second makes a voice wait in the path's queue instead of here, where it overtakes; less, and it comes late.
const PACE: f64 = 1.05;
/// Before the first feedback: a first picture should not wait for an estimate that nobody has tested. A key frame of
/// 60 kB takes 100 ms.
const INITIAL_PACE: Bitrate = Bitrate(5_000_000);
/// What a turn may send when nothing waits, as time at the pacing rate: an ordinary frame leaves as one GSO send, and of a
/// large one so much.
const BYPASS: Duration = Duration::from_millis(20);
/// The same where reports show that nothing waits on the path. libwebrtc's own pacer lets as much go at once.
const CALM_BYPASS: Duration = Duration::from_millis(40);
/// Packets that wait for less on the path are no queue: timers and turns of both ends.
const CALM: Duration = Duration::from_millis(10);
/// No picture is worth waiting for longer: the subscription is cut, and begins again at its next key frame.
pub const MAX_DELAY: Duration = Duration::from_millis(500);
/// But so few packets are let wait: a key frame of the lowest layer, which on a slow path would be cut every time.
const FEW_PACKETS: usize = 6;
/// Subscriptions that are told apart when the queue is too long; the owner of most of it is among the first that have
/// something in it.
const MAX_OWNERS: usize = 32;
/// Retransmissions that wait; the newest is dropped, and asked for again if it still matters.
const MAX_REPAIRS: usize = 256;
/// First guess of a packet's size, sealed.
const PACKET: f64 = 1150.0;
/// Weight of a new size in the mean.
const SIZE_WEIGHT: f64 = 0.02;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Voice, and the server's own few packets.
    Prompt,
    Repair,
    Video,
}

/// How fast, at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub rate: Bitrate,
    quantum: Duration,
    /// What may leave at once when nothing waits.
    bypass: Duration,
    is_probe: bool,
}

impl Pace {
    /// None = nothing is known that would limit the transport.
    pub fn of(sending: &SendingRate) -> Option<Self> {
        let estimate = sending.estimate()?;
        let steady = Bitrate((estimate.0 as f64 * PACE) as u64);
        let steady = if sending.is_initial() {
            steady.max(INITIAL_PACE)
        } else {
            steady
        };
        let is_calm = !sending.is_initial() && sending.queue_delay() < CALM;
        let bypass = if is_calm { CALM_BYPASS } else { BYPASS };
        Some(match sending.probe() {
            Some(probe) => Self {
                rate: probe.max(steady),
                quantum: PROBE_QUANTUM,
                bypass,
                is_probe: true,
            },
            None => Self {
                rate: steady,
                quantum: QUANTUM,
                bypass,
                is_probe: false,
            },
        })
    }
}

#[derive(Debug)]
pub struct SendQueue {
    repairs: VecDeque<Descriptor>,
    video: VecDeque<Descriptor>,
    pacing: Pacing,
    /// Mean size of a packet, in bytes.
    packet: f64,
    release_at: Option<Instant>,
    /// The video packet sent last that can be sent again as RTX: what probes are made of.
    newest: Option<(Slot, u64)>,
    fills: u64,
    pub budget: RepairBudget,
    /// What nothing is known of yet.
    pub in_flight: InFlight,
    /// So much is lost lately that all video is watched, not only retransmissions.
    pub is_lossy: bool,
    /// When something was last known to be lost.
    pub last_loss: Option<Instant>,
    pub beside: Beside,
    /// Of data packets alone.
    data: Pacing,
    data_at: Option<Instant>,
}

impl SendQueue {
    pub fn new(now: Instant) -> Self {
        Self {
            repairs: VecDeque::new(),
            video: VecDeque::new(),
            pacing: Pacing::new(now),
            packet: PACKET,
            release_at: None,
            newest: None,
            fills: 0,
            budget: RepairBudget::default(),
            in_flight: InFlight::default(),
            is_lossy: false,
            last_loss: None,
            beside: Beside::new(now),
            data: Pacing::new(now),
            data_at: None,
        }
    }

    pub fn len(&self) -> usize {
        self.repairs.len() + self.video.len()
    }

    pub fn is_empty(&self) -> bool {
        self.repairs.is_empty() && self.video.is_empty()
    }

    pub fn clear(&mut self) {
        self.repairs.clear();
        self.video.clear();
        self.in_flight.clear();
        self.release_at = None;
        self.data_at = None;
    }

    /// When the transport is to be released again though nothing comes in.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.release_at, self.data_at].into_iter().flatten().min()
    }

    /// Bytes of data packets that may leave now at `rate`. `waits`: some do.
    pub fn data_room(&mut self, now: Instant, rate: Bitrate, waits: bool) -> usize {
        self.data.settle(now, rate, waits);
        self.data.room(rate, QUANTUM).max(0.0) as usize
    }

    /// So many bytes of data have left at `rate`, and more wait or not.
    pub fn handle_data(&mut self, size: usize, rate: Bitrate, waits: bool, earliest: Instant) {
        self.data.spend(size);
        self.data_at = waits.then(|| self.data.ready_at(rate).max(earliest));
    }

    /// Of a video packet, as was sent lately: bytes.
    pub fn packet_size(&self) -> usize {
        self.packet as usize
    }

    /// How long what waits will take to leave.
    pub fn delay(&self, rate: Bitrate) -> Duration {
        self.time_for(self.len(), rate)
    }

    fn time_for(&self, packets: usize, rate: Bitrate) -> Duration {
        Duration::from_secs_f64(packets as f64 * self.packet * 8.0 / rate.0.max(1) as f64)
    }

    /// Sorts what was queued in this turn, and leaves in `queued` what leaves now, in order. Returns how many
    /// retransmissions found no place.
    pub fn admit(
        &mut self,
        now: Instant,
        pace: Pace,
        queued: &mut Vec<Descriptor>,
        scratch: &mut Vec<Descriptor>,
        class: impl Fn(&Descriptor) -> Class,
        size: impl Fn(&Descriptor) -> Option<usize>,
    ) -> usize {
        let waits = !self.is_empty();
        // A probe that is under way waits too, though nothing is queued.
        self.pacing.settle(now, pace.rate, waits || self.release_at.is_some());
        let size = |descriptor: &Descriptor| size(descriptor).map_or(PACKET, |size| size as f64);
        let bypasses = !waits && !pace.is_probe && self.pacing.room(pace.rate, QUANTUM) > 0.0;
        let mut room = self
            .pacing
            .room(pace.rate, if bypasses { pace.bypass } else { pace.quantum });
        if bypasses {
            // None is larger than a datagram can be: mostly that is all there is to know.
            let most = (queued.len() * MAX_DATAGRAM) as f64;
            if most <= room || queued.iter().map(&size).sum::<f64>() <= room {
                return 0;
            }
        }
        scratch.clear();
        let mut refused = 0;
        for descriptor in queued.drain(..) {
            match class(&descriptor) {
                Class::Prompt => {
                    room -= size(&descriptor);
                    scratch.push(descriptor);
                }
                Class::Repair if self.repairs.len() >= MAX_REPAIRS => refused += 1,
                Class::Repair => self.repairs.push_back(descriptor),
                Class::Video => self.video.push_back(descriptor),
            }
        }
        while room > 0.0
            && let Some(descriptor) = self.repairs.pop_front().or_else(|| self.video.pop_front())
        {
            room -= size(&descriptor);
            scratch.push(descriptor);
        }
        queued.append(scratch); // not swapped: each list keeps the memory that its transport needs
        refused
    }

    /// Nothing limits the transport any more: everything leaves, before what was queued in this turn.
    pub fn drain_into(&mut self, queued: &mut Vec<Descriptor>) {
        if !self.is_empty() {
            let waited = self.repairs.drain(..).chain(self.video.drain(..));
            queued.splice(0..0, waited);
        }
    }

    /// Whose video is to be cut because too much waits, and the last of its numbers here: what alone is too much; else the
    /// least important, of equals that of which most waits.
    pub fn overflow<R: Ord>(&self, rate: Bitrate, importance: impl Fn(Slot) -> R) -> Option<(Slot, u64)> {
        if self.len() <= FEW_PACKETS || self.delay(rate) <= MAX_DELAY {
            return None;
        }
        let mut owners = [None; MAX_OWNERS];
        for descriptor in &self.video {
            let (owner, sequence) = (descriptor.subscription, descriptor.sequence_out);
            let place = owners.iter_mut().find(|place| match place {
                Some((known, _, _)) => *known == owner,
                None => true,
            });
            if let Some(place) = place {
                let (_, packets, newest) = place.get_or_insert((owner, 0usize, sequence));
                *packets += 1;
                *newest = sequence.max(*newest);
            }
        }
        let owners = || owners.iter().flatten();
        let alone = |packets: usize| packets > FEW_PACKETS && self.time_for(packets, rate) > MAX_DELAY;
        let most = owners().max_by_key(|(_, packets, _)| *packets);
        let least = || owners().min_by_key(|(owner, packets, _)| (importance(*owner), std::cmp::Reverse(*packets)));
        let cut = most.filter(|(_, packets, _)| alone(*packets)).or_else(least);
        cut.map(|(owner, _, newest)| (*owner, *newest))
    }

    /// Forgets what waits of a subscription, retransmissions too; how many packets.
    pub fn cut(&mut self, subscription: Slot) -> usize {
        let before = self.len();
        self.video.retain(|descriptor| descriptor.subscription != subscription);
        self.repairs
            .retain(|descriptor| descriptor.subscription != subscription);
        before - self.len()
    }

    /// A packet has left, or anything else that shares the path: `size` bytes of UDP payload.
    pub fn spend(&mut self, share: Share, size: usize) {
        self.pacing.spend(size);
        self.beside.handle_sent(share, size);
    }

    /// A video packet has left.
    pub fn handle_video(&mut self, subscription: Slot, sequence_out: u64, size: usize, is_repairable: bool) {
        self.packet += (size as f64 - self.packet) * SIZE_WEIGHT;
        if is_repairable {
            self.newest = Some((subscription, sequence_out));
        }
    }

    /// Whether a probe packet is to leave now.
    pub fn wants_fill(&self, pace: Pace) -> bool {
        pace.is_probe && self.is_empty() && self.pacing.room(pace.rate, pace.quantum) > 0.0
    }

    /// What to fill a probe with: a subscription, and the number of one of its last packets.
    pub fn fill(&mut self) -> Option<(Slot, u64)> {
        /// Older ones leave the ring sooner or later.
        const SPAN: u64 = 16;
        let (subscription, newest) = self.newest?;
        self.fills += 1;
        Some((subscription, newest.saturating_sub(self.fills % SPAN)))
    }

    /// A turn is over: when the next release is due.
    pub fn plan(&mut self, now: Instant, pace: Option<Pace>, min_delay: Duration) {
        let waits = |pace: &Pace| pace.is_probe || !self.is_empty();
        self.release_at = pace
            .filter(waits)
            .map(|pace| self.pacing.ready_at(pace.rate).max(now + min_delay));
    }
}

/// Bytes that retransmissions may take: a share of what is sent, which grows with loss.
#[derive(Debug)]
pub struct RepairBudget {
    bytes: f64,
    /// Sent since `bytes` was reckoned.
    sent: u64,
}

impl Default for RepairBudget {
    fn default() -> Self {
        Self {
            bytes: Self::MAX * 0.75,
            sent: 0,
        }
    }
}

impl RepairBudget {
    /// What can be saved up: it bridges the second that passes before a sudden loss is known for what it is (0.3 of
    /// 1.8 Mbit/s).
    const MAX: f64 = 65_536.0;
    /// Half of it is for the first copies on a path that is not congested, where they do not make the queue longer.
    pub const RESERVE: f64 = Self::MAX / 2.0;
    const SHARE: f64 = 0.2;
    /// Loss up to which `SHARE` is enough.
    const LOW_LOSS: f64 = 0.1;
    /// Beyond: what it takes to replace everything lost, lost retransmissions included, and half as much again.
    const FACTOR: f64 = 1.5;
    const MAX_SHARE: f64 = 1.5;

    /// Media was sent for the first time.
    pub fn earn(&mut self, size: usize) {
        self.sent += size as u64;
    }

    /// Whether a retransmission of `size` bytes may be sent, `reserve` of the budget left alone; counts it if so. `loss` is
    /// 0.0..=1.0.
    pub fn take(&mut self, size: usize, loss: f64, reserve: f64) -> bool {
        let share = if loss < Self::LOW_LOSS {
            Self::SHARE
        } else {
            (Self::FACTOR * loss / (1.0 - loss).max(0.01)).clamp(Self::SHARE, Self::MAX_SHARE)
        };
        self.bytes = (self.bytes + std::mem::take(&mut self.sent) as f64 * share).min(Self::MAX);
        let affordable = self.bytes - reserve >= size as f64;
        if affordable {
            self.bytes -= size as f64;
        }
        affordable
    }
}

#[cfg(test)]
mod tests;
