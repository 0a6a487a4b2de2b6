//! What is believed and what is: tokens that come late or twice, servers that tell, restarts.

use serde_json::json;

use super::world::{GUILD, US, World, member};
use crate::voice::*;

#[test]
fn a_token_that_was_not_used_in_time_lets_nobody_in() {
    let mut world = World::new();
    let ann = world.client(3);
    world.ask_in(ann, Some(GUILD), "10");
    let invitation = world.invitations(ann).remove(0);
    world.seconds(31);
    assert!(!world.connect(&invitation), "sent out again at once");
    assert_eq!(world.present(), []);
}

#[test]
fn an_older_token_cannot_complete_a_newer_join() {
    let mut world = World::new();
    let ann = world.client(3);
    let join = |world: &mut World, nonce: &str| {
        let join = Join {
            connection: ConnectionId::parse("desk"),
            nonce: Some(nonce.into()),
            session: world
                .voice
                .states()
                .all()
                .next()
                .and_then(|connection| connection.session.clone()),
            ..Join::new(UserId(3), Some(GuildId(900)), ChannelId(10))
        };
        world.voice.join(world.now, join).unwrap();
        world.settle();
    };
    join(&mut world, "old");
    join(&mut world, "new");
    let us = ServerKey {
        region: US.into(),
        server: "a".into(),
    };
    let arrive = |world: &mut World, nonce: Option<&str>| {
        let seen = Seen {
            identity: "user_3_desk".into(),
            participant: "PA_x".into(),
            nonce: nonce.map(str::to_owned),
        };
        world
            .voice
            .handle_participant_joined(world.now, &us, "guild_900_channel_10", &seen)
    };
    assert_eq!(
        arrive(&mut world, Some("old")),
        Arrival::Rejected(VoiceError::NonceMismatch)
    );
    assert_eq!(world.present(), []);
    assert_eq!(arrive(&mut world, Some("new")), Arrival::Confirmed);
    assert_eq!(world.present(), [(10, 3)]);
    assert_eq!(
        arrive(&mut world, Some("old")),
        Arrival::Rejected(VoiceError::NonceMismatch)
    );
    let _ = ann;
}

#[test]
fn a_client_that_lost_its_connection_comes_back_with_the_token_it_has() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let there = world.join(ann, "10");
    world.disconnect(&there);
    assert_eq!(world.present(), []);
    world.seconds(59);
    assert!(world.connect(&there));
    assert_eq!(world.present(), [(10, 3)]);
    world.disconnect(&there);
    world.seconds(60);
    assert!(!world.connect(&there), "not for ever");
    // Nor when the rights have gone meanwhile.
    let there = world.join(ann, "10");
    world.disconnect(&there);
    world.sync(vec![member(
        3,
        json!({"communication_disabled_until": world.now.0 + 60_000}),
    )]);
    assert!(!world.connect(&there));
    let _ = bob;
}

#[test]
fn the_end_of_an_earlier_session_of_the_same_connection_is_not_its_own() {
    let mut world = World::new();
    let ann = world.client(3);
    let there = world.join(ann, "10");
    let first = world.in_room(&there).participant.clone();
    assert!(
        world.connect(&there),
        "a full reconnect, before the old session is given up"
    );
    let seen = Seen {
        identity: there.identity.clone(),
        participant: first,
        nonce: None,
    };
    world
        .voice
        .handle_participant_left(world.now, &there.place.0, &there.place.1, &seen);
    assert_eq!(world.present(), [(10, 3)]);
    world.disconnect(&there);
    assert_eq!(world.present(), []);
}

#[test]
fn a_join_that_was_aborted_is_not_expected_any_more_but_may_be_tried_again() {
    let mut world = World::new();
    world.sync(vec![
        json!({"kind": "channel", "id": "10", "guild_id": GUILD, "type": 2, "user_limit": 1}),
    ]);
    let (ann, bob) = (world.client(3), world.client(4));
    world.ask_in(ann, Some(GUILD), "10");
    let invitation = world.invitations(ann).remove(0);
    let seen = Seen {
        identity: invitation.identity.clone(),
        participant: String::new(),
        nonce: None,
    };
    world
        .voice
        .handle_participant_left(world.now, &invitation.place.0, &invitation.place.1, &seen);
    world.settle();
    assert!(world.connect(&invitation));
    world.disconnect(&invitation);
    world.join(bob, "10");
}

