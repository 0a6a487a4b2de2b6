//! Counts by size, for metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many values were at most so large. Values are whole: milliseconds, seconds.
#[derive(Debug)]
pub struct Histogram {
    /// Upper bounds, rising.
    bounds: &'static [u64],
    /// One for each bound and one for what is larger.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
    /// What is recorded is so many times what is written.
    scale: f64,
}

impl Histogram {
    pub fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            scale: 1.0,
        }
    }

    /// Of fractions: values and bounds are so many times what they stand for.
    pub fn scaled(bounds: &'static [u64], scale: u32) -> Self {
        Self {
            scale: scale.into(),
            ..Self::new(bounds)
        }
    }

    pub fn record(&self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Prometheus lines of `name`, whose labels are `labels` (`a="b",…`, perhaps empty).
    pub fn write(&self, out: &mut String, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (at, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self
                .bounds
                .get(at)
                .map_or("+Inf".to_owned(), |bound| (*bound as f64 / self.scale).to_string());
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / self.scale;
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_written_as_such() {
        let histogram = Histogram::scaled(&[100, 325], 100);
        histogram.record(150);
        let mut out = String::new();
        histogram.write(&mut out, "x", "");
        assert_eq!(
            out,
            "x_bucket{le=\"1\"} 0\nx_bucket{le=\"3.25\"} 1\nx_bucket{le=\"+Inf\"} 1\nx_sum{} 1.5\nx_count{} 1\n"
        );
    }

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::new(&[5, 10]);
        for value in [1, 5, 6, 11] {
            histogram.record(value);
        }
        let mut out = String::new();
        histogram.write(&mut out, "x", "a=\"b\"");
        assert_eq!(
            out,
            "x_bucket{a=\"b\",le=\"5\"} 2\nx_bucket{a=\"b\",le=\"10\"} 3\nx_bucket{a=\"b\",le=\"+Inf\"} 4\nx_sum{a=\"b\"} 23\nx_count{a=\"b\"} 4\n"
        );
    }
}
