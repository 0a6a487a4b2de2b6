//! The room and its people. A peer is the other end of a transport: it seals what it sends and opens what it gets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::*;
use crate::media::edge::{
    EncodingParameters, LayerReason, OpenTransport, Publish, Reception, Subscribe, SubscriptionSettings,
};
use crate::rtc::{SrtpKeys, TransportConfig};
use crate::rtp::{RtpHeader, RtpPacket, rtcp};
use crate::types::{
    Codec, CodecParameters, DtlsRole, Extension, ExtensionMap, IceCredentials, MediaKind, Mid, NetProtocol,
    ParticipantHandle, Pt, Rid, SrtpProfile, Ssrc, SubscriptionHandle, TrackHandle, TransportHandle,
};

pub const ROOM: RoomHandle = RoomHandle(1);
pub const VP8: Pt = Pt(96);
pub const RTX: Pt = Pt(97);
pub const OPUS: Pt = Pt(111);
pub const SIF: &[u8] = b"SIFTRAILER";

/// A cleartext packet that a peer got.
#[derive(Clone, Debug)]
pub struct Got {
    pub bytes: Vec<u8>,
}

impl Got {
    pub fn rtp(&self) -> RtpPacket<'_> {
        RtpPacket::parse(&self.bytes).unwrap()
    }

    pub fn sequence(&self) -> u16 {
        self.rtp().sequence()
    }
}

pub struct Peer {
    pub handle: TransportHandle,
    pub participant: ParticipantHandle,
    pub path: NetPath,
    rtc: rtc::Transport,
    /// Last sequence number and rollover counter.
    sequences: std::collections::HashMap<Ssrc, (u16, u32)>,
    pub rtp: Vec<Got>,
    pub rtcp: Vec<Vec<u8>>,
    /// Sizes of the sealed datagrams as they came.
    pub sizes: Vec<usize>,
    /// The sealed datagrams.
    pub sealed: Vec<Vec<u8>>,
}

#[derive(Default)]
struct Sent {
    buf: Vec<u8>,
    datagrams: Vec<(NetPath, Vec<u8>)>,
    /// How long each transport's packets take to write.
    takes: Duration,
    transports: std::cell::Cell<u32>,
}

impl Batch for Sent {
    fn departure(&self, now: Instant) -> Instant {
        self.transports.set(self.transports.get() + 1);
        now + self.takes * self.transports.get()
    }

    fn slot(&mut self) -> &mut [u8] {
        self.buf.clear();
        self.buf.resize(crate::types::MAX_DATAGRAM, 0xaa);
        &mut self.buf
    }

    fn commit(&mut self, path: NetPath, len: usize) {
        self.datagrams.push((path, self.buf[..len].to_vec()));
    }
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub shard: Shard,
    pub peers: Vec<Peer>,
    identity: DtlsIdentity,
    next: u64,
}

pub fn codec(codec: Codec, pt: Pt, rtx: Option<Pt>) -> CodecParameters {
    CodecParameters {
        pt,
        codec,
        rtx,
        nack: true,
        pli: true,
        fir: false,
        transport_cc: true,
        remb: false,
        fmtp: String::new(),
    }
}

pub fn extensions() -> ExtensionMap {
    let mut map = ExtensionMap::default();
    for (extension, id) in [
        (Extension::AudioLevel, 1),
        (Extension::AbsSendTime, 2),
        (Extension::TransportCc, 3),
        (Extension::Mid, 4),
        (Extension::Rid, 10),
        (Extension::RepairedRid, 11),
        (Extension::VideoLayersAllocation, 9),
        (Extension::DependencyDescriptor, 12),
    ] {
        map.insert(extension, id);
    }
    map
}

/// A VP8 payload with a picture id, TL0PICIDX and key index.
pub fn vp8(key: bool, start: bool, picture: u16, len: usize) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let mut payload = vec![
        0x80 | u8::from(start) << 4,
        0xf0,
        high,
        low,
        picture as u8,
        0x20 | picture as u8 & 0x1f,
    ];
    payload.push(u8::from(!key));
    payload.resize(len.max(8), 7);
    payload
}

