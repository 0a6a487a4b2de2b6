//! The table of the gateway's errors: every documented code, and what brings it about.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::world::*;
use crate::voice::*;

type Row = (&'static str, fn(&mut World) -> String);

/// Documented, and without a cause here: nobody waits for another process, and what has no code of its own goes by HTTP.
const NEVER: [&str; 2] = ["TIMEOUT", "UNKNOWN_ERROR"];

const ROWS: &[Row] = &[
    ("VOICE_CONNECTION_NOT_FOUND", |world| {
        refused(world, place("10", json!({"connection_id": "gone"})))
    }),
    ("VOICE_CHANNEL_NOT_FOUND", |world| {
        refused(world, place("99", json!({})))
    }),
    ("VOICE_INVALID_CHANNEL_TYPE", |world| {
        refused(world, place("12", json!({})))
    }),
    ("VOICE_MEMBER_NOT_FOUND", |world| {
        world.sync(vec![json!({"kind": "guild", "id": "901", "owner_id": "1"})]);
        refused(world, json!({"guild_id": "901", "channel_id": "10"}))
    }),
    // Only moderators name somebody who may not be there.
    ("VOICE_USER_NOT_IN_VOICE", |world| {
        let moderation = Moderation {
            channel: Some(Some(ChannelId(11))),
            ..Moderation::default()
        };
        let (actor, now) = (Actor::User(UserId(2)), world.now);
        let moved = world.voice.moderate(now, actor, GuildId(900), UserId(3), &moderation);
        moved.unwrap_err().gateway().0.to_owned()
    }),
    ("VOICE_GUILD_NOT_FOUND", |world| {
        refused(world, json!({"guild_id": "902", "channel_id": "10"}))
    }),
    ("VOICE_PERMISSION_DENIED", |world| {
        refused(world, place("13", json!({})))
    }),
    ("VOICE_MEMBER_TIMED_OUT", |world| {
        let until = world.now.0 + 60_000;
        world.sync(vec![member(3, json!({"communication_disabled_until": until}))]);
        refused(world, place("10", json!({})))
    }),
    ("VOICE_CHANNEL_FULL", |world| {
        world.sync(vec![
            json!({"kind": "channel", "id": "14", "guild_id": GUILD, "type": 2, "user_limit": 1}),
        ]);
        let bob = world.client(4);
        world.join(bob, "14");
        refused(world, place("14", json!({})))
    }),
    ("VOICE_MISSING_CONNECTION_ID", |world| {
        refused(world, json!({"guild_id": GUILD, "channel_id": null}))
    }),
    ("VOICE_INVALID_USER_ID", |world| {
        world.sync(vec![member(8, json!({}))]);
        refused_to(world, 8, place("10", json!({})))
    }),
    ("VOICE_INVALID_CHANNEL_ID", |world| {
        refused(world, json!({"guild_id": GUILD}))
    }),
    ("VOICE_INVALID_STATE", |world| {
        refused(world, place("10", json!({"viewer_stream_key": "nonsense"})))
    }),
    ("VOICE_USER_MISMATCH", |world| {
        let bob = world.client(4);
        let there = world.join(bob, "10");
        refused(world, place("10", json!({"connection_id": there.connection})))
    }),
    ("VOICE_TOKEN_FAILED", |world| {
        world.sync(vec![json!({"kind": "user", "id": "3", "suspicious": true})]);
        refused(world, place("10", json!({})))
    }),
    ("VOICE_GUILD_ID_MISSING", |world| {
        let ann = world.client(3);
        let there = world.join(ann, "10");
        refused(world, json!({"channel_id": "10", "connection_id": there.connection}))
    }),
    ("VOICE_INVALID_GUILD_ID", |world| {
        let ann = world.client(3);
        let there = world.join(ann, "10");
        refused(
            world,
            json!({"guild_id": "901", "channel_id": "10", "connection_id": there.connection}),
        )
    }),
    ("VOICE_UNCLAIMED_ACCOUNT", |world| {
        world.sync(vec![json!({"kind": "user", "id": "3", "unclaimed": true})]);
        refused(world, place("10", json!({})))
    }),
    ("DM_CHANNEL_NOT_FOUND", |world| {
        refused(world, json!({"channel_id": "99"}))
    }),
    ("DM_NOT_RECIPIENT", |world| {
        refused_to(world, 5, json!({"channel_id": "20"}))
    }),
    ("DM_INVALID_CHANNEL_TYPE", |world| {
        refused(world, json!({"channel_id": "10"}))
    }),
    ("VALIDATION_INVALID_SNOWFLAKE", |world| {
        refused(world, json!({"guild_id": "x", "channel_id": "10"}))
    }),
    ("VALIDATION_INVALID_PARAMS", |world| {
        refused(world, place("10", json!({"self_mute": "yes"})))
    }),
    // More devices than anybody has.
    ("INTERNAL_ERROR", |world| {
        let ann = world.client(3);
        for _ in 0..32 {
            world.join(ann, "10");
        }
        refused(world, place("10", json!({})))
    }),
    ("VOICE_UPDATE_RATE_LIMITED", |world| {
        let ann = world.client(3);
        for _ in 0..60 {
            world.state(ann, place("99", json!({})));
        }
        refused(world, place("10", json!({})))
    }),
    ("VOICE_NONCE_MISMATCH", |world| {
        rejected(world, |_, seen| seen.nonce = Some("another".into()))
    }),
    ("VOICE_PENDING_EXPIRED", |world| {
        // The first input after a pause, before any timer.
        rejected(world, |world, _| {
            world.now = world.now.after(std::time::Duration::from_secs(31))
        })
    }),
    ("VOICE_CAMERA_USER_LIMIT", |world| {
        for user in 101..=125u64 {
            world.sync(vec![
                json!({"kind": "user", "id": user.to_string()}),
                member(user, json!({})),
            ]);
            let client = world.client(user);
            world.join(client, "10");
        }
        refused(world, place("10", json!({"self_video": true})))
    }),
];

fn place(channel: &str, more: Value) -> Value {
    let mut update = json!({"guild_id": GUILD, "channel_id": channel});
    for (name, value) in more.as_object().unwrap() {
        update[name] = value.clone();
    }
    update
}

fn refused(world: &mut World, update: Value) -> String {
    refused_to(world, 3, update)
}

fn refused_to(world: &mut World, user: u64, update: Value) -> String {
    let client = world.client(user);
    world.state(client, update);
    assert!(!world.closed.contains_key(&client.socket), "the socket stays open");
    world.errors(client).concat()
}

/// Somebody comes to the room with what `change` makes of a good join.
fn rejected(world: &mut World, change: impl FnOnce(&mut World, &mut Seen)) -> String {
    let join = Join::new(UserId(3), Some(GuildId(900)), ChannelId(10));
    let ticket = world.voice.join(world.now, join).unwrap();
    let mut seen = Seen {
        identity: identity(UserId(3), &ticket.connection_id),
        participant: "PA_1".into(),
        nonce: Some(ticket.token_nonce),
    };
    change(world, &mut seen);
    let server = ServerKey {
        region: ticket.region_id,
        server: ticket.server_id,
    };
    match world
        .voice
        .handle_participant_joined(world.now, &server, "guild_900_channel_10", &seen)
    {
        Arrival::Rejected(error) => error.gateway().0.to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_code_of_the_gateway_is_brought_about() {
    for (code, bring_about) in ROWS {
        assert_eq!(bring_about(&mut World::new()), *code);
    }
}

#[test]
fn every_code_of_the_gateway_has_its_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|(code, _)| *code).collect();
    assert_eq!(rows.len(), ROWS.len(), "no row twice");
    let codes = VoiceError::ALL.iter().map(|error| error.gateway().0);
    let codes: BTreeSet<&str> = codes.filter(|code| !NEVER.contains(code)).collect();
    assert_eq!(rows, codes);
}
