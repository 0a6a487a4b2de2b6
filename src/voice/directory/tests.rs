use proptest::prelude::*;
use serde_json::json;

use super::*;

fn entries(value: serde_json::Value) -> Vec<Entry> {
    serde_json::from_value(value).unwrap()
}

fn town() -> serde_json::Value {
    json!([
        {"kind": "user", "version": 1, "id": "50", "username": "ann"},
        {"kind": "guild", "version": 1, "id": "1", "owner_id": "99"},
        {"kind": "role", "version": 1, "guild_id": "1", "id": "1", "permissions": "1024"},
        {"kind": "role", "version": 1, "guild_id": "1", "id": "10", "permissions": "3145728"},
        {"kind": "member", "version": 1, "guild_id": "1", "user_id": "50", "roles": ["10"]},
        {"kind": "channel", "version": 1, "id": "7", "guild_id": "1", "type": 2, "user_limit": 2,
         "permission_overwrites": [{"id": "50", "type": 1, "deny": "2097152"}]},
        {"kind": "channel", "version": 1, "id": "8", "type": 1, "recipients": ["50", "51"]},
        {"kind": "friendship", "version": 1, "user_id": "51", "other_id": "50"},
        {"kind": "block", "version": 1, "user_id": "51", "other_id": "52"},
    ])
}

fn knows_the_town(directory: &Directory) {
    let (guild, ann, bob) = (GuildId(1), UserId(50), UserId(51));
    let may = directory.permissions(guild, ChannelId(7), ann).unwrap();
    assert!(may.contains(Permissions::CONNECT | Permissions::VIEW_CHANNEL));
    assert!(!may.contains(Permissions::SPEAK));
    assert!(directory.can_see(ChannelId(7), ann) && !directory.can_see(ChannelId(7), bob));
    assert!(directory.can_see(ChannelId(8), bob) && !directory.can_see(ChannelId(8), UserId(52)));
    assert!(directory.are_friends(ann, bob) && directory.has_blocked(bob, UserId(52)));
    assert!(!directory.has_blocked(UserId(52), bob));
    assert_eq!(directory.conversations_of(bob).count(), 1);
    assert_eq!(directory.guilds_of(ann).count(), 1);
}

proptest! {
    #[test]
    fn facts_may_arrive_twice_and_in_any_order(order in Just((0..9usize).flat_map(|i| [i, i]).collect::<Vec<_>>()).prop_shuffle()) {
        let all = entries(town());
        let mut directory = Directory::default();
        let (mut applied, mut passed_over) = (0, 0);
        for index in order {
            let outcome = directory.sync(vec![all[index].clone()]).unwrap();
            applied += outcome.applied.len();
            passed_over += outcome.passed_over;
        }
        prop_assert_eq!((applied, passed_over), (9, 9));
        knows_the_town(&directory);
    }
}

#[test]
fn an_older_version_changes_nothing_and_deletions_are_remembered() {
    let mut directory = Directory::default();
    directory.sync(entries(town())).unwrap();
    let gone = json!([{"kind": "member", "version": 3, "deleted": true, "guild_id": "1", "user_id": "50"}]);
    let outcome = directory.sync(entries(gone)).unwrap();
    assert!(outcome.touched.users.contains(&UserId(50)));
    assert!(directory.member(GuildId(1), UserId(50)).is_none());
    assert_eq!(directory.guilds_of(UserId(50)).count(), 0);
    let late = json!([{"kind": "member", "version": 2, "guild_id": "1", "user_id": "50"}]);
    assert_eq!(directory.sync(entries(late)).unwrap().passed_over, 1);
    assert!(
        directory.member(GuildId(1), UserId(50)).is_none(),
        "a late word does not undo it"
    );
    assert_eq!(directory.facts(), 8);
}

#[test]
fn a_channel_that_loses_a_recipient_is_not_theirs_any_more() {
    let mut directory = Directory::default();
    directory.sync(entries(town())).unwrap();
    let left = json!([{"kind": "channel", "version": 2, "id": "8", "type": 1, "recipients": ["50"]}]);
    directory.sync(entries(left)).unwrap();
    assert!(!directory.can_see(ChannelId(8), UserId(51)));
    assert_eq!(directory.conversations_of(UserId(51)).count(), 0);
}

