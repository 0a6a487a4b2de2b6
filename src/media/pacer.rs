//! The release of what leaves on a transport into the batch: copy, renumber, seal, commit.
//!
//! Works on descriptors (DESIGN D6): bytes stay in the ring until here. Transport-wide sequence number, send time and
//! retransmission number are given at release, so they are those of what really leaves, in the order it leaves. How much
//! leaves now is `send_queue`'s decision.

use std::time::Instant;

use super::allocation::importance;
use super::beside::Share;
use super::edge::Event;
use super::encoding::Encoding;
use super::fanout::Fanout;
use super::generated;
use super::layers::Cut;
use super::outside::{Events, MIN_DELAY};
use super::resend::Mark;
use super::rewrite::Source;
use super::ring::{PictureNumbers, Stored};
use super::send_queue::{Class, Pace};
use super::slots::Slot;
use super::stats::ShardStats;
use super::subscription::{Output, Subscription};
use super::transport::MediaTransport;
use crate::rtc::SEAL_OVERHEAD;
use crate::rtp::{self, RtpHeader, extension, red, rtx, trailer, vp8, vp9};
use crate::types::{Batch, Bitrate, Codec, DropReason, Extension, MAX_DATAGRAM, MediaKind, NetPath, Pt, WallClock};

mod train;
use train::{Shape, Template};

/// Descriptors queued on one transport within a turn: the key frames of 20 tracks. Beyond, the newest is dropped
/// (`QueueFull`); the receiver asks for it again.
pub const MAX_QUEUED: usize = 2048;

/// Header with extensions, and seal, about: what a payload's packet has more.
const OVERHEAD: usize = 48;

/// Below this, probes are made of small packets: a few of 1,200 bytes would be a queue of their own.
const SLOW_PROBE: Bitrate = Bitrate(1_200_000);
/// Of a probe packet without content; the field has one byte (RFC 3550 §5.1).
const PROBE_PADDING: u8 = 255;

/// Of a packet that announces a muted picture. LiveKit asks for 20 bytes as well.
const ANNOUNCE_PADDING: u8 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A packet of the ring, for the first time.
    Media,
    /// A packet of the ring, again; as RTX where that is negotiated.
    Retransmission,
    /// Silence or a blank frame of `Subscription::last_output`.
    Generated,
    /// Nothing but padding on the media SSRC: announces a muted picture.
    Padding,
    /// A packet of the ring once more as RTX, to see what the path carries.
    Probe,
    /// Nothing but padding on the RTX SSRC, for the same.
    ProbePadding,
}

/// One packet that is to leave, and under which numbers.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub subscription: Slot,
    /// Extended.
    pub sequence_out: u64,
    /// Low half of the publisher's extended number.
    pub sequence_in: u32,
    pub timestamp: u32,
    pub picture: PictureNumbers,
    pub source: Source,
    pub kind: Kind,
    /// What is left out around it.
    pub cut: Cut,
}

const _: () = assert!(size_of::<Descriptor>() <= 32);

/// What release reads beside the room and the transport.
pub struct Release<'a> {
    pub now: Instant,
    pub wall: WallClock,
    /// Whether packets are padded by a byte so that they leave as one GSO send (DESIGN D6).
    pub pad: bool,
    pub stats: &'a mut ShardStats,
    pub events: &'a mut Events,
    /// Reused between calls: the clear size of each queued packet, 0 = not to be padded.
    pub sizes: &'a mut Vec<u16>,
    /// Reused between calls.
    pub ready: &'a mut Vec<Descriptor>,
}

