//! Whether delay grows: packet groups, their delay gradient over time, and a threshold that adapts to the path's noise
//! (draft-ietf-rmcat-gcc-02 §5.2 to §5.4, with a regression line in the place of the Kalman filter).

use super::Micros;

/// Packets that left within it are one group: they left as one burst, and their spacing says nothing.
const BURST: Micros = 5_000;
/// Packets that waited somewhere and came at once are one group too, up to this span.
const MAX_BURST: Micros = 100_000;
/// A gradient beyond this is another clock or another path.
const MAX_CHANGE: Micros = 3_000_000;
/// Groups that arrive before the one they follow; beyond, the path has changed.
const MAX_REORDERED: u8 = 3;

/// Points of the line.
const WINDOW: usize = 20;
/// Weight of the old value in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// The slope is compared to the threshold after this gain, times the number of groups up to `MAX_GROUPS`.
const GAIN: f64 = 4.0;
const MAX_GROUPS: u32 = 60;

/// In milliseconds, as all of the detector.
const INITIAL_THRESHOLD: f64 = 12.5;
const MIN_THRESHOLD: f64 = 6.0;
const MAX_THRESHOLD: f64 = 600.0;
/// Slopes further out do not move the threshold: an outage would make it deaf.
const MAX_DEVIATION: f64 = 15.0;
/// Per millisecond: quick to follow a quiet path, slow to get used to noise.
const FALL: f64 = 0.039;
const RISE: f64 = 0.0087;
/// Above the threshold for so long, and still rising: overuse.
const OVERUSE_TIME: f64 = 10.0;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    #[default]
    Normal,
    Over,
    /// Queues drain.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_departure: Micros,
    last_departure: Micros,
    first_arrival: Micros,
    last_arrival: Micros,
}

impl Group {
    fn new(departure: Micros, arrival: Micros) -> Self {
        Self {
            first_departure: departure,
            last_departure: departure,
            first_arrival: arrival,
            last_arrival: arrival,
        }
    }

    fn takes(&self, departure: Micros, arrival: Micros) -> bool {
        if departure - self.first_departure <= BURST {
            return true;
        }
        let gap = arrival - self.last_arrival;
        gap <= BURST && gap < departure - self.last_departure && arrival - self.first_arrival < MAX_BURST
    }
}

#[derive(Debug)]
pub struct DelayTrend {
    current: Option<Group>,
    previous: Option<Group>,
    reordered: u8,
    /// Sum of all gradients, and the same smoothed: milliseconds.
    accumulated: f64,
    smoothed: f64,
    /// Arrival since `origin` and smoothed delay, in milliseconds.
    points: [(f64, f64); WINDOW],
    groups: u32,
    origin: Micros,
    detector: Detector,
}

#[derive(Debug)]
struct Detector {
    threshold: f64,
    last_update: Option<Micros>,
    over_for: f64,
    over_count: u32,
    last_trend: f64,
    usage: Usage,
}

impl DelayTrend {
    pub fn new() -> Self {
        Self {
            current: None,
            previous: None,
            reordered: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            points: [(0.0, 0.0); WINDOW],
            groups: 0,
            origin: 0,
            detector: Detector {
                threshold: INITIAL_THRESHOLD,
                last_update: None,
                over_for: 0.0,
                over_count: 0,
                last_trend: 0.0,
                usage: Usage::Normal,
            },
        }
    }

    pub fn usage(&self) -> Usage {
        self.detector.usage
    }

    /// One packet that arrived, in the order of arrival.
    pub fn handle_packet(&mut self, departure: Micros, arrival: Micros) {
        let Some(current) = &mut self.current else {
            self.current = Some(Group::new(departure, arrival));
            return;
        };
        if departure < current.first_departure {
            return; // overtaken
        }
        if current.takes(departure, arrival) {
            current.last_departure = current.last_departure.max(departure);
            current.last_arrival = current.last_arrival.max(arrival);
            return;
        }
        let complete = std::mem::replace(current, Group::new(departure, arrival));
        if let Some(previous) = self.previous {
            let departed = complete.last_departure - previous.last_departure;
            let arrived = complete.last_arrival - previous.last_arrival;
            if (arrived - departed).abs() > MAX_CHANGE {
                return self.reset();
            }
            if arrived < 0 {
                self.reordered += 1;
                if self.reordered >= MAX_REORDERED {
                    self.reset();
                }
                return;
            }
            self.reordered = 0;
            self.add(complete.last_arrival, departed, arrived);
        }
        self.previous = Some(complete);
    }

