//! Regions: one server for a room, and everybody after it when it moves.

use serde_json::json;

use super::world::{EU, GUILD, US, World};
use crate::voice::*;

const MODERATOR: UserId = UserId(2);
const CHANNEL: ChannelId = ChannelId(10);

fn set(world: &mut World, user: UserId, channel: u64, region: Option<&str>) -> Result<(), VoiceError> {
    let outcome = world
        .voice
        .set_region(world.now, user, ChannelId(channel), region.map(str::to_owned));
    world.settle();
    outcome
}

#[test]
fn everybody_goes_where_the_first_went() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let there = world.join(ann, "10");
    let near_prague =
        json!({"guild_id": GUILD, "channel_id": "10", "connection_id": null, "latitude": "50.1", "longitude": "14.4"});
    world.state(bob, near_prague.clone());
    let invitation = world.invitations(bob).remove(0);
    assert_eq!(invitation.place, there.place);
    assert_eq!(there.place.0.region, US);
    world.state(
        bob,
        json!({"guild_id": GUILD, "channel_id": "11", "connection_id": null, "latitude": "50.1", "longitude": "14.4"}),
    );
    assert_eq!(
        world.invitations(bob).remove(0).place.0.region,
        EU,
        "a room of one's own is near"
    );
}

#[test]
fn another_region_invites_everybody_and_closes_the_old_room_after_a_while() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    let old = [world.join(ann, "10"), world.join(bob, "10")];
    world.ask_in(ann, Some(GUILD), "10");
    let expected = world.invitations(ann).remove(0);
    world.frames(bob);
    set(&mut world, MODERATOR, 10, Some(EU)).unwrap();
    let of_ann = world.invitations(ann);
    let of_bob = world.invitations(bob);
    assert_eq!(
        (of_ann.len(), of_bob.len()),
        (2, 1),
        "the device that was on its way too"
    );
    assert!(old.iter().all(|there| world.is_in(there)), "nobody is thrown out");
    assert!(!world.connect(&expected), "the old token leads nowhere");
    for (new, before) in [(&of_ann[0], &old[0]), (&of_bob[0], &old[1])] {
        assert_eq!(
            (new.place.0.region.as_str(), new.place.1.as_str()),
            (EU, before.place.1.as_str())
        );
        assert_ne!(new.connection, before.connection);
        assert!(world.connect(new));
    }
    world.disconnect(&old[0]);
    world.finish(&(old[0].place.0.clone(), "guild_900_channel_99".into()));
    assert_eq!(world.present(), [(10, 3), (10, 4), (10, 4)]);
    world.seconds(10);
    assert!(!world.is_in(&old[1]), "who did not go by himself");
    assert_eq!(world.present(), [(10, 3), (10, 4)]);
    let deleted = world
        .asked
        .iter()
        .any(|(place, action)| *place == old[0].place && *action == RoomAction::Delete);
    assert!(deleted);
    world.finish(&old[0].place);
    assert_eq!(
        world.present().len(),
        2,
        "the end of the old room is not that of the new one"
    );
    let carol = world.client(5);
    assert_eq!(world.join(carol, "10").place.0.region, EU);
}

#[test]
fn a_region_is_set_by_those_who_may_and_only_to_what_they_may_use() {
    let mut world = World::new();
    let vip = json!({"id": "vip", "name": "vip", "vip_only": true});
    world.voice.put_region(serde_json::from_value(vip).unwrap()).unwrap();
    world.put_server("vip", json!({}));
    let ids = |world: &World| {
        let regions = world.voice.regions_for(UserId(3), CHANNEL).unwrap();
        regions.iter().map(|region| region.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&world), [EU, US]);
    assert_eq!(
        world.voice.regions_for(UserId(7), CHANNEL).unwrap_err(),
        VoiceError::ChannelNotFound
    );
    assert_eq!(
        set(&mut world, UserId(3), 10, Some(EU)),
        Err(VoiceError::PermissionDenied)
    );
    assert_eq!(
        set(&mut world, UserId(7), 10, Some(EU)),
        Err(VoiceError::ChannelNotFound)
    );
    assert_eq!(
        set(&mut world, MODERATOR, 12, Some(EU)),
        Err(VoiceError::InvalidChannelType)
    );
    assert_eq!(
        set(&mut world, MODERATOR, 10, Some("vip")),
        Err(VoiceError::RestrictedRegion)
    );
    assert_eq!(
        set(&mut world, MODERATOR, 10, Some("nowhere")),
        Err(VoiceError::RestrictedRegion)
    );
    world.sync(vec![
        json!({"kind": "guild", "id": GUILD, "owner_id": "1", "features": ["VIP_VOICE"]}),
    ]);
    set(&mut world, MODERATOR, 10, Some("vip")).unwrap();
    let ann = world.client(3);
    assert_eq!(world.join(ann, "10").place.0.region, "vip");
}

