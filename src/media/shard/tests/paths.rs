use std::net::SocketAddr;

use super::world::*;
use crate::media::transport::MAX_FLOWS;
use crate::types::DropReason;

/// LiveKit/Firefox: a full agent and Firefox check every pair of their addresses for as long as the call lasts.
#[test]
fn checks_of_other_paths_do_not_displace_the_one_that_media_takes() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    world.subscribe(bob, track);
    let path = world.peers[alice].path;
    let slot = world.shard.index.transports[&world.peers[alice].handle];
    let other = |port: usize| {
        let remote = SocketAddr::new(path.remote.ip(), 20_000 + port as u16);
        crate::types::NetPath { remote, ..path }
    };
    for port in 0..3 * MAX_FLOWS {
        world.shard.learn_flow(other(port), slot);
        // The first of the others is checked again and again, the rest once.
        world.shard.learn_flow(other(0), slot);
    }
    let transport = world.shard.transports.get_mut(slot).expect("alice's transport");
    assert_eq!(transport.flows.len(), MAX_FLOWS);
    assert!(transport.flows.contains(&other(0)), "checked a moment ago");
    assert!(!transport.flows.contains(&other(1)), "checked long ago");
    let leading_to_alice = world.shard.flows.values().filter(|to| **to == slot).count();
    assert_eq!(leading_to_alice, MAX_FLOWS);

    world.opus(alice, 5, 100);
    world.deliver();
    assert_eq!(world.take(bob).len(), 1);
    assert_eq!(world.dropped(DropReason::UnknownPath), 0);
}