impl Release<'_> {
    /// Sends of what is queued on `transport` as much as its pace allows. Its subscriptions are in `fanout`.
    pub fn run(&mut self, fanout: &mut Fanout, transport: &mut MediaTransport, batch: &mut impl Batch) {
        let pace = Pace::of(&transport.sending_rate);
        let mut queue = std::mem::take(&mut transport.queue);
        self.admit(fanout, transport, pace, &mut queue);
        let mut rest = queue.as_slice();
        while let Some(first) = rest.first() {
            let Some((train, behind)) = rest.split_at_checked(train::len(rest)) else {
                break;
            };
            if first.kind == Kind::Media {
                self.train(fanout, transport, train, batch);
            } else if let Err(reason) = self.send(fanout, transport, first, batch) {
                self.stats.count_drop(reason);
            }
            rest = behind;
        }
        queue.clear();
        transport.queue = queue; // keeps its memory
        self.fill(fanout, transport, batch);
        transport
            .waiting
            .plan(self.now, Pace::of(&transport.sending_rate), MIN_DELAY);
    }

    /// Leaves in `queue` what may leave now.
    fn admit(
        &mut self,
        fanout: &mut Fanout,
        transport: &mut MediaTransport,
        pace: Option<Pace>,
        queue: &mut Vec<Descriptor>,
    ) {
        let waiting = &mut transport.waiting;
        let Some(pace) = pace else {
            waiting.drain_into(queue);
            return;
        };
        let room = &*fanout;
        let size = |descriptor: &Descriptor| {
            let (_, encoding) = origin(room, descriptor)?;
            let stored = stored(Some(encoding), descriptor, self.now).ok()?;
            Some(stored.payload.len() + OVERHEAD)
        };
        let class = |descriptor: &Descriptor| match descriptor.kind {
            Kind::Retransmission => Class::Repair,
            Kind::Media => match room.subscriptions.get(descriptor.subscription) {
                Some(subscription) if subscription.kind == MediaKind::Video => Class::Video,
                _ => Class::Prompt,
            },
            _ => Class::Prompt,
        };
        let refused = waiting.admit(self.now, pace, queue, self.ready, class, size);
        (0..refused).for_each(|_| self.stats.count_drop(DropReason::QueueFull));
        while let Some((slot, newest)) = waiting.overflow(pace.rate, |slot| rank(fanout, slot)) {
            let packets = waiting.cut(slot);
            (0..packets).for_each(|_| self.stats.count_drop(DropReason::Congested));
            if let Some(subscription) = fanout.subscriptions.get_mut(slot) {
                subscription.abandon(newest);
            }
        }
    }

    /// Fills a probe with packets that were sent already, or with padding.
    fn fill(&mut self, fanout: &mut Fanout, transport: &mut MediaTransport, batch: &mut impl Batch) {
        /// A quantum of the fastest probe.
        const MAX_FILLS: usize = 64;
        for _ in 0..MAX_FILLS {
            let pace = Pace::of(&transport.sending_rate).filter(|pace| transport.waiting.wants_fill(*pace));
            let Some(pace) = pace else { return };
            let Some(descriptor) = probe(fanout, transport, pace.rate, self.now) else {
                return;
            };
            if self.send(fanout, transport, &descriptor, batch).is_err() {
                return;
            }
            self.stats.probes += 1;
        }
    }

    fn send(
        &mut self,
        fanout: &mut Fanout,
        transport: &mut MediaTransport,
        descriptor: &Descriptor,
        batch: &mut impl Batch,
    ) -> Result<(), DropReason> {
        let slot = batch.slot();
        let (path, len) = self.write(fanout, transport, descriptor, slot)?;
        batch.commit(path, len);
        transport.waiting.spend(share(descriptor.kind), len);
        self.stats.bytes_sent += len as u64;
        Ok(())
    }

    fn write(
        &mut self,
        fanout: &mut Fanout,
        transport: &mut MediaTransport,
        descriptor: &Descriptor,
        buf: &mut [u8],
    ) -> Result<(NetPath, usize), DropReason> {
        let path = transport.rtc.path().ok_or(DropReason::Disabled)?;
        let subscription = fanout
            .subscriptions
            .get_mut(descriptor.subscription)
            .ok_or(DropReason::StaleCommand)?;
        let encoding = fanout
            .tracks
            .get(subscription.track)
            .and_then(|track| track.encodings.get(usize::from(descriptor.source.encoding)));
        // Room for the seal behind the packet.
        let limit = buf.len().min(MAX_DATAGRAM).saturating_sub(SEAL_OVERHEAD);
        let packet = buf.get_mut(..limit).ok_or(DropReason::TooLarge)?;
        let written = match descriptor.kind {
            Kind::Media => return Err(DropReason::Disabled), // it leaves by `train`
            Kind::Retransmission | Kind::Probe => {
                let mut room;
                let mut stored = stored(encoding, descriptor, self.now)?;
                if !stored.dependency_descriptor.is_empty() {
                    room = [0; MAX_DESCRIPTOR];
                    stored.dependency_descriptor =
                        shown_descriptor(encoding, subscription, descriptor, &stored, &mut room)?;
                }
                if descriptor.kind == Kind::Retransmission {
                    self.stats.retransmitted += 1;
                    subscription.repair.retransmitted = subscription.repair.retransmitted.wrapping_add(1);
                }
                self.retransmission(subscription, transport, descriptor, stored, packet)?
            }
            Kind::ProbePadding => self.probe_padding(subscription, transport, packet)?,
            Kind::Generated | Kind::Padding => {
                self.generated(subscription, transport, descriptor, &fanout.sif_trailer, packet)?
            }
        };
        let sealed = transport
            .rtc
            .seal_rtp(buf, written.header_len, written.len, written.rollover())?;
        self.handle_sent(subscription, transport, descriptor, &written, sealed);
        Ok((path, sealed))
    }

    /// A packet was written that is `sealed` bytes long, and leaves.
    fn handle_sent(
        &mut self,
        subscription: &Subscription,
        transport: &mut MediaTransport,
        descriptor: &Descriptor,
        written: &Written,
        sealed: usize,
    ) {
        let is_copy = descriptor.kind == Kind::Retransmission;
        let is_watched = is_copy || transport.waiting.is_lossy && descriptor.kind == Kind::Media;
        if written.numbered && is_watched && subscription.kind == MediaKind::Video {
            let number = transport.sending_rate.next_sequence();
            let of = (descriptor.subscription, descriptor.sequence_out);
            transport.waiting.in_flight.handle_sent(self.now, number, of, is_copy);
        }
        transport.sending_rate.handle_sent(self.now, sealed, written.numbered);
        if descriptor.kind == Kind::Media {
            transport.waiting.budget.earn(sealed);
            if subscription.kind == MediaKind::Video {
                let (slot, sequence) = (descriptor.subscription, descriptor.sequence_out);
                let has_rtx = subscription.rtx_output().is_some();
                transport.waiting.handle_video(slot, sequence, sealed, has_rtx);
            }
        }
        self.stats.rtp_sent += 1;
    }

    /// A first packet was written.
    fn note(
        &mut self,
        subscription: &mut Subscription,
        descriptor: &Descriptor,
        written: &Written,
        output: Output,
        mark: Mark,
    ) {
        self.stats.padded += u64::from(mark.padding > 0);
        if let Some(marks) = &mut subscription.marks {
            marks.put(descriptor.sequence_out, mark);
        }
        if let Some(playout) = &mut subscription.playout {
            playout.handle_sent(descriptor.sequence_out);
        }
        subscription.last_output = Some(output);
        subscription.packets = subscription.packets.wrapping_add(1);
        let octets = (written.len - written.header_len) as u32;
        subscription.octets = subscription.octets.wrapping_add(octets);
        if !subscription.started {
            subscription.started = true;
            self.events.push(Event::SubscriptionStarted {
                subscription: subscription.handle,
            });
        }
    }

    fn retransmission(
        &mut self,
        subscription: &mut Subscription,
        transport: &mut MediaTransport,
        descriptor: &Descriptor,
        stored: Stored<'_>,
        buf: &mut [u8],
    ) -> Result<Written, DropReason> {
        let output = subscription
            .output(stored.info.codec)
            .ok_or(DropReason::CodecNotNegotiated)?;
        let (Some(pt), Some(ssrc)) = (output.rtx, subscription.rtx_ssrc) else {
            // Byte for byte what was sent: the seal is then the same too.
            let marks = subscription.marks.as_ref();
            // What a descriptor names may have changed since, and with it the bytes.
            let is_fixed = stored.dependency_descriptor.is_empty() || descriptor.cut == Cut::NONE;
            let mark = marks
                .filter(|_| is_fixed)
                .and_then(|marks| marks.find(descriptor.sequence_out))
                .ok_or(DropReason::RtxUnavailable)?;
            let written = primary(subscription, &output, descriptor, stored, &mark, None, buf)?;
            return Ok(Written {
                numbered: false, // with the number it had
                ..written
            });
        };
        let sequence = subscription.next_rtx_sequence();
        let mark = Mark {
            transport_cc: transport.next_transport_cc(),
            abs_send_time: send_time(self.wall, self.now),
            ..Mark::default()
        };
        let mut elements = Elements::of(subscription, &stored, &mark, &[]);
        elements.retain(|extension| *extension != Extension::PlayoutDelay); // LiveKit: not on RTX
        let header = RtpHeader {
            marker: shown_marker(descriptor, &stored),
            pt,
            sequence: sequence as u16,
            timestamp: descriptor.timestamp,
            ssrc,
        };
        let header_len = header.write(buf, &subscription.extensions, elements.as_slice())?.len;
        let body = buf.get_mut(header_len..).ok_or(DropReason::TooLarge)?;
        let (original, body) = body.split_first_chunk_mut().ok_or(DropReason::TooLarge)?;
        *original = (descriptor.sequence_out as u16).to_be_bytes(); // RFC 4588 §4: OSN
        let len = header_len + rtx::OSN_LEN + write_payload(subscription, &output, descriptor, &stored, body)?;
        Ok(Written {
            header_len,
            len,
            sequence,
            numbered: subscription.is_numbered(),
        })
    }

    /// Padding on the RTX SSRC, which every receiver counts and none shows.
    fn probe_padding(
        &mut self,
        subscription: &mut Subscription,
        transport: &mut MediaTransport,
        buf: &mut [u8],
    ) -> Result<Written, DropReason> {
        let (pt, ssrc) = subscription.rtx_output().ok_or(DropReason::RtxUnavailable)?;
        let sequence = subscription.next_rtx_sequence();
        let transport_cc = transport.next_transport_cc();
        let send_time = send_time(self.wall, self.now);
        let elements = [
            (Extension::AbsSendTime, &send_time[..]),
            (Extension::TransportCc, &transport_cc[..]),
        ];
        let header = RtpHeader {
            marker: false,
            pt,
            sequence: sequence as u16,
            timestamp: subscription.rewriter.timestamp(),
            ssrc,
        };
        let header_len = header.write(buf, &subscription.extensions, &elements)?.len;
        let len = rtp::append_padding(buf, header_len, PROBE_PADDING)?;
        Ok(Written {
            header_len,
            len,
            sequence,
            numbered: subscription.is_numbered(),
        })
    }

    fn generated(
        &mut self,
        subscription: &mut Subscription,
        transport: &mut MediaTransport,
        descriptor: &Descriptor,
        sif_trailer: &[u8],
        buf: &mut [u8],
    ) -> Result<Written, DropReason> {
        let output = subscription.last_output.ok_or(DropReason::CodecNotNegotiated)?;
        let transport_cc = transport.next_transport_cc();
        let send_time = send_time(self.wall, self.now);
        let is_padding = descriptor.kind == Kind::Padding;
        let elements = [
            (Extension::AbsSendTime, &send_time[..]),
            (Extension::TransportCc, &transport_cc[..]),
            (Extension::Mid, subscription.mid.as_bytes()),
        ];
        let elements = elements
            .get(..if subscription.acknowledged { 2 } else { 3 })
            .unwrap_or(&[]);
        let header = RtpHeader {
            marker: subscription.kind == MediaKind::Video && !is_padding,
            pt: output.pt,
            sequence: descriptor.sequence_out as u16,
            timestamp: descriptor.timestamp,
            ssrc: subscription.ssrc,
        };
        let header_len = header.write(buf, &subscription.extensions, elements)?.len;
        if is_padding {
            let len = rtp::append_padding(buf, header_len, ANNOUNCE_PADDING)?;
            subscription.packets = subscription.packets.wrapping_add(1);
            return Ok(Written {
                header_len,
                len,
                sequence: descriptor.sequence_out,
                numbered: subscription.is_numbered(),
            });
        }
        let body = buf.get_mut(header_len..).ok_or(DropReason::TooLarge)?;
        let primary = subscription.opus_pt().unwrap_or(Pt(111)); // LiveKit: opus is always 111
        let picture = descriptor.picture.picture_id;
        let mut len = generated::write(output.codec, primary, picture, body).ok_or(DropReason::CodecNotNegotiated)?;
        // LiveKit: a decryptor passes a frame that ends in the room's trailer; without one it would drop it.
        if subscription.encrypted {
            let end = len + sif_trailer.len();
            body.get_mut(len..end)
                .ok_or(DropReason::TooLarge)?
                .copy_from_slice(sif_trailer);
            len = end;
        }
        subscription.packets = subscription.packets.wrapping_add(1);
        subscription.octets = subscription.octets.wrapping_add(len as u32);
        Ok(Written {
            header_len,
            len: header_len + len,
            sequence: descriptor.sequence_out,
            numbered: subscription.is_numbered(),
        })
    }
}

