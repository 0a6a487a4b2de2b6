//! The delay that a receiver's video jitter buffer is asked for: what the room wishes (`room.playout_delay`), and on a lossy
//! path long enough for what was lost to come again.
//!
//! Owned by a subscription: hears report blocks, and says what packets carry until one of those has arrived. Never shortens
//! what a receiver chooses by itself.
//!
//! A libwebrtc receiver that sends no media knows no round-trip time: it does not wait for retransmissions, and leaves out
//! the frames that they complete. Measured with Chromium at 60 ms RTT and 20 % of loss in both directions: 6.6 of 20 s frozen,
//! with all but a hundredth of the packets recovered.

use std::time::{Duration, Instant};

use super::edge::PlayoutDelay;
use crate::rtp::extension;

/// The least delay a room asks for, in times of the jitter.
// LiveKit: ten times the receiver's jitter, within the room's bounds and changing slowly, so that pictures do not jump.
const JITTERS: u32 = 10;
/// The most that it changes in a second for that, and that a wait for repairs shrinks, ms. Receivers smooth what grows.
const MAX_CHANGE: u128 = 80;

/// Losses below this share are rare enough to be left to the receiver.
const LOSSY: f32 = 0.02;
/// Beside the RTT: a frame's last packet is missed when the next frame comes, and then the picture is decoded.
const NOTICE: Duration = Duration::from_millis(40);
/// A NACK is repeated after an RTT, and after this where the receiver does not know it (libwebrtc).
const REPEAT: Duration = Duration::from_millis(100);
/// Repeats waited for, at a loss of 100 %: one at a tenth, where one frame in five needs it.
const REPEATS: f32 = 10.0;
/// Above, people begin to talk at the same time.
const LONGEST: Duration = Duration::from_millis(500);
/// "No longest" beside a shortest: what receivers take when nothing is said, ms.
const NO_LONGEST: u16 = 10_000;
/// A report counts this much for the smoothed loss. Receivers report about once a second.
const WEIGHT: f32 = 1.0 / 3.0;

/// A report block about the stream, and what is known of its path.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    /// Extended as `handle_sent`'s numbers are.
    pub highest: u64,
    pub jitter: Duration,
    /// 0.0..=1.0, since the report before.
    pub loss: f32,
    pub rtt: Duration,
}

#[derive(Clone, Copy, Debug)]
pub struct Playout {
    /// The room's.
    bounds: Option<PlayoutDelay>,
    /// Asked for by the room and for repairs, ms; the greater one is said.
    wished: u16,
    repairs: u16,
    /// Of the last reports.
    loss: f32,
    changed: Option<Instant>,
    /// Extended number of the first packet that said so.
    said: Option<u64>,
    /// The extension.
    bytes: [u8; 3],
    /// A report says that it arrived, or there is nothing to say.
    known: bool,
}

impl Playout {
    pub fn new(bounds: Option<PlayoutDelay>) -> Self {
        let mut playout = Self {
            bounds,
            wished: bounds.map_or(0, |bounds| bounds.min),
            repairs: 0,
            loss: 0.0,
            changed: None,
            said: None,
            bytes: [0; 3],
            known: bounds.is_none(),
        };
        playout.bytes = playout.to_bytes();
        playout
    }

