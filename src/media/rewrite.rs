//! Renumbering: one subscriber sees one unbroken stream, whichever encodings and layers it is made of.
//!
//! Owned by a `Subscription`, driven for each packet it is sent. Holds no packets: a short list of spans (one life of a
//! source with its offsets) cut into runs (packets without a drop between them), in each of which the outgoing number is
//! the publisher's plus a constant. That list also answers a NACK (which stored packet was it?) and gives a late packet
//! the place that was left for it.

use std::collections::VecDeque;

use super::layers::Cut;
use super::ring::PictureNumbers;
use crate::types::{DropReason, MediaKind};

/// One life of one encoding: its index, and how often its SSRC has been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub encoding: u8,
    pub epoch: u8,
}

/// What a subscriber is shown of a packet. `sequence` is extended: its upper 48 bits are the SRTP rollover counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub sequence: u64,
    pub timestamp: u32,
    pub picture: PictureNumbers,
}

/// The publisher's numbers of the same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    pub source: Source,
    pub sequence: u64,
    pub timestamp: u32,
    pub picture: PictureNumbers,
    /// Of the dependency descriptor.
    pub frame_number: u16,
}

/// A packet in the ring and how it was shown; the answer to a NACK. Timestamp, picture and frame numbers are added to the
/// stored packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub source: Source,
    pub sequence: u64,
    pub offsets: Offsets,
    pub cut: Cut,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub timestamp: u32,
    pub picture: PictureNumbers,
    pub frame_number: u16,
}

impl Offsets {
    pub fn timestamp(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_add(self.timestamp)
    }

    pub fn picture(&self, picture: PictureNumbers) -> PictureNumbers {
        PictureNumbers {
            picture_id: picture.picture_id.wrapping_add(self.picture.picture_id) & 0x7fff,
            tl0_picidx: picture.tl0_picidx.wrapping_add(self.picture.tl0_picidx),
            keyidx: picture.keyidx.wrapping_add(self.picture.keyidx) & 0x1f,
        }
    }

    /// With so many pictures left out since.
    fn less(mut self, pictures: u16) -> Self {
        self.picture.picture_id = self.picture.picture_id.wrapping_sub(pictures) & 0x7fff;
        self
    }

    /// Such that `from` is shown as `to`.
    fn picture_between(from: PictureNumbers, to: PictureNumbers) -> PictureNumbers {
        PictureNumbers {
            picture_id: to.picture_id.wrapping_sub(from.picture_id) & 0x7fff,
            tl0_picidx: to.tl0_picidx.wrapping_sub(from.tl0_picidx),
            keyidx: to.keyidx.wrapping_sub(from.keyidx) & 0x1f,
        }
    }
}

/// Runs kept, 16 bytes each. Every picture with something left out ends one: this covers a second of 60 pictures, which is
/// as long as packets are kept (`RingLimits`). The oldest goes first.
const MAX_RUNS: usize = 64;
/// Spans kept, 24 bytes each: a switch makes one, a replayed key frame up to four. The oldest goes first, with its runs.
const MAX_SPANS: usize = 12;
/// A run that has grown to this goes on as another: its numbers are kept in 32 bits.
const MAX_RUN: u32 = 1 << 30;

/// A source from one packet on.
#[derive(Clone, Copy, Debug)]
struct Span {
    first_in: u64,
    offsets: Offsets,
    source: Source,
}

/// Packets of a span between which nothing was left out.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Behind the first of the span.
    first_in: u32,
    /// Low half of the extended number.
    first_out: u32,
    /// Numbers covered, those of lost packets included.
    len: u32,
    /// Pictures of the span left out before it.
    dropped: u16,
    /// Counts spans, wrapping.
    span: u8,
    cut: Cut,
}

const _: () = assert!(size_of::<Run>() == 16 && size_of::<Span>() == 24);

#[derive(Debug)]
pub struct Rewriter {
    spans: VecDeque<Span>,
    /// The number of the first of them.
    first_span: u8,
    runs: VecDeque<Run>,
    /// Whether the last run still grows.
    open: bool,
    /// The number after the highest given out or set aside.
    next: u64,
    timestamp: u32,
    picture: PictureNumbers,
    frame_number: u16,
    /// Picture id, as the publisher counts, of the picture left out last.
    last_dropped: Option<u16>,
}

