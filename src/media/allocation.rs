//! When bandwidth is allocated, and what follows from it: the layers of a participant's subscriptions.
//!
//! Gathers what the tracks offer and what the client wants, asks the `allocator`, sets the targets, and tells control of
//! what is paused and the estimator of what is wanted. Runs when one of them changes and, while the path limits anything,
//! by a timer; never per packet.

use std::time::{Duration, Instant};

use super::allocator::{Allocator, Budget, Candidate, Outcome};
use super::edge::Event;
use super::fanout::Fanout;
use super::outside::Outside;
use super::room_report;
use super::slots::Slot;
use super::subscription::Subscription;
use super::timers::TimerId;
use super::track::Track;
use super::transport::MediaTransport;
use crate::types::{Bitrate, MediaKind, SubscriptionHandle};

/// LiveKit: what a client that has set no priority gives to cameras and to screens.
const CAMERA_PRIORITY: u8 = 1;
const SCREEN_PRIORITY: u8 = 255;

/// What data that waits asks of a path: more than any carries.
const DATA_DEMAND: Bitrate = Bitrate::kbps(1_000_000);

/// A participant with more subscriptions than this is not allocated anew for every change by itself …
const FEW: usize = 16;
/// … but for all of such a time together.
const COLLECT: Duration = Duration::from_millis(50);

/// A transport's subscriptions and the allocation of its bandwidth.
#[derive(Debug)]
pub struct Allocation {
    pub timer: TimerId,
    pub subscriptions: Vec<Slot>,
    allocator: Allocator,
    /// Of the last run.
    pub outcome: Option<Outcome>,
}

/// Whether subscriptions have their layers already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocated {
    Now,
    Later,
}

impl Allocation {
    pub fn new(timer: TimerId) -> Self {
        Self {
            timer,
            subscriptions: Vec::new(),
            allocator: Allocator::default(),
            outcome: None,
        }
    }
}

impl MediaTransport {
    pub fn budget(&self, now: Instant) -> Budget {
        Budget {
            estimate: self.sending_rate.estimate(),
            measured: self.sending_rate.is_measured(now),
            cap: self.reception.max_bitrate,
            audio: self.waiting.beside.voice(),
            other: self.waiting.beside.other(),
            may_pause: self.reception.may_pause,
        }
    }
}

impl Fanout {
    /// The estimate may have changed.
    pub fn estimate_changed(&mut self, outside: &mut Outside<'_>, transport: Slot) {
        let rate = outside
            .transports
            .get_mut(transport)
            .map(|transport| &mut transport.sending_rate);
        if rate.is_some_and(|rate| rate.take_change()) {
            self.allocate(outside, transport);
        }
    }

    /// Something about one of many subscriptions has changed: allocates now, or soon and for all of them together.
    pub fn allocate_soon(&mut self, outside: &mut Outside<'_>, transport: Slot) -> Allocated {
        let Some(allocation) = outside.transports.get(transport).map(|transport| &transport.allocation) else {
            return Allocated::Later;
        };
        if allocation.subscriptions.len() <= FEW {
            self.allocate(outside, transport);
            return Allocated::Now;
        }
        let timer = allocation.timer;
        outside.arm(timer, Some(outside.now + COLLECT));
        Allocated::Later
    }

    /// Gives every subscription of the transport its layer.
    pub fn allocate(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        self.gather(outside, slot, &mut candidates);
        let Some(transport) = outside.transports.get_mut(slot) else {
            return;
        };
        let now = outside.now;
        transport.waiting.beside.advance(now);
        let budget = transport.budget(now);
        let allocation = &mut transport.allocation;
        let outcome = allocation.allocator.allocate(now, &budget, &mut candidates);
        allocation.outcome = Some(outcome);
        // Data takes what is there.
        let demand = if outcome.demand > Bitrate::ZERO && transport.rtc.has_data_waiting() {
            budget.cap.unwrap_or(DATA_DEMAND)
        } else {
            outcome.demand
        };
        transport.sending_rate.set_demand(demand);
        let timer = transport.allocation.timer;
        let is_limited = budget.total().is_some() && !candidates.is_empty();
        outside.arm(timer, is_limited.then(|| now + outcome.recheck));
        for candidate in &candidates {
            self.carry_out(outside, candidate, outcome.is_urgent);
        }
        self.candidates = candidates; // keeps its memory
    }

