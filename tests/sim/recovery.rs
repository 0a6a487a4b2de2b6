//! Links that lose, delay, reorder and repeat: what is decoded, what is asked for, what is not.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use patchbay::types::Codec;

use crate::{
    call::{Call, sent_twice},
    impairment::{Burst, Conditions, Reorder},
    media::{Shape, Tag},
    seeds::{Figure, at_least, at_most, ms, over_seeds},
    world::{Subscribed, World},
};

/// 10 Mbit/s and 60 ms of round trip.
const WIDE: Conditions = Conditions {
    rate: Some(10_000_000),
    delay: Duration::from_millis(30),
    ..Conditions::CLEAN
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Publisher,
    Subscriber,
}

/// A camera and a voice with redundancy; the link of one side is as given from five seconds on, the other's is good.
struct Lossy {
    call: Call,
    voice: Subscribed,
    voice_sent: u32,
    since: Instant,
}

fn lossy(seed: u64, side: Side, conditions: Conditions, seconds: f64) -> Lossy {
    let mut call = Call::new(seed, 1, WIDE);
    let publisher = call.cameras[0].publisher;
    call.world.set_link(publisher, WIDE);
    let voice = call
        .world
        .publish_shapes(publisher, Codec::Red, vec![Shape::plain(Codec::Red, 0)], false);
    let voice = call.world.subscribe(call.viewer, &voice);
    call.run(5.0);
    let since = call.now();
    let bad = match side {
        Side::Publisher => publisher,
        Side::Subscriber => call.viewer,
    };
    call.world.set_link(bad, conditions);
    let before = sounds(&call.world, publisher);
    call.run(seconds);
    let voice_sent = sounds(&call.world, publisher) - before;
    Lossy {
        call,
        voice,
        voice_sent,
        since,
    }
}

fn sounds(world: &World, publisher: usize) -> u32 {
    let voice = world.peers[publisher].outgoing.last().expect("a voice");
    voice.frames.len() as u32
}

/// Sounds that arrived themselves, and those that only a later packet's redundancy brought.
fn heard(world: &World, voice: &Subscribed, since: Instant) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let packets = || {
        let packets = &world.received(voice).packets;
        packets.iter().filter(move |packet| packet.at >= since)
    };
    let themselves: BTreeSet<u32> = packets().filter_map(|packet| Some(packet.tag?.frame)).collect();
    let redundant = packets().flat_map(|packet| Tag::read_redundant(&packet.payload));
    let concealed = redundant.map(|tag| tag.frame).collect::<BTreeSet<u32>>();
    let concealed = concealed.difference(&themselves).copied().collect();
    (themselves, concealed)
}

fn random_loss(side: Side, percent: f64, decodable: f64) {
    let story = format!("{percent} % of random loss, 60 ms of round trip, on the {side:?}'s link");
    over_seeds(&story, |seed| {
        let conditions = Conditions {
            loss: percent / 100.0,
            ..WIDE
        };
        let Lossy {
            call,
            voice,
            voice_sent,
            since,
        } = lossy(seed, side, conditions, 30.0);
        let (arrived, concealed) = heard(&call.world, &voice, since);
        let silent = voice_sent as usize - (arrived.len() + concealed.len()).min(voice_sent as usize);
        // The last half second may still be on its way.
        let until = call.now() - Duration::from_millis(500);
        let sent = f64::from(voice_sent);
        let mut figures = vec![
            at_least("decodable, %", call.decoded(0, since..until), decodable),
            at_most("longest gap, ms", ms(call.longest_gap(0, Some(since))), 30_000.0),
            // Lost once, and the next packet not: p (1 - p), and what scatters around it.
            at_least(
                "sound concealed by RED, %",
                100.0 * concealed.len() as f64 / sent,
                percent * (1.0 - percent / 100.0) * 0.6,
            ),
            // Lost twice in a row: the square of the loss, and what scatters around it.
            at_most(
                "sound lost, %",
                100.0 * silent as f64 / sent,
                percent * percent / 100.0 * 1.5 + 1.0,
            ),
        ];
        if let Some((least, _)) = call.estimates(since..call.now()) {
            // The lowest layer with its headers.
            figures.push(at_least("least estimate, kbit/s", least / 1000.0, 175.0));
        }
        figures
    });
}

#[test]
fn five_percent_down() {
    random_loss(Side::Subscriber, 5.0, 98.0);
}

#[test]
fn ten_percent_down() {
    random_loss(Side::Subscriber, 10.0, 95.0);
}

#[test]
fn twenty_percent_down() {
    random_loss(Side::Subscriber, 20.0, 85.0);
}

#[test]
fn thirty_percent_down() {
    random_loss(Side::Subscriber, 30.0, 60.0);
}

#[test]
fn five_percent_up() {
    random_loss(Side::Publisher, 5.0, 98.0);
}

#[test]
fn ten_percent_up() {
    random_loss(Side::Publisher, 10.0, 95.0);
}

#[test]
fn twenty_percent_up() {
    random_loss(Side::Publisher, 20.0, 85.0);
}

#[test]
fn thirty_percent_up() {
    random_loss(Side::Publisher, 30.0, 60.0);
}

