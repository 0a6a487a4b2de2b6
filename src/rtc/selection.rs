//! Which of a lite agent's verified paths media takes.
//!
//! Owns the path that the peer has nominated, how lately and how often that is heard, and the path that stands in for it
//! while it is silent. Driven by ICE for every authentic check and by the transport for every authentic packet. Never
//! verifies: what it is told of came from the peer.
//!
//! A controlling peer names the path it uses (RFC 8445 §8), but only once it has chosen it: libwebrtc names a new one up to
//! half a second after its first check, or not at all before ICE was restarted. Where its checks come from is where it can
//! be reached, so a path that has fallen silent is left at the first of them.

use std::time::{Duration, Instant};

use crate::types::NetPath;

/// A path is silent when nothing came for this many times its usual gap,
const GAPS: u32 = 4;
/// but not sooner: media pauses, and a radio stalls, for a few hundred milliseconds. A receiver of media sends feedback
/// every 50 to 250 ms.
const LEAST_SILENCE: Duration = Duration::from_millis(400);
/// And not later: a path without media is checked every 2.5 s (libwebrtc), 2 s (pion), 3 s (str0m). Where the consent of
/// RFC 7675 §5.1 is all that comes, every 6 s at the slowest, nothing is sent that could be misled.
const MOST_SILENCE: Duration = Duration::from_secs(3);
/// What comes within this is one burst: a picture in its packets says nothing about how long the path pauses.
const BURST: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Selection {
    nominated: Option<Heard>,
    stand_in: Option<Heard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// A connectivity check, which peers also send on paths they only keep in reserve.
    Check,
    /// SRTP or SRTCP, which leave on the path that the peer has chosen. DTLS says nothing: a record that is not authentic is
    /// dropped in silence.
    Media,
}

struct Heard {
    path: NetPath,
    at: Instant,
    burst_began: Instant,
    /// A moving mean of the time between bursts.
    gap: Duration,
}

impl Heard {
    fn new(path: NetPath, now: Instant) -> Self {
        Self {
            path,
            at: now,
            burst_began: now,
            gap: MOST_SILENCE / GAPS, // nothing is known of it yet
        }
    }

    fn hear(&mut self, now: Instant) {
        let since_burst = now.saturating_duration_since(self.burst_began);
        if since_burst >= BURST {
            self.gap = (self.gap * 7 + since_burst.min(MOST_SILENCE)) / 8;
            self.burst_began = now;
        }
        self.at = self.at.max(now);
    }

    fn is_silent(&self, now: Instant) -> bool {
        let limit = (self.gap * GAPS).clamp(LEAST_SILENCE, MOST_SILENCE);
        now.saturating_duration_since(self.at) >= limit
    }
}

impl Selection {
    /// The latest word counts, also when the path's priority is lower: that is how a client leaves Wi-Fi.
    pub(super) fn nominate(&mut self, now: Instant, path: NetPath) {
        match &mut self.nominated {
            Some(nominated) if nominated.path == path => nominated.hear(now),
            nominated => *nominated = Some(Heard::new(path, now)),
        }
        self.stand_in = None;
    }

    /// Something authentic came on `path`.
    pub(super) fn hear(&mut self, now: Instant, path: NetPath, sign: Sign) {
        let Some(nominated) = &mut self.nominated else {
            return;
        };
        if nominated.path == path {
            nominated.hear(now);
            self.stand_in = None;
            return;
        }
        match &mut self.stand_in {
            Some(stand_in) if stand_in.path == path => stand_in.hear(now),
            // Several paths are checked by turns: media does not jump between them.
            Some(stand_in) if sign == Sign::Check && !stand_in.is_silent(now) => {}
            stand_in if nominated.is_silent(now) => *stand_in = Some(Heard::new(path, now)),
            _ => {}
        }
    }

    /// None before the first nomination.
    pub(super) fn path(&self) -> Option<NetPath> {
        let selected = self.stand_in.as_ref().or(self.nominated.as_ref());
        selected.map(|heard| heard.path)
    }
}
