//! From what a subscriber says it wants (a quality, a size, a frame rate) to a layer of the track.

use livekit_protocol::{TrackInfo, VideoLayer, VideoQuality};

use crate::media::edge::{LayerShape, SubscriptionSettings};
use crate::types::Layer;

use super::subscription::TrackSettings;

/// The best spatial and temporal layer there can be.
const BEST: Layer = Layer {
    spatial: 2,
    temporal: 3,
};

/// LiveKit: a layer serves that has nine tenths of the size, or of the frame rate, that was asked for.
const TOLERANCE: f32 = 0.9;

/// LiveKit: the heights that LOW and MEDIUM are taken for where the publisher declared none.
const LOW_HEIGHT: u32 = 180;
const MEDIUM_HEIGHT: u32 = 360;

/// What the temporal layers of a 30 fps track show, each twice the one below.
const NOMINAL_RATES: [f32; 3] = [7.5, 15.0, 30.0];

/// A track in one of its codecs: what was declared of its layers, and what they have shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub info: &'a TrackInfo,
    pub codec: usize,
    pub shapes: [LayerShape; 3],
}

/// What a subscriber that has said nothing gets. LiveKit: an adaptive client starts low, and asks for more as soon as it
/// knows the size of its element.
pub(super) fn default_settings(adaptive_stream: bool) -> TrackSettings {
    let quality = if adaptive_stream {
        VideoQuality::Low
    } else {
        VideoQuality::High
    };
    TrackSettings {
        quality: quality as i32,
        ..Default::default()
    }
}

/// The layers of one of the track's codecs, LOW to HIGH.
pub(super) fn layers(info: &TrackInfo, codec: usize) -> &[VideoLayer] {
    match info.codecs.get(codec) {
        Some(own) if !own.layers.is_empty() => &own.layers,
        _ => &info.layers,
    }
}

/// The spatial layer that fits, and None for "no video at all". LiveKit: a width wins over the quality.
fn spatial_layer(source: &Source<'_>, settings: &TrackSettings) -> Option<u8> {
    let layers = layers(source.info, source.codec);
    let index = if settings.width > 0 {
        index_for_size(source, layers, settings)
    } else {
        match VideoQuality::try_from(settings.quality) {
            Ok(VideoQuality::Off) => return None,
            Ok(quality) => index_for_quality(layers, quality),
            Err(_) => usize::from(BEST.spatial),
        }
    };
    Some(u8::try_from(index).unwrap_or(BEST.spatial))
}

/// LiveKit: of two layers MEDIUM is the upper one, unless it is declared as the lower.
fn index_for_quality(layers: &[VideoLayer], quality: VideoQuality) -> usize {
    if layers.is_empty() {
        // Nobody said what there is: the shard takes what it finds below.
        return usize::try_from(quality as i32).unwrap_or(0);
    }
    let reaches = |layer: &VideoLayer| layer.quality >= quality as i32;
    layers.iter().position(reaches).unwrap_or(layers.len() - 1)
}

/// The lowest layer that is high enough. Of several with the same height the last.
fn index_for_size(source: &Source<'_>, layers: &[VideoLayer], settings: &TrackSettings) -> usize {
    // LiveKit: heights are compared, whatever the format.
    if let Some(heights) = heights(source, layers) {
        return index_for_height(&heights, settings.height);
    }
    let info = source.info;
    if info.height == 0 {
        return index_for_quality(layers, VideoQuality::High);
    }
    let (own, requested) = if info.width < info.height {
        (info.width, settings.width)
    } else {
        (info.height, settings.height)
    };
    let quality = match index_for_height(&[LOW_HEIGHT, MEDIUM_HEIGHT, own], requested) {
        0 => VideoQuality::Low,
        1 => VideoQuality::Medium,
        _ => VideoQuality::High,
    };
    index_for_quality(layers, quality)
}

/// By layer, as declared, else as seen. None = not known of all of them.
fn heights(source: &Source<'_>, layers: &[VideoLayer]) -> Option<Vec<u32>> {
    let known = |heights: &Vec<u32>| !heights.is_empty() && heights.iter().all(|height| *height > 0);
    let declared: Vec<u32> = layers.iter().map(|layer| layer.height).collect();
    if known(&declared) {
        return Some(declared);
    }
    let seen = source.shapes.iter().map(|shape| u32::from(shape.height));
    Some(seen.take(layers.len()).collect()).filter(known)
}

fn index_for_height(heights: &[u32], requested: u32) -> usize {
    // Pixels, far below where an f32 is inexact; truncated as LiveKit does.
    let enough = (requested as f32 * TOLERANCE) as u32;
    let pairs = heights.iter().zip(heights.iter().skip(1));
    pairs
        .take_while(|(height, next)| **height < enough || height == next)
        .count()
}

