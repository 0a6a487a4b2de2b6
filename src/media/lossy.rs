//! Whether so much of what a transport is sent is lost, for so long, that another way to its client may be better.
//!
//! Owned by the transport, fed with the client's reports. Says it once and counts anew; what comes of it is control's.

use std::time::{Duration, Instant};

/// LiveKit: a second in which a report says a quarter or more of 255 is a lossy one …
const LOSSY: u8 = (255 * 25 / 100) as u8;
const SECOND: Duration = Duration::from_secs(1);
/// … and these many of the last 32 with reports are too many.
const TOO_MANY: u32 = 20;

#[derive(Debug, Default)]
pub struct LossySeconds {
    /// One bit each, the newest lowest.
    recent: u32,
    /// Since `since`.
    worst: u8,
    since: Option<Instant>,
}

impl LossySeconds {
    /// `fraction_lost`: of 256, as a report block has it. True when there are too many lossy seconds.
    pub fn handle_report(&mut self, now: Instant, fraction_lost: u8) -> bool {
        self.worst = self.worst.max(fraction_lost);
        if now.duration_since(*self.since.get_or_insert(now)) < SECOND {
            return false;
        }
        self.since = Some(now);
        self.recent = self.recent << 1 | u32::from(std::mem::take(&mut self.worst) >= LOSSY);
        let is_enough = self.recent.count_ones() >= TOO_MANY;
        if is_enough {
            self.recent = 0;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds it says so; a report on another stream, which loses nothing, follows each.
    fn says(lost: impl Fn(u32) -> u8) -> Option<u32> {
        let start = Instant::now();
        let mut seconds = LossySeconds::default();
        (0..200).find(|second| {
            let now = start + SECOND * *second;
            let reports = [lost(*second), 0];
            reports.into_iter().any(|lost| seconds.handle_report(now, lost))
        })
    }

    #[test]
    fn twenty_lossy_seconds_of_thirty_two() {
        assert_eq!(says(|_| 255), Some(20));
        assert_eq!(says(|_| LOSSY), Some(20));
        assert_eq!(says(|_| LOSSY - 1), None);
        // Two of three are enough, one of two never is.
        assert_eq!(says(|second| if second % 3 == 0 { 0 } else { 100 }), Some(29));
        assert_eq!(says(|second| if second % 2 == 0 { 0 } else { 100 }), None);
    }

    #[test]
    fn it_is_said_once() {
        let start = Instant::now();
        let mut seconds = LossySeconds::default();
        let said = (0..60).filter(|second| seconds.handle_report(start + SECOND * *second, 200));
        assert_eq!(said.collect::<Vec<_>>(), [20, 40]);
    }
}
