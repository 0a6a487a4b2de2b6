//! A client whose connections fail is led another way: TCP, then a relay, then any again.

use std::time::Duration;

use livekit_protocol::ClientConfigSetting;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::simulate_scenario::Scenario;
use livekit_protocol::{CandidateProtocol, IceServer, Ping, ReconnectReason, SimulateScenario};

use super::world::{Entry, World, entry};
use crate::control::{ConnectionHandle, MediaAddresses, RoomSettings};
use crate::media::edge::{Command, Event};
use crate::proto::relay::IceServerSource;
use crate::types::{CloseReason, TransportHandle};

fn world() -> World {
    World::with(RoomSettings {
        ice_servers: vec![IceServerSource::Fixed(IceServer {
            urls: [
                "turn:192.0.2.1:3478?transport=udp",
                "turns:turn.example.com:443?transport=tcp",
            ]
            .map(str::to_owned)
            .to_vec(),
            ..Default::default()
        })],
        ..RoomSettings::default()
    })
}

/// The newest transport of the room ends; its client was heard of just before.
fn fail(world: &mut World, connection: ConnectionHandle, reason: CloseReason) {
    world.send(connection, Request::PingReq(Ping { timestamp: 1, rtt: 40 }));
    let transports = world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.transport),
        _ => None,
    });
    let transport = *transports.last().expect("a transport");
    world.event(Event::TransportClosed { transport, reason });
}

/// Which candidates the newest description has, whether a relay is forced, and of how many servers the client knows.
fn led(world: &mut World, connection: ConnectionHandle) -> (Vec<&'static str>, bool, usize) {
    let mut way = (Vec::new(), false, 0);
    for message in world.client(connection).told() {
        let (configuration, servers) = match message {
            Message::Join(join) => (join.client_configuration, join.ice_servers),
            Message::Reconnect(reconnect) => (reconnect.client_configuration, reconnect.ice_servers),
            Message::Answer(description) | Message::Offer(description) => {
                let candidates = description.sdp.lines().filter(|line| line.starts_with("a=candidate:"));
                way.0 = candidates
                    .map(|line| if line.contains(" tcp ") { "tcp" } else { "udp" })
                    .collect();
                continue;
            }
            _ => continue,
        };
        way.1 = configuration.is_some_and(|configuration| configuration.force_relay() == ClientConfigSetting::Enabled);
        way.2 = servers.iter().map(|server| server.urls.len()).sum();
    }
    way
}

#[test]
fn each_short_connection_is_followed_by_the_next_way() {
    let mut world = world();
    for expected in [
        (vec!["udp", "tcp"], false, 2),
        (vec!["tcp"], false, 2),
        (vec!["udp", "tcp"], true, 1),
        (vec!["udp", "tcp"], false, 2),
    ] {
        let alice = world.join(entry("alice"));
        assert_eq!(led(&mut world, alice), expected);
        world.after_ms(80_000);
        fail(&mut world, alice, CloseReason::IceFailed);
    }
    let bob = world.join(entry("bob"));
    assert_eq!(led(&mut world, bob).0, ["udp", "tcp"], "somebody else");
}

#[test]
fn what_is_not_the_ways_fault_changes_nothing() {
    let mut world = world();
    let stays = |world: &mut World, why: &str| {
        let alice = world.join(entry("alice"));
        assert_eq!(led(world, alice), (vec!["udp", "tcp"], false, 2), "{why}");
        alice
    };
    let mut alice = stays(&mut world, "at first");
    for reason in [
        CloseReason::ClosedByPeer,
        CloseReason::FingerprintMismatch,
        CloseReason::Panicked,
    ] {
        fail(&mut world, alice, reason);
        alice = stays(&mut world, "another end");
    }
    // It has worked for long, and fails once.
    world.after_ms(91_000);
    fail(&mut world, alice, CloseReason::IceFailed);
    stays(&mut world, "once");
    // Nothing was heard of her for longer than a ping takes: all of her network is gone.
    world.after_ms(16_000);
    let transports = world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.transport),
        _ => None,
    });
    world.event(Event::TransportClosed {
        transport: *transports.last().unwrap(),
        reason: CloseReason::IceFailed,
    });
    stays(&mut world, "in silence");
}

