//! Dependency descriptors as an AV1 or VP9 encoder writes them (AV1 RTP specification, appendix A), for L1T1 to L3T3 and
//! L3T3_KEY. A writer of its own, so that the server's reader is not checked against itself.

use std::collections::BTreeMap;

use crate::media::{Spatial, temporal_layer};

/// Which frame of its temporal pattern a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub temporal: u8,
    pub place: u8,
    pub keyframe: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// 0 not present, 1 discardable, 2 switch, 3 required; one per decode target.
    indications: Vec<u8>,
    /// In frame numbers.
    distances: Vec<u32>,
    /// Per chain, to the frame of it before this one; 0 = none.
    chains: Vec<u32>,
}

/// The frames of a chain and what has been announced.
pub struct Descriptors {
    spatial: Spatial,
    temporal: u8,
    templates: Vec<Template>,
    /// Newest frame number of each chain since the key frame, before the frame being written and with it.
    chains: Vec<Option<u32>>,
    current: Option<(u32, Template)>,
    /// Widths, heights.
    sizes: Vec<(u16, u16)>,
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// ns(n), A.8.2.
    fn put_non_symmetric(&mut self, value: u32, range: u32) {
        let mut width = 0;
        let mut rest = range;
        while rest != 0 {
            rest >>= 1;
            width += 1;
        }
        let short = (1 << width) - range;
        if value < short {
            self.put(value, width - 1);
        } else {
            self.put(value + short, width);
        }
    }
}

impl Descriptors {
    pub fn new(spatial: Spatial, temporal: u8) -> Self {
        let layers = spatial.layers();
        let mut descriptors = Self {
            spatial,
            temporal,
            templates: Vec::new(),
            chains: vec![None; usize::from(layers)],
            current: None,
            sizes: [(320, 180), (640, 360), (1280, 720)]
                .into_iter()
                .take(usize::from(layers))
                .collect(),
        };
        descriptors.learn_templates();
        descriptors
    }

    /// Every kind of frame that the pattern has: those of a key picture and of two rounds after it.
    fn learn_templates(&mut self) {
        let layers = self.spatial.layers();
        let group = 1u32 << (self.temporal - 1);
        let mut found: BTreeMap<Template, ()> = BTreeMap::new();
        let mut references = [0u32; 2];
        for picture in 0..=2 * group {
            let place = (picture % group) as u8;
            let temporal = temporal_layer(self.temporal, place);
            let keyframe = picture == 0;
            let position = Position {
                temporal,
                place,
                keyframe,
            };
            let count = match (keyframe, temporal, place) {
                (true, ..) => 0,
                (_, 2, 3) => 2,
                _ => 1,
            };
            let earlier: Vec<u32> = references.iter().take(count).copied().collect();
            for spatial in 0..layers {
                let below = spatial > 0 && (self.spatial == Spatial::Full(layers) || keyframe);
                found.insert(self.template(position, spatial, picture, &earlier, below), ());
                self.enter_chains(position, spatial, picture);
            }
            match temporal {
                0 => references[0] = picture,
                1 => references[1] = picture,
                _ => {}
            }
        }
        self.chains.fill(None);
        self.templates = found.into_keys().collect();
    }

    fn number(&self, picture: u32, spatial: u8) -> u32 {
        picture * u32::from(self.spatial.layers()) + u32::from(spatial)
    }

    fn template(&self, position: Position, spatial: u8, picture: u32, earlier: &[u32], below: bool) -> Template {
        let number = self.number(picture, spatial);
        let layers = self.spatial.layers();
        let key_only = self.spatial == Spatial::KeyOnly(layers) && !position.keyframe;
        let mut indications = Vec::new();
        for target_spatial in 0..layers {
            for target_temporal in 0..self.temporal {
                let absent = spatial > target_spatial
                    || position.temporal > target_temporal
                    || (key_only && spatial != target_spatial);
                indications.push(if absent {
                    0
                } else if position.keyframe {
                    2
                } else if spatial < target_spatial {
                    3
                } else if position.temporal > 0 && position.temporal == target_temporal {
                    1
                } else {
                    2
                });
            }
        }
        let mut distances: Vec<u32> = earlier
            .iter()
            .map(|earlier| number - self.number(*earlier, spatial))
            .collect();
        distances.extend(below.then_some(1));
        Template {
            spatial,
            temporal: position.temporal,
            indications,
            distances,
            chains: self
                .chains
                .iter()
                .map(|newest| match newest {
                    Some(newest) if !(position.keyframe && spatial == 0) => number - newest,
                    _ => 0,
                })
                .collect(),
        }
    }

    /// A chain holds what its spatial layer cannot do without.
    fn enter_chains(&mut self, position: Position, spatial: u8, picture: u32) {
        let number = self.number(picture, spatial);
        let layers = self.spatial.layers();
        if position.temporal > 0 {
            return;
        }
        for (chain, newest) in (0u8..).zip(&mut self.chains) {
            let member = if self.spatial == Spatial::KeyOnly(layers) && !position.keyframe {
                chain == spatial
            } else {
                chain >= spatial
            };
            if member {
                *newest = Some(number);
            } else if position.keyframe && spatial == 0 {
                *newest = None;
            }
        }
    }