    /// What follows cannot be compared with what was: a pause of the measurement.
    pub fn interrupt(&mut self) {
        self.current = None;
        self.previous = None;
    }

    /// Another path: only the threshold stays.
    pub fn reset(&mut self) {
        let threshold = self.detector.threshold;
        *self = Self::new();
        self.detector.threshold = threshold;
    }

    fn add(&mut self, arrival: Micros, departed: Micros, arrived: Micros) {
        if self.groups == 0 {
            self.origin = arrival;
        }
        self.accumulated += (arrived - departed) as f64 / 1000.0;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        let at = (arrival - self.origin) as f64 / 1000.0;
        if let Some(point) = self.points.get_mut(self.groups as usize % WINDOW) {
            *point = (at, self.smoothed);
        }
        self.groups = self.groups.saturating_add(1);
        let slope = if self.groups as usize >= WINDOW {
            slope(&self.points)
        } else {
            0.0
        };
        let trend = f64::from(self.groups.min(MAX_GROUPS)) * slope * GAIN;
        self.detector.update(arrival, departed as f64 / 1000.0, trend);
    }
}

impl Detector {
    fn update(&mut self, now: Micros, departed: f64, trend: f64) {
        if trend > self.threshold {
            // Of the first group it is not known since when.
            self.over_for += if self.over_count == 0 { departed / 2.0 } else { departed };
            self.over_count += 1;
            if self.over_for > OVERUSE_TIME && self.over_count > 1 && trend >= self.last_trend {
                self.over_for = 0.0;
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_for = 0.0;
            self.over_count = 0;
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.last_trend = trend;
        self.adapt(now, trend.abs());
    }

    fn adapt(&mut self, now: Micros, trend: f64) {
        let last = self.last_update.replace(now).unwrap_or(now);
        if trend > self.threshold + MAX_DEVIATION {
            return;
        }
        let speed = if trend < self.threshold { FALL } else { RISE };
        let elapsed = ((now - last) as f64 / 1000.0).clamp(0.0, 100.0);
        self.threshold += speed * (trend - self.threshold) * elapsed;
        self.threshold = self.threshold.clamp(MIN_THRESHOLD, MAX_THRESHOLD);
    }
}

/// Of the least-squares line.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / n, y / n);
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for point in points {
        numerator += (point.0 - x) * (point.1 - y);
        denominator += (point.0 - x) * (point.0 - x);
    }
    if denominator == 0.0 {
        0.0
    } else {
        numerator / denominator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet every 10 ms, each delayed by `delay(n)`.
    fn run(trend: &mut DelayTrend, from: i64, packets: i64, delay: impl Fn(i64) -> i64) -> Vec<Usage> {
        let mut seen = Vec::new();
        for n in from..from + packets {
            trend.handle_packet(n * 10_000, 900_000_000 + n * 10_000 + delay(n));
            seen.push(trend.usage());
        }
        seen
    }

    #[test]
    fn growing_delay_is_overuse_and_shrinking_delay_underuse() {
        let mut trend = DelayTrend::new();
        let seen = run(&mut trend, 0, 100, |_| 0);
        assert!(seen.iter().all(|usage| *usage == Usage::Normal));
        let seen = run(&mut trend, 100, 30, |n| (n - 100) * 2_000);
        assert!(seen.contains(&Usage::Over));
        let seen = run(&mut trend, 130, 30, |n| 60_000 - (n - 130) * 2_000);
        assert!(seen.contains(&Usage::Under));
    }

    #[test]
    fn jitter_is_neither_for_long() {
        let mut trend = DelayTrend::new();
        let seen = run(&mut trend, 0, 5_000, |n| (n * 7919 % 50) * 100);
        let over = seen.iter().filter(|usage| **usage == Usage::Over).count();
        assert!(over < 50, "{over}");
    }

    #[test]
    fn bursts_and_reordering_are_not_delay() {
        let mut trend = DelayTrend::new();
        for n in 0..200 {
            for packet in 0..5 {
                trend.handle_packet(n * 33_000 + packet, n * 33_000 + packet * 300);
            }
            trend.handle_packet(n * 33_000 - 20_000, n * 33_000 + 1_600);
            assert_eq!(trend.usage(), Usage::Normal);
        }
    }

    #[test]
    fn another_clock_begins_anew() {
        let mut trend = DelayTrend::new();
        run(&mut trend, 0, 50, |_| 0);
        let seen = run(&mut trend, 50, 100, |_| 3_600_000_000);
        assert!(seen.iter().all(|usage| *usage == Usage::Normal));
    }
}
