//! A participant that sends: cameras and microphones after the model, data messages beside them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::proto::livekit::data_packet::Value;
use crate::proto::livekit::{
    AddTrackRequest, DataPacket, SimulcastCodec, TrackSource, TrackType, UserPacket, VideoLayer,
};
use prost::Message as _;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use str0m::Rtc;
use str0m::channel::ChannelId;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid, Pt, Rid, Simulcast, SimulcastLayer};
use str0m::rtp::{ExtensionValues, RtpWrite, SeqNo};

use super::model::{self, FrameSizes, Pacer};
use super::options::{Scenario, Video, VideoCodec};
use super::payload::{self, Part, STAMP, Stamp};
use super::tally::Tally;
use super::wall_clock;

const CAMERA: &str = "camera";
const MICROPHONE: &str = "microphone";
/// Noise that bodies are cut from.
const NOISE: usize = 4096;
/// Bytes of RTP header, extensions and SRTP tag beside a payload, about: for pacing only.
const BESIDE: usize = 50;

const MESSAGE_EVERY: Duration = Duration::from_millis(100);
const MESSAGE_BYTES: usize = 200;

struct Stream {
    mid: Mid,
    rid: Option<Rid>,
    pt: Pt,
    /// None = a voice.
    frames: Option<Vec<FrameSizes>>,
    next_at: Instant,
    every: Duration,
    frame: u32,
    sequence: u64,
    number: u64,
    id: u32,
    key_wanted: bool,
    key_at: Option<Instant>,
}

struct Queued {
    stream: usize,
    payload: Vec<u8>,
    body: usize,
    timestamp: u32,
    marker: bool,
}

pub struct Publisher {
    codec: VideoCodec,
    video: Video,
    camera: Option<Mid>,
    microphone: Option<Mid>,
    streams: Vec<Stream>,
    queue: VecDeque<Queued>,
    pacer: Pacer,
    noise: Vec<u8>,
    index: u32,
    /// Reliable and lossy.
    channels: [Option<ChannelId>; 2],
    message_at: Option<Instant>,
    messages: u64,
}

impl Publisher {
    /// `index` makes its streams differ from those of the others.
    pub fn new(scenario: &Scenario, index: u32) -> Self {
        let mut random = SmallRng::seed_from_u64(u64::from(index));
        let total = model::layers(scenario.video)
            .iter()
            .map(|layer| layer.bits_per_second)
            .sum();
        Self {
            codec: scenario.codec,
            video: scenario.video,
            camera: None,
            microphone: None,
            streams: Vec::new(),
            queue: VecDeque::new(),
            pacer: Pacer::new(total),
            noise: (0..NOISE).map(|_| random.random()).collect(),
            index,
            channels: [None; 2],
            message_at: None,
            messages: 0,
        }
    }

    /// Adds its media to the first offer.
    pub fn offer(&mut self, api: &mut str0m::change::SdpApi<'_>, scenario: &Scenario) {
        let stream = || Some("stream".to_owned());
        if scenario.video != Video::None {
            let simulcast = (scenario.video == Video::Simulcast).then(|| Simulcast {
                send: model::layers(scenario.video)
                    .iter()
                    .map(|layer| SimulcastLayer::new(layer.rid))
                    .collect(),
                recv: Vec::new(),
            });
            let mid = api.add_media(
                MediaKind::Video,
                Direction::SendOnly,
                stream(),
                Some(CAMERA.into()),
                simulcast,
            );
            self.camera = Some(mid);
        }
        if scenario.audio {
            let mid = api.add_media(
                MediaKind::Audio,
                Direction::SendOnly,
                stream(),
                Some(MICROPHONE.into()),
                None,
            );
            self.microphone = Some(mid);
        }
    }

