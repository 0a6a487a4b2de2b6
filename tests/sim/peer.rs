//! A client: str0m in RTP mode, with streams to send and a record of what arrived.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use patchbay::types::{
    ChannelLabel, Codec, CodecParameters, Extension, ExtensionMap, IceCredentials, MediaKind, ParticipantHandle, Pt,
    TransportHandle,
};
use str0m::{
    Candidate, Event, IceConnectionState, Input, Output, Rtc,
    channel::{ChannelConfig, ChannelId, Reliability},
    config::Fingerprint,
    media::{KeyframeRequestKind, Mid, Pt as PeerPt, Rid},
    net::{Protocol, Receive},
    rtp::{ExtensionValues, RtpWrite, SeqNo, Ssrc as PeerSsrc},
};

use crate::media::{Source, Tag};

pub struct Peer {
    pub rtc: Rtc,
    pub address: SocketAddr,
    pub participant: ParticipantHandle,
    pub transport: TransportHandle,
    pub wake_at: Instant,
    pub connected: bool,
    pub closed: bool,
    pub outgoing: Vec<Outgoing>,
    pub incoming: BTreeMap<u32, Incoming>,
    pub channels: BTreeMap<&'static str, ChannelId>,
    pub messages: Vec<(Instant, String, Vec<u8>)>,
    pub keyframe_requests: u32,
}

/// A stream this peer sends.
pub struct Outgoing {
    pub mid: Mid,
    pub ssrc: PeerSsrc,
    pub pt: PeerPt,
    pub source: Source,
    pub next_frame_at: Instant,
    pub active: bool,
    sequence: u64,
    /// Audio level in -dBov, sent in the header extension.
    pub level: i8,
}

/// A stream this peer receives.
#[derive(Default)]
pub struct Incoming {
    pub packets: Vec<Packet>,
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub at: Instant,
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub tag: Option<Tag>,
    pub payload: Vec<u8>,
}

impl Incoming {
    /// Tags in order of sequence, each once.
    pub fn tags(&self) -> Vec<Tag> {
        let mut packets: Vec<_> = self
            .packets
            .iter()
            .filter_map(|packet| Some((packet.sequence, packet.tag?)))
            .collect();
        packets.sort();
        packets.dedup();
        packets.into_iter().map(|(_, tag)| tag).collect()
    }

    /// Frames of which every part arrived.
    pub fn whole_frames(&self) -> Vec<u32> {
        let mut parts: BTreeMap<(u8, u32), (u8, u8)> = BTreeMap::new();
        let mut tags = self.tags();
        tags.sort();
        tags.dedup();
        for tag in tags {
            let entry = parts.entry((tag.encoding, tag.frame)).or_insert((0, tag.parts));
            entry.0 += 1;
        }
        parts
            .into_iter()
            .filter(|(_, (have, of))| have == of)
            .map(|((_, frame), _)| frame)
            .collect()
    }

    /// Sequence numbers that never arrived, between the first and the last that did.
    pub fn missing(&self) -> Vec<u64> {
        let have: std::collections::BTreeSet<u64> = self.packets.iter().map(|packet| packet.sequence).collect();
        match (have.first(), have.last()) {
            (Some(first), Some(last)) => (*first..=*last).filter(|sequence| !have.contains(sequence)).collect(),
            _ => Vec::new(),
        }
    }

    /// The longest time without a packet.
    pub fn longest_gap(&self) -> Duration {
        self.packets
            .windows(2)
            .map(|pair| pair[1].at - pair[0].at)
            .max()
            .unwrap_or_default()
    }
}

impl Peer {
    pub fn new(
        address: SocketAddr,
        server: SocketAddr,
        participant: ParticipantHandle,
        transport: TransportHandle,
        now: Instant,
    ) -> Self {
        let mut config = Rtc::builder()
            .set_rtp_mode(true)
            .enable_opus(true, true)
            .enable_pcmu(true, false)
            .enable_pcma(true, false)
            .enable_h265(true)
            .enable_raw_packets(false);
        config.extension_map().set(13, str0m::rtp::Extension::VideoOrientation);
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a host candidate"));
        rtc.add_remote_candidate(Candidate::host(server, "udp").expect("a host candidate"));
        Self {
            rtc,
            address,
            participant,
            transport,
            wake_at: now,
            connected: false,
            closed: false,
            outgoing: Vec::new(),
            incoming: BTreeMap::new(),
            channels: BTreeMap::new(),
            messages: Vec::new(),
            keyframe_requests: 0,
        }
    }

