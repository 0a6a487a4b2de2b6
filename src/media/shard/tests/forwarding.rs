use super::world::*;
use crate::media::edge::{Command, EncodingParameters, Event, SubscriptionSettings};
use crate::rtp::{RtpHeader, rtcp};
use crate::types::{
    Codec, DropReason, Extension, Layer, MediaKind, ParticipantHandle, Pt, RoomHandle, Ssrc, TrackHandle,
};

fn pli(packet: &rtcp::Packet<'_>) -> bool {
    matches!(packet, rtcp::Packet::Pli { .. })
}

#[test]
fn a_voice_reaches_every_subscriber_under_its_own_numbers() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    let first = world.subscribe(bob, track);
    world.subscribe(carol, track);
    for sequence in 100..105 {
        world.opus(alice, 5, sequence);
    }
    world.deliver();
    let got = world.take(bob);
    assert_eq!((got.len(), world.take(carol).len(), world.take(alice).len()), (5, 5, 0));
    let packet = got[0].rtp();
    assert_eq!(
        (packet.ssrc(), packet.pt(), packet.timestamp()),
        (Ssrc(first.0 as u32), Pt(109), 96_000)
    );
    assert_eq!(packet.payload(), &[100; 60]);
    assert_eq!(packet.extension(1), Some(&[20][..]), "audio level");
    assert_eq!(packet.extension(4), Some(&b"9"[..]), "its own mid");
    for (at, packet) in got.iter().enumerate() {
        assert_eq!(packet.sequence(), got[0].sequence().wrapping_add(at as u16));
        assert_eq!(packet.rtp().extension(3), Some(&(at as u16 + 1).to_be_bytes()[..]));
    }
    let events = world.events();
    assert!(events.iter().any(|event| matches!(
        event,
        Event::EncodingSeen {
            ssrc: Ssrc(5),
            codec: Codec::Opus,
            ..
        }
    )));
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::SubscriptionStarted { subscription } if *subscription == first))
    );
}

#[test]
fn only_what_was_bound_is_forwarded() {
    let mut world = World::new();
    let (alice, bob, mallory) = (world.join(), world.join(), world.join());
    world.opus(alice, 5, 1);
    assert_eq!(
        world.dropped(DropReason::UnknownSsrc),
        1,
        "its extensions mean nothing yet"
    );
    let track = world.publish_audio(alice, "0");
    world.subscribe(bob, track);
    // Another client's packets with the same SSRC and mid are its own, and it has published nothing on them.
    world.publish_video(mallory, "1", &[]);
    world.opus(mallory, 5, 1);
    assert_eq!(world.dropped(DropReason::NotPublished), 1);
    world.opus(alice, 5, 2);
    world.command(Command::Unpublish { track });
    world.deliver();
    world.take(bob);
    world.opus(alice, 5, 3);
    world.deliver();
    assert_eq!(world.dropped(DropReason::NotPublished), 2);
    assert_eq!(world.take(bob).len(), 0);
}

#[test]
fn a_picture_starts_at_a_key_frame_that_was_asked_for() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    for sequence in 0..20 {
        world.video(alice, 7, sequence, "", &vp8(sequence == 0, true, sequence, 500));
        world.pass(33);
    }
    world.take_rtcp(alice, pli);
    world.subscribe(bob, track);
    world.deliver();
    assert_eq!(world.take_rtcp(alice, pli), 1, "at once");
    world.video(alice, 7, 20, "", &vp8(false, true, 20, 500));
    world.video(alice, 7, 21, "", &vp8(false, true, 21, 500));
    world.deliver();
    assert_eq!(world.take_rtcp(alice, pli), 0, "not more often than every 500 ms");
    assert_eq!(world.take(bob).len(), 0);
    assert_eq!(world.dropped(DropReason::AwaitingKeyframe), 2);
    world.pass(600);
    assert_eq!(world.take_rtcp(alice, pli), 1, "again while it has not come");
    world.video(alice, 7, 22, "", &vp8(true, true, 22, 500));
    world.video(alice, 7, 23, "", &vp8(false, true, 23, 500));
    world.deliver();
    assert_eq!(world.take(bob).len(), 2);
    world.pass(3000);
    assert_eq!(world.take_rtcp(alice, pli), 0, "answered");
}

