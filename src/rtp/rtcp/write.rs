//! Writing compound RTCP packets.

use super::super::cursor;
use super::{FirRequest, NackPair, REMB_IDENTIFIER, ReportBlock, SenderInfo, fmt, pt, xr};
use crate::types::{DropReason, Ssrc};

/// Report blocks of one report: the count field has five bits (RFC 3550 §6.4.1).
const MAX_BLOCKS: usize = 31;

/// Writes packets one after another into a buffer. A packet that does not fit leaves what was written before intact and
/// is an `Err(TooLarge)`.
///
/// RFC 3550 §6.1 wants every compound to begin with a report; RFC 5506 (`rtcp-rsize`) lifts that. The order of calls is
/// the order in the compound.
#[derive(Debug)]
pub struct Writer<'b> {
    out: cursor::Writer<'b>,
}

impl<'b> Writer<'b> {
    /// `buf` is what may be filled; leave the room that sealing needs behind it.
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self {
            out: cursor::Writer::new(buf),
        }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// RFC 3550 §6.4.1; at most 31 blocks, further ones are left out.
    pub fn sender_report(&mut self, info: &SenderInfo, blocks: &[ReportBlock]) -> Result<(), DropReason> {
        let blocks = blocks.get(..MAX_BLOCKS).unwrap_or(blocks);
        self.packet(blocks.len() as u8, pt::SENDER_REPORT, |out| {
            out.u32(info.ssrc.0)?;
            out.u64(info.ntp)?;
            out.u32(info.rtp_timestamp)?;
            out.u32(info.packets)?;
            out.u32(info.octets)?;
            report_blocks(out, blocks)
        })
    }

    /// RFC 3550 §6.4.2; at most 31 blocks, further ones are left out. Without blocks it is an empty report.
    pub fn receiver_report(&mut self, sender: Ssrc, blocks: &[ReportBlock]) -> Result<(), DropReason> {
        let blocks = blocks.get(..MAX_BLOCKS).unwrap_or(blocks);
        self.packet(blocks.len() as u8, pt::RECEIVER_REPORT, |out| {
            out.u32(sender.0)?;
            report_blocks(out, blocks)
        })
    }

    /// A source description with one chunk that holds one CNAME (RFC 3550 §6.5.1), at most 255 bytes.
    pub fn source_description(&mut self, ssrc: Ssrc, cname: &str) -> Result<(), DropReason> {
        let len = u8::try_from(cname.len()).map_err(|_| DropReason::TooLarge)?;
        self.packet(1, pt::SOURCE_DESCRIPTION, |out| {
            out.u32(ssrc.0)?;
            let start = out.len();
            out.put(&[1, len])?;
            out.put(cname.as_bytes())?;
            out.u8(0)?;
            out.align4(start)
        })
    }

    /// RFC 3550 §6.6, without a reason text.
    pub fn goodbye(&mut self, ssrc: Ssrc) -> Result<(), DropReason> {
        self.packet(1, pt::GOODBYE, |out| out.u32(ssrc.0))
    }

    /// RFC 4585 §6.2.1. Nothing is written for an empty list.
    pub fn nack(&mut self, sender: Ssrc, media: Ssrc, pairs: &[NackPair]) -> Result<(), DropReason> {
        if pairs.is_empty() {
            return Ok(());
        }
        self.packet(fmt::NACK, pt::TRANSPORT_FEEDBACK, |out| {
            out.u32(sender.0)?;
            out.u32(media.0)?;
            for pair in pairs {
                out.u16(pair.pid)?;
                out.u16(pair.blp)?;
            }
            Ok(())
        })
    }

    /// RFC 4585 §6.3.1.
    pub fn pli(&mut self, sender: Ssrc, media: Ssrc) -> Result<(), DropReason> {
        self.packet(fmt::PLI, pt::PAYLOAD_FEEDBACK, |out| {
            out.u32(sender.0)?;
            out.u32(media.0)
        })
    }

    /// RFC 5104 §4.3.1.
    pub fn fir(&mut self, sender: Ssrc, request: FirRequest) -> Result<(), DropReason> {
        self.packet(fmt::FIR, pt::PAYLOAD_FEEDBACK, |out| {
            out.u32(sender.0)?;
            out.u32(0)?;
            out.u32(request.media.0)?;
            out.put(&[request.sequence, 0, 0, 0])
        })
    }

    /// The answer to a receiver's reference time that has just arrived (RFC 3611 §4.5): its sender, and the middle 32 bits
    /// of the time.
    pub fn reference_time_answer(&mut self, sender: Ssrc, of: Ssrc, reference_time: u32) -> Result<(), DropReason> {
        self.packet(0, pt::EXTENDED_REPORT, |out| {
            out.u32(sender.0)?;
            out.put(&[xr::DELAY_SINCE_LAST_REPORT, 0, 0, 3])?;
            out.u32(of.0)?;
            out.u32(reference_time)?;
            out.u32(1) // 15 µs; nothing would say that none has arrived
        })
    }

    /// `bitrate` in bits per second, for the streams `ssrcs` together (draft-alvestrand-rmcat-remb-03).
    pub fn remb(&mut self, sender: Ssrc, bitrate: u64, ssrcs: &[Ssrc]) -> Result<(), DropReason> {
        let count = u8::try_from(ssrcs.len()).map_err(|_| DropReason::TooLarge)?;
        self.packet(fmt::APPLICATION, pt::PAYLOAD_FEEDBACK, |out| {
            out.u32(sender.0)?;
            out.u32(0)?;
            out.put(&REMB_IDENTIFIER)?;
            out.u8(count)?;
            // 18 bits of mantissa: shift away what does not fit, rounding down.
            let exponent = (u64::BITS - bitrate.leading_zeros()).saturating_sub(18);
            out.u24(exponent << 18 | (bitrate >> exponent) as u32)?;
            ssrcs.iter().try_for_each(|ssrc| out.u32(ssrc.0))
        })
    }

    /// Writes the common header around a body and rounds it up to whole words.
    pub(super) fn packet<T>(
        &mut self,
        format: u8,
        packet_type: u8,
        body: impl FnOnce(&mut cursor::Writer<'b>) -> Result<T, DropReason>,
    ) -> Result<T, DropReason> {
        let start = self.out.len();
        let result = self.body(start, format, packet_type, body);
        if result.is_err() {
            self.out.truncate(start);
        }
        result
    }

    fn body<T>(
        &mut self,
        start: usize,
        format: u8,
        packet_type: u8,
        body: impl FnOnce(&mut cursor::Writer<'b>) -> Result<T, DropReason>,
    ) -> Result<T, DropReason> {
        self.out.put(&[0x80 | format & 0x1f, packet_type, 0, 0])?;
        let result = body(&mut self.out)?;
        self.out.align4(start)?;
        // RFC 3550 §6.4.1: length in words minus one.
        let words = u16::try_from((self.out.len() - start) / 4 - 1).map_err(|_| DropReason::TooLarge)?;
        self.out.patch(start + 2, &words.to_be_bytes());
        Ok(result)
    }
}

fn report_blocks(out: &mut cursor::Writer<'_>, blocks: &[ReportBlock]) -> Result<(), DropReason> {
    for block in blocks {
        out.u32(block.ssrc.0)?;
        out.u8(block.fraction_lost)?;
        out.u24(block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff)?;
        out.u32(block.highest_sequence)?;
        out.u32(block.jitter)?;
        out.u32(block.last_sender_report)?;
        out.u32(block.delay_since_last_sender_report)?;
    }
    Ok(())
}
