//! One participant receiving one track: which packets it is given (select) and under which numbers (rewrite).
//!
//! Owned by a `Fanout`, driven per packet by `Fanout::forward`, by RTCP and by its timer. Holds no packets: `forward`
//! yields a descriptor of what is to leave, and NACKs are answered from the numbers of what left.

use std::time::{Duration, Instant};

use super::allocator::Allotment;
use super::edge::{PlayoutDelay, Subscribe, SubscriptionSettings};
use super::encoding::{Arrived, Encoding};
use super::explain::{Decisions, Freezes, RepairCounts};
use super::feedback::{LossReports, Scored};
use super::generated::Schedule;
use super::layers::{Cut, Filter};
use super::pacer::{Descriptor, Kind};
use super::playout::Playout;
use super::quality::QualityScorer;
use super::resend::{Marks, RecentRequests};
use super::rewrite::{Incoming, Numbers, Rewriter, Source};
use super::slots::Slot;
use super::timeline::{Timeline, ticks};
use super::timers::TimerId;
use super::track::Track;
use crate::types::{
    Codec, CodecParameters, DropReason, Extension, ExtensionMap, Layer, MediaKind, Mid, ParticipantHandle, Pt, Ssrc,
    SubscriptionHandle,
};

/// LiveKit: sender reports every 3 s per subscription.
pub const SENDER_REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// Soon after the first packet, so that lips and voice meet early; later again while the publisher has sent none.
const FIRST_REPORT: Duration = Duration::from_millis(200);
/// Before the first report block tells better. LiveKit's is 70 ms, mediasoup's 100 ms.
const DEFAULT_RTT: Duration = Duration::from_millis(70);

/// How a codec of the track is sent to this subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub pt: Pt,
    /// RTX payload type.
    pub rtx: Option<Pt>,
    pub codec: Codec,
    /// The track sends RED and the subscriber takes plain Opus: only the primary block is sent.
    pub strip_red: bool,
}

/// What the last sender report said, to find the round trip when it is reported on.
#[derive(Clone, Copy, Debug)]
pub struct SentReport {
    /// Middle 32 bits of its NTP time.
    pub middle: u32,
    pub at: Instant,
}

#[derive(Debug)]
pub struct Subscription {
    pub handle: SubscriptionHandle,
    pub participant: ParticipantHandle,
    pub track: Slot,
    pub transport: Slot,
    pub mid: Mid,
    pub kind: MediaKind,
    pub ssrc: Ssrc,
    pub rtx_ssrc: Option<Ssrc>,
    pub cname: Box<str>,
    pub extensions: ExtensionMap,
    pub strip_packet_trailer: bool,
    /// Frames are end-to-end encrypted: generated ones must say that they are not.
    pub encrypted: bool,
    pub settings: SubscriptionSettings,
    pub timer: TimerId,
    codecs: Vec<CodecParameters>,
    /// By index of the track's codec; None = not negotiated.
    outputs: Vec<Option<Output>>,
    /// Codec indexes that control has been told of as unsupported.
    reported: u32,
    /// Its transport can send media.
    pub is_connected: bool,
    /// What is to be given; None = nothing.
    target: Option<Layer>,
    /// The encoding of `target`.
    encoding: u8,
    pub rewriter: Rewriter,
    filter: Filter,
    pub timeline: Timeline,
    /// Layers of the track are encodings.
    is_simulcast: bool,
    /// Output of the newest packet.
    pub last_output: Option<Output>,
    pub schedule: Option<Schedule>,
    /// Sequence number of the next retransmission, extended.
    rtx_sequence: u64,
    pub requests: RecentRequests,
    /// Nothing up to this number is sent again.
    void_up_to: u64,
    /// Only where packets are resent as they were.
    pub marks: Option<Box<Marks>>,
    pub rtt: Duration,
    /// `rtt` comes from a report.
    pub rtt_measured: bool,
    /// A report block has named our SSRC: the mid is known (RFC 8843 §9.2 asks for it at the start only).
    pub acknowledged: bool,
    pub started: bool,
    pub packets: u32,
    pub octets: u32,
    pub next_report: Option<Instant>,
    pub sent_report: Option<SentReport>,
    pub loss: LossReports,
    /// The end of the newest frame, and when it is sent again unless something has followed it.
    pub tail: Option<(u64, Instant)>,
    pub scorer: QualityScorer,
    pub scored: Scored,
    pub repair: RepairCounts,
    pub freezes: Freezes,
    pub decisions: Decisions,
    /// What the receiver's jitter buffer is asked for; None = what the publisher says.
    pub playout: Option<Playout>,
    /// What the allocator knows of it.
    pub allotment: Allotment,
    /// Control was told that nothing is sent for want of bandwidth.
    pub is_paused: bool,
    /// The spatial layer that control was told is sent.
    told_spatial: Option<u8>,
    /// The last blank frame has been queued; gone then.
    pub ends_at: Option<Instant>,
}

