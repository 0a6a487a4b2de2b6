use std::time::Duration;

use super::world::*;
use crate::media::edge::Event;
use crate::rtp::rtcp::{NackPair, Packet, ReportBlock, SenderInfo};
use crate::rtp::{RtpHeader, rtcp};
use crate::types::{DropReason, Extension, Pt, Ssrc};

pub(super) fn nack(sequence: u16) -> [NackPair; 1] {
    [NackPair { pid: sequence, blp: 0 }]
}

/// Alice's camera with bob watching; ten frames have been sent.
pub(super) fn watched() -> (World, usize, usize, Ssrc) {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    let subscription = world.subscribe(bob, track);
    for sequence in 0..10 {
        world.video(alice, 7, sequence, "", &vp8(sequence == 0, true, sequence, 500));
        world.pass(10);
    }
    (world, alice, bob, Ssrc(subscription.0 as u32))
}

#[test]
fn a_subscriber_gets_what_it_asks_for_on_the_rtx_stream() {
    let (mut world, _, bob, ssrc) = watched();
    let got = world.take(bob);
    let lost = got[4].clone();
    world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost.sequence())));
    // Asked twice within a round trip: answered once.
    world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost.sequence())));
    world.deliver();
    let again = world.take(bob);
    assert_eq!(again.len(), 1);
    let packet = again[0].rtp();
    assert_eq!((packet.ssrc(), packet.pt()), (Ssrc(ssrc.0 + 10_000), Pt(101)));
    assert_eq!(packet.timestamp(), lost.rtp().timestamp());
    let (osn, payload) = packet.payload().split_first_chunk().unwrap();
    assert_eq!(
        (u16::from_be_bytes(*osn), payload),
        (lost.sequence(), lost.rtp().payload())
    );
    // A round trip is 70 ms until it is known: before, this is about the copy before.
    for (after, copies) in [(50, 0), (30, 1)] {
        world.pass(after);
        world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost.sequence())));
        world.deliver();
        assert_eq!(world.take(bob).len(), copies);
    }
    world.send_rtcp(bob, |writer| {
        writer.nack(Ssrc(1), ssrc, &nack(lost.sequence().wrapping_add(500)))
    });
    assert_eq!(world.dropped(DropReason::RtxUnavailable), 3);
    world.pass(1500);
    world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(got[5].sequence())));
    world.deliver();
    assert_eq!(world.take(bob).len(), 0, "too old to help");
}

/// The original number of a retransmission.
fn original(got: &Got) -> Option<u16> {
    let packet = got.rtp();
    let (osn, _) = packet.payload().split_first_chunk()?;
    (packet.pt() == Pt(101)).then_some(u16::from_be_bytes(*osn))
}

#[test]
fn a_copy_that_is_reported_lost_is_followed_by_another() {
    let (mut world, alice, bob, ssrc) = watched();
    let got = world.take(bob);
    let lost = got[4].sequence();
    world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost)));
    world.deliver();
    world.video(alice, 7, 10, "", &vp8(false, true, 10, 500));
    world.deliver();
    assert_eq!(world.take(bob).iter().filter_map(original).collect::<Vec<_>>(), [lost]);
    world.pass(30);
    // Ten pictures, the copy, a picture.
    let mut arrivals: Vec<Option<i64>> = (0..12).map(|n| Some(n * 40)).collect();
    arrivals[10] = None;
    let report = |world: &mut World| {
        world.send_rtcp(bob, |writer| {
            writer.transport_feedback(Ssrc(9), ssrc, 1, 0, &arrivals).map(|_| ())
        });
        world.deliver();
    };
    report(&mut world);
    let again = world.take(bob);
    assert_eq!(again.iter().filter_map(original).collect::<Vec<_>>(), [lost]);
    report(&mut world);
    assert!(world.take(bob).is_empty(), "once for each copy");
}

