//! A participant of one room, shown in another.

use livekit_protocol::participant_info::{KindDetail, State};
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{MuteTrackRequest, TrackInfo, UpdateParticipantMetadata, UpdateTrackSettings, VideoQuality};

use super::world::{World, camera, entry, microphone};
use crate::control::{ConnectionHandle, ForwardError, RoomEvent, RoomSettings};
use crate::media::edge::Command;
use crate::types::{Identity, ParticipantHandle, RoomHandle, TrackHandle};

const OTHER: RoomHandle = RoomHandle(77);

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
    for demand in to.room.take_demands() {
        from.room.handle_demand(from.now, OTHER, demand);
    }
    from.pump();
}

fn shown(world: &World) -> Vec<(TrackHandle, TrackHandle)> {
    world.commands(|command| match command {
        Command::ShowTrack { source, publish } => Some((*source, publish.track)),
        _ => None,
    })
}

/// Alice's camera, at home in one room and shown in another, where Carol is.
struct Shown {
    a: World,
    b: World,
    at_home: ConnectionHandle,
    carol: ConnectionHandle,
    picture: TrackInfo,
    source: ParticipantHandle,
}

impl Shown {
    fn new() -> Self {
        let (mut a, mut b) = (World::new(), World::second());
        let at_home = a.join(entry("alice"));
        let carol = b.join(entry("carol"));
        let picture = a.publish(at_home, camera("c1"));
        a.after_ms(1_000);
        b.after_ms(1_000);
        let forwarding = a.room.forward(&alice()).unwrap();
        let source = forwarding.source;
        b.room.show(b.now, *forwarding).unwrap();
        carry_on(&mut a, &mut b);
        Self {
            a,
            b,
            at_home,
            carol,
            picture,
            source,
        }
    }
}

#[test]
fn a_participant_is_shown_in_another_room_and_followed() {
    let Shown {
        mut a,
        mut b,
        at_home,
        carol,
        picture,
        source,
    } = Shown::new();
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

/// Alice publishes at home, where nobody watches; what she is asked for is what is wanted in the room that shows her, and
/// no more than that.
#[test]
fn what_the_other_room_wants_is_encoded() {
    let Shown {
        mut a,
        mut b,
        at_home,
        carol,
        picture,
        source,
    } = Shown::new();
    a.after_ms(20_000);
    // Enabled qualities, lowest first, as she was told last.
    let mut asked = Vec::new();
    let mut heard = |world: &mut World| {
        for message in world.client(at_home).told() {
            if let Message::SubscribedQualityUpdate(update) = message {
                asked = update
                    .subscribed_qualities
                    .iter()
                    .map(|quality| quality.enabled)
                    .collect();
            }
        }
        asked.clone()
    };
    assert_eq!(heard(&mut a), [true; 3], "carol has everything");
    let wish = |change: fn(&mut UpdateTrackSettings)| {
        let mut settings = UpdateTrackSettings {
            track_sids: vec![picture.sid.clone()],
            quality: VideoQuality::High as i32,
            ..Default::default()
        };
        change(&mut settings);
        Request::TrackSetting(settings)
    };
    b.send(carol, wish(|settings| settings.quality = VideoQuality::Low as i32));
    b.after_ms(20_000);
    carry_on(&mut a, &mut b);
    a.after_ms(20_000);
    assert_eq!(heard(&mut a), [true, false, false]);
    b.send(carol, wish(|settings| settings.quality = VideoQuality::Medium as i32));
    carry_on(&mut a, &mut b);
    assert_eq!(heard(&mut a), [true, true, false]);
    // Bob, at home, wants more, and then nothing.
    let bob = a.join(entry("bob"));
    a.after_ms(1_000);
    assert_eq!(heard(&mut a), [true; 3]);
    a.leave(bob);
    a.after_ms(20_000);
    assert_eq!(heard(&mut a), [true, true, false]);
    b.send(carol, wish(|settings| settings.disabled = true));
    b.after_ms(20_000);
    carry_on(&mut a, &mut b);
    a.after_ms(20_000);
    assert_eq!(heard(&mut a), [false; 3]);
    b.send(carol, wish(|_| {}));
    carry_on(&mut a, &mut b);
    assert_eq!(heard(&mut a), [true; 3], "at once");
    // Shown no more, and with that nobody's.
    a.room.forget_demands(a.now, source, OTHER);
    a.room.stop_forwarding(source);
    a.pump();
    a.after_ms(20_000);
    assert_eq!(heard(&mut a), [false; 3]);
}

#[test]
fn who_cannot_be_shown_is_not() {
    let mut a = World::new();
    a.join(entry("alice"));
    a.after_ms(1_000);
    let forwarding = a.room.forward(&alice()).unwrap();
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
    assert!(other.room.forward(&alice()).is_err(), "it is not from there");
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
    let forwarding = a.room.forward(&alice()).unwrap();
    let source = forwarding.source;
    b.room.show(b.now, *forwarding).unwrap();
    b.pump();
    b.room.remove_participant(b.now, &alice()).unwrap();
    b.pump();
    assert!(!b.room.shows(source));
    carry_on(&mut a, &mut b);
    assert!(b.room.participants().is_empty());
}