impl Subscription {
    /// `seed` gives the first sequence numbers.
    pub fn new(
        subscribe: Subscribe,
        (track_slot, track): (Slot, &Track),
        transport: Slot,
        timer: TimerId,
        seed: u64,
        now: Instant,
    ) -> Self {
        // Below half the space, so that a receiver that misses the first packets cannot mistake the rollover counter.
        let first = (seed as u16) & 0x7fff;
        let first_rtx = (seed >> 16) as u16 & 0x7fff;
        let mut subscription = Self {
            handle: subscribe.subscription,
            participant: subscribe.participant,
            track: track_slot,
            transport,
            mid: subscribe.mid,
            kind: track.kind,
            ssrc: subscribe.ssrc,
            rtx_ssrc: subscribe.rtx_ssrc,
            cname: subscribe.cname.into_boxed_str(),
            extensions: subscribe.extensions,
            strip_packet_trailer: subscribe.strip_packet_trailer,
            encrypted: track.encrypted,
            settings: subscribe.settings,
            timer,
            codecs: subscribe.codecs,
            outputs: Vec::new(),
            reported: 0,
            is_connected: false,
            target: None,
            encoding: 0,
            rewriter: Rewriter::new(first, track.kind),
            filter: Filter::default(),
            timeline: Timeline::default(),
            is_simulcast: track.is_simulcast(),
            last_output: None,
            schedule: None,
            rtx_sequence: 1 << 16 | u64::from(first_rtx),
            requests: RecentRequests::default(),
            void_up_to: 0,
            marks: None,
            rtt: DEFAULT_RTT,
            rtt_measured: false,
            acknowledged: false,
            started: false,
            packets: 0,
            octets: 0,
            next_report: None,
            sent_report: None,
            loss: LossReports::default(),
            tail: None,
            scorer: track.new_scorer(now),
            scored: Scored::default(),
            repair: RepairCounts::default(),
            freezes: Freezes::default(),
            decisions: Decisions::new(now),
            playout: None,
            allotment: Allotment::default(),
            is_paused: false,
            told_spatial: None,
            ends_at: None,
        };
        subscription.map_codecs(&track.codecs);
        let target = track.choose(subscription.settings.max_layer);
        subscription.set_target(track, Some(target), false);
        subscription
    }

    /// New parameters for the same subscription; numbering goes on.
    pub fn renegotiate(&mut self, subscribe: Subscribe, track: &Track) {
        self.mid = subscribe.mid;
        self.codecs = subscribe.codecs;
        self.extensions = subscribe.extensions;
        self.strip_packet_trailer = subscribe.strip_packet_trailer;
        self.rtx_ssrc = subscribe.rtx_ssrc;
        self.settings = subscribe.settings;
        self.map_codecs(&track.codecs);
    }

    /// Resolves each codec of the track to what this subscriber takes, so that nothing is looked up per packet.
    pub fn map_codecs(&mut self, track: &[CodecParameters]) {
        self.outputs = track.iter().map(|codec| Output::resolve(codec, &self.codecs)).collect();
        self.reported = 0;
        // A resend must be what was sent, byte by byte; with other payload types or extension ids it cannot be.
        let resends = |output: &Output| output.rtx.is_none() || self.rtx_ssrc.is_none();
        let wanted = self.outputs.iter().flatten().any(resends);
        self.marks = wanted.then(|| Box::new(Marks::new(self.kind)));
    }

    /// The subscriber's payload type of Opus, for the block inside RED.
    pub fn opus_pt(&self) -> Option<Pt> {
        let opus = self.codecs.iter().find(|codec| codec.codec == Codec::Opus)?;
        Some(opus.pt)
    }

    pub fn output(&self, codec: u8) -> Option<Output> {
        self.outputs.get(usize::from(codec)).copied().flatten()
    }

    /// Its packets carry transport-wide sequence numbers.
    pub fn is_numbered(&self) -> bool {
        self.extensions.id(Extension::TransportCc).is_some()
    }

    /// `bounds`: the room's wish for the receiver's jitter buffer. Nothing is said where packets are resent as they were:
    /// the value may be another by then.
    pub fn set_playout(&mut self, bounds: Option<PlayoutDelay>) {
        let can_say = self.kind == MediaKind::Video
            && self.marks.is_none()
            && self.extensions.id(Extension::PlayoutDelay).is_some();
        if !can_say {
            self.playout = None;
        } else if self.playout.is_none_or(|playout| playout.bounds() != bounds) {
            self.playout = Some(Playout::new(bounds));
        }
    }

