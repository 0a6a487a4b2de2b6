//! What the packets contain: a payload descriptor that makes a server see the frames of the codec, then a body of noise
//! that ends in a stamp, by which a subscriber knows when it left and whether it is whole.

use super::options::VideoCodec;

/// Bytes of a stamp, the last of each payload.
pub const STAMP: usize = 32;
const MAGIC: [u8; 4] = *b"pLdT";
/// Of the stamp: where the time, the length of the body and the hash stand.
const SENT_AT: usize = 12;
const LENGTH_AT: usize = 20;
const HASH_AT: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which stream of the test, and which packet of it.
    pub stream: u32,
    pub number: u64,
    /// Nanoseconds since 1970.
    pub sent: u64,
}

impl Stamp {
    /// Writes itself over the end of `payload`; `body` = bytes behind the descriptor, which servers may rewrite.
    pub fn write(self, payload: &mut [u8], body: usize) {
        let Some(start) = payload.len().checked_sub(body.max(STAMP)) else {
            return;
        };
        let body = &mut payload[start..];
        let at = body.len() - STAMP;
        let length = body.len() as u32;
        let stamp = &mut body[at..];
        stamp[..4].copy_from_slice(&self.stream.to_be_bytes());
        stamp[4..SENT_AT].copy_from_slice(&self.number.to_be_bytes());
        stamp[SENT_AT..LENGTH_AT].copy_from_slice(&self.sent.to_be_bytes());
        stamp[LENGTH_AT..HASH_AT].copy_from_slice(&length.to_be_bytes());
        stamp[HASH_AT + 4..].copy_from_slice(&MAGIC);
        let sum = hash(&body[..at + HASH_AT]).to_be_bytes();
        body[at + HASH_AT..at + HASH_AT + 4].copy_from_slice(&sum);
    }

    /// None for a payload that no publisher of a load test made: silence or blank frames from a server.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let stamp = payload.get(payload.len().checked_sub(STAMP)?..)?;
        if !stamp.ends_with(&MAGIC) {
            return None;
        }
        Some(Self {
            stream: u32::from_be_bytes(stamp.get(..4)?.try_into().ok()?),
            number: u64::from_be_bytes(stamp.get(4..SENT_AT)?.try_into().ok()?),
            sent: u64::from_be_bytes(stamp.get(SENT_AT..LENGTH_AT)?.try_into().ok()?),
        })
    }

    /// True when the body is what was sent.
    pub fn is_whole(payload: &[u8]) -> bool {
        let check = || {
            let stamp = payload.get(payload.len().checked_sub(STAMP)?..)?;
            let length = u32::from_be_bytes(stamp.get(LENGTH_AT..HASH_AT)?.try_into().ok()?);
            let sum = u32::from_be_bytes(stamp.get(HASH_AT..HASH_AT + 4)?.try_into().ok()?);
            let body = payload.get(payload.len().checked_sub(length as usize)?..)?;
            Some(hash(body.get(..body.len().checked_sub(STAMP - HASH_AT)?)?) == sum)
        };
        check().unwrap_or(false)
    }
}

/// A multiplication for every eight bytes: each bit of the body moves the result, which is all that is asked.
fn hash(bytes: &[u8]) -> u32 {
    let mut sum: u64 = bytes.len() as u64;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        sum ^= sum >> 29;
    }
    (sum ^ sum >> 32) as u32
}

/// Where a packet stands in its picture.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub first: bool,
    pub last: bool,
    pub key: bool,
    /// Counts pictures.
    pub picture: u32,
    /// Of SVC: this layer and how many there are.
    pub layer: Option<(u8, u8)>,
}

/// Longest descriptor below.
pub const MAX_DESCRIPTOR: usize = 40;

/// Fewest parts of a frame: H.264 puts parameter sets before a key frame and cannot fragment into one piece.
pub fn least_parts(codec: VideoCodec, key: bool) -> usize {
    match codec {
        VideoCodec::H264 if key => 3,
        VideoCodec::H264 => 2,
        _ => 1,
    }
}

/// Bytes that stand before the body in the middle of the same frame.
pub fn usual_descriptor(codec: VideoCodec, part: Part) -> usize {
    let mut middle = Vec::with_capacity(MAX_DESCRIPTOR);
    let part = Part {
        first: false,
        last: false,
        ..part
    };
    describe(codec, part, 0, &mut middle);
    middle.len()
}

/// Appends what stands before a body of `body` bytes.
pub fn describe(codec: VideoCodec, part: Part, body: usize, out: &mut Vec<u8>) {
    match codec {
        VideoCodec::Vp8 => vp8(part, out),
        VideoCodec::Vp9 => vp9(part, out),
        VideoCodec::H264 => h264(part, body, out),
        VideoCodec::Av1 => av1(part, out),
    }
}

/// RFC 7741 §4.2 and §4.3: X, S at the start, a picture id of 15 bits; then the frame tag, and for key frames start code and
/// size.
fn vp8(part: Part, out: &mut Vec<u8>) {
    let picture = (part.picture & 0x7fff) as u16 | 0x8000;
    out.extend_from_slice(&[0x80 | u8::from(part.first) << 4, 0x80]);
    out.extend_from_slice(&picture.to_be_bytes());
    match (part.first, part.key) {
        (true, true) => out.extend_from_slice(&[0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]),
        (true, false) => out.extend_from_slice(&[0x11, 0x02, 0x00]),
        _ => {}
    }
}

