//! One published source: which payload types and encodings it comes in, and who receives it.
//!
//! Owned by a `Fanout`. `on_rtp` takes a packet whose SSRC is known to the right encoding; forwarding it is the
//! fanout's.

use std::time::Instant;

use super::edge::{EncodingParameters, Publish};
use super::encoding::{Arrived, Encoding, OriginalPacket};
use super::quality::QualityScorer;
use super::slots::Slot;
use super::speakers::TrackLevel;
use super::timers::TimerId;
use crate::rtp::{RtpPacket, rtx};
use crate::types::{
    Codec, CodecParameters, DropReason, ExtensionMap, MediaKind, Mid, ParticipantHandle, Pt, TrackHandle,
};

/// Encodings of one track: LiveKit has three spatial layers; a fourth leaves room for a client that offers more.
pub const MAX_ENCODINGS: usize = 4;

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
    pub is_screen: bool,
    pub encrypted: bool,
    pub subscribers: Vec<Slot>,
    pub timer: TimerId,
    /// A bit per encoding that had packets lately, as of the last look.
    pub flowing: u8,
    /// Of audio, for who speaks.
    pub level: Option<TrackLevel>,
    pub scorer: QualityScorer,
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
            is_screen: publish.is_screen,
            encrypted: publish.encrypted,
            subscribers: Vec::new(),
            timer,
            flowing: 0,
            level,
            scorer,
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
            nack: codec.nack && !self.muted,
        };
        let arrived = encoding.on_rtp(now, (at as u8, codec.codec), &original)?;
        // Kept although not forwarded: a duplicate must be known as one after the mute as well.
        if self.muted {
            Err(DropReason::Muted)
        } else {
            Ok(arrived)
        }
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

    /// A bit per encoding that had a packet within the last second.
    pub fn flowing_now(&self, now: Instant) -> u8 {
        let bits = (0u32..).zip(&self.encodings);
        bits.fold(0, |bits, (index, encoding)| {
            bits | u8::from(encoding.is_flowing(now)).checked_shl(index).unwrap_or(0)
        })
    }

    /// The encoding a subscriber with this maximum is given: the best that flows up to it, else the lowest that flows,
    /// else what would be right if it did.
    pub fn choose(&self, max_spatial: u8) -> u8 {
        let highest = (self.encodings.len() as u8).saturating_sub(1).min(max_spatial);
        let allowed = self.flowing
            & u8::MAX
                .checked_shr(7u32.saturating_sub(u32::from(highest)))
                .unwrap_or(0);
        if allowed != 0 {
            allowed.ilog2() as u8
        } else if self.flowing != 0 {
            self.flowing.trailing_zeros() as u8
        } else {
            highest
        }
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
