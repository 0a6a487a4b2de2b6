//! What is checked of a received stream beside a story's own figures: its numbers, and how much of it could be decoded.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::{Duration, Instant},
};

use patchbay::{
    rtp::{dependency_descriptor::Descriptor, vp8},
    types::Codec,
};

use crate::{
    media::Tag,
    peer::{Incoming, Packet, Peer},
    world::{Published, Subscribed, World},
};

/// A frame counts as seen when it is decoded within this time of its capture. Receivers ask again every 100 ms while they
/// know no round trip, so that this is nine tries; libwebrtc's jitter buffer stretches with the loss and gives a frame up
/// after three seconds only. The server keeps packets for the same second.
const DEADLINE: Duration = Duration::from_secs(1);

/// Around a frame, for which layers were being sent then: longer than four periods of the slowest temporal layer.
const NEIGHBOURHOOD: u64 = 300_000;

/// Seconds: tags count microseconds, timestamps a few more.
const CAPTURE_RESOLUTION: f64 = 0.001;
/// Seconds.
const FRAME: f64 = 1.0 / 30.0;

/// What libwebrtc needs of consecutive packets: timestamps that go forward with the capture (within `tolerance`), markers at
/// the ends of pictures, VP8 picture ids and TL0PICIDX without gaps, descriptors that refer to frames that were sent.
///
/// # Errors
/// The first pair that breaks a rule.
pub fn check_numbers(incoming: &Incoming, codec: Codec, tolerance: Duration) -> Result<(), String> {
    let mut packets: Vec<&Packet> = incoming.packets.iter().collect();
    packets.sort_by_key(|packet| packet.sequence);
    packets.dedup_by_key(|packet| packet.sequence);
    // A frame that was left out may have kept a place for a part that came late; receivers drop what it is filled with.
    let whole = whole_units(incoming);
    packets.retain(|packet| packet.tag.is_none_or(|tag| whole.contains(&(tag.encoding, tag.unit()))));
    for pair in packets.windows(2) {
        let [before, after] = pair else { continue };
        let (Some(old), Some(new)) = (before.tag, after.tag) else {
            continue;
        };
        if after.sequence != before.sequence + 1 {
            continue;
        }
        let fail = |what: &str| Err(format!("{what}\n  {before:?}\n  {after:?}"));
        let same_picture = (old.encoding, old.frame) == (new.encoding, new.frame);
        if before.marker == same_picture {
            return fail("a marker that does not end a picture, or a picture without one");
        }
        let ticks = after.timestamp.wrapping_sub(before.timestamp) as i32;
        if same_picture {
            if ticks != 0 {
                return fail("two timestamps in a picture");
            }
        } else {
            let shown = f64::from(ticks) / f64::from(codec.clock_rate());
            let captured = (new.captured as f64 - old.captured as f64) / 1e6;
            // A switch may show one picture in two layers; the second then has to be given a later time.
            let repeated = if old.encoding != new.encoding { FRAME } else { 0.0 };
            if ticks <= 0 || (shown - captured).abs() > tolerance.as_secs_f64() + CAPTURE_RESOLUTION + repeated {
                return fail(&format!("{shown:.4} s between pictures that are {captured:.4} s apart"));
            }
        }
        if codec == Codec::Vp8 {
            check_vp8((before, old), (after, new), same_picture)?;
        }
    }
    check_descriptors(&packets)
}

fn check_vp8((before, old): (&Packet, Tag), (after, new): (&Packet, Tag), same: bool) -> Result<(), String> {
    let (Ok(first), Ok(second)) = (
        vp8::Descriptor::parse(&before.payload),
        vp8::Descriptor::parse(&after.payload),
    ) else {
        return Err(format!("not VP8: {before:?} {after:?}"));
    };
    let ids = [first, second].map(|descriptor| descriptor.picture_id.map_or(0, vp8::PictureId::value));
    let tl0 = [first, second].map(|descriptor| descriptor.tl0_pic_idx.unwrap_or_default());
    let next = u16::from(!same);
    let next_tl0 = u8::from(!same && new.temporal == 0);
    if ids[1] != (ids[0] + next) & 0x7fff || tl0[1] != tl0[0].wrapping_add(next_tl0) {
        return Err(format!("VP8 numbers {ids:?} {tl0:?}\n  {old:?}\n  {new:?}"));
    }
    Ok(())
}

