//! What moderators do to others.

use serde_json::json;

use super::world::{GUILD, World};
use crate::voice::*;

const MODERATOR: Actor = Actor::User(UserId(2));

fn moderate(world: &mut World, actor: Actor, user: u64, moderation: Moderation) -> Result<(), VoiceError> {
    let outcome = world
        .voice
        .moderate(world.now, actor, GuildId(900), UserId(user), &moderation);
    world.settle();
    outcome
}

fn to(channel: u64) -> Moderation {
    Moderation {
        channel: Some(Some(ChannelId(channel))),
        ..Moderation::default()
    }
}

fn mute(mute: bool) -> Moderation {
    Moderation {
        mute: Some(mute),
        ..Moderation::default()
    }
}

fn out() -> Moderation {
    Moderation {
        channel: Some(None),
        ..Moderation::default()
    }
}

#[test]
fn muting_silences_every_device_and_everybody_sees_it() {
    let mut world = World::new();
    let (phone, desk, bob) = (world.client(3), world.client(3), world.client(4));
    let devices = [world.join(phone, "10"), world.join(desk, "11")];
    world.frames(bob);
    moderate(&mut world, MODERATOR, 3, mute(true)).unwrap();
    for device in &devices {
        assert!(!world.in_room(device).sources.contains(&"microphone"));
    }
    let states = world.events(bob, "VOICE_STATE_UPDATE");
    assert!(
        states
            .iter()
            .all(|state| state["mute"] == true && state["member"]["mute"] == true)
    );
    assert_eq!(states.len(), 2);
    // It is the member who is muted, wherever they come next.
    world.disconnect(&devices[0]);
    let again = world.join(phone, "11");
    assert!(!world.in_room(&again).sources.contains(&"microphone"));
    moderate(&mut world, MODERATOR, 3, mute(false)).unwrap();
    assert!(world.in_room(&again).sources.contains(&"microphone"));
}

#[test]
fn a_move_takes_all_devices_or_the_one_that_is_named() {
    let mut world = World::new();
    let (phone, desk, bob) = (world.client(3), world.client(3), world.client(4));
    let first = [world.join(phone, "10"), world.join(desk, "10")];
    world.frames(bob);
    let one = Moderation {
        connection: ConnectionId::parse(&first[0].connection),
        ..to(11)
    };
    moderate(&mut world, MODERATOR, 3, one).unwrap();
    assert!(world.invitations(desk).is_empty(), "the other device stays");
    let moved = world.invitations(phone).remove(0);
    assert_ne!(moved.connection, first[0].connection);
    assert_eq!(moved.whole["channel_id"], "11");
    assert!(
        world.in_room(&first[0]).sources.is_empty() && !world.in_room(&first[0]).subscribe,
        "silent at once"
    );
    assert_eq!(world.events(bob, "VOICE_STATE_UPDATE")[0]["channel_id"], json!(null));
    world.connect(&moved);
    assert_eq!(world.events(bob, "VOICE_STATE_UPDATE")[0]["channel_id"], "11");
    world.seconds(5);
    assert!(!world.is_in(&first[0]) && world.is_in(&first[1]));

    moderate(&mut world, MODERATOR, 3, to(13)).unwrap_err();
    let hidden = json!({"kind": "member", "guild_id": GUILD, "user_id": "2", "roles": ["70", "71"]});
    let role = json!({"kind": "role", "guild_id": GUILD, "id": "71", "permissions": "8"});
    world.sync(vec![hidden, role]);
    moderate(&mut world, MODERATOR, 3, to(13)).unwrap();
    let (a, b) = (world.invitations(phone).remove(0), world.invitations(desk).remove(0));
    assert!(world.connect(&a) && world.connect(&b));
    assert_eq!(world.present(), [(13, 3), (13, 3)]);
    assert_eq!(
        world.in_room(&a).sources.len(),
        4,
        "whoever was moved may be there, and speak"
    );
    // What they may there ends when they have left.
    world.disconnect(&a);
    world.disconnect(&b);
    world.frames(phone);
    world.ask_in(phone, Some(GUILD), "13");
    assert_eq!(world.errors(phone), ["VOICE_PERMISSION_DENIED"]);
}

#[test]
fn disconnecting_ends_the_connection_in_the_room_too() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let there = world.join(ann, "10");
    world.frames(ann);
    world.frames(bob);
    moderate(&mut world, MODERATOR, 3, out()).unwrap();
    assert!(!world.is_in(&there));
    assert_eq!(world.events(ann, "VOICE_STATE_UPDATE")[0]["channel_id"], json!(null));
    assert_eq!(world.events(bob, "VOICE_STATE_UPDATE").len(), 1);
    assert!(!world.connect(&there), "and not back with the same token");
}

#[test]
fn moderation_needs_its_permissions_and_somebody_to_moderate() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    world.join(ann, "10");
    let deafen = Moderation {
        deaf: Some(true),
        ..Moderation::default()
    };
    let by = |user| Actor::User(UserId(user));
    for moderation in [mute(true), deafen.clone(), to(11), out()] {
        assert_eq!(
            moderate(&mut world, by(4), 3, moderation.clone()),
            Err(VoiceError::PermissionDenied)
        );
        assert_eq!(
            moderate(&mut world, by(7), 3, moderation),
            Err(VoiceError::GuildNotFound)
        );
    }
    assert_eq!(
        moderate(&mut world, MODERATOR, 7, mute(true)),
        Err(VoiceError::MemberNotFound)
    );
    assert_eq!(
        moderate(&mut world, MODERATOR, 4, mute(true)),
        Err(VoiceError::UserNotInVoice)
    );
    assert_eq!(
        moderate(&mut world, MODERATOR, 3, to(99)),
        Err(VoiceError::InvalidChannelId)
    );
    assert_eq!(
        moderate(&mut world, MODERATOR, 3, to(12)),
        Err(VoiceError::InvalidChannelType)
    );
    assert_eq!(
        moderate(&mut world, MODERATOR, 3, to(13)),
        Err(VoiceError::ModeratorCannotConnect)
    );
    let stranger = Moderation {
        connection: ConnectionId::parse("gone"),
        ..out()
    };
    assert_eq!(
        moderate(&mut world, MODERATOR, 3, stranger),
        Err(VoiceError::ConnectionNotFound)
    );
    // Deafening is a permission of its own.
    let role = json!({"kind": "role", "guild_id": GUILD, "id": "70", "permissions": (1u64 << 22).to_string()});
    world.sync(vec![role]);
    assert_eq!(
        moderate(&mut world, MODERATOR, 3, deafen),
        Err(VoiceError::PermissionDenied)
    );
    moderate(&mut world, MODERATOR, 3, mute(true)).unwrap();
    assert_eq!(world.present(), [(10, 3)]);
    let _ = bob;
}

#[test]
fn a_whole_channel_can_be_emptied() {
    let mut world = World::new();
    let clients = [world.client(3), world.client(3), world.client(4)];
    let all = clients.map(|client| world.join(client, "10"));
    let other = world.client(5);
    let other = world.join(other, "11");
    let room = RoomKey::parse(&all[0].place.1).unwrap();
    let done = world.voice.disconnect_channel(world.now, room);
    world.settle();
    assert_eq!((done.success, done.disconnected_count), (true, 3));
    assert!(all.iter().all(|there| !world.is_in(there)));
    assert!(world.is_in(&other));
}
