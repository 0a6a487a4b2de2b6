//! Connection quality of a room's participants: every 5 s, the worst of what each publishes and receives.
//!
//! Collects the figures; the score is `quality`'s.

use std::collections::BTreeMap;

use super::edge::Event;
use super::fanout::Fanout;
use super::outside::Outside;
use super::quality::{QUALITY_INTERVAL, Window, worst};
use super::subscription::Subscription;
use super::track::Track;
use crate::types::ParticipantHandle;

impl Fanout {
    /// The room has media: scores are due from now on.
    pub fn start_quality(&mut self, outside: &mut Outside<'_>) {
        let at = *self.next_quality.get_or_insert(outside.now + QUALITY_INTERVAL);
        outside.arm(self.timer, Some(at));
    }

    /// Scores everybody when it is time.
    pub fn quality_timeout(&mut self, outside: &mut Outside<'_>) {
        let now = outside.now;
        if self.next_quality.is_none_or(|at| at > now) {
            return;
        }
        let mut scores: BTreeMap<ParticipantHandle, Vec<_>> = BTreeMap::new();
        let mut lost_upstream = BTreeMap::new();
        for (slot, track) in self.tracks.iter_mut() {
            if let Some(layers) = track.measure(now) {
                let track = track.handle;
                outside.events.push(Event::LayersMeasured { track, layers });
            }
            let Some(window) = published(track, outside) else {
                continue;
            };
            lost_upstream.insert(slot, window.lost);
            if track.mirror.is_some() {
                continue; // scored at its home
            }
            if !track.is_shown {
                let [expected, lost] = &mut outside.stats.loss_incoming;
                *expected += window.packets + window.lost;
                *lost += window.lost;
            }
            scores
                .entry(track.participant)
                .or_default()
                .push(track.scorer.update(&window, now));
        }
        for (_, subscription) in self.subscriptions.iter_mut() {
            let Some(track) = self.tracks.get(subscription.track).filter(|_| subscription.started) else {
                continue;
            };
            let upstream = lost_upstream.get(&subscription.track).copied().unwrap_or(0);
            let window = received(subscription, track, upstream);
            if track.is_unheard {
                continue; // nothing is sent of it, and the path is no worse for that
            }
            let score = subscription.scorer.update(&window, now);
            scores.entry(subscription.participant).or_default().push(score);
        }
        self.next_quality = (!self.tracks.is_empty()).then_some(now + QUALITY_INTERVAL);
        for (participant, scores) in scores {
            outside.events.push(Event::Quality {
                participant,
                score: worst(scores.into_iter()),
            });
        }
    }
}

/// What arrived of a track; None before its first packet.
fn published(track: &mut Track, outside: &Outside<'_>) -> Option<Window> {
    let intervals = track.encodings.iter_mut().filter_map(|encoding| {
        let stats = encoding.stats.as_mut()?;
        Some(stats.take_interval(outside.now))
    });
    intervals.fold(None, |window: Option<Window>, interval| {
        let window = window.unwrap_or_default();
        Some(Window {
            duration: window.duration.max(interval.duration),
            packets: window.packets + interval.packets,
            lost: window.lost + interval.lost,
            bytes: window.bytes + interval.bytes,
            last_rtcp: window.last_rtcp.max(interval.last_sender_report),
            ..window
        })
    })
}

/// What a subscriber reports. Numbers that the publisher's packets left free look lost to it too.
fn received(subscription: &mut Subscription, track: &Track, lost_upstream: u64) -> Window {
    let sent = u64::from(subscription.packets.wrapping_sub(subscription.scored.packets));
    let bytes = u64::from(subscription.octets.wrapping_sub(subscription.scored.octets));
    let lost = subscription
        .loss
        .cumulative
        .saturating_sub(subscription.scored.lost)
        .max(0) as u64;
    subscription.scored.packets = subscription.packets;
    subscription.scored.octets = subscription.octets;
    subscription.scored.lost = subscription.loss.cumulative;
    // What the publisher does not send is no fault of this path.
    let wanted = track.choose(subscription.settings.max_layer).spatial;
    let given = subscription.target().map_or(0, |target| target.spatial);
    Window {
        duration: QUALITY_INTERVAL,
        packets: sent,
        lost: lost.saturating_sub(lost_upstream),
        bytes,
        layers_missing: f64::from(wanted.saturating_sub(given)),
        last_rtcp: subscription.loss.last,
        ..Window::default()
    }
}
