//! Counts by size, for metrics: how many values were at most so large. Plain numbers, written by a shard's own thread.

/// As many bounds as any of them has.
const MAX_BOUNDS: usize = 15;

#[derive(Clone, Debug)]
pub struct Spread {
    /// Upper bounds, rising; at most `MAX_BOUNDS` of them count.
    bounds: &'static [u64],
    /// One for each bound and one for what is larger.
    counts: [u64; MAX_BOUNDS + 1],
    sum: u64,
}

impl Spread {
    pub const fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: [0; MAX_BOUNDS + 1],
            sum: 0,
        }
    }

    pub fn record(&mut self, value: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value).min(MAX_BOUNDS);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
            self.sum = self.sum.saturating_add(value);
        }
    }

    /// Adds what another of the same bounds has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// Each bound (None = whatever is larger) with how many values were not above it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> + '_ {
        let mut total = 0;
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(self.counts).map(move |(bound, count)| {
            total += count;
            (bound, total)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_up_to_each_bound() {
        let mut spread = Spread::new(&[5, 10]);
        for value in [1, 5, 6, 11] {
            spread.record(value);
        }
        let mut twice = spread.clone();
        twice.add(&spread);
        let counted: Vec<_> = twice.cumulative().collect();
        assert_eq!(counted, [(Some(5), 4), (Some(10), 6), (None, 8)]);
        assert_eq!(twice.sum(), 46);
    }
}
