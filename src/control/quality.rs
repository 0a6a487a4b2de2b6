//! How well everybody is connected (`ConnectionQualityUpdate`), every 5 s to those for whom something changed.

use std::collections::BTreeMap;

use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{ConnectionQuality, ConnectionQualityInfo, ConnectionQualityUpdate};

use crate::media::edge::ConnectionScore;
use crate::types::ParticipantHandle;

use super::participant::Participant;
use super::room::Room;

/// LiveKit grades a score of 0..=100 at 80 and 40; these are the same points on the MOS scale of the event
/// (1 + 0.035 s + s (s − 60) (100 − s) 7e-6).
const EXCELLENT_ABOVE: f32 = 4.024;
const GOOD_ABOVE: f32 = 2.064;

const NO_MEDIA: ConnectionScore = ConnectionScore { mos: 4.5, lost: false };

/// As clients are told it.
pub fn grade(score: ConnectionScore) -> ConnectionQuality {
    if score.lost {
        ConnectionQuality::Lost
    } else if score.mos > EXCELLENT_ABOVE {
        ConnectionQuality::Excellent
    } else if score.mos > GOOD_ABOVE {
        ConnectionQuality::Good
    } else {
        ConnectionQuality::Poor
    }
}

/// None = not to be shown yet. LiveKit: who is connected and has no media is as well off as can be.
fn score_of(participant: &Participant) -> Option<ConnectionScore> {
    let active = participant.state == State::Active;
    active.then(|| participant.score.unwrap_or(NO_MEDIA))
}

impl Room {
    /// Each participant hears about itself first and about everybody it receives, when any of them has changed.
    pub(super) fn send_connection_quality(&mut self) {
        let handles: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for handle in handles {
            let Some(receiver) = self.participants.get(&handle) else {
                continue;
            };
            if !receiver.client.reads_connection_quality() || receiver.state != State::Active {
                continue;
            }
            let publishers: std::collections::BTreeSet<ParticipantHandle> = receiver
                .subscriptions
                .values()
                .map(|subscription| subscription.publisher)
                .collect();
            let graded: Vec<(&Participant, ConnectionScore)> = std::iter::once(handle)
                .chain(publishers.into_iter().filter(|publisher| *publisher != handle))
                .filter_map(|other| self.participants.get(&other))
                .filter_map(|other| Some((other, score_of(other)?)))
                .collect();
            let told: BTreeMap<ParticipantHandle, i32> = graded
                .iter()
                .map(|(other, score)| (other.handle, grade(*score) as i32))
                .collect();
            let changed = told
                .iter()
                .any(|(other, quality)| receiver.told_quality.get(other) != Some(quality));
            if !changed {
                continue;
            }
            let updates = graded
                .into_iter()
                .map(|(other, score)| {
                    let quality = match grade(score) {
                        ConnectionQuality::Lost if !receiver.client.reads_quality_lost() => ConnectionQuality::Poor,
                        quality => quality,
                    };
                    ConnectionQualityInfo {
                        participant_sid: other.sid.0.clone(),
                        quality: quality as i32,
                        score: score.mos,
                    }
                })
                .collect();
            self.out.signal(
                receiver,
                Message::ConnectionQuality(ConnectionQualityUpdate { updates }),
            );
            if let Some(receiver) = self.participants.get_mut(&handle) {
                receiver.told_quality = told;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_of_the_recorded_scores() {
        let graded = |mos| grade(ConnectionScore { mos, lost: false });
        assert_eq!(graded(4.5), ConnectionQuality::Excellent);
        assert_eq!(graded(3.864), ConnectionQuality::Good);
        assert_eq!(graded(3.383), ConnectionQuality::Good);
        assert_eq!(graded(1.5), ConnectionQuality::Poor);
        assert_eq!(grade(ConnectionScore { mos: 1.0, lost: true }), ConnectionQuality::Lost);
    }
}
