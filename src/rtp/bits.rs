//! Checked reading and writing of bit fields, most significant bit first.

use crate::types::DropReason;

#[derive(Clone, Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bits read so far.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit != 0)
    }

    /// `count` ≤ 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Option<u32> {
        if self.remaining() < count as usize {
            return None;
        }
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Option<()> {
        (self.remaining() >= count).then(|| self.at += count)
    }

    /// A value below `limit`, in the non-symmetric code of the AV1 RTP specification, A.8.2 (`ns(n)`).
    pub(crate) fn non_symmetric(&mut self, limit: u32) -> Option<u32> {
        let width = u32::BITS - limit.leading_zeros();
        let short_codes = (1u32.checked_shl(width)?).checked_sub(limit)?;
        let value = self.bits(width.checked_sub(1)?)?;
        if value < short_codes {
            return Some(value);
        }
        Some((value << 1) - short_codes + self.bits(1)?)
    }

    /// Unsigned Exp-Golomb code, `ue(v)` of ITU-T H.264 §9.1 and H.265 §9.2.
    pub(crate) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }

    /// Signed Exp-Golomb code, `se(v)`.
    pub(crate) fn signed_exp_golomb(&mut self) -> Option<i64> {
        let code = i64::from(self.exp_golomb()?);
        Some(if code % 2 == 0 { -(code / 2) } else { code / 2 + 1 })
    }
}

/// Writes bits into a slice from its front; the unused bits of the last byte are zero.
#[derive(Debug)]
pub(crate) struct BitWriter<'b> {
    buf: &'b mut [u8],
    at: usize,
}

impl<'b> BitWriter<'b> {
    pub(crate) fn new(buf: &'b mut [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Bytes touched so far.
    pub(crate) fn len(&self) -> usize {
        self.at.div_ceil(8)
    }

    pub(crate) fn flag(&mut self, value: bool) -> Result<(), DropReason> {
        let byte = self.buf.get_mut(self.at / 8).ok_or(DropReason::TooLarge)?;
        if self.at.is_multiple_of(8) {
            *byte = 0;
        }
        *byte |= u8::from(value) << (7 - self.at % 8);
        self.at += 1;
        Ok(())
    }

    /// The low `count` ≤ 32 bits of `value`.
    pub(crate) fn bits(&mut self, value: u32, count: u32) -> Result<(), DropReason> {
        for bit in (0..count).rev() {
            self.flag(value >> bit & 1 != 0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        // ue(v): 1 -> 0, 010 -> 1, 011 -> 2, 00100 -> 3; se(v) of 3 is 2, of 4 is -2.
        let mut bits = BitReader::new(&[0b1010_0110, 0b0100_0010, 0b0001_0100]);
        let codes = [(); 4].map(|()| bits.exp_golomb().unwrap());
        assert_eq!(codes, [0, 1, 2, 3]);
        assert_eq!(bits.signed_exp_golomb(), Some(2));
        assert_eq!(bits.signed_exp_golomb(), Some(-2));
        // ns(5): 00 01 10 110 111.
        let mut bits = BitReader::new(&[0b0001_1011, 0b0111_0000]);
        let codes = [(); 5].map(|()| bits.non_symmetric(5).unwrap());
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        assert_eq!(bits.bits(32), None);
        assert_eq!(BitReader::new(&[0; 8]).exp_golomb(), None);
        assert_eq!(BitReader::new(&[]).non_symmetric(1), Some(0));
        assert_eq!(BitReader::new(&[0]).non_symmetric(0), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let mut buf = [0xff; 4];
        let mut writer = BitWriter::new(&mut buf);
        writer.bits(0b101, 3).unwrap();
        writer.flag(true).unwrap();
        writer.bits(0x1234, 16).unwrap();
        assert_eq!(writer.len(), 3);
        let mut reader = BitReader::new(&buf);
        assert_eq!(
            (reader.bits(3), reader.flag(), reader.bits(16), reader.bits(4)),
            (Some(5), Some(true), Some(0x1234), Some(0))
        );
        assert_eq!(BitWriter::new(&mut [0]).bits(0, 9), Err(DropReason::TooLarge));
    }
}
