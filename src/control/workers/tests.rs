//! Workers that register, are asked, and come and go.

use super::*;
use crate::proto::claims::{ApiKeys, verify};
use livekit_protocol::{
    AvailabilityResponse, MigrateJobRequest, Room, SimulateJobRequest, UpdateWorkerStatus, WorkerPing,
};

const SECRET: &str = "secret";

struct Pool {
    workers: Workers,
    now: Instant,
    wall: WallClock,
    said: Vec<(WorkerHandle, Say)>,
    closed: Vec<WorkerHandle>,
    assigned: Vec<Job>,
    updated: Vec<(String, JobState)>,
    lost: Vec<String>,
}

fn pool() -> Pool {
    let now = Instant::now();
    let wall = WallClock::new(now, Duration::from_secs(1_700_000_000));
    Pool {
        workers: Workers::new(ServerInfo::default(), wall, 1),
        now,
        wall,
        said: Vec::new(),
        closed: Vec::new(),
        assigned: Vec::new(),
        updated: Vec::new(),
        lost: Vec::new(),
    }
}

impl Pool {
    fn pump(&mut self) {
        while let Some(output) = self.workers.poll_output() {
            match output {
                WorkersOutput::Send { worker, message } => self.said.push((worker, message.message.unwrap())),
                WorkersOutput::Close { worker } => self.closed.push(worker),
                WorkersOutput::Assigned { job, .. } => self.assigned.push(*job),
                WorkersOutput::Updated { job, state, .. } => self.updated.push((job, *state)),
                WorkersOutput::Lost { job, .. } => self.lost.push(job),
            }
        }
    }

    fn say(&mut self, worker: WorkerHandle, message: Ask) {
        let message = WorkerMessage { message: Some(message) };
        self.workers.handle_message(self.now, worker, message);
        self.pump();
    }

    fn connect(&mut self, number: u64) -> WorkerHandle {
        let signer = Signer {
            api_key: "key".into(),
            secret: SECRET.into(),
        };
        self.workers.handle_connected(self.now, WorkerHandle(number), signer);
        WorkerHandle(number)
    }

    fn register(&mut self, number: u64, name: &str, kind: JobType) -> WorkerHandle {
        let worker = self.connect(number);
        let request = RegisterWorkerRequest {
            agent_name: name.into(),
            r#type: kind as i32,
            ..Default::default()
        };
        self.say(worker, Ask::Register(request));
        assert!(matches!(self.said.pop(), Some((to, Say::Register(_))) if to == worker));
        worker
    }

