//! Requests without measure.

use std::time::Duration;

use patchbay::{rtp::rtcp::NackPair, types::Ssrc};

use crate::{
    oracles::seen,
    seeds::{at_least, at_most, ms, over_seeds},
    world::World,
};

#[test]
fn a_flood_of_requests_hurts_nobody() {
    over_seeds("300 PLI/s and 10,000 NACK/s from one subscriber", |seed| {
        let mut world = World::new(seed);
        let alice = world.join_connected("alice");
        let others = [world.join_connected("bob"), world.join_connected("carol")];
        let mallory = world.join_raw("mallory");
        let track = world.publish_camera(alice);
        world.run(Duration::from_millis(1500));
        let good = others.map(|other| world.subscribe(other, &track));
        let ssrc = world.subscribe_raw(mallory, &track);
        world.run(Duration::from_secs(5));
        let since = world.now;
        let seconds = 10;
        for round in 0..seconds * 300u32 {
            let now = world.now;
            let raw = &mut world.raw[mallory];
            let newest = raw.received.last().map_or(0, |(_, sequence)| *sequence);
            raw.send_rtcp(now, |writer| {
                writer.pli(Ssrc(1), Ssrc(ssrc))?;
                for n in 0..34u16 {
                    let back = (round as u16).wrapping_mul(7).wrapping_add(n * 5) % 200;
                    let pair = NackPair {
                        pid: newest.wrapping_sub(back),
                        blp: 0,
                    };
                    writer.nack(Ssrc(1), Ssrc(ssrc), &[pair])?;
                }
                Ok(())
            });
            world.run(Duration::from_secs(1) / 300);
        }
        let interval = since..world.now - Duration::from_millis(500);
        let requests = &world.peers[alice].requested_keyframes;
        let per_layer = ["q", "h", "f"].map(|layer| {
            let asked = |(at, rid): &&(_, Option<str0m::media::Rid>)| *at >= since && *rid == Some(layer.into());
            requests.iter().filter(asked).count() as f64 / f64::from(seconds)
        });
        let decoded = good
            .iter()
            .map(|by| seen(&world, alice, &track, by, interval.clone()).percent());
        let gap = good
            .iter()
            .map(|by| world.received(by).receiver.longest_gap(interval.clone()).0)
            .max();
        let missing: usize = good.iter().map(|by| world.received(by).missing().len()).sum();
        vec![
            at_least(
                "flood is received, datagrams",
                world.raw[mallory].received.len() as f64,
                500.0,
            ),
            at_most(
                "PLI/s at the publisher, worst layer",
                per_layer.into_iter().fold(0.0, f64::max),
                2.0,
            ),
            at_least("decodable at the others, %", decoded.fold(100.0, f64::min), 100.0),
            at_most("packets missing at the others", missing as f64, 0.0),
            at_most("longest gap at the others, ms", ms(gap.unwrap_or_default()), 100.0),
        ]
    });
}
