//! What a shard counts. Plain numbers, read by its thread and published from there; never reset.

use super::spread::Spread;
use crate::types::DropReason;

/// Incoming is about published tracks, outgoing about subscriptions as their receivers report; a value every 5 s for each.
#[derive(Clone, Debug)]
pub struct PathSpreads {
    /// Microseconds.
    pub jitter: Spread,
    /// Milliseconds; measured for subscriptions only.
    pub rtt: Spread,
    /// Percent of the packets expected, rounded up.
    pub loss: Spread,
    /// Tenths of a percent of the packets that came, rounded up; measured for published tracks only.
    pub out_of_order: Spread,
}

impl PathSpreads {
    // LiveKit: its buckets.
    const NEW: Self = Self {
        jitter: Spread::new(&[1_000, 10_000, 30_000, 50_000, 70_000, 100_000, 300_000, 600_000]),
        rtt: Spread::new(&[50, 100, 150, 200, 250, 500, 750, 1_000, 5_000, 10_000]),
        loss: Spread::new(&[0, 5, 10, 20, 30, 50, 70]),
        out_of_order: Spread::new(&[0, 1, 3, 5, 7, 10, 50, 100, 400, 1_000]),
    };
}

/// Streams of data of one kind.
#[derive(Clone, Debug)]
pub struct StreamSpreads {
    /// Bytes, of those that say it before.
    pub length: Spread,
    /// Participants that a stream went to on this shard.
    pub receivers: Spread,
}

impl StreamSpreads {
    const NEW: Self = Self {
        length: Spread::new(&[128, 512, 2_048, 8_192, 32_768, 131_072, 1_048_576, 10_485_760]),
        receivers: Spread::new(&[1, 2, 3, 4, 5, 10, 15, 25, 50]),
    };
}

/// Totals since the shard started, in packets and bytes of UDP payload unless a field says otherwise.
#[derive(Clone, Debug)]
pub struct ShardStats {
    pub datagrams_received: u64,
    pub bytes_received: u64,
    /// RTP packets opened, retransmissions included.
    pub rtp_received: u64,
    pub rtcp_received: u64,
    /// RTP packets sealed and given to the batch, retransmissions included.
    pub rtp_sent: u64,
    pub rtcp_sent: u64,
    pub bytes_sent: u64,
    /// Packets sent again because a subscriber asked.
    pub retransmitted: u64,
    /// Packets that a publisher sent again and that were missing here.
    pub recovered: u64,
    /// Key frames asked of publishers (PLI or FIR).
    pub keyframe_requests: u64,
    /// Those of them that were FIR.
    pub firs_sent: u64,
    /// Key frames that were in the ring when a subscriber needed one, so that none was asked for.
    pub replayed_keyframes: u64,
    /// Switches between encodings before sender reports of both had come: timestamps by arrival time.
    pub switches_by_arrival: u64,
    /// Sequence numbers asked of publishers, repeats included.
    pub nacks_sent: u64,
    /// What subscribers ask for: sequence numbers, and key frames either way.
    pub nacks_received: u64,
    pub plis_received: u64,
    pub firs_received: u64,
    /// Of published tracks and of subscriptions, as far as reports have said: packets expected and lost, in this order.
    pub loss_incoming: [u64; 2],
    pub loss_outgoing: [u64; 2],
    /// Packets of published tracks that came after later ones.
    pub out_of_order: u64,
    pub incoming: PathSpreads,
    pub outgoing: PathSpreads,
    /// Nanoseconds from a datagram's being read to the end of the turn in which others were sent.
    pub forwarding: Spread,
    /// Streams of data (texts, files) that participants began: those of texts, then those of bytes.
    pub streams: [StreamSpreads; 2],
    /// Of the last interval in which anything was forwarded: mean, and how far from it (standard deviation), nanoseconds.
    pub forward_latency: u64,
    pub forward_jitter: u64,
    /// Packets sent to see what a path carries.
    pub probes: u64,
    /// Media packets that went to another shard of their room, and that came from one.
    pub relayed_out: u64,
    pub relayed_in: u64,
    /// Packets given one byte of padding so that a frame leaves as one GSO send.
    pub padded: u64,
    /// Caught panics (DESIGN D10): a bug each.
    pub transport_panics: u64,
    pub room_panics: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Default for ShardStats {
    fn default() -> Self {
        Self {
            datagrams_received: 0,
            bytes_received: 0,
            rtp_received: 0,
            rtcp_received: 0,
            rtp_sent: 0,
            rtcp_sent: 0,
            bytes_sent: 0,
            retransmitted: 0,
            recovered: 0,
            keyframe_requests: 0,
            replayed_keyframes: 0,
            switches_by_arrival: 0,
            nacks_sent: 0,
            firs_sent: 0,
            nacks_received: 0,
            plis_received: 0,
            firs_received: 0,
            loss_incoming: [0; 2],
            loss_outgoing: [0; 2],
            out_of_order: 0,
            incoming: PathSpreads::NEW,
            outgoing: PathSpreads::NEW,
            forwarding: Spread::new(&[
                50_000, 100_000, 200_000, 300_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000,
                50_000_000,
            ]),
            streams: [StreamSpreads::NEW; 2],
            forward_latency: 0,
            forward_jitter: 0,
            probes: 0,
            relayed_out: 0,
            relayed_in: 0,
            padded: 0,
            transport_panics: 0,
            room_panics: 0,
            drops: [0; DropReason::ALL.len()],
        }
    }
}

impl ShardStats {
    pub fn count_drop(&mut self, reason: DropReason) {
        self.count_drops(reason, 1);
    }

    pub fn count_drops(&mut self, reason: DropReason, packets: u64) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += packets;
        }
    }

    /// Packets (or commands, for `StaleCommand`) dropped for `reason`. On the way out it counts per subscriber.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or_default()
    }

    /// Datagrams that belong to nobody here: noise, and what only the peers of this shard could send.
    pub fn refused(&self) -> u64 {
        let reasons = [
            DropReason::UnknownProtocol,
            DropReason::UnknownPath,
            DropReason::UnknownUfrag,
            DropReason::BadStun,
        ];
        reasons.into_iter().map(|reason| self.dropped(reason)).sum()
    }

    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.dropped(*reason)))
    }
}
