//! Leaving, being replaced, losing the socket or the network.

use livekit_protocol::leave_request::Action;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, SyncState, TrackPublishedResponse, UpdateSubscription};

use super::world::{World, camera, entry, name};
use crate::control::RoomEvent;
use crate::media::edge::{Command, Event};
use crate::types::{CloseReason, Identity, TransportHandle};

fn transports(world: &World) -> Vec<TransportHandle> {
    world.commands(|command| match command {
        Command::OpenTransport(open) => Some(open.transport),
        _ => None,
    })
}

#[test]
fn a_leaving_client_is_answered_and_the_others_see_it_go() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(alice, camera("cam"));
    world.leave(alice);
    let leave = world.client(alice).leave_received().expect("an echo");
    assert_eq!(
        (leave.reason(), leave.action()),
        (DisconnectReason::ClientInitiated, Action::Disconnect)
    );
    assert!(world.client(alice).closed);
    let info = world
        .client(bob)
        .update_about("alice")
        .expect("at once, since it published");
    assert_eq!(
        (info.state(), info.disconnect_reason()),
        (State::Disconnected, DisconnectReason::ClientInitiated)
    );
    assert!(info.tracks.is_empty());
    assert!(
        world
            .media
            .iter()
            .any(|command| matches!(command, Command::CloseTransport { .. }))
    );
    assert!(
        world
            .happened
            .iter()
            .any(|event| matches!(event, RoomEvent::ParticipantLeft { .. }))
    );
    // One who never published goes with the batch.
    let carol = world.join(entry("carol"));
    world.leave(bob);
    assert!(world.client(carol).update_about("bob").is_none());
    world.after_ms(3000);
    assert_eq!(
        world.client(carol).update_about("bob").unwrap().state(),
        State::Disconnected
    );
}

#[test]
fn the_same_identity_takes_the_place_of_the_old_session() {
    let mut world = World::new();
    let bob = world.join(entry("bob"));
    let old_client = world.join(entry("eve").parameters(|it| it.client_info.protocol = 11));
    let first = world.join(entry("alice"));
    world.after_ms(4000);
    world.client(bob).told();
    world.client(old_client).told();
    let second = world.join(entry("alice"));
    let leave = world.client(first).leave_received().expect("a leave");
    assert_eq!(leave.reason(), DisconnectReason::DuplicateIdentity);
    assert!(world.client(first).closed && !world.client(second).closed);
    let told = world.client(bob).told();
    assert_eq!(told.iter().map(name).collect::<Vec<_>>(), ["update"]);
    let Message::Update(update) = &told[0] else { panic!() };
    assert_eq!(
        (update.participants[0].state(), update.participants[0].version),
        (State::Joined, 1)
    );
    let seen: Vec<State> = world
        .client(old_client)
        .told()
        .iter()
        .filter_map(|message| match message {
            Message::Update(update) => Some(update.participants[0].state()),
            _ => None,
        })
        .collect();
    assert_eq!(seen, [State::Disconnected, State::Joined]);
    assert_eq!(world.room.participants().len(), 3);
}

#[test]
fn a_lost_socket_before_the_transport_ends_the_session_and_after_it_does_not() {
    let mut world = World::new();
    world.network = false;
    let alice = world.join(entry("alice"));
    world.drop_socket(alice);
    assert!(world.room.participants().is_empty());
    assert!(
        world
            .happened
            .iter()
            .any(|event| matches!(event, RoomEvent::ParticipantConnectionAborted { .. }))
    );

    world.network = true;
    let bob = world.join(entry("bob"));
    world.drop_socket(bob);
    world.after_ms(60_000);
    assert_eq!(world.states(), [("bob".into(), State::Active)]);
    let transport = *transports(&world).last().unwrap();
    world.event(Event::TransportClosed {
        transport,
        reason: CloseReason::IceFailed,
    });
    world.after_ms(4_900);
    assert_eq!(world.room.participants().len(), 1);
    world.after_ms(200);
    assert!(world.room.participants().is_empty());
}

#[test]
fn a_failed_transport_asks_for_a_new_session() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let transport = transports(&world)[0];
    world.event(Event::TransportClosed {
        transport,
        reason: CloseReason::IceFailed,
    });
    let leave = world.client(alice).leave_received().expect("a leave");
    assert_eq!(
        (leave.reason(), leave.action()),
        (DisconnectReason::ConnectionTimeout, Action::Reconnect)
    );
    assert!(world.client(alice).closed);
    // It is back within the window: the others see one identity all the time.
    world.join(entry("alice"));
    world.after_ms(10_000);
    let states: Vec<State> = world
        .client(bob)
        .told()
        .iter()
        .filter_map(|message| match message {
            Message::Update(update) => update
                .participants
                .iter()
                .find(|info| info.identity == "alice")
                .cloned(),
            _ => None,
        })
        .map(|info| info.state())
        .collect();
    assert!(!states.contains(&State::Disconnected), "{states:?}");
}

