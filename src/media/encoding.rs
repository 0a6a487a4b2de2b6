//! One RTP stream of a published track: its numbering, its packets, what the publisher is asked for.
//!
//! Owned by a `Track`, driven by `Track::on_rtp` and by the track's timer. Never knows a subscriber: it stores what came
//! and says what it is.

use std::time::{Duration, Instant};

use super::edge::EncodingParameters;
use super::layers::{Cut, EVERYTHING, LayerMap, LayerMarks, Meter, SPATIAL, TEMPORAL};
use super::nack::NackGenerator;
use super::receiver_stats::ReceiverStats;
use super::rewrite::Source;
use super::ring::{PacketInfo, PictureNumbers, Ring, RingLimits, Stored};
use crate::rtp::dependency_descriptor::{self, Structure};
use crate::rtp::sequence::Extender;
use crate::rtp::{self, FrameInfo, RtpPacket, vp8, vp9};
use crate::types::{Codec, DropReason, Extension, ExtensionMap, Layer, MediaKind, Ssrc};

/// Two requests a second at most, whoever asks (LiveKit: two of the low layer, one of the others). The second may follow
/// soon: a request or the key frame may be lost.
const KEYFRAME_RETRY: Duration = Duration::from_millis(300);
const KEYFRAME_PERIOD: Duration = Duration::from_millis(1000);
/// Requests in a row without an answer; then somebody has to ask again.
const KEYFRAME_TRIES: u8 = 10;

/// What of the ring a subscriber is sent at once when it begins: a key frame and what little followed it.
const REPLAY_FRAMES: u32 = 3;
const REPLAY_PACKETS: u64 = 96;
const REPLAY_SPAN: Duration = Duration::from_millis(400);

/// The publisher's last sender report: which media time it says is which wall-clock time.
#[derive(Clone, Copy, Debug)]
pub struct SenderReportAnchor {
    /// 64-bit NTP, the publisher's clock.
    pub ntp: u64,
    pub timestamp: u32,
    pub arrival: Instant,
}

impl SenderReportAnchor {
    /// What to add to a timestamp of `other`'s stream to get this stream's at the same moment. Both count `clock_rate`.
    pub fn ticks_from(&self, other: &Self, clock_rate: u32) -> u32 {
        // 32.32 fixed-point seconds times Hz; a difference beyond a day is another clock and wraps harmlessly.
        let later = i128::from(other.ntp) - i128::from(self.ntp);
        let ticks = (later * i128::from(clock_rate)) >> 32;
        self.timestamp.wrapping_add(ticks as u32).wrapping_sub(other.timestamp)
    }
}

/// A packet that was taken in: what fanout needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrived {
    pub source: Source,
    pub sequence: u64,
    /// It came behind a newer one.
    pub late: bool,
    /// No packet with its timestamp came before it.
    pub new_frame: bool,
    pub info: PacketInfo,
}

/// Asks the publisher for key frames, not too often and not for ever.
#[derive(Debug)]
struct KeyframeRequests {
    wanted: bool,
    /// The newest number when it was wanted: a packet of an earlier key frame that is recovered now is not the answer.
    after: Option<u64>,
    last: Option<Instant>,
    before_last: Option<Instant>,
    tries: u8,
    /// RFC 5104 §4.3.1.2: counts new requests.
    fir_sequence: u8,
}

/// Counted since the encoding's SSRC was first seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncodingCounts {
    /// Sequence numbers asked of the publisher, repeats included.
    pub nacked: u32,
    /// Packets that came by RTX.
    pub recovered: u32,
    /// Key frames asked of the publisher.
    pub keyframe_requests: u32,
}

