//! Reading compound RTCP packets.

use super::super::cursor::Reader;
use super::{REMB_IDENTIFIER, TransportFeedback, fmt, pt, xr};
use crate::types::{DropReason, Ssrc};

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    SenderReport {
        info: SenderInfo,
        blocks: ReportBlocks<'a>,
    },
    ReceiverReport {
        sender: Ssrc,
        blocks: ReportBlocks<'a>,
    },
    SourceDescription(SourceDescriptions<'a>),
    Goodbye(Ssrcs<'a>),
    Nack {
        sender: Ssrc,
        media: Ssrc,
        pairs: NackPairs<'a>,
    },
    Pli {
        sender: Ssrc,
        media: Ssrc,
    },
    Fir {
        sender: Ssrc,
        requests: FirRequests<'a>,
    },
    TransportFeedback(TransportFeedback<'a>),
    /// Receiver estimated maximum bitrate in bits per second.
    Remb {
        sender: Ssrc,
        bitrate: u64,
        ssrcs: Ssrcs<'a>,
    },
    /// RFC 3611. Of its blocks only the receiver's reference time (§4.4) is read: the middle 32 bits of it.
    ExtendedReport {
        sender: Ssrc,
        reference_time: Option<u32>,
    },
    /// A packet type or feedback format that is not acted on.
    Unknown {
        packet_type: u8,
        format: u8,
    },
}

/// The sender part of a sender report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    pub ssrc: Ssrc,
    /// 64-bit NTP timestamp: seconds since 1900 in the upper half.
    pub ntp: u64,
    /// The same moment in ticks of the stream's clock.
    pub rtp_timestamp: u32,
    pub packets: u32,
    /// Payload bytes.
    pub octets: u32,
}

/// One reception report (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportBlock {
    pub ssrc: Ssrc,
    /// Of 256, since the previous report.
    pub fraction_lost: u8,
    /// 24 bits signed: negative when duplicates outnumber losses.
    pub cumulative_lost: i32,
    /// Cycles in the upper half, sequence number in the lower.
    pub highest_sequence: u32,
    /// Interarrival jitter in ticks of the stream's clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP timestamp of the last sender report; 0 = none yet.
    pub last_sender_report: u32,
    /// Since that report arrived, in units of 1/65536 s.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    /// Round-trip time of the reporter, RFC 3550 §6.4.1, in units of 1/65536 s. `now_ntp` is the 64-bit NTP time at which
    /// the block arrived, on the clock that wrote our sender reports. None before the reporter has seen one, or when
    /// the figures cannot be.
    pub fn round_trip(&self, now_ntp: u64) -> Option<u32> {
        if self.last_sender_report == 0 {
            return None;
        }
        let now = (now_ntp >> 16) as u32; // the middle 32 bits
        let elapsed = now.wrapping_sub(self.last_sender_report);
        // Clocks are read at different moments: a tiny negative figure is a round trip of nothing, a large one nonsense.
        let round_trip = elapsed.wrapping_sub(self.delay_since_last_sender_report) as i32;
        (round_trip > -65_536).then_some(round_trip.max(0) as u32)
    }
}

/// PID and BLP of RFC 4585 §6.2.1: a lost packet and a bit for each of the 16 behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NackPair {
    pub pid: u16,
    pub blp: u16,
}

impl NackPair {
    /// Every sequence number it names, in order.
    pub fn sequences(self) -> impl Iterator<Item = u16> {
        let following = (0..16).filter(move |bit| self.blp >> bit & 1 != 0);
        std::iter::once(self.pid).chain(following.map(move |bit| self.pid.wrapping_add(bit + 1)))
    }
}

/// One entry of a full intra request (RFC 5104 §4.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirRequest {
    pub media: Ssrc,
    /// A repeated number is a repeated request, not a new one.
    pub sequence: u8,
}

/// Splits a compound into its packets. A packet that cannot be understood is an `Err(Malformed)` and the next is read;
/// one that is longer than what is left is an `Err(Truncated)` and the last item.
pub fn parse(compound: &[u8]) -> Compound<'_> {
    Compound {
        reader: Reader::new(compound),
    }
}

