//! When a subscriber's wishes take effect, and what the publisher hears of them.

use std::time::Duration;

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{AddTrackRequest, SimulcastCodec, UpdateSubscription, UpdateTrackSettings};

use super::world::{World, camera, entry, microphone};
use crate::control::{ConnectionHandle, RoomSettings};
use crate::media::edge::{Command, Event, LayerShape, SubscriptionSettings};

fn settings(sid: &str, change: impl FnOnce(&mut UpdateTrackSettings)) -> Request {
    let mut settings = UpdateTrackSettings {
        track_sids: vec![sid.into()],
        ..Default::default()
    };
    change(&mut settings);
    Request::TrackSetting(settings)
}

/// All that the shard was told after the subscription began.
fn updates(world: &World) -> Vec<SubscriptionSettings> {
    world.commands(|command| match command {
        Command::UpdateSubscription { settings, .. } => Some(*settings),
        _ => None,
    })
}

fn first_settings(world: &World) -> Vec<SubscriptionSettings> {
    world.commands(|command| match command {
        Command::Subscribe(subscribe) => Some(subscribe.settings),
        _ => None,
    })
}

/// Of every SubscribedQualityUpdate since the last call: how many qualities are enabled.
fn qualities(world: &mut World, publisher: ConnectionHandle) -> Vec<usize> {
    let told = world.client(publisher).told();
    told.iter()
        .filter_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => {
                let qualities = &update.subscribed_codecs[0].qualities;
                Some(qualities.iter().filter(|quality| quality.enabled).count())
            }
            _ => None,
        })
        .collect()
}

#[test]
fn the_last_of_a_burst_counts_a_tenth_of_a_second_later() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, camera("cam"));
    world.after_ms(1000);
    for width in [1000, 700, 320] {
        world.send(bob, settings(&track.sid, |it| (it.width, it.height) = (width, width)));
        world.after_ms(90);
    }
    assert!(updates(&world).is_empty(), "each put off the one before");
    world.after_ms(10);
    let told = updates(&world);
    assert_eq!(told.iter().map(|it| it.max_layer.spatial).collect::<Vec<_>>(), [1]);
    // The same again changes nothing.
    world.send(bob, settings(&track.sid, |it| (it.width, it.height) = (320, 320)));
    world.after_ms(1000);
    // Another size of the same layer neither.
    world.send(bob, settings(&track.sid, |it| (it.width, it.height) = (330, 330)));
    world.after_ms(1000);
    assert_eq!(updates(&world).len(), 1);
}

#[test]
fn what_comes_into_view_does_not_wait() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, camera("cam"));
    world.after_ms(1000);
    world.send(bob, settings(&track.sid, |it| it.disabled = true));
    world.after_ms(99);
    assert!(updates(&world).is_empty());
    world.after_ms(1);
    assert!(updates(&world)[0].disabled);
    world.send(bob, settings(&track.sid, |it| it.quality = 2));
    assert!(!updates(&world)[1].disabled);
    // Away and back within the delay: nothing happened.
    world.send(bob, settings(&track.sid, |it| (it.quality, it.disabled) = (2, true)));
    world.after_ms(50);
    world.send(bob, settings(&track.sid, |it| it.quality = 2));
    world.after_ms(1000);
    assert_eq!(updates(&world).len(), 2);
}

#[test]
fn an_adaptive_client_starts_low_and_a_new_m_line_is_never_disabled() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").parameters(|it| it.adaptive_stream = true));
    let track = world.publish(alice, camera("cam"));
    // Before there is an m-line: kept, and counted when there is one; but not that it is out of view.
    world.send(bob, settings(&track.sid, |it| (it.quality, it.disabled) = (1, true)));
    world.after_ms(1000);
    let first = first_settings(&world);
    assert_eq!((first[0].disabled, first[0].max_layer.spatial), (false, 1));

    let subscribe = |subscribe| {
        Request::Subscription(UpdateSubscription {
            track_sids: vec![track.sid.clone()],
            subscribe,
            ..Default::default()
        })
    };
    world.send(bob, subscribe(false));
    world.after_ms(1000);
    world.send(bob, subscribe(true));
    world.after_ms(1000);
    let again = first_settings(&world);
    assert_eq!(again[1].max_layer.spatial, 0, "settings ended with the subscription");
}

