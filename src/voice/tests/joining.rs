//! Getting in, being seen, and leaving again.

use serde_json::json;

use super::world::{EU, GUILD, US, World, member};
use crate::voice::*;

#[test]
fn a_join_is_invisible_until_it_has_happened_and_everybody_who_sees_the_channel_is_told() {
    let mut world = World::new();
    let (ann, bob, stranger) = (world.client(3), world.client(4), world.client(7));
    let ready = world.events(ann, "READY");
    assert_eq!(ready[0]["guilds"][0]["voice_states"], json!([]));
    assert_eq!(ready[0]["rtc_regions"], json!(["eu", "us"]));
    world.ask_in(ann, Some(GUILD), "10");
    let frames = world.frames(ann);
    assert_eq!(frames.len(), 1, "only the invitation: {frames:?}");
    assert_eq!(world.present(), []);
    assert!(world.events(bob, "VOICE_STATE_UPDATE").is_empty());

    world.ask_in(ann, Some(GUILD), "10");
    let invitation = world.invitations(ann).remove(0);
    assert!(world.connect(&invitation));
    let state = world.events(bob, "VOICE_STATE_UPDATE").remove(0);
    assert_eq!(state["user_id"], "3");
    assert_eq!(state["connection_id"], invitation.connection.as_str());
    assert_eq!(state["member"]["user"]["id"], "3");
    assert!(world.events(stranger, "VOICE_STATE_UPDATE").is_empty());
    let late = world.client(5);
    let ready = world.events(late, "READY").remove(0);
    assert_eq!(ready["guilds"][0]["voice_states"][0]["user_id"], "3");

    world.state(
        ann,
        json!({"guild_id": GUILD, "channel_id": null, "connection_id": invitation.connection}),
    );
    assert!(!world.is_in(&invitation), "out of the room as well");
    let state = world.events(bob, "VOICE_STATE_UPDATE").remove(0);
    assert_eq!(
        (&state["channel_id"], &state["guild_id"]),
        (&json!(null), &json!(GUILD))
    );
    assert_eq!(world.present(), []);
}

#[test]
fn a_token_says_what_the_contract_says() {
    let mut world = World::new();
    let ann = world.client(3);
    let guild = world.join(ann, "10");
    assert_eq!(guild.identity, format!("user_3_{}", guild.connection));
    assert!(!guild.connection.contains('_'));
    assert_eq!(guild.place.1, "guild_900_channel_10");
    assert_eq!(guild.token["iss"], "key-us");
    assert_eq!(
        guild.token["sources"],
        json!(["microphone", "camera", "screen_share", "screen_share_audio"])
    );
    let metadata = guild.token["metadata"].as_object().unwrap();
    assert!(metadata.values().all(|value| value.is_string()), "{metadata:?}");
    let mut names: Vec<&str> = metadata.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "channel_id",
            "connection_id",
            "guild_id",
            "issued_at",
            "region_id",
            "server_id",
            "token_nonce",
            "user_id"
        ]
    );
    assert_eq!(guild.whole["guild_id"], GUILD);
    assert_eq!(guild.whole["endpoint"], "wss://us-a.test");

    let dm = world.join(ann, "20");
    assert_eq!(dm.place.1, "dm_channel_20");
    assert_eq!(dm.token["metadata"]["dm_call"], "true");
    assert!(dm.whole.get("guild_id").is_none());
    let group = world.join(ann, "21");
    assert_eq!(group.place.1, "dm_channel_21");
}

