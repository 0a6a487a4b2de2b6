use super::world::*;
use crate::media::edge::{Command, Event, LayerReason};
use crate::rtp::RtpHeader;
use crate::types::{DropReason, Extension, Ssrc, SubscriptionHandle};

/// Two voices in a room that forwards one. Their SSRCs are their places.
fn voice(world: &mut World, peer: usize, sequence: u16, level: u8) {
    let header = RtpHeader {
        marker: false,
        pt: OPUS,
        sequence,
        timestamp: u32::from(sequence) * 960,
        ssrc: Ssrc(50 + peer as u32),
    };
    world.send(
        peer,
        header,
        &[(Extension::Mid, b"0"), (Extension::AudioLevel, &[level])],
        &[sequence as u8; 60],
    );
}

/// The first byte of each packet of a subscription.
fn said(got: &[Got], heard: SubscriptionHandle) -> Vec<u8> {
    let its = got.iter().map(Got::rtp);
    let its = its.filter(|packet| packet.ssrc() == Ssrc(heard.0 as u32));
    its.map(|packet| packet.payload()[0]).collect()
}

#[test]
fn a_voice_that_is_let_in_brings_what_it_said_before() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    world.forward_loudest(1);
    let (first, second) = (world.publish_audio(alice, "0"), world.publish_audio(bob, "0"));
    let heard = [world.subscribe(carol, first), world.subscribe(carol, second)];
    let mut sequence = 0;
    let mut speak = |world: &mut World, levels: [u8; 2], packets: u16| {
        for _ in 0..packets {
            voice(world, alice, sequence, levels[0]);
            voice(world, bob, sequence, levels[1]);
            sequence += 1;
            world.pass(20);
        }
    };
    speak(&mut world, [20, 127], 50);
    let got = world.take(carol);
    let of = |got: &[Got], which: usize| -> Vec<(u16, u32, u8)> {
        let its = got
            .iter()
            .map(Got::rtp)
            .filter(|packet| packet.ssrc() == Ssrc(heard[which].0 as u32));
        its.map(|packet| (packet.sequence(), packet.timestamp(), packet.payload()[0]))
            .collect()
    };
    assert_eq!((of(&got, 0).len(), of(&got, 1).len()), (50, 0));
    assert_eq!(world.dropped(DropReason::NotLoudest), 50);

    // Alice falls silent, and Bob begins: 12 packets of 20 ms came before the loud one.
    speak(&mut world, [127, 127], 60);
    world.take(carol);
    let before = world.shard.stats().rtp_sent;
    speak(&mut world, [127, 20], 10);
    let got = world.take(carol);
    assert_eq!(
        world.shard.stats().rtp_sent - before,
        got.len() as u64,
        "each packet once"
    );
    let bobs = of(&got, 1);
    assert_eq!(of(&got, 0).len(), 1, "the packet before Bob's");
    assert_eq!(bobs.first().map(|packet| packet.2), Some(98));
    assert_eq!(bobs.len(), 10 + 12);
    for pair in bobs.windows(2) {
        assert_eq!(pair[1].0, pair[0].0.wrapping_add(1));
        assert_eq!(pair[1].1, pair[0].1.wrapping_add(960));
    }

    // And back: Alice's numbers go on where they ended, or all that was kept from Carol would be asked for.
    let (before, _, last) = of(&got, 0)[0];
    speak(&mut world, [127, 127], 60);
    speak(&mut world, [20, 127], 10);
    let got = world.take(carol);
    let alices = of(&got, 0);
    assert_eq!(alices.len(), 10 + 12);
    let numbers: Vec<u16> = alices.iter().map(|packet| packet.0).collect();
    assert_eq!(numbers[0], before.wrapping_add(1));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)));
    assert!(alices[0].2 > last);
}

#[test]
fn what_is_said_after_a_mute_is_no_part_of_what_comes_before_the_next_word() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    world.forward_loudest(1);
    let (first, second) = (world.publish_audio(alice, "0"), world.publish_audio(bob, "0"));
    world.subscribe(carol, first);
    let heard = world.subscribe(carol, second);
    for sequence in 0..60 {
        voice(&mut world, alice, sequence, 20);
        voice(&mut world, bob, sequence, 127);
        world.pass(20);
    }
    let mute = |muted| Command::MuteTrack { track: second, muted };
    world.command(mute(true));
    // Bob's client has not heard of it yet; then it is over, and Alice is silent.
    for sequence in 60..65 {
        voice(&mut world, bob, sequence, 50);
        world.pass(20);
    }
    world.command(mute(false));
    world.pass(1000);
    voice(&mut world, alice, 60, 127);
    world.take(carol);
    for sequence in 65..70 {
        voice(&mut world, bob, sequence, if sequence < 67 { 50 } else { 20 });
        world.pass(20);
    }
    let said = said(&world.take(carol), heard);
    assert_eq!(said, [65, 66, 67, 68, 69]);
}

#[test]
fn what_was_said_in_a_short_mute_does_not_come_before_the_word_behind_it() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    world.forward_loudest(1);
    let (first, second) = (world.publish_audio(alice, "0"), world.publish_audio(bob, "0"));
    world.subscribe(carol, first);
    let heard = world.subscribe(carol, second);
    let mute = |muted| Command::MuteTrack { track: second, muted };
    // Alice has the place and is silent; Bob is not loud enough for it.
    for sequence in 0..60 {
        voice(&mut world, alice, sequence, if sequence < 5 { 20 } else { 127 });
        voice(&mut world, bob, sequence, 127);
        world.pass(20);
    }
    // All of it within the pre-roll: two packets, five that Bob's client sends though it is muted, and a loud one.
    for sequence in 60..68 {
        match sequence {
            62 => world.command(mute(true)),
            67 => world.command(mute(false)),
            _ => {}
        }
        world.take(carol);
        voice(&mut world, bob, sequence, if sequence < 67 { 50 } else { 20 });
        world.pass(20);
    }
    let said = said(&world.take(carol), heard);
    assert_eq!(said.last(), Some(&67));
    assert!(said.contains(&61), "{said:?}");
    assert!(!said.iter().any(|said| (62..67).contains(said)), "{said:?}");
}

#[test]
fn who_is_not_heard_is_said_to_be_quieter_and_makes_nobodys_connection_poor() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    world.forward_loudest(1);
    let (first, second) = (world.publish_audio(alice, "0"), world.publish_audio(bob, "0"));
    for track in [first, second] {
        world.subscribe(carol, track);
    }
    world.events();
    for sequence in 0..700 {
        // Bob has spoken before.
        let levels = if sequence < 20 { [127, 20] } else { [20, 127] };
        voice(&mut world, alice, sequence, levels[0]);
        voice(&mut world, bob, sequence, levels[1]);
        world.pass(20);
    }
    let listener = world.peers[carol].participant;
    let scores: Vec<f32> = world
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::Quality { participant, score } if *participant == listener => Some(score.mos),
            _ => None,
        })
        .collect();
    assert_eq!(scores, [4.5, 4.5], "every five seconds");
    let reasons = world.reasons();
    assert_eq!(reasons, [LayerReason::Best, LayerReason::NotLoudest]);
}
