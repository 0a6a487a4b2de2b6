//! A publisher that negotiates again with other codecs, and one that knows no transport-wide feedback.

use super::world::*;
use crate::media::edge::{Command, EncodingParameters, Event, Publish};
use crate::rtp::rtcp::{NackPair, Packet};
use crate::rtp::{RtpHeader, rtcp};
use crate::types::{Codec, CodecParameters, DropReason, Extension, ExtensionMap, MediaKind, Pt, Ssrc, TrackHandle};

const H264: Pt = Pt(125);
const H264_RTX: Pt = Pt(124);
const RED: Pt = Pt(63);

/// The same track with another table.
fn renegotiate(world: &mut World, publish: &Publish, codecs: Vec<CodecParameters>) {
    let publish = Publish {
        codecs,
        ..publish.clone()
    };
    world.command(Command::Publish(Box::new(publish)));
}

/// One packet of a single-packet H264 frame: an IDR behind its parameter sets, or another slice.
fn h264(key: bool, len: usize) -> Vec<u8> {
    let mut payload = if key {
        vec![0x78, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 2, 0x68, 0xce, 0, 9, 0x65]
    } else {
        vec![0x41]
    };
    payload.resize(if key { 22 } else { len }, 7);
    payload
}

fn send(world: &mut World, peer: usize, pt: Pt, sequence: u16, payload: &[u8]) {
    let header = RtpHeader {
        marker: true,
        pt,
        sequence,
        timestamp: u32::from(sequence) * 3000,
        ssrc: Ssrc(7),
    };
    world.send(peer, header, &[(Extension::Mid, b"1")], payload);
    world.pass(33);
}

fn asked_for_a_picture(world: &mut World, peer: usize) -> usize {
    world.take_rtcp(
        peer,
        |packet| matches!(packet, Packet::Pli { media, .. } if *media == Ssrc(7)),
    )
}

#[test]
fn a_camera_goes_on_in_another_codec() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let publish = world.publishing(
        alice,
        "1",
        MediaKind::Video,
        vec![codec(Codec::Vp8, VP8, Some(RTX))],
        vec![EncodingParameters::default()],
    );
    world.command(Command::Publish(Box::new(publish.clone())));
    let mut both = world.subscription(bob, publish.track, 5001);
    both.codecs = vec![
        codec(Codec::Vp8, Pt(100), Some(Pt(101))),
        codec(Codec::H264, Pt(102), Some(Pt(103))),
    ];
    world.command(Command::Subscribe(Box::new(both)));
    // Carol knows VP8 alone.
    let vp8_only = world.subscribe(carol, publish.track);
    // A second, so that a key frame may be asked for again.
    for sequence in 0..30 {
        send(
            &mut world,
            alice,
            VP8,
            sequence,
            &vp8(sequence == 0, true, sequence, 500),
        );
    }
    let before = world.take(bob);
    assert_eq!((before.len(), world.take(carol).len()), (30, 30));
    asked_for_a_picture(&mut world, alice);
    world.events();

    renegotiate(&mut world, &publish, vec![codec(Codec::H264, H264, Some(H264_RTX))]);
    world.pass(1);
    assert_eq!(asked_for_a_picture(&mut world, alice), 1, "at once");
    // What was on its way is of no use any more, and must not be taken for the new codec.
    send(&mut world, alice, VP8, 30, &vp8(false, true, 30, 500));
    assert_eq!(world.dropped(DropReason::UnknownPayloadType), 1);
    // The new picture does not begin in the middle.
    send(&mut world, alice, H264, 31, &h264(false, 300));
    assert_eq!(world.take(bob).len(), 0);
    send(&mut world, alice, H264, 32, &h264(true, 300));
    send(&mut world, alice, H264, 33, &h264(false, 300));
    let after = world.take(bob);
    assert_eq!(after.len(), 2);
    let last = before.last().unwrap();
    for (at, packet) in (1u16..).zip(&after) {
        assert_eq!((packet.rtp().pt(), packet.rtp().ssrc()), (Pt(102), Ssrc(5001)));
        assert_eq!(packet.sequence(), last.sequence().wrapping_add(at), "numbering goes on");
    }
    assert_eq!(after[0].rtp().payload(), h264(true, 300));
    let step = after[0].rtp().timestamp().wrapping_sub(last.rtp().timestamp());
    assert_eq!(step, 3 * 3000, "and so does the media's time");

    // A packet of the old table cannot be had any more; one of the new comes as the new codec's RTX.
    let unavailable = world.dropped(DropReason::RtxUnavailable);
    for lost in [last, &after[1]] {
        let sequence = lost.sequence();
        world.send_rtcp(bob, |writer| {
            writer.nack(Ssrc(1), Ssrc(5001), &[NackPair { pid: sequence, blp: 0 }])
        });
    }
    world.deliver();
    let again = world.take(bob);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].rtp().pt(), again[0].rtp().ssrc()), (Pt(103), Ssrc(15_001)));
    assert_eq!(again[0].rtp().payload()[2..], h264(false, 300));
    assert_eq!(world.dropped(DropReason::RtxUnavailable), unavailable + 1);

    // Who cannot take the new codec gets nothing, and control is told once.
    assert_eq!(world.take(carol).len(), 0);
    let told = world.events();
    let told = told.iter().filter(|event| {
        matches!(event, Event::CodecUnsupported { subscription, codec: Codec::H264 } if *subscription == vp8_only)
    });
    assert_eq!(told.count(), 1);

    // And back: the publisher has found that somebody needs it.
    renegotiate(&mut world, &publish, vec![codec(Codec::Vp8, VP8, Some(RTX))]);
    for sequence in 34..37 {
        send(
            &mut world,
            alice,
            VP8,
            sequence,
            &vp8(sequence == 34, true, sequence, 500),
        );
    }
    let (bob, carol) = (world.take(bob), world.take(carol));
    assert_eq!((bob.len(), carol.len()), (3, 3));
    assert_eq!((bob[0].rtp().pt(), carol[0].rtp().pt()), (Pt(100), Pt(100)));
    assert_eq!(bob[0].sequence(), after[1].sequence().wrapping_add(1));
}

