//! Connection quality of one track in one direction, as the score that clients show.
//!
//! [`QualityScorer`] belongs to a published track (what arrives here) or a subscription (what the receiver reports); its
//! owner calls `update` once per interval with what happened in it, and says at once when the track is muted, disabled
//! or paused. A participant's score is the worst of all its tracks: [`worst`].
//!
// LiveKit: a simplified E-model, the same weights and thresholds as its server, so that clients show the same bars.

use std::time::{Duration, Instant};

use super::edge::ConnectionScore;
use crate::types::Codec;

/// How often `update` is to be called.
pub const QUALITY_INTERVAL: Duration = Duration::from_secs(5);

const MAX_MOS: f32 = 4.5;
const MAX_SCORE: f64 = 100.0;
/// A lower score would take too long to recover under good conditions; also what a paused track has.
const MIN_SCORE: f64 = 30.0;
/// Packets stopped, though the other end still speaks to us: poor.
const DRY_SCORE: f64 = 40.0;
/// At or below it the connection is lost.
const LOST_SCORE: f64 = 20.0;

/// Scores fall faster than they rise.
const RISE: f64 = 0.4;
const FALL: f64 = 0.8;

/// Each missing spatial layer costs one step of quality.
const LAYER_WEIGHT: f64 = 35.0;

/// A window counts only when the track was live for more than this part of it.
const LIVE_PART: f64 = 0.5;

/// Packet rates are counted in bins of this many packets a second.
const RATE_BIN: f64 = 2.0;
/// Rates of 498 and above share the last bin, which is no rate to compare with.
const RATE_BINS: usize = 250;
/// Windows before the usual rate is known.
const MIN_WINDOWS: u32 = 10;
const MODE_INTERVAL: Duration = Duration::from_secs(120);

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    /// Time that the figures cover.
    pub duration: Duration,
    /// Received, padding-only ones included.
    pub packets: u64,
    /// Lost on this leg: for a subscription, without what the publisher had lost already.
    pub lost: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Highest round-trip time. None = leave it out, as LiveKit's server does in both directions.
    pub rtt: Option<Duration>,
    /// Highest jitter. None = leave it out, as LiveKit's server does in both directions.
    pub jitter: Option<Duration>,
    /// Bits that the wanted layers have, to compare `bytes` with. None = leave it out.
    pub expected_bits: Option<u64>,
    /// Spatial layers below what is wanted, averaged over the interval; 0.0 for audio.
    pub layers_missing: f64,
    /// When RTCP about the track came last; None = it is not expected.
    pub last_rtcp: Option<Instant>,
}

#[derive(Clone, Debug)]
pub struct QualityScorer {
    loss_weight: f64,
    score: f64,
    last_update: Instant,
    muted: bool,
    disabled: bool,
    paused: bool,
    /// When the track was last unmuted or enabled.
    live_since: Option<Instant>,
    rates: RateHistogram,
}

impl QualityScorer {
    /// `fec`: Opus in-band FEC is negotiated.
    pub fn new(codec: Codec, fec: bool, now: Instant) -> Self {
        Self {
            loss_weight: loss_weight(codec, fec),
            score: MAX_SCORE,
            last_update: now,
            muted: false,
            disabled: false,
            paused: false,
            live_since: None,
            rates: RateHistogram::new(now),
        }
    }

    /// Another codec is sent from now on.
    pub fn set_codec(&mut self, codec: Codec, fec: bool) {
        self.loss_weight = loss_weight(codec, fec);
    }

    /// The publisher muted or unmuted the track. Muting shows as excellent at once, but for a lost connection.
    pub fn set_muted(&mut self, muted: bool, now: Instant) {
        if std::mem::replace(&mut self.muted, muted) == muted {
            return;
        }
        if muted {
            if self.score > LOST_SCORE {
                self.score = MAX_SCORE;
            }
        } else {
            self.live_since = Some(now);
        }
    }

    /// Nothing is sent because nobody wants it: excellent.
    pub fn set_disabled(&mut self, disabled: bool, now: Instant) {
        if std::mem::replace(&mut self.disabled, disabled) == disabled {
            return;
        }
        if disabled {
            self.score = MAX_SCORE;
        } else {
            self.live_since = Some(now);
        }
    }

    /// The server stopped forwarding for want of bandwidth: poor at once, and climbing after.
    pub fn set_paused(&mut self, paused: bool) {
        if !std::mem::replace(&mut self.paused, paused) && paused {
            self.score = MIN_SCORE;
        }
    }

    /// The score after one more interval.
    pub fn update(&mut self, window: &Window, now: Instant) -> ConnectionScore {
        let since = now.saturating_duration_since(self.last_update).as_secs_f64();
        let live = self
            .live_since
            .map_or(since, |at| now.saturating_duration_since(at).as_secs_f64());
        self.last_update = now;
        if !self.muted && !self.disabled && !self.paused && live > since * LIVE_PART {
            self.score = self.next_score(window, now);
        }
        self.current()
    }

    /// The score as it is now.
    pub fn current(&self) -> ConnectionScore {
        ConnectionScore {
            mos: mos(self.score),
            lost: self.score <= LOST_SCORE,
        }
    }

