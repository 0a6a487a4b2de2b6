//! A shard, its peers and the network between them, driven by one virtual clock.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use patchbay::{
    media::{
        Shard, ShardConfig,
        edge::{
            Command, DataParticipant, DataRights, EncodingParameters, Event, OpenTransport, Publish, Reception,
            Subscribe, SubscriptionSettings,
        },
    },
    rtc::DtlsIdentity,
    types::{
        Batch, ChannelLabel, Codec, CodecParameters, DtlsRole, IceCredentials, MAX_DATAGRAM, MediaKind, Mid, NetPath,
        NetProtocol, ParticipantHandle, RemoteParameters, Rid, RoomHandle, Ssrc, SubscriptionHandle, TrackHandle,
        TransportHandle, WallClock,
    },
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    media::Source,
    network::{Link, Network},
    peer::{Incoming, Peer},
};

pub const ROOM: RoomHandle = RoomHandle(1);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);

pub struct World {
    pub now: Instant,
    pub shard: Shard,
    pub peers: Vec<Peer>,
    pub links: Vec<Link>,
    pub network: Network,
    pub rng: SmallRng,
    pub events: Vec<(Instant, Event)>,
    pub server: SocketAddr,
    fingerprint: [u8; 32],
    handles: u64,
}

/// How somebody joins.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    pub ice_lite: bool,
    /// What signalling says instead of the peer's own fingerprint.
    pub described_fingerprint: Option<[u8; 32]>,
}

impl Default for Joining {
    fn default() -> Self {
        Self {
            ice_lite: true,
            described_fingerprint: None,
        }
    }
}

/// What a story holds of a published track.
#[derive(Clone, Debug)]
pub struct Published {
    pub handle: TrackHandle,
    pub codec: Codec,
    pub ssrcs: Vec<u32>,
}

/// What a story holds of a subscription.
#[derive(Clone, Debug)]
pub struct Subscribed {
    pub peer: usize,
    pub handle: SubscriptionHandle,
    pub ssrc: u32,
}

/// Datagrams as the shard writes them.
struct Outbox {
    slot: [u8; MAX_DATAGRAM],
    sent: Vec<(NetPath, Vec<u8>)>,
}

