//! Synthetic streams: payloads that are valid for their codec and say at their end which part of which frame they are and
//! what the frame depends on, so that a receiver can tell exactly what could be decoded.
//!
//! Rates, frame sizes and temporal patterns are those of a browser's encoders; see [`Shape`].

use std::time::Duration;

use patchbay::types::{Codec, MediaKind};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::dependencies::{Descriptors, Position};

/// References of one frame: a key frame has none, a VP9 or AV1 frame here has at most two in time and one in space.
pub const MAX_REFERENCES: usize = 3;
/// RTP payload of a full video packet.
const MAX_PAYLOAD: usize = 1150;
/// 20 ms of Opus at 32 kbit/s.
pub const VOICE_PAYLOAD: usize = 80;

/// What the receiver finds at the end of each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    pub encoding: u8,
    /// Of SVC; 0 in simulcast, where `encoding` tells the layer.
    pub spatial: u8,
    pub temporal: u8,
    pub keyframe: bool,
    /// Counts the pictures of an encoding.
    pub frame: u32,
    pub part: u16,
    pub parts: u16,
    /// The last unit of its picture that the publisher sent.
    pub completes: bool,
    /// Microseconds since the source began.
    pub captured: u64,
    /// Units this one cannot be decoded without; see [`Tag::unit`].
    pub references: [Option<u32>; MAX_REFERENCES],
}

const TAG_MAGIC: [u8; 4] = *b"PBtg";
const TAG_LENGTH: usize = 4 + 4 + 4 + 4 + 8 + 4 * MAX_REFERENCES;

impl Tag {
    /// One layer of one picture, within its encoding.
    pub fn unit(&self) -> u32 {
        self.frame * 4 + u32::from(self.spatial)
    }

    fn append(self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&TAG_MAGIC);
        let flags = u8::from(self.keyframe) | u8::from(self.completes) << 1;
        payload.extend_from_slice(&[self.encoding, self.spatial, self.temporal, flags]);
        payload.extend_from_slice(&self.frame.to_be_bytes());
        payload.extend_from_slice(&self.part.to_be_bytes());
        payload.extend_from_slice(&self.parts.to_be_bytes());
        payload.extend_from_slice(&self.captured.to_be_bytes());
        for reference in self.references {
            payload.extend_from_slice(&reference.unwrap_or(u32::MAX).to_be_bytes());
        }
    }

    /// None for payloads that no synthetic source made (silence, blank frames).
    pub fn read(payload: &[u8]) -> Option<Self> {
        let tail = payload.get(payload.len().checked_sub(TAG_LENGTH)?..)?;
        let rest = tail.strip_prefix(&TAG_MAGIC)?;
        let u16_at = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        Some(Self {
            encoding: rest[0],
            spatial: rest[1],
            temporal: rest[2],
            keyframe: rest[3] & 1 != 0,
            completes: rest[3] & 2 != 0,
            frame: u32_at(4),
            part: u16_at(8),
            parts: u16_at(10),
            captured: u64::from(u32_at(12)) << 32 | u64::from(u32_at(16)),
            references: std::array::from_fn(|index| Some(u32_at(20 + 4 * index)).filter(|unit| *unit != u32::MAX)),
        })
    }

    /// The tags of the redundant blocks of a RED packet (RFC 2198 §3), newest last.
    pub fn read_redundant(payload: &[u8]) -> Vec<Self> {
        let mut lengths = Vec::new();
        let mut at = 0;
        while let Some([first, _, high, low]) = payload.get(at..at + 4)
            && first & 0x80 != 0
        {
            lengths.push(usize::from(high & 3) << 8 | usize::from(*low));
            at += 4;
        }
        at += 1;
        let mut tags = Vec::new();
        for length in lengths {
            tags.extend(payload.get(at..at + length).and_then(Self::read));
            at += length;
        }
        tags
    }
}

