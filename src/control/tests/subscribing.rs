//! Wishes, qualities, m-lines.

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{SubscriptionError, UpdateSubscription, UpdateTrackSettings};

use super::world::{World, camera, entry, microphone, name};
use crate::control::ConnectionHandle;
use crate::media::edge::{Command, Event, SpeakerLevel};

fn subscription(sid: &str, subscribe: bool) -> Request {
    Request::Subscription(UpdateSubscription {
        track_sids: vec![sid.into()],
        subscribe,
        ..Default::default()
    })
}

fn settings(sid: &str, change: impl FnOnce(&mut UpdateTrackSettings)) -> Request {
    let mut settings = UpdateTrackSettings {
        track_sids: vec![sid.into()],
        ..Default::default()
    };
    change(&mut settings);
    Request::TrackSetting(settings)
}

fn subscribes(world: &World) -> usize {
    world
        .commands(|command| matches!(command, Command::Subscribe(_)).then_some(()))
        .len()
}

/// The qualities a publisher was told last, best first codec: how many of LOW, MEDIUM, HIGH are enabled.
fn wanted(world: &mut World, publisher: ConnectionHandle) -> Option<usize> {
    world
        .client(publisher)
        .inbox
        .iter()
        .rev()
        .find_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => Some(
                update.subscribed_codecs[0]
                    .qualities
                    .iter()
                    .filter(|quality| quality.enabled)
                    .count(),
            ),
            _ => None,
        })
}

#[test]
fn unsubscribe_and_subscribe_again_in_both_forms() {
    for single in [true, false] {
        let mut world = World::new();
        let in_form = |name: &str| if single { entry(name) } else { entry(name).dual() };
        let alice = world.join(in_form("alice"));
        let bob = world.join(in_form("bob"));
        let track = world.publish(alice, camera("cam"));
        world.after_ms(1000);
        let mid = world.client(bob).mids.clone();
        assert_eq!(mid.values().next(), Some(&track.sid));

        world.send(bob, subscription(&track.sid, false));
        assert!(matches!(world.media.last(), Some(Command::Unsubscribe { .. })));
        world.after_ms(1000);
        assert!(world.client(bob).mids.is_empty());

        world.client(bob).told();
        world.client(alice).told();
        world.send(bob, subscription(&track.sid, true));
        assert_eq!(world.client(bob).names(), ["subscription_permission_update"]);
        world.after_ms(1000);
        assert_eq!(world.client(bob).mids, mid, "the m-line is used again");
        assert_eq!(subscribes(&world), 2);
        assert!(
            !world.client(alice).names().contains(&"track_subscribed"),
            "told once per track"
        );
    }
}

#[test]
fn without_auto_subscribe_only_what_is_asked_for_comes() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").parameters(|it| it.auto_subscribe = false));
    let first = world.publish(alice, microphone("mic"));
    world.publish(alice, camera("cam"));
    world.after_ms(1000);
    assert_eq!(subscribes(&world), 0);
    world.send(bob, subscription(&first.sid, true));
    world.after_ms(1000);
    assert_eq!(subscribes(&world), 1);
}

#[test]
fn five_videos_need_more_sections_than_the_client_has() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    for index in 0..5 {
        world.publish(alice, camera(&format!("cam{index}")));
    }
    world.client(bob).told();
    world.after_ms(1000);
    let requirements: Vec<u32> = world
        .client(bob)
        .told()
        .iter()
        .filter_map(|message| match message {
            Message::MediaSectionsRequirement(needed) => Some(needed.num_videos),
            _ => None,
        })
        .collect();
    assert_eq!(requirements, [2], "the three spare ones need not be asked for");
    assert_eq!(world.client(bob).mids.len(), 5);
}

#[test]
fn quality_follows_the_best_wish_up_at_once_and_down_after_five_seconds() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let carol = world.join(entry("carol"));
    let track = world.publish(alice, camera("cam"));
    assert_eq!(wanted(&mut world, alice), None, "nobody is bound yet");
    world.after_ms(1000);
    assert_eq!(wanted(&mut world, alice), Some(3));
    world.send(bob, settings(&track.sid, |it| it.quality = 1));
    world.send(carol, settings(&track.sid, |it| (it.width, it.height) = (320, 180)));
    assert_eq!(wanted(&mut world, alice), Some(3));
    world.after_ms(5100);
    assert_eq!(wanted(&mut world, alice), Some(2));
    world.send(carol, settings(&track.sid, |it| (it.width, it.height) = (1280, 720)));
    world.after_ms(100);
    assert_eq!(wanted(&mut world, alice), Some(3));
    world.send(bob, settings(&track.sid, |it| it.disabled = true));
    world.send(carol, subscription(&track.sid, false));
    world.after_ms(5100);
    assert_eq!(wanted(&mut world, alice), Some(0));
    let last = world.commands(|command| match command {
        Command::UpdateSubscription { settings, .. } => Some(*settings),
        _ => None,
    });
    assert_eq!(last[0].max_layer.spatial, 1);
    assert!(last.last().unwrap().disabled);
}

#[test]
fn a_track_that_never_comes_is_given_up_after_a_minute() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.send(alice, subscription("TR_VCnobody00000", true));
    world.client(alice).told();
    world.after_ms(59_000);
    assert!(!world.client(alice).names().contains(&"subscription_response"));
    world.after_ms(2_000);
    let told = world.client(alice).told();
    let Some(Message::SubscriptionResponse(response)) =
        told.iter().find(|message| name(message) == "subscription_response")
    else {
        panic!("{told:?}")
    };
    assert_eq!(response.err(), SubscriptionError::SeTrackNotfound);
    assert!(
        world
            .room
            .participants
            .values()
            .all(|participant| participant.wishes.is_empty())
    );
}

#[test]
fn a_codec_nobody_can_receive_ends_the_subscription() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(alice, camera("cam"));
    world.after_ms(1000);
    let subscription = world
        .commands(|command| match command {
            Command::Subscribe(subscribe) => Some(subscribe.subscription),
            _ => None,
        })
        .pop()
        .unwrap();
    world.client(bob).told();
    world.event(Event::CodecUnsupported {
        subscription,
        codec: crate::types::Codec::Vp8,
    });
    assert!(world.client(bob).names().contains(&"subscription_response"));
    world.after_ms(1000);
    assert!(world.client(bob).mids.is_empty());
    assert_eq!(subscribes(&world), 1);
}

#[test]
fn speakers_are_told_to_those_who_hear_them() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let carol = world.join(entry("carol").parameters(|it| it.auto_subscribe = false));
    world.publish(alice, microphone("mic"));
    world.after_ms(1000);
    let speaker = world.client(alice).handle;
    let speak = |world: &mut World, level: f32| {
        let speakers = if level > 0.0 {
            vec![SpeakerLevel {
                participant: speaker,
                level,
            }]
        } else {
            Vec::new()
        };
        for client in [alice, bob, carol] {
            world.client(client).told();
        }
        world.event(Event::Speakers {
            room: crate::types::RoomHandle(1),
            speakers,
        });
    };
    speak(&mut world, 0.2);
    for client in [alice, bob] {
        let told = world.client(client).told();
        let [Message::SpeakersChanged(changed)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((changed.speakers[0].level, changed.speakers[0].active), (0.25, true));
    }
    assert!(world.client(carol).told().is_empty());
    speak(&mut world, 0.21);
    assert!(world.client(bob).told().is_empty(), "the same eighth");
    speak(&mut world, 0.0);
    let told = world.client(bob).told();
    let [Message::SpeakersChanged(changed)] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((changed.speakers[0].level, changed.speakers[0].active), (0.0, false));
}