#[test]
fn the_end_of_a_picture_that_nothing_follows_is_sent_once_more() {
    let (mut world, alice, bob, ssrc) = watched();
    world.pass(300);
    assert!(
        !world.take(bob).iter().any(|got| original(got).is_some()),
        "nothing is lost"
    );
    let asked = {
        world.video(alice, 7, 10, "", &vp8(false, true, 10, 500));
        world.deliver();
        world.take(bob)[0].sequence()
    };
    world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(asked)));
    world.deliver();
    world.take(bob);
    world.video(alice, 7, 11, "", &vp8(false, true, 11, 500));
    world.pass(60);
    world.video(alice, 7, 12, "", &vp8(false, true, 12, 500));
    world.deliver();
    let last = world.take(bob).last().unwrap().sequence();
    world.pass(90);
    assert!(world.take(bob).is_empty());
    world.pass(1000);
    assert_eq!(world.take(bob).iter().filter_map(original).collect::<Vec<_>>(), [last]);
}

#[test]
fn a_plain_resend_is_the_same_datagram() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_audio(alice, "0");
    let subscription = world.subscribe(bob, track);
    let ssrc = Ssrc(subscription.0 as u32);
    for sequence in 0..5 {
        world.opus(alice, 5, sequence);
        world.pass(20);
    }
    let sealed = world.peers[bob].sealed.clone();
    let got = world.take(bob);
    // The mid is written until the first report: not in the resend's favour either.
    let block = report_block(ssrc);
    world.send_rtcp(bob, |writer| writer.receiver_report(Ssrc(1), &[block]));
    world.peers[bob].sealed.clear();
    world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(got[2].sequence())));
    world.deliver();
    assert_eq!(
        world.peers[bob].sealed,
        [sealed[2].clone()],
        "one packet index, one content"
    );
    world.opus(alice, 5, 5);
    world.deliver();
    assert_eq!(
        world.take(bob).pop().unwrap().rtp().extension(4),
        None,
        "the mid is known now"
    );
}

fn report_block(ssrc: Ssrc) -> ReportBlock {
    ReportBlock {
        ssrc,
        fraction_lost: 0,
        cumulative_lost: 0,
        highest_sequence: 0,
        jitter: 0,
        last_sender_report: 0,
        delay_since_last_sender_report: 0,
    }
}

#[test]
fn the_publisher_is_asked_for_a_missing_packet_and_its_place_is_kept() {
    let (mut world, alice, bob, _) = watched();
    world.take(bob);
    world.peers[alice].rtcp.clear();
    world.video(alice, 7, 10, "", &vp8(false, true, 10, 500));
    world.video(alice, 7, 12, "", &vp8(false, true, 12, 500));
    world.pass(15);
    let asked = world.take_rtcp(alice, |packet| match packet {
        Packet::Nack { media, pairs, .. } => *media == Ssrc(7) && pairs.clone().flat_map(NackPair::sequences).eq([11]),
        _ => false,
    });
    assert_eq!(asked, 1);
    // It comes as RTX, twice, and then a probe: a copy of what was never lost.
    let missing = vp8(false, true, 11, 500);
    for (sequence, osn, payload) in [
        (0u16, 11u16, missing.clone()),
        (1, 11, missing),
        (2, 12, vp8(false, true, 12, 500)),
    ] {
        let header = RtpHeader {
            marker: true,
            pt: RTX,
            sequence,
            timestamp: u32::from(osn) * 3000,
            ssrc: Ssrc(8),
        };
        let payload = [&osn.to_be_bytes()[..], &payload].concat();
        world.send(alice, header, &[(Extension::Mid, b"1")], &payload);
    }
    // And padding alone.
    let header = RtpHeader {
        marker: false,
        pt: RTX,
        sequence: 3,
        timestamp: 0,
        ssrc: Ssrc(8),
    };
    world.send(alice, header, &[(Extension::Mid, b"1")], &[]);
    world.deliver();
    let got = world.take(bob);
    let first = got[0].sequence();
    let order: Vec<u16> = got.iter().map(|packet| packet.sequence().wrapping_sub(first)).collect();
    assert_eq!(order, [0, 2, 1]);
    assert_eq!(got[2].rtp().timestamp(), 33_000);
    assert_eq!(world.dropped(DropReason::Duplicate), 2);
    assert_eq!(world.dropped(DropReason::PaddingOnly), 1);
    assert_eq!(world.shard.stats().recovered, 1);
}

