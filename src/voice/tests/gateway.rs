//! Sessions: what a client may say, how it is cut off, and how it comes back.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::{GUILD, World};
use crate::voice::*;

fn identify(token: &str) -> Value {
    json!({"op": 2, "d": {"token": token, "properties": {"os": "", "browser": "", "device": ""}}})
}

#[test]
fn every_fault_has_its_close_code() {
    let many: Vec<String> = (0..65).map(|index| format!("E{index}")).collect();
    let long = format!(r#"{{"op":1,"d":null,"x":"{}"}}"#, "x".repeat(5000));
    let mut ignoring = identify("3");
    ignoring["d"]["ignored_events"] = json!(many);
    for (first, frame, code) in [
        (false, "nonsense".to_owned(), 4002),
        (false, "[]".into(), 4002),
        (false, "{}".into(), 4002),
        (false, r#"{"op":"1"}"#.into(), 4002),
        (false, long, 4002),
        (false, r#"{"op":1,"d":"x"}"#.into(), 4002),
        (false, json!({"op": 2, "d": {"token": "3"}}).to_string(), 4002),
        (
            false,
            json!({"op": 2, "d": {"token": "3", "properties": {"os": 1, "browser": "", "device": ""}}}).to_string(),
            4002,
        ),
        (false, ignoring.to_string(), 4002),
        (false, json!({"op": 6, "d": {"token": "3"}}).to_string(), 4002),
        (false, identify("nobody").to_string(), 4004),
        (false, r#"{"op":4,"d":{}}"#.into(), 4003),
        (false, r#"{"op":13,"d":{}}"#.into(), 4003),
        (false, r#"{"op":3,"d":{}}"#.into(), 4003),
        (false, r#"{"op":0}"#.into(), 4001),
        (false, r#"{"op":10}"#.into(), 4001),
        (false, r#"{"op":99}"#.into(), 4001),
        (false, r#"{"op":1,"d":1}"#.into(), 4007),
        (true, identify("3").to_string(), 4005),
        (true, r#"{"op":1,"d":2}"#.into(), 4007),
    ] {
        let mut world = World::new();
        let socket = match first {
            true => world.client(3).socket,
            false => world.open(),
        };
        world.text(socket, &frame);
        assert_eq!(world.closed.get(&socket), Some(&code), "{frame:.80}");
        world.text(socket, r#"{"op":1,"d":null}"#);
        assert_eq!(world.voice.gateway().sockets(), 0);
    }
    let mut world = World::new();
    for version in [None, Some("2"), Some("x")] {
        world.voice.handle_socket_opened(world.now, SocketId(1000), version);
        world.settle();
        assert_eq!(world.closed.remove(&SocketId(1000)), Some(4012));
    }
}

#[test]
fn a_client_that_talks_too_much_is_cut_off() {
    let mut world = World::new();
    let client = world.client(3);
    for _ in 0..119 {
        world.send(client.socket, json!({"op": 1, "d": null}));
    }
    assert!(world.closed.is_empty());
    world.seconds(60);
    world.send(client.socket, json!({"op": 1, "d": null}));
    for _ in 0..120 {
        world.send(client.socket, json!({"op": 1, "d": null}));
    }
    assert_eq!(world.closed.get(&client.socket), Some(&4008));
}

#[test]
fn whoever_shows_no_sign_of_life_is_cut_off() {
    let mut world = World::new();
    world.alive = false;
    let (quiet, alive, mute) = (world.client(3), world.client(4), world.open());
    assert_eq!(
        world.inbox[&mute][0],
        json!({"op": 10, "d": {"heartbeat_interval": 41_250}})
    );
    world.frames(alive);
    world.pass(Duration::from_millis(37_125));
    for client in [quiet, alive] {
        assert!(world.frames(client).contains(&json!({"op": 1, "d": null})));
    }
    world.send(alive.socket, json!({"op": 1, "d": 1}));
    assert_eq!(world.frames(alive), [json!({"op": 11})]);
    world.seconds(45);
    assert_eq!(world.closed.get(&quiet.socket), Some(&4009));
    assert_eq!(world.closed.get(&mute), Some(&4009), "nor has this one said who it is");
    assert!(!world.closed.contains_key(&alive.socket));
}

#[test]
fn a_client_that_comes_back_misses_nothing() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let ready = world
        .frames(ann)
        .into_iter()
        .find(|frame| frame["t"] == "READY")
        .unwrap();
    assert_eq!(ready["s"], 1);
    let session = ready["d"]["session_id"].as_str().unwrap().to_owned();
    let there = world.join(bob, "10");
    assert_eq!(world.events(ann, "VOICE_STATE_UPDATE").len(), 1);
    world.voice.handle_socket_closed(world.now, ann.socket);
    world.disconnect(&there);
    world.join(bob, "11");
    assert!(world.frames(ann).is_empty());
    let resume = |token: &str, session: &str, seq: u64| json!({"op": 6, "d": {"token": token, "session_id": session, "seq": seq}});

    // Somebody else, or nothing known.
    for (token, id) in [("4", session.as_str()), ("3", "unknown")] {
        let socket = world.open();
        world.send(socket, resume(token, id, 2));
        assert_eq!(world.inbox[&socket].last(), Some(&json!({"op": 9, "d": false})));
        // It may identify then.
        world.send(socket, identify(token));
        assert_eq!(world.inbox[&socket][2]["t"], "READY");
    }
    let socket = world.open();
    world.send(socket, resume("3", &session, 99));
    assert_eq!(world.closed.get(&socket), Some(&4007));

    let socket = world.open();
    world.send(socket, resume("3", &session, 2));
    let frames = world.inbox.get_mut(&socket).unwrap().split_off(1);
    let told: Vec<(&str, u64)> = frames
        .iter()
        .map(|frame| (frame["t"].as_str().unwrap(), frame["s"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        told,
        [("VOICE_STATE_UPDATE", 3), ("VOICE_STATE_UPDATE", 4), ("RESUMED", 4)]
    );
    assert_eq!(
        (&frames[0]["d"]["channel_id"], &frames[1]["d"]["channel_id"]),
        (&json!(null), &json!("11"))
    );
    // A second socket takes it over.
    let second = world.open();
    world.send(second, resume("3", &session, 4));
    assert_eq!(world.closed.get(&socket), Some(&1000));
    world.voice.handle_socket_closed(world.now, socket);
    // When the time is over it is gone.
    world.voice.handle_socket_closed(world.now, second);
    world.seconds(10);
    let socket = world.open();
    world.send(socket, resume("3", &session, 4));
    assert_eq!(world.inbox[&socket].last(), Some(&json!({"op": 9, "d": false})));
}

#[test]
fn a_client_that_missed_too_much_begins_anew() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let session = world.events(ann, "READY")[0]["session_id"].as_str().unwrap().to_owned();
    world.voice.handle_socket_closed(world.now, ann.socket);
    let there = world.join(bob, "10");
    for _ in 0..300 {
        let update = StateUpdate {
            guild: Some(GuildId(900)),
            channel: Some(ChannelId(10)),
            connection: ConnectionId::parse(&there.connection),
            own: SelfState::default(),
            coordinates: None,
        };
        world.now = world.now.after(Duration::from_millis(200));
        world.voice.handle_update(world.now, UserId(4), None, update).unwrap();
        world.settle();
    }
    let socket = world.open();
    world.send(
        socket,
        json!({"op": 6, "d": {"token": "3", "session_id": session, "seq": 1}}),
    );
    assert_eq!(world.inbox[&socket].last(), Some(&json!({"op": 9, "d": false})));
}

#[test]
fn ignored_events_are_not_sent_and_a_user_has_so_many_sessions() {
    let mut world = World::new();
    let socket = world.open();
    let mut frame = identify("3");
    frame["d"]["ignored_events"] = json!(["VOICE_STATE_UPDATE"]);
    world.send(socket, frame);
    let bob = world.client(4);
    world.join(bob, "10");
    assert_eq!(world.inbox[&socket].len(), 2, "hello and ready");
    for _ in 0..25 {
        world.client(3);
    }
    assert_eq!(world.voice.gateway().sessions(), 26, "25 of hers and his");
    world.voice.ask_to_reconnect();
    world.settle();
    assert_eq!(world.frames(bob).last(), Some(&json!({"op": 7, "d": null})));
}

#[test]
fn nobody_is_told_of_what_they_may_not_see() {
    let mut world = World::new();
    let (owner, ann, stranger) = (world.client(1), world.client(3), world.client(7));
    for client in [owner, ann, stranger] {
        world.frames(client);
    }
    let there = world.join(owner, "13");
    assert!(world.frames(ann).is_empty() && world.frames(stranger).is_empty());
    let late = world.client(4);
    assert_eq!(world.events(late, "READY")[0]["guilds"][0]["voice_states"], json!([]));
    let channels = |ready: &Value| {
        let channels = ready["guilds"][0]["channels"].as_array().unwrap();
        channels
            .iter()
            .map(|channel| channel["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let again = world.client(3);
    assert_eq!(channels(&world.events(again, "READY")[0]), ["10", "11", "12"]);
    world.disconnect(&there);
    assert!(world.frames(ann).is_empty());
    let _ = GUILD;
}