#[test]
fn a_client_that_says_what_failed_is_led_another_way_on_its_return() {
    for (dual, reason) in [
        (true, ReconnectReason::RrSubscriberFailed),
        (true, ReconnectReason::RrPublisherFailed),
        (false, ReconnectReason::RrPublisherFailed),
    ] {
        let form = |entry: Entry| if dual { entry.dual() } else { entry };
        let mut world = world();
        let before = world.join(form(entry("alice")));
        world.after_ms(5_000);
        world.drop_socket(before);
        let mut back = form(entry("alice"));
        back.parameters.reconnect = true;
        back.parameters.reconnect_reason = reason;
        let alice = world.join(back);
        let (candidates, forced, _) = led(&mut world, alice);
        if dual {
            assert_eq!((candidates, forced), (vec!["tcp"], false), "{reason:?}");
        }
        // Its own offer is answered so, too.
        world.move_sections(before, alice);
        world.offer(alice);
        assert_eq!(led(&mut world, alice).0, ["tcp"], "{reason:?}");
    }
}

#[test]
fn a_client_that_lost_its_socket_only_stays_on_its_way() {
    let mut world = world();
    let alice = world.join(entry("alice").dual());
    world.drop_socket(alice);
    let mut back = entry("alice").dual();
    back.parameters.reconnect = true;
    back.parameters.reconnect_reason = ReconnectReason::RrSignalDisconnected;
    let alice = world.join(back);
    assert_eq!(led(&mut world, alice).0, ["udp", "tcp"]);
}

#[test]
fn a_client_may_ask_for_a_way() {
    for (wanted, expected) in [
        (CandidateProtocol::Tcp, (vec!["tcp"], false, 2)),
        (CandidateProtocol::Tls, (vec!["udp", "tcp"], true, 1)),
        (CandidateProtocol::Udp, (vec!["udp", "tcp"], false, 2)),
    ] {
        let mut world = world();
        let alice = world.join(entry("alice"));
        let scenario = Scenario::SwitchCandidateProtocol(wanted as i32);
        world.send(
            alice,
            Request::Simulate(SimulateScenario {
                scenario: Some(scenario),
            }),
        );
        assert!(
            world.client(alice).leave_received().is_some(),
            "it is asked to come back"
        );
        let alice = world.join(entry("alice"));
        assert_eq!(led(&mut world, alice), expected, "{wanted:?}");
    }
}

#[test]
fn nobody_is_led_where_nothing_is() {
    let mut world = World::with(RoomSettings {
        tcp_fallback: false,
        ..RoomSettings::default()
    });
    for _ in 0..3 {
        let alice = world.join(entry("alice"));
        assert_eq!(led(&mut world, alice).0, ["udp", "tcp"]);
        fail(&mut world, alice, CloseReason::IceFailed);
    }
    // Its signalling is as slow as this: TCP would be worse. And there is no relay.
    let mut world = World::with(RoomSettings {
        tcp_fallback_rtt_threshold: std::time::Duration::from_millis(30),
        ..RoomSettings::default()
    });
    for _ in 0..3 {
        let alice = world.join(entry("alice"));
        assert_eq!(led(&mut world, alice).0, ["udp", "tcp"]);
        fail(&mut world, alice, CloseReason::IceFailed);
    }
}

fn newest_transport(world: &World) -> TransportHandle {
    let transports = world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.transport),
        _ => None,
    });
    *transports.last().expect("a transport")
}

/// Its UDP loses so much that the shard says so, as far away as `udp`; its signalling is `signal` milliseconds away. Whether it
/// is made to come back.
fn loses(world: &mut World, connection: ConnectionHandle, udp: Duration, signal: i64) -> bool {
    world.send(
        connection,
        Request::PingReq(Ping {
            timestamp: 1,
            rtt: signal,
        }),
    );
    let transport = newest_transport(world);
    world.event(Event::TransportLossy { transport, rtt: udp });
    world.client(connection).closed
}

