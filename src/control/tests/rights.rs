//! Rights given and taken while the call goes on.

use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{ParticipantPermission, SubscriptionPermission, TrackPermission, UpdateParticipantMetadata};

use super::world::{World, camera, entry, microphone, name};
use crate::media::edge::Command;

#[test]
fn revoking_publish_takes_the_tracks_and_tells_the_client() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(bob, camera("cam"));
    world.publish(bob, microphone("mic"));
    world.after_ms(1000);
    world.client(bob).told();
    let permission = ParticipantPermission {
        can_subscribe: true,
        ..Default::default()
    };
    world
        .room
        .update_permission(world.now, &"bob".into(), &permission)
        .unwrap();
    world.pump();
    assert_eq!(
        world.client(bob).names(),
        [
            "update",
            "track_unpublished",
            "update",
            "track_unpublished",
            "update",
            "update",
            "refresh_token"
        ]
    );
    let info = world.client(alice).update_about("bob").unwrap();
    assert!(info.tracks.is_empty() && !info.is_publisher);
    assert_eq!(info.permission.unwrap(), permission);
    let unpublished = world.commands(|command| matches!(command, Command::Unpublish { .. }).then_some(()));
    assert_eq!(unpublished.len(), 2);
    let rights = world.commands(|command| match command {
        Command::SetParticipant(participant) => Some(participant.rights.can_publish_data),
        _ => None,
    });
    assert_eq!(rights.last(), Some(&false));
    // What the client goes on sending is bound to nothing, and a new announcement is refused.
    let before = world.media.len();
    world.offer(bob);
    assert!(
        !world.media[before..]
            .iter()
            .any(|command| matches!(command, Command::Publish(_)))
    );
    world.client(bob).told();
    world.send(bob, Request::AddTrack(camera("cam3")));
    let told = world.client(bob).told();
    assert!(matches!(&told[..], [Message::RequestResponse(response)] if response.reason() == Reason::NotAllowed));
}

#[test]
fn can_subscribe_given_later_brings_the_tracks() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").grant(|grant| grant.can_subscribe = Some(false)));
    world.publish(alice, camera("cam"));
    world.after_ms(1000);
    assert!(world.client(bob).mids.is_empty());
    let mut permission = ParticipantPermission {
        can_subscribe: true,
        ..Default::default()
    };
    world
        .room
        .update_permission(world.now, &"bob".into(), &permission)
        .unwrap();
    world.pump();
    world.after_ms(1000);
    assert_eq!(world.client(bob).mids.len(), 1);
    permission.can_subscribe = false;
    world
        .room
        .update_permission(world.now, &"bob".into(), &permission)
        .unwrap();
    world.pump();
    world.after_ms(1000);
    assert!(world.client(bob).mids.is_empty());
}

#[test]
fn a_publisher_decides_who_may_subscribe() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let carol = world.join(entry("carol"));
    world.publish(alice, camera("cam"));
    world.after_ms(1000);
    world.client(bob).told();
    let only_carol = SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![TrackPermission {
            participant_identity: "carol".into(),
            all_tracks: true,
            ..Default::default()
        }],
    };
    world.send(alice, Request::SubscriptionPermission(only_carol));
    let told = world.client(bob).told();
    let Some(Message::SubscriptionPermissionUpdate(update)) = told.first() else {
        panic!("{told:?}")
    };
    assert!(!update.allowed);
    world.after_ms(1000);
    assert!(world.client(bob).mids.is_empty());
    assert_eq!(world.client(carol).mids.len(), 1);

    world.client(bob).told();
    let everybody = SubscriptionPermission {
        all_participants: true,
        ..Default::default()
    };
    world.send(alice, Request::SubscriptionPermission(everybody));
    world.after_ms(1000);
    assert_eq!(world.client(bob).mids.len(), 1);
    let allowed = world
        .client(bob)
        .told()
        .iter()
        .any(|message| matches!(message, Message::SubscriptionPermissionUpdate(update) if update.allowed));
    assert!(allowed);
}

#[test]
fn own_metadata_is_shown_signed_and_acknowledged_in_this_order() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").grant(|grant| grant.can_update_own_metadata = None));
    world.client(alice).told();
    let update = |metadata: &str, key: &str, value: &str| {
        Request::UpdateMetadata(UpdateParticipantMetadata {
            metadata: metadata.into(),
            attributes: [(key.to_owned(), value.to_owned())].into(),
            request_id: 7,
            ..Default::default()
        })
    };
    world.send(alice, update("m1", "k", "v"));
    let told = world.client(alice).told();
    let names: Vec<&str> = told.iter().map(name).collect();
    assert_eq!(names, ["update", "refresh_token", "request_response"]);
    let Message::RequestResponse(response) = &told[2] else {
        panic!()
    };
    assert_eq!((response.request_id, response.reason()), (7, Reason::Ok));
    let info = world.client(bob).update_about("alice").unwrap();
    assert_eq!(
        (info.metadata.as_str(), info.attributes.get("k").map(String::as_str)),
        ("m1", Some("v"))
    );
    world.send(alice, update("", "k", ""));
    let info = world.client(bob).update_about("alice").unwrap();
    assert_eq!((info.metadata.as_str(), info.attributes.len()), ("m1", 0));

    world.client(alice).told();
    world.send(alice, update(&"x".repeat(512 * 1024 + 1), "k", ""));
    let told = world.client(alice).told();
    assert!(matches!(&told[..], [Message::RequestResponse(response)] if response.reason() == Reason::LimitExceeded));
    world.client(bob).told();
    world.send(bob, update("m2", "k", "v"));
    let told = world.client(bob).told();
    assert!(matches!(&told[..], [Message::RequestResponse(response)] if response.reason() == Reason::NotAllowed));
}

#[test]
fn a_remote_mute_is_an_order_and_unmute_needs_the_setting() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let track = world.publish(alice, microphone("mic"));
    world.client(alice).told();
    let info = world
        .room
        .mute_track(&"alice".into(), &track.sid.as_str().into(), true)
        .unwrap();
    world.pump();
    assert!(info.unwrap().muted);
    assert_eq!(world.client(alice).names(), ["mute", "update"]);
    assert!(
        world
            .room
            .mute_track(&"alice".into(), &track.sid.as_str().into(), false)
            .is_err()
    );
    assert_eq!(
        world.room.mute_track(&"alice".into(), &"TR_x".into(), true).unwrap(),
        None
    );
}

#[test]
fn tokens_are_renewed_every_five_minutes() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.client(alice).told();
    world.after_ms(5 * 60 * 1000);
    let told = world.client(alice).told();
    let token = told.iter().find_map(|message| match message {
        Message::RefreshToken(token) => Some(token.clone()),
        _ => None,
    });
    let keys = [("key", "secret")].into_iter().collect();
    let unix = world.room.wall.unix(world.now);
    let claims = crate::proto::claims::verify(&token.expect("a token"), &keys, unix).expect("a good token");
    assert_eq!((claims.identity.as_str(), claims.kind.as_str()), ("alice", "standard"));
    assert!(claims.remaining(unix) >= std::time::Duration::from_secs(600));
}