/// The temporal layer that shows nine tenths of `fps` frames a second; 0 = all there are. `seen`: what each has shown.
fn temporal_layer(fps: u32, seen: [u8; 4]) -> u8 {
    let enough = fps as f32 * TOLERANCE;
    let seen = seen.map(f32::from);
    let rates: &[f32] = if seen.iter().any(|rate| *rate > 0.0) {
        &seen
    } else {
        &NOMINAL_RATES
    };
    let index = rates.iter().position(|rate| fps > 0 && *rate >= enough);
    index
        .and_then(|index| u8::try_from(index).ok())
        .unwrap_or(BEST.temporal)
}

/// What the shard is told.
pub(super) fn subscription_settings(source: &Source<'_>, settings: &TrackSettings) -> SubscriptionSettings {
    let spatial = spatial_layer(source, settings);
    let shape = source.shapes.get(usize::from(spatial.unwrap_or(0)));
    SubscriptionSettings {
        disabled: settings.disabled || spatial.is_none(),
        max_layer: Layer {
            spatial: spatial.unwrap_or(0),
            temporal: temporal_layer(settings.fps, shape.map_or([0; 4], |shape| shape.frame_rates)),
        },
        priority: u8::try_from(settings.priority.min(255)).unwrap_or(u8::MAX),
    }
}

/// What a spatial layer is called.
pub(super) fn quality_of(source: &Source<'_>, spatial: u8) -> VideoQuality {
    match layers(source.info, source.codec).get(usize::from(spatial)) {
        Some(layer) => layer.quality(),
        None => VideoQuality::High,
    }
}

/// What the publisher has to send for this subscriber; None = nothing.
pub(super) fn wanted_quality(source: &Source<'_>, settings: &TrackSettings) -> Option<VideoQuality> {
    if settings.disabled {
        return None;
    }
    Some(quality_of(source, spatial_layer(source, settings)?))
}

#[cfg(test)]
mod tests {
    use livekit_protocol::SimulcastCodecInfo;

    use super::*;

