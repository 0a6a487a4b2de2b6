//! What is on its way to a receiver that reports arrivals: which transport-wide number carries which packet.
//!
//! Owned by a `SendQueue`; the pacer says what leaves, transport-wide feedback what became of it. So a lost packet is
//! followed by another copy even when the request for it is lost too, and after the receiver has stopped asking. Holds no
//! packets and never decides whether one is sent again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::slots::Slot;

/// Packets that are watched, 10 KiB of them: where much is lost, a quarter of a second of 10 Mbit/s; elsewhere only
/// retransmissions are. Beyond, the oldest is forgotten: the receiver still asks for it.
const MAX_IN_FLIGHT: usize = 256;
/// Packets that the budget had no room for when they were reported as lost; the oldest is forgotten. As many as a key frame
/// has; 1.5 KiB, from the first on.
const MAX_OWED: usize = 64;
/// Reports come within round trips. Long before numbers come round (65,536 packets).
const LIFE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Transport-wide.
    number: u16,
    is_copy: bool,
    at: Instant,
    subscription: Slot,
    /// Extended, of the original.
    sequence_out: u64,
}

const _: () = assert!(size_of::<Sent>() <= 40);

impl Sent {
    fn is_same(&self, other: &Self) -> bool {
        self.subscription == other.subscription && self.sequence_out == other.sequence_out
    }
}

/// A packet that was reported as not received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    pub subscription: Slot,
    pub sequence_out: u64,
    /// It was a retransmission.
    pub is_copy: bool,
}

#[derive(Debug, Default)]
pub struct InFlight {
    /// By ascending number: they leave in this order.
    sent: VecDeque<Sent>,
    owed: VecDeque<Lost>,
}

