//! Clients that report what they receive in different ways.

use std::time::Duration;

use crate::{
    call::link,
    network::Measures,
    peer::Feedback,
    world::{Joining, World},
};

#[test]
fn every_kind_of_client_is_served() {
    for feedback in [Feedback::TransportWide, Feedback::Remb, Feedback::None] {
        let mut world = World::new(1);
        let alice = world.join_connected("alice");
        let joining = Joining {
            feedback,
            ..Joining::default()
        };
        let bob = world.join_connected_with("bob", joining);
        let track = world.publish_camera(alice);
        world.run(Duration::from_millis(1500));
        world.set_link(bob, link(5_000_000));
        let subscription = world.subscribe(bob, &track);
        world.run(Duration::from_secs(10));
        let shown = world.received(&subscription).receiver.shown.len();
        // Ten seconds at 30 a second, less two seconds of waits for key frames and switches.
        assert!(shown > 220, "{feedback:?}: {shown}");
        assert_eq!(world.peers[bob].remb.estimate.is_some(), feedback == Feedback::Remb);
    }
}

#[test]
fn a_client_that_estimates_for_itself_is_not_sent_more() {
    let mut world = World::new(1);
    let alice = world.join_connected("alice");
    let joining = Joining {
        feedback: Feedback::Remb,
        ..Joining::default()
    };
    let bob = world.join_connected_with("bob", joining);
    let track = world.publish_camera(alice);
    world.run(Duration::from_millis(1500));
    world.set_link(bob, link(600_000));
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(10));
    let settled = world.now;
    world.run(Duration::from_secs(20));
    let down = &world.links[bob].down;
    // The queue holds 300 ms: it is not full.
    let queueing = down.queueing(settled..world.now, 0.95);
    assert!(queueing < Duration::from_millis(200), "{queueing:?}");
    let (gap, _) = world.received(&subscription).receiver.longest_gap(settled..world.now);
    assert!(gap < Duration::from_secs(1), "{gap:?}");
}
