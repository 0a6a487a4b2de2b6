//! What the server has acknowledged is there after its process was killed, whenever that happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use patchbay::proto::livekit::leave_request::Action;
use patchbay::proto::livekit::signal_response::Message as Say;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::client::{LIMIT, Signalling};
use crate::process::Process;

#[tokio::test]
async fn rooms_live_on_with_what_was_said_of_them() {
    let mut server = Process::start(json!({})).await;
    let created = server
        .acknowledged(
            "RoomService/CreateRoom",
            "",
            json!({"name": "kept", "metadata": "first", "max_participants": 7, "empty_timeout": 500, "min_playout_delay": 100}),
        )
        .await
        .unwrap();
    let create = async |server: &Process, name: &str| {
        let created = server
            .acknowledged("RoomService/CreateRoom", "", json!({"name": name}))
            .await;
        created.unwrap()["sid"].clone()
    };
    let gone = create(&server, "gone").await;
    let update = json!({"room": "kept", "metadata": "second"});
    server
        .acknowledged("RoomService/UpdateRoomMetadata", "kept", update)
        .await
        .unwrap();
    let dispatch = json!({"room": "kept", "agent_name": "greeter", "metadata": "m"});
    let dispatch = server
        .acknowledged("AgentDispatchService/CreateDispatch", "kept", dispatch)
        .await
        .unwrap();
    server
        .acknowledged("RoomService/DeleteRoom", "", json!({"room": "gone"}))
        .await
        .unwrap();
    let mut alice = server.join("alice", "call").await.unwrap();
    let sid = joined(&mut alice).await;
    // Nobody waits for a room's being written down who only joins it.
    let update = json!({"room": "call", "metadata": "m"});
    server
        .acknowledged("RoomService/UpdateRoomMetadata", "call", update)
        .await
        .unwrap();

    server.kill().await;
    server.run().await;
    let rooms = server
        .acknowledged("RoomService/ListRooms", "", json!({}))
        .await
        .unwrap();
    let rooms = rooms["rooms"].as_array().unwrap().clone();
    let kept = rooms.iter().find(|room| room["name"] == "kept").unwrap();
    for field in [
        "sid",
        "max_participants",
        "empty_timeout",
        "creation_time_ms",
        "turn_password",
    ] {
        assert_eq!(kept[field], created[field], "{field}");
    }
    assert_eq!(kept["metadata"], "second");
    assert!(rooms.iter().all(|room| room["name"] != "gone"));
    let dispatches = server
        .acknowledged("AgentDispatchService/ListDispatch", "kept", json!({"room": "kept"}))
        .await
        .unwrap();
    let dispatches = dispatches["agent_dispatches"].as_array().unwrap().clone();
    assert_eq!(dispatches.len(), 2, "the implicit one and the other");
    assert!(dispatches.contains(&dispatch));
    assert_ne!(create(&server, "gone").await, gone);
    // Who was in a call comes back into the same room.
    let mut alice = server.join("alice", "call").await.unwrap();
    assert_eq!(joined(&mut alice).await, sid);

    // A server that is told to stop keeps them too.
    server.signal("TERM");
    server.signal("INT");
    let leave = alice
        .until(|message| match message {
            Say::Leave(leave) => Some(leave),
            _ => None,
        })
        .await;
    assert_eq!(leave.action(), Action::Reconnect);
    assert!(server.ended().await.success());
    server.run().await;
    let mut alice = server.join("alice", "call").await.unwrap();
    assert_eq!(joined(&mut alice).await, sid);
}

/// The sid of the room it is let into.
async fn joined(client: &mut Signalling) -> String {
    match client.next().await {
        Say::Join(join) => join.room.unwrap().sid,
        other => panic!("not a JoinResponse: {other:?}"),
    }
}

/// Events by room and name, each with the ids it came with.
type Events = BTreeMap<(String, String), BTreeSet<String>>;