    fn launch(&mut self, name: &str, kind: JobType) {
        let job = Job {
            agent_name: name.into(),
            r#type: kind as i32,
            dispatch_id: "AD_1".into(),
            room: Some(Room {
                name: "room".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.workers.handle_launch(self.now, RoomHandle(1), job);
        self.pump();
    }

    /// Who was asked last, and about which job.
    fn asked(&mut self) -> Option<(WorkerHandle, String)> {
        match self.said.pop() {
            Some((worker, Say::Availability(request))) => Some((worker, request.job.unwrap().id)),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, worker: WorkerHandle, job: &str, available: bool) {
        let answer = AvailabilityResponse {
            job_id: job.into(),
            available,
            participant_identity: "agent".into(),
            ..Default::default()
        };
        self.say(worker, Ask::Availability(answer));
    }

    /// Gives `worker` a job of its name.
    fn assign(&mut self, worker: WorkerHandle, name: &str) -> String {
        self.launch(name, JobType::JtRoom);
        let (asked, job) = self.asked().unwrap();
        assert_eq!(asked, worker);
        self.answer(worker, &job, true);
        self.said.clear();
        job
    }

    fn status(&mut self, worker: WorkerHandle, status: WorkerStatus, load: f32) {
        let update = UpdateWorkerStatus {
            status: Some(status as i32),
            load,
            ..Default::default()
        };
        self.say(worker, Ask::UpdateWorker(update));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        assert!(self.workers.poll_timeout().is_some_and(|due| due <= self.now));
        self.workers.handle_timeout(self.now);
        self.pump();
    }
}

#[test]
fn a_job_goes_to_a_worker_of_its_name_and_kind_with_a_token_for_its_room() {
    let mut pool = pool();
    pool.register(1, "other", JobType::JtRoom);
    pool.register(2, "greeter", JobType::JtPublisher);
    let worker = pool.register(3, "greeter", JobType::JtRoom);
    pool.launch("greeter", JobType::JtRoom);
    let (asked, job) = pool.asked().unwrap();
    assert_eq!((asked, pool.asked()), (worker, None));
    pool.answer(worker, &job, true);
    let Some((to, Say::Assignment(assignment))) = pool.said.pop() else {
        panic!("no assignment");
    };
    assert_eq!(to, worker);
    let keys: ApiKeys = [("key", SECRET)].into_iter().collect();
    let claims = verify(&assignment.token, &keys, pool.wall.unix(pool.now)).unwrap();
    let grant = claims.video.clone().unwrap();
    assert!(claims.is_agent() && grant.room_join && grant.agent && grant.can_publish());
    assert_eq!(
        (grant.room.as_str(), claims.identity.as_str(), claims.kind.as_str()),
        ("room", "agent", "agent")
    );
    assert_eq!(claims.attributes["lk.agent_name"], "greeter");
    let [assigned] = &pool.assigned[..] else { panic!() };
    let state = assigned.state.clone().unwrap();
    assert_eq!(
        (assigned.id.as_str(), state.status()),
        (job.as_str(), JobStatus::JsRunning)
    );
    assert_eq!(state.participant_identity, "agent");
    assert!(state.worker_id.starts_with("AW_"));
}

#[test]
fn one_that_refuses_or_keeps_silent_or_goes_away_is_followed_by_the_next() {
    let mut pool = pool();
    let workers: Vec<WorkerHandle> = (1..=4)
        .map(|number| pool.register(number, "", JobType::JtRoom))
        .collect();
    pool.launch("", JobType::JtRoom);
    let (first, job) = pool.asked().unwrap();
    assert_eq!(first, workers[0]);
    pool.answer(first, &job, false);
    assert_eq!(pool.asked(), Some((workers[1], job.clone())));
    pool.pass(ANSWER_LIMIT);
    assert_eq!(pool.asked(), Some((workers[2], job.clone())));
    pool.answer(workers[1], &job, true);
    assert!(pool.said.is_empty(), "it is too late");
    pool.workers.handle_disconnected(pool.now, workers[2]);
    pool.pump();
    assert_eq!(pool.asked(), Some((workers[3], job.clone())));
    pool.answer(workers[3], &job, false);
    assert!(pool.said.is_empty() && pool.assigned.is_empty());
}

#[test]
fn the_least_busy_worker_is_asked_and_a_full_one_is_not() {
    let mut pool = pool();
    let (one, two) = (
        pool.register(1, "", JobType::JtRoom),
        pool.register(2, "", JobType::JtRoom),
    );
    pool.assign(one, "");
    pool.assign(two, "");
    pool.status(one, WorkerStatus::WsAvailable, 0.5);
    pool.assign(two, "");
    pool.status(two, WorkerStatus::WsAvailable, 0.9);
    let job = pool.assign(one, "");
    pool.status(one, WorkerStatus::WsFull, 0.1);
    pool.assign(two, "");
    pool.status(two, WorkerStatus::WsFull, 1.0);
    pool.launch("", JobType::JtRoom);
    assert_eq!(pool.asked(), None);
    let ended = UpdateJobStatus {
        job_id: job.clone(),
        status: JobStatus::JsSuccess as i32,
        ..Default::default()
    };
    pool.say(two, Ask::UpdateJob(ended.clone()));
    assert!(pool.updated.is_empty(), "it is not its job");
    pool.say(one, Ask::UpdateJob(ended));
    let [(updated, state)] = &pool.updated[..] else {
        panic!()
    };
    assert_eq!((updated, state.status()), (&job, JobStatus::JsSuccess));
    assert!(state.ended_at > 0);
}

#[test]
fn an_agent_that_is_asked_for_by_name_is_waited_for() {
    let mut pool = pool();
    pool.launch("greeter", JobType::JtRoom);
    pool.launch("", JobType::JtRoom);
    pool.launch("greeter", JobType::JtParticipant);
    pool.register_any();
    let worker = pool.connect(1);
    let request = RegisterWorkerRequest {
        agent_name: "greeter".into(),
        ..Default::default()
    };
    pool.say(worker, Ask::Register(request));
    assert!(matches!(pool.asked(), Some((asked, _)) if asked == worker));
    assert!(matches!(pool.said[..], [(_, Say::Register(_))]), "once");
    pool.said.clear();
    pool.status(worker, WorkerStatus::WsFull, 1.0);
    pool.launch("greeter", JobType::JtRoom);
    assert_eq!(pool.asked(), None);
    pool.status(worker, WorkerStatus::WsAvailable, 0.2);
    assert!(pool.asked().is_some());
    // Not for a dispatch that is gone.
    pool.status(worker, WorkerStatus::WsFull, 1.0);
    pool.launch("greeter", JobType::JtRoom);
    pool.workers.handle_withdraw("AD_1");
    pool.status(worker, WorkerStatus::WsAvailable, 0.2);
    assert_eq!(pool.asked(), None);
}

impl Pool {
    /// Somebody without a name, who gets nothing that was meant for others or is over.
    fn register_any(&mut self) {
        self.register(100, "", JobType::JtRoom);
        self.register(101, "", JobType::JtParticipant);
        assert_eq!(self.asked(), None);
    }
}

#[test]
fn who_does_not_register_is_sent_away() {
    let mut pool = pool();
    let silent = pool.connect(1);
    let rude = pool.connect(2);
    let unknown = pool.connect(3);
    pool.say(rude, Ask::UpdateWorker(UpdateWorkerStatus::default()));
    let request = RegisterWorkerRequest {
        r#type: 77,
        ..Default::default()
    };
    pool.say(unknown, Ask::Register(request));
    assert_eq!(pool.closed, [rude, unknown]);
    pool.say(silent, Ask::Ping(WorkerPing { timestamp: 5 }));
    assert!(matches!(pool.said.pop(), Some((_, Say::Pong(pong))) if pong.last_timestamp == 5));
    pool.pass(REGISTER_LIMIT);
    assert_eq!(pool.closed, [rude, unknown, silent]);
    assert_eq!(pool.workers.poll_timeout(), None);
}

#[test]
fn jobs_end_with_their_rooms_and_survive_their_workers_socket() {
    let mut pool = pool();
    let worker = pool.register(1, "", JobType::JtRoom);
    let (first, second) = (pool.assign(worker, ""), pool.assign(worker, ""));
    pool.workers.handle_end(&first);
    pool.pump();
    assert!(matches!(pool.said.pop(), Some((_, Say::Termination(end))) if end.job_id == first));
    pool.workers.handle_disconnected(pool.now, worker);
    let again = pool.register(2, "", JobType::JtRoom);
    let migrate = MigrateJobRequest {
        job_ids: vec![first, second.clone()],
    };
    pool.say(again, Ask::MigrateJob(migrate));
    pool.workers.handle_room_over(RoomHandle(1));
    pool.pump();
    assert!(matches!(pool.said.pop(), Some((to, Say::Termination(end))) if to == again && end.job_id == second));
    assert!(pool.said.is_empty());
}

#[test]
fn jobs_of_a_worker_that_does_not_come_back_are_lost_once() {
    let mut pool = pool();
    let worker = pool.register(1, "", JobType::JtRoom);
    let (first, second) = (pool.assign(worker, ""), pool.assign(worker, ""));
    pool.workers.handle_disconnected(pool.now, worker);
    let restored = Job {
        id: "AJ_before".into(),
        ..Default::default()
    };
    pool.workers.handle_restored(pool.now, RoomHandle(1), restored);
    let again = pool.register(2, "", JobType::JtRoom);
    let job_ids = vec![second, "AJ_unknown".into()];
    pool.say(again, Ask::MigrateJob(MigrateJobRequest { job_ids }));
    pool.pass(RETURN_LIMIT);
    pool.lost.sort();
    let mut expected = ["AJ_before".to_owned(), first.clone()];
    expected.sort();
    assert_eq!(pool.lost, expected);
    assert_eq!(pool.workers.poll_timeout(), None, "once");
    // Where the agent itself was well its worker may still come.
    let job_ids = vec![first.clone()];
    pool.say(again, Ask::MigrateJob(MigrateJobRequest { job_ids }));
    pool.workers.handle_end(&first);
    pool.pump();
    assert!(matches!(pool.said.pop(), Some((to, Say::Termination(end))) if to == again && end.job_id == first));
}

#[test]
fn a_simulated_job_is_for_its_worker_and_no_room_hears_of_it() {
    let mut pool = pool();
    let worker = pool.register(1, "a", JobType::JtRoom);
    pool.register(2, "a", JobType::JtRoom);
    pool.say(worker, Ask::SimulateJob(SimulateJobRequest::default()));
    let (asked, job) = pool.asked().unwrap();
    assert_eq!(asked, worker);
    pool.answer(worker, &job, true);
    assert!(matches!(pool.said.pop(), Some((_, Say::Assignment(_)))) && pool.assigned.is_empty());
}