    pub fn credentials(&mut self) -> IceCredentials {
        let local = self.rtc.direct_api().local_ice_credentials();
        IceCredentials {
            ufrag: local.ufrag,
            pwd: local.pass,
        }
    }

    pub fn fingerprint(&mut self) -> [u8; 32] {
        let bytes = self.rtc.direct_api().local_dtls_fingerprint().bytes.clone();
        bytes.try_into().expect("a SHA-256 fingerprint")
    }

    /// Starts ICE (controlling) and DTLS as the client.
    pub fn connect(&mut self, server: &IceCredentials, fingerprint: [u8; 32]) {
        let mut api = self.rtc.direct_api();
        api.set_ice_controlling(true);
        api.set_remote_ice_credentials(str0m::IceCreds {
            ufrag: server.ufrag.clone(),
            pass: server.pwd.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: fingerprint.to_vec(),
        });
        api.start_dtls(true).expect("DTLS starts");
        api.start_sctp(true);
        api.enable_twcc_feedback();
    }

    pub fn open_channel(&mut self, label: ChannelLabel) {
        let id = self.rtc.direct_api().create_data_channel(ChannelConfig {
            label: label.as_str().to_owned(),
            ordered: label == ChannelLabel::Reliable,
            reliability: match label {
                ChannelLabel::Reliable => Reliability::Reliable,
                _ => Reliability::MaxRetransmits { retransmits: 0 },
            },
            ..Default::default()
        });
        self.channels.insert(label.as_str(), id);
    }

    pub fn send_message(&mut self, label: ChannelLabel, data: &[u8]) -> bool {
        let id = self.channels[label.as_str()];
        let mut channel = self.rtc.channel(id).expect("an open channel");
        channel.write(true, data).expect("a write")
    }

    /// What this client offers for a codec, in the server's words.
    pub fn codec_parameters(&mut self, codec: Codec) -> CodecParameters {
        let wanted = match codec {
            // RED is a second payload type of the codec inside it.
            Codec::Opus | Codec::Red => str0m::format::Codec::Opus,
            Codec::Pcmu => str0m::format::Codec::PCMU,
            Codec::Pcma => str0m::format::Codec::PCMA,
            Codec::Vp8 => str0m::format::Codec::Vp8,
            Codec::Vp9 => str0m::format::Codec::Vp9,
            Codec::H264 => str0m::format::Codec::H264,
            Codec::H265 => str0m::format::Codec::H265,
            Codec::Av1 => str0m::format::Codec::Av1,
        };
        let params = self
            .rtc
            .codec_config()
            .params()
            .iter()
            .find(|params| params.spec().codec == wanted);
        let params = params.unwrap_or_else(|| panic!("the peer has no {codec:?}"));
        let video = codec.kind() == MediaKind::Video;
        let pt = match codec {
            Codec::Red => params.red().expect("Opus with RED"),
            _ => params.pt(),
        };
        CodecParameters {
            pt: Pt(*pt),
            codec,
            rtx: params.resend().map(|pt| Pt(*pt)),
            nack: video,
            pli: video,
            fir: video,
            transport_cc: true,
            remb: false,
            fmtp: String::new(),
        }
    }

    /// Both directions use the ids of `ExtensionMap::standard` of str0m.
    pub fn extensions(&self) -> ExtensionMap {
        let mut map = ExtensionMap::default();
        map.insert(Extension::AudioLevel, 1);
        map.insert(Extension::AbsSendTime, 2);
        map.insert(Extension::TransportCc, 3);
        map.insert(Extension::Mid, 4);
        map.insert(Extension::Rid, 10);
        map.insert(Extension::RepairedRid, 11);
        map.insert(Extension::VideoOrientation, 13);
        map
    }

