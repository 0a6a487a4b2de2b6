//! Which agents a room asks for: from its configuration, and from the server API while it lives.
//!
//! What becomes of them is in `jobs`.

use std::time::Instant;

use livekit_protocol::{AgentDispatch, AgentDispatchState, CreateAgentDispatchRequest, RoomAgentDispatch};

use crate::types::Identity;

use super::room::Room;

/// Dispatches of one room. They come from a backend, each may start an agent; more are refused.
const MAX_DISPATCHES: usize = 256;

/// A room has as many dispatches as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the room has too many dispatches")]
pub struct TooManyDispatches;

impl Room {
    /// What the room is made with. LiveKit: a room that names no agent asks for one of those without a name.
    pub(super) fn dispatch_configured_agents(&mut self, now: Instant) {
        let mut agents = self.settings.agents.clone();
        if agents.is_empty() {
            agents.push(RoomAgentDispatch::default());
        }
        for agent in agents.into_iter().take(MAX_DISPATCHES) {
            self.add_dispatch(
                now,
                CreateAgentDispatchRequest {
                    agent_name: agent.agent_name,
                    room: self.name.0.clone(),
                    metadata: agent.metadata,
                    restart_policy: agent.restart_policy,
                    deployment: agent.deployment,
                    attributes: agent.attributes,
                },
            );
        }
    }

    pub fn create_dispatch(
        &mut self,
        now: Instant,
        request: CreateAgentDispatchRequest,
    ) -> Result<AgentDispatch, TooManyDispatches> {
        if self.dispatches.len() >= MAX_DISPATCHES {
            return Err(TooManyDispatches);
        }
        Ok(self.add_dispatch(now, request))
    }

    fn add_dispatch(&mut self, now: Instant, request: CreateAgentDispatchRequest) -> AgentDispatch {
        let created = self.wall.unix(now).as_nanos();
        let dispatch = AgentDispatch {
            id: self.ids.dispatch_id(),
            agent_name: request.agent_name,
            room: self.name.0.clone(),
            metadata: request.metadata,
            state: Some(AgentDispatchState {
                // LiveKit: nanoseconds.
                created_at: i64::try_from(created).unwrap_or(i64::MAX),
                ..Default::default()
            }),
            restart_policy: request.restart_policy,
            deployment: request.deployment,
            attributes: request.attributes,
        };
        self.dispatches.push(dispatch.clone());
        self.launch_dispatch(&dispatch);
        self.unsaved = true;
        dispatch
    }

    /// In the order in which they were made. With an `id` that one only.
    pub fn dispatches(&self, id: &str) -> Vec<AgentDispatch> {
        let wanted = |dispatch: &&AgentDispatch| id.is_empty() || dispatch.id == id;
        self.dispatches.iter().filter(wanted).cloned().collect()
    }

    /// None: there is no such dispatch.
    pub fn delete_dispatch(&mut self, now: Instant, id: &str) -> Option<AgentDispatch> {
        let at = self.dispatches.iter().position(|dispatch| dispatch.id == id)?;
        self.unsaved = true;
        let dispatch = self.dispatches.remove(at);
        self.end_jobs(now, &dispatch);
        // Its agents leave, whatever they think of it.
        let jobs = dispatch.state.iter().flat_map(|state| &state.jobs);
        for state in jobs.filter_map(|job| job.state.as_ref()) {
            let _ = self.remove_participant(now, &Identity(state.participant_identity.clone()));
        }
        Some(dispatch)
    }
}
