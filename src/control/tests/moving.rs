//! Two rooms of one shard, and somebody who goes from the one to the other with everything it has.

use livekit_protocol::DisconnectReason;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;

use super::world::{Entry, World, camera, entry, microphone, name};
use crate::control::{ConnectionHandle, RoomEvent, RoomSettings};
use crate::media::edge::Command;
use crate::proto::claims::ApiKeys;
use crate::types::Identity;

/// Takes a participant from one room's world to another's. Numbers of connections must not meet.
fn carry(from: &mut World, to: &mut World, connection: ConnectionHandle, identity: &str) {
    let traveller = from.room.let_go(from.now, &Identity(identity.into())).unwrap();
    from.pump();
    let client = from.clients.remove(&connection).unwrap();
    to.clients.insert(connection, client);
    to.room.take_in(to.now, traveller).unwrap();
    to.pump();
}

fn worlds() -> (World, World) {
    let (a, mut b) = (World::new(), World::second());
    b.now = a.now;
    (a, b)
}

fn moved(entry: impl Fn(&str) -> Entry) {
    let (mut a, mut b) = worlds();
    let alice = a.join(entry("alice"));
    let bob = a.join(entry("bob"));
    let carol = b.join(entry("carol"));
    let picture = a.publish(alice, camera("c1"));
    let voice = a.publish(alice, microphone("c2"));
    a.publish(bob, camera("c3"));
    let other = b.publish(carol, camera("c4"));
    a.after_ms(1_000);
    b.after_ms(1_000);
    b.now = a.now;
    let sid = a.room.participant(&Identity("alice".into())).unwrap().sid;
    let before = a.media.len();
    assert!(a.room.can_let_go(&Identity("alice".into())));
    a.client(alice).told();
    a.client(bob).told();
    b.client(carol).told();

    carry(&mut a, &mut b, alice, "alice");
    let gone = a.client(bob).update_about("alice").unwrap();
    assert_eq!(
        (gone.state(), gone.disconnect_reason()),
        (State::Disconnected, DisconnectReason::Migration)
    );
    let ends = |command: &&Command| matches!(command, Command::Unpublish { .. } | Command::CloseTransport { .. });
    assert_eq!(a.media[before..].iter().filter(ends).count(), 0, "her media goes on");
    let left =
        |event: &RoomEvent| matches!(event, RoomEvent::ParticipantLeft { participant } if participant.sid == sid);
    assert!(a.happened.iter().any(left));

    b.after_ms(1_000);
    let told = b.client(alice).told();
    let names: Vec<&str> = told.iter().map(name).collect();
    assert_eq!(names[0], "room_moved", "{names:?}");
    assert!(!names.contains(&"leave") && !names.contains(&"join"));
    let Message::RoomMoved(news) = &told[0] else { panic!() };
    assert_eq!(news.room.as_ref().unwrap().name, "other");
    assert_eq!(news.other_participants[0].identity, "carol");
    assert_eq!(news.other_participants[0].tracks[0].sid, other.sid);
    let info = news.participant.as_ref().unwrap();
    assert_eq!((&info.sid, info.state()), (&sid, State::Active));
    let mut sids: Vec<&String> = info.tracks.iter().map(|track| &track.sid).collect();
    sids.sort();
    let mut expected = [&picture.sid, &voice.sid];
    expected.sort();
    assert_eq!(sids, expected);
    let mut keys = ApiKeys::default();
    keys.insert("key", "secret");
    let unix = b.room.wall.unix(b.now);
    let claims = crate::proto::claims::verify(&news.token, &keys, unix).unwrap();
    assert_eq!(claims.video.unwrap().room, "other");

    // What she was shown is taken away before the m-lines carry anything else.
    let maps: Vec<usize> = told
        .iter()
        .filter_map(|message| match message {
            Message::Answer(description) | Message::Offer(description) => Some(description.mid_to_track_id.len()),
            _ => None,
        })
        .collect();
    assert_eq!((maps[0], *maps.last().unwrap()), (0, 1), "{maps:?}");
    assert!(b.client(alice).mids.values().any(|track| *track == other.sid));
    // And carol is shown her tracks, under the new handles.
    let seen: Vec<String> = b.client(carol).mids.values().cloned().collect();
    assert!(seen.contains(&picture.sid) && seen.contains(&voice.sid), "{seen:?}");
    let here = b.client(carol).update_about("alice").unwrap();
    assert_eq!((here.sid, here.tracks.len()), (sid, 2));
    let renamed = b.commands(|command| match command {
        Command::MoveTransport(its) => Some(its.tracks.clone()),
        _ => None,
    });
    let renamed: Vec<_> = renamed.into_iter().flatten().map(|(_, new)| new).collect();
    assert_eq!(renamed.len(), 2);
    let forwarded: Vec<_> = b.forwarded().into_iter().map(|(_, track)| track).collect();
    assert!(renamed.iter().all(|track| forwarded.contains(track)), "{forwarded:?}");
    let happened: Vec<&str> = b
        .happened
        .iter()
        .filter_map(|event| match event {
            RoomEvent::ParticipantJoined { participant } if participant.identity == "alice" => Some("joined"),
            RoomEvent::TrackPublished { participant, .. } if participant.identity == "alice" => Some("published"),
            _ => None,
        })
        .collect();
    assert_eq!(happened, ["joined", "published", "published"]);

    // She is one like any other there.
    b.publish(alice, microphone("c9"));
    b.after_ms(1_000);
    assert_eq!(b.client(carol).update_about("alice").unwrap().tracks.len(), 3);
    b.leave(alice);
    assert!(b.client(alice).closed);
    assert!(
        b.media
            .iter()
            .any(|command| matches!(command, Command::CloseTransport { .. }))
    );
}

