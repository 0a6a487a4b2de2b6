//! Data packets and their rights, over real SCTP.

use std::time::Duration;

use livekit_protocol::{DataPacket, UserPacket, data_packet};
use patchbay::{
    media::edge::{Command, Reception},
    types::{Bitrate, ChannelLabel},
};
use prost::Message;

use crate::{
    call::{Call, link},
    impairment::Conditions,
    network::Measures,
    seeds::{at_least, at_most, ms, over_seeds},
    world::World,
};

fn user_packet(text: &str, to: &[&str]) -> DataPacket {
    DataPacket {
        destination_identities: to.iter().map(|identity| (*identity).to_owned()).collect(),
        value: Some(data_packet::Value::User(UserPacket {
            payload: text.as_bytes().to_vec(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn texts(world: &World, peer: usize) -> Vec<String> {
    world.peers[peer]
        .messages
        .iter()
        .filter_map(
            |(_, _, bytes)| match DataPacket::decode(bytes.as_slice()).ok()?.value? {
                data_packet::Value::User(user) => String::from_utf8(user.payload).ok(),
                _ => None,
            },
        )
        .collect()
}

#[test]
fn reliable_and_lossy_packets_reach_everybody_but_the_sender() {
    let mut world = World::new(1);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let carol = world.join_connected("carol");
    world.peers[alice].send_message(ChannelLabel::Reliable, &user_packet("one", &[]).encode_to_vec());
    world.peers[alice].send_message(ChannelLabel::Lossy, &user_packet("two", &[]).encode_to_vec());
    world.peers[alice].send_message(
        ChannelLabel::Reliable,
        &user_packet("for carol", &["carol"]).encode_to_vec(),
    );
    world.run(Duration::from_secs(1));
    assert_eq!(texts(&world, alice), Vec::<String>::new());
    let mut at_bob = texts(&world, bob);
    at_bob.sort();
    assert_eq!(at_bob, ["one", "two"]);
    let mut at_carol = texts(&world, carol);
    at_carol.sort();
    assert_eq!(at_carol, ["for carol", "one", "two"]);
    let (_, _, bytes) = &world.peers[bob].messages[0];
    let packet = DataPacket::decode(bytes.as_slice()).expect("a data packet");
    assert_eq!(
        (packet.participant_identity.as_str(), packet.participant_sid.as_str()),
        ("alice", "PA_alice")
    );
}

#[test]
fn reliable_data_survives_a_lossy_link_in_order() {
    let mut world = World::new(2);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let lossy = Conditions {
        loss: 0.1,
        ..Conditions::CLEAN
    };
    world.set_link(bob, lossy);
    for number in 0..200 {
        world.peers[alice].send_message(
            ChannelLabel::Reliable,
            &user_packet(&format!("{number}"), &[]).encode_to_vec(),
        );
        world.run(Duration::from_millis(10));
    }
    world.run(Duration::from_secs(20));
    let expected: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    assert_eq!(texts(&world, bob), expected);
}

#[test]
fn a_file_leaves_room_for_the_call_beside_it() {
    over_seeds(
        "3 MB of reliable data beside a voice and a camera over 2 Mbit/s",
        |seed| {
            let mut call = Call::new(seed, 1, link(2_000_000));
            let (alice, bob) = (call.cameras[0].publisher, call.viewer);
            let voice = call.world.publish_voice(alice);
            call.run(0.5);
            let voice = call.world.subscribe(bob, &voice);
            call.run(10.0);
            let begun = call.now();
            let chunk = user_packet(&"x".repeat(10_000), &[]).encode_to_vec();
            let mut left = 300;
            for _ in 0..3_000 {
                while left > 0 && call.world.peers[alice].send_message(ChannelLabel::Reliable, &chunk) {
                    left -= 1;
                }
                call.run(0.02);
            }
            let interval = begun..call.now();
            let messages = &call.world.peers[bob].messages;
            let (came, done) = (messages.len(), messages.last().map_or(0.0, |(at, ..)| ms(*at - begun)));
            let down = &call.world.links[bob].down;
            let gap = call.longest_gap(0, Some(begun));
            let shown = call.received(0).receiver.shown_in(interval.clone()).count();
            let missing = call.world.received(&voice).missing().len();
            vec![
                at_most("voice packets missing", missing as f64, 0.0),
                at_least("messages", came as f64, 300.0),
                at_most("all there, ms", done, 50_000.0),
                at_most("queueing p95, ms", ms(down.queueing(interval, 0.95)), 150.0),
                at_most("longest gap, ms", ms(gap), 1000.0),
                // Beside the file 720 lines fit 15 times a second.
                at_least("pictures in a minute", shown as f64, 880.0),
            ]
        },
    );
}

#[test]
fn a_cap_holds_for_files_too() {
    let mut world = World::new(1);
    let alice = world.join_connected("alice");
    let bob = world.join_connected("bob");
    let camera = world.publish_camera(alice);
    world.run(Duration::from_millis(1500));
    world.set_link(bob, link(20_000_000));
    let camera = world.subscribe(bob, &camera);
    let reception = Reception {
        max_bitrate: Some(Bitrate::kbps(600)),
        ..Reception::default()
    };
    world.command(Command::UpdateReception {
        transport: world.peers[bob].transport,
        reception,
    });
    world.run(Duration::from_secs(5));
    let settled = world.now;
    let chunk = user_packet(&"x".repeat(10_000), &[]).encode_to_vec();
    for _ in 0..12 {
        assert!(world.peers[alice].send_message(ChannelLabel::Reliable, &chunk));
    }
    world.run(Duration::from_secs(3));
    let interval = settled..world.now;
    let sent = world.links[bob].down.throughput(interval.clone()) / 1000.0;
    // 28 bytes of headers on each datagram come on top, and at first what pictures have not made room for yet.
    assert!((400.0..690.0).contains(&sent), "{sent} kbit/s");
    assert!(
        world.received(&camera).receiver.shown_in(interval).count() >= 42,
        "15 a second"
    );
    world.run(Duration::from_secs(10));
    assert_eq!(world.peers[bob].messages.len(), 12);
}
