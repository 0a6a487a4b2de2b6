//! One process ends at any moment and another goes on: clients come back and miss nothing, or are told that they have.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

use super::world::*;
use crate::voice::*;

/// What is stored, as Redis keeps it.
#[derive(Clone, Debug, Default)]
struct Kept {
    records: BTreeMap<String, String>,
    dispatches: VecDeque<String>,
}

impl Kept {
    /// A process that shares its sessions from the start.
    fn of(world: &mut World) -> Self {
        world.voice.share_sessions();
        let mut kept = Self::default();
        kept.follow(world);
        kept
    }

    /// What has come together since the last time.
    fn follow(&mut self, world: &mut World) {
        let Some(batch) = world.voice.take_session_batch() else {
            return;
        };
        if batch.whole {
            *self = Self::default();
        }
        self.records.extend(batch.put);
        for name in &batch.removed {
            self.records.remove(name);
        }
        self.dispatches.extend(batch.dispatches);
        while self.dispatches.len() > batch.keep {
            self.dispatches.pop_front();
        }
    }

    fn stored(&self) -> StoredSessions {
        StoredSessions {
            records: self.records.clone().into_iter().collect(),
            dispatches: self.dispatches.clone().into(),
        }
    }

    /// The next process, after the time that it takes to notice.
    fn next(&self, world: &World) -> (World, TakenOver) {
        let mut next = World::empty();
        next.now = world.now.after(Duration::from_secs(7));
        next.voice = seeded(next.now, 8);
        next.rooms = world.rooms.clone();
        next.kept = world.kept.clone();
        let changes = world.kept.iter().map(|((table, id), body)| Change {
            table: *table,
            id: id.clone(),
            body: Some(body.clone()),
        });
        assert_eq!(next.voice.restore(next.now, changes.collect()), 0);
        let taken = next.voice.take_over(next.now, self.stored());
        next.voice.share_sessions();
        next.settle();
        (next, taken)
    }
}

/// Name of the session, and the last dispatch that was seen.
fn known(world: &mut World, client: Client) -> (String, u64) {
    let frames = world.frames(client);
    let ready = frames.iter().find(|frame| frame["t"] == "READY").unwrap();
    let last = frames.iter().filter_map(|frame| frame["s"].as_u64()).max();
    (ready["d"]["session_id"].as_str().unwrap().to_owned(), last.unwrap())
}

/// Frames behind the hello.
fn resume(world: &mut World, user: u64, session: &str, sequence: u64) -> (Client, Vec<Value>) {
    let client = Client { socket: world.open() };
    world.send(
        client.socket,
        json!({"op": 6, "d": {"token": user.to_string(), "session_id": session, "seq": sequence}}),
    );
    let frames = world.frames(client).split_off(1);
    (client, frames)
}

fn sequences(frames: &[Value]) -> Vec<u64> {
    frames.iter().filter_map(|frame| frame["s"].as_u64()).collect()
}

fn refused() -> [Value; 1] {
    [json!({"op": 9, "d": false})]
}

