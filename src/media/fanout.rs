//! One room's forwarding table on its shard: packets of its tracks in, descriptors for its subscribers out.
//!
//! Owned by the shard, which calls one room at a time and contains its panics (DESIGN D10): everything a packet can
//! change beyond the room goes through `Outside`. Binding tracks and subscriptions is in `binding`, RTCP in `feedback`.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::allocator::Candidate;
use super::data::DataPlane;
use super::edge::Event;
use super::encoding::Arrived;
use super::estimator::Acknowledged;
use super::loudest::Loudest;
use super::outside::Outside;
use super::repairs::Lost;
use super::replay::{begin, note_layer};
use super::rewrite::Source;
use super::slots::{Slot, Slots};
use super::speakers::{SpeakerSettings, Speakers};
use super::subscription::Subscription;
use super::timers::TimerId;
use super::track::Track;
use super::transport::Stream;
use crate::rtp::RtpPacket;
use crate::rtp::extension::AudioLevel;
use crate::rtp::rtcp::{FirRequest, NackPair};
use crate::types::{DropReason, Extension, MediaKind, Mid, Rid, RoomHandle, ShardIndex, Ssrc};

/// Our own SSRC in RTCP toward publishers. It sends no media, so any value does; libwebrtc's receive-only streams use 1.
pub const LOCAL_SSRC: Ssrc = Ssrc(1);

/// Packets of a turn that wait to be forwarded together: a frame and a few voices. When so many wait, they are forwarded at
/// once. 7 KiB of a room that is spoken in, twice.
const MAX_PENDING: usize = 32;

/// How often a track's layers are looked at for one that has stopped.
const FLOW_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Fanout {
    pub handle: RoomHandle,
    /// Its own place on the shard.
    pub slot: Slot,
    /// Ends every frame that the server makes for an encrypted track.
    pub sif_trailer: Box<[u8]>,
    pub tracks: Slots<Track>,
    pub subscriptions: Slots<Subscription>,
    /// What came in this turn and is not forwarded yet, by track: one visit to a subscription is for all of it. At most
    /// `MAX_PENDING`.
    pending: Vec<(Slot, Arrived)>,
    /// In the shard's list of rooms where something is pending.
    pub is_pending: bool,
    /// Reused between calls.
    train: Vec<Arrived>,
    /// Reused between calls.
    pub nack_pairs: Vec<NackPair>,
    /// Reused between calls.
    pub streams: Vec<(Ssrc, Stream)>,
    /// Reused between calls.
    pub acknowledged: Vec<Acknowledged>,
    /// Reused between calls.
    pub lost: Vec<Lost>,
    /// Reused between calls.
    pub candidates: Vec<Candidate>,
    pub speakers: Speakers,
    /// Where only the loudest voices are forwarded.
    pub loudest: Option<Loudest>,
    pub data: DataPlane,
    /// The shard that decides for the room who speaks and who is heard; None = the room is here only.
    pub decider: Option<ShardIndex>,
    /// When scores are due; None while there are no tracks.
    pub next_quality: Option<Instant>,
    pub timer: TimerId,
    /// Test hook: the next packet panics.
    #[cfg(test)]
    pub panics: bool,
}

impl Fanout {
    pub fn new(
        handle: RoomHandle,
        slot: Slot,
        sif_trailer: Vec<u8>,
        speakers: SpeakerSettings,
        timer: TimerId,
    ) -> Self {
        Self {
            handle,
            slot,
            sif_trailer: sif_trailer.into_boxed_slice(),
            tracks: Slots::default(),
            subscriptions: Slots::default(),
            pending: Vec::new(),
            is_pending: false,
            train: Vec::new(),
            nack_pairs: Vec::new(),
            streams: Vec::new(),
            acknowledged: Vec::new(),
            lost: Vec::new(),
            candidates: Vec::new(),
            speakers: Speakers::new(speakers),
            loudest: None,
            data: DataPlane::default(),
            decider: None,
            next_quality: None,
            timer,
            #[cfg(test)]
            panics: false,
        }
    }

