//! RTCP in both directions: what publishers report and are told, what subscribers report and are sent.

use std::time::{Duration, Instant};

use super::edge::Event;
use super::encoding::SenderReportAnchor;
use super::fanout::{Fanout, LOCAL_SSRC};
use super::outside::Outside;
use super::playout::Heard;
use super::remb::Load;
use super::slots::Slot;
use super::subscription::{SENDER_REPORT_INTERVAL, SentReport, Subscription};
use super::timeline::ticks;
use crate::rtp::rtcp::{self, Packet, ReportBlock, SenderInfo};
use crate::types::{DropReason, MediaKind, NetProtocol, Ssrc};

/// LiveKit: receiver reports every second.
pub const RECEIVER_REPORT_INTERVAL: Duration = Duration::from_millis(1000);

/// Of report blocks in one packet (RFC 3550 §6.4.1).
const MAX_BLOCKS: usize = 31;

const NO_BLOCK: ReportBlock = ReportBlock {
    ssrc: Ssrc(0),
    fraction_lost: 0,
    cumulative_lost: 0,
    highest_sequence: 0,
    jitter: 0,
    last_sender_report: 0,
    delay_since_last_sender_report: 0,
};

/// While the publisher has sent no report, a subscription looks for one this often.
const REPORT_RETRY: Duration = Duration::from_millis(500);

/// A round trip above this is a broken report.
const MAX_RTT: Duration = Duration::from_secs(10);

/// Sequence numbers taken from one compound. A burst of loss is a few dozen packets; a longer list is there to cost time.
const MAX_NACKED: usize = 512;

impl Fanout {
    /// One cleartext compound from a transport of this room.
    pub fn on_rtcp(&mut self, outside: &mut Outside<'_>, transport: Slot, compound: &[u8]) {
        let mut nacks_left = MAX_NACKED;
        for packet in rtcp::parse(compound) {
            match packet {
                Ok(Packet::Nack { media, pairs, .. }) => {
                    nacks_left = self.on_nack(outside, transport, media, pairs, nacks_left);
                }
                Ok(packet) => self.on_rtcp_packet(outside, transport, packet),
                Err(reason) => outside.stats.count_drop(reason),
            }
        }
        self.estimate_changed(outside, transport);
    }

    fn on_rtcp_packet(&mut self, outside: &mut Outside<'_>, transport: Slot, packet: Packet<'_>) {
        match packet {
            Packet::SenderReport { info, blocks } => {
                self.on_sender_report(outside, transport, &info);
                blocks.for_each(|block| self.on_report_block(outside, transport, &block));
            }
            Packet::ReceiverReport { blocks, .. } => {
                blocks.for_each(|block| self.on_report_block(outside, transport, &block));
            }
            Packet::TransportFeedback(feedback) => {
                if let Some(source) = outside.transports.get_mut(transport) {
                    let (now, scratch) = (outside.now, &mut self.acknowledged);
                    source.sending_rate.handle_feedback(now, &feedback, scratch);
                }
                self.repair_lost(outside, transport, &feedback);
            }
            Packet::Remb { bitrate, .. } => {
                if let Some(source) = outside.transports.get_mut(transport) {
                    source.sending_rate.handle_remb(outside.now, bitrate);
                }
            }
            Packet::Pli { media, .. } => {
                outside.stats.plis_received += 1;
                self.on_keyframe_request(outside, transport, media);
            }
            Packet::Fir { requests, .. } => {
                outside.stats.firs_received += 1;
                requests.for_each(|request| self.on_keyframe_request(outside, transport, request.media));
            }
            Packet::ExtendedReport { sender, reference_time } => {
                // RFC 3611 §4.5: at once, so that the delay is none. A receiver that sends nothing itself knows no other
                // round trip, by which it would ask for lost packets again.
                if let Some(reference_time) = reference_time {
                    outside.rtcp(transport, |writer| {
                        writer.reference_time_answer(LOCAL_SSRC, sender, reference_time)
                    });
                }
            }
            // NACKs are taken by `on_rtcp`; the rest is not acted on.
            Packet::Nack { .. } | Packet::SourceDescription(_) | Packet::Goodbye(_) | Packet::Unknown { .. } => {}
        }
    }

    fn on_sender_report(&mut self, outside: &mut Outside<'_>, transport: Slot, info: &SenderInfo) {
        let now = outside.now;
        let Some(source) = outside.transports.get(transport) else {
            return;
        };
        let Some(stream) = source
            .receiving
            .streams
            .get(&info.ssrc)
            .copied()
            .filter(|stream| !stream.retransmission)
        else {
            return;
        };
        let track_slot = stream.track;
        let Some(track) = self.tracks.get_mut(track_slot) else {
            return;
        };
        let Some(encoding) = track.encodings.get_mut(usize::from(stream.encoding)) else {
            return;
        };
        encoding.sender_report = Some(SenderReportAnchor {
            ntp: info.ntp,
            timestamp: info.rtp_timestamp,
            arrival: now,
        });
        if let Some(stats) = &mut encoding.stats {
            stats.handle_sender_report(info.ntp, now);
        }
        let encoding = stream.encoding;
        self.relay_report(outside, track_slot, encoding);
    }

