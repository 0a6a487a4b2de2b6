//! A server behind a translated address whose STUN server is silent at the start: it starts, says so, and is reached from the
//! outside once there is an answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use patchbay::proto::claims::VideoGrant;
use patchbay::proto::livekit::signal_response::Message;
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::client::request;
use crate::process::Process;
use crate::whip::OFFER;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// A STUN server that answers everybody with one address, once it is told to answer.
async fn stun(socket: UdpSocket, mut answers: watch::Receiver<bool>) {
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    let mut buffer = [0; 1500];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        if length < 20 || !*answers.borrow_and_update() {
            continue;
        }
        let xored = u32::from(OUTSIDE) ^ u32::from_be_bytes(COOKIE);
        let mapped = [&[0, 0x20, 0, 8, 0, 1, 0, 0][..], &xored.to_be_bytes()].concat();
        let answer = [&[1, 1, 0, 12][..], &COOKIE, &buffer[8..20], &mapped].concat();
        socket.send_to(&answer, from).await.unwrap();
    }
}

/// What somebody new in a room is told: the answer with the server's candidates, and the URLs of ICE servers.
async fn visit(server: &Process, room: &str) -> (String, Vec<String>) {
    let grant = VideoGrant {
        room_join: true,
        room: room.into(),
        ..VideoGrant::default()
    };
    let authorization = format!("authorization: Bearer {}", server.token("camera", grant));
    let headers = ["content-type: application/sdp", &authorization];
    let answer = request(server.address, "POST", "/whip/v1", &headers, OFFER).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    let mut viewer = server.join("viewer", room).await.unwrap();
    let servers = viewer.until(|message| match message {
        Message::Join(join) => Some(join.ice_servers),
        _ => None,
    });
    let urls = servers.await.into_iter().flat_map(|server| server.urls);
    (answer.body, urls.collect())
}

#[tokio::test]
async fn an_address_that_the_outside_tells_late_is_used() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let known: SocketAddr = socket.local_addr().unwrap();
    let (speak, answers) = watch::channel(false);
    tokio::spawn(stun(socket, answers));
    let [media, turn] = [0; 2].map(|_| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    });
    let mut server = Process::logging(json!({
        "rtc": { "udp_port": media, "tcp_port": 0, "use_external_ip": true, "stun_servers": [known.to_string()] },
        "turn": { "enabled": true, "udp_port": turn },
    }))
    .await;
    let outside = IpAddr::from(OUTSIDE).to_string();
    let relay = format!("turn:{outside}:{turn}?transport=udp");
    let (answer, urls) = visit(&server, "before").await;
    assert!(
        answer.contains("a=candidate:") && !answer.contains(&outside),
        "{answer}"
    );
    assert!(!urls.contains(&relay), "its own addresses are better than none");

    speak.send_replace(true);
    server.logs("rooms and TURN are told").await;
    // In a room of its own, and in that which is there.
    for room in ["after", "before"] {
        let (answer, urls) = visit(&server, room).await;
        assert!(
            answer.contains(&format!(" {outside} {media} typ host")),
            "{room}: {answer}"
        );
        assert!(urls.contains(&relay), "{room}: {urls:?}");
    }
}
