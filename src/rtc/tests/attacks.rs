//! What somebody else does to a call: he races with ClientHellos, forges the client's address, replays what he has heard.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::raw::first_flight;
use super::str0m::{ready, world};
use super::*;

const STRANGER: &str = "10.9.9.9:9999";
/// The client's own address, another port: behind the same NAT.
const NEIGHBOUR: &str = "10.0.0.2:5001";

/// DTLS 1.2 records (RFC 6347 §4.1) as anybody can write them.
fn record(kind: u8, epoch: u16, sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 254, 253];
    record.extend(epoch.to_be_bytes());
    record.extend([0, 0, 0, 0, 0, sequence]);
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

/// What becomes of a datagram from that address.
fn give(world: &mut World<super::str0m::Str0m>, from: &str, datagram: &[u8]) -> Result<(), DropReason> {
    let mut datagram = datagram.to_vec();
    let given = world
        .transport
        .handle_datagram(world.now, path(SERVER, from), &mut datagram);
    given.map(|_| ())
}

fn is_connected(world: &World<super::str0m::Str0m>) -> bool {
    let connected = |event: &TransportEvent| matches!(event, TransportEvent::Connected { .. });
    world.events.iter().any(connected)
}

/// One packet each way, and no end of the transport.
fn goes_on(world: &mut World<super::str0m::Str0m>, from: u64) {
    let before = world.rtp.len();
    for sequence in from..from + 5 {
        let now = world.now;
        world.peer.write_rtp(now, sequence, &[sequence as u8; 50]);
    }
    world.until("media", Duration::from_secs(5), |world| world.rtp.len() >= before + 5);
    assert_eq!(world.closed(), None);
}

/// Enable Security 2024: whoever is first with a ClientHello gets the answer, and the call fails. Here only a 5-tuple with a
/// checked path is heard.
#[test]
fn a_client_hello_race_is_lost_by_the_attacker() {
    let hello = first_flight(Instant::now());
    for _ in 0..100 {
        let mut world = world(config(true, SERVER), DtlsRole::Passive);
        let mut sent = 0;
        world.until("connected", Duration::from_secs(5), |world| {
            for from in [STRANGER, NEIGHBOUR] {
                for hello in hello.iter().cycle().take(100) {
                    assert_eq!(give(world, from, hello), Err(DropReason::IceUnverified));
                    sent += 1;
                }
            }
            is_connected(world)
        });
        assert!(sent >= 1000, "{sent} while it connected");
        assert!(world.elapsed() < Duration::from_millis(400), "{:?}", world.elapsed());
    }
}

#[test]
fn forged_records_from_the_clients_own_address_end_nothing() {
    let mut forged: Vec<Vec<u8>> = vec![
        record(22, 0, 9, &[]),
        record(22, 0, 9, &[0xff; 40]),
        record(22, 0, 9, &[1, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]),
        record(20, 0, 9, &[7]),
        record(23, 0, 9, b"in the clear"),
        record(23, 1, 9, &[0; 60]),
        record(63, 0, 9, &[0; 20]),
        vec![22],
        vec![22, 254, 253, 0, 0],
    ];
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    world.until("connected", Duration::from_secs(10), |world| {
        // As soon as the address may speak at all.
        if world.transport.path().is_some() {
            for forged in &forged {
                let _ = give(world, CLIENT, forged);
            }
        }
        assert_eq!(world.closed(), None);
        is_connected(world)
    });
    goes_on(&mut world, 10);
    // A fatal alert in the clear, and a second ClientHello: the association has keys, nothing without them counts.
    forged.push(record(21, 0, 9, &[2, 40]));
    forged.push(record(21, 0, 9, &[1, 0]));
    forged.extend(first_flight(world.now));
    for _ in 0..20 {
        for forged in &forged {
            let _ = give(&mut world, CLIENT, forged);
        }
        world.run_for(Duration::from_millis(20));
    }
    goes_on(&mut world, 40);
}

#[test]
fn media_from_elsewhere_and_media_once_more_are_refused() {
    let mut world = world(config(true, SERVER), DtlsRole::Passive);
    let heard = Rc::new(RefCell::new(Vec::new()));
    let tape = Rc::clone(&heard);
    world.link = Box::new(move |packet| {
        if packet.to_server && packet.datagram[0] >= 128 {
            tape.borrow_mut().push(packet.datagram.clone());
        }
        true
    });
    world.connected();
    ready(&mut world);
    goes_on(&mut world, 10);
    world.run_for(Duration::from_secs(3)); // reports too
    let heard = heard.borrow().clone();
    assert!(heard.len() >= 5, "{} packets", heard.len());
    let before = world.rtp.len();
    for packet in &heard {
        assert_eq!(give(&mut world, STRANGER, packet), Err(DropReason::IceUnverified));
        assert_eq!(give(&mut world, NEIGHBOUR, packet), Err(DropReason::IceUnverified));
        assert_eq!(give(&mut world, CLIENT, packet), Err(DropReason::Replayed));
        // A bit of it changed.
        let mut changed = packet.clone();
        changed[12] ^= 1;
        assert!(give(&mut world, CLIENT, &changed).is_err());
    }
    assert_eq!(world.rtp.len(), before);
    world.link = Box::new(|_| true);
    goes_on(&mut world, 40);
}
