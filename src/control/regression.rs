//! A track with a backup codec, for everybody: while somebody cannot take the primary codec, encoding one picture twice
//! may cost the publisher more than the better codec is worth (`BackupCodecPolicy`).
//!
//! It begins with the first packet of the backup codec: all subscribers move to it, and dynacast lets the primary end. It
//! ends when nobody needs the backup any more: the publisher is asked for the primary, and everybody moves back.

use std::time::{Duration, Instant};

use livekit_protocol::{BackupCodecPolicy, VideoQuality};

use crate::types::{ParticipantHandle, TrackId};

use super::dynacast::Wanted;
use super::participant::Participant;
use super::publication::Publication;
use super::room::Room;

const PRIMARY: usize = 0;
/// LiveKit: the second declared codec is the one to fall back to.
const BACKUP: usize = 1;

/// A publisher that is asked for its primary codec again sends it within this time: an encoder starts in a few hundred
/// milliseconds, and the subscribers have a picture until they move.
const RETURN_DELAY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Regression {
    /// Everybody gets the best codec they can take.
    #[default]
    None,
    /// Everybody gets the backup. `ends_at`: nobody needs it now; it ends then.
    Active { ends_at: Option<Instant> },
    /// The primary is asked for; everybody moves to it at that time.
    Returning { at: Instant },
}

impl Regression {
    /// Subscribers get the backup.
    pub(super) fn is_active(self) -> bool {
        self != Self::None
    }

    pub(super) fn next_timeout(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Active { ends_at } => ends_at,
            Self::Returning { at } => Some(at),
        }
    }

    /// Adds what is wanted beside what the subscribers get now.
    pub(super) fn complete(self, wanted: &mut Wanted) {
        if let Self::Returning { .. } = self {
            let best: Option<VideoQuality> = wanted.values().copied().max().flatten();
            wanted.insert(PRIMARY, best);
        }
    }
}

impl Room {
    /// Something about the subscribers of a track, or about its codecs, has changed.
    pub(super) fn review_regression(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId) {
        let Some(publication) = self
            .participants
            .get(&publisher)
            .and_then(|participant| participant.publications.get(track))
        else {
            return;
        };
        let Some(backup) = publication.codecs.get(BACKUP) else {
            return;
        };
        let needed = self.needs_backup(publication);
        let flows = backup.bound.is_some() && backup.seen.is_some();
        let before = publication.regression;
        let after = match before {
            Regression::None if needed && flows && self.policy_regresses(publication) => {
                Regression::Active { ends_at: None }
            }
            Regression::Active { .. } | Regression::Returning { .. } if needed => Regression::Active { ends_at: None },
            Regression::Active { ends_at: None } => Regression::Active {
                ends_at: Some(now + self.settings.dynacast_pause_delay),
            },
            unchanged => unchanged,
        };
        if before == after {
            return;
        }
        if let Some(publication) = self.publication_mut(publisher, track) {
            publication.regression = after;
        }
        if before == Regression::None {
            tracing::info!(%track, "the backup codec is sent to everybody");
            self.move_subscribers(now, publisher, track, BACKUP);
        }
    }

    fn policy_regresses(&self, publication: &Publication) -> bool {
        match publication.info.backup_codec_policy() {
            BackupCodecPolicy::Simulcast => false,
            BackupCodecPolicy::Regression => true,
            BackupCodecPolicy::PreferRegression => {
                let threshold = self.settings.codec_regression_threshold;
                threshold == 0 || self.participants.len() < threshold
            }
        }
    }

    /// One of the subscribers cannot take the primary codec.
    fn needs_backup(&self, publication: &Publication) -> bool {
        let Some(primary) = publication.codecs.get(PRIMARY).and_then(|codec| codec.sent()) else {
            return false;
        };
        let lacks = |subscriber: &Participant| {
            let subscription = subscriber.subscriptions.get(&publication.sid);
            subscription.is_some_and(|subscription| subscription.has_refused(PRIMARY) || !subscriber.accepts(primary))
        };
        let mut subscribers = publication.subscribers.iter();
        subscribers.any(|subscriber| self.participants.get(subscriber).is_some_and(lacks))
    }

    /// The time of `Regression::next_timeout` has come.
    pub(super) fn regression_due(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId) {
        let Some(publication) = self.publication_mut(publisher, track) else {
            return;
        };
        match publication.regression {
            Regression::None => return,
            Regression::Active { .. } => publication.regression = Regression::Returning { at: now + RETURN_DELAY },
            Regression::Returning { .. } => self.end_regression(now, publisher, track),
        }
        self.update_dynacast(now, publisher, track);
    }

    /// Everybody who can gets the primary codec from now on.
    pub(super) fn end_regression(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId) {
        let Some(publication) = self.publication_mut(publisher, track) else {
            return;
        };
        if std::mem::take(&mut publication.regression).is_active() {
            tracing::info!(%track, "back to the primary codec");
            self.move_subscribers(now, publisher, track, PRIMARY);
        }
    }

    /// Those who cannot take the codec keep what they have.
    fn move_subscribers(&mut self, now: Instant, publisher: ParticipantHandle, track: &TrackId, codec: usize) {
        let Some(publication) = self.publication_mut(publisher, track) else {
            return;
        };
        let Some(sent) = publication.codecs.get(codec).and_then(|codec| codec.sent()) else {
            return;
        };
        let subscribers = publication.subscribers.clone();
        for subscriber in subscribers {
            let takes = |participant: &Participant| {
                participant.accepts(sent)
                    && participant
                        .subscriptions
                        .get(track)
                        .is_some_and(|subscription| subscription.codec != codec && !subscription.has_refused(codec))
            };
            if self.participants.get(&subscriber).is_some_and(takes) {
                self.switch_codec(now, subscriber, track, codec);
            }
        }
    }
}
