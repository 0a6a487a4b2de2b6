//! Clients of the TURN server over loopback: by datagram, by TCP, and when their shard is another thread.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use super::*;
use crate::turn::tests::client::{Answer, Client, Scheme};
use crate::turn::{OtherPeers, PeerPolicy, Server, ServerConfig};
use crate::types::WallClock;

/// Two echoing shards; the first has the TURN server.
pub(super) struct World {
    pub(super) shards: Vec<(ShardHandle, std::thread::JoinHandle<()>)>,
    pub(super) media: Vec<SocketAddr>,
    pub(super) turn: SocketAddr,
    /// The same over IPv6: media of the first shard, and the server.
    pub(super) media_v6: SocketAddr,
    pub(super) turn_v6: SocketAddr,
    _events: mpsc::Receiver<Event>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::made(false, None).await
    }

    /// The TURN server is at the first shard's media socket.
    pub(super) async fn shared() -> Self {
        Self::made(true, None).await
    }

    /// That peer is elsewhere, and reached by a socket.
    pub(super) async fn with_peer(peer: SocketAddr) -> Self {
        Self::made(false, Some(peer)).await
    }

    async fn made(shares_media: bool, peer: Option<SocketAddr>) -> Self {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let mut shards = Vec::new();
        let mut media = Vec::new();
        let v6 = any_port("[::1]", Offload::ALL);
        let media_v6 = v6.local();
        let mut v6 = Some(v6);
        for _ in 0..2 {
            let socket = any_port("127.0.0.1", Offload::ALL);
            media.push(socket.local());
            let core = |_| Echo::default();
            let thread = ThreadConfig {
                name: thread_of(socket.local()),
                pin: None,
            };
            shards.push(
                ShardThread::spawn(
                    thread,
                    std::iter::once(socket).chain(v6.take()).collect(),
                    sender.clone(),
                    core,
                )
                .unwrap(),
            );
        }
        let socket = (!shares_media).then(|| any_port("127.0.0.1", Offload::ALL));
        let turn = socket.as_ref().map_or(media[0], UdpSocket::local);
        let socket_v6 = (!shares_media).then(|| any_port("[::1]", Offload::ALL));
        let turn_v6 = socket_v6.as_ref().map_or(media_v6, UdpSocket::local);
        let (peers, peer_sockets) = peer.map(|_| peers()).unzip();
        let now = Instant::now();
        let config = ServerConfig {
            realm: "livekit".into(),
            relay_ips: vec![turn.ip(), turn_v6.ip()],
            relay_ports: 30_000..=40_000,
            peers: PeerPolicy {
                // It is known by its address, as media is, but not routed to a shard.
                media: world_peers(&media, media_v6, peer),
                others: peer.map(|_| OtherPeers::default()),
            },
            allocations_per_user: 0,
            secret: [7; 32],
            wall: WallClock::new(now, Duration::from_secs(1_790_000_000)),
        };
        let home = RelayHome {
            sockets: socket.into_iter().chain(socket_v6).collect(),
            shares_media,
            server: TurnServer(Box::new(Server::new(config, Box::new(Scheme), now))),
            routes: vec![
                (media[0], None),
                (media_v6, None),
                (media[1], Some(shards[1].0.clone())),
            ],
            peers,
        };
        let (first, second) = (&shards[0].0, &shards[1].0);
        if let Some(sockets) = peer_sockets {
            tokio::spawn(sockets.serve(first.clone()));
        }
        first.hand_over(Handover::RelayHome(Box::new(home))).await.unwrap();
        first.hand_over(Handover::Admit("alice".into())).await.unwrap();
        second.hand_over(Handover::RelayAt(first.clone())).await.unwrap();
        Self {
            shards,
            media,
            turn,
            media_v6,
            turn_v6,
            _events: events,
        }
    }

    pub(super) fn stop(self) {
        for (shard, thread) in self.shards {
            shard.stop();
            thread.join().unwrap();
        }
    }
}

/// Those of the first two with the port behind their own: coturn's client binds a channel to it too, for RTCP that it never
/// sends.
fn world_peers(media: &[SocketAddr], media_v6: SocketAddr, peer: Option<SocketAddr>) -> Vec<SocketAddr> {
    let known = media.iter().copied().chain([media_v6]).chain(peer);
    let with_next = |address: SocketAddr| [address, SocketAddr::new(address.ip(), address.port().wrapping_add(1))];
    known.flat_map(with_next).collect()
}

/// One client's connection to the server.
pub(super) trait Wire {
    fn send(&mut self, message: &[u8]);
    fn receive(&mut self) -> Vec<u8>;
}

impl Wire for StdSocket {
    fn send(&mut self, message: &[u8]) {
        StdSocket::send(self, message).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let length = self.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }
}

/// A stream.
pub(super) struct Framed<S>(pub(super) S);

