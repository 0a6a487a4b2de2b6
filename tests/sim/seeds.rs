//! A story over many seeds: its figures, the worst of them and where it happened. One seed gives one run, to the last
//! figure.

use std::{fmt::Write, ops::RangeInclusive, time::Duration};

use crate::randomness::replayable;

/// Seeds of each story unless `SIM_SEEDS` says otherwise (`make sim` takes 30).
const DEFAULT_SEEDS: u64 = 3;

/// What a figure may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn allows(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn is_worse(self, value: f64, than: f64) -> bool {
        match self {
            Self::AtMost(_) => value > than,
            Self::AtLeast(_) => value < than,
        }
    }
}

/// One measured value of one run. Times are in milliseconds, shares in percent.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    name: String,
    value: f64,
    bound: Bound,
}

pub fn at_most(name: impl Into<String>, value: f64, bound: f64) -> Figure {
    Figure {
        name: name.into(),
        value,
        bound: Bound::AtMost(bound),
    }
}

pub fn at_least(name: impl Into<String>, value: f64, bound: f64) -> Figure {
    Figure {
        name: name.into(),
        value,
        bound: Bound::AtLeast(bound),
    }
}

pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Runs a story for each seed and says the worst value of every figure; fails when one is out of its bound. With
/// `SIM_TWICE` set each seed runs twice, and must come to the same.
pub fn over_seeds(story: &str, run: impl Fn(u64) -> Vec<Figure> + Sync) {
    let count = std::env::var("SIM_SEEDS").ok().and_then(|count| count.parse().ok());
    // One seed again: SIM_SEED=17.
    let only: Option<u64> = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    over(
        story,
        only.map_or(1..=count.unwrap_or(DEFAULT_SEEDS), |seed| seed..=seed),
        std::env::var_os("SIM_TWICE").is_some(),
        run,
    );
}

pub fn over(story: &str, seeds: RangeInclusive<u64>, twice: bool, run: impl Fn(u64) -> Vec<Figure> + Sync) {
    let mut worst: Vec<(Figure, u64)> = Vec::new();
    for seed in seeds.clone() {
        let figures = replayable(seed, || run(seed));
        if twice {
            assert_eq!(replayable(seed, || run(seed)), figures, "{story}, seed {seed} again");
        }
        for figure in figures {
            match worst.iter_mut().find(|(known, _)| known.name == figure.name) {
                Some((known, at)) if figure.bound.is_worse(figure.value, known.value) => {
                    (*known, *at) = (figure, seed);
                }
                Some(_) => {}
                None => worst.push((figure, seed)),
            }
        }
    }
    let mut report = format!("{story}, worst of seeds {seeds:?}\n");
    for (figure, seed) in &worst {
        let verdict = if figure.bound.allows(figure.value) { "  " } else { "! " };
        let Figure { name, value, bound } = figure;
        let _ = writeln!(report, "{verdict}{name}: {value:.1} ({bound:?}, seed {seed})");
    }
    print!("{report}");
    assert!(
        worst.iter().all(|(figure, _)| figure.bound.allows(figure.value)),
        "{report}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "! speed: 2.0 (AtLeast(3.0), seed 2)")]
    fn the_worst_seed_is_named() {
        over("a story", 1..=3, false, |seed| {
            vec![at_least("speed", if seed == 2 { 2.0 } else { 5.0 }, 3.0)]
        });
    }

    #[test]
    #[should_panic(expected = "a story, seed 1 again")]
    fn a_seed_that_comes_to_something_else_is_named() {
        let runs = std::sync::atomic::AtomicU32::new(0);
        over("a story", 1..=3, true, |_| {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            vec![at_least("speed", f64::from(run), 0.0)]
        });
    }
}
