//! What a viewer of 720p cameras gets over links of different kinds: layers, gaps, use of the link.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    call::{Call, link},
    network::Measures,
    seeds::{at_least, at_most, ms, over_seeds},
};

const TOP: u8 = 2;

#[test]
fn clean_link() {
    over_seeds("clean 10 Mbit/s, 40 ms of round trip", |seed| {
        let mut call = Call::new(seed, 1, link(10_000_000));
        call.run(30.0);
        let top = call.until(0, call.from, |shown| shown.tag.encoding == TOP);
        let down = &call.world.links[call.viewer].down;
        vec![
            at_most("top layer, ms", ms(top), 2000.0),
            at_most("longest gap, ms", ms(call.longest_gap(0, None)), 200.0),
            // One camera has 1.7 Mbit/s; what is beyond are probes and headers.
            at_most("sent, kbit/s", down.throughput(call.from..call.now()) / 1000.0, 4000.0),
            call.numbers(0),
        ]
    });
}

/// What a packet has beside its payload: RTP header, its extensions, the seal, UDP and IP.
const OVERHEAD: usize = 44 + crate::impairment::HEADERS;
/// Bytes of payload in a packet, about.
const PAYLOAD: usize = 1150;

/// (spatial, temporal) layers of a camera in the order in which they are worth having: a picture that moves comes before a
/// larger one, so that 7.5 frames a second are only given of the lowest.
const LAYERS: [(u8, u8); 7] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)];

/// Bits per second that a camera put out in an interval at a layer and all below it, headers included.
fn rate(call: &Call, camera: usize, (spatial, temporal): (u8, u8), interval: Range<Instant>) -> f64 {
    let publisher = call.cameras[camera].publisher;
    let encoding = &call.world.peers[publisher].outgoing[usize::from(spatial)];
    let frames = encoding.frames.iter().zip(&encoding.sizes);
    let bytes: usize = frames
        .filter(|((at, tag), _)| interval.contains(at) && tag.temporal <= temporal)
        .map(|(_, size)| size + size.div_ceil(PAYLOAD) * OVERHEAD)
        .sum();
    bytes as f64 * 8.0 / (interval.end - interval.start).as_secs_f64()
}

/// What the best set of layers of all cameras takes that fits into `budget`: cameras are equals, so each layer is given to
/// as many of them as it fits for before any has a better one. Not the set that fills the path best: that one gives one of
/// four equals 720p at 30 frames a second and another 180p.
fn best_set(call: &Call, budget: f64, interval: Range<Instant>) -> f64 {
    let mut given = vec![0.0; call.cameras.len()];
    let mut open = vec![true; call.cameras.len()];
    for layer in LAYERS {
        for camera in 0..given.len() {
            let cost = rate(call, camera, layer, interval.clone());
            let others: f64 = given.iter().sum::<f64>() - given[camera];
            open[camera] &= others + cost <= budget;
            if open[camera] {
                given[camera] = cost;
            }
        }
    }
    given.iter().sum()
}

fn constant_rate(rate: u64, cameras: usize) {
    over_seeds(&format!("constant {rate} bit/s, {cameras} cameras"), |seed| {
        let mut call = Call::new(seed, cameras, link(rate));
        call.run(10.0);
        let settled = call.now();
        let before = call.world.links[call.viewer].down.counts;
        call.run(30.0);
        let down = &call.world.links[call.viewer].down;
        let lost = down.counts.overflowed - before.overflowed;
        let loss = 100.0 * lost as f64 / (down.counts.offered - before.offered) as f64;
        let interval = settled..call.now();
        let used = down.throughput(interval.clone()) / rate as f64;
        let queueing = ms(down.queueing(interval.clone(), 0.95));
        let media = call.media_rate(interval.clone()) / best_set(&call, rate as f64, interval.clone());
        let (least, most) = call.estimates(interval.clone()).unwrap_or_default();
        let mut figures = vec![
            at_least("least estimate, % of the link", 100.0 * least / rate as f64, 85.0),
            at_most("greatest estimate, % of the link", 100.0 * most / rate as f64, 105.0),
            at_least("link used, % (for comparison)", 100.0 * used, 0.0),
            at_least("media of the best set of layers, %", 100.0 * media, 90.0),
            at_most("loss, %", loss, 1.0),
            at_most("queueing p95, ms", queueing, 100.0),
        ];
        for camera in 0..cameras {
            figures.push(call.numbers(camera));
        }
        figures
    });
}

#[test]
fn constant_one_megabit() {
    constant_rate(1_000_000, 1);
}

#[test]
fn constant_two_megabits() {
    constant_rate(2_000_000, 2);
}

#[test]
fn constant_five_megabits() {
    constant_rate(5_000_000, 4);
}

#[test]
fn a_drop_and_a_recovery() {
    over_seeds("10, 0.8 and 10 Mbit/s, 300 ms of queue", |seed| {
        let mut call = Call::new(seed, 1, link(10_000_000));
        call.run(15.0);
        let dropped = call.now();
        call.world.set_link(call.viewer, link(800_000));
        call.run(20.0);
        let restored = call.now();
        call.world.set_link(call.viewer, link(10_000_000));
        call.run(20.0);
        let down = &call.world.links[call.viewer].down;
        let long_queue = down
            .passages
            .iter()
            .filter(|passage| passage.at < restored && passage.queued > Duration::from_millis(150))
            .map(|passage| passage.at - dropped)
            .max();
        let lower = call.until(0, dropped, |shown| shown.tag.encoding < TOP);
        let top = call.until(0, restored, |shown| shown.tag.encoding == TOP);
        vec![
            at_most("lower layer, ms", ms(lower), 1500.0),
            at_most("longest gap, ms", ms(call.longest_gap(0, Some(dropped))), 700.0),
            at_most("queue under 150 ms, ms", ms(long_queue.unwrap_or_default()), 3000.0),
            at_most("top layer again, ms", ms(top), 6000.0),
            call.numbers(0),
        ]
    });
}

#[test]
fn the_top_layer_pauses() {
    over_seeds("the publisher's top layer stops for 20 s", |seed| {
        let mut call = Call::new(seed, 1, link(10_000_000));
        call.run(10.0);
        let publisher = call.cameras[0].publisher;
        let stopped = call.now();
        call.world.peers[publisher].outgoing[2].active = false;
        call.run(20.0);
        let returned = call.now();
        call.world.peers[publisher].outgoing[2].active = true;
        call.run(10.0);
        let top = call.until(0, returned, |shown| shown.tag.encoding == TOP);
        let middle = call.until(0, stopped, |shown| shown.tag.encoding < TOP);
        vec![
            at_most("a lower layer, ms", ms(middle), 700.0),
            at_most("longest gap, ms", ms(call.longest_gap(0, Some(stopped))), 700.0),
            at_most("top layer again, ms", ms(top), 2000.0),
            call.numbers(0),
        ]
    });
}