    fn on_report_block(&mut self, outside: &mut Outside<'_>, transport: Slot, block: &ReportBlock) {
        let Some((_, subscription)) = self.sent_as(outside, transport, block.ssrc) else {
            return;
        };
        if subscription.ssrc != block.ssrc {
            return; // the RTX stream's
        }
        subscription.acknowledged = true;
        if let Some(playout) = &mut subscription.playout {
            let heard = Heard {
                highest: subscription.rewriter.extend(block.highest_sequence as u16),
                // Pictures count 90 kHz.
                jitter: Duration::from_nanos(u64::from(block.jitter) * 100_000 / 9),
                loss: f32::from(block.fraction_lost) / 256.0,
                rtt: subscription.rtt,
            };
            playout.handle_report(heard, outside.now);
        }
        let since = subscription.loss.handle_report(block, outside.now);
        if let Some(target) = outside.transports.get_mut(transport) {
            target.sending_rate.handle_loss(outside.now, since.lost, since.expected);
            let is_udp = target.rtc.path().is_some_and(|path| path.protocol == NetProtocol::Udp);
            let rtt = target.sending_rate.rtt();
            if is_udp
                && target.lossy.handle_report(outside.now, block.fraction_lost)
                && let Some(rtt) = rtt.or(subscription.rtt_measured.then_some(subscription.rtt))
            {
                let transport = target.handle;
                outside.events.push(Event::TransportLossy { transport, rtt });
            }
            let [expected, lost] = &mut outside.stats.loss_outgoing;
            *expected += since.expected;
            *lost += since.lost;
        }
        let Some(report) = subscription
            .sent_report
            .filter(|report| report.middle == block.last_sender_report)
        else {
            return;
        };
        // RFC 3550 §6.4.1; our clock is the one that counts, the report's own time is the publisher's.
        let held = Duration::from_nanos(u64::from(block.delay_since_last_sender_report) * 1_000_000_000 / 65_536);
        let rtt = outside.now.saturating_duration_since(report.at).saturating_sub(held);
        if rtt < MAX_RTT {
            subscription.rtt_measured = true;
            subscription.rtt = (subscription.rtt + rtt * 3) / 4; // LiveKit: three quarters of the new value
        }
    }

    fn on_keyframe_request(&mut self, outside: &mut Outside<'_>, transport: Slot, media: Ssrc) {
        let Some((_, subscription)) = self.sent_as(outside, transport, media) else {
            return outside.stats.count_drop(DropReason::UnknownSsrc);
        };
        if subscription.settings.disabled || subscription.kind == MediaKind::Audio {
            return;
        }
        subscription.repair.keyframe_requests = subscription.repair.keyframe_requests.wrapping_add(1);
        let source = subscription.rewriter.source();
        let (track, encoding) = (
            subscription.track,
            source.map_or(subscription.wanted_encoding(), |source| source.encoding),
        );
        self.request_keyframe(outside, track, encoding);
    }

    /// The subscription that this transport is sent with this SSRC (its RTX stream's included).
    pub fn sent_as(&mut self, outside: &Outside<'_>, transport: Slot, ssrc: Ssrc) -> Option<(Slot, &mut Subscription)> {
        let slot = *outside.transports.get(transport)?.sending.get(&ssrc)?;
        Some((slot, self.subscriptions.get_mut(slot)?))
    }

    /// A sender report when it is due: the publisher's own times, with the timestamps this subscriber is shown. So audio
    /// and video of one publisher stay in step whatever was renumbered.
    pub fn report_to_subscriber(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(subscription) = self.subscriptions.get_mut(slot) else {
            return;
        };
        if subscription.next_report.is_none_or(|at| at > now) {
            return;
        }
        subscription.next_report = Some(now + REPORT_RETRY);
        let track = self.tracks.get(subscription.track);
        let shown = subscription.rewriter.offsets().zip(subscription.last_output);
        let shown = shown.filter(|_| subscription.timeline.is_settled());
        let Some((((source, offsets), output), track)) = shown.zip(track) else {
            return;
        };
        let encoding = track.encodings.get(usize::from(source.encoding));
        let anchor = encoding
            .filter(|encoding| encoding.source() == source)
            .and_then(|encoding| encoding.sender_report);
        let Some(anchor) = anchor else { return };
        let elapsed = now.saturating_duration_since(anchor.arrival);
        let ntp = anchor.ntp.wrapping_add(ntp_units(elapsed));
        let info = SenderInfo {
            ssrc: subscription.ssrc,
            ntp,
            rtp_timestamp: offsets
                .timestamp(anchor.timestamp)
                .wrapping_add(ticks(elapsed, output.codec.clock_rate())),
            packets: subscription.packets,
            octets: subscription.octets,
        };
        subscription.sent_report = Some(SentReport {
            middle: (ntp >> 16) as u32,
            at: now,
        });
        subscription.next_report = Some(now + SENDER_REPORT_INTERVAL);
        let (transport, ssrc, cname) = (subscription.transport, subscription.ssrc, &subscription.cname);
        outside.rtcp(transport, |writer| {
            writer.sender_report(&info, &[])?;
            writer.source_description(ssrc, cname)
        });
    }

