//! One transport as media sees it: whose it is, which SSRCs belong to what on it, and what waits to leave.
//!
//! Owned by the shard. The protocols are `rtc::Transport`'s; tracks and subscriptions are the room's.

use std::collections::HashMap;
use std::time::Instant;

use super::allocation::Allocation;
use super::edge::Reception;
use super::estimator::SendingRate;
use super::fanout::LOCAL_SSRC;
use super::feedback::RECEIVER_REPORT_INTERVAL;
use super::lossy::LossySeconds;
use super::outside::MIN_DELAY;
use super::pacer::Descriptor;
use super::remb::RembEstimate;
use super::send_queue::SendQueue;
use super::slots::Slot;
use super::timers::TimerId;
use super::transport_feedback::FeedbackGenerator;
use crate::rtc;
use crate::rtp::{RtpPacket, extension, rtcp};
use crate::types::{
    Bitrate, CloseReason, DropReason, Extension, ExtensionMap, Mid, NetPath, ParticipantHandle, SrtpProfile, Ssrc,
    TransportHandle,
};

/// Bytes of RTCP in one datagram before sealing: below every MTU that carries media.
const RTCP_DATAGRAM: usize = 1200;
/// RTCP datagrams waiting within a turn; beyond, the newest report or request is dropped (`QueueFull`): all are repeated.
const MAX_RTCP_DATAGRAMS: usize = 32;
/// 5-tuples that lead to one transport; of those that are not in use the one checked least recently goes first. A full
/// agent makes 32 checks, and as many paths may be verified or answered besides as a client with a few interfaces has.
pub const MAX_FLOWS: usize = 48;
/// Data packets may have this part of what may be sent, however much pictures take: a quarter.
const DATA_PART: u64 = 4;
/// A bound on the m-lines of one connection that a publisher sends on.
pub const MAX_MIDS: usize = 512;

/// Which encoding an SSRC of this transport carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub track: Slot,
    pub encoding: u8,
    /// Its RTX stream.
    pub retransmission: bool,
}

/// What the peer sends. SSRCs are known per transport: naming another transport's leads nowhere.
#[derive(Debug)]
pub struct Receiving {
    /// Ids are the same for all bundled m-lines of a connection (RFC 8843 §9).
    pub extensions: ExtensionMap,
    pub mids: Vec<(Mid, Slot)>,
    /// Client-chosen keys: the standard keyed hash. At most two per encoding of a published track.
    pub streams: HashMap<Ssrc, Stream>,
    /// Of media that is sent now: libwebrtc ignores transport-wide feedback that names any other.
    pub last_ssrc: Option<Ssrc>,
    pub feedback: FeedbackGenerator,
    /// From the first packet on.
    pub next_report: Option<Instant>,
    pub remb: RembEstimate,
}

impl Receiving {
    fn new(now: Instant) -> Self {
        Self {
            extensions: ExtensionMap::default(),
            mids: Vec::new(),
            streams: HashMap::new(),
            last_ssrc: None,
            feedback: FeedbackGenerator::new(now),
            next_report: None,
            remb: RembEstimate::default(),
        }
    }

    /// Every RTP packet, whatever becomes of it: the sender's estimate is made of all arrivals.
    pub fn handle_arrival(&mut self, packet: &RtpPacket<'_>, arrival: Instant, now: Instant) {
        let id = self.extensions.id(Extension::TransportCc);
        let value = id.and_then(|id| packet.extension(id));
        if let Some(sequence) = value.and_then(extension::transport_cc) {
            self.feedback.handle_packet(sequence, arrival);
        }
        self.next_report.get_or_insert(now + RECEIVER_REPORT_INTERVAL);
    }

    pub fn deadline(&self) -> Option<Instant> {
        let feedback = self.feedback.poll_timeout().filter(|_| self.last_ssrc.is_some());
        [feedback, self.next_report].into_iter().flatten().min()
    }

    pub fn merge_extensions(&mut self, extensions: &ExtensionMap) {
        for (extension, id) in extensions.iter() {
            self.extensions.insert(extension, id);
        }
    }

    pub fn track(&self, mid: Mid) -> Option<Slot> {
        self.mids
            .iter()
            .find(|(bound, _)| *bound == mid)
            .map(|(_, track)| *track)
    }

    /// Names an SSRC, unless another encoding has it already.
    pub fn claim(&mut self, ssrc: Ssrc, stream: Stream) -> Result<(), DropReason> {
        let owner = *self.streams.entry(ssrc).or_insert(stream);
        if owner == stream {
            Ok(())
        } else {
            Err(DropReason::UnknownSsrc)
        }
    }