fn check_descriptors(packets: &[&Packet]) -> Result<(), String> {
    let mut structure = None;
    let mut sent: BTreeSet<u64> = BTreeSet::new();
    let mut newest: Option<u64> = None;
    for packet in packets.iter().filter(|packet| !packet.descriptor.is_empty()) {
        let mut new = None;
        let descriptor = Descriptor::parse(&packet.descriptor, structure.as_ref(), &mut new)
            .map_err(|reason| format!("a descriptor that cannot be read ({reason:?}): {packet:?}"))?;
        let number = match newest {
            None => u64::from(descriptor.frame_number) + 0x1_0000,
            Some(newest) => {
                let step = i64::from(descriptor.frame_number.wrapping_sub(newest as u16) as i16);
                newest.saturating_add_signed(step)
            }
        };
        if newest.is_some_and(|newest| number < newest) {
            return Err(format!("frame numbers go back to {number} at {packet:?}"));
        }
        for distance in descriptor.frame_diffs.iter() {
            if !sent.contains(&(number - u64::from(distance))) {
                return Err(format!("frame {number} refers {distance} back, to nothing: {packet:?}"));
            }
        }
        structure = new.or(structure);
        newest = Some(number);
        sent.insert(number);
    }
    Ok(())
}

/// Frames of which every part arrived, by encoding and unit.
fn whole_units(incoming: &Incoming) -> BTreeSet<(u8, u32)> {
    let mut parts: BTreeMap<(u8, u32), BTreeSet<u16>> = BTreeMap::new();
    let mut whole = BTreeSet::new();
    for tag in incoming.packets.iter().filter_map(|packet| packet.tag) {
        let unit = (tag.encoding, tag.unit());
        let got = parts.entry(unit).or_default();
        got.insert(tag.part);
        if got.len() == usize::from(tag.parts) {
            whole.insert(unit);
        }
    }
    whole
}

/// The differential oracle: by whom, what only one of two runs of a story has. Empty: they came to the same.
pub fn differences<K: Ord + Clone, T: Ord + Clone>(
    one: &BTreeMap<K, BTreeSet<T>>,
    other: &BTreeMap<K, BTreeSet<T>>,
) -> Vec<(K, T)> {
    let nothing = BTreeSet::new();
    let keys: BTreeSet<&K> = one.keys().chain(other.keys()).collect();
    let mut found = Vec::new();
    for key in keys {
        let [one, other] = [one, other].map(|run| run.get(key).unwrap_or(&nothing));
        let differs = one.symmetric_difference(other);
        found.extend(differs.map(|what| (key.clone(), what.clone())));
    }
    found
}

/// Of the frames that were being sent within `interval`: how many there were, and how many were decoded in time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub sent: usize,
    pub decoded: usize,
}

impl Seen {
    pub fn percent(self) -> f64 {
        100.0 * self.decoded as f64 / self.sent.max(1) as f64
    }
}

/// A frame was being sent when it belongs to the encoding and to a temporal layer of which a whole frame arrived around it.
pub fn seen(world: &World, publisher: usize, track: &Published, by: &Subscribed, interval: Range<Instant>) -> Seen {
    let sender: &Peer = &world.peers[publisher];
    let incoming = world.received(by);
    let whole = whole_units(incoming);
    let tags = incoming.packets.iter().filter_map(|packet| packet.tag);
    let mut arrived: Vec<Tag> = tags.filter(|tag| whole.contains(&(tag.encoding, tag.unit()))).collect();
    arrived.sort_by_key(|tag| tag.captured);
    let mut seen = Seen::default();
    let sources = sender
        .outgoing
        .iter()
        .filter(|outgoing| track.ssrcs.contains(&*outgoing.ssrc));
    let frames = sources.flat_map(|outgoing| &outgoing.frames);
    for (at, tag) in frames.filter(|(at, _)| interval.contains(at)) {
        let from = arrived.partition_point(|other| other.captured + NEIGHBOURHOOD < tag.captured);
        let around = arrived[from..]
            .iter()
            .take_while(|other| other.captured <= tag.captured + NEIGHBOURHOOD);
        let nearest = around.clone().min_by_key(|other| other.captured.abs_diff(tag.captured));
        let of_layer = around
            .clone()
            .any(|other| other.encoding == tag.encoding && other.temporal >= tag.temporal);
        // A time from which nothing arrived at all counts against the lowest encoding.
        let encoding = nearest.map_or(0, |nearest| nearest.encoding);
        if encoding != tag.encoding || !(of_layer || nearest.is_none()) {
            continue;
        }
        seen.sent += 1;
        let shown = incoming
            .receiver
            .shown_in(*at..*at + DEADLINE)
            .any(|shown| (shown.tag.encoding, shown.tag.frame) == (tag.encoding, tag.frame));
        seen.decoded += usize::from(shown);
    }
    seen
}

