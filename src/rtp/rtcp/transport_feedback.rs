//! Transport-wide congestion control feedback: draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1.
//!
//! Arrival times are counted in ticks of 250 µs from the sender's own epoch. On the wire they are a 24-bit reference
//! time in units of 64 ms (256 ticks) and, per received packet, the difference to the packet received before it.

use super::super::cursor::{self, Reader};
use super::{Writer, fmt, pt};
use crate::types::{DropReason, Ssrc};

/// Ticks of 250 µs in one unit (64 ms) of the reference time.
pub const TICKS_PER_REFERENCE: i64 = 256;

/// The most statuses that are read from, or written into, one feedback packet. A status costs the sender as little as
/// 1/4096 byte, so a limit keeps hostile feedback cheap: 4096 are 0.4 s of 100 Mbit/s, and receivers report every
/// 50 to 100 ms. Beyond: `Malformed` when reading; the rest goes into the next packet when writing.
pub const MAX_FEEDBACK_STATUSES: usize = 4096;

/// Statuses looked at in one go when writing; bounds the symbol table kept on the stack.
const WRITE_STATUSES: usize = 512;

const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// A received feedback packet.
#[derive(Clone, Debug)]
pub struct TransportFeedback<'a> {
    pub sender: Ssrc,
    pub media: Ssrc,
    pub base_sequence: u16,
    /// Number of packets reported on, from `base_sequence` up.
    pub status_count: u16,
    /// In units of 64 ms, 24 bits signed; wraps after 12.4 days (see [`ReferenceTimeExtender`]).
    pub reference_time: i32,
    /// Counts feedback packets, so that lost ones show.
    pub feedback_count: u8,
    body: Reader<'a>,
}

/// What a feedback packet says about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketStatus {
    /// Transport-wide sequence number.
    pub sequence: u16,
    /// Ticks of 250 µs from the packet's reference time; None = not received.
    pub arrival: Option<i64>,
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(mut reader: Reader<'a>) -> Option<Self> {
        let sender = Ssrc(reader.u32()?);
        let media = Ssrc(reader.u32()?);
        let base_sequence = reader.u16()?;
        let status_count = reader.u16()?;
        let reference = reader.u24()?;
        let feedback_count = reader.u8()?;
        (usize::from(status_count) <= MAX_FEEDBACK_STATUSES).then_some(Self {
            sender,
            media,
            base_sequence,
            status_count,
            reference_time: ((reference << 8) as i32) >> 8, // sign of 24 bits
            feedback_count,
            body: reader,
        })
    }

    /// The status of every packet from `base_sequence` up, in order. Ends early when the packet is truncated or uses
    /// the reserved symbol 3.
    pub fn statuses(&self) -> TransportFeedbackStatuses<'a> {
        // Deltas follow the chunks: walk the chunks once to find where.
        let mut chunks = Chunks::new(self.body);
        for _ in 0..self.status_count {
            if chunks.next().is_none() {
                break;
            }
        }
        TransportFeedbackStatuses {
            chunks: Chunks::new(self.body),
            deltas: chunks.reader,
            sequence: self.base_sequence,
            left: self.status_count,
            arrival: 0,
        }
    }
}

/// Iterator over the statuses of a feedback packet.
#[derive(Clone, Debug)]
pub struct TransportFeedbackStatuses<'a> {
    chunks: Chunks<'a>,
    deltas: Reader<'a>,
    sequence: u16,
    left: u16,
    arrival: i64,
}

impl Iterator for TransportFeedbackStatuses<'_> {
    type Item = PacketStatus;

    fn next(&mut self) -> Option<PacketStatus> {
        self.left = self.left.checked_sub(1)?;
        let delta = match self.chunks.next()? {
            NOT_RECEIVED => None,
            SMALL_DELTA => Some(i64::from(self.deltas.u8()?)),
            LARGE_DELTA => Some(i64::from(self.deltas.u16()?.cast_signed())),
            _ => {
                self.left = 0;
                return None;
            }
        };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let arrival = delta.map(|delta| {
            self.arrival += delta;
            self.arrival
        });
        Some(PacketStatus { sequence, arrival })
    }
}

/// The symbols of the packet chunks, one per packet.
#[derive(Clone, Debug)]
struct Chunks<'a> {
    reader: Reader<'a>,
    /// Symbols of the current chunk, the next one in the uppermost bits.
    symbols: u16,
    bits: u8,
    left: u16,
}

impl<'a> Chunks<'a> {
    fn new(reader: Reader<'a>) -> Self {
        Self {
            reader,
            symbols: 0,
            bits: 0,
            left: 0,
        }
    }

    fn next(&mut self) -> Option<u8> {
        while self.left == 0 {
            let chunk = self.reader.u16()?;
            (self.symbols, self.bits, self.left) = match chunk >> 14 {
                // §3.1.3: run length; the same symbol again and again.
                0 | 1 => (chunk << 1, 0, chunk & 0x1fff),
                // §3.1.4: vector of 14 one-bit or 7 two-bit symbols.
                2 => (chunk << 2, 1, 14),
                _ => (chunk << 2, 2, 7),
            };
        }
        self.left -= 1;
        let symbol = if self.bits == 1 {
            self.symbols >> 15
        } else {
            self.symbols >> 14
        };
        self.symbols <<= self.bits;
        Some(symbol as u8)
    }
}

