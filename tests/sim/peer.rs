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
    bwe::Bitrate,
    channel::{ChannelConfig, ChannelId, Reliability},
    config::Fingerprint,
    media::{KeyframeRequestKind, Mid, Pt as PeerPt, Rid},
    net::{Protocol, Receive},
    rtp::{Extension as PeerExtension, ExtensionSerializer, ExtensionValues, RtpWrite, SeqNo, Ssrc as PeerSsrc},
};

use crate::{
    media::{Source, Tag},
    receiver::Receiver,
    remb::RembEstimator,
};

/// Bytes of a packet beside its payload, about.
const RTP_AND_UDP: usize = 70;

/// Of a video payload, for looking at descriptors.
const KEPT_OF_VIDEO: usize = 32;

/// What a peer tells the server of its downlink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Feedback {
    /// Transport-wide, as browsers do.
    #[default]
    TransportWide,
    /// An estimate of its own by REMB.
    Remb,
    None,
}

/// A dependency descriptor as str0m carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorBytes(pub Vec<u8>);

/// An extension that str0m does not know.
#[derive(Debug)]
struct DescriptorExtension;

impl ExtensionSerializer for DescriptorExtension {
    fn write_to(&self, buf: &mut [u8], ev: &ExtensionValues) -> usize {
        let Some(DescriptorBytes(bytes)) = ev.user_values.get::<DescriptorBytes>() else {
            return 0;
        };
        buf[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], ev: &mut ExtensionValues) -> bool {
        ev.user_values.set(DescriptorBytes(buf.to_vec()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, ev: &ExtensionValues) -> bool {
        ev.user_values
            .get::<DescriptorBytes>()
            .is_some_and(|DescriptorBytes(bytes)| bytes.len() > 16)
    }
}

pub struct Peer {
    pub rtc: Rtc,
    pub feedback: Feedback,
    pub remb: RembEstimator,
    /// Something was asked of `rtc` whose output has not been taken.
    pub has_output: bool,
    /// Datagrams of the frame that was written last.
    unsent: Vec<(SocketAddr, Vec<u8>)>,

    pub address: SocketAddr,
    pub participant: ParticipantHandle,
    pub transport: TransportHandle,
    pub wake_at: Instant,
    pub connected: bool,
    pub closed: bool,
    /// Why it has given up.
    pub ended: Option<String>,
    pub outgoing: Vec<Outgoing>,
    pub incoming: BTreeMap<u32, Incoming>,
    pub channels: BTreeMap<&'static str, ChannelId>,
    pub messages: Vec<(Instant, String, Vec<u8>)>,
    pub keyframe_requests: u32,
    /// When, and of which layer.
    pub requested_keyframes: Vec<(Instant, Option<Rid>)>,
}

/// A stream this peer sends.
pub struct Outgoing {
    pub mid: Mid,
    pub rid: Option<Rid>,
    pub ssrc: PeerSsrc,
    pub pt: PeerPt,
    pub source: Source,
    pub next_frame_at: Instant,
    /// Switched off, time goes on without frames; the first one afterwards is a key frame.
    pub active: bool,
    /// What was sent, and when: the tag of the first part.
    pub frames: Vec<(Instant, Tag)>,
    /// Of each of those frames: bytes of RTP payload.
    pub sizes: Vec<usize>,
    sequence: u64,
    /// Audio level in -dBov, sent in the header extension.
    pub level: i8,
}

/// A stream this peer receives.
#[derive(Default)]
pub struct Incoming {
    pub packets: Vec<Packet>,
    pub receiver: Receiver,
    kind: Option<MediaKind>,
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub at: Instant,
    pub sequence: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub tag: Option<Tag>,
    /// Cut behind what descriptors need, for memory's sake.
    pub payload: Vec<u8>,
    /// Empty when the packet had none.
    pub descriptor: Vec<u8>,
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
        let mut parts: BTreeMap<(u8, u32), (u16, u16)> = BTreeMap::new();
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
        feedback: Feedback,
        now: Instant,
    ) -> Self {
        let mut config = Rtc::builder()
            .set_rtp_mode(true)
            .enable_opus(true, true)
            .enable_pcmu(true, false)
            .enable_pcma(true, false)
            .enable_h265(true)
            .enable_raw_packets(false);
        config.extension_map().set(13, PeerExtension::VideoOrientation);
        let descriptor = PeerExtension::with_serializer(Extension::DependencyDescriptor.uri(), DescriptorExtension);
        config.extension_map().set(12, descriptor);
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a host candidate"));
        rtc.add_remote_candidate(Candidate::host(server, "udp").expect("a host candidate"));
        Self {
            rtc,
            feedback,
            remb: RembEstimator::default(),
            has_output: true,
            unsent: Vec::new(),
            address,
            participant,
            transport,
            wake_at: now,
            connected: false,
            closed: false,
            ended: None,
            outgoing: Vec::new(),
            incoming: BTreeMap::new(),
            channels: BTreeMap::new(),
            messages: Vec::new(),
            keyframe_requests: 0,
            requested_keyframes: Vec::new(),
        }
    }

    /// To another interface; the one of before is gone.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.has_output = true;
        let candidate = |address| Candidate::host(address, "udp").expect("a host candidate");
        self.rtc.add_local_candidate(candidate(address));
        self.rtc.direct_api().invalidate_candidate(&candidate(self.address));
        self.address = address;
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
        if self.feedback == Feedback::TransportWide {
            api.enable_twcc_feedback();
        }
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
        self.has_output = true;
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
            transport_cc: self.feedback == Feedback::TransportWide,
            remb: self.feedback == Feedback::Remb,
            fmtp: String::new(),
        }
    }

    /// Both directions use the ids of `ExtensionMap::standard` of str0m.
    pub fn extensions(&self) -> ExtensionMap {
        let mut map = ExtensionMap::default();
        map.insert(Extension::AudioLevel, 1);
        map.insert(Extension::AbsSendTime, 2);
        if self.feedback == Feedback::TransportWide {
            map.insert(Extension::TransportCc, 3);
        }
        map.insert(Extension::Mid, 4);
        map.insert(Extension::Rid, 10);
        map.insert(Extension::RepairedRid, 11);
        map.insert(Extension::DependencyDescriptor, 12);
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
            rid: rid.map(Rid::from),
            ssrc: ssrc.into(),
            pt: PeerPt::from(pt.0),
            source,
            next_frame_at: now,
            active: true,
            frames: Vec::new(),
            sizes: Vec::new(),
            sequence: 1_000,
            level: -20,
        });
    }

    /// Sends from `source` on a stream that a description has declared.
    pub fn send_on(&mut self, mid: Mid, rid: Option<Rid>, source: Source, now: Instant) {
        let pt = self.codec_parameters(source.codec).pt;
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, rid).expect("a described stream");
        stream.set_rtx_cache(1024, Duration::from_secs(3), None);
        let ssrc = stream.ssrc();
        self.outgoing.push(Outgoing {
            mid,
            rid,
            ssrc,
            pt: PeerPt::from(pt.0),
            source,
            next_frame_at: now,
            active: true,
            frames: Vec::new(),
            sizes: Vec::new(),
            sequence: 1_000,
            level: -20,
        });
    }

    pub fn expect_incoming(&mut self, mid: &str, kind_of: MediaKind, ssrc: u32, rtx: Option<u32>) {
        self.has_output = true;
        let kind = match kind_of {
            MediaKind::Audio => str0m::media::MediaKind::Audio,
            MediaKind::Video => str0m::media::MediaKind::Video,
        };
        let mid = Mid::from(mid);
        let mut api = self.rtc.direct_api();
        api.declare_media(mid, kind);
        let stream = api.expect_stream_rx(ssrc.into(), rtx.map(PeerSsrc::from), mid, None);
        // Sound is described without NACK. Besides, str0m reports on its streams in no particular order.
        stream.suppress_nack(kind_of == MediaKind::Audio);
        let incoming = Incoming {
            kind: Some(kind_of),
            ..Incoming::default()
        };
        self.incoming.insert(ssrc, incoming);
    }

    pub fn request_keyframe(&mut self, ssrc: u32) {
        self.has_output = true;
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }

    pub fn handle_datagram(&mut self, now: Instant, source: SocketAddr, contents: &[u8]) {
        self.has_output = true;
        if let Ok(receive) = Receive::new(Protocol::Udp, source, self.address, contents) {
            // A peer that refuses input has died; stories assert on `closed`.
            if self.rtc.handle_input(Input::Receive(now, receive)).is_err() {
                self.closed = true;
            }
        }
    }

    /// When this peer has something to do by itself, beside its frames.
    pub fn wake_at(&self) -> Instant {
        let receivers = self
            .incoming
            .values()
            .filter_map(|incoming| incoming.receiver.poll_timeout());
        receivers.fold(self.wake_at, Instant::min)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let mut stalled = Vec::new();
        for (ssrc, incoming) in &mut self.incoming {
            if incoming.receiver.poll_timeout().is_some_and(|at| at <= now) && incoming.receiver.handle_timeout(now) {
                stalled.push(*ssrc);
            }
        }
        for ssrc in stalled {
            self.request_keyframe(ssrc);
        }
        self.has_output = true;
        if self.rtc.handle_input(Input::Timeout(now)).is_err() {
            self.closed = true;
        }
    }

    /// When the next frame of any active stream is due.
    pub fn next_frame_at(&self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        self.outgoing.iter().map(|outgoing| outgoing.next_frame_at).min()
    }

    pub fn send_due_frames(&mut self, now: Instant) {
        for index in 0..self.outgoing.len() {
            let outgoing = &mut self.outgoing[index];
            if outgoing.next_frame_at > now {
                continue;
            }
            outgoing.next_frame_at = now + outgoing.source.frame_interval();
            if !outgoing.active {
                outgoing.source.skip_frame();
                outgoing.source.request_keyframe();
                continue;
            }
            let Some(frame) = outgoing.source.next_frame() else {
                continue;
            };
            let first = frame.parts.first().and_then(|part| Tag::read(&part.payload));
            if let Some(tag) = first {
                outgoing.frames.push((now, tag));
                let size = frame.parts.iter().map(|part| part.payload.len()).sum();
                outgoing.sizes.push(size);
            }
            for part in frame.parts {
                let sequence = SeqNo::from(outgoing.sequence);
                outgoing.sequence += 1;
                let is_audio = outgoing.source.codec.kind() == MediaKind::Audio;
                let mut values = ExtensionValues {
                    audio_level: is_audio.then_some(outgoing.level),
                    // str0m writes both or neither.
                    voice_activity: is_audio.then_some(outgoing.level > -50),
                    ..Default::default()
                };
                if let Some(descriptor) = part.descriptor {
                    values.user_values.set(DescriptorBytes(descriptor));
                }
                let mut api = self.rtc.direct_api();
                let stream = api.stream_tx(&outgoing.ssrc).expect("a declared stream");
                let write = RtpWrite::new(outgoing.pt, sequence, frame.timestamp, now, part.payload)
                    .marker(part.marker)
                    .nackable(true)
                    .ext_vals(values);
                stream.write_rtp(write);
            }
            // Stream by stream: str0m keeps streams in a table without order, and a replay has to be one.
            self.handle_timeout(now);
            let datagrams = self.drain(now);
            self.unsent.extend(datagrams);
        }
        self.handle_timeout(now);
    }

    /// Everything to be sent now; sets `wake_at`.
    pub fn drain(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sends = std::mem::take(&mut self.unsent);
        self.has_output = false;
        // A closed peer has nothing more to say.
        while !self.closed && self.rtc.is_alive() {
            match self.rtc.poll_output() {
                // From an interface that is gone nothing leaves.
                Ok(Output::Transmit(transmit)) if transmit.source != self.address => {}
                Ok(Output::Transmit(transmit)) => sends.push((transmit.destination, transmit.contents.to_vec())),
                Ok(Output::Event(event)) => self.handle_event(now, event),
                Ok(Output::Timeout(at)) => {
                    self.wake_at = at;
                    return sends;
                }
                Err(error) => {
                    self.ended = Some(error.to_string());
                    self.closed = true;
                }
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
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed)
                if self.ended.take().is_some() =>
            {
                self.connected = true;
                for outgoing in &mut self.outgoing {
                    outgoing.next_frame_at = now;
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                self.ended = Some("no answers to connectivity checks".into());
                self.connected = false;
            }
            Event::RtpPacket(packet) => {
                let ssrc = packet.header.ssrc;
                if !self.incoming.contains_key(&*ssrc) {
                    // One that signalling has told of.
                    let mid = self.rtc.direct_api().stream_rx(&ssrc).map(|stream| stream.mid());
                    let media = mid.and_then(|mid| self.rtc.media(mid));
                    let kind = match media.map(|media| media.kind()) {
                        Some(str0m::media::MediaKind::Video) => MediaKind::Video,
                        _ => MediaKind::Audio,
                    };
                    let incoming = Incoming {
                        kind: Some(kind),
                        ..Incoming::default()
                    };
                    self.incoming.insert(*ssrc, incoming);
                }
                let incoming = self.incoming.entry(*ssrc).or_default();
                let descriptor = packet.header.ext_vals.user_values.get::<DescriptorBytes>();
                let tag = Tag::read(&packet.payload);
                let sent = packet.header.ext_vals.abs_send_time;
                if let Some(sent) = sent.filter(|_| self.feedback == Feedback::Remb) {
                    let estimate = self.remb.handle_packet(now, sent, packet.payload.len() + RTP_AND_UDP);
                    if let (Some(estimate), Some(stream)) =
                        (estimate, self.rtc.direct_api().stream_rx(&packet.header.ssrc))
                    {
                        stream.request_remb(Bitrate::bps(estimate));
                        self.has_output = true;
                    }
                }
                let (sequence, timestamp, marker) = (*packet.seq_no, packet.header.timestamp, packet.header.marker);
                // Sound is kept whole, for its redundancy.
                let keep = match incoming.kind {
                    Some(MediaKind::Video) => packet.payload.len().min(KEPT_OF_VIDEO),
                    _ => packet.payload.len(),
                };
                incoming.packets.push(Packet {
                    at: now,
                    sequence,
                    timestamp,
                    marker,
                    tag,
                    payload: packet.payload[..keep].to_vec(),
                    descriptor: descriptor.map(|bytes| bytes.0.clone()).unwrap_or_default(),
                });
                if incoming.kind == Some(MediaKind::Video) {
                    incoming.receiver.handle_packet(now, sequence, marker, tag);
                }
            }
            Event::KeyframeRequest(request) => {
                self.keyframe_requests += 1;
                self.requested_keyframes.push((now, request.rid));
                let asked = |outgoing: &&mut Outgoing| outgoing.mid == request.mid && outgoing.rid == request.rid;
                for outgoing in self.outgoing.iter_mut().filter(asked) {
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
