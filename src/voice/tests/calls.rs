//! Calls in conversations.

use serde_json::{Value, json};

use super::world::{Client, EU, US, World};
use crate::voice::*;

const DM: ChannelId = ChannelId(20);
const GROUP: ChannelId = ChannelId(21);

fn ring(world: &mut World, user: u64, channel: ChannelId) -> Result<(), VoiceError> {
    let outcome = world.voice.ring(world.now, UserId(user), channel, None, None);
    world.settle();
    outcome
}

fn one(world: &mut World, client: Client, event: &str) -> Value {
    let mut events = world.events(client, event);
    assert_eq!(events.len(), 1, "{event}: {events:?}");
    events.remove(0)
}

#[test]
fn a_call_from_the_first_ring_to_the_last_goodbye() {
    let mut world = World::new();
    let (ann, bob, carol) = (world.client(3), world.client(4), world.client(5));
    for client in [ann, bob, carol] {
        world.frames(client);
    }
    ring(&mut world, 3, DM).unwrap();
    for client in [ann, bob] {
        let call = one(&mut world, client, "CALL_CREATE");
        assert_eq!(
            (&call["channel_id"], &call["ringing"], &call["voice_states"]),
            (&json!("20"), &json!(["4"]), &json!([]))
        );
        assert_eq!(call["region"], US);
        assert!(call["message_id"].as_str().unwrap().parse::<u64>().is_ok());
    }
    let here = world.join(ann, "20");
    let state = one(&mut world, bob, "VOICE_STATE_UPDATE");
    assert_eq!(
        (&state["guild_id"], &state["connection_id"]),
        (&json!(null), &json!(here.connection))
    );
    world.frames(bob);
    world.frames(ann);
    let there = world.join(bob, "20");
    let call = one(&mut world, ann, "CALL_UPDATE");
    assert_eq!(
        (&call["ringing"], call["voice_states"].as_array().unwrap().len()),
        (&json!([]), 2)
    );
    world.frames(bob);
    world.state(
        ann,
        json!({"guild_id": null, "channel_id": null, "connection_id": here.connection}),
    );
    assert_eq!(
        one(&mut world, bob, "CALL_UPDATE")["voice_states"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    world.disconnect(&there);
    assert_eq!(one(&mut world, ann, "CALL_DELETE"), json!({"channel_id": "20"}));
    assert!(world.frames(carol).is_empty(), "nobody else hears of it");
    let history = world
        .kept
        .iter()
        .find(|((table, _), _)| *table == Table::Calls)
        .unwrap()
        .1;
    let history: Value = serde_json::from_str(history).unwrap();
    assert_eq!(history["participants"], json!(["3", "4"]));
    assert_eq!(history["ended_timestamp"], json!(world.now));
}

#[test]
fn ringing_ends_by_itself_and_a_call_that_nobody_took_with_it() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    ring(&mut world, 3, DM).unwrap();
    world.frames(ann);
    world.seconds(29);
    assert!(world.events(ann, "CALL_DELETE").is_empty());
    world.seconds(1);
    one(&mut world, ann, "CALL_DELETE");
    // With somebody in it it goes on.
    ring(&mut world, 3, DM).unwrap();
    let here = world.join(ann, "20");
    world.frames(ann);
    world.seconds(30);
    assert_eq!(one(&mut world, ann, "CALL_UPDATE")["ringing"], json!([]));
    world.seconds(3600);
    assert!(world.events(ann, "CALL_DELETE").is_empty());
    world.disconnect(&here);
    one(&mut world, ann, "CALL_DELETE");
    let _ = bob;
}

#[test]
fn a_call_without_ringing_ends_when_nobody_comes() {
    let mut world = World::new();
    let silent = IncomingCalls::EVERYONE | IncomingCalls::SILENT_EVERYONE;
    world.sync(vec![json!({"kind": "user", "id": "4", "incoming_call_flags": silent})]);
    let bob = world.client(4);
    let eligible = world.voice.eligibility(UserId(3), DM).unwrap();
    assert_eq!((eligible.ringable, eligible.silent), (true, true));
    world.frames(bob);
    ring(&mut world, 3, DM).unwrap();
    assert_eq!(
        one(&mut world, bob, "CALL_CREATE")["ringing"],
        json!([]),
        "seen, but not rung"
    );
    world.seconds(119);
    assert!(world.events(bob, "CALL_DELETE").is_empty());
    world.seconds(1);
    one(&mut world, bob, "CALL_DELETE");
}

#[test]
fn declining_stops_ones_own_ringing() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    assert_eq!(
        world.voice.stop_ringing(world.now, UserId(4), DM, None),
        Err(VoiceError::NoActiveCall)
    );
    ring(&mut world, 3, GROUP).unwrap();
    let here = world.join(ann, "21");
    world.frames(bob);
    world.voice.stop_ringing(world.now, UserId(4), GROUP, None).unwrap();
    world.settle();
    assert_eq!(one(&mut world, bob, "CALL_UPDATE")["ringing"], json!(["5"]));
    world
        .voice
        .stop_ringing(world.now, UserId(3), GROUP, Some(vec![UserId(5)]))
        .unwrap();
    world.settle();
    assert_eq!(one(&mut world, bob, "CALL_UPDATE")["ringing"], json!([]));
    // A second ring reaches those who are not there.
    ring(&mut world, 3, GROUP).unwrap();
    assert_eq!(one(&mut world, bob, "CALL_UPDATE")["ringing"], json!(["4", "5"]));
    let _ = here;
}