impl InFlight {
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.owed.is_empty()
    }

    /// It could not be sent again now. No further report will name it, and its receiver asks a few times only.
    pub fn owe(&mut self, lost: Lost) {
        if self.owed.len() >= MAX_OWED {
            self.owed.pop_front();
        }
        self.owed.push_back(lost);
    }

    /// All that is owed, oldest first.
    pub fn take_owed(&mut self) -> impl Iterator<Item = Lost> {
        self.owed.drain(..)
    }

    /// A packet leaves under a transport-wide number; numbers ascend.
    pub fn handle_sent(&mut self, now: Instant, number: u16, (subscription, sequence_out): (Slot, u64), is_copy: bool) {
        let is_old = |sent: &Sent| now.saturating_duration_since(sent.at) > LIFE;
        while self.sent.len() >= MAX_IN_FLIGHT || self.sent.front().is_some_and(is_old) {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            number,
            is_copy,
            at: now,
            subscription,
            sequence_out,
        });
    }

    /// Nothing was reported of a packet yet.
    pub fn contains(&self, subscription: Slot, sequence_out: u64) -> bool {
        let mut newest_first = self.sent.iter().rev();
        newest_first.any(|sent| sent.subscription == subscription && sent.sequence_out == sequence_out)
    }

    /// The packet with this transport-wide number was reported on. What is lost with it, unless another copy was received
    /// or may still be.
    pub fn handle_report(&mut self, number: u16, received: bool) -> Option<Lost> {
        let first = self.sent.front()?.number;
        let place = number.wrapping_sub(first);
        let at = self
            .sent
            .binary_search_by_key(&place, |sent| sent.number.wrapping_sub(first))
            .ok()?;
        let sent = self.sent.remove(at)?;
        if received {
            if sent.is_copy {
                self.sent.retain(|other| !sent.is_same(other));
            }
            return None;
        }
        self.lost(sent)
    }

    /// Reports of everything before this number have come or will not. The next packet of which that leaves nothing known,
    /// and which counts as lost: all of them do where no report is missing (`is_gapless`), otherwise retransmissions only.
    /// Call it until there is none.
    pub fn take_unreported(&mut self, before: u16, is_gapless: bool) -> Option<Lost> {
        let is_before = |sent: &mut Sent| (sent.number.wrapping_sub(before) as i16) < 0;
        while let Some(sent) = self.sent.pop_front_if(is_before) {
            // Most originals arrive.
            if let Some(lost) = self.lost(sent).filter(|lost| lost.is_copy || is_gapless) {
                return Some(lost);
            }
        }
        None
    }

    fn lost(&self, sent: Sent) -> Option<Lost> {
        let lost = Lost {
            subscription: sent.subscription,
            sequence_out: sent.sequence_out,
            is_copy: sent.is_copy,
        };
        (!self.sent.iter().any(|other| sent.is_same(other))).then_some(lost)
    }

    pub fn clear(&mut self) {
        self.sent.clear();
        self.owed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::Slots;
    use super::*;

    #[test]
    fn a_lost_copy_is_named_once_across_the_wrap() {
        let slot = Slots::default().insert(());
        let now = Instant::now();
        let mut in_flight = InFlight::default();
        for (number, original) in [(65_530, 1), (65_535, 2), (3, 3)] {
            in_flight.handle_sent(now, number, (slot, original), true);
        }
        let lost = |sequence_out| {
            Some(Lost {
                subscription: slot,
                sequence_out,
                is_copy: true,
            })
        };
        assert_eq!(in_flight.handle_report(65_531, false), None, "not watched");
        assert_eq!(in_flight.handle_report(65_535, false), lost(2));
        assert_eq!(in_flight.handle_report(65_535, false), None);
        assert_eq!(in_flight.handle_report(65_530, true), None);
        assert_eq!(in_flight.handle_report(3, false), lost(3));
        assert!(in_flight.is_empty());
    }

    #[test]
    fn nothing_is_lost_while_another_copy_may_arrive_or_has() {
        let slot = Slots::default().insert(());
        let now = Instant::now();
        let mut in_flight = InFlight::default();
        in_flight.handle_sent(now, 1, (slot, 7), false);
        (2..6).for_each(|number| in_flight.handle_sent(now, number, (slot, 7), true));
        assert_eq!(in_flight.handle_report(1, false), None);
        assert_eq!(in_flight.handle_report(2, false), None);
        assert_eq!(in_flight.handle_report(3, true), None);
        assert_eq!(in_flight.handle_report(4, false), None);
        assert!(in_flight.is_empty());
    }

    #[test]
    fn a_copy_whose_report_went_missing_is_taken_for_lost_and_where_none_did_everything_is() {
        let slot = Slots::default().insert(());
        let now = Instant::now();
        for (is_gapless, expected) in [(false, vec![2]), (true, vec![1, 2])] {
            let mut in_flight = InFlight::default();
            in_flight.handle_sent(now, 65_534, (slot, 1), false);
            in_flight.handle_sent(now, 65_535, (slot, 2), true);
            in_flight.handle_sent(now, 1, (slot, 3), true);
            let lost = std::iter::from_fn(|| in_flight.take_unreported(1, is_gapless));
            assert_eq!(lost.map(|lost| lost.sequence_out).collect::<Vec<_>>(), expected);
            assert_eq!(in_flight.handle_report(1, true), None);
            assert!(in_flight.is_empty());
        }
    }

    #[test]
    fn what_is_owed_is_given_out_once_and_bounded() {
        let slot = Slots::default().insert(());
        let lost = |sequence_out| Lost {
            subscription: slot,
            sequence_out,
            is_copy: true,
        };
        let mut in_flight = InFlight::default();
        (0..=MAX_OWED as u64).for_each(|sequence_out| in_flight.owe(lost(sequence_out)));
        assert!(!in_flight.is_empty());
        let owed: Vec<Lost> = in_flight.take_owed().collect();
        assert_eq!((owed.len(), owed[0]), (MAX_OWED, lost(1)));
        assert!(in_flight.is_empty());
    }

    #[test]
    fn what_is_never_reported_on_is_forgotten() {
        let slot = Slots::default().insert(());
        let now = Instant::now();
        let mut in_flight = InFlight::default();
        (0..1000).for_each(|number| in_flight.handle_sent(now, number, (slot, u64::from(number)), true));
        assert_eq!(in_flight.sent.len(), MAX_IN_FLIGHT);
        assert_eq!(in_flight.handle_report(1, false), None);
        in_flight.handle_sent(now + LIFE * 2, 1000, (slot, 1000), true);
        assert_eq!(in_flight.sent.len(), 1);
    }
}
