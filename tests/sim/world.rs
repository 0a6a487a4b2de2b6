//! Shards, their peers and the network between them, driven by one virtual clock.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

use patchbay::{
    media::{
        RelayLink, Shard, ShardConfig,
        edge::{
            Command, DataParticipant, DataRights, EncodingParameters, Event, Explanation, OpenTransport, Publish,
            Reception, Span, Subscribe, SubscriptionSettings,
        },
    },
    rtc::DtlsIdentity,
    types::{
        Batch, ChannelLabel, Codec, CodecParameters, DtlsRole, IceCredentials, MAX_DATAGRAM, MediaKind, Mid, NetPath,
        NetProtocol, ParticipantHandle, RemoteParameters, Rid, RoomHandle, ShardIndex, Ssrc, SubscriptionHandle,
        TrackHandle, TransportHandle, WallClock,
    },
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    impairment::Conditions,
    media::{Shape, Source},
    network::{Datagram, Link},
    peer::{Feedback, Incoming, Peer},
    raw::RawPeer,
    signalling::Signalling,
    trace::Trace,
};

pub const ROOM: RoomHandle = RoomHandle(1);
/// Of a world that is signalled to.
pub const SIGNALLED_ROOM: RoomHandle = RoomHandle(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 7882);

/// When every world begins. Arbitrary, but one: peers tell the wall clock's time of their packets, which str0m takes to run
/// along with this clock since its first use. That is less than an hour ago.
static ORIGIN: LazyLock<Instant> = LazyLock::new(|| Instant::now() + Duration::from_secs(3600));

pub struct World {
    pub now: Instant,
    /// The home of the room.
    pub shard: Shard,
    /// Of a world with several.
    pub others: Vec<Shard>,
    /// Between the story's commands and the shards.
    pub span: Span,
    pub crossing: Crossing,
    /// Where each peer is served.
    peer_shards: Vec<usize>,
    pub peers: Vec<Peer>,
    pub raw: Vec<RawPeer>,
    /// The control side, where a story signals.
    pub signalling: Option<Box<Signalling>>,
    /// Whose reception is looked at ten times a second.
    pub observed: Option<usize>,
    /// What the server said of it.
    pub explained: Vec<(Instant, Box<Explanation>)>,
    /// Key frames that it had asked of publishers by then.
    pub asked: Vec<(Instant, u64)>,
    next_look: Instant,
    /// Those that have not left.
    present: Vec<usize>,
    /// By peer.
    pub links: Vec<Link>,
    /// RTP that the server sent, by peer, before the link took its share.
    pub sent: Vec<Vec<SentRtp>>,
    /// All that the server sent, where a story wants it.
    pub trace: Option<Trace>,
    pub rng: SmallRng,
    pub events: Vec<(Instant, Event)>,
    pub server: SocketAddr,
    fingerprint: [u8; 32],
    handles: u64,
    seed: u64,
    outbox: Outbox,
}

/// The header of a packet that the server sent: SRTP leaves it readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentRtp {
    pub at: Instant,
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub pt: u8,
    pub marker: bool,
    /// Of the datagram.
    pub len: usize,
}

impl SentRtp {
    /// None for anything but RTP (RFC 7983, RFC 5761 §4).
    fn read(at: Instant, datagram: &[u8]) -> Option<Self> {
        let header = datagram.first_chunk::<12>()?;
        let pt = header[1] & 0x7f;
        if header[0] >> 6 != 2 || (64..96).contains(&pt) {
            return None;
        }
        Some(Self {
            at,
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            pt,
            marker: header[1] & 0x80 != 0,
            len: datagram.len(),
        })
    }
}

/// How somebody joins.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    pub ice_lite: bool,
    /// What signalling says instead of the peer's own fingerprint.
    pub described_fingerprint: Option<[u8; 32]>,
    pub feedback: Feedback,
    pub reception: Reception,
}

