//! Recovery of lost packets in both directions: publishers are asked for what is missing here, subscribers are sent again
//! what is missing there.
//!
//! Called by the room for RTCP (`feedback`) and timers. What is missing is `nack`'s knowledge, how often something was sent
//! again `resend`'s, what became of it `repairs`'; here is decided whether a packet is sent again.

use std::time::{Duration, Instant};

use super::fanout::{Fanout, LOCAL_SSRC};
use super::outside::Outside;
use super::pacer::Kind;
use super::send_queue::RepairBudget;
use super::slots::Slot;
use super::subscription::Subscription;
use crate::rtp::rtcp::{self, NackPairs, TransportFeedback};
use crate::types::{DropReason, MediaKind, Ssrc};

/// A picture followed by nothing for so long may be missing without its receiver knowing: two frames at 20 a second.
const QUIET: Duration = Duration::from_millis(100);
/// For so long after a loss the ends of pictures are watched.
const LOSS_MEMORY: Duration = Duration::from_secs(10);
/// Loss within the last second from which reports are believed before the receiver asks. Below, most of what they have as
/// lost was only overtaken.
const LOSSY: f64 = 0.03;
/// Loss within the last second from which what was sent again in vain is sent again in more copies, one more each time: of a
/// picture of ten packets at 30 % of loss every fourth lacks one after two rounds of one copy each, every thirteenth when
/// the second round has two. Two from the start would cost the whole budget: others would be sent none.
const HEAVY_LOSS: f64 = 0.15;
const MAX_COPIES: u8 = 3;
/// Packets that wait on the path for less are no sign of congestion.
const CALM: Duration = Duration::from_millis(50);

/// Why a packet is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The receiver asked.
    Asked,
    /// The receiver has reported that it did not arrive.
    Lost,
    /// The receiver has reported that the last copy did not arrive either.
    CopyLost,
    /// The report on the last copy did not come.
    CopyUnknown,
    /// Nothing has followed it for a while that would show the receiver that it is missing.
    Tail,
}

impl Fanout {
    /// At most `limit` numbers are looked at; returns how many more may be.
    pub fn on_nack(
        &mut self,
        outside: &mut Outside<'_>,
        transport: Slot,
        media: Ssrc,
        pairs: NackPairs<'_>,
        limit: usize,
    ) -> usize {
        let Some((slot, subscription)) = self.sent_as(outside, transport, media) else {
            outside.stats.count_drop(DropReason::UnknownSsrc);
            return limit;
        };
        if subscription.ssrc != media {
            return limit; // a lost retransmission is asked for by its original
        }
        let mut left = limit;
        let mut keyframe = None;
        for sequence in pairs.flat_map(rtcp::NackPair::sequences).take(limit) {
            outside.stats.nacks_received += 1;
            left -= 1;
            let Some(subscription) = self.subscriptions.get_mut(slot) else {
                break;
            };
            subscription.repair.nacked = subscription.repair.nacked.wrapping_add(1);
            let sequence_out = subscription.rewriter.extend(sequence);
            if let Err(reason) = self.repair(outside, slot, sequence_out, Cause::Asked) {
                outside.stats.count_drop(reason);
                keyframe = keyframe.or_else(|| self.gone_for_good(slot, sequence_out, outside.now));
            }
        }
        if let Some((track, encoding)) = keyframe {
            self.request_keyframe(outside, track, encoding);
        }
        left
    }

    /// Of which encoding a key frame is needed, because a receiver lacks a packet that all later pictures refer to and that
    /// will not be sent any more. Receivers themselves wait for seconds before they ask (libwebrtc: three).
    fn gone_for_good(&self, slot: Slot, sequence_out: u64, now: Instant) -> Option<(Slot, u8)> {
        let subscription = self.subscriptions.get(slot)?;
        let located = subscription.rewriter.locate(sequence_out)?;
        // Another encoding, or the same after a pause, has begun with a key frame or will.
        if subscription.kind == MediaKind::Audio || subscription.rewriter.source() != Some(located.source) {
            return None;
        }
        let encodings = &self.tracks.get(subscription.track)?.encodings;
        let encoding = encodings.get(usize::from(located.source.encoding))?;
        let info = encoding.remembered(located.sequence)?;
        let is_lost = encoding.stored(located.sequence, now).is_none() || subscription.requests.is_spent(sequence_out);
        let is_needed = info.temporal == 0 && !encoding.has_keyframe_behind(located.sequence);
        (is_lost && is_needed).then_some((subscription.track, located.source.encoding))
    }

