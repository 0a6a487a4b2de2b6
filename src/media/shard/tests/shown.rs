//! What a subscriber is shown of a packet beside its numbers: header extensions under its own ids, and the payload with
//! or without the publisher's packet trailer.

use std::time::Duration;

use super::world::*;
use crate::media::edge::{Command, EncodingParameters};
use crate::rtp::rtcp::{NackPair, ReportBlock};
use crate::rtp::{RtpHeader, RtpPacket, extension, rtx};
use crate::types::{Codec, Extension, ExtensionMap, MediaKind, Pt, Ssrc, SubscriptionHandle, TrackHandle};

/// Frame metadata as LiveKit's clients append it: some bytes, the whole length XOR 0xFF, "LKTS".
const TRAILER: &[u8] = &[9, 8, 7, 6, 9 ^ 0xff, b'L', b'K', b'T', b'S'];

fn ids(list: &[(Extension, u8)]) -> ExtensionMap {
    let mut map = ExtensionMap::default();
    list.iter().for_each(|(extension, id)| map.insert(*extension, *id));
    map
}

/// The publisher's ids.
fn theirs() -> ExtensionMap {
    ids(&[
        (Extension::AudioLevel, 1),
        (Extension::AbsSendTime, 2),
        (Extension::TransportCc, 3),
        (Extension::Mid, 4),
        (Extension::PlayoutDelay, 5),
        (Extension::VideoOrientation, 6),
        (Extension::AbsCaptureTime, 7),
        (Extension::DependencyDescriptor, 8),
    ])
}

/// The subscriber's: the same numbers for other things.
fn ours() -> ExtensionMap {
    ids(&[
        (Extension::AudioLevel, 8),
        (Extension::AbsSendTime, 7),
        (Extension::TransportCc, 6),
        (Extension::Mid, 5),
        (Extension::PlayoutDelay, 4),
        (Extension::VideoOrientation, 3),
        (Extension::AbsCaptureTime, 2),
        (Extension::DependencyDescriptor, 1),
    ])
}

fn shown<'p>(packet: &RtpPacket<'p>, extension: Extension) -> Option<&'p [u8]> {
    packet.extension(ours().id(extension)?)
}

/// A subscription with the ids of `ours`; without RTX a packet is resent as it was.
fn subscribe(world: &mut World, peer: usize, track: TrackHandle, number: u64, rtx: bool, strip: bool) -> Ssrc {
    let mut subscribe = world.subscription(peer, track, number);
    subscribe.extensions = ours();
    subscribe.strip_packet_trailer = strip;
    if !rtx {
        subscribe.codecs = vec![codec(Codec::Vp8, Pt(100), None), codec(Codec::Opus, Pt(109), None)];
        subscribe.rtx_ssrc = None;
    }
    assert_eq!(subscribe.subscription, SubscriptionHandle(number));
    world.command(Command::Subscribe(Box::new(subscribe)));
    Ssrc(number as u32)
}

fn nack(world: &mut World, peer: usize, media: Ssrc, sequence: u16) {
    world.send_rtcp(peer, |writer| {
        writer.nack(Ssrc(1), media, &[NackPair { pid: sequence, blp: 0 }])
    });
}

