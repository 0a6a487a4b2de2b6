//! Data both ways: what the shard gets, and what comes back.

use std::time::Duration;

use stun_types::message::Message;

use super::client::{Client, MEDIA_V4, MEDIA_V6, World, address, family_of};
use crate::turn::attributes::{Attributes, DATA};
use crate::turn::{MAX_CARRIAGE, OtherPeers, Refusal};
use crate::types::{NetPath, NetProtocol};

#[test]
fn every_allocation_is_another_remote_to_the_shard() {
    let mut world = World::new();
    let media = address(MEDIA_V4);
    let mut paths = Vec::new();
    for port in 4000..4003 {
        let mut client = Client::new("alice", port);
        client.allocate(&mut world, 1);
        assert_eq!(client.send(&mut world, media, b"early"), Err(Refusal::NotPermitted));
        client.permit(&mut world, media);
        let (sent, payload) = client.send(&mut world, media, b"hello").unwrap();
        assert_eq!((sent.path.local, payload.as_slice()), (media, &b"hello"[..]));
        assert_eq!(sent.path.protocol, NetProtocol::Turn);
        client.bind(&mut world, 0x4001, media);
        let (on_channel, payload) = client.send_on(&mut world, 0x4001, b"").unwrap();
        assert_eq!((on_channel.path, payload.len()), (sent.path, 0));
        paths.push(sent.path);
    }
    paths.dedup();
    assert_eq!(paths.len(), 3);
}

#[test]
fn answers_come_back_by_channel_or_indication_padded_in_streams() {
    for media in [address(MEDIA_V4), address(MEDIA_V6)] {
        for protocol in [NetProtocol::Udp, NetProtocol::Tcp] {
            let mut world = World::new();
            let mut client = Client::new("alice", 4000);
            client.path.protocol = protocol;
            client.allocate(&mut world, family_of(media.ip()));
            client.permit(&mut world, media);
            let (sent, _) = client.send(&mut world, media, b"x").unwrap();
            for length in [0usize, 1, 171, 172, 1200] {
                let payload = vec![0xab; length];
                let wrapped = wrap(&mut world, sent.path, &payload).unwrap();
                let message = Message::from_bytes(&wrapped).unwrap();
                let read = Attributes::read(&wrapped, message.transaction_id());
                assert_eq!(
                    (read.data, read.peers.as_slice()),
                    (Some(payload.as_slice()), &[media][..])
                );
                assert_eq!(wrapped.len() % 4, 0);
                assert_eq!(
                    wrapped[wrapped.len() - 8 - length.next_multiple_of(4) + 4..][..2],
                    DATA.to_be_bytes()
                );
            }
            client.bind(&mut world, 0x4002, media);
            for length in [0usize, 1, 171, 172, 1200] {
                let wrapped = wrap(&mut world, sent.path, &vec![0xab; length]).unwrap();
                assert_eq!(wrapped[..2], [0x40, 0x02]);
                assert_eq!(wrapped[2..4], (length as u16).to_be_bytes());
                assert!(wrapped[4..4 + length].iter().all(|byte| *byte == 0xab));
                let padded = if protocol == NetProtocol::Tcp {
                    length.next_multiple_of(4)
                } else {
                    length
                };
                assert_eq!(wrapped.len(), 4 + padded);
            }
        }
    }
}

#[test]
fn permissions_and_channels_end() {
    let mut world = World::new();
    let media = address(MEDIA_V4);
    let mut client = Client::new("alice", 4000);
    client.allocate(&mut world, 1);
    client.bind(&mut world, 0x4000, media);
    let path = client.send_on(&mut world, 0x4000, b"x").unwrap().0.path;
    world.wait(Duration::from_secs(301));
    assert!(
        client.send_on(&mut world, 0x4000, b"x").is_ok(),
        "a channel lasts twice as long"
    );
    assert_eq!(client.send(&mut world, media, b"x"), Err(Refusal::NotPermitted));
    world.wait(Duration::from_secs(290));
    client.refresh(&mut world, 600);
    world.wait(Duration::from_secs(10));
    assert_eq!(client.send_on(&mut world, 0x4000, b"x"), Err(Refusal::NotPermitted));
    assert_eq!(wrap(&mut world, path, b"x"), None);
}

