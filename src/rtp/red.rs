//! Redundant audio (RFC 2198): the primary block and the copies before it.

use super::cursor::Reader;
use crate::types::{DropReason, Pt};

/// A copy of an earlier packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedundantBlock<'a> {
    pub pt: Pt,
    /// Ticks before the packet's own timestamp, 14 bits.
    pub timestamp_offset: u16,
    pub data: &'a [u8],
}

/// Blocks of one packet that are read. LiveKit and browsers send at most two copies; each costs four bytes of header.
pub const MAX_REDUNDANT_BLOCKS: usize = 8;

/// A parsed redundant payload. Reading allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct RedPayload<'a> {
    pub pt: Pt,
    /// The packet's own block.
    pub primary: &'a [u8],
    redundant: [Option<RedundantBlock<'a>>; MAX_REDUNDANT_BLOCKS],
}

impl<'a> RedPayload<'a> {
    /// # Errors
    /// `Truncated` when a block is longer than the payload, `Malformed` with more than [`MAX_REDUNDANT_BLOCKS`] copies.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DropReason> {
        let mut headers = [(Pt(0), 0u16, 0usize); MAX_REDUNDANT_BLOCKS];
        let mut slots = headers.iter_mut();
        let mut reader = Reader::new(payload);
        let pt = loop {
            let first = reader.u8().ok_or(DropReason::Truncated)?;
            if first & 0x80 == 0 {
                break Pt(first);
            }
            // Timestamp offset in 14 bits, block length in 10.
            let both = reader.u24().ok_or(DropReason::Truncated)?;
            *slots.next().ok_or(DropReason::Malformed)? =
                (Pt(first & 0x7f), (both >> 10) as u16, (both & 0x3ff) as usize);
        };
        let count = MAX_REDUNDANT_BLOCKS - slots.len();
        let mut redundant = [None; MAX_REDUNDANT_BLOCKS];
        for ((pt, timestamp_offset, len), slot) in headers.into_iter().zip(redundant.iter_mut()).take(count) {
            let data = reader.bytes(len).ok_or(DropReason::Truncated)?;
            *slot = Some(RedundantBlock {
                pt,
                timestamp_offset,
                data,
            });
        }
        Ok(Self {
            pt,
            primary: reader.rest(),
            redundant,
        })
    }

    /// The copies, oldest first as senders order them.
    pub fn redundant(&self) -> impl Iterator<Item = RedundantBlock<'a>> + '_ {
        self.redundant.iter().flatten().copied()
    }
}

/// The payload type and bytes of the primary block.
pub fn primary(payload: &[u8]) -> Result<(Pt, &[u8]), DropReason> {
    RedPayload::parse(payload).map(|red| (red.pt, red.primary))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_copy_and_the_primary() {
        // Opus 111 twice: a copy of 3 bytes from 960 ticks before, then the packet's own block.
        let payload = [0x80 | 111, 0x0f, 0x00, 0x03, 111, 1, 2, 3, 4, 5];
        let red = RedPayload::parse(&payload).unwrap();
        assert_eq!((red.pt, red.primary), (Pt(111), &[4, 5][..]));
        let copies: Vec<_> = red.redundant().collect();
        assert_eq!(
            copies,
            [RedundantBlock {
                pt: Pt(111),
                timestamp_offset: 960,
                data: &[1, 2, 3]
            }]
        );
        assert_eq!(primary(&payload), Ok((Pt(111), &[4, 5][..])));
    }

    #[test]
    fn no_copies() {
        assert_eq!(primary(&[111, 9]), Ok((Pt(111), &[9][..])));
        assert_eq!(primary(&[111]), Ok((Pt(111), &[][..])));
    }

    #[test]
    fn lengths_that_cannot_be() {
        assert_eq!(primary(&[]), Err(DropReason::Truncated));
        assert_eq!(primary(&[0xef, 0, 0, 9, 111, 1]), Err(DropReason::Truncated));
        assert_eq!(primary(&[0x80; 64]), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(red) = RedPayload::parse(&payload) {
                let data: usize = red.redundant().map(|block| block.data.len() + 4).sum();
                prop_assert_eq!(data + 1 + red.primary.len(), payload.len());
            }
        }
    }
}
