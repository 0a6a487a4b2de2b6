//! Data between two clients over real ICE, DTLS and SCTP, in virtual time without a network.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use prost::Message;

use crate::media::edge::{Command, DataParticipant, DataRights, Event, MoveTransport, OpenTransport, Reception};
use crate::media::{Shard, ShardConfig};
use crate::proto::livekit::{DataPacket, UserPacket, data_packet};
use crate::rtc::{ChannelId, DtlsIdentity, SendDataError, Transport, TransportConfig, TransportEvent};
use crate::types::{
    Batch, ChannelLabel, CloseReason, DataTrackHandle, DropReason, DtlsRole, IceCredentials, MAX_DATAGRAM, NetPath,
    NetProtocol, ParticipantHandle, RemoteParameters, RoomHandle, TransportHandle, WallClock,
};

const ROOM: RoomHandle = RoomHandle(1);

fn server() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 7882))
}

struct Collected {
    slot: [u8; MAX_DATAGRAM],
    datagrams: Vec<(NetPath, Vec<u8>)>,
}

impl Batch for Collected {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        self.datagrams.push((path, self.slot[..len].to_vec()));
    }
}

struct Client {
    rtc: Transport,
    address: SocketAddr,
    channels: Vec<(ChannelId, ChannelLabel)>,
    got: Vec<(Option<ChannelLabel>, Vec<u8>)>,
    closed: bool,
}

impl Client {
    fn channel(&self, label: ChannelLabel) -> ChannelId {
        self.channels.iter().find(|(_, it)| *it == label).unwrap().0
    }

    /// What was heard on one channel, as a data packet's payload where it is one.
    fn heard(&mut self, label: ChannelLabel) -> Vec<Vec<u8>> {
        let got = std::mem::take(&mut self.got);
        got.into_iter()
            .filter(|(it, _)| *it == Some(label))
            .map(|(_, data)| data)
            .collect()
    }
}

struct World {
    now: Instant,
    shard: Shard,
    clients: Vec<Client>,
    events: Vec<Event>,
}

fn credentials(number: usize) -> IceCredentials {
    IceCredentials {
        ufrag: format!("ufrag{number:04}"),
        pwd: format!("password-of-at-least-22-{number:04}"),
    }
}

impl World {
    /// Clients 1..=n, each connected with its three channels open.
    fn of(clients: usize) -> Self {
        let now = Instant::now();
        let identity = DtlsIdentity::generate().unwrap();
        let wall = WallClock::new(now, Duration::from_secs(1_700_000_000));
        let mut shard = Shard::new(ShardConfig::new(vec![server()], identity.clone(), 7, wall), now);
        shard.handle_command(
            now,
            Command::OpenRoom {
                room: ROOM,
                sif_trailer: Vec::new(),
                audio_last_n: 0,
            },
        );
        let mut world = Self {
            now,
            shard,
            clients: Vec::new(),
            events: Vec::new(),
        };
        for number in 1..=clients {
            world.join(number, &identity);
        }
        world.run(Duration::from_secs(3));
        let open = world
            .events
            .iter()
            .filter(|event| matches!(event, Event::ChannelsOpen { .. }))
            .count();
        assert_eq!(open, clients, "{:?}", world.events);
        world
    }

