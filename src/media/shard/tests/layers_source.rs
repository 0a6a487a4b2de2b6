//! Layered cameras, packet by packet, and what a receiver of theirs makes of what it gets.

use std::collections::BTreeMap;

use super::world::*;
use crate::rtp::dependency_descriptor::{Descriptor, Structure};
use crate::rtp::{RtpHeader, vp8};
use crate::types::{Extension, Pt, Ssrc};

/// The payload type of whatever has a descriptor or is VP9.
pub const SVC: Pt = Pt(98);

/// VP8 with three temporal layers, 0 2 1 2. The Y bit is on every eighth T1 and on the T2 behind it, as in libvpx.
pub fn temporal(at: u32) -> (u8, bool) {
    let id = [0, 2, 1, 2][at as usize % 4];
    (id, id > 0 && at % 8 < 4)
}

/// One packet of frame `at`, whose number stands in the last bytes.
pub fn vp8_layered(at: u32, key: bool, part: u8) -> Vec<u8> {
    let (id, sync) = temporal(at);
    let picture = at as u16 & 0x7fff;
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let mut payload = vec![0x80 | u8::from(part == 0) << 4, 0xf0, high, low, (at / 4) as u8];
    payload.push(id << 6 | u8::from(sync || key) << 5);
    payload.push(u8::from(!(key && part == 0)));
    payload.resize(100 + usize::from(part), 7);
    payload.extend(at.to_be_bytes());
    payload
}

pub fn header(pt: Pt, ssrc: u32, sequence: u16, frame: u32, marker: bool) -> RtpHeader {
    RtpHeader {
        marker,
        pt,
        sequence,
        timestamp: frame.wrapping_mul(3000),
        ssrc: Ssrc(ssrc),
    }
}

pub fn frame_of(packet: &Got) -> u32 {
    u32::from_be_bytes(*packet.rtp().payload().last_chunk().unwrap())
}

/// By sequence number, unwrapped.
pub fn ordered(packets: &[Got]) -> Vec<(i64, Got)> {
    let first = packets[0].sequence();
    let number = |packet: &Got| i64::from(packet.sequence().wrapping_sub(first) as i16);
    let sorted: BTreeMap<i64, Got> = packets.iter().map(|packet| (number(packet), packet.clone())).collect();
    assert_eq!(sorted.len(), packets.len(), "a number twice");
    sorted.into_iter().collect()
}

/// What a VP8 receiver insists on. `holes`: sequence numbers may be missing. Returns the publisher's numbers of the frames.
pub fn check_vp8(packets: &[Got], holes: bool) -> Vec<u32> {
    let packets = ordered(packets);
    let mut frames: Vec<u32> = Vec::new();
    let mut last: Option<(i64, u32, u16, u8, bool)> = None;
    for (number, packet) in &packets {
        let rtp = packet.rtp();
        let descriptor = vp8::Descriptor::parse(rtp.payload()).unwrap();
        let (picture, tl0) = (descriptor.picture_id.unwrap().value(), descriptor.tl0_pic_idx.unwrap());
        let is_base = descriptor.temporal == Some(0);
        if let Some((before, timestamp, last_picture, last_tl0, ended)) = last {
            assert!(holes || *number == before + 1, "{before} {number}");
            if rtp.timestamp() == timestamp {
                assert_eq!((picture, tl0), (last_picture, last_tl0), "one frame");
                assert!(!ended, "nothing behind the marker");
            } else {
                assert!(holes || ended, "the marker ends a frame");
                assert!((rtp.timestamp().wrapping_sub(timestamp) as i32) > 0);
                let step = picture.wrapping_sub(last_picture) & 0x7fff;
                assert!(step == 1 || holes && step < 30, "picture {last_picture} {picture}");
                let tl0_step = tl0.wrapping_sub(last_tl0);
                assert!(tl0_step == u8::from(is_base) || holes, "TL0PICIDX {last_tl0} {tl0}");
            }
        }
        last = Some((*number, rtp.timestamp(), picture, tl0, rtp.marker()));
        let frame = frame_of(packet);
        if frames.last() != Some(&frame) {
            frames.push(frame);
        }
    }
    frames
}

/// Whether the frames, in the layers of `temporal`, can be decoded; those of `keys` stand alone.
pub fn check_decodable(frames: &[u32], keys: &[u32]) {
    let since = |frame: u32| keys.iter().filter(|key| **key <= frame).max().copied().unwrap();
    for frame in frames.iter().filter(|frame| !keys.contains(frame)) {
        let (id, sync) = temporal(*frame);
        let needed: &[u32] = match (id, sync) {
            (0, _) => &[4],
            (1, true) => &[2],
            (1, false) => &[2, 4],
            (_, true) => &[1],
            (_, false) => &[1, 2],
        };
        for back in needed {
            // What T2 refers to may itself be of T1 or of T0; before the key frame there is nothing.
            let reference = frame - back;
            let missing = reference >= since(*frame) && !frames.contains(&reference);
            assert!(!missing, "{frame} (T{id}) needs {reference} of {frames:?}");
        }
    }
}

