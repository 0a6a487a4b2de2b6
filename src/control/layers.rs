//! From what a subscriber says it wants (a quality, a size, a frame rate) to a layer of the track.

use livekit_protocol::{TrackInfo, VideoLayer, VideoQuality};

use crate::media::edge::SubscriptionSettings;
use crate::types::Layer;

use super::subscription::TrackSettings;

/// Temporal layers are numbered 0..=3; 3 = all there are.
const ALL_TEMPORAL: u8 = 3;

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

/// The spatial layer that fits, and None for "no video at all".
fn spatial_layer(info: &TrackInfo, settings: &TrackSettings) -> Option<u8> {
    let layers = &info.layers;
    if settings.width > 0 && settings.height > 0 {
        return Some(layer_for_size(info, settings.width.min(settings.height)));
    }
    let quality = match VideoQuality::try_from(settings.quality) {
        Ok(VideoQuality::Off) => return None,
        Ok(quality) => quality as i32,
        Err(_) => VideoQuality::High as i32,
    };
    // The best layer that is not better than asked for; the lowest where all are.
    let best = layers.iter().rposition(|layer| layer.quality <= quality).unwrap_or(0);
    Some(u8::try_from(best).unwrap_or(0))
}

/// The smallest layer whose shorter side reaches `short_side`, else the largest. LiveKit: sizes that were not declared
/// count as 180, 360 and the track's own.
fn layer_for_size(info: &TrackInfo, short_side: u32) -> u8 {
    let fallback = |layer: &VideoLayer| match layer.quality() {
        VideoQuality::Low => 180,
        VideoQuality::Medium => 360,
        _ => info.width.min(info.height).max(1),
    };
    let size = |layer: &VideoLayer| match layer.width.min(layer.height) {
        0 => fallback(layer),
        declared => declared,
    };
    let index = info
        .layers
        .iter()
        .position(|layer| size(layer) >= short_side)
        .unwrap_or(info.layers.len().saturating_sub(1));
    u8::try_from(index).unwrap_or(0)
}

/// Without measured rates, the temporal layers of a 30 fps track that halves with each: 7.5, 15, 30.
fn temporal_layer(fps: u32) -> u8 {
    match fps {
        0 => ALL_TEMPORAL,
        1..=8 => 0,
        9..=15 => 1,
        _ => ALL_TEMPORAL,
    }
}

/// What the shard is told.
pub(super) fn subscription_settings(info: &TrackInfo, settings: &TrackSettings) -> SubscriptionSettings {
    let spatial = spatial_layer(info, settings);
    SubscriptionSettings {
        disabled: settings.disabled || spatial.is_none(),
        max_layer: Layer {
            spatial: spatial.unwrap_or(0),
            temporal: temporal_layer(settings.fps),
        },
        priority: u8::try_from(settings.priority.min(255)).unwrap_or(u8::MAX),
    }
}

/// What the publisher has to send for this subscriber; None = nothing.
pub(super) fn wanted_quality(info: &TrackInfo, settings: &TrackSettings) -> Option<VideoQuality> {
    if settings.disabled {
        return None;
    }
    let spatial = spatial_layer(info, settings)?;
    match info.layers.get(usize::from(spatial)) {
        Some(layer) => Some(layer.quality()),
        None => Some(VideoQuality::High),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera() -> TrackInfo {
        let layer = |quality: VideoQuality, width, height| VideoLayer {
            quality: quality as i32,
            width,
            height,
            ..Default::default()
        };
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

    fn spatial(settings: TrackSettings) -> u8 {
        subscription_settings(&camera(), &settings).max_layer.spatial
    }

    #[test]
    fn a_size_wins_over_a_quality() {
        let sized = |width, height| TrackSettings {
            quality: VideoQuality::High as i32,
            width,
            height,
            ..Default::default()
        };
        assert_eq!(spatial(sized(320, 180)), 0);
        assert_eq!(spatial(sized(180, 320)), 0);
        assert_eq!(spatial(sized(400, 225)), 1);
        assert_eq!(spatial(sized(4000, 3000)), 2);
    }

    #[test]
    fn a_message_with_only_the_track_means_low() {
        assert_eq!(spatial(TrackSettings::default()), 0);
        assert_eq!(spatial(default_settings(false)), 2);
        assert_eq!(
            wanted_quality(&camera(), &TrackSettings::default()),
            Some(VideoQuality::Low)
        );
    }

    #[test]
    fn off_and_disabled_stop_the_video() {
        let off = TrackSettings {
            quality: VideoQuality::Off as i32,
            ..Default::default()
        };
        assert!(subscription_settings(&camera(), &off).disabled);
        assert_eq!(wanted_quality(&camera(), &off), None);
        let disabled = TrackSettings {
            disabled: true,
            ..default_settings(false)
        };
        assert!(subscription_settings(&camera(), &disabled).disabled);
        assert_eq!(wanted_quality(&camera(), &disabled), None);
    }

    #[test]
    fn one_declared_layer_is_wanted_as_it_is_declared() {
        let mut info = camera();
        info.layers.truncate(1);
        assert_eq!(wanted_quality(&info, &default_settings(false)), Some(VideoQuality::Low));
        info.layers.clear();
        assert_eq!(wanted_quality(&info, &default_settings(true)), Some(VideoQuality::High));
    }
}
