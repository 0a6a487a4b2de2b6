//! Many viewers of one stream.

use std::time::Duration;

use crate::{
    call::layer_changes,
    impairment::Conditions,
    oracles::seen,
    seeds::{at_least, at_most, ms, over_seeds},
    world::{Subscribed, World},
};

/// The pictures of one viewer: encoding and frame.
type Pictures = Vec<(u8, u32)>;

/// What nine viewers on good links see while the tenth has this one.
fn ten_viewers(seed: u64, tenth: Conditions) -> (f64, f64, usize, Vec<Pictures>) {
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
            shown.map(|shown| (shown.tag.encoding, shown.tag.frame)).collect()
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
        let differences: usize = pictures
            .iter()
            .zip(&without)
            .map(|(with, without)| with.iter().zip(without).filter(|(one, other)| one != other).count())
            .sum();
        vec![
            at_least("decodable at the nine, %", decoded, 100.0),
            // Three frame intervals: a key frame takes a little longer than others.
            at_most("longest gap at the nine, ms", gap, 100.0),
            at_most("layer changes at the nine", changes as f64, 0.0),
            at_most("pictures that differ without the poor one", differences as f64, 0.0),
        ]
    });
}
