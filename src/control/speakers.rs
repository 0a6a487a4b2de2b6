//! Who speaks (`SpeakersChanged`): coarse levels, only what changed, only to those who hear it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message;
use livekit_protocol::{SpeakerInfo, SpeakersChanged};

use crate::media::edge::SpeakerLevel;
use crate::types::ParticipantHandle;

use super::participant::Participant;
use super::room::Room;

/// LiveKit: levels are told in eighths.
const LEVEL_STEPS: f32 = 8.0;
/// LiveKit: the level of a simulated speaker, and the longest simulated speech.
const SIMULATED_LEVEL: f32 = 0.9;
const MAX_SIMULATED_SPEECH: Duration = Duration::from_secs(60);

/// Up to the next eighth; 0.0 stays silent.
fn quantised(level: f32) -> f32 {
    (level.clamp(0.0, 1.0) * LEVEL_STEPS).ceil() / LEVEL_STEPS
}

fn speaker_info(participant: &Participant, level: f32) -> SpeakerInfo {
    SpeakerInfo {
        sid: participant.sid.0.clone(),
        level,
        active: level > 0.0,
    }
}

impl Room {
    /// `speakers`: everybody who speaks now.
    pub(super) fn speakers_changed(&mut self, speakers: &[SpeakerLevel]) {
        let mut levels = BTreeMap::new();
        for speaker in speakers {
            let level = quantised(speaker.level);
            if level > 0.0 && self.participants.contains_key(&speaker.participant) {
                levels.insert(speaker.participant, level);
            }
        }
        let stopped = self.speakers.keys().filter(|speaker| !levels.contains_key(speaker));
        let mut changes: Vec<(ParticipantHandle, f32)> = stopped.map(|speaker| (*speaker, 0.0)).collect();
        for (speaker, level) in &levels {
            if self.speakers.get(speaker) != Some(level) {
                changes.push((*speaker, *level));
            }
        }
        self.speakers = levels;
        self.send_speakers(&changes);
    }

    fn send_speakers(&mut self, changes: &[(ParticipantHandle, f32)]) {
        if changes.is_empty() {
            return;
        }
        for receiver in self.participants.values() {
            let speakers: Vec<SpeakerInfo> = changes
                .iter()
                .filter(|(speaker, _)| *speaker == receiver.handle || receiver.is_subscribed_to(*speaker))
                .filter_map(|(speaker, level)| Some(speaker_info(self.participants.get(speaker)?, *level)))
                .collect();
            if !speakers.is_empty() {
                self.out
                    .signal(receiver, Message::SpeakersChanged(SpeakersChanged { speakers }));
            }
        }
    }

    /// A new subscriber learns that the publisher is speaking.
    pub(super) fn show_speaker(&mut self, receiver: ParticipantHandle, speaker: ParticipantHandle) {
        if let Some(level) = self.speakers.get(&speaker).copied() {
            self.tell_speaker(receiver, speaker, level);
        }
    }

    /// Without a subscription nobody would tell it that the speech has ended.
    pub(super) fn hide_speaker(&mut self, receiver: ParticipantHandle, speaker: ParticipantHandle) {
        if self.speakers.contains_key(&speaker) {
            self.tell_speaker(receiver, speaker, 0.0);
        }
    }

    fn tell_speaker(&mut self, receiver: ParticipantHandle, speaker: ParticipantHandle, level: f32) {
        let Some(speaker) = self.participants.get(&speaker) else {
            return;
        };
        let speakers = vec![speaker_info(speaker, level)];
        if let Some(receiver) = self.participants.get(&receiver) {
            self.out
                .signal(receiver, Message::SpeakersChanged(SpeakersChanged { speakers }));
        }
    }

    /// `simulate.speaker_update`: the participant seems to speak for some seconds.
    pub(super) fn simulate_speech(&mut self, now: Instant, handle: ParticipantHandle, seconds: i32) {
        let length = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).min(MAX_SIMULATED_SPEECH);
        if let Some(participant) = self.participants.get_mut(&handle) {
            participant.simulated_speech_until = Some(now + length);
            self.simulate_speaker(handle, SIMULATED_LEVEL);
        }
    }

    pub(super) fn simulate_speaker(&mut self, handle: ParticipantHandle, level: f32) {
        self.send_speakers(&[(handle, level)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_rounded_up_to_eighths() {
        assert_eq!(quantised(0.0), 0.0);
        assert_eq!(quantised(0.01), 0.125);
        assert_eq!(quantised(0.25), 0.25);
        assert_eq!(quantised(0.26), 0.375);
        assert_eq!(quantised(7.0), 1.0);
    }
}
