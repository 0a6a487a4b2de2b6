//! Key frames: which are shown again, when new ones are asked for.

use super::repair::{nack, watched};
use super::world::*;
use crate::media::edge::{Command, EncodingParameters, SubscriptionSettings};
use crate::rtp::{RtpHeader, rtcp};
use crate::types::{Codec, CodecParameters, Extension, Layer, MediaKind, Ssrc, SubscriptionHandle};

fn pli(packet: &rtcp::Packet<'_>) -> bool {
    matches!(packet, rtcp::Packet::Pli { .. })
}

#[test]
fn a_packet_that_will_not_be_sent_any_more_is_made_up_for_by_a_key_frame() {
    let (mut world, alice, bob, ssrc) = watched();
    let got = world.take(bob);
    let ask = |world: &mut World, at: usize| {
        let lost = got[at].sequence();
        world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost)));
        world.deliver();
    };
    world.take_rtcp(alice, pli);
    ask(&mut world, 5);
    assert_eq!(
        (world.take(bob).len(), world.take_rtcp(alice, pli)),
        (1, 0),
        "it is here"
    );
    world.pass(1100);
    ask(&mut world, 5);
    ask(&mut world, 6);
    assert_eq!((world.take(bob).len(), world.take_rtcp(alice, pli)), (0, 1), "too old");
    world.video(alice, 7, 10, "", &vp8(true, true, 10, 500));
    world.pass(1100);
    ask(&mut world, 7);
    assert_eq!(world.take_rtcp(alice, pli), 0, "a key frame has come since");
}

#[test]
fn a_picture_that_no_other_refers_to_is_not_worth_a_key_frame() {
    let (mut world, alice, bob, ssrc) = watched();
    let mut upper = vp8(false, true, 10, 500);
    upper[5] |= 2 << 6; // the third temporal layer
    world.video(alice, 7, 10, "", &upper);
    world.video(alice, 7, 11, "", &vp8(false, true, 11, 500));
    world.deliver();
    let got = world.take(bob);
    world.take_rtcp(alice, pli);
    world.pass(1100);
    for (at, requests) in [(10, 0), (11, 1)] {
        let lost = got[at].sequence();
        world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost)));
        world.deliver();
        assert_eq!((world.take(bob).len(), world.take_rtcp(alice, pli)), (0, requests));
    }
}

#[test]
fn what_was_sent_again_as_often_as_it_may_is_made_up_for_by_a_key_frame() {
    let (mut world, alice, bob, ssrc) = watched();
    let lost = world.take(bob)[5].sequence();
    world.take_rtcp(alice, pli);
    let mut copies = 0;
    for _ in 0..11 {
        assert_eq!(world.take_rtcp(alice, pli), 0, "after {copies} copies");
        world.send_rtcp(bob, |writer| writer.nack(Ssrc(1), ssrc, &nack(lost)));
        world.deliver();
        copies += world.take(bob).len();
        world.pass(75);
    }
    assert_eq!((copies, world.take_rtcp(alice, pli)), (10, 1));
}

/// A frame of this many packets.
fn large_frame(world: &mut World, alice: usize, first: u16, packets: u16, key: bool) {
    for sequence in first..first + packets {
        let header = RtpHeader {
            marker: sequence + 1 == first + packets,
            pt: VP8,
            sequence,
            timestamp: u32::from(first) * 3000,
            ssrc: Ssrc(7),
        };
        let payload = vp8(key, sequence == first, first, 500);
        world.send(alice, header, &[(Extension::Mid, b"1")], &payload);
    }
    world.deliver();
}

