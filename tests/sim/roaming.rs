//! Clients whose network changes or goes away, with the timers that str0m has by itself.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::{
    call::Call,
    impairment::Conditions,
    peer::Incoming,
    seeds::{Figure, at_least, at_most, ms, over_seeds},
    world::World,
};

/// 10 Mbit/s and 60 ms of round trip.
const WIDE: Conditions = Conditions {
    rate: Some(10_000_000),
    delay: Duration::from_millis(30),
    ..Conditions::CLEAN
};

/// What is the server's of the time without a picture: from the first check that reaches it to the first packet of media.
const SHARE: f64 = 300.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Viewer,
    Publisher,
}

/// How long there was no picture, counted from the beginning of an interval to the end of its longest gap.
fn back(incoming: &Incoming, interval: Range<Instant>) -> Duration {
    let (gap, began) = incoming.receiver.longest_gap(interval.clone());
    began + gap - interval.start
}

/// From the first check of a peer from `since` on to the first packet of media that the server sends to where it is.
fn share(world: &World, peer: usize, since: Instant) -> Duration {
    let check = world.links[peer].checks.iter().find(|at| **at >= since);
    let check = *check.expect("a check");
    let media = world.sent[peer].iter().find(|sent| sent.at >= since);
    media.map_or(Duration::MAX, |sent| sent.at.saturating_duration_since(check))
}

fn roams(story: &str, who: Who, at_most_ms: f64, change: fn(&mut World, usize)) {
    over_seeds(&format!("{story}, the {who:?}"), |seed| {
        let mut call = Call::new(seed, 1, WIDE);
        call.world.set_link(call.cameras[0].publisher, WIDE);
        call.run(5.0);
        let mut figures = Vec::new();
        let (mut away, mut shares) = (Duration::ZERO, Duration::ZERO);
        // At every phase of the peer's own timers.
        for step in 0..8 {
            call.run(4.0 + f64::from(step) * 0.4);
            let peer = match who {
                Who::Viewer => call.viewer,
                Who::Publisher => call.cameras[0].publisher,
            };
            let since = call.now();
            change(&mut call.world, peer);
            call.run(6.0);
            away = away.max(back(call.received(0), since..call.now()));
            if who == Who::Viewer {
                shares = shares.max(share(&call.world, peer, since));
            }
        }
        figures.push(at_most("picture back, ms", ms(away), at_most_ms));
        figures.push(at_most("of that the server's, ms", ms(shares), SHARE));
        figures
    });
}

/// The peer checks the new way at once, with no word to anybody.
#[test]
fn another_network_for_who_watches() {
    roams("another network", Who::Viewer, 1_500.0, World::change_network);
}

#[test]
fn another_network_for_who_publishes() {
    roams("another network", Who::Publisher, 1_500.0, World::change_network);
}

/// Nobody knows of it before the peer's next check, which str0m makes every three seconds.
#[test]
fn a_translator_that_forgets_who_watches() {
    roams("a translator that forgets", Who::Viewer, 3_300.0, World::rebind);
}

#[test]
fn a_translator_that_forgets_who_publishes() {
    // And then a key frame, which is asked for at most twice a second: those asked for meanwhile did not arrive.
    roams(
        "a translator that forgets",
        Who::Publisher,
        3_300.0 + 1_000.0,
        World::rebind,
    );
}

/// Longer than consent lasts: nothing is sent meanwhile, and the session is the same one afterwards.
#[test]
fn eighteen_seconds_without_a_network() {
    over_seeds("18 s without a network", |seed| {
        let mut call = Call::new(seed, 1, WIDE);
        call.run(5.0);
        let away = Conditions { up: false, ..WIDE };
        call.world.set_link(call.viewer, away);
        call.run(18.0);
        call.world.set_link(call.viewer, WIDE);
        let back = call.now();
        call.run(8.0);
        // A peer checks its path every 3 s at the slowest; then a key frame is on its way.
        let picture = call.until(0, back, |_| true);
        vec![at_most("picture back, ms", ms(picture), 4_000.0)]
    });
}

/// Longer than str0m goes on checking: its signalling is back with the network, and restarts ICE.
#[test]
fn thirty_seconds_without_a_network() {
    for who in [Who::Viewer, Who::Publisher] {
        over_seeds(&format!("30 s without a network, the {who:?}"), |seed| {
            let mut world = World::signalled(seed);
            let alice = world.enter("alice");
            world.enter_camera(alice);
            let bob = world.enter("bob");
            world.run(Duration::from_secs(3));
            let (client, name) = match who {
                Who::Viewer => (bob, "bob"),
                Who::Publisher => (alice, "alice"),
            };
            let peers = [world.client(client).publisher, world.client(client).subscriber];
            let watching = world.client(bob).subscriber;
            let sessions = world.population();
            for peer in peers {
                world.set_link(peer, Conditions { up: false, ..WIDE });
            }
            world.run(Duration::from_secs(30));
            for peer in peers {
                world.set_link(peer, WIDE);
            }
            let since = world.now;
            world.come_back(client, name);
            world.run(Duration::from_secs(6));
            if std::env::var_os("SIM_TRACE").is_some() {
                trace(&world, since, (alice, bob), watching);
            }
            let pictures = world.peers[watching].incoming.values();
            let picture = pictures.map(|incoming| back(incoming, since..world.now)).min();
            let picture = picture.expect("something arrived before");
            vec![
                at_most("picture back, ms", ms(picture), 1_500.0),
                same("the same sessions", &sessions, &world.population()),
            ]
        });
    }
}

/// What happened after the network was back.
fn trace(world: &World, since: Instant, (alice, bob): (usize, usize), watching: usize) {
    let after = |at: Instant| ms(at.saturating_duration_since(since));
    for (name, client) in [("alice", alice), ("bob", bob)] {
        for (at, message) in world.client(client).told.iter().filter(|(at, _)| *at >= since) {
            let text: String = format!("{message:?}").chars().take(160).collect();
            println!("{:6.0} {name} is told {text}", after(*at));
        }
    }
    let camera = world.client(alice).publisher;
    for (at, rid) in world.peers[camera]
        .requested_keyframes
        .iter()
        .filter(|(at, _)| *at >= since)
    {
        println!("{:6.0} a key frame of {rid:?} is asked of alice", after(*at));
    }
    for peer in [camera, watching] {
        let checks = world.links[peer].checks.iter().filter(|at| **at >= since);
        println!(
            "checks of {peer}: {:?}",
            checks.map(|at| after(*at) as u64).collect::<Vec<_>>()
        );
    }
    for (at, event) in world.events.iter().filter(|(at, _)| *at >= since) {
        let text: String = format!("{event:?}").chars().take(160).collect();
        println!("{:6.0} {text}", after(*at));
    }
    for (ssrc, incoming) in &world.peers[watching].incoming {
        let packets = incoming.packets.iter().filter(|packet| packet.at >= since).take(3);
        let shown = incoming.receiver.shown.iter().filter(|shown| shown.at >= since).take(3);
        println!(
            "{ssrc}: packets at {:?}, shown at {:?}",
            packets.map(|packet| after(packet.at) as u64).collect::<Vec<_>>(),
            shown.map(|shown| after(shown.at) as u64).collect::<Vec<_>>()
        );
    }
}

fn same(name: &str, before: &[String], now: &[String]) -> Figure {
    at_least(name, f64::from(u8::from(before == now)), 1.0)
}
