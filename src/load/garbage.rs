//! A flood beside the call: what strangers, scanners and attackers send to a media port.
//!
//! Owns sockets that no participant has. Each datagram is of another kind: noise, connectivity checks for nobody, RTP and
//! RTCP without keys, DTLS hellos from where no check came. None of them may cost the server more than looking at it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::MissedTickBehavior;

use super::client::Shared;
use super::failure::Failure;
use crate::io::{IoCounters, Offload, SendBatch, UdpSocket};
use crate::types::{Batch, NetPath, NetProtocol};

/// Sources that the flood seems to come from.
const SOURCES: usize = 16;
const STEP: Duration = Duration::from_millis(1);
/// What one step sends at most: a tester that is late does not make up for it in one go.
const MOST_AT_ONCE: u64 = 1000;
const LONGEST: usize = 1200;

/// Sends `shared.scenario.garbage` datagrams a second to where the call's media comes from, for ever.
pub async fn flood(shared: Rc<Shared>) -> Result<(), Failure> {
    let machine = |error: std::io::Error| Failure::Machine(format!("a socket for garbage: {error}"));
    let mut ticks = tokio::time::interval(STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (local, server) = loop {
        ticks.tick().await;
        let route = shared.sinks.borrow().iter().find_map(|sink| sink.route());
        if let Some(route) = route {
            break route;
        }
    };
    let sockets = (0..SOURCES)
        .map(|_| UdpSocket::bind(SocketAddr::new(local, 0), Offload::NONE).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()
        .map_err(machine)?;
    let sources: Vec<SocketAddr> = sockets.iter().map(|socket| socket.local()).collect();
    let mut batch = SendBatch::new(sockets, Arc::new(IoCounters::default()));
    let mut random = SmallRng::seed_from_u64(1);
    let rate = shared.scenario.garbage;
    let (mut began, mut sent) = (Instant::now(), 0);
    loop {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        let count = (due - sent).min(MOST_AT_ONCE);
        for number in sent..sent + count {
            // Runs of one source, as one attacker's packets come.
            let local = sources[(number / 8) as usize % SOURCES];
            let path = NetPath {
                local,
                remote: server,
                protocol: NetProtocol::Udp,
            };
            let len = write(&mut random, number, batch.slot());
            batch.commit(path, len);
        }
        batch.flush();
        let mut tally = shared.tally.borrow_mut();
        if tally.measuring {
            tally.garbage += count;
        }
        sent += count;
        if due > sent {
            (began, sent) = (Instant::now(), 0);
        }
    }
}

/// The next one; its length.
fn write(random: &mut SmallRng, number: u64, out: &mut [u8]) -> usize {
    let len = match number % 8 {
        0 => random.random_range(1..=LONGEST),
        1..=4 => random.random_range(28..=200),
        _ => random.random_range(100..=LONGEST),
    };
    let Some(out) = out.get_mut(..len) else { return 0 };
    for chunk in out.chunks_mut(8) {
        let noise = random.random::<u64>().to_le_bytes();
        chunk.iter_mut().zip(noise).for_each(|(to, from)| *to = from);
    }
    let start: &[u8] = match number % 8 {
        // A connectivity check for somebody who is not here (RFC 8489 §5, §14.3).
        1 | 2 => &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42],
        // A DTLS 1.2 handshake record.
        3 => &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0],
        4 => &[0x81, 200],
        5 | 6 => &[0x90, 96],
        7 => &[0x80, 111],
        _ => &[],
    };
    out.iter_mut().zip(start).for_each(|(to, from)| *to = *from);
    if matches!(number % 8, 1 | 2) {
        let username = [0, 6, 0, 4, b'a', b'b', b':', b'c'];
        out.iter_mut().skip(20).zip(username).for_each(|(to, from)| *to = from);
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First bytes of RFC 7983 §7.
    #[test]
    fn every_kind_that_a_server_tells_apart_is_in_it() {
        let mut random = SmallRng::seed_from_u64(3);
        let mut buffer = [0; LONGEST];
        let mut starts = Vec::new();
        for number in 0..80 {
            let len = write(&mut random, number, &mut buffer);
            assert!((1..=LONGEST).contains(&len));
            starts.push((buffer[0], buffer[1]));
        }
        for start in [(0, 1), (22, 0xfe), (0x81, 200), (0x90, 96), (0x80, 111)] {
            assert!(starts.contains(&start), "{start:?}");
        }
        assert!(starts.iter().any(|(first, _)| matches!(first, 80..=127 | 192..=255)));
    }
}