    /// The extension of one packet. `unit` is position, spatial layer and picture; `edges` whether it is the first and the
    /// last packet of its frame.
    pub fn write(
        &mut self,
        (position, spatial, picture): (Position, u8, u32),
        (first, last): (bool, bool),
        earlier: &[u32],
        below: bool,
    ) -> Vec<u8> {
        let number = self.number(picture, spatial);
        let wanted = match &self.current {
            Some((current, template)) if *current == number => template.clone(),
            _ => {
                let template = self.template(position, spatial, picture, earlier, below);
                self.enter_chains(position, spatial, picture);
                self.current = Some((number, template.clone()));
                template
            }
        };
        let exact = self.templates.iter().position(|template| *template == wanted);
        let same_layer =
            |template: &Template| template.spatial == wanted.spatial && template.temporal == wanted.temporal;
        let index = exact
            .or_else(|| self.templates.iter().position(same_layer))
            .unwrap_or_default();
        let mut bits = Bits::default();
        bits.put(u32::from(first), 1);
        bits.put(u32::from(last), 1);
        bits.put(index as u32, 6);
        bits.put(number & 0xffff, 16);
        let structured = position.keyframe && spatial == 0 && first;
        if !structured && exact.is_some() {
            return bits.bytes;
        }
        let custom = u32::from(exact.is_none());
        for flag in [u32::from(structured), 0, custom, custom, custom] {
            bits.put(flag, 1);
        }
        if structured {
            self.write_structure(&mut bits);
        }
        if custom == 1 {
            wanted
                .indications
                .iter()
                .for_each(|indication| bits.put(u32::from(*indication), 2));
            for distance in &wanted.distances {
                bits.put(2, 2);
                bits.put(distance - 1, 8);
            }
            bits.put(0, 2);
            wanted.chains.iter().for_each(|chain| bits.put(*chain, 8));
        }
        bits.bytes
    }

    fn write_structure(&self, bits: &mut Bits) {
        let targets = u32::from(self.spatial.layers() * self.temporal);
        bits.put(0, 6);
        bits.put(targets - 1, 5);
        for (at, template) in self.templates.iter().enumerate() {
            let next = match self.templates.get(at + 1) {
                None => 3,
                Some(next) if next.spatial > template.spatial => 2,
                Some(next) if next.temporal > template.temporal => 1,
                Some(_) => 0,
            };
            bits.put(next, 2);
        }
        for template in &self.templates {
            template
                .indications
                .iter()
                .for_each(|indication| bits.put(u32::from(*indication), 2));
        }
        for template in &self.templates {
            for distance in &template.distances {
                bits.put(1, 1);
                bits.put(distance - 1, 4);
            }
            bits.put(0, 1);
        }
        let chains = u32::from(self.spatial.layers());
        bits.put_non_symmetric(chains, targets + 1);
        for target in 0..targets {
            bits.put_non_symmetric(target / u32::from(self.temporal), chains);
        }
        for template in &self.templates {
            template.chains.iter().for_each(|chain| bits.put(*chain, 4));
        }
        bits.put(1, 1);
        for (width, height) in &self.sizes {
            bits.put(u32::from(*width - 1), 16);
            bits.put(u32::from(*height - 1), 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use patchbay::rtp::dependency_descriptor::Descriptor;

    use super::*;

    #[test]
    fn every_frame_of_l3t3_is_read_as_it_was_meant() {
        for spatial in [Spatial::Full(3), Spatial::KeyOnly(3)] {
            let mut descriptors = Descriptors::new(spatial, 3);
            let mut structure = None;
            let mut references = [0, 0];
            for picture in 0..40u32 {
                let place = (picture % 4) as u8;
                let position = Position {
                    temporal: temporal_layer(3, place),
                    place,
                    keyframe: picture == 0,
                };
                let count = if picture == 0 { 0 } else { 1 + usize::from(place == 3) };
                let earlier: Vec<u32> = references.iter().take(count).copied().collect();
                for layer in 0..3 {
                    let below = layer > 0 && (picture == 0 || spatial == Spatial::Full(3));
                    let bytes = descriptors.write((position, layer, picture), (true, true), &earlier, below);
                    let mut new = None;
                    let read = Descriptor::parse(&bytes, structure.as_ref(), &mut new).expect("a descriptor");
                    assert_eq!(
                        (read.spatial, read.temporal, u32::from(read.frame_number)),
                        (layer, position.temporal, picture * 3 + u32::from(layer))
                    );
                    let mut distances: Vec<u32> = earlier.iter().map(|earlier| (picture - earlier) * 3).collect();
                    distances.extend(below.then_some(1));
                    assert_eq!(read.frame_diffs.iter().map(u32::from).collect::<Vec<_>>(), distances);
                    if let Some(new) = new {
                        assert_eq!((new.decode_targets, new.chains), (9, 3));
                        structure = Some(new);
                    }
                }
                match position.temporal {
                    0 => references[0] = picture,
                    1 => references[1] = picture,
                    _ => {}
                }
            }
        }
    }
}
