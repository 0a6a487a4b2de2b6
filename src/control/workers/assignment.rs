//! The way of one job to a worker: chosen, asked, assigned with a token, or offered to the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::Kind;
use livekit_protocol::server_message::Message as Say;
use livekit_protocol::{
    AvailabilityRequest, AvailabilityResponse, Job, JobAssignment, JobState, JobStatus, JobType, SimulateJobRequest,
};

use super::{
    ANSWER_LIMIT, MAX_ASKING, MAX_RUNNING, MAX_WAITING, Running, Worker, WorkerHandle, Workers, WorkersOutput,
};
use crate::proto::claims::{Claims, VideoGrant, sign};
use crate::types::RoomHandle;

/// LiveKit: the life of an agent's token.
const TOKEN_TTL: Duration = Duration::from_secs(3600);

/// LiveKit: `agents.target_load`. Workers above it get jobs only when there is no other.
const TARGET_LOAD: f32 = 0.7;

/// LiveKit: how clients find out which agent a participant is.
const AGENT_NAME_ATTRIBUTE: &str = "lk.agent_name";

/// What a room asks for. `job` has no id and no namespace yet.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub room: Option<RoomHandle>,
    pub job: Job,
}

/// A worker has been asked whether it takes a job.
#[derive(Debug)]
pub(super) struct Asking {
    pub request: Request,
    pub worker: WorkerHandle,
    pub until: Instant,
    /// Asked before, in vain.
    tried: BTreeSet<WorkerHandle>,
}

impl Workers {
    /// LiveKit: one job for each namespace that has a worker of that name and kind. For an agent that is asked for by
    /// name a worker is waited for; LiveKit gives up.
    pub fn handle_launch(&mut self, now: Instant, room: RoomHandle, job: Job) {
        let request = Request { room: Some(room), job };
        if !self.try_launch(now, &request)
            && !request.job.agent_name.is_empty()
            && request.job.r#type() == JobType::JtRoom
        {
            if self.waiting.len() >= MAX_WAITING {
                self.waiting.pop_front();
            }
            self.waiting.push_back(request);
        }
    }

    /// False: there is no worker for it.
    fn try_launch(&mut self, now: Instant, request: &Request) -> bool {
        let fitting = self
            .workers
            .values()
            .filter(|worker| worker.available && worker.fits(&request.job));
        let namespaces: BTreeSet<String> = fitting
            .filter_map(|worker| worker.registration.as_ref())
            .map(|registration| registration.namespace.clone())
            .collect();
        for namespace in &namespaces {
            let mut request = request.clone();
            request.job.id = self.id("AJ_");
            #[allow(deprecated)] // workers of before agent names still go by it
            request.job.namespace.clone_from(namespace);
            self.ask_next(now, request, BTreeSet::new());
        }
        !namespaces.is_empty()
    }

    pub(super) fn retry_waiting(&mut self, now: Instant) {
        for request in std::mem::take(&mut self.waiting) {
            if !self.try_launch(now, &request) {
                self.waiting.push_back(request);
            }
        }
    }

    /// Asks the least loaded worker that was not asked before; without one the job is not launched.
    fn ask_next(&mut self, now: Instant, request: Request, tried: BTreeSet<WorkerHandle>) {
        #[allow(deprecated)]
        let namespace = &request.job.namespace;
        let candidates = self.workers.iter().filter(|(handle, worker)| {
            let registration = worker.registration.as_ref();
            worker.available
                && worker.fits(&request.job)
                && registration.is_some_and(|registration| registration.namespace == *namespace)
                && !tried.contains(handle)
        });
        let order = |worker: &Worker| {
            (
                worker.load >= TARGET_LOAD,
                worker.jobs,
                (worker.load.clamp(0.0, 1.0) * 100.0) as u8,
            )
        };
        let chosen = candidates
            .min_by_key(|(_, worker)| order(worker))
            .map(|(handle, _)| *handle);
        match chosen {
            Some(worker) => self.ask(now, worker, request, tried),
            None => tracing::info!(agent = request.job.agent_name, "no worker takes the job"),
        }
    }

    fn ask(&mut self, now: Instant, handle: WorkerHandle, mut request: Request, mut tried: BTreeSet<WorkerHandle>) {
        if self.asking.len() >= MAX_ASKING {
            tracing::warn!("too many jobs wait for the answers of their workers: one is not launched");
            return;
        }
        let unix = self.unix_nanos(now);
        let worker_id = self
            .workers
            .get(&handle)
            .map(|worker| worker.id.clone())
            .unwrap_or_default();
        request.job.state = Some(JobState {
            status: JobStatus::JsRunning as i32,
            started_at: unix,
            updated_at: unix,
            worker_id,
            ..Default::default()
        });
        tried.insert(handle);
        let availability = AvailabilityRequest {
            job: Some(request.job.clone()),
            resuming: false,
        };
        let asking = Asking {
            worker: handle,
            until: now + ANSWER_LIMIT,
            tried,
            request,
        };
        self.asking.insert(asking.request.job.id.clone(), asking);
        self.send(handle, Say::Availability(availability));
    }