async fn receiver() -> (String, watch::Receiver<Events>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (seen, events) = watch::channel(Events::default());
    let app = Router::new().fallback(async move |body: String| {
        let event: Value = serde_json::from_str(&body).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let key = (text(&event["room"]["sid"]), text(&event["event"]));
        let id = text(&event["id"]);
        seen.send_modify(|events| _ = events.entry(key).or_default().insert(id));
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, events)
}

/// What may be true of one room.
#[derive(Clone, Debug, Default)]
struct Known {
    /// None: it does not live.
    sid: Option<String>,
    /// Making it, or ending it, was not acknowledged.
    in_doubt: bool,
    /// One of these.
    metadata: Vec<String>,
    dispatches: BTreeSet<String>,
    /// May be there or not.
    doubtful: BTreeSet<String>,
    /// Dispatches that may be there under ids nobody heard of.
    unheard: usize,
}

/// What must have been told of rooms, by sid.
type Expected = BTreeSet<(String, String)>;

/// Calls until one is not answered.
async fn calls(
    server: &Process,
    name: &str,
    known: &mut Known,
    expected: &mut Expected,
    random: &mut StdRng,
    done: impl Fn(),
) {
    let mut number = 0;
    loop {
        number += 1;
        let text = format!("{name} {number} {}", random.random::<u32>());
        let Some(sid) = known.sid.clone() else {
            known.in_doubt = true;
            known.metadata = vec![text.clone()];
            let call = json!({"name": name, "metadata": text, "agents": [{"agent_name": "a"}]});
            let Some(room) = server.acknowledged("RoomService/CreateRoom", "", call).await else {
                return;
            };
            let sid = room["sid"].as_str().unwrap().to_owned();
            expected.insert((sid.clone(), "room_started".into()));
            (known.sid, known.in_doubt) = (Some(sid), false);
            // The one it was made with.
            known.unheard = 1;
            done();
            continue;
        };
        match random.random_range(0..10) {
            0 => {
                known.in_doubt = true;
                let call = json!({"room": name});
                if server.acknowledged("RoomService/DeleteRoom", "", call).await.is_none() {
                    return;
                }
                expected.insert((sid, "room_finished".into()));
                *known = Known::default();
            }
            1..=4 => {
                known.metadata.push(text.clone());
                let call = json!({"room": name, "metadata": text});
                if server
                    .acknowledged("RoomService/UpdateRoomMetadata", name, call)
                    .await
                    .is_none()
                {
                    return;
                }
                known.metadata = vec![text];
            }
            5 | 6 if !known.dispatches.is_empty() => {
                let id = known.dispatches.pop_first().unwrap();
                known.doubtful.insert(id.clone());
                let call = json!({"room": name, "dispatch_id": id});
                if server
                    .acknowledged("AgentDispatchService/DeleteDispatch", name, call)
                    .await
                    .is_none()
                {
                    return;
                }
                known.doubtful.remove(&id);
            }
            _ => {
                known.unheard += 1;
                let call = json!({"room": name, "agent_name": "b", "metadata": text});
                let made = server
                    .acknowledged("AgentDispatchService/CreateDispatch", name, call)
                    .await;
                let Some(made) = made else { return };
                known.unheard -= 1;
                known.dispatches.insert(made["id"].as_str().unwrap().to_owned());
            }
        }
        done();
    }
}

/// Compares what the server says with what is known, and takes over what was in doubt.
async fn compare(server: &Process, name: &str, known: &mut Known, expected: &mut Expected) {
    let listed = server
        .acknowledged("RoomService/ListRooms", "", json!({"names": [name]}))
        .await
        .unwrap();
    let Some(room) = listed["rooms"].get(0) else {
        assert!(known.sid.is_none() || known.in_doubt, "{name} is lost: {known:?}");
        if let Some(sid) = known.sid.take() {
            expected.insert((sid, "room_finished".into()));
        }
        *known = Known::default();
        return;
    };
    let sid = room["sid"].as_str().unwrap().to_owned();
    assert!(known.sid.is_some() || known.in_doubt, "{name} has come back");
    assert!(
        known.sid.as_ref().is_none_or(|before| *before == sid),
        "{name} is another room"
    );
    let metadata = room["metadata"].as_str().unwrap().to_owned();
    assert!(known.metadata.contains(&metadata), "{name} has {metadata}: {known:?}");
    let listed = server
        .acknowledged("AgentDispatchService/ListDispatch", name, json!({"room": name}))
        .await
        .unwrap();
    let listed = listed["agent_dispatches"].as_array().unwrap().iter();
    let found: BTreeSet<String> = listed
        .map(|dispatch| dispatch["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(found.is_superset(&known.dispatches), "{name} has {found:?}: {known:?}");
    let heard: BTreeSet<String> = known.dispatches.union(&known.doubtful).cloned().collect();
    let others = found.difference(&heard).count();
    // One that was made with the room is unheard of in a room whose making was in doubt.
    assert!(
        others <= known.unheard + usize::from(known.in_doubt),
        "{name} has {found:?}: {known:?}"
    );
    expected.insert((sid.clone(), "room_started".into()));
    *known = Known {
        sid: Some(sid),
        metadata: vec![metadata],
        dispatches: found,
        ..Known::default()
    };
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let points = number("DURABILITY_POINTS").unwrap_or(10);
    let seed = number("DURABILITY_SEED").unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let (url, mut events) = receiver().await;
    let webhook = json!({"urls": [url], "api_key": "key", "allow_private_addresses": true});
    let mut server = Process::start(json!({"webhook": webhook})).await;
    let names: Vec<String> = (0..6).map(|number| format!("room {number}")).collect();
    let mut rooms: BTreeMap<String, (Known, Expected)> =
        names.iter().map(|name| (name.clone(), Default::default())).collect();
    let mut acknowledged = 0;
    for point in 0..points {
        let moment = random.random_range(1..120);
        let (count, reached) = (AtomicUsize::new(0), Notify::new());
        let done = || {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == moment {
                reached.notify_one();
            }
        };
        let seeds: Vec<u64> = names.iter().map(|_| random.random()).collect();
        let loads = rooms.iter_mut().zip(seeds).map(|((name, (known, expected)), seed)| {
            let (server, done) = (&server, &done);
            async move { calls(server, name, known, expected, &mut StdRng::seed_from_u64(seed), done).await }
        });
        let kill = async {
            reached.notified().await;
            server.signal("KILL");
        };
        let run = async { tokio::join!(futures_util::future::join_all(loads), kill) };
        tokio::time::timeout(LIMIT, run)
            .await
            .unwrap_or_else(|_| panic!("point {point} of seed {seed} in time"));
        acknowledged += count.into_inner();
        server.ended().await;
        server.run().await;
        for (name, (known, expected)) in &mut rooms {
            compare(&server, name, known, expected).await;
        }
    }
    let expected: Expected = rooms.into_values().flat_map(|(_, expected)| expected).collect();
    let all = events.wait_for(|events| expected.iter().all(|event| events.contains_key(event)));
    drop(tokio::time::timeout(LIMIT, all).await.expect("every webhook").unwrap());
    for (event, ids) in events.borrow().iter() {
        assert_eq!(ids.len(), 1, "{event:?} is one event, however often it came");
    }
    println!(
        "{points} kills, {acknowledged} acknowledged calls, {} webhooks expected",
        expected.len()
    );
}
