//! The sockets and the thread over loopback. Readiness comes from blocking reads with a limit, never from sleeping.

use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::counters::IoCounters;
use super::receive::Receiver;
use super::*;
use crate::media::edge::{Command, Event};
use crate::types::{Batch, NetPath, NetProtocol, RoomHandle};

mod coturn;
mod door;
mod relay;
mod streams;

const LIMIT: Duration = Duration::from_secs(5);

/// Sends every datagram back where it came from, and reports every opened room as panicked.
#[derive(Default)]
struct Echo {
    waiting: Vec<(NetPath, Vec<u8>)>,
    events: Vec<Event>,
}

impl DatagramCore for Echo {
    fn handle_command(&mut self, _now: Instant, command: Command) {
        if let Command::OpenRoom { room, .. } = command {
            self.events.push(Event::RoomPanicked { room });
        }
    }

    fn handle_datagram(&mut self, _now: Instant, path: NetPath, datagram: &mut [u8]) {
        self.waiting.push((path, datagram.to_vec()));
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_transmit(&mut self, _now: Instant, batch: &mut SendBatch) {
        for (path, bytes) in self.waiting.drain(..) {
            batch.slot()[..bytes.len()].copy_from_slice(&bytes);
            batch.commit(path, bytes.len());
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

fn client(address: &str) -> StdSocket {
    let socket = StdSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn any_port(address: &str, offload: Offload) -> UdpSocket {
    UdpSocket::bind(format!("{address}:0").parse().unwrap(), offload).unwrap()
}

fn echo_thread(offload: Offload) -> (ShardHandle, std::thread::JoinHandle<()>, u16, mpsc::Receiver<Event>) {
    let socket = any_port("0.0.0.0", offload);
    let port = socket.local().port();
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    let (handle, thread) =
        ShardThread::spawn(ThreadConfig::default(), vec![socket], sender, |_| Echo::default()).unwrap();
    (handle, thread, port, events)
}

#[test]
fn a_reply_leaves_from_the_address_that_was_asked() {
    for offload in [Offload::ALL, Offload::NONE] {
        let (handle, thread, port, _events) = echo_thread(offload);
        let client = client("127.0.0.1:0");
        for address in ["127.0.0.1", "127.0.0.2", "127.1.2.3"] {
            let server: SocketAddr = format!("{address}:{port}").parse().unwrap();
            client.send_to(b"hello", server).unwrap();
            let mut buffer = [0; 64];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (&b"hello"[..], server));
        }
        handle.stop();
        thread.join().unwrap();
        assert_eq!(handle.counters().datagrams_sent, 3);
    }
}

#[test]
fn a_reply_over_ipv6_leaves_from_the_address_that_was_asked() {
    let Ok(socket) = UdpSocket::bind("[::]:0".parse().unwrap(), Offload::ALL) else {
        return; // a machine without IPv6
    };
    let port = socket.local().port();
    let (sender, _events) = mpsc::channel(EVENT_QUEUE);
    let (handle, thread) =
        ShardThread::spawn(ThreadConfig::default(), vec![socket], sender, |_| Echo::default()).unwrap();
    let Ok(client) = StdSocket::bind("[::1]:0") else {
        return;
    };
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let server: SocketAddr = format!("[::1]:{port}").parse().unwrap();
    client.send_to(b"hello", server).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"hello"[..], server));
    handle.stop();
    thread.join().unwrap();
}

/// Sends `sizes` in one batch and returns what a receiver with `receive` offload hands out, and the sender's counters.
fn exchange(send: Offload, receive: Offload, sizes: &[usize]) -> (Vec<Vec<u8>>, IoSnapshot, IoSnapshot) {
    let sender = vec![Arc::new(any_port("127.0.0.1", send))];
    let receiver = any_port("127.0.0.1", receive);
    let counters = Arc::new(IoCounters::default());
    let mut batch = SendBatch::new(sender.clone(), Arc::clone(&counters));
    let path = NetPath {
        local: sender[0].local(),
        remote: receiver.local(),
        protocol: NetProtocol::Udp,
    };
    for (index, size) in sizes.iter().enumerate() {
        batch.slot()[..*size].fill(index as u8);
        batch.commit(path, *size);
    }
    batch.flush();

    // Loopback delivers within the send call: everything is in the socket by now.
    let received_counters = IoCounters::default();
    let mut got = Vec::new();
    let mut arena = Receiver::new();
    loop {
        let received = arena
            .receive(&receiver, &received_counters, |_, from, datagram| {
                assert_eq!(from.remote, path.local);
                assert_eq!(from.local, path.remote);
                got.push(datagram.to_vec());
            })
            .unwrap();
        if received.datagrams == 0 {
            break;
        }
    }
    (got, counters.snapshot(), received_counters.snapshot())
}

fn expected(sizes: &[usize]) -> Vec<Vec<u8>> {
    sizes
        .iter()
        .enumerate()
        .map(|(index, size)| vec![index as u8; *size])
        .collect()
}

#[test]
fn a_group_leaves_as_one_message_and_arrives_as_single_datagrams() {
    let sizes = [1100, 1100, 1100, 700];
    let (got, sent, received) = exchange(Offload::ALL, Offload::ALL, &sizes);
    assert_eq!(got, expected(&sizes));
    assert_eq!(
        (sent.messages_sent, sent.datagrams_sent, sent.datagrams_grouped),
        (1, 4, 4)
    );
    assert_eq!((received.messages_received, received.datagrams_received), (1, 4));
}

#[test]
fn a_shorter_datagram_ends_its_group_and_a_longer_one_starts_another() {
    let sizes = [500, 400, 400, 900, 900];
    let (got, sent, _) = exchange(Offload::ALL, Offload::ALL, &sizes);
    assert_eq!(got, expected(&sizes));
    assert_eq!((sent.messages_sent, sent.datagrams_sent), (3, 5));
}

#[test]
fn without_offload_every_datagram_is_a_message() {
    let sizes = [1100; 40];
    let (got, sent, received) = exchange(Offload::NONE, Offload::NONE, &sizes);
    assert_eq!(got, expected(&sizes));
    assert_eq!((sent.messages_sent, sent.datagrams_sent), (40, 40));
    assert_eq!((received.messages_received, received.datagrams_received), (40, 40));
}

#[test]
fn a_receiver_without_gro_takes_a_group_apart_too() {
    let sizes = [800; 10];
    let (got, sent, received) = exchange(Offload::ALL, Offload::NONE, &sizes);
    assert_eq!(got, expected(&sizes));
    assert_eq!(sent.messages_sent, 1);
    assert_eq!(received.messages_received, 10);
}

#[test]
fn a_full_batch_sends_itself() {
    // Three times the arena; several groups of 64 segments.
    let sizes = [1200; 700];
    let (got, sent, _) = exchange(Offload::ALL, Offload::ALL, &sizes);
    assert_eq!(got.len(), 700);
    assert_eq!((sent.datagrams_sent, sent.send_dropped), (700, 0));
    assert!(sent.messages_sent >= 700_u64.div_ceil(64));
}

/// Twenty groups of four over a socket that `prepare` has made refuse them; all have to arrive, one by one.
fn refused(prepare: impl FnOnce(&UdpSocket, &mut SendBatch)) -> IoSnapshot {
    let sender = Arc::new(any_port("127.0.0.1", Offload::ALL));
    let receiver = any_port("127.0.0.1", Offload::NONE);
    let counters = Arc::new(IoCounters::default());
    let mut batch = SendBatch::new(vec![Arc::clone(&sender)], Arc::clone(&counters));
    prepare(&sender, &mut batch);
    let path = NetPath {
        local: sender.local(),
        remote: receiver.local(),
        protocol: NetProtocol::Udp,
    };
    for _ in 0..20 {
        for _ in 0..4 {
            batch.slot()[..500].fill(7);
            batch.commit(path, 500);
        }
        batch.flush();
    }
    let mut got = 0;
    let mut arena = DatagramBatch::default();
    while arena
        .receive(&receiver, |_, _, datagram| {
            assert_eq!(datagram, [7; 500]);
            got += 1;
        })
        .unwrap()
    {}
    let counters = counters.snapshot();
    assert_eq!((got, counters.datagrams_sent, counters.send_dropped), (80, 80, 0));
    counters
}

#[test]
fn a_device_that_does_not_segment_is_asked_once() {
    let counters = refused(|_, batch| batch.refusal = Some(libc::EIO));
    assert_eq!((counters.groups_split, counters.messages_sent), (1, 80));
    assert_eq!(counters.datagrams_grouped, 0);
}

#[test]
fn a_kernel_that_refuses_every_group_is_not_asked_for_ever() {
    // Without checksums the kernel segments nothing (udp_send_skb: EINVAL).
    let counters = refused(|socket, _| {
        sys::set_option(socket.fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    });
    assert_eq!((counters.groups_split, counters.messages_sent), (16, 80));
}

#[test]
fn what_no_socket_can_send_is_counted() {
    let sockets = vec![Arc::new(any_port("127.0.0.1", Offload::ALL))];
    let counters = Arc::new(IoCounters::default());
    let mut batch = SendBatch::new(sockets.clone(), Arc::clone(&counters));
    let path = NetPath {
        local: "127.0.0.9:9".parse().unwrap(),
        remote: sockets[0].local(),
        protocol: NetProtocol::Udp,
    };
    batch.slot();
    batch.commit(path, 100);
    // The broadcast address is refused without SO_BROADCAST; its neighbour in the batch still leaves.
    for remote in ["255.255.255.255:9".parse().unwrap(), sockets[0].local()] {
        batch.slot();
        batch.commit(
            NetPath {
                local: sockets[0].local(),
                remote,
                protocol: NetProtocol::Udp,
            },
            100,
        );
    }
    batch.flush();
    let counters = counters.snapshot();
    assert_eq!((counters.send_dropped, counters.datagrams_sent), (2, 1));
}

#[test]
fn a_command_wakes_an_idle_thread_and_its_event_comes_back() {
    let (handle, thread, _, mut events) = echo_thread(Offload::ALL);
    for number in 1..=100 {
        let room = RoomHandle(number);
        let open = Command::OpenRoom {
            room,
            sif_trailer: Vec::new(),
            audio_last_n: 0,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            handle.send(open).await.unwrap();
            let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap();
            assert!(matches!(event, Some(Event::RoomPanicked { room }) if room == RoomHandle(number)));
        });
    }
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn edges_survive_a_full_event_queue() {
    let socket = any_port("127.0.0.1", Offload::ALL);
    let (sender, mut events) = mpsc::channel(1);
    let (handle, thread) =
        ShardThread::spawn(ThreadConfig::default(), vec![socket], sender, |_| Echo::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        for number in 0..50 {
            let open = Command::OpenRoom {
                room: RoomHandle(number),
                sif_trailer: Vec::new(),
                audio_last_n: 0,
            };
            handle.send(open).await.unwrap();
        }
        let mut rooms = Vec::new();
        while rooms.len() < 50 {
            match tokio::time::timeout(LIMIT, events.recv()).await.unwrap() {
                Some(Event::RoomPanicked { room }) => rooms.push(room.0),
                other => panic!("{other:?}"),
            }
        }
        rooms.sort_unstable();
        assert_eq!(rooms, (0..50).collect::<Vec<_>>());
    });
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn loopback_is_the_last_of_the_local_addresses() {
    let loopback: Vec<bool> = local_addresses()
        .unwrap()
        .iter()
        .map(|address| address.ip.is_loopback())
        .collect();
    assert!(loopback.contains(&true));
    assert!(loopback.is_sorted());
}
