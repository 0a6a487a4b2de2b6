//! What a packet's frame is to each layer of its stream, found once per packet.

use super::{SPATIAL, TEMPORAL, all, index};
use crate::rtp::FrameInfo;
use crate::rtp::dependency_descriptor::{Descriptor, Indication, Structure};
use crate::types::{Codec, Layer};

const NOT_PRESENT: u32 = 0;
const DISCARDABLE: u32 = 1;
const SWITCH: u32 = 2;
const REQUIRED: u32 = 3;

/// An indication per layer (as the dependency descriptor has one per decode target) and where chains begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerMarks {
    /// Two bits for each layer, by `index`.
    indications: u32,
    /// A bit per spatial layer: nothing before this frame is needed to follow the layer from here on.
    restarts: u8,
}

impl Default for LayerMarks {
    fn default() -> Self {
        Self::ALL
    }
}

impl LayerMarks {
    /// A frame of no layers: always sent, decodable alone.
    pub const ALL: Self = Self {
        indications: 0x00aa_aaaa,
        restarts: 0x07,
    };

    /// From what the codec's own header says. `temporal_layers`: how many the stream has.
    pub fn of_frame(codec: Codec, frame: &FrameInfo, temporal_layers: u8) -> Self {
        let mut indications = 0;
        for layer in all().filter(|layer| {
            frame.spatial.min(SPATIAL as u8 - 1) <= layer.spatial
                && frame.temporal.min(TEMPORAL as u8 - 1) <= layer.temporal
        }) {
            // VP8's Y and H.265's (S)TSA let a receiver up to the frame's own layer, VP9's U to all above it too.
            let above = layer.temporal > frame.temporal && frame.temporal + 1 < temporal_layers && codec != Codec::Vp9;
            let switch = frame.switch_point && !above;
            let mark = if frame.keyframe || switch { SWITCH } else { REQUIRED };
            indications |= mark << (2 * index(layer));
        }
        Self {
            indications,
            restarts: if frame.keyframe { 0x07 } else { 0 },
        }
    }

    /// From the dependency descriptor, whose structure `map` was made of.
    /// `is_first`: it carries that structure.
    pub fn of_descriptor(descriptor: &Descriptor, is_first: bool, map: &LayerMap) -> Self {
        let mut indications = 0;
        for (at, target) in (0u32..).zip(map.targets) {
            let mark = match descriptor.indications.of(target) {
                Indication::NotPresent => NOT_PRESENT,
                Indication::Discardable => DISCARDABLE,
                Indication::Switch => SWITCH,
                Indication::Required => REQUIRED,
            };
            indications |= mark << (2 * at);
        }
        let mut restarts = 0;
        for (spatial, chain) in map.chains.iter().enumerate() {
            // A.4: the difference 0 says that the chain begins with this frame.
            let begins = chain.and_then(|chain| descriptor.chain_diffs.get(usize::from(chain))) == Some(&0);
            restarts |= u8::from(begins || is_first) << spatial;
        }
        Self { indications, restarts }
    }

    fn mark(self, layer: Layer) -> u32 {
        self.indications >> (2 * index(layer)) & 3
    }

    /// The frame belongs to what a receiver of this layer is sent.
    pub fn is_part_of(self, layer: Layer) -> bool {
        self.mark(layer) != NOT_PRESENT
    }

    /// A receiver can be given this layer from this frame on, if its chain is whole.
    pub fn is_switch_to(self, layer: Layer) -> bool {
        self.mark(layer) == SWITCH
    }

    /// Spatial layers, a bit each, that this frame can be followed from.
    pub fn restarts(self) -> u8 {
        self.restarts
    }
}

/// The decode targets and chains of a dependency descriptor's structure, by layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerMap {
    /// The decode target that a receiver of the layer is given.
    targets: [u8; SPATIAL * TEMPORAL],
    /// All decode targets up to that layer, a bit each.
    masks: [u32; SPATIAL * TEMPORAL],
    /// The chain that protects each spatial layer.
    chains: [Option<u8>; SPATIAL],
}

impl LayerMap {
    pub fn new(structure: &Structure) -> Self {
        let mut map = Self {
            targets: [0; _],
            masks: [0; _],
            chains: [None; _],
        };
        let targets = || (0..structure.decode_targets).zip(structure.target_layers);
        let lowest = targets()
            .min_by_key(|(_, layer)| *layer)
            .map_or(0, |(target, _)| target);
        for layer in all() {
            // The last of each stands for all above it as well.
            let within = |(_, (spatial, temporal)): &(u8, (u8, u8))| {
                (*spatial).min(SPATIAL as u8 - 1) <= layer.spatial
                    && (*temporal).min(TEMPORAL as u8 - 1) <= layer.temporal
            };
            let best = targets().filter(within).max_by_key(|(_, layer)| *layer);
            let best = best.map_or(lowest, |(target, _)| target);
            let mask = targets().filter(within).fold(0, |mask, (target, _)| {
                mask | 1u32.checked_shl(u32::from(target)).unwrap_or(0)
            });
            if let Some((target, place)) = map.targets.get_mut(index(layer)).zip(map.masks.get_mut(index(layer))) {
                (*target, *place) = (best, mask);
            }
            if structure.chains > 0
                && let Some(chain) = map.chains.get_mut(usize::from(layer.spatial))
            {
                *chain = structure.protected_by.get(usize::from(best)).copied();
            }
        }
        map
    }

    /// The active decode targets, a bit each, of a stream cut at this layer.
    pub fn mask(&self, layer: Layer) -> u32 {
        self.masks.get(index(layer)).copied().unwrap_or(u32::MAX)
    }
}
