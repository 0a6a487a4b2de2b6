//! What limits a participant's media, and what it hears of it.

use std::collections::HashMap;

use livekit_protocol::StreamState;
use livekit_protocol::UpdateParticipantMetadata;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;

use super::world::{Entry, World, camera, entry};
use crate::control::{ConnectionHandle, MAX_BITRATE_ATTRIBUTE, RoomSettings, playout_delay};
use crate::media::edge::{Command, Event, Reception};
use crate::types::{Bitrate, Identity, SubscriptionHandle};

fn subscriptions(world: &World) -> Vec<SubscriptionHandle> {
    world.commands(|command| match command {
        Command::Subscribe(subscribe) => Some(subscribe.subscription),
        _ => None,
    })
}

/// The states in each StreamStateUpdate since the last call.
fn states(world: &mut World, client: ConnectionHandle) -> Vec<Vec<StreamState>> {
    let told = world.client(client).told();
    told.iter()
        .filter_map(|message| match message {
            Message::StreamStateUpdate(update) => {
                Some(update.stream_states.iter().map(|stream| stream.state()).collect())
            }
            _ => None,
        })
        .collect()
}

fn pause(world: &mut World, subscription: SubscriptionHandle, paused: bool) {
    world
        .room
        .handle_event(world.now, Event::StreamState { subscription, paused });
}

/// How the participant's transport was opened, and everything said of it later.
fn receptions(world: &World) -> Vec<Reception> {
    world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.reception),
        Command::UpdateReception { reception, .. } => Some(*reception),
        _ => None,
    })
}

fn reception_of(settings: RoomSettings, entry: Entry) -> Reception {
    let mut world = World::with(settings);
    world.join(entry);
    receptions(&world)[0]
}

#[test]
fn paused_streams_are_told_together() {
    for single in [true, false] {
        let mut world = World::new();
        let alice = world.join(entry("alice"));
        let bob = world.join(if single { entry("bob") } else { entry("bob").dual() });
        world.publish(alice, camera("one"));
        world.publish(alice, camera("two"));
        world.after_ms(1000);
        let active = if single { 0 } else { 2 };
        assert_eq!(states(&mut world, bob).concat().len(), active);

        let both = subscriptions(&world);
        for subscription in &both {
            pause(&mut world, *subscription, true);
        }
        world.after_ms(0);
        assert_eq!(states(&mut world, bob), [[StreamState::Paused; 2]]);
        pause(&mut world, both[0], true);
        world.after_ms(0);
        assert!(states(&mut world, bob).is_empty(), "known already");
        pause(&mut world, both[0], false);
        world.after_ms(0);
        assert_eq!(states(&mut world, bob), [[StreamState::Active]]);
    }
}

#[test]
fn a_client_that_was_away_is_told_what_is_paused() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(alice, camera("cam"));
    world.after_ms(1000);
    let subscription = subscriptions(&world)[0];
    world.drop_socket(bob);
    pause(&mut world, subscription, true);
    world.after_ms(10);
    let back = world.join(entry("bob").parameters(|it| it.reconnect = true));
    world.after_ms(0);
    assert_eq!(states(&mut world, back), [[StreamState::Paused]]);
}

#[test]
fn pausing_is_as_the_client_says_and_else_as_configured() {
    let says = |answer| entry("bob").parameters(|it| it.subscriber_allow_pause = answer);
    let never = || RoomSettings {
        allow_pause: false,
        ..RoomSettings::default()
    };
    assert!(reception_of(RoomSettings::default(), says(None)).may_pause);
    assert!(!reception_of(RoomSettings::default(), says(Some(false))).may_pause);
    assert!(!reception_of(never(), says(None)).may_pause);
    assert!(reception_of(never(), says(Some(true))).may_pause);
}

#[test]
fn firefox_in_step_is_not_asked_to_wait() {
    let delayed = |sync_streams| RoomSettings {
        playout_delay: Some(playout_delay(100, 2000)),
        sync_streams,
        ..RoomSettings::default()
    };
    let browser = |name: &str| entry("bob").parameters(|it| it.client_info.browser = name.into());
    assert!(reception_of(delayed(true), browser("firefox")).playout_delay.is_none());
    assert!(reception_of(delayed(false), browser("firefox")).playout_delay.is_some());
    assert!(reception_of(delayed(true), browser("chrome")).playout_delay.is_some());
}

#[test]
fn a_cap_comes_from_the_token_and_the_api_and_not_from_the_participant() {
    let mut world = World::new();
    let capped = entry("bob").attribute(MAX_BITRATE_ATTRIBUTE, "800");
    let bob = world.join(capped.parameters(|it| {
        it.attributes = [(MAX_BITRATE_ATTRIBUTE.to_owned(), "9000".to_owned())].into();
    }));
    let caps = |world: &World| -> Vec<Option<Bitrate>> {
        receptions(world)
            .iter()
            .map(|reception| reception.max_bitrate)
            .collect()
    };
    let cap = |kbps| Some(Bitrate::kbps(kbps));
    assert_eq!(caps(&world), [cap(800)]);

    let own = |value: &str| {
        Request::UpdateMetadata(UpdateParticipantMetadata {
            attributes: [
                (MAX_BITRATE_ATTRIBUTE.to_owned(), value.to_owned()),
                ("hand".to_owned(), "raised".to_owned()),
            ]
            .into(),
            ..Default::default()
        })
    };
    let answer = |world: &mut World| {
        let told = world.client(bob).told();
        told.iter().find_map(|message| match message {
            Message::RequestResponse(response) => Some(response.reason()),
            _ => None,
        })
    };
    world.client(bob).told();
    for value in ["9000", ""] {
        world.send(bob, own(value));
        assert_eq!(answer(&mut world), Some(Reason::NotAllowed));
    }
    // Many a client sends all its attributes when it changes one.
    world.send(bob, own("800"));
    assert_eq!(answer(&mut world), Some(Reason::Ok));
    assert_eq!(caps(&world), [cap(800)]);

    let mut update = |value: &str| {
        let attributes = HashMap::from([(MAX_BITRATE_ATTRIBUTE.to_owned(), value.to_owned())]);
        let bob = Identity::from("bob");
        world
            .room
            .update_participant(world.now, &bob, "", "", &attributes, None)
            .unwrap();
        world.pump();
    };
    update("300");
    update("");
    assert_eq!(caps(&world), [cap(800), cap(300), None]);
}