/// With `SIM_TRACE` set: what became of the frames of the encoding that was being sent, by temporal layer.
pub fn trace_frames(world: &World, publisher: usize, track: &Published, by: &Subscribed, from: Instant) {
    let incoming = world.received(by);
    let mut parts: BTreeMap<(u8, u32), BTreeMap<u16, Instant>> = BTreeMap::new();
    for packet in &incoming.packets {
        if let Some(tag) = packet.tag {
            let unit = parts.entry((tag.encoding, tag.frame)).or_default();
            unit.entry(tag.part).or_insert(packet.at);
        }
    }
    let shown: BTreeMap<(u8, u32), Instant> = incoming
        .receiver
        .shown
        .iter()
        .map(|shown| ((shown.tag.encoding, shown.tag.frame), shown.at))
        .collect();
    let mut counts: BTreeMap<(u8, u8), [usize; 6]> = BTreeMap::new();
    let mut delays: BTreeMap<u8, Vec<Duration>> = BTreeMap::new();
    for outgoing in &world.peers[publisher].outgoing {
        if !track.ssrcs.contains(&*outgoing.ssrc) {
            continue;
        }
        for (at, tag) in outgoing.frames.iter().filter(|(at, _)| *at >= from) {
            let Some(got) = parts.get(&(tag.encoding, tag.frame)) else {
                continue;
            };
            let whole = got.values().max().filter(|_| got.len() == usize::from(tag.parts));
            let decoded = shown.get(&(tag.encoding, tag.frame));
            let class = match (whole, decoded) {
                (_, Some(when)) if *when <= *at + DEADLINE => 0,
                (_, Some(_)) => 1,
                (None, _) => 2,
                (Some(whole), _) if *whole > *at + DEADLINE => 3,
                (Some(_), None)
                    if tag
                        .references
                        .iter()
                        .flatten()
                        .all(|unit| shown.contains_key(&(tag.encoding, unit / 4))) =>
                {
                    4
                }
                (Some(_), None) => 5,
            };
            counts.entry((tag.encoding, tag.temporal)).or_default()[class] += 1;
            if let Some(whole) = whole {
                delays.entry(tag.encoding).or_default().push(*whole - *at);
            }
        }
    }
    println!("frames by (encoding, temporal): in time, late, never whole, whole late, passed over, without reference");
    for (layer, counts) in counts {
        println!("  {layer:?} {counts:?}");
    }
    for (encoding, mut delays) in delays {
        delays.sort();
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_millis();
        println!(
            "  whole after, encoding {encoding}: p50 {} p90 {} p99 {} ms",
            at(0.5),
            at(0.9),
            at(0.99)
        );
    }
}

