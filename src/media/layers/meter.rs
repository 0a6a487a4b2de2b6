//! How much an encoding sends, per layer.
//!
//! Owns counters of fixed size: told of every packet, it allocates nothing and needs no timer.

use std::time::{Duration, Instant};

use super::{LayerMarks, SPATIAL, TEMPORAL, all, index};
use crate::types::{Bitrate, Layer};

const WINDOW: Duration = Duration::from_millis(100);
/// Weight of a window in the mean that a rate is: two seconds. Frames differ by half, and what is allotted by the peaks
/// of each layer leaves a tenth of the path unused; the pacer is there for peaks.
const MEAN: f32 = 1.0 / 20.0;
/// The same for key frames: those that are asked for are not what the layer costs from then on, those of an encoder
/// that sends one every few seconds are.
const KEYFRAME_MEAN: f32 = 1.0 / 100.0;
/// Twice so many windows in which a rate is far above its mean show that it has risen: single large frames do not.
const RISE_WINDOWS: usize = 3;
/// What is far above.
const RISEN: f32 = 1.5;
/// Windows in which ids that came are remembered.
const RECENT: usize = 10;
/// After a pause the old rate says nothing.
const FORGET: Duration = Duration::from_secs(2);
/// What a packet costs beside its payload: RTP header, the usual extensions and the seal. As estimates are, rates are of
/// UDP payload.
pub const OVERHEAD: u32 = 12 + 16 + 16;
/// A layer that flows is not free, however still its picture is.
const LEAST: u32 = 10_000;

const LAYERS: usize = SPATIAL * TEMPORAL;

#[derive(Debug)]
pub struct Meter {
    window: Instant,
    /// Of the window that runs.
    bytes: [u32; LAYERS],
    /// The same of key frames.
    keyframe_bytes: [u32; LAYERS],
    /// Of the windows before, oldest overwritten first.
    past: [[u32; LAYERS]; 2 * RISE_WINDOWS],
    windows: u32,
    /// Mean bytes of a window, and of its key frames.
    means: [f32; LAYERS],
    keyframe_means: [f32; LAYERS],
    /// Which (spatial, temporal) ids had packets, a bit each by `index`: in the window that runs, and of late.
    present: u16,
    recent: [u16; RECENT],
    /// Ids of the last second, by `index`.
    known: u16,
    /// Frames that belong to each layer, since they were last taken.
    frames: [u16; LAYERS],
    frames_since: Instant,
}

impl Meter {
    pub fn new(now: Instant) -> Self {
        Self {
            window: now,
            bytes: [0; _],
            keyframe_bytes: [0; _],
            past: [[0; _]; _],
            windows: 0,
            means: [0.0; _],
            keyframe_means: [0.0; _],
            present: 0,
            recent: [0; _],
            known: 0,
            frames: [0; _],
            frames_since: now,
        }
    }

    /// One packet. `layer`: its own ids; `of_keyframe`: its picture is one.
    pub fn handle_packet(
        &mut self,
        layer: Layer,
        marks: LayerMarks,
        payload_len: usize,
        of_keyframe: bool,
        now: Instant,
    ) {
        self.advance(now);
        self.present |= 1 << index(layer);
        self.known |= self.present;
        let cost = payload_len as u32 + OVERHEAD; // at most a datagram
        let counted = if of_keyframe {
            &mut self.keyframe_bytes
        } else {
            &mut self.bytes
        };
        for (bytes, layer) in counted.iter_mut().zip(all()) {
            if marks.is_part_of(layer) {
                *bytes += cost;
            }
        }
    }

    /// A frame begins; of several spatial layers the lowest of it.
    pub fn handle_frame(&mut self, marks: LayerMarks) {
        for (frames, layer) in self.frames.iter_mut().zip(all()) {
            *frames = frames.saturating_add(u16::from(marks.is_part_of(layer)));
        }
    }

