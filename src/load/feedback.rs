//! The RTCP of a counting subscriber, as a browser sends it: transport-wide feedback every 100 ms (or an estimate, where
//! the server negotiates only that), receiver reports every second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::counter::Order;
use crate::rtp::rtcp::{self, Packet, ReportBlock};
use crate::rtp::sequence::Extender;
use crate::types::Ssrc;

const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Of transport-wide feedback: 250 µs.
const NANOS_PER_TICK: u64 = 250_000;
/// What such a subscriber could receive, for servers that go by REMB: loopback has no limit worth naming.
const ESTIMATE: u64 = 100_000_000;
/// Numbers that one round of feedback spans at most; what is beyond has been lost for good.
const MAX_SPAN: u64 = 4096;
/// RTCP without what sealing adds.
const MAX_RTCP: usize = 1200;

pub struct Feedback {
    own: Ssrc,
    started: Duration,
    feedback_at: Instant,
    report_at: Instant,
    wide: Extender,
    /// Transport-wide number, arrival in ticks.
    arrivals: Vec<(u64, i64)>,
    /// Reused: what came of each number, and the packet that says so.
    statuses: Vec<Option<i64>>,
    bytes: Vec<u8>,
    count: u8,
    next: Option<u64>,
    /// Of each sender: the middle 32 bits of its last report's NTP time, and when that came.
    sender_reports: HashMap<u32, (u32, Duration)>,
}

impl Feedback {
    /// `own` = the SSRC it signs with; no other packet of this client has it.
    pub fn new(own: u32, now: Instant, wall: Duration) -> Self {
        Self {
            own: Ssrc(own),
            started: wall,
            feedback_at: now + FEEDBACK_EVERY,
            report_at: now + REPORT_EVERY,
            wide: Extender::new(),
            arrivals: Vec::new(),
            statuses: Vec::new(),
            bytes: vec![0; MAX_RTCP],
            count: 0,
            next: None,
            sender_reports: HashMap::new(),
        }
    }

    /// A packet with this transport-wide number came at `at` (since 1970).
    pub fn see(&mut self, number: u16, at: Duration) {
        let since = at.saturating_sub(self.started);
        let ticks =
            since.as_secs() * (1_000_000_000 / NANOS_PER_TICK) + u64::from(since.subsec_nanos()) / NANOS_PER_TICK;
        self.arrivals.push((self.wide.extend(number), ticks as i64));
    }

    /// An opened compound of the server.
    pub fn handle_rtcp(&mut self, compound: &[u8], at: Duration) {
        for packet in rtcp::parse(compound).flatten() {
            if let Packet::SenderReport { info, .. } = packet {
                self.sender_reports.insert(info.ssrc.0, ((info.ntp >> 16) as u32, at));
            }
        }
    }

    /// What is due, unsealed, one compound at a time. `streams` = SSRC and numbers of what is received.
    pub fn poll<'a>(
        &mut self,
        now: Instant,
        wall: Duration,
        streams: impl Iterator<Item = (u32, &'a Order)>,
    ) -> Option<&[u8]> {
        if now >= self.report_at {
            self.report_at = next(self.report_at, REPORT_EVERY, now);
            let written = self.report(wall, streams)?;
            return self.bytes.get(..written);
        }
        if now >= self.feedback_at {
            let written = self.transport_wide(streams);
            if written.is_none() {
                self.feedback_at = next(self.feedback_at, FEEDBACK_EVERY, now);
            }
            return self.bytes.get(..written?);
        }
        None
    }

