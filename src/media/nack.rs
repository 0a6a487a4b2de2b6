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
/// A network that is seen to reorder by more is given more, up to this: from there on waiting costs more than asking.
const MAX_REORDER_TOLERANCE: Duration = Duration::from_millis(40);
/// Beyond the latest packet that was only late.
const REORDER_MARGIN: Duration = Duration::from_millis(3);
/// Losses over which what was learned about reordering fades.
const REORDER_MEMORY: u32 = 128;

/// Used until a round trip was measured.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
const MIN_RETRY: Duration = Duration::from_millis(20);
const MAX_RETRY: Duration = Duration::from_millis(400);

/// The first tries follow each other by a round trip: at a loss of 20 % in both directions, every third fails, and a picture
/// waits for it.
const QUICK_TRIES: u8 = 5;
/// Each later one waits a quarter longer than the one before.
const BACKOFF: f64 = 1.25;

/// Share of first requests that bring nothing from which packets are asked for twice in a round trip: at a loss of 15 % in
/// both directions every fourth does, at 30 % every second, and a key frame of 30 packets would wait for its last one until
/// nobody needs it. libwebrtc ignores what it has answered less than a round trip ago: the second is for the first that
/// was lost.
const FAILING: f32 = 0.25;
/// Every so many-th packet still waits a round trip for its second request: only their answers tell how long a round trip
/// is and how many requests fail.
const MEASURED: u64 = 8;
/// Weight of one packet in the share that fails.
const FAILED_WEIGHT: f32 = 1.0 / 16.0;

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
    since: Instant,
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
    reorder_tolerance: Duration,
    /// Of first requests, those that brought nothing: 0.0..=1.0.
    failed: f32,
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
            reorder_tolerance: REORDER_TOLERANCE,
            failed: 0.0,
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
            return match self.remove(sequence) {
                Some(missing) => {
                    self.learn_reordering(missing, now);
                    Arrival::Filled
                }
                None => Arrival::Old,
            };
        }
        self.highest = Some(sequence);
        let gap = sequence - highest - 1;
        if gap > MAX_MISSING as u64 {
            // The stream jumped: asking for all of that would not bring it back.
            self.give_up_all();
        } else if gap > 0 {
            self.make_room(gap as usize);
            let due = now + self.reorder_tolerance;
            self.missing.extend((highest + 1..sequence).map(|sequence| Missing {
                sequence,
                since: now,
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
                let learned = self.reorder_tolerance.saturating_sub(REORDER_TOLERANCE);
                self.reorder_tolerance -= learned / REORDER_MEMORY;
                let is_quick = self.failed >= FAILING;
                if missing.tries > 0 && (!is_quick || is_measured(sequence)) {
                    let failed = f32::from(u8::from(missing.tries > 1));
                    self.failed += (failed - self.failed) * FAILED_WEIGHT;
                }
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

    /// A key frame begins at `sequence`, where that is known only after `handle_packet`.
    pub fn handle_keyframe(&mut self, sequence: u64) {
        self.keyframe = self.keyframe.max(Some(sequence));
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
        let (rtt, is_quick) = (self.rtt, self.failed >= FAILING);
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
                    let round = if is_quick && !is_measured(missing.sequence) {
                        rtt / 2
                    } else {
                        rtt
                    };
                    missing.due = now + retry_after(round, missing.tries);
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

    /// A packet came by itself: it was late, unless the publisher repeats packets on the stream and this is an answer.
    fn learn_reordering(&mut self, missing: Missing, now: Instant) {
        let answered = missing
            .asked
            .is_some_and(|asked| now.saturating_duration_since(asked) > self.rtt / 2);
        if !answered {
            let needed = now.saturating_duration_since(missing.since) + REORDER_MARGIN;
            self.reorder_tolerance = self.reorder_tolerance.max(needed.min(MAX_REORDER_TOLERANCE));
        }
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

fn is_measured(sequence: u64) -> bool {
    sequence.is_multiple_of(MEASURED)
}

/// After `tries` earlier requests, `round` apart.
fn retry_after(round: Duration, tries: u8) -> Duration {
    // Clamped before it grows: the factor is at most 1.25^6.
    round
        .min(MAX_RETRY)
        .mul_f64(BACKOFF.powi(i32::from(tries.saturating_sub(QUICK_TRIES - 1))))
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
mod tests;