    /// Frames a second that belong to each [spatial][temporal] layer, since the last call. None after less than a second.
    pub fn take_frame_rates(&mut self, now: Instant) -> Option<[[u8; TEMPORAL]; SPATIAL]> {
        let passed = now.saturating_duration_since(self.frames_since);
        if passed < Duration::from_secs(1) {
            return None;
        }
        let frames = std::mem::take(&mut self.frames);
        self.frames_since = now;
        let per_second = |frames: u16| (f32::from(frames) / passed.as_secs_f32()).round() as u8; // saturates
        let mut rates = [[0; _]; _];
        for (rate, frames) in rates.iter_mut().flatten().zip(frames) {
            *rate = per_second(frames);
        }
        Some(rates)
    }

    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.window);
        if passed >= FORGET {
            *self = Self::new(now);
            return;
        }
        let mut left = passed;
        while left >= WINDOW {
            left -= WINDOW;
            self.window += WINDOW;
            self.close();
        }
    }

    fn close(&mut self) {
        let at = self.windows as usize;
        self.windows += 1;
        let bytes = std::mem::take(&mut self.bytes);
        let keyframe_bytes = std::mem::take(&mut self.keyframe_bytes);
        if let Some(place) = self.past.get_mut(at % (2 * RISE_WINDOWS)) {
            *place = bytes;
        }
        if let Some(place) = self.recent.get_mut(at % RECENT) {
            *place = std::mem::take(&mut self.present);
        }
        self.known = self.recent.iter().fold(0, |all, window| all | window);
        let weight = MEAN.max(1.0 / self.windows as f32);
        for (mean, bytes) in self.means.iter_mut().zip(bytes) {
            *mean += (bytes as f32 - *mean) * weight;
        }
        for (mean, bytes) in self.keyframe_means.iter_mut().zip(keyframe_bytes) {
            *mean += (bytes as f32 - *mean) * KEYFRAME_MEAN;
        }
        if self.windows as usize >= 2 * RISE_WINDOWS {
            self.follow_rise();
        }
    }

    /// A mean is too slow for a picture that has begun to move.
    fn follow_rise(&mut self) {
        let newest = self.windows as usize % (2 * RISE_WINDOWS);
        for (layer, mean) in self.means.iter_mut().enumerate() {
            let half = |from: usize| {
                let windows = (from..from + RISE_WINDOWS).map(|at| self.past.get((newest + at) % (2 * RISE_WINDOWS)));
                let bytes: u32 = windows.flatten().filter_map(|window| window.get(layer)).sum();
                bytes as f32 / RISE_WINDOWS as f32
            };
            let both = half(0).min(half(RISE_WINDOWS));
            if both > *mean * RISEN {
                *mean = both;
            }
        }
    }

    /// A layer of this very encoding exists: it has had packets in the last second.
    fn exists(&self, layer: Layer) -> bool {
        self.known >> index(layer) & 1 == 1
    }

    /// The layers that have been seen, a bit each.
    pub fn known(&self) -> u16 {
        self.known
    }

    /// These layers have been seen elsewhere.
    pub fn expect(&mut self, known: u16) {
        self.known |= known;
    }

    /// How many temporal layers the encoding has, up to this spatial one.
    pub fn temporal_layers(&self, spatial: u8) -> u8 {
        // A row of bits for each spatial layer.
        let rows = self.known & (1u16 << (TEMPORAL * (usize::from(spatial).min(SPATIAL - 1) + 1))).wrapping_sub(1);
        let ids = (0..SPATIAL).fold(0, |ids, row| ids | rows >> (TEMPORAL * row)) & 0x0f;
        (u16::BITS - ids.leading_zeros()) as u8
    }

    /// How many spatial layers are inside the encoding.
    pub fn spatial_layers(&self) -> u8 {
        all()
            .filter(|layer| self.exists(*layer))
            .map(|layer| layer.spatial + 1)
            .max()
            .unwrap_or(0)
    }

    /// What all that belongs to the layer takes; never ZERO. Little after a long silence.
    pub fn rate(&self, layer: Layer, now: Instant) -> Bitrate {
        if now.saturating_duration_since(self.window) >= FORGET {
            return Bitrate(u64::from(LEAST));
        }
        let of = |table: &[f32; LAYERS]| table.get(index(layer)).copied().unwrap_or(0.0);
        let bytes = if self.windows == 0 {
            self.bytes.get(index(layer)).copied().unwrap_or(0) as f32
        } else {
            of(&self.means) + of(&self.keyframe_means)
        };
        let rate = bytes * 8.0 / WINDOW.as_secs_f32();
        Bitrate((rate as u64).max(u64::from(LEAST)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::FrameInfo;
    use crate::types::Codec;

    fn layer(spatial: u8, temporal: u8) -> Layer {
        Layer { spatial, temporal }
    }

    /// 30 frames a second of `len` bytes, every second one of temporal layer 1, for `ms`.
    fn run(meter: &mut Meter, now: &mut Instant, ms: u64, len: usize) {
        let end = *now + Duration::from_millis(ms);
        let mut at = 0;
        while *now < end {
            let temporal = (at % 2) as u8;
            let frame = FrameInfo {
                temporal,
                ..FrameInfo::default()
            };
            let marks = LayerMarks::of_frame(Codec::Vp8, &frame, 2);
            meter.handle_packet(layer(0, temporal), marks, len, false, *now);
            meter.handle_frame(marks);
            at += 1;
            *now += Duration::from_micros(33_333);
        }
    }

    fn kbps(meter: &Meter, temporal: u8) -> u64 {
        meter.rate(layer(0, temporal), meter.window).as_kbps()
    }

    #[test]
    fn rates_are_cumulative_means_that_follow_a_rise_at_once() {
        let mut now = Instant::now();
        let mut meter = Meter::new(now);
        run(&mut meter, &mut now, 50, 1000);
        assert!(kbps(&meter, 1) > 100, "known from the first packet on");
        run(&mut meter, &mut now, 2000, 1000);
        let cost = |len: u64| 30 * (len + u64::from(OVERHEAD)) * 8 / 1000;
        assert!(
            kbps(&meter, 1).abs_diff(cost(1000)) < cost(1000) / 16,
            "{}",
            kbps(&meter, 1)
        );
        assert!(
            kbps(&meter, 0).abs_diff(cost(500)) < cost(1000) / 16,
            "{}",
            kbps(&meter, 0)
        );
        assert_eq!((meter.temporal_layers(0), meter.spatial_layers()), (2, 1));
        run(&mut meter, &mut now, 100, 6000);
        assert!(kbps(&meter, 1) < cost(1000) * 3 / 2, "one moment is none");
        run(&mut meter, &mut now, 600, 6000);
        assert!(kbps(&meter, 1) > cost(6000) * 3 / 4, "{}", kbps(&meter, 1));
        run(&mut meter, &mut now, 8000, 500);
        assert!(
            kbps(&meter, 1).abs_diff(cost(500)) < cost(500) / 4,
            "{}",
            kbps(&meter, 1)
        );
    }

    #[test]
    fn a_key_frame_counts_little_unless_more_follow() {
        let mut now = Instant::now();
        let mut meter = Meter::new(now);
        run(&mut meter, &mut now, 3000, 1000);
        let before = kbps(&meter, 1);
        let marks = LayerMarks::of_frame(Codec::Vp8, &FrameInfo::default(), 2);
        let keyframe = |meter: &mut Meter, now: Instant| {
            (0..10).for_each(|_| meter.handle_packet(layer(0, 0), marks, 1000, true, now));
        };
        keyframe(&mut meter, now);
        run(&mut meter, &mut now, 500, 1000);
        assert!(kbps(&meter, 1) < before * 21 / 20, "{} of {before}", kbps(&meter, 1));
        for _ in 0..20 {
            keyframe(&mut meter, now);
            run(&mut meter, &mut now, 2000, 1000);
        }
        // Ten packets in two seconds beside sixty.
        assert!(kbps(&meter, 1) > before * 22 / 20, "{} of {before}", kbps(&meter, 1));
    }

    #[test]
    fn frame_rates_are_cumulative_and_taken_once() {
        let mut now = Instant::now();
        let mut meter = Meter::new(now);
        run(&mut meter, &mut now, 900, 1000);
        assert_eq!(meter.take_frame_rates(now), None, "too short to say");
        run(&mut meter, &mut now, 4100, 1000);
        assert_eq!(meter.take_frame_rates(now), Some([[15, 30, 30, 30]; SPATIAL]));
        now += Duration::from_secs(1);
        assert_eq!(meter.take_frame_rates(now), Some([[0; TEMPORAL]; SPATIAL]));
    }

    #[test]
    fn a_pause_is_not_averaged_into_the_rate() {
        let mut now = Instant::now();
        let mut meter = Meter::new(now);
        run(&mut meter, &mut now, 2000, 1000);
        let before = kbps(&meter, 1);
        now += Duration::from_secs(60);
        run(&mut meter, &mut now, 500, 1000);
        assert!(kbps(&meter, 1).abs_diff(before) < before / 4);
    }
}