/// Bits of a dependency descriptor.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, count: u32, value: u32) {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
    }

    /// `ns(n)` of the AV1 RTP specification, A.8.2.
    fn non_symmetric(&mut self, limit: u32, value: u32) {
        let width = u32::BITS - limit.leading_zeros();
        let short = (1 << width) - limit;
        if value < short {
            self.put(width - 1, value);
        } else {
            self.put(width, value + short);
        }
    }

    fn bytes(self) -> Vec<u8> {
        let byte = |bits: &[bool]| (0..8).fold(0, |byte, at| byte << 1 | u8::from(bits.get(at) == Some(&true)));
        self.0.chunks(8).map(byte).collect()
    }
}

/// A source with spatial and temporal layers inside one stream, described by the dependency descriptor.
pub struct Scalable {
    pub spatial: u32,
    pub temporal: u32,
    /// Upper spatial layers are predicted from lower ones at key frames only.
    pub key_only: bool,
    pub picture: u32,
    frame_number: u16,
    pub sequence: u16,
    /// Frame number of the last frame of each chain.
    chains: Vec<u16>,
    pub ssrc: u32,
    pub rid: &'static str,
    pub pt: Pt,
    /// Decode targets that it says it sends, a bit each, with its key frames.
    pub active: Option<u32>,
    /// A video layers allocation for the next packet.
    pub announcement: Option<Vec<u8>>,
    /// So many spatial layers are sent.
    pub sent: u32,
}

impl Scalable {
    pub fn new(spatial: u32, temporal: u32, key_only: bool) -> Self {
        Self {
            spatial,
            temporal,
            key_only,
            picture: 0,
            frame_number: 65_530, // wraps soon
            sequence: 100,
            chains: vec![0; spatial as usize],
            ssrc: 7,
            rid: "",
            pt: SVC,
            active: None,
            announcement: None,
            sent: spatial,
        }
    }

    fn indication(&self, of: (u32, u32), target: (u32, u32), key: bool) -> u32 {
        let ((spatial, temporal), (target_spatial, target_temporal)) = (of, target);
        let inter = !self.key_only || key;
        if target_spatial < spatial || target_temporal < temporal || target_spatial > spatial && !inter {
            0
        } else if key || temporal == 0 && target_spatial == spatial {
            2
        } else if target_spatial > spatial {
            3
        } else if temporal == target_temporal {
            1
        } else {
            2
        }
    }

    fn layers(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (spatial, temporal) = (self.spatial, self.temporal);
        (0..spatial).flat_map(move |s| (0..temporal).map(move |t| (s, t)))
    }

    fn structure(&self, bits: &mut Bits) {
        let targets = self.spatial * self.temporal;
        bits.put(6, 0);
        bits.put(5, targets - 1);
        for (s, t) in self.layers() {
            let next = if t + 1 < self.temporal {
                1
            } else if s + 1 < self.spatial {
                2
            } else {
                3
            };
            bits.put(2, next);
        }
        for of in self.layers() {
            for target in self.layers() {
                bits.put(2, self.indication(of, target, false));
            }
        }
        for _ in 0..targets {
            bits.put(1, 0); // references are not modelled: chains say what is needed
        }
        bits.non_symmetric(targets + 1, self.spatial);
        for (s, _) in self.layers() {
            bits.non_symmetric(self.spatial, s);
        }
        for _ in self.layers() {
            for _ in 0..self.spatial {
                bits.put(4, 1); // every packet writes its own
            }
        }
        bits.put(1, 0);
    }

