//! A receiver's own estimate of its downlink, for clients that report it by REMB: the rate that arrives, less when packets
//! take longer than the fastest one did, a little more when they do not.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_millis(500);
/// libwebrtc: once a second, at once when it falls.
const INTERVAL: Duration = Duration::from_secs(1);
const QUEUE_LIMIT: Duration = Duration::from_millis(60);

/// Nothing is said of a stream that has only begun.
const FIRST_REPORT: Duration = Duration::from_secs(1);

#[derive(Default)]
pub struct RembEstimator {
    begun: Option<Instant>,
    arrived: VecDeque<(Instant, usize)>,
    fastest: Option<Duration>,
    pub estimate: Option<u64>,
    last: Option<Instant>,
    reduced: Option<Instant>,
}

impl RembEstimator {
    /// `sent` comes of abs-send-time: its origin does not matter. An estimate that is to be reported now.
    pub fn handle_packet(&mut self, now: Instant, sent: Instant, bytes: usize) -> Option<u64> {
        self.arrived.push_back((now, bytes));
        while self.arrived.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.arrived.pop_front();
        }
        let begun = *self.begun.get_or_insert(now);
        let transit = now.saturating_duration_since(sent);
        let fastest = self.fastest.map_or(transit, |fastest| fastest.min(transit));
        self.fastest = Some(fastest);
        let rate: usize = self.arrived.iter().map(|(_, bytes)| bytes).sum();
        let rate = rate as f64 * 8.0 / WINDOW.as_secs_f64();
        if begun + FIRST_REPORT > now {
            return None;
        }
        let is_queueing = transit > fastest + QUEUE_LIMIT;
        let may_reduce = self.reduced.is_none_or(|at| at + WINDOW < now);
        if is_queueing && may_reduce {
            self.reduced = Some(now);
            self.last = Some(now);
            self.estimate = Some((rate * 0.85) as u64);
            return self.estimate;
        }
        if self.last.is_some_and(|last| last + INTERVAL > now) {
            return None;
        }
        self.last = Some(now);
        if !is_queueing {
            let old = self.estimate.map_or(rate, |estimate| estimate as f64);
            self.estimate = Some((old * 1.08 + 1000.0).min(rate * 1.5 + 10_000.0) as u64);
        }
        self.estimate
    }
}
