//! What the server's HTTP API does to a room: look, remove, mute, change rights, send data.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DataPacket, DisconnectReason, MuteTrackRequest, ParticipantInfo, ParticipantPermission, SendDataRequest, TrackInfo,
};
use prost::Message as _;

use crate::media::edge::Command;
use crate::types::{Identity, ParticipantHandle, TrackId};

use super::leave::Farewell;
use super::participant::Participant;
use super::permissions::MetadataError;
use super::room::Room;
use super::settings::exceeds;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdministrationError {
    #[error("participant does not exist")]
    NoParticipant,
    #[error("remote unmute not enabled")]
    RemoteUnmuteDisabled,
    #[error("the room has too many calls under way")]
    TooManyCalls,
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

/// How much a room holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub participants: usize,
    /// Announced ones too.
    pub tracks: usize,
    pub subscriptions: usize,
}

impl Room {
    /// Costs nothing.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            participants: self.participants.len(),
            tracks: self.tracks.len(),
            subscriptions: self.subscriptions.len(),
        }
    }

    /// Time since 1970.
    pub fn unix(&self, now: Instant) -> Duration {
        self.wall.unix(now)
    }

    /// In the order in which they joined, hidden ones included.
    pub fn participants(&self) -> Vec<ParticipantInfo> {
        self.participants.values().map(Participant::info).collect()
    }

    pub fn participant(&self, identity: &Identity) -> Option<ParticipantInfo> {
        let handle = self.identities.get(identity)?;
        self.participants.get(handle).map(Participant::info)
    }

    pub(super) fn find(&self, identity: &Identity) -> Result<ParticipantHandle, AdministrationError> {
        self.identities
            .get(identity)
            .copied()
            .ok_or(AdministrationError::NoParticipant)
    }

    pub fn remove_participant(&mut self, now: Instant, identity: &Identity) -> Result<(), AdministrationError> {
        let handle = self.find(identity)?;
        let farewell = Farewell::Leave(Action::Disconnect);
        self.close_participant(now, handle, DisconnectReason::ParticipantRemoved, farewell);
        Ok(())
    }

    /// Empty texts mean no change; `permission` replaces every right.
    pub fn update_participant(
        &mut self,
        now: Instant,
        identity: &Identity,
        metadata: &str,
        name: &str,
        attributes: &HashMap<String, String>,
        permission: Option<&ParticipantPermission>,
    ) -> Result<ParticipantInfo, AdministrationError> {
        let handle = self.find(identity)?;
        self.update_metadata_of(now, handle, metadata, name, attributes)?;
        if let Some(permission) = permission {
            self.set_permission(now, handle, permission);
        }
        self.participant(identity).ok_or(AdministrationError::NoParticipant)
    }

    pub fn update_permission(
        &mut self,
        now: Instant,
        identity: &Identity,
        permission: &ParticipantPermission,
    ) -> Result<(), AdministrationError> {
        let handle = self.find(identity)?;
        self.set_permission(now, handle, permission);
        Ok(())
    }

    /// Mutes a track and tells its publisher to stop. None: it has no such track.
    pub fn mute_track(
        &mut self,
        identity: &Identity,
        track: &TrackId,
        muted: bool,
    ) -> Result<Option<TrackInfo>, AdministrationError> {
        let handle = self.find(identity)?;
        if !muted && !self.settings.enable_remote_unmute {
            return Err(AdministrationError::RemoteUnmuteDisabled);
        }
        let known = |participant: &Participant| participant.publications.get(track).map(|track| track.info.muted);
        let Some(before) = self.participants.get(&handle).and_then(known) else {
            return Ok(None);
        };
        if before != muted
            && let Some(participant) = self.participants.get(&handle)
        {
            let request = MuteTrackRequest {
                sid: track.0.clone(),
                muted,
            };
            self.out.signal(participant, Message::Mute(request));
        }
        self.set_muted(handle, track, muted);
        let info = |participant: &Participant| participant.publications.get(track).map(|track| track.info.clone());
        Ok(self.participants.get(&handle).and_then(info))
    }

    pub fn update_subscriptions(
        &mut self,
        now: Instant,
        identity: &Identity,
        tracks: &[TrackId],
        subscribe: bool,
    ) -> Result<(), AdministrationError> {
        let handle = self.find(identity)?;
        for track in tracks {
            self.wish_for(now, handle, track, subscribe);
        }
        Ok(())
    }

    /// A data packet from the server; without destinations to everybody.
    pub fn send_data(&mut self, request: SendDataRequest) {
        let everybody = request.destination_sids.is_empty() && request.destination_identities.is_empty();
        let named = |participant: &&Participant| {
            request.destination_sids.contains(&participant.sid.0)
                || request.destination_identities.contains(&participant.identity.0)
        };
        let to: Vec<ParticipantHandle> = match everybody {
            true => Vec::new(),
            false => self
                .participants
                .values()
                .filter(named)
                .map(|participant| participant.handle)
                .collect(),
        };
        if !everybody && to.is_empty() {
            return;
        }
        let kind = request.kind();
        let packet = DataPacket {
            kind: kind as i32,
            destination_identities: request.destination_identities.clone(),
            value: Some(Value::User(livekit_protocol::UserPacket {
                payload: request.data,
                destination_sids: request.destination_sids,
                destination_identities: request.destination_identities,
                topic: request.topic,
                nonce: request.nonce,
                ..Default::default()
            })),
            ..Default::default()
        };
        self.out.media(Command::SendData {
            room: self.handle,
            to,
            reliable: kind == Kind::Reliable,
            packet: packet.encode_to_vec(),
        });
    }

    /// The room's own metadata.
    pub fn update_metadata(
        &mut self,
        now: Instant,
        metadata: &str,
    ) -> Result<livekit_protocol::Room, AdministrationError> {
        if exceeds(metadata.len(), self.settings.limits.max_metadata_size) {
            return Err(MetadataError::MetadataTooLarge.into());
        }
        metadata.clone_into(&mut self.metadata);
        self.unsaved = true;
        self.send_room_update(now);
        Ok(self.info())
    }
}
