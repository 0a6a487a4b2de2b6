//! The dependency descriptor header extension (AV1 RTP specification, appendix A), used with AV1, VP9 and VP8.
//!
//! A key frame's first packet carries the template structure; later packets only name a template. So the caller keeps
//! the newest [`Structure`] of each encoding and hands it to [`Descriptor::parse`]. Nothing is allocated.

use super::FrameInfo;
use super::bits::{BitReader, BitWriter};
use crate::types::DropReason;

/// Limits of the syntax (A.8.3): six bits of template id, five of decode target count.
pub const MAX_TEMPLATES: usize = 64;
pub const MAX_DECODE_TARGETS: usize = 32;
/// Highest ids that are accepted, those of libwebrtc.
const MAX_TEMPORAL_ID: u8 = 7;
const MAX_SPATIAL_ID: u8 = 3;
const MAX_RESOLUTIONS: usize = MAX_SPATIAL_ID as usize + 1;
/// Frames that one frame refers to: an AV1 frame has seven references. More is `Malformed`.
pub const MAX_FRAME_DIFFS: usize = 8;

/// What a frame is to a decode target (A.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indication {
    NotPresent,
    /// Part of the target, and nothing else of it depends on the frame.
    Discardable,
    /// The target can be entered here.
    Switch,
    /// Part of the target, and others may depend on it.
    Required,
}

/// One [`Indication`] per decode target, packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indications(u64);

impl Indications {
    pub fn of(self, target: u8) -> Indication {
        match self.0.checked_shr(u32::from(target) * 2).unwrap_or(0) & 3 {
            0 => Indication::NotPresent,
            1 => Indication::Discardable,
            2 => Indication::Switch,
            _ => Indication::Required,
        }
    }

    fn read(bits: &mut BitReader<'_>, targets: u8) -> Option<Self> {
        let mut packed = 0;
        for target in 0..u32::from(targets) {
            packed |= u64::from(bits.bits(2)?) << (target * 2);
        }
        Some(Self(packed))
    }

    /// Whether some decode target can be entered here.
    pub fn any_switch(self) -> bool {
        // Switch is binary 10: the upper bit of a pair without the lower.
        let upper = self.0 >> 1 & 0x5555_5555_5555_5555;
        upper & !self.0 != 0
    }
}

/// Distances, in frame numbers, to the frames this frame refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameDiffs {
    diffs: [u16; MAX_FRAME_DIFFS],
    len: u8,
}

impl FrameDiffs {
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.diffs.iter().copied().take(usize::from(self.len))
    }

    fn push(&mut self, diff: u32) -> Option<()> {
        *self.diffs.get_mut(usize::from(self.len))? = u16::try_from(diff).ok()?;
        self.len += 1;
        Some(())
    }
}

/// One frame dependency template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub spatial: u8,
    pub temporal: u8,
    pub indications: Indications,
    pub frame_diffs: FrameDiffs,
    /// Per chain: distance to the previous frame of it; 0 = the chain starts here.
    pub chain_diffs: [u8; MAX_DECODE_TARGETS],
}

/// What a key frame says about all frames up to the next key frame. Some 4 KiB, kept once per encoding: a size that the
/// syntax bounds needs no allocation at every key frame, nor at every subscriber that is shown one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    template_id_offset: u8,
    /// 1..=32.
    pub decode_targets: u8,
    /// At most [`MAX_DECODE_TARGETS`]; 0 = chains are not used.
    pub chains: u8,
    /// The chain that protects each decode target, when there are chains.
    pub protected_by: [u8; MAX_DECODE_TARGETS],
    /// Highest (spatial, temporal) id of each decode target.
    pub target_layers: [(u8, u8); MAX_DECODE_TARGETS],
    templates: [Template; MAX_TEMPLATES],
    template_count: u8,
    resolutions: [(u16, u16); MAX_RESOLUTIONS],
    resolution_count: u8,
}

impl Structure {
    /// A bit for each decode target: all active.
    pub fn all_decode_targets(&self) -> u32 {
        u32::MAX.checked_shr(32 - u32::from(self.decode_targets)).unwrap_or(0)
    }

    pub fn templates(&self) -> &[Template] {
        self.templates
            .get(..usize::from(self.template_count))
            .unwrap_or_default()
    }

    /// Width and height per spatial id; empty when not sent.
    pub fn resolutions(&self) -> &[(u16, u16)] {
        self.resolutions
            .get(..usize::from(self.resolution_count))
            .unwrap_or_default()
    }

    fn template(&self, id: u8) -> Option<&Template> {
        let index = (id + 64 - self.template_id_offset) % 64; // both have six bits
        self.templates().get(usize::from(index))
    }