/// Iterator of [`parse`].
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let Some((first, packet_type, body)) = split(&mut self.reader) else {
            self.reader = Reader::new(&[]);
            return Some(Err(DropReason::Truncated));
        };
        if first >> 6 != 2 {
            self.reader = Reader::new(&[]);
            return Some(Err(DropReason::Malformed));
        }
        Some(
            without_padding(first, body)
                .and_then(|body| read(first & 0x1f, packet_type, body))
                .ok_or(DropReason::Malformed),
        )
    }
}

/// Takes one packet off the front: first byte, packet type, everything behind the length.
fn split<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let [first, packet_type] = reader.array()?;
    let words = reader.u16()?;
    Some((first, packet_type, reader.bytes(usize::from(words) * 4)?))
}

/// RFC 3550 §6.4.1: padding is only allowed in the last packet; some senders set it elsewhere, and it is harmless.
fn without_padding(first: u8, body: &[u8]) -> Option<&[u8]> {
    if first & 0x20 == 0 {
        return Some(body);
    }
    let padding = usize::from(*body.last()?);
    body.get(..body.len().checked_sub(padding)?)
}

fn read(format: u8, packet_type: u8, body: &[u8]) -> Option<Packet<'_>> {
    let mut reader = Reader::new(body);
    let count = usize::from(format);
    Some(match (packet_type, format) {
        (pt::SENDER_REPORT, _) => {
            let info = SenderInfo {
                ssrc: Ssrc(reader.u32()?),
                ntp: reader.u64()?,
                rtp_timestamp: reader.u32()?,
                packets: reader.u32()?,
                octets: reader.u32()?,
            };
            Packet::SenderReport {
                info,
                blocks: ReportBlocks(Reader::new(reader.bytes(count * 24)?)),
            }
        }
        (pt::RECEIVER_REPORT, _) => Packet::ReceiverReport {
            sender: Ssrc(reader.u32()?),
            blocks: ReportBlocks(Reader::new(reader.bytes(count * 24)?)),
        },
        (pt::SOURCE_DESCRIPTION, _) => Packet::SourceDescription(SourceDescriptions { reader, left: format }),
        (pt::GOODBYE, _) => Packet::Goodbye(Ssrcs(Reader::new(reader.bytes(count * 4)?))),
        (pt::TRANSPORT_FEEDBACK, fmt::NACK) => Packet::Nack {
            sender: Ssrc(reader.u32()?),
            media: Ssrc(reader.u32()?),
            pairs: NackPairs(reader),
        },
        (pt::TRANSPORT_FEEDBACK, fmt::TRANSPORT_WIDE) => Packet::TransportFeedback(TransportFeedback::parse(reader)?),
        (pt::PAYLOAD_FEEDBACK, fmt::PLI) => Packet::Pli {
            sender: Ssrc(reader.u32()?),
            media: Ssrc(reader.u32()?),
        },
        (pt::PAYLOAD_FEEDBACK, fmt::FIR) => {
            let sender = Ssrc(reader.u32()?);
            reader.u32()?; // media SSRC is unused, RFC 5104 §4.3.1.2
            Packet::Fir {
                sender,
                requests: FirRequests(reader),
            }
        }
        (pt::PAYLOAD_FEEDBACK, fmt::APPLICATION) => {
            let sender = Ssrc(reader.u32()?);
            reader.u32()?; // media SSRC is always 0, draft-alvestrand-rmcat-remb-03 §2.2
            if reader.array() != Some(REMB_IDENTIFIER) {
                return Some(Packet::Unknown { packet_type, format });
            }
            let ssrcs = usize::from(reader.u8()?);
            let scaled = reader.u24()?;
            // 6 bits of exponent, 18 of mantissa; what does not fit 64 bits means «no limit».
            let (exponent, mantissa) = (scaled >> 18, u64::from(scaled & 0x3_ffff));
            let bitrate = if mantissa.leading_zeros() >= exponent {
                mantissa << exponent
            } else {
                u64::MAX
            };
            Packet::Remb {
                sender,
                bitrate,
                ssrcs: Ssrcs(Reader::new(reader.bytes(ssrcs * 4)?)),
            }
        }
        (pt::EXTENDED_REPORT, _) => Packet::ExtendedReport {
            sender: Ssrc(reader.u32()?),
            reference_time: reference_time(&mut reader),
        },
        _ => Packet::Unknown { packet_type, format },
    })
}

