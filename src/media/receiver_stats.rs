//! Reception statistics of one received RTP stream: report blocks (RFC 3550 §6.4.1, A.3, A.8) and figures per interval
//! for the quality score.
//!
//! Owns counters only. The track that receives the stream calls `handle_packet` for every packet that arrived on the
//! stream's own SSRC (retransmissions on an RTX SSRC are another stream), `handle_sender_report` for its sender reports,
//! `report_block` when a report is due and `take_interval` once per quality interval.

use std::time::{Duration, Instant};

use crate::rtp::rtcp::ReportBlock;
use crate::types::Ssrc;

/// RFC 3550 A.1: a larger step forward is a restart of the source, not loss.
const MAX_DROPOUT: u64 = 3000;

/// A transit time that changes by more is a clock that jumped, not jitter.
const MAX_TRANSIT_CHANGE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct ReceiverStats {
    epoch: Instant,
    clock_rate: u32,
    /// Extended sequence numbers; the first packet is in cycle 1 (`rtp::sequence`).
    first: Option<u64>,
    highest: u64,
    /// Expected before the source restarted last.
    expected_before: u64,
    received: u64,
    bytes: u64,
    /// Ticks, scaled by 16 (RFC 3550 A.8).
    jitter: u64,
    /// RTP timestamp, and arrival minus timestamp, of the last packet that gave a transit time.
    transit: Option<(u32, u32)>,
    sender_report: Option<(u32, Instant)>,
    reported: Counts,
    interval: Counts,
    interval_bytes: u64,
    interval_start: Instant,
    interval_jitter: u64,
    /// Since the last interval.
    reordered: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    expected: u64,
    received: u64,
}

/// What happened since the last call of `take_interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub duration: Duration,
    pub packets: u64,
    /// Never negative: duplicates do not make up for losses.
    pub lost: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Highest value of the smoothed interarrival jitter.
    pub jitter_max: Duration,
    /// When the last sender report came, ever.
    pub last_sender_report: Option<Instant>,
}

/// Since the first packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub packets: u64,
    /// Expected and not received; never negative.
    pub lost: u64,
    /// Payload bytes.
    pub bytes: u64,
}

impl ReceiverStats {
    pub fn new(clock_rate: u32, now: Instant) -> Self {
        Self {
            epoch: now,
            clock_rate,
            first: None,
            highest: 0,
            expected_before: 0,
            received: 0,
            bytes: 0,
            jitter: 0,
            transit: None,
            sender_report: None,
            reported: Counts::default(),
            interval: Counts::default(),
            interval_bytes: 0,
            interval_start: now,
            interval_jitter: 0,
            reordered: 0,
        }
    }

    /// `sequence` is extended; `payload_len` in bytes without header and padding.
    pub fn handle_packet(&mut self, sequence: u64, timestamp: u32, payload_len: usize, arrival: Instant) {
        self.received += 1;
        self.bytes += payload_len as u64;
        if self.first.is_none() {
            self.first = Some(sequence);
            self.highest = sequence;
        } else if sequence > self.highest {
            if sequence - self.highest > MAX_DROPOUT {
                self.expected_before = self.expected() + 1;
                self.first = Some(sequence + 1); // this packet is the one added above
            }
            self.highest = sequence;
        } else {
            self.reordered += 1;
            return; // its transit time says nothing about the path now
        }
        self.update_jitter(timestamp, arrival);
    }

    /// A sender report of this stream: its 64-bit NTP timestamp.
    pub fn handle_sender_report(&mut self, ntp: u64, now: Instant) {
        self.sender_report = Some(((ntp >> 16) as u32, now)); // the middle 32 bits
    }

