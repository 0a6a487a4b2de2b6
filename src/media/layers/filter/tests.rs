use std::time::Instant;

use super::*;
use crate::media::ring::PictureNumbers;
use crate::rtp::FrameInfo;
use crate::types::Codec;

fn layer(spatial: u8, temporal: u8) -> Layer {
    Layer { spatial, temporal }
}

/// The one packet of a frame.
fn packet(picture: u32, frame: FrameInfo, layers: LayerMarks) -> PacketInfo {
    PacketInfo {
        timestamp: picture * 3000,
        arrival: Instant::now(),
        codec: 0,
        marker: true,
        keyframe: frame.keyframe,
        start: true,
        end: true,
        spatial: frame.spatial,
        temporal: frame.temporal,
        layers,
        frame_number: 0,
        picture: PictureNumbers::default(),
        audio_level: None,
        video_orientation: None,
        playout_delay: None,
    }
}

/// VP8 with three temporal layers, 0 2 1 2; those of `sync` have the Y bit.
fn vp8(picture: u32, sync: &[u32]) -> PacketInfo {
    let frame = FrameInfo {
        keyframe: picture == 0,
        temporal: [0, 2, 1, 2][picture as usize % 4],
        switch_point: picture == 0 || sync.contains(&picture),
        ..FrameInfo::default()
    };
    packet(picture, frame, LayerMarks::of_frame(Codec::Vp8, &frame, 3))
}

#[test]
fn fewer_temporal_layers_at_once_and_more_where_the_stream_allows() {
    let mut filter = Filter::default();
    filter.restart(layer(2, 3));
    let mut sent = Vec::new();
    for picture in 0..24 {
        match picture {
            5 => filter.set_target(layer(2, 0)),
            11 => filter.set_target(layer(2, 3)),
            _ => {}
        }
        if filter.select(&vp8(picture, &[14, 17])).is_ok() {
            sent.push(picture);
        }
    }
    // All until the fifth, then every fourth; the T1 with Y, and T2 from the one with Y on.
    assert_eq!(sent, [0, 1, 2, 3, 4, 8, 12, 14, 16, 17, 18, 19, 20, 21, 22, 23]);
    assert_eq!(filter.limit(), layer(2, 3), "the highest there is counts as all");
}

/// VP9 by its own header: three spatial layers, all in each picture.
fn vp9(picture: u32, spatial: u8, key: bool) -> PacketInfo {
    let frame = FrameInfo {
        keyframe: key && spatial == 0,
        spatial,
        start: true,
        ..FrameInfo::default()
    };
    packet(picture, frame, LayerMarks::of_frame(Codec::Vp9, &frame, 1))
}

#[test]
fn spatial_layers_are_left_between_pictures_and_entered_at_a_key_frame() {
    let mut filter = Filter::default();
    filter.restart(layer(2, 3));
    let mut sent = Vec::new();
    let mut waited = 0;
    for picture in 0..12 {
        for spatial in 0..3 {
            match (picture, spatial) {
                (3, 1) => filter.set_target(layer(0, 3)), // in the middle of a picture
                (6, 0) => filter.set_target(layer(1, 3)),
                _ => {}
            }
            match filter.select(&vp9(picture, spatial, picture == 9)) {
                Ok(()) => sent.push(u32::from(spatial) + picture * 10),
                Err(reason) => waited += u32::from(reason == DropReason::AwaitingKeyframe),
            }
        }
        assert_eq!(filter.needs_keyframe(), (6..9).contains(&picture), "{picture}");
    }
    let whole = [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32];
    assert_eq!(sent[..12], whole);
    assert_eq!(sent[12..], [40, 50, 60, 70, 80, 90, 91, 100, 101, 110, 111]);
    assert_eq!(waited, 3, "one for each picture without the layer that is wanted");
}
