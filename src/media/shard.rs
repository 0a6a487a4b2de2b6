//! One media thread's whole state: its transports, its rooms, their timers.
//!
//! Owns everything that forwards; driven by `io`'s shard thread or by a test (see [`Shard`] for the calls). Contains panics
//! at two boundaries (DESIGN D10): one transport's protocols, one room's turn.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::beside::Share;
use super::edge::{Command, Event};
use super::fanout::Fanout;
use super::outside::{Dirty, Events, Index, MIN_DELAY, Outside, TimerKey};
use super::pacer::{Descriptor, Release};
use super::relay::frame::Frames;
use super::relay::{RelayLink, Relays};
use super::slots::{Slot, Slots};
use super::speakers::SpeakerSettings;
use super::stats::ShardStats;
use super::timers::Timers;
use super::transport::{MAX_FLOWS, MediaTransport};
use crate::rtc::{self, DtlsIdentity, PacketKind, Received, TransportEvent};
use crate::types::{Batch, CloseReason, DropReason, NetPath, RoomHandle, ShardIndex, WallClock};

mod commands;

/// What a shard is given at its start.
#[derive(Clone)]
pub struct ShardConfig {
    /// The addresses it is reached at: ICE host candidates.
    pub addresses: Vec<SocketAddr>,
    pub identity: DtlsIdentity,
    /// Of first sequence numbers.
    pub seed: u64,
    pub wall: WallClock,
    /// Pads video by at most one byte, so that the packets of a frame are of one size and leave as one GSO send
    /// (DESIGN D6).
    pub pad_for_gso: bool,
    pub speakers: SpeakerSettings,
    /// How long a connected peer may be silent before its transport is given up; see `rtc::Transport::set_patience`.
    pub patience: Duration,
    /// Which one it is of its process. `wall` must be the same for all of them.
    pub index: ShardIndex,
}

impl ShardConfig {
    pub fn new(addresses: Vec<SocketAddr>, identity: DtlsIdentity, seed: u64, wall: WallClock) -> Self {
        Self {
            addresses,
            identity,
            seed,
            wall,
            pad_for_gso: true,
            speakers: SpeakerSettings::default(),
            patience: Duration::ZERO,
            index: ShardIndex(0),
        }
    }
}

/// How many of each thing a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    pub rooms: usize,
    pub transports: usize,
    pub tracks: usize,
    pub subscriptions: usize,
    /// 5-tuples that lead to a transport.
    pub flows: usize,
    pub timers: usize,
}

/// The sans-IO core of a media thread.
///
/// Call order: any number of `handle_*`, then `poll_transmit` once, `poll_relay` once where there are other shards, then
/// `poll_event` until None, then `poll_timeout` (an instant in the past = call `handle_timeout` now). `now` must never go
/// back. Nothing that was forwarded leaves before `poll_transmit`.
pub struct Shard {
    config: ShardConfig,
    seed: u64,
    pub(super) transports: Slots<MediaTransport>,
    pub(super) rooms: Slots<Fanout>,
    /// The transport behind a 5-tuple, learned from its STUN. Peers choose the keys: the standard keyed hash.
    flows: HashMap<NetPath, Slot>,
    /// Our ufrags.
    ufrags: HashMap<String, Slot>,
    pub(super) index: Index,
    timers: Timers<TimerKey>,
    events: Events,
    dirty: Dirty,
    pub(super) stats: ShardStats,
    /// See `Outside::touched`.
    touched: Vec<Slot>,
    /// See `Outside::pending`.
    pending: Vec<Slot>,
    is_settling: bool,
    /// Reused by every release.
    sizes: Vec<u16>,
    /// Of the datagram in hand.
    arrival: Instant,
    ready: Vec<Descriptor>,
    relays: Relays,
}