impl Rewriter {
    /// `first` is the first sequence number; the first timestamp is what the first `switch` asks for. Of video, all
    /// memory is taken at once, so that no later switch or drop allocates.
    pub fn new(first: u16, kind: MediaKind) -> Self {
        let (spans, runs) = match kind {
            MediaKind::Audio => (1, 1),
            MediaKind::Video => (MAX_SPANS, MAX_RUNS),
        };
        Self {
            spans: VecDeque::with_capacity(spans),
            first_span: 0,
            runs: VecDeque::with_capacity(runs),
            open: false,
            // Cycle 1 as in `rtp::sequence::Extender`, so that nothing here can go below zero.
            next: 1 << 16 | u64::from(first),
            timestamp: 0,
            picture: PictureNumbers::default(),
            frame_number: 0,
            last_dropped: None,
        }
    }

    /// The source that is being forwarded; None before the first and after `interrupt`.
    pub fn source(&self) -> Option<Source> {
        self.spans.back().filter(|_| self.open).map(|span| span.source)
    }

    /// Highest timestamp shown so far.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The offsets of the last span, whether it is open or not.
    pub fn offsets(&self) -> Option<(Source, Offsets)> {
        self.spans.back().map(|span| (span.source, span.offsets))
    }

    /// The extended number nearest to one a subscriber wrote.
    pub fn extend(&self, sequence: u16) -> u64 {
        let highest = self.next - 1;
        highest.saturating_add_signed(i64::from(sequence.wrapping_sub(highest as u16) as i16))
    }

    /// The last number given out.
    pub fn newest(&self) -> u64 {
        self.next - 1
    }