/// Of what does not leave by `train`.
fn share(kind: Kind) -> Share {
    match kind {
        Kind::Probe | Kind::ProbePadding => Share::Probe,
        _ => Share::Other,
    }
}

/// The subscription of a descriptor and the encoding its packet is from.
fn origin<'f>(fanout: &'f Fanout, descriptor: &Descriptor) -> Option<(&'f Subscription, &'f Encoding)> {
    let subscription = fanout.subscriptions.get(descriptor.subscription)?;
    let track = fanout.tracks.get(subscription.track)?;
    let encoding = track.encodings.get(usize::from(descriptor.source.encoding))?;
    Some((subscription, encoding))
}

/// How important a subscription is beside others.
fn rank(fanout: &Fanout, slot: Slot) -> Option<(u8, bool)> {
    let subscription = fanout.subscriptions.get(slot)?;
    Some(importance(subscription, fanout.tracks.get(subscription.track)?))
}

/// The next packet of a probe at `rate`: a recent one again where there is one, else padding.
fn probe(fanout: &Fanout, transport: &mut MediaTransport, rate: Bitrate, now: Instant) -> Option<Descriptor> {
    let again = transport.waiting.fill().filter(|_| rate >= SLOW_PROBE);
    let again = again.and_then(|(slot, sequence)| {
        let subscription = fanout.subscriptions.get(slot)?;
        let encodings = &fanout.tracks.get(subscription.track)?.encodings;
        subscription.again(slot, encodings, sequence, Kind::Probe, now)
    });
    if again.is_some() {
        return again;
    }
    let with_rtx = |slot: &&Slot| {
        let subscription = fanout.subscriptions.get(**slot);
        subscription.is_some_and(|subscription| subscription.rtx_output().is_some())
    };
    // Any will do.
    let subscription = *transport.allocation.subscriptions.iter().find(with_rtx)?;
    Some(Descriptor {
        subscription,
        sequence_out: 0,
        sequence_in: 0,
        timestamp: 0,
        picture: PictureNumbers::default(),
        source: Source { encoding: 0, epoch: 0 },
        kind: Kind::ProbePadding,
        cut: Cut::NONE,
    })
}