    /// The worker does not take the job, or does not answer: the next one is asked.
    pub(super) fn refused(&mut self, now: Instant, job: &str) {
        if let Some(asking) = self.asking.remove(job) {
            self.ask_next(now, asking.request, asking.tried);
        }
    }

    pub(super) fn answered(&mut self, now: Instant, handle: WorkerHandle, answer: AvailabilityResponse) {
        if self
            .asking
            .get(&answer.job_id)
            .is_none_or(|asking| asking.worker != handle)
        {
            return;
        }
        if !answer.available && !answer.terminate {
            return self.refused(now, &answer.job_id);
        }
        let Some(Asking { request, .. }) = self.asking.remove(&answer.job_id) else {
            return;
        };
        let Request { room, mut job } = request;
        let mut state = job.state.take().unwrap_or_default();
        if answer.terminate {
            // The worker answers for the agent: there is nothing to do.
            (state.status, state.ended_at) = (JobStatus::JsSuccess as i32, self.unix_nanos(now));
            job.state = Some(state);
            return self.assigned(room, job);
        }
        let identity = match answer.participant_identity.is_empty() {
            true => format!("agent-{}", job.id),
            false => answer.participant_identity.clone(),
        };
        state.participant_identity.clone_from(&identity);
        job.state = Some(state.clone());
        let Some(token) = self.token(now, handle, &job, identity, answer) else {
            return;
        };
        let assignment = JobAssignment {
            job: Some(job.clone()),
            url: None,
            token,
        };
        self.send(handle, Say::Assignment(assignment));
        if self.running.len() < MAX_RUNNING {
            let running = Running {
                worker: Some(handle),
                lost_at: None,
                room,
                state,
            };
            self.running.insert(job.id.clone(), running);
            if let Some(worker) = self.workers.get_mut(&handle) {
                worker.jobs += 1;
            }
        }
        self.assigned(room, job);
    }

    fn assigned(&mut self, room: Option<RoomHandle>, job: Job) {
        if let Some(room) = room {
            let job = Box::new(job);
            self.out.push_back(WorkersOutput::Assigned { room, job });
        }
    }

    fn token(
        &self,
        now: Instant,
        worker: WorkerHandle,
        job: &Job,
        identity: String,
        answer: AvailabilityResponse,
    ) -> Option<String> {
        let worker = self.workers.get(&worker)?;
        let registration = worker.registration.as_ref()?;
        let mut grant = VideoGrant::default();
        grant.set_permission(&registration.permissions);
        let mut claims = Claims {
            identity,
            name: answer.participant_name,
            metadata: answer.participant_metadata,
            attributes: answer.participant_attributes.into_iter().collect(),
            video: Some(VideoGrant {
                room_join: true,
                agent: true,
                room: job.room.as_ref().map(|room| room.name.clone()).unwrap_or_default(),
                ..grant
            }),
            ..Claims::default()
        };
        claims
            .attributes
            .insert(AGENT_NAME_ATTRIBUTE.into(), registration.agent_name.clone());
        claims.set_participant_kind(Kind::Agent);
        let unix = self.wall.unix(now);
        Some(sign(
            &claims,
            &worker.signer.api_key,
            &worker.signer.secret,
            unix,
            TOKEN_TTL,
        ))
    }

    /// A developer asks for a job as if a room had: for this worker only, and no room hears of it.
    pub(super) fn simulate(&mut self, now: Instant, handle: WorkerHandle, request: SimulateJobRequest) {
        let id = self.id("AJ_");
        let Some(registration) = self
            .workers
            .get(&handle)
            .and_then(|worker| worker.registration.as_ref())
        else {
            return;
        };
        let kind = match request.participant {
            Some(_) => JobType::JtPublisher,
            None => JobType::JtRoom,
        };
        #[allow(deprecated)]
        let job = Job {
            id,
            r#type: kind as i32,
            room: request.room,
            participant: request.participant,
            namespace: registration.namespace.clone(),
            agent_name: registration.agent_name.clone(),
            ..Default::default()
        };
        // Asked once: if it says no, nobody else is.
        let others = self.workers.keys().copied().collect();
        self.ask(now, handle, Request { room: None, job }, others);
    }
}

impl Worker {
    fn fits(&self, job: &Job) -> bool {
        self.registration.as_ref().is_some_and(|registration| {
            registration.agent_name == job.agent_name
                && registration.kind == job.r#type()
                && registration.deployment == job.deployment
        })
    }
}