#[test]
fn what_the_publisher_does_not_send_again_is_made_up_for_by_a_key_frame() {
    let (mut world, alice, ..) = watched();
    let pli = |packet: &Packet<'_>| matches!(packet, Packet::Pli { media, .. } if *media == Ssrc(7));
    world.take_rtcp(alice, |_| true);
    // The eleventh never comes.
    let mut asked = 0;
    for sequence in 11..300 {
        world.video(alice, 7, sequence, "", &vp8(false, true, sequence, 500));
        world.pass(10);
        let requests = world.take_rtcp(alice, pli);
        asked += requests;
        if requests > 0 {
            break;
        }
    }
    assert_eq!(asked, 1);
    assert!(world.shard.stats().nacks_sent >= 10, "after ten tries");
}

#[test]
fn a_publisher_hears_about_its_packets() {
    let mut world = World::new();
    let alice = world.join();
    world.publish_video(alice, "1", &[]);
    for sequence in 0..100u16 {
        let header = RtpHeader {
            marker: true,
            pt: VP8,
            sequence,
            timestamp: u32::from(sequence) * 900,
            ssrc: Ssrc(7),
        };
        let elements = [
            (Extension::Mid, &b"1"[..]),
            (Extension::TransportCc, &sequence.to_be_bytes()),
        ];
        world.send(alice, header, &elements, &vp8(sequence == 0, true, sequence, 500));
        world.pass(10);
    }
    world.pass(1200);
    let compounds = world.peers[alice].rtcp.clone();
    let feedback = world.take_rtcp(
        alice,
        |packet| matches!(packet, Packet::TransportFeedback(f) if f.media == Ssrc(7)),
    );
    assert!((15..=25).contains(&feedback), "every 50 ms: {feedback}");
    world.peers[alice].rtcp = compounds;
    let reports = world.take_rtcp(alice, |packet| match packet {
        Packet::ReceiverReport { blocks, .. } => blocks.clone().any(|block| block.ssrc == Ssrc(7)),
        _ => false,
    });
    assert_eq!(reports, 2, "every second");
}

/// What Alice says of her stream.
const PUBLISHED: SenderInfo = SenderInfo {
    ssrc: Ssrc(7),
    ntp: 0xe000_0000_0000_0000,
    rtp_timestamp: 30_000,
    packets: 10,
    octets: 5000,
};

#[test]
fn sender_reports_carry_the_publishers_time_and_give_the_round_trip() {
    let (mut world, alice, bob, ssrc) = watched();
    world.send_rtcp(alice, |writer| writer.sender_report(&PUBLISHED, &[]));
    world.pass(600);
    let mut report = None;
    for compound in std::mem::take(&mut world.peers[bob].rtcp) {
        for packet in rtcp::parse(&compound) {
            match packet.unwrap() {
                Packet::SenderReport { info, .. } => report = Some(info),
                Packet::SourceDescription(mut chunks) => assert_eq!(chunks.next(), Some((ssrc, &b"cname"[..]))),
                _ => {}
            }
        }
    }
    let report = report.expect("soon after the start");
    assert_eq!((report.ssrc, report.packets), (ssrc, 10));
    let passed = (report.ntp - PUBLISHED.ntp) as f64 / f64::from(1 << 16) / f64::from(1 << 16);
    let ticks = report.rtp_timestamp.wrapping_sub(PUBLISHED.rtp_timestamp);
    assert!(
        (f64::from(ticks) - passed * 90_000.0).abs() < 2.0,
        "one moment on two clocks"
    );
    // Reported on 30 ms after it left, 10 of them at the receiver.
    let place = *world.shard.index.subscriptions.values().next().unwrap();
    let sent = world
        .shard
        .rooms
        .get(place.room)
        .unwrap()
        .subscriptions
        .get(place.slot)
        .unwrap();
    world.now = sent.sent_report.unwrap().at + Duration::from_millis(30);
    let mut block = report_block(ssrc);
    block.last_sender_report = (report.ntp >> 16) as u32;
    block.delay_since_last_sender_report = 655;
    for _ in 0..20 {
        world.send_rtcp(bob, |writer| writer.receiver_report(Ssrc(1), &[block]));
    }
    let subscription = world
        .shard
        .rooms
        .get(place.room)
        .unwrap()
        .subscriptions
        .get(place.slot)
        .unwrap();
    assert!(
        subscription.rtt.abs_diff(Duration::from_millis(20)) < Duration::from_millis(1),
        "{:?}",
        subscription.rtt
    );
}

