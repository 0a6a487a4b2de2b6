//! `/agent` as a worker sees it: registration, a job, the room, and what the server API says of it.

use futures_util::{SinkExt, StreamExt};
use patchbay::proto::claims::VideoGrant;
use patchbay::proto::livekit::server_message::Message as Say;
use patchbay::proto::livekit::signal_response::Message as Signal;
use patchbay::proto::livekit::worker_message::Message as Ask;
use patchbay::proto::livekit::{
    AvailabilityResponse, CreateAgentDispatchRequest, Job, JobStatus, JobType, ParticipantInfo, RegisterWorkerRequest,
    RoomAgentDispatch, RoomConfiguration, ServerMessage, UpdateJobStatus, WorkerMessage, WorkerPing, participant_info,
};
use prost::Message as _;
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Refused, Signalling, join_request, until};
use crate::server::Server;

/// A worker's socket.
struct Worker(Signalling);

impl Worker {
    async fn connect(server: &Server) -> Self {
        let token = server.token_with("", |claims| {
            claims.video = Some(VideoGrant {
                agent: true,
                ..VideoGrant::default()
            });
        });
        Self(
            Signalling::open(server.address, "/agent?protocol=1", &token)
                .await
                .unwrap(),
        )
    }

    async fn registered(server: &Server, name: &str, kind: JobType) -> Self {
        let mut worker = Self::connect(server).await;
        let request = RegisterWorkerRequest {
            agent_name: name.into(),
            r#type: kind as i32,
            version: "1".into(),
            ..Default::default()
        };
        worker.say(Ask::Register(request)).await;
        let Say::Register(response) = worker.next().await else {
            panic!("not registered");
        };
        assert!(response.worker_id.starts_with("AW_"));
        let info = response.server_info.unwrap();
        assert_eq!((info.agent_protocol, info.protocol), (1, 17));
        worker
    }

    async fn say(&mut self, message: Ask) {
        let message = WorkerMessage { message: Some(message) };
        self.0.frame(Message::Binary(message.encode_to_vec().into())).await;
    }