/// A slide now and then: nothing follows a picture that would show that its end is missing.
#[test]
fn the_end_of_a_picture_before_a_pause() {
    over_seeds("a picture of three packets every 700 ms, 15 % of random loss", |seed| {
        let mut world = World::new(seed);
        let viewer = world.join_connected("viewer");
        let publisher = world.join_connected("slides");
        let slides = Shape {
            interval: Duration::from_millis(700),
            fixed: Some((3, 1000)),
            ..Shape::plain(Codec::Vp8, 0)
        };
        let track = world.publish_shapes(publisher, Codec::Vp8, vec![slides], true);
        let conditions = Conditions { loss: 0.15, ..WIDE };
        world.set_link(viewer, WIDE);
        let subscription = world.subscribe(viewer, &track);
        world.run(Duration::from_secs(3));
        world.set_link(viewer, conditions);
        world.run(Duration::from_secs(120));
        let shown = &world.received(&subscription).receiver.shown;
        let frames = &world.peers[publisher].outgoing[0].frames;
        let frames: Vec<_> = frames[10..frames.len() - 2].to_vec();
        let in_time = frames.iter().filter(|(at, tag)| {
            let seen = shown.iter().find(|shown| shown.tag.frame == tag.frame);
            seen.is_some_and(|seen| seen.at - *at < Duration::from_millis(500))
        });
        let percent = 100.0 * in_time.count() as f64 / frames.len() as f64;
        // The end is lost 15 times of a hundred, and again its copy: some two then wait for the next picture, and with them
        // the one that refers to them.
        vec![at_least("seen within 500 ms, %", percent, 70.0)]
    });
}

fn bursts(side: Side) {
    over_seeds(&format!("bursts of 5, 3 %, on the {side:?}'s link"), |seed| {
        let conditions = Conditions {
            burst: Some(Burst::of(5.0, 0.03)),
            ..WIDE
        };
        let Lossy { call, since, .. } = lossy(seed, side, conditions, 30.0);
        let publisher = call.cameras[0].publisher;
        let link = match side {
            Side::Publisher => &call.world.links[publisher].up,
            Side::Subscriber => &call.world.links[call.viewer].down,
        };
        let requests = call.world.peers[publisher].requested_keyframes.iter();
        let requests = requests.filter(|(at, _)| *at >= since).count();
        vec![
            at_most("longest gap, ms", ms(call.longest_gap(0, Some(since))), 1000.0),
            at_most(
                "key frames asked per burst",
                requests as f64 / link.counts.bursts as f64,
                1.0,
            ),
        ]
    });
}

#[test]
fn bursts_down() {
    bursts(Side::Subscriber);
}

#[test]
fn bursts_up() {
    bursts(Side::Publisher);
}

/// Nothing is lost: nothing may freeze, and next to nothing be asked for.
fn late(what: &str, side: Side, conditions: Conditions) {
    over_seeds(&format!("{what} on the {side:?}'s link"), |seed| {
        let Lossy { call, since, .. } = lossy(seed, side, conditions, 30.0);
        let up = &call.world.links[call.cameras[0].publisher].up;
        let late = up.counts.reordered.max(1);
        let asked = call.world.shard.stats().nacks_sent;
        let mut figures: Vec<Figure> = vec![
            // libwebrtc counts a freeze from 150 ms beyond the usual interval on; the jitter itself is 50 of them.
            at_most("longest gap, ms", ms(call.longest_gap(0, Some(since))), 200.0),
            at_least("decodable, %", call.decoded(0, since..call.now()), 98.0),
            at_most(
                "forwarded twice",
                sent_twice(&call.world, &call.cameras[0].subscription) as f64,
                0.0,
            ),
            call.numbers(0),
        ];
        // Looked at every five seconds, by stream: one that is late alone overtakes nobody.
        let counted = call.world.shard.stats().out_of_order;
        let reordered = side == Side::Publisher && conditions.reorder.is_some();
        let least = if reordered { up.counts.reordered / 4 } else { 0 };
        figures.push(at_least("counted as out of order", counted as f64, least as f64));
        let most = if reordered { up.counts.reordered } else { 0 };
        figures.push(at_most("of those that were", counted as f64, most as f64));
        if side == Side::Publisher {
            figures.push(at_most(
                "asked for, % of what was late",
                100.0 * asked as f64 / late as f64,
                5.0,
            ));
        }
        figures
    });
}

const JITTER: Conditions = Conditions {
    jitter: Duration::from_millis(50),
    ..WIDE
};
const REORDERED: Conditions = Conditions {
    reorder: Some(Reorder {
        share: 0.02,
        by: Duration::from_millis(20),
    }),
    ..WIDE
};
const DUPLICATED: Conditions = Conditions {
    duplicate: 0.01,
    ..WIDE
};

#[test]
fn jitter_up() {
    late("50 ms of jitter in order", Side::Publisher, JITTER);
}

#[test]
fn jitter_down() {
    late("50 ms of jitter in order", Side::Subscriber, JITTER);
}

#[test]
fn reordered_up() {
    late("2 % reordered by up to 20 ms", Side::Publisher, REORDERED);
}

#[test]
fn reordered_down() {
    late("2 % reordered by up to 20 ms", Side::Subscriber, REORDERED);
}

#[test]
fn duplicated_up() {
    late("1 % of duplicates", Side::Publisher, DUPLICATED);
}

#[test]
fn duplicated_down() {
    late("1 % of duplicates", Side::Subscriber, DUPLICATED);
}
