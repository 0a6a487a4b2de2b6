//! One published source: which payload types and encodings it comes in, and who receives it.
//!
//! Owned by a `Fanout`. `on_rtp` takes a packet whose SSRC is known to the right encoding; forwarding it is the
//! fanout's.

use std::time::{Duration, Instant};

use super::edge::{EncodingParameters, LayerShape, Publish};
use super::encoding::{Arrived, Encoding, OriginalPacket};
use super::layers::{EVERYTHING, Flow, Offered, SPATIAL, TEMPORAL};
use super::quality::QualityScorer;
use super::relay::{Mirror, Way};
use super::slots::Slot;
use super::speakers::TrackLevel;
use super::timers::TimerId;
use crate::rtp::layers_allocation::LayersAllocation;
use crate::rtp::{RtpPacket, rtx};
use crate::types::{
    Bitrate, Codec, CodecParameters, DropReason, Extension, ExtensionMap, Layer, MediaKind, Mid, ParticipantHandle, Pt,
    TrackHandle,
};

/// Encodings of one track: LiveKit has three spatial layers; a fourth leaves room for a client that offers more.
pub const MAX_ENCODINGS: usize = 4;

/// By then a client that is muted, by itself or by the server, has stopped sending.
const OBEYED_AFTER: Duration = Duration::from_millis(1000);

/// Frames a second from which a picture of people moves: 15, less what a camera in a dim room and counting leave of them.
const FLUENT: u8 = 13;

#[derive(Debug)]
pub struct Track {
    pub handle: TrackHandle,
    /// The publisher.
    pub participant: ParticipantHandle,
    pub transport: Slot,
    pub mid: Mid,
    pub kind: MediaKind,
    pub codecs: Vec<CodecParameters>,
    pub extensions: ExtensionMap,
    /// By spatial layer, smallest first.
    pub encodings: Vec<Encoding>,
    pub muted: bool,
    /// When the last mute began.
    muted_at: Option<Instant>,
    pub is_screen: bool,
    pub encrypted: bool,
    /// It is another room's, whose publisher `transport` is.
    pub is_shown: bool,
    /// Not among the loudest of a room that forwards only those.
    pub is_unheard: bool,
    pub subscribers: Vec<Slot>,
    pub timer: TimerId,
    /// A bit per spatial layer that flows, as of the last look.
    pub flowing: u8,
    flow: Flow,
    /// A layer has been seen for the first time.
    pub has_new_layer: bool,
    /// A bit per encoding whose next packet control is told of as if it were the first.
    pub unannounced: u8,
    /// Of audio, for who speaks.
    pub level: Option<TrackLevel>,
    pub scorer: QualityScorer,
    /// What control knows of its layers.
    shapes: [LayerShape; SPATIAL],
    /// It is published on another shard. None: its publisher is here.
    pub mirror: Option<Box<Mirror>>,
    /// The other shards that know it.
    pub ways: Vec<Way>,
    /// When those are told again what it can give.
    pub next_state: Option<Instant>,
}

impl Track {
    pub fn new(publish: Publish, transport: Slot, timer: TimerId, now: Instant) -> Self {
        let kind = publish.kind;
        let mut parameters = publish.encodings;
        parameters.truncate(MAX_ENCODINGS);
        if parameters.is_empty() {
            parameters.push(EncodingParameters::default());
        }
        let encodings = (0..).zip(parameters);
        let clock_rate = publish.codecs.first().map_or(48_000, |codec| codec.codec.clock_rate());
        let scorer = scorer(publish.codecs.first(), now);
        let level = (kind == MediaKind::Audio).then(|| TrackLevel::new(clock_rate));
        Self {
            handle: publish.track,
            participant: publish.participant,
            transport,
            mid: publish.mid,
            kind,
            codecs: publish.codecs,
            extensions: publish.extensions,
            encodings: encodings
                .map(|(index, parameters)| Encoding::new(index, kind, parameters))
                .collect(),
            muted: publish.muted,
            muted_at: publish.muted.then_some(now),
            is_screen: publish.is_screen,
            encrypted: publish.encrypted,
            is_shown: false,
            is_unheard: false,
            subscribers: Vec::new(),
            timer,
            flowing: 0,
            flow: Flow::default(),
            has_new_layer: false,
            unannounced: 0,
            level,
            scorer,
            shapes: [LayerShape::default(); _],
            mirror: None,
            ways: Vec::new(),
            next_state: None,
        }
    }

