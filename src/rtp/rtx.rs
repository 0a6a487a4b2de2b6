//! Retransmission payloads (RFC 4588 §4): the original sequence number in front of the original payload.

use super::cursor::Reader;
use crate::types::DropReason;

/// Bytes of the original sequence number in front of the payload.
pub const OSN_LEN: usize = 2;

/// The original sequence number and payload. Padding-only probes have neither and are `PaddingOnly`.
pub fn split(payload: &[u8]) -> Result<(u16, &[u8]), DropReason> {
    if payload.is_empty() {
        return Err(DropReason::PaddingOnly);
    }
    let mut reader = Reader::new(payload);
    let sequence = reader.u16().ok_or(DropReason::Truncated)?;
    Ok((sequence, reader.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_sequence() {
        assert_eq!(split(&[0x12, 0x34, 5]), Ok((0x1234, &[5][..])));
        assert_eq!(split(&[]), Err(DropReason::PaddingOnly));
        assert_eq!(split(&[1]), Err(DropReason::Truncated));
    }
}