#[test]
fn one_bad_entry_refuses_all() {
    let mut directory = Directory::default();
    let mut all = town();
    all.as_array_mut()
        .unwrap()
        .push(json!({"kind": "channel", "version": 1, "id": "9", "permission_overwrites": [{"id": "1", "type": 2}]}));
    assert_eq!(directory.sync(entries(all)).unwrap_err(), SyncError::OverwriteType);
    assert_eq!(directory.facts(), 0);
    let long = json!([{"kind": "user", "version": 1, "id": "50", "username": "ö".repeat(513)}]);
    assert_eq!(directory.sync(entries(long)).unwrap_err(), SyncError::TooLarge);
    let longest = json!([{"kind": "user", "version": 1, "id": "50", "username": "ö".repeat(512)}]);
    assert_eq!(directory.sync(entries(longest)).unwrap().applied.len(), 1);
}

#[test]
fn a_guild_that_is_gone_is_nobodys() {
    let mut directory = Directory::default();
    directory.sync(entries(town())).unwrap();
    directory
        .sync(entries(
            json!([{"kind": "guild", "version": 2, "deleted": true, "id": "1"}]),
        ))
        .unwrap();
    assert!(directory.guild(GuildId(1)).is_none());
    assert!(!directory.can_see(ChannelId(7), UserId(50)));
    assert_eq!(directory.guilds_of(UserId(50)).count(), 0);
}

/// caller 1 rings 2: flags, friends, a mutual friend, a mutual guild.
fn rings(flags: Option<u32>, friends: bool, mutual_friend: bool, mutual_guild: bool) -> (bool, bool) {
    let mut directory = Directory::default();
    let mut all = vec![json!({"kind": "user", "version": 1, "id": "2", "incoming_call_flags": flags})];
    let friendship = |a: &str, b: &str| json!({"kind": "friendship", "version": 1, "user_id": a, "other_id": b});
    if friends {
        all.push(friendship("1", "2"));
    }
    if mutual_friend {
        all.extend([friendship("1", "3"), friendship("3", "2")]);
    }
    if mutual_guild {
        all.push(json!({"kind": "guild", "version": 1, "id": "9"}));
        all.extend(["1", "2"].map(|user| json!({"kind": "member", "version": 1, "guild_id": "9", "user_id": user})));
    }
    directory.sync(entries(json!(all))).unwrap();
    let found = directory.ringable(UserId(1), UserId(2));
    (found.ringable, found.silent)
}

#[test]
fn incoming_call_settings_decide_who_rings() {
    use IncomingCalls as I;
    let (yes, no, silently) = ((true, false), (false, false), (true, true));
    let silent = I::SILENT_EVERYONE;
    for (flags, friends, mutual_friend, mutual_guild, expected) in [
        (None, false, false, false, yes),
        (Some(I::NOBODY), true, true, true, no),
        (Some(I::FRIENDS_ONLY), true, false, false, yes),
        (Some(I::FRIENDS_ONLY), false, true, true, no),
        (Some(I::FRIENDS_OF_FRIENDS), false, true, false, yes),
        (Some(I::FRIENDS_OF_FRIENDS), false, false, true, no),
        (Some(I::FRIENDS_OF_FRIENDS | silent), false, true, false, silently),
        (Some(I::GUILD_MEMBERS), false, false, true, yes),
        (Some(I::GUILD_MEMBERS), false, true, false, no),
        (Some(I::EVERYONE), false, false, false, yes),
        (Some(I::EVERYONE | silent), false, false, false, silently),
        (Some(I::EVERYONE | silent), true, false, false, yes),
        (Some(0), true, false, false, yes),
        (Some(0), false, true, true, no),
        // What should not have been saved.
        (Some(I::NOBODY | I::EVERYONE), true, false, false, no),
        (Some(I::FRIENDS_ONLY | I::EVERYONE), false, false, false, no),
    ] {
        assert_eq!(
            rings(flags, friends, mutual_friend, mutual_guild),
            expected,
            "{flags:?} {friends} {mutual_friend} {mutual_guild}"
        );
    }
}