    /// New receive parameters for the same track.
    pub fn renegotiate(&mut self, publish: Publish) -> CodecChange {
        let change = CodecChange::between(&self.codecs, &publish.codecs);
        self.mid = publish.mid;
        self.codecs = publish.codecs;
        self.extensions = publish.extensions;
        self.is_screen = publish.is_screen;
        self.encrypted = publish.encrypted;
        if change == CodecChange::Replaced {
            self.encodings.iter_mut().for_each(Encoding::forget_packets);
        }
        for (index, parameters) in (0u8..).zip(publish.encodings).take(MAX_ENCODINGS) {
            match self.encodings.get_mut(usize::from(index)) {
                Some(encoding) => {
                    if let Some(ssrc) = parameters.ssrc
                        && encoding.ssrc.is_some_and(|old| old != ssrc)
                    {
                        encoding.restart(ssrc);
                    }
                    encoding.ssrc = parameters.ssrc.or(encoding.ssrc);
                    encoding.rtx_ssrc = parameters.rtx_ssrc.or(encoding.rtx_ssrc);
                    encoding.parameters = parameters;
                }
                None => self.encodings.push(Encoding::new(index, self.kind, parameters)),
            }
        }
        change
    }

    /// One packet of the encoding with this index. `retransmission` = it came on the encoding's RTX SSRC.
    pub fn on_rtp(
        &mut self,
        now: Instant,
        index: u8,
        packet: &RtpPacket<'_>,
        retransmission: bool,
    ) -> Result<Arrived, DropReason> {
        let encoding = self
            .encodings
            .get_mut(usize::from(index))
            .ok_or(DropReason::NotPublished)?;
        let pt = packet.pt();
        let primary = |codec: &CodecParameters| codec.pt == pt;
        let repair = |codec: &CodecParameters| codec.rtx == Some(pt);
        let position = if retransmission {
            self.codecs.iter().position(repair)
        } else {
            self.codecs.iter().position(primary)
        };
        let (at, codec) = position
            .and_then(|at| Some((at, self.codecs.get(at)?)))
            .ok_or(DropReason::UnknownPayloadType)?;
        let (sequence, payload) = if retransmission {
            rtx::split(packet.payload())?
        } else {
            (packet.sequence(), packet.payload())
        };
        let original = OriginalPacket {
            rtp: packet,
            ids: &self.extensions,
            sequence,
            payload,
            recovered: retransmission,
            nack: codec.nack && !self.muted && !self.is_shown,
        };
        let arrived = encoding.on_rtp(now, (at as u8, codec.codec), &original)?;
        if !retransmission {
            let info = &arrived.info;
            let (layer, starts_frame) = if self.encodings.len() > 1 {
                (index, arrived.new_frame)
            } else {
                (info.spatial, arrived.new_frame || info.start && info.spatial > 0)
            };
            self.has_new_layer |= self
                .flow
                .handle_packet(usize::from(layer), starts_frame, info.keyframe, now);
        }
        if !retransmission
            && !arrived.late
            && let Some(id) = self.extensions.id(Extension::VideoLayersAllocation)
            && let Some(Ok(allocation)) = packet.extension(id).map(LayersAllocation::parse)
        {
            self.announce(index, &allocation, now);
        }
        // Kept although not forwarded: a duplicate must be known as one after the mute as well.
        if self.muted {
            Err(DropReason::Muted)
        } else {
            Ok(arrived)
        }
    }

    /// One packet that another shard has relayed, as its publisher sent it. What flows is said by `Mirror`.
    pub fn on_relayed(
        &mut self,
        arrival: Instant,
        index: u8,
        packet: &RtpPacket<'_>,
        recovered: bool,
    ) -> Result<Arrived, DropReason> {
        let encoding = self
            .encodings
            .get_mut(usize::from(index))
            .ok_or(DropReason::NotPublished)?;
        let codecs = (0u8..).zip(&self.codecs);
        let (at, codec) = codecs
            .filter_map(|(at, codec)| (codec.pt == packet.pt()).then_some((at, codec.codec)))
            .next()
            .ok_or(DropReason::UnknownPayloadType)?;
        let original = OriginalPacket {
            rtp: packet,
            ids: &self.extensions,
            sequence: packet.sequence(),
            payload: packet.payload(),
            recovered,
            // Its home asks the publisher.
            nack: false,
        };
        let arrived = encoding.on_rtp(arrival, (at, codec), &original)?;
        if self.muted {
            Err(DropReason::Muted)
        } else {
            Ok(arrived)
        }
    }

