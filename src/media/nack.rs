//! Which packets of one received encoding to ask for again, and when (RFC 4585 §6.2.1).
//!
//! Owns the list of missing packets of one RTP stream. The track that receives the stream drives it: `handle_packet` for
//! every packet of the stream, `handle_recovered` for every one that came by RTX, then, once `poll_timeout` has passed,
//! `handle_timeout`, which says what to write into a NACK; `take_keyframe_request` after either. It never writes packets
//! and never decides whether a key frame request is sent: that is throttled elsewhere.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rtp::rtcp::NackPair;
use crate::types::MediaKind;

/// Missing packets that are remembered; one second of a large key frame. When full, what lies before the last key frame
/// is given up, else everything, and a key frame is asked for. Audio gives up the oldest.
pub const MAX_MISSING: usize = 1000;

/// Pairs in one call of `handle_timeout`: 800 bytes of a datagram. What does not fit is due again at once.
pub const MAX_PAIRS: usize = 200;

/// A packet is asked for ten times, then given up.
const MAX_TRIES: u8 = 10;

/// Networks reorder: a packet is missing only after this time.
const REORDER_TOLERANCE: Duration = Duration::from_millis(10);

/// Used until a round trip was measured.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
const MIN_RETRY: Duration = Duration::from_millis(20);
const MAX_RETRY: Duration = Duration::from_millis(400);

/// Each try waits a quarter longer than the one before.
const BACKOFF: f64 = 1.25;

/// What a packet was to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Newer than everything before it.
    Newest,
    /// It was missing.
    Filled,
    /// Neither: a duplicate, one given up, or older than the first packet.
    Old,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    sequence: u64,
    due: Instant,
    /// Of the last request.
    asked: Option<Instant>,
    tries: u8,
}

#[derive(Debug)]
pub struct NackGenerator {
    kind: MediaKind,
    /// By ascending sequence number.
    missing: VecDeque<Missing>,
    highest: Option<u64>,
    /// First packet of the newest key frame.
    keyframe: Option<u64>,
    keyframe_needed: bool,
    /// Not later than the earliest `due`; may be earlier.
    next_due: Option<Instant>,
    rtt: Duration,
}

impl NackGenerator {
    pub fn new(kind: MediaKind) -> Self {
        Self {
            kind,
            missing: VecDeque::new(),
            highest: None,
            keyframe: None,
            keyframe_needed: false,
            next_due: None,
            rtt: DEFAULT_RTT,
        }
    }

