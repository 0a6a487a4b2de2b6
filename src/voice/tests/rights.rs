//! Rights that change while somebody speaks: media follows at once, on every path.

use serde_json::json;

use super::world::{Client, EVERYONE, GUILD, Invitation, World, member};
use crate::voice::*;

const ALL: [&str; 4] = ["microphone", "camera", "screen_share", "screen_share_audio"];

fn speaking() -> (World, Client, Invitation) {
    let mut world = World::new();
    let ann = world.client(3);
    let there = world.join(ann, "10");
    assert_eq!(world.in_room(&there).sources, ALL);
    (world, ann, there)
}

#[test]
fn what_a_role_or_an_overwrite_takes_away_is_taken_from_the_room() {
    let (mut world, _, there) = speaking();
    let role = |bits: u64| json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": bits.to_string()});
    world.sync(vec![role(EVERYONE & !(1 << 21))]);
    assert_eq!(world.in_room(&there).sources, ALL[1..]);
    assert!(world.in_room(&there).subscribe, "who may not speak still listens");
    world.sync(vec![role(EVERYONE)]);
    assert_eq!(world.in_room(&there).sources, ALL);
    let overwritten = |overwrites| json!({"kind": "channel", "id": "10", "guild_id": GUILD, "type": 2, "permission_overwrites": overwrites});
    world.sync(vec![overwritten(
        json!([{"id": "3", "type": 1, "deny": (1u64 << 9).to_string()}]),
    )]);
    assert_eq!(world.in_room(&there).sources, ["microphone"]);
    world.sync(vec![overwritten(
        json!([{"id": "3", "type": 1, "deny": (3u64 << 9 | 1 << 21).to_string(), "allow": "1024"}]),
    )]);
    assert_eq!(world.in_room(&there).sources, [""; 0]);
    world.sync(vec![overwritten(json!([]))]);
    assert_eq!(world.in_room(&there).sources, ALL);
}

#[test]
fn who_may_not_be_there_any_more_is_out() {
    let overwrite = |deny: u64| {
        vec![json!({"kind": "channel", "id": "10", "guild_id": GUILD, "type": 2,
        "permission_overwrites": [{"id": GUILD, "type": 0, "deny": deny.to_string()}]})]
    };
    for (what, facts) in [
        ("the channel is hidden", overwrite(1 << 10)),
        ("nobody may connect", overwrite(1 << 20)),
        (
            "kicked",
            vec![json!({"kind": "member", "guild_id": GUILD, "user_id": "3", "deleted": true})],
        ),
        (
            "timed out",
            vec![member(3, json!({"communication_disabled_until": u64::MAX}))],
        ),
        (
            "the channel is gone",
            vec![json!({"kind": "channel", "id": "10", "deleted": true})],
        ),
        (
            "it is for text now",
            vec![json!({"kind": "channel", "id": "10", "guild_id": GUILD, "type": 0})],
        ),
        (
            "the guild is gone",
            vec![json!({"kind": "guild", "id": GUILD, "deleted": true})],
        ),
    ] {
        let (mut world, ann, there) = speaking();
        world.frames(ann);
        world.sync(facts);
        assert!(!world.is_in(&there), "{what}");
        assert_eq!(world.present(), [], "{what}");
        let told = world.events(ann, "VOICE_STATE_UPDATE");
        assert_eq!(
            told.last().map(|state| state["channel_id"].clone()),
            Some(json!(null)),
            "{what}"
        );
    }
}

#[test]
fn a_token_given_before_the_right_went_is_good_for_nothing() {
    let mut world = World::new();
    let ann = world.client(3);
    world.ask_in(ann, Some(GUILD), "10");
    let invitation = world.invitations(ann).remove(0);
    world.sync(vec![
        json!({"kind": "member", "guild_id": GUILD, "user_id": "3", "deleted": true}),
    ]);
    assert!(!world.connect(&invitation));
    // One that has become smaller is made smaller on arrival.
    let bob = world.client(4);
    world.ask_in(bob, Some(GUILD), "10");
    let invitation = world.invitations(bob).remove(0);
    world.sync(vec![
        json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": (EVERYONE & !(1 << 21)).to_string()}),
    ]);
    assert!(world.connect(&invitation));
    assert_eq!(world.in_room(&invitation).sources, ALL[1..]);
}

#[test]
fn somebody_muted_is_silent_from_the_moment_they_arrive() {
    let mut world = World::new();
    world.sync(vec![member(3, json!({"mute": true}))]);
    let ann = world.client(3);
    let there = world.join(ann, "10");
    assert!(
        there.token["sources"]
            .as_array()
            .unwrap()
            .contains(&json!("microphone")),
        "the token is as ever"
    );
    assert_eq!(world.in_room(&there).sources, ALL[1..]);
    // The same token again changes nothing about it.
    assert!(world.connect(&there));
    assert_eq!(world.in_room(&there).sources, ALL[1..]);
    world.sync(vec![member(4, json!({"deaf": true}))]);
    let bob = world.client(4);
    let deaf = world.join(bob, "10");
    assert_eq!(
        (&deaf.token["subscribe"], &deaf.token["publish"]),
        (&json!(false), &json!(false))
    );
}

