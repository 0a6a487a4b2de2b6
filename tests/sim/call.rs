//! The usual cast of the stories: publishers with cameras and voices on good links, one viewer on the link in question.

use std::{
    collections::BTreeMap,
    ops::Range,
    time::{Duration, Instant},
};

use patchbay::{
    media::edge::Event,
    types::{Codec, Layer},
};

use crate::{
    impairment::Conditions,
    network::Measures,
    oracles::{check_numbers, seen, trace_frames, trace_gaps},
    peer::Incoming,
    receiver::Shown,
    seeds::{Figure, at_least, ms},
    world::{Published, Subscribed, World},
};

/// A link with this rate and 40 ms of round trip.
pub fn link(rate: u64) -> Conditions {
    Conditions {
        rate: Some(rate),
        delay: Duration::from_millis(20),
        ..Conditions::CLEAN
    }
}

/// A viewer of some cameras, each with its own publisher.
pub struct Call {
    pub world: World,
    pub viewer: usize,
    pub cameras: Vec<Camera>,
    /// When the viewer subscribed.
    pub from: Instant,
}

pub struct Camera {
    pub publisher: usize,
    pub track: Published,
    pub subscription: Subscribed,
}

impl Call {
    /// Cameras are up for a second and a half before the viewer, whose link is as given, subscribes to all of them.
    pub fn new(seed: u64, cameras: usize, conditions: Conditions) -> Self {
        let mut world = World::new(seed);
        let viewer = world.join_connected("viewer");
        let published: Vec<_> = (0..cameras)
            .map(|number| {
                let publisher = world.join_connected(&format!("camera {number}"));
                (publisher, world.publish_camera(publisher))
            })
            .collect();
        world.set_link(viewer, conditions);
        world.observed = Some(viewer);
        world.run(Duration::from_millis(1500));
        let from = world.now;
        let cameras = published
            .into_iter()
            .map(|(publisher, track)| Camera {
                publisher,
                subscription: world.subscribe(viewer, &track),
                track,
            })
            .collect();
        Self {
            world,
            viewer,
            cameras,
            from,
        }
    }

    pub fn run(&mut self, seconds: f64) {
        self.world.run(Duration::from_secs_f64(seconds));
    }

    pub fn now(&self) -> Instant {
        self.world.now
    }

    pub fn received(&self, camera: usize) -> &Incoming {
        self.world.received(&self.cameras[camera].subscription)
    }

    pub fn shown(&self, camera: usize) -> &[Shown] {
        &self.received(camera).receiver.shown
    }

    /// The longest time without a new picture from the first one on, or from `since`.
    pub fn longest_gap(&self, camera: usize, since: Option<Instant>) -> Duration {
        let first = self.shown(camera).first().map_or(self.from, |first| first.at);
        let (gap, _) = self
            .received(camera)
            .receiver
            .longest_gap(since.unwrap_or(first)..self.world.now);
        gap
    }

    /// When a picture was first shown that fulfils a condition, counted from `since`; a day when there was none.
    pub fn until(&self, camera: usize, since: Instant, wanted: impl Fn(&Shown) -> bool) -> Duration {
        let found = self
            .shown(camera)
            .iter()
            .find(|shown| shown.at >= since && wanted(shown));
        found.map_or(Duration::from_secs(86_400), |shown| shown.at - since)
    }

    /// Percent of the frames sent that were decoded in time.
    pub fn decoded(&self, camera: usize, interval: Range<Instant>) -> f64 {
        let Camera {
            publisher,
            track,
            subscription,
        } = &self.cameras[camera];
        seen(&self.world, *publisher, track, subscription, interval).percent()
    }

    /// Whether a receiver could make sense of all numbers. Simulcast layers are aligned by sender reports, which are exact
    /// to a millisecond; a switch before the first report goes by arrival.
    pub fn numbers(&self, camera: usize) -> Figure {
        let result = check_numbers(self.received(camera), Codec::Vp8, Duration::from_millis(25));
        if let Err(why) = &result {
            println!("{why}");
        }
        at_least("sound numbers", f64::from(u8::from(result.is_ok())), 1.0)
    }

