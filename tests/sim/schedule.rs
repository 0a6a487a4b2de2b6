//! A link's conditions and their changes as text, for those who cannot write them in Rust.
//!
//! ```text
//! rate=10M queue=300ms delay=20ms; at=10s rate=800k; at=30s rate=10M
//! ```
//!
//! Steps are divided by `;`, and each begins with what the one before left. `only=up` (from the peer) and `only=down` change
//! one direction. `rate=none` and `cut` / `cut=no` are words of their own; `burst=5/3%` is the mean length and the share of
//! losses, `reorder=2%/20ms` the share and the longest delay.

use std::time::Duration;

use crate::impairment::{Burst, Conditions, Reorder};

/// Both directions from `at` on, counted from when the text is put into effect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    pub at: Duration,
    pub up: Conditions,
    pub down: Conditions,
}

/// The steps of `text`, by time. What the first does not say stays as in `from`.
pub fn parse(text: &str, mut from: Step) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut last = Duration::ZERO;
    from.at = Duration::ZERO;
    for words in text.split(';').filter(|step| !step.trim().is_empty()) {
        let mut ways = [true, true];
        for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
            let wrong = || format!("{word:?} is no condition of a link");
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("at", at) => from.at = time(at).ok_or_else(wrong)?,
                ("only", "up") => ways = [true, false],
                ("only", "down") => ways = [false, true],
                _ => {
                    for (way, _) in [&mut from.up, &mut from.down]
                        .into_iter()
                        .zip(ways)
                        .filter(|(_, on)| *on)
                    {
                        change(way, name, value).ok_or_else(wrong)?;
                    }
                }
            }
        }
        if from.at < last {
            return Err(format!("{:?} comes after {last:?}", from.at));
        }
        last = from.at;
        steps.push(from);
    }
    Ok(steps)
}

fn change(conditions: &mut Conditions, name: &str, value: &str) -> Option<()> {
    match name {
        "rate" => conditions.rate = if value == "none" { None } else { Some(rate(value)?) },
        "queue" => conditions.queue = time(value)?,
        "delay" => conditions.delay = time(value)?,
        "jitter" => conditions.jitter = time(value)?,
        "loss" => conditions.loss = share(value)?,
        "duplicate" => conditions.duplicate = share(value)?,
        "cut" => conditions.up = value == "no",
        "burst" => {
            let (mean, lost) = value.split_once('/')?;
            let mean = mean.parse().ok().filter(|mean| *mean >= 1.0)?;
            let lost = share(lost).filter(|lost| *lost < 1.0)?;
            conditions.burst = (lost > 0.0).then(|| Burst::of(mean, lost));
        }
        "reorder" => {
            let (share_, by) = value.split_once('/')?;
            let (share, by) = (share(share_)?, time(by)?);
            conditions.reorder = (share > 0.0).then_some(Reorder { share, by });
        }
        _ => return None,
    }
    Some(())
}

/// `800k`, `2.5M` bits per second; a link passes something.
fn rate(text: &str) -> Option<u64> {
    let thousand = text.strip_suffix('k').map(|number| (number, 1e3));
    let (number, unit) = thousand.or_else(|| text.strip_suffix('M').map(|number| (number, 1e6)))?;
    let rate = number.parse::<f64>().ok()? * unit;
    (1.0..=1e12).contains(&rate).then_some(rate as u64)
}

/// `20ms`, `1.5s`.
fn time(text: &str) -> Option<Duration> {
    let millis = text.strip_suffix("ms").map(|number| (number, 1e3));
    let (number, per_second) = millis.or_else(|| text.strip_suffix('s').map(|number| (number, 1.0)))?;
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? / per_second).ok()
}

/// `2.5%` = 0.025.
fn share(text: &str) -> Option<f64> {
    let share = text.strip_suffix('%')?.parse::<f64>().ok()? / 100.0;
    (0.0..=1.0).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Step = Step {
        at: Duration::ZERO,
        up: Conditions::CLEAN,
        down: Conditions::CLEAN,
    };

    #[test]
    fn steps_change_what_they_name() {
        let steps = parse("rate=10M queue=300ms,delay=20ms; at=10s rate=800k; at=1m30s", FROM);
        assert_eq!(steps, Err("\"at=1m30s\" is no condition of a link".into()));
        let steps = parse(
            "rate=10M queue=200ms,delay=20ms; at=1.5s only=down rate=800k; at=2s only=up cut; at=3s cut=no loss=10% rate=none",
            FROM,
        );
        let first = Conditions {
            rate: Some(10_000_000),
            queue: Duration::from_millis(200),
            delay: Duration::from_millis(20),
            ..Conditions::CLEAN
        };
        let slow = Conditions {
            rate: Some(800_000),
            ..first
        };
        let lossy = Conditions {
            rate: None,
            loss: 0.1,
            ..first
        };
        let step = |ms, up, down| Step {
            at: Duration::from_millis(ms),
            up,
            down,
        };
        let cut = Conditions { up: false, ..first };
        let wanted = [
            step(0, first, first),
            step(1500, first, slow),
            step(2000, cut, slow),
            step(3000, lossy, lossy),
        ];
        assert_eq!(steps, Ok(wanted.to_vec()));
        let odd = parse(
            "burst=5/3% reorder=2%/20ms duplicate=1% jitter=50ms cut; cut=no burst=1/0% reorder=0%/0ms",
            FROM,
        );
        let odd = odd.expect("understood");
        assert_eq!(odd[0].up.burst, Some(Burst::of(5.0, 0.03)));
        assert!(odd[0].down.reorder.is_some() && !odd[0].down.up && odd[1].down.up);
        assert_eq!((odd[1].up.burst, odd[1].up.reorder), (None, None));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for text in [
            "rate=0k",
            "rate=5",
            "loss=101%",
            "loss=0.1",
            "delay=-1s",
            "burst=0.5/3%",
            "burst=5/100%",
            "hop=1",
        ] {
            assert!(parse(text, FROM).is_err_and(|error| error.contains(text)), "{text}");
        }
        assert_eq!(parse("at=2s; at=1s", FROM), Err("1s comes after 2s".into()));
        assert_eq!(parse(" ; ", FROM), Ok(vec![]));
    }
}