    pub fn has_sent(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Whether a packet of the current source is newer than everything numbered or left out so far.
    pub fn is_ahead(&self, sequence: u64) -> bool {
        let last = self.spans.back().zip(self.runs.back());
        last.is_some_and(|(span, run)| sequence >= span.first_in + u64::from(run.first_in) + u64::from(run.len))
    }

    /// Numbers a packet of the current source; one that comes late takes the place left for it. `cut` is what is left out
    /// around it; that of a late one was settled before.
    ///
    /// # Errors
    /// `Late` for a packet from before this subscriber's start, a switch or a drop.
    pub fn rewrite(&mut self, packet: Incoming, cut: Cut) -> Result<(Numbers, Cut), DropReason> {
        let last = self.spans.back().zip(self.runs.back_mut()).filter(|_| self.open);
        let Some((span, run)) = last.filter(|(span, _)| span.source == packet.source) else {
            return self.rewrite_late(packet);
        };
        let index = packet.sequence.checked_sub(span.first_in + u64::from(run.first_in));
        let Some(index) = index.and_then(|index| u32::try_from(index).ok()) else {
            return self.rewrite_late(packet);
        };
        let offsets = span.offsets.less(run.dropped);
        let sequence = widen(self.next, run.first_out.wrapping_add(index));
        let numbers = shown(sequence, offsets, packet);
        if index < run.len {
            return Ok((numbers, run.cut));
        }
        if (run.cut != cut || index >= MAX_RUN) && run.len > 0 {
            // From here on packets say something else of their neighbours; places before it stay where they are.
            run.len = index;
            let next = Run {
                first_in: run.first_in.checked_add(index).ok_or(DropReason::Late)?,
                first_out: sequence as u32,
                len: 1,
                cut,
                ..*run
            };
            self.push_run(next);
        } else {
            run.len = index + 1;
            run.cut = cut;
        }
        self.advance(numbers, packet.frame_number.wrapping_add(offsets.frame_number));
        Ok((numbers, cut))
    }

    fn advance(&mut self, numbers: Numbers, frame_number: u16) {
        self.next = numbers.sequence + 1;
        self.timestamp = numbers.timestamp;
        self.picture = numbers.picture;
        if frame_number.wrapping_sub(self.frame_number) < 1 << 15 {
            self.frame_number = frame_number;
        }
    }

    fn rewrite_late(&self, packet: Incoming) -> Result<(Numbers, Cut), DropReason> {
        for run in self.runs.iter().rev() {
            let Some(span) = self.span(run).filter(|span| span.source == packet.source) else {
                continue;
            };
            let index = packet.sequence.checked_sub(span.first_in + u64::from(run.first_in));
            if let Some(index) = index.filter(|index| *index < u64::from(run.len)) {
                let sequence = widen(self.next, run.first_out.wrapping_add(index as u32));
                return Ok((shown(sequence, span.offsets.less(run.dropped), packet), run.cut));
            }
        }
        Err(DropReason::Late)
    }

    /// Starts a new source (or the same one again) at `packet`, shown with `timestamp`; its pictures and frames follow the
    /// last.
    pub fn switch(&mut self, packet: Incoming, timestamp: u32, cut: Cut) -> Numbers {
        let (picture, frame_number) = if self.has_sent() {
            let picture = PictureNumbers {
                picture_id: self.picture.picture_id.wrapping_add(1) & 0x7fff,
                tl0_picidx: self.picture.tl0_picidx.wrapping_add(1),
                keyidx: self.picture.keyidx.wrapping_add(1) & 0x1f,
            };
            (picture, self.frame_number.wrapping_add(1))
        } else {
            (packet.picture, packet.frame_number)
        };
        let numbers = Numbers {
            sequence: self.next,
            timestamp,
            picture,
        };
        let offsets = Offsets {
            timestamp: timestamp.wrapping_sub(packet.timestamp),
            picture: Offsets::picture_between(packet.picture, picture),
            frame_number: frame_number.wrapping_sub(packet.frame_number),
        };
        self.push_span(packet, offsets, self.next, cut);
        self.frame_number = frame_number;
        self.advance(numbers, frame_number);
        numbers
    }

    /// The current source goes on with `packet`, which is ahead, at another `timestamp`; nothing else changes.
    pub fn retime(&mut self, packet: Incoming, timestamp: u32, cut: Cut) -> Result<Numbers, DropReason> {
        let last = self.spans.back().zip(self.runs.back_mut()).filter(|_| self.open);
        let (span, run) = last
            .filter(|(span, _)| span.source == packet.source)
            .ok_or(DropReason::Late)?;
        let index = packet.sequence.checked_sub(span.first_in + u64::from(run.first_in));
        let index = index
            .and_then(|index| u32::try_from(index).ok())
            .ok_or(DropReason::Late)?;
        let offsets = Offsets {
            timestamp: timestamp.wrapping_sub(packet.timestamp),
            ..span.offsets.less(run.dropped)
        };
        let sequence = widen(self.next, run.first_out.wrapping_add(index));
        run.len = run.len.max(index);
        let numbers = shown(sequence, offsets, packet);
        self.push_span(packet, offsets, sequence, cut);
        self.advance(numbers, packet.frame_number.wrapping_add(offsets.frame_number));
        Ok(numbers)
    }

    /// A packet of the current source that nobody is given: those behind it close up, while places for missing packets
    /// before it stay.
    pub fn skip(&mut self, source: Source, sequence: u64) {
        self.close_up(source, sequence, 0);
    }

    /// As `skip`, for a packet of a picture that this subscriber is not given. `closes_up`: picture ids must not show that
    /// either (VP8: a receiver waits for a picture that is missing).
    pub fn leave_out(&mut self, packet: Incoming, closes_up: bool) {
        if !self.is_ahead(packet.sequence) {
            return;
        }
        let last = self.spans.back().zip(self.runs.back()).filter(|_| self.open);
        let Some((span, run)) = last.filter(|(span, _)| span.source == packet.source) else {
            return;
        };
        let shown = span.offsets.less(run.dropped).picture(packet.picture).picture_id;
        let frame_number = packet.frame_number.wrapping_add(span.offsets.frame_number);
        let is_new = closes_up && self.last_dropped != Some(packet.picture.picture_id);
        if is_new {
            self.last_dropped = Some(packet.picture.picture_id);
            // Pictures missing before it keep their ids, as their packets keep their places.
            self.picture.picture_id = shown.wrapping_sub(1) & 0x7fff;
        }
        if frame_number.wrapping_sub(self.frame_number) < 1 << 15 {
            self.frame_number = frame_number;
        }
        self.close_up(packet.source, packet.sequence, u16::from(is_new));
    }

    fn close_up(&mut self, source: Source, sequence: u64, pictures: u16) {
        let last = self.spans.back().zip(self.runs.back_mut()).filter(|_| self.open);
        let Some((span, run)) = last.filter(|(span, _)| span.source == source) else {
            return;
        };
        let index = sequence.checked_sub(span.first_in + u64::from(run.first_in));
        let Some(index) = index.and_then(|index| u32::try_from(index).ok()) else {
            return;
        };
        if index < run.len {
            return;
        }
        let dropped = run.dropped.wrapping_add(pictures);
        let Some(first_in) = run.first_in.checked_add(index).and_then(|at| at.checked_add(1)) else {
            self.open = false; // four thousand million packets in: begin anew
            return;
        };
        if index == 0 {
            run.first_in = first_in;
            run.dropped = dropped;
            return;
        }
        let next = Run {
            first_in,
            first_out: run.first_out.wrapping_add(index),
            len: 0,
            dropped,
            ..*run
        };
        self.next = widen(self.next, next.first_out);
        run.len = index;
        self.push_run(next);
    }

    /// Numbers a packet that the server makes itself (silence, a blank frame); the next one of a source needs `switch`.
    pub fn generate(&mut self, timestamp: u32, new_picture: bool) -> Numbers {
        self.interrupt();
        let numbers = Numbers {
            sequence: self.next,
            timestamp,
            picture: self.picture,
        };
        self.next += 1;
        self.timestamp = timestamp;
        if new_picture {
            self.picture.picture_id = self.picture.picture_id.wrapping_add(1) & 0x7fff;
            self.picture.tl0_picidx = self.picture.tl0_picidx.wrapping_add(1);
            self.picture.keyidx = self.picture.keyidx.wrapping_add(1) & 0x1f;
        }
        numbers
    }

    /// Nothing follows the current run; the next packet of a source needs `switch`.
    pub fn interrupt(&mut self) {
        self.open = false;
    }

    /// Which stored packet was sent as `sequence`. None = not one of a source, or forgotten.
    pub fn locate(&self, sequence: u64) -> Option<Located> {
        let distance = |run: &Run| {
            let first = widen(self.next, run.first_out);
            sequence.checked_sub(first)
        };
        let (run, index) = self.runs.iter().rev().find_map(|run| Some((run, distance(run)?)))?;
        let span = self.span(run)?;
        (index < u64::from(run.len)).then(|| Located {
            source: span.source,
            sequence: span.first_in + u64::from(run.first_in) + index,
            offsets: span.offsets.less(run.dropped),
            cut: run.cut,
        })
    }

    /// Bytes of memory held beside the struct itself.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>() + self.spans.capacity() * size_of::<Span>()
    }