/// RFC 9628 §4.2, non-flexible mode; upper layers are predicted from the one below.
fn vp9(part: Part, out: &mut Vec<u8>) {
    let (spatial, of) = part.layer.unwrap_or((0, 1));
    let structure = part.key && part.first && spatial == 0;
    let picture = (part.picture & 0x7fff) as u16 | 0x8000;
    let flag = |set: bool, bit: u8| u8::from(set) << bit;
    out.push(
        0x80 | flag(!part.key, 6)
            | flag(part.layer.is_some(), 5)
            | flag(part.first, 3)
            | flag(part.last, 2)
            | flag(structure, 1)
            | flag(spatial + 1 == of, 0),
    );
    out.extend_from_slice(&picture.to_be_bytes());
    if part.layer.is_some() {
        out.push(0x10 | spatial << 1 | flag(spatial > 0, 0));
        out.push(part.picture as u8);
    }
    if structure {
        out.push((of - 1) << 5 | 0x10);
        for layer in 0..of {
            let shift = of - 1 - layer;
            out.extend_from_slice(&(1280u16 >> shift).to_be_bytes());
            out.extend_from_slice(&(720u16 >> shift).to_be_bytes());
        }
    }
}

/// RFC 6184: parameter sets in a STAP-A with the body as an SEI unit, slices as FU-A.
fn h264(part: Part, body: usize, out: &mut Vec<u8>) {
    /// Baseline, 1280 × 720.
    const SPS: [u8; 9] = [0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe4];
    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];
    if part.first && part.key {
        out.push(0x78);
        for unit in [SPS.as_slice(), &PPS] {
            out.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            out.extend_from_slice(unit);
        }
        out.extend_from_slice(&(body as u16 + 1).to_be_bytes());
        out.push(0x06);
        return;
    }
    // A key frame's slice begins in its second packet; nothing depends on which of the others have the start bit.
    let kind = if part.key { 5 } else { 1 };
    out.extend_from_slice(&[0x7c, u8::from(part.first) << 7 | u8::from(part.last) << 6 | kind]);
    if part.first {
        out.push(0x80);
    }
}

/// AV1 RTP specification §4.4: a sequence header before a key frame, then one frame OBU in fragments.
fn av1(part: Part, out: &mut Vec<u8>) {
    const SEQUENCE: [u8; 12] = [0x08, 0x00, 0x00, 0x00, 0x42, 0xa7, 0xbf, 0xe4, 0x60, 0x0d, 0x00, 0x40];
    let continued = u8::from(!part.last) << 6;
    match (part.first, part.key) {
        (true, true) => {
            out.extend_from_slice(&[continued | 0x28, SEQUENCE.len() as u8]);
            out.extend_from_slice(&SEQUENCE);
            out.push(0x30);
        }
        (true, false) => out.extend_from_slice(&[continued | 0x10, 0x30]),
        _ => out.push(0x90 | continued),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp;
    use crate::types::Codec;

    #[test]
    fn a_stamp_survives_a_new_descriptor_and_notices_one_bit() {
        let stamp = Stamp {
            stream: 7,
            number: 1 << 40,
            sent: 1_800_000_000_123_456_789,
        };
        let mut payload = vec![0x55; 4 + 700];
        stamp.write(&mut payload, 700);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        payload[..4].copy_from_slice(&[9, 9, 9, 9]);
        payload.insert(0, 8);
        assert!(Stamp::is_whole(&payload));
        for at in [5, 300, payload.len() - STAMP, payload.len() - 9] {
            payload[at] ^= 0x10;
            assert!(!Stamp::is_whole(&payload), "{at}");
            payload[at] ^= 0x10;
        }
        assert_eq!(Stamp::read(&payload[..payload.len() - 1]), None);
        assert!(!Stamp::is_whole(b"short"));
    }

    #[test]
    fn descriptors_say_what_they_should() {
        for (ours, codec) in [
            (VideoCodec::Vp8, Codec::Vp8),
            (VideoCodec::Vp9, Codec::Vp9),
            (VideoCodec::H264, Codec::H264),
            (VideoCodec::Av1, Codec::Av1),
        ] {
            for key in [true, false] {
                let mut part = Part {
                    first: true,
                    last: false,
                    key,
                    picture: 70_000,
                    layer: None,
                };
                let mut payload = Vec::new();
                describe(ours, part, 100, &mut payload);
                assert!(payload.len() <= MAX_DESCRIPTOR);
                payload.resize(payload.len() + 100, 0x55);
                let info = rtp::inspect(codec, &payload, false).expect("a payload");
                assert_eq!((info.keyframe, info.start), (key, true), "{ours:?} {key}");
                part.first = false;
                let mut payload = Vec::new();
                describe(ours, part, 100, &mut payload);
                payload.resize(payload.len() + 100, 0x55);
                let info = rtp::inspect(codec, &payload, false).expect("a payload");
                assert!(
                    !info.start && (codec == Codec::H264 || !info.keyframe),
                    "{ours:?} {key}"
                );
            }
        }
    }

    #[test]
    fn what_only_the_first_packet_has_is_known() {
        let part = Part {
            first: true,
            last: false,
            key: false,
            picture: 1,
            layer: None,
        };
        let mut payload = Vec::new();
        describe(VideoCodec::Vp8, part, 100, &mut payload);
        assert_eq!((payload.len(), usual_descriptor(VideoCodec::Vp8, part)), (7, 4));
    }

    #[test]
    fn layers_of_a_picture_are_told_apart() {
        let part = |spatial, first| Part {
            first,
            last: true,
            key: true,
            picture: 1,
            layer: Some((spatial, 3)),
        };
        for spatial in 0..3 {
            let mut payload = Vec::new();
            describe(VideoCodec::Vp9, part(spatial, true), 0, &mut payload);
            let info = rtp::inspect(Codec::Vp9, &payload, false).expect("a payload");
            assert_eq!((info.spatial, info.keyframe), (spatial, spatial == 0));
            assert!(payload.len() <= MAX_DESCRIPTOR);
        }
    }
}