#[test]
fn packet_trailers_are_cut_off_for_those_who_do_not_understand_them() {
    let mut world = World::new();
    let (alice, bob, carol, dave) = (world.join(), world.join(), world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    let cut = subscribe(&mut world, bob, track, 5001, true, true);
    let cut_plain = subscribe(&mut world, carol, track, 5002, false, true);
    let whole = subscribe(&mut world, dave, track, 5003, true, false);
    // A frame of two packets: only the end of a frame carries a trailer, the same bytes elsewhere are picture.
    let bare = [vp8(true, true, 1, 500), vp8(false, false, 1, 400)];
    for (sequence, payload) in (0u16..).zip(&bare) {
        let header = RtpHeader {
            marker: sequence == 1,
            pt: VP8,
            sequence,
            timestamp: 3000,
            ssrc: Ssrc(7),
        };
        let payload = [payload, TRAILER].concat();
        world.send(alice, header, &[(Extension::Mid, b"1")], &payload);
    }
    world.deliver();
    let with = bare.clone().map(|payload| [&payload[..], TRAILER].concat());
    for (peer, ssrc, wanted) in [
        (bob, cut, [&with[0], &bare[1]]),
        (carol, cut_plain, [&with[0], &bare[1]]),
        (dave, whole, [&with[0], &with[1]]),
    ] {
        let sealed = world.peers[peer].sealed.clone();
        let got = world.take(peer);
        let payloads: Vec<&[u8]> = got.iter().map(|packet| packet.rtp().payload()).collect();
        assert_eq!(payloads, wanted, "to peer {peer}");
        // And the same when it is sent again.
        world.peers[peer].sealed.clear();
        nack(&mut world, peer, ssrc, got[1].sequence());
        world.deliver();
        if peer == carol {
            assert_eq!(world.peers[peer].sealed, [sealed[1].clone()]);
        } else {
            let again = world.take(peer);
            let [packet] = &again[..] else {
                panic!("{} packets to peer {peer}", again.len())
            };
            assert_eq!(packet.rtp().ssrc(), Ssrc(ssrc.0 + 10_000));
            assert_eq!(
                &packet.rtp().payload()[rtx::OSN_LEN..],
                wanted[1],
                "again to peer {peer}"
            );
        }
    }
}

#[test]
fn extensions_arrive_under_the_subscribers_own_ids() {
    let mut world = World::new();
    let start = world.now;
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let mut publish = world.publishing(
        alice,
        "1",
        MediaKind::Video,
        vec![codec(Codec::Vp8, VP8, Some(RTX))],
        vec![EncodingParameters::default()],
    );
    publish.extensions = theirs();
    let track = publish.track;
    world.command(Command::Publish(Box::new(publish)));
    let ssrc = subscribe(&mut world, bob, track, 5001, true, false);
    // Carol takes next to nothing.
    let mut few = world.subscription(carol, track, 5002);
    few.extensions = ids(&[(Extension::AbsCaptureTime, 9)]);
    world.command(Command::Subscribe(Box::new(few)));

    // The first describes the structure of what follows and is longer than 16 bytes: it needs the two-byte form.
    let descriptors: [&[u8]; 2] = [
        &[
            0xc0, 0, 1, 0x80, 3, 0x14, 0x1e, 0xaa, 0x86, 0x48, 0x28, 0x20, 0x12, 0, 0xd2, 1, 0x40, 0, 0xb4, 0, 0, 0, 0,
        ],
        &[0xc1, 0, 2],
    ];
    let capture_times: [&[u8]; 2] = [
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1],
    ];
    let mut left_at = Vec::new();
    for sequence in 0..2u16 {
        let header = RtpHeader {
            marker: true,
            pt: VP8,
            sequence,
            timestamp: u32::from(sequence) * 3000,
            ssrc: Ssrc(7),
        };
        let at = usize::from(sequence);
        let elements = [
            (Extension::Mid, &b"1"[..]),
            (Extension::AbsSendTime, &[0xaa, 0xaa, 0xaa]),
            (Extension::TransportCc, &[0xbb, 0xbb]),
            (Extension::PlayoutDelay, &[0, 0x10, 0x20]),
            (Extension::VideoOrientation, &[3]),
            (Extension::AbsCaptureTime, capture_times[at]),
            (Extension::DependencyDescriptor, descriptors[at]),
        ];
        world.send_with(
            alice,
            header,
            &theirs(),
            &elements,
            &vp8(sequence == 0, true, sequence, 500),
        );
        world.pass(1);
        left_at.push(world.now);
        world.pass(9);
    }
    let send_time = |at| extension::abs_send_time(Duration::from_secs(1_800_000_000) + (at - start));
    let got = world.take(bob);
    assert_eq!(got.len(), 2);
    for (at, packet) in got.iter().enumerate() {
        let packet = packet.rtp();
        assert_eq!(shown(&packet, Extension::Mid), Some(&b"9"[..]), "its own");
        let left = extension::read_abs_send_time(shown(&packet, Extension::AbsSendTime).unwrap()).unwrap();
        assert_eq!(left, send_time(left_at[at]), "its own");
        assert_eq!(shown(&packet, Extension::TransportCc), Some(&[0, at as u8 + 1][..]));
        assert_eq!(shown(&packet, Extension::PlayoutDelay), Some(&[0, 0x10, 0x20][..]));
        assert_eq!(shown(&packet, Extension::VideoOrientation), Some(&[3][..]));
        assert_eq!(shown(&packet, Extension::AbsCaptureTime), Some(capture_times[at]));
        assert_eq!(shown(&packet, Extension::DependencyDescriptor), Some(descriptors[at]));
        assert_eq!(shown(&packet, Extension::AudioLevel), None);
    }
    for (at, packet) in world.take(carol).iter().enumerate() {
        let packet = packet.rtp();
        assert_eq!(packet.extension(9), Some(capture_times[at]));
        assert!((1..=8).all(|id| packet.extension(id).is_none()), "nothing else");
    }

    // Again as RTX: everything but the playout delay, which is the stream's, and the mid, which the SSRC tells.
    nack(&mut world, bob, ssrc, got[0].sequence());
    world.pass(1);
    let again = world.take(bob).pop().unwrap();
    let packet = again.rtp();
    assert_eq!(packet.ssrc(), Ssrc(ssrc.0 + 10_000));
    assert_eq!(shown(&packet, Extension::PlayoutDelay), None);
    assert_eq!(shown(&packet, Extension::VideoOrientation), Some(&[3][..]));
    assert_eq!(shown(&packet, Extension::AbsCaptureTime), Some(capture_times[0]));
    assert_eq!(shown(&packet, Extension::DependencyDescriptor), Some(descriptors[0]));
    assert_eq!(
        shown(&packet, Extension::TransportCc),
        Some(&[0, 3][..]),
        "the next one"
    );
    let left = extension::read_abs_send_time(shown(&packet, Extension::AbsSendTime).unwrap()).unwrap();
    assert_eq!(left, send_time(world.now), "when it left");

    // Once a report has named the stream its mid is known.
    let block = ReportBlock {
        ssrc,
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_sequence: 0,
        jitter: 0,
        last_sender_report: 0,
        delay_since_last_sender_report: 0,
    };
    world.send_rtcp(bob, |writer| writer.receiver_report(Ssrc(1), &[block]));
    let header = RtpHeader {
        marker: true,
        pt: VP8,
        sequence: 2,
        timestamp: 6000,
        ssrc: Ssrc(7),
    };
    world.send_with(alice, header, &theirs(), &[], &vp8(false, true, 2, 500));
    world.deliver();
    let next = world.take(bob).pop().unwrap();
    assert_eq!(shown(&next.rtp(), Extension::Mid), None);
    assert_eq!(shown(&next.rtp(), Extension::TransportCc), Some(&[0, 4][..]));
    assert_eq!(
        shown(&next.rtp(), Extension::PlayoutDelay),
        None,
        "only where the publisher wrote it"
    );

    // A lossy path is given time for retransmissions, unless the publisher says better.
    let lossy = ReportBlock {
        fraction_lost: 77,
        ..block
    };
    world.send_rtcp(bob, |writer| writer.receiver_report(Ssrc(1), &[lossy]));
    let theirs_said: &[(Extension, &[u8])] = &[(Extension::PlayoutDelay, &[0, 0x10, 0x20])];
    for (sequence, elements) in [(3, &[][..]), (4, theirs_said)] {
        let timestamp = u32::from(sequence) * 3000;
        let header = RtpHeader {
            sequence,
            timestamp,
            ..header
        };
        world.send_with(alice, header, &theirs(), elements, &vp8(false, true, sequence, 500));
        world.deliver();
    }
    let got = world.take(bob);
    let said: Vec<_> = got
        .iter()
        .map(|packet| extension::PlayoutDelay::read(shown(&packet.rtp(), Extension::PlayoutDelay).unwrap()).unwrap())
        .collect();
    assert!(said[0].min_ms >= 140 && said[0].max_ms == 10_000, "{:?}", said[0]);
    assert_eq!((said[1].min_ms, said[1].max_ms), (10, 320));
}