/// With `SIM_TRACE` set: the frames around each time of a second without a picture, and the key frames asked of the publisher.
pub fn trace_gaps(world: &World, publisher: usize, track: &Published, by: &Subscribed, from: Instant) {
    const NAMED: Duration = Duration::from_secs(1);
    let incoming = world.received(by);
    let shown: Vec<Instant> = incoming.receiver.shown.iter().map(|shown| shown.at).collect();
    let since = |at: Instant| at.saturating_duration_since(from).as_millis();
    for gap in shown.windows(2).filter(|gap| gap[1] - gap[0] > NAMED) {
        println!("no picture from {} to {} ms", since(gap[0]), since(gap[1]));
        let around = gap[0] - NAMED / 2..gap[1];
        for at in incoming.receiver.requests.iter().filter(|at| around.contains(*at)) {
            println!("  {} the viewer asks for a key frame", since(*at));
        }
        for (at, rid) in &world.peers[publisher].requested_keyframes {
            if around.contains(at) {
                println!("  {} key frame asked of {rid:?}", since(*at));
            }
        }
        for outgoing in &world.peers[publisher].outgoing {
            if !track.ssrcs.contains(&*outgoing.ssrc) {
                continue;
            }
            for (at, tag) in outgoing.frames.iter().filter(|(at, _)| around.contains(at)) {
                let parts = incoming.packets.iter().filter(|packet| {
                    packet
                        .tag
                        .is_some_and(|other| (other.encoding, other.frame) == (tag.encoding, tag.frame))
                });
                let got: BTreeMap<u16, Instant> = parts
                    .filter_map(|packet| Some((packet.tag?.part, packet.at)))
                    .rev()
                    .collect();
                let Some(last) = got.values().max() else { continue };
                let seen = incoming.receiver.shown.iter();
                let mut seen = seen.filter(|shown| shown.tag.frame == tag.frame && shown.tag.encoding == tag.encoding);
                println!(
                    "  {} encoding {} frame {} t{}{}: {} of {} parts, last after {} ms, shown {:?}",
                    since(*at),
                    tag.encoding,
                    tag.frame,
                    tag.temporal,
                    if tag.keyframe { " KEY" } else { "" },
                    got.len(),
                    tag.parts,
                    (*last - *at).as_millis(),
                    seen.next().map(|shown| (shown.at - *at).as_millis()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::media::Shape;

    use super::*;

    fn call(seed: u64) -> (World, usize, Published, Subscribed) {
        let mut world = World::new(seed);
        let alice = world.join_connected("alice");
        let bob = world.join_connected("bob");
        let track = world.publish_shapes(alice, Codec::Vp8, vec![Shape::camera(1)], false);
        let subscription = world.subscribe(bob, &track);
        world.run(Duration::from_secs(3));
        (world, alice, track, subscription)
    }

    #[test]
    fn a_gap_in_picture_ids_is_found() {
        let (mut world, _, _, subscription) = call(1);
        let incoming = world.peers[subscription.peer]
            .incoming
            .get_mut(&subscription.ssrc)
            .expect("a stream");
        check_numbers(incoming, Codec::Vp8, Duration::ZERO).expect("sound numbers");
        let middle = incoming.packets.len() / 2;
        incoming.packets[middle].payload[3] ^= 4;
        check_numbers(incoming, Codec::Vp8, Duration::ZERO).expect_err("another picture id");
        incoming.packets[middle].payload[3] ^= 4;
        incoming.packets[middle].timestamp += 90_000;
        check_numbers(incoming, Codec::Vp8, Duration::ZERO).expect_err("another timestamp");
    }

    #[test]
    fn a_picture_that_only_one_run_has_is_named() {
        let (world, _, _, subscription) = call(3);
        let shown = &world.received(&subscription).receiver.shown;
        let run: BTreeMap<&str, BTreeSet<(u8, u32)>> = [(
            "bob",
            shown
                .iter()
                .map(|shown| (shown.tag.encoding, shown.tag.frame))
                .collect(),
        )]
        .into();
        assert!(run["bob"].len() > 50);
        assert_eq!(differences(&run, &run), []);
        let (&first, &last) = (run["bob"].first().expect("a picture"), run["bob"].last().expect("one"));
        for lost in [first, last] {
            let mut broken = run.clone();
            broken.entry("bob").or_default().remove(&lost);
            assert_eq!(differences(&run, &broken), [("bob", lost)]);
            assert_eq!(differences(&broken, &run), [("bob", lost)]);
            // The same picture of another encoding.
            broken.entry("bob").or_default().insert((lost.0 + 1, lost.1));
            assert_eq!(differences(&run, &broken).len(), 2);
        }
        let nobody = BTreeMap::new();
        assert_eq!(differences(&nobody, &run).len(), run["bob"].len());
    }

    #[test]
    fn what_is_lost_for_good_is_not_seen() {
        let (mut world, alice, track, subscription) = call(2);
        let from = world.now;
        world.run(Duration::from_secs(2));
        let down = crate::impairment::Conditions {
            up: false,
            ..Default::default()
        };
        world.set_link(subscription.peer, down);
        world.run(Duration::from_secs(2));
        let seen = seen(&world, alice, &track, &subscription, from..world.now);
        // Two of the four seconds; the frames in flight when the link went down are lost with the rest.
        assert!((48.0..=50.5).contains(&seen.percent()), "{seen:?}");
        let (gap, _) = world.received(&subscription).receiver.longest_gap(from..world.now);
        assert!(gap >= Duration::from_millis(1900), "{gap:?}");
    }
}