#[test]
fn a_table_that_only_grows_does_not_interrupt_the_picture() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let old = codec(Codec::Vp8, VP8, Some(RTX));
    let publish = world.publishing(
        alice,
        "1",
        MediaKind::Video,
        vec![old.clone()],
        vec![EncodingParameters::default()],
    );
    world.command(Command::Publish(Box::new(publish.clone())));
    world.subscribe(bob, publish.track);
    for sequence in 0..3 {
        send(
            &mut world,
            alice,
            VP8,
            sequence,
            &vp8(sequence == 0, true, sequence, 500),
        );
    }
    world.pass(500);
    let before = world.take(bob);
    asked_for_a_picture(&mut world, alice);
    renegotiate(
        &mut world,
        &publish,
        vec![old, codec(Codec::H264, H264, Some(H264_RTX))],
    );
    send(&mut world, alice, VP8, 3, &vp8(false, true, 3, 500));
    let after = world.take(bob);
    assert_eq!(after.len(), 1);
    assert_eq!(after[0].sequence(), before[2].sequence().wrapping_add(1));
    assert_eq!(asked_for_a_picture(&mut world, alice), 0);
    // What was sent before can still be had.
    let ssrc = before[0].rtp().ssrc();
    let sequence = before[2].sequence();
    world.send_rtcp(bob, |writer| {
        writer.nack(Ssrc(1), ssrc, &[NackPair { pid: sequence, blp: 0 }])
    });
    world.deliver();
    assert_eq!(world.take(bob).len(), 1);
}

#[test]
fn a_voice_goes_on_in_red() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let opus = codec(Codec::Opus, OPUS, None);
    let publish = world.publishing(
        alice,
        "1",
        MediaKind::Audio,
        vec![opus.clone()],
        vec![EncodingParameters::default()],
    );
    world.command(Command::Publish(Box::new(publish.clone())));
    let mut both = world.subscription(bob, publish.track, 5001);
    both.codecs = vec![codec(Codec::Red, Pt(63), None), codec(Codec::Opus, Pt(109), None)];
    world.command(Command::Subscribe(Box::new(both)));
    world.subscribe(carol, publish.track);
    send(&mut world, alice, OPUS, 0, &[1; 40]);
    renegotiate(&mut world, &publish, vec![codec(Codec::Red, RED, None), opus]);
    // RFC 2198: no copy, then the block itself.
    let red = [&[OPUS.0][..], &[2; 40]].concat();
    send(&mut world, alice, RED, 1, &red);
    send(&mut world, alice, OPUS, 2, &[3; 40]);
    for (peer, expected) in [
        (bob, [(Pt(109), vec![1; 40]), (Pt(63), red), (Pt(109), vec![3; 40])]),
        (carol, [1, 2, 3].map(|byte| (Pt(109), vec![byte; 40]))),
    ] {
        let got = world.take(peer);
        assert_eq!(got.len(), 3);
        for (at, (packet, (pt, payload))) in got.iter().zip(expected).enumerate() {
            assert_eq!((packet.rtp().pt(), packet.rtp().payload()), (pt, &payload[..]));
            assert_eq!(packet.sequence(), got[0].sequence().wrapping_add(at as u16));
            assert_eq!(packet.rtp().timestamp(), at as u32 * 3000);
        }
    }
}

