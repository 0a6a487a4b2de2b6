//! What somebody who has shown nothing gets out of the server's UDP ports: no more bytes than they are worth to whoever forges
//! a source address.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use serde_json::json;

use crate::process::Process;

/// Datagrams of each kind: enough to be past every first exception.
const EACH: usize = 200;
/// Until it is certain that there is no answer; the server is idle and on this machine.
const QUIET: Duration = Duration::from_millis(300);

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A STUN message: type, attributes.
fn stun(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = kind.to_be_bytes().to_vec();
    message.extend((body.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([7; 12]);
    message.extend(body);
    message
}

/// A connectivity check for a transport that nobody has.
fn check(username: &str) -> Vec<u8> {
    stun(
        0x0001,
        &[
            (0x0006, username.as_bytes()),
            (0x0024, &[0x6e, 0, 0, 1]),
            (0x802a, &[9; 8]),
            (0x0008, &[5; 20]),
        ],
    )
}

/// DTLS 1.2, the first record of a handshake (RFC 6347 §4.1 and §4.2).
fn client_hello() -> Vec<u8> {
    let mut hello = vec![
        22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 212, 1, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 200, 254, 253,
    ];
    hello.resize(13 + 212, 3);
    hello
}

/// How many bytes came back for those that were sent.
fn spend(server: SocketAddr, questions: &[Vec<u8>]) -> (usize, usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(QUIET)).unwrap();
    let (mut sent, mut received) = (0, 0);
    let mut buffer = [0; 2048];
    for _ in 0..EACH {
        for question in questions {
            sent += socket.send_to(question, server).unwrap();
        }
    }
    while let Ok(length) = socket.recv(&mut buffer) {
        received += length;
    }
    (sent, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing_from_media_and_little_from_the_relay() {
    let (media, turn, single) = (free_port(), free_port(), free_port());
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let _server = Process::start(json!({
        "rtc": { "udp_port": media, "tcp_port": 0, "node_ip": "127.0.0.1" },
        "turn": { "enabled": true, "udp_port": turn, "bind_addresses": ["127.0.0.1"] },
    }))
    .await;
    let strangers = [
        check("abcd:efgh"),
        check(":"),
        stun(0x0001, &[]),
        stun(0x0101, &[]),
        stun(0x0003, &[(0x19, &[17, 0, 0, 0])]),
        client_hello(),
        vec![0x80; 200],
        [&[0x80, 200][..], &[0; 60]].concat(),
        vec![0x40, 0, 0, 4, 1, 2, 3, 4],
        vec![0xff; 1200],
        vec![0],
    ];
    for stranger in &strangers {
        let (sent, received) = spend(at(media), std::slice::from_ref(stranger));
        assert_eq!(
            received,
            0,
            "{received} bytes of media's port for {sent} of {:02x?}",
            &stranger[..stranger.len().min(4)]
        );
    }
    let questions = [
        stun(0x0001, &[]),
        stun(0x0003, &[(0x19, &[17, 0, 0, 0])]),
        stun(0x0003, &[]),
        stun(0x0004, &[]),
        stun(0x0008, &[]),
        stun(0x0009, &[]),
        stun(0x0123, &[]),
        stun(
            0x0003,
            &[(0x06, b"alice"), (0x14, b"livekit"), (0x15, b"x"), (0x08, &[0; 20])],
        ),
    ];
    for question in &questions {
        let (sent, received) = spend(at(turn), std::slice::from_ref(question));
        let factor = received as f64 / sent as f64;
        println!("{:02x?} of {} bytes: {factor:.2} times", &question[..2], question.len());
        assert!(factor <= 3.0, "{factor} times for {:02x?}", &question[..4]);
    }

    // On one port both are asked: what is neither's is answered by neither.
    let _both = Process::start(json!({ "rtc": { "single_port": single, "node_ip": "127.0.0.1" } })).await;
    for question in strangers.iter().chain(&questions) {
        let (sent, received) = spend(at(single), std::slice::from_ref(question));
        let is_turns = matches!(question.get(..2), Some([0, 1 | 3 | 4 | 8 | 9]))
            && !question.windows(4).any(|part| part == b"efgh");
        let limit = if is_turns { 3 * sent } else { 0 };
        assert!(
            received <= limit,
            "{received} bytes for {sent} of {:02x?}",
            &question[..question.len().min(4)]
        );
    }
}
