//! How much arrives, and how long it takes: the delivered rate and the delay above the smallest seen.
//!
//! Both are counted on the receiver's clock, whose origin nobody knows and nobody needs.

use super::Micros;

/// Width of a bin of the delivered rate.
const BIN: Micros = 20_000;
const BINS: usize = 32;
/// Complete bins that make the rate: 300 ms, nine frames of 30 a second. Shorter and single frames show, longer and a
/// drop of the link shows late.
const WINDOW: i64 = 15;
/// Twice that where it holds fewer bytes: on a slow path single packets show.
const LONG_WINDOW: i64 = 30;
const FEW_BYTES: u64 = 30_000;
/// Six packets make a rate where they came without a gap.
const FEW_BUSY_BYTES: u64 = 6_000;
/// Before this many the rate is not known.
const MIN_BINS: i64 = 5;

/// Bits of UDP payload that arrive in a second.
#[derive(Debug)]
pub struct DeliveredRate {
    /// Bytes, by arrival.
    bins: [u32; BINS],
    newest: i64,
    first: Option<i64>,
}

impl DeliveredRate {
    pub fn new() -> Self {
        Self {
            bins: [0; BINS],
            newest: 0,
            first: None,
        }
    }

    pub fn add(&mut self, arrival: Micros, bytes: u32) {
        let bin = arrival.div_euclid(BIN);
        if self.first.is_none() || bin - self.newest >= BINS as i64 {
            // A pause; what came before it says nothing about now.
            self.bins = [0; BINS];
            self.first = Some(bin);
            self.newest = bin;
        }
        while self.newest < bin {
            self.newest += 1;
            if let Some(place) = self.bins.get_mut(place(self.newest)) {
                *place = 0;
            }
        }
        if self.newest - bin < BINS as i64
            && let Some(place) = self.bins.get_mut(place(bin))
        {
            *place = place.saturating_add(bytes);
        }
    }

    /// None = too little has come to tell.
    pub fn rate(&self) -> Option<f64> {
        let known = self.newest - self.first?;
        if known < MIN_BINS {
            return None;
        }
        let mut bins = known.min(WINDOW);
        let mut bytes = self.sum(bins);
        if bytes < FEW_BYTES {
            bins = known.min(LONG_WINDOW);
            bytes = self.sum(bins);
        }
        Some(bytes as f64 * 8.0 * 1e6 / (bins * BIN) as f64)
    }

    /// The same of the last moments alone, in which packets waited for so long: all that arrived came without a gap, as fast
    /// as the path carries it. None = too little has come to tell.
    pub fn busy_rate(&self, waited: Micros) -> Option<f64> {
        let bins = (waited / BIN).min(self.newest - self.first?).min(WINDOW);
        let bytes = self.sum(bins);
        (bytes >= FEW_BUSY_BYTES).then(|| bytes as f64 * 8.0 * 1e6 / (bins * BIN) as f64)
    }

    /// Where too little has come for that: it is less than this.
    pub fn busy_below(&self, waited: Micros) -> f64 {
        let bins = (waited / BIN).clamp(MIN_BINS, WINDOW);
        FEW_BUSY_BYTES as f64 * 8.0 * 1e6 / (bins * BIN) as f64
    }

    /// Bytes in the newest complete bins.
    fn sum(&self, bins: i64) -> u64 {
        let bins = self.newest - bins..self.newest;
        bins.map(|bin| u64::from(self.bins.get(place(bin)).copied().unwrap_or(0)))
            .sum()
    }
}

fn place(bin: i64) -> usize {
    bin.rem_euclid(BINS as i64) as usize
}

/// Smallest value within a window, by halves: exact to half a window, two values of memory.
#[derive(Debug)]
struct WindowedMin {
    half: Micros,
    since: Micros,
    current: i64,
    previous: i64,
}

impl WindowedMin {
    fn new(window: Micros) -> Self {
        Self {
            half: window / 2,
            since: Micros::MIN,
            current: i64::MAX,
            previous: i64::MAX,
        }
    }

    fn add(&mut self, now: Micros, value: i64) {
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= self.half {
            self.previous = if elapsed < self.half * 2 {
                self.current
            } else {
                i64::MAX
            };
            self.current = i64::MAX;
            self.since = now;
        }
        self.current = self.current.min(value);
    }