impl Default for Joining {
    fn default() -> Self {
        Self {
            ice_lite: true,
            described_fingerprint: None,
            feedback: Feedback::default(),
            reception: Reception::default(),
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

/// Batches between the shards.
#[derive(Default)]
pub struct Crossing {
    queue: VecDeque<(ShardIndex, ShardIndex, Vec<u8>)>,
    /// Nothing is taken.
    pub is_jammed: bool,
    /// All is taken and none arrives.
    pub is_broken: bool,
    /// Bytes that have crossed.
    pub bytes: usize,
}

/// One shard's end of it.
struct CrossingFrom<'a>(ShardIndex, &'a mut Crossing);

impl RelayLink for CrossingFrom<'_> {
    fn send(&mut self, to: ShardIndex, batch: &mut Vec<u8>) -> bool {
        if !self.1.is_jammed {
            self.1.bytes += batch.len();
            let batch = std::mem::take(batch);
            if !self.1.is_broken {
                self.1.queue.push_back((self.0, to, batch));
            }
        }
        !self.1.is_jammed
    }
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
        Self::with_loudest(seed, 0)
    }

    /// A room that forwards so many voices at a time; 0 = all.
    pub fn with_loudest(seed: u64, audio_last_n: u16) -> Self {
        Self::with_shards(seed, audio_last_n, 1)
    }

    /// Who joins is served by each of the shards in turn.
    pub fn with_shards(seed: u64, audio_last_n: u16, shards: u8) -> Self {
        let now = *ORIGIN;
        let server = SocketAddr::from(SERVER);
        let identity = DtlsIdentity::generate().expect("a certificate");
        let fingerprint = identity.fingerprint();
        let wall = WallClock::new(now, Duration::from_secs(1_790_000_000));
        let shard = |index: u8| {
            let config = ShardConfig {
                index: ShardIndex(index.into()),
                patience: Duration::from_secs(60),
                ..ShardConfig::new(vec![address_of(index.into())], identity.clone(), seed, wall)
            };
            Shard::new(config, now)
        };
        let mut world = Self {
            now,
            shard: shard(0),
            others: (1..shards).map(shard).collect(),
            span: Span::new(ShardIndex(0)),
            crossing: Crossing::default(),
            peer_shards: Vec::new(),
            peers: Vec::new(),
            raw: Vec::new(),
            signalling: None,
            observed: None,
            explained: Vec::new(),
            asked: Vec::new(),
            next_look: now,
            present: Vec::new(),
            links: Vec::new(),
            sent: Vec::new(),
            trace: None,
            rng: SmallRng::seed_from_u64(seed),
            events: Vec::new(),
            server,
            fingerprint,
            handles: 0,
            seed,
            outbox: Outbox {
                slot: [0; MAX_DATAGRAM],
                sent: Vec::new(),
            },
        };
        world.command(Command::OpenRoom {
            room: ROOM,
            sif_trailer: b"trailer".to_vec(),
            audio_last_n,
        });
        world
    }

    fn shards(&mut self) -> impl Iterator<Item = (ShardIndex, &mut Shard)> {
        let all = std::iter::once(&mut self.shard).chain(&mut self.others);
        (0..).map(ShardIndex).zip(all)
    }

    fn poll_event(&mut self) -> Option<(ShardIndex, Event)> {
        self.shards()
            .find_map(|(index, shard)| Some((index, shard.poll_event()?)))
    }

    pub fn shard_at(&mut self, index: usize) -> &mut Shard {
        match index.checked_sub(1) {
            None => &mut self.shard,
            Some(other) => &mut self.others[other],
        }
    }