/// Extends the 24-bit reference time to 64 bits, in units of 64 ms.
#[derive(Clone, Debug, Default)]
pub struct ReferenceTimeExtender {
    last: Option<i64>,
}

impl ReferenceTimeExtender {
    pub fn new() -> Self {
        Self::default()
    }

    /// Each is taken as the one nearest to the one before it.
    pub fn extend(&mut self, reference_time: i32) -> i64 {
        let reference_time = i64::from(reference_time);
        let extended = match self.last {
            Some(last) => {
                let distance = (reference_time - last) & 0xff_ffff;
                last + if distance >= 0x80_0000 {
                    distance - 0x100_0000
                } else {
                    distance
                }
            }
            None => reference_time,
        };
        self.last = Some(extended);
        extended
    }
}

impl Writer<'_> {
    /// Reports on the packets from `base_sequence` up: `arrivals` has one entry for each, in ticks of 250 µs from an
    /// epoch of the caller, None = not received. Returns how many entries were reported: fewer than given when a
    /// difference does not fit 16 bits, when the buffer is full or after 512; the rest goes into the next packet.
    /// `media` must be an SSRC that the receiver of the feedback sends: libwebrtc silently ignores feedback for others.
    ///
    /// # Errors
    /// `TooLarge` when not even one entry fits; `Malformed` when none of them was received.
    pub fn transport_feedback(
        &mut self,
        sender: Ssrc,
        media: Ssrc,
        base_sequence: u16,
        feedback_count: u8,
        arrivals: &[Option<i64>],
    ) -> Result<usize, DropReason> {
        let first = arrivals.iter().copied().flatten().next().ok_or(DropReason::Malformed)?;
        let reference = first.div_euclid(TICKS_PER_REFERENCE);
        self.packet(fmt::TRANSPORT_WIDE, pt::TRANSPORT_FEEDBACK, |out| {
            out.u32(sender.0)?;
            out.u32(media.0)?;
            out.u16(base_sequence)?;
            let mut symbols = [NOT_RECEIVED; WRITE_STATUSES];
            // The count, the reference and up to three bytes of alignment are still to come.
            let room = out.room().saturating_sub(2 + 4 + 3);
            let count = classify(reference * TICKS_PER_REFERENCE, arrivals, room, &mut symbols);
            let symbols = symbols.get(..count).unwrap_or_default();
            if symbols.is_empty() {
                return Err(DropReason::TooLarge);
            }
            out.u16(count as u16)?;
            out.u24((reference & 0xff_ffff) as u32)?;
            out.u8(feedback_count)?;
            write_chunks(out, symbols)?;
            let mut last = reference * TICKS_PER_REFERENCE;
            for (arrival, symbol) in arrivals.iter().zip(symbols) {
                let Some(arrival) = *arrival else { continue };
                let delta = arrival - last;
                if *symbol == SMALL_DELTA {
                    out.u8(delta as u8)?
                } else {
                    out.u16(delta as u16)?
                }
                last = arrival;
            }
            Ok(count)
        })
    }
}

/// Fills in the symbol of each arrival and returns how many can be reported in `room` bytes of chunks and deltas.
fn classify(reference: i64, arrivals: &[Option<i64>], room: usize, symbols: &mut [u8; WRITE_STATUSES]) -> usize {
    let mut last = reference;
    let mut delta_bytes = 0;
    let mut count = 0;
    for (arrival, symbol) in arrivals.iter().zip(symbols.iter_mut()) {
        if let Some(arrival) = *arrival {
            let delta = arrival - last;
            *symbol = match delta {
                0..=255 => SMALL_DELTA,
                -32_768..=32_767 => LARGE_DELTA,
                _ => return count,
            };
            delta_bytes += usize::from(*symbol);
            last = arrival;
        }
        // A chunk of two bytes covers at least seven packets, but for the last one.
        let chunk_bytes = (count / 7 + 1) * 2;
        if chunk_bytes + delta_bytes > room {
            return count;
        }
        count += 1;
    }
    count
}

fn write_chunks(out: &mut cursor::Writer<'_>, mut symbols: &[u8]) -> Result<(), DropReason> {
    while let Some(first) = symbols.first() {
        let run = symbols.iter().take_while(|symbol| *symbol == first).count();
        let one_bit = symbols.iter().take(14).all(|symbol| *symbol != LARGE_DELTA);
        let vector = if one_bit { 14 } else { 7 };
        let (chunk, taken) = if run >= vector.min(symbols.len()) {
            (u16::from(*first) << 13 | run as u16, run) // WRITE_STATUSES fits the 13 bits of the length
        } else {
            let bits = if one_bit { 1 } else { 2 };
            let taken = vector.min(symbols.len());
            let mut chunk = if one_bit { 2 } else { 3 };
            for at in 0..vector {
                let symbol = symbols.get(at).copied().unwrap_or(NOT_RECEIVED);
                chunk = chunk << bits | u16::from(symbol);
            }
            (chunk, taken)
        };
        out.u16(chunk)?;
        symbols = symbols.get(taken..).unwrap_or_default();
    }
    Ok(())
}