    pub fn forget_track(&mut self, track: Slot) {
        self.mids.retain(|(_, bound)| *bound != track);
        self.streams.retain(|_, stream| stream.track != track);
    }
}

/// RTCP of one turn, as datagrams.
#[derive(Debug, Default)]
pub struct RtcpQueue {
    bytes: Vec<u8>,
    /// Where each datagram ends; the last one may still grow.
    ends: Vec<usize>,
}

impl RtcpQueue {
    /// Writes packets behind what is there, in a new datagram when they do not fit the last.
    pub fn append(
        &mut self,
        write: impl FnOnce(&mut rtcp::Writer<'_>) -> Result<(), DropReason>,
    ) -> Result<(), DropReason> {
        let mut scratch = [0; RTCP_DATAGRAM];
        let mut writer = rtcp::Writer::new(&mut scratch);
        write(&mut writer)?;
        let len = writer.len();
        let packets = scratch.get(..len).unwrap_or_default();
        if packets.is_empty() {
            return Ok(());
        }
        let start = self
            .ends
            .len()
            .checked_sub(2)
            .and_then(|at| self.ends.get(at))
            .copied()
            .unwrap_or(0);
        let fits = self.ends.last().is_some_and(|end| end - start + len <= RTCP_DATAGRAM);
        if !fits {
            if self.ends.len() >= MAX_RTCP_DATAGRAMS {
                return Err(DropReason::QueueFull);
            }
            self.ends.push(self.bytes.len());
        }
        self.bytes.extend_from_slice(packets);
        if let Some(end) = self.ends.last_mut() {
            *end = self.bytes.len();
        }
        Ok(())
    }

    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .filter_map(|(start, end)| self.bytes.get(start..*end))
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// A track that is published on a transport appears in another room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Showing {
    /// In the transport's room.
    pub source: Slot,
    pub room: Slot,
    /// In that room.
    pub track: Slot,
}

/// Tracks of one transport in other rooms. A backend makes them, one call each.
pub const MAX_SHOWINGS: usize = 1024;

pub struct MediaTransport {
    pub handle: TransportHandle,
    pub participant: ParticipantHandle,
    pub room: Slot,
    pub rtc: rtc::Transport,
    pub timer: TimerId,
    /// ICE and DTLS are up: media may be sent.
    pub is_connected: bool,
    /// Once it has been connected.
    pub profile: Option<SrtpProfile>,
    /// Said goodbye: removed once its last datagrams have left.
    pub is_closed: bool,
    /// In the shard's list of transports with something to send.
    pub is_dirty: bool,
    /// Full ICE: answers come from where checks were sent to.
    pub learns_from_sent: bool,
    pub reception: Reception,
    pub ufrags: Vec<String>,
    pub flows: Vec<NetPath>,
    /// In the list of transports that a room's turn has called.
    pub is_touched: bool,
    /// Its protocols panicked within a room's turn: it is discarded when the turn is over.
    pub has_panicked: bool,
    /// Why it is being closed, when not because control asked.
    pub close_reason: Option<CloseReason>,
    pub receiving: Receiving,
    /// At most `MAX_SHOWINGS`.
    pub showings: Vec<Showing>,
    /// Our SSRCs, RTX ones included.
    pub sending: HashMap<Ssrc, Slot>,
    /// Of this turn.
    pub queue: Vec<Descriptor>,
    /// Of turns before, held back by the pace.
    pub waiting: SendQueue,
    pub rtcp: RtcpQueue,
    /// What may be sent, from what leaves and what the peer reports.
    pub sending_rate: SendingRate,
    pub lossy: LossySeconds,
    /// Who gets what of it.
    pub allocation: Allocation,
    /// Test hook: the next input panics.
    #[cfg(test)]
    pub panics: bool,
}

impl MediaTransport {
    pub fn new(
        handle: TransportHandle,
        participant: ParticipantHandle,
        room: Slot,
        rtc: rtc::Transport,
        (timer, allocation): (TimerId, Allocation),
        now: Instant,
    ) -> Self {
        Self {
            handle,
            participant,
            room,
            rtc,
            timer,
            is_connected: false,
            profile: None,
            is_closed: false,
            is_dirty: false,
            learns_from_sent: false,
            reception: Reception::default(),
            is_touched: false,
            has_panicked: false,
            close_reason: None,
            ufrags: Vec::new(),
            flows: Vec::new(),
            receiving: Receiving::new(now),
            showings: Vec::new(),
            sending: HashMap::new(),
            queue: Vec::new(),
            waiting: SendQueue::new(now),
            rtcp: RtcpQueue::default(),
            sending_rate: SendingRate::new(now),
            lossy: LossySeconds::default(),
            allocation,
            #[cfg(test)]
            panics: false,
        }
    }

