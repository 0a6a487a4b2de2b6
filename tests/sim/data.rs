//! Data packets and their rights, over real SCTP.

use std::time::Duration;

use livekit_protocol::{DataPacket, UserPacket, data_packet};
use patchbay::types::ChannelLabel;
use prost::Message;

use crate::{impairment::Conditions, world::World};

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
