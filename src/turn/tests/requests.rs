//! Requests that are wrong in one way each, and the error each gets.

use std::time::Duration;

use super::client::{Answer, Client, MEDIA_V4, MEDIA_V6, World, address};
use crate::turn::attributes::LIFETIME;
use crate::turn::server::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use crate::turn::{BadFrame, MAX_FRAME, Refusal, frame_length};

const UDP: (u16, [u8; 4]) = (0x19, [17, 0, 0, 0]);

/// Alice, who knows the nonce.
fn alice(world: &mut World) -> Client {
    let mut alice = Client::new("alice", 4000);
    assert_eq!(alice.ask(world, ALLOCATE, &[]), Answer::Error(401));
    alice
}

#[test]
fn each_wrong_signature_gets_its_error() {
    let mut world = World::new();
    let right = alice(&mut world);
    let mut asked = |change: &dyn Fn(&mut Client)| {
        let mut client = right.clone();
        change(&mut client);
        client.ask(&mut world, ALLOCATE, &[(UDP.0, UDP.1.to_vec())])
    };
    assert_eq!(asked(&|client| client.password = "guess".into()), Answer::Error(401));
    assert_eq!(
        asked(&|client| client.username = "mallory".into()),
        Answer::Error(401),
        "not admitted"
    );
    assert_eq!(asked(&|client| client.realm = "example.org".into()), Answer::Error(401));
    assert_eq!(
        asked(&|client| client.nonce = "AAAAAAAAAAAAAAAA".into()),
        Answer::Error(438)
    );
    assert_eq!(asked(&|client| client.nonce = "short".into()), Answer::Error(438));
    // A nonce is worth nothing elsewhere.
    assert_eq!(
        asked(&|client| client.path.remote = address("192.0.2.9:1")),
        Answer::Error(438)
    );
    assert!(asked(&|_| {}).is_success());
    // On her 5-tuple: the password of another, and a wrong one.
    assert_eq!(
        asked(&|client| (client.username, client.password) = ("bob".into(), "bob".into())),
        Answer::Error(441)
    );
    assert_eq!(asked(&|client| client.username = "bob".into()), Answer::Error(401));
}

#[test]
fn each_wrong_allocate_gets_its_error() {
    let mut world = World::new();
    let udp = || (UDP.0, UDP.1.to_vec());
    type Attributes = Vec<(u16, Vec<u8>)>;
    let cases: [(&str, Attributes, u16); 10] = [
        ("no transport", vec![], 400),
        ("TCP", vec![(0x19, vec![6, 0, 0, 0])], 442),
        ("a family that is none", vec![udp(), (0x17, vec![9, 0, 0, 0])], 440),
        ("a reserved pair", vec![udp(), (0x18, vec![0x80])], 508),
        ("a reservation", vec![udp(), (0x22, vec![0; 8])], 508),
        ("a broken family", vec![udp(), (0x17, vec![1])], 400),
        (
            "two families and one",
            vec![udp(), (0x8000, vec![2, 0, 0, 0]), (0x17, vec![1, 0, 0, 0])],
            400,
        ),
        ("IPv4 as the second", vec![udp(), (0x8000, vec![1, 0, 0, 0])], 400),
        ("an unknown attribute", vec![udp(), (0x7777, vec![1, 2, 3])], 420),
        ("a broken lifetime", vec![udp(), (0x0d, vec![1])], 400),
    ];
    let mut alice = alice(&mut world);
    for (what, attributes, code) in cases {
        assert_eq!(
            alice.ask(&mut world, ALLOCATE, &attributes),
            Answer::Error(code),
            "{what}"
        );
    }
    assert_eq!(world.server.population().allocations, 0);
    // Harmless ones.
    let fine = [udp(), (0x18, vec![0]), (0x1a, vec![]), (0x8fff, vec![1])];
    assert!(alice.ask(&mut world, ALLOCATE, &fine).is_success());
}

#[test]
fn an_allocation_of_both_families() {
    let mut world = World::new();
    let both = [(UDP.0, UDP.1.to_vec()), (0x8000, vec![2, 0, 0, 0])];
    let mut client = alice(&mut world);
    let answer = client.ask(&mut world, ALLOCATE, &both);
    assert_eq!(answer.relayed().len(), 2);
    for peer in [MEDIA_V4, MEDIA_V6] {
        assert!(client.permit(&mut world, address(peer)).is_success());
        let (relayed, _) = client.send(&mut world, address(peer), b"x").unwrap();
        assert_eq!(relayed.path.remote.is_ipv4(), relayed.path.local.is_ipv4());
    }

    let mut world = World::with(|config| config.relay_ips.truncate(1));
    let mut client = alice(&mut world);
    let Answer::Success(attributes) = client.ask(&mut world, ALLOCATE, &both) else {
        panic!("refused")
    };
    assert!(attributes.contains(&(0x8001, vec![2, 0, 4, 40])), "no IPv6 here");
    assert_eq!(Client::new("bob", 4001).allocate(&mut world, 2), Answer::Error(440));
}