    /// One cleartext RTP packet from a transport of this room.
    pub fn on_rtp(&mut self, outside: &mut Outside<'_>, transport: Slot, packet: &[u8]) -> Result<(), DropReason> {
        #[cfg(test)]
        assert!(!self.panics, "asked for by a test");
        let packet = RtpPacket::parse(packet)?;
        let source = outside.transports.get_mut(transport).ok_or(DropReason::UnknownPath)?;
        source.receiving.handle_arrival(&packet, outside.arrival, outside.now);
        let stream = match source.receiving.streams.get(&packet.ssrc()).copied() {
            Some(stream) => stream,
            None => self.learn(outside, transport, &packet)?,
        };
        if let Some(source) = outside.transports.get_mut(transport) {
            if !stream.retransmission {
                source.receiving.last_ssrc = Some(packet.ssrc());
            }
            let (timer, deadline) = (source.timer, source.receiving.deadline());
            outside.arm(timer, deadline);
        }
        self.take(outside, stream, &packet)
    }

    /// One packet of a stream that is known: stored, looked at, forwarded.
    pub fn take(
        &mut self,
        outside: &mut Outside<'_>,
        stream: Stream,
        packet: &RtpPacket<'_>,
    ) -> Result<(), DropReason> {
        let track = self.tracks.get_mut(stream.track).ok_or(DropReason::NotPublished)?;
        let started = |track: &Track| {
            track
                .encodings
                .get(usize::from(stream.encoding))
                .is_some_and(|e| e.has_started())
        };
        let bit = 1u8.checked_shl(u32::from(stream.encoding)).unwrap_or(0);
        let is_first = !started(track) || track.unannounced & bit != 0;
        let arrived = track.on_rtp(outside.now, stream.encoding, packet, stream.retransmission);
        let has_new_layer = std::mem::take(&mut track.has_new_layer);
        if is_first && started(track) {
            track.unannounced &= !bit;
            self.encoding_started(outside, stream, packet);
        }
        if has_new_layer {
            self.flow_changed(outside, stream.track);
        }
        self.arm_track(outside, stream.track);
        if arrived == Err(DropReason::PaddingOnly) && !stream.retransmission {
            self.forward_pending(outside);
            self.close_up(stream, packet.sequence());
            self.relay_gap(outside, stream, packet);
        }
        let arrived = arrived?;
        self.observe_level(outside, stream.track, &arrived);
        self.admit_voice(outside, stream.track, &arrived)?;
        outside.stats.recovered += u64::from(stream.retransmission);
        self.wait_for_others(outside, stream.track, arrived);
        self.relay(outside, stream.track, &arrived, stream.retransmission);
        Ok(())
    }

    /// A packet that nobody is given (a probe on the media SSRC) leaves no gap that receivers would ask for.
    pub fn close_up(&mut self, stream: Stream, sequence: u16) {
        let Some(track) = self.tracks.get(stream.track) else {
            return;
        };
        let Some(encoding) = track.encodings.get(usize::from(stream.encoding)) else {
            return;
        };
        let Some(newest) = encoding.highest().filter(|highest| *highest as u16 == sequence) else {
            return;
        };
        for &slot in &track.subscribers {
            if let Some(subscription) = self.subscriptions.get_mut(slot) {
                subscription.rewriter.skip(encoding.source(), newest);
            }
        }
    }

    fn observe_level(&mut self, outside: &mut Outside<'_>, slot: Slot, packet: &Arrived) {
        let level = packet.info.audio_level.as_ref().map(std::slice::from_ref);
        let Some(level) = level.and_then(AudioLevel::read) else {
            return;
        };
        if self.decider.is_some() && self.pass_level(outside, slot, level.level, packet) {
            return;
        }
        let Some(measured) = self.tracks.get_mut(slot).and_then(|track| track.level.as_mut()) else {
            return;
        };
        measured.observe(
            self.speakers.settings(),
            level.level,
            packet.info.timestamp,
            outside.now,
        );
        self.speakers.handle_audio(outside.now);
        outside.arm(self.timer, self.speakers.poll_timeout());
    }

    /// The timer of the room is due.
    pub fn room_timeout(&mut self, outside: &mut Outside<'_>) {
        let now = outside.now;
        let levels = self.tracks.iter();
        let levels = levels.filter_map(|(_, track)| Some((track.participant, track.level.as_ref()?)));
        if let Some(speakers) = self.speakers.handle_timeout(outside.now, levels) {
            outside.events.push(Event::Speakers {
                room: self.handle,
                speakers,
            });
        }
        outside.arm(self.timer, self.speakers.poll_timeout());
        if self.data.poll_timeout().is_some_and(|at| at <= outside.now) {
            self.data.handle_timeout(now, outside);
        }
        self.data_changed(outside);
        self.quality_timeout(outside);
        outside.arm(self.timer, self.next_quality);
    }