    fn report<'a>(&mut self, wall: Duration, streams: impl Iterator<Item = (u32, &'a Order)>) -> Option<usize> {
        let mut blocks = Vec::new();
        for (ssrc, order) in streams {
            let Some((highest, lost)) = order.reported() else {
                continue;
            };
            let (last, since) = match self.sender_reports.get(&ssrc) {
                Some((last, at)) => (*last, (wall.saturating_sub(*at).as_secs_f64() * 65_536.0) as u32),
                None => (0, 0),
            };
            blocks.push(ReportBlock {
                ssrc: Ssrc(ssrc),
                // Loss that counts is reported by transport-wide feedback.
                fraction_lost: 0,
                cumulative_lost: lost,
                highest_sequence: highest,
                jitter: 0,
                last_sender_report: last,
                delay_since_last_sender_report: since,
            });
        }
        let mut writer = rtcp::Writer::new(&mut self.bytes);
        let estimated = self.wide.highest().is_none() && !blocks.is_empty();
        if blocks.is_empty() {
            writer.receiver_report(self.own, &[]).ok()?;
        }
        for blocks in blocks.chunks(31) {
            // What does not fit waits for its next turn.
            if writer.receiver_report(self.own, blocks).is_err() {
                break;
            }
        }
        if estimated {
            let ssrcs: Vec<Ssrc> = blocks.iter().take(31).map(|block| block.ssrc).collect();
            let _ = writer.remb(self.own, ESTIMATE, &ssrcs);
        }
        Some(writer.len())
    }

    fn transport_wide<'a>(&mut self, mut streams: impl Iterator<Item = (u32, &'a Order)>) -> Option<usize> {
        self.arrivals.sort_unstable();
        let (first, last) = (self.arrivals.first()?.0, self.arrivals.last()?.0);
        let base = self.next.filter(|next| *next <= first).unwrap_or(first);
        let base = base.max(last.saturating_sub(MAX_SPAN));
        let statuses = &mut self.statuses;
        statuses.clear();
        statuses.resize(usize::try_from(last - base + 1).ok()?, None);
        for (number, ticks) in &self.arrivals {
            let at = number.checked_sub(base).and_then(|at| usize::try_from(at).ok());
            if let Some(status) = at.and_then(|at| statuses.get_mut(at)) {
                *status = Some(*ticks);
            }
        }
        let media = streams.next().map_or(self.own, |(ssrc, _)| Ssrc(ssrc));
        let mut writer = rtcp::Writer::new(&mut self.bytes);
        let reported = writer
            .transport_feedback(self.own, media, base as u16, self.count, statuses)
            .unwrap_or(0);
        self.count = self.count.wrapping_add(1);
        if reported == 0 {
            // Cannot be said (a jump of the clock): leave it out rather than try for ever.
            self.arrivals.clear();
            self.next = None;
            return None;
        }
        let written = writer.len();
        let next = base + reported as u64;
        self.next = Some(next);
        self.arrivals.retain(|(number, _)| *number >= next);
        Some(written)
    }
}

/// When what was due at `due` is due again: in step, unless it is far behind.
fn next(due: Instant, every: Duration, now: Instant) -> Instant {
    let next = due + every;
    if next > now { next } else { now + every }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_is_reported_once_and_holes_are_seen() {
        let (now, wall) = (Instant::now(), Duration::from_secs(1_800_000_000));
        let mut feedback = Feedback::new(7, now, wall);
        for number in (65_000u16..65_535).chain(0..1000).filter(|number| number % 100 != 50) {
            feedback.see(number, wall + Duration::from_micros(500));
        }
        let mut order = Order::default();
        order.see(10);
        let (mut received, mut lost) = (0, 0);
        let due = now + FEEDBACK_EVERY;
        while let Some(bytes) = feedback.poll(due, wall, std::iter::once((9, &order))) {
            for packet in rtcp::parse(bytes) {
                let Ok(Packet::TransportFeedback(report)) = packet else {
                    panic!("{packet:?}");
                };
                for status in report.statuses() {
                    match status.arrival {
                        Some(_) => received += 1,
                        None => lost += 1,
                    }
                }
            }
        }
        // 1535 numbers and the one between 65534 and 0; every hundredth is missing.
        assert_eq!((received, lost), (1520, 16));
        assert!(feedback.feedback_at > due);
    }

    #[test]
    fn reports_name_the_sender_report_and_an_estimate_where_there_is_no_other_feedback() {
        let (now, wall) = (Instant::now(), Duration::from_secs(1_800_000_000));
        let mut feedback = Feedback::new(7, now, wall);
        let mut report = vec![0; 100];
        let mut writer = rtcp::Writer::new(&mut report);
        let info = rtcp::SenderInfo {
            ssrc: Ssrc(9),
            ntp: 0x1122_3344_5566_7788,
            rtp_timestamp: 0,
            packets: 1,
            octets: 1,
        };
        writer.sender_report(&info, &[]).expect("room");
        let len = writer.len();
        feedback.handle_rtcp(&report[..len], wall);
        let mut order = Order::default();
        order.see(10);
        order.see(13);
        let late = wall + Duration::from_millis(500);
        let bytes = feedback
            .poll(now + REPORT_EVERY, late, std::iter::once((9, &order)))
            .expect("a report");
        let packets: Vec<_> = rtcp::parse(bytes).flatten().collect();
        let Packet::ReceiverReport { blocks, .. } = &packets[0] else {
            panic!("{packets:?}");
        };
        let block = blocks.clone().next().expect("a block");
        assert_eq!((block.last_sender_report, block.cumulative_lost), (0x3344_5566, 2));
        assert_eq!(block.delay_since_last_sender_report, 32_768);
        assert!(matches!(packets[1], Packet::Remb { .. }), "{packets:?}");
    }
}