/// How frames of a scalable stream depend on each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spatial {
    /// One spatial layer.
    Single,
    /// L3: every upper layer also on the layer below it in the same picture.
    Full(u8),
    /// L3_KEY: the same for key pictures only.
    KeyOnly(u8),
}

impl Spatial {
    pub fn layers(self) -> u8 {
        match self {
            Self::Single => 1,
            Self::Full(layers) | Self::KeyOnly(layers) => layers,
        }
    }
}

/// What an encoder puts out.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub interval: Duration,
    /// Bits per second by spatial layer, each alone, without headers. Ignored for audio.
    pub rates: Vec<u64>,
    pub spatial: Spatial,
    /// 1..=3.
    pub temporal: u8,
    /// Frame sizes vary by this factor up and down.
    pub variation: f64,
    /// A key frame in usual frames, from and to.
    pub keyframe: (f64, f64),
    /// Of every frame, instead of the rate: the packets and their payload size.
    pub fixed: Option<(u16, usize)>,
    /// A large frame in place of a usual one: how often, and of how many packets.
    pub burst: Option<(Duration, u16)>,
    /// Dependency descriptors are sent.
    pub described: bool,
    /// Audio: speech and silence alternate; in silence a packet comes every 400 ms.
    pub dtx: bool,
}

impl Shape {
    /// The same packets for each frame, no temporal layers: for stories that count packets.
    pub fn plain(codec: Codec, encoding: u8) -> Self {
        Self {
            interval: match codec.kind() {
                MediaKind::Audio => Duration::from_millis(20),
                MediaKind::Video => Duration::from_nanos(33_333_333),
            },
            rates: vec![100_000],
            spatial: Spatial::Single,
            temporal: 1,
            variation: 1.0,
            keyframe: (1.0, 1.0),
            fixed: Some(match codec.kind() {
                MediaKind::Audio => (1, VOICE_PAYLOAD),
                MediaKind::Video => (3, 300 + 200 * usize::from(encoding)),
            }),
            burst: None,
            described: false,
            dtx: false,
        }
    }

    /// One of the layers of a 720p30 camera as LiveKit's client sends them: 150, 500 and 1700 kbit/s, L1T3.
    pub fn camera(encoding: u8) -> Self {
        Self {
            rates: vec![[150_000, 500_000, 1_700_000][usize::from(encoding.min(2))]],
            temporal: 3,
            variation: 1.5,
            keyframe: (4.0, 6.0),
            fixed: None,
            ..Self::plain(Codec::Vp8, encoding)
        }
    }

    /// All layers of the same camera in one stream.
    pub fn scalable(spatial: Spatial) -> Self {
        Self {
            rates: vec![150_000, 350_000, 1_200_000],
            spatial,
            ..Self::camera(2)
        }
    }

    /// Five frames a second, mostly small; every four seconds much of the picture changes (40 packets).
    pub fn screen() -> Self {
        Self {
            interval: Duration::from_millis(200),
            rates: vec![120_000],
            temporal: 1,
            variation: 2.0,
            burst: Some((Duration::from_secs(4), 40)),
            ..Self::camera(0)
        }
    }

    /// 32 kbit/s.
    pub fn voice() -> Self {
        Self::plain(Codec::Opus, 0)
    }
}

/// One packet's payload and the dependency descriptor beside it.
#[derive(Clone, Debug)]
pub struct Part {
    pub payload: Vec<u8>,
    pub descriptor: Option<Vec<u8>>,
    pub marker: bool,
}

pub struct Frame {
    /// In the codec's clock.
    pub timestamp: u32,
    pub parts: Vec<Part>,
}

/// One RTP stream of a publisher.
pub struct Source {
    pub codec: Codec,
    pub encoding: u8,
    pub shape: Shape,
    /// The next key frame has this many packets.
    pub next_keyframe: Option<u16>,
    rng: SmallRng,
    /// Intervals since the source began, sent or not.
    tick: u64,
    frame: u32,
    timestamp: u32,
    picture_id: u16,
    tl0_picidx: u8,
    /// Place in the temporal pattern.
    place: u8,
    keyframe_wanted: bool,
    /// Frames of the temporal layers that later ones refer to, by layer.
    references: [Option<u32>; 2],
    descriptors: Descriptors,
    /// The packet before, for RED.
    redundant: Vec<u8>,
}

