//! What everybody is told about everybody: `ParticipantUpdate`, `RoomUpdate`, refresh tokens.
//!
//! Changes of publishers and of names, metadata and rights go out at once, all others in a batch; one participant's
//! versions reach every receiver in order.

use std::time::Instant;

use livekit_protocol::signal_response::Message;
use livekit_protocol::{ParticipantInfo, ParticipantUpdate, RoomUpdate};
use prost::Message as _;

use crate::media::edge::Command;
use crate::proto::claims;
use crate::types::{Identity, ParticipantHandle};

use super::participant::Participant;
use super::room::Room;
use super::settings::{MAX_QUEUED_UPDATES, ROOM_UPDATE_INTERVAL, TOKEN_MIN_LIFETIME, TOKEN_REFRESH_INTERVAL};

impl Room {
    /// The participant's info has changed: at once if it publishes, else with the next batch.
    pub(super) fn changed(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.version += 1;
        if participant.is_publisher {
            self.send_current_info(handle);
        } else {
            let info = participant.info();
            self.queue_update(info);
        }
    }

    /// As `changed`, for what nobody should wait for.
    pub(super) fn changed_now(&mut self, handle: ParticipantHandle) {
        if let Some(participant) = self.participants.get_mut(&handle) {
            participant.version += 1;
            self.send_current_info(handle);
        }
    }

    /// To everyone including itself, without a new version.
    pub(super) fn send_current_info(&mut self, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let info = participant.info();
        let hidden = participant.is_hidden();
        self.updates.remove(&participant.identity);
        self.send_update_now(&info, |receiver| !hidden || receiver.handle == handle);
    }

    pub(super) fn send_update_now(&mut self, info: &ParticipantInfo, receives: impl Fn(&Participant) -> bool) {
        for receiver in self.participants.values().filter(|receiver| receives(receiver)) {
            let update = ParticipantUpdate {
                participants: vec![info.clone()],
            };
            self.out.signal(receiver, Message::Update(update));
        }
    }

    /// For the next batch; replaces what waits about the same identity.
    pub(super) fn queue_update(&mut self, info: ParticipantInfo) {
        let identity = Identity(info.identity.clone());
        let hidden = info.permission.as_ref().is_some_and(|permission| permission.hidden);
        if hidden {
            // Only itself may see it, which is no batch.
            if let Some(handle) = self.identities.get(&identity).copied() {
                self.send_update_now(&info, |receiver| receiver.handle == handle);
            }
            return;
        }
        if self.updates.len() >= MAX_QUEUED_UPDATES {
            self.flush_updates();
        }
        self.updates.insert(identity, info);
    }

    pub(super) fn flush_updates(&mut self) {
        if self.updates.is_empty() {
            return;
        }
        let infos = std::mem::take(&mut self.updates).into_values();
        let chunks = chunks(infos, self.settings.update_batch_target_size);
        for receiver in self.participants.values() {
            for chunk in &chunks {
                self.out.signal(receiver, Message::Update(chunk.clone()));
            }
        }
    }

    /// Everyone a participant may see, itself included, as it is now. For a resumed client.
    pub(super) fn send_all_participants(&mut self, handle: ParticipantHandle) {
        let Some(receiver) = self.participants.get(&handle) else {
            return;
        };
        let infos = self
            .participants
            .values()
            .filter(|other| other.handle == handle || !other.is_hidden())
            .map(Participant::info);
        for chunk in chunks(infos, self.settings.update_batch_target_size) {
            self.out.signal(receiver, Message::Update(chunk));
        }
    }

    /// The counts of the room have changed: told at once after a quiet time, else when that time is over.
    pub(super) fn room_changed(&mut self, now: Instant) {
        let at = self.last_room_update + ROOM_UPDATE_INTERVAL;
        if at <= now {
            self.send_room_update(now);
        } else {
            self.room_update_at = Some(at);
        }
    }

    pub(super) fn send_room_update(&mut self, now: Instant) {
        self.room_update_at = None;
        self.last_room_update = now;
        let room = self.info();
        for receiver in self.participants.values() {
            let update = RoomUpdate {
                room: Some(room.clone()),
            };
            self.out.signal(receiver, Message::RoomUpdate(update));
        }
    }

    pub(super) fn send_room_update_to(&mut self, handle: ParticipantHandle) {
        let room = self.info();
        if let Some(receiver) = self.participants.get(&handle) {
            self.out
                .signal(receiver, Message::RoomUpdate(RoomUpdate { room: Some(room) }));
        }
    }

    /// A token with the claims as they are now, signed with the key the participant came with.
    pub(super) fn send_refresh_token(&mut self, now: Instant, handle: ParticipantHandle) {
        let unix = self.wall.unix(now);
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.refresh_token_at = now + TOKEN_REFRESH_INTERVAL;
        let lifetime = participant.claims.remaining(unix).max(TOKEN_MIN_LIFETIME);
        let signer = &participant.signer;
        let token = claims::sign(
            &participant.claims.for_refresh(),
            &signer.api_key,
            &signer.secret,
            unix,
            lifetime,
        );
        self.out.signal(participant, Message::RefreshToken(token));
    }

    /// The rights that the data path knows have changed.
    pub(super) fn send_data_rights(&mut self, handle: ParticipantHandle) {
        if let Some(participant) = self.participants.get(&handle) {
            let participant = participant.data_participant(self.handle);
            self.out.media(Command::SetParticipant(Box::new(participant)));
        }
    }
}

/// Lists of at most `target` bytes each, but of one participant at least. 0 = one list.
fn chunks(infos: impl Iterator<Item = ParticipantInfo>, target: usize) -> Vec<ParticipantUpdate> {
    let mut chunks = Vec::new();
    let mut chunk = ParticipantUpdate::default();
    let mut size = 0;
    for info in infos {
        let length = info.encoded_len();
        if target > 0 && !chunk.participants.is_empty() && size + length > target {
            chunks.push(std::mem::take(&mut chunk));
            size = 0;
        }
        size += length;
        chunk.participants.push(info);
    }
    if !chunk.participants.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_at_the_target_size() {
        let info = |size: usize| ParticipantInfo {
            metadata: "x".repeat(size),
            ..Default::default()
        };
        let sizes = |target| -> Vec<usize> {
            chunks([info(400), info(400), info(2000), info(10)].into_iter(), target)
                .iter()
                .map(|chunk| chunk.participants.len())
                .collect()
        };
        assert_eq!(sizes(1000), [2, 1, 1]);
        assert_eq!(sizes(0), [4]);
    }
}