#[test]
fn a_region_that_the_request_names_counts_for_an_unused_room() {
    let mut world = World::new();
    let join = |region: &str| Join {
        region: Some(region.into()),
        region_must_exist: true,
        ..Join::new(UserId(3), None, CHANNEL)
    };
    assert_eq!(
        world.voice.join(world.now, join("nowhere")),
        Err(VoiceError::UnknownRegion)
    );
    assert_eq!(world.voice.join(world.now, join(EU)).unwrap().region_id, EU);
    assert_eq!(
        world.voice.join(world.now, join(US)).unwrap().region_id,
        EU,
        "somebody is expected there"
    );
    let vip = json!({"id": "vip", "name": "vip", "vip_only": true});
    world.voice.put_region(serde_json::from_value(vip).unwrap()).unwrap();
    world.put_server("vip", json!({}));
    world.seconds(60);
    assert_eq!(
        world.voice.join(world.now, join("vip")).unwrap().region_id,
        US,
        "known, but not for this guild"
    );
}

#[test]
fn when_a_server_goes_its_rooms_go_elsewhere() {
    let mut world = World::new();
    let (ann, bob) = (world.client(3), world.client(4));
    world.join(ann, "10");
    world.join(bob, "20");
    let us = ServerKey {
        region: US.into(),
        server: "a".into(),
    };
    world.voice.handle_server_health(world.now, &us, true);
    world.settle();
    let new = [world.invitations(ann).remove(0), world.invitations(bob).remove(0)];
    for invitation in &new {
        assert_eq!(invitation.place.0.region, EU);
        assert!(world.connect(invitation));
    }
    world.seconds(10);
    assert_eq!(world.present(), [(10, 3), (20, 4)]);
    // It comes back: the room stays where it is.
    world.voice.handle_server_health(world.now, &us, false);
    world.settle();
    assert!(world.invitations(ann).is_empty());
    world.voice.remove_region(world.now, EU).unwrap();
    world.settle();
    assert_eq!(world.invitations(ann).remove(0).place.0.region, US);
    assert_eq!(world.voice.remove_region(world.now, EU), Err(VoiceError::UnknownRegion));
    assert_eq!(
        world.voice.remove_server(
            world.now,
            &ServerKey {
                server: "b".into(),
                ..us
            }
        ),
        Err(VoiceError::UnknownServer)
    );
}

#[test]
fn records_are_checked_and_secrets_are_not_shown() {
    let mut world = World::new();
    let server = |more: serde_json::Value| {
        let mut record = json!({"region_id": US, "server_id": "b", "endpoint": "wss://b.test/livekit", "api_key": "k", "api_secret": "s3cret"});
        for (name, value) in more.as_object().unwrap() {
            record[name] = value.clone();
        }
        serde_json::from_value::<Server>(record).unwrap()
    };
    for (more, error) in [
        (json!({"server_id": ""}), RecordError::Id),
        (json!({"server_id": "a b"}), RecordError::Id),
        (json!({"endpoint": "b.test"}), RecordError::Endpoint),
        (json!({"endpoint": "ftp://b.test"}), RecordError::Endpoint),
        (json!({"endpoint": "wss://"}), RecordError::Endpoint),
        (json!({"endpoint": "wss://user@b.test"}), RecordError::Endpoint),
        (json!({"api_key": ""}), RecordError::Key),
        (json!({"api_secret": "ö".repeat(257)}), RecordError::Key),
        (json!({"latitude": 91.0, "longitude": 0.0}), RecordError::Coordinates),
        (json!({"latitude": 1.0}), RecordError::Coordinates),
    ] {
        let outcome = world.voice.put_server(world.now, server(more.clone()));
        assert_eq!(outcome, Err(VoiceError::Record(error)), "{more}");
    }
    let nowhere = server(json!({"region_id": "nowhere"}));
    assert_eq!(
        world.voice.put_server(world.now, nowhere),
        Err(VoiceError::UnknownRegion)
    );
    let longest = server(json!({"api_secret": "ö".repeat(256)}));
    assert_eq!(world.voice.put_server(world.now, longest), Ok(()));
    let good = server(json!({}));
    assert_eq!(good.api_url(), "https://b.test/livekit");
    let shown = serde_json::to_string(&good.view()).unwrap() + &format!("{good:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("api_key"), "{shown}");
}
