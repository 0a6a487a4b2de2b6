//! The room's own life: counts, timeouts, limits, and an hour of coming and going.

use std::time::Duration;

use livekit_protocol::DisconnectReason;
use livekit_protocol::signal_response::Message;

use super::world::{World, camera, entry, microphone, name};
use crate::control::{JoinError, RoomEvent, RoomSettings};
use crate::media::edge::{Command, ConnectionScore, Event};

#[test]
fn an_empty_room_ends_after_five_minutes() {
    let mut world = World::new();
    assert!(matches!(world.media[0], Command::OpenRoom { .. }));
    world.after(Duration::from_secs(299));
    assert!(!world.over);
    world.after(Duration::from_secs(2));
    assert!(world.over);
    assert!(matches!(world.media.last(), Some(Command::CloseRoom { .. })));
    assert!(matches!(
        world.happened[..],
        [RoomEvent::RoomStarted, RoomEvent::RoomFinished]
    ));
    assert_eq!(world.room.poll_timeout(), None);
    assert_eq!(world.try_join(entry("alice")).unwrap_err(), JoinError::RoomClosed);
}

#[test]
fn a_left_room_ends_after_twenty_seconds_and_takes_agents_with_it() {
    let mut world = World::new();
    let mut agent = entry("agent");
    agent.kind = "agent";
    let agent = world.join(agent);
    let alice = world.join(entry("alice"));
    assert_eq!(world.room.info().num_participants, 1);
    world.after(Duration::from_secs(400));
    assert!(!world.over);
    world.leave(alice);
    world.after(Duration::from_secs(19));
    assert!(!world.over);
    world.after(Duration::from_secs(2));
    assert!(world.over);
    assert_eq!(
        world.client(agent).leave_received().unwrap().reason(),
        DisconnectReason::RoomClosed
    );
}

#[test]
fn a_full_room_lets_only_agents_in() {
    let mut world = World::with(RoomSettings {
        max_participants: 1,
        ..Default::default()
    });
    world.join(entry("alice"));
    assert_eq!(world.try_join(entry("bob")).unwrap_err(), JoinError::RoomFull);
    world.join(entry("alice"));
    let mut agent = entry("agent");
    agent.kind = "agent";
    world.join(agent);
    assert_eq!(world.room.participants().len(), 2);
}

#[test]
fn limits_of_what_a_join_may_carry() {
    let mut world = World::new();
    let metadata = |size: usize| entry("alice").parameters(move |it| it.metadata = "x".repeat(size));
    assert_eq!(
        world.try_join(metadata(512 * 1024 + 1)).unwrap_err(),
        JoinError::MetadataTooLarge
    );
    assert_eq!(world.try_join(entry("")).unwrap_err(), JoinError::IdentityEmpty);
    assert!(matches!(
        world.try_join(entry(&"x".repeat(257))),
        Err(JoinError::IdentityTooLong { max: 256 })
    ));
    let forbidden = metadata(3).grant(|grant| grant.can_update_own_metadata = None);
    assert_eq!(world.try_join(forbidden).unwrap_err(), JoinError::NotAllowed);
    let attributes = entry("alice").parameters(|it| it.attributes = [("k".into(), "x".repeat(64 * 1024))].into());
    assert_eq!(world.try_join(attributes).unwrap_err(), JoinError::AttributesTooLarge);
    assert!(world.room.participants().is_empty());
}

#[test]
fn counts_are_told_at_most_every_five_seconds() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.join(entry("bob"));
    world.join(entry("carol"));
    let count = |world: &mut World| -> Vec<u32> {
        let told = world.client(alice).told();
        let room = |message: &Message| match message {
            Message::RoomUpdate(update) => Some(update.room.as_ref()?.num_participants),
            _ => None,
        };
        told.iter().filter_map(room).collect()
    };
    assert!(count(&mut world).is_empty());
    world.after_ms(5000);
    assert_eq!(count(&mut world), [3]);
    world.after_ms(6000);
    world.join(entry("dave"));
    assert_eq!(count(&mut world), [4], "at once after a quiet time");
}

#[test]
fn connection_quality_is_told_when_it_changes() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(alice, microphone("mic"));
    world.after_ms(1000);
    let score = |world: &mut World, mos| {
        let participant = world.client(alice).handle;
        let score = ConnectionScore { mos, lost: false };
        world.event(Event::Quality { participant, score });
        world.client(bob).told();
        world.after_ms(5000);
        world.client(bob).told().into_iter().find_map(|message| match message {
            Message::ConnectionQuality(update) => Some(update.updates),
            _ => None,
        })
    };
    let first = score(&mut world, 4.5).expect("new");
    assert_eq!(first.len(), 2, "who has no media is well connected");
    assert_eq!(score(&mut world, 4.4), None);
    let changed = score(&mut world, 3.0).expect("changed");
    assert_eq!(
        changed.iter().map(|it| it.quality).collect::<Vec<_>>(),
        [2, 1],
        "itself first"
    );
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = || {
        let mut world = World::new();
        let alice = world.join(entry("alice"));
        let bob = world.join(entry("bob").dual());
        world.publish(alice, camera("cam"));
        world.after_ms(10_000);
        let told = world.client(bob).told();
        let sdp = |message: &Message| match message {
            Message::Offer(offer) => offer.sdp.clone(),
            other => name(other).into(),
        };
        told.iter().map(sdp).collect::<Vec<String>>()
    };
    assert_eq!(story(), story());
}

#[test]
fn an_hour_of_joins_and_leaves_leaves_nothing_behind() {
    let mut world = World::new();
    let host = world.join(entry("host"));
    world.publish(host, camera("cam"));
    for round in 0..360 {
        let form = |name: String| {
            if round % 2 == 0 {
                entry(&name)
            } else {
                entry(&name).dual()
            }
        };
        let guest = world.join(form(format!("guest{round}")));
        world.publish(guest, microphone("mic"));
        world.after_ms(5000);
        if round % 3 == 0 {
            world.drop_socket(guest);
            world.join(form(format!("guest{round}")));
        }
        world.after_ms(5000);
        let guests: Vec<_> = world
            .clients
            .iter()
            .filter(|(_, client)| !client.closed)
            .map(|(it, _)| *it)
            .collect();
        for guest in guests.into_iter().filter(|guest| *guest != host) {
            world.leave(guest);
        }
        world.clients.retain(|_, client| !client.closed);
        for client in world.clients.values_mut() {
            client.told();
        }
        world.media.clear();
        world.happened.clear();
    }
    world.after_ms(4000);
    let room = &world.room;
    assert_eq!(room.participants.len(), 1);
    assert_eq!(
        (room.identities.len(), room.connections.len(), room.transports.len()),
        (1, 1, 1)
    );
    assert_eq!(
        (room.tracks.len(), room.track_handles.len(), room.subscriptions.len()),
        (1, 1, 0)
    );
    assert_eq!(
        (room.data_tracks.len(), room.updates.len(), room.speakers.len()),
        (0, 0, 0)
    );
    assert!(room.departed.len() <= 256 && room.changed_streams.is_empty());
    let host = room.participants.values().next().unwrap();
    assert!(host.wishes.is_empty() && host.subscriptions.is_empty() && host.denied.is_empty());
    assert!(
        host.publications
            .values()
            .all(|publication| publication.subscribers.is_empty())
    );
    assert!(host.told_quality.len() <= 1);
}