    /// Collects the pictures that are to be sent on the transport.
    fn gather(&mut self, outside: &mut Outside<'_>, slot: Slot, candidates: &mut Vec<Candidate>) {
        let delay = outside.transports.get(slot).and_then(|its| its.reception.playout_delay);
        let mut at = 0;
        while let Some(subscriber) = subscriber(outside, slot, at) {
            at += 1;
            let Some(subscription) = self.subscriptions.get_mut(subscriber) else {
                continue;
            };
            let Some(track) = self.tracks.get(subscription.track) else {
                continue;
            };
            let max_layer = subscription.settings.max_layer;
            subscription.set_playout(delay);
            if subscription.settings.disabled || track.muted || !subscription.takes_any() {
                idle(outside, subscription, track);
                continue;
            }
            if subscription.kind == MediaKind::Audio {
                continue; // its cost is measured where it leaves
            }
            let offered = track.offered(outside.now);
            let fluent = track.fluent(&offered);
            candidates.push(Candidate::new(
                subscriber,
                importance(subscription, track),
                (&offered.rate, &fluent),
                max_layer,
                subscription.allotment,
            ));
        }
    }

    fn carry_out(&mut self, outside: &mut Outside<'_>, candidate: &Candidate, is_urgent: bool) {
        let slot = candidate.subscription;
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        let Some(track) = self.tracks.get(subscription.track) else {
            return;
        };
        subscription.allotment = candidate.allotment;
        let paused = candidate.allotment.is_paused();
        let target = match candidate.allotment.target {
            _ if paused => None,
            Some(layer) if candidate.is_short() => Some(layer),
            // Nothing limits it: also what is only about to come is to be sent.
            _ => Some(track.choose(subscription.settings.max_layer)),
        };
        if std::mem::replace(&mut subscription.is_paused, paused) != paused {
            subscription.scorer.set_paused(paused);
            subscription.freezes.interrupt();
            outside.events.push(stream_state(subscription.handle, paused));
        }
        if target != subscription.target() {
            return self.set_target(outside, slot, target, is_urgent);
        }
        room_report::note(outside, subscription, track);
    }
}

/// Priority, and screens before others of the same.
pub fn importance(subscription: &Subscription, track: &Track) -> (u8, bool) {
    let priority = match (subscription.settings.priority, track.is_screen) {
        (0, true) => SCREEN_PRIORITY,
        (0, false) => CAMERA_PRIORITY,
        (priority, _) => priority,
    };
    (priority, track.is_screen)
}

/// The subscription at this place of the transport's list.
fn subscriber(outside: &Outside<'_>, transport: Slot, at: usize) -> Option<Slot> {
    outside
        .transports
        .get(transport)?
        .allocation
        .subscriptions
        .get(at)
        .copied()
}

/// It costs nothing now, and begins anew when it is wanted again.
fn idle(outside: &mut Outside<'_>, subscription: &mut Subscription, track: &Track) {
    subscription.allotment = Default::default();
    if std::mem::take(&mut subscription.is_paused) {
        subscription.scorer.set_paused(false);
        outside.events.push(stream_state(subscription.handle, false));
    }
    let target = track.choose(subscription.settings.max_layer);
    if subscription.target() != Some(target) {
        subscription.set_target(track, Some(target), false);
    }
    room_report::note(outside, subscription, track);
}

fn stream_state(subscription: SubscriptionHandle, paused: bool) -> Event {
    Event::StreamState { subscription, paused }
}
