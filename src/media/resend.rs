//! What a subscription remembers so that it can answer NACKs: how often each number was asked for lately, and, where
//! packets are resent as they were, the header values that must be the same again.

use std::time::{Duration, Instant};

use crate::types::MediaKind;

/// Numbers that were asked for lately. A burst of loss is a few dozen packets; when more are asked for, the oldest entry
/// is forgotten and at worst a packet is sent once more than needed.
const REMEMBERED: usize = 32;
/// LiveKit: a packet is sent again at most three times.
const MAX_RESENDS: u8 = 3;
/// A request for a packet that was asked for less than a round trip ago is about the first copy; on fast paths this
/// floor covers the receiver's own timer.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
struct Request {
    /// Low half of the extended number.
    sequence: u32,
    times: u8,
    at: Instant,
}

/// Retransmissions that a subscription may have before it has been sent anything: a lost key frame. In halves.
const INITIAL_BUDGET: u32 = 2 * 256;
/// What can be saved up: loss comes in bursts.
const MAX_BUDGET: u32 = 2 * 1024;

/// A small table, oldest overwritten first, and a budget: one retransmission for two packets sent, so that no client can
/// make the server send many times what it receives.
#[derive(Debug)]
pub struct RecentRequests {
    requests: Vec<Request>,
    next: usize,
    /// In half retransmissions.
    budget: u32,
}

impl Default for RecentRequests {
    fn default() -> Self {
        Self {
            requests: Vec::new(),
            next: 0,
            budget: INITIAL_BUDGET,
        }
    }
}

impl RecentRequests {
    /// A packet was sent for the first time.
    pub fn earn(&mut self) {
        self.budget = (self.budget + 1).min(MAX_BUDGET);
    }

    /// Whether a request for `sequence` is to be answered; counts it if so.
    pub fn accept(&mut self, now: Instant, sequence: u64, rtt: Duration) -> bool {
        let Some(budget) = self.budget.checked_sub(2) else {
            return false;
        };
        let accepted = self.note(now, sequence, rtt);
        if accepted {
            self.budget = budget;
        }
        accepted
    }

    fn note(&mut self, now: Instant, sequence: u64, rtt: Duration) -> bool {
        let sequence = sequence as u32;
        if let Some(request) = self.requests.iter_mut().find(|request| request.sequence == sequence) {
            let again =
                request.times < MAX_RESENDS && now.saturating_duration_since(request.at) >= rtt.max(MIN_INTERVAL);
            if again {
                request.times += 1;
                request.at = now;
            }
            return again;
        }
        let request = Request {
            sequence,
            times: 1,
            at: now,
        };
        if self.requests.len() < REMEMBERED {
            self.requests.push(request);
        } else if let Some(oldest) = self.requests.get_mut(self.next) {
            *oldest = request;
            self.next = (self.next + 1) % REMEMBERED;
        }
        true
    }
}

/// Header values of a packet that are not in the ring. Sealing different bytes under one packet index would break the
/// cipher (see `rtc::Transport::seal_rtp`), so a plain resend repeats them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Low half of the extended number; 0 = none.
    pub sequence: u32,
    pub transport_cc: [u8; 2],
    pub abs_send_time: [u8; 3],
    pub with_mid: bool,
    pub padding: u8,
}

/// The newest marks, by sequence number.
#[derive(Debug)]
pub struct Marks {
    marks: Vec<Mark>,
}

/// Packets that can be resent as they were: 2.5 s of 20 ms audio.
const AUDIO_MARKS: usize = 128;
/// For video to the rare client without RTX: half a second at 500 packets a second.
const VIDEO_MARKS: usize = 256;

impl Marks {
    pub fn new(kind: MediaKind) -> Self {
        let len = match kind {
            MediaKind::Audio => AUDIO_MARKS,
            MediaKind::Video => VIDEO_MARKS,
        };
        Self {
            marks: vec![Mark::default(); len],
        }
    }

    pub fn put(&mut self, sequence: u64, mark: Mark) {
        let index = sequence as usize % self.marks.len().max(1);
        if let Some(place) = self.marks.get_mut(index) {
            *place = Mark {
                sequence: sequence as u32,
                ..mark
            };
        }
    }

    pub fn find(&self, sequence: u64) -> Option<Mark> {
        let index = sequence as usize % self.marks.len().max(1);
        self.marks
            .get(index)
            .copied()
            .filter(|mark| mark.sequence == sequence as u32)
    }

    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.marks.capacity() * size_of::<Mark>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_request_within_a_round_trip_is_ignored() {
        let now = Instant::now();
        let rtt = Duration::from_millis(50);
        let mut requests = RecentRequests::default();
        assert!(requests.accept(now, 70_000, rtt));
        assert!(!requests.accept(now + rtt / 2, 70_000, rtt));
        assert!(requests.accept(now + rtt, 70_000, rtt));
        assert!(requests.accept(now + rtt * 2, 70_000, rtt));
        assert!(!requests.accept(now + rtt * 9, 70_000, rtt), "three times at most");
        assert!(requests.accept(now, 70_001, rtt));
    }

    #[test]
    fn the_table_does_not_grow() {
        let now = Instant::now();
        let mut requests = RecentRequests::default();
        for sequence in 0..1000 {
            requests.earn();
            requests.earn();
            assert!(requests.accept(now, sequence, Duration::ZERO));
        }
        assert_eq!(requests.requests.len(), REMEMBERED);
        assert!(!requests.accept(now, 999, Duration::ZERO));
    }

    #[test]
    fn more_than_the_budget_is_not_sent_again() {
        let now = Instant::now();
        let mut requests = RecentRequests::default();
        let accepted = (0..10_000).filter(|sequence| requests.accept(now, *sequence, Duration::ZERO));
        assert_eq!(accepted.count(), 256);
        for _ in 0..100 {
            requests.earn();
        }
        let accepted = (20_000..30_000).filter(|sequence| requests.accept(now, *sequence, Duration::ZERO));
        assert_eq!(accepted.count(), 50);
    }

    #[test]
    fn marks_are_found_until_overwritten() {
        let mut marks = Marks::new(MediaKind::Audio);
        let mark = Mark {
            transport_cc: [0, 9],
            ..Mark::default()
        };
        marks.put(70_000, mark);
        assert_eq!(marks.find(70_000).unwrap().transport_cc, [0, 9]);
        marks.put(70_000 + AUDIO_MARKS as u64, mark);
        assert_eq!(marks.find(70_000), None);
    }
}
