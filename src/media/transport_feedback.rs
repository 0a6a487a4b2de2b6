//! Transport-wide congestion control feedback to one publisher
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Owns the arrival times of a receiving transport that were not reported yet. Its transport drives it: `handle_packet`
//! for every packet with a transport-wide sequence number (media, RTX and padding alike), and once `poll_timeout` has
//! passed `write` until it says that there is no more. It never looks at SSRCs: the caller passes one that the
//! publisher sends now, because libwebrtc silently ignores feedback for any other.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::rtp::rtcp;
use crate::rtp::sequence::Extender;
use crate::types::{DropReason, Ssrc};

/// Time from the first unreported arrival to its report. 50 ms lets Chromium's probes grow past 2 Mbit/s in 0.2 s.
const INTERVAL: Duration = Duration::from_millis(50);

/// Arrivals that are reported without waiting for the interval: LiveKit's figure, and about 300 bytes of feedback.
const EAGER_PACKETS: usize = 100;

/// Statuses kept for one report, lost packets included. A jump beyond it starts the window anew: what lies between is not
/// reported.
const MAX_WINDOW: usize = 1024;

/// Packets that arrived after their place was reported as lost, waiting to be reported on their own. When full, the
/// oldest is forgotten, and stays lost for the sender.
const MAX_LATE: usize = 32;

/// Smallest time that the feedback can express.
const TICK: Duration = Duration::from_micros(250);

#[derive(Debug)]
pub struct FeedbackGenerator {
    epoch: Instant,
    extender: Extender,
    /// Extended sequence number of the first entry of `window`; None before the first packet.
    base: Option<u64>,
    /// Arrivals from `base` up, in ticks since `epoch`; None = not here yet. The last one has arrived.
    window: VecDeque<Option<i64>>,
    arrived: usize,
    /// By ascending sequence number.
    late: Vec<(u64, i64)>,
    deadline: Option<Instant>,
    feedback_count: u8,
}

