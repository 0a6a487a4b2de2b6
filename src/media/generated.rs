//! Packets that the server makes itself: silence when a publisher mutes, blank key frames when a track ends.
//!
//! Payload bytes and their pace; numbering is the subscription's, sending the pacer's.

use std::time::{Duration, Instant};

use crate::types::{Codec, Pt};

/// Of silence after a mute. LiveKit: 1 s, so that a jitter buffer ends on silence and not on a concealed voice.
pub const MUTE_SILENCE: Duration = Duration::from_millis(1000);
/// Of blank pictures when a track ends. LiveKit: 0.2 s, so that the last picture does not stay on the screen.
pub const CLOSE_BLANK: Duration = Duration::from_millis(200);

/// Before a muted track that has sent nothing is announced to a subscriber. LiveKit: 100 ms, so that media comes first.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(100);
/// LiveKit: every 100 ms until one has left; a few more here, because one may be lost.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(100);
const ANNOUNCE_LENGTH: Duration = Duration::from_millis(500);

const AUDIO_FRAME: Duration = Duration::from_millis(20);
const VIDEO_FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// The TOC byte of 20 ms CELT stereo and two bytes that decode to nothing (RFC 6716 §3.1), filled up with zeros.
/// LiveKit: clients that decrypt let a frame of the server's pass only when it is known to them byte for byte (they compare
/// its SHA-256); silence is known in this length.
const OPUS_SILENCE: [u8; 80] = {
    let mut frame = [0; 80];
    frame[0] = 0xf8;
    frame[1] = 0xff;
    frame[2] = 0xfe;
    frame
};
/// 20 ms of G.711 silence: the codes of amplitude 0.
const PCMU_SILENCE: [u8; 160] = [0xff; 160];
const PCMA_SILENCE: [u8; 160] = [0xd5; 160];

/// A picture of 8 x 8: frame tag (RFC 6386 §9.1: key frame, version 0, shown, 16 bytes of first partition), start code,
/// size, and what an encoder makes of one colour. LiveKit: these bytes and no others are the ones that clients which
/// decrypt let pass (they compare the SHA-256; it is checked in the tests).
const VP8_FRAME: [u8; 31] = [
    0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x08, 0x00, 0x08, 0x00, 0x00, 0x47, 0x08, 0x85, 0x85, 0x88, 0x85, 0x84, 0x88,
    0x02, 0x02, 0x00, 0x0c, 0x0d, 0x60, 0x00, 0xfe, 0xff, 0xab, 0x50, 0x80,
];

/// STAP-A (RFC 6184 §5.7.1) of parameter sets and one IDR slice: Constrained Baseline, one macroblock cropped to 2 x 2,
/// intra 16x16 DC without coefficients. The bits are spelled out in the tests.
const H264_STAP_A: u8 = 0x78;
const H264_SPS: [u8; 8] = [0x67, 0x42, 0xc0, 0x0a, 0xdd, 0xd8, 0x88, 0x84];
const H264_PPS: [u8; 4] = [0x68, 0xce, 0x38, 0x80];
const H264_IDR: [u8; 5] = [0x65, 0x88, 0x84, 0x93, 0xc0];

/// One packet every frame period.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    left: u16,
    next: Instant,
    period: Duration,
    /// The subscription ends with the last packet.
    pub closes: bool,
}

impl Schedule {
    pub fn silence(now: Instant) -> Self {
        Self::new(now, MUTE_SILENCE, AUDIO_FRAME, false)
    }

    pub fn blank(now: Instant) -> Self {
        Self::new(now, CLOSE_BLANK, VIDEO_FRAME, true)
    }

    /// A few packets by which a receiver learns of a stream that is muted from the start. LiveKit: pion, and with it the
    /// Go clients, show a track only once it has received a packet.
    pub fn announcement(now: Instant) -> Self {
        Self::new(now + ANNOUNCE_DELAY, ANNOUNCE_LENGTH, ANNOUNCE_INTERVAL, false)
    }

    fn new(now: Instant, length: Duration, period: Duration, closes: bool) -> Self {
        Self {
            left: (length.as_nanos() / period.as_nanos()) as u16,
            next: now,
            period,
            closes,
        }
    }

    pub fn next(&self) -> Instant {
        self.next
    }

    pub fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Whether a packet is due; it is counted as sent. A late timer does not send two at once.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.left == 0 || now < self.next {
            return false;
        }
        self.left -= 1;
        self.next += self.period;
        true
    }

    /// Of one packet, in ticks of `clock_rate`.
    pub fn ticks(&self, clock_rate: u32) -> u32 {
        (self.period.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
    }
}

/// Whether there is a blank or silent frame of this codec.
pub fn exists(codec: Codec) -> bool {
    !matches!(codec, Codec::Vp9 | Codec::Av1 | Codec::H265)
}

