//! Explanations: the shard's numbers with names, and what has not come as far as the shard.

use std::time::Duration;

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::{SubscriptionPermission, VideoQuality};

use super::world::{World, camera, entry, microphone};
use crate::control::{AdministrationError, RoomSettings, WaitingReason};
use crate::media::edge::{
    Command, ConnectionScore, Event, Explanation, LayerReason, LayerState, RepairCounts, Subscribe, SubscriptionReport,
};
use crate::types::{Codec, Identity, Layer, MediaKind, ParticipantHandle, RoomHandle, TrackHandle};

fn report(subscribe: &Subscribe, publisher: ParticipantHandle) -> SubscriptionReport {
    let best = Some(Layer {
        spatial: 2,
        temporal: 3,
    });
    SubscriptionReport {
        subscription: subscribe.subscription,
        track: subscribe.track,
        subscriber: subscribe.participant,
        publisher,
        transport: subscribe.transport,
        kind: MediaKind::Video,
        is_screen: false,
        priority: 0,
        layers: LayerState {
            wanted: best,
            target: best,
            sent: None,
            reason: LayerReason::AwaitingKeyframe,
        },
        rtt: None,
        packets: 0,
        bytes: 0,
        lost: 0,
        fraction_lost: 0.0,
        jitter: Duration::ZERO,
        repair: RepairCounts::default(),
        freezes: 0,
        frozen: Duration::ZERO,
        score: ConnectionScore { mos: 4.5, lost: false },
        decisions: Vec::new(),
    }
}

fn asked(world: &World) -> Vec<(Option<ParticipantHandle>, u64)> {
    world.commands(|command| match command {
        Command::Explain { participant, query, .. } => Some((*participant, *query)),
        _ => None,
    })
}

fn answer(world: &mut World, query: u64, report: Explanation) {
    world.event(Event::Explanation {
        room: RoomHandle(1),
        query,
        report: Box::new(report),
    });
}

fn subscribes(world: &World) -> Vec<Subscribe> {
    world.commands(|command| match command {
        Command::Subscribe(subscribe) => Some(subscribe.as_ref().clone()),
        _ => None,
    })
}

#[test]
fn numbers_become_names() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, camera("cam"));
    world.after_ms(1000);
    let publisher = world.client(alice).handle;
    let of_bob = report(&subscribes(&world)[0], publisher);
    let mut gone = of_bob.clone();
    gone.track = TrackHandle(99);

    world.room.explain(Some(&Identity::from("bob"))).unwrap();
    world.pump();
    let (about, query) = asked(&world)[0];
    assert_eq!(about, Some(world.client(bob).handle));
    let answered = Explanation {
        subscriptions: vec![of_bob, gone],
        ..Explanation::default()
    };
    answer(&mut world, query + 1, Explanation::default());
    assert!(world.explained.is_empty(), "nobody asked that");
    answer(&mut world, query, answered.clone());
    answer(&mut world, query, answered);
    assert_eq!(world.explained.len(), 1, "one answer to one question");

    let explanation = &world.explained[0];
    assert_eq!(explanation.name.as_str(), "room");
    let [of_bob] = &explanation.participants[..] else {
        panic!("{explanation:?}")
    };
    assert_eq!(of_bob.identity.as_str(), "bob");
    let [received] = &of_bob.receives[..] else {
        panic!("what is gone has no name: {of_bob:?}")
    };
    let names = &received.track;
    assert_eq!(
        (names.sid.as_str(), names.publisher.as_str()),
        (track.sid.as_str(), "alice")
    );
    assert_eq!(names.codec, Some(Codec::Vp8));
    let layers: Vec<_> = names.layers.iter().map(|layer| (layer.quality, layer.height)).collect();
    assert_eq!(
        layers,
        [
            (VideoQuality::Low, 180),
            (VideoQuality::Medium, 360),
            (VideoQuality::High, 720)
        ]
    );
    assert!(of_bob.waits.is_empty());
    assert_eq!(
        world.room.explain(Some(&Identity::from("nobody"))),
        Err(AdministrationError::NoParticipant)
    );
}

#[test]
fn what_is_wanted_and_not_sent_has_a_reason() {
    let mut limited = RoomSettings::default();
    limited.limits.subscription_limit_video = 1;
    let mut world = World::with(limited);
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(alice, camera("one"));
    world.publish(alice, camera("two"));
    world.publish(bob, microphone("mic"));
    world.send(bob, Request::SubscriptionPermission(SubscriptionPermission::default()));
    world.after_ms(1000);
    world.client(bob).responsive = false;
    world.publish(alice, microphone("mic"));

    world.room.explain(None).unwrap();
    world.pump();
    let (about, query) = asked(&world)[0];
    assert_eq!(about, None);
    answer(&mut world, query, Explanation::default());
    let waits = |of: usize| -> Vec<(MediaKind, WaitingReason)> {
        let waits = &world.explained[0].participants[of].waits;
        waits
            .iter()
            .map(|waiting| (waiting.track.kind, waiting.reason))
            .collect()
    };
    assert_eq!(waits(0), [(MediaKind::Audio, WaitingReason::NotAllowed)]);
    let of_bob = waits(1);
    assert_eq!(of_bob.len(), 2, "{of_bob:?}");
    assert!(of_bob.contains(&(MediaKind::Video, WaitingReason::Limit)));
    assert!(of_bob.contains(&(MediaKind::Audio, WaitingReason::Negotiating)));
}

#[test]
fn questions_without_answers_are_forgotten() {
    let mut world = World::new();
    world.join(entry("alice"));
    for _ in 0..100 {
        world.room.explain(None).unwrap();
    }
    world.pump();
    assert_eq!(world.room.queries.len(), 16);
    let oldest = asked(&world)[0].1;
    answer(&mut world, oldest, Explanation::default());
    assert!(world.explained.is_empty());
}
