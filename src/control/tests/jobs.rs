//! Agents that a room asks for, and what it keeps of them.

use livekit_protocol::{
    CreateAgentDispatchRequest, Job, JobRestartPolicy, JobState, JobStatus, JobType, ParticipantInfo, RoomAgentDispatch,
};

use super::world::{World, camera, entry};
use crate::control::RoomSettings;

/// Kind, agent and participant of every job asked for since the last look.
fn asked(world: &mut World) -> Vec<(JobType, String, String)> {
    let jobs = world.jobs.drain(..);
    jobs.map(|job| {
        let identity = job.participant.clone().unwrap_or_default().identity;
        (job.r#type(), job.agent_name, identity)
    })
    .collect()
}

fn of(kind: JobType, agent: &str, participant: &str) -> (JobType, String, String) {
    (kind, agent.into(), participant.into())
}

/// The pool has found a worker for a job of the first dispatch, whose agent is to be `identity`.
fn assign(world: &mut World, id: &str, identity: &str) {
    let dispatch_id = world.room.dispatches("")[0].id.clone();
    world.room.job_assigned(Job {
        id: id.into(),
        dispatch_id,
        state: Some(JobState {
            status: JobStatus::JsRunning as i32,
            participant_identity: identity.into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    world.pump();
}

/// A room that asks for this agent.
fn with_agent(agent: RoomAgentDispatch) -> World {
    World::with(RoomSettings {
        agents: vec![agent],
        ..Default::default()
    })
}

fn state(world: &World, job: usize) -> JobState {
    let dispatch = world.room.dispatches("").remove(0);
    dispatch.state.unwrap().jobs[job].state.clone().unwrap()
}

#[test]
fn a_room_asks_for_its_agents_at_the_start_for_everybody_and_for_publishers() {
    let mut world = with_agent(RoomAgentDispatch {
        agent_name: "greeter".into(),
        metadata: "m".into(),
        ..Default::default()
    });
    assert_eq!(world.jobs[0].metadata, "m");
    assert_eq!(world.jobs[0].room.as_ref().unwrap().name, "room");
    assert_eq!(asked(&mut world), [of(JobType::JtRoom, "greeter", "")]);
    let alice = world.join(entry("alice"));
    assert_eq!(asked(&mut world), [of(JobType::JtParticipant, "greeter", "alice")]);
    world.publish(alice, camera("one"));
    assert_eq!(asked(&mut world), [of(JobType::JtPublisher, "greeter", "alice")]);
    world.publish(alice, camera("two"));
    let mut agent = entry("agent");
    agent.kind = "agent";
    world.join(agent);
    assert_eq!(asked(&mut world), [], "once, and not for agents");

    let request = CreateAgentDispatchRequest {
        agent_name: "late".into(),
        ..Default::default()
    };
    world.room.create_dispatch(world.now, request).unwrap();
    world.pump();
    let late = [
        of(JobType::JtRoom, "late", ""),
        of(JobType::JtParticipant, "late", "alice"),
        of(JobType::JtPublisher, "late", "alice"),
    ];
    assert_eq!(asked(&mut world), late);
    world.join(entry("alice"));
    assert_eq!(asked(&mut world), [], "a new session of somebody who is there");
}

#[test]
fn a_job_ends_when_its_agent_leaves() {
    let mut world = World::new();
    let join_agent = |world: &mut World, identity: &str| {
        let mut agent = entry(identity);
        agent.kind = "agent";
        world.join(agent)
    };
    assign(&mut world, "AJ_1", "one");
    assign(&mut world, "AJ_2", "two");
    let one = join_agent(&mut world, "one");
    join_agent(&mut world, "two");
    world.leave(one);
    assert_eq!(state(&world, 0).status(), JobStatus::JsSuccess);
    world.room.remove_participant(world.now, &"two".into()).unwrap();
    world.pump();
    let two = state(&world, 1);
    assert_eq!(
        (two.status(), two.error.as_str()),
        (JobStatus::JsFailed, "agent worker left the room")
    );
    assert!(two.ended_at > 0);
    assert_eq!(world.ended_jobs, [("AJ_1".into(), false), ("AJ_2".into(), true)]);
}

#[test]
fn a_job_that_fails_is_asked_for_again_unless_it_must_not_be() {
    let mut world = with_agent(RoomAgentDispatch {
        agent_name: "greeter".into(),
        ..Default::default()
    });
    asked(&mut world);
    let failed = JobState {
        status: JobStatus::JsFailed as i32,
        ..Default::default()
    };
    for attempt in 0..5 {
        let id = format!("AJ_{attempt}");
        assign(&mut world, &id, "one");
        world.room.job_updated(&id, failed.clone());
        world.room.job_updated(&id, failed.clone());
        world.pump();
        let again: &[_] = if attempt < 3 {
            &[of(JobType::JtRoom, "greeter", "")]
        } else {
            &[]
        };
        assert_eq!(asked(&mut world), again, "attempt {attempt}");
    }

    let mut world = with_agent(RoomAgentDispatch {
        agent_name: "once".into(),
        restart_policy: JobRestartPolicy::JrpNever as i32,
        ..Default::default()
    });
    asked(&mut world);
    assign(&mut world, "AJ_1", "one");
    world.room.job_updated("AJ_1", failed);
    world.pump();
    assert_eq!(asked(&mut world), []);
}

#[test]
fn an_agent_that_is_lost_is_looked_for_again() {
    let mut world = with_agent(RoomAgentDispatch {
        agent_name: "greeter".into(),
        ..Default::default()
    });
    asked(&mut world);
    let again = [of(JobType::JtRoom, "greeter", "")];
    let lose = |world: &mut World, id: &str| {
        world.room.job_lost(world.now, id);
        world.pump();
        asked(world)
    };

    assign(&mut world, "AJ_1", "one");
    assert_eq!(lose(&mut world, "AJ_1"), again, "its worker went before the agent came");
    assert_eq!(state(&world, 0).status(), JobStatus::JsFailed);
    assert_eq!(lose(&mut world, "AJ_1"), [], "once");

    assign(&mut world, "AJ_2", "two");
    let mut agent = entry("two");
    agent.kind = "agent";
    let two = world.join(agent);
    assert_eq!(lose(&mut world, "AJ_2"), [], "the agent is well without its worker");
    assert_eq!(state(&world, 1).status(), JobStatus::JsRunning);
    world.drop_socket(two);
    assert_eq!(asked(&mut world), [], "it may resume");
    assert_eq!(lose(&mut world, "AJ_2"), again, "both are gone");
    assert_eq!(state(&world, 1).status(), JobStatus::JsFailed);
    assert_eq!(world.states(), []);
}

#[test]
fn after_a_restart_agents_come_back_or_others_are_looked_for() {
    let mut world = World::new();
    world.join(entry("alice"));
    assign(&mut world, "AJ_room", "one");
    let dispatch_id = world.room.dispatches("")[0].id.clone();
    world.room.job_assigned(Job {
        id: "AJ_alice".into(),
        dispatch_id,
        r#type: JobType::JtParticipant as i32,
        participant: Some(ParticipantInfo {
            identity: "alice".into(),
            ..Default::default()
        }),
        state: Some(JobState {
            status: JobStatus::JsRunning as i32,
            participant_identity: "two".into(),
            ..Default::default()
        }),
        ..Default::default()
    });
    asked(&mut world);
    world.restart();
    assert_eq!(world.followed, ["AJ_room", "AJ_alice"]);
    assert_eq!(asked(&mut world), []);
    world.join(entry("alice"));
    assert_eq!(asked(&mut world), [], "she has an agent, who may come too");
    for job in ["AJ_room", "AJ_alice"] {
        world.room.job_lost(world.now, job);
    }
    world.pump();
    let again = [of(JobType::JtRoom, "", ""), of(JobType::JtParticipant, "", "alice")];
    assert_eq!(asked(&mut world), again);
}

#[test]
fn a_deleted_dispatch_takes_its_agents_with_it() {
    let mut world = World::new();
    world.join(entry("alice"));
    assign(&mut world, "AJ_1", "one");
    let mut agent = entry("one");
    agent.kind = "agent";
    let agent = world.join(agent);
    world.room.job_updated(
        "AJ_1",
        JobState {
            status: JobStatus::JsRunning as i32,
            participant_identity: "one".into(),
            error: "said".into(),
            ..Default::default()
        },
    );
    assert_eq!(state(&world, 0).error, "said");
    let dispatch = world.room.dispatches("").remove(0);
    let deleted = world.room.delete_dispatch(world.now, &dispatch.id).unwrap();
    world.pump();
    assert_eq!(deleted.state.unwrap().jobs.len(), 1);
    assert_eq!(world.ended_jobs, [("AJ_1".into(), false)]);
    assert!(world.client(agent).leave_received().is_some());
    // The answer of a worker may come too late.
    world.room.job_assigned(Job {
        id: "AJ_2".into(),
        dispatch_id: dispatch.id,
        ..Default::default()
    });
    world.pump();
    assert_eq!(world.ended_jobs.pop(), Some(("AJ_2".into(), false)));
}