    /// Forwards the packet with the others of its turn: `forward_pending` before anything else is done with the room.
    fn wait_for_others(&mut self, outside: &mut Outside<'_>, track: Slot, packet: Arrived) {
        self.pending.push((track, packet));
        if !std::mem::replace(&mut self.is_pending, true) {
            outside.pending.push(self.slot);
        }
        if self.pending.len() >= MAX_PENDING {
            self.forward_pending(outside);
        }
    }

    /// Forwards what is pending, track by track.
    pub fn forward_pending(&mut self, outside: &mut Outside<'_>) {
        if self.pending.is_empty() {
            return;
        }
        let (mut pending, mut train) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.train));
        while let Some((track, _)) = pending.first().copied() {
            train.clear();
            pending.retain(|(of, packet)| {
                if *of == track {
                    train.push(*packet);
                }
                *of != track
            });
            self.forward_train(outside, track, &train);
        }
        (self.pending, self.train) = (pending, train); // they keep their memory
    }

    /// One packet at once.
    pub fn forward(&mut self, outside: &mut Outside<'_>, track_slot: Slot, packet: &Arrived) {
        self.forward_pending(outside);
        self.forward_train(outside, track_slot, std::slice::from_ref(packet));
    }

    /// To each subscriber of the track: select, rewrite, queue.
    fn forward_train(&mut self, outside: &mut Outside<'_>, track_slot: Slot, packets: &[Arrived]) {
        let Some(track) = self.tracks.get(track_slot) else {
            return;
        };
        let mut keyframes_wanted = 0;
        for &slot in &track.subscribers {
            if let Some(subscription) = self.subscriptions.get_mut(slot) {
                keyframes_wanted |= Self::forward_to(outside, (slot, subscription), track, packets);
            }
        }
        for encoding in (0..8).filter(|bit| keyframes_wanted >> bit & 1 == 1) {
            self.request_keyframe(outside, track_slot, encoding);
        }
    }

    /// The encodings of which a key frame is needed, a bit each.
    fn forward_to(
        outside: &mut Outside<'_>,
        (slot, subscription): (Slot, &mut Subscription),
        track: &Track,
        packets: &[Arrived],
    ) -> u8 {
        let mut keyframes_wanted = 0;
        // A switch brings what is stored behind it, and that may be among these packets.
        let mut brought: Option<(Source, RangeInclusive<u64>)> = None;
        let was_brought = |brought: &(Source, RangeInclusive<u64>), packet: &Arrived| {
            brought.0 == packet.source && brought.1.contains(&packet.sequence)
        };
        for packet in packets {
            if brought.as_ref().is_some_and(|brought| was_brought(brought, packet)) {
                continue;
            }
            let was = (subscription.rewriter.source(), subscription.cut());
            match subscription.forward(slot, track, packet) {
                Ok(descriptor) => {
                    outside.queue(subscription.transport, descriptor);
                    if packet.info.end && !packet.late {
                        Self::watch_tail(outside, subscription, descriptor.sequence_out);
                    }
                    if was.0 != subscription.rewriter.source() {
                        let numbers = begin(outside, slot, subscription, track, packet);
                        brought = Some((packet.source, numbers));
                    } else if was.1 != subscription.cut() {
                        note_layer(outside, subscription, track);
                    }
                }
                Err(reason) => {
                    outside.stats.count_drop(reason);
                    if reason == DropReason::AwaitingKeyframe {
                        keyframes_wanted |= 1u8.checked_shl(u32::from(packet.source.encoding)).unwrap_or(0);
                    }
                    if reason == DropReason::CodecNotNegotiated {
                        subscription.rewriter.skip(packet.source, packet.sequence);
                        report_codec(outside, subscription, track, packet);
                    }
                }
            }
        }
        keyframes_wanted
    }

    /// The packet explains itself by its mid and rid (RFC 8852, RFC 8843 §9.2); the SSRC is kept for the session, because
    /// senders stop writing them after our first report.
    fn learn(&mut self, outside: &mut Outside<'_>, slot: Slot, packet: &RtpPacket<'_>) -> Result<Stream, DropReason> {
        self.forward_pending(outside); // an encoding may start over
        let transport = outside.transports.get_mut(slot).ok_or(DropReason::UnknownPath)?;
        let receiving = &mut transport.receiving;
        let element = |extension| {
            let id = receiving.extensions.id(extension)?;
            packet.extension(id)
        };
        let mid = element(Extension::Mid)
            .and_then(Mid::from_bytes)
            .ok_or(DropReason::UnknownSsrc)?;
        let repaired = element(Extension::RepairedRid).and_then(Rid::from_bytes);
        let rid = repaired.or_else(|| element(Extension::Rid).and_then(Rid::from_bytes));
        let track_slot = receiving.track(mid).ok_or(DropReason::NotPublished)?;
        let track = self.tracks.get_mut(track_slot).ok_or(DropReason::NotPublished)?;
        let retransmission = repaired.is_some() || track.is_repair(packet.pt());
        let position = match rid {
            Some(_) => track
                .encodings
                .iter()
                .position(|encoding| encoding.parameters.rid == rid),
            None => None,
        };
        // Without rids there is one encoding per mid.
        let position = position.or_else(|| (track.encodings.len() == 1).then_some(0));
        let encoding = track
            .encodings
            .get_mut(position.unwrap_or(usize::MAX))
            .ok_or(DropReason::UnknownSsrc)?;
        let stream = Stream {
            track: track_slot,
            encoding: encoding.source().encoding,
            retransmission,
        };
        let ssrc = packet.ssrc();
        receiving.claim(ssrc, stream)?;
        let old = if retransmission {
            encoding.rtx_ssrc.replace(ssrc)
        } else {
            encoding.ssrc
        };
        if let Some(old) = old.filter(|old| *old != ssrc) {
            receiving.streams.remove(&old);
            if !retransmission {
                encoding.restart(ssrc);
            }
        }
        if !retransmission {
            encoding.ssrc = Some(ssrc);
        }
        Ok(stream)
    }

    fn encoding_started(&mut self, outside: &mut Outside<'_>, stream: Stream, packet: &RtpPacket<'_>) {
        let Some(track) = self.tracks.get_mut(stream.track) else {
            return;
        };
        let Some(encoding) = track.encodings.get(usize::from(stream.encoding)) else {
            return;
        };
        let codec = track.codecs.iter().find(|codec| codec.pt == packet.pt());
        if let Some(codec) = codec {
            outside.events.push(Event::EncodingSeen {
                track: track.handle,
                encoding: stream.encoding,
                ssrc: packet.ssrc(),
                rtx_ssrc: encoding.rtx_ssrc,
                pt: packet.pt(),
                codec: codec.codec,
            });
        }
    }

    /// Looks again which encodings flow, and at what each subscriber is given of them.
    pub fn flow_changed(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let flowing = track.flowing_now(outside.now);
        if flowing == track.flowing {
            return;
        }
        track.flowing = flowing;
        self.tell_state(outside, slot);
        let mut at = 0;
        while let Some((&subscriber, track)) = self
            .tracks
            .get(slot)
            .and_then(|track| Some((track.subscribers.get(at)?, track)))
        {
            at += 1;
            let Some(subscription) = self.subscriptions.get(subscriber) else {
                continue;
            };
            // What has stopped is not waited for, nor what has begun, before bandwidth is allocated anew.
            let (target, transport) = (subscription.target(), subscription.transport);
            if let Some(target) = target.map(|target| track.choose(target)) {
                self.set_target(outside, subscriber, Some(target), false);
            }
            self.allocate_soon(outside, transport);
        }
    }

    /// Of every encoding.
    pub fn request_keyframes(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let encodings = self.tracks.get(slot).map_or(0, |track| track.encodings.len());
        for encoding in 0..encodings {
            self.request_keyframe(outside, slot, encoding as u8);
        }
    }

    /// A subscriber can be sent media from now on: what it waits for is asked for at once.
    pub fn transport_connected(&mut self, outside: &mut Outside<'_>, transport: Slot) {
        let its = outside.transports.get(transport);
        let waiting = its.map(|its| its.allocation.subscriptions.clone()).unwrap_or_default();
        for slot in &waiting {
            let Some(subscription) = self.subscriptions.get_mut(*slot) else {
                continue;
            };
            subscription.is_connected = true;
            if self.tracks.get(subscription.track).is_some_and(|track| track.muted) {
                subscription.announce(outside.now);
                outside.arm(subscription.timer, subscription.deadline());
            }
        }
        self.allocate(outside, transport);
        for slot in waiting {
            self.bring(outside, slot);
        }
    }

    /// A subscriber is sent nothing until `transport_connected`, and then begins with key frames.
    pub fn transport_silent(&mut self, outside: &mut Outside<'_>, transport: Slot) {
        let its = outside.transports.get(transport);
        for slot in its.map(|its| its.allocation.subscriptions.clone()).unwrap_or_default() {
            if let Some(subscription) = self.subscriptions.get_mut(slot) {
                subscription.is_connected = false;
                subscription.rewriter.interrupt();
                subscription.freezes.interrupt();
            }
        }
    }

    /// Asks the publisher now, or as soon as the throttle allows.
    pub fn request_keyframe(&mut self, outside: &mut Outside<'_>, slot: Slot, encoding: u8) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        if track.kind == MediaKind::Audio || track.muted {
            return;
        }
        if track.mirror.as_ref().is_some_and(|mirror| mirror.is_fresh(encoding)) {
            return;
        }
        if let Some(encoding) = track.encodings.get_mut(usize::from(encoding)) {
            encoding.want_keyframe();
        }
        self.ask_keyframes(outside, slot);
        self.arm_track(outside, slot);
    }

    /// Sends the requests that are due.
    fn ask_keyframes(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(track) = self.tracks.get_mut(slot) else { return };
        // RFC 5104 only where RFC 4585 is not: PLI says what is meant.
        if track.mirror.is_some() {
            return self.ask_home(outside, slot);
        }
        let fir = track.codecs.iter().any(|codec| codec.fir) && !track.codecs.iter().any(|codec| codec.pli);
        for encoding in &mut track.encodings {
            let Some(media) = encoding
                .ssrc
                .filter(|_| encoding.keyframe_due(now).is_some_and(|due| due <= now))
            else {
                continue;
            };
            let sequence = encoding.keyframe_asked(now);
            outside.stats.keyframe_requests += 1;
            outside.stats.firs_sent += u64::from(fir);
            outside.rtcp(track.transport, |writer| {
                if fir {
                    writer.fir(LOCAL_SSRC, FirRequest { media, sequence })
                } else {
                    writer.pli(LOCAL_SSRC, media)
                }
            });
        }
    }

    /// As `ask_keyframes`, of a track that is published elsewhere.
    fn ask_home(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let mut at = 0;
        while let Some(encoding) = self
            .tracks
            .get_mut(slot)
            .and_then(|track| track.encodings.get_mut(usize::from(at)))
        {
            if encoding.ssrc.is_some() && encoding.keyframe_due(now).is_some_and(|due| due <= now) {
                encoding.keyframe_asked(now);
                self.relay_keyframe_request(outside, slot, at);
            }
            at += 1;
        }
    }

    /// The timer of a track is due.
    pub fn track_timeout(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        self.ask_retransmissions(outside, slot);
        self.ask_keyframes(outside, slot);
        if self.tracks.get(slot).is_some_and(Track::has_layers) {
            self.flow_changed(outside, slot);
        }
        self.ways_timeout(outside, slot);
        self.mirror_timeout(outside, slot);
        self.arm_track(outside, slot);
    }

    pub fn arm_track(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(track) = self.tracks.get(slot) else { return };
        let now = outside.now;
        let encodings = track.encodings.iter().filter(|encoding| encoding.ssrc.is_some());
        let requests = encodings.flat_map(|encoding| [encoding.keyframe_due(now), encoding.nack.poll_timeout()]);
        let layers = track.has_layers().then_some(now + FLOW_INTERVAL);
        let mirror = track.mirror.as_ref().and_then(|mirror| mirror.deadline(now));
        let others = [layers, mirror, track.next_state].into_iter().flatten();
        outside.arm(track.timer, requests.flatten().chain(others).min());
    }

    /// The timer of a subscription is due.
    pub fn subscription_timeout(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        if let Some(descriptor) = subscription.generate(slot, now) {
            outside.queue(subscription.transport, descriptor);
        }
        if let Some(schedule) = subscription.schedule.filter(|schedule| schedule.is_over()) {
            subscription.schedule = None;
            if schedule.closes {
                // The last blank packet is only queued: it leaves before the subscription does.
                subscription.ends_at = Some(now + Duration::from_millis(1));
            }
        }
        if subscription.ends_at.is_some_and(|at| at <= now) {
            return self.drop_subscription(outside, slot);
        }
        self.repair_tail(outside, slot);
        self.report_to_subscriber(outside, slot);
        self.arm_subscription(outside, slot);
    }

    pub fn arm_subscription(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        if let Some(subscription) = self.subscriptions.get(slot) {
            outside.arm(subscription.timer, subscription.deadline());
        }
    }
}

fn report_codec(outside: &mut Outside<'_>, subscription: &mut Subscription, track: &Track, packet: &Arrived) {
    if subscription.should_report_codec(packet.info.codec)
        && let Some(codec) = track.codecs.get(usize::from(packet.info.codec))
    {
        outside.events.push(Event::CodecUnsupported {
            subscription: subscription.handle,
            codec: codec.codec,
        });
    }
}
