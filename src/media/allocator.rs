//! Who gets what of the bandwidth of one subscriber: from a budget and what every track offers to a layer for each
//! subscription.
//!
//! Pure: the fanout's `allocation` gathers the candidates, calls [`Allocator::allocate`] and carries out what it says.
//! Sound is taken off the budget first. The rest is given out layer by layer, the lowest of every picture first, and
//! within a layer in order of importance: nobody gets a better layer while another is left without one that fits. What
//! does not fit at all is paused.
//!
//! Estimates and rates are noisy, and every switch costs a key frame. So a layer is taken away at once only when the
//! budget is far exceeded, and given only when it has fitted for a while; that while grows each time it turns out to have
//! been a mistake, until the budget is another.

use std::time::{Duration, Instant};

use super::slots::Slot;
use crate::types::{Bitrate, Layer};

/// Of a track: cumulative cost of each layer by spatial and temporal index; ZERO = it does not come now.
pub type Rates = [[Bitrate; TEMPORAL_LAYERS]; SPATIAL_LAYERS];

pub const SPATIAL_LAYERS: usize = 3;
pub const TEMPORAL_LAYERS: usize = 4;

/// Of a track: the first temporal index of each spatial layer at which its picture moves as pictures of people should.
/// Above the lowest spatial layer nothing below it is given: a small picture that moves is better than a large one that
/// jerks. 0 = any will do, as for a screen, which is to be sharp.
pub type Fluent = [u8; SPATIAL_LAYERS];

/// What was given is kept up to this part of the estimate, percent: so much the pacer sends, and the estimate goes up and
/// down by as much by itself on a path that does not change.
const KEPT: u64 = 105;
/// At most this part of the estimate, or of what is set, is left free for what is neither picture nor voice, however much of it there is:
/// a file that is sent beside does not stop the pictures. Percent.
const MAX_OTHER: u64 = 25;

/// An excess of this many percent over what may be kept is borne for this long: a key frame, a dip of the estimate. More
/// than the last is not borne.
const BORNE: [(u64, Duration); 2] = [(105, Duration::from_millis(1000)), (120, Duration::from_millis(300))];

/// Beyond this excess, percent, the old layer is not even finished: the path is filling up.
const URGENT: u64 = 120;

/// The lowest layers have to be too much for this long before one is paused …
const PAUSE_AFTER: Duration = Duration::from_millis(1000);
/// … and have to fit for this long without a break for that wait to begin anew: on a path of just what they cost, a moment in
/// which they fit says as little as a dip does.
const FITS_AFTER: Duration = Duration::from_millis(500);

/// How long a better layer has to fit before it is given …
const HOLD: Duration = Duration::from_millis(500);
/// … a paused one, before it goes on …
const RESUME_HOLD: Duration = Duration::from_millis(1000);
/// … and any, after something was given and had to be taken away again, by how often that was: however soon each turns
/// out to be a mistake, a picture changes at most four times in a minute.
const FAILED_HOLDS: [Duration; 4] = [
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_secs(60),
    Duration::from_secs(60),
];
/// Something taken away within this time of something given makes that a mistake …
const FAILURE_WINDOW: Duration = Duration::from_secs(30);
/// … unless the budget has fallen below this part of what it was then: the path has changed. Percent.
const SAME_BUDGET: u64 = 60;
/// One mistake is forgotten after each such time.
const FORGET_AFTER: Duration = Duration::from_secs(90);
/// All are forgotten when the budget is this much above the one of the mistake, percent.
const OTHER_BUDGET: u64 = 150;
/// What must be left free after a mistake, in percent of what is to be given more.
const HEADROOM: u64 = 10;
/// Equals trade places when what is given grows to more than this part by it. Percent.
const WORTH_TRADING: u64 = 110;
/// What has to be cut is cut to this part of the budget, so that it need not be cut again soon. Percent.
const CUT_TO: u64 = 95;

/// A new subscription or wish, or a layer that has come back, need not wait for so long.
const SETTLING: Duration = Duration::from_secs(3);

/// Beyond what all wishes cost, so that the last layer has room to be given and kept, and a key frame need not wait.
/// Percent.
const DEMAND_HEADROOM: u64 = 40;

/// When to look again while something is below what is wanted, and otherwise.
const RECHECK_SOON: Duration = Duration::from_millis(200);
const RECHECK: Duration = Duration::from_millis(1000);

