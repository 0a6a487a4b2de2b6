//! Every message of a client, one arm each.

use std::time::Instant;

use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_request::Message;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{RequestResponse, SignalRequest};

use crate::types::ParticipantHandle;

use super::output::ConnectionHandle;
use super::room::Room;

impl Room {
    /// A request of a connection that is not (or no longer) a participant's is ignored.
    pub fn handle_request(&mut self, now: Instant, connection: ConnectionHandle, request: SignalRequest) {
        let Some(participant) = self.connections.get(&connection).copied() else {
            return;
        };
        let Some(message) = request.message else {
            return;
        };
        self.note_heard(now, participant, &message);
        match message {
            Message::Offer(offer) => self.handle_offer(now, participant, offer),
            Message::Answer(answer) => self.handle_answer(now, participant, &answer),
            Message::Trickle(request) => self.handle_trickle(participant, request),
            Message::AddTrack(request) => self.handle_add_track(now, participant, request),
            Message::Mute(request) => self.handle_mute(participant, request),
            Message::Subscription(request) => self.handle_subscription(now, participant, &request),
            Message::TrackSetting(request) => self.handle_track_setting(now, participant, &request),
            Message::Leave(request) => self.handle_leave(now, participant, &request),
            // Deprecated: layers follow from what subscribers want.
            Message::UpdateLayers(_) => {}
            Message::SubscriptionPermission(request) => self.handle_subscription_permission(now, participant, request),
            Message::SyncState(request) => self.handle_sync_state(now, participant, request),
            Message::Simulate(request) => self.handle_simulate(now, participant, request),
            // The socket has answered it, so that it measures the socket and nothing else.
            Message::Ping(_) | Message::PingReq(_) => {}
            Message::UpdateMetadata(request) => self.handle_update_metadata(now, participant, request),
            Message::UpdateAudioTrack(request) => self.handle_update_audio_track(participant, request),
            Message::UpdateVideoTrack(request) => self.handle_update_video_track(participant, request),
            Message::PublishDataTrackRequest(request) => self.handle_publish_data_track(participant, request),
            Message::UnpublishDataTrackRequest(request) => self.handle_unpublish_data_track(participant, request),
            Message::UpdateDataSubscription(request) => self.handle_data_subscription(participant, request),
            Message::StoreDataBlobRequest(request) => self.handle_store_data_blob(participant, request),
            Message::GetDataBlobRequest(request) => self.handle_get_data_blob(participant, request),
        }
    }

    /// Answers a request with a reason; `request` is echoed where the message has a place for it. `request_id` is the
    /// client's own, 0 where its request has none.
    pub(super) fn refuse(
        &mut self,
        handle: ParticipantHandle,
        request_id: u32,
        reason: Reason,
        message: &str,
        request: Option<Request>,
    ) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        let client = &participant.client;
        if !client.reads_late_messages() || (reason == Reason::Ok && !client.reads_ok_responses()) {
            return;
        }
        let response = RequestResponse {
            request_id,
            reason: reason as i32,
            message: message.to_owned(),
            request,
        };
        self.out.signal(participant, Response::RequestResponse(response));
    }
}
