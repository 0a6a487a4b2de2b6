//! A participant of one room, shown in another.

use livekit_protocol::participant_info::{KindDetail, State};
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{MuteTrackRequest, UpdateParticipantMetadata};

use super::world::{World, camera, entry, microphone};
use crate::control::{ForwardError, RoomEvent, RoomSettings};
use crate::media::edge::Command;
use crate::types::{Identity, TrackHandle};

fn alice() -> Identity {
    Identity("alice".into())
}

/// What the node does after every turn.
fn carry_on(from: &mut World, to: &mut World) {
    for (source, forwarding) in from.room.take_forwarded() {
        match forwarding {
            Some(forwarding) => to.room.follow(to.now, *forwarding),
            None => to.room.stop_showing(to.now, source),
        }
    }
    to.pump();
    to.after_ms(1_000);
}

fn shown(world: &World) -> Vec<(TrackHandle, TrackHandle)> {
    world.commands(|command| match command {
        Command::ShowTrack { source, publish } => Some((*source, publish.track)),
        _ => None,
    })
}

#[test]
fn a_participant_is_shown_in_another_room_and_followed() {
    let (mut a, mut b) = (World::new(), World::second());
    let at_home = a.join(entry("alice"));
    let carol = b.join(entry("carol"));
    let picture = a.publish(at_home, camera("c1"));
    a.after_ms(1_000);
    b.after_ms(1_000);
    let forwarding = a.room.forward(a.now, &alice()).unwrap();
    let source = forwarding.source;
    b.room.show(b.now, *forwarding).unwrap();
    carry_on(&mut a, &mut b);
    assert!(b.room.shows(source));
    let seen = b.client(carol).update_about("alice").unwrap();
    assert_eq!((seen.state(), seen.tracks.len()), (State::Active, 1));
    assert_eq!(seen.tracks[0].sid, picture.sid);
    assert!(seen.kind_details.contains(&(KindDetail::Forwarded as i32)));
    let published: Vec<TrackHandle> = a.commands(|command| match command {
        Command::Publish(publish) => Some(publish.track),
        _ => None,
    });
    assert_eq!(
        shown(&b).iter().map(|(source, _)| *source).collect::<Vec<_>>(),
        published
    );
    let forwarded: Vec<TrackHandle> = b.forwarded().into_iter().map(|(_, track)| track).collect();
    assert_eq!(forwarded, [shown(&b)[0].1], "carol is sent what is shown here");

    // It is what it is at home: tracks, mutes, names.
    let voice = a.publish(at_home, microphone("c2"));
    carry_on(&mut a, &mut b);
    assert_eq!(b.client(carol).update_about("alice").unwrap().tracks.len(), 2);
    let mute = MuteTrackRequest {
        sid: voice.sid.clone(),
        muted: true,
    };
    a.send(at_home, Request::Mute(mute));
    carry_on(&mut a, &mut b);
    let seen = b.client(carol).update_about("alice").unwrap();
    assert!(seen.tracks.iter().any(|track| track.sid == voice.sid && track.muted));
    assert!(
        b.media
            .iter()
            .any(|command| matches!(command, Command::MuteTrack { muted: true, .. }))
    );
    let named = UpdateParticipantMetadata {
        name: "Alice".into(),
        ..Default::default()
    };
    a.send(at_home, Request::UpdateMetadata(named));
    carry_on(&mut a, &mut b);
    assert_eq!(b.client(carol).update_about("alice").unwrap().name, "Alice");
    a.unpublish(at_home, "c1");
    carry_on(&mut a, &mut b);
    let seen = b.client(carol).update_about("alice").unwrap();
    assert_eq!(
        seen.tracks.iter().map(|track| &track.sid).collect::<Vec<_>>(),
        [&voice.sid]
    );
    assert!(
        b.media
            .iter()
            .any(|command| matches!(command, Command::Unpublish { .. }))
    );

    a.leave(at_home);
    carry_on(&mut a, &mut b);
    assert!(!b.room.shows(source));
    assert_eq!(
        b.client(carol).update_about("alice").unwrap().state(),
        State::Disconnected
    );
    let happened: Vec<&str> = b
        .happened
        .iter()
        .filter_map(|event| match event {
            RoomEvent::ParticipantJoined { participant } if participant.identity == "alice" => Some("joined"),
            RoomEvent::ParticipantLeft { participant } if participant.identity == "alice" => Some("left"),
            RoomEvent::TrackPublished { .. } => Some("published"),
            RoomEvent::TrackUnpublished { .. } => Some("unpublished"),
            _ => None,
        })
        .collect();
    assert_eq!(
        happened,
        ["joined", "published", "published", "unpublished", "unpublished", "left"]
    );
}

#[test]
fn what_nobody_watches_at_home_is_still_encoded_for_the_other_room() {
    let mut a = World::new();
    let at_home = a.join(entry("alice"));
    let bob = a.join(entry("bob"));
    a.publish(at_home, camera("c1"));
    a.after_ms(1_000);
    let source = a.room.forward(a.now, &alice()).unwrap().source;
    a.leave(bob);
    a.client(at_home).told();
    a.after_ms(20_000);
    let ends = |world: &mut World| {
        let told = world.client(at_home).told();
        let mut updates = told.iter().filter_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => Some(update.clone()),
            _ => None,
        });
        updates
            .next_back()
            .is_some_and(|update| update.subscribed_qualities.iter().all(|quality| !quality.enabled))
    };
    assert!(!ends(&mut a));
    a.room.stop_forwarding(a.now, source);
    a.pump();
    a.after_ms(20_000);
    assert!(ends(&mut a));
}

#[test]
fn who_cannot_be_shown_is_not() {
    let mut a = World::new();
    a.join(entry("alice"));
    a.after_ms(1_000);
    let forwarding = a.room.forward(a.now, &alice()).unwrap();
    let mut taken = World::second();
    taken.join(entry("alice"));
    assert_eq!(
        taken.room.show(taken.now, (*forwarding).clone()),
        Err(ForwardError::IdentityTaken)
    );
    let mut full = World::with(RoomSettings {
        max_participants: 1,
        ..RoomSettings::default()
    });
    full.join(entry("bob"));
    assert_eq!(full.room.show(full.now, (*forwarding).clone()), Err(ForwardError::Full));
    let mut other = World::second();
    assert_eq!(other.room.show(other.now, (*forwarding).clone()), Ok(()));
    assert_eq!(other.room.show(other.now, *forwarding), Ok(()), "once is enough");
    assert!(other.room.forward(other.now, &alice()).is_err(), "it is not from there");
    // Its own client may come, and may take no session over that it never had.
    let mut back = entry("alice");
    back.parameters.reconnect = true;
    let resumed = other.try_join(back).unwrap();
    assert!(other.client(resumed).closed);
    let joined = other.join(entry("alice"));
    assert!(!other.client(joined).closed);
    assert_eq!(other.states().len(), 1);
}

#[test]
fn what_is_shown_can_be_put_out() {
    let (mut a, mut b) = (World::new(), World::second());
    a.join(entry("alice"));
    a.after_ms(1_000);
    let forwarding = a.room.forward(a.now, &alice()).unwrap();
    let source = forwarding.source;
    b.room.show(b.now, *forwarding).unwrap();
    b.pump();
    b.room.remove_participant(b.now, &alice()).unwrap();
    b.pump();
    assert!(!b.room.shows(source));
    carry_on(&mut a, &mut b);
    assert!(b.room.participants().is_empty());
}