#[test]
fn every_refusal_of_the_gateway_has_its_code() {
    let mut world = World::new();
    world.sync(vec![
        json!({"kind": "channel", "id": "14", "guild_id": GUILD, "type": 2, "user_limit": 1}),
        json!({"kind": "channel", "id": "15", "guild_id": GUILD, "type": 2,
            "permission_overwrites": [{"id": GUILD, "type": 0, "deny": (1u64 << 20).to_string()}]}),
        json!({"kind": "user", "id": "6", "unclaimed": true}),
        json!({"kind": "channel", "id": "22", "type": 1, "recipients": ["6", "3"]}),
        json!({"kind": "channel", "id": "23", "type": 3, "recipients": ["6", "3", "4"]}),
        json!({"kind": "guild", "id": "901", "owner_id": "1"}),
    ]);
    let (ann, bob, guest) = (world.client(3), world.client(4), world.client(6));
    let there = world.join(bob, "14");
    let huge = "9".repeat(30);
    let over = u64::MAX.to_string();
    for (update, code) in [
        (
            json!({"guild_id": "x", "channel_id": "10"}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": huge}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": over}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (
            json!({"guild_id": 900, "channel_id": "10"}),
            "VALIDATION_INVALID_SNOWFLAKE",
        ),
        (json!({"guild_id": "902", "channel_id": "10"}), "VOICE_GUILD_NOT_FOUND"),
        (json!({"guild_id": "901", "channel_id": "10"}), "VOICE_MEMBER_NOT_FOUND"),
        (json!({"guild_id": GUILD}), "VOICE_INVALID_CHANNEL_ID"),
        (
            json!({"guild_id": GUILD, "channel_id": null}),
            "VOICE_MISSING_CONNECTION_ID",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": null, "connection_id": "gone"}),
            "VOICE_CONNECTION_NOT_FOUND",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "99"}),
            "VOICE_CHANNEL_NOT_FOUND",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "20"}),
            "VOICE_CHANNEL_NOT_FOUND",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "12"}),
            "VOICE_INVALID_CHANNEL_TYPE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "connection_id": "gone"}),
            "VOICE_CONNECTION_NOT_FOUND",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "14", "connection_id": there.connection}),
            "VOICE_USER_MISMATCH",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "13"}),
            "VOICE_PERMISSION_DENIED",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "15"}),
            "VOICE_PERMISSION_DENIED",
        ),
        (json!({"guild_id": GUILD, "channel_id": "14"}), "VOICE_CHANNEL_FULL"),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "viewer_stream_key": "nonsense"}),
            "VOICE_INVALID_STATE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "viewer_stream_key": "900:11:a"}),
            "VOICE_INVALID_STATE",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "viewer_stream_key": "900:10:gone"}),
            "VOICE_CONNECTION_NOT_FOUND",
        ),
        (
            json!({"guild_id": GUILD, "channel_id": "10", "self_mute": "yes"}),
            "VALIDATION_INVALID_PARAMS",
        ),
        (json!([]), "VALIDATION_INVALID_PARAMS"),
        (json!({"guild_id": null, "channel_id": "99"}), "DM_CHANNEL_NOT_FOUND"),
        (json!({"guild_id": null, "channel_id": "13"}), "DM_CHANNEL_NOT_FOUND"),
        (json!({"guild_id": null, "channel_id": "10"}), "DM_INVALID_CHANNEL_TYPE"),
    ] {
        world.frames(ann);
        world.state(ann, update.clone());
        assert_eq!(world.errors(ann), [code], "{update}");
    }
    world.seconds(10);
    for (client, update, code) in [
        (
            guest,
            json!({"guild_id": GUILD, "channel_id": "10"}),
            "VOICE_UNCLAIMED_ACCOUNT",
        ),
        (guest, json!({"channel_id": "22"}), "VOICE_UNCLAIMED_ACCOUNT"),
        (guest, json!({"channel_id": "20"}), "DM_NOT_RECIPIENT"),
    ] {
        world.frames(client);
        world.state(client, update.clone());
        assert_eq!(world.errors(client), [code], "{update}");
    }
    world.sync(vec![member(
        3,
        json!({"communication_disabled_until": world.now.0 + 60_000}),
    )]);
    world.ask_in(ann, Some(GUILD), "10");
    assert_eq!(world.errors(ann), ["VOICE_MEMBER_TIMED_OUT"]);
    world.seconds(61);
    world.join(ann, "10");
    world.join(guest, "23");
    assert_eq!(world.present(), [(10, 3), (14, 4), (23, 6)], "nothing else has changed");
    for region in [US, EU] {
        world.put_server(region, json!({"is_active": false}));
    }
    world.seconds(30);
    let other = world.client(5);
    world.frames(other);
    world.ask_in(other, Some(GUILD), "11");
    assert_eq!(world.errors(other), ["VOICE_TOKEN_FAILED"]);
}

#[test]
fn many_updates_are_limited() {
    let mut world = World::new();
    let ann = world.client(3);
    let there = world.join(ann, "10");
    let update = json!({"guild_id": GUILD, "channel_id": "10", "connection_id": there.connection, "self_mute": true});
    for _ in 0..59 {
        world.state(ann, update.clone());
    }
    assert!(world.errors(ann).is_empty());
    world.state(ann, update.clone());
    assert_eq!(world.errors(ann), ["VOICE_UPDATE_RATE_LIMITED"]);
    world.seconds(10);
    world.state(ann, update);
    assert!(world.errors(ann).is_empty());
}