    /// Loss since the last block, and all that is cumulative. None before the first packet.
    pub fn report_block(&mut self, ssrc: Ssrc, now: Instant) -> Option<ReportBlock> {
        self.first?;
        let counts = self.counts();
        let expected = counts.expected.saturating_sub(self.reported.expected);
        let received = counts.received.saturating_sub(self.reported.received);
        self.reported = counts;
        let lost = expected.saturating_sub(received);
        // RFC 3550 A.3: of 256, rounded down; everything lost would be 256, which has no code.
        let fraction_lost = (lost << 8).checked_div(expected).unwrap_or(0).min(255) as u8;
        let cumulative_lost = counts.expected.cast_signed() - counts.received.cast_signed();
        let (last_sender_report, delay) = match self.sender_report {
            Some((middle, at)) => (middle, in_65536ths(now.saturating_duration_since(at))),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            cumulative_lost: cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            // The extension starts in cycle 1, RFC 3550's count of cycles at 0.
            highest_sequence: (self.highest as u32).wrapping_sub(1 << 16),
            jitter: (self.jitter >> 4) as u32,
            last_sender_report,
            delay_since_last_sender_report: delay,
        })
    }

    /// Figures since the last call, or since the beginning.
    pub fn take_interval(&mut self, now: Instant) -> Interval {
        let counts = self.counts();
        let packets = counts.received.saturating_sub(self.interval.received);
        let expected = counts.expected.saturating_sub(self.interval.expected);
        let interval = Interval {
            duration: now.saturating_duration_since(self.interval_start),
            packets,
            lost: expected.saturating_sub(packets),
            bytes: self.bytes - self.interval_bytes,
            jitter_max: self.duration(self.interval_jitter >> 4),
            last_sender_report: self.sender_report.map(|(_, at)| at),
        };
        self.interval = counts;
        self.interval_bytes = self.bytes;
        self.interval_start = now;
        self.interval_jitter = self.jitter;
        interval
    }

    /// Packets since the last call that came after later ones, or twice.
    pub fn take_reordered(&mut self) -> u64 {
        std::mem::take(&mut self.reordered)
    }

    /// Since the first packet.
    pub fn totals(&self) -> Totals {
        let counts = self.counts();
        Totals {
            packets: counts.received,
            lost: counts.expected.saturating_sub(counts.received),
            bytes: self.bytes,
        }
    }

    /// Interarrival jitter now.
    pub fn jitter(&self) -> Duration {
        self.duration(self.jitter >> 4)
    }

    fn expected(&self) -> u64 {
        let since = self.first.map_or(0, |first| (self.highest + 1).saturating_sub(first));
        self.expected_before + since
    }

    fn counts(&self) -> Counts {
        Counts {
            expected: self.expected(),
            received: self.received,
        }
    }

    fn update_jitter(&mut self, timestamp: u32, arrival: Instant) {
        let arrived = self.ticks(arrival.saturating_duration_since(self.epoch));
        let transit = (arrived as u32).wrapping_sub(timestamp);
        if let Some((last_timestamp, last_transit)) = self.transit {
            // Packets of one video frame share a timestamp: pacing within the frame is not jitter.
            if last_timestamp == timestamp {
                return;
            }
            let change = u64::from((transit.wrapping_sub(last_transit) as i32).unsigned_abs());
            if change < self.ticks(MAX_TRANSIT_CHANGE) {
                // RFC 3550 A.8, rounded: J += D - (J + 8) / 16 with J scaled by 16.
                self.jitter = self.jitter + change - ((self.jitter + 8) >> 4).min(self.jitter + change);
                self.interval_jitter = self.interval_jitter.max(self.jitter);
            }
        }
        self.transit = Some((timestamp, transit));
    }

    fn ticks(&self, time: Duration) -> u64 {
        let whole = time.as_secs().wrapping_mul(u64::from(self.clock_rate));
        whole.wrapping_add(u64::from(time.subsec_nanos()) * u64::from(self.clock_rate) / 1_000_000_000)
    }

    fn duration(&self, ticks: u64) -> Duration {
        Duration::from_nanos(ticks.saturating_mul(1_000_000_000) / u64::from(self.clock_rate.max(1)))
    }
}

