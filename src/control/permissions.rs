//! Changes of what a participant is called and what it may: by itself, and by the server's administration.

use std::collections::HashMap;
use std::time::Instant;

use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::{ParticipantPermission, UpdateParticipantMetadata};

use crate::types::{ParticipantHandle, TrackId};

use super::participant::Participant;
use super::publish::Unpublished;
use super::reception::MAX_BITRATE_ATTRIBUTE;
use super::room::Room;
use super::session::attributes_size;
use super::settings::exceeds;

/// Why metadata was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("metadata size exceeds limits")]
    MetadataTooLarge,
    #[error("name length exceeds limits")]
    NameTooLong,
    #[error("attributes size exceeds limits")]
    AttributesTooLarge,
}

impl Room {
    pub(super) fn handle_update_metadata(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        request: UpdateParticipantMetadata,
    ) {
        let id = request.request_id;
        let allowed = self
            .participants
            .get(&handle)
            .is_some_and(|participant| participant.can_update_own_metadata());
        let cap = request.attributes.get(MAX_BITRATE_ATTRIBUTE);
        let recaps = |participant: &Participant| cap.is_some_and(|cap| cap != participant.cap_attribute());
        if allowed && self.participants.get(&handle).is_some_and(recaps) {
            let text = "the limits of a participant are set by the server";
            let request = Some(Request::UpdateMetadata(request));
            return self.refuse(handle, id, Reason::NotAllowed, text, request);
        }
        let outcome = if allowed {
            self.update_metadata_of(now, handle, &request.metadata, &request.name, &request.attributes)
        } else {
            let text = "does not have permission to update own metadata";
            return self.refuse(
                handle,
                id,
                Reason::NotAllowed,
                text,
                Some(Request::UpdateMetadata(request)),
            );
        };
        let (reason, text) = match outcome {
            Ok(()) => (Reason::Ok, ""),
            Err(error @ MetadataError::MetadataTooLarge) => (Reason::LimitExceeded, text_of(error)),
            Err(error @ MetadataError::NameTooLong) => (Reason::LimitExceeded, text_of(error)),
            Err(error @ MetadataError::AttributesTooLarge) => (Reason::LimitExceeded, text_of(error)),
        };
        self.refuse(handle, id, reason, text, Some(Request::UpdateMetadata(request)));
    }

    /// Empty metadata and name mean no change; an attribute with an empty value is removed.
    pub(super) fn update_metadata_of(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        metadata: &str,
        name: &str,
        attributes: &HashMap<String, String>,
    ) -> Result<(), MetadataError> {
        let limits = &self.settings.limits;
        if exceeds(metadata.len(), limits.max_metadata_size) {
            return Err(MetadataError::MetadataTooLarge);
        }
        if exceeds(name.len(), limits.max_participant_name_length) {
            return Err(MetadataError::NameTooLong);
        }
        let Some(participant) = self.participants.get_mut(&handle) else {
            return Ok(());
        };
        let mut merged = participant.claims.attributes.clone();
        for (key, value) in attributes {
            if value.is_empty() {
                merged.remove(key);
            } else {
                merged.insert(key.clone(), value.clone());
            }
        }
        if exceeds(attributes_size(&merged), limits.max_attributes_size) {
            return Err(MetadataError::AttributesTooLarge);
        }
        let claims = &mut participant.claims;
        let before = (claims.metadata.clone(), claims.name.clone());
        if !metadata.is_empty() {
            metadata.clone_into(&mut claims.metadata);
        }
        if !name.is_empty() {
            name.clone_into(&mut claims.name);
        }
        let unchanged = before == (claims.metadata.clone(), claims.name.clone()) && claims.attributes == merged;
        claims.attributes = merged;
        if !unchanged {
            self.update_reception(handle);
            self.changed_now(handle);
            self.send_refresh_token(now, handle);
        }
        Ok(())
    }

    /// Replaces all rights at once: what it may no longer do ends, what it newly may starts.
    pub(super) fn set_permission(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        permission: &ParticipantPermission,
    ) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let grant = participant.claims.video.get_or_insert_default();
        if grant.permission() == *permission {
            return;
        }
        grant.set_permission(permission);
        self.send_data_rights(handle);
        self.changed_now(handle);

        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let revoked: Vec<TrackId> = participant
            .publications
            .values()
            .filter(|publication| !participant.can_publish_source(publication.info.source()))
            .map(|publication| publication.sid.clone())
            .collect();
        participant.queued.retain(|_| permission.can_publish);
        for track in revoked {
            self.unpublish(now, handle, &track, Unpublished::ByServer);
        }
        if !permission.can_publish_data {
            self.revoke_data_tracks(handle);
        }
        // LiveKit: is_publisher follows the right, also for somebody who never published.
        if let Some(participant) = self.participants.get_mut(&handle)
            && participant.is_publisher != permission.can_publish
        {
            participant.is_publisher = permission.can_publish;
            self.changed_now(handle);
            self.room_changed(now);
        }
        self.reconcile_subscriber(now, handle);
        self.reconcile_data_subscriber(handle);
        self.send_refresh_token(now, handle);
    }
}

fn text_of(error: MetadataError) -> &'static str {
    match error {
        MetadataError::MetadataTooLarge => "metadata size exceeds limits",
        MetadataError::NameTooLong => "name length exceeds limits",
        MetadataError::AttributesTooLarge => "attributes size exceeds limits",
    }
}
