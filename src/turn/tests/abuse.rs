//! The relay is of no use to an attacker: whatever he names as a peer, in whatever form, only our own media addresses are
//! served, and of those only the ports that are media's.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::client::{Answer, Client, MEDIA_V4, MEDIA_V6, World, address, family_of};
use crate::turn::{OtherPeers, PortChange, Refusal};

/// What is worth reaching from inside, and the forms that have got past other servers' lists.
const PEERS: &[&str] = &[
    "127.0.0.1:80",
    "127.255.255.254:22",
    "0.0.0.0:80",
    "10.1.2.3:5432",
    "172.16.0.1:6379",
    "192.168.1.1:80",
    "169.254.169.254:80", // metadata of most clouds
    "169.254.1.1:80",
    "100.100.100.200:80", // Alibaba
    "168.63.129.16:80",   // Azure
    "100.64.0.1:80",
    "198.18.0.1:80",
    "192.0.0.192:80", // Oracle
    "224.0.0.1:5353",
    "239.255.255.250:1900",
    "240.0.0.1:80",
    "255.255.255.255:67",
    "8.8.8.8:53",
    "198.51.100.7:4000", // the client itself
    "203.0.113.6:7882",  // next door
    "[::1]:80",
    "[::]:80",
    "[::ffff:127.0.0.1]:80",
    "[::ffff:10.1.2.3]:80",
    "[::ffff:169.254.169.254]:80",
    "[::ffff:203.0.113.5]:7882", // our own, in disguise
    "[::127.0.0.1]:80",
    "[64:ff9b::7f00:1]:80", // NAT64
    "[64:ff9b::cb00:7105]:7882",
    "[64:ff9b:1::a9fe:a9fe]:80",
    "[2002:7f00:1::]:80", // 6to4
    "[2002:a9fe:a9fe::]:80",
    "[2001:0:7f00:1::80ff:fffe]:80", // Teredo
    "[fe80::1]:80",
    "[fd00::1]:80",
    "[fd00:ec2::254]:80", // AWS
    "[fec0::1]:80",
    "[ff02::1]:5353",
    "[ff05::1:3]:547",
    "[2001:4860:4860::8888]:53",
    "[2001:db8::6]:7882",
];

/// Addresses that are ours, but not media's: our TURN, HTTP, another participant's relayed address.
const OURS: &[&str] = &[
    "203.0.113.5:3478",
    "203.0.113.5:7880",
    "203.0.113.5:22",
    "203.0.113.5:0",
    "203.0.113.5:30000",
    "[2001:db8::5]:3478",
    "[2001:db8::5]:7880",
    "[2001:db8::5]:30000",
];

#[test]
fn nobody_but_our_media_is_reached() {
    assert!(PEERS.len() >= 30);
    for family in [1, 2] {
        let media = address(if family == 1 { MEDIA_V4 } else { MEDIA_V6 });
        let mut world = World::new();
        let mut other = Client::new("bob", 4100);
        other.allocate(&mut world, family);
        let mut client = Client::new("alice", 4000);
        assert!(client.allocate(&mut world, family).is_success());
        assert!(client.permit(&mut world, media).is_success());
        for (number, peer) in (0x4000..).zip(PEERS.iter().chain(OURS)) {
            let peer = address(peer);
            let same_family = family_of(peer.ip()) == family;
            let is_our_ip = peer.ip() == media.ip();
            let permitted = client.permit(&mut world, peer);
            match (same_family, is_our_ip) {
                (false, _) => assert_eq!(permitted, Answer::Error(443), "{peer}"),
                // A permission is for an address; the port is looked at when something is sent.
                (true, true) => assert!(permitted.is_success(), "{peer}"),
                (true, false) => assert_eq!(permitted, Answer::Error(403), "{peer}"),
            }
            let expected = if same_family { 403 } else { 443 };
            assert_eq!(client.bind(&mut world, number, peer), Answer::Error(expected), "{peer}");
            assert_eq!(
                client.send(&mut world, peer, b"GET /"),
                Err(Refusal::PeerRefused),
                "{peer}"
            );
            assert_eq!(
                client.send_on(&mut world, number, b"GET /"),
                Err(Refusal::NotPermitted),
                "{peer}"
            );
        }
        // The same questions about our media: yes.
        assert!(client.bind(&mut world, 0x7000, media).is_success());
        assert!(client.send(&mut world, media, b"x").is_ok());
    }
}

/// Of those above, who is on the Internet: in the mode that serves other peers they are reached, and nobody else is.
const INTERNET: &[&str] = &[
    "168.63.129.16:80", // that cloud's own, which no list of ours knows: the operator's has to
    "8.8.8.8:53",
    "[2001:4860:4860::8888]:53",
];

