//! Renumbering: one subscriber sees one unbroken stream, whichever encodings it is made of.
//!
//! Owned by a `Subscription`, driven for each packet it is sent. Holds no packets: a short list of segments, in each of
//! which the outgoing number is the publisher's plus a constant. That list also answers a NACK (which stored packet was
//! it?) and gives a late packet the place that was left for it.

use std::collections::VecDeque;

use super::ring::PictureNumbers;
use crate::types::DropReason;

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
}

/// A packet in the ring and how it was shown; the answer to a NACK. Timestamp and picture numbers are added to the
/// stored packet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    pub source: Source,
    pub sequence: u64,
    pub offsets: Offsets,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub timestamp: u32,
    pub picture: PictureNumbers,
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

    /// Such that `from` is shown as `to`.
    fn picture_between(from: PictureNumbers, to: PictureNumbers) -> PictureNumbers {
        PictureNumbers {
            picture_id: to.picture_id.wrapping_sub(from.picture_id) & 0x7fff,
            tl0_picidx: to.tl0_picidx.wrapping_sub(from.tl0_picidx),
            keyidx: to.keyidx.wrapping_sub(from.keyidx) & 0x1f,
        }
    }
}

/// Segments kept: 32 bytes each. A drop in the middle of a source starts one, so this covers two seconds in which every
/// second frame of 30 a second is dropped. The oldest goes first: its packets can no longer be asked for.
const MAX_SEGMENTS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Segment {
    first_in: u64,
    first_out: u64,
    /// Numbers covered, those of lost packets included.
    len: u32,
    offsets: Offsets,
    source: Source,
}

impl Segment {
    fn contains_in(&self, source: Source, sequence: u64) -> bool {
        self.source == source
            && sequence
                .checked_sub(self.first_in)
                .is_some_and(|n| n < u64::from(self.len))
    }
}

#[derive(Debug)]
pub struct Rewriter {
    segments: VecDeque<Segment>,
    /// Whether the last segment still grows.
    open: bool,
    /// The number after the highest given out or set aside.
    next: u64,
    timestamp: u32,
    picture: PictureNumbers,
}

impl Rewriter {
    /// `first` is the first sequence number; the first timestamp is what the first `switch` asks for.
    pub fn new(first: u16) -> Self {
        Self {
            segments: VecDeque::new(),
            open: false,
            // Cycle 1 as in `rtp::sequence::Extender`, so that nothing here can go below zero.
            next: 1 << 16 | u64::from(first),
            timestamp: 0,
            picture: PictureNumbers::default(),
        }
    }

    /// The source that is being forwarded; None before the first and after `interrupt`.
    pub fn source(&self) -> Option<Source> {
        self.segments.back().filter(|_| self.open).map(|segment| segment.source)
    }

    /// Highest timestamp shown so far.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The offsets of the last segment, whether it is open or not.
    pub fn offsets(&self) -> Option<(Source, Offsets)> {
        self.segments.back().map(|segment| (segment.source, segment.offsets))
    }

    /// The extended number nearest to one a subscriber wrote.
    pub fn extend(&self, sequence: u16) -> u64 {
        let highest = self.next - 1;
        highest.saturating_add_signed(i64::from(sequence.wrapping_sub(highest as u16) as i16))
    }

    pub fn has_sent(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Numbers a packet of the current source; one that comes late takes the place left for it.
    ///
    /// # Errors
    /// `Late` for a packet from before this subscriber's start, a switch or a drop.
    pub fn rewrite(&mut self, packet: Incoming) -> Result<Numbers, DropReason> {
        let Some(segment) = self.segments.back_mut().filter(|_| self.open) else {
            return self.rewrite_late(packet);
        };
        let index = packet.sequence.checked_sub(segment.first_in);
        let Some(index) = index.filter(|_| segment.source == packet.source) else {
            return self.rewrite_late(packet);
        };
        let numbers = Numbers {
            sequence: segment.first_out + index,
            timestamp: segment.offsets.timestamp(packet.timestamp),
            picture: segment.offsets.picture(packet.picture),
        };
        if index >= u64::from(segment.len) {
            segment.len = u32::try_from(index + 1).map_err(|_| DropReason::Late)?;
            self.next = numbers.sequence + 1;
            self.timestamp = numbers.timestamp;
            self.picture = numbers.picture;
        }
        Ok(numbers)
    }

    fn rewrite_late(&self, packet: Incoming) -> Result<Numbers, DropReason> {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.contains_in(packet.source, packet.sequence))
            .ok_or(DropReason::Late)?;
        Ok(Numbers {
            sequence: segment.first_out + (packet.sequence - segment.first_in),
            timestamp: segment.offsets.timestamp(packet.timestamp),
            picture: segment.offsets.picture(packet.picture),
        })
    }

    /// Starts a new source (or the same one again) at `packet`, shown with `timestamp`; its pictures follow the last.
    pub fn switch(&mut self, packet: Incoming, timestamp: u32) -> Numbers {
        let picture = if self.has_sent() {
            PictureNumbers {
                picture_id: self.picture.picture_id.wrapping_add(1) & 0x7fff,
                tl0_picidx: self.picture.tl0_picidx.wrapping_add(1),
                keyidx: self.picture.keyidx.wrapping_add(1) & 0x1f,
            }
        } else {
            packet.picture
        };
        let numbers = Numbers {
            sequence: self.next,
            timestamp,
            picture,
        };
        self.push(Segment {
            first_in: packet.sequence,
            first_out: numbers.sequence,
            len: 1,
            offsets: Offsets {
                timestamp: timestamp.wrapping_sub(packet.timestamp),
                picture: Offsets::picture_between(packet.picture, picture),
            },
            source: packet.source,
        });
        self.next += 1;
        self.timestamp = timestamp;
        self.picture = picture;
        numbers
    }

    /// A packet of the current source that this subscriber is not given: those behind it close up, while places for
    /// missing packets before it stay.
    pub fn skip(&mut self, source: Source, sequence: u64) {
        let Some(segment) = self.segments.back_mut().filter(|_| self.open) else {
            return;
        };
        let Some(index) = sequence.checked_sub(segment.first_in) else {
            return;
        };
        if segment.source != source || index < u64::from(segment.len) {
            return;
        }
        let Ok(len) = u32::try_from(index) else { return };
        let (first_out, offsets) = (segment.first_out + index, segment.offsets);
        if index == 0 {
            segment.first_in = sequence + 1;
            return;
        }
        segment.len = len;
        self.next = first_out;
        self.push(Segment {
            first_in: sequence + 1,
            first_out,
            len: 0,
            offsets,
            source,
        });
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

    /// Nothing follows the current segment; the next packet of a source needs `switch`.
    pub fn interrupt(&mut self) {
        self.open = false;
    }

    /// Which stored packet was sent as `sequence`. None = not one of a source, or forgotten.
    pub fn locate(&self, sequence: u64) -> Option<Located> {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.first_out <= sequence)?;
        let index = sequence - segment.first_out;
        (index < u64::from(segment.len)).then_some(Located {
            source: segment.source,
            sequence: segment.first_in + index,
            offsets: segment.offsets,
        })
    }

    /// Bytes of memory held beside the struct itself.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.segments.capacity() * size_of::<Segment>()
    }

    fn push(&mut self, segment: Segment) {
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
        self.open = true;
    }
}

#[cfg(test)]
mod tests;