    /// Nothing has been seen of it.
    fn source(info: &TrackInfo) -> Source<'_> {
        Source {
            info,
            codec: 0,
            shapes: [LayerShape::default(); 3],
        }
    }

    fn layer(quality: VideoQuality, width: u32, height: u32) -> VideoLayer {
        VideoLayer {
            quality: quality as i32,
            width,
            height,
            ..Default::default()
        }
    }

    fn camera() -> TrackInfo {
        TrackInfo {
            width: 1280,
            height: 720,
            layers: vec![
                layer(VideoQuality::Low, 320, 180),
                layer(VideoQuality::Medium, 640, 360),
                layer(VideoQuality::High, 1280, 720),
            ],
            ..Default::default()
        }
    }

    fn sized(width: u32, height: u32) -> TrackSettings {
        TrackSettings {
            quality: VideoQuality::High as i32,
            width,
            height,
            ..Default::default()
        }
    }

    fn of_quality(quality: VideoQuality) -> TrackSettings {
        TrackSettings {
            quality: quality as i32,
            ..Default::default()
        }
    }

    fn spatial_of(info: &TrackInfo, settings: TrackSettings) -> u8 {
        subscription_settings(&source(info), &settings).max_layer.spatial
    }

    fn spatial(settings: TrackSettings) -> u8 {
        spatial_of(&camera(), settings)
    }

    #[test]
    fn a_size_wins_over_a_quality_and_nine_tenths_of_it_are_enough() {
        assert_eq!(spatial(sized(320, 180)), 0);
        assert_eq!(spatial(sized(356, 200)), 0, "180 is nine tenths of 200");
        assert_eq!(spatial(sized(358, 202)), 1);
        assert_eq!(spatial(sized(712, 400)), 1);
        assert_eq!(spatial(sized(716, 403)), 2);
        assert_eq!(spatial(sized(4000, 3000)), 2);
        assert_eq!(spatial(sized(0, 1000)), 2, "without a width the quality counts");
        assert_eq!(spatial(sized(400, 0)), 0);
    }

    #[test]
    fn layers_of_one_height_count_as_the_last_of_them() {
        let mut info = camera();
        info.layers[0].height = 360;
        assert_eq!(spatial_of(&info, sized(100, 100)), 1);
    }

    #[test]
    fn undeclared_sizes_are_180_360_and_the_tracks_own() {
        let mut info = camera();
        for layer in &mut info.layers {
            (layer.width, layer.height) = (0, 0);
        }
        assert_eq!(spatial_of(&info, sized(300, 190)), 0);
        assert_eq!(spatial_of(&info, sized(640, 360)), 1);
        assert_eq!(spatial_of(&info, sized(1280, 720)), 2);
        // Upright: widths are compared.
        (info.width, info.height) = (720, 1280);
        assert_eq!(spatial_of(&info, sized(180, 720)), 0);
        assert_eq!(spatial_of(&info, sized(390, 300)), 1);
        (info.width, info.height) = (0, 0);
        assert_eq!(spatial_of(&info, sized(100, 100)), 2, "nothing to compare with");
    }

    #[test]
    fn an_upright_track_with_declared_layers_is_compared_by_height() {
        let mut info = camera();
        (info.width, info.height) = (720, 1280);
        for layer in &mut info.layers {
            std::mem::swap(&mut layer.width, &mut layer.height);
        }
        assert_eq!(spatial_of(&info, sized(180, 320)), 0);
        assert_eq!(spatial_of(&info, sized(300, 533)), 1);
        assert_eq!(spatial_of(&info, sized(720, 1280)), 2);
    }

    #[test]
    fn a_message_with_only_the_track_means_low() {
        assert_eq!(spatial(TrackSettings::default()), 0);
        assert_eq!(spatial(default_settings(false)), 2);
        assert_eq!(
            wanted_quality(&source(&camera()), &TrackSettings::default()),
            Some(VideoQuality::Low)
        );
    }

    #[test]
    fn of_two_layers_medium_is_the_upper_one() {
        let mut info = camera();
        info.layers.remove(1);
        assert_eq!(spatial_of(&info, of_quality(VideoQuality::Medium)), 1);
        assert_eq!(
            wanted_quality(&source(&info), &of_quality(VideoQuality::Medium)),
            Some(VideoQuality::High)
        );
        let mut info = camera();
        info.layers.remove(0);
        assert_eq!(spatial_of(&info, of_quality(VideoQuality::Medium)), 0);
        assert_eq!(spatial_of(&info, of_quality(VideoQuality::Low)), 0);
        assert_eq!(spatial_of(&info, of_quality(VideoQuality::High)), 1);
    }

    #[test]
    fn off_and_disabled_stop_the_video() {
        let off = of_quality(VideoQuality::Off);
        assert!(subscription_settings(&source(&camera()), &off).disabled);
        assert_eq!(wanted_quality(&source(&camera()), &off), None);
        let disabled = TrackSettings {
            disabled: true,
            ..default_settings(false)
        };
        assert!(subscription_settings(&source(&camera()), &disabled).disabled);
        assert_eq!(wanted_quality(&source(&camera()), &disabled), None);
    }

    #[test]
    fn one_declared_layer_is_wanted_as_it_is_declared() {
        let mut info = camera();
        info.layers.truncate(1);
        let best = default_settings(false);
        assert_eq!(wanted_quality(&source(&info), &best), Some(VideoQuality::Low));
        info.layers.clear();
        let low = default_settings(true);
        assert_eq!(wanted_quality(&source(&info), &low), Some(VideoQuality::High));
        assert_eq!(spatial_of(&info, of_quality(VideoQuality::High)), 2);
    }

    #[test]
    fn each_codec_has_layers_of_its_own() {
        let mut info = camera();
        info.codecs = vec![
            SimulcastCodecInfo::default(),
            SimulcastCodecInfo {
                layers: vec![layer(VideoQuality::High, 1280, 720)],
                ..Default::default()
            },
        ];
        let low = of_quality(VideoQuality::Low);
        assert_eq!(wanted_quality(&source(&info), &low), Some(VideoQuality::Low));
        assert_eq!(
            wanted_quality(
                &Source {
                    codec: 1,
                    ..source(&info)
                },
                &low
            ),
            Some(VideoQuality::High)
        );
    }

    #[test]
    fn a_frame_rate_is_a_temporal_layer() {
        let temporal = |fps| {
            let settings = TrackSettings {
                fps,
                ..default_settings(false)
            };
            subscription_settings(&source(&camera()), &settings).max_layer.temporal
        };
        assert_eq!(
            [0, 5, 8, 9, 15, 16, 17, 30, 60].map(temporal),
            [3, 0, 0, 1, 1, 1, 2, 2, 3]
        );
    }

    #[test]
    fn what_was_seen_is_better_than_a_guess() {
        let mut info = camera();
        for layer in &mut info.layers {
            (layer.width, layer.height) = (0, 0);
        }
        let shape = |height, frame_rates| LayerShape {
            width: height / 9 * 16,
            height,
            frame_rates,
        };
        let seen = Source {
            shapes: [
                shape(270, [8, 15, 15, 15]),
                shape(540, [15, 30, 30, 30]),
                shape(1080, [15, 30, 60, 60]),
            ],
            ..source(&info)
        };
        let layer = |width, height, fps| {
            let settings = TrackSettings {
                fps,
                ..sized(width, height)
            };
            let max = subscription_settings(&seen, &settings).max_layer;
            (max.spatial, max.temporal)
        };
        assert_eq!(layer(480, 270, 15), (0, 1));
        assert_eq!(layer(640, 360, 15), (1, 0));
        assert_eq!(layer(1280, 720, 30), (2, 1));
        assert_eq!(layer(1280, 720, 0), (2, 3));
    }
}
