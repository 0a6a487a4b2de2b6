//! Allocations come, are refreshed, expire, are revoked; and leave nothing behind.

use std::time::Duration;

use super::client::{Answer, Client, MEDIA_V4, START, World, address};
use crate::turn::server::{ALLOCATE, BINDING, REFRESH};
use crate::turn::{Population, Refusal};
use crate::types::NetProtocol;

#[test]
fn the_first_request_is_challenged_and_the_second_succeeds() {
    let mut world = World::new();
    let mut alice = Client::new("alice", 4000);
    let answer = alice.allocate(&mut world, 1);
    assert_eq!(answer.relayed().len(), 1);
    assert_eq!(alice.realm, "livekit");
    let held = Population {
        users: 2,
        allocations: 1,
        relayed: 1,
    };
    assert_eq!(world.server.population(), held);
    assert_eq!(world.refused(Refusal::Unauthenticated), 1);
}

#[test]
fn a_retransmitted_request_gets_the_same_answer_and_another_one_none() {
    let mut world = World::new();
    let mut alice = Client::new("alice", 4000);
    alice.ask(&mut world, ALLOCATE, &[(0x19, vec![17, 0, 0, 0])]);
    let message = alice.message(ALLOCATE, &[(0x19, vec![17, 0, 0, 0])]);
    let first = alice.give(&mut world, &message);
    assert!(first.0.is_success());
    assert_eq!(alice.give(&mut world, &message), first);
    assert_eq!(alice.allocate(&mut world, 1), Answer::Error(437));
    assert_eq!(world.server.population().allocations, 1);
}

