//! What the path to a participant carries: the estimate that its subscriptions are allocated from.
//!
//! [`SendingRate`] belongs to a transport that sends media, and is told what leaves and what the client reports. Where it
//! reports arrivals (transport-wide feedback, draft-holmer-rmcat-transport-wide-cc-extensions-01) this is Google
//! Congestion Control (draft-ietf-rmcat-gcc-02) with probes; where it only says a rate (REMB) that rate; where it only
//! says what was lost, a bound by loss; where it says nothing, no limit. Deterministic: no clock, no randomness; no
//! allocation once warm. It never sends anything: the pacer asks it how fast and whether to probe.

use std::time::{Duration, Instant};

use crate::rtp::rtcp::TransportFeedback;
use crate::types::Bitrate;

mod aimd;
mod delivered;
mod history;
mod loss;
mod path;
mod probe;
mod trend;

#[cfg(test)]
mod tests;

pub use path::Acknowledged;
use path::PathEstimate;

/// Microseconds since the estimator's own origin, or on the receiver's clock.
type Micros = i64;

/// LiveKit's and libwebrtc's first guesses are 0.3 to 2 Mbit/s; a probe corrects this one within a few round trips.
pub const INITIAL: Bitrate = Bitrate(1_000_000);
/// Below this not even a voice passes.
const MIN_RATE: f64 = 40_000.0;
/// More than any client takes; it also bounds what forged feedback can claim.
const MAX_RATE: f64 = 200e6;

/// A client that was sent media for so long and has reported nothing will not.
const FEEDBACK_WAIT: Duration = Duration::from_secs(4);
/// A REMB is repeated at least every second; one that old counts no more.
const REMB_LIFE: Duration = Duration::from_secs(10);
/// With media that flows, reports come several times a second. After that long without one nothing is known of the path.
const REPORT_LIFE: Duration = Duration::from_secs(3);
/// The same where probes are sent though no media flows; they are at most 5 s apart.
const PROBED_LIFE: Duration = Duration::from_secs(7);
/// The change of an estimate that is worth allocating anew: a fiftieth up, less than that down.
const WORTH_TELLING: f64 = 0.02;
/// Loss that limits a client without other feedback, and loss that no longer does (draft-ietf-rmcat-gcc-02 §6).
const HIGH_LOSS: f64 = 0.1;
const LOW_LOSS: f64 = 0.02;
const LOSS_INTERVAL: Duration = Duration::from_millis(1000);

/// What is sent to a transport without anybody counting arrivals.
#[derive(Debug, Default)]
struct Reported {
    remb: Option<(f64, Instant)>,
    /// By loss.
    bound: Option<f64>,
    bytes: u64,
    /// Start of the second that `bytes` and the losses count.
    since: Option<Instant>,
    lost: u64,
    expected: u64,
    /// Of the last second that was reported.
    loss: f64,
}

#[derive(Debug)]
pub struct SendingRate {
    origin: Instant,
    /// The last transport-wide sequence number given out.
    sequence: u16,
    /// From the first packet with a transport-wide number on.
    path: Option<Box<PathEstimate>>,
    first_sent: Option<Instant>,
    demand: Bitrate,
    reported: Reported,
    /// When the client last said anything of what it receives.
    last_report: Option<Instant>,
    /// The estimate that was told last.
    told: Option<Bitrate>,
    estimate: Option<Bitrate>,
}

impl SendingRate {
    pub fn new(now: Instant) -> Self {
        Self {
            origin: now,
            sequence: 0,
            path: None,
            first_sent: None,
            demand: Bitrate::ZERO,
            reported: Reported::default(),
            last_report: None,
            told: Some(INITIAL),
            estimate: Some(INITIAL),
        }
    }

    /// The client was away for longer than its path says anything about: what is known of it is forgotten. Numbers go on.
    pub fn restart(&mut self, now: Instant) {
        *self = Self {
            sequence: self.sequence,
            demand: self.demand,
            told: self.told,
            ..Self::new(now)
        };
    }

    /// What may be sent, in bits of UDP payload a second. None = the client reports nothing it could be known from.
    pub fn estimate(&self) -> Option<Bitrate> {
        self.estimate
    }