    /// The publisher pauses, or goes on. False when it did already.
    pub fn set_muted(&mut self, muted: bool, now: Instant) -> bool {
        if std::mem::replace(&mut self.muted, muted) == muted {
            return false;
        }
        if muted {
            self.muted_at = Some(now);
        }
        self.flow.pause();
        true
    }

    /// What arrived then may be sent when a mute is over. Media may overtake the signal that announces it; but what a client
    /// went on sending for a moment when it was muted is for nobody to see or hear.
    pub fn is_live_at(&self, arrival: Instant) -> bool {
        self.muted_at
            .is_none_or(|at| arrival < at || arrival >= at + OBEYED_AFTER)
    }

    /// Where the last key frame of an encoding begins, if it and all since can be sent at once. Nothing of it came while the
    /// publisher was muted.
    pub fn replayable(&self, encoding: u8, now: Instant) -> Option<Arrived> {
        let encoding = self.encodings.get(usize::from(encoding))?;
        let first = encoding.replayable(now)?;
        let newest = encoding.stored(encoding.highest()?, now)?.info.arrival;
        let is_live = [first.info.arrival, newest].into_iter().all(|at| self.is_live_at(at));
        is_live.then_some(first)
    }

    /// For a subscription to it.
    pub fn new_scorer(&self, now: Instant) -> QualityScorer {
        let mut scorer = scorer(self.codecs.first(), now);
        scorer.set_muted(self.muted, now);
        scorer
    }

    /// Whether a payload type is that of retransmissions.
    pub fn is_repair(&self, pt: Pt) -> bool {
        self.codecs.iter().any(|codec| codec.rtx == Some(pt))
    }

    /// The publisher says which layers it sends, on a packet of the encoding with this index.
    fn announce(&mut self, index: u8, allocation: &LayersAllocation, now: Instant) {
        if !self.is_simulcast() {
            let mut sent = 0u8;
            for (spatial, _) in allocation.active(allocation.stream) {
                sent |= 1 << spatial.min(SPATIAL as u8 - 1);
            }
            for spatial in 0..SPATIAL {
                self.flow.announce(spatial, sent >> spatial & 1 == 1, now);
            }
        } else if allocation.stream == index {
            // Streams are counted as encodings are, by size; a client that counts otherwise is not understood.
            for stream in 0..allocation.streams {
                self.flow
                    .announce(usize::from(stream), allocation.active(stream).next().is_some(), now);
            }
        }
        self.has_new_layer = true;
    }

    /// A bit per spatial layer that the publisher sends now: an encoding, or a spatial layer inside the only one.
    pub fn flowing_now(&mut self, now: Instant) -> u8 {
        match &self.mirror {
            Some(mirror) => mirror.flowing,
            None => self.flow.update(now),
        }
    }

    /// What the layers of a picture have shown since the last call, when that is not what it was.
    pub fn measure(&mut self, now: Instant) -> Option<[LayerShape; SPATIAL]> {
        if self.kind == MediaKind::Audio || self.mirror.is_some() {
            return None;
        }
        let is_simulcast = self.is_simulcast();
        let mut seen = self.shapes;
        for (at, encoding) in (0u8..).zip(&mut self.encodings) {
            let Some(rates) = encoding.take_frame_rates(now) else {
                continue;
            };
            for (spatial, (shape, frame_rates)) in (0u8..).zip(seen.iter_mut().zip(rates)) {
                // Of a stream that has stopped, what was seen before stays true.
                let has_frames = frame_rates.iter().any(|rate| *rate > 0);
                let of_layer = if is_simulcast { at == spatial } else { true };
                if has_frames && of_layer {
                    let (width, height) = encoding.dimensions((!is_simulcast).then_some(spatial));
                    *shape = LayerShape {
                        width,
                        height,
                        frame_rates,
                    };
                }
            }
        }
        let differs = self.shapes.iter().zip(&seen).any(|(old, new)| old.differs(new));
        differs.then(|| {
            self.shapes = seen;
            seen
        })
    }

    /// Whether its layers are encodings. Else they are inside the only one.
    pub fn is_simulcast(&self) -> bool {
        self.encodings.len() > 1
    }

