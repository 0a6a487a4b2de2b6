//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104): compound packets in, compound packets out.
//!
//! Reading borrows from the datagram and allocates nothing; [`Writer`] writes into the buffer that is sealed and sent.

mod parse;
mod transport_feedback;
mod write;

pub use parse::{
    Compound, FirRequest, FirRequests, NackPair, NackPairs, Packet, ReportBlock, ReportBlocks, SenderInfo,
    SourceDescriptions, Ssrcs, parse,
};
pub use transport_feedback::{
    MAX_FEEDBACK_STATUSES, PacketStatus, ReferenceTimeExtender, TICKS_PER_REFERENCE, TransportFeedback,
    TransportFeedbackStatuses,
};
pub use write::Writer;

/// RTCP packet types (RFC 3550 §12.1, RFC 4585 §6.1, RFC 3611 §2).
mod pt {
    pub(super) const SENDER_REPORT: u8 = 200;
    pub(super) const RECEIVER_REPORT: u8 = 201;
    pub(super) const SOURCE_DESCRIPTION: u8 = 202;
    pub(super) const GOODBYE: u8 = 203;
    pub(super) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(super) const PAYLOAD_FEEDBACK: u8 = 206;
    pub(super) const EXTENDED_REPORT: u8 = 207;
}

/// Feedback message types: RFC 4585 §6.2 and §6.3, RFC 5104 §4.3.1, draft-holmer-rmcat-transport-wide-cc-extensions-01.
mod fmt {
    pub(super) const NACK: u8 = 1;
    pub(super) const TRANSPORT_WIDE: u8 = 15;
    pub(super) const PLI: u8 = 1;
    pub(super) const FIR: u8 = 4;
    pub(super) const APPLICATION: u8 = 15;
}

/// Block types of extended reports (RFC 3611 §4.4, §4.5).
mod xr {
    pub(super) const RECEIVER_REFERENCE_TIME: u8 = 4;
    pub(super) const DELAY_SINCE_LAST_REPORT: u8 = 5;
}

/// Unique identifier of draft-alvestrand-rmcat-remb-03 §2.2.
const REMB_IDENTIFIER: [u8; 4] = *b"REMB";

#[cfg(test)]
mod differential;
#[cfg(test)]
mod tests;
