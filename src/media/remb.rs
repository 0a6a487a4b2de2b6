//! The receive-side bandwidth limit for publishers that know no transport-wide feedback (draft-alvestrand-rmcat-remb-03).
//!
//! Loss-based only: additive growth while nothing is lost, a cut in proportion to loss, never far above what arrives.

/// Old clients start around here and must be allowed to grow.
const START: u64 = 1_000_000;
const MIN: u64 = 100_000;
const MAX: u64 = 20_000_000;

/// Of 256: below 2 % is not congestion, above 10 % is (RFC 8698 and GCC use the same bounds).
const LOW_LOSS: u8 = 5;
const HIGH_LOSS: u8 = 26;

/// What arrived on a transport in one report interval, a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub bytes: u64,
    /// Of 256, the worst stream's.
    pub fraction_lost: u8,
}

#[derive(Debug)]
pub struct RembEstimate {
    /// Bits per second.
    limit: u64,
}

impl Default for RembEstimate {
    fn default() -> Self {
        Self { limit: START }
    }
}

impl RembEstimate {
    /// Once per second; the new limit in bits per second.
    pub fn update(&mut self, load: Load) -> u64 {
        let received = load.bytes * 8;
        if load.fraction_lost > HIGH_LOSS {
            self.limit = received * u64::from(512 - u16::from(load.fraction_lost)) / 512;
        } else if load.fraction_lost < LOW_LOSS {
            // Growth beyond twice what is used would be a guess.
            self.limit = (self.limit + self.limit / 12).min((received * 2).max(self.limit.min(START)));
        }
        self.limit = self.limit.clamp(MIN, MAX);
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_without_loss_and_falls_with_it() {
        let mut estimate = RembEstimate::default();
        let mut limit = 0;
        for _ in 0..30 {
            limit = estimate.update(Load {
                bytes: limit.max(START) / 8,
                fraction_lost: 0,
            });
        }
        assert!(limit > 5 * START, "{limit}");
        let cut = estimate.update(Load {
            bytes: limit / 8,
            fraction_lost: 64,
        });
        assert!(cut < limit && cut > limit / 2, "{cut}");
    }
}