    /// The smallest round trip of the last second, the client's own delay in reporting included; None before the first
    /// feedback.
    pub fn rtt(&self) -> Option<Duration> {
        let path = self.path.as_ref().filter(|path| path.has_feedback())?;
        Some(Duration::from_micros(path.rtt().unsigned_abs()))
    }

    /// Part of the packets of the last second that did not arrive, 0.0..=1.0.
    pub fn loss(&self) -> f64 {
        match self.path.as_ref().filter(|path| path.has_feedback()) {
            Some(path) => path.loss(),
            None => self.reported.loss,
        }
    }

    /// No report is missing before the last one: what it and the one before leave out between them was not received.
    pub fn is_gapless(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.is_gapless())
    }

    /// How long packets wait on the path, above the least it takes.
    pub fn queue_delay(&self) -> Duration {
        let delay = self.path.as_ref().map_or(0, |path| path.queue_delay());
        Duration::from_micros(delay.unsigned_abs())
    }

    /// Bits that arrive in a second; None = not known.
    pub fn delivered(&self) -> Option<Bitrate> {
        let path = self.path.as_ref()?;
        Some(bitrate(path.delivered()?))
    }

    /// What would be sent if the path carried anything: as long as the estimate is below it (and some room for key
    /// frames), probes look for more. Zero = never probe.
    pub fn set_demand(&mut self, wanted: Bitrate) {
        self.demand = wanted;
        if let Some(path) = &mut self.path {
            path.probes.set_demand(wanted.0 as f64);
        }
    }

    pub fn demand(&self) -> Bitrate {
        self.demand
    }

    /// True once after the estimate has changed by enough to allocate anew. Poll it when feedback was handled and when
    /// the transport's timer was due.
    pub fn take_change(&mut self) -> bool {
        let worth = match (self.told, self.estimate) {
            (Some(told), Some(now)) => {
                let (told, now) = (told.0 as f64, now.0 as f64);
                now > told * (1.0 + WORTH_TELLING) || now < told * (1.0 - WORTH_TELLING / 2.0)
            }
            (told, now) => told != now,
        };
        if worth {
            self.told = self.estimate;
        }
        worth
    }

    /// The transport-wide sequence number of the packet that leaves next. It is used up by `handle_sent`.
    pub fn next_sequence(&self) -> u16 {
        self.sequence.wrapping_add(1)
    }

    /// A packet leaves now. `size` is its UDP payload; `numbered`: it carries `next_sequence`.
    pub fn handle_sent(&mut self, now: Instant, size: usize, numbered: bool) {
        self.first_sent.get_or_insert(now);
        self.reported.bytes += size as u64;
        if !numbered {
            return self.handle_beside(now, size);
        }
        let micros = self.micros(now);
        let sequence = self.next_sequence();
        let demand = self.demand;
        let path = self.path.get_or_insert_with(|| {
            let mut path = Box::new(PathEstimate::new(sequence, INITIAL.0 as f64));
            path.probes.set_demand(demand.0 as f64);
            path
        });
        path.handle_sent(micros, u16::try_from(size).unwrap_or(u16::MAX));
        self.sequence = sequence;
    }

    /// A datagram leaves that shares the path and that nobody reports on. `size` is its UDP payload.
    pub fn handle_beside(&mut self, now: Instant, size: usize) {
        let micros = self.micros(now);
        if let Some(path) = &mut self.path {
            path.handle_beside(micros, u32::try_from(size).unwrap_or(u32::MAX));
        }
    }

    /// `scratch` is emptied; it only keeps its memory between calls.
    pub fn handle_feedback(&mut self, now: Instant, feedback: &TransportFeedback<'_>, scratch: &mut Vec<Acknowledged>) {
        let micros = self.micros(now);
        self.last_report = Some(now);
        if let Some(path) = &mut self.path {
            path.handle_feedback(micros, feedback, scratch);
        }
        self.refresh(now);
    }

    /// draft-alvestrand-rmcat-remb-03; a client that also sends transport-wide feedback is believed that.
    pub fn handle_remb(&mut self, now: Instant, bitrate: u64) {
        let rate = (bitrate as f64).clamp(MIN_RATE, MAX_RATE);
        self.reported.remb = Some((rate, now));
        self.last_report = Some(now);
        self.refresh(now);
    }

    /// Packets lost and expected since the last report block of a stream.
    pub fn handle_loss(&mut self, now: Instant, lost: u64, expected: u64) {
        if expected > 0 && self.reported.bound.is_some() {
            self.last_report = Some(now);
        }
        let reported = &mut self.reported;
        reported.lost += lost.min(expected);
        reported.expected += expected;
        let since = *reported.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed < LOSS_INTERVAL {
            return;
        }
        let sent = reported.bytes as f64 * 8.0 / elapsed.as_secs_f64();
        let loss = reported.lost as f64 / reported.expected.max(1) as f64;
        reported.loss = loss;
        if loss > HIGH_LOSS {
            let from = reported.bound.unwrap_or(sent).min(sent);
            reported.bound = Some((from * (1.0 - loss / 2.0)).max(MIN_RATE));
            self.last_report = Some(now);
        } else if loss < LOW_LOSS {
            // What is far above what is sent limits nothing.
            reported.bound = reported
                .bound
                .map(|bound| bound * 1.08)
                .filter(|bound| *bound < sent * 4.0);
        }
        (reported.bytes, reported.lost, reported.expected) = (0, 0, 0);
        reported.since = Some(now);
        self.refresh(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let micros = self.micros(now);
        if let Some(path) = &mut self.path {
            path.handle_timeout(micros);
        }
        self.refresh(now);
    }

    /// When `handle_timeout` has something to do; in the past = now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let path = self.path.as_ref();
        let path_timeout = path.and_then(|path| path.poll_timeout());
        let path_timeout = path_timeout.map(|at| self.origin + Duration::from_micros(at.unsigned_abs()));
        let waits = path.is_some_and(|path| !path.has_feedback()) && self.estimate.is_some();
        let wait = self.first_sent.filter(|_| waits).map(|first| first + FEEDBACK_WAIT);
        [path_timeout, wait].into_iter().flatten().min()
    }

    /// The rate of the probe that is to be filled now.
    pub fn probe(&self) -> Option<Bitrate> {
        let path = self.path.as_ref()?;
        path.probes.wanted().map(bitrate)
    }

    /// Nothing is known of the path yet.
    pub fn is_initial(&self) -> bool {
        self.path.as_ref().is_none_or(|path| !path.has_feedback())
    }

    /// The estimate is made of what the client reports, and lately: not guessed, and not a memory of what the path was
    /// before everything stopped. So what was stopped is tried again.
    pub fn is_measured(&self, now: Instant) -> bool {
        let is_probed = self.path.as_ref().is_some_and(|path| path.has_feedback());
        let life = if is_probed { PROBED_LIFE } else { REPORT_LIFE };
        self.last_report
            .is_some_and(|at| now.saturating_duration_since(at) < life)
    }

    fn refresh(&mut self, now: Instant) {
        let reported = &self.reported;
        let remb = reported
            .remb
            .filter(|(_, at)| now.saturating_duration_since(*at) < REMB_LIFE);
        let path = self.path.as_ref();
        let rate = match (path.filter(|path| path.has_feedback()), remb) {
            (Some(path), _) => Some(path.rate()),
            (None, Some((remb, _))) => Some(reported.bound.map_or(remb, |bound| bound.min(remb))),
            (None, None) => {
                let waited = self
                    .first_sent
                    .map_or(Duration::ZERO, |first| now.saturating_duration_since(first));
                let waits = waited < FEEDBACK_WAIT && (path.is_some() || self.first_sent.is_none());
                reported.bound.or_else(|| waits.then_some(INITIAL.0 as f64))
            }
        };
        self.estimate = rate.map(bitrate);
    }

    fn micros(&self, now: Instant) -> Micros {
        let since = now.saturating_duration_since(self.origin);
        // Cheaper than `as_micros`, which reckons in 128 bits.
        since.as_secs() as Micros * 1_000_000 + Micros::from(since.subsec_micros())
    }
}

fn bitrate(rate: f64) -> Bitrate {
    Bitrate(rate.max(0.0) as u64)
}