#[test]
fn hearing_again_gives_back_no_more_than_there_was() {
    let (mut world, _, there) = speaking();
    let moderate = |world: &mut World, deaf: bool| {
        let moderation = Moderation {
            deaf: Some(deaf),
            ..Moderation::default()
        };
        world
            .voice
            .moderate(world.now, Actor::User(UserId(2)), GuildId(900), UserId(3), &moderation)
            .unwrap();
        world.settle();
    };
    world.sync(vec![
        json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": (EVERYONE & !(1 << 9)).to_string()}),
    ]);
    moderate(&mut world, true);
    assert_eq!(
        (world.in_room(&there).sources.len(), world.in_room(&there).subscribe),
        (0, false)
    );
    moderate(&mut world, false);
    assert_eq!(world.in_room(&there).sources, ["microphone"]);
    assert!(world.in_room(&there).subscribe);
}

#[test]
fn what_the_backend_states_holds_against_the_directory_and_until_it_says_otherwise() {
    let mut world = World::new();
    let rights = Rights {
        speak: true,
        stream: false,
        video: true,
    };
    let join = Join {
        authority: Authority::Asserted {
            rights,
            mute: false,
            deaf: false,
        },
        ..Join::new(UserId(3), Some(GuildId(900)), ChannelId(13))
    };
    let ticket = world.voice.join(world.now, join).unwrap();
    let token: serde_json::Value = serde_json::from_str(&ticket.token).unwrap();
    assert_eq!(token["sources"], json!(["microphone", "camera"]));
    let seen = Seen {
        identity: format!("user_3_{}", ticket.connection_id),
        participant: "PA_1".into(),
        nonce: Some(ticket.token_nonce.clone()),
    };
    let server = ServerKey {
        region: ticket.region_id.clone(),
        server: ticket.server_id.clone(),
    };
    world
        .voice
        .handle_participant_joined(world.now, &server, "guild_900_channel_13", &seen);
    world.settle();
    world.sync(vec![member(3, json!({"nick": "changed"}))]);
    assert_eq!(
        world.present(),
        [(13, 3)],
        "the channel is hidden from her, but the backend has let her in"
    );
    world.asked.clear();
    world
        .voice
        .assert_rights(world.now, &ticket.connection_id, Rights { speak: false, ..rights })
        .unwrap();
    world.settle();
    let permitted = world.asked.iter().find_map(|(_, action)| match action {
        RoomAction::Permit { grant, .. } => Some(*grant),
        _ => None,
    });
    let grant = permitted.unwrap();
    assert_eq!((grant.sources(), grant.subscribe), (vec!["camera"], true));
    world.sync(vec![
        json!({"kind": "member", "guild_id": GUILD, "user_id": "3", "deleted": true}),
    ]);
    assert_eq!(world.present(), []);
}

#[test]
fn without_a_directory_the_backends_word_is_enough() {
    let mut world = World::empty();
    let region = json!({"id": "us", "name": "us"});
    world.voice.put_region(serde_json::from_value(region).unwrap()).unwrap();
    world.put_server("us", json!({}));
    let authority = Authority::Asserted {
        rights: Rights::ALL,
        mute: false,
        deaf: true,
    };
    let join = |guild| Join {
        authority,
        ..Join::new(UserId(3), guild, ChannelId(10))
    };
    let ticket = world.voice.join(world.now, join(Some(GuildId(5)))).unwrap();
    let token: serde_json::Value = serde_json::from_str(&ticket.token).unwrap();
    assert_eq!(
        (&token["room"], &token["subscribe"]),
        (&json!("guild_5_channel_10"), &json!(false))
    );
    assert!(world.voice.join(world.now, join(None)).is_ok());
    // With one it must not contradict it.
    let mut world = World::new();
    let refused = |world: &mut World, user, guild, channel| {
        let join = Join {
            authority,
            ..Join::new(UserId(user), guild, ChannelId(channel))
        };
        world.voice.join(world.now, join).unwrap_err()
    };
    assert_eq!(refused(&mut world, 77, Some(GuildId(900)), 10), VoiceError::UserUnknown);
    assert_eq!(
        refused(&mut world, 3, Some(GuildId(900)), 99),
        VoiceError::ChannelNotFound
    );
    assert_eq!(
        refused(&mut world, 3, Some(GuildId(901)), 10),
        VoiceError::ChannelNotFound
    );
    assert_eq!(
        refused(&mut world, 7, Some(GuildId(900)), 10),
        VoiceError::MemberNotFound
    );
}