/// RFC 3550 §6.4.1: units of 1/65536 s; saturates at 18 hours.
fn in_65536ths(time: Duration) -> u32 {
    let value = (time.as_secs() << 16) + (u64::from(time.subsec_nanos()) << 16) / 1_000_000_000;
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSRC: Ssrc = Ssrc(5);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A 90 kHz stream of one packet every 10 ms; `lost` are left out. Sequence numbers start at 65530 in cycle 1.
    fn stream(count: u64, lost: &[u64]) -> (ReceiverStats, Instant) {
        let start = Instant::now();
        let mut stats = ReceiverStats::new(90_000, start);
        for at in (0..count).filter(|at| !lost.contains(at)) {
            stats.handle_packet(0x1_fffa + at, (at * 900) as u32, 100, start + ms(at * 10));
        }
        (stats, start)
    }

    #[test]
    fn nothing_is_reported_before_the_first_packet() {
        let now = Instant::now();
        assert_eq!(ReceiverStats::new(90_000, now).report_block(SSRC, now), None);
    }

    #[test]
    fn fraction_and_cumulative_loss() {
        let (mut stats, start) = stream(20, &[3, 4, 5, 10, 11]);
        let block = stats.report_block(SSRC, start).unwrap();
        assert_eq!((block.ssrc, block.fraction_lost, block.cumulative_lost), (SSRC, 64, 5)); // 5/20 of 256
        assert_eq!(block.highest_sequence, 0x1_000d, "one cycle, counted from zero");
        assert_eq!(block.jitter, 0);
        // The next interval: ten packets, none lost, and one late packet of the first interval makes up for its loss.
        for at in 20..30 {
            stats.handle_packet(0x1_fffa + at, (at * 900) as u32, 100, start + ms(at * 10));
        }
        stats.handle_packet(0x1_fffa + 3, 0, 100, start + ms(400));
        let block = stats.report_block(SSRC, start).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 4));
        let block = stats.report_block(SSRC, start).unwrap();
        assert_eq!(block.fraction_lost, 0, "nothing expected, nothing lost");
    }

    #[test]
    fn duplicates_make_cumulative_loss_negative() {
        let (mut stats, start) = stream(10, &[]);
        for _ in 0..3 {
            stats.handle_packet(0x1_fffa + 5, 0, 100, start);
        }
        let block = stats.report_block(SSRC, start).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, -3));
    }

    #[test]
    fn everything_lost_is_255_of_256() {
        let (mut stats, start) = stream(1, &[]);
        stats.report_block(SSRC, start);
        stats.handle_packet(0x1_fffa + 1001, 0, 100, start);
        assert_eq!(stats.report_block(SSRC, start).unwrap().fraction_lost, 255);
    }

    #[test]
    fn a_restart_of_the_source_is_not_loss() {
        let (mut stats, start) = stream(10, &[4]);
        for at in 20_000..20_010 {
            stats.handle_packet(0x1_fffa + at, 0, 100, start);
        }
        let block = stats.report_block(SSRC, start).unwrap();
        assert_eq!((block.cumulative_lost, block.fraction_lost), (1, 12)); // 1/20 of 256
        let interval = stats.take_interval(start);
        assert_eq!((interval.packets, interval.lost), (19, 1));
    }

    #[test]
    fn jitter_follows_the_formula() {
        let start = Instant::now();
        let mut stats = ReceiverStats::new(90_000, start);
        // Alternating 5 ms early and late: |D| is 450 ticks each time, the estimate converges to it.
        for at in 0..400u64 {
            let arrival = start + ms(100 + at * 20) + ms(5 * (at % 2));
            stats.handle_packet(0x1_0000 + at, (at * 1800) as u32, 10, arrival);
            // The rest of the frame, later: same timestamp, no jitter.
        }
        let jitter = stats.report_block(SSRC, start).unwrap().jitter;
        assert!((440..=450).contains(&jitter), "{jitter}");
        assert!((ms(4)..=ms(5)).contains(&stats.jitter()));
        assert_eq!(stats.take_interval(start).jitter_max, stats.jitter());
    }

    #[test]
    fn packets_of_one_frame_and_clock_jumps_are_no_jitter() {
        let start = Instant::now();
        let mut stats = ReceiverStats::new(90_000, start);
        for at in 0..50 {
            stats.handle_packet(0x1_0000 + at, 1000, 10, start + ms(at));
        }
        assert_eq!(stats.jitter(), Duration::ZERO);
        stats.handle_packet(0x1_0100, 0x8000_0000, 10, start + ms(100));
        assert_eq!(stats.jitter(), Duration::ZERO);
    }

    #[test]
    fn last_sender_report_and_delay() {
        let (mut stats, start) = stream(1, &[]);
        stats.handle_sender_report(0x44a0_b705_2000_ffff, start);
        let block = stats.report_block(SSRC, start + ms(5250)).unwrap();
        assert_eq!(block.last_sender_report, 0xb705_2000);
        assert_eq!(block.delay_since_last_sender_report, 0x0005_4000);
        assert_eq!(stats.take_interval(start).last_sender_report, Some(start));
    }

    #[test]
    fn intervals_are_independent_of_reports() {
        let (mut stats, start) = stream(10, &[2]);
        stats.report_block(SSRC, start);
        let first = stats.take_interval(start + ms(5000));
        assert_eq!(
            (first.duration, first.packets, first.lost, first.bytes),
            (ms(5000), 9, 1, 900)
        );
        let second = stats.take_interval(start + ms(10_000));
        assert_eq!(
            (second.duration, second.packets, second.lost, second.bytes),
            (ms(5000), 0, 0, 0)
        );
    }
}