    /// What the server thought the viewer's path carries, bits per second: least and most within an interval. None when it
    /// had no estimate.
    pub fn estimates(&self, interval: Range<Instant>) -> Option<(f64, f64)> {
        let explained = self.world.explained.iter().filter(|(at, _)| interval.contains(at));
        let estimates = explained
            .flat_map(|(_, report)| &report.receptions)
            .filter_map(|reception| reception.estimate)
            .map(|estimate| estimate.0 as f64);
        estimates.fold(None, |known, estimate| {
            let (least, most) = known.unwrap_or((estimate, estimate));
            Some((estimate.min(least), estimate.max(most)))
        })
    }

    /// Bits per second of media that the server sent to the viewer, headers included, retransmissions and padding not.
    pub fn media_rate(&self, interval: Range<Instant>) -> f64 {
        let ours: Vec<u32> = self.cameras.iter().map(|camera| camera.subscription.ssrc).collect();
        let bytes: usize = self.world.sent[self.viewer]
            .iter()
            .filter(|sent| interval.contains(&sent.at) && ours.contains(&sent.ssrc))
            .map(|sent| sent.len + crate::impairment::HEADERS)
            .sum();
        bytes as f64 * 8.0 / (interval.end - interval.start).as_secs_f64()
    }
}

/// With `SIM_TRACE` set: what happened, by the half second.
impl Drop for Call {
    fn drop(&mut self) {
        if std::env::var_os("SIM_TRACE").is_none() {
            return;
        }
        const STEP: Duration = Duration::from_millis(500);
        let mut at = self.from;
        while at < self.world.now {
            let step = at..at + STEP;
            let down = &self.world.links[self.viewer].down;
            let explained = self.world.explained.iter().find(|(when, _)| step.contains(when));
            let reception = explained.and_then(|(_, report)| report.receptions.first());
            let estimate = reception.and_then(|reception| reception.estimate);
            let allocated = reception.map(|reception| reception.allocated.as_kbps());
            let queue = reception.map(|reception| reception.queue_delay.as_millis());
            let all: usize = self.world.sent[self.viewer]
                .iter()
                .filter(|sent| step.contains(&sent.at))
                .map(|sent| sent.len + crate::impairment::HEADERS)
                .sum();
            let mut line = format!(
                "{:5.1} asked {:?} estimate {:?} allocated {allocated:?} media {:.0} sent {:.0} queue {:.0} pacer {queue:?}",
                (at - self.from).as_secs_f64(),
                self.world
                    .asked
                    .iter()
                    .rfind(|(when, _)| *when < step.end)
                    .map(|(_, asked)| asked),
                estimate.map(|estimate| estimate.as_kbps()),
                self.media_rate(step.clone()) / 1000.0,
                all as f64 * 8.0 / STEP.as_secs_f64() / 1000.0,
                ms(down.queueing(step.clone(), 0.95)),
            );
            for camera in 0..self.cameras.len() {
                let packets = self
                    .received(camera)
                    .packets
                    .iter()
                    .filter(|packet| step.contains(&packet.at));
                let layer = packets
                    .filter_map(|packet| packet.tag)
                    .map(|tag| (tag.encoding, tag.temporal))
                    .max();
                let shown = self.received(camera).receiver.shown_in(step.clone()).count();
                let state = explained.and_then(|(_, report)| Some(report.subscriptions.get(camera)?.layers));
                let short = |layer: Option<Layer>| layer.map(|layer| (layer.spatial, layer.temporal));
                let target = short(state.and_then(|state| state.target));
                line += &format!(" | {layer:?} {shown} of {target:?}");
            }
            println!("{line}");
            at += STEP;
        }
        for camera in &self.cameras {
            trace_gaps(
                &self.world,
                camera.publisher,
                &camera.track,
                &camera.subscription,
                self.from,
            );
            trace_frames(
                &self.world,
                camera.publisher,
                &camera.track,
                &camera.subscription,
                self.from,
            );
        }
        for (reason, count) in self.world.shard.stats().drops().filter(|(_, count)| *count > 0) {
            println!("dropped: {reason:?} {count}");
        }
        for (at, event) in &self.world.events {
            if matches!(event, Event::TransportClosed { .. }) {
                println!("{:.1} {event:?}", (*at - self.from).as_secs_f64());
            }
        }
        for peer in &self.world.peers {
            if let Some(reason) = &peer.ended {
                println!("{} has given up: {reason}", peer.address);
            }
        }
        println!("{:?}", self.world.shard.stats());
    }
}