    /// What is announced of them.
    pub fn announcements(scenario: &Scenario) -> Vec<AddTrackRequest> {
        let mut tracks = Vec::new();
        if scenario.video != Video::None {
            let layers = model::layers(scenario.video);
            let first = if layers.len() == 1 { 2 } else { 0 };
            let codec = match scenario.codec {
                VideoCodec::Vp8 => "vp8",
                VideoCodec::Vp9 => "vp9",
                VideoCodec::H264 => "h264",
                VideoCodec::Av1 => "av1",
            };
            tracks.push(AddTrackRequest {
                cid: CAMERA.into(),
                name: CAMERA.into(),
                r#type: TrackType::Video as i32,
                source: TrackSource::Camera as i32,
                width: 1280,
                height: 720,
                layers: (first..)
                    .zip(&layers)
                    .map(|(quality, layer)| VideoLayer {
                        quality,
                        width: layer.width.into(),
                        height: layer.height.into(),
                        bitrate: layer.bits_per_second,
                        ..VideoLayer::default()
                    })
                    .collect(),
                simulcast_codecs: vec![SimulcastCodec {
                    codec: codec.into(),
                    cid: CAMERA.into(),
                    ..SimulcastCodec::default()
                }],
                ..AddTrackRequest::default()
            });
        }
        if scenario.audio {
            tracks.push(AddTrackRequest {
                cid: MICROPHONE.into(),
                name: MICROPHONE.into(),
                r#type: TrackType::Audio as i32,
                source: TrackSource::Microphone as i32,
                ..AddTrackRequest::default()
            });
        }
        tracks
    }

    /// Tracks that the server is to confirm.
    pub fn tracks(&self) -> usize {
        usize::from(self.camera.is_some()) + usize::from(self.microphone.is_some())
    }

    /// The connection is up: sends from here on, each publisher at its own moment of the frame.
    pub fn start(&mut self, now: Instant, rtc: &mut Rtc, scenario: &Scenario) {
        let codec = match self.codec {
            VideoCodec::Vp8 => Codec::Vp8,
            VideoCodec::Vp9 => Codec::Vp9,
            VideoCodec::H264 => Codec::H264,
            VideoCodec::Av1 => Codec::Av1,
        };
        // The first that the server took: of H.264 and VP9 several profiles were offered.
        let pt = |mid: Option<Mid>, codec| {
            let negotiated = rtc.media(mid?)?.remote_pts();
            let params = rtc.codec_config().params().iter();
            let mut pts = params
                .filter(|params| params.spec().codec == codec)
                .map(|params| params.pt());
            pts.find(|pt| negotiated.contains(pt))
        };
        let (video, audio) = (pt(self.camera, codec), pt(self.microphone, Codec::Opus));
        let phase = |every: Duration| every * (self.index % 16) / 16;
        let mut streams = Vec::new();
        let mut add = |mid, rid, pt, frames: Option<Vec<FrameSizes>>| {
            let every = match frames {
                Some(_) => Duration::from_secs(1) / model::FRAMES_PER_SECOND,
                None => model::VOICE_EVERY,
            };
            let at = streams.len() as u32;
            streams.push(Stream {
                mid,
                rid,
                pt,
                frames,
                next_at: now + phase(every),
                every,
                frame: 0,
                sequence: 1000,
                number: 0,
                id: self.index << 4 | at,
                key_wanted: true,
                key_at: None,
            });
        };
        if let (Some(mid), Some(pt)) = (self.camera, video) {
            let layers = model::layers(self.video);
            let seed = u64::from(self.index) << 8;
            let mut sizes = (seed..)
                .zip(&layers)
                .map(|(seed, layer)| FrameSizes::new(layer.bits_per_second, seed));
            if self.video == Video::Simulcast {
                for (layer, sizes) in layers.iter().zip(sizes) {
                    add(mid, Some(Rid::from(layer.rid)), pt, Some(vec![sizes]));
                }
            } else {
                add(mid, None, pt, Some(sizes.by_ref().collect()));
            }
        }
        if let (Some(mid), Some(pt)) = (self.microphone, audio) {
            add(mid, None, pt, None);
        }
        self.streams = streams;
        for stream in &self.streams {
            if let Some(sender) = rtc.direct_api().stream_tx_by_mid(stream.mid, stream.rid) {
                // The model paces.
                sender.set_unpaced(true);
            }
        }
        self.message_at = scenario.data.then_some(now);
    }