struct Written {
    header_len: usize,
    len: usize,
    /// Extended, of the SSRC it is written for.
    sequence: u64,
    /// It carries the next transport-wide number.
    numbered: bool,
}

impl Written {
    /// Extended numbers begin in cycle 1 (`Rewriter::new`), rollover counters at 0.
    fn rollover(&self) -> u32 {
        ((self.sequence >> 16) as u32).wrapping_sub(1)
    }
}

fn stored<'e>(encoding: Option<&'e Encoding>, descriptor: &Descriptor, now: Instant) -> Result<Stored<'e>, DropReason> {
    let encoding = encoding.filter(|encoding| encoding.source() == descriptor.source);
    encoding
        .and_then(|encoding| encoding.stored(encoding.sequence_from_low(descriptor.sequence_in)?, now))
        .ok_or(DropReason::SlotReused)
}

fn shown_marker(descriptor: &Descriptor, stored: &Stored<'_>) -> bool {
    let info = stored.info;
    descriptor.cut.marker(info.marker, info.end, info.spatial)
}

/// Of a dependency descriptor as it is shown: at most five bytes more than an extension element has.
const MAX_DESCRIPTOR: usize = 264;

/// The dependency descriptor under this subscriber's frame numbers, and with what is left of its decode targets.
fn shown_descriptor<'s>(
    encoding: Option<&Encoding>,
    subscription: &Subscription,
    descriptor: &Descriptor,
    stored: &Stored<'s>,
    room: &'s mut [u8; MAX_DESCRIPTOR],
) -> Result<&'s [u8], DropReason> {
    if subscription.extensions.id(Extension::DependencyDescriptor).is_none() {
        return Ok(&[]);
    }
    let located = subscription
        .rewriter
        .locate(descriptor.sequence_out)
        .ok_or(DropReason::SlotReused)?;
    if located.offsets.frame_number == 0 && descriptor.cut == Cut::NONE {
        return Ok(stored.dependency_descriptor);
    }
    let encoding = encoding.ok_or(DropReason::SlotReused)?;
    let len = encoding.show_descriptor(stored, located.offsets.frame_number, descriptor.cut, room)?;
    room.get(..len).ok_or(DropReason::TooLarge)
}