    /// The subscriber takes some codec of the track.
    pub fn takes_any(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Payload type and SSRC of its retransmissions, where they have their own.
    pub fn rtx_output(&self) -> Option<(Pt, Ssrc)> {
        let output = self
            .last_output
            .or_else(|| self.outputs.iter().flatten().next().copied())?;
        output.rtx.zip(self.rtx_ssrc)
    }

    /// What was queued of it up to this number will not be sent: the picture begins anew with the next key frame.
    pub fn abandon(&mut self, newest: u64) {
        self.void_up_to = newest;
        self.rewriter.interrupt();
    }

    /// The packet that was sent under this number, to be sent once more. None = it is no longer there, or is of no use.
    pub fn again(
        &self,
        slot: Slot,
        encodings: &[Encoding],
        sequence_out: u64,
        kind: Kind,
        now: Instant,
    ) -> Option<Descriptor> {
        if sequence_out <= self.void_up_to {
            return None;
        }
        let located = self.rewriter.locate(sequence_out)?;
        let encoding = encodings.get(usize::from(located.source.encoding))?;
        let stored = encoding
            .stored(located.sequence, now)
            .filter(|_| encoding.source() == located.source)?;
        Some(Descriptor {
            subscription: slot,
            sequence_out,
            sequence_in: located.sequence as u32,
            timestamp: located.offsets.timestamp(stored.info.timestamp),
            picture: located.offsets.picture(stored.info.picture),
            source: located.source,
            kind,
            cut: located.cut,
        })
    }

    /// True once per codec of the track that this subscriber cannot take.
    pub fn should_report_codec(&mut self, codec: u8) -> bool {
        let bit = 1u32.checked_shl(u32::from(codec)).unwrap_or(0);
        let first = self.reported & bit == 0 && bit != 0;
        self.reported |= bit;
        first
    }

    /// What is to be given from now on; None = nothing, until another target is set. What is sent goes on until the new
    /// layer can be entered, unless it is `urgent` that it stops. Returns the encoding that a key frame is needed of.
    pub fn set_target(&mut self, track: &Track, target: Option<Layer>, urgent: bool) -> Option<u8> {
        self.target = target;
        let Some(target) = target else {
            self.rewriter.interrupt();
            return None;
        };
        let (encoding, within) = track.locate(target);
        self.encoding = encoding;
        if self.kind == MediaKind::Audio || self.settings.disabled {
            return None;
        }
        match self.rewriter.source() {
            Some(source) if source.encoding == encoding => self.filter.set_target(within),
            Some(source) if source.encoding > encoding => {
                // On the way down: what can be spared at once is.
                let temporal = within.temporal.min(self.filter.target().temporal);
                self.filter.set_target(Layer { temporal, ..within });
            }
            _ => {}
        }
        let is_waiting = self.is_waiting();
        if is_waiting && urgent {
            self.rewriter.interrupt();
        }
        is_waiting.then_some(encoding)
    }

    /// A key frame of `wanted_encoding` is needed to give what is to be given.
    pub fn is_waiting(&self) -> bool {
        let wants = self.kind == MediaKind::Video && self.target.is_some() && !self.settings.disabled;
        wants
            && match self.rewriter.source() {
                Some(source) => source.encoding != self.encoding || self.filter.needs_keyframe(),
                None => true,
            }
    }

    /// What is to be given.
    pub fn target(&self) -> Option<Layer> {
        self.target
    }

    /// What is given: the layer whose frames have begun to leave. Counted as targets are, so it may name more temporal
    /// layers than there are.
    pub fn current(&self) -> Option<Layer> {
        let source = self.rewriter.source()?;
        let limit = self.filter.limit();
        let spatial = if self.is_simulcast {
            source.encoding
        } else {
            limit.spatial
        };
        Some(Layer { spatial, ..limit })
    }

    /// The spatial layer of the picture that has begun to leave, when control has not been told of it.
    pub fn take_entered(&mut self) -> Option<u8> {
        let spatial = self.current().filter(|_| self.kind == MediaKind::Video)?.spatial;
        let is_new = self.told_spatial.replace(spatial) != Some(spatial);
        is_new.then_some(spatial)
    }

    /// What is left out of the stream that is sent.
    pub fn cut(&self) -> Cut {
        self.filter.cut()
    }

    /// The encoding that packets are to come from.
    pub fn wanted_encoding(&self) -> u8 {
        self.encoding
    }

    /// One packet of the track: what is to leave, or why not.
    ///
    /// # Errors
    /// The reason. `AwaitingKeyframe` means that one should be asked for.
    pub fn forward(&mut self, slot: Slot, track: &Track, packet: &Arrived) -> Result<Descriptor, DropReason> {
        let incoming = Incoming {
            source: packet.source,
            sequence: packet.sequence,
            timestamp: packet.info.timestamp,
            picture: packet.info.picture,
            frame_number: packet.info.frame_number,
        };
        let (numbers, cut) = match self.select(packet)? {
            Selected::Continues => self.go_on(packet, incoming)?,
            Selected::Late => self.rewriter.rewrite(incoming, Cut::NONE)?,
            Selected::Switches => self.switch(track, packet, incoming),
        };
        if !packet.late
            && cut.marker(packet.info.marker, packet.info.end, packet.info.spatial)
            && self.kind == MediaKind::Video
        {
            self.freezes.handle_frame(packet.info.arrival);
        }
        Ok(Descriptor {
            subscription: slot,
            sequence_out: numbers.sequence,
            sequence_in: packet.sequence as u32,
            timestamp: numbers.timestamp,
            picture: numbers.picture,
            source: packet.source,
            kind: Kind::Media,
            cut,
        })
    }

    /// The next packet of the source that is being sent.
    fn go_on(&mut self, packet: &Arrived, incoming: Incoming) -> Result<(Numbers, Cut), DropReason> {
        if self.kind == MediaKind::Video
            && let Err(reason) = self.filter.select(&packet.info)
        {
            let is_vp8 = self
                .output(packet.info.codec)
                .is_some_and(|output| output.codec == Codec::Vp8);
            self.rewriter.leave_out(incoming, is_vp8);
            return Err(reason);
        }
        let cut = self.filter.cut();
        let numbers = match self.timeline.resume(&self.rewriter, incoming, packet.info.arrival) {
            None => self.rewriter.rewrite(incoming, cut)?,
            Some(timestamp) => (self.rewriter.retime(incoming, timestamp, cut)?, cut),
        };
        self.timeline.sent(packet.info.arrival);
        Ok(numbers)
    }

    /// The first packet of another source, or of the same one after a pause.
    fn switch(&mut self, track: &Track, packet: &Arrived, incoming: Incoming) -> (Numbers, Cut) {
        if let Some(target) = self.target {
            self.filter.restart(track.locate(target).1);
        }
        let clock_rate = self
            .output(packet.info.codec)
            .map_or(90_000, |output| output.codec.clock_rate());
        let timestamp = self
            .timeline
            .place(&self.rewriter, track, incoming, packet.info.arrival, clock_rate);
        self.schedule = None;
        let cut = self.filter.cut();
        let numbers = self.rewriter.switch(incoming, timestamp, cut);
        self.timeline.sent(packet.info.arrival);
        (numbers, cut)
    }

    /// As `forward` of the first packet of a key frame. Its encoding need not be the one that is waited for: it is sent
    /// meanwhile.
    pub fn begin_at(&mut self, slot: Slot, track: &Track, packet: &Arrived) -> Result<Descriptor, DropReason> {
        let wanted = std::mem::replace(&mut self.encoding, packet.source.encoding);
        let result = self.forward(slot, track, packet);
        self.encoding = wanted;
        result
    }

    fn select(&self, packet: &Arrived) -> Result<Selected, DropReason> {
        if self.settings.disabled || !self.is_connected || self.schedule.is_some_and(|schedule| schedule.closes) {
            return Err(DropReason::Disabled);
        }
        if self.target.is_none() {
            return Err(DropReason::Paused);
        }
        if self.output(packet.info.codec).is_none() {
            return Err(DropReason::CodecNotNegotiated);
        }
        let current = self.rewriter.source();
        if current == Some(packet.source) {
            let is_ahead = self.rewriter.is_ahead(packet.sequence);
            return Ok(if is_ahead { Selected::Continues } else { Selected::Late });
        }
        if packet.late && current.is_some() && packet.source.encoding != self.encoding {
            return Ok(Selected::Late); // of the encoding before a switch: there may be a place for it
        }
        if packet.source.encoding != self.encoding {
            return Err(DropReason::OtherLayer);
        }
        if self.kind == MediaKind::Video && !packet.info.keyframe {
            return Err(DropReason::AwaitingKeyframe);
        }
        Ok(Selected::Switches)
    }

    /// Plans a few packets without content for a receiver that has been sent nothing while the track is muted.
    pub fn announce(&mut self, now: Instant) {
        if self.rewriter.has_sent() || self.last_output.is_some() || self.settings.disabled || !self.is_connected {
            return;
        }
        self.last_output = self.outputs.iter().flatten().next().copied();
        self.schedule = self.last_output.map(|_| Schedule::announcement(now));
    }

    /// The next packet of the schedule, when it is due.
    pub fn generate(&mut self, slot: Slot, now: Instant) -> Option<Descriptor> {
        let output = self.last_output?;
        let schedule = self.schedule.as_mut()?;
        if !schedule.take(now) {
            return None;
        }
        let clock_rate = output.codec.clock_rate();
        let frame = schedule.ticks(clock_rate);
        let elapsed = ticks(self.timeline.since_last(now), clock_rate);
        // A mute begins between two frames: never earlier than the frame's own pace.
        let timestamp = self.rewriter.timestamp().wrapping_add(elapsed.max(frame));
        // No picture to show before the first of the track.
        let is_padding = self.kind == MediaKind::Video && !self.rewriter.has_sent();
        let new_picture = self.kind == MediaKind::Video && !is_padding;
        let Numbers {
            sequence,
            timestamp,
            picture,
        } = self.rewriter.generate(timestamp, new_picture);
        self.timeline.sent(now);
        Some(Descriptor {
            subscription: slot,
            sequence_out: sequence,
            sequence_in: 0,
            timestamp,
            picture,
            source: Source { encoding: 0, epoch: 0 },
            kind: if is_padding { Kind::Padding } else { Kind::Generated },
            cut: Cut::NONE,
        })
    }

    /// Reports begin with the first packet.
    pub fn plan_report(&mut self, now: Instant) {
        self.next_report.get_or_insert(now + FIRST_REPORT);
    }

    /// The number of a retransmission that leaves now.
    pub fn next_rtx_sequence(&mut self) -> u64 {
        let sequence = self.rtx_sequence;
        self.rtx_sequence += 1;
        sequence
    }

    /// When the timer is due.
    pub fn deadline(&self) -> Option<Instant> {
        let generated = self.schedule.map(|schedule| schedule.next());
        let tail = self.tail.map(|(_, at)| at);
        [generated, self.next_report, self.ends_at, tail]
            .into_iter()
            .flatten()
            .min()
    }

    /// Bytes of memory held beside the struct itself.
    #[cfg(test)]
    pub fn heap_bytes(&self) -> usize {
        self.rewriter.heap_bytes()
            + self.cname.len()
            + self.decisions.heap_bytes()
            + self.requests.heap_bytes()
            + self.outputs.capacity() * size_of::<Option<Output>>()
            + self.codecs.capacity() * size_of::<CodecParameters>()
            + self.marks.as_ref().map_or(0, |marks| marks.heap_bytes())
    }
}

enum Selected {
    /// The next packet of the source that is being sent.
    Continues,
    /// One that was overtaken, of this source or one before: there may be a place for it.
    Late,
    /// A new source begins with this packet.
    Switches,
}

impl Output {
    /// The subscriber's payload type for one of the track's.
    fn resolve(track: &CodecParameters, subscriber: &[CodecParameters]) -> Option<Self> {
        let same = |codec: &&CodecParameters| codec.codec == track.codec;
        let exact = |codec: &&CodecParameters| same(codec) && profile(codec) == profile(track);
        let found = subscriber.iter().find(exact).or_else(|| subscriber.iter().find(same));
        let (found, strip_red) = match found {
            Some(found) => (found, false),
            None if track.codec == Codec::Red => (subscriber.iter().find(|codec| codec.codec == Codec::Opus)?, true),
            None => return None,
        };
        Some(Self {
            pt: found.pt,
            rtx: found.rtx,
            codec: found.codec,
            strip_red,
        })
    }
}

/// What must agree beside the codec's name: the H.264 profile and packetization mode (RFC 6184 §8.1), the VP9 and AV1
/// profile.
fn profile(codec: &CodecParameters) -> (Option<&str>, Option<&str>) {
    let parameter = |name: &str| {
        codec.fmtp.split(';').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    match codec.codec {
        // The level, the last byte, may differ: it is only a limit.
        Codec::H264 => (
            parameter("profile-level-id").map(|value| value.get(..4).unwrap_or(value)),
            Some(parameter("packetization-mode").unwrap_or("0")),
        ),
        Codec::Vp9 => (Some(parameter("profile-id").unwrap_or("0")), None),
        Codec::Av1 => (Some(parameter("profile").unwrap_or("0")), None),
        _ => (None, None),
    }
}