impl<S: Read + Write> Wire for Framed<S> {
    /// A byte at a time.
    fn send(&mut self, message: &[u8]) {
        for byte in message {
            self.0.write_all(&[*byte]).unwrap();
            self.0.flush().unwrap();
        }
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut frame = vec![0; 4];
        self.0.read_exact(&mut frame).unwrap();
        let length = crate::turn::frame_length(&frame).unwrap().unwrap();
        frame.resize(length, 0);
        self.0.read_exact(&mut frame[4..]).unwrap();
        frame
    }
}

fn ask(wire: &mut impl Wire, client: &mut Client, method: u16, attributes: &[(u16, Vec<u8>)]) -> Answer {
    let message = client.message(method, attributes);
    wire.send(&message);
    client.read(&wire.receive())
}

/// Allocates, binds a channel to each shard and has `count` packets echoed on each.
pub(super) fn call(wire: &mut impl Wire, media: &[SocketAddr], count: usize, padded: bool) {
    let mut client = Client::new("alice", 1);
    let udp = [(0x19, vec![17, 0, 0, 0])];
    assert_eq!(ask(wire, &mut client, 0x003, &udp), Answer::Error(401));
    assert!(ask(wire, &mut client, 0x003, &udp).is_success());
    for (number, peer) in (0x4000u16..).zip(media) {
        let peer = client.peer(*peer);
        let number = [&number.to_be_bytes()[..], &[0, 0]].concat();
        assert!(ask(wire, &mut client, 0x009, &[(0x0c, number), peer]).is_success());
    }
    for (number, _) in (0x4000u16..).zip(media) {
        for length in (0..count).map(|index| 1 + 171 * index % 1200) {
            let mut message = [
                &number.to_be_bytes()[..],
                &(length as u16).to_be_bytes(),
                &vec![7; length],
            ]
            .concat();
            if padded {
                message.resize(4 + length.next_multiple_of(4), 0);
            }
            wire.send(&message);
            assert_eq!(wire.receive(), message, "{length} bytes");
        }
    }
}

#[tokio::test]
async fn a_relayed_datagram_reaches_its_shard_and_the_answer_its_client() {
    let world = World::new().await;
    let mut socket = client("127.0.0.1:0");
    socket.connect(world.turn).unwrap();
    call(&mut socket, &world.media, 20, false);
    let (home, other) = (world.shards[0].0.clone(), world.shards[1].0.clone());
    // A hand-over is counted behind it: the last answer may be here before its count.
    world.stop();
    let (home, other) = (home.counters(), other.counters());
    assert_eq!((home.relayed_in, home.relayed_across), (40, 20));
    assert_eq!((other.relayed_out, other.relayed_across), (20, 20));
    assert_eq!(other.datagrams_received, 0, "by hand, not by socket");
}

/// What a relayed packet costs its shard beside a direct one, with a core that does nothing but send back: the figures are
/// for the reader (`--nocapture`), a test cannot judge time.
#[tokio::test]
async fn the_price_of_the_relay() {
    const BURST: usize = 32;
    const BURSTS: usize = 300;
    const PAYLOAD: usize = 1000;
    let world = World::shared().await;
    let mut socket = client("127.0.0.1:0");
    socket.connect(world.turn).unwrap();
    call(&mut socket, &world.media[..1], 1, false);
    let direct = vec![0x80; PAYLOAD];
    let relayed = [&0x4000u16.to_be_bytes()[..], &(PAYLOAD as u16).to_be_bytes(), &direct].concat();
    let thread = thread_of(world.media[0]);
    let cost = |packet: &[u8]| {
        let before = cpu_nanos(&thread);
        let mut buffer = [0; 2048];
        for _ in 0..BURSTS {
            (0..BURST).for_each(|_| assert_eq!(StdSocket::send(&socket, packet).unwrap(), packet.len()));
            (0..BURST).for_each(|_| assert_eq!(socket.recv(&mut buffer).unwrap(), packet.len()));
        }
        (cpu_nanos(&thread) - before) / (BURST * BURSTS) as u64
    };
    let (first, second) = (cost(&direct), cost(&relayed));
    let (third, fourth) = (cost(&direct), cost(&relayed));
    let (direct, relayed) = (first.min(third), second.min(fourth));
    let ratio = relayed as f64 / direct.max(1) as f64;
    println!("a packet there and back: direct {direct} ns, relayed {relayed} ns, {ratio:.2} times");
    world.stop();
}

/// The name of the thread of the shard at this address, of which a test finds its own by.
fn thread_of(address: SocketAddr) -> String {
    format!("echo-{}", address.port())
}