/// The packet on its own SSRC. Depends on nothing but its arguments, so that a resend is the same bytes.
fn primary(
    subscription: &Subscription,
    output: &Output,
    descriptor: &Descriptor,
    stored: Stored<'_>,
    mark: &Mark,
    before: Option<&mut Template>,
    buf: &mut [u8],
) -> Result<Written, DropReason> {
    let header = RtpHeader {
        marker: shown_marker(descriptor, &stored),
        pt: output.pt,
        sequence: descriptor.sequence_out as u16,
        timestamp: descriptor.timestamp,
        ssrc: subscription.ssrc,
    };
    let mut before = before.zip(Shape::of(subscription, &stored, mark));
    let copied = before
        .as_ref()
        .and_then(|(template, shape)| template.write(shape, &header, mark, buf));
    let header_len = match copied {
        Some(len) => len,
        None => {
            let mid = if mark.with_mid {
                subscription.mid.as_bytes()
            } else {
                &[]
            };
            let elements = Elements::of(subscription, &stored, mark, mid);
            let written = header.write(buf, &subscription.extensions, elements.as_slice())?;
            if let Some((template, shape)) = &mut before {
                template.keep(shape, &written, buf);
            }
            written.len
        }
    };
    let body = buf.get_mut(header_len..).ok_or(DropReason::TooLarge)?;
    let len = header_len + write_payload(subscription, output, descriptor, &stored, body)?;
    let len = rtp::append_padding(buf, len, mark.padding)?;
    Ok(Written {
        header_len,
        len,
        sequence: descriptor.sequence_out,
        numbered: subscription.is_numbered(),
    })
}