    pub fn bounds(&self) -> Option<PlayoutDelay> {
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

    pub fn handle_report(&mut self, heard: Heard, now: Instant) {
        self.known |= self.said.is_some_and(|said| heard.highest >= said);
        let elapsed = self
            .changed
            .map_or(0, |at| now.saturating_duration_since(at).as_millis());
        let most = u16::try_from(elapsed * MAX_CHANGE / 1000).unwrap_or(u16::MAX);
        self.changed = Some(now);
        if let Some(bounds) = self.bounds {
            let wanted = to_ms(heard.jitter * JITTERS).clamp(bounds.min, bounds.max.max(bounds.min));
            self.wished = wanted.clamp(self.wished.saturating_sub(most), self.wished.saturating_add(most));
        }
        self.loss += (heard.loss - self.loss) * WEIGHT;
        self.repairs = wait(self.loss, heard.rtt).max(self.repairs.saturating_sub(most));
        let bytes = self.to_bytes();
        if bytes != self.bytes {
            self.bytes = bytes;
            self.known = false;
            self.said = None;
        }
    }

    fn to_bytes(self) -> [u8; 3] {
        let max_ms = self.bounds.map_or(NO_LONGEST, |bounds| bounds.max);
        let repairs = self.repairs.min(max_ms);
        extension::PlayoutDelay {
            min_ms: self.wished.max(repairs),
            max_ms,
        }
        .to_bytes()
    }
}

/// How long retransmissions take at that loss in both directions; 0 = not worth a delay.
fn wait(loss: f32, rtt: Duration) -> u16 {
    if loss < LOSSY {
        return 0;
    }
    let again = rtt.max(REPEAT).mul_f32((loss * REPEATS).clamp(0.0, REPEATS));
    to_ms((rtt + NOTICE + again).min(LONGEST))
}

fn to_ms(time: Duration) -> u16 {
    u16::try_from(time.as_millis()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Heard = Heard {
        highest: 0,
        jitter: Duration::ZERO,
        loss: 0.0,
        rtt: Duration::from_millis(60),
    };

    fn said(playout: &Playout) -> Option<(u16, u16)> {
        let value = extension::PlayoutDelay::read(playout.extension())?;
        Some((value.min_ms, value.max_ms))
    }

    fn room(min: u16, max: u16) -> Playout {
        Playout::new(Some(PlayoutDelay { min, max }))
    }

    /// A packet of that number leaves and a report covers it.
    fn report(playout: &mut Playout, number: u64, heard: Heard, now: Instant) {
        playout.handle_sent(number);
        let highest = number;
        playout.handle_report(Heard { highest, ..heard }, now);
    }

    #[test]
    fn it_is_said_until_a_report_covers_a_packet_that_said_it() {
        let now = Instant::now();
        let mut playout = room(100, 2000);
        assert_eq!(said(&playout), Some((100, 2000)));
        playout.handle_sent(70_000);
        playout.handle_sent(70_001);
        let heard = |highest| Heard { highest, ..START };
        playout.handle_report(heard(69_999), now);
        assert_eq!(said(&playout), Some((100, 2000)));
        playout.handle_report(heard(70_000), now);
        assert_eq!(said(&playout), None);
    }

    #[test]
    fn jitter_raises_it_slowly_and_within_bounds() {
        let start = Instant::now();
        let mut playout = room(100, 300);
        let jitter = Duration::from_millis(60);
        let heard = Heard { jitter, ..START };
        for second in 0..=3u64 {
            report(&mut playout, second, heard, start + Duration::from_secs(second));
        }
        assert_eq!(
            said(&playout),
            Some((300, 300)),
            "80 ms a second, up to the room's maximum"
        );
        report(&mut playout, 9, heard, start + Duration::from_secs(5));
        assert_eq!(said(&playout), None);
    }

    #[test]
    fn a_wait_for_repairs_is_taken_back_slowly() {
        let start = Instant::now();
        let mut playout = Playout::new(None);
        let lossy = Heard { loss: 0.3, ..START };
        (0..20).for_each(|second| report(&mut playout, second, lossy, start + Duration::from_secs(second)));
        let most = playout.repairs;
        assert!(most > 300, "{most}");
        // The path gets better at once, the picture not faster than people notice.
        let mut last = most;
        for second in 20..40 {
            report(&mut playout, second, START, start + Duration::from_secs(second));
            assert!(playout.repairs >= last.saturating_sub(80), "{last} {}", playout.repairs);
            last = playout.repairs;
        }
        assert_eq!(last, 0);
    }

    #[test]
    fn a_lossy_path_is_given_time_for_repairs() {
        let start = Instant::now();
        let mut playout = Playout::new(None);
        assert_eq!(said(&playout), None, "a receiver chooses by itself");
        report(&mut playout, 1, Heard { loss: 0.01, ..START }, start);
        assert_eq!(said(&playout), None);
        let lossy = Heard { loss: 0.1, ..START };
        for second in 1..20 {
            report(&mut playout, second, lossy, start + Duration::from_secs(second));
        }
        // 60 of RTT, 40 until it is noticed, and nearly 100 for a second try.
        assert_eq!(playout.repairs, 199);
        assert_eq!(said(&playout), None, "known");
        report(&mut playout, 20, START, start + Duration::from_secs(20));
        assert_eq!(said(&playout), Some((160, 10_000)), "smoothed, and at once");
        for second in 21..40 {
            report(&mut playout, second, START, start + Duration::from_secs(second));
        }
        assert_eq!(
            (playout.repairs, said(&playout)),
            (0, None),
            "the receiver has heard of its freedom"
        );
        // It stays within what the room allows.
        let mut playout = room(0, 150);
        for second in 1..20 {
            report(&mut playout, second, lossy, start + Duration::from_secs(second));
        }
        assert_eq!(
            playout.to_bytes(),
            extension::PlayoutDelay {
                min_ms: 150,
                max_ms: 150
            }
            .to_bytes()
        );
        let far = Duration::from_secs(2);
        assert_eq!([wait(0.3, far), wait(1.0, far)], [500; 2]);
    }
}
