//! Each codec from one client to another, over a clean network.

use std::time::Duration;

use patchbay::{
    media::edge::{Command, SubscriptionSettings},
    types::{Codec, Layer, MediaKind},
};

use crate::{
    media::{Shape, VOICE_PAYLOAD},
    oracles::check_numbers,
    world::World,
};

fn arrives_whole_and_in_order(codec: Codec) {
    let mut world = World::new(codec as u64);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, codec);
    world.run(Duration::from_millis(200));
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(3));

    let incoming = world.received(&subscription);
    let tags = incoming.tags();
    let first = tags.first().expect("media arrives");
    assert!(
        first.keyframe && first.part == 0,
        "forwarding starts at a key frame, not at {first:?}"
    );
    assert_eq!(incoming.missing(), Vec::<u64>::new(), "no hole in the sequence numbers");
    let frames = incoming.whole_frames();
    let per_second = if codec.kind() == MediaKind::Audio { 50 } else { 30 };
    // Three seconds less the time until the key frame that the subscription asked for (one round trip of 20 ms, or the
    // publisher's throttle of a second after its first request).
    assert!(
        frames.len() >= per_second * 18 / 10,
        "{} whole frames of {codec:?}",
        frames.len()
    );
    assert!(
        frames.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "every frame once it has started"
    );

    let step = if codec.kind() == MediaKind::Audio {
        codec.clock_rate() / 50
    } else {
        3_000
    };
    let mut packets = incoming.packets.clone();
    packets.sort_by_key(|packet| packet.sequence);
    for pair in packets.windows(2) {
        let (Some(before), Some(after)) = (pair[0].tag, pair[1].tag) else {
            continue;
        };
        let ticks = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert_eq!(
            ticks,
            (after.frame - before.frame) * step,
            "timestamps advance with the frames"
        );
        assert_eq!(
            pair[0].marker,
            before.part + 1 == before.parts,
            "the marker ends a frame"
        );
    }
}

#[test]
fn opus() {
    arrives_whole_and_in_order(Codec::Opus);
}

#[test]
fn red() {
    arrives_whole_and_in_order(Codec::Red);
}

#[test]
fn a_subscriber_without_red_is_given_the_opus_inside() {
    let mut world = World::new(79);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let carol = world.join_connected("carol");
    let track = world.publish(alice, Codec::Red);
    let opus = world.peers[bob].codec_parameters(Codec::Opus);
    let plain = world.subscribe_with(bob, &track, vec![opus]);
    let redundant = world.subscribe(carol, &track);
    world.run(Duration::from_secs(2));

    let (plain, redundant) = (world.received(&plain), world.received(&redundant));
    // Two seconds of 20 ms frames, less the way there.
    assert!(plain.tags().len() >= 90, "{} packets", plain.tags().len());
    assert_eq!(plain.tags(), redundant.tags(), "the same sound to both");
    assert_eq!(plain.missing(), Vec::<u64>::new());
    for (plain, redundant) in plain.packets.iter().zip(&redundant.packets) {
        // Four bytes of header are the copy's, one is the primary block's.
        assert_eq!((redundant.payload[0], redundant.payload[4]), (0x80 | 111, 111));
        assert_eq!(plain.payload, redundant.payload[5 + VOICE_PAYLOAD..]);
    }
}

#[test]
fn pcmu() {
    arrives_whole_and_in_order(Codec::Pcmu);
}

#[test]
fn pcma() {
    arrives_whole_and_in_order(Codec::Pcma);
}

#[test]
fn vp8() {
    arrives_whole_and_in_order(Codec::Vp8);
}

#[test]
fn vp9() {
    arrives_whole_and_in_order(Codec::Vp9);
}

#[test]
fn h264() {
    arrives_whole_and_in_order(Codec::H264);
}

#[test]
fn h265() {
    arrives_whole_and_in_order(Codec::H265);
}

#[test]
fn av1() {
    arrives_whole_and_in_order(Codec::Av1);
}

