//! What a shard refuses, and what it does when tracks end, mute or move.

use std::time::Duration;

use patchbay::{
    media::edge::{Command, Event, SubscriptionSettings},
    types::{CloseReason, Codec, DropReason, Layer, NetPath, NetProtocol, SrtpProfile},
};

use crate::{
    impairment::Conditions,
    media::Source,
    world::{Joining, World},
};

#[test]
fn a_gcm_profile_is_what_a_client_ends_up_with() {
    let mut world = World::new(1);
    world.join_connected("alice");
    let profiles: Vec<_> = world
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::TransportConnected { srtp_profile, .. } => Some(*srtp_profile),
            _ => None,
        })
        .collect();
    assert_eq!(profiles.len(), 1);
    assert!(
        matches!(profiles[0], SrtpProfile::AeadAes128Gcm | SrtpProfile::AeadAes256Gcm),
        "{profiles:?}"
    );
}

#[test]
fn media_that_nothing_bound_goes_nowhere() {
    let mut world = World::new(2);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, Codec::Opus);
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(1));
    let before = world.received(&subscription).packets.len();
    assert!(before > 40);
    world.command(Command::Unpublish { track: track.handle });
    world.run(Duration::from_millis(300));
    let at_end = world.received(&subscription).packets.len();
    // The client goes on sending, whatever it was told.
    world.run(Duration::from_secs(1));
    assert_eq!(world.received(&subscription).packets.len(), at_end);
    assert!(world.shard.stats().dropped(DropReason::NotPublished) > 40);
}

#[test]
fn an_unpublished_stream_never_reaches_another_track() {
    let mut world = World::new(3);
    let alice = world.join_connected("alice");
    let mallory = world.join_connected("mallory");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, Codec::Vp8);
    let subscription = world.subscribe(bob, &track);
    // Mallory sends on the same SSRC from another transport without having published anything.
    let now = world.now;
    world.peers[mallory].add_outgoing("0", None, track.ssrcs[0], None, Source::new(Codec::Vp8, 7), now);
    world.run(Duration::from_secs(2));
    let tags = world.received(&subscription).tags();
    assert!(tags.len() > 100);
    assert!(tags.iter().all(|tag| tag.encoding == 0), "only alice's picture");
}

#[test]
fn muting_sends_silence_then_nothing_and_unmuting_goes_on() {
    let mut world = World::new(4);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, Codec::Opus);
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(1));
    world.command(Command::MuteTrack {
        track: track.handle,
        muted: true,
    });
    let muted_at = world.now;
    world.run(Duration::from_secs(3));
    let silent: Vec<_> = world
        .received(&subscription)
        .packets
        .iter()
        .filter(|packet| packet.at > muted_at + Duration::from_millis(50))
        .cloned()
        .collect();
    assert!(
        (40..=60).contains(&silent.len()),
        "one second of silence frames, not {}",
        silent.len()
    );
    assert!(
        silent
            .iter()
            .all(|packet| packet.payload.starts_with(&[0xf8, 0xff, 0xfe]))
    );
    world.command(Command::MuteTrack {
        track: track.handle,
        muted: false,
    });
    let unmuted_at = world.now;
    world.run(Duration::from_secs(1));
    let incoming = world.received(&subscription);
    let again = incoming
        .packets
        .iter()
        .filter(|packet| packet.at > unmuted_at && packet.tag.is_some())
        .count();
    assert!(again >= 40, "{again} packets after unmute");
    assert_eq!(incoming.missing(), Vec::<u64>::new(), "one continuous stream");
}

#[test]
fn a_disabled_subscription_is_quiet_and_comes_back_at_a_key_frame() {
    let mut world = World::new(5);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, Codec::Vp8);
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(2));
    let off = SubscriptionSettings {
        disabled: true,
        ..Default::default()
    };
    world.command(Command::UpdateSubscription {
        subscription: subscription.handle,
        settings: off,
    });
    world.run(Duration::from_millis(100));
    let quiet = world.received(&subscription).packets.len();
    world.run(Duration::from_secs(2));
    assert_eq!(world.received(&subscription).packets.len(), quiet);
    world.command(Command::UpdateSubscription {
        subscription: subscription.handle,
        settings: Default::default(),
    });
    world.run(Duration::from_secs(2));
    let incoming = world.received(&subscription);
    let first_again = incoming.packets[quiet].tag.expect("media");
    assert!(first_again.keyframe && first_again.part == 0);
    assert_eq!(incoming.missing(), Vec::<u64>::new());
}