    /// The descriptor of a frame's packet.
    fn descriptor(&self, of: (u32, u32), key: bool, start: bool, end: bool) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.put(1, u32::from(start));
        bits.put(1, u32::from(end));
        bits.put(6, of.0 * self.temporal + of.1);
        bits.put(16, u32::from(self.frame_number));
        let has_structure = key && of.0 == 0 && start;
        let active = self.active.filter(|_| has_structure);
        for flag in [has_structure, active.is_some(), key, false, true] {
            bits.put(1, u32::from(flag));
        }
        if has_structure {
            self.structure(&mut bits);
        }
        if let Some(active) = active {
            // The highest target's bit comes first.
            bits.put(self.spatial * self.temporal, active);
        }
        if key {
            for target in self.layers() {
                bits.put(2, self.indication(of, target, true));
            }
        }
        for last in &self.chains {
            let starts = key && of.0 == 0;
            let diff = if starts {
                0
            } else {
                self.frame_number.wrapping_sub(*last)
            };
            bits.put(8, u32::from(diff));
        }
        bits.bytes()
    }

    /// One picture of all layers, two packets a frame.
    pub fn send(&mut self, world: &mut World, peer: usize, key: bool) {
        let pattern: &[u32] = match self.temporal {
            1 => &[0],
            2 => &[0, 1],
            _ => &[0, 2, 1, 2],
        };
        let t = if key {
            0
        } else {
            pattern[self.picture as usize % pattern.len()]
        };
        if key {
            self.picture = 0;
        }
        for s in 0..self.sent {
            for part in 0..2 {
                let descriptor = self.descriptor((s, t), key, part == 0, part == 1);
                let marker = s + 1 == self.sent && part == 1;
                let at = world_ticks(world);
                let mut header = header(self.pt, self.ssrc, self.sequence, 0, marker);
                header.timestamp = at;
                let mut elements = vec![
                    (Extension::Mid, &b"1"[..]),
                    (Extension::DependencyDescriptor, &descriptor[..]),
                ];
                if !self.rid.is_empty() {
                    elements.push((Extension::Rid, self.rid.as_bytes()));
                }
                let announcement = self.announcement.take();
                if let Some(value) = &announcement {
                    elements.push((Extension::VideoLayersAllocation, value));
                }
                let mut payload = vec![0x10; 200 + 200 * s as usize];
                payload.extend([s as u8, t as u8, u8::from(key), part]);
                world.send(peer, header, &elements, &payload);
                self.sequence = self.sequence.wrapping_add(1);
            }
            if t == 0 {
                let upper = self.chains.len();
                let range = if self.key_only && !key {
                    s as usize..s as usize + 1
                } else {
                    s as usize..upper
                };
                for chain in &mut self.chains[range] {
                    *chain = self.frame_number;
                }
            }
            self.frame_number = self.frame_number.wrapping_add(1);
        }
        self.picture += 1;
    }
}

/// 90 kHz, the same for all sources of a world.
pub fn world_ticks(world: &World) -> u32 {
    let passed = world.now.duration_since(world.start);
    (passed.as_micros() * 9 / 100) as u32
}

/// A layer frame as it was received.
#[derive(Clone, Debug)]
pub struct LayerFrame {
    pub spatial: u8,
    pub temporal: u8,
    pub mask: Option<u32>,
}

/// What a receiver of a described stream insists on: numbers without a gap, whole frames, the marker on the last frame of
/// each picture and nowhere else, frame numbers that rise, and for the highest spatial layer of each picture a whole
/// chain.
pub fn check_described(packets: &[Got]) -> Vec<LayerFrame> {
    let mut structure: Option<Structure> = None;
    let mut frames: Vec<LayerFrame> = Vec::new();
    let mut received: Vec<u16> = Vec::new();
    let mut last: Option<(i64, u32, bool)> = None;
    let packets = ordered(packets);
    for (at, (number, packet)) in packets.iter().enumerate() {
        let rtp = packet.rtp();
        if let Some((before, timestamp, marker)) = last {
            assert_eq!(*number, before + 1);
            assert_eq!(
                marker,
                timestamp != rtp.timestamp(),
                "the marker ends a picture, at {at}"
            );
            assert!((rtp.timestamp().wrapping_sub(timestamp) as i32) >= 0);
        }
        last = Some((*number, rtp.timestamp(), rtp.marker()));
        let mut new = None;
        let descriptor = Descriptor::parse(rtp.extension(12).unwrap(), structure.as_ref(), &mut new).unwrap();
        let part = *rtp.payload().last().unwrap();
        assert_eq!(descriptor.start, part == 0);
        if !descriptor.start {
            assert_eq!(received.last(), Some(&descriptor.frame_number), "whole frames");
            continue;
        }
        if let Some(before) = received.last() {
            let step = descriptor.frame_number.wrapping_sub(*before);
            assert!((1..1000).contains(&step), "{before} {}", descriptor.frame_number);
        }
        if new.is_some() {
            structure = new;
            received.clear();
        }
        let next = packets[at..]
            .iter()
            .find(|(_, next)| next.rtp().timestamp() != rtp.timestamp());
        let ends_picture = packets
            .get(at + 2)
            .is_none_or(|(_, after)| after.rtp().timestamp() != rtp.timestamp());
        if ends_picture && next.is_some() {
            let diff = u16::from(descriptor.chain_diffs[usize::from(descriptor.spatial)]);
            let needed = descriptor.frame_number.wrapping_sub(diff);
            assert!(diff == 0 || received.contains(&needed), "the chain is whole, at {at}");
        }
        received.push(descriptor.frame_number);
        frames.push(LayerFrame {
            spatial: descriptor.spatial,
            temporal: descriptor.temporal,
            mask: descriptor.active_decode_targets,
        });
    }
    frames
}
