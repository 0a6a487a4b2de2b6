//! What a viewer sees: frames put together from packets, decoded once what they refer to is there, and a key frame asked for
//! when nothing more can be decoded.
//!
//! Modelled after libwebrtc's receiver: frames are decoded in the order they were sent; a frame behind a hole waits for it
//! as long as the jitter buffer holds frames back, then goes on without, provided that it does not refer to what is missing.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::Range,
    time::{Duration, Instant},
};

use crate::media::Tag;

/// How long a frame waits for an older one that it can do without.
const PATIENCE: Duration = Duration::from_millis(100);
/// A viewer without a first picture asks for a key frame this often. libwebrtc: 200 ms.
const FIRST_REQUEST: Duration = Duration::from_millis(200);
/// Later ones ask when packets come but nothing could be decoded for this long. libwebrtc waits for three seconds, and asks
/// for a lost packet ten times before, at most every 20 ms. str0m, which asks here, does so every 33 ms at most, gives a packet
/// up after five tries and takes none that is a hundred packets old, half a second of a 720p camera: from there on waiting
/// is of no use. So what is recovered here a browser recovers too.
const STALLED: Duration = Duration::from_millis(700);
/// Decoded units that are remembered: references go a few frames back.
const HISTORY: usize = 4096;

/// A picture that was decoded.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub at: Instant,
    pub tag: Tag,
}

struct Unit {
    tag: Option<Tag>,
    marker: bool,
    got: HashSet<u16>,
    complete: Option<Instant>,
}

/// Of one received video stream.
#[derive(Default)]
pub struct Receiver {
    /// By the sequence number of their first packet.
    waiting: BTreeMap<u64, Unit>,
    /// Numbers that arrived and are not behind yet.
    arrived: BTreeSet<u64>,
    decoded: HashSet<(u8, u32)>,
    order: std::collections::VecDeque<(u8, u32)>,
    /// First number behind the newest unit that was decoded.
    next: Option<u64>,
    /// The highest layer of each picture.
    pub shown: Vec<Shown>,
    last_packet: Option<Instant>,
    first_packet: Option<Instant>,
    last_progress: Option<Instant>,
    /// Up to when patience has been looked at.
    looked: Option<Instant>,
    last_request: Option<Instant>,
    /// When a key frame was asked for.
    pub requests: Vec<Instant>,
}

impl Receiver {
    pub fn handle_packet(&mut self, now: Instant, sequence: u64, marker: bool, tag: Option<Tag>) {
        self.last_packet = Some(now);
        self.first_packet.get_or_insert(now);
        let (part, parts) = tag.map_or((0, 1), |tag| (tag.part, tag.parts));
        let Some(first) = sequence.checked_sub(u64::from(part)) else {
            return;
        };
        if self.next.is_none_or(|next| sequence >= next) {
            self.arrived.insert(sequence);
        }
        if self.next.is_some_and(|next| first < next) {
            return;
        }
        let unit = self.waiting.entry(first).or_insert_with(|| Unit {
            tag,
            marker: false,
            got: HashSet::new(),
            complete: None,
        });
        unit.got.insert(part);
        unit.marker |= marker;
        if unit.complete.is_none() && unit.got.len() == usize::from(parts) {
            unit.complete = Some(now);
        }
        self.decode(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let complete = self.waiting.values().filter_map(|unit| unit.complete);
        let patience = complete
            .map(|complete| complete + PATIENCE)
            .filter(|at| self.looked.is_none_or(|looked| *at > looked))
            .min();
        let request = self.request_at();
        [patience, request].into_iter().flatten().min()
    }

    /// True when a key frame is to be asked for.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        self.decode(now);
        let due = self.request_at().is_some_and(|at| at <= now);
        if due {
            self.last_request = Some(now);
            self.requests.push(now);
        }
        due
    }

    fn request_at(&self) -> Option<Instant> {
        let packet = self.last_packet?;
        let wait = if self.shown.is_empty() { FIRST_REQUEST } else { STALLED };
        let since = self.last_progress.or(self.first_packet)?;
        let at = self.last_request.map_or(since, |last| last.max(since)) + wait;
        // Nothing is asked of a stream that has stopped.
        (packet + wait > at).then_some(at)
    }

    fn is_decodable(&self, tag: &Tag) -> bool {
        tag.references
            .iter()
            .flatten()
            .all(|unit| self.decoded.contains(&(tag.encoding, *unit)))
    }

    fn decode(&mut self, now: Instant) {
        self.looked = Some(now);
        loop {
            let mut next = None;
            for (&first, unit) in &self.waiting {
                let Some(complete) = unit.complete else { continue };
                // What arrived and belongs to no frame (one that was left out before a part of it came) is not waited for.
                let in_order = self
                    .next
                    .is_none_or(|next| (next..first).all(|sequence| self.arrived.contains(&sequence)));
                let decodable = unit.tag.is_none_or(|tag| self.is_decodable(&tag));
                if decodable && (in_order || complete + PATIENCE <= now) {
                    next = Some(first);
                    break;
                }
            }
            let Some(first) = next else { return };
            let kept = self.waiting.split_off(&first);
            // Older ones came too late, or lack what they refer to.
            self.waiting = kept;
            if let Some(unit) = self.waiting.remove(&first) {
                self.show(now, first, &unit);
            }
        }
    }

    fn show(&mut self, now: Instant, first: u64, unit: &Unit) {
        let Some(tag) = unit.tag else {
            return self.advance(first + 1);
        };
        self.advance(first + u64::from(tag.parts));
        self.last_progress = Some(now);
        self.decoded.insert((tag.encoding, tag.unit()));
        self.order.push_back((tag.encoding, tag.unit()));
        if self.order.len() > HISTORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.decoded.remove(&oldest);
        }
        // The marker ends a picture, whatever layers of it were sent.
        if unit.marker {
            self.shown.push(Shown { at: now, tag });
        }
    }

    fn advance(&mut self, next: u64) {
        self.next = Some(next);
        self.arrived = self.arrived.split_off(&next);
    }

    /// Pictures decoded within an interval.
    pub fn shown_in(&self, interval: Range<Instant>) -> impl Iterator<Item = &Shown> {
        self.shown.iter().filter(move |shown| interval.contains(&shown.at))
    }

    /// The longest time without a new picture within an interval, its ends included, and when it began.
    pub fn longest_gap(&self, interval: Range<Instant>) -> (Duration, Instant) {
        let mut last = interval.start;
        let mut longest = (Duration::ZERO, last);
        let ends = self.shown_in(interval.clone()).map(|shown| shown.at);
        for at in ends.chain([interval.end]) {
            if at - last > longest.0 {
                longest = (at - last, last);
            }
            last = at;
        }
        longest
    }
}
