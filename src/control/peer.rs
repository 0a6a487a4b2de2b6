//! One peer connection of a participant as the room sees it: its SDP session, its transport's handle, and whose turn it
//! is to negotiate.

use std::time::Instant;

use crate::types::{IceCredentials, RemoteParameters, TransportHandle};

use super::negotiation::PeerConnection;
use super::settings::{NEGOTIATION_DELAY, NEGOTIATION_QUIET, NEGOTIATION_TIMEOUT};

pub(super) struct Peer {
    pub transport: TransportHandle,
    pub negotiator: PeerConnection,
    /// The credentials of our last description; `OpenTransport` carries the first ones.
    pub local: IceCredentials,
    pub ice_lite: bool,
    /// The shard knows the transport. A connection the client offers is opened at its first offer.
    pub opened: bool,
    /// The peer's last description, as the shard knows it.
    pub remote: Option<RemoteParameters>,
    /// ICE and DTLS have been up.
    pub connected: bool,
    /// Nothing is heard of it.
    pub silent: bool,
    /// Since when, by its client's last word of a failure.
    pub connected_at: Option<Instant>,
    /// Candidates that came before the first remote description; at most `MAX_EARLY_CANDIDATES`.
    pub early_candidates: Vec<String>,
    /// Our candidates were trickled for the current credentials.
    pub candidates_sent: bool,
    pub turn: Turn,
}

/// Whose turn it is: at most one offer of ours is unanswered, and needs that arise meanwhile wait for the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// When to negotiate what has changed.
    pub due: Option<Instant>,
    last_at: Option<Instant>,
    /// When our unanswered offer was sent.
    pub outstanding_since: Option<Instant>,
    /// Something changed while an offer was out.
    again: bool,
    pub offer_id: u32,
    /// m-lines of each kind (audio, video) the client was asked for and has not offered yet (single form).
    pub requested: (u32, u32),
}

impl Turn {
    /// The first offer has the id after `offer_id`.
    pub(super) fn starting_at(offer_id: u32) -> Self {
        Self {
            offer_id,
            ..Self::default()
        }
    }

    /// Something has to be negotiated. Changes that come together share one negotiation.
    pub(super) fn want(&mut self, now: Instant) {
        if self.due.is_none() {
            // LiveKit: a first change after silence goes out almost at once, later ones are collected.
            let quiet = self
                .last_at
                .is_none_or(|last| now.duration_since(last) > NEGOTIATION_QUIET);
            self.due = Some(now + if quiet { NEGOTIATION_DELAY } else { NEGOTIATION_QUIET });
        }
    }

    /// The due time has come. False: an offer is still out, and the need is remembered.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.due = None;
        self.last_at = Some(now);
        if self.outstanding_since.is_some() {
            self.again = true;
            return false;
        }
        true
    }

    pub(super) fn offered(&mut self, now: Instant) {
        self.outstanding_since = Some(now);
        self.last_at = Some(now);
        self.offer_id = self.offer_id.wrapping_add(1);
    }

    /// The answer to our offer came.
    pub(super) fn answered(&mut self, now: Instant) {
        self.outstanding_since = None;
        if std::mem::take(&mut self.again) {
            self.want(now);
        }
    }

    /// The signalling connection is gone: no answer or reaction to what was sent on it will come.
    pub(super) fn pause(&mut self) {
        self.again |= self.outstanding_since.take().is_some();
        self.requested = (0, 0);
    }

    /// The due time has come, and there is nobody to negotiate with.
    pub(super) fn postpone(&mut self) {
        self.due = None;
        self.again = true;
    }

    /// There is a signalling connection again.
    pub(super) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.again) {
            self.want(now);
        }
    }

    /// Everything that had to be negotiated has been.
    pub(super) fn settled(&mut self) {
        self.due = None;
        self.again = false;
    }

    /// The client has seen everything.
    pub(super) fn is_settled(&self) -> bool {
        self.due.is_none() && self.outstanding_since.is_none() && !self.again
    }

    /// The client's network is away: it cannot answer.
    pub(super) fn wait_longer(&mut self, now: Instant) {
        if self.timed_out(now) {
            self.outstanding_since = Some(now);
        }
    }

    pub(super) fn timed_out(&self, now: Instant) -> bool {
        self.outstanding_since
            .is_some_and(|since| now.duration_since(since) >= NEGOTIATION_TIMEOUT)
    }
}

impl Peer {
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let unanswered = self.turn.outstanding_since.map(|since| since + NEGOTIATION_TIMEOUT);
        [self.turn.due, unanswered].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn changes_are_collected_and_wait_for_the_answer() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut turn = Turn::default();
        turn.want(at(0));
        turn.want(at(5));
        assert_eq!(turn.due, Some(at(10)));
        assert!(turn.take(at(10)));
        turn.offered(at(10));
        turn.want(at(50));
        assert_eq!(turn.due, Some(at(200)));
        assert!(!turn.take(at(200)));
        turn.answered(at(300));
        assert_eq!(turn.due, Some(at(450)));
        assert!(!turn.timed_out(at(20_000)));
    }
}