/// What one subscriber may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Of the path. None = not known, and without limit.
    pub estimate: Option<Bitrate>,
    /// The estimate comes from feedback; before that it is a guess, on which nothing is paused.
    pub measured: bool,
    /// Set for the participant.
    pub cap: Option<Bitrate>,
    /// What its sound takes.
    pub audio: Bitrate,
    /// What retransmissions, data and RTCP take.
    pub other: Bitrate,
    /// What does not fit may be stopped; otherwise the lowest layer stays.
    pub may_pause: bool,
}

impl Budget {
    /// What may be spent on pictures: newly, and what is kept of old spending.
    fn for_video(&self) -> (u64, u64) {
        let rest = |of: Bitrate, part: u64| {
            let beside = self.audio.0 + self.other.0.min(percent(of.0, MAX_OTHER));
            percent(of.0, part).saturating_sub(beside)
        };
        let rest_of_cap = self.cap.map_or(u64::MAX, |cap| rest(cap, 100));
        let rest_of_path = |part: u64| self.estimate.map_or(u64::MAX, |estimate| rest(estimate, part));
        (rest_of_path(100).min(rest_of_cap), rest_of_path(KEPT).min(rest_of_cap))
    }

    fn is_measured(&self) -> bool {
        self.measured || self.estimate.is_none()
    }

    /// What may be spent on everything; None = no limit.
    pub fn total(&self) -> Option<Bitrate> {
        match (self.estimate, self.cap) {
            (Some(estimate), Some(cap)) => Some(estimate.min(cap)),
            (estimate, cap) => estimate.or(cap),
        }
    }

    /// The cap, not the path, is what limits.
    pub fn is_capped(&self) -> bool {
        self.cap.is_some_and(|cap| self.total() == Some(cap))
    }
}

/// What the allocator remembers of one subscription.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allotment {
    /// None = nothing fits, or nothing was allotted yet.
    pub target: Option<Layer>,
    /// False until the first allocation with something to give.
    is_known: bool,
    /// The best there was to give last time.
    top: Option<Layer>,
    /// Until then better layers are given without waiting.
    settling_until: Option<Instant>,
    /// Since when something better has fitted, and the least of what did.
    fits: Option<(Instant, Layer)>,
}

impl Allotment {
    /// Nothing of it fits.
    pub fn is_paused(&self) -> bool {
        self.is_known && self.target.is_none()
    }
}

/// One step of what a track can be given: a layer and its cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    layer: Layer,
    cost: u64,
}

/// Layers of ascending quality and cost.
#[derive(Clone, Copy, Debug, Default)]
struct Ladder {
    steps: [Step; SPATIAL_LAYERS * TEMPORAL_LAYERS],
    len: usize,
}

impl Ladder {
    fn new(rates: &Rates, fluent: &Fluent, max: Layer) -> Self {
        let comes = |spatial: &usize| rates.get(*spatial).is_some_and(|row| row.iter().any(|rate| rate.0 > 0));
        // All spatial layers up to the maximum; where none of them comes, the lowest that does.
        let highest = usize::from(max.spatial);
        let lowest = (0..SPATIAL_LAYERS).find(comes).unwrap_or(SPATIAL_LAYERS);
        let mut ladder = Self::default();
        for spatial in lowest..=highest.max(lowest).min(SPATIAL_LAYERS - 1) {
            let row = rates.get(spatial).copied().unwrap_or_default();
            let row = row.get(..=usize::from(max.temporal)).unwrap_or(&row);
            // Not more than there is and is asked for, however slow that is.
            let most = row.iter().rposition(|rate| rate.0 > 0).unwrap_or(0);
            let first = match fluent.get(spatial) {
                Some(first) if spatial > lowest => usize::from(*first).min(most),
                _ => 0,
            };
            for (temporal, rate) in (0u8..).zip(row).skip(first) {
                let layer = Layer {
                    spatial: spatial as u8,
                    temporal,
                };
                ladder.push(Step { layer, cost: rate.0 });
            }
        }
        ladder
    }