#[test]
fn a_key_frame_is_shown_again_while_it_is_small_and_new() {
    for (packets, wait, shown) in [(95, 399, true), (96, 0, false), (2, 401, false)] {
        let mut world = World::new();
        let (alice, bob, carol) = (world.join(), world.join(), world.join());
        let camera = world.publish_video(alice, "1", &[]);
        world.subscribe(bob, camera);
        large_frame(&mut world, alice, 0, packets, true);
        world.pass(wait);
        large_frame(&mut world, alice, packets, 1, false);
        world.take_rtcp(alice, pli);
        world.subscribe(carol, camera);
        world.deliver();
        world.pass(250);
        let all = if shown { usize::from(packets) + 1 } else { 0 };
        let asked = usize::from(!shown);
        assert_eq!(
            (world.take(carol).len(), world.take_rtcp(alice, pli)),
            (all, asked),
            "{packets} {wait}"
        );
    }
}

#[test]
fn a_publisher_without_pli_is_asked_by_fir() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let codec = CodecParameters {
        pli: false,
        fir: true,
        ..codec(Codec::Vp8, VP8, Some(RTX))
    };
    let encodings = vec![EncodingParameters::default()];
    let camera = world.publish(alice, "1", MediaKind::Video, vec![codec], encodings);
    let subscription = world.subscribe(bob, camera);
    let fir = |packet: &rtcp::Packet<'_>| matches!(packet, rtcp::Packet::Fir { .. });
    world.video(alice, 7, 0, "", &vp8(true, true, 0, 500));
    world.pass(1000);
    world.take_rtcp(alice, fir);
    let mut asked = 0;
    for at in 0..3000u32 {
        let request = rtcp::FirRequest {
            media: Ssrc(subscription.0 as u32),
            sequence: at as u8,
        };
        world.send_rtcp(bob, |writer| writer.fir(Ssrc(1), request));
        let wanted = world.take_rtcp(alice, fir);
        asked += wanted;
        if wanted > 0 {
            world.video(alice, 7, 1 + at as u16, "", &vp8(true, true, 1 + at as u16, 500));
        }
        world.pass(1);
    }
    assert!((4..=6).contains(&asked), "two a second: {asked}");
    assert_eq!(world.take_rtcp(alice, pli), 0);
}

#[test]
fn a_switch_without_sender_reports_goes_by_arrival_and_says_so() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &["q", "f"]);
    let subscription = world.subscribe(bob, camera);
    let at_most = |world: &mut World, spatial: u8, subscription: SubscriptionHandle| {
        let mut settings = SubscriptionSettings::default();
        settings.max_layer = Layer {
            spatial,
            ..settings.max_layer
        };
        world.command(Command::UpdateSubscription { subscription, settings });
    };
    at_most(&mut world, 0, subscription);
    for at in 0..20u16 {
        if at == 10 {
            at_most(&mut world, 1, subscription);
        }
        // The upper encoding counts from elsewhere.
        for (index, rid) in ["q", "f"].into_iter().enumerate() {
            let header = RtpHeader {
                marker: true,
                pt: VP8,
                sequence: at,
                timestamp: u32::from(at) * 3000 + index as u32 * 1_000_000,
                ssrc: Ssrc(70 + index as u32),
            };
            let elements = [(Extension::Mid, &b"1"[..]), (Extension::Rid, rid.as_bytes())];
            let payload = vp8(at == 0 || at == 12, true, at, 300 + index * 200);
            world.send(alice, header, &elements, &payload);
        }
        world.pass(33);
    }
    let got = world.take(bob);
    let sizes: Vec<usize> = got.iter().map(|got| got.rtp().payload().len()).collect();
    assert!(sizes.contains(&300) && sizes.ends_with(&[500; 8]), "{sizes:?}");
    let mut ticks: Vec<u32> = got
        .windows(2)
        .map(|pair| pair[1].rtp().timestamp().wrapping_sub(pair[0].rtp().timestamp()))
        .collect();
    ticks.sort_unstable();
    // One picture in both layers, which arrived at the same moment; the next by the clock, 33 ms later; all others at the
    // publisher's pace.
    assert_eq!(ticks[..2], [1, 2970]);
    assert!(ticks[2..].iter().all(|ticks| *ticks == 3000), "{ticks:?}");
    assert_eq!(world.shard.stats().switches_by_arrival, 1);
}
