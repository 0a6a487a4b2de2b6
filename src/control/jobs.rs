//! Jobs of a room's dispatches: when one is asked for, what became of it, and what ends it.
//!
//! Finding a worker is the pool's affair (`workers`); a room says what it needs and keeps the answer where `ListDispatch`
//! shows it.

use std::time::Instant;

use livekit_protocol::{
    AgentDispatch, DisconnectReason, Job, JobRestartPolicy, JobState, JobStatus, JobType, ParticipantInfo,
};

use crate::types::{Identity, ParticipantHandle};

use super::leave::Farewell;
use super::output::Output;
use super::participant::Participant;
use super::room::Room;

/// Jobs kept of one dispatch, ended ones among them: one for each participant of a large room. The oldest that has ended
/// is forgotten first; while none has, further ones run without being listed.
const MAX_JOBS: usize = 1024;

/// How often a job that fails is asked for again: an agent that fails so often fails always.
const MAX_RESTARTS: usize = 3;

impl Room {
    /// A dispatch is new: an agent for the room, and one for each of those who are in it.
    pub(super) fn launch_dispatch(&mut self, dispatch: &AgentDispatch) {
        self.launch(dispatch, JobType::JtRoom, None);
        let targets: Vec<(ParticipantInfo, bool)> = self
            .participants
            .values()
            .filter(|participant| !participant.is_dependent())
            .map(|participant| (participant.info(), participant.is_publisher))
            .collect();
        for (info, is_publisher) in targets {
            self.launch(dispatch, JobType::JtParticipant, Some(info.clone()));
            if is_publisher {
                self.launch(dispatch, JobType::JtPublisher, Some(info));
            }
        }
    }

    /// Of a restored room: an agent that was never there is looked for again. One that was may come back by itself, and is
    /// looked for when neither it nor its worker does (`job_lost`).
    pub(super) fn restore_jobs(&mut self) {
        let jobs = self.dispatches.iter().filter_map(|dispatch| dispatch.state.as_ref());
        let jobs = jobs.flat_map(|state| &state.jobs).filter(|job| is_running(job));
        for job in jobs {
            self.restored_jobs.insert(job.id.clone());
            self.out.push(Output::FollowJob(Box::new(job.clone())));
        }
        let without_jobs =
            |dispatch: &&AgentDispatch| dispatch.state.as_ref().is_none_or(|state| state.jobs.is_empty());
        let missing: Vec<AgentDispatch> = self.dispatches.iter().filter(without_jobs).cloned().collect();
        for dispatch in missing {
            self.launch(&dispatch, JobType::JtRoom, None);
        }
    }

    /// Somebody has joined (`JtParticipant`) or published for the first time (`JtPublisher`). LiveKit: agents are not
    /// sent after agents.
    pub(super) fn launch_for(&mut self, handle: ParticipantHandle, kind: JobType) {
        let counts = |participant: &&Participant| !participant.is_dependent();
        let Some(info) = self.participants.get(&handle).filter(counts).map(Participant::info) else {
            return;
        };
        for dispatch in self.dispatches.clone() {
            // Who comes back after a restart has an agent that may come back too.
            let jobs = dispatch.state.iter().flat_map(|state| &state.jobs);
            let is_its = |job: &&Job| job.r#type() == kind && identity(job) == Some(info.identity.as_str());
            let mut restored = jobs.filter(|job| is_running(job)).filter(is_its);
            if !restored.any(|job| self.restored_jobs.remove(&job.id)) {
                self.launch(&dispatch, kind, Some(info.clone()));
            }
        }
    }

    fn launch(&mut self, dispatch: &AgentDispatch, kind: JobType, participant: Option<ParticipantInfo>) {
        let job = Job {
            dispatch_id: dispatch.id.clone(),
            r#type: kind as i32,
            room: Some(self.info()),
            participant,
            metadata: dispatch.metadata.clone(),
            agent_name: dispatch.agent_name.clone(),
            deployment: dispatch.deployment.clone(),
            attributes: dispatch.attributes.clone(),
            ..Default::default()
        };
        self.out.push(Output::LaunchJob(Box::new(job)));
    }

    /// A worker has taken the job.
    pub fn job_assigned(&mut self, job: Job) {
        let Some(dispatch) = self
            .dispatches
            .iter_mut()
            .find(|dispatch| dispatch.id == job.dispatch_id)
        else {
            // It was deleted meanwhile.
            self.out.push(Output::EndJob {
                job: job.id,
                failed: false,
            });
            return;
        };
        let jobs = &mut dispatch.state.get_or_insert_default().jobs;
        if jobs.len() >= MAX_JOBS {
            match jobs.iter().position(|job| !is_running(job)) {
                Some(ended) => drop(jobs.remove(ended)),
                None => return,
            }
        }
        jobs.push(job);
        self.unsaved = true;
    }

    /// What its worker says of it.
    pub fn job_updated(&mut self, id: &str, state: JobState) {
        let failed = state.status() == JobStatus::JsFailed;
        let Some(known) = self.job_state(id) else { return };
        let had_ended = !matches!(known.status(), JobStatus::JsPending | JobStatus::JsRunning);
        *known = state;
        self.unsaved = true;
        if failed && !had_ended {
            self.restart(id);
        }
    }