#[test]
fn a_client_that_is_not_adaptive_stays_off_when_it_said_so() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, camera("cam"));
    world.send(bob, settings(&track.sid, |it| it.disabled = true));
    world.after_ms(1000);
    assert!(first_settings(&world)[0].disabled);
}

#[test]
fn a_frame_rate_follows_what_the_layers_show() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, camera("cam"));
    world.after_ms(1000);
    world.send(bob, settings(&track.sid, |it| (it.quality, it.fps) = (2, 15)));
    world.after_ms(100);
    let temporal = |world: &World| updates(world).last().map(|it| it.max_layer.temporal);
    assert_eq!(temporal(&world), Some(1), "as of most tracks");
    let measured = |frame_rates| LayerShape {
        frame_rates,
        ..LayerShape::default()
    };
    let shown = world.commands(|command| match command {
        Command::Publish(publish) => Some(publish.track),
        _ => None,
    })[0];
    let layers = [measured([8, 15, 15, 15]), measured([15; 4]), measured([15, 30, 30, 30])];
    world.event(Event::LayersMeasured { track: shown, layers });
    assert_eq!(temporal(&world), Some(0));
    world.event(Event::LayersMeasured { track: shown, layers });
    assert_eq!(updates(&world).len(), 2, "nothing new");
}

#[test]
fn a_publisher_nobody_watches_is_told_after_ten_seconds() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.publish(alice, camera("cam"));
    world.publish(alice, microphone("mic"));
    world.after(Duration::from_millis(9_990));
    assert!(qualities(&mut world, alice).is_empty());
    world.after_ms(10);
    assert_eq!(qualities(&mut world, alice), [0]);
    world.join(entry("bob"));
    world.after_ms(1000);
    assert_eq!(qualities(&mut world, alice), [3]);
    world.after(Duration::from_secs(60));
    assert!(qualities(&mut world, alice).is_empty());
}

#[test]
fn a_publisher_is_told_less_than_everything_five_seconds_later() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.join(entry("bob").parameters(|it| it.adaptive_stream = true));
    world.publish(alice, camera("cam"));
    world.after_ms(100);
    assert_eq!(qualities(&mut world, alice), [3], "all of it is flowing");
    world.after_ms(4800);
    assert!(qualities(&mut world, alice).is_empty());
    world.after_ms(200);
    assert_eq!(qualities(&mut world, alice), [1]);
}

#[test]
fn a_publisher_that_comes_back_hears_again_what_to_send() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.join(entry("bob").parameters(|it| it.adaptive_stream = true));
    world.publish(alice, camera("cam"));
    world.after_ms(6000);
    assert_eq!(qualities(&mut world, alice), [3, 1]);
    world.drop_socket(alice);
    world.after_ms(500);
    let again = world.join(entry("alice").parameters(|it| it.reconnect = true));
    assert_eq!(qualities(&mut world, again), [1]);
}

#[test]
fn hidden_participants_count_without_showing() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.join(entry("eve").grant(|grant| grant.hidden = true));
    world.publish(alice, camera("cam"));
    world.after_ms(1000);
    let names = world.client(alice).names();
    assert!(names.contains(&"subscribed_quality_update"));
    assert!(!names.contains(&"track_subscribed"));
    world.join(entry("bob"));
    world.after_ms(1000);
    assert!(world.client(alice).names().contains(&"track_subscribed"));
}

#[test]
fn streams_in_step_get_a_line_each() {
    for sync_streams in [false, true] {
        let mut world = World::with(RoomSettings {
            sync_streams,
            ..RoomSettings::default()
        });
        let alice = world.join(entry("alice"));
        let bob = world.join(entry("bob"));
        let mut lines = Vec::new();
        for cid in ["one", "two"] {
            let track = world.publish(alice, camera(cid)).sid;
            world.after_ms(1000);
            let mids = &world.client(bob).mids;
            lines.extend(mids.iter().find(|(_, sid)| **sid == track).map(|(mid, _)| mid.clone()));
            world.unpublish(alice, cid);
            world.after_ms(1000);
        }
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0] == lines[1], !sync_streams, "{lines:?}");
    }
}