    fn join(&mut self, number: usize, server_identity: &DtlsIdentity) {
        let (ours, theirs) = (credentials(number), credentials(number + 100));
        let id = number as u64;
        let identity = DtlsIdentity::generate().unwrap();
        let remote = |ice: &IceCredentials, fingerprint, dtls_role| RemoteParameters {
            ice: ice.clone(),
            fingerprint,
            dtls_role,
            sctp_max_message_size: Some(262_144),
            sctp_init: None,
            sped: false,
        };
        self.shard.handle_command(
            self.now,
            Command::SetParticipant(Box::new(DataParticipant {
                room: ROOM,
                participant: ParticipantHandle(id),
                sid: format!("PA_{id}"),
                identity: format!("p{id}"),
                transport: TransportHandle(id),
                rights: DataRights {
                    can_publish_data: true,
                    hidden: false,
                    agent: false,
                    can_receive: true,
                },
            })),
        );
        self.shard.handle_command(
            self.now,
            Command::OpenTransport(Box::new(OpenTransport {
                room: ROOM,
                participant: ParticipantHandle(id),
                transport: TransportHandle(id),
                local: ours.clone(),
                ice_lite: true,
                ice_controlling: false,
                open_channels: Vec::new(),
                reception: Reception::default(),
            })),
        );
        self.shard.handle_command(
            self.now,
            Command::SetRemote {
                transport: TransportHandle(id),
                remote: Box::new(remote(&theirs, identity.fingerprint(), DtlsRole::Active)),
            },
        );
        let address = SocketAddr::from(([10, 0, 1, number as u8], 5000));
        let config = TransportConfig {
            local: theirs,
            ice_lite: false,
            ice_controlling: true,
            local_addresses: vec![address],
            open_channels: vec![ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack],
        };
        let mut rtc = Transport::new(config, &identity, self.now);
        rtc.set_remote(
            self.now,
            &remote(&ours, server_identity.fingerprint(), DtlsRole::Passive),
        );
        rtc.add_remote_candidate(self.now, "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host");
        self.clients.push(Client {
            rtc,
            address,
            channels: Vec::new(),
            got: Vec::new(),
            closed: false,
        });
    }