#[test]
fn every_refusal_has_its_reason() {
    let mut world = World::new();
    world.sync(vec![
        json!({"kind": "user", "id": "6", "unclaimed": true}),
        json!({"kind": "channel", "id": "22", "type": 1, "recipients": ["6", "3"]}),
        json!({"kind": "channel", "id": "23", "type": 1, "recipients": ["5", "3"]}),
        json!({"kind": "block", "user_id": "5", "other_id": "3"}),
        json!({"kind": "user", "id": "4", "incoming_call_flags": IncomingCalls::NOBODY}),
    ]);
    for (user, channel, error) in [
        (3, 99, VoiceError::ChannelNotFound),
        (7, 20, VoiceError::ChannelNotFound),
        (3, 13, VoiceError::ChannelNotFound),
        (3, 10, VoiceError::InvalidChannelTypeForCall),
        (6, 22, VoiceError::UnclaimedOneOnOne),
        (3, 23, VoiceError::CannotSendToUser),
        (5, 23, VoiceError::CannotSendToUser),
    ] {
        assert_eq!(
            ring(&mut world, user, ChannelId(channel)),
            Err(error),
            "{user} in {channel}"
        );
    }
    let stranger = world.voice.ring(world.now, UserId(3), DM, Some(vec![UserId(7)]), None);
    assert_eq!(stranger, Err(VoiceError::InvalidParameters));
    let eligible = |world: &World, user: u64, channel: u64| {
        world
            .voice
            .eligibility(UserId(user), ChannelId(channel))
            .unwrap()
            .ringable
    };
    assert!(!eligible(&world, 3, 20), "he wants no calls");
    assert!(
        !eligible(&world, 6, 22) && eligible(&world, 3, 22),
        "guests cannot ring, but be rung"
    );
    ring(&mut world, 3, DM).unwrap();
    assert!(
        world.voice.calls().find(DM).unwrap().ringing.is_empty(),
        "who wants no calls is not rung"
    );
    assert_eq!(
        world.voice.start_call(world.now, UserId(3), DM).unwrap_err(),
        VoiceError::CallAlreadyExists
    );
    world.voice.start_call(world.now, UserId(3), GROUP).unwrap();
    let ann = world.client(3);
    world.join(ann, "21");
    assert!(!eligible(&world, 3, 21), "already in it");
}