#[test]
fn who_never_connects_is_removed_after_a_minute() {
    let mut world = World::new();
    world.network = false;
    let alice = world.join(entry("alice"));
    world.after_ms(59_000);
    assert_eq!(world.states(), [("alice".into(), State::Joined)]);
    world.after_ms(2_000);
    assert_eq!(
        world.client(alice).leave_received().unwrap().reason(),
        DisconnectReason::JoinFailure
    );
    assert!(world.room.participants().is_empty());
}

#[test]
fn a_resumed_session_hears_everything_again_in_order() {
    for single in [true, false] {
        let mut world = World::new();
        let in_form = |name: &str| if single { entry(name) } else { entry(name).dual() };
        let alice = world.join(in_form("alice"));
        let bob = world.join(in_form("bob"));
        let carol = world.join(in_form("carol"));
        let track = world.publish(bob, camera("cam"));
        world.after_ms(1000);
        world.drop_socket(bob);
        world.after_ms(500);
        world.leave(carol);
        let again = world.join(in_form("bob").parameters(|it| it.reconnect = true));
        let names = world.client(again).names();
        let mut expected = vec!["reconnect", "update", "update", "room_update", "refresh_token"];
        if !single {
            expected.extend(["offer", "trickle", "trickle"]);
        }
        assert_eq!(names[..expected.len()], expected[..]);
        let state = SyncState {
            publish_tracks: vec![TrackPublishedResponse {
                cid: "cam".into(),
                track: Some(track.clone()),
            }],
            ..Default::default()
        };
        world.send(again, Request::SyncState(state));
        assert!(!world.client(again).closed);
        // The old client's m-lines go on under the new socket, with new ICE credentials.
        let restarts = |world: &World| {
            world
                .commands(|command| matches!(command, Command::RestartIce { .. }).then_some(()))
                .len()
        };
        assert_eq!(restarts(&world), usize::from(!single));
        world.move_sections(bob, again);
        world.client(again).restart_ice();
        world.client(again).told();
        world.offer(again);
        assert_eq!(world.client(again).names()[..3], ["answer", "trickle", "trickle"]);
        assert_eq!(restarts(&world), 1 + usize::from(!single));
        assert_eq!(world.room.participants().len(), 2);
        let _ = alice;

        // A client that believes in tracks the room does not know starts over.
        let mut unknown = track.clone();
        unknown.sid = "TR_unknown".into();
        let state = SyncState {
            publish_tracks: vec![TrackPublishedResponse {
                cid: "cam".into(),
                track: Some(unknown),
            }],
            ..Default::default()
        };
        world.send(again, Request::SyncState(state));
        let leave = world.client(again).leave_received().expect("a leave");
        assert_eq!(
            (leave.reason(), leave.action()),
            (DisconnectReason::StateMismatch, Action::Reconnect)
        );
    }
}

#[test]
fn resuming_what_is_not_there_means_starting_over() {
    let mut world = World::new();
    let alice = world.join(entry("alice").parameters(|it| it.reconnect = true));
    let leave = world.client(alice).leave_received().expect("the first message");
    assert_eq!(
        (leave.reason(), leave.action()),
        (DisconnectReason::StateMismatch, Action::Reconnect)
    );
    assert!(world.client(alice).closed);
    assert!(world.room.participants().is_empty());
}

#[test]
fn an_unanswered_offer_ends_in_a_full_reconnect() {
    let mut world = World::new();
    world.network = false;
    let alice = world.join(entry("alice").dual());
    world.client(alice).responsive = false;
    world.network = true;
    let bob = world.join(entry("bob"));
    world.publish(bob, camera("cam"));
    world.after_ms(16_000);
    let leave = world.client(alice).leave_received().expect("a leave");
    assert_eq!(leave.action(), Action::Reconnect);
}