#[test]
fn packets_that_overtook_their_key_frame_follow_it() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, track);
    world.video(alice, 7, 1, "", &vp8(false, true, 9, 500));
    for sequence in [3, 4, 2] {
        world.video(alice, 7, sequence, "", &vp8(sequence == 2, sequence == 2, 10, 500));
    }
    world.deliver();
    let got = world.take(bob);
    let first = got[0].sequence();
    let sequences: Vec<u16> = got.iter().map(|packet| packet.sequence().wrapping_sub(first)).collect();
    assert_eq!(sequences, [0, 1, 2]);
    assert!(got[0].rtp().payload()[6] & 1 == 0, "the key frame first");
}

#[test]
fn simulcast_gives_the_best_layer_allowed_and_moves_without_a_break() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &["q", "h", "f"]);
    let subscription = world.subscribe(bob, track);
    let mut sequence = 0;
    let mut frame = |world: &mut World, keys: [bool; 3], flowing: [bool; 3]| {
        sequence += 1;
        for (layer, rid) in ["q", "h", "f"].into_iter().enumerate() {
            if flowing[layer] {
                let payload = vp8(keys[layer], true, sequence + layer as u16 * 1000, 300 + layer * 100);
                world.video(alice, 70 + layer as u32, sequence, rid, &payload);
            }
        }
        world.pass(33);
    };
    let all = [true; 3];
    frame(&mut world, all, all);
    for _ in 0..10 {
        frame(&mut world, [false; 3], all);
    }
    // All layers began in one turn, the lowest first: the switch up waits for the next key frame.
    frame(&mut world, all, all);
    for _ in 0..30 {
        frame(&mut world, [false; 3], all);
    }
    let got = world.take(bob);
    assert_eq!(got.last().unwrap().rtp().payload().len(), 500, "the best");
    world.take_rtcp(alice, pli);

    let settings = SubscriptionSettings {
        max_layer: Layer {
            spatial: 1,
            temporal: 3,
        },
        ..Default::default()
    };
    world.command(Command::UpdateSubscription { subscription, settings });
    world.deliver();
    assert_eq!(world.take_rtcp(alice, pli), 1);
    frame(&mut world, [false; 3], all);
    frame(&mut world, [false, true, false], all);
    let settings = SubscriptionSettings::default();
    world.command(Command::UpdateSubscription { subscription, settings });
    frame(&mut world, [false, false, true], all);
    // The best layer stops: within about a second a lower one is asked for and given.
    for _ in 0..40 {
        frame(&mut world, [false; 3], [true, true, false]);
    }
    assert!(world.take_rtcp(alice, pli) >= 1);
    frame(&mut world, [true, true, false], [true, true, false]);
    frame(&mut world, [false; 3], [true, true, false]);
    let more = world.take(bob);
    let sizes: Vec<usize> = more.iter().map(|packet| packet.rtp().payload().len()).collect();
    // The key frame of a higher layer arrives behind the lower layer's frame of the same moment.
    assert_eq!(sizes, [500, 400, 400, 500, 400, 400]);
    let mut last = got.last().unwrap().clone();
    for packet in more {
        assert_eq!(packet.sequence(), last.sequence().wrapping_add(1));
        let step = packet.rtp().timestamp().wrapping_sub(last.rtp().timestamp()) as i32;
        assert!((1..=90_000 * 2).contains(&step), "{step}");
        let picture = |packet: &Got| u16::from_be_bytes([packet.rtp().payload()[2] & 0x7f, packet.rtp().payload()[3]]);
        assert_eq!(picture(&packet), picture(&last) + 1);
        last = packet;
    }
}