#[test]
fn a_voice_keeps_its_level_and_its_time_of_capture() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let mut publish = world.publishing(
        alice,
        "0",
        MediaKind::Audio,
        vec![codec(Codec::Opus, OPUS, None)],
        vec![EncodingParameters::default()],
    );
    publish.extensions = theirs();
    let track = publish.track;
    world.command(Command::Publish(Box::new(publish)));
    let ssrc = subscribe(&mut world, bob, track, 5001, false, false);
    let capture = [9, 8, 7, 6, 5, 4, 3, 2];
    let header = RtpHeader {
        marker: false,
        pt: OPUS,
        sequence: 1,
        timestamp: 960,
        ssrc: Ssrc(5),
    };
    let elements = [
        (Extension::Mid, &b"0"[..]),
        (Extension::AudioLevel, &[0x80 | 20]),
        (Extension::AbsCaptureTime, &capture),
    ];
    world.send_with(alice, header, &theirs(), &elements, &[1; 60]);
    world.deliver();
    let sealed = world.peers[bob].sealed.clone();
    let got = world.take(bob).pop().unwrap();
    assert_eq!(shown(&got.rtp(), Extension::AudioLevel), Some(&[0x80 | 20][..]));
    assert_eq!(shown(&got.rtp(), Extension::AbsCaptureTime), Some(&capture[..]));
    assert_eq!(shown(&got.rtp(), Extension::Mid), Some(&b"9"[..]));
    world.pass(20);
    world.peers[bob].sealed.clear();
    nack(&mut world, bob, ssrc, got.sequence());
    world.deliver();
    assert_eq!(world.peers[bob].sealed, sealed, "sent again as it was");
}
