use super::world::*;
use crate::media::edge::{Command, Event, LayerReason, Reception, SubscriptionReport, SubscriptionSettings};
use crate::types::{Bitrate, DropReason, Layer, Ssrc, SubscriptionHandle, TrackHandle};

/// A simulcast camera on mid "1": three encodings of about 90, 160 and 235 kbit/s.
struct Camera {
    publisher: usize,
    frame: u16,
}

impl Camera {
    fn new(world: &mut World) -> (Self, TrackHandle) {
        let publisher = world.join();
        let track = world.publish_video(publisher, "1", &["q", "h", "f"]);
        (Self { publisher, frame: 0 }, track)
    }

    /// A key frame every second.
    fn film(&mut self, world: &mut World, frames: u16) {
        for _ in 0..frames {
            for (layer, rid) in ["q", "h", "f"].into_iter().enumerate() {
                let payload = vp8(self.frame.is_multiple_of(30), true, self.frame, 300 + layer * 300);
                world.video(self.publisher, 70 + layer as u32, self.frame, rid, &payload);
            }
            self.frame += 1;
            world.pass(33);
        }
    }
}

fn limit(world: &mut World, peer: usize, kbps: Option<u64>, may_pause: bool) {
    let reception = Reception {
        may_pause,
        max_bitrate: kbps.map(Bitrate::kbps),
        ..Default::default()
    };
    let transport = world.peers[peer].handle;
    world.command(Command::UpdateReception { transport, reception });
}

fn report(world: &mut World, subscription: SubscriptionHandle) -> SubscriptionReport {
    let events = world.events();
    assert!(
        events.iter().all(|event| !matches!(event, Event::StreamState { .. })),
        "unexpected"
    );
    world.command(Command::Explain {
        room: ROOM,
        participant: None,
        query: 1,
    });
    let mut reports = world.events().into_iter().filter_map(|event| match event {
        Event::Explanation { report, .. } => Some(report.subscriptions),
        _ => None,
    });
    let reports = reports.next().expect("an answer");
    reports
        .into_iter()
        .find(|report| report.subscription == subscription)
        .expect("its report")
}

/// Pauses and resumes since the last call.
fn states(world: &mut World) -> Vec<(SubscriptionHandle, bool)> {
    let events = world.events().into_iter();
    let states = events.filter_map(|event| match event {
        Event::StreamState { subscription, paused } => Some((subscription, paused)),
        _ => None,
    });
    states.collect()
}

fn sent(report: &SubscriptionReport) -> (Option<u8>, LayerReason) {
    (report.layers.sent.map(|layer| layer.spatial), report.layers.reason)
}

#[test]
fn a_cap_chooses_the_layer_pauses_and_resumes() {
    let mut world = World::new();
    let (mut camera, track) = Camera::new(&mut world);
    let bob = world.join();
    let subscription = world.subscribe(bob, track);
    camera.film(&mut world, 60);
    assert_eq!(sent(&report(&mut world, subscription)), (Some(2), LayerReason::Best));
    limit(&mut world, bob, Some(200), true);
    camera.film(&mut world, 60);
    assert_eq!(
        sent(&report(&mut world, subscription)),
        (Some(1), LayerReason::ParticipantCap)
    );
    limit(&mut world, bob, Some(60), true);
    camera.film(&mut world, 15);
    assert_eq!(states(&mut world), [], "not at once");
    camera.film(&mut world, 45);
    assert_eq!(states(&mut world), [(subscription, true)]);
    let paused = report(&mut world, subscription);
    assert_eq!(
        (paused.layers.target, paused.layers.reason),
        (None, LayerReason::Paused)
    );
    let last = world.take(bob).last().expect("packets").sequence();
    let dropped = world.dropped(DropReason::Paused);
    camera.film(&mut world, 30);
    assert_eq!(world.take(bob).len(), 0);
    assert!(world.dropped(DropReason::Paused) > dropped);

    limit(&mut world, bob, None, true);
    camera.film(&mut world, 90);
    assert_eq!(states(&mut world), [(subscription, false)]);
    assert_eq!(sent(&report(&mut world, subscription)), (Some(2), LayerReason::Best));
    let first = world.take(bob).first().expect("packets").sequence();
    assert_eq!(first, last.wrapping_add(1));
    assert!(report(&mut world, subscription).decisions.len() >= 4);
}