    /// Lets everything happen that is due within `time`.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let clients = self
                .clients
                .iter_mut()
                .filter(|client| !client.closed)
                .filter_map(|it| it.rtc.poll_timeout());
            let next = clients.chain(self.shard.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next.max(self.now + Duration::from_millis(1));
            self.shard.handle_timeout(self.now);
            for client in &mut self.clients {
                client.rtc.handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    /// Carries datagrams until nobody has any.
    fn exchange(&mut self) {
        for _ in 0..10_000 {
            let mut batch = Collected {
                slot: [0; MAX_DATAGRAM],
                datagrams: Vec::new(),
            };
            self.shard.poll_transmit(self.now, &mut batch);
            while let Some(event) = self.shard.poll_event() {
                self.events.push(event);
            }
            let mut moved = !batch.datagrams.is_empty();
            for (path, mut datagram) in batch.datagrams {
                for client in self.clients.iter_mut().filter(|client| client.address == path.remote) {
                    let path = NetPath {
                        local: path.remote,
                        remote: path.local,
                        protocol: NetProtocol::Udp,
                    };
                    let _ = client.rtc.handle_datagram(self.now, path, &mut datagram);
                }
            }
            for client in &mut self.clients {
                while let Some((path, mut datagram)) = client.rtc.poll_transmit() {
                    moved = true;
                    let path = NetPath {
                        local: path.remote,
                        remote: path.local,
                        protocol: NetProtocol::Udp,
                    };
                    self.shard.handle_datagram(self.now, path, &mut datagram);
                }
                while let Some(event) = client.rtc.poll_event() {
                    match event {
                        TransportEvent::ChannelOpen {
                            channel,
                            label: Some(label),
                        } => client.channels.push((channel, label)),
                        TransportEvent::ChannelData { channel, data, .. } => {
                            let label = client
                                .channels
                                .iter()
                                .find(|(it, _)| *it == channel)
                                .map(|(_, label)| *label);
                            client.got.push((label, data.to_vec()));
                        }
                        TransportEvent::Closed(_) => client.closed = true,
                        _ => {}
                    }
                }
            }
            if !moved {
                return;
            }
        }
        panic!("datagrams without end");
    }

    fn send(&mut self, from: usize, label: ChannelLabel, data: &[u8]) -> Result<(), SendDataError> {
        let client = &mut self.clients[from - 1];
        let channel = client.channel(label);
        client.rtc.send_data(self.now, channel, true, data)
    }
}

fn user(sequence: u32, payload: Vec<u8>) -> Vec<u8> {
    let user = UserPacket {
        payload,
        ..Default::default()
    };
    let packet = DataPacket {
        sequence,
        value: Some(data_packet::Value::User(user)),
        ..Default::default()
    };
    packet.encode_to_vec()
}

fn sequences(packets: &[Vec<u8>]) -> Vec<u32> {
    packets
        .iter()
        .map(|packet| DataPacket::decode(packet.as_slice()).unwrap().sequence)
        .collect()
}

#[test]
fn packets_and_tracks_reach_the_other_client() {
    let mut world = World::of(2);
    world.send(1, ChannelLabel::Reliable, &user(1, vec![1])).unwrap();
    world.send(1, ChannelLabel::Lossy, &user(0, vec![2])).unwrap();
    world.run(Duration::from_millis(200));
    let heard = world.clients[1].got.clone();
    let labels: Vec<_> = heard.iter().filter_map(|(label, _)| *label).collect();
    assert_eq!(labels, [ChannelLabel::Reliable, ChannelLabel::Lossy]);
    let packet = DataPacket::decode(heard[0].1.as_slice()).unwrap();
    assert_eq!(
        (packet.participant_identity.as_str(), packet.participant_sid.as_str()),
        ("p1", "PA_1")
    );
    assert!(world.clients[0].got.is_empty());
    let reported = world
        .events
        .iter()
        .any(|event| matches!(event, Event::DataSequence { sequence: 1, .. }));
    assert!(reported);

    let track = DataTrackHandle(9);
    let (publisher, subscriber) = (ParticipantHandle(1), ParticipantHandle(2));
    for command in [
        Command::PublishDataTrack {
            room: ROOM,
            publisher,
            track,
            publisher_handle: 5,
        },
        Command::SubscribeDataTrack {
            track,
            subscriber,
            subscriber_handle: 0x0102,
        },
        Command::SendData {
            room: ROOM,
            to: vec![subscriber],
            reliable: true,
            packet: user(0, vec![3]),
        },
    ] {
        world.shard.handle_command(world.now, command);
    }
    world.clients[1].got.clear();
    world
        .send(1, ChannelLabel::DataTrack, &[0x18, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 42])
        .unwrap();
    world.run(Duration::from_millis(200));
    let got = std::mem::take(&mut world.clients[1].got);
    assert!(got.contains(&(
        Some(ChannelLabel::DataTrack),
        vec![0x18, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 42]
    )));
    assert!(got.contains(&(Some(ChannelLabel::Reliable), user(0, vec![3]))));
    world
        .shard
        .handle_command(world.now, Command::UnpublishDataTrack { track });
    world
        .shard
        .handle_command(world.now, Command::UnpublishDataTrack { track });
    assert_eq!(world.shard.stats().dropped(DropReason::StaleCommand), 1);
}

/// Far more than all buffers between the two clients hold: nothing is lost, and the sender is held back while the
/// reader does not read.
#[test]
fn packets_go_on_between_those_who_went_to_another_room() {
    let mut world = World::of(3);
    let other = RoomHandle(2);
    world.shard.handle_command(
        world.now,
        Command::OpenRoom {
            room: other,
            sif_trailer: Vec::new(),
            audio_last_n: 0,
        },
    );
    for id in [1, 2] {
        let removed = Command::RemoveParticipant {
            room: ROOM,
            participant: ParticipantHandle(id),
        };
        let moved = Command::MoveTransport(Box::new(MoveTransport {
            from: TransportHandle(id),
            room: other,
            participant: ParticipantHandle(id + 10),
            transport: TransportHandle(id + 10),
            tracks: Vec::new(),
        }));
        let set = Command::SetParticipant(Box::new(DataParticipant {
            room: other,
            participant: ParticipantHandle(id + 10),
            sid: format!("PA_{id}"),
            identity: format!("p{id}"),
            transport: TransportHandle(id + 10),
            rights: DataRights {
                can_publish_data: true,
                hidden: false,
                agent: false,
                can_receive: true,
            },
        }));
        for command in [removed, moved, set] {
            world.shard.handle_command(world.now, command);
        }
    }
    world.send(1, ChannelLabel::Reliable, &user(8, vec![1])).unwrap();
    world.send(2, ChannelLabel::Lossy, &user(0, vec![2])).unwrap();
    world.send(3, ChannelLabel::Reliable, &user(1, vec![3])).unwrap();
    world.run(Duration::from_secs(1));
    let heard = world.clients[1].heard(ChannelLabel::Reliable);
    assert_eq!(sequences(&heard), [8]);
    assert_eq!(world.clients[0].heard(ChannelLabel::Lossy).len(), 1);
    assert!(world.clients[0].heard(ChannelLabel::Reliable).is_empty());
    assert!(world.clients[2].got.is_empty(), "it stays alone");
    assert_eq!(world.shard.stats().dropped(DropReason::StaleCommand), 0);
}

#[test]
fn a_reader_that_pauses_loses_nothing() {
    const PACKET: usize = 10_000;
    const PACKETS: u32 = 150;
    let mut world = World::of(2);
    let reader = world.clients[1].channel(ChannelLabel::Reliable);
    world.clients[1].rtc.set_reading(reader, false);
    let mut sent = 0;
    for _ in 0..40 {
        while sent < PACKETS
            && world
                .send(1, ChannelLabel::Reliable, &user(sent + 1, vec![0; PACKET]))
                .is_ok()
        {
            sent += 1;
        }
        world.run(Duration::from_millis(100));
    }
    // SCTP windows and buffers on both sides and the reader's budget, each at most 128 KiB, and one window of overshoot.
    assert!(sent < 100, "{sent} packets were taken while nobody read");
    world.clients[1].rtc.set_reading(reader, true);
    for _ in 0..200 {
        while sent < PACKETS
            && world
                .send(1, ChannelLabel::Reliable, &user(sent + 1, vec![0; PACKET]))
                .is_ok()
        {
            sent += 1;
        }
        world.run(Duration::from_millis(100));
    }
    let heard = world.clients[1].heard(ChannelLabel::Reliable);
    assert_eq!(sequences(&heard), (1..=PACKETS).collect::<Vec<_>>());
    assert!(!world.clients[1].closed);
}

#[test]
fn a_reader_that_never_reads_is_cut_and_the_sender_goes_on() {
    let mut world = World::of(3);
    let reader = world.clients[1].channel(ChannelLabel::Reliable);
    world.clients[1].rtc.set_reading(reader, false);
    let mut sent = 0;
    for _ in 0..200 {
        while sent < 150
            && world
                .send(1, ChannelLabel::Reliable, &user(sent + 1, vec![0; 10_000]))
                .is_ok()
        {
            sent += 1;
        }
        world.run(Duration::from_millis(100));
    }
    let cut = world.events.iter().any(|event| {
        matches!(
            event,
            Event::TransportClosed {
                transport: TransportHandle(2),
                reason: CloseReason::DataReaderStuck
            }
        )
    });
    assert!(cut && world.clients[1].closed);
    let heard = world.clients[2].heard(ChannelLabel::Reliable);
    assert_eq!(
        sequences(&heard),
        (1..=150).collect::<Vec<_>>(),
        "the third client loses nothing over it"
    );
}

/// DESIGN D10: what fails is the reader's transport, so the room and the other readers lose nothing.
#[test]
fn a_panic_while_sending_costs_the_readers_transport_only() {
    let mut world = World::of(3);
    let slot = world
        .shard
        .transports
        .iter()
        .find(|(_, it)| it.handle == TransportHandle(2))
        .unwrap()
        .0;
    world.shard.transports.get_mut(slot).unwrap().panics = true;
    world.send(1, ChannelLabel::Reliable, &user(1, vec![1])).unwrap();
    world.run(Duration::from_millis(200));
    assert_eq!(sequences(&world.clients[2].heard(ChannelLabel::Reliable)), [1]);
    assert_eq!(
        (world.shard.stats().transport_panics, world.shard.stats().room_panics),
        (1, 0)
    );
    assert!(world.events.iter().any(|event| {
        matches!(
            event,
            Event::TransportClosed {
                transport: TransportHandle(2),
                reason: CloseReason::Panicked
            }
        )
    }));
}
