//! L0: views and writers of RTP, RTCP, header extensions and codec descriptors.
//!
//! Plain functions and values over byte slices: no state but what the caller keeps, no clock. Bytes come from strangers:
//! they are read with checked access, and what cannot be read is a `DropReason`. Reading a packet and writing a header
//! allocate nothing.

pub mod av1;
mod bits;
mod cursor;
pub mod dependency_descriptor;
pub mod extension;
mod frame;
pub mod h264;
pub mod h265;
mod header;
pub mod layers_allocation;
mod packet;
pub mod red;
pub mod rtcp;
pub mod rtx;
pub mod sequence;
pub mod trailer;
pub mod vp8;
pub mod vp9;

pub use frame::{FrameInfo, inspect};
pub use header::{
    ABS_SEND_TIME_UNSET, FIXED_HEADER_LEN, RtpHeader, TRANSPORT_CC_UNSET, WrittenHeader, append_padding,
    patch_abs_send_time, patch_sequence, patch_transport_cc,
};
pub use packet::{Elements, RtpPacket};