#[test]
fn clients_go_on_at_the_next_process_and_miss_nothing() {
    let mut world = World::new();
    let early = world.client(5);
    let mut kept = Kept::of(&mut world);
    let (ann, bob) = (world.client(3), world.client(4));
    let there = world.join(bob, "10");
    let ((session, last), (early, _)) = (known(&mut world, ann), known(&mut world, early));
    kept.follow(&mut world);
    // What she does not get any more, in two steps.
    world.state(
        bob,
        json!({"guild_id": GUILD, "channel_id": "10", "connection_id": there.connection, "self_mute": true}),
    );
    kept.follow(&mut world);
    let later = world.join(ann, "11");
    kept.follow(&mut world);

    let (mut next, taken) = kept.next(&world);
    assert_eq!(
        taken,
        TakenOver {
            sessions: 3,
            connections: 2,
            unreadable: 0
        }
    );
    let (ann, frames) = resume(&mut next, 3, &session, last);
    let told: Vec<&str> = frames.iter().map(|frame| frame["t"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        [
            "VOICE_STATE_UPDATE",
            "VOICE_SERVER_UPDATE",
            "VOICE_STATE_UPDATE",
            "RESUMED"
        ]
    );
    assert_eq!(sequences(&frames), [last + 1, last + 2, last + 3, last + 3]);
    assert_eq!(frames[0]["d"]["self_mute"], true);
    assert_eq!(frames[1]["d"]["connection_id"], json!(later.connection));
    // One that began before anything was stored, and has missed all that came since.
    let (_, frames) = resume(&mut next, 5, &early, 1);
    assert_eq!(sequences(&frames), [2, 3, 4, 4]);
    // All is as it was, and what comes next is told once.
    next.seconds(1);
    assert_eq!(next.present(), [(10, 4), (11, 3)]);
    assert!(next.frames(ann).is_empty(), "nothing has changed");
    next.state(
        ann,
        json!({"guild_id": GUILD, "channel_id": "11", "connection_id": later.connection, "self_deaf": true}),
    );
    let frames = next.frames(ann);
    assert_eq!(sequences(&frames), [last + 4]);
    assert_eq!(
        (&frames[0]["d"]["self_deaf"], &frames[0]["d"]["session_id"]),
        (&json!(true), &json!(session))
    );
    // And again.
    let mut kept = Kept::default();
    kept.follow(&mut next);
    let (mut third, _) = kept.next(&next);
    let (_, frames) = resume(&mut third, 3, &session, last + 4);
    assert_eq!(sequences(&frames), [last + 4], "resumed, and nothing else");
}

#[test]
fn whoever_cannot_be_told_all_begins_anew() {
    let mut world = World::new();
    let mut kept = Kept::of(&mut world);
    let (ann, bob) = (world.client(3), world.client(4));
    let there = world.join(ann, "20");
    let (session, last) = known(&mut world, bob);
    kept.follow(&mut world);
    // Seen, and never stored.
    world.disconnect(&there);
    assert!(!world.frames(bob).is_empty());

    for (user, session, sequence) in [
        (4, session.as_str(), last + 1),
        (3, &session, last),
        (4, "unknown", last),
    ] {
        let (mut next, _) = kept.next(&world);
        let (_, frames) = resume(&mut next, user, session, sequence);
        assert_eq!(frames, refused(), "{user} {session} {sequence}");
    }
    // The next process gives the same numbers to other dispatches.
    let (mut next, _) = kept.next(&world);
    next.seconds(1);
    let (_, frames) = resume(&mut next, 4, &session, last + 1);
    assert_eq!(frames, refused());
    let (_, frames) = resume(&mut next, 4, &session, last);
    assert_eq!(frames, refused(), "and is forgotten for good");
    // The time in which it may come back begins anew, and ends.
    let (mut next, _) = kept.next(&world);
    next.pass(Duration::from_millis(9900));
    assert_eq!(next.voice.gateway().sessions(), 2);
    next.seconds(1);
    let (_, frames) = resume(&mut next, 4, &session, last);
    assert_eq!(frames, refused());
    assert_eq!(next.voice.gateway().sessions(), 0);
}

#[test]
fn what_happened_in_the_last_moment_is_told_by_the_next_process() {
    let mut world = World::new();
    let mut kept = Kept::of(&mut world);
    let clients = [3, 4, 5].map(|user| world.client(user));
    let [ann, bob, carol] = clients;
    let names = clients.map(|client| known(&mut world, client).0);
    let (mute, moved) = (world.join(bob, "11"), world.join(carol, "10"));
    let (session, other) = (&names[0], &names[2]);
    let last = sequences(&world.frames(ann)).into_iter().max().unwrap();
    let seen = sequences(&world.frames(carol)).into_iter().max().unwrap();
    kept.follow(&mut world);
    // Bob's network goes, and Carol is muted and her channel sent to another region.
    world.disconnect(&mute);
    world.sync(vec![member(5, json!({"mute": true}))]);
    world.sync(vec![
        json!({"kind": "channel", "id": "10", "guild_id": GUILD, "type": 2, "rtc_region": EU}),
    ]);

    let (mut next, _) = kept.next(&world);
    next.seconds(1);
    let (_, frames) = resume(&mut next, 3, session, last);
    assert_eq!(sequences(&frames).first(), Some(&(last + 1)));
    let state = |user: &str| {
        let states = frames.iter().filter(|frame| frame["d"]["user_id"] == user);
        states.map(|frame| frame["d"].clone()).next_back().unwrap()
    };
    assert_eq!(state("4")["channel_id"], json!(null), "Bob has gone");
    assert_eq!(state("5")["mute"], true);
    let (carol, frames) = resume(&mut next, 5, other, seen);
    let invited = frames.iter().find(|frame| frame["t"] == "VOICE_SERVER_UPDATE").unwrap();
    assert_eq!(invited["d"]["endpoint"], "wss://eu-a.test");
    assert!(next.closed.is_empty() && next.frames(carol).is_empty());
    assert!(next.is_in(&moved), "for the time that it takes to go");
}

#[test]
fn calls_and_joins_that_are_under_way_go_on() {
    let mut world = World::new();
    let mut kept = Kept::of(&mut world);
    let (ann, bob) = (world.client(3), world.client(4));
    let (session, _) = known(&mut world, ann);
    let now = world.now;
    world.voice.ring(now, UserId(3), ChannelId(20), None, None).unwrap();
    world.settle();
    world.join(ann, "20");
    // Bob is moved to where he could not go by himself, and has not arrived.
    world.join(bob, "10");
    let moderation = Moderation {
        channel: Some(Some(ChannelId(13))),
        ..Moderation::default()
    };
    world
        .voice
        .moderate(now, Actor::User(UserId(1)), GuildId(900), UserId(4), &moderation)
        .unwrap();
    world.settle();
    let invited = world.invitations(bob).remove(0);
    let last = sequences(&world.frames(ann)).into_iter().max().unwrap();
    kept.follow(&mut world);

    let (mut next, taken) = kept.next(&world);
    assert_eq!(taken.unreadable, 0);
    resume(&mut next, 3, &session, last);
    assert!(next.connect(&invited), "he is expected");
    let state = next.voice.states().of_user(UserId(4)).next().unwrap();
    assert!(state.session.is_some() && state.rights == Rights::ALL);
    let call = next.voice.calls().find(ChannelId(20)).unwrap();
    assert_eq!(
        (call.ringing.len(), call.participants.len()),
        (1, 1),
        "it rings, and she is in it"
    );
    let carol = next.client(4);
    assert_eq!(next.events(carol, "CALL_CREATE")[0]["ringing"], json!(["4"]));
    next.seconds(31);
    assert!(next.voice.calls().find(ChannelId(20)).unwrap().ringing.is_empty());
}

#[test]
fn what_is_not_of_ours_is_not_believed() {
    let mut world = World::new();
    let mut kept = Kept::of(&mut world);
    let (ann, bob) = (world.client(3), world.client(4));
    world.join(bob, "10");
    let (session, last) = known(&mut world, ann);
    kept.follow(&mut world);
    world.join(bob, "11");
    kept.follow(&mut world);
    let resumes = |kept: &Kept| {
        let (mut next, taken) = kept.next(&world);
        let (_, frames) = resume(&mut next, 3, &session, last);
        (frames[0]["op"] == 0, taken.unreadable > 0)
    };
    assert_eq!(resumes(&kept), (true, false));
    let broken = |change: &dyn Fn(&mut Kept)| {
        let mut kept = kept.clone();
        change(&mut kept);
        resumes(&kept)
    };
    let is_session = |kept: &Kept, name: &str| name.starts_with("s:") && kept.records[name].contains(&session);
    let of_ann = kept.records.keys().find(|name| is_session(&kept, name)).unwrap();
    let put = |name: &str, body: &str| {
        let (name, body) = (name.to_owned(), body.to_owned());
        move |kept: &mut Kept| drop(kept.records.insert(name.clone(), body.clone()))
    };
    // Another version, one that was not written to the end, and rubbish in place of anything.
    assert_eq!(broken(&put("version", "2")), (false, true));
    assert_eq!(broken(&|kept| drop(kept.records.remove("version"))), (false, true));
    assert_eq!(broken(&|kept| drop(kept.records.remove("last"))), (false, true));
    assert_eq!(broken(&put("last", "rubbish")), (false, true));
    assert_eq!(broken(&put(of_ann, "rubbish")), (false, true));
    assert_eq!(broken(&put(of_ann, "{}")), (false, true));
    assert_eq!(
        broken(&|kept| kept.dispatches.push_back("rubbish".into())),
        (false, true)
    );
    assert_eq!(
        broken(&|kept| drop(kept.dispatches.pop_back())),
        (false, true),
        "the last is not there"
    );
    assert_eq!(
        broken(&|kept| drop(kept.dispatches.remove(1))),
        (false, true),
        "one is not there"
    );
    // A place that is not in the list, before it and behind it.
    let at = |index: u64| format!(r#"{{"id":"{session}","user":"3","created_at":1,"index":{index},"sequence":1}}"#);
    assert!(!broken(&put(of_ann, &at(u64::MAX))).0);
    assert!(
        !broken(&|kept| {
            kept.records.insert(of_ann.clone(), at(0));
            kept.dispatches.pop_front();
        })
        .0
    );
    // What is beside it does no harm.
    for (name, body) in [
        ("x:1", "?"),
        ("s:x", "{}"),
        ("c:a b", "{}"),
        ("c:a", "{}"),
        ("r:0", "{}"),
        ("v:1", "1"),
        ("rubbish", ""),
    ] {
        assert_eq!(broken(&put(name, body)), (true, true), "{name}");
    }
}

#[test]
fn however_long_it_goes_on_the_next_process_knows_as_much_as_this_one() {
    let mut world = World::new();
    let mut kept = Kept::of(&mut world);
    let clients: Vec<Client> = [3, 4, 5, 6, 3, 4].map(|user| world.client(user)).to_vec();
    let names: Vec<(String, u64)> = clients.iter().map(|client| known(&mut world, *client)).collect();
    let there = world.join(clients[1], "10");
    let connection = ConnectionId::parse(&there.connection);
    let users = [3, 4, 5, 6, 3, 4];
    let mut sizes = 0;
    for step in 0..9000u64 {
        world.now = world.now.after(Duration::from_millis(200));
        let update = StateUpdate {
            guild: Some(GuildId(900)),
            channel: Some(ChannelId(10)),
            connection: connection.clone(),
            own: SelfState {
                mute: step % 2 == 0,
                ..SelfState::default()
            },
            coordinates: None,
        };
        world.voice.handle_update(world.now, UserId(4), None, update).unwrap();
        world.settle();
        if step % 7 == 0 {
            kept.follow(&mut world);
        }
        sizes = sizes.max(kept.dispatches.len());
        if step % 1000 == 999 {
            kept.follow(&mut world);
            let (mut next, taken) = kept.next(&world);
            assert_eq!((taken.sessions, taken.unreadable), (6, 0), "{step}");
            for ((client, user), (session, _)) in clients.iter().zip(users).zip(&names) {
                let sequence = sequences(&world.frames(*client)).into_iter().max().unwrap();
                let (_, frames) = resume(&mut next, user, session, sequence - 200);
                let expected: Vec<u64> = (sequence - 199..=sequence).chain([sequence]).collect();
                assert_eq!(sequences(&frames), expected);
            }
        }
    }
    assert!(sizes <= 8192 && kept.dispatches.len() > 4000, "{sizes}");
    let (mut next, _) = kept.next(&world);
    assert_eq!(
        resume(&mut next, 3, &names[0].0, names[0].1).1,
        refused(),
        "too much was missed"
    );
}