#[derive(Debug)]
pub struct Encoding {
    index: u8,
    epoch: u8,
    pub parameters: EncodingParameters,
    /// Latched from the first packet or the description.
    pub ssrc: Option<Ssrc>,
    pub rtx_ssrc: Option<Ssrc>,
    kind: MediaKind,
    sequences: Extender,
    ring: Ring,
    last_packet: Option<Instant>,
    pub sender_report: Option<SenderReportAnchor>,
    /// Dependency descriptor templates of the last key frame, and what they mean for layers.
    structure: Option<Box<(Structure, LayerMap)>>,
    /// Decode targets that the publisher sends, a bit each.
    active_targets: u32,
    /// Where the last key frame begins: its number and timestamp.
    keyframe: Option<(u64, u32)>,
    /// From the first packet on.
    meter: Option<Box<Meter>>,
    /// Width and height of the largest picture, from the last key frame that said it; (0, 0) = not known.
    dimensions: (u16, u16),
    /// Timestamp of the newest packet.
    newest: Option<u32>,
    keyframes: KeyframeRequests,
    pub nack: NackGenerator,
    /// From the first packet on.
    pub stats: Option<ReceiverStats>,
    pub counts: EncodingCounts,
    /// Payload bytes since they were last taken, retransmissions included.
    bytes: u64,
}

impl Encoding {
    pub fn new(index: u8, kind: MediaKind, parameters: EncodingParameters) -> Self {
        let limits = match kind {
            MediaKind::Audio => RingLimits::AUDIO,
            MediaKind::Video => RingLimits::VIDEO,
        };
        Self {
            index,
            epoch: 0,
            ssrc: parameters.ssrc,
            rtx_ssrc: parameters.rtx_ssrc,
            parameters,
            kind,
            sequences: Extender::new(),
            ring: Ring::new(limits),
            last_packet: None,
            sender_report: None,
            structure: None,
            active_targets: u32::MAX,
            keyframe: None,
            meter: None,
            dimensions: (0, 0),
            newest: None,
            keyframes: KeyframeRequests {
                wanted: false,
                after: None,
                last: None,
                before_last: None,
                tries: 0,
                fir_sequence: 0,
            },
            nack: NackGenerator::new(kind),
            stats: None,
            counts: EncodingCounts::default(),
            bytes: 0,
        }
    }

    pub fn source(&self) -> Source {
        Source {
            encoding: self.index,
            epoch: self.epoch,
        }
    }

    /// Highest extended sequence number so far.
    pub fn highest(&self) -> Option<u64> {
        self.sequences.highest()
    }

    pub fn has_started(&self) -> bool {
        self.last_packet.is_some()
    }

