//! Durations, counted in buckets that are 3 % wide: a test of any length in 16 KiB.

use std::time::Duration;

/// Buckets of each power of two.
const STEPS: u32 = 32;

#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; 64 * STEPS as usize].into(),
            count: 0,
        }
    }
}

impl Histogram {
    pub fn add(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket(nanos)) {
            *bucket += 1;
        }
        self.count += 1;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// The value that a `part` (0 to 1) of all do not exceed; None of nothing.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return Some(Duration::from_nanos(middle(index)));
            }
        }
        None
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (u64::BITS - nanos.leading_zeros()).saturating_sub(STEPS.ilog2() + 1);
    (shift * STEPS) as usize + (nanos >> shift) as usize
}

fn middle(index: usize) -> u64 {
    let steps = STEPS as usize;
    let shift = (index / steps).saturating_sub(1);
    let base = (index - shift * steps) as u64;
    (base << shift) + ((1u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_three_percent() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for micros in 1..=1000 {
            histogram.add(Duration::from_micros(micros));
        }
        for (part, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0), (0.001, 1.0)] {
            let found = histogram.quantile(part).expect("values").as_secs_f64() * 1e6;
            assert!((found / expected - 1.0).abs() < 0.03, "{part}: {found}");
        }
    }

    #[test]
    fn every_value_has_a_bucket_of_its_size() {
        for nanos in [0, 1, 31, 32, 33, 63, 64, 65, 1_000, 123_456_789, 1 << 60] {
            let back = middle(bucket(nanos));
            assert!(back.abs_diff(nanos) <= nanos / 32, "{nanos} {back}");
        }
        Histogram::default().add(Duration::MAX);
    }
}