    /// The first temporal layer of each spatial one that moves as pictures of people should; 0 of a screen, which is to be
    /// sharp. Before it was measured it is what 30 frames a second make of it.
    pub fn fluent(&self, offered: &Offered) -> [u8; SPATIAL] {
        if self.is_screen {
            return [0; SPATIAL];
        }
        let of_layer = |(shape, rates): (&LayerShape, &[Bitrate; TEMPORAL])| {
            let measured = shape.frame_rates.iter().any(|rate| *rate > 0);
            let fluent = shape.frame_rates.iter().position(|rate| *rate >= FLUENT);
            let layers = rates.iter().filter(|rate| **rate > Bitrate::ZERO).count();
            let nominal = layers.saturating_sub(2); // each layer has half the frames of the next
            let first = if measured { fluent.unwrap_or(TEMPORAL) } else { nominal };
            first as u8 // a few at most
        };
        let mut firsts = [0; SPATIAL];
        for (first, layer) in firsts.iter_mut().zip(self.shapes.iter().zip(&offered.rate)) {
            *first = of_layer(layer);
        }
        firsts
    }

    /// There is more than one spatial layer to look after.
    pub fn has_layers(&self) -> bool {
        let is_layered = self.flowing != 0 && (self.is_simulcast() || self.flowing & (self.flowing - 1) != 0);
        // Of a mirror its home says what flows.
        is_layered && self.mirror.is_none()
    }

    /// Which encoding a layer is given by, and up to which layer of that stream.
    pub fn locate(&self, layer: Layer) -> (u8, Layer) {
        if self.is_simulcast() {
            let last = (self.encodings.len() as u8).saturating_sub(1);
            let within = Layer {
                spatial: EVERYTHING.spatial,
                ..layer
            };
            (layer.spatial.min(last), within)
        } else {
            (0, layer)
        }
    }

    /// The layer a subscriber with this maximum is given: the best that flows up to it, else the lowest that flows, else
    /// what would be right if it did. A layer inside the only encoding needs no choice: what does not flow is not missed.
    pub fn choose(&self, max: Layer) -> Layer {
        if !self.is_simulcast() {
            return max;
        }
        let highest = (self.encodings.len() as u8).saturating_sub(1).min(max.spatial);
        let allowed = self.flowing
            & u8::MAX
                .checked_shr(7u32.saturating_sub(u32::from(highest)))
                .unwrap_or(0);
        let spatial = if allowed != 0 {
            allowed.ilog2() as u8
        } else if self.flowing != 0 {
            self.flowing.trailing_zeros() as u8
        } else {
            highest
        };
        Layer { spatial, ..max }
    }

    /// What it can give now, and for how much.
    pub fn offered(&self, now: Instant) -> Offered {
        if let Some(mirror) = &self.mirror {
            return mirror.offered;
        }
        let mut offered = Offered {
            spatial: 1,
            temporal: 1,
            ..Offered::default()
        };
        for (spatial, (rates, dimensions)) in (0u8..).zip(offered.rate.iter_mut().zip(&mut offered.dimensions)) {
            let (encoding, within) = self.locate(Layer { spatial, ..EVERYTHING });
            let known = self
                .encodings
                .get(usize::from(encoding))
                .filter(|_| encoding == spatial || !self.is_simulcast());
            let Some(encoding) = known else { continue };
            *dimensions = encoding.dimensions((!self.is_simulcast()).then_some(spatial));
            let Some(meter) = encoding.meter() else { continue };
            if !self.is_simulcast() {
                offered.spatial = offered.spatial.max(meter.spatial_layers());
            }
            if self.flowing >> spatial & 1 == 0 {
                continue;
            }
            let layers = meter.temporal_layers(within.spatial).max(1);
            offered.temporal = offered.temporal.max(layers);
            for (temporal, rate) in (0..layers).zip(rates) {
                *rate = meter.rate(Layer { temporal, ..within }, now);
            }
        }
        if self.is_simulcast() {
            offered.spatial = (self.encodings.len() as u8).min(SPATIAL as u8);
        }
        offered
    }
}

/// What a new payload type table means for packets and for subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecChange {
    None,
    /// What was there means what it did: stored packets can still be sent. Subscribers look at their codecs again.
    Extended,
    /// Stored packets name their codec by its place in the table, which does not hold any more.
    Replaced,
}

impl CodecChange {
    fn between(old: &[CodecParameters], new: &[CodecParameters]) -> Self {
        let same = |(old, new): (&CodecParameters, &CodecParameters)| old.pt == new.pt && old.codec == new.codec;
        if old == new {
            Self::None
        } else if old.len() <= new.len() && old.iter().zip(new).all(same) {
            Self::Extended
        } else {
            Self::Replaced
        }
    }
}

fn scorer(codec: Option<&CodecParameters>, now: Instant) -> QualityScorer {
    let fec = codec.is_some_and(|codec| codec.fmtp.contains("useinbandfec=1"));
    QualityScorer::new(codec.map_or(Codec::Opus, |codec| codec.codec), fec, now)
}
