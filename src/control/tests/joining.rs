//! What a client hears when it comes in, in both forms.

use livekit_protocol::participant_info::State;
use livekit_protocol::signal_response::Message;

use super::world::{World, camera, entry, microphone, name};
use crate::media::edge::Command;

#[test]
fn alone_in_single_form() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let join = world.client(alice).join_response();
    let me = join.participant.clone().unwrap();
    assert!(me.sid.starts_with("PA_") && me.sid.len() == 15);
    assert_eq!((me.state(), me.version), (State::Joining, 0));
    assert!(join.room.clone().unwrap().sid.starts_with("RM_"));
    assert!(!join.subscriber_primary && join.fast_publish);
    assert_eq!((join.ping_interval, join.ping_timeout), (5, 15));
    assert_eq!(join.sif_trailer.len(), 43);
    let codecs: Vec<String> = join
        .enabled_publish_codecs
        .iter()
        .map(|codec| codec.mime.clone())
        .collect();
    let expected = ["video/VP8", "video/H264", "video/VP9", "video/AV1", "video/H265"];
    assert_eq!(codecs[..5], expected);
    assert_eq!(codecs[5..], ["audio/PCMU", "audio/PCMA", "audio/opus", "audio/red"]);
    // As in the recording: no room_update for the first one, whose count nobody has to learn.
    assert_eq!(
        world.client(alice).names(),
        ["join", "refresh_token", "answer", "trickle", "trickle"]
    );
    assert_eq!(world.states(), [("alice".into(), State::Active)]);
    world.after_ms(3000);
    let update = world
        .client(alice)
        .update_about("alice")
        .expect("an update about itself");
    assert_eq!((update.state(), update.version), (State::Active, 2));
}

#[test]
fn alone_in_dual_form() {
    let mut world = World::new();
    let alice = world.join(entry("alice").dual());
    assert!(world.client(alice).join_response().subscriber_primary);
    let told = world.client(alice).told();
    let names: Vec<&str> = told.iter().map(name).collect();
    assert_eq!(
        names,
        [
            "join",
            "refresh_token",
            "offer",
            "trickle",
            "trickle",
            "answer",
            "trickle",
            "trickle"
        ]
    );
    let Message::Offer(offer) = &told[2] else { panic!() };
    assert_eq!(offer.sdp.matches("\r\nm=").count(), 1, "data channels only");
    assert!(offer.mid_to_track_id.is_empty());
    let Message::Trickle(last) = &told[4] else { panic!() };
    assert!(last.r#final && last.target == 1 && last.candidate_init.contains("candidate:"));
    let Message::Answer(answer) = &told[5] else { panic!() };
    assert_eq!(answer.id, 1);
    let opened = world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.open_channels.len()),
        _ => None,
    });
    assert_eq!(
        opened,
        [3, 0],
        "the server opens the channels on the connection it offers"
    );
    assert_eq!(world.states(), [("alice".into(), State::Active)]);
}

#[test]
fn a_late_joiner_gets_existing_tracks_in_its_first_answer() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.publish(alice, camera("cam"));
    let mic = world.publish(alice, microphone("mic"));
    world.after_ms(10_000);
    let bob = world.join(entry("bob"));
    let others = world.client(bob).join_response().other_participants;
    assert_eq!(others.len(), 1);
    assert_eq!(others[0].tracks.len(), 2);
    let told = world.client(bob).told();
    let names: Vec<&str> = told.iter().map(name).collect();
    assert_eq!(
        names,
        [
            "join",
            "room_update",
            "refresh_token",
            "subscription_permission_update",
            "subscription_permission_update",
            "answer",
            "trickle",
            "trickle"
        ]
    );
    let Message::Answer(answer) = &told[5] else { panic!() };
    assert_eq!(answer.mid_to_track_id.get("0"), Some(&mic.sid));
    assert_eq!(answer.mid_to_track_id.len(), 2);
    let subscribed = world.commands(|command| match command {
        Command::Subscribe(subscribe) => Some(subscribe.mid.to_string()),
        _ => None,
    });
    assert_eq!(subscribed, ["0", "3"]);
    // Nothing is left to negotiate.
    world.after_ms(1000);
    assert!(!world.client(bob).names().contains(&"media_sections_requirement"));
}

#[test]
fn a_late_joiner_in_dual_form_gets_them_in_the_second_offer() {
    let mut world = World::new();
    let alice = world.join(entry("alice").dual());
    world.publish(alice, camera("cam"));
    world.after_ms(10_000);
    let bob = world.join(entry("bob").dual());
    let names = world.client(bob).names();
    assert_eq!(
        names[..6],
        ["join", "room_update", "refresh_token", "offer", "trickle", "trickle"]
    );
    assert_eq!(names.iter().filter(|name| **name == "offer").count(), 1);
    world.after_ms(150);
    let told = world.client(bob).told();
    let Some(Message::Offer(offer)) = told.iter().find(|message| name(message) == "offer") else {
        panic!("{told:?}")
    };
    assert_eq!(offer.mid_to_track_id.len(), 1);
    assert!(told.iter().any(|message| name(message) == "stream_state_update"));
}

#[test]
fn the_publish_only_connection_has_a_name_of_its_own_and_receives_nothing() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.publish(alice, microphone("mic"));
    let second = world.join(
        entry("alice")
            .dual()
            .parameters(|it| it.publish = Some("screen".into())),
    );
    let join = world.client(second).join_response();
    assert_eq!(join.participant.unwrap().identity, "alice#screen");
    assert!(!join.subscriber_primary);
    world.after_ms(1000);
    assert!(!world.client(second).names().contains(&"subscription_permission_update"));
    assert!(!world.client(alice).closed);
    world.publish(second, camera("cam"));
    assert!(world.client(alice).update_about("alice#screen").is_some());
}

#[test]
fn hidden_participants_are_seen_by_nobody_else() {
    let mut world = World::new();
    let ghost = world.join(entry("ghost").grant(|grant| grant.hidden = true));
    let alice = world.join(entry("alice"));
    assert!(world.client(alice).join_response().other_participants.is_empty());
    world.after_ms(4000);
    assert!(world.client(alice).update_about("ghost").is_none());
    assert!(world.client(ghost).update_about("ghost").is_some());
    world.leave(ghost);
    world.after_ms(4000);
    assert!(world.client(alice).update_about("ghost").is_none());
}

#[test]
fn firefox_gets_a_full_ice_agent() {
    let mut world = World::new();
    world.join(entry("alice").parameters(|it| it.client_info.browser = "firefox".into()));
    world.join(entry("bob").parameters(|it| it.disable_ice_lite = true));
    world.join(entry("carol"));
    let lite = world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.ice_lite),
        _ => None,
    });
    assert_eq!(lite, [false, false, true]);
}