    /// Sends a packet again.
    ///
    /// # Errors
    /// Why not: it is gone, was sent again less than a round trip ago or too often, or retransmissions have had their
    /// share.
    fn repair(
        &mut self,
        outside: &mut Outside<'_>,
        slot: Slot,
        sequence_out: u64,
        cause: Cause,
    ) -> Result<(), DropReason> {
        let now = outside.now;
        let gone = DropReason::RtxUnavailable;
        let subscription = self.subscriptions.get_mut(slot).ok_or(gone)?;
        let encodings = self
            .tracks
            .get(subscription.track)
            .map_or(&[][..], |track| &track.encodings);
        let descriptor = subscription.again(slot, encodings, sequence_out, Kind::Retransmission, now);
        let descriptor = descriptor.ok_or(gone)?;
        let is_base = encodings
            .get(usize::from(descriptor.source.encoding))
            .and_then(|encoding| encoding.stored(encoding.sequence_from_low(descriptor.sequence_in)?, now))
            .is_some_and(|stored| stored.info.temporal == 0);
        let target = outside.transports.get_mut(subscription.transport).ok_or(gone)?;
        if cause != Cause::Tail {
            target.waiting.last_loss = Some(now);
        }
        let rtt = match target.sending_rate.rtt() {
            Some(rtt) if subscription.rtt_measured => rtt.min(subscription.rtt),
            rtt => rtt.unwrap_or(subscription.rtt),
        };
        // The report on the copy before took a round trip.
        let wait = if matches!(cause, Cause::CopyLost | Cause::CopyUnknown) {
            Duration::ZERO
        } else {
            rtt
        };
        if !subscription.requests.may_resend(now, sequence_out, wait) {
            return Err(gone);
        }
        let mut copies = 1u8;
        if subscription.kind == MediaKind::Video {
            let (loss, size) = (target.sending_rate.loss(), target.waiting.packet_size());
            let calm = target.sending_rate.queue_delay() < CALM;
            let budget = &mut target.waiting.budget;
            let left = match cause {
                Cause::Asked | Cause::Lost | Cause::CopyLost if calm => 0.0,
                _ => RepairBudget::RESERVE,
            };
            if !budget.take(size, loss, left) {
                return Err(DropReason::RtxBudget);
            }
            if calm && loss >= HEAVY_LOSS {
                let failed = subscription.requests.times(sequence_out);
                while copies < MAX_COPIES.min(failed + 1) && budget.take(size, loss, RepairBudget::RESERVE / 4.0) {
                    copies += 1;
                }
                // All later pictures refer to it: at once, where more has been saved up than repairs may need soon.
                if failed == 0 && is_base && budget.take(size, loss, RepairBudget::RESERVE * 1.5) {
                    copies += 1;
                }
            }
        }
        subscription.requests.note(now, sequence_out);
        let transport = subscription.transport;
        (0..copies).for_each(|_| outside.queue(transport, descriptor));
        Ok(())
    }