#[test]
fn a_mute_ends_in_a_second_of_silence_and_the_voice_goes_on_after_it() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    world.subscribe(bob, track);
    for sequence in 0..10 {
        world.opus(alice, 5, sequence);
        world.pass(20);
    }
    let before = world.take(bob).pop().unwrap();
    world.command(Command::MuteTrack { track, muted: true });
    world.pass(500);
    world.opus(alice, 5, 10);
    world.pass(1000);
    assert_eq!(world.dropped(DropReason::Muted), 1);
    let silence = world.take(bob);
    assert_eq!(silence.len(), 50);
    let mut last = before;
    for packet in &silence {
        assert!(packet.rtp().payload().starts_with(&[0xf8, 0xff, 0xfe]));
        assert_eq!(packet.sequence(), last.sequence().wrapping_add(1));
        let step = packet.rtp().timestamp().wrapping_sub(last.rtp().timestamp());
        assert!((960..=1920).contains(&step), "{step}");
        last = packet.clone();
    }
    world.command(Command::MuteTrack { track, muted: false });
    // The microphone's clock went on meanwhile: 1500 ms are 75 frames.
    world.opus(alice, 5, 85);
    world.deliver();
    let after = world.take(bob).pop().unwrap();
    assert_eq!(after.sequence(), last.sequence().wrapping_add(1));
    assert_eq!(after.rtp().timestamp(), 85 * 960, "the media's own time again");
}

#[test]
fn a_track_muted_from_the_start_is_announced_by_packets_without_content() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let voice = world.publish_audio(alice, "0");
    let camera = world.publish_video(alice, "1", &[]);
    for track in [voice, camera] {
        world.command(Command::MuteTrack { track, muted: true });
        world.subscribe(bob, track);
    }
    world.pass(2000);
    let got = world.take(bob);
    let (audio, video): (Vec<_>, Vec<_>) = got.into_iter().partition(|packet| packet.rtp().pt() == Pt(109));
    assert_eq!((audio.len(), video.len()), (5, 5));
    assert!(
        audio
            .iter()
            .all(|packet| packet.rtp().payload().starts_with(&[0xf8, 0xff, 0xfe]))
    );
    assert!(video.iter().all(|packet| packet.rtp().payload().is_empty()));
    // The picture that comes in the end follows without a gap.
    world.command(Command::MuteTrack {
        track: camera,
        muted: false,
    });
    world.video(alice, 7, 1, "", &vp8(true, true, 1, 500));
    world.deliver();
    let first = world.take(bob).pop().unwrap();
    let last = video.last().unwrap();
    assert_eq!(first.sequence(), last.sequence().wrapping_add(1));
    let step = first.rtp().timestamp().wrapping_sub(last.rtp().timestamp());
    assert!((90_000..=180_000).contains(&step), "{step}");
}

#[test]
fn an_ended_picture_is_blanked_and_says_so_when_frames_are_encrypted() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    let place = world.shard.index.tracks[&track];
    world
        .shard
        .rooms
        .get_mut(place.room)
        .unwrap()
        .tracks
        .get_mut(place.slot)
        .unwrap()
        .encrypted = true;
    let subscription = world.subscribe(bob, track);
    world.video(alice, 7, 1, "", &vp8(true, true, 1, 500));
    world.deliver();
    let last = world.take(bob).pop().unwrap();
    world.command(Command::Unsubscribe { subscription });
    world.video(alice, 7, 2, "", &vp8(false, true, 2, 500));
    world.pass(1000);
    let blank = world.take(bob);
    assert_eq!(blank.len(), 6, "0.2 s at 30 a second");
    for (at, packet) in (1..).zip(&blank) {
        let info = crate::rtp::inspect(Codec::Vp8, packet.rtp().payload(), true).unwrap();
        assert!(info.keyframe && info.dimensions == Some((8, 8)));
        assert!(packet.rtp().payload().ends_with(SIF));
        assert_eq!(packet.sequence(), last.sequence().wrapping_add(at));
    }
    assert!(world.shard.rooms.get(place.room).unwrap().subscriptions.is_empty());
    assert!(world.shard.index.subscriptions.is_empty());
}

