//! How long participants wait for media, for metrics: until their track is there for the others, until they receive one.

use std::time::Instant;

use livekit_protocol::TrackInfo;

use super::output::{Output, Wait, Waiting};
use super::room::Room;
use crate::types::ParticipantHandle;

impl Room {
    /// `participant` has waited since `since` for what `track` says.
    pub(super) fn waited(
        &mut self,
        now: Instant,
        participant: ParticipantHandle,
        waiting: Waiting,
        track: &TrackInfo,
        since: Instant,
    ) {
        let Some(participant) = self.participants.get(&participant) else {
            return;
        };
        self.out.push(Output::Waited(Wait {
            waiting,
            source: track.source(),
            kind: track.r#type(),
            sdk: participant.client.info.sdk(),
            participant: participant.claims.participant_kind(),
            duration: now.saturating_duration_since(since),
        }));
    }
}
