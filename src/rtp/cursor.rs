//! Checked reading and writing of big-endian fields. `None` means that the bytes ended; nothing here can panic.

use crate::types::DropReason;

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u24(&mut self) -> Option<u32> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Writes into a slice from its front.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    buf: &'b mut [u8],
    at: usize,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(buf: &'b mut [u8]) -> Self {
        Self { buf, at: 0 }
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.at
    }

    /// Bytes that can still be written.
    pub(crate) fn room(&self) -> usize {
        self.buf.len().saturating_sub(self.at)
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let end = self.at + bytes.len();
        let target = self.buf.get_mut(self.at..end).ok_or(DropReason::TooLarge)?;
        target.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    pub(crate) fn u8(&mut self, value: u8) -> Result<(), DropReason> {
        self.put(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> Result<(), DropReason> {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u24(&mut self, value: u32) -> Result<(), DropReason> {
        let [_, a, b, c] = value.to_be_bytes();
        self.put(&[a, b, c])
    }

    pub(crate) fn u32(&mut self, value: u32) -> Result<(), DropReason> {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> Result<(), DropReason> {
        self.put(&value.to_be_bytes())
    }

    /// Zero bytes up to the next multiple of four, counted from `start`.
    pub(crate) fn align4(&mut self, start: usize) -> Result<(), DropReason> {
        while !self.at.saturating_sub(start).is_multiple_of(4) {
            self.u8(0)?;
        }
        Ok(())
    }

    /// Overwrites bytes that were written before.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(target) = self.buf.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    }

    /// Forgets what was written behind `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.at = self.at.min(len);
    }
}