/// A client from before transport-wide feedback: a camera with REMB and a microphone with nothing.
fn old_client(world: &mut World, remb: bool, transport_cc: bool) -> (usize, TrackHandle) {
    let alice = world.join();
    let mut extensions = ExtensionMap::default();
    extensions.insert(Extension::Mid, 4);
    if transport_cc {
        extensions.insert(Extension::TransportCc, 3);
    }
    let picture = CodecParameters {
        transport_cc,
        remb,
        ..codec(Codec::Vp8, VP8, Some(RTX))
    };
    let sound = CodecParameters {
        transport_cc,
        remb: false,
        ..codec(Codec::Opus, OPUS, None)
    };
    let mut camera = world.publishing(
        alice,
        "1",
        MediaKind::Video,
        vec![picture],
        vec![EncodingParameters::default()],
    );
    camera.extensions = extensions.clone();
    let mut microphone = world.publishing(
        alice,
        "0",
        MediaKind::Audio,
        vec![sound],
        vec![EncodingParameters::default()],
    );
    microphone.extensions = extensions;
    let track = camera.track;
    world.command(Command::Publish(Box::new(camera)));
    world.command(Command::Publish(Box::new(microphone)));
    (alice, track)
}

/// A second of a 1 Mbit/s picture and a voice; every `lose`th packet of the picture does not come. What the publisher is
/// told in it: REMB values in bits per second, and transport-wide feedback packets.
fn second(world: &mut World, alice: usize, sequence: &mut u16, lose: Option<u16>) -> (Vec<u64>, usize) {
    let mut extensions = ExtensionMap::default();
    extensions.insert(Extension::Mid, 4);
    extensions.insert(Extension::TransportCc, 3);
    world.peers[alice].rtcp.clear();
    for _ in 0..100 {
        for (pt, ssrc, mid, payload) in [
            (VP8, 7, b"1", vp8(*sequence == 0, true, *sequence, 1250)),
            (OPUS, 5, b"0", vec![1; 60]),
        ] {
            if pt == VP8 && lose.is_some_and(|every| sequence.is_multiple_of(every)) {
                continue;
            }
            let header = RtpHeader {
                marker: true,
                pt,
                sequence: *sequence,
                timestamp: u32::from(*sequence) * if pt == VP8 { 900 } else { 480 },
                ssrc: Ssrc(ssrc),
            };
            let number = (*sequence * 2 + u16::from(pt == OPUS)).to_be_bytes();
            let elements = [(Extension::Mid, &mid[..]), (Extension::TransportCc, &number)];
            world.send_with(alice, header, &extensions, &elements, &payload);
        }
        *sequence += 1;
        world.pass(10);
    }
    let mut bitrates = Vec::new();
    let mut feedback = 0;
    for compound in &world.peers[alice].rtcp {
        for packet in rtcp::parse(compound) {
            match packet.unwrap() {
                Packet::Remb { bitrate, .. } => bitrates.push(bitrate),
                Packet::TransportFeedback(_) => feedback += 1,
                _ => {}
            }
        }
    }
    (bitrates, feedback)
}

#[test]
fn a_publisher_that_knows_nothing_else_is_told_a_bitrate_every_second() {
    let mut world = World::new();
    let (alice, track) = old_client(&mut world, true, false);
    let bob = world.join();
    world.subscribe(bob, track);
    let mut sequence = 0;
    let mut told = Vec::new();
    for _ in 0..8 {
        let (bitrates, feedback) = second(&mut world, alice, &mut sequence, None);
        assert_eq!(feedback, 0, "it has no numbers for it");
        told.extend(bitrates);
    }
    assert!((7..=8).contains(&told.len()), "{told:?}");
    assert!(told.is_sorted(), "nothing is lost: {told:?}");
    let top = *told.last().unwrap();
    // Growth of a twelfth a second from 1 Mbit/s, never beyond twice of what comes.
    assert!((1_500_000..=2_100_000).contains(&top), "{told:?}");

    // A quarter is lost: seven eighths of the 750 kbit/s that come.
    second(&mut world, alice, &mut sequence, Some(4));
    let (cut, _) = second(&mut world, alice, &mut sequence, Some(4));
    assert_eq!(cut.len(), 1);
    assert!((600_000..=720_000).contains(&cut[0]), "{cut:?}");
    // And up again when the loss is over.
    second(&mut world, alice, &mut sequence, None);
    let (grown, _) = second(&mut world, alice, &mut sequence, None);
    assert!(grown[0] > cut[0], "{grown:?} after {cut:?}");
}

#[test]
fn a_publisher_with_transport_wide_feedback_is_told_nothing_else() {
    let mut world = World::new();
    // Browsers offer both.
    let (alice, _) = old_client(&mut world, true, true);
    let mut sequence = 0;
    for _ in 0..3 {
        let (bitrates, feedback) = second(&mut world, alice, &mut sequence, None);
        assert_eq!(bitrates, Vec::<u64>::new());
        assert!((15..=25).contains(&feedback), "every 50 ms: {feedback}");
    }
    // Nor is one that knows neither.
    let (dave, _) = old_client(&mut world, false, false);
    let told = second(&mut world, dave, &mut 0, None);
    assert_eq!(told, (Vec::new(), 0));
}
