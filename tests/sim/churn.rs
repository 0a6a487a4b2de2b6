//! An hour of joins and leaves: nothing may grow.

use std::time::Duration;

use patchbay::types::Codec;

use crate::world::World;

#[test]
fn an_hour_of_joins_and_leaves_leaves_nothing_behind() {
    let mut world = World::new(1);
    let mut present = std::collections::VecDeque::new();
    let mut after_warm_up = None;
    for second in 0..3_600_u32 {
        let peer = world.join(&format!("p{second}"));
        let track = world.publish(peer, Codec::Opus);
        if let Some(&other) = present.back() {
            world.subscribe(other, &track);
        }
        present.push_back(peer);
        if present.len() > 3 {
            let gone = present.pop_front().expect("somebody");
            world.leave(gone);
            // The record of a peer that left is the test's own weight, not the server's.
            world.peers[gone].incoming.clear();
            world.peers[gone].outgoing.clear();
            world.sent[gone].clear();
        }
        world.run(Duration::from_secs(1));
        world.events.clear();
        if second == 60 {
            after_warm_up = Some(world.shard.population());
        }
    }
    let end = world.shard.population();
    assert_eq!(
        Some(end),
        after_warm_up,
        "rooms, transports, tracks, subscriptions and timers as after a minute"
    );
}