    /// What transport-wide feedback has as lost is sent again: the request for it may be lost as well, and receivers stop
    /// asking after a few.
    pub fn repair_lost(&mut self, outside: &mut Outside<'_>, transport: Slot, feedback: &TransportFeedback<'_>) {
        let Some(source) = outside.transports.get_mut(transport) else {
            return;
        };
        let (loss, is_gapless) = (source.sending_rate.loss(), source.sending_rate.is_gapless());
        let waiting = &mut source.waiting;
        waiting.is_lossy = loss >= LOSSY;
        if loss > 0.0 {
            waiting.last_loss = Some(outside.now);
        }
        if waiting.in_flight.is_empty() {
            return;
        }
        let mut lost = std::mem::take(&mut self.lost);
        lost.extend(waiting.in_flight.take_owed());
        let owed = lost.len();
        let reports = feedback.statuses();
        lost.extend(reports.filter_map(|status| {
            let received = status.arrival.is_some();
            waiting.in_flight.handle_report(status.sequence, received)
        }));
        let reported = lost.len();
        let before = feedback.base_sequence;
        let unreported = std::iter::from_fn(|| waiting.in_flight.take_unreported(before, is_gapless));
        if waiting.is_lossy || is_gapless {
            lost.extend(unreported);
        }
        let mut keyframe = None;
        for (at, lost) in lost.drain(..).enumerate() {
            let cause = match lost.is_copy {
                // Somebody may have asked for it meanwhile.
                _ if at < owed => Cause::Lost,
                _ if at >= reported && !is_gapless => Cause::CopyUnknown,
                true => Cause::CopyLost,
                false => Cause::Lost,
            };
            let (slot, sequence_out) = (lost.subscription, lost.sequence_out);
            if let Err(reason) = self.repair(outside, slot, sequence_out, cause) {
                outside.stats.count_drop(reason);
                if reason == DropReason::RtxBudget
                    && cause != Cause::CopyUnknown
                    && let Some(source) = outside.transports.get_mut(transport)
                {
                    source.waiting.in_flight.owe(lost);
                }
                keyframe = keyframe.or_else(|| self.gone_for_good(slot, sequence_out, outside.now));
            }
        }
        self.lost = lost; // keeps its memory
        if let Some((track, encoding)) = keyframe {
            self.request_keyframe(outside, track, encoding);
        }
    }

    /// The last packet of a picture was queued. Where packets are lost it will be sent again, unless others follow: only
    /// those would show the receiver that it is missing.
    pub fn watch_tail(outside: &mut Outside<'_>, subscription: &mut Subscription, sequence_out: u64) {
        if subscription.kind != MediaKind::Video || subscription.rtx_output().is_none() {
            return;
        }
        let transport = outside.transports.get(subscription.transport);
        let last_loss = transport.and_then(|transport| transport.waiting.last_loss);
        let loses = last_loss.is_some_and(|at| outside.now.saturating_duration_since(at) < LOSS_MEMORY);
        // A report on it takes a round trip.
        let wait = QUIET
            + transport
                .and_then(|transport| transport.sending_rate.rtt())
                .unwrap_or_default();
        let was_watched = subscription.tail.is_some();
        subscription.tail = loses.then_some((sequence_out, outside.now + wait));
        if !was_watched {
            outside.arm(subscription.timer, subscription.deadline());
        }
    }

    /// The timer of a subscription is due.
    pub fn repair_tail(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        let Some((sequence_out, _)) = subscription.tail.take_if(|(_, at)| *at <= outside.now) else {
            return;
        };
        // Where all video is watched, one that is not any more was reported on.
        let waiting = outside
            .transports
            .get(subscription.transport)
            .map(|target| &target.waiting);
        if waiting.is_some_and(|waiting| waiting.is_lossy && !waiting.in_flight.contains(slot, sequence_out)) {
            return;
        }
        if let Err(reason) = self.repair(outside, slot, sequence_out, Cause::Tail) {
            outside.stats.count_drop(reason);
        }
    }

    /// Asks publishers for packets that are missing. The timer of the track has found it due.
    pub fn ask_retransmissions(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let mut lost_for_good = 0u8;
        for (index, encoding) in (0u32..).zip(&mut track.encodings) {
            let Some(media) = encoding.ssrc else { continue };
            if encoding.nack.poll_timeout().is_some_and(|at| at <= now) {
                let pairs = &mut self.nack_pairs;
                encoding.nack.handle_timeout(now, pairs);
                if !pairs.is_empty() {
                    let asked: u32 = pairs.iter().map(|pair| 1 + pair.blp.count_ones()).sum();
                    outside.stats.nacks_sent += u64::from(asked);
                    encoding.counts.nacked = encoding.counts.nacked.wrapping_add(asked);
                    outside.rtcp(track.transport, |writer| writer.nack(LOCAL_SSRC, media, pairs));
                }
            }
            if encoding.nack.take_keyframe_request() {
                lost_for_good |= 1u8.checked_shl(index).unwrap_or(0);
            }
        }
        for encoding in (0..8).filter(|bit| lost_for_good >> bit & 1 == 1) {
            self.request_keyframe(outside, slot, encoding);
        }
    }
}