impl Source {
    pub fn new(codec: Codec, encoding: u8) -> Self {
        Self::shaped(codec, encoding, Shape::plain(codec, encoding), u64::from(encoding))
    }

    pub fn shaped(codec: Codec, encoding: u8, shape: Shape, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        Self {
            codec,
            encoding,
            next_keyframe: None,
            tick: 0,
            frame: 0,
            // As browsers do it: every stream has numbers of its own.
            timestamp: rng.random(),
            picture_id: rng.random(),
            tl0_picidx: rng.random(),
            place: 0,
            keyframe_wanted: true,
            references: [None; 2],
            descriptors: Descriptors::new(shape.spatial, shape.temporal),
            redundant: vec![0x78; VOICE_PAYLOAD],
            shape,
            rng,
        }
    }

    pub fn frame_interval(&self) -> Duration {
        self.shape.interval
    }

    pub fn request_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    /// The number of the next frame.
    pub fn frame(&self) -> u32 {
        self.frame
    }

    /// Time passes without a frame: the stream is switched off.
    pub fn skip_frame(&mut self) {
        self.tick += 1;
    }

    fn captured(&self) -> Duration {
        self.shape.interval * self.tick as u32
    }

    /// The next frame, or None where a silent microphone sends nothing.
    pub fn next_frame(&mut self) -> Option<Frame> {
        let captured = self.captured();
        let ticks = captured.as_nanos() * u128::from(self.codec.clock_rate()) / 1_000_000_000;
        // Intervals of 33,333,333 ns are a tick short after a while: rounded to what encoders count.
        let ticks = match self.codec.kind() {
            MediaKind::Video => (ticks + 1_500) / 3_000 * 3_000,
            MediaKind::Audio => ticks,
        };
        let timestamp = self.timestamp.wrapping_add(ticks as u32);
        let tick = self.tick;
        self.tick += 1;
        let parts = match self.codec.kind() {
            MediaKind::Audio => {
                // Two seconds of speech, then one and a half of silence.
                let silent = self.shape.dtx && tick % 175 >= 100;
                if silent && !(tick % 175 - 100).is_multiple_of(20) {
                    return None;
                }
                vec![self.sound(captured)]
            }
            MediaKind::Video => self.picture(captured),
        };
        self.frame += 1;
        Some(Frame { timestamp, parts })
    }

    fn sound(&mut self, captured: Duration) -> Part {
        let tag = Tag {
            encoding: self.encoding,
            spatial: 0,
            temporal: 0,
            keyframe: true,
            frame: self.frame,
            part: 0,
            parts: 1,
            completes: true,
            captured: captured.as_micros() as u64,
            references: [None; MAX_REFERENCES],
        };
        let (_, size) = self.shape.fixed.unwrap_or((1, VOICE_PAYLOAD));
        let mut block = if matches!(self.codec, Codec::Pcma | Codec::Pcmu) {
            Vec::new()
        } else {
            vec![0x78]
        };
        block.resize(size - TAG_LENGTH, 0x55);
        tag.append(&mut block);
        let mut payload = Vec::new();
        if self.codec == Codec::Red {
            // RFC 2198 §3: F, block type, 14 bits of timestamp offset, 10 bits of length; then the type of this packet's block.
            let head = 960 << 10 | self.redundant.len() as u32;
            payload.extend_from_slice(&[0x80 | 111, (head >> 16) as u8, (head >> 8) as u8, head as u8]);
            payload.push(111);
            payload.extend_from_slice(&self.redundant);
            self.redundant.clone_from(&block);
        }
        payload.extend_from_slice(&block);
        Part {
            payload,
            descriptor: None,
            marker: true,
        }
    }

