//! Requests without measure, and frames that no link is made for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use patchbay::{rtp::rtcp::NackPair, types::Ssrc};

use crate::{
    call::{Call, link},
    oracles::seen,
    peer::Incoming,
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

/// What a key frame of so many packets did to a camera and a voice over 5 Mbit/s, in milliseconds.
struct Huge {
    call: Call,
    at: Instant,
    /// Until the last packet of a picture that was sent, beyond the way's own 30 ms.
    picture: f64,
    /// That a voice packet waited in the server, and until it arrived, beyond the way's own time.
    voice_in_server: f64,
    voice: f64,
    /// Packets that were not sent, with a counted reason.
    dropped: u64,
}

fn huge_keyframe(seed: u64, packets: u16) -> Huge {
    let mut call = Call::new(seed, 1, link(5_000_000));
    let publisher = call.cameras[0].publisher;
    let voice = call.world.publish_voice(publisher);
    let voice = call.world.subscribe(call.viewer, &voice);
    call.run(20.0);
    let at = call.now();
    let dropped = |call: &Call| call.world.shard.stats().drops().map(|(_, count)| count).sum::<u64>();
    let before = dropped(&call);
    let camera = &mut call.world.peers[publisher].outgoing[2];
    camera.source.next_keyframe = Some(packets);
    camera.source.request_keyframe();
    call.run(5.0);
    // To the server and from there.
    let (up, down) = (Duration::from_millis(10), Duration::from_millis(20));
    let delay_of = |incoming: &Incoming, index: usize| {
        let source = &call.world.peers[publisher].outgoing[index];
        let sent: BTreeMap<u32, Instant> = source.frames.iter().map(|(at, tag)| (tag.frame, *at)).collect();
        let packets = incoming.packets.iter().filter(|packet| packet.at >= at);
        let delays = packets.filter_map(|packet| {
            let tag = packet.tag.filter(|tag| tag.encoding == source.source.encoding)?;
            Some((packet.at - *sent.get(&tag.frame)?).saturating_sub(up + down))
        });
        ms(delays.max().unwrap_or_default())
    };
    // Sound is forwarded packet by packet: the last ones sent are the last ones that came.
    let left = call.world.sent[call.viewer]
        .iter()
        .filter(|sent| sent.ssrc == voice.ssrc);
    let left: Vec<Instant> = left.map(|sent| sent.at).collect();
    let spoken = &call.world.peers[publisher].outgoing[3].frames;
    let arrived = spoken
        .iter()
        .map(|(spoken, _)| *spoken + up)
        .filter(|arrived| *arrived <= call.now());
    let waits = arrived
        .rev()
        .zip(left.iter().rev())
        .take_while(|(arrived, _)| *arrived >= at);
    let waits = waits.map(|(arrived, left)| left.saturating_duration_since(arrived));
    Huge {
        at,
        picture: delay_of(call.received(0), 2),
        voice_in_server: ms(waits.max().unwrap_or_default()),
        voice: delay_of(call.world.received(&voice), 3),
        dropped: dropped(&call) - before,
        call,
    }
}

#[test]
fn a_key_frame_of_120_packets() {
    over_seeds("120-packet key frame over 5 Mbit/s", |seed| {
        let huge = huge_keyframe(seed, 120);
        vec![
            at_most("drained, ms", huge.picture, 250.0),
            at_most("voice queued, ms", huge.voice_in_server, 20.0),
            // In the network's own queue too: less than the key frame takes there.
            at_most("voice late, ms", huge.voice, 250.0),
            at_most("longest gap, ms", ms(huge.call.longest_gap(0, Some(huge.at))), 400.0),
            huge.call.numbers(0),
        ]
    });
}

#[test]
fn a_key_frame_of_1000_packets() {
    over_seeds("1000-packet key frame over 5 Mbit/s", |seed| {
        let huge = huge_keyframe(seed, 1000);
        vec![
            at_most("oldest packet that was still sent, ms", huge.picture, 500.0),
            at_least("dropped with a reason", huge.dropped as f64, 1.0),
            at_most("voice queued, ms", huge.voice_in_server, 20.0),
            at_most("longest gap, ms", ms(huge.call.longest_gap(0, Some(huge.at))), 3000.0),
            huge.call.numbers(0),
        ]
    });
}