    fn read(bits: &mut BitReader<'_>) -> Option<Self> {
        let template_id_offset = bits.bits(6)? as u8;
        let decode_targets = bits.bits(5)? as u8 + 1;
        let mut all = [Template::default(); MAX_TEMPLATES];
        let template_count = template_layers(bits, &mut all)?;
        let templates = all.get_mut(..usize::from(template_count))?;
        for template in templates.iter_mut() {
            template.indications = Indications::read(bits, decode_targets)?;
        }
        for template in templates.iter_mut() {
            while bits.flag()? {
                template.frame_diffs.push(bits.bits(4)? + 1)?;
            }
        }
        let chains = bits.non_symmetric(u32::from(decode_targets) + 1)? as u8;
        let mut protected_by = [0; MAX_DECODE_TARGETS];
        if chains > 0 {
            for chain in protected_by.iter_mut().take(usize::from(decode_targets)) {
                *chain = bits.non_symmetric(u32::from(chains))? as u8;
            }
            for template in templates.iter_mut() {
                for diff in template.chain_diffs.iter_mut().take(usize::from(chains)) {
                    *diff = bits.bits(4)? as u8;
                }
            }
        }
        let mut target_layers = [(0, 0); MAX_DECODE_TARGETS];
        for (target, layer) in (0..decode_targets).zip(&mut target_layers) {
            for template in templates.iter() {
                if template.indications.of(target) != Indication::NotPresent {
                    *layer = (layer.0.max(template.spatial), layer.1.max(template.temporal));
                }
            }
        }
        let mut resolutions = [(0, 0); MAX_RESOLUTIONS];
        let mut resolution_count = 0;
        if bits.flag()? {
            let highest = templates.iter().map(|template| template.spatial).max()?;
            for resolution in resolutions.iter_mut().take(usize::from(highest) + 1) {
                // The fields are «minus one»; 65536 is not a size we can tell from 65535.
                let size = (bits.bits(16)? as u16, bits.bits(16)? as u16);
                *resolution = (size.0.saturating_add(1), size.1.saturating_add(1));
                resolution_count += 1;
            }
        }
        Some(Self {
            template_id_offset,
            decode_targets,
            chains,
            protected_by,
            target_layers,
            templates: all,
            template_count,
            resolutions,
            resolution_count,
        })
    }
}

/// A.8.3, `template_layers`: each entry says how its successor differs. How many there are; None for more than fit.
fn template_layers(bits: &mut BitReader<'_>, templates: &mut [Template; MAX_TEMPLATES]) -> Option<u8> {
    let (mut spatial, mut temporal) = (0, 0);
    for (count, template) in (1..).zip(templates) {
        template.spatial = spatial;
        template.temporal = temporal;
        match bits.bits(2)? {
            0 => {}
            1 => temporal += 1,
            2 => (spatial, temporal) = (spatial + 1, 0),
            _ => return Some(count),
        }
        if spatial > MAX_SPATIAL_ID || temporal > MAX_TEMPORAL_ID {
            return None;
        }
    }
    None
}

/// One packet's descriptor, resolved against its structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of the frame.
    pub start: bool,
    /// Last packet of the frame.
    pub end: bool,
    pub template_id: u8,
    /// Counts frames of all layers; wraps at 16 bits.
    pub frame_number: u16,
    pub spatial: u8,
    pub temporal: u8,
    pub indications: Indications,
    pub frame_diffs: FrameDiffs,
    /// Per chain of the structure.
    pub chain_diffs: [u8; MAX_DECODE_TARGETS],
    /// Of the frame, when the structure has resolutions.
    pub resolution: Option<(u16, u16)>,
    /// A bit per decode target (target 0 lowest), on packets that change it; stays in force until the next one. A new
    /// structure makes all targets active.
    pub active_decode_targets: Option<u32>,
    /// It brings a new structure: the first packet of a key frame.
    pub has_structure: bool,
    /// Of that structure, when it says sizes.
    pub largest: Option<(u16, u16)>,
}

/// Where the parts of a descriptor are, in bits.
struct Layout {
    extended: bool,
    structure_end: usize,
    mask_end: usize,
    end: usize,
    /// structure, active, custom dtis, fdiffs, chains.
    flags: [bool; 5],
}

impl Descriptor {
    /// `known` is the structure of the encoding's last key frame. Where the packet brings a new one, it is put into `new`.
    ///
    /// # Errors
    /// `Truncated` below three bytes; `AwaitingKeyframe` when the packet neither carries nor has a structure;
    /// `Malformed` when it names no template of it or the bits end.
    pub fn parse(value: &[u8], known: Option<&Structure>, new: &mut Option<Structure>) -> Result<Self, DropReason> {
        Self::read(value, known, new).map(|(descriptor, _)| descriptor)
    }