    /// All layers of the next picture.
    fn picture(&mut self, captured: Duration) -> Vec<Part> {
        let keyframe = std::mem::take(&mut self.keyframe_wanted);
        if keyframe {
            self.place = 0;
        } else if self.frame > 0 {
            self.place = (self.place + 1) % (1 << (self.shape.temporal - 1));
        }
        let position = Position {
            temporal: temporal_layer(self.shape.temporal, self.place),
            place: self.place,
            keyframe,
        };
        if position.temporal == 0 {
            self.tl0_picidx = self.tl0_picidx.wrapping_add(1);
        }
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
        let earlier = self.earlier(position);
        let layers = self.shape.spatial.layers();
        let mut parts = Vec::new();
        for spatial in 0..layers {
            parts.extend(self.unit(position, spatial, &earlier, captured));
        }
        match position.temporal {
            0 => self.references = [Some(self.frame), None],
            1 if self.shape.temporal == 3 => self.references[1] = Some(self.frame),
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.marker = true;
        }
        parts
    }

    /// The pictures that this one refers to.
    fn earlier(&self, position: Position) -> Vec<u32> {
        if position.keyframe {
            return Vec::new();
        }
        // The last frame of L1T3's four refers to the middle one too.
        let both = position.temporal == 2 && position.place == 3;
        let count = if both { 2 } else { 1 };
        self.references.iter().take(count).flatten().copied().collect()
    }

    fn unit(&mut self, position: Position, spatial: u8, earlier: &[u32], captured: Duration) -> Vec<Part> {
        let keyframe = position.keyframe;
        let below = spatial > 0
            && match self.shape.spatial {
                Spatial::Single => false,
                Spatial::Full(_) => true,
                Spatial::KeyOnly(_) => keyframe,
            };
        let mut references = [None; MAX_REFERENCES];
        let earlier_units = earlier.iter().map(|frame| frame * 4 + u32::from(spatial));
        let below_unit = below.then(|| self.frame * 4 + u32::from(spatial) - 1);
        for (reference, unit) in references.iter_mut().zip(earlier_units.chain(below_unit)) {
            *reference = Some(unit);
        }
        let (parts, size) = self.size(position, spatial);
        let mut tag = Tag {
            encoding: self.encoding,
            spatial,
            temporal: position.temporal,
            keyframe,
            frame: self.frame,
            part: 0,
            parts,
            completes: spatial + 1 == self.shape.spatial.layers(),
            captured: captured.as_micros() as u64,
            references,
        };
        let descriptors = self.shape.described;
        (0..parts)
            .map(|part| {
                tag.part = part;
                let mut payload = self.header(tag, position, earlier, below);
                payload.resize(size.max(payload.len() + TAG_LENGTH) - TAG_LENGTH, 0x55);
                tag.append(&mut payload);
                let descriptor = descriptors.then(|| {
                    let unit = (position, spatial, self.frame);
                    self.descriptors
                        .write(unit, (part == 0, part + 1 == parts), earlier, below)
                });
                Part {
                    payload,
                    descriptor,
                    marker: false,
                }
            })
            .collect()
    }