impl FeedbackGenerator {
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            extender: Extender::new(),
            base: None,
            window: VecDeque::new(),
            arrived: 0,
            late: Vec::new(),
            deadline: None,
            feedback_count: 0,
        }
    }

    /// `arrival` as precise as is known: it is what the sender's estimate is made of.
    pub fn handle_packet(&mut self, sequence: u16, arrival: Instant) {
        let ticks = self.ticks(arrival);
        let sequence = self.extender.extend(sequence);
        let base = *self.base.get_or_insert(sequence);
        let Some(offset) = sequence.checked_sub(base) else {
            self.add_late(sequence, ticks, arrival);
            return;
        };
        if offset >= MAX_WINDOW as u64 {
            self.window.clear();
            self.late.clear();
            self.arrived = 0;
            self.base = Some(sequence);
            self.window.push_back(Some(ticks));
        } else {
            let offset = offset as usize;
            if offset >= self.window.len() {
                self.window.resize(offset + 1, None);
            }
            match self.window.get_mut(offset) {
                Some(slot @ None) => *slot = Some(ticks),
                _ => return, // a duplicate
            }
        }
        self.arrived += 1;
        let deadline = if self.arrived >= EAGER_PACKETS {
            arrival
        } else {
            arrival + INTERVAL
        };
        self.deadline = Some(self.deadline.map_or(deadline, |at| at.min(deadline)));
    }

    /// When `write` has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Adds one feedback packet to a compound when one is due. True = it did, and there may be more: call again.
    /// `sender` is our SSRC for RTCP, `media` any SSRC that the publisher sends now.
    ///
    /// # Errors
    /// `TooLarge` when the buffer has no room for it; nothing is lost then, call again with another.
    pub fn write(
        &mut self,
        now: Instant,
        sender: Ssrc,
        media: Ssrc,
        out: &mut rtcp::Writer<'_>,
    ) -> Result<bool, DropReason> {
        if self.deadline.is_none_or(|at| at > now) {
            return Ok(false);
        }
        if let Some(base) = self.base
            && !self.window.is_empty()
        {
            let arrivals = self.window.make_contiguous();
            let reported = out.transport_feedback(sender, media, base as u16, self.feedback_count, arrivals)?;
            let arrived = self.window.drain(..reported).flatten().count();
            self.arrived = self.arrived.saturating_sub(arrived);
            self.base = Some(base + reported as u64);
        } else if let Some((first, _)) = self.late.first().copied() {
            let run = (first..)
                .zip(&self.late)
                .take_while(|(at, (sequence, _))| at == sequence);
            let arrivals: Vec<_> = run.map(|(_, (_, ticks))| Some(*ticks)).collect();
            let reported = out.transport_feedback(sender, media, first as u16, self.feedback_count, &arrivals)?;
            self.late.drain(..reported.min(self.late.len()));
        } else {
            self.deadline = None;
            return Ok(false);
        }
        self.feedback_count = self.feedback_count.wrapping_add(1);
        if self.window.is_empty() && self.late.is_empty() {
            self.deadline = None;
        }
        Ok(true)
    }

    fn add_late(&mut self, sequence: u64, ticks: i64, arrival: Instant) {
        if let Err(at) = self.late.binary_search_by_key(&sequence, |(sequence, _)| *sequence) {
            self.late.insert(at, (sequence, ticks));
            if self.late.len() > MAX_LATE {
                self.late.remove(0);
            }
            self.deadline.get_or_insert(arrival + INTERVAL);
        }
    }

    fn ticks(&self, arrival: Instant) -> i64 {
        let since = arrival.saturating_duration_since(self.epoch).as_micros() / TICK.as_micros();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::rtcp::{Packet, TICKS_PER_REFERENCE};

    const SENDER: Ssrc = Ssrc(1);
    const MEDIA: Ssrc = Ssrc(2);

    /// All that is due now, as (sequence, arrival in ticks).
    fn flush(feedback: &mut FeedbackGenerator, now: Instant) -> Vec<(u16, Option<i64>)> {
        let mut statuses = Vec::new();
        loop {
            let mut buf = [0; 1200];
            let mut out = rtcp::Writer::new(&mut buf);
            if !feedback.write(now, SENDER, MEDIA, &mut out).unwrap() {
                return statuses;
            }
            let len = out.len();
            for packet in rtcp::parse(&buf[..len]) {
                let Ok(Packet::TransportFeedback(packet)) = packet else {
                    panic!("{packet:?}")
                };
                assert_eq!(packet.media, MEDIA);
                let reference = i64::from(packet.reference_time) * TICKS_PER_REFERENCE;
                statuses.extend(
                    packet
                        .statuses()
                        .map(|status| (status.sequence, status.arrival.map(|at| at + reference))),
                );
            }
        }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_report_50_ms_after_the_first_arrival() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        assert_eq!(feedback.poll_timeout(), None);
        feedback.handle_packet(65_535, start + ms(10));
        feedback.handle_packet(1, start + ms(12));
        feedback.handle_packet(1, start + ms(13));
        assert_eq!(feedback.poll_timeout(), Some(start + ms(60)));
        assert_eq!(flush(&mut feedback, start + ms(59)), []);
        assert_eq!(
            flush(&mut feedback, start + ms(60)),
            [(65_535, Some(40)), (0, None), (1, Some(48))]
        );
        assert_eq!(feedback.poll_timeout(), None);
    }

    #[test]
    fn the_hundredth_packet_does_not_wait() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        for sequence in 0..100 {
            feedback.handle_packet(sequence, start);
        }
        assert_eq!(feedback.poll_timeout(), Some(start));
        assert_eq!(flush(&mut feedback, start).len(), 100);
    }

    #[test]
    fn losses_between_two_reports_are_in_the_second() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        feedback.handle_packet(10, start);
        flush(&mut feedback, start + ms(50));
        feedback.handle_packet(13, start + ms(60));
        assert_eq!(
            flush(&mut feedback, start + ms(110)),
            [(11, None), (12, None), (13, Some(240))]
        );
    }

    #[test]
    fn reordered_packets_fill_their_place_and_late_ones_are_reported_alone() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        feedback.handle_packet(10, start);
        feedback.handle_packet(14, start + ms(1));
        feedback.handle_packet(13, start + ms(2));
        let first = flush(&mut feedback, start + ms(50));
        assert_eq!(
            first,
            [(10, Some(0)), (11, None), (12, None), (13, Some(8)), (14, Some(4))]
        );
        feedback.handle_packet(12, start + ms(61));
        feedback.handle_packet(11, start + ms(60));
        feedback.handle_packet(12, start + ms(62));
        assert_eq!(feedback.poll_timeout(), Some(start + ms(111)));
        assert_eq!(
            flush(&mut feedback, start + ms(111)),
            [(11, Some(240)), (12, Some(244))]
        );
        assert_eq!(feedback.poll_timeout(), None);
    }

    #[test]
    fn a_jump_starts_anew() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        feedback.handle_packet(0, start);
        feedback.handle_packet(20_000, start + ms(1));
        assert_eq!(flush(&mut feedback, start + ms(60)), [(20_000, Some(4))]);
    }

    #[test]
    fn small_buffers_take_what_fits_and_lose_nothing() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        for sequence in 0..500u16 {
            feedback.handle_packet(sequence, start + ms(u64::from(sequence) % 90));
        }
        let mut packets = 0;
        let mut sequences = Vec::new();
        loop {
            let mut buf = [0; 64];
            let mut out = rtcp::Writer::new(&mut buf);
            if !feedback.write(start + ms(100), SENDER, MEDIA, &mut out).unwrap() {
                break;
            }
            let len = out.len();
            let Some(Ok(Packet::TransportFeedback(packet))) = rtcp::parse(&buf[..len]).next() else {
                panic!()
            };
            assert_eq!(packet.feedback_count, packets);
            sequences.extend(packet.statuses().map(|status| status.sequence));
            packets += 1;
        }
        assert_eq!(sequences, (0..500).collect::<Vec<_>>());
        assert_eq!(
            feedback.write(start + ms(200), SENDER, MEDIA, &mut rtcp::Writer::new(&mut [])),
            Ok(false)
        );
    }

    #[test]
    fn no_room_loses_nothing() {
        let start = Instant::now();
        let mut feedback = FeedbackGenerator::new(start);
        feedback.handle_packet(7, start);
        let mut buf = [0; 16];
        let result = feedback.write(start + ms(50), SENDER, MEDIA, &mut rtcp::Writer::new(&mut buf));
        assert_eq!(result, Err(DropReason::TooLarge));
        assert_eq!(flush(&mut feedback, start + ms(50)), [(7, Some(0))]);
    }
}