#[test]
fn whoever_loses_much_over_udp_comes_back_over_tcp() {
    let settings = |limit, allowed| RoomSettings {
        tcp_fallback_rtt_threshold: Duration::from_millis(limit),
        udp_unstable_fallback: allowed,
        ..RoomSettings::default()
    };
    let udp = Duration::from_millis(50);
    for dual in [true, false] {
        let form = |entry: Entry| if dual { entry.dual() } else { entry };
        let mut world = World::with(settings(200, true));
        let before = world.join(form(entry("alice")));
        // Long after it has connected: this is no failure of its way.
        world.after_ms(600_000);
        assert!(loses(&mut world, before, udp, 64), "{dual}");
        let mut back = form(entry("alice"));
        back.parameters.reconnect = true;
        back.parameters.reconnect_reason = ReconnectReason::RrSignalDisconnected;
        let alice = world.join(back);
        world.move_sections(before, alice);
        world.offer(alice);
        assert_eq!(led(&mut world, alice).0, ["tcp"], "{dual}");
        // It is the same session, and stays where it was led.
        assert!(!loses(&mut world, alice, udp, 64));
        assert_eq!(world.client(alice).leave_received(), None);
    }
    // Where it is not asked for, without a limit, over a stream that is no nearer than that or than UDP, in silence.
    for (limit, allowed, udp, signal, silence) in [
        (200, false, udp, 40, 0),
        (0, true, udp, 40, 0),
        (30, true, udp, 40, 0),
        (200, true, udp, 65, 0),
        (200, true, Duration::ZERO, 40, 0),
    ] {
        let mut world = World::with(settings(limit, allowed));
        let alice = world.join(entry("alice"));
        world.after_ms(silence);
        assert!(
            !loses(&mut world, alice, udp, signal),
            "{limit} {allowed} {udp:?} {signal}"
        );
        assert_eq!(led(&mut world, alice).0, ["udp", "tcp"]);
    }
    let mut world = World::with(settings(200, true));
    let alice = world.join(entry("alice"));
    world.after_ms(16_000);
    let transport = newest_transport(&world);
    world.event(Event::TransportLossy { transport, rtt: udp });
    assert!(!world.client(alice).closed, "its whole network is away");
}

/// The outside has told its address late: whoever comes is told it, and whoever is there with the next description.
#[test]
fn addresses_that_become_known_are_told_in_a_room_that_exists() {
    let mut world = World::new();
    let before = world.join(entry("alice"));
    let fresh = |address: &str| vec![address.parse().expect("an address")];
    world.room.replace_addresses(
        MediaAddresses {
            udp: fresh("203.0.113.7:7882"),
            tcp: fresh("203.0.113.7:7881"),
        },
        vec![IceServerSource::Fixed(IceServer {
            urls: vec!["turn:203.0.113.7:3478?transport=udp".to_owned()],
            ..Default::default()
        })],
    );
    let bob = world.join(entry("bob"));
    let mut back = entry("alice");
    back.parameters.reconnect = true;
    world.drop_socket(before);
    let alice = world.join(back);
    world.move_sections(before, alice);
    world.offer(alice);
    for who in [bob, alice] {
        let (mut told, mut servers) = (Vec::new(), Vec::new());
        for message in world.client(who).told() {
            match message {
                Message::Answer(description) | Message::Offer(description) => {
                    let candidates = description.sdp.lines().filter(|line| line.starts_with("a=candidate:"));
                    told = candidates.map(|line| line.contains(" 203.0.113.7 788")).collect();
                }
                Message::Join(join) => servers = join.ice_servers,
                Message::Reconnect(reconnect) => servers = reconnect.ice_servers,
                _ => {}
            }
        }
        assert_eq!(told, [true, true]);
        assert_eq!(servers[0].urls, ["turn:203.0.113.7:3478?transport=udp"]);
    }
}
