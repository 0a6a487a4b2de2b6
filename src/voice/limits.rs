//! How often somebody may ask: so many in a window of time, counted from the first.

use std::collections::HashMap;
use std::time::Duration;

use super::ids::UnixMillis;

/// Windows remembered at a time: one for each user, route and channel in use within seconds. When more come, those that
/// are over are forgotten, and if there are none everybody new has to wait.
const MAX_WINDOWS: usize = 200_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub count: u32,
    pub window: Duration,
}

impl Limit {
    pub const fn new(count: u32, window: Duration) -> Self {
        Self { count, window }
    }
}

/// What is counted: whose, which kind, where.
pub type Bucket = (u64, &'static str, u64);

#[derive(Clone, Debug, Default)]
pub struct RateLimits {
    /// When a window ends, and what is left in it.
    windows: HashMap<Bucket, (UnixMillis, u32)>,
}

impl RateLimits {
    /// # Errors
    /// How long to wait.
    pub fn take(&mut self, now: UnixMillis, bucket: Bucket, limit: Limit) -> Result<(), Duration> {
        if self.windows.len() >= MAX_WINDOWS && !self.windows.contains_key(&bucket) {
            self.windows.retain(|_, (end, _)| *end > now);
            if self.windows.len() >= MAX_WINDOWS {
                return Err(limit.window);
            }
        }
        let fresh = (now.after(limit.window), limit.count);
        let window = self.windows.entry(bucket).or_insert(fresh);
        if window.0 <= now {
            *window = fresh;
        }
        match window.1.checked_sub(1) {
            Some(left) => {
                window.1 = left;
                Ok(())
            }
            None => Err(window.0.since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_with_the_first_and_is_whole_again_after_it() {
        let mut limits = RateLimits::default();
        let limit = Limit::new(2, Duration::from_secs(10));
        let at = |ms: u64| UnixMillis(1_000_000 + ms);
        assert_eq!(limits.take(at(0), (1, "ring", 5), limit), Ok(()));
        assert_eq!(limits.take(at(4000), (1, "ring", 5), limit), Ok(()));
        assert_eq!(
            limits.take(at(4000), (1, "ring", 5), limit),
            Err(Duration::from_secs(6))
        );
        assert_eq!(limits.take(at(4000), (1, "ring", 6), limit), Ok(()), "another channel");
        assert_eq!(limits.take(at(4000), (2, "ring", 5), limit), Ok(()), "another user");
        assert_eq!(limits.take(at(10_000), (1, "ring", 5), limit), Ok(()));
    }
}