fn open_world() -> World {
    World::with(|config| {
        config.peers.others = Some(OtherPeers {
            own: config.relay_ips.clone(),
            ..OtherPeers::default()
        });
    })
}

#[test]
fn with_other_peers_the_inside_is_still_out_of_reach() {
    for family in [1, 2] {
        let media = address(if family == 1 { MEDIA_V4 } else { MEDIA_V6 });
        let mut world = open_world();
        let mut other = Client::new("bob", 4100);
        other.allocate(&mut world, family);
        let mut client = Client::new("alice", 4000);
        assert!(client.allocate(&mut world, family).is_success());
        assert!(client.permit(&mut world, media).is_success());
        for (number, text) in (0x4000..).zip(PEERS.iter().chain(OURS)) {
            let peer = address(text);
            let same_family = family_of(peer.ip()) == family;
            let wrong_port = SocketAddr::new(peer.ip(), 0);
            let reached = same_family && INTERNET.contains(text);
            let refused = if same_family { 403 } else { 443 };
            let permitted = client.permit(&mut world, peer);
            // Our own address is permitted for media's sake, and its other ports are refused one by one.
            let may_permit = reached || peer.ip() == media.ip();
            assert_eq!(permitted.is_success(), may_permit, "{peer}");
            if !may_permit {
                assert_eq!(permitted, Answer::Error(refused), "{peer}");
            }
            assert_eq!(
                client.bind(&mut world, number, wrong_port),
                Answer::Error(refused),
                "{peer}"
            );
            assert_eq!(
                client.send(&mut world, wrong_port, b"x"),
                Err(Refusal::PeerRefused),
                "{peer}"
            );
            match reached {
                true => {
                    assert!(client.send(&mut world, peer, b"x").is_ok(), "{peer}");
                    assert!(client.bind(&mut world, number, peer).is_success(), "{peer}");
                    let (relayed, _) = client.send_on(&mut world, number, b"x").unwrap();
                    assert!(relayed.path.local == peer && !world.server.is_media(peer));
                }
                false => {
                    let is_elsewhere = INTERNET.contains(text);
                    let why = if is_elsewhere {
                        Refusal::NotPermitted
                    } else {
                        Refusal::PeerRefused
                    };
                    assert_eq!(client.send(&mut world, peer, b"x"), Err(why), "{peer}");
                    assert_eq!(client.bind(&mut world, number, peer), Answer::Error(refused), "{peer}");
                    assert_eq!(
                        client.send_on(&mut world, number, b"x"),
                        Err(Refusal::NotPermitted),
                        "{peer}"
                    );
                }
            }
        }
        assert!(client.bind(&mut world, 0x7000, media).is_success());
    }
}

#[test]
fn relayed_addresses_are_opened_and_closed_where_peers_are_elsewhere() {
    let ports = |world: &mut World| std::iter::from_fn(|| world.server.poll_port()).collect::<Vec<_>>();
    let mut world = World::new();
    Client::new("alice", 4000).allocate(&mut world, 1);
    assert_eq!(ports(&mut world), [], "only names");

    let mut world = open_world();
    Client::new("alice", 4000).allocate(&mut world, 1);
    let opened = ports(&mut world);
    let [PortChange::Opened(relayed)] = opened[..] else {
        panic!("{opened:?}");
    };
    world.server.revoke("alice");
    assert_eq!(ports(&mut world), [PortChange::Closed(relayed)]);
}

proptest! {
    /// Any address at all.
    #[test]
    fn only_the_exact_address_is_a_peer(ip in any::<std::net::IpAddr>(), port in any::<u16>()) {
        let peer = SocketAddr::new(ip, port);
        let media = [address(MEDIA_V4), address(MEDIA_V6)];
        let mut world = World::new();
        let mut client = Client::new("alice", 4000);
        client.allocate(&mut world, family_of(ip));
        for ours in media {
            client.permit(&mut world, ours);
        }
        prop_assert_eq!(client.bind(&mut world, 0x4000, peer).is_success(), media.contains(&peer));
        prop_assert_eq!(client.send(&mut world, peer, b"x").is_ok(), media.contains(&peer));
    }

    /// Anything at all, from somebody who holds an allocation and from somebody who does not.
    #[test]
    fn no_bytes_hurt(bytes in proptest::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let mut world = World::new();
        let mut client = Client::new("alice", 4000);
        if known {
            client.allocate(&mut world, 1);
        }
        let relayed = world.server.handle_message(world.now, client.path, &bytes);
        prop_assert!(!matches!(relayed, Ok(Some(_))));
        while let Some((_, answer)) = world.server.poll_transmit() {
            prop_assert!(answer.len() <= 3 * bytes.len());
        }
    }
}