#[test]
fn where_pausing_is_off_the_lowest_layer_goes_on_and_says_why() {
    let mut world = World::new();
    let (mut camera, track) = Camera::new(&mut world);
    let bob = world.join();
    limit(&mut world, bob, Some(60), false);
    let subscription = world.subscribe(bob, track);
    camera.film(&mut world, 120);
    assert_eq!(states(&mut world), []);
    assert_eq!(
        sent(&report(&mut world, subscription)),
        (Some(0), LayerReason::ParticipantCap)
    );
}

#[test]
fn an_estimate_of_the_receiver_chooses_the_layer() {
    let mut world = World::new();
    let (mut camera, track) = Camera::new(&mut world);
    let bob = world.join();
    let subscription = world.subscribe(bob, track);
    camera.film(&mut world, 30);
    for (kbps, layer, reason) in [
        (150, 0, LayerReason::Bandwidth),
        (200, 1, LayerReason::Bandwidth),
        (2000, 2, LayerReason::Best),
    ] {
        for _ in 0..4 {
            let media = Ssrc(subscription.0 as u32);
            world.send_rtcp(bob, |writer| writer.remb(Ssrc(1), kbps * 1000, &[media]));
            camera.film(&mut world, 30);
        }
        assert_eq!(
            sent(&report(&mut world, subscription)),
            (Some(layer), reason),
            "{kbps} kbit/s"
        );
    }
    // A client that says so may be sent less although more fits.
    let settings = SubscriptionSettings {
        max_layer: Layer {
            spatial: 1,
            temporal: 3,
        },
        ..Default::default()
    };
    world.command(Command::UpdateSubscription { subscription, settings });
    camera.film(&mut world, 40);
    assert_eq!(
        sent(&report(&mut world, subscription)),
        (Some(1), LayerReason::ClientAskedLess)
    );
}

#[test]
fn the_more_important_picture_stays_and_a_mute_makes_room() {
    let mut world = World::new();
    let (mut first, track) = Camera::new(&mut world);
    let (mut second, other) = Camera::new(&mut world);
    let bob = world.join();
    let (less, more) = (world.subscribe(bob, track), world.subscribe(bob, other));
    let settings = SubscriptionSettings {
        priority: 9,
        ..Default::default()
    };
    world.command(Command::UpdateSubscription {
        subscription: more,
        settings,
    });
    let mut film = |world: &mut World, frames: u16| {
        for _ in 0..frames {
            first.film(world, 1);
            second.film(world, 1);
        }
    };
    // Each frame takes 66 ms now: about half the rates.
    film(&mut world, 60);
    limit(&mut world, bob, Some(70), true);
    film(&mut world, 60);
    assert_eq!(states(&mut world), [(less, true)]);
    assert_eq!(sent(&report(&mut world, more)).0, Some(0));
    // The other one is muted: there is room.
    world.command(Command::MuteTrack {
        track: other,
        muted: true,
    });
    film(&mut world, 60);
    assert_eq!(states(&mut world), [(less, false)]);
    // A paused subscription that is disabled is not paused any more.
    limit(&mut world, bob, Some(20), true);
    film(&mut world, 60);
    assert_eq!(states(&mut world), [(less, true)]);
    let settings = SubscriptionSettings {
        disabled: true,
        ..Default::default()
    };
    world.command(Command::UpdateSubscription {
        subscription: less,
        settings,
    });
    assert_eq!(states(&mut world), [(less, false)]);
    assert_eq!(report(&mut world, less).layers.reason, LayerReason::Disabled);
}