impl World {
    pub fn new() -> Self {
        let now = Instant::now();
        let identity = DtlsIdentity::generate().unwrap();
        let wall = WallClock::new(now, Duration::from_secs(1_800_000_000));
        let config = ShardConfig::new(vec!["10.0.0.1:7882".parse().unwrap()], identity.clone(), 7, wall);
        let mut world = Self {
            start: now,
            now,
            shard: Shard::new(config, now),
            peers: Vec::new(),
            identity,
            next: 100,
        };
        world.command(Command::OpenRoom {
            room: ROOM,
            sif_trailer: SIF.to_vec(),
            audio_last_n: 0,
        });
        world
    }

    /// `room.audio_last_n`, set afterwards.
    pub fn forward_loudest(&mut self, count: usize) {
        let slot = self.shard.index.rooms[&ROOM];
        let room = self.shard.rooms.get_mut(slot).unwrap();
        room.loudest = Some(crate::media::loudest::Loudest::new(count));
    }

    /// Why each subscription of the room is not better.
    pub fn reasons(&mut self) -> Vec<LayerReason> {
        self.events();
        let explain = Command::Explain {
            room: ROOM,
            participant: None,
            query: 1,
        };
        self.command(explain);
        let reports = self.events().into_iter().filter_map(|event| match event {
            Event::Explanation { report, .. } => Some(report.subscriptions),
            _ => None,
        });
        reports.flatten().map(|report| report.layers.reason).collect()
    }