#[test]
fn capacity_counts_people_and_not_devices() {
    let mut world = World::new();
    world.sync(vec![
        json!({"kind": "channel", "id": "10", "guild_id": GUILD, "type": 2, "user_limit": 2}),
    ]);
    let (phone, desk, bob, carol) = (world.client(3), world.client(3), world.client(4), world.client(5));
    world.join(phone, "10");
    world.join(bob, "10");
    let second = world.join(desk, "10");
    world.frames(carol);
    world.ask_in(carol, Some(GUILD), "10");
    assert_eq!(world.errors(carol), ["VOICE_CHANNEL_FULL"]);
    world.disconnect(&second);
    world.ask_in(carol, Some(GUILD), "10");
    assert_eq!(world.errors(carol), ["VOICE_CHANNEL_FULL"], "the phone is still there");
    assert_eq!(world.present(), [(10, 3), (10, 4)]);
}

#[test]
fn a_camera_needs_a_small_channel() {
    let mut world = World::new();
    let users: Vec<u64> = (100..125).collect();
    let facts = users.iter().flat_map(|user| {
        [
            json!({"kind": "user", "id": user.to_string()}),
            member(*user, json!({})),
        ]
    });
    world.sync(facts.collect());
    let ann = world.client(3);
    let there = world.join(ann, "10");
    let camera = json!({"guild_id": GUILD, "channel_id": "10", "connection_id": there.connection, "self_video": true});
    for user in &users[..24] {
        let client = world.client(*user);
        world.join(client, "10");
    }
    world.state(ann, camera.clone());
    assert!(world.errors(ann).is_empty(), "25 with her");
    let off = json!({"guild_id": GUILD, "channel_id": "10", "connection_id": there.connection});
    world.state(ann, off);
    let last = world.client(users[24]);
    world.join(last, "10");
    world.frames(ann);
    world.state(ann, camera);
    assert_eq!(world.errors(ann), ["VOICE_CAMERA_USER_LIMIT"]);
}

#[test]
fn a_viewer_names_a_stream_in_the_same_channel() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let screen = world.join(ann, "10");
    let there = world.join(bob, "10");
    let key = format!("900:10:{}", screen.connection);
    world.state(
        bob,
        json!({"guild_id": GUILD, "channel_id": "10", "connection_id": there.connection, "viewer_stream_key": key}),
    );
    let state = world.events(ann, "VOICE_STATE_UPDATE").pop().unwrap();
    assert_eq!(
        (state["viewer_stream_key"].as_str(), &state["version"]),
        (Some(key.as_str()), &json!(1))
    );
    assert_eq!(state["viewer_stream_keys"], json!([key]));
}

#[test]
fn another_channel_with_the_same_connection_is_a_new_token_under_the_same_name() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let first = world.join(ann, "10");
    world.frames(bob);
    world.state(
        ann,
        json!({"guild_id": GUILD, "channel_id": "11", "connection_id": first.connection}),
    );
    let second = world.invitations(ann).remove(0);
    assert_eq!(second.connection, first.connection);
    assert_ne!(
        second.token["metadata"]["token_nonce"],
        first.token["metadata"]["token_nonce"]
    );
    let gone = world.events(bob, "VOICE_STATE_UPDATE");
    assert_eq!(gone[0]["channel_id"], json!(null));
    world.connect(&second);
    assert_eq!(world.present(), [(11, 3)]);
    assert!(world.is_in(&first), "her client has a moment to go by itself");
    world.seconds(5);
    assert!(!world.is_in(&first) && world.is_in(&second));
    // What she may not do leaves her where she is.
    world.state(
        ann,
        json!({"guild_id": GUILD, "channel_id": "13", "connection_id": first.connection}),
    );
    assert_eq!(world.present(), [(11, 3)]);
}

#[test]
fn leaving_without_naming_anything_leaves_everything() {
    let mut world = World::new();
    let ann = world.client(3);
    let (guild, dm) = (world.join(ann, "10"), world.join(ann, "20"));
    world.state(
        ann,
        json!({"guild_id": null, "channel_id": null, "connection_id": null}),
    );
    assert!(!world.is_in(&guild) && !world.is_in(&dm));
    assert_eq!(world.present(), []);
}

#[test]
fn what_the_database_cannot_keep_is_not_begun() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let there = world.join(ann, "10");
    world.voice.set_storage_down(true);
    world.frames(bob);
    world.ask_in(bob, Some(GUILD), "10");
    assert_eq!(world.errors(bob), ["VOICE_TOKEN_FAILED"]);
    let join = Join::new(UserId(4), Some(GuildId(900)), ChannelId(10));
    assert_eq!(world.voice.join(world.now, join), Err(VoiceError::StorageDown));
    assert_eq!(VoiceError::StorageDown.http().0, 503);
    assert!(VoiceError::StorageDown.retry_after().is_some());
    assert!(world.is_in(&there), "calls go on");
    world.voice.set_storage_down(false);
    world.join(bob, "10");
}