    /// A packet of the stream itself, by extended sequence number. `keyframe`: it begins a key frame.
    pub fn handle_packet(&mut self, sequence: u64, keyframe: bool, now: Instant) -> Arrival {
        if keyframe {
            self.keyframe = self.keyframe.max(Some(sequence));
        }
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return Arrival::Newest;
        };
        if sequence <= highest {
            return if self.remove(sequence).is_some() {
                Arrival::Filled
            } else {
                Arrival::Old
            };
        }
        self.highest = Some(sequence);
        let gap = sequence - highest - 1;
        if gap > MAX_MISSING as u64 {
            // The stream jumped: asking for all of that would not bring it back.
            self.give_up_all();
        } else if gap > 0 {
            self.make_room(gap as usize);
            let due = now + REORDER_TOLERANCE;
            self.missing.extend((highest + 1..sequence).map(|sequence| Missing {
                sequence,
                due,
                asked: None,
                tries: 0,
            }));
            self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
        }
        Arrival::Newest
    }

    /// A packet that came as a retransmission.
    pub fn handle_recovered(&mut self, sequence: u64, now: Instant) -> Arrival {
        // Probes repeat packets that were never lost, and may overtake them. A stream never starts with one.
        if self.highest.is_some_and(|highest| sequence > highest) {
            return self.handle_packet(sequence, false, now);
        }
        match self.remove(sequence) {
            Some(missing) => {
                // Only an answer to the first request says how long the round trip is (Karn's rule).
                if let (1, Some(asked)) = (missing.tries, missing.asked) {
                    let sample = now.saturating_duration_since(asked);
                    self.rtt = (self.rtt * 3 + sample) / 4;
                }
                Arrival::Filled
            }
            None => Arrival::Old,
        }
    }

    /// A round-trip time measured in another way.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// Measured from requests and their answers, unless set.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// When `handle_timeout` has something to do. May be early.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_due
    }

    /// Fills `pairs` with what is to be asked for now (at most [`MAX_PAIRS`]); empty when nothing is due.
    pub fn handle_timeout(&mut self, now: Instant, pairs: &mut Vec<NackPair>) {
        pairs.clear();
        if self.next_due.is_none_or(|due| due > now) {
            return;
        }
        let rtt = self.rtt;
        let mut next_due: Option<Instant> = None;
        let mut lost_for_good = false;
        let keyframe = self.keyframe;
        self.missing.retain_mut(|missing| {
            if missing.due <= now {
                if missing.tries >= MAX_TRIES {
                    // A newer key frame makes it unimportant.
                    lost_for_good |= keyframe.is_none_or(|keyframe| keyframe < missing.sequence);
                    return false;
                }
                if push(pairs, missing.sequence as u16) {
                    missing.due = now + retry_after(rtt, missing.tries);
                    missing.asked = Some(now);
                    missing.tries += 1;
                }
            }
            next_due = Some(next_due.map_or(missing.due, |next| next.min(missing.due)));
            true
        });
        self.next_due = next_due;
        self.keyframe_needed |= lost_for_good && self.kind == MediaKind::Video;
    }

    /// True once after packets were given up that only a key frame can make up for.
    pub fn take_keyframe_request(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_needed)
    }

    /// Forgets everything but the round-trip time: the stream starts anew (another SSRC, or unmuted).
    pub fn reset(&mut self) {
        self.missing.clear();
        self.next_due = None;
        self.highest = None;
        self.keyframe = None;
        self.keyframe_needed = false;
    }

    /// Packets missing now.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    fn remove(&mut self, sequence: u64) -> Option<Missing> {
        let at = self
            .missing
            .binary_search_by_key(&sequence, |missing| missing.sequence)
            .ok()?;
        let removed = self.missing.remove(at);
        if self.missing.is_empty() {
            self.next_due = None;
        }
        removed
    }

    /// Drops entries until `count` more fit.
    fn make_room(&mut self, count: usize) {
        if self.missing.len() + count <= MAX_MISSING {
            return;
        }
        match self.kind {
            MediaKind::Audio => {
                let excess = self.missing.len() + count - MAX_MISSING;
                self.missing.drain(..excess.min(self.missing.len()));
            }
            MediaKind::Video => {
                if let Some(keyframe) = self.keyframe {
                    self.missing.retain(|missing| missing.sequence >= keyframe);
                }
                if self.missing.len() + count > MAX_MISSING {
                    self.give_up_all();
                }
            }
        }
    }

    fn give_up_all(&mut self) {
        self.missing.clear();
        self.next_due = None;
        self.keyframe_needed |= self.kind == MediaKind::Video;
    }
}

/// After `tries` earlier requests.
fn retry_after(rtt: Duration, tries: u8) -> Duration {
    // Clamped before it grows: the factor is at most 1.25^10.
    rtt.min(MAX_RETRY)
        .mul_f64(BACKOFF.powi(i32::from(tries)))
        .clamp(MIN_RETRY, MAX_RETRY)
}

