//! Clients steer what they are sent by signalling, and are told what becomes of it.

use std::time::{Duration, Instant};

use livekit_protocol::{
    StreamState, UpdateTrackSettings, VideoQuality, signal_request::Message as Request, signal_response::Message,
};

use crate::{
    impairment::Conditions,
    receiver::Receiver,
    seeds::{at_least, at_most, ms, over_seeds},
    world::World,
};

/// Milliseconds.
const NEVER: f64 = 86_400_000.0;

fn picture(world: &World, client: usize) -> &Receiver {
    let subscriber = world.client(client).subscriber;
    let mut videos = world.peers[subscriber].incoming.values();
    &videos
        .find(|incoming| !incoming.receiver.shown.is_empty())
        .expect("a picture")
        .receiver
}

/// How long until a picture of an encoding is shown.
fn until(world: &World, client: usize, since: Instant, encoding: u8) -> f64 {
    let shown = &picture(world, client).shown;
    let found = shown
        .iter()
        .find(|shown| shown.at >= since && shown.tag.encoding == encoding);
    found.map_or(NEVER, |shown| ms(shown.at - since))
}

fn ask(world: &mut World, client: usize, track: &str, quality: VideoQuality) {
    let settings = UpdateTrackSettings {
        track_sids: vec![track.to_owned()],
        quality: quality as i32,
        ..UpdateTrackSettings::default()
    };
    world.request(client, Request::TrackSetting(settings));
}

/// Which of the three qualities the publisher is asked for.
fn enabled(message: &Message) -> Option<Vec<bool>> {
    match message {
        Message::SubscribedQualityUpdate(update) => {
            let codec = update.subscribed_codecs.first()?;
            Some(codec.qualities.iter().map(|quality| quality.enabled).collect())
        }
        _ => None,
    }
}

#[test]
fn a_viewer_asks_for_less_and_for_more_again() {
    over_seeds("quality asked by signalling, dynacast obeyed", |seed| {
        let mut world = World::signalled(seed);
        let alice = world.enter("alice");
        let bob = world.enter("bob");
        let track = world.enter_camera(alice);
        // LiveKit: with adaptive streams the lowest quality is sent until the client has said how large it shows the picture.
        ask(&mut world, bob, &track.sid, VideoQuality::High);
        world.run(Duration::from_secs(8));
        let top_before = picture(&world, bob).shown.last().expect("a picture").tag.encoding;
        let asked_less = world.now;
        ask(&mut world, bob, &track.sid, VideoQuality::Low);
        world.run(Duration::from_secs(8));
        let low = until(&world, bob, asked_less, 0);
        let downgrade = world.client(alice).first(asked_less, |message| {
            enabled(message).filter(|enabled| enabled == &[true, false, false])
        });
        let downgrade = downgrade.map_or(0.0, |(at, _)| ms(at - asked_less));
        let asked_more = world.now;
        ask(&mut world, bob, &track.sid, VideoQuality::High);
        world.run(Duration::from_secs(5));
        let high = until(&world, bob, asked_more, 2);
        let upgrade = world
            .client(alice)
            .first(asked_more, |message| enabled(message).filter(|enabled| enabled[2]));
        let upgrade = upgrade.map_or(NEVER, |(at, _)| ms(at - asked_more));
        let (gap, _) = picture(&world, bob).longest_gap(asked_less..world.now);
        vec![
            at_least("encoding at first", f64::from(top_before), 2.0),
            // LiveKit's own take 0.8 and 1.2 s.
            at_most("down, ms", low, 400.0),
            at_most("up, ms", high, 600.0),
            at_least("publisher told of less, ms", downgrade, 5000.0),
            at_most("publisher told of more, ms", upgrade, 150.0),
            at_most("longest gap, ms", ms(gap), 400.0),
        ]
    });
}

#[test]
fn what_does_not_fit_is_paused_and_said_to_be() {
    over_seeds("a link too thin for any layer, then a good one", |seed| {
        let mut world = World::signalled(seed);
        let alice = world.enter("alice");
        let bob = world.enter("bob");
        let track = world.enter_camera(alice);
        world.run(Duration::from_secs(5));
        let state_of = |message: &Message| match message {
            Message::StreamStateUpdate(update) => {
                let ours = update.stream_states.iter().find(|state| state.track_sid == track.sid)?;
                Some(ours.state())
            }
            _ => None,
        };
        let subscriber = world.client(bob).subscriber;
        let thin = Conditions {
            rate: Some(60_000),
            ..Conditions::CLEAN
        };
        let narrowed = world.now;
        world.observed = std::env::var_os("SIM_TRACE").map(|_| subscriber);
        world.set_link(subscriber, thin);
        world.run(Duration::from_secs(15));
        let paused = world.client(bob).first(narrowed, |message| {
            state_of(message).filter(|state| *state == StreamState::Paused)
        });
        let paused = paused.map_or(NEVER, |(at, _)| ms(at - narrowed));
        let widened = world.now;
        world.set_link(subscriber, Conditions::CLEAN);
        world.run(Duration::from_secs(15));
        let resumed = world.client(bob).first(widened, |message| {
            state_of(message).filter(|state| *state == StreamState::Active)
        });
        let resumed = resumed.map_or(NEVER, |(at, _)| ms(at - widened));
        let shown = picture(&world, bob).shown.iter().find(|shown| shown.at >= widened);
        if world.observed.is_some() {
            for (at, report) in &world.explained {
                for reception in &report.receptions {
                    let (estimate, allocated) = (reception.estimate, reception.allocated);
                    println!(
                        "{:.0} {estimate:?} {allocated:?} {:?}",
                        ms(*at - narrowed),
                        reception.queue_delay
                    );
                }
            }
            for client in [alice, bob] {
                for (at, message) in world.client(client).told.iter().filter(|(at, _)| *at >= narrowed) {
                    println!("{client} {:.0} {message:?}", ms(*at - narrowed));
                }
            }
        }
        vec![
            // Shown by the estimate, which needs the queue's 300 ms to fill and a report to tell.
            at_most("told of the pause, ms", paused, 5000.0),
            at_most("told of the end, ms", resumed, 6000.0),
            at_most(
                "picture again, ms",
                shown.map_or(NEVER, |shown| ms(shown.at - widened)),
                6000.0,
            ),
        ]
    });
}