    fn next_score(&mut self, window: &Window, now: Instant) -> f64 {
        let loss_weight = self.loss_weight * self.rates.weigh(window, now);
        if window.packets == 0 {
            let silent = window
                .last_rtcp
                .is_some_and(|at| now.saturating_duration_since(at) > window.duration);
            return if silent { LOST_SCORE } else { DRY_SCORE };
        }
        let layers = (MAX_SCORE - window.layers_missing * LAYER_WEIGHT).clamp(0.0, MAX_SCORE);
        let score = packet_score(window, loss_weight).min(bitrate_score(window)).min(layers);
        let factor = if score < self.score { FALL } else { RISE };
        (factor * score + (1.0 - factor) * self.score).max(MIN_SCORE)
    }
}

/// What a lost percent costs. Opus without FEC suffers most; RED bridges every second loss.
fn loss_weight(codec: Codec, fec: bool) -> f64 {
    let weight = match codec {
        Codec::Opus => 8.0,
        Codec::Red => 4.0,
        // LiveKit gives other audio no weight at all; one without repair is like Opus without FEC.
        Codec::Pcmu | Codec::Pcma => return 8.0,
        Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::H265 | Codec::Av1 => return 10.0,
    };
    if fec { weight / 1.5 } else { weight }
}

fn packet_score(window: &Window, loss_weight: f64) -> f64 {
    let ms = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1000.0;
    let delay = ms(window.rtt) / 2.0 + ms(window.jitter) * 2.0;
    let delay_effect = if delay > 160.0 {
        (delay - 120.0) / 10.0
    } else {
        delay / 40.0
    };
    let loss_percent = window.lost as f64 * 100.0 / window.packets.max(1) as f64;
    (MAX_SCORE - delay_effect - loss_percent * loss_weight).max(0.0)
}

fn bitrate_score(window: &Window) -> f64 {
    match window.expected_bits {
        None | Some(0) => MAX_SCORE,
        Some(_) if window.bytes == 0 => 0.0,
        Some(expected) => {
            // Good ends at a ratio of about 2.7, poor at 20.
            let ratio = expected as f64 / (window.bytes as f64 * 8.0);
            (MAX_SCORE - 20.0 * ratio.ln()).clamp(0.0, MAX_SCORE)
        }
    }
}

/// ITU-T G.107 Annex B: rating to mean opinion score.
fn mos(score: f64) -> f32 {
    if score >= MAX_SCORE {
        return MAX_MOS;
    }
    let score = score.max(0.0);
    (1.0 + 0.035 * score + 0.000_007 * score * (score - 60.0) * (100.0 - score)) as f32
}

/// The worst of several tracks; the best there is when there are none.
pub fn worst(scores: impl Iterator<Item = ConnectionScore>) -> ConnectionScore {
    scores.fold(
        ConnectionScore {
            mos: MAX_MOS,
            lost: false,
        },
        |worst, score| ConnectionScore {
            mos: worst.mos.min(score.mos),
            lost: worst.lost || score.lost,
        },
    )
}

/// Which packet rate a track usually has, so that losses in silence (DTX) or on a still screen weigh less.
#[derive(Clone, Debug)]
struct RateHistogram {
    /// Windows per bin; halved when one is full, so that old habits fade.
    counts: Box<[u8; RATE_BINS]>,
    windows: u32,
    /// Packets a second of the fullest bin.
    usual: Option<f64>,
    calculated: Option<Instant>,
    started: Instant,
}

impl RateHistogram {
    fn new(now: Instant) -> Self {
        Self {
            counts: Box::new([0; RATE_BINS]),
            windows: 0,
            usual: None,
            calculated: None,
            started: now,
        }
    }

    /// Counts the window and returns the factor for its losses, 0.0..=1.0.
    fn weigh(&mut self, window: &Window, now: Instant) -> f64 {
        let seconds = window.duration.as_secs_f64();
        if seconds <= 0.0 {
            return 1.0;
        }
        let rate = window.packets as f64 / seconds;
        let bin = ((rate / RATE_BIN + 0.5) as usize).min(RATE_BINS - 1);
        if let Some(count) = self.counts.get_mut(bin) {
            *count += 1;
            if *count == u8::MAX {
                self.counts.iter_mut().for_each(|count| *count /= 2);
            }
        }
        self.windows = self.windows.saturating_add(1);
        let last = self.calculated.unwrap_or(self.started);
        let due = self.calculated.is_none() || now.saturating_duration_since(last) > MODE_INTERVAL;
        if self.windows > MIN_WINDOWS && due {
            self.calculated = Some(now);
            // The fullest bin; of equal ones the faster.
            let fullest = self.counts.iter().enumerate().max_by_key(|(_, count)| **count);
            self.usual = fullest
                .map(|(bin, _)| bin)
                .filter(|bin| (1..RATE_BINS - 1).contains(bin))
                .map(|bin| bin as f64 * RATE_BIN);
        }
        self.usual.map_or(1.0, |usual| (rate / usual).min(1.0).sqrt())
    }
}

#[cfg(test)]
mod tests;