/// Adds a sequence number to the pairs, which get them in ascending order. False when there is no room.
fn push(pairs: &mut Vec<NackPair>, sequence: u16) -> bool {
    if let Some(last) = pairs.last_mut() {
        let distance = sequence.wrapping_sub(last.pid);
        if (1..=16).contains(&distance) {
            last.blp |= 1 << (distance - 1);
            return true;
        }
    }
    if pairs.len() == MAX_PAIRS {
        return false;
    }
    pairs.push(NackPair { pid: sequence, blp: 0 });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        nack: NackGenerator,
        now: Instant,
    }

    impl Bench {
        fn new(kind: MediaKind) -> Self {
            Self {
                nack: NackGenerator::new(kind),
                now: Instant::now(),
            }
        }

        fn packet(&mut self, sequence: u64) -> Arrival {
            self.nack.handle_packet(sequence, false, self.now)
        }

        fn after(&mut self, ms: u64) -> &mut Self {
            self.now += Duration::from_millis(ms);
            self
        }

        fn asked(&mut self) -> Vec<u16> {
            let mut pairs = Vec::new();
            self.nack.handle_timeout(self.now, &mut pairs);
            pairs.into_iter().flat_map(NackPair::sequences).collect()
        }

        /// Runs timers until the list is empty and returns when requests went out, in ms.
        fn run(&mut self) -> Vec<u128> {
            let start = self.now;
            let mut times = Vec::new();
            while let Some(at) = self.nack.poll_timeout() {
                self.now = self.now.max(at);
                if !self.asked().is_empty() {
                    times.push((self.now - start).as_millis());
                }
            }
            times
        }
    }

    #[test]
    fn a_reordered_packet_is_not_asked_for() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(100);
        bench.packet(102);
        assert!(bench.after(9).asked().is_empty());
        assert_eq!(bench.packet(101), Arrival::Filled);
        assert_eq!(bench.packet(101), Arrival::Old);
        assert_eq!((bench.nack.poll_timeout(), bench.nack.missing()), (None, 0));
        assert!(bench.after(100).asked().is_empty());
    }

    #[test]
    fn a_burst_is_asked_for_in_pairs_over_the_wrap() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0x1_fffd);
        bench.packet(0x2_0010);
        let mut pairs = Vec::new();
        bench.after(10);
        bench.nack.handle_timeout(bench.now, &mut pairs);
        assert_eq!(
            pairs,
            [
                NackPair {
                    pid: 0xfffe,
                    blp: 0xffff
                },
                NackPair { pid: 15, blp: 0 }
            ]
        );
        assert!(bench.asked().is_empty(), "not again in the same moment");
    }

    #[test]
    fn tries_back_off_from_the_round_trip_and_end() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.nack.set_rtt(Duration::from_millis(100));
        bench.packet(1);
        bench.packet(3);
        let times = bench.run();
        assert_eq!(times, [10, 110, 235, 391, 586, 830, 1135, 1517, 1917, 2317]);
        assert_eq!(bench.nack.missing(), 0);
        assert!(bench.nack.take_keyframe_request(), "given up for good");
        assert!(!bench.nack.take_keyframe_request());
    }

    #[test]
    fn the_last_packets_of_a_burst_are_asked_for_without_further_arrivals() {
        let mut bench = Bench::new(MediaKind::Audio);
        bench.packet(1);
        bench.packet(3);
        assert_eq!(bench.nack.poll_timeout(), Some(bench.now + REORDER_TOLERANCE));
        assert_eq!(bench.run().len(), 10);
        assert!(!bench.nack.take_keyframe_request(), "audio has no key frames");
    }

    #[test]
    fn short_round_trips_are_measured_and_retries_have_a_floor() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0);
        for sequence in (2..60).step_by(2) {
            bench.packet(sequence);
            assert_eq!(bench.after(10).asked(), [sequence as u16 - 1]);
            bench.after(4);
            assert_eq!(bench.nack.handle_recovered(sequence - 1, bench.now), Arrival::Filled);
        }
        assert!(bench.nack.rtt() < Duration::from_millis(6));
        bench.packet(62);
        assert_eq!(bench.after(10).asked(), [59, 60, 61]);
        assert!(bench.after(19).asked().is_empty());
        assert_eq!(bench.after(1).asked(), [59, 60, 61]);
    }

    #[test]
    fn a_late_answer_to_a_second_request_is_no_round_trip() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0);
        bench.packet(2);
        bench.after(10).asked();
        bench.after(100).asked();
        bench.after(1);
        bench.nack.handle_recovered(1, bench.now);
        assert_eq!(bench.nack.rtt(), DEFAULT_RTT);
        assert_eq!(bench.nack.handle_recovered(1, bench.now), Arrival::Old);
    }

    #[test]
    fn a_retransmission_that_overtakes_is_not_asked_for_again() {
        let mut bench = Bench::new(MediaKind::Video);
        assert_eq!(
            bench.nack.handle_recovered(1, bench.now),
            Arrival::Old,
            "it starts no stream"
        );
        bench.packet(1);
        assert_eq!(bench.nack.handle_recovered(2, bench.now), Arrival::Newest);
        bench.packet(3);
        assert_eq!(bench.nack.missing(), 0);
        assert_eq!(bench.packet(2), Arrival::Old);
    }

    #[test]
    fn a_full_list_keeps_what_follows_the_key_frame() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0);
        for sequence in (2..1600).step_by(2) {
            bench.packet(sequence); // 799 missing
        }
        bench.nack.handle_packet(1601, true, bench.now);
        bench.packet(1900); // 298 more: does not fit, but for the key frame
        assert_eq!(bench.nack.missing(), 298);
        assert!(!bench.nack.take_keyframe_request());
        bench.packet(2700);
        assert_eq!(
            bench.nack.missing(),
            799,
            "nothing of it is before a key frame: all given up but the new gap"
        );
        assert!(bench.nack.take_keyframe_request());
    }

    #[test]
    fn a_jump_asks_for_a_key_frame_and_nothing_else() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0);
        bench.packet(5000);
        assert_eq!((bench.nack.missing(), bench.nack.poll_timeout()), (0, None));
        assert!(bench.nack.take_keyframe_request());
    }

    #[test]
    fn a_full_audio_list_forgets_the_oldest() {
        let mut bench = Bench::new(MediaKind::Audio);
        bench.packet(0);
        bench.packet(901);
        bench.packet(1202);
        assert_eq!(bench.nack.missing(), MAX_MISSING);
        assert_eq!(bench.packet(200), Arrival::Old);
        assert_eq!(bench.packet(201), Arrival::Filled);
    }

    #[test]
    fn more_pairs_than_fit_are_due_at_once_again() {
        let mut bench = Bench::new(MediaKind::Video);
        for sequence in (0..20_000).step_by(20) {
            bench.packet(sequence); // 19 missing in two pairs each time
            if bench.nack.missing() > 900 {
                break;
            }
        }
        for filled in 0..900 {
            if filled % 17 != 1 {
                bench.packet(filled);
            }
        }
        let missing = bench.nack.missing();
        bench.after(10);
        let mut asked = bench.asked().len();
        while bench.nack.poll_timeout() == Some(bench.now)
            || bench.nack.poll_timeout().is_some_and(|at| at <= bench.now)
        {
            asked += bench.asked().len();
        }
        assert_eq!(asked, missing);
    }

    #[test]
    fn a_lost_packet_before_a_newer_key_frame_needs_no_other() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0);
        bench.packet(2);
        bench.nack.handle_packet(3, true, bench.now);
        bench.run();
        assert!(!bench.nack.take_keyframe_request());
    }

    #[test]
    fn a_reset_forgets_the_stream() {
        let mut bench = Bench::new(MediaKind::Video);
        bench.packet(0);
        bench.packet(2);
        bench.nack.reset();
        assert_eq!(bench.packet(90_000), Arrival::Newest);
        assert_eq!((bench.nack.missing(), bench.nack.poll_timeout()), (0, None));
    }
}