impl Shard {
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Self {
            seed: config.seed,
            relays: Relays::new(config.index, config.wall),
            config,
            transports: Slots::default(),
            rooms: Slots::default(),
            flows: HashMap::new(),
            ufrags: HashMap::new(),
            index: Index::default(),
            timers: Timers::default(),
            events: Events::default(),
            dirty: Dirty::default(),
            stats: ShardStats::default(),
            touched: Vec::new(),
            pending: Vec::new(),
            is_settling: false,
            sizes: Vec::new(),
            arrival: now,
            ready: Vec::new(),
        }
    }

    pub fn handle_command(&mut self, now: Instant, command: Command) {
        if self.apply(now, command).is_none() {
            self.stats.count_drop(DropReason::StaleCommand);
        }
    }

    /// One datagram as it arrived; it is opened in place. `path.local` is the address it arrived on.
    pub fn handle_datagram(&mut self, now: Instant, path: NetPath, datagram: &mut [u8]) {
        self.handle_arrival(now, now, path, datagram);
    }

    /// As `handle_datagram`; `arrival` is when it came, as precise as is known, and may lie on either side of `now`:
    /// publishers' own estimates are made of it.
    pub fn handle_arrival(&mut self, now: Instant, arrival: Instant, path: NetPath, datagram: &mut [u8]) {
        self.arrival = arrival;
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += datagram.len() as u64;
        if let Err(reason) = self.receive(now, path, datagram) {
            self.stats.count_drop(reason);
        }
    }

    fn receive(&mut self, now: Instant, path: NetPath, datagram: &mut [u8]) -> Result<(), DropReason> {
        let kind = rtc::classify(datagram)?;
        let slot = self.route(kind, path, datagram)?;
        let transport = self.transports.get_mut(slot).ok_or(DropReason::UnknownPath)?;
        let room = transport.room;
        let opened = contain(|| {
            #[cfg(test)]
            assert!(!transport.panics, "asked for by a test");
            transport.rtc.handle_datagram(now, path, datagram)
        });
        let Some(opened) = opened else {
            self.transport_panicked(now, slot);
            return Err(DropReason::Malformed);
        };
        match opened {
            Ok(Received::Consumed) => {
                if kind == PacketKind::Stun {
                    self.learn_flow(path, slot);
                }
                self.after_input(now, slot);
                Ok(())
            }
            Ok(Received::Rtp(packet)) => {
                self.stats.rtp_received += 1;
                let result = self.with_packet(now, room, |fanout, outside| fanout.on_rtp(outside, slot, packet));
                if self.is_shown(slot) {
                    self.show_rtp(now, slot, packet);
                }
                result.unwrap_or(Ok(()))
            }
            Ok(Received::Rtcp(compound)) => {
                self.stats.rtcp_received += 1;
                self.with_packet(now, room, |fanout, outside| fanout.on_rtcp(outside, slot, compound));
                if self.is_shown(slot) {
                    self.show_reports(slot);
                }
                Ok(())
            }
            Err(reason) => {
                self.after_input(now, slot); // a broken handshake closes the transport
                Err(reason)
            }
        }
    }

    fn is_shown(&self, transport: Slot) -> bool {
        let its = self.transports.get(transport);
        its.is_some_and(|transport| !transport.showings.is_empty())
    }

    /// A connectivity check names its transport, everything else comes where a check came from.
    fn route(&self, kind: PacketKind, path: NetPath, datagram: &[u8]) -> Result<Slot, DropReason> {
        if kind == PacketKind::Stun
            && let Some(ufrag) = rtc::stun_local_ufrag(datagram)
        {
            return self.ufrags.get(ufrag).copied().ok_or(DropReason::UnknownUfrag);
        }
        self.flows.get(&path).copied().ok_or(DropReason::UnknownPath)
    }

    fn learn_flow(&mut self, path: NetPath, slot: Slot) {
        self.flows.insert(path, slot);
        let Some(transport) = self.transports.get_mut(slot) else {
            return;
        };
        transport.flows.retain(|known| *known != path);
        transport.flows.push(path);
        if transport.flows.len() > MAX_FLOWS {
            // LiveKit/Firefox: a full agent and its peer check every pair of addresses, again and again. The path that
            // media takes must outlive that: its own next check is seconds away.
            let in_use = transport.rtc.path();
            let oldest = transport.flows.iter().position(|known| Some(*known) != in_use);
            let oldest = transport.flows.remove(oldest.unwrap_or_default());
            if self.flows.get(&oldest) == Some(&slot) {
                self.flows.remove(&oldest);
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.timers.pop_due(now) {
            match key {
                TimerKey::Transport(slot) => self.transport_timeout(now, slot),
                TimerKey::Allocation(slot) => self.allocation_timeout(now, slot),
                TimerKey::Room(room) => {
                    self.in_room(now, room, |fanout, outside| fanout.room_timeout(outside));
                }
                TimerKey::Track { room, track } => {
                    self.in_room(now, room, |fanout, outside| fanout.track_timeout(outside, track));
                }
                TimerKey::Subscription { room, subscription } => {
                    self.in_room(now, room, |fanout, outside| {
                        fanout.subscription_timeout(outside, subscription);
                    });
                }
            }
        }
    }

    fn transport_timeout(&mut self, now: Instant, slot: Slot) {
        let Some(transport) = self.transports.get_mut(slot) else {
            return;
        };
        let room = transport.room;
        if transport.waiting.poll_timeout().is_some_and(|at| at <= now) {
            self.dirty.mark(slot, transport);
            let (timer, deadline) = (transport.timer, transport.deadline_beside_release());
            if deadline.is_none_or(|at| at > now) {
                // Most of the time only packets are due; the release arms the timer for the next.
                return self.outside(now).arm(timer, deadline);
            }
        }
        let due = transport.rtc.poll_timeout().is_some_and(|at| at <= now);
        if due && contain(|| transport.rtc.handle_timeout(now)).is_none() {
            return self.transport_panicked(now, slot);
        }
        if transport.sending_rate.poll_timeout().is_some_and(|at| at <= now) {
            transport.sending_rate.handle_timeout(now);
        }
        self.in_room(now, room, |fanout, outside| {
            fanout.report_to_publisher(outside, slot);
            fanout.estimate_changed(outside, slot);
        });
        self.after_input(now, slot);
    }

    fn allocation_timeout(&mut self, now: Instant, slot: Slot) {
        if let Some(room) = self.transports.get(slot).map(|transport| transport.room) {
            self.in_room(now, room, |fanout, outside| fanout.allocate(outside, slot));
        }
    }

    /// Events and deadline of a transport whose protocols have run.
    fn after_input(&mut self, now: Instant, slot: Slot) {
        while let Some(event) = self
            .transports
            .get_mut(slot)
            .and_then(|transport| transport.rtc.poll_event())
        {
            self.on_transport_event(now, slot, event);
        }
        let Some(transport) = self.transports.get_mut(slot) else {
            return;
        };
        self.dirty.mark(slot, transport);
        let (timer, deadline) = (transport.timer, transport.deadline());
        self.outside(now).arm(timer, deadline);
    }

    fn on_transport_event(&mut self, now: Instant, slot: Slot, event: TransportEvent) {
        let Some(transport) = self.transports.get_mut(slot) else {
            return;
        };
        match event {
            TransportEvent::Connected { profile } => {
                transport.is_connected = true;
                transport.profile = Some(profile);
                if let Some(path) = transport.rtc.path() {
                    self.events.push(Event::TransportConnected {
                        transport: transport.handle,
                        srtp_profile: profile,
                        remote: path.remote,
                        protocol: path.protocol,
                    });
                }
                let room = transport.room;
                self.in_room(now, room, |fanout, outside| fanout.transport_connected(outside, slot));
            }
            TransportEvent::Silent => {
                transport.is_connected = false;
                transport.queue.clear();
                transport.waiting.clear();
                transport.rtcp.clear();
                let (room, transport) = (transport.room, transport.handle);
                self.events.push(Event::TransportSilent {
                    transport,
                    silent: true,
                });
                self.in_room(now, room, |fanout, outside| fanout.transport_silent(outside, slot));
            }
            TransportEvent::Heard => {
                transport.is_connected = true;
                // Nothing has come for longer than consent lasts; what was sent into that says nothing of what there is now.
                transport.sending_rate.restart(now);
                let (room, transport) = (transport.room, transport.handle);
                let back = Event::TransportSilent {
                    transport,
                    silent: false,
                };
                self.events.push(back);
                self.in_room(now, room, |fanout, outside| fanout.transport_connected(outside, slot));
            }
            TransportEvent::Closed(reason) => {
                let reason = transport.close_reason.unwrap_or(reason);
                self.detach(now, slot, reason);
            }
            event => {
                let room = transport.room;
                self.in_room(now, room, |fanout, outside| {
                    fanout.on_channel_event(outside, slot, event)
                });
            }
        }
    }

    /// Writes everything that leaves in this turn, grouped by transport: handshakes first, then RTCP, then media.
    pub fn poll_transmit(&mut self, now: Instant, batch: &mut impl Batch) {
        self.forward_pending(now);
        let mut slots = std::mem::take(&mut self.dirty.slots);
        for slot in slots.drain(..) {
            let Some(transport) = self.transports.get_mut(slot) else {
                continue;
            };
            transport.is_dirty = false;
            let now = batch.departure(now);
            let room = self.rooms.get_mut(transport.room);
            let mut release = Release {
                now,
                wall: self.config.wall,
                pad: self.config.pad_for_gso,
                stats: &mut self.stats,
                events: &mut self.events,
                sizes: &mut self.sizes,
                ready: &mut self.ready,
            };
            let mut sent_to = Vec::new(); // allocates for a full agent's checks only
            let flushed = contain(|| {
                transport.release_data(now);
                let refused = transport.rtc.take_refused_data();
                release.stats.count_drops(DropReason::QueueFull, refused);
                while let Some((path, datagram)) = transport.rtc.poll_transmit() {
                    if transport.learns_from_sent {
                        sent_to.push(path);
                    }
                    let target = batch.slot();
                    if let Some(target) = target.get_mut(..datagram.len()) {
                        target.copy_from_slice(&datagram);
                        batch.commit(path, datagram.len());
                        transport.waiting.spend(Share::Other, datagram.len());
                        transport.sending_rate.handle_beside(now, datagram.len());
                        release.stats.bytes_sent += datagram.len() as u64;
                    }
                }
                send_rtcp(now, transport, release.stats, batch);
                if let Some(fanout) = room {
                    release.run(fanout, transport, batch);
                }
            });
            let is_closed = transport.is_closed;
            let deadlines = [transport.sending_rate.poll_timeout(), transport.waiting.poll_timeout()];
            if let Some(at) = deadlines.into_iter().flatten().min() {
                self.timers.arm_at_latest(transport.timer, at.max(now + MIN_DELAY));
            }
            for path in sent_to {
                // The answer to a check of ours comes before any check of the peer's.
                if !self.flows.contains_key(&path) {
                    self.learn_flow(path, slot);
                }
            }
            if flushed.is_none() {
                self.transport_panicked(now, slot);
            } else if is_closed {
                self.forget_transport(slot);
            }
        }
        if self.dirty.slots.is_empty() {
            self.dirty.slots = slots; // keeps its memory
        }
    }

    fn forward_pending(&mut self, now: Instant) {
        let mut pending = std::mem::take(&mut self.pending);
        for room in pending.drain(..) {
            self.in_room(now, room, |fanout, _| fanout.is_pending = false);
        }
        if self.pending.is_empty() {
            self.pending = pending; // keeps its memory
        }
    }

    /// A batch that another shard's `poll_relay` has sent. Commands that were queued before come first.
    pub fn handle_relay(&mut self, now: Instant, from: ShardIndex, batch: &[u8]) {
        for frame in Frames(batch) {
            let (room, frame) = match frame {
                Ok(frame) => frame,
                Err(reason) => {
                    self.stats.count_drop(reason);
                    continue;
                }
            };
            match self.index.rooms.get(&room) {
                Some(slot) => {
                    self.in_room(now, *slot, |fanout, outside| fanout.on_relay(outside, from, frame));
                }
                None => self.stats.count_drop(DropReason::StaleCommand),
            }
        }
    }

    /// Sends what waits for other shards. True: a way was full, call again soon.
    pub fn poll_relay(&mut self, now: Instant, link: &mut impl RelayLink) -> bool {
        if self.relays.flush(link) {
            for room in std::mem::take(&mut self.relays.held) {
                self.in_room(now, room, |fanout, outside| fanout.way_is_free(outside));
            }
        }
        self.relays.is_waiting()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// When `handle_timeout` is due. May be early.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub fn stats(&self) -> &ShardStats {
        &self.stats
    }

    /// One of its transports is checked by this name.
    pub fn has_ufrag(&self, ufrag: &str) -> bool {
        self.ufrags.contains_key(ufrag)
    }

    /// A check with valid integrity came on this path, and the transport still has it.
    pub fn has_flow(&self, path: NetPath) -> bool {
        self.flows.contains_key(&path)
    }

    /// What is held at this moment, for metrics and for tests that nothing stays behind.
    pub fn population(&self) -> Population {
        Population {
            rooms: self.rooms.len(),
            transports: self.transports.len(),
            tracks: self.index.tracks.len(),
            subscriptions: self.index.subscriptions.len(),
            flows: self.flows.len(),
            timers: self.timers.len(),
        }
    }

    /// Runs one room's turn, contained: a panic costs that room and no other. What was received before it is forwarded before
    /// it.
    pub(super) fn in_room<T>(
        &mut self,
        now: Instant,
        room: Slot,
        turn: impl FnOnce(&mut Fanout, &mut Outside<'_>) -> T,
    ) -> Option<T> {
        self.with_packet(now, room, |fanout, outside| {
            fanout.forward_pending(outside);
            turn(fanout, outside)
        })
    }

    /// As `in_room`, for packets: those of a turn are forwarded together.
    pub(super) fn with_packet<T>(
        &mut self,
        now: Instant,
        room: Slot,
        turn: impl FnOnce(&mut Fanout, &mut Outside<'_>) -> T,
    ) -> Option<T> {
        let fanout = self.rooms.get_mut(room)?;
        let mut outside = Outside {
            now,
            arrival: self.arrival,
            seed: &mut self.seed,
            transports: &mut self.transports,
            timers: &mut self.timers,
            events: &mut self.events,
            stats: &mut self.stats,
            dirty: &mut self.dirty,
            index: &mut self.index,
            touched: &mut self.touched,
            pending: &mut self.pending,
            relays: &mut self.relays,
            waits_for_way: false,
        };
        let result = contain(|| turn(fanout, &mut outside));
        if result.is_none() {
            self.room_panicked(room);
        }
        self.settle(now);
        result
    }

    /// Looks at what a room's turn has done to transports; what follows from that may be further turns.
    fn settle(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_settling, true) {
            return; // the outer call goes on
        }
        while let Some(slot) = self.touched.pop() {
            let Some(transport) = self.transports.get_mut(slot) else {
                continue;
            };
            transport.is_touched = false;
            if transport.has_panicked {
                self.transport_panicked(now, slot);
            } else {
                self.after_input(now, slot);
            }
        }
        self.is_settling = false;
    }

    fn outside(&mut self, now: Instant) -> Outside<'_> {
        Outside {
            now,
            arrival: self.arrival,
            seed: &mut self.seed,
            transports: &mut self.transports,
            timers: &mut self.timers,
            events: &mut self.events,
            stats: &mut self.stats,
            dirty: &mut self.dirty,
            index: &mut self.index,
            touched: &mut self.touched,
            pending: &mut self.pending,
            relays: &mut self.relays,
            waits_for_way: false,
        }
    }

    fn transports_of(&self, room: Slot) -> Vec<Slot> {
        let transports = self.transports.iter().filter(|(_, transport)| transport.room == room);
        transports.map(|(slot, _)| slot).collect()
    }

    /// Discards the room and its transports, without another call into either.
    fn room_panicked(&mut self, room: Slot) {
        self.stats.room_panics += 1;
        for slot in self.transports_of(room) {
            self.forget_transport(slot);
        }
        if let Some(handle) = self.forget_room(room) {
            self.index.rooms.remove(&handle);
            self.events.push(Event::RoomPanicked { room: handle });
        }
    }

    fn forget_room(&mut self, room: Slot) -> Option<RoomHandle> {
        let fanout = self.rooms.remove(room)?;
        self.timers.remove(fanout.timer);
        for (_, track) in fanout.tracks.iter() {
            self.timers.remove(track.timer);
        }
        for (_, subscription) in fanout.subscriptions.iter() {
            self.timers.remove(subscription.timer);
        }
        self.index.tracks.retain(|_, place| place.room != room);
        self.index.subscriptions.retain(|_, place| place.room != room);
        self.index.data_tracks.retain(|_, of| *of != room);
        Some(fanout.handle)
    }

    fn transport_panicked(&mut self, now: Instant, slot: Slot) {
        self.stats.transport_panics += 1;
        self.detach(now, slot, CloseReason::Panicked);
        self.forget_transport(slot);
    }

    /// Takes a transport out of its room and off its handle; what it still has to say leaves in `poll_transmit`.
    fn detach(&mut self, now: Instant, slot: Slot, reason: CloseReason) {
        let Some(transport) = self.transports.get_mut(slot) else {
            return;
        };
        if transport.is_closed {
            return;
        }
        transport.is_closed = true;
        transport.is_connected = false;
        transport.queue.clear();
        transport.waiting.clear();
        transport.rtcp.clear();
        self.dirty.mark(slot, transport);
        let (handle, room) = (transport.handle, transport.room);
        self.index.transports.remove(&handle);
        self.events.push(Event::TransportClosed {
            transport: handle,
            reason,
        });
        self.in_room(now, room, |fanout, outside| fanout.transport_closed(outside, slot));
    }

    fn forget_transport(&mut self, slot: Slot) {
        let Some(transport) = self.transports.remove(slot) else {
            return;
        };
        self.timers.remove(transport.timer);
        self.timers.remove(transport.allocation.timer);
        self.index.transports.remove(&transport.handle);
        for ufrag in &transport.ufrags {
            if self.ufrags.get(ufrag) == Some(&slot) {
                self.ufrags.remove(ufrag);
            }
        }
        for path in &transport.flows {
            if self.flows.get(path) == Some(&slot) {
                self.flows.remove(path);
            }
        }
    }
}

/// One of the two boundaries at which a panic ends (DESIGN D10): None = it did, and what `call` worked on has to go.
pub(super) fn contain<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

fn send_rtcp(now: Instant, transport: &mut MediaTransport, stats: &mut ShardStats, batch: &mut impl Batch) {
    let path = transport.rtc.path();
    for datagram in transport.rtcp.datagrams() {
        let target = batch.slot();
        let len = datagram.len();
        let sealed = match (path, target.get_mut(..len)) {
            (Some(path), Some(start)) => {
                start.copy_from_slice(datagram);
                transport.rtc.seal_rtcp(target, len).map(|len| (path, len))
            }
            (None, _) => Err(DropReason::Disabled),
            (_, None) => Err(DropReason::TooLarge),
        };
        match sealed {
            Ok((path, len)) => {
                batch.commit(path, len);
                transport.waiting.spend(Share::Other, len);
                transport.sending_rate.handle_beside(now, len);
                stats.rtcp_sent += 1;
                stats.bytes_sent += len as u64;
            }
            Err(reason) => stats.count_drop(reason),
        }
    }
    transport.rtcp.clear();
}

#[cfg(test)]
mod tests;
