//! RFC 4571: datagrams in a stream, each behind its length in two bytes.

use crate::types::MAX_DATAGRAM;

/// Bytes of the length.
pub const FRAME_HEADER: usize = 2;

/// A frame longer than any datagram: the stream is not one of ours, or has lost its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 4571 frame")]
pub struct BadFrame;

/// The bytes of the frame that starts with `start`, its length included. None = more bytes must be seen first. An empty
/// frame (a keepalive of RFC 6544 §10) is only its length.
pub fn frame_length(start: &[u8]) -> Result<Option<usize>, BadFrame> {
    let Some(length) = start.first_chunk::<FRAME_HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > MAX_DATAGRAM {
        return Err(BadFrame);
    }
    Ok(Some(FRAME_HEADER + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_two_bytes_and_bounded() {
        assert_eq!(frame_length(&[]), Ok(None));
        assert_eq!(frame_length(&[0]), Ok(None));
        assert_eq!(frame_length(&[0, 0]), Ok(Some(2)));
        assert_eq!(frame_length(&[0x05, 0xdc, 1]), Ok(Some(1502)));
        assert_eq!(frame_length(&[0x05, 0xdd]), Err(BadFrame));
        assert_eq!(frame_length(&[0x16, 0x03]), Err(BadFrame), "a TLS ClientHello");
        assert_eq!(frame_length(b"GET / HTTP"), Err(BadFrame));
    }
}
