//! What leaves when: quanta at the pace, voices at once, cuts, probes.

use std::time::Duration;

use super::world::*;
use crate::rtp::extension;
use crate::rtp::rtcp::{NackPair, Packet};
use crate::types::{Bitrate, DropReason, Pt, Ssrc};

const VIDEO: u32 = 5;
const AUDIO: u32 = 6;

/// Alice is heard and seen by Bob; the first picture has come.
fn call() -> (World, usize, usize) {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    for track in [world.publish_audio(alice, "0"), world.publish_video(alice, "1", &[])] {
        world.subscribe(bob, track);
    }
    world.opus(alice, AUDIO, 0);
    world.video(alice, VIDEO, 0, "", &vp8(true, true, 1, 500));
    world.deliver();
    assert_eq!(world.take(bob).len(), 2);
    world.pass(40);
    (world, alice, bob)
}

/// One large frame, all of it in one turn.
fn frame(world: &mut World, alice: usize, first: u16, packets: u16) {
    for n in 0..packets {
        world.video(alice, VIDEO, first + n, "", &vp8(false, n == 0, 2, 1150));
    }
    world.deliver();
}

fn is_voice(got: &Got) -> bool {
    got.rtp().pt() == Pt(109)
}

/// Else the reports of who is served last in a long turn would show the turn as delay of the path.
#[test]
fn who_is_served_later_in_a_turn_is_stamped_later() {
    let mut world = World::new();
    let alice = world.join();
    let track = world.publish_audio(alice, "0");
    let listeners: Vec<_> = (0..3).map(|_| world.join()).collect();
    for listener in &listeners {
        world.subscribe(*listener, track);
    }
    world.opus(alice, AUDIO, 0);
    world.deliver_slowly(Duration::from_millis(5));
    let stamps: Vec<u32> = listeners
        .iter()
        .map(|listener| {
            let packet = world.take(*listener).pop().unwrap();
            let value = packet.rtp().extension(2).map(<[u8]>::to_vec);
            extension::read_abs_send_time(&value.unwrap()).unwrap()
        })
        .collect();
    // 24 bits of 6.18 fixed-point seconds.
    let step = (1 << 18) * 5 / 1000;
    for pair in stamps.windows(2) {
        assert!((pair[1] - pair[0]).abs_diff(step) <= 1, "{stamps:?}");
    }
}

#[test]
fn a_large_frame_leaves_at_the_pace_and_voices_at_once() {
    let (mut world, alice, bob) = call();
    frame(&mut world, alice, 1, 120);
    let first = world.take(bob).len();
    assert!((1..20).contains(&first), "{first}");
    let mut video = first;
    for n in 1..=25 {
        world.opus(alice, AUDIO, n);
        world.deliver();
        let got = world.take(bob);
        assert_eq!(got.iter().filter(|got| is_voice(got)).count(), 1);
        world.pass(10);
        let quantum = world.take(bob);
        assert!(quantum.len() < 20, "{}", quantum.len());
        video += got.len() - 1 + quantum.len();
    }
    assert_eq!(video, 120, "within 250 ms at 5 Mbit/s");
    assert_eq!(world.dropped(DropReason::Congested), 0);
}

#[test]
fn what_is_asked_for_again_leaves_before_the_rest_of_a_frame() {
    let (mut world, alice, bob) = call();
    let frames = |got: &[Got]| got.iter().filter(|got| got.rtp().pt() == Pt(100)).count();
    // The picture of before is asked for while a large frame waits.
    world.video(alice, VIDEO, 1, "", &vp8(false, true, 2, 500));
    world.deliver();
    let wanted = world.take(bob).pop().unwrap();
    frame(&mut world, alice, 2, 120);
    let first = frames(&world.take(bob));
    let (ssrc, pid) = (wanted.rtp().ssrc(), wanted.sequence());
    world.send_rtcp(bob, |out| out.nack(Ssrc(1), ssrc, &[NackPair { pid, blp: 0 }]));
    world.pass(300);
    let got = world.take(bob);
    assert_eq!(got[0].rtp().pt(), Pt(101), "the retransmission is next");
    assert_eq!(got[0].rtp().payload()[..2], pid.to_be_bytes());
    assert_eq!(first + frames(&got), 120);
}

#[test]
fn what_would_take_too_long_is_cut_and_a_key_frame_asked_for() {
    let (mut world, alice, bob) = call();
    world.take_rtcp(alice, |_| true);
    frame(&mut world, alice, 1, 1000);
    assert!(world.dropped(DropReason::Congested) > 900);
    world.pass(300);
    let got = world.take(bob);
    let last = got.last().unwrap().sequence();
    frame(&mut world, alice, 1001, 1);
    assert!(world.dropped(DropReason::AwaitingKeyframe) > 0);
    world.pass(600);
    assert!(world.take_rtcp(alice, |packet| matches!(packet, Packet::Pli { .. })) > 0);
    // What was cut is not sent again on request, what was sent before it is gone from sight too.
    let media = got.last().unwrap().rtp().ssrc();
    world.send_rtcp(bob, |out| {
        out.nack(
            Ssrc(1),
            media,
            &[NackPair {
                pid: last.wrapping_add(1),
                blp: 0xffff,
            }],
        )
    });
    world.deliver();
    assert!(world.take(bob).iter().all(is_voice));
    world.video(alice, VIDEO, 1002, "", &vp8(true, true, 3, 500));
    world.deliver();
    assert_eq!(world.take(bob).len(), 1);
}

#[test]
fn probes_are_packets_sent_before_and_raise_the_estimate() {
    let (mut world, alice, bob) = call();
    let slot = world
        .shard
        .transports
        .iter()
        .find(|(_, t)| !t.sending.is_empty())
        .unwrap()
        .0;
    world
        .shard
        .transports
        .get_mut(slot)
        .unwrap()
        .sending_rate
        .set_demand(Bitrate(4_000_000));
    let start = world.now;
    let (mut reported, mut repeated) = (Vec::new(), 0);
    for n in 0..400u16 {
        world.video(alice, VIDEO, 1 + n, "", &vp8(false, true, 2, 600));
        world.deliver();
        for _ in 0..5 {
            world.pass(2);
            let at = (world.now - start).as_micros() as i64 / 250;
            for got in world.take(bob) {
                let packet = got.rtp();
                repeated += usize::from(packet.pt() == Pt(101));
                let number = extension::transport_cc(packet.extension(3).unwrap()).unwrap();
                reported.push((number, at));
            }
        }
        if n % 5 == 4 && !reported.is_empty() {
            let first = reported[0].0;
            let arrivals: Vec<_> = reported.iter().map(|(_, at)| Some(*at)).collect();
            world.send_rtcp(bob, |out| {
                let written = out.transport_feedback(Ssrc(9), Ssrc(1), first, n as u8, &arrivals)?;
                assert_eq!(written, arrivals.len());
                Ok(())
            });
            reported.clear();
        }
    }
    let rate = &world.shard.transports.get(slot).unwrap().sending_rate;
    // Six times the first guess, less what a probe of a few packets measures too low.
    assert!(rate.estimate().unwrap().0 >= 5_500_000, "{:?}", rate.estimate());
    assert!(rate.rtt().unwrap() < Duration::from_millis(60));
    assert!((20..400).contains(&repeated), "{repeated}");
    assert_eq!(world.shard.stats().retransmitted, 0);
    assert!(world.shard.stats().probes >= repeated as u64);
}