/// Writes the payload (without a trailer) to `out`; its length, or None when the codec has none or `out` is short.
/// `primary` is the payload type of the block inside RED; `picture` the VP8 picture id.
pub fn write(codec: Codec, primary: Pt, picture: u16, out: &mut [u8]) -> Option<usize> {
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        out.get_mut(len..len + bytes.len())?.copy_from_slice(bytes);
        len += bytes.len();
        Some(())
    };
    match codec {
        Codec::Opus => put(&OPUS_SILENCE)?,
        Codec::Red => {
            put(&[primary.0 & 0x7f])?; // RFC 2198 §3: F = 0, the last block
            put(&OPUS_SILENCE)?;
        }
        Codec::Pcmu => put(&PCMU_SILENCE)?,
        Codec::Pcma => put(&PCMA_SILENCE)?,
        Codec::Vp8 => {
            // RFC 7741 §4.2: X and S, then I with a 15-bit picture id.
            let [high, low] = (picture & 0x7fff | 0x8000).to_be_bytes();
            put(&[0x90, 0x80, high, low])?;
            put(&VP8_FRAME)?;
        }
        Codec::H264 => {
            put(&[H264_STAP_A])?;
            for unit in [&H264_SPS[..], &H264_PPS, &H264_IDR] {
                put(&(unit.len() as u16).to_be_bytes())?;
                put(unit)?;
            }
        }
        Codec::Vp9 | Codec::Av1 | Codec::H265 => return None,
    }
    Some(len)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;

    use super::*;
    use crate::rtp;

    /// MSB-first bits, with the Exp-Golomb codes of H.264 §9.1.
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn u(&mut self, count: u32, value: u32) -> &mut Self {
            self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
            self
        }

        fn ue(&mut self, value: u32) -> &mut Self {
            let len = (value + 1).ilog2();
            self.u(len, 0).u(len + 1, value + 1)
        }

        /// Stop bit and alignment (§7.3.2.11).
        fn trail(&mut self) -> Vec<u8> {
            self.u(1, 1);
            while !self.0.len().is_multiple_of(8) {
                self.0.push(false);
            }
            let byte = |bits: &[bool]| bits.iter().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit));
            self.0.chunks(8).map(byte).collect()
        }
    }

    #[test]
    fn h264_bits_are_what_they_are_said_to_be() {
        let mut sps = Bits::default();
        sps.u(8, 0x67).u(8, 66).u(8, 0xc0).u(8, 10); // baseline, constraint sets 0 and 1, level 1
        sps.ue(0).ue(0).ue(2); // id, log2_max_frame_num - 4, pic_order_cnt_type 2: output order = decoding order
        sps.ue(0).u(1, 0); // max_num_ref_frames, gaps
        sps.ue(0).ue(0).u(1, 1).u(1, 0); // one macroblock wide and high, frames only, direct_8x8_inference
        sps.u(1, 1).ue(0).ue(7).ue(0).ue(7); // cropped to 2 x 2 in units of two
        sps.u(1, 0); // no VUI
        assert_eq!(sps.trail(), H264_SPS, "{:02x?}", sps.trail());

        let mut pps = Bits::default();
        pps.u(8, 0x68).ue(0).ue(0).u(1, 0).u(1, 0).ue(0); // ids, CAVLC, one slice group
        pps.ue(0).ue(0).u(1, 0).u(2, 0).ue(0).ue(0).ue(0); // reference counts, weights, QP 26, chroma offset
        pps.u(1, 0).u(1, 0).u(1, 0); // deblocking control, constrained intra, redundant pictures
        assert_eq!(pps.trail(), H264_PPS, "{:02x?}", pps.trail());

        let mut idr = Bits::default();
        idr.u(8, 0x65).ue(0).ue(7).ue(0); // first macroblock, I slice, PPS
        idr.u(4, 0).ue(0).u(1, 0).u(1, 0).ue(0); // frame_num, idr_pic_id, marking, slice_qp_delta
        idr.ue(3).ue(0).ue(0); // I_16x16 DC without coefficients, chroma DC, mb_qp_delta
        idr.u(1, 1); // coeff_token: no coefficients in the DC block
        assert_eq!(idr.trail(), H264_IDR, "{:02x?}", idr.trail());
    }

    /// What livekit-client 2.23 compares with. It knows H.264 parameter sets and slices only one by one, while a frame
    /// reaches it whole: of that codec no blank frame passes, LiveKit's included.
    #[test]
    fn clients_that_decrypt_know_the_frames() {
        for (codec, header, hash) in [
            (
                Codec::Opus,
                0,
                "aad8d31fc56b2802ca500e58c2fb9d0b29ad71bb7cb52cd6530251eade188988",
            ),
            (
                Codec::Vp8,
                4,
                "ef0161653d8b2b23aad46624b420af1d03ce48950e9fc85718028f91b50f9219",
            ),
        ] {
            let mut buf = [0; 200];
            let len = write(codec, Pt(0), 77, &mut buf).unwrap();
            let digest = digest::digest(&digest::SHA256, &buf[header..len]);
            let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, hash, "{codec:?}");
        }
    }

    #[test]
    fn blank_frames_are_key_frames() {
        for (codec, size) in [(Codec::Vp8, Some((8, 8))), (Codec::H264, None)] {
            let mut buf = [0; 200];
            let len = write(codec, Pt(0), 77, &mut buf).unwrap();
            let info = rtp::inspect(codec, &buf[..len], true).unwrap();
            assert!(info.keyframe && info.start, "{codec:?}");
            if size.is_some() {
                assert_eq!(info.dimensions, size);
            }
        }
    }

    #[test]
    fn a_second_of_silence_is_fifty_packets() {
        let start = Instant::now();
        let mut schedule = Schedule::silence(start);
        let mut count = 0;
        for ms in 0..2000 {
            count += usize::from(schedule.take(start + Duration::from_millis(ms)));
        }
        assert_eq!((count, schedule.is_over(), schedule.ticks(48_000)), (50, true, 960));
        assert_eq!(Schedule::blank(start).ticks(90_000), 2999);
    }
}