#[test]
fn a_subscription_is_small() {
    let (world, ..) = watched();
    let place = *world.shard.index.subscriptions.values().next().unwrap();
    let room = world.shard.rooms.get(place.room).unwrap();
    let subscription = room.subscriptions.get(place.slot).unwrap();
    let bytes = size_of_val(subscription) + subscription.heap_bytes();
    assert!(bytes <= 4096, "{bytes}");
}

#[test]
fn a_subscribers_feedback_makes_the_estimate() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let track = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, track);
    let estimate = |world: &World| {
        let (_, transport) = world
            .shard
            .transports
            .iter()
            .find(|(_, t)| !t.sending.is_empty())
            .unwrap();
        transport.sending_rate.estimate()
    };
    assert_eq!(estimate(&world), Some(crate::media::estimator::INITIAL));
    let mut numbers = 1..;
    // A frame of 1,000 bytes each 10 ms; every fifth packet is told to have waited 10 ms longer than the one before.
    for n in 0..300i64 {
        world.video(alice, 5, n as u16, "", &vp8(n == 0, true, 1, 1000));
        world.deliver();
        for got in world.take(bob) {
            let number = crate::rtp::extension::transport_cc(got.rtp().extension(3).unwrap()).unwrap();
            assert_eq!(Some(number), numbers.next(), "one for each packet that leaves");
            let arrival = n * 40 + if n > 200 { (n - 200) * 40 } else { 0 };
            world.send_rtcp(bob, |out| {
                out.transport_feedback(Ssrc(9), Ssrc(1), number, n as u8, &[Some(arrival)])
                    .map(|_| ())
            });
        }
        world.pass(10);
    }
    let congested = estimate(&world).unwrap();
    assert!(congested.0 < 700_000, "{congested:?}");
}

/// Reports once a second of a quarter lost: after twenty of them it is said, once, over UDP only.
#[test]
fn a_way_that_loses_much_for_long_is_told_of() {
    let (mut world, alice, bob, ssrc) = watched();
    world.send_rtcp(alice, |writer| writer.sender_report(&PUBLISHED, &[]));
    world.events();
    let mut block = report_block(ssrc);
    let mut said = Vec::new();
    for second in 0..60 {
        world.pass(1000);
        for compound in std::mem::take(&mut world.peers[bob].rtcp) {
            for packet in rtcp::parse(&compound) {
                if let Ok(Packet::SenderReport { info, .. }) = packet {
                    block.last_sender_report = (info.ntp >> 16) as u32;
                }
            }
        }
        block.fraction_lost = if (10..50).contains(&second) { 64 } else { 10 };
        world.send_rtcp(bob, |writer| writer.receiver_report(Ssrc(1), &[block]));
        for event in world.events() {
            if let Event::TransportLossy { transport, rtt } = event {
                assert!(transport == world.peers[bob].handle && !rtt.is_zero());
                said.push(second);
            }
        }
    }
    assert_eq!(said, [29, 49]);
}