    /// A place on the network for another peer connection.
    pub fn add_peer(&mut self, peer: impl FnOnce(SocketAddr, SocketAddr) -> Peer) -> usize {
        let number = self.peers.len() as u32 + 1;
        let address = SocketAddr::from(([10, 1, (number >> 8) as u8, number as u8], 5000));
        let shard = self.peers.len() % (1 + self.others.len());
        self.peers.push(peer(address, address_of(shard)));
        self.peer_shards.push(shard);
        let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number));
        self.links.push(Link::new(seed, self.now));
        self.sent.push(Vec::new());
        let index = self.peers.len() - 1;
        self.present.push(index);
        index
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    pub fn command(&mut self, command: Command) {
        self.span.handle_command(command);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        let now = self.now;
        while let Some((shard, command)) = self.span.poll_command() {
            self.shard_at(shard.0.into()).handle_command(now, command);
        }
    }

    /// A peer with data channels, connecting from now on; `run` until `connected`.
    pub fn join(&mut self, name: &str) -> usize {
        self.join_with(name, Joining::default())
    }

    pub fn join_with(&mut self, name: &str, joining: Joining) -> usize {
        let Joining {
            ice_lite,
            described_fingerprint,
            feedback,
            reception,
        } = joining;
        let room = ROOM;
        let participant = ParticipantHandle(self.handle());
        let transport = TransportHandle(self.handle());
        let now = self.now;
        let index = self.add_peer(|address, server| Peer::new(address, server, participant, transport, feedback, now));
        let shard = ShardIndex(self.peer_shards[index] as u16);
        self.span.place(participant, shard);
        let peer = &mut self.peers[index];
        let address = peer.address;
        let (credentials, peer_fingerprint) = (peer.credentials(), peer.fingerprint());
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
            reception,
        })));
        let remote = RemoteParameters {
            ice: credentials,
            fingerprint: described_fingerprint.unwrap_or(peer_fingerprint),
            dtls_role: DtlsRole::Passive,
            sctp_max_message_size: Some(262_144),
            sctp_init: None,
            sped: false,
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
        self.peers[index].connect(&local, self.fingerprint);
        index
    }

    /// Both directions of somebody's link, from now on.
    pub fn set_link(&mut self, peer: usize, conditions: Conditions) {
        self.links[peer].set(self.now, conditions);
    }

    /// Whoever translates this peer's address forgets it: the peer has another port and does not know.
    pub fn rebind(&mut self, peer: usize) {
        let link = &mut self.links[peer];
        let known = link.shown_as.unwrap_or(self.peers[peer].address);
        link.shown_as = Some(SocketAddr::new(known.ip(), known.port() + 1));
    }

    /// One network goes and another comes, at once, and the peer knows.
    pub fn change_network(&mut self, peer: usize) {
        let SocketAddr::V4(known) = self.peers[peer].address else {
            unreachable!("peers have IPv4");
        };
        let [_, net, c, d] = known.ip().octets();
        self.peers[peer].move_to(SocketAddr::from(([11, net + 1, c, d], known.port())));
    }

    /// A client that sends what RTCP it likes; connected when this returns.
    pub fn join_raw(&mut self, name: &str) -> usize {
        let participant = ParticipantHandle(self.handle());
        let transport = TransportHandle(self.handle());
        let address = SocketAddr::from(([10, 2, 0, self.raw.len() as u8 + 1], 5000));
        let mut raw = RawPeer::new(address, participant, transport, self.now);
        let local = IceCredentials {
            ufrag: format!("u{:07}", transport.0),
            pwd: format!("password-{:016}", transport.0),
        };
        self.command(Command::OpenTransport(Box::new(OpenTransport {
            room: ROOM,
            participant,
            transport,
            local: local.clone(),
            ice_lite: true,
            ice_controlling: false,
            open_channels: Vec::new(),
            reception: Reception::default(),
        })));
        let remote = RemoteParameters {
            ice: raw.credentials(),
            fingerprint: raw.fingerprint(),
            dtls_role: DtlsRole::Passive,
            sctp_max_message_size: None,
            sctp_init: None,
            sped: false,
        };
        self.command(Command::SetRemote {
            transport,
            remote: Box::new(remote),
        });
        raw.connect(self.now, self.server, &local, self.fingerprint);
        self.raw.push(raw);
        let index = self.raw.len() - 1;
        self.run(Duration::from_secs(3));
        assert!(self.raw[index].connected, "{name} connects");
        index
    }

    /// The SSRC that it is sent on.
    pub fn subscribe_raw(&mut self, raw: usize, track: &Published) -> u32 {
        let handle = SubscriptionHandle(self.handle());
        let ssrc: u32 = self.rng.random();
        let rtx: u32 = self.rng.random();
        // As another client would.
        let codecs = vec![self.peers[0].codec_parameters(track.codec)];
        let subscribe = Subscribe {
            room: ROOM,
            participant: self.raw[raw].participant,
            subscription: handle,
            track: track.handle,
            transport: self.raw[raw].transport,
            mid: Mid::new("s0").expect("a mid"),
            codecs,
            extensions: self.peers[0].extensions(),
            ssrc: Ssrc(ssrc),
            rtx_ssrc: Some(Ssrc(rtx)),
            cname: "raw".to_owned(),
            strip_packet_trailer: false,
            settings: SubscriptionSettings::default(),
        };
        self.command(Command::Subscribe(Box::new(subscribe)));
        ssrc
    }

    /// Joins and runs until the transport and its data channels are up.
    pub fn join_connected(&mut self, name: &str) -> usize {
        self.join_connected_with(name, Joining::default())
    }

    pub fn join_connected_with(&mut self, name: &str, joining: Joining) -> usize {
        let peer = self.join_with(name, joining);
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
        self.present.retain(|present| *present != peer);
    }

    pub fn publish(&mut self, peer: usize, codec: Codec) -> Published {
        self.publish_encodings(peer, codec, 1)
    }

    /// `encodings` > 1 is simulcast by rid (q, h, f), whose SSRCs the server has to learn.
    pub fn publish_encodings(&mut self, peer: usize, codec: Codec, encodings: u8) -> Published {
        let sources = (0..encodings).map(|encoding| Source::new(codec, encoding)).collect();
        self.publish_sources(peer, sources, false)
    }

    /// A 720p camera in three layers.
    pub fn publish_camera(&mut self, peer: usize) -> Published {
        self.publish_shapes(peer, Codec::Vp8, (0..3).map(Shape::camera).collect(), false)
    }

    pub fn publish_screen(&mut self, peer: usize) -> Published {
        self.publish_shapes(peer, Codec::Vp8, vec![Shape::screen()], true)
    }

    pub fn publish_voice(&mut self, peer: usize) -> Published {
        self.publish_shapes(peer, Codec::Opus, vec![Shape::voice()], false)
    }

    pub fn publish_shapes(&mut self, peer: usize, codec: Codec, shapes: Vec<Shape>, is_screen: bool) -> Published {
        let sources = (0..)
            .zip(shapes)
            .map(|(encoding, shape)| Source::shaped(codec, encoding, shape, self.rng.random()))
            .collect();
        self.publish_sources(peer, sources, is_screen)
    }

    fn publish_sources(&mut self, peer: usize, sources: Vec<Source>, is_screen: bool) -> Published {
        let codec = sources[0].codec;
        let encodings = sources.len() as u8;
        let handle = TrackHandle(self.handle());
        let mid = format!("{}", self.peers[peer].outgoing.len());
        let rids = ["q", "h", "f"];
        let mut ssrcs = Vec::new();
        let mut described = Vec::new();
        for (index, source) in sources.into_iter().enumerate() {
            let ssrc: u32 = self.rng.random();
            let rtx: Option<u32> = (codec.kind() == MediaKind::Video).then(|| self.rng.random());
            let rid = (encodings > 1).then(|| rids[index]);
            let now = self.now;
            self.peers[peer].add_outgoing(&mid, rid, ssrc, rtx, source, now);
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
            is_screen,
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
            let next = self.next_at().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            // Never stand still: an answer of "now" means "call again", and 1 µs keeps order without a spin.
            self.now = next.max(self.now + Duration::from_micros(1));
            self.deliver();
        }
    }

    /// When something happens next, on the links, at the server or at a peer.
    fn next_at(&mut self) -> Option<Instant> {
        let raw = self.raw.iter_mut().filter_map(RawPeer::poll_timeout);
        let look = self.observed.map(|_| self.next_look);
        let room = self
            .signalling
            .as_mut()
            .and_then(|signalling| signalling.room.poll_timeout());
        let shards = std::iter::once(&self.shard).chain(&self.others);
        let shards = shards.filter_map(Shard::poll_timeout);
        let mut next = raw.chain(shards).chain(look).chain(room).min();
        for &index in &self.present {
            let (peer, link) = (&self.peers[index], &self.links[index]);
            let alive = (!peer.closed).then(|| peer.wake_at());
            let frame = peer.next_frame_at().filter(|_| !peer.closed);
            let soonest = [link.next_due(), alive, frame].into_iter().flatten().min();
            next = [next, soonest].into_iter().flatten().min();
        }
        next
    }

    fn deliver(&mut self) {
        let now = self.now;
        if let Some(observed) = self.observed
            && self.next_look <= now
        {
            self.next_look = now + LOOK_INTERVAL;
            // A room that is signalled to counts its participants itself.
            let (room, participant) = match &self.signalling {
                Some(_) => (SIGNALLED_ROOM, None),
                None => (ROOM, Some(self.peers[observed].participant)),
            };
            self.command(Command::Explain {
                room,
                participant,
                query: 0,
            });
        }
        for &index in &self.present {
            let (peer, link) = (&mut self.peers[index], &mut self.links[index]);
            let at = self.peer_shards[index];
            let (server, shard) = match at.checked_sub(1) {
                None => (self.server, &mut self.shard),
                Some(other) => (address_of(at), &mut self.others[other]),
            };
            while let Some(mut datagram) = link.take_up(now) {
                let path = NetPath {
                    local: server,
                    remote: datagram.source,
                    protocol: NetProtocol::Udp,
                };
                shard.handle_datagram(now, path, &mut datagram.contents);
            }
            while let Some(datagram) = link.take_down(now) {
                if !peer.closed {
                    peer.handle_datagram(now, datagram.source, &datagram.contents);
                    Self::flush_peer(peer, now, link, server);
                }
            }
            if peer.closed {
                continue;
            }
            if peer.wake_at() <= now {
                peer.handle_timeout(now);
            }
            if peer.next_frame_at().is_some_and(|at| at <= now) {
                peer.send_due_frames(now);
            }
        }
        for raw in &mut self.raw {
            raw.handle_timeout(now);
            while let Some(mut datagram) = raw.take(now) {
                let path = NetPath {
                    local: self.server,
                    remote: raw.address,
                    protocol: NetProtocol::Udp,
                };
                self.shard.handle_datagram(now, path, &mut datagram);
            }
        }
        for (_, shard) in self.shards() {
            if shard.poll_timeout().is_some_and(|at| at <= now) {
                shard.handle_timeout(now);
            }
        }
        if let Some(signalling) = &mut self.signalling
            && signalling.room.poll_timeout().is_some_and(|at| at <= now)
        {
            signalling.room.handle_timeout(now);
        }
    }

    /// Drains everybody's output.
    fn settle(&mut self) {
        let now = self.now;
        self.cross();
        for shard in std::iter::once(&mut self.shard).chain(&mut self.others) {
            shard.poll_transmit(now, &mut self.outbox);
        }
        for (path, contents) in self.outbox.sent.drain(..) {
            let shown = |index: usize| self.links[index].shown_as.unwrap_or(self.peers[index].address);
            let of_address = |index: &&usize| shown(**index) == path.remote;
            let Some(&index) = self.present.iter().find(of_address) else {
                if let Some(raw) = self.raw.iter_mut().find(|raw| raw.address == path.remote) {
                    raw.deliver(now, path.local, contents);
                }
                continue;
            };
            if let Some(trace) = &mut self.trace {
                trace.note(now, index, &contents);
            }
            if let Some(sent) = SentRtp::read(now, &contents) {
                self.sent[index].push(sent);
            }
            let datagram = Datagram {
                source: path.local,
                contents,
            };
            self.links[index].send_down(now, datagram);
        }
        while let Some((from, event)) = self.poll_event() {
            let Some(event) = self.span.handle_event(from, event) else {
                continue;
            };
            match event {
                Event::Explanation { report, .. } => {
                    self.asked.push((now, self.shard.stats().keyframe_requests));
                    self.explained.push((now, report))
                }
                event => {
                    if let Some(signalling) = &mut self.signalling {
                        signalling.room.handle_event(now, event.clone());
                    }
                    self.events.push((now, event));
                }
            }
        }
        self.signal();
        for &index in &self.present {
            let (peer, link) = (&mut self.peers[index], &mut self.links[index]);
            if !peer.closed && peer.has_output {
                Self::flush_peer(peer, now, link, address_of(self.peer_shards[index]));
            }
        }
    }

    /// What the shards have for each other, until they have nothing more.
    fn cross(&mut self) {
        self.carry_out();
        let now = self.now;
        loop {
            let all = std::iter::once(&mut self.shard).chain(&mut self.others);
            for (index, shard) in (0..).map(ShardIndex).zip(all) {
                shard.poll_relay(now, &mut CrossingFrom(index, &mut self.crossing));
            }
            if self.crossing.queue.is_empty() {
                return;
            }
            while let Some((from, to, batch)) = self.crossing.queue.pop_front() {
                self.shard_at(to.0.into()).handle_relay(now, from, &batch);
            }
        }
    }

    fn flush_peer(peer: &mut Peer, now: Instant, link: &mut Link, server: SocketAddr) {
        for (destination, contents) in peer.drain(now) {
            if destination == server {
                let datagram = Datagram {
                    source: link.shown_as.unwrap_or(peer.address),
                    contents,
                };
                link.send_up(now, datagram);
            }
        }
    }
}

/// Where a shard is reached.
fn address_of(shard: usize) -> SocketAddr {
    let ([a, b, c, d], port) = SERVER;
    SocketAddr::from(([a, b, c, d + shard as u8], port))
}
