//! The video layers allocation header extension
//! (`http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00`): which layers a sender produces now, and at
//! what rates. Chromium writes it on key frames and whenever its allocation changes, the same on all its streams.

use super::bits::BitReader;
use super::cursor::Reader;
use crate::types::DropReason;

/// Two bits count the streams, four bits mark their spatial layers, two bits count temporal layers.
pub const MAX_STREAMS: usize = 4;
pub const MAX_SPATIAL: usize = 4;
pub const MAX_TEMPORAL: usize = 4;

/// What is said of all streams of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayersAllocation {
    /// The stream that this packet belongs to.
    pub stream: u8,
    /// 1..=4.
    pub streams: u8,
    /// By stream and spatial layer; None = not sent.
    pub layers: [[Option<SpatialAllocation>; MAX_SPATIAL]; MAX_STREAMS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpatialAllocation {
    /// 1..=4.
    pub temporal_layers: u8,
    /// In kbps, up to each temporal layer.
    pub rates: [u32; MAX_TEMPORAL],
    /// Width and height; (0, 0) where not said.
    pub dimensions: (u16, u16),
}

impl LayersAllocation {
    /// # Errors
    /// `Malformed` when the value ends before what it announces.
    pub fn parse(value: &[u8]) -> Result<Self, DropReason> {
        Self::read(value).ok_or(DropReason::Malformed)
    }

    /// The spatial layers of a stream that are sent.
    pub fn active(&self, stream: u8) -> impl Iterator<Item = (u8, &SpatialAllocation)> {
        let layers = self.layers.get(usize::from(stream)).into_iter().flatten();
        (0..).zip(layers).filter_map(|(at, layer)| Some((at, layer.as_ref()?)))
    }

    fn read(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let head = reader.u8()?;
        let mut allocation = Self {
            stream: head >> 6,
            streams: (head >> 4 & 0x03) + 1,
            ..Self::default()
        };
        if value.len() == 1 {
            return Some(allocation); // a single byte: nothing is sent
        }
        // One mask for all streams; 0 = each has its own, four bits each.
        let mut masks = [head & 0x0f; MAX_STREAMS];
        let streams = usize::from(allocation.streams);
        if head & 0x0f == 0 {
            let bytes = reader.bytes(streams.div_ceil(2))?;
            let mut bits = BitReader::new(bytes);
            for mask in masks.iter_mut().take(streams) {
                *mask = bits.bits(4)? as u8;
            }
        }
        let mut count = 0;
        for (layers, mask) in allocation.layers.iter_mut().zip(masks).take(streams) {
            for (_, layer) in layers.iter_mut().enumerate().filter(|(at, _)| mask >> at & 1 == 1) {
                *layer = Some(SpatialAllocation::default());
                count += 1;
            }
        }
        let counts = reader.bytes(usize::div_ceil(count, 4))?;
        let mut bits = BitReader::new(counts);
        for layer in allocation.layers.iter_mut().flatten().flatten() {
            layer.temporal_layers = bits.bits(2)? as u8 + 1;
        }
        for layer in allocation.layers.iter_mut().flatten().flatten() {
            for rate in layer.rates.iter_mut().take(usize::from(layer.temporal_layers)) {
                *rate = leb128(&mut reader)?;
            }
        }
        // Sizes and frame rates are all there or left out.
        if reader.rest().len() >= count * 5 {
            for layer in allocation.layers.iter_mut().flatten().flatten() {
                layer.dimensions = (reader.u16()?.saturating_add(1), reader.u16()?.saturating_add(1));
                reader.u8()?; // frames per second
            }
        }
        Some(allocation)
    }
}

fn leb128(reader: &mut Reader<'_>) -> Option<u32> {
    let mut value = 0u64;
    for at in 0..5 {
        let byte = reader.u8()?;
        value |= u64::from(byte & 0x7f) << (at * 7);
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Three streams of one spatial layer with two temporal ones each, on the second stream.
    const SIMULCAST: [u8; 27] = [
        0x61, 0x54, // stream 1 of 3, mask 1; 01 01 01 00
        60, 100, 0xc8, 0x01, 0xac, 0x02, 0x84, 0x07, 0xc4, 0x13, // 60 100 200 300 900 2500
        0x01, 0x3f, 0x00, 0xb3, 15, 0x02, 0x7f, 0x01, 0x67, 30, 0x04, 0xff, 0x02, 0xcf, 30,
    ];

    #[test]
    fn streams_with_rates_and_sizes() {
        let allocation = LayersAllocation::parse(&SIMULCAST).unwrap();
        assert_eq!((allocation.stream, allocation.streams), (1, 3));
        let top = allocation.layers[2][0].unwrap();
        assert_eq!((top.temporal_layers, top.rates), (2, [900, 2500, 0, 0]));
        assert_eq!(top.dimensions, (1280, 720));
        assert_eq!(allocation.layers[0][0].unwrap().rates, [60, 100, 0, 0]);
        assert_eq!(allocation.active(1).count(), 1);
        assert_eq!(allocation.active(3).count(), 0);
        // Without sizes.
        let short = LayersAllocation::parse(&SIMULCAST[..12]).unwrap();
        assert_eq!(short.layers[2][0].unwrap().dimensions, (0, 0));
        assert_eq!(LayersAllocation::parse(&SIMULCAST[..9]), Err(DropReason::Malformed));
    }

    #[test]
    fn a_stream_that_is_not_sent() {
        // Two streams with masks of their own: the first has one layer, the second none.
        let allocation = LayersAllocation::parse(&[0x10, 0x10, 0x00, 100]).unwrap();
        assert_eq!((allocation.active(0).count(), allocation.active(1).count()), (1, 0));
        let nothing = LayersAllocation::parse(&[0]).unwrap();
        assert_eq!(nothing.active(0).count(), 0);
        assert_eq!(LayersAllocation::parse(&[]), Err(DropReason::Malformed));
    }

    #[test]
    fn spatial_layers_of_one_stream() {
        let allocation = LayersAllocation::parse(&[0x03, 0x00, 100, 0xac, 0x02]).unwrap();
        let rates: Vec<_> = allocation.active(0).map(|(at, layer)| (at, layer.rates[0])).collect();
        assert_eq!(rates, [(0, 100), (1, 300)]);
    }

    proptest! {
        #[test]
        fn any_bytes(value in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(allocation) = LayersAllocation::parse(&value) {
                let layers = allocation.layers.iter().flatten().flatten();
                prop_assert!(layers.clone().count() <= MAX_STREAMS * MAX_SPATIAL);
                prop_assert!(value.len() == 1 || layers.clone().all(|layer| (1..=4).contains(&layer.temporal_layers)));
            }
        }
    }
}
