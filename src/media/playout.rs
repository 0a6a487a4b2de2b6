//! The delay that a receiver's video jitter buffer is asked for, where a room sets one (`room.playout_delay`).
//!
//! Owned by a subscription: says what a packet carries, and hears from report blocks whether that has arrived.
//!
// LiveKit: ten times the receiver's jitter, within the room's bounds and changing slowly, so that pictures do not jump.

use std::time::{Duration, Instant};

use super::edge::PlayoutDelay;
use crate::rtp::extension;

/// The least delay asked for, in times of the jitter.
const JITTERS: u32 = 10;
/// The most that it changes in a second, ms.
const MAX_CHANGE: u128 = 80;

#[derive(Clone, Copy, Debug)]
pub struct Playout {
    bounds: PlayoutDelay,
    /// Asked for now, ms.
    min: u16,
    changed: Option<Instant>,
    /// Extended number of the first packet that said so.
    said: Option<u64>,
    /// The extension.
    bytes: [u8; 3],
    /// A report says that it arrived: it need not be said again.
    known: bool,
}

impl Playout {
    pub fn new(bounds: PlayoutDelay) -> Self {
        Self {
            bounds,
            min: bounds.min,
            changed: None,
            said: None,
            bytes: to_bytes(bounds.min, bounds.max),
            known: false,
        }
    }

    pub fn bounds(&self) -> PlayoutDelay {
        self.bounds
    }

    /// What a packet carries; empty = nothing.
    pub fn extension(&self) -> &[u8] {
        if self.known { &[] } else { &self.bytes }
    }

    /// A packet with it leaves; `sequence` is extended.
    pub fn handle_sent(&mut self, sequence: u64) {
        self.said.get_or_insert(sequence);
    }

    /// A report block: `highest` is extended as `handle_sent`'s numbers are.
    pub fn handle_report(&mut self, highest: u64, jitter: Duration, now: Instant) {
        self.known |= self.said.is_some_and(|said| highest >= said);
        let jitter = u16::try_from((jitter * JITTERS).as_millis()).unwrap_or(u16::MAX);
        let wanted = jitter.clamp(self.bounds.min, self.bounds.max.max(self.bounds.min));
        let elapsed = self
            .changed
            .map_or(0, |at| now.saturating_duration_since(at).as_millis());
        let most = u16::try_from(elapsed * MAX_CHANGE / 1000).unwrap_or(u16::MAX);
        self.changed = Some(now);
        let min = wanted.clamp(self.min.saturating_sub(most), self.min.saturating_add(most));
        if min / 10 == self.min / 10 {
            return; // the same on the wire
        }
        self.min = min;
        self.bytes = to_bytes(min, self.bounds.max);
        self.known = false;
        self.said = None;
    }
}

fn to_bytes(min_ms: u16, max_ms: u16) -> [u8; 3] {
    extension::PlayoutDelay { min_ms, max_ms }.to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(playout: &Playout) -> Option<(u16, u16)> {
        let value = extension::PlayoutDelay::read(playout.extension())?;
        Some((value.min_ms, value.max_ms))
    }

    #[test]
    fn it_is_said_until_a_report_covers_a_packet_that_said_it() {
        let now = Instant::now();
        let mut playout = Playout::new(PlayoutDelay { min: 100, max: 2000 });
        assert_eq!(said(&playout), Some((100, 2000)));
        playout.handle_sent(70_000);
        playout.handle_sent(70_001);
        playout.handle_report(69_999, Duration::ZERO, now);
        assert_eq!(said(&playout), Some((100, 2000)));
        playout.handle_report(70_000, Duration::ZERO, now);
        assert_eq!(said(&playout), None);
    }

    #[test]
    fn jitter_raises_it_slowly_and_within_bounds() {
        let start = Instant::now();
        let mut playout = Playout::new(PlayoutDelay { min: 100, max: 300 });
        for second in 0..=3u64 {
            playout.handle_sent(second);
            playout.handle_report(second, Duration::from_millis(60), start + Duration::from_secs(second));
        }
        assert_eq!(
            said(&playout),
            Some((300, 300)),
            "80 ms a second, up to the room's maximum"
        );
        playout.handle_sent(9);
        playout.handle_report(9, Duration::from_millis(60), start + Duration::from_secs(5));
        assert_eq!(said(&playout), None);
    }
}