    fn push(&mut self, step: Step) {
        if step.cost == 0 {
            return;
        }
        // A better layer that costs no more leaves no reason for the worse one.
        while self.len > 0 && self.cost(self.len) >= step.cost {
            self.len -= 1;
        }
        if let Some(place) = self.steps.get_mut(self.len) {
            *place = step;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[Step] {
        self.steps.get(..self.len).unwrap_or_default()
    }

    /// Of the first `count` steps: what the last of them costs.
    fn cost(&self, count: usize) -> u64 {
        let last = count.checked_sub(1).and_then(|at| self.steps.get(at));
        last.map_or(0, |step| step.cost)
    }

    /// The layer of the first `count` steps.
    fn layer(&self, count: usize) -> Option<Layer> {
        let last = count.checked_sub(1).and_then(|at| self.as_slice().get(at));
        last.map(|step| step.layer)
    }

    /// How many steps lead to `layer`.
    fn count(&self, layer: Layer) -> usize {
        self.as_slice().iter().filter(|step| step.layer <= layer).count()
    }
}

/// One picture that is to be sent to the subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub subscription: Slot,
    /// 1..=255, larger is more important.
    pub priority: u8,
    /// Before others of the same priority.
    pub is_screen: bool,
    pub allotment: Allotment,
    ladder: Ladder,
    /// Steps given before this run.
    held: usize,
    /// Its lowest layer stays even if it does not fit.
    is_protected: bool,
    /// Steps that may be given in the pass that is running.
    ceiling: usize,
    /// Steps given in the pass that is running.
    given: usize,
    is_closed: bool,
}

impl Candidate {
    pub fn new(
        subscription: Slot,
        (priority, is_screen): (u8, bool),
        (rates, fluent): (&Rates, &Fluent),
        max_layer: Layer,
        allotment: Allotment,
    ) -> Self {
        let ladder = Ladder::new(rates, fluent, max_layer);
        let held = allotment.target.map_or(0, |target| {
            let count = ladder.count(target);
            let spatial = rates.get(usize::from(target.spatial));
            let cost = spatial.and_then(|row| row.get(usize::from(target.temporal)));
            // The layer held is no step any more because a better one costs no more.
            let replaced =
                ladder.layer(count) != Some(target) && cost.is_some_and(|cost| ladder.cost(count + 1) <= cost.0);
            (count + usize::from(replaced && count < ladder.len))
                .max(1)
                .min(ladder.len)
        });
        Self {
            subscription,
            priority,
            is_screen,
            allotment,
            ladder,
            held,
            is_protected: false,
            ceiling: 0,
            given: 0,
            is_closed: false,
        }
    }

    /// The best layer that comes now and is wanted. None = nothing comes.
    pub fn best(&self) -> Option<Layer> {
        self.ladder.layer(self.ladder.len)
    }

    fn importance(&self) -> (u8, bool) {
        (self.priority, self.is_screen)
    }

    /// What must be free for the first `count` steps.
    fn needs(&self, count: usize, careful: bool) -> u64 {
        let cost = self.ladder.cost(count);
        let more = cost.saturating_sub(self.ladder.cost(self.held));
        cost + if careful { percent(more, HEADROOM) } else { 0 }
    }

    fn is_paused(&self) -> bool {
        self.held == 0 && self.allotment.is_known
    }

    fn hold(&self, now: Instant, failures: u8) -> Duration {
        let is_settling = self.allotment.settling_until.is_some_and(|until| now < until);
        let hold = match usize::from(failures).checked_sub(1) {
            None if is_settling => Duration::ZERO,
            Some(at) if !is_settling => {
                let longest = FAILED_HOLDS.last().copied().unwrap_or(HOLD);
                FAILED_HOLDS.get(at).copied().unwrap_or(longest)
            }
            _ => HOLD,
        };
        if self.is_paused() { hold.max(RESUME_HOLD) } else { hold }
    }

    /// Before the passes: what has changed since the last run.
    fn prepare(&mut self, now: Instant) {
        let best = self.best();
        if best > self.allotment.top {
            self.allotment.settling_until = Some(now + SETTLING);
        }
        self.allotment.top = best;
        self.ceiling = self.ladder.len;
    }

    /// After the pass without hysteresis: how far this one may rise now.
    fn settle_ceiling(&mut self, now: Instant, failures: u8, is_unlimited: bool) {
        let ideal = self.ladder.layer(self.given).filter(|_| self.given > self.held);
        let Some(ideal) = ideal else {
            self.allotment.fits = None;
            self.ceiling = self.held;
            return;
        };
        let (since, least) = self
            .allotment
            .fits
            .map_or((now, ideal), |(since, least)| (since, least.min(ideal)));
        self.allotment.fits = Some((since, least));
        let waited = now.saturating_duration_since(since) >= self.hold(now, failures)
            || !self.allotment.is_known
            || is_unlimited;
        self.ceiling = if waited {
            self.ladder.count(least).max(self.held)
        } else {
            self.held
        };
    }

    /// After the last pass: keeps what was given.
    fn conclude(&mut self) {
        if self.ladder.len == 0 {
            return; // nothing comes: the target stays
        }
        if self.given != self.held {
            self.allotment.fits = None;
        }
        self.allotment.is_known = true;
        self.allotment.target = self.ladder.layer(self.given);
    }