#[test]
fn packets_of_a_frame_leave_in_one_size() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, track);
    for (sequence, len) in [(0, 700), (1, 701), (2, 701), (3, 700), (4, 300)] {
        world.video(alice, 7, sequence, "", &vp8(sequence == 0, sequence == 0, 1, len));
    }
    world.deliver();
    let sizes = std::mem::take(&mut world.peers[bob].sizes);
    assert_eq!(sizes[..4], [sizes[0]; 4]);
    assert!(sizes[4] < sizes[0] - 300);
    let lens: Vec<usize> = world
        .take(bob)
        .iter()
        .map(|packet| packet.rtp().payload().len())
        .collect();
    assert_eq!(lens, [700, 701, 701, 700, 300], "padding is not payload");
    assert_eq!(world.shard.stats().padded, 2);
}

#[test]
fn a_panic_costs_one_transport_or_one_room() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    world.subscribe(bob, track);
    let other = RoomHandle(2);
    world.command(Command::OpenRoom {
        room: other,
        sif_trailer: Vec::new(),
        audio_last_n: 0,
    });
    let carol = world.join_room(other);
    let slot = world.shard.index.transports[&world.peers[bob].handle];
    world.shard.transports.get_mut(slot).unwrap().panics = true;
    world.events();
    world.send_rtcp(bob, |writer| writer.pli(Ssrc(1), Ssrc(2)));
    world.deliver();
    let closed = world.peers[bob].handle;
    assert!(world.events().iter().any(|event| matches!(
        event,
        Event::TransportClosed { transport, reason: crate::types::CloseReason::Panicked } if *transport == closed
    )));
    world.opus(alice, 5, 1);
    world.deliver();
    assert_eq!(world.shard.stats().transport_panics, 1);

    let room = world.shard.index.rooms[&ROOM];
    world.shard.rooms.get_mut(room).unwrap().panics = true;
    world.opus(alice, 5, 2);
    world.deliver();
    assert!(
        world
            .events()
            .iter()
            .any(|event| matches!(event, Event::RoomPanicked { room: ROOM }))
    );
    assert_eq!(world.shard.stats().room_panics, 1);
    assert_eq!(
        (world.shard.rooms.len(), world.shard.transports.len()),
        (1, 1),
        "the other room has lost nothing"
    );
    world.send_rtcp(carol, |writer| writer.pli(Ssrc(1), Ssrc(2)));
    assert_eq!(world.dropped(DropReason::UnknownSsrc), 1);
    world.pass(50);
}

#[test]
fn a_codec_that_a_subscriber_lacks_is_reported_once() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let h264 = vec![codec(Codec::H264, VP8, Some(RTX))];
    let track = world.publish(alice, "1", MediaKind::Video, h264, vec![EncodingParameters::default()]);
    world.subscribe(bob, track);
    for sequence in 0..3 {
        world.video(alice, 7, sequence, "", &[0x67, 1, 2, 3]);
    }
    world.deliver();
    assert_eq!(world.dropped(DropReason::CodecNotNegotiated), 3);
    let reports = world.events();
    let reports = reports
        .iter()
        .filter(|event| matches!(event, Event::CodecUnsupported { .. }));
    assert_eq!(reports.count(), 1);
}

#[test]
fn red_is_unwrapped_for_who_takes_plain_opus() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let red = vec![codec(Codec::Red, Pt(63), None), codec(Codec::Opus, OPUS, None)];
    let track = world.publish(alice, "0", MediaKind::Audio, red, vec![EncodingParameters::default()]);
    world.subscribe(bob, track);
    let header = RtpHeader {
        marker: false,
        pt: Pt(63),
        sequence: 1,
        timestamp: 960,
        ssrc: Ssrc(5),
    };
    let payload = [0x80 | 111, 0x0f, 0x00, 0x03, 111, 1, 2, 3, 4, 5, 6];
    world.send(alice, header, &[(Extension::Mid, b"0")], &payload);
    world.deliver();
    let got = world.take(bob);
    assert_eq!((got[0].rtp().pt(), got[0].rtp().payload()), (Pt(109), &[4, 5, 6][..]));
}