/// Neither says in its payload which temporal layer a picture belongs to: the dependency descriptor does.
#[test]
fn temporal_layers_of_h264_and_h265_are_left_out_where_fewer_are_asked_for() {
    for codec in [Codec::H264, Codec::H265] {
        let mut world = World::new(80);
        let alice = world.join_connected("alice");
        let bob = world.join_connected("bob");
        let carol = world.join_connected("carol");
        let shape = Shape {
            described: true,
            ..Shape::camera(1)
        };
        let track = world.publish_shapes(alice, codec, vec![shape], false);
        let subscription = world.subscribe(bob, &track);
        let untouched = world.subscribe(carol, &track);
        world.run(Duration::from_secs(3));
        // A quarter, half and all of 30 frames a second.
        for (temporal, frames) in [(0, 15), (1, 30), (3, 60)] {
            let settings = SubscriptionSettings {
                max_layer: Layer { spatial: 2, temporal },
                ..Default::default()
            };
            world.command(Command::UpdateSubscription {
                subscription: subscription.handle,
                settings,
            });
            world.run(Duration::from_millis(500));
            let from = world.now;
            world.run(Duration::from_secs(2));
            let incoming = world.received(&subscription);
            let highest = incoming.packets.iter().filter(|packet| packet.at >= from);
            let highest = highest.filter_map(|packet| Some(packet.tag?.temporal)).max();
            assert_eq!(highest, Some(temporal.min(2)), "{codec:?}");
            let shown = incoming.receiver.shown_in(from..world.now).count();
            assert!(
                shown.abs_diff(frames) <= 1,
                "{shown} pictures of {codec:?} up to {temporal}"
            );
        }
        let incoming = world.received(&subscription);
        assert_eq!(incoming.receiver.requests.len(), 0, "nothing was missed");
        for subscription in [&subscription, &untouched] {
            let incoming = world.received(subscription);
            assert_eq!(incoming.missing(), Vec::<u64>::new());
            if let Err(why) = check_numbers(incoming, codec, Duration::ZERO) {
                panic!("{codec:?}: {why}");
            }
        }
        let tags = world.received(&untouched).tags();
        assert!(
            tags.windows(2).all(|pair| pair[1].frame <= pair[0].frame + 1),
            "the other sees all of it"
        );
    }
}

#[test]
fn simulcast_is_forwarded_at_one_layer_and_ssrcs_are_learned_from_rids() {
    let mut world = World::new(77);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish_encodings(alice, Codec::Vp8, 3);
    world.run(Duration::from_millis(300));
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(4));
    let tags = world.received(&subscription).tags();
    let last = tags.last().expect("media arrives");
    assert_eq!(last.encoding, 2, "the best layer that flows");
    let switches = tags
        .windows(2)
        .filter(|pair| pair[0].encoding != pair[1].encoding)
        .count();
    assert!(switches <= 1, "{switches} switches without a reason");
    assert!(
        tags.windows(2)
            .all(|pair| pair[0].encoding == pair[1].encoding || (pair[1].keyframe && pair[1].part == 0)),
        "a switch happens at a key frame"
    );
    assert_eq!(world.received(&subscription).missing(), Vec::<u64>::new());
}

#[test]
fn when_the_forwarded_layer_stops_another_one_takes_over() {
    let mut world = World::new(78);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish_encodings(alice, Codec::Vp8, 3);
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(4));
    let last = world.peers[alice].outgoing.last_mut().expect("three encodings");
    last.active = false;
    world.run(Duration::from_secs(5));
    let incoming = world.received(&subscription);
    assert!(incoming.tags().last().expect("media").encoding < 2);
    assert_eq!(
        incoming.missing(),
        Vec::<u64>::new(),
        "numbers stay continuous over the switch"
    );
    let timestamps: Vec<u32> = incoming.packets.iter().map(|packet| packet.timestamp).collect();
    assert!(
        timestamps
            .windows(2)
            .all(|pair| pair[1].wrapping_sub(pair[0]) < 90_000 * 3),
        "timestamps go forward, by about the time that passed"
    );
}
