//! The synthetic streams are what they claim to be, and pass whole through a server and a clean network.

use std::time::Duration;

use patchbay::types::Codec;

use crate::{
    media::{Shape, Source, Spatial},
    oracles::{check_numbers, seen},
    world::World,
};

#[test]
fn a_camera_has_its_rates_and_its_key_frames() {
    for (encoding, expected) in [(0, 150_000.0), (1, 500_000.0), (2, 1_700_000.0)] {
        let mut source = Source::shaped(Codec::Vp8, encoding, Shape::camera(encoding), 7);
        let mut sizes = Vec::new();
        for frame in 0..901 {
            if frame == 450 {
                source.request_keyframe();
            }
            let frame = source.next_frame().expect("a picture");
            sizes.push(frame.parts.iter().map(|part| part.payload.len()).sum::<usize>());
        }
        let rate = sizes.iter().skip(1).sum::<usize>() as f64 * 8.0 / 30.0;
        // Sizes vary by half up and down on a scale of factors, whose mean is a few percent above one.
        assert!((0.9..1.2).contains(&(rate / expected)), "{rate}");
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((35..=65).contains(&(sizes[450] * 10 / mean)), "a key frame on demand");
    }
}

#[test]
fn a_key_frame_can_have_a_thousand_packets() {
    let mut source = Source::shaped(Codec::Vp8, 2, Shape::camera(2), 7);
    source.next_frame();
    source.next_keyframe = Some(1000);
    source.request_keyframe();
    assert_eq!(source.next_frame().expect("a picture").parts.len(), 1000);
    assert!(source.next_frame().expect("a picture").parts.len() < 20);
}

#[test]
fn silence_is_sent_as_a_packet_now_and_then() {
    let shape = Shape {
        dtx: true,
        ..Shape::voice()
    };
    let mut source = Source::shaped(Codec::Opus, 0, shape, 7);
    let frames: Vec<_> = (0..175).filter_map(|_| source.next_frame()).collect();
    // Two seconds of speech, and four packets in one and a half of silence.
    assert_eq!(frames.len(), 104);
    let gap = frames[103].timestamp.wrapping_sub(frames[102].timestamp);
    assert_eq!(gap, 48_000 * 400 / 1000);
}

#[test]
fn a_screen_share_changes_much_now_and_then_and_arrives_whole() {
    let mut world = World::new(4);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish_screen(alice);
    world.run(Duration::from_millis(100));
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(2));
    let from = world.now;
    world.run(Duration::from_secs(20));
    let seen = seen(
        &world,
        alice,
        &track,
        &subscription,
        from..world.now - Duration::from_millis(100),
    );
    // Five a second, less those of the last moment.
    assert!(seen.sent >= 99 && seen.decoded == seen.sent, "{seen:?}");
    let sent = &world.peers[alice].outgoing[0].frames;
    let large = sent.iter().filter(|(at, tag)| *at >= from && tag.parts == 40);
    assert_eq!(large.count(), 5);
}

#[test]
fn scalable_streams_arrive_decodable_with_every_layer() {
    for (codec, spatial, described) in [
        (Codec::Vp9, Spatial::Full(3), false),
        (Codec::Vp9, Spatial::Full(3), true),
        (Codec::Vp9, Spatial::KeyOnly(3), true),
        (Codec::Av1, Spatial::Full(3), true),
        (Codec::Av1, Spatial::KeyOnly(3), true),
    ] {
        let mut world = World::new(3);
        let alice = world.join_connected("alice");
        let bob = world.join_connected("bob");
        let shape = Shape {
            described,
            ..Shape::scalable(spatial)
        };
        let track = world.publish_shapes(alice, codec, vec![shape], false);
        world.run(Duration::from_millis(100));
        let subscription = world.subscribe(bob, &track);
        world.run(Duration::from_secs(5));
        let incoming = world.received(&subscription);
        let what = format!("{codec:?} {spatial:?} described: {described}");
        if let Err(why) = check_numbers(incoming, codec, Duration::ZERO) {
            panic!("{what}: {why}");
        }
        let top = incoming.receiver.shown.iter().filter(|shown| shown.tag.spatial == 2);
        // Five seconds at 30 a second, less the first key frame's round trip and throttle.
        assert!(top.count() > 115, "{what}");
    }
}