    /// Packets and the payload size of each: encoders split frames into equal parts.
    fn size(&mut self, position: Position, spatial: u8) -> (u16, usize) {
        if position.keyframe
            && let Some(parts) = self.next_keyframe.take()
        {
            return (parts, MAX_PAYLOAD);
        }
        if let Some((parts, size)) = self.shape.fixed {
            return (parts, size);
        }
        if let Some((period, parts)) = self.shape.burst
            && (self.tick * self.shape.interval.as_millis() as u64).is_multiple_of(period.as_millis() as u64)
        {
            return (parts, MAX_PAYLOAD);
        }
        let rate = self.shape.rates.get(usize::from(spatial)).copied().unwrap_or_default() as f64;
        let mean = rate / 8.0 * self.shape.interval.as_secs_f64();
        // libwebrtc gives the layers of L1T3 40, 20 and 40 % of the rate, of L1T2 60 and 40 %.
        let weight = match (self.shape.temporal, position.temporal) {
            (3, 0) => 1.6,
            (3, _) => 0.8,
            (2, 0) => 1.2,
            (2, _) => 0.8,
            _ => 1.0,
        };
        let variation = self.shape.variation;
        let varied = mean * weight * variation.powf(self.rng.random_range(-1.0..=1.0));
        let (from, to) = self.shape.keyframe;
        let bytes = if position.keyframe {
            mean * self.rng.random_range(from..=to)
        } else {
            varied
        };
        let bytes = (bytes as usize).max(120);
        let parts = bytes.div_ceil(MAX_PAYLOAD);
        (parts as u16, bytes.div_ceil(parts))
    }

    /// The bytes that say what the packet is, by the codec's payload format.
    fn header(&self, tag: Tag, position: Position, earlier: &[u32], below: bool) -> Vec<u8> {
        let first = tag.part == 0;
        let last = tag.part + 1 == tag.parts;
        let picture = self.picture_id | 0x8000;
        match self.codec {
            Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => Vec::new(),
            // RFC 7741 §4.2: X N S, I L T, 15-bit picture id, TL0PICIDX, TID and Y.
            Codec::Vp8 => {
                let layered = self.shape.temporal > 1;
                let unused = layered && tag.temporal > 0 && tag.temporal + 1 == self.shape.temporal;
                // Only the base layer is referred to by the first frame of each higher layer.
                let sync = !tag.keyframe && tag.temporal > 0 && position.place <= 2;
                let mut bytes = vec![0x80 | u8::from(unused) << 5 | u8::from(first) << 4];
                bytes.push(0xc0 | u8::from(layered) << 5);
                bytes.extend_from_slice(&picture.to_be_bytes());
                bytes.push(self.tl0_picidx);
                if layered {
                    bytes.push(tag.temporal << 6 | u8::from(sync) << 5);
                }
                if first {
                    // Frame tag: bit 0 clear = key frame; then start code and the size.
                    bytes.push(if tag.keyframe { 0x10 } else { 0x11 });
                    if tag.keyframe {
                        let [width, height] = [(320u16, 180u16), (640, 360), (1280, 720)]
                            .map(|(width, height)| [width.to_le_bytes(), height.to_le_bytes()])
                            [usize::from(self.encoding.min(2))];
                        bytes.extend_from_slice(&[0x02, 0x00, 0x9d, 0x01, 0x2a]);
                        bytes.extend_from_slice(&width);
                        bytes.extend_from_slice(&height);
                    }
                }
                bytes
            }
            Codec::Vp9 => self.vp9_header(tag, position, earlier, below),
            // RFC 6184 FU-A of an IDR (5) or non-IDR (1) slice; a key frame starts with SPS and PPS in a STAP-A.
            Codec::H264 => {
                let kind = if tag.keyframe { 5 } else { 1 };
                if first && tag.keyframe {
                    vec![0x78, 0x00, 0x04, 0x67, 0x42, 0xe0, 0x1f, 0x00, 0x02, 0x68, 0xce]
                } else {
                    let start = u8::from(tag.part == u16::from(tag.keyframe)) << 7;
                    vec![0x7c, start | u8::from(last) << 6 | kind]
                }
            }
            // RFC 7798 FU of IDR_W_RADL (19) or TRAIL_R (1), preceded on key frames by an aggregation of parameter sets.
            Codec::H265 => {
                let kind = if tag.keyframe { 19 } else { 1 };
                // TID plus one in the lowest bits.
                let layer = tag.temporal + 1;
                if first && tag.keyframe {
                    let mut bytes = vec![48 << 1, layer];
                    for set in [32u8, 33, 34] {
                        bytes.extend_from_slice(&[0, 3, set << 1, layer, 0]);
                    }
                    bytes
                } else {
                    let start = u8::from(tag.part == u16::from(tag.keyframe)) << 7;
                    vec![49 << 1, layer, start | u8::from(last) << 6 | kind]
                }
            }
            // AV1 RTP: aggregation header Z Y W N; a new coded video sequence starts with a sequence header OBU.
            Codec::Av1 => {
                let continues = u8::from(!first) << 7 | u8::from(!last) << 6;
                if first && tag.keyframe && tag.spatial == 0 {
                    vec![continues | 0x20 | 0x08, 0x04, 0x08, 0x00, 0x00, 0x00, 0x30]
                } else {
                    vec![continues | 0x10, 0x30]
                }
            }
        }
    }