    fn min(&self) -> Option<i64> {
        Some(self.current.min(self.previous)).filter(|min| *min != i64::MAX)
    }

    fn reset(&mut self) {
        *self = Self::new(self.half * 2);
    }
}

/// The smallest delay is believed this long: clocks drift apart by 3 ms in it at worst, and routes change.
const BASE_WINDOW: Micros = 30_000_000;
/// The lower edge of the delays within this is what queues make of it; the rest is jitter.
const RECENT_WINDOW: Micros = 200_000;
/// The same where there is no time to be sure.
const PROMPT_WINDOW: Micros = 40_000;

/// Delay above the smallest seen: what waits in the path.
#[derive(Debug)]
pub struct QueueDelay {
    base: WindowedMin,
    recent: WindowedMin,
    prompt: WindowedMin,
}

impl QueueDelay {
    pub fn new() -> Self {
        Self {
            base: WindowedMin::new(BASE_WINDOW),
            recent: WindowedMin::new(RECENT_WINDOW),
            prompt: WindowedMin::new(PROMPT_WINDOW),
        }
    }

    /// `one_way` is arrival less departure, each on its own clock.
    pub fn add(&mut self, departure: Micros, one_way: Micros) {
        self.base.add(departure, one_way);
        self.recent.add(departure, one_way);
        self.prompt.add(departure, one_way);
    }

    /// Zero before anything is known.
    pub fn get(&self) -> Micros {
        match (self.base.min(), self.recent.min()) {
            (Some(base), Some(recent)) => recent - base,
            _ => 0,
        }
    }

    /// As `get`, of the last packets only: a queue shows at once, and jitter sometimes.
    pub fn prompt(&self) -> Micros {
        match (self.base.min(), self.prompt.min()) {
            (Some(base), Some(prompt)) => prompt - base,
            _ => 0,
        }
    }

    /// The path has changed: what is seen now is the smallest there is.
    pub fn rebase(&mut self) {
        self.base.reset();
        self.recent.reset();
        self.prompt.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_300_ms() {
        let mut delivered = DeliveredRate::new();
        assert_eq!(delivered.rate(), None);
        let mut at = -777_000;
        for _ in 0..100 {
            at += 10_000;
            delivered.add(at, 1250);
        }
        assert!((delivered.rate().unwrap() - 1e6).abs() < 1e4);
        for _ in 0..64 {
            at += 10_000;
            delivered.add(at, 125);
        }
        assert!((delivered.rate().unwrap() - 1e5).abs() < 3e4);
        delivered.add(at - 100_000, 1250);
        delivered.add(at - 10_000_000, 1250);
        delivered.add(at + 1_000_000_000, 1250);
        assert_eq!(delivered.rate(), None, "begins anew after a pause");
    }

    #[test]
    fn what_waits_arrives_as_fast_as_the_path_carries() {
        let mut delivered = DeliveredRate::new();
        let mut at = 0;
        for _ in 0..50 {
            at += 10_000;
            delivered.add(at, 1250);
        }
        for _ in 0..12 {
            at += 10_000;
            delivered.add(at, 625);
        }
        assert!(delivered.rate().unwrap() > 0.75e6);
        assert_eq!(delivered.busy_rate(60_000), None, "too few packets");
        assert_eq!(delivered.busy_below(200_000), 240_000.0);
        assert!((delivered.busy_rate(100_000).unwrap() - 0.5e6).abs() < 3e4);
    }

    #[test]
    fn delay_above_the_smallest() {
        let mut queue = QueueDelay::new();
        assert_eq!(queue.get(), 0);
        let offset = -5_000_000_000;
        for n in 0..100 {
            queue.add(n * 10_000, offset + 20_000 + (n % 5) * 7_000);
        }
        assert_eq!(queue.get(), 0, "jitter is no queue");
        for n in 100..150 {
            queue.add(n * 10_000, offset + 120_000);
        }
        assert_eq!((queue.get(), queue.prompt()), (100_000, 100_000));
        for n in 150..160 {
            queue.add(n * 10_000, offset + 220_000);
        }
        assert_eq!((queue.get(), queue.prompt()), (100_000, 200_000));
        queue.rebase();
        queue.add(1_500_000, offset + 120_000);
        assert_eq!(queue.get(), 0);
    }
}
