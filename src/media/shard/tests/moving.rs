use super::world::*;
use crate::media::edge::MoveTransport;
use crate::rtp::RtpHeader;
use crate::types::{
    DropReason, ParticipantHandle, SrtpProfile, Ssrc, SubscriptionHandle, TrackHandle, TransportHandle,
};

use super::super::*;

const OTHER: RoomHandle = RoomHandle(2);
const NEW: TransportHandle = TransportHandle(9001);

/// Alice publishes a picture that bob receives, in a room beside carol's.
fn rooms() -> (World, usize, usize, usize, TrackHandle) {
    let mut world = World::new();
    world.command(Command::OpenRoom {
        room: OTHER,
        sif_trailer: SIF.to_vec(),
        audio_last_n: 0,
    });
    let (alice, bob, carol) = (world.join(), world.join(), world.join_room(OTHER));
    let track = world.publish_video(alice, "1", &["q", "f"]);
    world.subscribe(bob, track);
    for sequence in 0..3 {
        world.video(alice, 70, sequence, "q", &vp8(sequence == 0, true, sequence, 100));
        world.video(alice, 71, sequence, "f", &vp8(sequence == 0, true, sequence, 300));
        world.deliver();
    }
    assert!(!world.take(bob).is_empty());
    world.events();
    (world, alice, bob, carol, track)
}

fn move_to(world: &mut World, peer: usize, room: RoomHandle, tracks: Vec<(TrackHandle, TrackHandle)>) {
    let its = MoveTransport {
        from: world.peers[peer].handle,
        room,
        participant: ParticipantHandle(9000),
        transport: NEW,
        tracks,
    };
    world.command(Command::MoveTransport(Box::new(its)));
    world.peers[peer].handle = NEW;
    world.peers[peer].participant = ParticipantHandle(9000);
}

/// As browsers send once we have reported on a stream: without mid and rid.
fn unnamed(world: &mut World, peer: usize, ssrc: u32, sequence: u16, key: bool) {
    let header = RtpHeader {
        marker: true,
        pt: VP8,
        sequence,
        timestamp: u32::from(sequence) * 3000,
        ssrc: Ssrc(ssrc),
    };
    world.send(peer, header, &[], &vp8(key, true, sequence, 300));
}

#[test]
fn a_picture_goes_on_in_another_room() {
    let (mut world, alice, bob, carol, track) = rooms();
    let renamed = TrackHandle(9100);
    move_to(&mut world, alice, OTHER, vec![(track, renamed)]);
    let told = world.events();
    let profile = SrtpProfile::AeadAes128Gcm;
    let is_up = |event: &Event| matches!(event, Event::TransportConnected { transport: NEW, srtp_profile, .. } if *srtp_profile == profile);
    assert!(
        told.iter().any(is_up),
        "control may have heard it under the old handle only"
    );
    let mut subscribe = world.subscription(carol, renamed, 500);
    subscribe.room = OTHER;
    world.command(Command::Subscribe(Box::new(subscribe)));
    world.pass(100); // bob's picture is blanked
    world.take(bob);
    world.take(carol);
    for sequence in 3..6 {
        unnamed(&mut world, alice, 71, sequence, sequence == 3);
        world.deliver();
    }
    assert_eq!(world.take(bob).len(), 0, "she has left his room");
    assert_eq!(world.take(carol).len(), 3);
    assert_eq!(world.dropped(DropReason::UnknownSsrc), 0, "what was learned is known");
    let seen = |event: &Event| matches!(event, Event::EncodingSeen { track, encoding: 1, .. } if *track == renamed);
    assert!(world.events().iter().any(seen));
    assert_eq!(world.dropped(DropReason::StaleCommand), 0);

    // What the rooms ask for later names her new handles.
    world.command(Command::Unpublish { track: renamed });
    world.command(Command::CloseTransport { transport: NEW });
    world.pass(2_000);
    world.command(Command::CloseRoom { room: ROOM });
    world.command(Command::CloseRoom { room: OTHER });
    world.pass(100);
    let left = world.shard.population();
    assert_eq!(
        (
            left.rooms,
            left.transports,
            left.tracks,
            left.subscriptions,
            left.timers
        ),
        (0, 0, 0, 0, 0)
    );
}

#[test]
fn who_moves_receives_nothing_of_the_room_it_left() {
    let (mut world, alice, bob, carol, track) = rooms();
    world.command(Command::Unpublish { track });
    let voice = world.publish_audio(bob, "0");
    world.subscribe(alice, voice);
    world.opus(bob, 5, 1);
    world.deliver();
    assert_eq!(world.take(alice).len(), 1);
    move_to(&mut world, alice, OTHER, Vec::new());
    world.opus(bob, 5, 2);
    world.deliver();
    assert_eq!(world.take(alice).len(), 0);
    let mut publish = world.publishing(
        carol,
        "0",
        crate::types::MediaKind::Audio,
        vec![codec(crate::types::Codec::Opus, OPUS, None)],
        vec![Default::default()],
    );
    publish.room = OTHER;
    let voice = publish.track;
    world.command(Command::Publish(Box::new(publish)));
    let mut subscribe = world.subscription(alice, voice, 600);
    subscribe.room = OTHER;
    world.command(Command::Subscribe(Box::new(subscribe)));
    world.opus(carol, 6, 1);
    world.deliver();
    assert_eq!(world.take(alice).len(), 1);
    // Her end in the new room leaves nothing of her in the old one.
    world.command(Command::Unsubscribe {
        subscription: SubscriptionHandle(600),
    });
    world.command(Command::CloseRoom { room: OTHER });
    world.pass(100);
    let left = world.shard.population();
    assert_eq!(
        (left.rooms, left.transports, left.tracks, left.subscriptions),
        (1, 1, 1, 0)
    );
}

#[test]
fn a_room_that_is_gone_takes_nobody_in() {
    let (mut world, alice, _, _, _) = rooms();
    move_to(&mut world, alice, RoomHandle(77), Vec::new());
    world.pass(100);
    let lost = |event: &Event| matches!(event, Event::TransportClosed { transport: NEW, .. });
    assert!(world.events().iter().any(lost));
    let left = world.shard.population();
    assert_eq!((left.transports, left.tracks), (2, 0));
    // Somebody whose transport ended just before hears of it as well.
    move_to(&mut world, alice, OTHER, Vec::new());
    assert!(world.events().iter().any(lost));
}