    pub fn add_outgoing(
        &mut self,
        mid: &str,
        rid: Option<&str>,
        ssrc: u32,
        rtx: Option<u32>,
        source: Source,
        now: Instant,
    ) {
        let pt = self.codec_parameters(source.codec).pt;
        let kind = match source.codec.kind() {
            MediaKind::Audio => str0m::media::MediaKind::Audio,
            MediaKind::Video => str0m::media::MediaKind::Video,
        };
        let mid = Mid::from(mid);
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, kind);
        let stream = api.declare_stream_tx(ssrc.into(), rtx.map(PeerSsrc::from), mid, rid.map(Rid::from));
        // Recovery is what is tested here: the default cap would throw resends away under heavy loss.
        stream.set_rtx_cache(1024, Duration::from_secs(3), None);
        self.outgoing.push(Outgoing {
            mid,
            ssrc: ssrc.into(),
            pt: PeerPt::from(pt.0),
            source,
            next_frame_at: now,
            active: true,
            sequence: 1_000,
            level: -20,
        });
    }

    pub fn expect_incoming(&mut self, mid: &str, kind: MediaKind, ssrc: u32, rtx: Option<u32>) {
        let kind = match kind {
            MediaKind::Audio => str0m::media::MediaKind::Audio,
            MediaKind::Video => str0m::media::MediaKind::Video,
        };
        let mid = Mid::from(mid);
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, kind);
        api.expect_stream_rx(ssrc.into(), rtx.map(PeerSsrc::from), mid, None);
        self.incoming.insert(ssrc, Incoming::default());
    }

    pub fn request_keyframe(&mut self, ssrc: u32) {
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, contents: &[u8]) {
        if let Ok(receive) = Receive::new(Protocol::Udp, source, self.address, contents) {
            // A peer that refuses input has died; stories assert on `closed`.
            if self.rtc.handle_input(Input::Receive(now, receive)).is_err() {
                self.closed = true;
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.closed = true;
        }
    }

    /// When the next frame of any active stream is due.
    pub fn next_frame_at(&self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        self.outgoing
            .iter()
            .filter(|outgoing| outgoing.active)
            .map(|outgoing| outgoing.next_frame_at)
            .min()
    }

    pub fn send_due_frames(&mut self, now: Instant) {
        for outgoing in &mut self.outgoing {
            if !outgoing.active || outgoing.next_frame_at > now {
                continue;
            }
            outgoing.next_frame_at = now + outgoing.source.frame_interval();
            let frame = outgoing.source.next_frame();
            let last = frame.payloads.len() - 1;
            for (index, payload) in frame.payloads.into_iter().enumerate() {
                let sequence = SeqNo::from(outgoing.sequence);
                outgoing.sequence += 1;
                let mut api = self.rtc.direct_api();
                let stream = api.stream_tx(&outgoing.ssrc).expect("a declared stream");
                let write = RtpWrite::new(outgoing.pt, sequence, frame.timestamp, now, payload)
                    .marker(index == last)
                    .nackable(true)
                    .ext_vals(ExtensionValues {
                        audio_level: (outgoing.source.codec.kind() == MediaKind::Audio).then_some(outgoing.level),
                        ..Default::default()
                    });
                stream.write_rtp(write);
                // One packet at a time is how the API wants it: each mutation is followed by input and a drain.
            }
        }
        self.handle_timeout(now);
    }

    /// Everything to be sent now; sets `wake_at`.
    pub fn drain(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sends = Vec::new();
        // A closed peer has nothing more to say.
        while !self.closed && self.rtc.is_alive() {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(transmit)) => sends.push((transmit.destination, transmit.contents.to_vec())),
                Ok(Output::Event(event)) => self.handle_event(now, event),
                Ok(Output::Timeout(at)) => {
                    self.wake_at = at;
                    return sends;
                }
                Err(_) => self.closed = true,
            }
        }
        self.closed = true;
        self.wake_at = now + Duration::from_secs(3600);
        sends
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected => {
                self.connected = true;
                for outgoing in &mut self.outgoing {
                    outgoing.next_frame_at = now;
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => self.connected = false,
            Event::RtpPacket(packet) => {
                let incoming = self.incoming.entry(*packet.header.ssrc).or_default();
                incoming.packets.push(Packet {
                    at: now,
                    sequence: *packet.seq_no,
                    timestamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    tag: Tag::read(&packet.payload),
                    payload: packet.payload.to_vec(),
                });
            }
            Event::KeyframeRequest(request) => {
                self.keyframe_requests += 1;
                for outgoing in self.outgoing.iter_mut().filter(|outgoing| outgoing.mid == request.mid) {
                    outgoing.source.request_keyframe();
                }
            }
            Event::ChannelOpen(id, label) => {
                for known in [ChannelLabel::Reliable, ChannelLabel::Lossy, ChannelLabel::DataTrack] {
                    if known.as_str() == label {
                        self.channels.insert(known.as_str(), id);
                    }
                }
            }
            Event::ChannelData(data) => {
                let label = self
                    .channels
                    .iter()
                    .find(|(_, id)| **id == data.id)
                    .map_or("", |(label, _)| label);
                self.messages.push((now, label.to_owned(), data.data));
            }
            Event::Closed => self.closed = true,
            _ => {}
        }
    }
}