/// Time on a processor of this process's threads of that name.
fn cpu_nanos(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let named = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
    let spent = named.filter_map(|task| {
        let text = std::fs::read_to_string(task.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    spent.sum()
}

#[tokio::test]
async fn turn_over_tcp_a_byte_at_a_time() {
    let world = World::new().await;
    let (mut stream, door) = connect_through_door(Framing::Turn, vec![world.shards[0].0.clone()]).await;
    let media = world.media.clone();
    let mut stream = tokio::task::spawn_blocking(move || {
        call(&mut Framed(&mut stream), &media, 20, true);
        stream
    })
    .await
    .unwrap();
    // Garbage ends it.
    stream.write_all(&[0xff; 8]).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    drop(door);
    world.stop();
}

#[tokio::test]
async fn media_over_tcp_in_frames_of_any_cut() {
    let world = World::new().await;
    let shards = world.shards.iter().map(|(shard, _)| shard.clone()).collect();
    let (mut stream, door) = connect_through_door(Framing::Media, shards).await;
    tokio::task::spawn_blocking(move || {
        // A connectivity check first, then anything: all in one write, and byte by byte.
        let check = check("abcd:efgh");
        let messages: Vec<Vec<u8>> = [check, vec![0x80; 1500], vec![0x80; 12], vec![20; 3]].to_vec();
        let frames: Vec<u8> = messages
            .iter()
            .flat_map(|message| [&(message.len() as u16).to_be_bytes()[..], message, &[0, 0]].concat())
            .collect();
        stream.write_all(&frames).unwrap();
        for byte in &frames {
            stream.write_all(&[*byte]).unwrap();
        }
        for message in messages.iter().chain(&messages) {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut echo = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(echo, *message);
        }
        // Longer than any datagram.
        stream.write_all(&[0x06, 0x00]).unwrap();
        assert_eq!(stream.read(&mut [0; 2]).unwrap(), 0);
    })
    .await
    .unwrap();
    drop(door);
    world.stop();
}

#[tokio::test]
async fn a_connection_that_is_not_media_is_closed_without_a_byte() {
    let world = World::new().await;
    for start in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0, 200],
        &[0, 4, 1, 2, 3, 4],
    ] {
        let shards = vec![world.shards[0].0.clone()];
        let (mut stream, door) = connect_through_door(Framing::Media, shards).await;
        let start = start.to_vec();
        let read = tokio::task::spawn_blocking(move || {
            stream.write_all(&start).unwrap();
            let mut all = Vec::new();
            // A reset is as good: there were bytes nobody has read.
            let _ = stream.read_to_end(&mut all);
            all
        });
        assert_eq!(read.await.unwrap(), b"");
        drop(door);
    }
    assert_eq!(world.shards[0].0.counters().streams_opened, 0);
    world.stop();
}

/// A binding request with this username.
pub(super) fn check(username: &str) -> Vec<u8> {
    let mut message = vec![0, 1, 0, 4 + username.len().next_multiple_of(4) as u8];
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([9; 12]);
    message.extend([0, 6, 0, username.len() as u8]);
    message.extend(username.as_bytes());
    message.resize(message.len().next_multiple_of(4), 0);
    message
}

/// A client's connection, and what keeps the door open.
async fn connect_through_door(
    framing: Framing,
    shards: Vec<ShardHandle>,
) -> (TcpStream, tokio::sync::watch::Sender<bool>) {
    let (address, stopping) = open_door(framing, shards).await;
    let stream = tokio::task::spawn_blocking(move || TcpStream::connect(address).unwrap())
        .await
        .unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_nodelay(true).unwrap();
    (stream, stopping)
}

pub(super) async fn open_door(
    framing: Framing,
    shards: Vec<ShardHandle>,
) -> (SocketAddr, tokio::sync::watch::Sender<bool>) {
    let guests = match framing {
        Framing::Media => Guests {
            media: shards,
            ..Guests::default()
        },
        Framing::Turn => Guests {
            turn: shards.first().cloned(),
            ..Guests::default()
        },
    };
    serve_door(Cover::Plain, guests).await
}

pub(super) async fn serve_door(cover: Cover, guests: Guests) -> (SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stopping, stopped) = tokio::sync::watch::channel(false);
    let door = Door {
        listener,
        cover,
        guests,
    };
    tokio::spawn(door.serve(stopped));
    (address, stopping)
}

/// The batch has room for what a relay puts around the largest datagram.
#[test]
fn the_largest_datagram_can_be_wrapped() {
    let sender = vec![Arc::new(any_port("127.0.0.1", Offload::ALL))];
    let mut batch = SendBatch::new(sender, Arc::new(IoCounters::default()));
    let path = NetPath {
        local: "127.0.0.1:1".parse().unwrap(),
        remote: "127.0.0.1:2".parse().unwrap(),
        protocol: NetProtocol::Turn,
    };
    for _ in 0..1000 {
        assert_eq!(batch.slot().len(), crate::types::MAX_DATAGRAM);
        batch.commit(path, crate::types::MAX_DATAGRAM);
    }
}
