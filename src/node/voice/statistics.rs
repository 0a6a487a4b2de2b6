//! What the voice system counts, for the metrics page. Written by its task and the API, read at any time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::voice::Voice;

/// Where a refusal was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Op 12.
    Gateway,
    Http,
}

impl Told {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Http => "http",
        }
    }
}

/// How many there are now, and what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoiceCounts {
    pub sockets: u64,
    pub sessions: u64,
    pub states: u64,
    pub pending: u64,
    pub pins: u64,
    pub calls: u64,
    /// Room events that found the mailbox full, since start: the next look at their room finds what they would have told.
    pub lost_events: u64,
}

/// Shared by everybody who counts. All zero where the voice system runs on another node.
#[derive(Debug, Default)]
pub struct VoiceStatistics {
    counts: Mutex<VoiceCounts>,
    /// By code, of which there are as many as are documented.
    refusals: Mutex<BTreeMap<(Told, &'static str), u64>>,
    cut: AtomicU64,
    unshared: AtomicU64,
}

impl VoiceStatistics {
    pub(super) fn look_at(&self, voice: &Voice, lost_events: u64) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.set(VoiceCounts {
            sockets: count(voice.gateway().sockets()),
            sessions: count(voice.gateway().sessions()),
            states: count(voice.states().len()),
            pending: count(voice.states().pending_len()),
            pins: count(voice.pins().len()),
            calls: count(voice.calls().len()),
            lost_events,
        });
    }

    pub(super) fn set(&self, counts: VoiceCounts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// `code` is one of the documented ones.
    pub fn refused(&self, told: Told, code: &'static str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry((told, code)).or_default() += 1;
    }

    /// A client that did not read what it was sent.
    pub(super) fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// What other nodes need to go on with the sessions could not be stored.
    pub(super) fn unshared(&self) {
        self.unshared.fetch_add(1, Ordering::Relaxed);
    }

    /// Times that sessions could not be stored for other nodes, since start.
    pub fn unshared_batches(&self) -> u64 {
        self.unshared.load(Ordering::Relaxed)
    }

    pub fn counts(&self) -> VoiceCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn refusals(&self) -> BTreeMap<(Told, &'static str), u64> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Clients that did not read what they were sent, since start.
    pub fn cut_off(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }
}