/// The first receiver reference time block of an extended report (RFC 3611 §4.4), as its answer quotes it.
fn reference_time(reader: &mut Reader<'_>) -> Option<u32> {
    loop {
        let kind = reader.u8()?;
        reader.u8()?;
        let words = reader.u16()?;
        let block = reader.bytes(usize::from(words) * 4)?;
        if kind == xr::RECEIVER_REFERENCE_TIME {
            let [_, _, a, b, c, d, _, _] = *block.first_chunk()?;
            return Some(u32::from_be_bytes([a, b, c, d]));
        }
    }
}

/// Iterator of the reception reports of a sender or receiver report.
#[derive(Clone, Debug)]
pub struct ReportBlocks<'a>(Reader<'a>);

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let reader = &mut self.0;
        let ssrc = Ssrc(reader.u32()?);
        let fraction_lost = reader.u8()?;
        let lost = reader.u24()?;
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: ((lost << 8) as i32) >> 8, // sign of 24 bits
            highest_sequence: reader.u32()?,
            jitter: reader.u32()?,
            last_sender_report: reader.u32()?,
            delay_since_last_sender_report: reader.u32()?,
        })
    }
}

/// Iterator of `(ssrc, CNAME)` of a source description; chunks without a CNAME are skipped.
#[derive(Clone, Debug)]
pub struct SourceDescriptions<'a> {
    reader: Reader<'a>,
    left: u8,
}

impl<'a> Iterator for SourceDescriptions<'a> {
    type Item = (Ssrc, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.left -= 1;
            let ssrc = Ssrc(self.reader.u32()?);
            let before = self.reader.rest().len();
            let mut cname = None;
            loop {
                match self.reader.u8()? {
                    0 => break,
                    kind => {
                        let len = self.reader.u8()?;
                        let value = self.reader.bytes(usize::from(len))?;
                        if kind == 1 {
                            cname = Some(value);
                        }
                    }
                }
            }
            // RFC 3550 §6.5: the item list ends with a null octet and is padded to the next 32-bit boundary.
            while !(before - self.reader.rest().len()).is_multiple_of(4) {
                self.reader.u8()?;
            }
            if let Some(cname) = cname {
                return Some((ssrc, cname));
            }
        }
        None
    }
}

/// Iterator of a list of SSRCs.
#[derive(Clone, Debug)]
pub struct Ssrcs<'a>(Reader<'a>);

impl Iterator for Ssrcs<'_> {
    type Item = Ssrc;

    fn next(&mut self) -> Option<Ssrc> {
        self.0.u32().map(Ssrc)
    }
}

/// Iterator of the pairs of a NACK.
#[derive(Clone, Debug)]
pub struct NackPairs<'a>(Reader<'a>);

impl Iterator for NackPairs<'_> {
    type Item = NackPair;

    fn next(&mut self) -> Option<NackPair> {
        Some(NackPair {
            pid: self.0.u16()?,
            blp: self.0.u16()?,
        })
    }
}

/// Iterator of the entries of a full intra request.
#[derive(Clone, Debug)]
pub struct FirRequests<'a>(Reader<'a>);

impl Iterator for FirRequests<'_> {
    type Item = FirRequest;

    fn next(&mut self) -> Option<FirRequest> {
        let media = Ssrc(self.0.u32()?);
        let [sequence, _, _, _] = self.0.array()?;
        Some(FirRequest { media, sequence })
    }
}