impl Batch for Outbox {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.slot
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        self.sent.push((path, self.slot[..len].to_vec()));
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        // The origin is arbitrary; everything after it is virtual.
        let now = Instant::now();
        let server = SocketAddr::from(SERVER);
        let identity = DtlsIdentity::generate().expect("a certificate");
        let fingerprint = identity.fingerprint();
        let wall = WallClock::new(now, Duration::from_secs(1_790_000_000));
        let mut shard = Shard::new(ShardConfig::new(vec![server], identity, seed, wall), now);
        shard.handle_command(
            now,
            Command::OpenRoom {
                room: ROOM,
                sif_trailer: b"trailer".to_vec(),
            },
        );
        Self {
            now,
            shard,
            peers: Vec::new(),
            links: Vec::new(),
            network: Network::default(),
            rng: SmallRng::seed_from_u64(seed),
            events: Vec::new(),
            server,
            fingerprint,
            handles: 0,
        }
    }

    fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    pub fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
    }

    /// A peer with data channels, connecting from now on; `run` until `connected`.
    pub fn join(&mut self, name: &str) -> usize {
        self.join_with(name, Joining::default())
    }

    pub fn join_with(&mut self, name: &str, joining: Joining) -> usize {
        let Joining {
            ice_lite,
            described_fingerprint,
        } = joining;
        let room = ROOM;
        let participant = ParticipantHandle(self.handle());
        let transport = TransportHandle(self.handle());
        let number = self.peers.len() as u32 + 1;
        let address = SocketAddr::from(([10, 1, (number >> 8) as u8, number as u8], 5000));
        let mut peer = Peer::new(address, self.server, participant, transport, self.now);
        for label in [ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack] {
            peer.open_channel(label);
        }
        let local = IceCredentials {
            ufrag: format!("u{:07}", transport.0),
            pwd: format!("password-{:016}", transport.0),
        };
        self.command(Command::OpenTransport(Box::new(OpenTransport {
            room,
            participant,
            transport,
            local: local.clone(),
            ice_lite,
            ice_controlling: false,
            open_channels: Vec::new(),
            reception: Reception::default(),
        })));
        let remote = RemoteParameters {
            ice: peer.credentials(),
            fingerprint: described_fingerprint.unwrap_or(peer.fingerprint()),
            dtls_role: DtlsRole::Passive,
            sctp_max_message_size: Some(262_144),
        };
        self.command(Command::SetRemote {
            transport,
            remote: Box::new(remote),
        });
        if !ice_lite {
            self.command(Command::AddRemoteCandidate {
                transport,
                candidate: format!(
                    "candidate:1 1 udp 2130706431 {} {} typ host",
                    address.ip(),
                    address.port()
                ),
            });
        }
        self.command(Command::SetParticipant(Box::new(DataParticipant {
            room,
            participant,
            sid: format!("PA_{name}"),
            identity: name.to_owned(),
            transport,
            rights: DataRights {
                can_publish_data: true,
                hidden: false,
                agent: false,
                can_receive: true,
            },
        })));
        peer.connect(&local, self.fingerprint);
        self.peers.push(peer);
        self.links.push(Link::default());
        self.peers.len() - 1
    }

    /// Joins and runs until the transport and its data channels are up.
    pub fn join_connected(&mut self, name: &str) -> usize {
        let peer = self.join(name);
        let limit = self.now + Duration::from_secs(20);
        while !self.peers[peer].connected && self.now < limit {
            self.run(Duration::from_millis(50));
        }
        assert!(self.peers[peer].connected, "{name} connects");
        self.run(Duration::from_millis(200));
        peer
    }

    pub fn leave(&mut self, peer: usize) {
        let (participant, transport) = (self.peers[peer].participant, self.peers[peer].transport);
        self.command(Command::RemoveParticipant {
            room: ROOM,
            participant,
        });
        self.command(Command::CloseTransport { transport });
        self.peers[peer].closed = true;
        self.peers[peer].connected = false;
    }

    pub fn publish(&mut self, peer: usize, codec: Codec) -> Published {
        self.publish_encodings(peer, codec, 1)
    }

    /// `encodings` > 1 is simulcast by rid (q, h, f), whose SSRCs the server has to learn.
    pub fn publish_encodings(&mut self, peer: usize, codec: Codec, encodings: u8) -> Published {
        let handle = TrackHandle(self.handle());
        let mid = format!("{}", self.peers[peer].outgoing.len());
        let rids = ["q", "h", "f"];
        let mut ssrcs = Vec::new();
        let mut described = Vec::new();
        for index in 0..encodings {
            let ssrc: u32 = self.rng.random();
            let rtx: Option<u32> = (codec.kind() == MediaKind::Video).then(|| self.rng.random());
            let rid = (encodings > 1).then(|| rids[usize::from(index)]);
            let now = self.now;
            self.peers[peer].add_outgoing(&mid, rid, ssrc, rtx, Source::new(codec, index), now);
            ssrcs.push(ssrc);
            described.push(match rid {
                Some(rid) => EncodingParameters {
                    rid: Rid::new(rid),
                    ssrc: None,
                    rtx_ssrc: None,
                },
                None => EncodingParameters {
                    rid: None,
                    ssrc: Some(Ssrc(ssrc)),
                    rtx_ssrc: rtx.map(Ssrc),
                },
            });
        }
        let mut codecs = vec![self.peers[peer].codec_parameters(codec)];
        codecs[0].nack = true;
        let publish = Publish {
            room: ROOM,
            participant: self.peers[peer].participant,
            track: handle,
            transport: self.peers[peer].transport,
            mid: Mid::new(&mid).expect("a mid"),
            kind: codec.kind(),
            codecs,
            extensions: self.peers[peer].extensions(),
            encodings: described,
            muted: false,
            is_screen: false,
            encrypted: false,
        };
        self.command(Command::Publish(Box::new(publish)));
        Published { handle, codec, ssrcs }
    }

    pub fn subscribe(&mut self, peer: usize, track: &Published) -> Subscribed {
        let codecs = vec![self.peers[peer].codec_parameters(track.codec)];
        self.subscribe_with(peer, track, codecs)
    }

    pub fn subscribe_with(&mut self, peer: usize, track: &Published, codecs: Vec<CodecParameters>) -> Subscribed {
        let handle = SubscriptionHandle(self.handle());
        let mid = format!("s{}", handle.0);
        let ssrc: u32 = self.rng.random();
        let kind = track.codec.kind();
        let rtx: Option<u32> = (kind == MediaKind::Video).then(|| self.rng.random());
        self.peers[peer].expect_incoming(&mid, kind, ssrc, rtx);
        let subscribe = Subscribe {
            room: ROOM,
            participant: self.peers[peer].participant,
            subscription: handle,
            track: track.handle,
            transport: self.peers[peer].transport,
            mid: Mid::new(&mid).expect("a mid"),
            codecs,
            extensions: self.peers[peer].extensions(),
            ssrc: Ssrc(ssrc),
            rtx_ssrc: rtx.map(Ssrc),
            cname: format!("cname-{}", track.handle.0),
            strip_packet_trailer: false,
            settings: SubscriptionSettings::default(),
        };
        self.command(Command::Subscribe(Box::new(subscribe)));
        Subscribed { peer, handle, ssrc }
    }

    pub fn received(&self, subscribed: &Subscribed) -> &Incoming {
        &self.peers[subscribed.peer].incoming[&subscribed.ssrc]
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            let next = [
                self.network.next_due(),
                self.shard.poll_timeout(),
                self.peers
                    .iter()
                    .filter(|peer| !peer.closed)
                    .map(|peer| peer.wake_at)
                    .min(),
                self.peers
                    .iter()
                    .filter(|peer| !peer.closed)
                    .filter_map(Peer::next_frame_at)
                    .min(),
            ]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            // Never stand still: an answer of "now" means "call again", and 1 µs keeps order without a spin.
            self.now = next.max(self.now + Duration::from_micros(1));
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        while let Some(datagram) = self.network.receive(now) {
            let mut contents = datagram.contents;
            if datagram.destination == self.server {
                let path = NetPath {
                    local: self.server,
                    remote: datagram.source,
                    protocol: NetProtocol::Udp,
                };
                self.shard.handle_datagram(now, path, &mut contents);
            } else if let Some(peer) = self
                .peers
                .iter_mut()
                .find(|peer| peer.address == datagram.destination && !peer.closed)
            {
                peer.handle_datagram(now, datagram.source, &contents);
                Self::flush_peer(peer, now, &mut self.rng, &mut self.network, &self.links, self.server);
            }
        }
        for peer in &mut self.peers {
            if peer.closed {
                continue;
            }
            if peer.wake_at <= now {
                peer.handle_timeout(now);
            }
            if peer.next_frame_at().is_some_and(|at| at <= now) {
                peer.send_due_frames(now);
            }
        }
        if self.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now);
        }
    }

    /// Drains everybody's output.
    fn settle(&mut self) {
        let now = self.now;
        let mut outbox = Outbox {
            slot: [0; MAX_DATAGRAM],
            sent: Vec::new(),
        };
        self.shard.poll_transmit(now, &mut outbox);
        for (path, contents) in outbox.sent {
            let link = self
                .peers
                .iter()
                .position(|peer| peer.address == path.remote)
                .map_or(Link::default(), |index| self.links[index]);
            self.network
                .send(now, &mut self.rng, link, path.local, path.remote, contents);
        }
        while let Some(event) = self.shard.poll_event() {
            self.events.push((now, event));
        }
        for peer in &mut self.peers {
            if !peer.closed {
                Self::flush_peer(peer, now, &mut self.rng, &mut self.network, &self.links, self.server);
            }
        }
    }

    fn flush_peer(
        peer: &mut Peer,
        now: Instant,
        rng: &mut SmallRng,
        network: &mut Network,
        links: &[Link],
        server: SocketAddr,
    ) {
        let number = usize::from(match peer.address {
            SocketAddr::V4(v4) => u16::from_be_bytes([v4.ip().octets()[2], v4.ip().octets()[3]]),
            SocketAddr::V6(_) => 1,
        }) - 1;
        for (destination, contents) in peer.drain(now) {
            if destination == server {
                network.send(now, rng, links[number], peer.address, destination, contents);
            }
        }
    }
}
