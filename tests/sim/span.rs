//! A room on several shards: everybody is given what one shard would give (the differential oracle), and what happens at
//! the edges: late subscribers, the last one who leaves, a way that is full.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use livekit_protocol::{DataPacket, UserPacket, data_packet};
use patchbay::{
    media::edge::{Command, Event, SubscriptionSettings},
    types::{ChannelLabel, DropReason, Layer, ParticipantHandle},
};
use prost::Message;

use crate::{
    impairment::{Burst, Conditions},
    oracles::check_numbers,
    peer::Feedback,
    randomness::replayable,
    seeds::over_seeds,
    world::{Joining, Published, Subscribed, World},
};

/// Who is who in the story, by the order of joining: with three shards a, d are on the first, b, e on the second, c on the
/// third.
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Parts of frames, by encoding, frame and part.
type Parts = BTreeSet<(u8, u32, u16)>;

/// Sequence, timestamp, marker, a hash of what the payload begins with, the part.
type Numbered = (u64, u32, bool, u64, Option<(u8, u32, u16)>);

/// What became of a call, in words that do not depend on where anything is.
#[derive(Debug, Default)]
struct Outcome {
    /// By subscriber and track: the parts of frames that arrived, by encoding, frame and part.
    frames: BTreeMap<(usize, &'static str), Parts>,
    /// The same packets as they were sent, numbers counted from the first.
    numbers: BTreeMap<(usize, &'static str), Vec<Numbered>>,
    /// When the first and the last part of each came, in milliseconds.
    times: BTreeMap<(usize, &'static str), (u128, u128)>,
    /// By receiver, in the order of arrival of each kind.
    data: BTreeMap<(usize, bool), Vec<String>>,
    /// Who was said to speak, loudest first.
    speakers: Vec<Vec<ParticipantHandle>>,
    /// What control was told beside that.
    events: Vec<String>,
    /// Key frames asked of publishers.
    keyframes: u64,
    /// Packets that subscribers asked for again and got.
    repaired: u64,
    crossed: usize,
}

struct Track {
    name: &'static str,
    publisher: usize,
    published: Published,
}

struct Story {
    world: World,
    tracks: Vec<Track>,
    subscriptions: Vec<(usize, &'static str, Subscribed)>,
}

impl Story {
    fn new(seed: u64, shards: u8, audio_last_n: u16) -> Self {
        Self::with_feedback(seed, shards, audio_last_n, Feedback::TransportWide)
    }

    fn with_feedback(seed: u64, shards: u8, audio_last_n: u16, feedback: Feedback) -> Self {
        let mut world = World::with_shards(seed, audio_last_n, shards);
        let joining = Joining {
            feedback,
            ..Joining::default()
        };
        let peers: Vec<usize> = NAMES
            .iter()
            .map(|name| world.join_connected_with(name, joining))
            .collect();
        assert_eq!(peers, [0, 1, 2, 3, 4]);
        Self {
            world,
            tracks: Vec::new(),
            subscriptions: Vec::new(),
        }
    }

    fn camera(&mut self, publisher: usize, name: &'static str) {
        let published = self.world.publish_camera(publisher);
        self.track(publisher, name, published);
        self.part();
    }

    fn voice(&mut self, publisher: usize, name: &'static str) {
        let published = self.world.publish_voice(publisher);
        self.track(publisher, name, published);
        self.part();
    }

    /// Packets of two publishers never come at the same time: which is first then says nothing, and differs.
    fn part(&mut self) {
        self.world.run(Duration::from_micros(1_100));
    }

    fn track(&mut self, publisher: usize, name: &'static str, published: Published) {
        self.tracks.push(Track {
            name,
            publisher,
            published,
        });
    }

    fn published(&self, name: &str) -> &Track {
        self.tracks.iter().find(|track| track.name == name).expect("a track")
    }

    fn subscribe(&mut self, subscriber: usize, name: &'static str) {
        let track = self.published(name).published.clone();
        let subscribed = self.world.subscribe(subscriber, &track);
        self.subscriptions.push((subscriber, name, subscribed));
    }

    fn subscribe_all(&mut self) {
        let tracks: Vec<_> = self.tracks.iter().map(|track| (track.publisher, track.name)).collect();
        for subscriber in 0..NAMES.len() {
            for (publisher, name) in &tracks {
                if *publisher != subscriber {
                    self.subscribe(subscriber, name);
                }
            }
        }
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

    fn disable(&mut self, subscriber: usize, name: &str, disabled: bool) {
        let subscription = self.subscription(subscriber, name).handle;
        let settings = SubscriptionSettings {
            disabled,
            ..SubscriptionSettings::default()
        };
        self.world
            .command(Command::UpdateSubscription { subscription, settings });
    }

    fn mute(&mut self, name: &str, muted: bool) {
        let track = self.published(name);
        let (publisher, handle, ssrcs) = (track.publisher, track.published.handle, track.published.ssrcs.clone());
        for outgoing in &mut self.world.peers[publisher].outgoing {
            if ssrcs.contains(&*outgoing.ssrc) {
                outgoing.active = !muted;
            }
        }
        self.world.command(Command::MuteTrack { track: handle, muted });
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

    fn outcome(&self, from: Instant) -> Outcome {
        let mut outcome = Outcome {
            crossed: self.world.crossing.bytes,
            ..Outcome::default()
        };
        for (subscriber, name, subscription) in &self.subscriptions {
            let received = self.world.received(subscription);
            let key = (*subscriber, *name);
            let mut numbered: Vec<Numbered> = received
                .packets
                .iter()
                .map(|packet| {
                    let part = packet.tag.map(|tag| (tag.encoding, tag.frame, tag.part));
                    let mut hasher = DefaultHasher::new();
                    packet.payload.hash(&mut hasher);
                    let (sequence, timestamp) = (packet.sequence, packet.timestamp);
                    (sequence, timestamp, packet.marker, hasher.finish(), part)
                })
                .collect();
            numbered.sort_unstable();
            numbered.dedup();
            if let Some((sequence, timestamp, ..)) = numbered.first().copied() {
                for packet in &mut numbered {
                    (packet.0, packet.1) = (packet.0 - sequence, packet.1.wrapping_sub(timestamp));
                }
            }
            outcome.numbers.insert(key, numbered);
            outcome.frames.insert(key, self.parts(*subscriber, name));
            let times = received.packets.iter().filter(|packet| packet.tag.is_some());
            let times: Vec<u128> = times.map(|packet| (packet.at - from).as_millis()).collect();
            if let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) {
                outcome.times.insert(key, (*first, *last));
            }
        }
        for (index, peer) in self.world.peers.iter().enumerate() {
            for (_, label, bytes) in &peer.messages {
                let packet = DataPacket::decode(bytes.as_slice()).expect("a data packet");
                let Some(data_packet::Value::User(user)) = packet.value else {
                    continue;
                };
                let text = String::from_utf8(user.payload).expect("text");
                let line = format!("{}: {text}", packet.participant_identity);
                let is_lossy = label == ChannelLabel::Lossy.as_str();
                outcome.data.entry((index, is_lossy)).or_default().push(line);
            }
        }
        for (at, event) in self.world.events.iter().filter(|(at, _)| *at >= from) {
            match event {
                Event::Speakers { speakers, .. } => {
                    outcome
                        .speakers
                        .push(speakers.iter().map(|speaker| speaker.participant).collect());
                }
                // Figures, not facts: compared by the frames.
                Event::LayersMeasured { .. } | Event::Quality { .. } => {}
                Event::EncodingSeen { track, encoding, .. } => {
                    outcome.events.push(format!("{track} {encoding} seen"));
                }
                event => {
                    let after = (*at - from).as_millis() / 100;
                    outcome.events.push(format!("{after} {event:?}"));
                }
            }
        }
        outcome.events.sort();
        let shards = std::iter::once(&self.world.shard).chain(&self.world.others);
        for shard in shards {
            outcome.keyframes += shard.stats().keyframe_requests;
            outcome.repaired += shard.stats().retransmitted;
        }
        outcome
    }
}

/// Two cameras and three voices, everybody subscribed to everything; layer switches, data, a burst of loss, mutes, one who
/// unsubscribes, a track that ends, one who leaves.
fn whole_story(seed: u64, shards: u8) -> Outcome {
    // Without estimates, whose course hangs on the order of packets of different tracks: layers are chosen by the story.
    let mut story = Story::with_feedback(seed, shards, 0, Feedback::None);
    let from = story.world.now;
    story.camera(0, "camera of alice");
    story.camera(1, "camera of bob");
    for (publisher, name) in [(0, "voice of alice"), (1, "voice of bob"), (2, "voice of carol")] {
        story.voice(publisher, name);
    }
    story.run(500);
    story.subscribe_all();
    story.run(3000);
    for (number, sender) in (0..).zip([0, 1, 2, 4, 3]) {
        let text = format!("to all {number}");
        assert!(story.say(sender, ChannelLabel::Reliable, &text, &[]));
        assert!(story.say(sender, ChannelLabel::Lossy, &text, &[]));
        assert!(story.say(sender, ChannelLabel::Reliable, "for two", &["carol", "dave"]));
        story.run(100);
    }
    // Somebody on each shard wants less, and then more again.
    for subscriber in [2, 3, 4] {
        story.limit(subscriber, "camera of alice", 0);
    }
    story.run(2000);
    for subscriber in [2, 4] {
        story.limit(subscriber, "camera of alice", 2);
    }
    story.run(1500);
    let burst = Conditions {
        burst: Some(Burst::of(6.0, 0.08)),
        delay: Duration::from_millis(10),
        ..Conditions::CLEAN
    };
    story.world.set_link(4, burst);
    story.run(1000);
    story.world.set_link(4, Conditions::CLEAN);
    story.run(1500);
    story.disable(2, "camera of bob", true);
    story.mute("camera of alice", true);
    story.mute("voice of bob", true);
    story.run(1500);
    story.mute("camera of alice", false);
    story.mute("voice of bob", false);
    story.disable(2, "camera of bob", false);
    story.run(2500);
    let gone = story.subscription(3, "voice of carol").handle;
    story.world.command(Command::Unsubscribe { subscription: gone });
    let ended = story.published("camera of bob").published.handle;
    story.world.command(Command::Unpublish { track: ended });
    story.run(500);
    story.world.leave(2);
    assert!(story.say(0, ChannelLabel::Reliable, "the end", &[]));
    story.run(1500);
    story.outcome(from)
}

/// Of two sets, what only one has.
fn difference<T: Ord + Debug>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> String {
    let only: Vec<_> = one.symmetric_difference(other).take(10).collect();
    format!("{} and {}, {only:?}", one.len(), other.len())
}

fn assert_same(one: &Outcome, several: &Outcome) {
    assert_eq!(
        one.frames.keys().collect::<Vec<_>>(),
        several.frames.keys().collect::<Vec<_>>()
    );
    for (key, frames) in &one.frames {
        let same = &several.frames[key];
        let (subscriber, track) = (NAMES[key.0], key.1);
        assert!(
            frames == same,
            "{track} at {subscriber}: one shard and several: {}",
            difference(frames, same)
        );
        assert!(!frames.is_empty(), "{track} at {subscriber}");
    }
    for (key, numbers) in &one.numbers {
        let first = numbers
            .iter()
            .zip(&several.numbers[key])
            .find(|(one, other)| one != other);
        assert_eq!(first, None, "{key:?}: one shard and several");
        assert_eq!(numbers.len(), several.numbers[key].len(), "{key:?}");
    }
    for (key, (first, last)) in &one.times {
        let (first_of_several, last_of_several) = several.times[key];
        assert!(
            first.abs_diff(first_of_several) <= 20 && last.abs_diff(last_of_several) <= 20,
            "{key:?}: {first}..{last} ms and {first_of_several}..{last_of_several} ms"
        );
    }
    assert_eq!(one.data, several.data);
    assert_eq!(one.speakers, several.speakers);
    assert_eq!(one.events, several.events);
}

#[test]
fn three_shards_give_everybody_what_one_gives() {
    over_seeds("span", |seed| {
        let one = replayable(seed, || whole_story(seed, 1));
        let three = replayable(seed, || whole_story(seed, 3));
        assert_eq!(one.crossed, 0);
        assert!(three.crossed > 1_000_000, "{} bytes", three.crossed);
        assert!(one.repaired > 10, "{} repaired", one.repaired);
        assert_same(&one, &three);
        let (of_one, of_three) = (one.keyframes, three.keyframes);
        assert!(
            of_three <= of_one + 2,
            "publishers are asked {of_three} and {of_one} times"
        );
        Vec::new()
    });
}

/// Voices of a room that forwards the loudest two; turns of speaking, one by one.
fn loudest_story(seed: u64, shards: u8) -> Outcome {
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
    for speaker in [0, 1, 2, 3, 2, 0] {
        story.world.peers[speaker].outgoing[0].level = -25;
        story.run(1500);
        story.world.peers[speaker].outgoing[0].level = -90;
        story.run(1200);
    }
    story.outcome(from)
}

#[test]
fn the_loudest_are_chosen_for_the_room_wherever_they_are() {
    over_seeds("loudest over shards", |seed| {
        let one = replayable(seed, || loudest_story(seed, 1));
        let three = replayable(seed, || loudest_story(seed, 3));
        assert!(one.speakers.len() > 20, "{:?}", one.speakers);
        assert_eq!(one.speakers, three.speakers);
        for (key, parts) in &one.frames {
            let same = &three.frames[key];
            assert!(parts == same, "{key:?}: {}", difference(parts, same));
        }
        Vec::new()
    });
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
