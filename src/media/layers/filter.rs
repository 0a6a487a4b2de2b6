//! How much of one encoding a subscriber is let see: temporal layers, and spatial ones inside the stream.
//!
//! Owned by a `Subscription`, asked once for each new packet of the encoding that is being sent; a late packet was judged
//! by what came after it. A few compares while nothing is to change. Knows nothing of numbers.

use super::{Cut, EVERYTHING, LayerMarks, SPATIAL};
use crate::media::ring::PacketInfo;
use crate::types::{DropReason, Layer};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What is to be sent.
    target: Layer,
    /// What is sent.
    limit: Layer,
    /// A bit per spatial layer that cannot be followed: something of it was left out since it could be entered last.
    broken: u8,
    /// Timestamp of the last picture that began while something was to change or is left out.
    picture: Option<u32>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            target: EVERYTHING,
            limit: EVERYTHING,
            broken: 0,
            picture: None,
        }
    }
}

impl Filter {
    /// A key frame begins: everything up to the target is sent from here on.
    pub fn restart(&mut self, target: Layer) {
        *self = Self {
            target,
            limit: target,
            ..Self::default()
        };
    }

    /// Less takes effect with the next picture, more where the stream lets it.
    pub fn set_target(&mut self, target: Layer) {
        if target != self.target {
            self.target = target;
            self.picture = None;
        }
    }

    pub fn target(&self) -> Layer {
        self.target
    }

    /// What is sent now.
    pub fn limit(&self) -> Layer {
        self.limit
    }

    pub fn cut(&self) -> Cut {
        Cut::at(self.limit)
    }

    /// The target cannot be entered but at a key frame.
    pub fn needs_keyframe(&self) -> bool {
        self.target != self.limit && self.broken >> self.target.spatial.min(SPATIAL as u8 - 1) & 1 == 1
    }

    /// One packet that is newer than all before.
    ///
    /// # Errors
    /// `OtherLayer` when it is left out; `AwaitingKeyframe` when it is so for want of a key frame.
    pub fn select(&mut self, info: &PacketInfo) -> Result<(), DropReason> {
        if info.start && (self.target != self.limit || self.broken != 0) {
            self.consider(info);
        }
        if info.layers.is_part_of(self.limit) {
            return Ok(());
        }
        for spatial in 0..SPATIAL as u8 {
            // Whatever a layer's lowest rate consists of, all that follows in it depends on.
            if info.layers.is_part_of(Layer { spatial, temporal: 0 }) {
                self.broken |= 1 << spatial;
            }
        }
        if info.layers.is_part_of(self.target) && self.needs_keyframe() {
            Err(DropReason::AwaitingKeyframe)
        } else {
            Err(DropReason::OtherLayer)
        }
    }

    /// What is sent of spatial layers changes between pictures: the marker bit of one cannot be taken back. Temporal layers
    /// can be taken in within one too: only the frame of the highest spatial layer says where (A.4: a switch holds for
    /// targets of the frame's own spatial layer).
    fn consider(&mut self, info: &PacketInfo) {
        let begins = match self.picture {
            Some(timestamp) => timestamp != info.timestamp,
            None => info.spatial == 0,
        };
        if !begins {
            if info.spatial == self.limit.spatial && self.target.spatial == self.limit.spatial {
                self.raise_temporal(info.layers);
            }
            return;
        }
        self.picture = Some(info.timestamp);
        self.broken &= !info.layers.restarts();
        if self.target != self.limit {
            self.limit = self.reachable(info.layers).unwrap_or(self.limit);
        }
    }

    fn raise_temporal(&mut self, marks: LayerMarks) {
        let above = (self.limit.temporal + 1..=self.target.temporal).rev();
        let layers = above.map(|temporal| Layer { temporal, ..self.limit });
        self.limit = layers
            .into_iter()
            .find(|layer| marks.is_switch_to(*layer))
            .unwrap_or(self.limit);
    }

    /// The best layer up to the target that can be sent from this frame on.
    fn reachable(&self, marks: LayerMarks) -> Option<Layer> {
        let spatial = (0..=self.target.spatial).rev();
        let whole = spatial.filter(|spatial| self.broken >> spatial & 1 == 0);
        let layers = whole.flat_map(|spatial| {
            (0..=self.target.temporal)
                .rev()
                .map(move |temporal| Layer { spatial, temporal })
        });
        let within = |layer: &Layer| layer.spatial <= self.limit.spatial && layer.temporal <= self.limit.temporal;
        let mut layers = layers.filter(|layer| within(layer) || marks.is_switch_to(*layer));
        layers.next()
    }
}

#[cfg(test)]
mod tests;
