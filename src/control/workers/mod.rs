//! The pool of agent workers: who is registered, who gets a job, and what becomes of it.
//!
//! Owns workers' sockets by number only. Driven by the node: any number of `handle_*` calls, then `poll_output` until it
//! is empty, then `poll_timeout`. Never touches a room: rooms ask for jobs, and are told what became of them.

mod assignment;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use livekit_protocol::server_message::Message as Say;
use livekit_protocol::worker_message::Message as Ask;
use livekit_protocol::{
    Job, JobState, JobStatus, JobTermination, JobType, ParticipantPermission, RegisterWorkerRequest,
    RegisterWorkerResponse, ServerInfo, ServerMessage, UpdateJobStatus, WorkerMessage, WorkerPong, WorkerStatus,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::assignment::{Asking, Request};
use super::ids::BASE57;
use super::join::Signer;
use crate::types::{RoomHandle, WallClock};

/// LiveKit: how long a worker may take to register …
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// … and to say whether it takes a job.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a worker may be away before its jobs count as lost, and a new process waits for the workers of the one before.
/// LiveKit: workers of its Python package try again after 0, 2, 4 and 6 seconds.
const RETURN_LIMIT: Duration = Duration::from_secs(15);

/// Workers of one node. They hold API keys, so this guards against a deployment gone wild. More are turned away.
const MAX_WORKERS: usize = 4096;
/// Jobs that wait for a worker's answer. They come from joins and the server API; further ones are not launched.
const MAX_ASKING: usize = 16_384;
/// Agents asked for by name that wait for such a worker to register; the oldest is given up for a new one.
const MAX_WAITING: usize = 4096;
/// Jobs under way. Further ones are assigned, but their state is not followed.
const MAX_RUNNING: usize = 65_536;

/// One worker's WebSocket, numbered by the node; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerHandle(pub u64);

#[derive(Clone, Debug)]
pub enum WorkersOutput {
    Send {
        worker: WorkerHandle,
        message: Box<ServerMessage>,
    },
    /// Close its socket; it is forgotten.
    Close {
        worker: WorkerHandle,
    },
    Assigned {
        room: RoomHandle,
        job: Box<Job>,
    },
    Updated {
        room: RoomHandle,
        job: String,
        state: Box<JobState>,
    },
    /// Its worker has not come back. The agent itself may be well, which the room knows.
    Lost {
        room: RoomHandle,
        job: String,
    },
}

pub(super) struct Worker {
    id: String,
    signer: Signer,
    /// None until it has registered, which must be by then.
    registration: Option<Registration>,
    register_by: Instant,
    available: bool,
    /// 0 to 1, as it says itself.
    load: f32,
    jobs: usize,
}

pub(super) struct Registration {
    agent_name: String,
    namespace: String,
    kind: JobType,
    deployment: String,
    permissions: ParticipantPermission,
}

struct Running {
    /// None: its worker has gone; the agent itself may be well.
    worker: Option<WorkerHandle>,
    /// Its worker is to be back by then.
    lost_at: Option<Instant>,
    room: Option<RoomHandle>,
    state: JobState,
}

pub struct Workers {
    server: ServerInfo,
    wall: WallClock,
    random: StdRng,
    /// At most `MAX_WORKERS`.
    workers: BTreeMap<WorkerHandle, Worker>,
    /// By job; at most `MAX_ASKING`.
    asking: BTreeMap<String, Asking>,
    /// By job; at most `MAX_RUNNING`.
    running: BTreeMap<String, Running>,
    /// At most `MAX_WAITING`.
    waiting: VecDeque<Request>,
    out: VecDeque<WorkersOutput>,
}

impl Workers {
    /// `seed` must be unpredictable: identities of agents come from it.
    pub fn new(server: ServerInfo, wall: WallClock, seed: u64) -> Self {
        Self {
            server,
            wall,
            random: StdRng::seed_from_u64(seed),
            workers: BTreeMap::new(),
            asking: BTreeMap::new(),
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    /// `signer` is the key of its token: tokens of its agents are signed with it.
    pub fn handle_connected(&mut self, now: Instant, worker: WorkerHandle, signer: Signer) {
        if self.workers.len() >= MAX_WORKERS {
            return self.out.push_back(WorkersOutput::Close { worker });
        }
        let id = self.id("AW_");
        self.workers.insert(
            worker,
            Worker {
                id,
                signer,
                registration: None,
                register_by: now + REGISTER_LIMIT,
                available: true,
                load: 0.0,
                jobs: 0,
            },
        );
    }

    pub fn handle_disconnected(&mut self, now: Instant, handle: WorkerHandle) {
        if self.workers.remove(&handle).is_none() {
            return;
        }
        for running in self.running.values_mut() {
            if running.worker.take_if(|worker| *worker == handle).is_some() {
                running.lost_at = Some(now + RETURN_LIMIT);
            }
        }
        let asked = self.asking.iter().filter(|(_, asking)| asking.worker == handle);
        let asked: Vec<String> = asked.map(|(job, _)| job.clone()).collect();
        for job in asked {
            self.refused(now, &job);
        }
    }

    pub fn handle_message(&mut self, now: Instant, handle: WorkerHandle, message: WorkerMessage) {
        let Some(worker) = self.workers.get_mut(&handle) else {
            return;
        };
        match message.message {
            Some(Ask::Ping(ping)) => self.send(
                handle,
                Say::Pong(WorkerPong {
                    last_timestamp: ping.timestamp,
                    timestamp: i64::try_from(self.wall.unix(now).as_millis()).unwrap_or(i64::MAX),
                }),
            ),
            Some(Ask::Register(request)) if worker.registration.is_none() => self.register(now, handle, request),
            // LiveKit: anything else before that ends the connection.
            _ if worker.registration.is_none() => self.close(now, handle),
            Some(Ask::Availability(answer)) => self.answered(now, handle, answer),
            Some(Ask::UpdateJob(update)) => self.update_job(now, handle, update),
            Some(Ask::UpdateWorker(update)) => {
                if update.status.is_some() {
                    worker.available = update.status() == WorkerStatus::WsAvailable;
                }
                worker.load = update.load;
                if worker.available && !self.waiting.is_empty() {
                    self.retry_waiting(now);
                }
            }
            Some(Ask::SimulateJob(request)) => self.simulate(now, handle, request),
            Some(Ask::MigrateJob(request)) => {
                // After a reconnect it goes on with what it had.
                for job in request.job_ids {
                    if let Some(running) = self.running.get_mut(&job).filter(|running| running.worker.is_none()) {
                        (running.worker, running.lost_at) = (Some(handle), None);
                        worker.jobs += 1;
                    }
                }
            }
            Some(Ask::Register(_)) | None => {}
        }
    }

    fn register(&mut self, now: Instant, handle: WorkerHandle, request: RegisterWorkerRequest) {
        let Ok(kind) = JobType::try_from(request.r#type) else {
            return self.close(now, handle);
        };
        let Some(worker) = self.workers.get_mut(&handle) else {
            return;
        };
        // LiveKit: what agents may where the worker does not say.
        let permissions = request.allowed_permissions.unwrap_or(ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_update_metadata: true,
            ..Default::default()
        });
        worker.registration = Some(Registration {
            agent_name: request.agent_name,
            namespace: request.namespace.unwrap_or_default(),
            kind,
            deployment: request.deployment,
            permissions,
        });
        let response = RegisterWorkerResponse {
            worker_id: worker.id.clone(),
            server_info: Some(self.server.clone()),
            ..Default::default()
        };
        self.send(handle, Say::Register(response));
        self.retry_waiting(now);
    }

    fn update_job(&mut self, now: Instant, handle: WorkerHandle, update: UpdateJobStatus) {
        let unix = self.unix_nanos(now);
        let Some(running) = self.running.get_mut(&update.job_id) else {
            // The room has ended it before.
            return;
        };
        if running.worker != Some(handle) {
            return;
        }
        let (status, state) = (update.status(), &mut running.state);
        if state.status() == JobStatus::JsPending && status != JobStatus::JsPending {
            state.started_at = unix;
        }
        (state.status, state.error, state.updated_at) = (status as i32, update.error, unix);
        let ended = matches!(status, JobStatus::JsSuccess | JobStatus::JsFailed);
        if ended {
            state.ended_at = unix;
        }
        let (room, state) = (running.room, Box::new(state.clone()));
        if let Some(room) = room {
            let job = update.job_id.clone();
            self.out.push_back(WorkersOutput::Updated { room, job, state });
        }
        if ended {
            self.forget(&update.job_id);
        }
    }

    /// The room has ended the job: its worker is told.
    pub fn handle_end(&mut self, job: &str) {
        self.asking.remove(job);
        if let Some(worker) = self.forget(job) {
            let job_id = job.to_owned();
            self.send(worker, Say::Termination(JobTermination { job_id }));
        }
    }

    /// A job of an earlier process, whose worker may be on its way back.
    pub fn handle_restored(&mut self, now: Instant, room: RoomHandle, job: Job) {
        if self.running.len() < MAX_RUNNING {
            let running = Running {
                worker: None,
                lost_at: Some(now + RETURN_LIMIT),
                room: Some(room),
                state: job.state.unwrap_or_default(),
            };
            self.running.insert(job.id, running);
        }
    }

    /// Nobody needs agents of this dispatch any more.
    pub fn handle_withdraw(&mut self, dispatch: &str) {
        self.waiting.retain(|request| request.job.dispatch_id != dispatch);
        self.asking
            .retain(|_, asking| asking.request.job.dispatch_id != dispatch);
    }

    /// The room is over; its agents leave with it.
    pub fn handle_room_over(&mut self, room: RoomHandle) {
        self.waiting.retain(|request| request.room != Some(room));
        self.asking.retain(|_, asking| asking.request.room != Some(room));
        let jobs = self.running.iter().filter(|(_, running)| running.room == Some(room));
        let jobs: Vec<String> = jobs.map(|(job, _)| job.clone()).collect();
        for job in jobs {
            self.handle_end(&job);
        }
    }

    /// Everybody is disconnected; workers come back to the next process by themselves.
    pub fn handle_shutdown(&mut self) {
        for worker in std::mem::take(&mut self.workers).into_keys() {
            self.out.push_back(WorkersOutput::Close { worker });
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let silent = self.workers.iter();
        let silent = silent.filter(|(_, worker)| worker.registration.is_none() && worker.register_by <= now);
        let silent: Vec<WorkerHandle> = silent.map(|(handle, _)| *handle).collect();
        for worker in silent {
            self.close(now, worker);
        }
        let late = self.asking.iter().filter(|(_, asking)| asking.until <= now);
        let late: Vec<String> = late.map(|(job, _)| job.clone()).collect();
        for job in late {
            self.refused(now, &job);
        }
        for (job, running) in &mut self.running {
            let is_lost = running.lost_at.take_if(|lost_at| *lost_at <= now).is_some();
            if let (true, Some(room)) = (is_lost, running.room) {
                let job = job.clone();
                self.out.push_back(WorkersOutput::Lost { room, job });
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let registering = self.workers.values().filter(|worker| worker.registration.is_none());
        let asking = self.asking.values().map(|asking| asking.until);
        let lost = self.running.values().filter_map(|running| running.lost_at);
        let registering = registering.map(|worker| worker.register_by);
        registering.chain(asking).chain(lost).min()
    }

    pub fn poll_output(&mut self) -> Option<WorkersOutput> {
        self.out.pop_front()
    }

    /// Workers that could be given a job.
    pub fn registered(&self) -> usize {
        self.workers
            .values()
            .filter(|worker| worker.registration.is_some())
            .count()
    }

    fn close(&mut self, now: Instant, worker: WorkerHandle) {
        self.handle_disconnected(now, worker);
        self.out.push_back(WorkersOutput::Close { worker });
    }

    fn send(&mut self, worker: WorkerHandle, message: Say) {
        let message = Box::new(ServerMessage { message: Some(message) });
        self.out.push_back(WorkersOutput::Send { worker, message });
    }

    /// Its worker, if that is still there.
    fn forget(&mut self, job: &str) -> Option<WorkerHandle> {
        let handle = self.running.remove(job)?.worker?;
        let worker = self.workers.get_mut(&handle)?;
        worker.jobs = worker.jobs.saturating_sub(1);
        Some(handle)
    }

    fn unix_nanos(&self, now: Instant) -> i64 {
        i64::try_from(self.wall.unix(now).as_nanos()).unwrap_or(i64::MAX)
    }

    fn id(&mut self, prefix: &str) -> String {
        let mut letter = || char::from(BASE57[self.random.random_range(0..BASE57.len())]);
        let letters: String = (0..12).map(|_| letter()).collect();
        format!("{prefix}{letters}")
    }
}