#[test]
fn what_is_gone_is_stale() {
    let mut world = World::new();
    world.command(Command::Unpublish { track: TrackHandle(9) });
    world.command(Command::RemoveParticipant {
        room: RoomHandle(77),
        participant: ParticipantHandle(1),
    });
    assert_eq!(world.dropped(DropReason::StaleCommand), 2);
    world.command(Command::CloseRoom { room: ROOM });
    assert!(world.shard.rooms.is_empty());
}

#[test]
fn who_speaks_and_how_well_is_told() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    world.subscribe(bob, track);
    for sequence in 0..520 {
        world.opus(alice, 5, sequence);
        world.pass(20);
    }
    let events = world.events();
    let speaker = world.peers[alice].participant;
    assert!(
        events.iter().any(
            |event| matches!(event, Event::Speakers { room: ROOM, speakers } if speakers[0].participant == speaker)
        )
    );
    for peer in [alice, bob] {
        let who = world.peers[peer].participant;
        let scores = events.iter().filter(
            |event| matches!(event, Event::Quality { participant, score } if *participant == who && score.mos > 4.0),
        );
        assert_eq!(scores.count(), 2, "every five seconds");
    }
    world.pass(2000);
    assert!(
        world
            .events()
            .iter()
            .any(|event| matches!(event, Event::Speakers { speakers, .. } if speakers.is_empty()))
    );
}

#[test]
fn probes_on_the_media_stream_leave_no_gap() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, track);
    for (sequence, payload) in [
        (1, vp8(true, true, 1, 500)),
        (2, Vec::new()),
        (3, vp8(false, true, 2, 500)),
    ] {
        world.video(alice, 7, sequence, "", &payload);
    }
    world.deliver();
    let got = world.take(bob);
    assert_eq!(got.len(), 2);
    assert_eq!(got[1].sequence(), got[0].sequence().wrapping_add(1));
}

#[test]
fn numbers_and_keys_hold_over_the_end_of_the_sequence_space() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    world.subscribe(bob, track);
    let mut last = None;
    for number in 0..70_000u32 {
        world.opus(alice, 5, number as u16);
        if number % 50 == 0 {
            world.now += std::time::Duration::from_millis(1);
            world.deliver();
            for packet in world.take(bob) {
                if let Some(last) = last {
                    assert_eq!(packet.sequence(), u16::wrapping_add(last, 1));
                }
                last = Some(packet.sequence());
            }
            world.peers[bob].sealed.clear();
        }
    }
    assert_eq!(world.shard.stats().rtp_sent, 69_951);
}

#[test]
fn a_turn_that_holds_a_whole_key_frame_gives_each_packet_once_and_in_order() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    let voice = world.publish_audio(alice, "0");
    for peer in [bob, carol] {
        world.subscribe(peer, camera);
        world.subscribe(peer, voice);
    }
    // Nothing is delivered between: all of it is one turn.
    world.video(alice, 7, 100, "", &vp8(true, true, 1, 900));
    world.opus(alice, 5, 1);
    world.video(alice, 7, 102, "", &vp8(true, false, 1, 900));
    world.opus(alice, 5, 2);
    world.video(alice, 7, 101, "", &vp8(true, false, 1, 900));
    world.video(alice, 7, 103, "", &vp8(false, true, 2, 900));
    world.deliver();
    for peer in [bob, carol] {
        let got = world.take(peer);
        let of = |is_voice: bool| {
            let packets = got.iter().filter(|packet| (packet.rtp().pt() == Pt(109)) == is_voice);
            let mut numbers: Vec<u16> = packets.map(Got::sequence).collect();
            numbers.sort_unstable();
            numbers.iter().map(|number| number - numbers[0]).collect::<Vec<_>>()
        };
        assert_eq!(of(true), [0, 1]);
        assert_eq!(of(false), [0, 1, 2, 3]);
    }
}
