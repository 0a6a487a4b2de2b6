//! What one received stream says of itself by its headers: packets, gaps, order, freezes.

use std::time::Duration;

use crate::rtp::sequence::Extender;

/// Numbers below the highest that are remembered, to tell a late packet from a repeated one.
const REMEMBERED: u64 = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The number of packets that are missing before it.
    New { skipped: u64 },
    /// It was counted as skipped.
    Late,
    /// It was there already, or is too old to tell.
    Repeated,
}

#[derive(Debug, Default)]
pub struct Order {
    extender: Extender,
    first: Option<u64>,
    /// Bit n = the packet n before the highest has come.
    came: u128,
    received: u64,
}

impl Order {
    /// The extended number (from cycle 0) and what it means.
    pub fn see(&mut self, sequence: u16) -> (u64, Seen) {
        let before = self.extender.highest();
        let extended = self.extender.extend(sequence);
        let seen = match before {
            None => {
                self.first = Some(extended);
                self.came = 1;
                Seen::New { skipped: 0 }
            }
            Some(before) if extended > before => {
                let distance = extended - before;
                self.came = u32::try_from(distance)
                    .ok()
                    .and_then(|shift| self.came.checked_shl(shift))
                    .unwrap_or(0)
                    | 1;
                Seen::New { skipped: distance - 1 }
            }
            Some(before) => {
                let age = before - extended;
                let bit = if age < REMEMBERED { 1u128 << age } else { 0 };
                if bit == 0 || self.came & bit != 0 {
                    Seen::Repeated
                } else {
                    self.came |= bit;
                    Seen::Late
                }
            }
        };
        self.received += u64::from(seen != Seen::Repeated);
        (extended.saturating_sub(1 << 16), seen)
    }

    /// For a receiver report (RFC 3550 §6.4.1): highest number with cycles, and packets that never came.
    pub fn reported(&self) -> Option<(u32, i32)> {
        let (first, highest) = (self.first?, self.extender.highest()?);
        let expected = highest - first + 1;
        let lost = i64::try_from(expected).ok()? - i64::try_from(self.received).ok()?;
        Some(((highest - (1 << 16)) as u32, lost as i32))
    }
}

/// Freezes as WebRTC's statistics count them (`freezeCount`): a frame comes later after the one before it than three times
/// the mean distance of the last frames, or that mean and 150 ms, whichever is longer.
#[derive(Debug, Default)]
pub struct Frames {
    last: Option<(u32, Duration)>,
    mean: Option<Duration>,
    counted: u32,
}

impl Frames {
    /// The first packet of a frame is what counts. True when there was a freeze before it.
    pub fn see(&mut self, timestamp: u32, at: Duration) -> bool {
        let Some((last, last_at)) = self.last else {
            self.last = Some((timestamp, at));
            return false;
        };
        if timestamp.wrapping_sub(last) as i32 <= 0 {
            return false;
        }
        self.last = Some((timestamp, at));
        let distance = at.saturating_sub(last_at);
        let frozen = self.counted >= 5
            && self
                .mean
                .is_some_and(|mean| distance > (mean * 3).max(mean + Duration::from_millis(150)));
        if !frozen {
            // A mean over about 30 frames.
            self.mean = Some(self.mean.map_or(distance, |mean| (mean * 29 + distance) / 30));
            self.counted = self.counted.saturating_add(1);
        }
        frozen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_late_packets_and_repeats_are_told_apart() {
        let mut order = Order::default();
        assert_eq!(order.see(65_534), (65_534, Seen::New { skipped: 0 }));
        assert_eq!(order.see(1), (65_537, Seen::New { skipped: 2 }));
        assert_eq!(order.reported(), Some((65_537, 2)));
        assert_eq!(order.see(65_535).1, Seen::Late);
        assert_eq!(order.see(65_535).1, Seen::Repeated);
        assert_eq!(order.see(1).1, Seen::Repeated);
        assert_eq!(order.see(0).1, Seen::Late);
        assert_eq!(order.reported(), Some((65_537, 0)));
        assert_eq!(order.see(1001).1, Seen::New { skipped: 999 });
        // Too old to know.
        assert_eq!(order.see(2).1, Seen::Repeated);
        assert_eq!(order.see(1000).1, Seen::Late);
    }

    #[test]
    fn a_freeze_is_a_gap_that_a_viewer_sees() {
        let mut frames = Frames::default();
        let mut freezes = Vec::new();
        let mut at = Duration::ZERO;
        for frame in 0..100u32 {
            at += Duration::from_millis(match frame {
                50 => 150,
                70 => 400,
                _ => 33,
            });
            for _ in 0..3 {
                if frames.see(frame.wrapping_mul(3000).wrapping_sub(9000), at) {
                    freezes.push(frame);
                }
            }
        }
        assert_eq!(freezes, [70]);
    }
}