#[test]
fn a_layer_that_is_still_shown_is_not_stopped() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, camera("cam"));
    world.after_ms(1000);
    let subscriptions = world.commands(|command| match command {
        Command::Subscribe(subscribe) => Some(subscribe.subscription),
        _ => None,
    });
    let shown = |spatial| Event::LayerSent {
        subscription: subscriptions[0],
        spatial,
    };
    world.event(shown(2));
    qualities(&mut world, alice);
    world.send(bob, settings(&track.sid, |it| it.quality = 0));
    world.after_ms(6500);
    assert_eq!(
        qualities(&mut world, alice),
        [0usize; 0],
        "the key frame of the new one is late"
    );
    world.event(shown(0));
    world.after_ms(1100);
    assert_eq!(qualities(&mut world, alice), [1]);
}

#[test]
fn a_room_is_opened_with_its_number_of_voices() {
    let mut world = World::with(RoomSettings {
        audio_last_n: 3,
        ..RoomSettings::default()
    });
    world.join(entry("alice"));
    let voices = world.commands(|command| match command {
        Command::OpenRoom { audio_last_n, .. } => Some(*audio_last_n),
        _ => None,
    });
    assert_eq!(voices, [3]);
}

#[test]
fn a_limit_keeps_further_tracks_waiting_for_a_place() {
    let mut limited = RoomSettings::default();
    limited.limits.subscription_limit_video = 2;
    let mut world = World::with(limited);
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let tracks: Vec<String> = (0..3)
        .map(|index| world.publish(alice, camera(&format!("cam{index}"))).sid)
        .collect();
    world.publish(alice, microphone("mic"));
    world.after_ms(1000);
    assert_eq!(world.client(bob).mids.len(), 3, "two videos and the voice");
    let unsubscribe = UpdateSubscription {
        track_sids: vec![tracks[0].clone()],
        subscribe: false,
        ..Default::default()
    };
    world.send(bob, Request::Subscription(unsubscribe));
    world.after_ms(1000);
    let shown: Vec<String> = world.client(bob).mids.values().cloned().collect();
    assert!(shown.contains(&tracks[2]) && !shown.contains(&tracks[0]), "{shown:?}");
    assert_eq!(shown.len(), 3);
}

/// A voice in two codecs: which of them somebody takes, at once, and that nobody does any more, later.
#[test]
fn the_publisher_of_two_audio_codecs_hears_which_is_wanted() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let codec = |codec: &str, cid: &str| SimulcastCodec {
        codec: codec.into(),
        cid: cid.into(),
        ..Default::default()
    };
    let track = world.publish(
        alice,
        AddTrackRequest {
            simulcast_codecs: vec![codec("opus", "mic"), codec("pcmu", "")],
            ..microphone("mic")
        },
    );
    world.after_ms(1000);
    // Opus is sent with redundancy.
    let wanted = |world: &mut World| -> Vec<Vec<(String, bool)>> {
        let told = world.client(alice).told();
        let updates = told.into_iter().filter_map(|message| match message {
            Message::SubscribedAudioCodecUpdate(update) => Some(update.subscribed_audio_codecs),
            _ => None,
        });
        let codecs = updates.map(|codecs| codecs.into_iter().map(|codec| (codec.codec, codec.enabled)).collect());
        codecs.collect()
    };
    assert_eq!(wanted(&mut world), [[("red".to_owned(), true)]]);
    let unsubscribe = UpdateSubscription {
        track_sids: vec![track.sid],
        subscribe: false,
        ..Default::default()
    };
    world.send(bob, Request::Subscription(unsubscribe));
    world.after_ms(4900);
    assert!(wanted(&mut world).is_empty());
    world.after_ms(200);
    assert_eq!(wanted(&mut world), [[("red".to_owned(), false)]]);
}
