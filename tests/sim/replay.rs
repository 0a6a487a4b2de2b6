//! The same seed gives the same call, another seed another one.

use std::time::Duration;

use crate::{
    impairment::{Burst, Conditions, Reorder},
    world::World,
};

/// Everything that was sent after the handshake, by time, stream, number and size.
fn trace(seed: u64) -> String {
    let mut world = World::new(seed);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish_camera(alice);
    let voice = world.publish_voice(alice);
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
    let from = world.now;
    world.subscribe(bob, &track);
    world.subscribe(bob, &voice);
    world.run(Duration::from_secs(10));
    let mut lines = String::new();
    for sent in &world.sent[bob] {
        let at = (sent.at - from).as_nanos();
        let line = format!("{at} {} {} {} {}\n", sent.ssrc, sent.sequence, sent.timestamp, sent.len);
        lines.push_str(&line);
    }
    for (reason, count) in world.shard.stats().drops() {
        lines.push_str(&format!("{reason:?} {count}\n"));
    }
    lines
}

#[test]
fn a_seed_replays_to_the_packet() {
    let first = trace(5);
    assert!(first.lines().count() > 1_000, "there is something to compare");
    let second = trace(5);
    let difference = first.lines().zip(second.lines()).find(|(one, other)| one != other);
    assert_eq!(difference, None);
    assert_eq!(first.len(), second.len());
    assert_ne!(first, trace(6), "another seed is another call");
}
