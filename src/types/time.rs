//! Wall-clock time for cores that are given only a monotonic `now`.

use std::time::{Duration, Instant};

/// Pairs a monotonic instant with UNIX time once, so that a core can print wall-clock times from its `now` argument.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    origin: Instant,
    unix_at_origin: Duration,
}

impl WallClock {
    pub fn new(origin: Instant, unix_at_origin: Duration) -> Self {
        Self { origin, unix_at_origin }
    }

    /// Time since 1970-01-01T00:00:00Z.
    pub fn unix(&self, now: Instant) -> Duration {
        match now.checked_duration_since(self.origin) {
            Some(since) => self.unix_at_origin + since,
            None => self.unix_at_origin.saturating_sub(self.origin - now),
        }
    }

    /// The instant at which it was, or will be, so long since 1970; `origin` for what no clock can show.
    pub fn instant(&self, unix: Duration) -> Instant {
        let instant = match unix.checked_sub(self.unix_at_origin) {
            Some(later) => self.origin.checked_add(later),
            None => self.origin.checked_sub(self.unix_at_origin.saturating_sub(unix)),
        };
        instant.unwrap_or(self.origin)
    }

    /// 64-bit NTP timestamp (RFC 5905: seconds since 1900 in the upper half), as RTCP sender reports carry it.
    pub fn ntp(&self, now: Instant) -> u64 {
        const UNIX_TO_NTP_SECONDS: u64 = 2_208_988_800;
        let unix = self.unix(now);
        let seconds = unix.as_secs() + UNIX_TO_NTP_SECONDS;
        (seconds << 32) | ((u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000)
    }
}
