//! What a subscription remembers so that it can answer NACKs: how often each number was asked for lately, and, where
//! packets are resent as they were, the header values that must be the same again.

use std::time::{Duration, Instant};

use crate::types::MediaKind;

/// Numbers that were sent again lately. At 30 % loss of 5 Mbit/s, half a second; when more are asked for, the oldest entry
/// is forgotten and at worst a packet is sent once more than needed. 1 KiB, from the first request on.
const REMEMBERED: usize = 128;
/// LiveKit: a packet is sent again at most three times. At 30 % loss one in a hundred would then be missing for good;
/// libwebrtc asks ten times.
const MAX_RESENDS: u8 = 10;
/// A request for a packet that was sent again less than a round trip ago is about the copy before; on fast paths this
/// floor covers the receiver's own timer.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Eight bytes, so that all of them stay well below a subscription's 4 KiB.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// Low half of the extended number.
    sequence: u32,
    /// Milliseconds since the first, wrapping after three days, above how often it was sent again.
    answered: u32,
}

const TIMES_BITS: u32 = 4;
const TIMES: u32 = (1 << TIMES_BITS) - 1;
const _: () = assert!(size_of::<Request>() == 8 && (MAX_RESENDS as u32) <= TIMES);

impl Request {
    fn times(&self) -> u8 {
        (self.answered & TIMES) as u8
    }

    fn age(&self, now: u32) -> Duration {
        let shifted = (now << TIMES_BITS).wrapping_sub(self.answered & !TIMES);
        Duration::from_millis(u64::from(shifted >> TIMES_BITS))
    }

    fn set(&mut self, now: u32, times: u8) {
        self.answered = now << TIMES_BITS | u32::from(times) & TIMES;
    }
}

/// Which packets were sent again, and when: a small table, oldest overwritten first. How many may be is the transport's
/// `RepairBudget`.
#[derive(Debug, Default)]
pub struct RecentRequests {
    requests: Vec<Request>,
    next: usize,
    origin: Option<Instant>,
}

impl RecentRequests {
    /// Whether a request for `sequence` is to be answered: not within a round trip of the answer before.
    pub fn may_resend(&mut self, now: Instant, sequence: u64, rtt: Duration) -> bool {
        let at = self.millis(now);
        let known = self.requests.iter().find(|request| request.sequence == sequence as u32);
        known.is_none_or(|request| request.times() < MAX_RESENDS && request.age(at) >= rtt.max(MIN_INTERVAL))
    }

    /// Whether it was sent again as often as anything is.
    pub fn is_spent(&self, sequence: u64) -> bool {
        self.times(sequence) >= MAX_RESENDS
    }

    /// How often it was sent again lately.
    pub fn times(&self, sequence: u64) -> u8 {
        let known = self.requests.iter().find(|request| request.sequence == sequence as u32);
        known.map_or(0, Request::times)
    }

    /// It is sent again now.
    pub fn note(&mut self, now: Instant, sequence: u64) {
        let at = self.millis(now);
        let sequence = sequence as u32;
        if let Some(request) = self.requests.iter_mut().find(|request| request.sequence == sequence) {
            request.set(at, request.times().saturating_add(1));
            return;
        }
        let mut request = Request { sequence, answered: 0 };
        request.set(at, 1);
        if self.requests.len() < REMEMBERED {
            // At the first, so that no later one allocates.
            self.requests.reserve_exact(REMEMBERED - self.requests.len());
            self.requests.push(request);
        } else if let Some(oldest) = self.requests.get_mut(self.next) {
            *oldest = request;
            self.next = (self.next + 1) % REMEMBERED;
        }
    }

    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.requests.capacity() * size_of::<Request>()
    }

    fn millis(&mut self, now: Instant) -> u32 {
        let origin = *self.origin.get_or_insert(now);
        now.saturating_duration_since(origin).as_millis() as u32
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
        let mut ask = |at: Instant, sequence| {
            let accepted = requests.may_resend(at, sequence, rtt);
            if accepted {
                requests.note(at, sequence);
            }
            accepted
        };
        assert!(ask(now, 70_000));
        assert!(!ask(now + rtt / 2, 70_000));
        for n in 1..u32::from(MAX_RESENDS) {
            assert!(ask(now + rtt * n, 70_000));
        }
        assert!(!ask(now + rtt * 20, 70_000), "not for ever");
        assert!(ask(now, 70_001));
    }

    #[test]
    fn the_table_does_not_grow() {
        let now = Instant::now();
        let mut requests = RecentRequests::default();
        for sequence in 0..1000 {
            assert!(requests.may_resend(now, sequence, Duration::ZERO));
            requests.note(now, sequence);
        }
        assert_eq!(requests.requests.len(), REMEMBERED);
        assert!(!requests.may_resend(now, 999, Duration::ZERO));
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
