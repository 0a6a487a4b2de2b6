//! One deadline heap for everything on a shard that waits.
//!
//! Owns deadlines, never what they are for: a `TimerId` is given out with a key that comes back when it is due. Deletion
//! is lazy: an entry that no longer matches its timer is skipped when it surfaces, and the heap is rebuilt when stale
//! entries outnumber timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::slots::{Slot, Slots};

/// Names one timer; using it after `remove` does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerId(Slot);

/// The heap may hold this many entries per timer, plus a constant, before stale ones are thrown out: rebuilding costs
/// O(n), so it is paid at most once per n insertions.
const MAX_ENTRIES_PER_TIMER: usize = 3;
const SPARE_ENTRIES: usize = 64;

#[derive(Debug)]
struct Timer<K> {
    key: K,
    /// When it should fire.
    wanted: Option<Instant>,
    /// The heap entry that counts; others of this timer are stale. Never later than `wanted`.
    queued: Option<Instant>,
}

#[derive(Debug)]
pub struct Timers<K> {
    timers: Slots<Timer<K>>,
    heap: BinaryHeap<Reverse<(Instant, TimerId)>>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            timers: Slots::default(),
            heap: BinaryHeap::new(),
        }
    }
}

impl<K: Copy> Timers<K> {
    /// A timer that is not armed.
    pub fn insert(&mut self, key: K) -> TimerId {
        TimerId(self.timers.insert(Timer {
            key,
            wanted: None,
            queued: None,
        }))
    }

    pub fn remove(&mut self, id: TimerId) {
        self.timers.remove(id.0);
    }

    /// Sets the deadline; a later one than before costs nothing until the earlier one surfaces.
    pub fn arm(&mut self, id: TimerId, at: Instant) {
        let Some(timer) = self.timers.get_mut(id.0) else { return };
        timer.wanted = Some(at);
        if timer.queued.is_none_or(|queued| at < queued) {
            timer.queued = Some(at);
            self.heap.push(Reverse((at, id)));
            self.compact();
        }
    }

    /// Sets the deadline unless an earlier one is set.
    pub fn arm_at_latest(&mut self, id: TimerId, at: Instant) {
        let wanted = self.timers.get(id.0).and_then(|timer| timer.wanted);
        if wanted.is_none_or(|wanted| at < wanted) {
            self.arm(id, at);
        }
    }

    /// The next timer whose deadline has passed; it is disarmed. None = nothing is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        while let Some(Reverse((at, id))) = self.heap.peek().copied() {
            if at > now {
                return None;
            }
            self.heap.pop();
            let Some(timer) = self.timers.get_mut(id.0) else {
                continue;
            };
            if timer.queued != Some(at) {
                continue;
            }
            timer.queued = None;
            match timer.wanted {
                Some(wanted) if wanted <= now => {
                    timer.wanted = None;
                    return Some(timer.key);
                }
                Some(wanted) => {
                    timer.queued = Some(wanted);
                    self.heap.push(Reverse((wanted, id)));
                }
                None => {}
            }
        }
        None
    }

    /// Timers, armed or not.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// O(1). May be earlier than any live deadline (a stale entry): then the call in between does nothing.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    fn compact(&mut self) {
        if self.heap.len() <= self.timers.len() * MAX_ENTRIES_PER_TIMER + SPARE_ENTRIES {
            return;
        }
        let timers = &self.timers;
        self.heap
            .retain(|Reverse((at, id))| timers.get(id.0).is_some_and(|timer| timer.queued == Some(*at)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn fires_in_order_and_only_at_the_last_deadline_set() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let a = timers.insert('a');
        let b = timers.insert('b');
        let gone = timers.insert('x');
        timers.arm(a, start + ms(10));
        timers.arm(b, start + ms(20));
        timers.arm(gone, start + ms(5));
        timers.arm(a, start + ms(30));
        timers.arm_at_latest(b, start + ms(25));
        timers.remove(gone);
        assert_eq!(timers.pop_due(start + ms(19)), None);
        assert_eq!(timers.pop_due(start + ms(20)), Some('b'));
        assert_eq!(timers.pop_due(start + ms(29)), None);
        assert_eq!(timers.pop_due(start + ms(31)), Some('a'));
        assert_eq!(timers.pop_due(start + ms(90)), None);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn ever_earlier_deadlines_do_not_grow_the_heap() {
        let start = Instant::now();
        let mut timers = Timers::default();
        let id = timers.insert(());
        for i in 0..10_000 {
            timers.arm(id, start + ms(20_000 - i));
        }
        assert!(timers.heap.len() <= MAX_ENTRIES_PER_TIMER + SPARE_ENTRIES);
        assert_eq!(timers.pop_due(start + ms(10_001)), Some(()));
    }
}