    /// The transport-wide sequence number of the packet that leaves next, as its extension carries it.
    pub fn next_transport_cc(&self) -> [u8; 2] {
        self.sending_rate.next_sequence().to_be_bytes()
    }

    /// Drops what has not left of a subscription's video; how many packets.
    pub fn forget_video(&mut self, subscription: Slot) -> usize {
        let before = self.queue.len();
        self.queue.retain(|descriptor| descriptor.subscription != subscription);
        before - self.queue.len() + self.waiting.cut(subscription)
    }

    /// What data packets may take of the path; None = as much as they can: it is not known to be narrow, or no picture
    /// wants any of it, and nothing was set.
    fn data_rate(&self) -> Option<Bitrate> {
        let pictures = self.allocation.outcome.filter(|outcome| outcome.demand > Bitrate::ZERO);
        let estimate = self.sending_rate.estimate().filter(|_| !self.sending_rate.is_initial());
        let limits = [estimate.filter(|_| pictures.is_some()), self.reception.max_bitrate];
        let total = limits.into_iter().flatten().min()?;
        let media = pictures.map_or(self.waiting.beside.voice(), |outcome| outcome.allocated);
        Some(Bitrate(total.0.saturating_sub(media.0).max(total.0 / DATA_PART)))
    }

    /// Lets data packets leave, as far as pictures and voices leave room for them.
    pub fn release_data(&mut self, now: Instant) {
        let rate = self.data_rate();
        let waits = self.rtc.has_data_waiting();
        if !waits && rate.is_some() && self.rtc.holds_data() {
            return; // as it is with most
        }
        let room = rate.map(|rate| self.waiting.data_room(now, rate, waits));
        let sent = self.rtc.release_data(now, room);
        let waits = self.rtc.has_data_waiting();
        self.waiting
            .handle_data(sent, rate.unwrap_or(Bitrate::ZERO), waits, now + MIN_DELAY);
    }

    /// When its timer is due.
    pub fn deadline(&mut self) -> Option<Instant> {
        let deadlines = [self.deadline_beside_release(), self.waiting.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }

    pub fn deadline_beside_release(&mut self) -> Option<Instant> {
        let deadlines = [
            self.rtc.poll_timeout(),
            self.receiving.deadline(),
            self.sending_rate.poll_timeout(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Transport-wide feedback that is due. True when there is some.
    pub fn write_transport_feedback(&mut self, now: Instant) -> bool {
        let Some(media) = self.receiving.last_ssrc.filter(|_| self.is_connected) else {
            return false;
        };
        let mut any = false;
        for _ in 0..MAX_RTCP_DATAGRAMS {
            let feedback = &mut self.receiving.feedback;
            let mut wrote = false;
            let result = self.rtcp.append(|writer| {
                wrote = feedback.write(now, LOCAL_SSRC, media, writer)?;
                Ok(())
            });
            if result.is_err() || !wrote {
                break;
            }
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtcp_is_packed_into_datagrams() {
        let mut queue = RtcpQueue::default();
        for n in 0..150 {
            queue.append(|writer| writer.pli(Ssrc(1), Ssrc(n))).unwrap();
        }
        let sizes: Vec<usize> = queue.datagrams().map(<[u8]>::len).collect();
        assert_eq!(sizes, [1200, 600]);
        queue.clear();
        assert_eq!(queue.datagrams().count(), 0);
    }

    #[test]
    fn an_ssrc_has_one_owner() {
        let mut slots = crate::media::slots::Slots::default();
        let stream = |track| Stream {
            track,
            encoding: 0,
            retransmission: false,
        };
        let (first, second) = (stream(slots.insert(())), stream(slots.insert(())));
        let mut receiving = Receiving::new(Instant::now());
        assert_eq!(receiving.claim(Ssrc(1), first), Ok(()));
        assert_eq!(receiving.claim(Ssrc(1), second), Err(DropReason::UnknownSsrc));
        receiving.forget_track(first.track);
        assert_eq!(receiving.claim(Ssrc(1), second), Ok(()));
    }
}