#[test]
fn another_region_takes_the_call_along() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let set = |world: &mut World, region: &str| {
        let outcome = world
            .voice
            .set_call_region(world.now, UserId(3), DM, Some(region.into()));
        world.settle();
        outcome
    };
    assert_eq!(set(&mut world, EU), Err(VoiceError::NoActiveCall));
    ring(&mut world, 3, DM).unwrap();
    assert_eq!(set(&mut world, "nowhere"), Err(VoiceError::RestrictedRegion));
    let old = [world.join(ann, "20"), world.join(bob, "20")];
    assert_eq!(old[0].place.0.region, US);
    world.frames(bob);
    set(&mut world, EU).unwrap();
    let new = [world.invitations(ann).remove(0), world.invitations(bob).remove(0)];
    for invitation in &new {
        assert_eq!(invitation.place.0.region, EU);
        assert!(world.connect(invitation));
    }
    assert_eq!(
        world.present(),
        [(20, 3), (20, 4)],
        "one state for each, from the moment they arrive"
    );
    world.seconds(11);
    assert_eq!(world.present(), [(20, 3), (20, 4)]);
    assert!(world.events(ann, "CALL_DELETE").is_empty());
    // Before anybody is there the region is the first one's.
    let carol = world.client(5);
    ring(&mut world, 5, GROUP).unwrap();
    world
        .voice
        .set_call_region(world.now, UserId(5), GROUP, Some(EU.into()))
        .unwrap();
    assert_eq!(world.join(carol, "21").place.0.region, EU);
}

#[test]
fn a_person_is_in_a_call_once_and_out_when_the_session_is_gone() {
    let mut world = World::new();
    let (phone, desk, bob) = (world.client(3), world.client(3), world.client(4));
    ring(&mut world, 3, DM).unwrap();
    let first = world.join(phone, "20");
    let second = world.join(desk, "20");
    assert!(!world.is_in(&first) && world.is_in(&second));
    assert_eq!(world.present(), [(20, 3)]);
    world.frames(bob);
    world.voice.handle_socket_closed(world.now, desk.socket);
    world.seconds(9);
    assert!(world.is_in(&second), "the client may come back");
    world.seconds(1);
    assert!(!world.is_in(&second));
    one(&mut world, bob, "CALL_DELETE");
    // In a guild's channel the room says who is there.
    let guild = world.join(phone, "10");
    world.voice.handle_socket_closed(world.now, phone.socket);
    world.seconds(11);
    assert!(world.is_in(&guild));
    assert_eq!(world.present(), [(10, 3)]);
}

#[test]
fn ending_is_leaving_and_the_last_one_ends_it_for_all() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    assert_eq!(
        world.voice.end_call(world.now, UserId(3), DM),
        Err(VoiceError::NoActiveCall)
    );
    ring(&mut world, 3, DM).unwrap();
    let (here, there) = (world.join(ann, "20"), world.join(bob, "20"));
    world.voice.end_call(world.now, UserId(3), DM).unwrap();
    world.settle();
    assert!(!world.is_in(&here) && world.is_in(&there));
    world.voice.end_call(world.now, UserId(4), DM).unwrap();
    world.settle();
    one(&mut world, ann, "CALL_DELETE");
}

#[test]
fn a_call_is_told_to_those_who_come_later() {
    let mut world = World::new();
    ring(&mut world, 3, DM).unwrap();
    let bob = world.client(4);
    assert_eq!(one(&mut world, bob, "CALL_CREATE")["ringing"], json!(["4"]));
    world.send(bob.socket, json!({"op": 13, "d": {"channel_id": "20"}}));
    assert!(one(&mut world, bob, "CALL_CREATE")["created_at"].is_u64());
    world.send(bob.socket, json!({"op": 13, "d": {"channel_id": "21"}}));
    assert!(world.frames(bob).is_empty(), "no call there");
    world.send(bob.socket, json!({"op": 13, "d": {"channel_id": "99"}}));
    world.send(bob.socket, json!({"op": 13, "d": {"channel_id": "x"}}));
    world.send(bob.socket, json!({"op": 13, "d": {}}));
    assert_eq!(
        world.errors(bob),
        [
            "DM_CHANNEL_NOT_FOUND",
            "VALIDATION_INVALID_SNOWFLAKE",
            "VOICE_INVALID_CHANNEL_ID"
        ]
    );
    // Joining without a call makes none.
    let ann = world.client(3);
    world.join(ann, "21");
    assert!(world.voice.calls().find(GROUP).is_none());
}
