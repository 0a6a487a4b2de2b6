//! Synthetic streams: payloads that are valid for their codec and carry a frame and part number, so that the receiver
//! can say exactly which part of which frame arrived.

use std::time::Duration;

use patchbay::types::{Codec, MediaKind};

/// What the receiver finds at the end of each payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag {
    pub encoding: u8,
    pub frame: u32,
    pub part: u8,
    pub parts: u8,
    pub keyframe: bool,
}

const TAG_MAGIC: [u8; 4] = *b"PBtg";
const TAG_LENGTH: usize = 4 + 1 + 4 + 1 + 1 + 1;

impl Tag {
    fn append(self, payload: &mut Vec<u8>) {
        payload.extend_from_slice(&TAG_MAGIC);
        payload.push(self.encoding);
        payload.extend_from_slice(&self.frame.to_be_bytes());
        payload.extend_from_slice(&[self.part, self.parts, u8::from(self.keyframe)]);
    }

    /// None for payloads that no synthetic source made (silence, blank frames).
    pub fn read(payload: &[u8]) -> Option<Self> {
        let tail = payload.get(payload.len().checked_sub(TAG_LENGTH)?..)?;
        let rest = tail.strip_prefix(&TAG_MAGIC)?;
        Some(Self {
            encoding: rest[0],
            frame: u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]),
            part: rest[5],
            parts: rest[6],
            keyframe: rest[7] == 1,
        })
    }
}

/// One RTP stream of a publisher.
pub struct Source {
    pub codec: Codec,
    pub encoding: u8,
    /// Payload bytes of a video packet, tag included.
    pub packet_size: usize,
    pub packets_per_frame: u8,
    frame: u32,
    keyframe_wanted: bool,
}

pub struct Frame {
    /// In the codec's clock, from 0.
    pub timestamp: u32,
    pub payloads: Vec<Vec<u8>>,
}

impl Source {
    pub fn new(codec: Codec, encoding: u8) -> Self {
        Self {
            codec,
            encoding,
            packet_size: 300 + 200 * usize::from(encoding),
            packets_per_frame: if codec.kind() == MediaKind::Audio { 1 } else { 3 },
            frame: 0,
            keyframe_wanted: true,
        }
    }

    /// 20 ms of audio, a thirtieth of a second of video.
    pub fn frame_interval(&self) -> Duration {
        match self.codec.kind() {
            MediaKind::Audio => Duration::from_millis(20),
            MediaKind::Video => Duration::from_nanos(33_333_333),
        }
    }

    pub fn request_keyframe(&mut self) {
        self.keyframe_wanted = true;
    }

    pub fn next_frame(&mut self) -> Frame {
        let ticks = match self.codec.kind() {
            MediaKind::Audio => self.codec.clock_rate() / 50,
            MediaKind::Video => 3_000,
        };
        let frame = self.frame;
        self.frame += 1;
        let keyframe = std::mem::take(&mut self.keyframe_wanted) || self.codec.kind() == MediaKind::Audio;
        let parts = self.packets_per_frame;
        let payloads = (0..parts)
            .map(|part| {
                self.payload(Tag {
                    encoding: self.encoding,
                    frame,
                    part,
                    parts,
                    keyframe,
                })
            })
            .collect();
        Frame {
            timestamp: frame.wrapping_mul(ticks),
            payloads,
        }
    }

    fn payload(&self, tag: Tag) -> Vec<u8> {
        let mut payload = self.descriptor(tag);
        if self.codec.kind() == MediaKind::Video {
            payload.resize(self.packet_size.max(payload.len() + TAG_LENGTH) - TAG_LENGTH, 0x55);
        } else {
            payload.resize(payload.len() + 60, 0x55);
        }
        tag.append(&mut payload);
        payload
    }

    /// The bytes that say what the packet is, by the codec's payload format.
    fn descriptor(&self, tag: Tag) -> Vec<u8> {
        let first = tag.part == 0;
        let last = tag.part + 1 == tag.parts;
        match self.codec {
            Codec::Opus => vec![0x78],
            // RFC 2198 §3: a copy of 3 bytes from 960 ticks before, then the block of this packet, both Opus (111).
            Codec::Red => vec![0x80 | 111, 0x0f, 0x00, 0x03, 111, 0x78, 1, 2, 0x78],
            Codec::Pcmu | Codec::Pcma => Vec::new(),
            // RFC 7741: X S, I L, 15-bit picture id, TL0PICIDX.
            Codec::Vp8 => {
                let picture = (tag.frame & 0x7fff) as u16 | 0x8000;
                let mut bytes = vec![if first { 0x90 } else { 0x80 }, 0xc0];
                bytes.extend_from_slice(&picture.to_be_bytes());
                bytes.push(tag.frame as u8);
                if first {
                    // Frame tag: bit 0 clear = key frame; then start code and 320x180.
                    bytes.push(if tag.keyframe { 0x10 } else { 0x11 });
                    if tag.keyframe {
                        bytes.extend_from_slice(&[0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00]);
                    }
                }
                bytes
            }
            // RFC 9628: I, P (not on key frames), B, E; 15-bit picture id.
            Codec::Vp9 => {
                let mut bits = 0x80;
                if !tag.keyframe {
                    bits |= 0x40;
                }
                if first {
                    bits |= 0x08;
                }
                if last {
                    bits |= 0x04;
                }
                let picture = (tag.frame & 0x7fff) as u16 | 0x8000;
                let mut bytes = vec![bits];
                bytes.extend_from_slice(&picture.to_be_bytes());
                bytes
            }
            // RFC 6184 FU-A of an IDR (5) or non-IDR (1) slice; a key frame starts with SPS and PPS in a STAP-A.
            Codec::H264 => {
                let kind = if tag.keyframe { 5 } else { 1 };
                if first && tag.keyframe {
                    vec![0x78, 0x00, 0x04, 0x67, 0x42, 0xe0, 0x1f, 0x00, 0x02, 0x68, 0xce]
                } else {
                    let start = u8::from(tag.part == u8::from(tag.keyframe)) << 7;
                    vec![0x7c, start | u8::from(last) << 6 | kind]
                }
            }
            // RFC 7798 FU of IDR_W_RADL (19) or TRAIL_R (1), preceded on key frames by an aggregation of parameter sets.
            Codec::H265 => {
                let kind = if tag.keyframe { 19 } else { 1 };
                if first && tag.keyframe {
                    vec![
                        48 << 1,
                        1,
                        0,
                        3,
                        32 << 1,
                        1,
                        0,
                        0,
                        3,
                        33 << 1,
                        1,
                        0,
                        0,
                        3,
                        34 << 1,
                        1,
                        0,
                    ]
                } else {
                    let start = u8::from(tag.part == u8::from(tag.keyframe)) << 7;
                    vec![49 << 1, 1, start | u8::from(last) << 6 | kind]
                }
            }
            // AV1 RTP: aggregation header Z Y W N; a new coded video sequence starts with a sequence header OBU.
            Codec::Av1 => {
                let continues = u8::from(!first) << 7 | u8::from(!last) << 6;
                if first && tag.keyframe {
                    vec![continues | 0x20 | 0x08, 0x04, 0x08, 0x00, 0x00, 0x00, 0x30]
                } else {
                    vec![continues | 0x10, 0x30]
                }
            }
        }
    }
}