#[test]
fn what_went_with_a_transport_is_not_named_again() {
    for single in [true, false] {
        let mut world = World::new();
        let in_form = |name: &str| if single { entry(name) } else { entry(name).dual() };
        let alice = world.join(in_form("alice"));
        let bob = world.join(in_form("bob"));
        let track = world.publish(alice, camera("cam"));
        world.publish(bob, camera("cam"));
        world.after_ms(1000);
        assert_eq!(world.forwarded().len(), 2);
        let of_alice = world.commands(|command| match command {
            Command::Publish(publish) => Some(publish.participant),
            _ => None,
        })[0];
        let closed = world.commands(|command| match command {
            Command::OpenTransport(open) if open.participant == of_alice => Some(open.transport),
            _ => None,
        });
        for transport in closed {
            world.event(Event::TransportClosed {
                transport,
                reason: CloseReason::ClosedByPeer,
            });
        }
        let before = world.media.len();
        world.send(
            bob,
            Request::Subscription(UpdateSubscription {
                track_sids: vec![track.sid.clone()],
                subscribe: false,
                ..Default::default()
            }),
        );
        world.after_ms(10_000);
        assert_eq!(world.states(), [("bob".into(), State::Active)]);
        let named: Vec<&Command> = world.media[before..]
            .iter()
            .filter(|command| {
                matches!(
                    command,
                    Command::Unpublish { .. } | Command::Unsubscribe { .. } | Command::CloseTransport { .. }
                )
            })
            .collect();
        assert!(named.is_empty(), "{named:?}");
    }
}

fn silence(world: &mut World, transport: TransportHandle, silent: bool) {
    world.event(Event::TransportSilent { transport, silent });
}

#[test]
fn a_silent_network_is_waited_for_and_a_client_that_is_gone_is_not() {
    for single in [true, false] {
        let mut world = World::new();
        let in_form = |name: &str| if single { entry(name) } else { entry(name).dual() };
        let bob = world.join(in_form("bob"));
        let sid = world.client(bob).join_response().participant.unwrap().sid;
        let its = transports(&world);
        its.iter().for_each(|transport| silence(&mut world, *transport, true));
        // Offered while nobody can answer.
        let alice = world.join(in_form("alice"));
        world.publish(alice, camera("cam"));
        world.after_ms(40_000);
        assert_eq!(world.states().len(), 2, "single form: {single}");
        assert!(!world.client(bob).closed);
        // Its old socket ends when the network is back, a moment before its next try.
        let lost = crate::media::edge::ConnectionScore { mos: 1.0, lost: true };
        let participant = world.room.identities[&Identity("bob".into())];
        world.event(Event::Quality {
            participant,
            score: lost,
        });
        world.drop_socket(bob);
        world.after_ms(8_000);
        let again = world
            .try_join(in_form("bob").parameters(|it| it.reconnect = true))
            .unwrap();
        assert_eq!(world.client(again).names()[0], "reconnect");
        its.iter().for_each(|transport| silence(&mut world, *transport, false));
        assert!(
            world.room.participants[&participant].score.is_none(),
            "of the time before"
        );
        world.after_ms(14_000);
        assert!(world.room.participants().iter().any(|info| info.sid == sid));

        // Its process has ended: nothing comes, and the socket is closed.
        world.drop_socket(again);
        its.iter().for_each(|transport| silence(&mut world, *transport, true));
        world.after_ms(9_000);
        assert_eq!(world.states().len(), 2);
        world.after_ms(2_000);
        assert_eq!(world.states(), [("alice".into(), State::Active)]);
        let left = world
            .happened
            .iter()
            .filter(|event| matches!(event, RoomEvent::ParticipantLeft { .. }));
        assert_eq!(left.count(), 1, "once");
    }
}

#[test]
fn an_old_client_reads_can_reconnect_instead_of_the_action() {
    let mut world = World::new();
    let alice = world.join(entry("alice").parameters(|it| it.client_info.protocol = 12));
    let transport = transports(&world)[0];
    world.event(Event::TransportClosed {
        transport,
        reason: CloseReason::IceFailed,
    });
    let leave = world.client(alice).leave_received().expect("a leave");
    assert!(leave.can_reconnect && leave.action() == Action::Disconnect);
}

#[test]
fn what_came_while_the_socket_was_away_is_negotiated_on_the_next_one() {
    for single in [true, false] {
        let mut world = World::new();
        let in_form = |name: &str| if single { entry(name) } else { entry(name).dual() };
        let alice = world.join(in_form("alice"));
        let bob = world.join(in_form("bob"));
        world.after_ms(1000);
        world.drop_socket(bob);
        world.publish(alice, camera("cam"));
        // Longer than an unanswered offer may take.
        world.after_ms(20_000);
        assert_eq!(world.room.participants().len(), 2);
        let again = world
            .try_join(in_form("bob").parameters(|it| it.reconnect = true))
            .unwrap();
        world.move_sections(bob, again);
        world.client(again).restart_ice();
        world.offer(again);
        world.after_ms(1000);
        assert_eq!(world.client(again).mids.len(), 1, "single form: {single}");
        assert_eq!(world.forwarded().len(), 1);
    }
}