/// The payload as this subscriber is shown it; its length.
fn write_payload(
    subscription: &Subscription,
    output: &Output,
    descriptor: &Descriptor,
    stored: &Stored<'_>,
    body: &mut [u8],
) -> Result<usize, DropReason> {
    let payload = shown_payload(subscription, output, stored)?;
    let target = body.get_mut(..payload.len()).ok_or(DropReason::TooLarge)?;
    target.copy_from_slice(payload);
    if output.codec == Codec::Vp8 && descriptor.picture != stored.info.picture {
        let mut vp8 = vp8::Descriptor::parse(target)?;
        vp8.picture_id = vp8.picture_id.map(|id| id.with_value(descriptor.picture.picture_id));
        vp8.tl0_pic_idx = vp8.tl0_pic_idx.map(|_| descriptor.picture.tl0_picidx);
        vp8.key_idx = vp8.key_idx.map(|_| descriptor.picture.keyidx);
        vp8.write(target)?; // the same fields: the same length
    }
    if output.codec == Codec::Vp9 && descriptor.picture != stored.info.picture {
        vp9::patch_picture(target, descriptor.picture.picture_id, descriptor.picture.tl0_picidx);
    }
    Ok(payload.len())
}

fn shown_payload<'s>(
    subscription: &Subscription,
    output: &Output,
    stored: &Stored<'s>,
) -> Result<&'s [u8], DropReason> {
    let mut payload = stored.payload;
    if subscription.strip_packet_trailer {
        let keep = payload.len() - trailer::len(payload, stored.info.marker).min(payload.len());
        payload = payload.get(..keep).unwrap_or_default();
    }
    if output.strip_red {
        payload = red::primary(payload)?.1;
    }
    Ok(payload)
}