/// How often the picture of a stream changed its encoding or its rate of frames within an interval, looked at by the second.
pub fn layer_changes(incoming: &Incoming, interval: Range<Instant>) -> usize {
    let mut seconds: BTreeMap<u64, (u8, u8)> = BTreeMap::new();
    for packet in incoming.packets.iter().filter(|packet| interval.contains(&packet.at)) {
        let Some(tag) = packet.tag else { continue };
        let layer = seconds.entry((packet.at - interval.start).as_secs()).or_default();
        *layer = (*layer).max((tag.encoding, tag.temporal));
    }
    let count = (interval.end - interval.start).as_secs();
    let layers: Vec<_> = (0..count).map(|second| seconds.get(&second)).collect();
    layers.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Packets of media that left the server twice.
pub fn sent_twice(world: &World, subscription: &Subscribed) -> usize {
    let mut numbers: Vec<(u16, u32)> = world.sent[subscription.peer]
        .iter()
        .filter(|sent| sent.ssrc == subscription.ssrc)
        .map(|sent| (sent.sequence, sent.timestamp))
        .collect();
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    all - numbers.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::{at_most, over};

    #[test]
    #[should_panic(expected = "! longest gap, ms: ")]
    fn a_picture_that_stands_still_is_named() {
        over("a link that is down for 400 ms", 1..=1, false, |seed| {
            let mut call = Call::new(seed, 1, link(10_000_000));
            call.run(3.0);
            let down = Conditions {
                up: false,
                ..link(10_000_000)
            };
            call.world.set_link(call.viewer, down);
            call.run(0.4);
            call.world.set_link(call.viewer, link(10_000_000));
            call.run(2.0);
            vec![at_most("longest gap, ms", ms(call.longest_gap(0, None)), 200.0)]
        });
    }

    /// The liveness oracle of the stories finds what is not shown in the middle, at the end, and from the beginning on.
    #[test]
    fn a_gap_is_found_wherever_it_is() {
        let mut call = Call::new(2, 1, link(10_000_000));
        call.run(4.0);
        let smooth = call.longest_gap(0, None);
        assert!(smooth < Duration::from_millis(100), "{smooth:?}");
        let (from, ssrc) = (call.from, call.cameras[0].subscription.ssrc);
        let whole = call.shown(0).to_vec();
        let mut gap_of = |shown: Vec<Shown>, since| {
            let incoming = call.world.peers[call.viewer].incoming.get_mut(&ssrc);
            incoming.expect("a stream").receiver.shown = shown;
            call.longest_gap(0, since)
        };
        let (before, after) = (whole[49].at, whole[60].at);
        let mut broken = whole.clone();
        broken.drain(50..60);
        assert_eq!(gap_of(broken, None), after - before);
        let last_second = from + Duration::from_secs(3);
        let ends: Vec<Shown> = whole.iter().filter(|shown| shown.at < last_second).copied().collect();
        assert!(gap_of(ends, None) >= Duration::from_secs(1));
        assert_eq!(gap_of(Vec::new(), None), Duration::from_secs(4));
        assert_eq!(gap_of(Vec::new(), Some(last_second)), Duration::from_secs(1));
        assert_eq!(gap_of(whole, None), smooth);
    }
}