    pub fn command(&mut self, command: Command) {
        self.shard.handle_command(self.now, command);
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Its index in `peers`.
    pub fn join(&mut self) -> usize {
        self.join_room(ROOM)
    }

    pub fn join_room(&mut self, room: RoomHandle) -> usize {
        let index = self.peers.len();
        let handle = TransportHandle(self.fresh());
        let participant = ParticipantHandle(self.fresh());
        let local = IceCredentials {
            ufrag: format!("ufrag{index}"),
            pwd: "a password of twenty-four c".into(),
        };
        self.command(Command::OpenTransport(Box::new(OpenTransport {
            room,
            participant,
            transport: handle,
            local: local.clone(),
            ice_lite: true,
            ice_controlling: false,
            open_channels: Vec::new(),
            reception: Reception::default(),
        })));
        let here: SocketAddr = "10.0.0.1:7882".parse().unwrap();
        let there = SocketAddr::from((Ipv4Addr::new(10, 0, 1, index as u8), 5000));
        let path = NetPath {
            local: here,
            remote: there,
            protocol: NetProtocol::Udp,
        };
        let back = NetPath {
            local: there,
            remote: here,
            protocol: NetProtocol::Udp,
        };
        let keys = SrtpKeys::new(SrtpProfile::AeadAes128Gcm, &[index as u8 + 1; 56]).unwrap();
        let config = || TransportConfig {
            local: local.clone(),
            ice_lite: true,
            ice_controlling: false,
            local_addresses: Vec::new(),
            open_channels: Vec::new(),
        };
        let connect = |path, role| rtc::Transport::connected(config(), &self.identity, self.now, path, &keys, role);
        let slot = self.shard.index.transports[&handle];
        self.shard.transports.get_mut(slot).unwrap().rtc = connect(path, DtlsRole::Passive);
        let rtc = connect(back, DtlsRole::Active);
        self.shard.learn_flow(path, slot);
        self.shard.after_input(self.now, slot);
        self.peers.push(Peer {
            handle,
            participant,
            path,
            rtc,
            sequences: Default::default(),
            rtp: Vec::new(),
            rtcp: Vec::new(),
            sizes: Vec::new(),
            sealed: Vec::new(),
        });
        index
    }

    pub fn publish_audio(&mut self, peer: usize, mid: &str) -> TrackHandle {
        self.publish(
            peer,
            mid,
            MediaKind::Audio,
            vec![codec(Codec::Opus, OPUS, None)],
            vec![EncodingParameters::default()],
        )
    }

    /// A camera with these rids, smallest first; none = one encoding.
    pub fn publish_video(&mut self, peer: usize, mid: &str, rids: &[&str]) -> TrackHandle {
        let mut encodings: Vec<_> = rids
            .iter()
            .map(|rid| EncodingParameters {
                rid: Rid::new(rid),
                ..Default::default()
            })
            .collect();
        if encodings.is_empty() {
            encodings.push(EncodingParameters::default());
        }
        self.publish(
            peer,
            mid,
            MediaKind::Video,
            vec![codec(Codec::Vp8, VP8, Some(RTX))],
            encodings,
        )
    }

    pub fn publish(
        &mut self,
        peer: usize,
        mid: &str,
        kind: MediaKind,
        codecs: Vec<CodecParameters>,
        encodings: Vec<EncodingParameters>,
    ) -> TrackHandle {
        let publish = self.publishing(peer, mid, kind, codecs, encodings);
        let track = publish.track;
        self.command(Command::Publish(Box::new(publish)));
        track
    }

    /// A track that is not published yet.
    pub fn publishing(
        &mut self,
        peer: usize,
        mid: &str,
        kind: MediaKind,
        codecs: Vec<CodecParameters>,
        encodings: Vec<EncodingParameters>,
    ) -> Publish {
        Publish {
            room: ROOM,
            participant: self.peers[peer].participant,
            track: TrackHandle(self.fresh()),
            transport: self.peers[peer].handle,
            mid: Mid::new(mid).unwrap(),
            kind,
            codecs,
            extensions: extensions(),
            encodings,
            muted: false,
            is_screen: false,
            encrypted: false,
        }
    }

    /// Its SSRC is the subscription's number, its RTX SSRC 10000 above.
    pub fn subscribe(&mut self, peer: usize, track: TrackHandle) -> SubscriptionHandle {
        let number = self.fresh();
        let subscribe = self.subscription(peer, track, number);
        self.command(Command::Subscribe(Box::new(subscribe)));
        SubscriptionHandle(number)
    }

    pub fn subscription(&self, peer: usize, track: TrackHandle, number: u64) -> Subscribe {
        Subscribe {
            room: ROOM,
            participant: self.peers[peer].participant,
            subscription: SubscriptionHandle(number),
            track,
            transport: self.peers[peer].handle,
            mid: Mid::new("9").unwrap(),
            codecs: vec![
                codec(Codec::Vp8, Pt(100), Some(Pt(101))),
                codec(Codec::Opus, Pt(109), None),
            ],
            extensions: extensions(),
            ssrc: Ssrc(number as u32),
            rtx_ssrc: Some(Ssrc(number as u32 + 10_000)),
            cname: "cname".into(),
            strip_packet_trailer: false,
            settings: SubscriptionSettings::default(),
        }
    }

    /// One RTP packet from a peer. The turn ends with `deliver`.
    pub fn send(&mut self, peer: usize, header: RtpHeader, elements: &[(Extension, &[u8])], payload: &[u8]) {
        self.send_with(peer, header, &extensions(), elements, payload);
    }

    /// As `send`, with other extension ids than everybody's.
    pub fn send_with(
        &mut self,
        peer: usize,
        header: RtpHeader,
        ids: &ExtensionMap,
        elements: &[(Extension, &[u8])],
        payload: &[u8],
    ) {
        let now = self.now;
        let peer = &mut self.peers[peer];
        let mut buf = vec![0; 2000];
        let header_len = header.write(&mut buf, ids, elements).unwrap().len;
        let len = header_len + payload.len();
        buf[header_len..len].copy_from_slice(payload);
        let (last, roc) = peer.sequences.entry(header.ssrc).or_insert((header.sequence, 0));
        *roc += u32::from(header.sequence < 1000 && *last > 60_000);
        *last = header.sequence;
        let roc = *roc;
        let len = peer.rtc.seal_rtp(&mut buf, header_len, len, roc).unwrap();
        let path = peer.path;
        self.shard.handle_datagram(now, path, &mut buf[..len]);
    }

    pub fn send_rtcp(&mut self, peer: usize, write: impl FnOnce(&mut rtcp::Writer<'_>) -> Result<(), DropReason>) {
        let now = self.now;
        let peer = &mut self.peers[peer];
        let mut buf = vec![0; 2000];
        let mut writer = rtcp::Writer::new(&mut buf);
        write(&mut writer).unwrap();
        let len = writer.len();
        let len = peer.rtc.seal_rtcp(&mut buf, len).unwrap();
        let path = peer.path;
        self.shard.handle_datagram(now, path, &mut buf[..len]);
    }

    /// Ends the turn: what the shard sends reaches the peers.
    pub fn deliver(&mut self) {
        self.deliver_slowly(Duration::ZERO);
    }

    /// Each transport's packets take so long to write.
    pub fn deliver_slowly(&mut self, takes: Duration) {
        let mut sent = Sent {
            takes,
            ..Sent::default()
        };
        self.shard.poll_transmit(self.now, &mut sent);
        for (path, mut datagram) in sent.datagrams {
            let Some(peer) = self.peers.iter_mut().find(|peer| peer.path == path) else {
                continue;
            };
            let back = NetPath {
                local: path.remote,
                remote: path.local,
                protocol: NetProtocol::Udp,
            };
            let sealed = datagram.clone();
            match peer.rtc.handle_datagram(self.now, back, &mut datagram) {
                Ok(Received::Rtp(packet)) => {
                    peer.sizes.push(sealed.len());
                    peer.rtp.push(Got { bytes: packet.to_vec() });
                }
                Ok(Received::Rtcp(packet)) => peer.rtcp.push(packet.to_vec()),
                Ok(Received::Consumed) => {}
                Err(DropReason::Replayed) => {}
                Err(reason) => panic!("{reason}"),
            }
            peer.sealed.push(sealed);
        }
    }

    /// Lets time pass, a millisecond at a time.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += Duration::from_millis(1);
            self.shard.handle_timeout(self.now);
            self.deliver();
        }
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.shard.poll_event()).collect()
    }

    pub fn take(&mut self, peer: usize) -> Vec<Got> {
        std::mem::take(&mut self.peers[peer].rtp)
    }

    /// How many packets of the RTCP that a peer got (and forgets) satisfy `want`.
    pub fn take_rtcp(&mut self, peer: usize, want: impl Fn(&rtcp::Packet<'_>) -> bool) -> usize {
        let compounds = std::mem::take(&mut self.peers[peer].rtcp);
        let count = |compound: &Vec<u8>| {
            rtcp::parse(compound)
                .filter(|packet| want(packet.as_ref().unwrap()))
                .count()
        };
        compounds.iter().map(count).sum()
    }

    pub fn opus(&mut self, peer: usize, ssrc: u32, sequence: u16) {
        let header = RtpHeader {
            marker: false,
            pt: OPUS,
            sequence,
            timestamp: u32::from(sequence) * 960,
            ssrc: Ssrc(ssrc),
        };
        self.send(
            peer,
            header,
            &[(Extension::Mid, b"0"), (Extension::AudioLevel, &[20])],
            &[sequence as u8; 60],
        );
    }

    /// One VP8 packet of a frame on mid "1".
    pub fn video(&mut self, peer: usize, ssrc: u32, sequence: u16, rid: &str, payload: &[u8]) {
        let header = RtpHeader {
            marker: true,
            pt: VP8,
            sequence,
            timestamp: u32::from(sequence) * 3000,
            ssrc: Ssrc(ssrc),
        };
        let mut elements = vec![(Extension::Mid, &b"1"[..])];
        if !rid.is_empty() {
            elements.push((Extension::Rid, rid.as_bytes()));
        }
        self.send(peer, header, &elements, payload);
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.shard.stats().dropped(reason)
    }
}