    fn is_raised(&self) -> bool {
        self.given > self.held && self.allotment.is_known
    }

    fn is_cut(&self) -> bool {
        self.given < self.held
    }

    /// Something better comes and is wanted than it is given.
    pub fn is_short(&self) -> bool {
        self.given < self.ladder.len
    }
}

/// What an allocation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the targets cost, sound included.
    pub allocated: Bitrate,
    /// What everything wanted would cost, sound included.
    pub wanted: Bitrate,
    /// What the path has to carry so that everything wanted is given; ZERO without pictures: sound fits everywhere.
    pub demand: Bitrate,
    /// Layers above the target are not to be finished: the path is filling up.
    pub is_urgent: bool,
    /// When to allocate again at the latest.
    pub recheck: Duration,
}

/// One subscriber's allocation over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator {
    /// Since when what is given costs too much.
    over_since: Option<Instant>,
    /// Since when not even the lowest layers that are given fit.
    short_since: Option<Instant>,
    /// Since when they have fitted again, while that is too new to be relied on.
    fits_since: Option<Instant>,
    /// When something better was given last, and on which budget.
    raised: Option<(Instant, u64)>,
    /// Times in a row that something given had to be taken away again.
    failures: u8,
    /// When that was last, and on which budget it had been given.
    failed: Option<(Instant, u64)>,
}

impl Allocator {
    /// Sets every candidate's `allotment.target`, and sorts them by importance. Cost: n × layers.
    pub fn allocate(&mut self, now: Instant, budget: &Budget, candidates: &mut [Candidate]) -> Outcome {
        let (spend, keep) = budget.for_video();
        self.forget(now, spend);
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.importance()));
        candidates.iter_mut().for_each(|candidate| candidate.prepare(now));
        let is_patient = self.protect(now, budget, keep, candidates);

        // What would be best, and who may rise to it now.
        let mut order = Order {
            careful: self.failures > 0,
            sticky: true,
            better: u64::MAX,
        };
        let kept = fill(candidates, spend, order);
        order.sticky = false;
        if percent(kept, WORTH_TRADING) >= fill(candidates, spend, order) {
            order.sticky = true;
            fill(candidates, spend, order);
        }
        for candidate in candidates.iter_mut() {
            candidate.settle_ceiling(now, self.failures, budget.total().is_none());
        }
        let held: u64 = candidates
            .iter()
            .map(|candidate| candidate.ladder.cost(candidate.held))
            .sum();
        let is_borne = self.is_borne(now, held, keep) && is_patient;
        if is_borne {
            let limit = spend.max(held);
            if fill(candidates, limit, order) > limit && budget.may_pause && budget.is_measured() {
                // Something more important has come: it takes the place of what would not be paused for a dip.
                candidates
                    .iter_mut()
                    .for_each(|candidate| candidate.is_protected = false);
                fill(candidates, limit, order);
            }
        } else {
            for candidate in candidates.iter_mut().filter(|candidate| candidate.allotment.is_known) {
                candidate.ceiling = candidate.ceiling.min(candidate.held);
            }
            let part = if budget.is_capped() { 100 } else { CUT_TO };
            order.better = percent(spend, part);
            // What is over even so, because the lowest layers are not to be paused yet, is not borne anew for that.
            if fill(candidates, spend, order) <= keep {
                self.over_since = None;
            }
        }

        self.learn(now, spend, candidates);
        let cost = |count: fn(&Candidate) -> usize| -> u64 {
            let costs = candidates
                .iter()
                .map(|candidate| candidate.ladder.cost(count(candidate)));
            costs.sum()
        };
        let given = cost(|candidate| candidate.given);
        let all = cost(|candidate| candidate.ladder.len);
        let is_short = candidates.iter().any(Candidate::is_short);
        let wanted = all.saturating_add(budget.audio.0);
        let demand = match (all, budget.cap) {
            (0, _) => 0,
            (_, None) => percent(wanted, 100 + DEMAND_HEADROOM),
            (_, Some(cap)) => percent(wanted, 100 + DEMAND_HEADROOM).min(cap.0),
        };
        candidates.iter_mut().for_each(Candidate::conclude);
        Outcome {
            allocated: Bitrate(given.saturating_add(budget.audio.0)),
            wanted: Bitrate(wanted),
            demand: Bitrate(demand),
            is_urgent: !is_borne && held > percent(keep, URGENT),
            recheck: if is_short || self.over_since.is_some() {
                RECHECK_SOON
            } else {
                RECHECK
            },
        }
    }

    /// Mistakes do not count for ever.
    fn forget(&mut self, now: Instant, budget: u64) {
        let Some((at, budget_then)) = self.failed else { return };
        if budget > percent(budget_then, OTHER_BUDGET) {
            self.failures = 0;
        } else if now.saturating_duration_since(at) >= FORGET_AFTER {
            self.failures = self.failures.saturating_sub(1);
            self.failed = Some((now, budget_then));
        }
        if self.failures == 0 {
            self.failed = None;
        }
    }

    /// Something given and soon taken away was a mistake, whoever it was given to and taken from.
    fn learn(&mut self, now: Instant, budget: u64, candidates: &[Candidate]) {
        if candidates.iter().any(Candidate::is_raised) {
            self.raised = Some((now, budget));
        } else if candidates.iter().any(Candidate::is_cut)
            && let Some((at, budget_then)) = self.raised.take()
            && now.saturating_duration_since(at) < FAILURE_WINDOW
            && budget >= percent(budget_then, SAME_BUDGET)
        {
            self.failures = (self.failures + 1).min(FAILED_HOLDS.len() as u8);
            self.failed = Some((now, budget_then));
        }
    }

    /// Whose lowest layer stays for now although it does not fit. False = they have been too much for long enough.
    fn protect(&mut self, now: Instant, budget: &Budget, keep: u64, candidates: &mut [Candidate]) -> bool {
        let lowest = candidates.iter().filter(|candidate| candidate.held > 0);
        let lowest: u64 = lowest.map(|candidate| candidate.ladder.cost(1)).sum();
        let measured = budget.is_measured();
        let is_short = measured && lowest > keep;
        if is_short {
            self.short_since.get_or_insert(now);
            self.fits_since = None;
        } else if now.saturating_duration_since(*self.fits_since.get_or_insert(now)) >= FITS_AFTER {
            self.short_since = None;
        }
        let waited = self
            .short_since
            .is_some_and(|since| now.saturating_duration_since(since) >= PAUSE_AFTER);
        let is_patient = !(is_short && waited);
        for candidate in candidates {
            candidate.is_protected = !budget.may_pause || !measured || (is_patient && candidate.held > 0);
        }
        is_patient
    }

    /// Whether what is held may go on for now.
    fn is_borne(&mut self, now: Instant, held: u64, keep: u64) -> bool {
        if held <= keep {
            self.over_since = None;
            return true;
        }
        let since = *self.over_since.get_or_insert(now);
        let over = now.saturating_duration_since(since);
        BORNE
            .iter()
            .find(|(excess, _)| held <= percent(keep, *excess))
            .is_some_and(|(_, time)| over < *time)
    }
}