/// To peers elsewhere and back an allocation brings 20 Mbit/s, and no other suffers for it; to media whatever comes.
#[test]
fn a_tunnel_has_a_limit_and_media_has_none() {
    let mut world = World::with(|config| config.peers.others = Some(OtherPeers::default()));
    let [mut alice, mut bob] = [("alice", 4000), ("bob", 4001)].map(|(user, port)| Client::new(user, port));
    let (media, peer) = (address(MEDIA_V4), address("8.8.8.8:9"));
    for client in [&mut alice, &mut bob] {
        client.allocate(&mut world, 1);
        for (number, to) in [(0x4000, media), (0x4001, peer)] {
            assert!(client.bind(&mut world, number, to).is_success());
        }
    }
    const LENGTH: usize = 1000;
    let datagram = [1; LENGTH];
    let path = alice.send_on(&mut world, 0x4001, b"").unwrap().0.path;
    let mut passed = 0;
    let before = world.refused(Refusal::OverRate);
    // A second of 80 Mbit/s, by channel, by indication and back.
    for _ in 0..1000 {
        world.now += Duration::from_millis(1);
        for _ in 0..4 {
            passed += usize::from(alice.send_on(&mut world, 0x4001, &datagram).is_ok());
            passed += usize::from(alice.send(&mut world, peer, &datagram).is_ok());
            passed += usize::from(wrap(&mut world, path, &datagram).is_some());
            assert!(alice.send_on(&mut world, 0x4000, &datagram).is_ok(), "media");
        }
        assert!(bob.send_on(&mut world, 0x4001, &datagram).is_ok(), "another allocation");
    }
    let bytes = passed * LENGTH;
    assert!((2_500_000..=3_200_000).contains(&bytes), "{bytes} bytes in a second");
    assert_eq!(world.refused(Refusal::OverRate) - before, 12_000 - passed as u64);
    world.now += Duration::from_secs(1);
    assert!(wrap(&mut world, path, &datagram).is_some(), "and again later");
}

#[test]
fn a_relayed_address_that_nobody_has_leads_nowhere() {
    let mut world = World::new();
    let path = NetPath {
        local: address(MEDIA_V4),
        remote: address("203.0.113.5:30000"),
        protocol: NetProtocol::Turn,
    };
    assert_eq!(wrap(&mut world, path, b"x"), None);
}

#[test]
fn cut_messages_are_refused() {
    let mut world = World::new();
    let media = address(MEDIA_V4);
    let mut client = Client::new("alice", 4000);
    client.allocate(&mut world, 1);
    client.bind(&mut world, 0x4000, media);
    let peer = client.peer(media);
    let whole = client.indication(&[peer, (DATA, vec![1; 40])]);
    for length in 0..whole.len() {
        let result = world.server.handle_message(world.now, client.path, &whole[..length]);
        assert_eq!(result, Err(Refusal::Malformed), "{length}");
    }
    for length in 0..8 {
        let message = [0x40, 0, 0, 4, 1, 2, 3, 4];
        let result = world.server.handle_message(world.now, client.path, &message[..length]);
        assert_eq!(result, Err(Refusal::Malformed), "{length}");
    }
    assert_eq!(world.refused(Refusal::Malformed), whole.len() as u64 + 8);
}

fn wrap(world: &mut World, path: NetPath, payload: &[u8]) -> Option<Vec<u8>> {
    let carriage = world.server.carriage(world.now, path, payload.len())?;
    let mut buffer = payload.to_vec();
    buffer.resize(payload.len() + MAX_CARRIAGE, 0xee);
    let length = carriage.wrap(&mut buffer, payload.len())?;
    buffer.truncate(length);
    Some(buffer)
}
