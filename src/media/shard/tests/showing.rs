use super::super::*;
use super::world::*;
use crate::media::edge::Publish;
use crate::rtp::rtcp::{self, SenderInfo};
use crate::types::{DropReason, ParticipantHandle, Ssrc, TrackHandle};

const OTHER: RoomHandle = RoomHandle(2);
const SHOWN: TrackHandle = TrackHandle(9100);

fn pli(packet: &rtcp::Packet<'_>) -> bool {
    matches!(packet, rtcp::Packet::Pli { .. })
}

/// Alice publishes in a room without anybody; her picture is shown in carol's.
fn rooms() -> (World, usize, usize, TrackHandle) {
    let mut world = World::new();
    world.command(Command::OpenRoom {
        room: OTHER,
        sif_trailer: SIF.to_vec(),
        audio_last_n: 0,
    });
    let (alice, carol) = (world.join(), world.join_room(OTHER));
    let encodings = vec![Default::default()];
    let codecs = vec![codec(crate::types::Codec::Vp8, VP8, Some(RTX))];
    let publish = world.publishing(alice, "1", crate::types::MediaKind::Video, codecs, encodings);
    let track = publish.track;
    world.command(Command::Publish(Box::new(publish.clone())));
    let publish = Box::new(Publish {
        room: OTHER,
        participant: ParticipantHandle(9000),
        track: SHOWN,
        ..publish
    });
    world.command(Command::ShowTrack { source: track, publish });
    let mut subscribe = world.subscription(carol, SHOWN, 500);
    subscribe.room = OTHER;
    world.command(Command::Subscribe(Box::new(subscribe)));
    (world, alice, carol, track)
}

#[test]
fn a_picture_is_shown_in_two_rooms() {
    let (mut world, alice, carol, track) = rooms();
    let bob = world.join();
    world.subscribe(bob, track);
    world.video(alice, 70, 1, "", &vp8(false, true, 1, 300));
    world.deliver();
    assert!(world.take_rtcp(alice, pli) > 0, "somebody waits for a key frame");
    for sequence in 2..5 {
        world.video(alice, 70, sequence, "", &vp8(sequence == 2, true, sequence, 300));
        world.deliver();
    }
    assert_eq!((world.take(bob).len(), world.take(carol).len()), (3, 3));
    let told = world.events();
    let seen = |of: TrackHandle| {
        told.iter()
            .any(|event| matches!(event, Event::EncodingSeen { track, .. } if *track == of))
    };
    assert!(seen(track) && seen(SHOWN));
    // A lost packet is asked for once.
    world.video(alice, 70, 6, "", &vp8(false, true, 6, 300));
    world.pass(60);
    let asked = world.take_rtcp(alice, |packet| matches!(packet, rtcp::Packet::Nack { .. }));
    assert!(asked > 0);
    assert_eq!(world.shard.stats().nacks_sent, asked as u64);
    // A mute is each room's own.
    world.take(bob);
    world.take(carol);
    world.command(Command::MuteTrack {
        track: SHOWN,
        muted: true,
    });
    world.video(alice, 70, 7, "", &vp8(true, true, 7, 300));
    world.deliver();
    assert_eq!((world.take(bob).len(), world.take(carol).len()), (1, 0));
}

#[test]
fn the_publishers_clock_is_known_in_both_rooms() {
    let (mut world, alice, carol, _) = rooms();
    for sequence in 1..4 {
        world.video(alice, 70, sequence, "", &vp8(sequence == 1, true, sequence, 300));
        world.deliver();
    }
    world.send_rtcp(alice, |writer| {
        let info = SenderInfo {
            ssrc: Ssrc(70),
            ntp: 0xe000_0000_0000_0000,
            rtp_timestamp: 9000,
            packets: 3,
            octets: 900,
        };
        writer.sender_report(&info, &[])
    });
    world.take_rtcp(carol, |_| true);
    world.pass(3_000);
    let reports = world.take_rtcp(
        carol,
        |packet| matches!(packet, rtcp::Packet::SenderReport { info, .. } if info.ntp >> 48 >= 0xe000),
    );
    assert!(reports > 0);
}

#[test]
fn either_rooms_end_leaves_the_other_as_it_is() {
    let (mut world, alice, carol, track) = rooms();
    world.video(alice, 70, 1, "", &vp8(true, true, 1, 300));
    world.deliver();
    assert_eq!(world.take(carol).len(), 1);
    world.command(Command::Unpublish { track: SHOWN });
    world.pass(2_000);
    world.take(carol);
    world.video(alice, 70, 2, "", &vp8(false, true, 2, 300));
    world.deliver();
    assert!(world.take(carol).is_empty());
    assert_eq!(
        world.dropped(DropReason::UnknownSsrc) + world.dropped(DropReason::NotPublished),
        0
    );

    let (mut world, alice, _, _) = rooms();
    world.command(Command::CloseRoom { room: OTHER });
    world.video(alice, 70, 1, "", &vp8(true, true, 1, 300));
    world.deliver();
    assert_eq!(world.shard.population().rooms, 1);

    let (mut world, alice, carol, _) = rooms();
    world.video(alice, 70, 1, "", &vp8(true, true, 1, 300));
    world.deliver();
    world.command(Command::CloseRoom { room: ROOM });
    world.pass(100);
    world.take(carol);
    world.command(Command::Unpublish { track: SHOWN });
    world.command(Command::CloseRoom { room: OTHER });
    world.pass(3_000);
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
    let _ = (alice, track);
}
