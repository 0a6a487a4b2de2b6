use super::world::*;
use crate::media::edge::{Command, Event, Explanation, LayerReason, SubscriptionSettings};
use crate::rtp::{RtpHeader, rtcp::NackPair};
use crate::types::{Extension, Layer, MediaKind, ParticipantHandle, RoomHandle, Ssrc};

fn explain(world: &mut World, participant: Option<ParticipantHandle>) -> Explanation {
    world.events();
    world.command(Command::Explain {
        room: ROOM,
        participant,
        query: 42,
    });
    let mut answers = world.events().into_iter().filter_map(|event| match event {
        Event::Explanation {
            room: ROOM,
            query: 42,
            report,
        } => Some(*report),
        _ => None,
    });
    answers.next_back().expect("an answer")
}

/// 30 frames of a simulcast camera whose top encoding has three times the bytes of the lowest.
fn film(world: &mut World, alice: usize, first: u16, rids: &[&str]) {
    for at in first..first + 30 {
        for (layer, rid) in rids.iter().enumerate() {
            let payload = vp8(at == first, true, at, 300 + layer * 300);
            world.video(alice, 70 + layer as u32, at, rid, &payload);
        }
        world.pass(33);
    }
}

#[test]
fn a_subscription_says_what_it_is_sent_and_why_not_more() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &["q", "h", "f"]);
    let subscription = world.subscribe(bob, camera);
    film(&mut world, alice, 1, &["q", "h", "f"]);
    let report = explain(&mut world, None);
    let [sent] = &report.subscriptions[..] else {
        panic!("{report:?}")
    };
    assert_eq!(sent.layers.reason, LayerReason::Best);
    assert_eq!(sent.layers.sent.map(|layer| layer.spatial), Some(2));
    assert_eq!((sent.subscription, sent.track, sent.rtt), (subscription, camera, None));
    assert!(sent.packets > 20 && sent.bytes > 10_000);
    let last = sent.decisions.last().expect("a decision");
    assert_eq!(last.layers, sent.layers);
    let [track] = &report.tracks[..] else {
        panic!("{report:?}")
    };
    assert_eq!(
        (track.kind, track.subscribers, track.encodings.len()),
        (MediaKind::Video, 1, 3)
    );
    let rates: Vec<u64> = track.encodings.iter().map(|encoding| encoding.rate.as_kbps()).collect();
    assert!(rates[0] > 80 && rates[0] < 120 && rates[2] > rates[0] * 2, "{rates:?}");
    assert!(
        track
            .encodings
            .iter()
            .all(|encoding| encoding.is_flowing && encoding.packets == 30)
    );

    // Less is asked for; then the publisher mutes; then nothing is wanted.
    let settings = SubscriptionSettings {
        max_layer: Layer {
            spatial: 0,
            temporal: 3,
        },
        priority: 9,
        ..Default::default()
    };
    world.command(Command::UpdateSubscription { subscription, settings });
    let waiting = explain(&mut world, None).subscriptions.remove(0);
    film(&mut world, alice, 40, &["q", "h", "f"]);
    let less = explain(&mut world, None).subscriptions.remove(0);
    assert_eq!((less.layers.reason, less.priority), (LayerReason::ClientAskedLess, 9));
    assert!(waiting.decisions.len() < less.decisions.len());
    world.command(Command::MuteTrack {
        track: camera,
        muted: true,
    });
    let muted = explain(&mut world, None).subscriptions.remove(0);
    assert_eq!((muted.layers.reason, muted.layers.target), (LayerReason::Muted, None));
    let settings = SubscriptionSettings {
        disabled: true,
        ..settings
    };
    world.command(Command::UpdateSubscription { subscription, settings });
    let disabled = explain(&mut world, None).subscriptions.remove(0);
    assert_eq!(
        (disabled.layers.reason, disabled.layers.wanted),
        (LayerReason::Disabled, None)
    );
    let reasons: Vec<_> = disabled
        .decisions
        .iter()
        .map(|decision| decision.layers.reason)
        .collect();
    assert!(
        reasons.ends_with(&[LayerReason::ClientAskedLess, LayerReason::Muted, LayerReason::Disabled]),
        "{reasons:?}"
    );
}

#[test]
fn what_the_publisher_does_not_send_is_named() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &["q", "h", "f"]);
    world.subscribe(bob, camera);
    film(&mut world, alice, 1, &["q", "h"]);
    let sent = explain(&mut world, None).subscriptions.remove(0);
    assert_eq!(sent.layers.sent.map(|layer| layer.spatial), Some(1));
    assert_eq!(sent.layers.reason, LayerReason::NotSent);
}