    fn span(&self, run: &Run) -> Option<&Span> {
        self.spans.get(usize::from(run.span.wrapping_sub(self.first_span)))
    }

    fn push_span(&mut self, packet: Incoming, offsets: Offsets, sequence: u64, cut: Cut) {
        if self.spans.len() == MAX_SPANS {
            self.spans.pop_front();
            while self.runs.front().is_some_and(|run| run.span == self.first_span) {
                self.runs.pop_front();
            }
            self.first_span = self.first_span.wrapping_add(1);
        }
        self.spans.push_back(Span {
            first_in: packet.sequence,
            offsets,
            source: packet.source,
        });
        self.last_dropped = None;
        self.push_run(Run {
            first_in: 0,
            first_out: sequence as u32,
            len: 1,
            dropped: 0,
            span: self.first_span.wrapping_add(self.spans.len() as u8 - 1),
            cut,
        });
    }

    fn push_run(&mut self, run: Run) {
        if self.runs.len() == MAX_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
        self.open = true;
    }
}

/// The extended number whose low half is `low`, near `next`.
fn widen(next: u64, low: u32) -> u64 {
    next.wrapping_add_signed(i64::from(low.wrapping_sub(next as u32).cast_signed()))
}

fn shown(sequence: u64, offsets: Offsets, packet: Incoming) -> Numbers {
    Numbers {
        sequence,
        timestamp: offsets.timestamp(packet.timestamp),
        picture: offsets.picture(packet.picture),
    }
}

#[cfg(test)]
mod tests;