    /// What a publisher's transport is told: transport-wide feedback and, every second, receiver reports.
    pub fn report_to_publisher(&mut self, outside: &mut Outside<'_>, slot: Slot) {
        let now = outside.now;
        let Some(transport) = outside.transports.get_mut(slot) else {
            return;
        };
        if transport.write_transport_feedback(now) {
            outside.dirty.mark(slot, transport);
        }
        if transport.receiving.next_report.is_none_or(|at| at > now) {
            return;
        }
        let mut received = false;
        let mut load = Load::default();
        let mut blocks = [NO_BLOCK; MAX_BLOCKS];
        let mut count = 0;
        let mut streams = std::mem::take(&mut self.streams);
        streams.clear();
        streams.extend(
            transport
                .receiving
                .streams
                .iter()
                .map(|(ssrc, stream)| (*ssrc, *stream)),
        );
        streams.sort_unstable_by_key(|(ssrc, _)| *ssrc); // the hash order is random
        let (mut knows_remb, mut knows_feedback) = (false, false);
        for &(ssrc, stream) in &streams {
            let Some(track) = self.tracks.get_mut(stream.track) else {
                continue;
            };
            // One limit for the whole transport: voices, which have no REMB of their own, share it.
            knows_remb |= track.codecs.iter().any(|codec| codec.remb);
            knows_feedback |= track.codecs.iter().any(|codec| codec.transport_cc);
            let encoding = track.encodings.get_mut(usize::from(stream.encoding));
            let Some(encoding) = encoding.filter(|_| !stream.retransmission) else {
                continue;
            };
            load.bytes += encoding.take_bytes();
            let Some(stats) = &mut encoding.stats else { continue };
            let Some(block) = stats.report_block(ssrc, now) else {
                continue;
            };
            load.fraction_lost = load.fraction_lost.max(block.fraction_lost);
            received = true;
            if let Some(place) = blocks.get_mut(count) {
                *place = block;
                count += 1;
            }
            if count == MAX_BLOCKS {
                outside.rtcp(slot, |writer| writer.receiver_report(LOCAL_SSRC, &blocks));
                count = 0;
            }
        }
        self.streams = streams; // keeps its memory
        let rest = blocks.get(..count).unwrap_or_default();
        if !rest.is_empty() {
            outside.rtcp(slot, |writer| writer.receiver_report(LOCAL_SSRC, rest));
        }
        let Some(transport) = outside.transports.get_mut(slot) else {
            return;
        };
        transport.receiving.next_report = Some(now + RECEIVER_REPORT_INTERVAL);
        if knows_remb && !knows_feedback && received {
            let bitrate = transport.receiving.remb.update(load);
            let ssrc = transport.receiving.last_ssrc;
            outside.rtcp(slot, |writer| writer.remb(LOCAL_SSRC, bitrate, ssrc.as_slice()));
        }
    }
}

/// 32.32 fixed-point seconds.
fn ntp_units(duration: Duration) -> u64 {
    (duration.as_secs() << 32) | ((u64::from(duration.subsec_nanos()) << 32) / 1_000_000_000)
}

/// What a subscriber's reports say about loss on its leg, for the quality score.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossReports {
    /// `ReportBlock::cumulative_lost` of the newest report.
    pub cumulative: i32,
    /// `ReportBlock::highest_sequence` of the newest report.
    highest: u32,
    /// Of the newest report, 0.0..1.0.
    pub fraction: f32,
    /// Of the newest report, in ticks of the codec's clock.
    pub jitter: u32,
    pub last: Option<Instant>,
}

/// Packets of a stream since the report before; a first report says zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinceReport {
    pub lost: u64,
    pub expected: u64,
}

/// Counters as of the last score.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scored {
    pub packets: u32,
    pub octets: u32,
    pub lost: i32,
}

impl LossReports {
    fn handle_report(&mut self, block: &ReportBlock, now: Instant) -> SinceReport {
        let lost = block.cumulative_lost.wrapping_sub(self.cumulative);
        let expected = block.highest_sequence.wrapping_sub(self.highest) as i32;
        let is_first = self.last.is_none();
        self.cumulative = block.cumulative_lost;
        self.highest = block.highest_sequence;
        self.fraction = f32::from(block.fraction_lost) / 256.0;
        self.jitter = block.jitter;
        self.last = Some(now);
        if is_first || expected <= 0 {
            return SinceReport::default();
        }
        SinceReport {
            lost: u64::from(lost.max(0).unsigned_abs()),
            expected: u64::from(expected.unsigned_abs()),
        }
    }
}