#[test]
fn an_allocation_ends_when_it_is_not_refreshed() {
    let mut world = World::new();
    let mut alice = Client::new("alice", 4000);
    alice.allocate(&mut world, 1);
    world.wait(Duration::from_secs(590));
    assert!(alice.refresh(&mut world, 600).is_success());
    world.wait(Duration::from_secs(590));
    assert_eq!(world.server.population().allocations, 1);
    world.wait(Duration::from_secs(11));
    assert_eq!(
        world.server.population(),
        Population {
            users: 2,
            ..Population::default()
        }
    );
    assert_eq!(
        alice.refresh(&mut world, 600),
        Answer::Error(438),
        "the nonce is old by now"
    );
    assert_eq!(alice.refresh(&mut world, 600), Answer::Error(437));
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn a_lifetime_is_between_ten_minutes_and_an_hour() {
    let mut world = World::new();
    for (port, (wanted, granted)) in (4000..).zip([(1, 600), (599, 600), (1000, 1000), (u32::MAX, 3600)]) {
        let mut alice = Client::new("alice", port);
        alice.allocate(&mut world, 1);
        let Answer::Success(attributes) = alice.refresh(&mut world, wanted) else {
            panic!("refused");
        };
        let lifetime = attributes.iter().find(|(kind, _)| *kind == 0x0d).unwrap();
        assert_eq!(lifetime.1, u32::to_be_bytes(granted));
        assert!(alice.refresh(&mut world, 0).is_success());
    }
    assert_eq!(world.server.population().allocations, 0);
}

#[test]
fn a_shorter_refresh_ends_the_allocation_sooner() {
    let mut world = World::new();
    let mut alice = Client::new("alice", 4000);
    alice.allocate(&mut world, 1);
    assert!(alice.refresh(&mut world, 3600).is_success());
    assert!(alice.refresh(&mut world, 600).is_success());
    world.wait(Duration::from_secs(601));
    assert_eq!(world.server.population().allocations, 0);
}

#[test]
fn whoever_leaves_loses_allocations_and_credentials() {
    let mut world = World::new();
    let (mut alice, mut second, mut bob) = (
        Client::new("alice", 4000),
        Client::new("alice", 4001),
        Client::new("bob", 4002),
    );
    for client in [&mut alice, &mut second, &mut bob] {
        assert!(client.allocate(&mut world, 1).is_success());
        assert!(client.bind(&mut world, 0x4000, address(MEDIA_V4)).is_success());
    }
    world.server.revoke("alice");
    assert_eq!(world.server.population().allocations, 1);
    assert_eq!(alice.send_on(&mut world, 0x4000, b"x"), Err(Refusal::NoAllocation));
    assert_eq!(second.refresh(&mut world, 600), Answer::Error(401));
    assert_eq!(alice.allocate(&mut world, 1), Answer::Error(401));
    assert!(bob.send_on(&mut world, 0x4000, b"x").is_ok());
    world.server.revoke("nobody");
}

#[test]
fn a_credential_past_its_time_makes_no_allocation_but_an_allocation_outlives_it() {
    let mut world = World::new();
    let expiry = START.as_secs() + 300;
    let mut early = Client::new(&format!("alice|{expiry}"), 4000);
    assert!(early.allocate(&mut world, 1).is_success());
    world.wait(Duration::from_secs(301));
    assert!(early.refresh(&mut world, 600).is_success());
    let mut late = Client::new(&format!("alice|{expiry}"), 4001);
    assert_eq!(late.allocate(&mut world, 1), Answer::Error(401));
}

#[test]
fn a_participant_has_a_quota() {
    let mut world = World::new();
    let mut clients: Vec<Client> = (0..4).map(|index| Client::new("alice", 4000 + index)).collect();
    let answers: Vec<bool> = clients
        .iter_mut()
        .map(|client| client.allocate(&mut world, 1).is_success())
        .collect();
    assert_eq!(answers, [true, true, true, false]);
    assert_eq!(world.refused(Refusal::QuotaReached), 1);
    assert!(Client::new("bob", 4100).allocate(&mut world, 1).is_success());
    assert!(clients[0].refresh(&mut world, 0).is_success());
    assert!(clients[3].allocate(&mut world, 1).is_success());
}

#[test]
fn a_stream_takes_its_allocation_with_it() {
    let mut world = World::new();
    let mut alice = Client::new("alice", 4000);
    alice.path.protocol = NetProtocol::Tcp;
    assert!(alice.allocate(&mut world, 1).is_success());
    world.server.handle_disconnect(alice.path);
    assert_eq!(world.server.population().allocations, 0);
}

#[test]
fn allocating_and_freeing_for_ever_leaves_nothing() {
    let mut world = World::new();
    for round in 0..5000u16 {
        let mut alice = Client::new("alice", 4000 + round);
        assert!(alice.allocate(&mut world, 1).is_success(), "round {round}");
        assert!(alice.refresh(&mut world, 0).is_success());
        world.now += Duration::from_millis(10);
    }
    let mut entries = 0;
    while let Some(due) = world.server.poll_timeout() {
        world.server.handle_timeout(due);
        entries += 1;
    }
    assert!(entries <= 66, "{entries} instants still waited for");
    assert_eq!(
        world.server.population(),
        Population {
            users: 2,
            ..Population::default()
        }
    );
}

#[test]
fn answers_to_strangers_are_no_amplifier() {
    let mut world = World::new();
    let bare = |method: u16| Client::new("x", 5000).message(method, &[]);
    let mut questions = vec![bare(BINDING), bare(ALLOCATE), bare(REFRESH), bare(8), bare(9)];
    // Half a signature: user, realm and nonce are missing or wrong.
    let mut liar = Client::new("alice", 5001);
    (liar.nonce, liar.realm) = ("x".into(), "y".into());
    questions.push(liar.message(ALLOCATE, &[]));
    questions.push(Client::new("x", 5002).message(ALLOCATE, &[(0x19, vec![17, 0, 0, 0])]));
    for question in questions {
        let mut stranger = Client::new("x", 5003);
        let (_, length) = stranger.give(&mut world, &question);
        assert!(length <= 3 * question.len(), "{length} bytes for {}", question.len());
        assert!(length > 0);
    }
    // Methods that are not ours, responses, indications: nothing.
    for method in [0x00a, 0x00b, 0x123] {
        let (answer, _) = Client::new("x", 5004).give(&mut world, &bare(method));
        assert_eq!(answer, Answer::Silence);
    }
}

#[test]
fn a_network_that_floods_is_not_answered_and_others_are() {
    let mut world = World::new();
    let mut stranger = Client::new("x", 5000);
    let mut answered = 0;
    for _ in 0..10_000 {
        stranger.nonce.clear();
        answered += usize::from(stranger.ask(&mut world, ALLOCATE, &[]) != Answer::Silence);
    }
    assert_eq!(answered, 2000);
    assert_eq!(world.refused(Refusal::TooMany), 8000);
    let mut other = Client::new("alice", 5001);
    other.path.remote = address("192.0.2.1:5001");
    assert!(other.allocate(&mut world, 1).is_success());
    world.wait(Duration::from_secs(1));
    assert_ne!(stranger.ask(&mut world, ALLOCATE, &[]), Answer::Silence);
}

/// Behind a translated address that is told late: media at it may be reached, and new allocations are named after it.
#[test]
fn addresses_that_become_known_are_used() {
    let mut world = World::new();
    let (media, outside) = (address(MEDIA_V4), address("198.51.100.9:7882"));
    let mut early = Client::new("alice", 4000);
    early.allocate(&mut world, 1);
    assert_eq!(early.permit(&mut world, outside), Answer::Error(403));
    world.server.add_addresses(&[outside.ip()], &[outside]);
    let mut late = Client::new("bob", 4001);
    late.allocate(&mut world, 1);
    for (client, named) in [(&mut early, media), (&mut late, outside)] {
        for peer in [media, outside] {
            assert!(client.permit(&mut world, peer).is_success());
            let (sent, _) = client.send(&mut world, peer, b"x").unwrap();
            assert_eq!((sent.path.local, sent.path.remote.ip()), (peer, named.ip()));
        }
        assert_eq!(
            client.send(&mut world, address("198.51.100.9:22"), b"x"),
            Err(Refusal::PeerRefused)
        );
    }
    assert!(
        Client::new("bob", 4002).allocate(&mut world, 2).is_success(),
        "IPv6 as before"
    );
}
