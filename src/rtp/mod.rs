//! L0: views and writers of RTP, RTCP, header extensions and codec descriptors.
//!
//! Plain functions and values over byte slices: no state but what the caller keeps, no clock. Bytes come from strangers:
//! they are read with checked access, and what cannot be read is a `DropReason`. Reading a packet and writing a header
//! allocate nothing.

mod cursor;
mod header;
mod packet;
pub mod rtcp;
pub mod sequence;

pub use header::{
    ABS_SEND_TIME_UNSET, FIXED_HEADER_LEN, RtpHeader, TRANSPORT_CC_UNSET, WrittenHeader, append_padding,
    patch_abs_send_time, patch_sequence, patch_transport_cc,
};
pub use packet::{Elements, RtpPacket};