#[test]
fn who_is_moved_keeps_what_it_has_single() {
    moved(entry);
}

#[test]
fn who_is_moved_keeps_what_it_has_dual() {
    moved(|identity| entry(identity).dual());
}

#[test]
fn ssrcs_of_the_room_before_do_not_come_again() {
    let (mut a, mut b) = worlds();
    let alice = a.join(entry("alice"));
    let carol = b.join(entry("carol"));
    for cid in ["1", "2", "3"] {
        let bob = a.join(entry(cid));
        a.publish(bob, microphone(cid));
    }
    b.publish(carol, microphone("c"));
    a.after_ms(1_000);
    b.after_ms(1_000);
    // Both rooms count alike.
    carry(&mut a, &mut b, alice, "alice");
    b.after_ms(1_000);
    let ssrcs = |world: &World| {
        world.commands(|command| match command {
            Command::Subscribe(subscribe) => Some(subscribe.ssrc),
            _ => None,
        })
    };
    let before = ssrcs(&a);
    let after = ssrcs(&b);
    let hers = after.last().unwrap();
    assert!(!before.contains(hers), "{hers:?} of {before:?}");
}

#[test]
fn nobody_is_moved_into_a_full_room() {
    let mut a = World::new();
    let mut b = World::with(RoomSettings {
        max_participants: 1,
        ..RoomSettings::default()
    });
    b.join(entry("carol"));
    let alice = a.join(entry("alice"));
    a.after_ms(1_000);
    let traveller = a.room.let_go(a.now, &Identity("alice".into())).unwrap();
    assert_eq!(traveller.connection(), Some(alice));
    let traveller = b.room.take_in(b.now, traveller).unwrap_err();
    let (message, commands) = traveller.turned_back();
    assert!(matches!(message, Some(Message::Leave(_))));
    assert!(matches!(commands[..], [Command::CloseTransport { .. }]));
}

#[test]
fn who_has_no_socket_or_does_not_know_of_moving_starts_over() {
    let mut a = World::new();
    let alice = a.join(entry("alice"));
    let old = entry("old").parameters(|parameters| parameters.client_info.protocol = 15);
    a.join(old);
    a.after_ms(1_000);
    let can = |world: &World, identity: &str| world.room.can_let_go(&Identity(identity.into()));
    assert!(can(&a, "alice") && !can(&a, "old") && !can(&a, "nobody"));
    a.drop_socket(alice);
    assert!(!can(&a, "alice"));
}

#[test]
fn the_same_identity_is_put_out_of_the_room_that_it_comes_to() {
    let (mut a, mut b) = worlds();
    let alice = a.join(entry("alice"));
    let there = b.join(entry("alice"));
    a.after_ms(1_000);
    b.after_ms(1_000);
    carry(&mut a, &mut b, alice, "alice");
    let leave = b.client(there).leave_received().unwrap();
    assert_eq!(leave.reason(), DisconnectReason::DuplicateIdentity);
    assert_eq!(b.states(), [("alice".to_owned(), State::Active)]);
    b.send(alice, Request::Leave(Default::default()));
    assert!(b.states().is_empty());
}
