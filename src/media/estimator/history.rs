//! What left and when: the other half of transport-wide feedback.
//!
//! Owns one small record per packet, found by its transport-wide sequence number. Grows to what is in flight, never
//! beyond `MAX_ENTRIES`; a packet that was overwritten is unknown when it is reported on, and counts for nothing.

use super::Micros;

/// 16 KiB: two seconds of 10 Mbit/s in packets of 1,200 bytes, far more than a report is late.
const MAX_ENTRIES: usize = 2048;
/// 2 KiB: a voice alone needs no more.
const INITIAL_ENTRIES: usize = 256;
/// Reports come within round trips; what is older is not worth more memory.
const KEEP: Micros = 2_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Empty,
    Outstanding,
    /// Reported as not received; a later report may correct that.
    Lost,
    Acknowledged,
    /// The report that covered it never came, and it was counted as its neighbours were.
    Skipped,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Microseconds, wrapping: an entry is looked at within seconds.
    departure: u32,
    /// Bytes of UDP payload.
    size: u16,
    cluster: u8,
    state: State,
}

const _: () = assert!(size_of::<Entry>() == 8);

/// What a report says about one packet that was not known before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Extended transport-wide sequence number.
    pub sequence: u64,
    pub departure: Micros,
    pub size: u16,
    /// The probe it belonged to; 0 = none.
    pub cluster: u8,
    /// An earlier report had it lost.
    pub revived: bool,
    /// It was credited when a report went missing.
    pub credited: bool,
}

#[derive(Debug)]
pub struct SendHistory {
    /// Indexed by sequence number modulo its length, a power of two.
    entries: Vec<Entry>,
    /// Extended number of the next packet. Begins in cycle 1, so that looking back never goes below zero.
    next: u64,
}

impl SendHistory {
    /// `next` is the number of the first packet that will be recorded.
    pub fn new(next: u16) -> Self {
        Self {
            entries: vec![Entry::default(); INITIAL_ENTRIES],
            next: 1 << 16 | u64::from(next),
        }
    }

    /// The next number in turn has left with a packet of `size` bytes.
    pub fn record(&mut self, now: Micros, size: u16, cluster: u8) {
        let index = self.index(self.next);
        let old = self.entries.get(index).copied().unwrap_or_default();
        if old.state == State::Outstanding && self.entries.len() < MAX_ENTRIES && age(old, now) < KEEP {
            self.grow();
        }
        let index = self.index(self.next);
        if let Some(entry) = self.entries.get_mut(index) {
            *entry = Entry {
                departure: now as u32,
                size,
                cluster,
                state: State::Outstanding,
            };
        }
        self.next += 1;
    }

    /// Extended, of the number in a report: the nearest that was sent. None = it was not, or is forgotten.
    pub fn extend(&self, sequence: u16) -> Option<u64> {
        let newest = self.next - 1;
        let behind = (newest as u16).wrapping_sub(sequence);
        (usize::from(behind) < self.entries.len()).then(|| newest - u64::from(behind))
    }

    /// Takes in one status. None = nothing new: unknown, or reported before.
    pub fn resolve(&mut self, now: Micros, sequence: u16, received: bool) -> Option<Resolved> {
        let extended = self.extend(sequence)?;
        let index = self.index(extended);
        let entry = self.entries.get_mut(index)?;
        let was = entry.state;
        entry.state = match (was, received) {
            (State::Outstanding | State::Lost | State::Skipped, true) => State::Acknowledged,
            (State::Outstanding, false) => State::Lost,
            _ => return None,
        };
        Some(Resolved {
            sequence: extended,
            departure: now - age(*entry, now),
            size: entry.size,
            cluster: entry.cluster,
            revived: was == State::Lost,
            credited: was == State::Skipped,
        })
    }

    /// Bytes of the packets `from..to` that no report has named; each is counted once.
    pub fn skip(&mut self, from: u64, to: u64) -> u32 {
        let mut bytes = 0;
        for sequence in self.kept(from)..to.min(self.next) {
            let index = self.index(sequence);
            if let Some(entry) = self.entries.get_mut(index)
                && entry.state == State::Outstanding
            {
                entry.state = State::Skipped;
                bytes += u32::from(entry.size);
            }
        }
        bytes
    }

    /// `from`, or the oldest number that is not forgotten.
    pub fn kept(&self, from: u64) -> u64 {
        from.max(self.next.saturating_sub(self.entries.len() as u64))
    }

    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    fn index(&self, sequence: u64) -> usize {
        sequence as usize & (self.entries.len() - 1)
    }

    fn grow(&mut self) {
        let mut larger = vec![Entry::default(); self.entries.len() * 2];
        let mask = larger.len() - 1;
        for sequence in self.next.saturating_sub(self.entries.len() as u64)..self.next {
            let old = self.entries.get(self.index(sequence)).copied().unwrap_or_default();
            if let Some(entry) = larger.get_mut(sequence as usize & mask) {
                *entry = old;
            }
        }
        self.entries = larger;
    }
}

fn age(entry: Entry, now: Micros) -> Micros {
    Micros::from((now as u32).wrapping_sub(entry.departure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_resolved_once_across_wraps() {
        let mut history = SendHistory::new(65_534);
        for n in 0..4 {
            history.record(1000 * n, 100 + n as u16, 0);
        }
        let first = history.resolve(9_000, 65_534, true).unwrap();
        assert_eq!((first.departure, first.size, first.revived), (0, 100, false));
        assert_eq!(history.resolve(9_000, 65_534, true), None, "repeated");
        assert_eq!(history.resolve(9_000, 1, true).unwrap().departure, 3_000);
        assert_eq!(history.resolve(9_000, 2, true), None, "never sent");
        assert_eq!(history.resolve(9_000, 40_000, true), None, "never sent");
    }

    #[test]
    fn a_lost_packet_may_still_come() {
        let mut history = SendHistory::new(0);
        history.record(0, 100, 0);
        assert!(!history.resolve(1, 0, false).unwrap().revived);
        assert_eq!(history.resolve(1, 0, false), None);
        assert!(history.resolve(1, 0, true).unwrap().revived);
        assert_eq!(history.resolve(1, 0, false), None);
    }

    #[test]
    fn what_no_report_named_is_counted_once() {
        let mut history = SendHistory::new(0);
        (0..10).for_each(|_| history.record(0, 100, 0));
        history.resolve(1, 3, true);
        let first = 1 << 16;
        assert_eq!(history.skip(first, first + 5), 400);
        assert_eq!(history.skip(first, first + 5), 0);
        assert!(history.resolve(1, 2, true).unwrap().credited);
        assert_eq!(history.skip(0, u64::MAX), 500);
    }

    #[test]
    fn memory_follows_what_is_in_flight_up_to_its_bound() {
        let mut history = SendHistory::new(7);
        for n in 0..10_000u16 {
            history.record(Micros::from(n) * 20_000, 100, 0);
            history.resolve(Micros::from(n) * 20_000, n + 7, true);
        }
        assert_eq!(history.heap_bytes(), INITIAL_ENTRIES * 8);
        let mut history = SendHistory::new(7);
        for n in 0..100_000 {
            history.record(n, 100, 0);
        }
        assert_eq!(history.heap_bytes(), 16 << 10);
        assert!(history.resolve(100_000, (100_000u32 + 6) as u16, true).is_some());
    }

    #[test]
    fn growing_keeps_what_is_known() {
        let mut history = SendHistory::new(0);
        (0..300).for_each(|n| history.record(n, 100, 0));
        assert_eq!(history.resolve(300, 60, true).unwrap().departure, 60);
    }
}