    /// How much it sends; None before the first packet.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_deref()
    }

    /// These layers have been seen by who relays it: what a frame says of itself hangs on how many there are.
    pub fn expect_layers(&mut self, known: u16, now: Instant) {
        let meter = self.meter.get_or_insert_with(|| Box::new(Meter::new(now)));
        meter.expect(known);
    }

    /// Width and height of a spatial layer inside the stream; (0, 0) = not known. `None` = of the largest.
    pub fn dimensions(&self, spatial: Option<u8>) -> (u16, u16) {
        let structure = self.structure.as_deref().map(|(structure, _)| structure.resolutions());
        let layer = structure
            .zip(spatial)
            .and_then(|(sizes, at)| sizes.get(usize::from(at)));
        layer.copied().unwrap_or(if spatial.unwrap_or(0) == 0 {
            self.dimensions
        } else {
            (0, 0)
        })
    }

    /// As `Meter::take_frame_rates`.
    pub fn take_frame_rates(&mut self, now: Instant) -> Option<[[u8; TEMPORAL]; SPATIAL]> {
        self.meter.as_mut()?.take_frame_rates(now)
    }

    pub fn stored(&self, sequence: u64, now: Instant) -> Option<Stored<'_>> {
        self.ring.get(sequence, now)
    }

    /// What is known of a packet, though it may be too old to be sent.
    pub fn remembered(&self, sequence: u64) -> Option<&PacketInfo> {
        self.ring.info(sequence)
    }

    /// The extended number whose low half a descriptor carries.
    pub fn sequence_from_low(&self, low: u32) -> Option<u64> {
        let highest = self.sequences.highest()?;
        highest.checked_sub(u64::from((highest as u32).wrapping_sub(low)))
    }

    /// The client has started over with another SSRC: nothing of the old stream's numbering holds.
    pub fn restart(&mut self, ssrc: Ssrc) {
        let index = self.index;
        let epoch = self.epoch.wrapping_add(1);
        let rtx_ssrc = self.rtx_ssrc;
        let parameters = std::mem::take(&mut self.parameters);
        *self = Self::new(index, self.kind, parameters);
        self.epoch = epoch;
        self.ssrc = Some(ssrc);
        self.rtx_ssrc = rtx_ssrc;
    }

    /// The payload type table has changed: what the stored packets say of their codec does not hold any more.
    pub fn forget_packets(&mut self) {
        self.ring.clear();
        self.structure = None;
    }

    /// Takes in one packet of this encoding; `sequence` and `payload` are the original ones if it was a retransmission.
    pub fn on_rtp(
        &mut self,
        now: Instant,
        codec: (u8, Codec),
        packet: &OriginalPacket<'_>,
    ) -> Result<Arrived, DropReason> {
        if packet.recovered && self.sequences.highest().is_none() {
            return Err(DropReason::Late); // a stream is never started by a retransmission
        }
        let before = self.sequences.highest();
        let sequence = self.sequences.extend(packet.sequence);
        self.last_packet = Some(now);
        self.count(now, codec.1, sequence, packet);
        if packet.payload.is_empty() {
            return Err(DropReason::PaddingOnly);
        }
        self.ring.admit(sequence)?;
        let (info, descriptor, capture) = self.describe(now, codec, packet);
        self.ring.insert(sequence, info, descriptor, capture, packet.payload)?;
        let late = before.is_some_and(|before| sequence < before);
        let new_frame = !late && self.newest != Some(info.timestamp);
        if !late {
            self.newest = Some(info.timestamp);
        }
        if info.keyframe {
            self.note_keyframe(sequence, info.timestamp);
            if self.keyframes.after < Some(sequence) {
                self.keyframes.wanted = false;
                self.keyframes.tries = 0;
            }
            self.nack.handle_keyframe(sequence);
        }
        let of_keyframe = self.keyframe.is_some_and(|(_, of)| of == info.timestamp) && self.kind == MediaKind::Video;
        let meter = self.meter.get_or_insert_with(|| Box::new(Meter::new(now)));
        let layer = Layer {
            spatial: info.spatial,
            temporal: info.temporal,
        };
        meter.handle_packet(layer, info.layers, packet.payload.len(), of_keyframe, now);
        if new_frame {
            meter.handle_frame(info.layers);
        }
        Ok(Arrived {
            source: self.source(),
            sequence,
            late,
            new_frame,
            info,
        })
    }

    fn note_keyframe(&mut self, sequence: u64, timestamp: u32) {
        match &mut self.keyframe {
            // Several packets of one picture may say that they begin it.
            Some((first, of)) if *of == timestamp => *first = sequence.min(*first),
            Some((first, _)) if *first > sequence => {}
            keyframe => *keyframe = Some((sequence, timestamp)),
        }
    }

    /// A key frame has begun behind this number: what was before it is not needed any more.
    pub fn has_keyframe_behind(&self, sequence: u64) -> bool {
        self.keyframe.is_some_and(|(first, _)| sequence < first)
    }

    /// Where the last key frame begins, if all since is here and is so little that a subscriber can be sent it at once.
    pub fn replayable(&self, now: Instant) -> Option<Arrived> {
        let (first, _) = self.keyframe?;
        let highest = self.sequences.highest()?;
        if highest.checked_sub(first)? >= REPLAY_PACKETS {
            return None;
        }
        let start = self.stored(first, now)?.info;
        let (mut frames, mut timestamp) = (1, start.timestamp);
        for sequence in first..=highest {
            let info = self.stored(sequence, now)?.info;
            if info.timestamp != timestamp {
                (frames, timestamp) = (frames + 1, info.timestamp);
            }
            if frames > REPLAY_FRAMES || info.arrival.saturating_duration_since(start.arrival) > REPLAY_SPAN {
                return None;
            }
        }
        Some(Arrived {
            source: self.source(),
            sequence: first,
            late: false,
            new_frame: true,
            info: *start,
        })
    }

    /// Writes the dependency descriptor of a stored packet, as a subscriber is shown it, to the front of `out`: its frame
    /// number moved by `offset`, and where layers are left out, which decode targets are left. Its length.
    pub fn show_descriptor(
        &self,
        stored: &Stored<'_>,
        offset: u16,
        cut: Cut,
        out: &mut [u8],
    ) -> Result<usize, DropReason> {
        let value = stored.dependency_descriptor;
        let limit = cut.limit().filter(|_| stored.info.start);
        let known = self.structure.as_deref().zip(limit);
        let masked = known.and_then(|((structure, map), limit)| {
            let mask = map.mask(limit) & self.active_targets;
            let changes = mask != 0 && mask != self.active_targets & structure.all_decode_targets();
            changes.then_some((structure, mask))
        });
        let written = masked.and_then(|(structure, mask)| {
            dependency_descriptor::write_active_decode_targets(value, Some(structure), mask, out).ok()
        });
        let len = match written {
            Some(len) => len,
            None => {
                let target = out.get_mut(..value.len()).ok_or(DropReason::TooLarge)?;
                target.copy_from_slice(value);
                value.len()
            }
        };
        dependency_descriptor::patch_frame_number(out, stored.info.frame_number.wrapping_add(offset));
        Ok(len)
    }

    /// Reception statistics and the list of missing packets: also of what is dropped later, for it has arrived.
    fn count(&mut self, now: Instant, codec: Codec, sequence: u64, packet: &OriginalPacket<'_>) {
        self.bytes += packet.payload.len() as u64;
        if packet.recovered {
            self.counts.recovered = self.counts.recovered.wrapping_add(1);
            self.nack.handle_recovered(sequence, now);
            return;
        }
        let stats = self
            .stats
            .get_or_insert_with(|| ReceiverStats::new(codec.clock_rate(), now));
        stats.handle_packet(sequence, packet.rtp.timestamp(), packet.payload.len(), now);
        if packet.nack {
            self.nack.handle_packet(sequence, false, now);
        }
    }

    /// Payload bytes received since the last call.
    pub fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    fn describe<'p>(
        &mut self,
        now: Instant,
        (codec_index, codec): (u8, Codec),
        packet: &OriginalPacket<'p>,
    ) -> (PacketInfo, &'p [u8], &'p [u8]) {
        let element = |extension| packet.ids.id(extension).and_then(|id| packet.rtp.extension(id));
        let descriptor = element(Extension::DependencyDescriptor).unwrap_or_default();
        let (frame, layers, frame_number) = self.frame_info(codec, packet, descriptor);
        if let Some(dimensions) = frame.dimensions {
            self.dimensions = dimensions;
        }
        let picture = match codec {
            Codec::Vp8 => vp8::Descriptor::parse(packet.payload).map(|vp8| PictureNumbers {
                picture_id: vp8.picture_id.map_or(0, vp8::PictureId::value),
                tl0_picidx: vp8.tl0_pic_idx.unwrap_or(0),
                keyidx: vp8.key_idx.unwrap_or(0),
            }),
            Codec::Vp9 => vp9::Descriptor::parse(packet.payload).map(|vp9| PictureNumbers {
                picture_id: vp9.picture_id.unwrap_or(0),
                tl0_picidx: vp9.layer.and_then(|layer| layer.tl0_pic_idx).unwrap_or(0),
                keyidx: 0,
            }),
            _ => Ok(PictureNumbers::default()),
        };
        let info = PacketInfo {
            timestamp: packet.rtp.timestamp(),
            arrival: now,
            codec: codec_index,
            marker: packet.rtp.marker(),
            keyframe: frame.keyframe,
            start: frame.start,
            end: frame.end,
            spatial: frame.spatial,
            temporal: frame.temporal,
            layers,
            frame_number,
            picture: picture.unwrap_or_default(),
            audio_level: element(Extension::AudioLevel).and_then(|value| value.first().copied()),
            video_orientation: element(Extension::VideoOrientation).and_then(|value| value.first().copied()),
            playout_delay: element(Extension::PlayoutDelay).and_then(|value| value.first_chunk().copied()),
        };
        (info, descriptor, element(Extension::AbsCaptureTime).unwrap_or_default())
    }

    /// The dependency descriptor first: it is readable under end-to-end encryption. What the frame says of itself, what it
    /// is to each layer, its number.
    fn frame_info(
        &mut self,
        codec: Codec,
        packet: &OriginalPacket<'_>,
        descriptor: &[u8],
    ) -> (FrameInfo, LayerMarks, u16) {
        if self.kind == MediaKind::Video && !descriptor.is_empty() {
            let known = self.structure.as_deref().map(|(structure, _)| structure);
            let mut new = None;
            if let Ok(parsed) = dependency_descriptor::Descriptor::parse(descriptor, known, &mut new) {
                let info = parsed.frame_info();
                let is_first = new.is_some();
                self.active_targets = parsed.active_decode_targets.unwrap_or(self.active_targets);
                if let Some(structure) = new {
                    let map = LayerMap::new(&structure);
                    match &mut self.structure {
                        Some(known) => **known = (structure, map),
                        None => self.structure = Some(Box::new((structure, map))),
                    }
                }
                if let Some((_, map)) = self.structure.as_deref() {
                    let layers = LayerMarks::of_descriptor(&parsed, is_first, map);
                    return (info, layers, parsed.frame_number);
                }
            }
        }
        // What cannot be read is forwarded as the middle of a frame.
        let mut info = rtp::inspect(codec, packet.payload, packet.rtp.marker()).unwrap_or_default();
        if codec == Codec::Av1 {
            // An OBU says its layer, but not where one can be entered: without a descriptor none is left out.
            (info.spatial, info.temporal) = (0, 0);
        }
        let temporal_layers = self
            .meter()
            .map_or(0, |meter| meter.temporal_layers(EVERYTHING.spatial));
        (info, LayerMarks::of_frame(codec, &info, temporal_layers), 0)
    }

    /// Somebody needs a key frame.
    pub fn want_keyframe(&mut self) {
        if !self.keyframes.wanted {
            self.keyframes.wanted = true;
            self.keyframes.after = self.sequences.highest();
            self.keyframes.tries = 0;
        }
    }

    /// When the next request may be sent; None = none is wanted.
    pub fn keyframe_due(&self, now: Instant) -> Option<Instant> {
        let keyframes = &self.keyframes;
        (keyframes.wanted && keyframes.tries < KEYFRAME_TRIES).then(|| {
            let again = keyframes.last.map(|last| last + KEYFRAME_RETRY);
            let third = keyframes.before_last.map(|before| before + KEYFRAME_PERIOD);
            again.max(third).unwrap_or(now)
        })
    }

    /// A request goes out now; its FIR number.
    pub fn keyframe_asked(&mut self, now: Instant) -> u8 {
        self.keyframes.before_last = self.keyframes.last.replace(now);
        self.keyframes.tries += 1;
        self.counts.keyframe_requests = self.counts.keyframe_requests.wrapping_add(1);
        if self.keyframes.tries >= KEYFRAME_TRIES {
            self.keyframes.wanted = false;
        }
        self.keyframes.fir_sequence = self.keyframes.fir_sequence.wrapping_add(1);
        self.keyframes.fir_sequence
    }
}

/// A packet as the publisher first sent it: of a retransmission, the original number and payload.
#[derive(Clone, Copy, Debug)]
pub struct OriginalPacket<'a> {
    pub rtp: &'a RtpPacket<'a>,
    pub ids: &'a ExtensionMap,
    pub sequence: u16,
    pub payload: &'a [u8],
    /// It came as a retransmission.
    pub recovered: bool,
    /// Missing packets may be asked for.
    pub nack: bool,
}
