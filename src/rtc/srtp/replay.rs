//! Packet indices of a received SSRC: which rollover counter a sequence number belongs to, and which were seen.

use crate::types::DropReason;

/// How far behind the newest packet one may arrive, in packets. RFC 3711 §3.3.2 asks for at least 64; a burst of
/// retransmissions of a 10 Mbps layer is some hundred packets behind, so 1024 (128 bytes an SSRC).
pub(super) const WINDOW: u64 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;

/// A sliding window over packet indices (RFC 3711 §3.3.2). `check` before the tag is verified, `commit` after: a forged
/// packet moves nothing.
#[derive(Clone, Debug)]
pub(super) struct ReplayWindow {
    /// The highest index that was authenticated.
    highest: u64,
    /// Bit `index % WINDOW` is set for each index in `highest - WINDOW + 1 ..= highest` that was seen.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// A window whose first packet is `index`.
    pub(super) fn new(index: u64) -> Self {
        let mut window = Self {
            highest: index,
            seen: [0; WORDS],
        };
        window.set(index, true);
        window
    }

    /// The index an RTP sequence number stands for, by the nearest rollover counter (RFC 3711 §3.3.1).
    pub(super) fn estimate(&self, sequence: u16) -> Result<u64, DropReason> {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead < 0x8000 {
            // Ahead of the highest by up to 32767. 48 bits of index cannot overflow 64.
            Ok(self.highest + u64::from(ahead))
        } else {
            // Behind; before index 0 there is nothing.
            self.highest
                .checked_sub(u64::from(ahead.wrapping_neg()))
                .ok_or(DropReason::TooOld)
        }
    }

    pub(super) fn check(&self, index: u64) -> Result<(), DropReason> {
        if index > self.highest {
            return Ok(());
        }
        if self.highest - index >= WINDOW {
            return Err(DropReason::TooOld);
        }
        if self.is_set(index) {
            Err(DropReason::Replayed)
        } else {
            Ok(())
        }
    }

    pub(super) fn commit(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..index {
                    self.set(skipped, false);
                }
            }
            self.highest = index;
        }
        self.set(index, true);
    }

    fn set(&mut self, index: u64, seen: bool) {
        let bit = index % WINDOW;
        if let Some(word) = self.seen.get_mut((bit / 64) as usize) {
            let mask = 1 << (bit % 64);
            *word = if seen { *word | mask } else { *word & !mask };
        }
    }

    fn is_set(&self, index: u64) -> bool {
        let bit = index % WINDOW;
        self.seen
            .get((bit / 64) as usize)
            .is_some_and(|word| word & (1 << (bit % 64)) != 0)
    }
}

/// Per-SSRC state, at most `limit` of them; a new one beyond that takes the place of the least recently used, which then
/// starts again from rollover counter 0 should it come back. Sorted, with the last hit remembered: media comes in bursts
/// of one SSRC.
pub(super) struct SsrcTable<S> {
    entries: Vec<Entry<S>>,
    limit: usize,
    last: usize,
    clock: u64,
}

struct Entry<S> {
    ssrc: u32,
    used: u64,
    state: S,
}

impl<S> SsrcTable<S> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: Vec::new(),
            limit,
            last: 0,
            clock: 0,
        }
    }

    pub(super) fn find(&mut self, ssrc: u32) -> Option<&mut S> {
        if self.entries.get(self.last).is_none_or(|entry| entry.ssrc != ssrc) {
            self.last = self.entries.binary_search_by_key(&ssrc, |entry| entry.ssrc).ok()?;
        }
        self.clock += 1;
        let entry = self.entries.get_mut(self.last)?;
        entry.used = self.clock;
        Some(&mut entry.state)
    }

    /// Only for an SSRC that `find` does not know, and only after its packet was authenticated.
    pub(super) fn insert(&mut self, ssrc: u32, state: S) {
        if self.entries.len() >= self.limit {
            let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used);
            if let Some((index, _)) = oldest {
                self.entries.remove(index);
            }
        }
        self.clock += 1;
        let entry = Entry {
            ssrc,
            used: self.clock,
            state,
        };
        let at = self.entries.partition_point(|entry| entry.ssrc < ssrc);
        self.entries.insert(at, entry);
        self.last = at;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_wrap_into_the_next_rollover() {
        let window = ReplayWindow::new(65_535);
        assert_eq!(window.estimate(0), Ok(65_536));
        assert_eq!(window.estimate(65_534), Ok(65_534));
        let window = ReplayWindow::new(65_536);
        assert_eq!(window.estimate(65_535), Ok(65_535));
        assert_eq!(window.estimate(1), Ok(65_537));
        // Before the first packet of the first rollover there is nothing.
        assert_eq!(ReplayWindow::new(3).estimate(65_535), Err(DropReason::TooOld));
    }

    #[test]
    fn each_index_is_taken_once() {
        let mut window = ReplayWindow::new(10_000);
        assert_eq!(window.check(10_000), Err(DropReason::Replayed));
        assert_eq!(window.check(9_999), Ok(()));
        window.commit(9_999);
        assert_eq!(window.check(9_999), Err(DropReason::Replayed));
        window.commit(10_010);
        assert_eq!(window.check(10_005), Ok(()), "a gap stays open");
        assert_eq!(
            window.check(10_000),
            Err(DropReason::Replayed),
            "what was seen stays seen"
        );
        assert_eq!(window.check(10_010 - WINDOW + 1), Ok(()));
        assert_eq!(window.check(10_010 - WINDOW), Err(DropReason::TooOld));
        window.commit(10_010 + 5 * WINDOW);
        assert_eq!(
            window.check(10_010 + 4 * WINDOW + 1),
            Ok(()),
            "a far jump leaves nothing marked"
        );
    }

    #[test]
    fn the_least_recently_used_ssrc_makes_room() {
        let mut table = SsrcTable::new(2);
        table.insert(7, 'a');
        table.insert(3, 'b');
        assert_eq!(table.find(7), Some(&mut 'a'));
        table.insert(5, 'c');
        assert_eq!(table.len(), 2);
        assert_eq!(table.find(3), None);
        assert_eq!(table.find(7), Some(&mut 'a'));
        assert_eq!(table.find(5), Some(&mut 'c'));
    }
}