#[test]
fn ghosts_are_found_by_looking() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let (there, other) = (world.join(ann, "10"), world.join(bob, "10"));
    // Nobody was told that ann has gone, and nobody knows a listener.
    world.rooms.get_mut(&there.place).unwrap().remove(&there.identity);
    let listener = world.rooms[&other.place][&other.identity].clone();
    world
        .rooms
        .get_mut(&there.place)
        .unwrap()
        .insert("user_6_ghost".into(), listener.clone());
    world
        .rooms
        .get_mut(&there.place)
        .unwrap()
        .insert("recorder".into(), listener);
    world.seconds(60);
    assert_eq!(world.present(), [(10, 4)]);
    let room: Vec<&String> = world.rooms[&there.place].keys().collect();
    assert_eq!(
        room,
        ["recorder", other.identity.as_str()],
        "what is not ours is left alone"
    );
}

#[test]
fn an_empty_room_loses_its_pin_and_a_used_one_keeps_it() {
    let mut world = World::new();
    let ann = world.client(3);
    let there = world.join(ann, "10");
    let room = RoomKey::parse(&there.place.1).unwrap();
    world.seconds(3600);
    assert!(world.voice.pins().find(room).is_some());
    world.disconnect(&there);
    world.seconds(19);
    assert!(world.voice.pins().find(room).is_some());
    world.seconds(1);
    assert!(world.voice.pins().find(room).is_none());
    assert!(world.kept.keys().all(|(table, _)| *table != Table::Pins));
    // Its room closes first: the same.
    let there = world.join(ann, "10");
    world.disconnect(&there);
    world.finish(&there.place);
    assert!(world.voice.pins().find(room).is_none());
    // A room that ends with people in it takes them along.
    let there = world.join(ann, "10");
    world.finish(&there.place);
    assert_eq!(world.present(), []);
}

#[test]
fn after_a_restart_whoever_is_still_there_is_found_again() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let (there, other) = (world.join(ann, "10"), world.join(bob, "10"));
    world.seconds(100);
    let mut next = World::empty();
    next.now = world.now;
    let kept = world.kept.iter().map(|((table, id), body)| Change {
        table: *table,
        id: id.clone(),
        body: Some(body.clone()),
    });
    next.voice = restarted(next.now, kept.collect());
    next.rooms = world.rooms.clone();
    // Bob was thrown out of the guild meanwhile.
    next.sync_at(
        1000,
        vec![json!({"kind": "member", "guild_id": GUILD, "user_id": "4", "deleted": true})],
    );
    next.seconds(1);
    assert_eq!(next.present(), [(10, 3)]);
    assert!(next.is_in(&there) && !next.is_in(&other));
    let carol = next.client(5);
    assert_eq!(
        next.events(carol, "READY")[0]["guilds"][0]["voice_states"][0]["user_id"],
        "3"
    );
    assert_eq!(next.join(carol, "10").place, there.place, "the pin is kept");
}

fn restarted(now: UnixMillis, kept: Vec<Change>) -> Voice {
    let mut voice = super::world::fresh(now);
    assert_eq!(voice.restore(now, kept), 0);
    voice
}

#[test]
fn events_of_other_rooms_and_people_change_nothing() {
    let mut world = World::new();
    let us = ServerKey {
        region: US.into(),
        server: "a".into(),
    };
    let seen = |identity: &str| Seen {
        identity: identity.into(),
        ..Seen::default()
    };
    for (room, identity) in [("lobby", "user_3_a"), ("guild_900_channel_10", "recorder"), ("", "")] {
        let arrival = world
            .voice
            .handle_participant_joined(world.now, &us, room, &seen(identity));
        assert_eq!(arrival, Arrival::Foreign);
        world
            .voice
            .handle_participant_left(world.now, &us, room, &seen(identity));
        world.voice.handle_participants(world.now, &us, room, &[seen(identity)]);
        world.voice.handle_room_finished(world.now, &us, room);
    }
    assert_eq!(world.voice.poll_effect(), None);
    let forged = world
        .voice
        .handle_participant_joined(world.now, &us, "guild_900_channel_10", &seen("user_3_a"));
    assert_eq!(forged, Arrival::Rejected(VoiceError::ConnectionNotFound));
}
