//! Endings: of a session, of a connection, of the room. What the client is told, what the others see, what the shard
//! must drop.

use std::time::Instant;

use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, LeaveRequest, ParticipantInfo};

use crate::media::edge::Command;
use crate::types::{ParticipantHandle, TrackId};

use super::client::Client;
use super::output::{Output, RoomEvent};
use super::participant::Participant;
use super::room::{Departed, Room};
use super::settings::{MAX_DEPARTED, RECONNECT_WINDOW};

/// What the departing client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// A `Leave` with this action, then the connection is closed.
    Leave(Action),
    /// Only the connection is closed (a simulated crash).
    Silent,
}

/// What the other participants hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    Announced,
    /// A new session of the same identity follows: only clients that cannot tell are shown the departure.
    Replaced,
}

/// None = this client is not sent the message at all.
pub(super) fn leave_message(client: &Client, reason: DisconnectReason, action: Action) -> Option<Message> {
    let mut leave = LeaveRequest {
        reason: reason as i32,
        ..Default::default()
    };
    if client.reads_leave_action() {
        leave.action = action as i32;
    } else if action == Action::Resume {
        // LiveKit: clients before protocol 13 would take it for the end; they notice the closed socket instead.
        return None;
    } else {
        leave.can_reconnect = action == Action::Reconnect;
    }
    Some(Message::Leave(leave))
}

impl Room {
    /// The client asked to go. It gets an echo of its reason.
    pub(super) fn handle_leave(&mut self, now: Instant, participant: ParticipantHandle, request: &LeaveRequest) {
        let reason = match request.reason() {
            reason @ (DisconnectReason::UserUnavailable
            | DisconnectReason::UserRejected
            | DisconnectReason::AgentError) => reason,
            _ => DisconnectReason::ClientInitiated,
        };
        self.close_participant(now, participant, reason, Farewell::Leave(Action::Disconnect));
    }

    /// Ends a session; everyone else sees it go.
    pub(super) fn close_participant(
        &mut self,
        now: Instant,
        participant: ParticipantHandle,
        reason: DisconnectReason,
        farewell: Farewell,
    ) {
        self.end_session(now, participant, reason, farewell, Departure::Announced);
    }

    /// The client must start over: what it holds and what the room holds have grown apart.
    pub(super) fn full_reconnect(&mut self, now: Instant, participant: ParticipantHandle, reason: DisconnectReason) {
        self.close_participant(now, participant, reason, Farewell::Leave(Action::Reconnect));
    }

    /// A transport died under the session. The client may come back with a new session for `RECONNECT_WINDOW`; until
    /// then the others see no change.
    pub(super) fn lose_transport(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        participant.disconnect_at.get_or_insert(now + RECONNECT_WINDOW);
        // The shard has forgotten the transport, so that only a new session helps, not a resume.
        if let Some(message) = leave_message(
            &participant.client,
            DisconnectReason::ConnectionTimeout,
            Action::Reconnect,
        ) {
            self.out.signal(participant, message);
        }
        self.drop_connection(now, handle);
    }

    /// Closes the participant's signalling connection, if it has one.
    pub(super) fn drop_connection(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get_mut(&handle) else {
            return;
        };
        if participant.connection.is_some()
            && let Some(connection) = participant.lose_connection(now)
        {
            self.connections.remove(&connection);
            self.out.push(Output::CloseConnection { connection });
        }
    }

    pub(super) fn end_session(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        reason: DisconnectReason,
        farewell: Farewell,
        departure: Departure,
    ) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        if let Farewell::Leave(action) = farewell
            && let Some(message) = leave_message(&participant.client, reason, action)
        {
            self.out.signal(participant, message);
        }
        self.drop_connection(now, handle);

