//! What is TURN's, at a port that is media's too; and where in a stream one message ends and the next begins (RFC 8656 §3.5,
//! §12.5).

use super::attributes::{USERNAME, iterate};

/// The largest message a stream may carry: a ChannelData message or Send indication with a whole datagram in it. No request
/// is as long.
pub const MAX_FRAME: usize = 2048;

/// What starts here is neither STUN nor ChannelData, or longer than `MAX_FRAME`: the stream has no further meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a TURN message")]
pub struct BadFrame;

/// The bytes of the message that starts with `start`, padding included. None = more bytes must be seen first.
///
/// The first two bits tell STUN (00) from ChannelData (01); in a stream both are multiples of four bytes.
pub fn frame_length(start: &[u8]) -> Result<Option<usize>, BadFrame> {
    let Some(first) = start.first() else {
        return Ok(None);
    };
    let header = match first >> 6 {
        0 => 20,
        1 => 4,
        _ => return Err(BadFrame),
    };
    let Some(length) = start.get(2..4).and_then(|length| length.first_chunk()) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if header == 20 && !length.is_multiple_of(4) {
        return Err(BadFrame);
    }
    let whole = header + length.next_multiple_of(4);
    if whole > MAX_FRAME {
        Err(BadFrame)
    } else {
        Ok(Some(whole))
    }
}

/// Whether a datagram that has come to a media port is for the TURN server: ChannelData, a request or indication of TURN, or
/// a Binding request of a STUN client. Connectivity checks have a username, STUN clients none (RFC 8445 §7.2.2).
pub fn is_for_server(datagram: &[u8]) -> bool {
    match datagram {
        [0x40..=0x7f, ..] => true,
        // Allocate, Refresh, CreatePermission, ChannelBind; the Send indication.
        [0x00, 0x03 | 0x04 | 0x08 | 0x09 | 0x16, ..] => true,
        [0x00, 0x01, ..] => !iterate(datagram).any(|(kind, _)| kind == USERNAME),
        _ => false,
    }
}
