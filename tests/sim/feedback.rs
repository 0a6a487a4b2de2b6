//! Clients that report what they receive in different ways.

use std::time::Duration;

use crate::{
    call::link,
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
        // Ten seconds at 30 a second, less the wait for a key frame and a switch.
        assert!(shown > 250, "{feedback:?}: {shown}");
        assert_eq!(world.peers[bob].remb.estimate.is_some(), feedback == Feedback::Remb);
    }
}

#[test]
fn a_receiver_sees_that_its_link_is_full() {
    let mut world = World::new(1);
    let alice = world.join_connected("alice");
    let joining = Joining {
        feedback: Feedback::Remb,
        ..Joining::default()
    };
    let bob = world.join_connected_with("bob", joining);
    let track = world.publish_camera(alice);
    world.run(Duration::from_millis(1500));
    world.set_link(bob, link(1_000_000));
    world.subscribe(bob, &track);
    world.run(Duration::from_secs(10));
    let estimate = world.peers[bob].remb.estimate.expect("an estimate");
    assert!((200_000..=1_050_000).contains(&estimate), "{estimate}");
}