fn send_time(wall: WallClock, now: Instant) -> [u8; 3] {
    let [_, a, b, c] = extension::abs_send_time(wall.unix(now)).to_be_bytes();
    [a, b, c]
}

/// Every extension that can go toward a subscriber, in the order written.
const MAX_ELEMENTS: usize = 8;

struct Elements<'a> {
    list: [(Extension, &'a [u8]); MAX_ELEMENTS],
    len: usize,
}

impl<'a> Elements<'a> {
    fn of<'b>(subscription: &'b Subscription, stored: &'b Stored<'_>, mark: &'b Mark, mid: &'b [u8]) -> Elements<'b> {
        let mut elements = Elements {
            list: [(Extension::Mid, &[]); MAX_ELEMENTS],
            len: 0,
        };
        let info = stored.info;
        let mut put = |extension: Extension, value: &'b [u8]| {
            if !value.is_empty()
                && subscription.extensions.id(extension).is_some()
                && let Some(place) = elements.list.get_mut(elements.len)
            {
                *place = (extension, value);
                elements.len += 1;
            }
        };
        put(Extension::Mid, mid);
        put(Extension::AbsSendTime, &mark.abs_send_time);
        put(Extension::TransportCc, &mark.transport_cc);
        put(Extension::AudioLevel, info.audio_level.as_slice());
        match (&subscription.playout, &info.playout_delay) {
            // A publisher that has a wish of its own is asked before the path, and the room before both.
            (Some(playout), theirs) if playout.bounds().is_some() || theirs.is_none() => {
                put(Extension::PlayoutDelay, playout.extension());
            }
            (_, theirs) => put(Extension::PlayoutDelay, theirs.as_slice().as_flattened()),
        }
        put(Extension::VideoOrientation, info.video_orientation.as_slice());
        put(Extension::AbsCaptureTime, stored.abs_capture_time);
        put(Extension::DependencyDescriptor, stored.dependency_descriptor);
        elements
    }

    fn as_slice(&self) -> &[(Extension, &'a [u8])] {
        self.list.get(..self.len).unwrap_or_default()
    }

    fn retain(&mut self, keep: impl Fn(&Extension) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            if let Some(element) = self.list.get(at).copied()
                && keep(&element.0)
                && let Some(place) = self.list.get_mut(kept)
            {
                *place = element;
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Bytes of the extension block that `RtpHeader::write` makes of these (RFC 8285 §4.2, §4.3).
    fn block_len(&self, subscription: &Subscription) -> usize {
        let ids = &subscription.extensions;
        let one_byte =
            |(extension, value): &(Extension, &[u8])| ids.id(*extension).is_none_or(|id| id < 15) && value.len() <= 16;
        let head = if self.as_slice().iter().all(one_byte) { 1 } else { 2 };
        let values: usize = self.as_slice().iter().map(|(_, value)| head + value.len()).sum();
        if values == 0 { 0 } else { 4 + values.next_multiple_of(4) }
    }
}