/// RFC 8656 §8.1: one of two addresses is given up, or asked to last, without the other.
#[test]
fn each_family_of_an_allocation_is_refreshed_by_itself() {
    // Coturn's client asked with the draft's number for years.
    for number in [0x8000, 0x8032] {
        let mut world = World::new();
        let mut client = alice(&mut world);
        let both = [(UDP.0, UDP.1.to_vec()), (number, vec![2, 0, 0, 0])];
        assert_eq!(client.ask(&mut world, ALLOCATE, &both).relayed().len(), 2);
        let refresh = |client: &mut Client, world: &mut World, seconds: u32, family: u8| {
            let lifetime = (LIFETIME, seconds.to_be_bytes().to_vec());
            client.ask(world, REFRESH, &[lifetime, (0x17, vec![family, 0, 0, 0])])
        };
        assert!(client.refresh(&mut world, 3600).is_success());
        assert!(refresh(&mut client, &mut world, 600, 2).is_success());
        for peer in [MEDIA_V4, MEDIA_V6] {
            assert!(client.permit(&mut world, address(peer)).is_success());
        }
        assert!(refresh(&mut client, &mut world, 0, 1).is_success());
        assert_eq!(world.server.population().relayed, 1);
        assert_eq!(
            client.send(&mut world, address(MEDIA_V4), b"x"),
            Err(Refusal::FamilyMismatch)
        );
        assert!(client.send(&mut world, address(MEDIA_V6), b"x").is_ok());
        assert_eq!(refresh(&mut client, &mut world, 600, 1), Answer::Error(443));
        world.wait(Duration::from_secs(3000));
        assert_eq!(
            world.server.population().allocations,
            1,
            "as long as the other was to last"
        );
        let late = refresh(&mut client, &mut world, 0, 2);
        assert_eq!(late, Answer::Error(438), "with the nonce of an hour ago");
        assert!(refresh(&mut client, &mut world, 0, 2).is_success());
        assert_eq!(world.server.population().allocations, 0);
    }
}

#[test]
fn permissions_and_channels_need_an_allocation_and_sense() {
    let mut world = World::new();
    let mut client = alice(&mut world);
    let media = address(MEDIA_V4);
    assert_eq!(client.permit(&mut world, media), Answer::Error(437));
    assert_eq!(client.bind(&mut world, 0x4000, media), Answer::Error(437));
    client.allocate(&mut world, 1);
    assert_eq!(client.ask(&mut world, CREATE_PERMISSION, &[]), Answer::Error(400));
    assert_eq!(
        client.ask(&mut world, CREATE_PERMISSION, &[(0x12, vec![0, 9, 0, 0])]),
        Answer::Error(400)
    );
    assert_eq!(client.permit(&mut world, address(MEDIA_V6)), Answer::Error(443));
    let peer = client.peer(media);
    assert_eq!(client.ask(&mut world, CHANNEL_BIND, &[peer]), Answer::Error(400));
    for number in [0, 0x3fff, 0x7fff, 0xffff] {
        assert_eq!(
            client.bind(&mut world, number, media),
            Answer::Error(400),
            "{number:#x}"
        );
    }
    assert!(client.bind(&mut world, 0x7ffe, media).is_success());
    assert!(client.bind(&mut world, 0x7ffe, media).is_success(), "refreshed");
    assert_eq!(
        client.bind(&mut world, 0x4000, media),
        Answer::Error(400),
        "the peer has a channel"
    );
}

#[test]
fn channels_and_permissions_are_bounded() {
    let mut world = World::with(|config| {
        config.peers.media = (1..60).map(|last| address(&format!("203.0.113.{last}:7882"))).collect();
    });
    let mut client = alice(&mut world);
    client.allocate(&mut world, 1);
    let bound: Vec<bool> = (1..60)
        .map(|last| {
            let peer = address(&format!("203.0.113.{last}:7882"));
            client.bind(&mut world, 0x4000 + last, peer).is_success()
        })
        .collect();
    assert_eq!(bound.iter().filter(|bound| **bound).count(), 16);
    assert_eq!(client.permit(&mut world, address("203.0.113.59:1")), Answer::Error(508));
    assert!(
        client.permit(&mut world, address("203.0.113.1:1")).is_success(),
        "it has that one"
    );
    assert_eq!(world.refused(Refusal::Full), 44);
}

#[test]
fn what_follows_the_signature_is_not_read() {
    let mut world = World::new();
    let mut client = alice(&mut world);
    let mut message = client.message(ALLOCATE, &[]);
    // REQUESTED-TRANSPORT behind MESSAGE-INTEGRITY, put there by somebody on the way.
    message.extend([0x00, 0x19, 0, 4, 17, 0, 0, 0]);
    let length = (message.len() - 20) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(client.give(&mut world, &message).0, Answer::Error(400));
}

#[test]
fn frames_of_a_stream() {
    assert_eq!(frame_length(&[]), Ok(None));
    assert_eq!(frame_length(&[0, 1, 0]), Ok(None));
    assert_eq!(frame_length(&[0, 1, 0, 8]), Ok(Some(28)));
    assert_eq!(frame_length(&[0, 1, 0, 7]), Err(BadFrame), "STUN is padded");
    assert_eq!(frame_length(&[0x40, 0, 0, 0]), Ok(Some(4)));
    for (data, whole) in [(1, 8), (171, 176), (172, 176), (801, 808)] {
        let [a, b] = u16::to_be_bytes(data);
        assert_eq!(frame_length(&[0x40, 0, a, b]), Ok(Some(whole)));
    }
    let [a, b] = (MAX_FRAME as u16).to_be_bytes();
    assert_eq!(frame_length(&[0x40, 0, a, b]), Err(BadFrame));
    for first in [0x80, 0xc0, 0xff] {
        assert_eq!(frame_length(&[first]), Err(BadFrame));
    }
}