    async fn next(&mut self) -> Say {
        match self.0.next_frame().await {
            Some(Message::Binary(bytes)) => ServerMessage::decode(bytes.as_ref()).unwrap().message.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Takes the job that it is asked about; the job, and the token for its room.
    async fn take(&mut self) -> (Job, String) {
        let Say::Availability(request) = self.next().await else {
            panic!("not asked");
        };
        let job = request.job.unwrap();
        let answer = AvailabilityResponse {
            job_id: job.id.clone(),
            available: true,
            participant_identity: format!("agent-{}", job.id),
            participant_name: "Greeter".into(),
            ..Default::default()
        };
        self.say(Ask::Availability(answer)).await;
        let Say::Assignment(assignment) = self.next().await else {
            panic!("not assigned");
        };
        assert_eq!(assignment.job.unwrap().id, job.id);
        (job, assignment.token)
    }
}

async fn join(server: &Server, token: &str) -> (Signalling, ParticipantInfo) {
    let target = format!("/rtc/v1?join_request={}", join_request(|_| {}));
    let mut client = Signalling::open(server.address, &target, token).await.unwrap();
    match client.next().await {
        Signal::Join(join) => (client, join.participant.unwrap()),
        other => panic!("{other:?}"),
    }
}

/// The status of the only job of the room's last dispatch.
async fn status(server: &Server) -> Option<JobStatus> {
    let dispatches = server.node.dispatches("room", String::new()).await?;
    let jobs = dispatches.last()?.state.as_ref()?.jobs.clone();
    Some(jobs.first()?.state.as_ref()?.status())
}

#[tokio::test]
async fn only_agents_get_in() {
    let server = Server::start().await;
    let refused = Signalling::open(server.address, "/agent", &server.token("alice"))
        .await
        .unwrap_err();
    assert_eq!(refused, Refused(401, "permissions denied".into()));
}

#[tokio::test]
async fn a_token_brings_an_agent_into_its_room() {
    let server = Server::start().await;
    let mut other = Worker::registered(&server, "", JobType::JtRoom).await;
    let mut worker = Worker::registered(&server, "greeter", JobType::JtRoom).await;
    let mut watcher = Worker::registered(&server, "greeter", JobType::JtParticipant).await;
    let token = server.token_with("alice", |claims| {
        claims.room_config = Some(RoomConfiguration {
            agents: vec![RoomAgentDispatch {
                agent_name: "greeter".into(),
                metadata: "as agreed".into(),
                ..Default::default()
            }],
            ..Default::default()
        });
    });
    let (_alice, _) = join(&server, &token).await;
    let (job, token) = worker.take().await;
    assert_eq!((job.metadata.as_str(), job.r#type()), ("as agreed", JobType::JtRoom));
    let (agent, info) = join(&server, &token).await;
    assert_eq!(
        (info.kind(), info.name.as_str()),
        (participant_info::Kind::Agent, "Greeter")
    );
    assert_eq!(info.attributes["lk.agent_name"], "greeter");
    assert_eq!(
        server.node.list_rooms(&[]).await[0].num_participants,
        1,
        "agents do not count"
    );
    let (job, _) = watcher.take().await;
    assert_eq!(job.participant.unwrap().identity, "alice");

    // It is over when its worker says so.
    until(async || (status(&server).await == Some(JobStatus::JsRunning)).then_some(())).await;
    let jobs = server.node.dispatches("room", String::new()).await.unwrap()[0]
        .state
        .clone()
        .unwrap()
        .jobs;
    let done = UpdateJobStatus {
        job_id: jobs[0].id.clone(),
        status: JobStatus::JsSuccess as i32,
        ..Default::default()
    };
    worker.say(Ask::UpdateJob(done)).await;
    until(async || (status(&server).await == Some(JobStatus::JsSuccess)).then_some(())).await;
    drop(agent);
    other.say(Ask::Ping(WorkerPing { timestamp: 7 })).await;
    assert!(
        matches!(other.next().await, Say::Pong(pong) if pong.last_timestamp == 7),
        "and nothing before"
    );
}

#[tokio::test]
async fn a_dispatch_waits_for_its_worker_and_ends_its_agent() {
    let server = Server::start().await;
    let (_alice, _) = join(&server, &server.token("alice")).await;
    let request = CreateAgentDispatchRequest {
        agent_name: "late".into(),
        room: "room".into(),
        ..Default::default()
    };
    let dispatch = server.node.create_dispatch(request).await.unwrap();
    assert_eq!(status(&server).await, None);
    let mut worker = Worker::registered(&server, "late", JobType::JtRoom).await;
    let (job, token) = worker.take().await;
    assert_eq!(job.dispatch_id, dispatch.id);
    let (mut agent, _) = join(&server, &token).await;
    until(async || (status(&server).await == Some(JobStatus::JsRunning)).then_some(())).await;
    server
        .node
        .delete_dispatch("room", dispatch.id)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(worker.next().await, Say::Termination(end) if end.job_id == job.id));
    let left = |message| matches!(message, Signal::Leave(_)).then_some(());
    agent.until(left).await;
}

#[tokio::test]
async fn a_worker_may_speak_json_and_is_told_when_the_server_stops() {
    let server = Server::start().await;
    let mut worker = Worker::connect(&server).await;
    let register = r#"{"register":{"type":"JT_ROOM","agentName":"x","someday":1}}"#;
    worker.0.frame(Message::Text(register.into())).await;
    let Some(Message::Text(answer)) = worker.0.next_frame().await else {
        panic!("not JSON");
    };
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(answer["register"]["workerId"].as_str().unwrap().starts_with("AW_"));
    server.node.shut_down().await;
    assert_eq!(worker.0.closed().await, (1000, String::new()));
    let mut rude = Worker::connect(&server).await;
    rude.0.socket.send(Message::Binary(vec![0xff; 3].into())).await.unwrap();
    assert_eq!(rude.0.closed().await, (1000, String::new()));
    assert!(rude.0.socket.next().await.is_none());
}

#[tokio::test]
async fn the_job_of_an_agent_that_is_lost_goes_to_another_worker() {
    let server = Server::start().await;
    let mut first = Worker::registered(&server, "greeter", JobType::JtRoom).await;
    let (_alice, _) = join(&server, &server.token("alice")).await;
    let request = CreateAgentDispatchRequest {
        agent_name: "greeter".into(),
        room: "room".into(),
        ..Default::default()
    };
    let dispatch = server.node.create_dispatch(request).await.unwrap();
    let (lost, token) = first.take().await;
    let (agent, _) = join(&server, &token).await;
    until(async || (status(&server).await == Some(JobStatus::JsRunning)).then_some(())).await;
    let mut second = Worker::registered(&server, "greeter", JobType::JtRoom).await;
    // Its process ends: the worker's socket and the agent's at once.
    drop(first);
    drop(agent);
    let (job, token) = second.take().await;
    assert_eq!(job.dispatch_id, dispatch.id);
    assert_ne!(job.id, lost.id);
    join(&server, &token).await;
    let dispatches = server.node.dispatches("room", dispatch.id).await.unwrap();
    let jobs = dispatches[0].state.clone().unwrap().jobs;
    let states: Vec<JobStatus> = jobs.iter().map(|job| job.state.clone().unwrap().status()).collect();
    assert_eq!(states, [JobStatus::JsFailed, JobStatus::JsRunning]);
}
