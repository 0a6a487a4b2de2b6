//! What leaves on a transport beside its pictures: voices, and retransmissions, data, RTCP and handshakes.
//!
//! Owned by a `SendQueue`, told of every packet, read when bandwidth is allocated: a measured share is left free for it, so
//! that a path without loss is not left idle for retransmissions that never come. Probes are no share: they ask for more.

use std::time::{Duration, Instant};

use crate::types::Bitrate;

const WINDOW: Duration = Duration::from_millis(250);
/// Weight of a window in the mean: one and a half seconds.
const WEIGHT: f64 = 1.0 / 6.0;
/// After that many windows without a look nothing of the old mean is left.
const MAX_WINDOWS: u32 = 60;

/// What a packet is, as far as bandwidth goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Allotted by the allocator.
    Picture,
    /// Never waits.
    Voice,
    /// Retransmissions, data, RTCP, ICE and DTLS.
    Other,
    Probe,
}

/// Bits a second, each as a mean of the last seconds.
#[derive(Debug)]
pub struct Beside {
    window: Instant,
    /// Of the window that runs: voices, and others.
    bytes: [u64; 2],
    rates: [f64; 2],
}

impl Beside {
    pub fn new(now: Instant) -> Self {
        Self {
            window: now,
            bytes: [0; 2],
            rates: [0.0; 2],
        }
    }

    /// `size` bytes of UDP payload have left.
    pub fn handle_sent(&mut self, share: Share, size: usize) {
        let [voice, other] = &mut self.bytes;
        match share {
            Share::Voice => *voice += size as u64,
            Share::Other => *other += size as u64,
            Share::Picture | Share::Probe => {}
        }
    }

    /// Time has passed.
    pub fn advance(&mut self, now: Instant) {
        for _ in 0..MAX_WINDOWS {
            if now.saturating_duration_since(self.window) < WINDOW {
                return;
            }
            self.window += WINDOW;
            for (rate, bytes) in self.rates.iter_mut().zip(&mut self.bytes) {
                let measured = std::mem::take(bytes) as f64 * 8.0 / WINDOW.as_secs_f64();
                *rate += (measured - *rate) * WEIGHT;
            }
        }
        self.window = now;
    }

    pub fn voice(&self) -> Bitrate {
        Bitrate(self.rates.first().map_or(0, |rate| *rate as u64))
    }

    pub fn other(&self) -> Bitrate {
        Bitrate(self.rates.last().map_or(0, |rate| *rate as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_what_is_sent_and_forget_it() {
        let start = Instant::now();
        let mut beside = Beside::new(start);
        let mut now = start;
        for _ in 0..500 {
            now += Duration::from_millis(20);
            beside.handle_sent(Share::Voice, 100);
            beside.handle_sent(Share::Other, 50);
            beside.handle_sent(Share::Picture, 5000);
            beside.handle_sent(Share::Probe, 5000);
            beside.advance(now);
        }
        assert!(
            beside.voice().as_kbps().abs_diff(40) <= 3,
            "{}",
            beside.voice().as_kbps()
        );
        assert!(
            beside.other().as_kbps().abs_diff(20) <= 2,
            "{}",
            beside.other().as_kbps()
        );
        beside.advance(now + Duration::from_secs(3600));
        assert_eq!((beside.voice(), beside.other()), (Bitrate(0), Bitrate(0)));
    }
}
