//! A large room that forwards only the loudest voices: nobody's first word is cut.

use std::{collections::BTreeSet, time::Duration};

use patchbay::{media::edge::Command, types::Codec};
use rand::RngExt;

use crate::{
    media::Shape,
    seeds::{at_least, at_most, over_seeds},
    world::{Published, Subscribed, World},
};

const PACKET: Duration = Duration::from_millis(20);
/// Packets that speech begins with before it is loud: "s", "h", "f".
const CONSONANT: u32 = 6;

/// The level of a packet of speech, in dBov: vowels and what is between them.
fn speech(packet: u32, chance: i8) -> i8 {
    match packet {
        ..CONSONANT => -58 + chance,
        packet if packet % 12 < 8 => -30 + chance,
        _ => -62 + chance,
    }
}

/// Somebody in the room.
struct Speaker {
    peer: usize,
    track: Published,
    /// Sends nothing while silent.
    dtx: bool,
    /// Where each of its turns began, by frame.
    turns: Vec<(u32, u32)>,
}

impl Speaker {
    fn join(world: &mut World, number: usize) -> Self {
        let peer = world.join_connected(&format!("speaker {number}"));
        let codec = if number == 1 { Codec::Red } else { Codec::Opus };
        let track = world.publish_shapes(peer, codec, vec![Shape::plain(codec, 0)], false);
        Self {
            peer,
            track,
            dtx: number == 2,
            turns: Vec::new(),
        }
    }

    fn frame(&self, world: &World) -> u32 {
        world.peers[self.peer].outgoing[0].source.frame()
    }

    fn be_silent(&self, world: &mut World) {
        let outgoing = &mut world.peers[self.peer].outgoing[0];
        outgoing.level = -90;
        outgoing.active = !self.dtx;
    }

    fn speak(&mut self, world: &mut World, packets: u32) {
        let first = self.frame(world);
        for packet in 0..packets {
            let chance = world.rng.random_range(-4..=4);
            let outgoing = &mut world.peers[self.peer].outgoing[0];
            outgoing.active = true;
            outgoing.level = speech(packet, chance);
            world.run(PACKET);
        }
        self.turns.push((first, self.frame(world)));
        self.be_silent(world);
    }
}

/// Packets of the first 300 ms of each turn, and of all of it, that somebody did not get.
fn missed(world: &World, speaker: &Speaker, by: &Subscribed, from_turn: usize) -> (usize, usize) {
    let heard: BTreeSet<u32> = world.received(by).tags().iter().map(|tag| tag.frame).collect();
    let (mut begin, mut all) = (0, 0);
    for (first, end) in speaker.turns.iter().skip(from_turn) {
        // The last may still be on its way, or be behind the pause that the silence began with.
        for frame in *first..end - 2 {
            let lost = usize::from(!heard.contains(&frame));
            all += lost;
            begin += if frame < first + 15 { lost } else { 0 };
        }
    }
    (begin, all)
}

#[test]
fn no_first_word_is_cut() {
    over_seeds("five speakers, two of whom are forwarded", |seed| {
        let mut world = World::with_loudest(seed, 2);
        let listener = world.join_connected("listener");
        let mut speakers: Vec<Speaker> = (0..5).map(|number| Speaker::join(&mut world, number)).collect();
        let heard: Vec<Subscribed> = speakers
            .iter()
            .map(|speaker| world.subscribe(listener, &speaker.track))
            .collect();
        for speaker in &speakers {
            speaker.be_silent(&mut world);
        }
        world.run(Duration::from_secs(2));
        let mut late = None;
        for turn in 0..25 {
            let at = (turn + usize::from(turn % 7 == 3)) % speakers.len();
            // Now and then somebody was muted meanwhile, and speaks as soon as that is over.
            let track = speakers[at].track.handle;
            if turn % 4 == 2 {
                world.command(Command::MuteTrack { track, muted: true });
                world.run(Duration::from_millis(1500));
                world.command(Command::MuteTrack { track, muted: false });
            }
            if turn == 10 {
                // Takes plain Opus only, and comes in the middle.
                let another = world.join_connected("another");
                let codecs = vec![world.peers[another].codec_parameters(Codec::Opus)];
                let tracks = speakers.iter();
                let heard: Vec<Subscribed> = tracks
                    .map(|speaker| world.subscribe_with(another, &speaker.track, codecs.clone()))
                    .collect();
                late = Some((
                    heard,
                    speakers.iter().map(|speaker| speaker.turns.len()).collect::<Vec<_>>(),
                ));
            }
            let packets = world.rng.random_range(100..200);
            speakers[at].speak(&mut world, packets);
            let pause = world.rng.random_range(0..300);
            world.run(Duration::from_millis(pause));
        }
        let (another, turns) = late.expect("another");
        let (mut begin, mut all, mut holes) = (0, 0, 0);
        for (at, speaker) in speakers.iter().enumerate() {
            for (by, from_turn) in [(&heard[at], 0), (&another[at], turns[at])] {
                let missed = missed(&world, speaker, by, from_turn);
                (begin, all) = (begin + missed.0, all + missed.1);
                holes += world.received(by).missing().len();
            }
        }
        let sent: usize = heard.iter().map(|by| world.received(by).packets.len()).sum();
        let spoken: usize = speakers
            .iter()
            .map(|speaker| world.peers[speaker.peer].outgoing[0].frames.len())
            .sum();
        vec![
            at_most("packets of first words missing", begin as f64, 0.0),
            at_most("packets of all words missing", all as f64, 0.0),
            at_most("numbers missing", holes as f64, 0.0),
            at_least("kept back, %", 100.0 - 100.0 * sent as f64 / spoken as f64, 30.0),
        ]
    });
}