    /// RFC 9628 §4.2: I P L F B E V Z, picture id, layer indices; flexible with descriptors beside it, else with TL0PICIDX and,
    /// on key frames, the scalability structure.
    fn vp9_header(&self, tag: Tag, position: Position, earlier: &[u32], below: bool) -> Vec<u8> {
        let first = tag.part == 0;
        let last = tag.part + 1 == tag.parts;
        let layered = self.shape.temporal > 1 || self.shape.spatial != Spatial::Single;
        let flexible = layered && self.shape.described;
        let structured = layered && !flexible && tag.keyframe && tag.spatial == 0 && first;
        let top = tag.spatial + 1 == self.shape.spatial.layers();
        let unused_above =
            top || (self.shape.spatial == Spatial::KeyOnly(self.shape.spatial.layers()) && !tag.keyframe);
        let flags = [
            true,
            !tag.keyframe,
            layered,
            flexible,
            first,
            last,
            structured,
            layered && unused_above,
        ];
        let mut bytes = vec![flags.iter().fold(0, |byte, flag| byte << 1 | u8::from(*flag))];
        bytes.extend_from_slice(&(self.picture_id | 0x8000).to_be_bytes());
        if layered {
            // Every frame refers to the base layer or to the newest frames: switching up is possible at each.
            let switch = tag.temporal == 0 || position.place <= 2;
            bytes.push(tag.temporal << 5 | u8::from(switch) << 4 | tag.spatial << 1 | u8::from(below));
            if !flexible {
                bytes.push(self.tl0_picidx);
            }
        }
        if flexible && !tag.keyframe {
            for (index, frame) in earlier.iter().enumerate() {
                let more = u8::from(index + 1 < earlier.len());
                bytes.push(((self.frame - frame) as u8) << 1 | more);
            }
        }
        if structured {
            let layers = self.shape.spatial.layers();
            bytes.push((layers - 1) << 5 | 0x10 | 0x08);
            for (width, height) in [(320u16, 180u16), (640, 360), (1280, 720)]
                .into_iter()
                .take(usize::from(layers))
            {
                bytes.extend_from_slice(&width.to_be_bytes());
                bytes.extend_from_slice(&height.to_be_bytes());
            }
            // The group of pictures: T, U and the distances of the references.
            let group = 1u8 << (self.shape.temporal - 1);
            bytes.push(group);
            for place in 0..group {
                let temporal = temporal_layer(self.shape.temporal, place);
                let distances: &[u8] = match (self.shape.temporal, place) {
                    (_, 0) => &[group],
                    (3, 2) => &[2],
                    (3, 3) => &[1, 3],
                    _ => &[1],
                };
                bytes.push(temporal << 5 | u8::from(place <= 2) << 4 | (distances.len() as u8) << 2);
                bytes.extend_from_slice(distances);
            }
        }
        bytes
    }
}

/// L1T2 alternates; L1T3 is 0 2 1 2.
pub fn temporal_layer(layers: u8, place: u8) -> u8 {
    match (layers, place) {
        (2, 1) => 1,
        (3, 1 | 3) => 2,
        (3, 2) => 1,
        _ => 0,
    }
}
