//! How many answers a network gets before it has shown a password: a token bucket per prefix, in constant memory.

use std::hash::{DefaultHasher, Hasher};
use std::net::IpAddr;
use std::time::Instant;

/// Prefixes share buckets by hash; a flood from one slows the few that fall on the same.
const BUCKETS: usize = 4096;
/// An office of hundreds behind one address joins at once: each needs a handful of answers.
const BURST: f64 = 2000.0;
const PER_SECOND: f64 = 200.0;

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

pub(super) struct Limiter {
    /// Mixed into the hash, so that nobody can aim at another's bucket. Decides nothing but who shares one.
    salt: u64,
    buckets: Vec<Bucket>,
}

impl Limiter {
    pub(super) fn new(now: Instant, salt: u64) -> Self {
        Self {
            salt,
            buckets: vec![
                Bucket {
                    tokens: BURST,
                    filled: now,
                };
                BUCKETS
            ],
        }
    }

    /// Takes one token of the prefix's: /24 of IPv4, /56 of IPv6, which one attacker may own whole.
    pub(super) fn take(&mut self, now: Instant, source: IpAddr) -> bool {
        let prefix = match source {
            IpAddr::V4(v4) => u128::from(u32::from(v4) >> 8),
            IpAddr::V6(v6) => (u128::from(v6) >> 72) | 1 << 127,
        };
        let mut hash = DefaultHasher::new();
        hash.write_u64(self.salt);
        hash.write_u128(prefix);
        let index = hash.finish() as usize % BUCKETS;
        let Some(bucket) = self.buckets.get_mut(index) else {
            return false;
        };
        let passed = now.saturating_duration_since(bucket.filled);
        bucket.tokens = (bucket.tokens + passed.as_secs_f64() * PER_SECOND).min(BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}