#[derive(Clone, Copy, Debug)]
struct Order {
    /// At most this is spent on layers above the lowest.
    better: u64,
    /// Something was a mistake lately: new layers need headroom.
    careful: bool,
    /// Among equals those that have a layer already come first, so that a small change of cost does not make them trade
    /// places. Of lowest layers that is always so.
    sticky: bool,
}

/// Gives out `budget`: layer by layer, each layer in order of importance. Returns what is spent.
fn fill(candidates: &mut [Candidate], budget: u64, order: Order) -> u64 {
    let mut spent = 0u64;
    for candidate in candidates.iter_mut() {
        candidate.given = 0;
        candidate.is_closed = false;
    }
    for spatial in 0..SPATIAL_LAYERS as u8 {
        for temporal in 0..TEMPORAL_LAYERS as u8 {
            let layer = Layer { spatial, temporal };
            for equals in candidates.chunk_by_mut(|a, b| a.importance() == b.importance()) {
                for first in [true, false] {
                    for candidate in equals.iter_mut() {
                        let next = candidate.given + 1;
                        if candidate.is_closed
                            || (candidate.held >= next || !order.sticky && next > 1) != first
                            || candidate.ladder.layer(next) != Some(layer)
                        {
                            continue;
                        }
                        let before = candidate.ladder.cost(candidate.given);
                        let limit = if next > 1 { budget.min(order.better) } else { budget };
                        let rest = limit.saturating_sub(spent - before);
                        let must = next == 1 && candidate.is_protected;
                        if next <= candidate.ceiling && candidate.needs(next, order.careful) <= rest || must {
                            candidate.given = next;
                            spent = spent - before + candidate.ladder.cost(next);
                        } else {
                            candidate.is_closed = true;
                        }
                    }
                }
            }
        }
    }
    spent
}

fn percent(value: u64, percent: u64) -> u64 {
    value.saturating_mul(percent) / 100
}

#[cfg(test)]
mod tests;