#[test]
fn a_lower_layer_is_given_when_asked_for() {
    let mut world = World::new(6);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish_encodings(alice, Codec::Vp8, 3);
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(3));
    let settings = SubscriptionSettings {
        max_layer: Layer {
            spatial: 0,
            temporal: 3,
        },
        ..Default::default()
    };
    world.command(Command::UpdateSubscription {
        subscription: subscription.handle,
        settings,
    });
    world.run(Duration::from_secs(3));
    assert_eq!(world.received(&subscription).tags().last().expect("media").encoding, 0);
}

#[test]
fn a_picture_loss_reaches_the_publisher_once_in_a_while() {
    let mut world = World::new(7);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, Codec::Vp8);
    let subscription = world.subscribe(bob, &track);
    world.run(Duration::from_secs(2));
    let before = world.peers[alice].keyframe_requests;
    for _ in 0..100 {
        world.peers[bob].request_keyframe(subscription.ssrc);
        world.run(Duration::from_millis(20));
    }
    let asked = world.peers[alice].keyframe_requests - before;
    assert!(
        (1..=5).contains(&asked),
        "{asked} requests in two seconds: throttled, not swallowed"
    );
}

#[test]
fn a_wrong_fingerprint_gives_no_media_and_says_so() {
    let mut world = World::new(8);
    let joining = Joining {
        described_fingerprint: Some([7; 32]),
        ..Default::default()
    };
    let alice = world.join_with("alice", joining);
    let bob = world.join_connected("bob");
    let track = world.publish(bob, Codec::Opus);
    let subscription = world.subscribe(alice, &track);
    world.run(Duration::from_secs(5));
    assert!(world.received(&subscription).packets.is_empty());
    assert!(world.events.iter().any(|(_, event)| matches!(
        event,
        Event::TransportClosed {
            reason: CloseReason::FingerprintMismatch,
            ..
        }
    )));
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    let mut world = World::new(9);
    let alice = world.join_connected("alice");
    let down = Conditions {
        up: false,
        ..Conditions::CLEAN
    };
    world.set_link(alice, down);
    world.run(Duration::from_secs(90)); // it is waited for 60 s
    assert!(world.events.iter().any(|(_, event)| matches!(
        event,
        Event::TransportClosed {
            reason: CloseReason::IceFailed,
            ..
        }
    )));
}

#[test]
fn full_ice_connects_too() {
    let mut world = World::new(10);
    let alice = world.join_with(
        "alice",
        Joining {
            ice_lite: false,
            ..Default::default()
        },
    );
    world.run(Duration::from_secs(5));
    assert!(world.peers[alice].connected);
}

#[test]
fn garbage_is_counted_and_touches_nobody() {
    use rand::RngExt;
    let mut world = World::new(11);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let track = world.publish(alice, Codec::Vp8);
    let subscription = world.subscribe(bob, &track);
    let (from_alice, from_nobody) = (world.peers[alice].address, ([192, 0, 2, 1], 9).into());
    for round in 0..2_000_u32 {
        let length = world.rng.random_range(0..200);
        let mut bytes: Vec<u8> = (0..length).map(|_| world.rng.random()).collect();
        if let Some(first) = bytes.first_mut() {
            // Every branch of RFC 7983 in turn.
            *first = [0, 1, 20, 22, 63, 64, 128, 144, 191, 255][round as usize % 10];
        }
        let remote = if round % 2 == 0 { from_alice } else { from_nobody };
        let path = NetPath {
            local: world.server,
            remote,
            protocol: NetProtocol::Udp,
        };
        let now = world.now;
        world.shard.handle_datagram(now, path, &mut bytes);
        if round % 20 == 0 {
            world.run(Duration::from_millis(10));
        }
    }
    world.run(Duration::from_secs(2));
    let incoming = world.received(&subscription);
    assert_eq!(incoming.missing(), Vec::<u64>::new());
    assert!(incoming.whole_frames().len() > 60);
    assert!(world.shard.stats().dropped(DropReason::UnknownPath) > 100);
}
