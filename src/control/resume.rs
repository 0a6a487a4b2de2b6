//! A client that lost its signalling socket comes back to its session: what it is told, and what it says it has.

use std::time::Instant;

use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DisconnectReason, LeaveRequest, ParticipantInfo, ParticipantUpdate, ReconnectResponse, SyncState,
};

use crate::types::{ParticipantHandle, TrackId};

use super::output::{ConnectionHandle, Output};
use super::participant::SimulatedResume;
use super::room::Room;
use super::session::server_info;
use super::subscription::TrackSettings;

impl Room {
    /// Always answers `connection`; a session that cannot be resumed gets a Leave that makes the client start over.
    pub(super) fn resume(
        &mut self,
        now: Instant,
        connection: ConnectionHandle,
        known: Option<ParticipantHandle>,
    ) -> ParticipantHandle {
        let resumable = known.filter(|handle| {
            self.participants
                .get(handle)
                .is_some_and(|participant| participant.disconnect_at.is_none() && participant.original.is_none())
        });
        let Some(handle) = resumable else {
            let leave = LeaveRequest {
                reason: DisconnectReason::StateMismatch as i32,
                action: Action::Reconnect as i32,
                ..Default::default()
            };
            self.out.signal_connection(connection, Message::Leave(leave));
            self.out.push(Output::CloseConnection { connection });
            return known.unwrap_or_else(|| self.ids.participant_handle());
        };
        self.drop_connection(now, handle);
        let Some(participant) = self.participants.get_mut(&handle) else {
            return handle;
        };
        let away_since = participant.last_signal_at;
        let simulated = participant.simulated_resume.take();
        if simulated == Some(SimulatedResume::DropAtOnce) {
            self.out.push(Output::CloseConnection { connection });
            return handle;
        }
        participant.connection = Some(connection);
        participant.gone_at = None;
        // LiveKit: a client that goes on hearing that it is lost starts over, and this is about the time before.
        participant.score.take_if(|score| score.lost);
        participant.heard_at = now;
        self.connections.insert(connection, handle);
        if let Some(participant) = self.participants.get(&handle)
            && participant.client.reads_reconnect_response()
        {
            let response = ReconnectResponse {
                ice_servers: self.ice_servers(now, participant),
                client_configuration: participant.configuration(),
                server_info: Some(server_info(&self.settings)),
                last_message_seq: participant.last_data_sequence,
            };
            self.out.signal(participant, Message::Reconnect(response));
        }
        if simulated == Some(SimulatedResume::DropAfterResponse) {
            self.drop_connection(now, handle);
            return handle;
        }
        self.send_departed(handle, away_since);
        self.send_all_participants(handle);
        self.send_room_update_to(handle);
        self.send_refresh_token(now, handle);
        self.restart_subscriber(now, handle);
        self.repeat_dynacast(handle);
        self.repeat_streams(now, handle);
        handle
    }

    /// Who left while the client was away.
    fn send_departed(&mut self, handle: ParticipantHandle, since: Instant) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        if !participant.client.reads_departed_on_resume() {
            return;
        }
        let participants: Vec<ParticipantInfo> = self
            .departed
            .iter()
            .filter(|departed| departed.at >= since)
            .map(|departed| ParticipantInfo {
                sid: departed.info.sid.clone(),
                identity: departed.info.identity.clone(),
                version: departed.info.version,
                state: departed.info.state,
                ..Default::default()
            })
            .collect();
        if !participants.is_empty() {
            self.out
                .signal(participant, Message::Update(ParticipantUpdate { participants }));
        }
    }

    /// What a resumed client believes. Its tracks must be known here, else both sides start over; its wishes are applied.
    pub(super) fn handle_sync_state(&mut self, now: Instant, handle: ParticipantHandle, state: SyncState) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        let tracks_known = state.publish_tracks.iter().all(|published| {
            published
                .track
                .as_ref()
                .is_some_and(|track| participant.publications.contains_key(&TrackId(track.sid.clone())))
        });
        let data_tracks_known = state.publish_data_tracks.iter().all(|published| {
            published
                .info
                .as_ref()
                .is_some_and(|info| participant.data_tracks.values().any(|track| track.info.sid == info.sid))
        });
        if !tracks_known || !data_tracks_known {
            return self.full_reconnect(now, handle, DisconnectReason::StateMismatch);
        }
        for sid in state.track_sids_disabled {
            let settings = TrackSettings {
                disabled: true,
                ..Default::default()
            };
            self.set_track_settings(now, handle, &TrackId(sid), settings);
        }
        if let Some(subscription) = state.subscription {
            self.handle_subscription(now, handle, &subscription);
        }
        if let Some(subscription) = state.data_subscription {
            self.handle_data_subscription(handle, subscription);
        }
    }
}
