//! `SimulateScenario`: what clients' own test suites ask a server to do to them.

use std::time::Instant;

use livekit_protocol::leave_request::Action;
use livekit_protocol::simulate_scenario::Scenario;
use livekit_protocol::{DisconnectReason, SimulateScenario};

use crate::types::ParticipantHandle;

use super::fallback::Way;
use super::leave::{Farewell, leave_message};
use super::participant::SimulatedResume;
use super::room::Room;

impl Room {
    pub(super) fn handle_simulate(&mut self, now: Instant, handle: ParticipantHandle, request: SimulateScenario) {
        match request.scenario {
            Some(Scenario::SpeakerUpdate(seconds)) => self.simulate_speech(now, handle, seconds),
            // The node seems to be gone: no goodbye, and nothing to resume.
            Some(Scenario::NodeFailure(_)) => {
                self.close_participant(now, handle, DisconnectReason::ServerShutdown, Farewell::Silent);
            }
            Some(Scenario::Migration(_)) => {
                self.close_participant(now, handle, DisconnectReason::Migration, Farewell::Silent);
            }
            Some(Scenario::ServerLeave(_)) => {
                let farewell = Farewell::Leave(Action::Disconnect);
                self.close_participant(now, handle, DisconnectReason::ServerShutdown, farewell);
            }
            Some(Scenario::SwitchCandidateProtocol(protocol)) => {
                self.choose_way(now, handle, Way::from_number(protocol));
                self.ask_to_resume(now, handle);
            }
            Some(Scenario::DisconnectSignalOnResume(_)) => {
                self.simulate_resume(handle, SimulatedResume::DropAfterResponse);
            }
            Some(Scenario::DisconnectSignalOnResumeNoMessages(_)) => {
                self.simulate_resume(handle, SimulatedResume::DropAtOnce);
            }
            Some(Scenario::LeaveRequestFullReconnect(_)) => {
                self.full_reconnect(now, handle, DisconnectReason::UnknownReason);
            }
            // A narrow link is simulated on the network, not by the server.
            Some(Scenario::SubscriberBandwidth(_)) | None => {}
        }
    }

    fn simulate_resume(&mut self, handle: ParticipantHandle, resume: SimulatedResume) {
        if let Some(participant) = self.participants.get_mut(&handle) {
            participant.simulated_resume = Some(resume);
        }
    }

    fn ask_to_resume(&mut self, now: Instant, handle: ParticipantHandle) {
        let Some(participant) = self.participants.get(&handle) else {
            return;
        };
        if let Some(message) = leave_message(&participant.client, DisconnectReason::UnknownReason, Action::Resume) {
            self.out.signal(participant, message);
        }
        self.drop_connection(now, handle);
    }
}