    /// Its worker has gone and not come back. An agent whose signalling socket is gone too was part of it; one that is well
    /// goes on without.
    pub fn job_lost(&mut self, now: Instant, id: &str) {
        self.restored_jobs.remove(id);
        let Some(identity) = self.job_state(id).map(|state| state.participant_identity.clone()) else {
            return;
        };
        let agent = self.identities.get(&Identity(identity));
        match agent.and_then(|handle| self.participants.get(handle)) {
            Some(agent) if agent.connection.is_some() => {}
            // Which ends the job, and looks for another worker.
            Some(agent) => {
                let handle = agent.handle;
                self.close_participant(now, handle, DisconnectReason::ConnectionTimeout, Farewell::Silent);
            }
            None => {
                if self.jobs().any(|job| job.id == id && is_running(job)) {
                    self.end_job(now, id.to_owned(), true);
                    self.restart(id);
                }
            }
        }
    }

    /// LiveKit: `restart_policy`. One that its worker gave up is looked for again, unless the dispatch says never, or it
    /// goes on failing.
    fn restart(&mut self, id: &str) {
        let has_it = |dispatch: &&AgentDispatch| {
            let mut jobs = dispatch.state.iter().flat_map(|state| &state.jobs);
            jobs.any(|job| job.id == id)
        };
        let Some(dispatch) = self.dispatches.iter().find(has_it).cloned() else {
            return;
        };
        let jobs = dispatch
            .state
            .as_ref()
            .map(|state| state.jobs.as_slice())
            .unwrap_or_default();
        let Some(job) = jobs.iter().find(|job| job.id == id) else {
            return;
        };
        let is_same = |other: &&Job| other.r#type == job.r#type && identity(other) == identity(job);
        let failures = jobs.iter().filter(is_same).filter(|job| has_failed(job)).count();
        // Whom it was for may have left meanwhile.
        let participant = job
            .participant
            .as_ref()
            .map(|its| self.participant(&its.identity.as_str().into()));
        let is_gone = participant.as_ref().is_some_and(Option::is_none);
        if dispatch.restart_policy() == JobRestartPolicy::JrpNever || failures > MAX_RESTARTS || is_gone {
            return;
        }
        tracing::info!(job = id, failures, "an agent's job has failed and is asked for again");
        self.launch(&dispatch, job.r#type(), participant.flatten());
    }

    /// The agent has left. LiveKit: that ends its job, and the worker is told. One that was lost, and not sent away, is
    /// looked for again.
    pub(super) fn end_job_of(&mut self, now: Instant, identity: &str, reason: DisconnectReason) {
        let failed = !matches!(
            reason,
            DisconnectReason::ClientInitiated | DisconnectReason::RoomClosed | DisconnectReason::RoomDeleted
        );
        let is_lost = matches!(
            reason,
            DisconnectReason::ConnectionTimeout
                | DisconnectReason::SignalClose
                | DisconnectReason::JoinFailure
                | DisconnectReason::MediaFailure
                | DisconnectReason::AgentError
        );
        let is_its = |job: &&mut Job| {
            job.state
                .as_ref()
                .is_some_and(|state| state.participant_identity == identity)
        };
        let ended: Vec<String> = self
            .jobs()
            .filter(|job| is_running(job))
            .filter(is_its)
            .map(|job| job.id.clone())
            .collect();
        for job in ended {
            self.end_job(now, job.clone(), failed);
            if is_lost {
                self.restart(&job);
            }
        }
    }

    /// The dispatch is no more: its agents go.
    pub(super) fn end_jobs(&mut self, now: Instant, dispatch: &AgentDispatch) {
        let jobs = dispatch.state.iter().flat_map(|state| &state.jobs);
        for job in jobs.filter(|job| is_running(job)) {
            self.end_job(now, job.id.clone(), false);
        }
        self.out.push(Output::WithdrawJobs {
            dispatch: dispatch.id.clone(),
        });
    }

    fn end_job(&mut self, now: Instant, id: String, failed: bool) {
        let now = i64::try_from(self.wall.unix(now).as_nanos()).unwrap_or(i64::MAX);
        if let Some(state) = self.job_state(&id) {
            (state.updated_at, state.ended_at) = (now, now);
            let (status, error) = match failed {
                true => (JobStatus::JsFailed, "agent worker left the room"),
                false => (JobStatus::JsSuccess, ""),
            };
            state.status = status as i32;
            state.error = error.into();
            self.unsaved = true;
        }
        self.out.push(Output::EndJob { job: id, failed });
    }

    fn job_state(&mut self, id: &str) -> Option<&mut JobState> {
        let job = self.jobs().find(|job| job.id == id)?;
        Some(job.state.get_or_insert_default())
    }

    fn jobs(&mut self) -> impl Iterator<Item = &mut Job> {
        let states = self
            .dispatches
            .iter_mut()
            .filter_map(|dispatch| dispatch.state.as_mut());
        states.flat_map(|state| state.jobs.iter_mut())
    }
}

/// Whom the job is for.
fn identity(job: &Job) -> Option<&str> {
    job.participant.as_ref().map(|its| its.identity.as_str())
}

fn has_failed(job: &Job) -> bool {
    job.state
        .as_ref()
        .is_some_and(|state| state.status() == JobStatus::JsFailed)
}

fn is_running(job: &Job) -> bool {
    let status = job.state.as_ref().map(JobState::status).unwrap_or_default();
    matches!(status, JobStatus::JsPending | JobStatus::JsRunning)
}