        let tracks: Vec<TrackId> = participant_tracks(self, handle);
        for track in &tracks {
            self.drop_publication(now, handle, track);
        }
        self.drop_all_data_tracks(handle);
        self.drop_all_subscriptions(now, handle);
        let Some(participant) = self.take_out(now, handle, reason, departure) else {
            return;
        };
        for peer in participant.peers().filter(|peer| peer.opened) {
            self.out.media(Command::CloseTransport {
                transport: peer.transport,
            });
        }
        if participant.claims.is_agent() {
            self.end_job_of(now, &participant.identity.0, reason);
        }
    }

    /// It is not in the room any more, and the others are told. Its transports are left as they are; its tracks and
    /// subscriptions must have ended.
    pub(super) fn take_out(
        &mut self,
        now: Instant,
        handle: ParticipantHandle,
        reason: DisconnectReason,
        departure: Departure,
    ) -> Option<Participant> {
        self.end_calls_to(handle);
        let participant = self.participants.remove(&handle)?;
        if self.identities.get(&participant.identity) == Some(&handle) {
            self.identities.remove(&participant.identity);
        }
        self.speakers.remove(&handle);
        for other in self.participants.values_mut() {
            other.told_quality.remove(&handle);
        }
        self.out.media(Command::RemoveParticipant {
            room: self.handle,
            participant: handle,
        });
        for peer in participant.peers() {
            self.transports.remove(&peer.transport);
        }

        let was_active = participant.state == State::Active;
        let info = ParticipantInfo {
            state: State::Disconnected as i32,
            disconnect_reason: reason as i32,
            version: participant.version + 1,
            ..participant.info()
        };
        let happened = if was_active {
            RoomEvent::ParticipantLeft {
                participant: Box::new(info.clone()),
            }
        } else {
            RoomEvent::ParticipantConnectionAborted {
                participant: Box::new(info.clone()),
            }
        };
        self.out.happened(happened);

        if !participant.is_hidden() {
            match departure {
                Departure::Announced => {
                    self.depart(now, info.clone());
                    if participant.is_publisher {
                        self.updates.remove(&participant.identity);
                        self.send_update_now(&info, |_| true);
                    } else {
                        self.queue_update(info);
                    }
                }
                Departure::Replaced => {
                    self.updates.remove(&participant.identity);
                    self.send_update_now(&info, |other| !other.client.reconnects_by_identity());
                }
            }
        }
        if !participant.is_dependent() {
            self.departed_at = Some(now);
            self.unsaved |= !self.is_occupied();
        }
        // A replacement does not change the counts.
        if departure == Departure::Announced {
            self.room_changed(now);
        }
        Some(participant)
    }

    fn depart(&mut self, now: Instant, info: livekit_protocol::ParticipantInfo) {
        if self.departed.len() >= MAX_DEPARTED {
            self.departed.pop_front();
        }
        self.departed.push_back(Departed { at: now, info });
    }

    /// Ends the room for everybody. `Output::Closed` is the last output.
    pub fn close(&mut self, now: Instant, reason: DisconnectReason) {
        if self.closed {
            return;
        }
        let handles: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for handle in handles {
            self.close_participant(now, handle, reason, Farewell::Leave(Action::Disconnect));
        }
        self.finish();
    }

    /// The server stops: everybody is told to connect anew, which leads to another node or to this one when it is back.
    /// LiveKit's server tells them that the call is over. `kept`: the room has been written down and goes on in the next
    /// process, so that it does not finish.
    pub fn shut_down(&mut self, now: Instant, kept: bool) {
        if self.closed {
            return;
        }
        self.kept = kept;
        let handles: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for handle in handles {
            self.full_reconnect(now, handle, DisconnectReason::ServerShutdown);
        }
        self.finish();
    }

    /// After a caught panic the shard has nothing left of the room: everybody starts over in a new one.
    pub(super) fn close_for_reconnect(&mut self, now: Instant) {
        let handles: Vec<ParticipantHandle> = self.participants.keys().copied().collect();
        for handle in handles {
            self.full_reconnect(now, handle, DisconnectReason::StateMismatch);
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.closed = true;
        self.updates.clear();
        self.departed.clear();
        self.out.media(Command::CloseRoom { room: self.handle });
        if !self.kept {
            self.out.happened(RoomEvent::RoomFinished);
        }
        self.out.push(Output::Closed);
    }
}

fn participant_tracks(room: &Room, handle: ParticipantHandle) -> Vec<TrackId> {
    room.participants
        .get(&handle)
        .map(|participant| participant.publications.keys().cloned().collect())
        .unwrap_or_default()
}