    fn read(
        value: &[u8],
        known: Option<&Structure>,
        new: &mut Option<Structure>,
    ) -> Result<(Self, Layout), DropReason> {
        let [head, high, low, ..] = *value else {
            return Err(DropReason::Truncated);
        };
        let mut bits = BitReader::new(value);
        bits.skip(24).ok_or(DropReason::Truncated)?;
        let extended = value.len() > 3;
        let mut flags = [false; 5];
        if extended {
            for flag in &mut flags {
                *flag = bits.flag().ok_or(DropReason::Malformed)?;
            }
        }
        let [has_structure, has_mask, custom_dtis, custom_fdiffs, custom_chains] = flags;
        let own = if has_structure {
            Some(&*new.insert(Structure::read(&mut bits).ok_or(DropReason::Malformed)?))
        } else {
            None
        };
        let structure_end = bits.position();
        let structure = own.or(known).ok_or(DropReason::AwaitingKeyframe)?;
        let rest = Self::definition(
            &mut bits,
            structure,
            head & 0x3f,
            [has_mask, custom_dtis, custom_fdiffs, custom_chains],
        )
        .ok_or(DropReason::Malformed)?;
        let (template, mask, mask_end) = rest;
        let layout = Layout {
            extended,
            structure_end,
            mask_end,
            end: bits.position(),
            flags,
        };
        let all = has_structure.then(|| structure.all_decode_targets());
        let descriptor = Self {
            start: head & 0x80 != 0,
            end: head & 0x40 != 0,
            template_id: head & 0x3f,
            frame_number: u16::from_be_bytes([high, low]),
            spatial: template.spatial,
            temporal: template.temporal,
            indications: template.indications,
            frame_diffs: template.frame_diffs,
            chain_diffs: template.chain_diffs,
            resolution: structure.resolutions().get(usize::from(template.spatial)).copied(),
            active_decode_targets: mask.or(all),
            has_structure,
            largest: own.and_then(|own| own.resolutions().last().copied()),
        };
        Ok((descriptor, layout))
    }

    /// The mask and the frame dependency definition (A.8.2): the named template, with what the packet replaces in it.
    fn definition(
        bits: &mut BitReader<'_>,
        structure: &Structure,
        template_id: u8,
        [has_mask, custom_dtis, custom_fdiffs, custom_chains]: [bool; 4],
    ) -> Option<(Template, Option<u32>, usize)> {
        let mask = if has_mask {
            Some(bits.bits(u32::from(structure.decode_targets))?)
        } else {
            None
        };
        let mask_end = bits.position();
        let mut template = *structure.template(template_id)?;
        if custom_dtis {
            template.indications = Indications::read(bits, structure.decode_targets)?;
        }
        if custom_fdiffs {
            template.frame_diffs = FrameDiffs::default();
            loop {
                match bits.bits(2)? {
                    0 => break,
                    nibbles => template.frame_diffs.push(bits.bits(nibbles * 4)? + 1)?,
                }
            }
        }
        if custom_chains {
            for diff in template.chain_diffs.iter_mut().take(usize::from(structure.chains)) {
                *diff = bits.bits(8)? as u8;
            }
        }
        Some((template, mask, mask_end))
    }

    /// The answer to the question asked of all codecs. Decode targets say more than its layers.
    pub fn frame_info(&self) -> FrameInfo {
        let keyframe = self.has_structure;
        FrameInfo {
            keyframe,
            start: self.start,
            end: self.end,
            spatial: self.spatial,
            temporal: self.temporal,
            switch_point: keyframe || self.indications.any_switch(),
            dimensions: self.largest,
        }
    }
}

/// Overwrites the frame number of an encoded descriptor.
pub fn patch_frame_number(value: &mut [u8], frame_number: u16) {
    if let Some(target) = value.get_mut(1..).and_then(|rest| rest.first_chunk_mut()) {
        *target = frame_number.to_be_bytes();
    }
}

/// Writes the descriptor `value` with the decode targets `mask` (a bit each, target 0 lowest) to the front of `out`, and
/// returns its length: at most five bytes more than `value`.
///
// LiveKit: a decoder that is sent fewer layers than the structure has must be told, or it waits for the missing ones.
///
/// # Errors
/// Those of [`Descriptor::parse`]; `TooLarge` when `out` is too short.
pub fn write_active_decode_targets(
    value: &[u8],
    known: Option<&Structure>,
    mask: u32,
    out: &mut [u8],
) -> Result<usize, DropReason> {
    let mut new = None;
    let (_, layout) = Descriptor::read(value, known, &mut new)?;
    let structure = new.as_ref().or(known).ok_or(DropReason::AwaitingKeyframe)?;
    let targets = structure.decode_targets;
    let mut source = BitReader::new(value);
    let mut target = BitWriter::new(out);
    copy(&mut source, &mut target, 24)?;
    let [has_structure, _, custom @ ..] = layout.flags;
    target.flag(has_structure)?;
    target.flag(true)?;
    for flag in custom {
        target.flag(flag)?;
    }
    if layout.extended {
        source.skip(5).ok_or(DropReason::Malformed)?;
        copy(&mut source, &mut target, layout.structure_end.saturating_sub(29))?;
        source
            .skip(layout.mask_end.saturating_sub(layout.structure_end))
            .ok_or(DropReason::Malformed)?;
    }
    target.bits(mask, u32::from(targets))?;
    copy(&mut source, &mut target, layout.end.saturating_sub(layout.mask_end))?;
    Ok(target.len())
}

fn copy(source: &mut BitReader<'_>, target: &mut BitWriter<'_>, count: usize) -> Result<(), DropReason> {
    for _ in 0..count {
        target.flag(source.flag().ok_or(DropReason::Malformed)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
