//! A room on several shards: voices are chosen and given as one shard would give them (the differential oracle), and what
//! happens at the edges: late subscribers, the last one who leaves, a way that is full.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use livekit_protocol::{DataPacket, UserPacket, data_packet};
use patchbay::{
    media::edge::{Command, Event, SubscriptionSettings},
    types::{ChannelLabel, DropReason, Layer, ParticipantHandle},
};
use prost::Message;

use crate::{
    oracles::{check_numbers, differences},
    randomness::replayable,
    seeds::{at_least, at_most, over_seeds},
    world::{Published, Subscribed, World},
};

/// Who is who in the story, by the order of joining: with three shards a, d are on the first, b, e on the second, c on the
/// third.
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Parts of frames, by encoding, frame and part.
type Parts = BTreeSet<(u8, u32, u16)>;

/// What became of a call, in words that do not depend on where anything is.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// By subscriber and track.
    frames: BTreeMap<(usize, &'static str), Parts>,
    /// Who was said to speak, loudest first.
    speakers: Vec<Vec<ParticipantHandle>>,
}

struct Track {
    name: &'static str,
    published: Published,
}

struct Story {
    world: World,
    tracks: Vec<Track>,
    subscriptions: Vec<(usize, &'static str, Subscribed)>,
}

impl Story {
    fn new(seed: u64, shards: u8, audio_last_n: u16) -> Self {
        let mut world = World::with_shards(seed, audio_last_n, shards);
        let peers: Vec<usize> = NAMES.iter().map(|name| world.join_connected(name)).collect();
        assert_eq!(peers, [0, 1, 2, 3, 4]);
        Self {
            world,
            tracks: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    fn camera(&mut self, publisher: usize, name: &'static str) {
        let published = self.world.publish_camera(publisher);
        self.tracks.push(Track { name, published });
        self.part();
    }

    fn voice(&mut self, publisher: usize, name: &'static str) {
        let published = self.world.publish_voice(publisher);
        self.tracks.push(Track { name, published });
        self.part();
    }

    /// Packets of two publishers never come at the same time: which is first then says nothing, and differs.
    fn part(&mut self) {
        self.world.run(Duration::from_micros(1_100));
    }

    fn published(&self, name: &str) -> &Track {
        self.tracks.iter().find(|track| track.name == name).expect("a track")
    }

    fn subscribe(&mut self, subscriber: usize, name: &'static str) {
        let track = self.published(name).published.clone();
        let subscribed = self.world.subscribe(subscriber, &track);
        self.subscriptions.push((subscriber, name, subscribed));
    }

    fn subscription(&self, subscriber: usize, name: &str) -> &Subscribed {
        let mut all = self.subscriptions.iter();
        let found = all.find(|(by, of, _)| (*by, *of) == (subscriber, name));
        &found.expect("a subscription").2
    }

    fn limit(&mut self, subscriber: usize, name: &str, spatial: u8) {
        let subscription = self.subscription(subscriber, name).handle;
        let settings = SubscriptionSettings {
            max_layer: Layer { spatial, temporal: 3 },
            ..SubscriptionSettings::default()
        };
        self.world
            .command(Command::UpdateSubscription { subscription, settings });
    }

    /// False: the sender's buffer is full.
    fn say(&mut self, from: usize, label: ChannelLabel, text: &str, to: &[&str]) -> bool {
        let packet = DataPacket {
            destination_identities: to.iter().map(|identity| (*identity).to_owned()).collect(),
            value: Some(data_packet::Value::User(UserPacket {
                payload: text.as_bytes().to_vec(),
                ..Default::default()
            })),
            ..Default::default()
        };
        self.world.peers[from].send_message(label, &packet.encode_to_vec())
    }

    fn run(&mut self, millis: u64) {
        self.world.run(Duration::from_millis(millis));
    }

    fn parts(&self, subscriber: usize, name: &str) -> Parts {
        let received = self.world.received(self.subscription(subscriber, name));
        let tags = received.packets.iter().filter_map(|packet| packet.tag);
        tags.map(|tag| (tag.encoding, tag.frame, tag.part)).collect()
    }

    fn all_parts(&self) -> BTreeMap<(usize, &'static str), Parts> {
        let subscriptions = self.subscriptions.iter();
        subscriptions
            .map(|(subscriber, name, _)| ((*subscriber, *name), self.parts(*subscriber, name)))
            .collect()
    }

    fn outcome(&self, from: Instant) -> Outcome {
        let events = self.world.events.iter().filter(|(at, _)| *at >= from);
        Outcome {
            frames: self.all_parts(),
            speakers: events
                .filter_map(|(_, event)| match event {
                    Event::Speakers { speakers, .. } => Some(speakers.iter().map(|its| its.participant).collect()),
                    _ => None,
                })
                .collect(),
        }
    }
}

/// How many differences are named.
const NAMED: usize = 10;

impl Outcome {
    /// # Errors
    /// Where another run came to something else.
    fn check_same(&self, other: &Self) -> Result<(), String> {
        let parts = differences(&self.frames, &other.frames);
        if !parts.is_empty() {
            return Err(format!("{} parts: {:?}", parts.len(), &parts[..parts.len().min(NAMED)]));
        }
        let most = self.speakers.len().max(other.speakers.len());
        match (0..most).find(|at| self.speakers.get(*at) != other.speakers.get(*at)) {
            Some(at) => Err(format!(
                "speakers, change {at}: {:?} and {:?}",
                self.speakers.get(at),
                other.speakers.get(at)
            )),
            None => Ok(()),
        }
    }
}

/// Voices of a room that forwards the loudest two; turns of speaking, one by one. `fault`: within a turn everything is lost
/// between the shards for so long.
fn loudest_story(seed: u64, shards: u8, fault: Duration) -> Outcome {
    let mut story = Story::new(seed, shards, 2);
    let from = story.world.now;
    let names = ["voice 0", "voice 1", "voice 2", "voice 3"];
    for (publisher, name) in names.into_iter().enumerate() {
        story.voice(publisher, name);
        story.world.peers[publisher].outgoing[0].level = -90;
    }
    for name in names {
        story.subscribe(4, name);
        story.subscribe(if name == "voice 0" { 1 } else { 0 }, name);
    }
    story.run(1000);
    for (turn, speaker) in [0, 1, 2, 3, 2, 0].into_iter().enumerate() {
        story.world.peers[speaker].outgoing[0].level = -25;
        story.run(1000);
        let fault = if turn == 2 { fault } else { Duration::ZERO };
        story.world.crossing.is_broken = true;
        story.world.run(fault);
        story.world.crossing.is_broken = false;
        story.world.run(Duration::from_millis(500) - fault);
        story.world.peers[speaker].outgoing[0].level = -90;
        story.run(1200);
    }
    story.outcome(from)
}

#[test]
fn the_loudest_are_chosen_for_the_room_wherever_they_are() {
    over_seeds("loudest over shards", |seed| {
        let one = replayable(seed, || loudest_story(seed, 1, Duration::ZERO));
        let three = replayable(seed, || loudest_story(seed, 3, Duration::ZERO));
        assert!(one.speakers.len() > 20, "{:?}", one.speakers);
        one.check_same(&three).unwrap_or_else(|fault| panic!("{fault}"));
        Vec::new()
    });
}

#[test]
fn a_packet_lost_between_shards_is_found_by_comparing_them() {
    let fault = Duration::from_millis(20);
    let one = replayable(1, || loudest_story(1, 1, Duration::ZERO));
    let three = replayable(1, || loudest_story(1, 3, fault));
    let found = one
        .check_same(&three)
        .expect_err("a packet of each voice that is heard elsewhere");
    // Carol speaks, and Alice and Erin are elsewhere.
    assert!(found.contains("voice 2"), "{found}");
    let lost = found.split(' ').next().and_then(|count| count.parse().ok());
    assert!((1..10).contains(&lost.unwrap_or(0)), "{found}");

    let mut broken = one.clone();
    let key = (4, "voice 2");
    let part = broken
        .frames
        .get_mut(&key)
        .and_then(BTreeSet::pop_last)
        .expect("a part");
    let found = one.check_same(&broken).expect_err("one part less");
    assert_eq!(found, format!("1 parts: {:?}", [(key, part)]));
    let mut broken = one.clone();
    broken.speakers.pop();
    let found = one.check_same(&broken).expect_err("the last change less");
    assert!(
        found.starts_with(&format!("speakers, change {}: Some", broken.speakers.len())),
        "{found}"
    );
    one.check_same(&one).expect("the same");
}

/// Frames that somebody was sent, and the encoding of each.
type Shown = BTreeSet<(u32, u8)>;

/// By subscriber, track and second looked at.
type Cameras = BTreeMap<(usize, &'static str, u32), Shown>;

/// Thirty frames a second, of which the first and last may be on their way as it begins or ends.
const LOOKED_AT: u32 = 26;

/// # Errors
/// Where two runs were shown other pictures, or a run did not show all.
fn check_cameras(one: &Cameras, other: &Cameras) -> Result<(), String> {
    let frames = differences(one, other);
    if !frames.is_empty() {
        return Err(format!(
            "{} frames: {:?}",
            frames.len(),
            &frames[..frames.len().min(NAMED)]
        ));
    }
    match one.iter().find(|(_, shown)| shown.len() != LOOKED_AT as usize) {
        Some((key, shown)) => Err(format!("{key:?}, {} frames: {shown:?}", shown.len())),
        None => Ok(()),
    }
}

/// Cameras of two publishers; some who watch ask for less for a while, and one comes late. What each was sent in the second
/// after each change has settled: a switch waits for a key frame, which comes when it comes.
fn cameras_story(seed: u64, shards: u8) -> Cameras {
    let mut story = Story::new(seed, shards, 0);
    for (publisher, name) in [(0, "camera 0"), (1, "camera 1")] {
        story.camera(publisher, name);
    }
    for (subscriber, name) in [
        (1, "camera 0"),
        (2, "camera 0"),
        (3, "camera 0"),
        (0, "camera 1"),
        (2, "camera 1"),
    ] {
        story.subscribe(subscriber, name);
    }
    let mut seen = Cameras::new();
    let mut second = 0;
    let mut settled = |story: &mut Story| {
        story.run(6000);
        second += 6;
        let last = (second - 1) * 30 + 2..(second - 1) * 30 + 2 + LOOKED_AT;
        for ((subscriber, name), parts) in story.all_parts() {
            let shown = parts.iter().filter(|part| last.contains(&part.1));
            let shown = shown.map(|(encoding, frame, _)| (*frame, *encoding)).collect();
            seen.insert((subscriber, name, second), shown);
        }
    };
    settled(&mut story);
    for subscriber in [1, 2] {
        story.limit(subscriber, "camera 0", 0);
    }
    settled(&mut story);
    story.limit(2, "camera 0", 2);
    story.limit(1, "camera 0", 1);
    story.subscribe(4, "camera 0");
    settled(&mut story);
    seen
}

#[test]
fn cameras_are_given_as_one_shard_would_give_them() {
    over_seeds("cameras over shards", |seed| {
        let one = replayable(seed, || cameras_story(seed, 1));
        let three = replayable(seed, || cameras_story(seed, 3));
        assert_eq!(
            one.len(),
            5 * 3 + 1,
            "of five subscriptions all the time, of one at the end"
        );
        check_cameras(&one, &three).unwrap_or_else(|fault| panic!("{fault}"));
        Vec::new()
    });
}

#[test]
fn a_picture_that_one_shard_would_give_otherwise_is_named() {
    let one = replayable(1, || cameras_story(1, 1));
    check_cameras(&one, &one).expect("the same");
    let key = (2, "camera 0", 12);
    let (frame, encoding) = *one[&key].first().expect("a picture");
    let mut broken = one.clone();
    broken.entry(key).or_default().remove(&(frame, encoding));
    let found = check_cameras(&one, &broken).expect_err("a frame less");
    assert_eq!(found, format!("1 frames: {:?}", [(key, (frame, encoding))]));
    check_cameras(&broken, &broken).expect_err("nobody was shown it");
    broken.entry(key).or_default().insert((frame, encoding + 1));
    let found = check_cameras(&one, &broken).expect_err("another layer");
    assert!(found.starts_with("2 frames: "), "{found}");
}

#[test]
fn a_late_subscriber_elsewhere_is_shown_the_last_key_frame() {
    over_seeds("late over shards", |seed| {
        let mut story = Story::new(seed, 2, 0);
        story.camera(0, "camera");
        story.subscribe(2, "camera");
        story.run(3000);
        // At home somebody needs a key frame; while it is young, somebody elsewhere begins.
        let camera = story.published("camera").published.handle;
        story.world.command(Command::RequestKeyframe { track: camera });
        story.run(80);
        let asked = story.world.shard.stats().keyframe_requests;
        let from = story.world.now;
        story.subscribe(1, "camera");
        story.run(400);
        let received = story.world.received(story.subscription(1, "camera"));
        let first = received
            .packets
            .iter()
            .find(|packet| packet.tag.is_some())
            .expect("a picture");
        assert!(first.tag.is_some_and(|tag| tag.keyframe), "{first:?}");
        let wait = first.at - from;
        assert!(wait <= Duration::from_millis(40), "{wait:?}");
        let replayed = story.world.others[0].stats().replayed_keyframes;
        assert!(replayed >= 1, "from the ring");
        let asked_since = story.world.shard.stats().keyframe_requests - asked;
        // Of the layers above, which come to it as its bandwidth is known.
        assert!(asked_since <= 2, "{asked_since}");
        Vec::new()
    });
}

/// Key frames are asked for at home only, whoever asks: five subscribers on three shards cost no more than one.
#[test]
fn requests_from_everywhere_are_throttled_together() {
    over_seeds("30 PLI/s from each of four subscribers on three shards", |seed| {
        let mut story = Story::new(seed, 3, 0);
        story.camera(0, "camera");
        (1..5).for_each(|subscriber| story.subscribe(subscriber, "camera"));
        story.run(4000);
        let since = story.world.now;
        let seconds = 5;
        for _ in 0..seconds * 30 {
            for subscriber in 1..5 {
                let ssrc = story.subscription(subscriber, "camera").ssrc;
                story.world.peers[subscriber].request_keyframe(ssrc);
            }
            story.run(33);
        }
        let requests = &story.world.peers[0].requested_keyframes;
        let per_layer = ["q", "h", "f"].map(|layer| {
            let asked = |(at, rid): &&(_, Option<str0m::media::Rid>)| *at >= since && *rid == Some(layer.into());
            requests.iter().filter(asked).count() as f64 / f64::from(seconds)
        });
        let most = per_layer.into_iter().fold(0.0, f64::max);
        vec![
            at_most("PLI/s at the publisher, worst layer", most, 2.2),
            at_least("the same, asked at all", most, 1.0),
        ]
    });
}

#[test]
fn what_nobody_elsewhere_is_sent_does_not_cross() {
    let mut story = Story::new(5, 2, 0);
    story.camera(0, "camera");
    story.voice(0, "voice");
    story.subscribe(2, "camera");
    story.run(1000);
    let crossed = |story: &mut Story, millis: u64| {
        let before = story.world.crossing.bytes;
        story.run(millis);
        (story.world.crossing.bytes - before) as u64 * 8 / millis
    };
    // Levels and states only, in kbit/s.
    let idle = crossed(&mut story, 1000);
    assert!(idle < 60, "{idle} kbit/s");
    // Two there, and each encoding crosses once.
    story.subscribe(1, "camera");
    story.run(2000);
    let of_one = crossed(&mut story, 2000);
    assert!((1_500..4_000).contains(&of_one), "{of_one} kbit/s");
    story.subscribe(3, "camera");
    story.run(2000);
    let of_two = crossed(&mut story, 2000);
    assert!(of_two < of_one * 12 / 10, "{of_one} and {of_two} kbit/s");
    // A lower layer for both: the higher ones stay behind.
    for subscriber in [1, 3] {
        story.limit(subscriber, "camera", 0);
    }
    story.run(2500);
    let low = crossed(&mut story, 2000);
    assert!(low < of_one / 3, "{low} of {of_one} kbit/s");
    // The last one goes.
    for subscriber in [1, 3] {
        let subscription = story.subscription(subscriber, "camera").handle;
        story.world.command(Command::Unsubscribe { subscription });
    }
    story.run(2500);
    let after = crossed(&mut story, 1000);
    assert!(after < 60, "{after} kbit/s");
    // And those at home have missed nothing.
    let received = story.world.received(story.subscription(2, "camera"));
    check_numbers(
        received,
        story.published("camera").published.codec,
        Duration::from_millis(20),
    )
    .expect("whole");
}

#[test]
fn a_publisher_who_leaves_is_gone_everywhere() {
    let mut story = Story::new(6, 2, 0);
    story.camera(0, "camera");
    story.voice(1, "voice");
    for subscriber in [1, 2, 3] {
        story.subscribe(subscriber, "camera");
    }
    story.subscribe(0, "voice");
    story.run(2000);
    let track = story.published("camera").published.handle;
    story.world.command(Command::Unpublish { track });
    story.world.leave(0);
    story.run(500);
    let seen = story.parts(1, "camera").len();
    story.run(1000);
    assert_eq!(story.parts(1, "camera").len(), seen);
    for shard in std::iter::once(&story.world.shard).chain(&story.world.others) {
        assert_eq!(shard.population().tracks, 1, "only the voice, and its mirror");
        assert_eq!(shard.population().subscriptions, 0);
    }
    // Everybody else goes: nothing stays behind but the room at home.
    story.world.leave(1);
    story.world.leave(3);
    story.run(1000);
    let far = story.world.others[0].population();
    assert_eq!((far.rooms, far.transports, far.tracks), (0, 0, 0), "{far:?}");
    assert_eq!(story.world.shard.population().rooms, 1);
    assert_eq!(
        story.world.shard.population().tracks,
        0,
        "the voice went with its shard"
    );
}

#[test]
fn a_full_way_costs_pictures_first_and_everybody_goes_on_after_it() {
    over_seeds("full way", |seed| {
        let mut story = Story::new(seed, 2, 0);
        let cameras = ["camera 0", "camera 1", "camera 2", "camera 3"];
        for (publisher, name) in [0, 0, 2, 4].into_iter().zip(cameras) {
            story.camera(publisher, name);
        }
        story.voice(0, "voice");
        for name in cameras.into_iter().chain(["voice"]) {
            story.subscribe(1, name);
        }
        story.subscribe(2, "voice");
        story.run(10_000);
        // Four top layers are some 8 Mbit/s: the way is half full within half a second, and then takes no large pictures.
        story.world.crossing.is_jammed = true;
        story.run(900);
        let dropped = story.world.shard.stats().dropped(DropReason::RelayFull);
        assert!(dropped > 50, "{dropped}");
        let jam_ends = story.world.now;
        story.world.crossing.is_jammed = false;
        story.run(4000);
        assert_eq!(story.parts(1, "voice"), story.parts(2, "voice"), "no voice is lost");
        for name in cameras {
            let received = story.world.received(story.subscription(1, name));
            let shown = received.receiver.shown.iter();
            let again = shown
                .map(|shown| shown.at)
                .find(|at| *at > jam_ends + Duration::from_millis(300));
            let again = again.expect("a picture") - jam_ends;
            assert!(again < Duration::from_millis(1500), "{name}: {again:?}");
            // What is shown is whole: nothing was left out of the middle.
            let codec = story.published(name).published.codec;
            check_numbers(received, codec, Duration::from_secs(2)).unwrap_or_else(|fault| panic!("{fault}"));
        }
        Vec::new()
    });
}

#[test]
fn reliable_data_waits_for_a_full_way_and_all_of_it_comes() {
    let mut story = Story::new(8, 2, 0);
    story.run(500);
    story.world.crossing.is_jammed = true;
    let text = "x".repeat(10_000);
    let mut sent_in_jam = 200;
    for number in 0..200 {
        while !story.say(0, ChannelLabel::Reliable, &format!("{number} {text}"), &["bob"]) {
            if story.world.crossing.is_jammed {
                // The sender has noticed: its window is closed.
                sent_in_jam = number;
                story.run(2000);
                story.world.crossing.is_jammed = false;
            }
            story.run(50);
        }
        story.run(20);
    }
    assert!((50..150).contains(&sent_in_jam), "{sent_in_jam}");
    story.run(10_000);
    let numbers: Vec<usize> = story.world.peers[1]
        .messages
        .iter()
        .filter_map(
            |(_, _, bytes)| match DataPacket::decode(bytes.as_slice()).ok()?.value? {
                data_packet::Value::User(user) => {
                    let text = String::from_utf8(user.payload).ok()?;
                    text.split(' ').next()?.parse().ok()
                }
                _ => None,
            },
        )
        .collect();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}
