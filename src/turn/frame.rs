//! TURN over a stream: where one message ends and the next begins (RFC 8656 §3.5, §12.5).

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