#[test]
fn what_a_receiver_asks_for_is_counted_and_gaps_are() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    let subscription = world.subscribe(bob, camera);
    film(&mut world, alice, 1, &[""]);
    let media = Ssrc(subscription.0 as u32);
    let newest = world.take(bob).last().unwrap().sequence();
    world.send_rtcp(bob, |writer| {
        writer.nack(
            Ssrc(1),
            media,
            &[NackPair {
                pid: newest - 1,
                blp: 1,
            }],
        )
    });
    world.send_rtcp(bob, |writer| writer.pli(Ssrc(1), media));
    world.deliver();
    world.pass(600);
    film(&mut world, alice, 31, &[""]);
    let report = explain(&mut world, None);
    let sent = &report.subscriptions[0];
    assert_eq!(
        (
            sent.repair.nacked,
            sent.repair.retransmitted,
            sent.repair.keyframe_requests
        ),
        (2, 2, 1)
    );
    assert_eq!(sent.freezes, 1);
    assert!(report.tracks[0].encodings[0].keyframe_requests >= 1);
}

#[test]
fn one_participant_is_told_of_what_concerns_it() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let (camera, voice) = (world.publish_video(alice, "1", &[]), world.publish_audio(carol, "0"));
    for reader in [bob, carol] {
        world.subscribe(reader, camera);
    }
    world.subscribe(bob, voice);
    let of = |world: &mut World, peer: usize| {
        let participant = world.peers[peer].participant;
        let report = explain(world, Some(participant));
        let receptions: Vec<_> = report
            .receptions
            .iter()
            .map(|reception| reception.participant)
            .collect();
        assert!(receptions.iter().all(|of| *of == participant));
        (receptions.len(), report.subscriptions.len(), report.tracks.len())
    };
    assert_eq!(of(&mut world, alice), (0, 0, 1), "her camera");
    assert_eq!(of(&mut world, bob), (1, 2, 2));
    assert_eq!(of(&mut world, carol), (1, 1, 2), "the camera, and her own voice");
    world.command(Command::Explain {
        room: RoomHandle(77),
        participant: None,
        query: 1,
    });
    assert!(
        !world
            .events()
            .iter()
            .any(|event| matches!(event, Event::Explanation { .. }))
    );
}

#[test]
fn a_voice_is_whole_or_nothing_of_it_comes() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let voice = world.publish_audio(alice, "0");
    world.subscribe(bob, voice);
    assert_eq!(world.reasons(), [LayerReason::NotSent]);
    let speak = |world: &mut World, packets: std::ops::Range<u16>| {
        for sequence in packets {
            let header = RtpHeader {
                marker: false,
                pt: OPUS,
                sequence,
                timestamp: u32::from(sequence) * 960,
                ssrc: Ssrc(5),
            };
            world.send(alice, header, &[(Extension::Mid, b"0")], &[7; 80]);
            world.pass(20);
        }
    };
    speak(&mut world, 0..100);
    assert_eq!(world.reasons(), [LayerReason::Best]);
    let report = explain(&mut world, None);
    let encoding = &report.tracks[0].encodings[0];
    // 50 packets a second of 80 bytes and their headers.
    assert!(
        encoding.is_flowing && (45..80).contains(&encoding.rate.as_kbps()),
        "{encoding:?}"
    );
    let mut reasons = report.subscriptions[0]
        .decisions
        .iter()
        .map(|decision| decision.layers.reason);
    assert_eq!(reasons.next_back(), Some(LayerReason::Best));
    let mute = |muted| Command::MuteTrack { track: voice, muted };
    world.command(mute(true));
    assert_eq!(world.reasons(), [LayerReason::Muted]);
    world.command(mute(false));
    speak(&mut world, 200..210);
    assert_eq!(world.reasons(), [LayerReason::Best]);
}

#[test]
fn a_picture_from_what_is_stored_is_counted() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    for at in 0..2 {
        world.video(alice, 70, at, "", &vp8(at == 0, true, at, 500));
        world.pass(33);
    }
    world.subscribe(bob, camera);
    world.deliver();
    let sent = explain(&mut world, None).subscriptions.remove(0);
    assert_eq!((sent.repair.keyframe_replays, sent.repair.keyframe_requests), (1, 0));
    assert_eq!((sent.packets, sent.freezes), (2, 0));
}
