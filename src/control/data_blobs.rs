//! Small values a participant leaves for the others (`StoreDataBlobRequest`). Off unless configured.

use std::collections::BTreeMap;

use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DataBlob, DataBlobKey, GetDataBlobRequest, GetDataBlobResponse, StoreDataBlobRequest, StoreDataBlobResponse,
};
use prost::Message as _;

use crate::types::{Identity, ParticipantHandle};

use super::room::Room;
use super::settings::exceeds;

/// By encoded key; keys and contents together at most `limits.max_data_blobs_size`.
#[derive(Debug, Default)]
pub(super) struct DataBlobs {
    blobs: BTreeMap<Vec<u8>, DataBlob>,
}

impl DataBlobs {
    fn size_without(&self, key: &[u8]) -> usize {
        let others = self.blobs.iter().filter(|(other, _)| other.as_slice() != key);
        others.map(|(key, blob)| key.len() + blob.contents.len()).sum()
    }
}

impl Room {
    pub(super) fn handle_store_data_blob(&mut self, handle: ParticipantHandle, request: StoreDataBlobRequest) {
        let id = request.request_id;
        if !self.settings.enable_participant_data_blob {
            return self.refuse(handle, id, Reason::NotAllowed, "data blobs are not enabled", None);
        }
        let Some((key, blob)) = request.blob.and_then(|blob| Some((blob.key.clone()?, blob))) else {
            return self.refuse(handle, id, Reason::InvalidRequest, "a key is required", None);
        };
        let encoded = key.encode_to_vec();
        let limits = &self.settings.limits;
        if exceeds(encoded.len(), limits.max_data_blob_key_length) {
            return self.refuse(handle, id, Reason::LimitExceeded, "key too long", None);
        }
        let max_size = limits.max_data_blobs_size;
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let size = participant.blobs.size_without(&encoded) + encoded.len() + blob.contents.len();
        if exceeds(size, max_size) {
            return self.refuse(handle, id, Reason::LimitExceeded, "data blobs too large", None);
        }
        participant.blobs.blobs.insert(encoded, blob);
        let response = StoreDataBlobResponse {
            request_id: id,
            key: Some(key),
        };
        self.out.signal(participant, Message::StoreDataBlobResponse(response));
    }

    pub(super) fn handle_get_data_blob(&mut self, handle: ParticipantHandle, request: GetDataBlobRequest) {
        let id = request.request_id;
        if !self.settings.enable_participant_data_blob {
            return self.refuse(handle, id, Reason::NotAllowed, "data blobs are not enabled", None);
        }
        let key = request.key.as_ref().map(DataBlobKey::encode_to_vec).unwrap_or_default();
        let owner = self.identities.get(&Identity(request.participant_identity));
        let blob = owner
            .and_then(|owner| self.participants.get(owner))
            .and_then(|owner| owner.blobs.blobs.get(&key))
            .cloned();
        let Some(blob) = blob else {
            return self.refuse(handle, id, Reason::NotFound, "data blob not found", None);
        };
        let response = GetDataBlobResponse {
            request_id: id,
            blob: Some(blob),
        };
        if let Some(participant) = self.participants.get(&handle) {
            self.out.signal(participant, Message::GetDataBlobResponse(response));
        }
    }
}