    pub fn open_channel(&mut self, id: ChannelId, label: &str) {
        match label {
            "_reliable" => self.channels[0] = Some(id),
            "_lossy" => self.channels[1] = Some(id),
            _ => {}
        }
    }

    pub fn handle_key_frame_request(&mut self, mid: Mid, rid: Option<Rid>) {
        for stream in &mut self.streams {
            if stream.mid == mid && (rid.is_none() || stream.rid == rid) {
                stream.key_wanted = true;
            }
        }
    }

    /// When there is something to send.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        let queued = (!self.queue.is_empty()).then(|| self.pacer.next_at(now));
        let frames = self.streams.iter().map(|stream| stream.next_at);
        frames.chain(queued).chain(self.message_at).min()
    }

    /// Hands one packet that is due to `rtc`; false when there is none. The caller takes the output of `rtc` after each.
    pub fn send_one(&mut self, now: Instant, rtc: &mut Rtc, tally: &mut Tally) -> bool {
        while let Some(at) = self.streams.iter().position(|stream| stream.next_at <= now) {
            if let Some(voice) = self.make_frame(at, now) {
                // Voice is not paced.
                return self.write(voice, now, rtc, tally);
            }
        }
        if self.message_at.is_some_and(|at| at <= now) {
            self.send_message(now, rtc, tally);
            return true;
        }
        if self.pacer.next_at(now) <= now
            && let Some(packet) = self.queue.pop_front()
        {
            self.pacer.sent(now, packet.payload.len() + BESIDE);
            return self.write(packet, now, rtc, tally);
        }
        false
    }

    /// Queues the next frame of a stream; a voice has only one packet, which is returned.
    fn make_frame(&mut self, at: usize, now: Instant) -> Option<Queued> {
        let stream = self.streams.get_mut(at)?;
        stream.next_at += stream.every;
        let picture = stream.frame;
        stream.frame = stream.frame.wrapping_add(1);
        let Some(layers) = &mut stream.frames else {
            let timestamp = picture.wrapping_mul(960);
            return Some(Queued {
                stream: at,
                payload: cut(&self.noise, picture, model::VOICE_BYTES),
                body: model::VOICE_BYTES,
                timestamp,
                marker: picture == 0,
            });
        };
        let may = stream.key_at.is_none_or(|at| now >= at + model::KEY_FRAMES_APART);
        let key = stream.key_wanted && may;
        if key {
            stream.key_wanted = false;
            stream.key_at = Some(now);
        }
        let timestamp = picture.wrapping_mul(90_000 / model::FRAMES_PER_SECOND);
        let of = layers.len() as u8;
        for (spatial, sizes) in (0..of).zip(layers) {
            let size = sizes.next(key).max(STAMP);
            let least = payload::least_parts(self.codec, key);
            let most = model::MAX_PAYLOAD - payload::MAX_DESCRIPTOR;
            let parts: Vec<usize> = model::split(size, most, least).map(|body| body.max(STAMP)).collect();
            for (number, body) in parts.iter().enumerate() {
                let part = Part {
                    first: number == 0,
                    last: number + 1 == parts.len(),
                    key,
                    picture,
                    layer: (of > 1).then_some((spatial, of)),
                };
                let mut payload = Vec::with_capacity(model::MAX_PAYLOAD);
                payload::describe(self.codec, part, *body, &mut payload);
                // What only the first packet has before its body is of the frame, which is cut evenly: as libwebrtc does,
                // whose packets of a frame differ by one byte.
                let body = (body + payload::usual_descriptor(self.codec, part)).saturating_sub(payload.len());
                let body = body.max(STAMP);
                if self.codec == VideoCodec::H264 {
                    payload.clear();
                    payload::describe(self.codec, part, body, &mut payload);
                }
                payload.extend(cut(&self.noise, picture.wrapping_add(number as u32), body));
                self.queue.push_back(Queued {
                    stream: at,
                    payload,
                    body,
                    timestamp,
                    marker: part.last && spatial + 1 == of,
                });
            }
        }
        None
    }

    fn write(&mut self, mut packet: Queued, now: Instant, rtc: &mut Rtc, tally: &mut Tally) -> bool {
        let Some(stream) = self.streams.get_mut(packet.stream) else {
            return true;
        };
        stream.number += 1;
        let stamp = Stamp {
            stream: stream.id,
            number: stream.number,
            sent: wall_clock().as_nanos() as u64,
        };
        stamp.write(&mut packet.payload, packet.body);
        let mut api = rtc.direct_api();
        let Some(sender) = api.stream_tx_by_mid(stream.mid, stream.rid) else {
            return true;
        };
        let bytes = packet.payload.len();
        let voice = stream.frames.is_none();
        let mut write = RtpWrite::new(
            stream.pt,
            SeqNo::from(stream.sequence),
            packet.timestamp,
            now,
            packet.payload,
        )
        .marker(packet.marker)
        .nackable(!voice);
        if voice {
            write = write.ext_vals(ExtensionValues {
                audio_level: Some(-20),
                voice_activity: Some(true),
                ..ExtensionValues::default()
            });
        }
        sender.write_rtp(write);
        stream.sequence += 1;
        if tally.measuring {
            tally.sent += 1;
            tally.sent_bytes += bytes as u64;
        }
        true
    }

    fn send_message(&mut self, now: Instant, rtc: &mut Rtc, tally: &mut Tally) {
        self.message_at = Some(now + MESSAGE_EVERY);
        let lossy = self.messages % 2 == 1;
        self.messages += 1;
        let Some(id) = self.channels[usize::from(lossy)] else {
            return;
        };
        let mut body = cut(&self.noise, self.messages as u32, MESSAGE_BYTES);
        let stamp = Stamp {
            stream: self.index << 4,
            number: self.messages,
            sent: wall_clock().as_nanos() as u64,
        };
        stamp.write(&mut body, MESSAGE_BYTES);
        let packet = DataPacket {
            value: Some(Value::User(UserPacket {
                payload: body,
                ..UserPacket::default()
            })),
            ..DataPacket::default()
        };
        if let Some(mut channel) = rtc.channel(id)
            && channel.write(true, &packet.encode_to_vec()).unwrap_or(false)
            && tally.measuring
        {
            tally.messages_sent += 1;
        }
    }
}

fn cut(noise: &[u8], at: u32, length: usize) -> Vec<u8> {
    let start = (at as usize * 61) % (noise.len() - model::MAX_PAYLOAD);
    noise[start..start + length].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_announced_with_its_layers() {
        let scenario = Scenario {
            rooms: 1,
            publishers: 1,
            subscribers: 1,
            verify: 0,
            video: Video::Simulcast,
            audio: true,
            data: false,
            codec: VideoCodec::Vp8,
            duration: Duration::from_secs(1),
            join_every: Duration::ZERO,
            gro: true,
            relay: false,
            garbage: 0,
            resume_every: None,
        };
        let tracks = Publisher::announcements(&scenario);
        assert_eq!(tracks.len(), 2);
        assert_eq!(
            tracks[0].layers.iter().map(|layer| layer.quality).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(tracks[0].layers[2].height, 720);
        let single = Scenario {
            video: Video::P720,
            ..scenario
        };
        assert_eq!(Publisher::announcements(&single)[0].layers[0].quality, 2);
    }
}
