//! Which media time a subscriber is shown when its stream goes over from one source to another.
//!
//! Owned by a `Subscription`. The publisher's sender reports say what two encodings call the same moment; before both have
//! come, the time of arrival has to do, and that is counted. Timestamps never go back: a key frame from the ring that is
//! older than what was shown last, and what followed it, get the next ticks, until the source has caught up.

use std::time::{Duration, Instant};

use super::rewrite::{Incoming, Rewriter, Source};
use super::track::Track;
use crate::types::MediaKind;

/// A timestamp that differs from the wall clock by more is not believed after an interruption or a switch.
const MAX_DRIFT: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Timeline {
    /// When the newest packet that was sent had arrived.
    last: Option<Instant>,
    /// What is added to a source's timestamps when nothing has to be squeezed.
    offset: Option<(Source, u32)>,
    clock_rate: u32,
    /// The newest picture stands later than it should.
    is_squeezed: bool,
    /// The last switch was by the time of arrival.
    by_arrival: bool,
}

impl Timeline {
    /// A packet that had arrived then is sent.
    pub fn sent(&mut self, arrival: Instant) {
        self.last = self.last.max(Some(arrival));
    }

    /// ZERO before the first.
    pub fn since_last(&self, now: Instant) -> Duration {
        self.last
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last))
    }

    /// The next packet stands where it arrives, whatever was shown of its source before.
    pub fn restart(&mut self) {
        self.offset = None;
    }

    /// Timestamps shown stand for their moment of capture. Else reports must not be made of them yet.
    pub fn is_settled(&self) -> bool {
        !self.is_squeezed
    }

    /// The last switch between two encodings was made before sender reports of both had come.
    pub fn is_by_arrival(&self) -> bool {
        self.by_arrival
    }

    /// Where a new source continues: on the media timeline where that is known, else by the time of arrival.
    pub fn place(
        &mut self,
        rewriter: &Rewriter,
        track: &Track,
        packet: Incoming,
        arrival: Instant,
        clock_rate: u32,
    ) -> u32 {
        self.is_squeezed = false;
        self.by_arrival = false;
        self.clock_rate = clock_rate;
        if self.last.is_none() {
            self.offset = Some((packet.source, 0)); // the first packet keeps its timestamp
            return packet.timestamp;
        }
        let before = self.offset;
        self.offset = self.aligned(track, packet.source).map(|offset| (packet.source, offset));
        if let Some((_, offset)) = self.offset {
            let drift = packet
                .timestamp
                .wrapping_add(offset)
                .wrapping_sub(self.expected(rewriter, arrival));
            if drift.cast_signed().unsigned_abs() > ticks(MAX_DRIFT, clock_rate) {
                self.offset = None;
            }
        }
        self.by_arrival = self.offset.is_none() && before.is_some_and(|(source, _)| source != packet.source);
        let settled = self.settle(rewriter, packet, arrival);
        // Packets that the server made stand closer together than the wall clock's resolution says.
        let is_audio = track.kind == MediaKind::Audio;
        settled.unwrap_or_else(|| {
            rewriter
                .timestamp()
                .wrapping_add(if is_audio { clock_rate / 50 } else { 1 })
        })
    }

    /// The first packet of a picture while pictures are squeezed: its timestamp. None = it goes on as before.
    pub fn resume(&mut self, rewriter: &Rewriter, packet: Incoming, arrival: Instant) -> Option<u32> {
        if !self.is_squeezed {
            return None;
        }
        let (_, offsets) = rewriter.offsets()?;
        if offsets.timestamp(packet.timestamp) == rewriter.timestamp() {
            return None; // the same picture
        }
        let settled = self.settle(rewriter, packet, arrival);
        Some(settled.unwrap_or_else(|| rewriter.timestamp().wrapping_add(1)))
    }

    /// The timestamp of a packet where it should stand; None when that is not after the last.
    fn settle(&mut self, rewriter: &Rewriter, packet: Incoming, arrival: Instant) -> Option<u32> {
        let timestamp = match self.offset {
            Some((_, offset)) => packet.timestamp.wrapping_add(offset),
            None => self.expected(rewriter, arrival),
        };
        self.is_squeezed = timestamp.wrapping_sub(rewriter.timestamp()).cast_signed() <= 0;
        if self.is_squeezed {
            return None;
        }
        self.offset = Some((packet.source, timestamp.wrapping_sub(packet.timestamp)));
        Some(timestamp)
    }

    /// By the time of arrival, relative to what was sent last.
    fn expected(&self, rewriter: &Rewriter, arrival: Instant) -> u32 {
        let last = self.last.unwrap_or(arrival);
        let later = ticks(arrival.saturating_duration_since(last), self.clock_rate);
        let earlier = ticks(last.saturating_duration_since(arrival), self.clock_rate);
        rewriter.timestamp().wrapping_add(later).wrapping_sub(earlier)
    }

    /// What to add to the timestamps of `source` so that they go on on the timeline shown so far.
    fn aligned(&self, track: &Track, source: Source) -> Option<u32> {
        let (of, offset) = self.offset?;
        if of == source {
            return Some(offset);
        }
        let old = track
            .encodings
            .get(usize::from(of.encoding))
            .filter(|encoding| encoding.source() == of)?;
        let new = track.encodings.get(usize::from(source.encoding))?;
        let ticks = old.sender_report?.ticks_from(&new.sender_report?, self.clock_rate);
        Some(offset.wrapping_add(ticks))
    }
}

pub fn ticks(duration: Duration, clock_rate: u32) -> u32 {
    (duration.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}
