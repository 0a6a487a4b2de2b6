//! Which layers of a track are being sent by its publisher now.
//!
//! Owns one small state per spatial layer (an encoding of a simulcast track, or a spatial layer inside the one encoding).
//! Told of every packet; asked by the track's timer. A layer is judged by its siblings: while they go on, silence means
//! that it was stopped; when all are silent, nothing is known and nothing changes.

use std::time::{Duration, Instant};

use super::super::track::MAX_ENCODINGS;

/// Silence after which a layer whose siblings go on has stopped: three frames of 15 a second, and the time until the next
/// look at it.
const STOPPED_AFTER: Duration = Duration::from_millis(220);
/// The same of a layer that comes and goes.
const STOPPED_AGAIN_AFTER: Duration = Duration::from_millis(700);
/// Frames of each sibling in that silence: a slow screen share is not taken for stopped layers.
const SIBLING_FRAMES: u32 = 3;
/// A stopped layer is believed to be back after this long, counted from its first key frame …
const RETURN_AFTER: Duration = Duration::from_millis(200);
/// … and from its first packet where that key frame was lost: a request for another one is due.
const RETURN_WITHOUT_KEYFRAME: Duration = Duration::from_millis(500);
/// A layer that stops so soon after its return, and for so short, is one whose encoder leaves frames out: it was not asked to
/// stop. Each return costs its viewers a key frame and a change of size …
const RELAPSE: Duration = Duration::from_secs(60);
const SHORT_STOP: Duration = Duration::from_millis(1500);
/// … so that the next has to wait for at least this long, and those after it.
const RETURN_AGAIN: [Duration; 2] = [Duration::from_millis(1000), Duration::from_millis(5000)];
/// Of the windows in that time, how many must have had packets.
const GOOD_WINDOWS: u8 = 2;
const WINDOW: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unseen,
    Live,
    Stopped,
    Returning {
        since: Instant,
        has_keyframe: bool,
        good: u8,
        last_window: u16,
    },
}

#[derive(Clone, Copy, Debug, Default)]
struct LayerFlow {
    state: State,
    last: Option<Instant>,
    /// When it was last back.
    returned: Option<Instant>,
    /// Returns from short stops soon after one another.
    relapses: u8,
    /// `Flow::frames` at its last packet.
    seen: u32,
}

impl LayerFlow {
    /// It has returned lately.
    fn was_back(&self, now: Instant) -> bool {
        self.returned
            .is_some_and(|at| now.saturating_duration_since(at) < RELAPSE)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Flow {
    layers: [LayerFlow; MAX_ENCODINGS],
    /// Frames of all layers so far.
    frames: u32,
    /// Nothing has come since a pause.
    paused: bool,
}

impl Flow {
    /// A packet of layer `at`. `starts_frame`: a frame not counted yet. True when the layer was not known before.
    pub fn handle_packet(&mut self, at: usize, starts_frame: bool, keyframe: bool, now: Instant) -> bool {
        if std::mem::take(&mut self.paused) {
            // Silence counts from here.
            for layer in &mut self.layers {
                (layer.last, layer.seen) = (Some(now), self.frames);
            }
        }
        self.frames = self.frames.wrapping_add(u32::from(starts_frame));
        let frames = self.frames;
        let Some(layer) = self.layers.get_mut(at) else {
            return false;
        };
        let silence = layer.last.map(|last| now.saturating_duration_since(last));
        layer.last = Some(now);
        layer.seen = frames;
        match &mut layer.state {
            State::Live => {}
            State::Unseen => {
                layer.state = State::Live;
                return true;
            }
            State::Stopped => {
                let was_short = silence.is_some_and(|silence| silence < SHORT_STOP);
                if was_short && layer.was_back(now) {
                    layer.relapses = layer.relapses.saturating_add(1);
                }
                layer.state = State::Returning {
                    since: now,
                    has_keyframe: keyframe,
                    good: 1,
                    last_window: 0,
                }
            }
            State::Returning {
                since,
                has_keyframe,
                good,
                last_window,
            } => {
                if keyframe && !*has_keyframe {
                    (*since, *has_keyframe, *good, *last_window) = (now, true, 1, 0);
                }
                let window = (now.saturating_duration_since(*since).as_millis() / WINDOW.as_millis()) as u16;
                if window > *last_window {
                    *last_window = window;
                    *good = good.saturating_add(1);
                }
            }
        }
        false
    }

    /// The publisher says that the layer is sent, or is not.
    pub fn announce(&mut self, at: usize, sent: bool) {
        let Some(layer) = self.layers.get_mut(at) else { return };
        layer.state = match layer.state {
            State::Unseen => State::Unseen,
            _ if sent => State::Live,
            _ => State::Stopped,
        };
        // Its silence counts from here.
        layer.seen = self.frames;
    }

    /// The publisher pauses all. What flowed is expected to flow again after it; what had stopped may.
    pub fn pause(&mut self) {
        self.paused = true;
        for layer in &mut self.layers {
            if layer.state != State::Live {
                layer.state = State::Unseen;
            }
        }
    }

    /// A bit per layer that flows, looked at anew.
    pub fn update(&mut self, now: Instant) -> u8 {
        let live = self.layers.iter().filter(|layer| layer.state == State::Live).count() as u32;
        let needed = SIBLING_FRAMES * live.saturating_sub(1).max(1);
        let frames = self.frames;
        let mut flowing = 0;
        for (at, layer) in self.layers.iter_mut().enumerate() {
            let silence = layer
                .last
                .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
            if !layer.was_back(now) {
                layer.relapses = 0;
            }
            let patience = if layer.relapses > 0 {
                STOPPED_AGAIN_AFTER
            } else {
                STOPPED_AFTER
            };
            match layer.state {
                State::Live if live > 1 && silence >= patience && frames.wrapping_sub(layer.seen) >= needed => {
                    layer.state = State::Stopped;
                }
                State::Returning { .. } if silence >= patience && frames.wrapping_sub(layer.seen) >= needed => {
                    layer.state = State::Stopped;
                }
                State::Returning {
                    since,
                    has_keyframe,
                    good,
                    ..
                } => {
                    let wait = if has_keyframe {
                        RETURN_AFTER
                    } else {
                        RETURN_WITHOUT_KEYFRAME
                    };
                    let again = usize::from(layer.relapses).checked_sub(1);
                    let again = again.and_then(|at| RETURN_AGAIN.get(at).or(RETURN_AGAIN.last()));
                    let wait = again.map_or(wait, |again| wait.max(*again));
                    if good >= GOOD_WINDOWS && now.saturating_duration_since(since) >= wait {
                        layer.state = State::Live;
                        layer.returned = Some(now);
                    }
                }
                _ => {}
            }
            flowing |= u8::from(layer.state == State::Live) << at;
        }
        flowing
    }
}

#[cfg(test)]
mod tests;
