//! Layers of a track: what a packet is to each of them, which of them flow and at what rate, and how much of an encoding
//! one subscriber is let see.
//!
//! Owns the rules of scalability, whatever the codec: simulcast by encoding, temporal layers by the codec's own header,
//! spatial ones by VP9's header or the dependency descriptor. Driven by `Encoding` (marks, meter), `Track` (flow, offer)
//! and `Subscription` (filter). Never numbers or sends a packet.

mod cut;
mod filter;
mod flow;
mod marks;
mod meter;

pub use cut::Cut;
pub use filter::Filter;
pub use flow::Flow;
pub use marks::{LayerMap, LayerMarks};
pub use meter::Meter;

use crate::types::{Bitrate, Layer};

/// Spatial layers that are told apart. What a stream has above is counted to the last.
pub const SPATIAL: usize = 3;
/// Temporal layers that are told apart.
pub const TEMPORAL: usize = 4;

/// Nothing is left out.
pub const EVERYTHING: Layer = Layer {
    spatial: SPATIAL as u8 - 1,
    temporal: TEMPORAL as u8 - 1,
};

/// What a track can give now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// How many spatial layers there are, flowing or not. At least 1.
    pub spatial: u8,
    /// The most temporal layers that any of them has. At least 1.
    pub temporal: u8,
    /// What it costs to send layer [spatial][temporal], headers and seal included, everything counted that has to be sent
    /// with it. ZERO = it does not flow now, or there is no such layer.
    pub rate: [[Bitrate; TEMPORAL]; SPATIAL],
    /// Width and height of each spatial layer; (0, 0) = not known.
    pub dimensions: [(u16, u16); SPATIAL],
}

impl Offered {
    pub fn rate(&self, layer: Layer) -> Bitrate {
        let row = self.rate.get(usize::from(layer.spatial));
        row.and_then(|row| row.get(usize::from(layer.temporal)))
            .copied()
            .unwrap_or_default()
    }
}

impl Offered {
    /// The best layer that flows and is not above `max`; where none is, the lowest spatial layer that flows. None = nothing
    /// flows.
    pub fn best(&self, max: Layer) -> Option<Layer> {
        let flows = |layer: &Layer| self.rate(*layer) > Bitrate::ZERO;
        let within = |layer: &Layer| layer.spatial <= max.spatial && layer.temporal <= max.temporal;
        let lowest = all().find(flows)?;
        let best = all().filter(|layer| flows(layer) && within(layer)).max();
        best.or_else(|| {
            let same = |layer: &Layer| layer.spatial == lowest.spatial && layer.temporal <= max.temporal;
            all().filter(|layer| flows(layer) && same(layer)).max()
        })
    }
}

/// The place of a layer in tables of all of them; ids above the last are the last.
fn index(layer: Layer) -> usize {
    usize::from(layer.spatial).min(SPATIAL - 1) * TEMPORAL + usize::from(layer.temporal).min(TEMPORAL - 1)
}

/// Every layer, lowest first, as `index` counts them.
fn all() -> impl Iterator<Item = Layer> {
    (0..(SPATIAL * TEMPORAL) as u8).map(|at| Layer {
        spatial: at / TEMPORAL as u8,
        temporal: at % TEMPORAL as u8,
    })
}
