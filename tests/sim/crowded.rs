//! Many streams on one link, and many viewers of one stream.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    call::{layer_changes, link},
    impairment::Conditions,
    oracles::{differences, seen},
    seeds::{at_least, at_most, ms, over_seeds},
    world::{Subscribed, World},
};

#[test]
fn a_meeting_over_a_thin_link() {
    over_seeds("6 cameras, a screen and 7 voices over 1.2 Mbit/s", |seed| {
        let mut world = World::new(seed);
        let viewer = world.join_connected("viewer");
        let mut cameras = Vec::new();
        let mut voices = Vec::new();
        let mut screen = None;
        for number in 0..7 {
            let publisher = world.join_connected(&format!("p{number}"));
            voices.push((publisher, world.publish_voice(publisher)));
            if number < 6 {
                cameras.push((publisher, world.publish_camera(publisher)));
            } else {
                screen = Some((publisher, world.publish_screen(publisher)));
            }
        }
        let (presenter, screen) = screen.expect("a screen");
        world.set_link(viewer, link(1_200_000));
        world.run(Duration::from_millis(1500));
        let heard: Vec<Subscribed> = voices.iter().map(|(_, track)| world.subscribe(viewer, track)).collect();
        let watched: Vec<Subscribed> = cameras
            .iter()
            .map(|(_, track)| world.subscribe(viewer, track))
            .collect();
        let shared = world.subscribe(viewer, &screen);
        let from = world.now;
        world.run(Duration::from_secs(20));
        let settled = world.now;
        world.run(Duration::from_secs(60));
        let interval = settled..world.now;

        let holes: usize = heard.iter().map(|voice| world.received(voice).missing().len()).sum();
        let sounds = heard
            .iter()
            .map(|voice| {
                world
                    .received(voice)
                    .packets
                    .iter()
                    .filter(|packet| packet.at >= from)
                    .count()
            })
            .min();
        let changes = watched
            .iter()
            .chain([&shared])
            .map(|subscription| layer_changes(world.received(subscription), interval.clone()))
            .max();
        let of_screen = seen(&world, presenter, &screen, &shared, interval.clone());
        let frames = world.received(&shared).receiver.shown_in(interval.clone()).count();
        vec![
            at_most("voice packets missing, all seven", holes as f64, 0.0),
            // 80 s of 50 packets a second, less the first moments.
            at_least(
                "packets of the poorest voice",
                sounds.unwrap_or_default() as f64,
                3990.0,
            ),
            at_least("screen decodable, %", of_screen.percent(), 98.0),
            // Five a second for a minute.
            at_least("screen frames", frames as f64, 290.0),
            at_most("layer changes in a minute", changes.unwrap_or_default() as f64, 4.0),
        ]
    });
}

/// Encoding and frame of the pictures of each viewer.
type Pictures = BTreeMap<usize, BTreeSet<(u8, u32)>>;

/// What nine viewers on good links see while the tenth has this one.
fn ten_viewers(seed: u64, tenth: Conditions) -> (f64, f64, usize, Pictures) {
    let mut world = World::new(seed);
    let alice = world.join_connected("alice");
    let viewers: Vec<usize> = (0..10)
        .map(|number| world.join_connected(&format!("v{number}")))
        .collect();
    let track = world.publish_camera(alice);
    world.run(Duration::from_millis(1500));
    let subscriptions: Vec<Subscribed> = viewers.iter().map(|viewer| world.subscribe(*viewer, &track)).collect();
    world.run(Duration::from_secs(10));
    world.set_link(viewers[9], tenth);
    let since = world.now;
    world.run(Duration::from_secs(20));
    let interval = since..world.now - Duration::from_millis(500);
    let good = &subscriptions[..9];
    let worst = good
        .iter()
        .map(|by| seen(&world, alice, &track, by, interval.clone()).percent())
        .fold(100.0, f64::min);
    let gap = good
        .iter()
        .map(|by| world.received(by).receiver.longest_gap(interval.clone()).0)
        .max()
        .unwrap_or_default();
    let changes = good
        .iter()
        .map(|by| layer_changes(world.received(by), interval.clone()))
        .sum();
    let pictures = good
        .iter()
        .map(|by| {
            let shown = world.received(by).receiver.shown_in(interval.clone());
            let shown = shown.map(|shown| (shown.tag.encoding, shown.tag.frame));
            (by.peer, shown.collect())
        })
        .collect();
    (worst, ms(gap), changes, pictures)
}

#[test]
fn one_poor_viewer_and_nine_good_ones() {
    over_seeds("one poor, nine good viewers of one camera", |seed| {
        let poor = Conditions {
            rate: Some(250_000),
            loss: 0.1,
            delay: Duration::from_millis(100),
            ..Conditions::CLEAN
        };
        let (decoded, gap, changes, pictures) = ten_viewers(seed, poor);
        let (_, _, _, without) = ten_viewers(seed, Conditions::CLEAN);
        let differ = differences(&pictures, &without).len();
        vec![
            at_least("decodable at the nine, %", decoded, 100.0),
            // Three frame intervals: a key frame takes a little longer than others.
            at_most("longest gap at the nine, ms", gap, 100.0),
            at_most("layer changes at the nine", changes as f64, 0.0),
            at_most("pictures that differ without the poor one", differ as f64, 0.0),
        ]
    });
}
