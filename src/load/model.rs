//! What the publishers' encoders and pacers do, as a model: sizes of frames, their packets, and when those leave.
//!
//! Frame sizes vary around the mean of the bit rate as a log-normal distribution with σ = 0.25 does, within half and double.
//! A key frame has five times the mean, comes only when it is asked for and at most every 500 ms, and the frames after it
//! are up to 30 % smaller until the rate is kept. A frame is cut evenly, so that its packets differ by at most one byte.
//! Packets leave as libwebrtc's pacer lets them: at 2.5 times the bit rate, of which 40 ms may go at once. So a usual frame
//! leaves in one burst, and a key frame in a burst and a trickle.

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::options::Video;

pub const FRAMES_PER_SECOND: u32 = 30;
/// 20 ms of Opus at 32 kbit/s, every 20 ms (no silence suppression).
pub const VOICE_BYTES: usize = 80;
pub const VOICE_EVERY: Duration = Duration::from_millis(20);
/// RTP payload of a full video packet.
pub const MAX_PAYLOAD: usize = 1150;

const KEY_FRAME: f64 = 5.0;
pub const KEY_FRAMES_APART: Duration = Duration::from_millis(500);
const SPREAD: f64 = 0.25;
/// Part of a frame that may be saved to make up for a key frame.
const SAVING: f64 = 0.3;

const PACING: f64 = 2.5;
const BURST: Duration = Duration::from_millis(40);

/// One layer of a camera: a simulcast encoding, or a spatial layer of SVC.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layer {
    pub rid: &'static str,
    pub width: u16,
    pub height: u16,
    pub bits_per_second: u32,
}

/// Smallest first. The simulcast layers are those of LiveKit's clients for 720p.
pub fn layers(video: Video) -> Vec<Layer> {
    let layer = |rid, width, height, bits_per_second| Layer {
        rid,
        width,
        height,
        bits_per_second,
    };
    match video {
        Video::None => Vec::new(),
        Video::P720 => vec![layer("", 1280, 720, 2_000_000)],
        Video::Simulcast | Video::Svc => vec![
            layer("q", 320, 180, 160_000),
            layer("h", 640, 360, 450_000),
            layer("f", 1280, 720, 1_700_000),
        ],
    }
}

#[derive(Debug)]
pub struct FrameSizes {
    mean: f64,
    /// Bytes that key frames took beyond their share.
    owed: f64,
    random: SmallRng,
}

impl FrameSizes {
    pub fn new(bits_per_second: u32, seed: u64) -> Self {
        Self {
            mean: f64::from(bits_per_second) / 8.0 / f64::from(FRAMES_PER_SECOND),
            owed: 0.0,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Bytes of the next frame.
    pub fn next(&mut self, key: bool) -> usize {
        // Twelve uniform numbers add up to something close to a normal one with variance 1.
        let normal: f64 = (0..12).map(|_| self.random.random::<f64>()).sum::<f64>() - 6.0;
        // exp(σz) has the mean exp(σ²/2).
        let factor = (SPREAD * normal - SPREAD * SPREAD / 2.0).exp().clamp(0.5, 2.0);
        let mut size = self.mean * factor;
        if key {
            self.owed += size * (KEY_FRAME - 1.0);
            size *= KEY_FRAME;
        } else {
            let saved = self.owed.min(size * SAVING);
            self.owed -= saved;
            size -= saved;
        }
        size as usize
    }
}

/// Sizes of the parts of a frame: at most `most`, at least `least` in number, equal but for one byte.
pub fn split(bytes: usize, most: usize, least: usize) -> impl Iterator<Item = usize> {
    let parts = bytes.div_ceil(most).max(least).max(1);
    let (size, larger) = (bytes / parts, bytes % parts);
    (0..parts).map(move |part| size + usize::from(part >= parts - larger))
}

/// When packets may leave.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: f64,
    /// When everything that was sent would have left at the pacing rate.
    drained_at: Option<Instant>,
}

impl Pacer {
    /// Of a sender with `bits_per_second` of video.
    pub fn new(bits_per_second: u32) -> Self {
        Self {
            bytes_per_second: f64::from(bits_per_second.max(1)) / 8.0 * PACING,
            drained_at: None,
        }
    }

    /// When the next packet may leave; `now` or earlier = at once.
    pub fn next_at(&self, now: Instant) -> Instant {
        self.drained_at
            .and_then(|drained| drained.checked_sub(BURST))
            .unwrap_or(now)
    }

    pub fn sent(&mut self, now: Instant, bytes: usize) {
        let from = self.drained_at.map_or(now, |drained| drained.max(now));
        self.drained_at = Some(from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_keep_the_rate_and_vary() {
        let mut sizes = FrameSizes::new(2_000_000, 7);
        let frames: Vec<usize> = (0..3000).map(|frame| sizes.next(frame % 300 == 0)).collect();
        let rate = frames.iter().sum::<usize>() as f64 * 8.0 / 100.0;
        assert!((0.97..1.03).contains(&(rate / 2_000_000.0)), "{rate}");
        assert!(frames.iter().min() < Some(&5500) && frames.iter().max() > Some(&30_000));
        // The frames after a key frame pay for it.
        let paying: usize = frames[1..11].iter().sum();
        let usual: usize = frames[101..111].iter().sum();
        assert!(paying < usual, "{paying} {usual}");
    }

    #[test]
    fn a_frame_is_cut_evenly() {
        let parts: Vec<usize> = split(8_333, 1150, 1).collect();
        assert_eq!(parts.len(), 8);
        assert_eq!(parts.iter().sum::<usize>(), 8_333);
        assert!(parts.iter().max().expect("parts") - parts.iter().min().expect("parts") <= 1);
        assert_eq!(split(10, 1150, 3).collect::<Vec<_>>(), [3, 3, 4]);
        assert_eq!(split(0, 1150, 1).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn a_usual_frame_leaves_at_once_and_a_key_frame_does_not() {
        let now = Instant::now();
        let burst = |bytes: usize| {
            let mut pacer = Pacer::new(2_000_000);
            let mut sent = 0;
            while sent < bytes && pacer.next_at(now) <= now {
                pacer.sent(now, 1100);
                sent += 1100;
            }
            (sent, pacer)
        };
        assert!(burst(8_333).0 >= 8_333);
        // 40 ms at 5 Mbit/s are 25,000 bytes.
        let (sent, pacer) = burst(41_000);
        assert!((25_000..27_000).contains(&sent), "{sent}");
        assert!(pacer.next_at(now) < now + Duration::from_millis(4));
    }
}
