//! What all clients count into. One thread, so there is no lock; only what happens while measuring is counted.

use std::time::Duration;

use super::counter::Seen;
use super::histogram::Histogram;

#[derive(Debug, Default)]
pub struct Tally {
    /// The window is open.
    pub measuring: bool,

    // Since the start:
    pub published: usize,
    pub joined: usize,
    pub tracks: usize,
    pub join_times: Histogram,
    pub key_frames_asked: u64,
    /// Sessions taken up again: ICE was restarted and is connected.
    pub resumed: usize,

    // In the window:
    pub sent: u64,
    pub sent_bytes: u64,
    pub received: u64,
    pub received_bytes: u64,
    /// Of `received`, by subscribers that open every packet.
    pub verified: u64,
    /// Sequence numbers that were skipped and did not come later.
    pub missing: i64,
    pub reordered: u64,
    pub repeated: u64,
    /// Retransmissions and probes, by payload type.
    pub other: u64,
    pub spoilt: u64,
    pub freezes: u64,
    pub latency: Histogram,
    pub messages_sent: u64,
    pub messages_received: u64,
    /// Datagrams of the flood.
    pub garbage: u64,
}

impl Tally {
    /// Opens the window, empty.
    pub fn open(&mut self) {
        *self = Self {
            measuring: true,
            published: self.published,
            joined: self.joined,
            tracks: self.tracks,
            join_times: std::mem::take(&mut self.join_times),
            key_frames_asked: self.key_frames_asked,
            resumed: self.resumed,
            ..Self::default()
        };
    }

    /// A media packet of `bytes` (the UDP payload) came.
    pub fn packet(&mut self, seen: Seen, bytes: usize, frozen: bool) {
        if !self.measuring {
            return;
        }
        self.freezes += u64::from(frozen);
        match seen {
            Seen::New { skipped } => self.missing += i64::try_from(skipped).unwrap_or(i64::MAX),
            Seen::Late => {
                self.missing -= 1;
                self.reordered += 1;
            }
            Seen::Repeated => {
                self.repeated += 1;
                return;
            }
        }
        self.received += 1;
        self.received_bytes += bytes as u64;
    }

    /// A packet that left at `sent` (nanoseconds since 1970) came at `arrived`.
    pub fn took(&mut self, sent: u64, arrived: Duration) {
        if self.measuring {
            let took = arrived.saturating_sub(Duration::from_nanos(sent));
            self.latency.add(took);
        }
    }

    /// A late packet may have been skipped before the window opened.
    pub fn lost(&self) -> u64 {
        u64::try_from(self.missing).unwrap_or(0)
    }
}
