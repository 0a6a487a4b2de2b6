//! The same seed gives the same call, to the byte; another seed another one.

use std::{fmt::Write, time::Duration};

use livekit_protocol::{DataPacket, UserPacket, data_packet};
use patchbay::types::{ChannelLabel, Codec};
use prost::Message;

use crate::{
    impairment::{Burst, Conditions, Reorder},
    media::Shape,
    randomness::replayable,
    trace::{Line, Trace},
    world::World,
};

/// What became of a call.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// All that the server sent after the handshakes.
    sent: Vec<Line>,
    /// What everybody received, in the clear, what the server told control, what it decided, and what it dropped.
    lines: Vec<String>,
}

/// A camera, a screen and two voices, data besides, over a good link and one that has everything a link can have and
/// changes.
fn call(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| world.join_connected(name));
    let red = vec![Shape::plain(Codec::Red, 0)];
    let tracks = [
        world.publish_camera(alice),
        world.publish_shapes(alice, Codec::Red, red, false),
        world.publish_screen(carol),
        world.publish_voice(carol),
    ];
    let bad = Conditions {
        rate: Some(1_200_000),
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(10),
        loss: 0.02,
        burst: Some(Burst::of(4.0, 0.01)),
        reorder: Some(Reorder {
            share: 0.02,
            by: Duration::from_millis(20),
        }),
        duplicate: 0.01,
        ..Conditions::CLEAN
    };
    world.set_link(bob, bad);
    // What a publisher is asked for comes back in the order of its own tables.
    let lossy = Conditions {
        loss: 0.1,
        ..Conditions::CLEAN
    };
    world.set_link(alice, lossy);
    let from = world.now;
    world.trace = Some(Trace::new(from));
    world.observed = Some(bob);
    let mut subscriptions = Vec::new();
    for viewer in [bob, dave] {
        subscriptions.extend(tracks.iter().map(|track| world.subscribe(viewer, track)));
    }
    for second in 0..12 {
        if second == 5 {
            let wider = Conditions {
                rate: Some(4_000_000),
                ..bad
            };
            world.set_link(bob, wider);
        }
        let packet = DataPacket {
            value: Some(data_packet::Value::User(UserPacket {
                payload: vec![7; 300],
                ..Default::default()
            })),
            ..Default::default()
        };
        world.peers[alice].send_message(ChannelLabel::Reliable, &packet.encode_to_vec());
        world.run(Duration::from_secs(1));
    }
    let mut lines = Vec::new();
    for subscription in &subscriptions {
        for packet in &world.received(subscription).packets {
            let at = packet.at - from;
            let (sequence, timestamp, payload) = (packet.sequence, packet.timestamp, &packet.payload);
            lines.push(format!(
                "{at:?} {sequence} {timestamp} {payload:?} {:?}",
                packet.descriptor
            ));
        }
    }
    for (at, event) in world.events.iter().filter(|(at, _)| *at >= from) {
        lines.push(format!("{:?} {event:?}", *at - from));
    }
    for (at, report) in &world.explained {
        let mut line = format!("{:?} {:?}", *at - from, report.receptions);
        for subscription in &report.subscriptions {
            let _ = write!(line, " {:?}", subscription.layers);
        }
        lines.push(line);
    }
    lines.extend(world.shard.stats().drops().map(|drop| format!("{drop:?}")));
    let sent = world.trace.take().expect("a trace").lines;
    Outcome { sent, lines }
}

#[test]
fn a_seed_replays_to_the_byte() {
    let [first, second, other] = [5, 5, 6].map(|seed| replayable(seed, || call(seed)));
    assert!(first.sent.len() > 5_000, "there is something to compare");
    let (one, two) = (first.sent.iter(), second.sent.iter());
    assert_eq!(one.zip(two).find(|(one, two)| one != two), None);
    let (one, two) = (first.lines.iter(), second.lines.iter());
    assert_eq!(one.zip(two).find(|(one, two)| one != two), None);
    assert_eq!(
        (first.sent.len(), first.lines.len()),
        (second.sent.len(), second.lines.len())
    );
    assert_ne!(first.sent, other.sent, "another seed is another call");
}
