//! Connection quality of a room's participants: every 5 s, the worst of what each publishes and receives.
//!
//! Collects the figures; the score is `quality`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use super::edge::Event;
use super::fanout::Fanout;
use super::outside::Outside;
use super::quality::{QUALITY_INTERVAL, Window, worst};
use super::receiver_stats::ReceiverStats;
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
            let Some((window, jitter)) = published(track, outside) else {
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
                let streams = track
                    .encodings
                    .iter_mut()
                    .filter_map(|encoding| encoding.stats.as_mut());
                let reordered = streams.map(ReceiverStats::take_reordered).sum::<u64>();
                outside.stats.out_of_order += reordered;
                let spreads = &mut outside.stats.incoming;
                if window.packets > 0 {
                    let tenths = (reordered.min(window.packets) * 1_000).div_ceil(window.packets);
                    spreads.out_of_order.record(tenths);
                }
                spreads.jitter.record(jitter.as_micros() as u64);
                if let Some(percent) = percent(window.lost, window.packets + window.lost) {
                    spreads.loss.record(percent);
                }
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
            if track.is_unheard || window.packets == 0 {
                continue; // nothing is sent of it, and the path is no worse for that
            }
            let spreads = &mut outside.stats.outgoing;
            if subscription.loss.last.is_some() {
                let clock_rate = subscription
                    .last_output
                    .map_or(90_000, |output| output.codec.clock_rate());
                let ticks = u64::from(subscription.loss.jitter);
                spreads.jitter.record(ticks * 1_000_000 / u64::from(clock_rate.max(1)));
                if let Some(percent) = percent(window.lost, window.packets) {
                    spreads.loss.record(percent);
                }
            }
            if subscription.rtt_measured {
                spreads.rtt.record(subscription.rtt.as_millis() as u64);
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

/// Rounded up, so that 0 is none at all; None where nothing was expected.
fn percent(lost: u64, expected: u64) -> Option<u64> {
    (expected > 0).then(|| (lost.min(expected) * 100).div_ceil(expected))
}

/// What arrived of a track, and its highest jitter; None before its first packet.
fn published(track: &mut Track, outside: &Outside<'_>) -> Option<(Window, Duration)> {
    let intervals = track.encodings.iter_mut().filter_map(|encoding| {
        let stats = encoding.stats.as_mut()?;
        Some(stats.take_interval(outside.now))
    });
    intervals.fold(None, |known: Option<(Window, Duration)>, interval| {
        let (window, jitter) = known.unwrap_or_default();
        let window = Window {
            duration: window.duration.max(interval.duration),
            packets: window.packets + interval.packets,
            lost: window.lost + interval.lost,
            bytes: window.bytes + interval.bytes,
            last_rtcp: window.last_rtcp.max(interval.last_sender_report),
            ..window
        };
        Some((window, jitter.max(interval.jitter_max)))
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
