//! Whatever happens to the source, a subscriber's stream is one.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::types::Layer;

const A: Source = Source { encoding: 0, epoch: 0 };
const B: Source = Source { encoding: 1, epoch: 0 };

fn packet(source: Source, sequence: u64) -> Incoming {
    Incoming {
        source,
        sequence,
        timestamp: (sequence as u32).wrapping_mul(3000),
        picture: PictureNumbers {
            picture_id: sequence as u16 & 0x7fff,
            tl0_picidx: sequence as u8,
            keyidx: sequence as u8 & 0x1f,
        },
        frame_number: sequence as u16,
    }
}

#[test]
fn gaps_keep_their_places_and_late_packets_take_them() {
    let mut rewriter = Rewriter::new(100, MediaKind::Video);
    let first = rewriter.switch(packet(A, 70_000), 5000, Cut::NONE).sequence;
    assert_eq!(first, (1 << 16) + 100);
    assert_eq!(
        rewriter.rewrite(packet(A, 70_003), Cut::NONE).unwrap().0.sequence,
        first + 3
    );
    let late = rewriter.rewrite(packet(A, 70_001), Cut::NONE).unwrap().0;
    assert_eq!((late.sequence, late.timestamp), (first + 1, 5000 + 3000));
    assert_eq!(rewriter.rewrite(packet(A, 69_999), Cut::NONE), Err(DropReason::Late));
    // After a switch the missing packet still has its place, one behind the source's end has none.
    rewriter.switch(packet(B, 90_000), 50_000, Cut::NONE);
    assert_eq!(
        rewriter.rewrite(packet(A, 70_002), Cut::NONE).unwrap().0.sequence,
        first + 2
    );
    assert_eq!(rewriter.rewrite(packet(A, 70_004), Cut::NONE), Err(DropReason::Late));
    assert_eq!(
        rewriter.rewrite(packet(B, 90_001), Cut::NONE).unwrap().0.sequence,
        first + 5
    );
}

#[test]
fn skipped_packets_leave_no_hole() {
    let mut rewriter = Rewriter::new(0, MediaKind::Video);
    let first = rewriter.switch(packet(A, 70_000), 0, Cut::NONE).sequence;
    rewriter.skip(A, 70_001);
    rewriter.skip(A, 70_002);
    assert_eq!(
        rewriter.rewrite(packet(A, 70_003), Cut::NONE).unwrap().0.sequence,
        first + 1
    );
    // 70_004 is missing when 70_005 is skipped: its place stays.
    rewriter.skip(A, 70_005);
    assert_eq!(
        rewriter.rewrite(packet(A, 70_006), Cut::NONE).unwrap().0.sequence,
        first + 3
    );
    assert_eq!(
        rewriter.rewrite(packet(A, 70_004), Cut::NONE).unwrap().0.sequence,
        first + 2
    );
    assert_eq!(rewriter.rewrite(packet(A, 70_005), Cut::NONE), Err(DropReason::Late));
    assert_eq!(rewriter.locate(first + 3).unwrap().sequence, 70_006);
    assert_eq!(rewriter.locate(first + 2).unwrap().sequence, 70_004);
    assert_eq!(rewriter.locate(first + 4), None);
}

#[test]
fn pictures_follow_over_a_switch() {
    let mut rewriter = Rewriter::new(0, MediaKind::Video);
    let first = rewriter.switch(packet(A, 70_000), 0, Cut::NONE).picture;
    assert_eq!(first, packet(A, 70_000).picture, "the first source keeps its numbers");
    let last = rewriter.rewrite(packet(A, 70_001), Cut::NONE).unwrap().0.picture;
    // What a frame of the last source is shown with, which counts by itself.
    let frame = |rewriter: &Rewriter, number: u16| number.wrapping_add(rewriter.offsets().unwrap().1.frame_number);
    let last_frame = frame(&rewriter, 70_001u64 as u16);
    let next = rewriter.switch(packet(B, 81_234), 9000, Cut::NONE).picture;
    assert_eq!(frame(&rewriter, 81_234u64 as u16), last_frame.wrapping_add(1));
    assert_eq!(next.picture_id, (last.picture_id + 1) & 0x7fff);
    assert_eq!(next.tl0_picidx, last.tl0_picidx.wrapping_add(1));
    assert_eq!(next.keyidx, (last.keyidx + 1) & 0x1f);
}

#[test]
fn generated_packets_continue_the_stream_and_cannot_be_asked_for() {
    let mut rewriter = Rewriter::new(0, MediaKind::Video);
    let first = rewriter.switch(packet(A, 70_000), 1000, Cut::NONE).sequence;
    assert_eq!(rewriter.generate(1960, false).sequence, first + 1);
    assert_eq!(rewriter.source(), None);
    assert_eq!(rewriter.rewrite(packet(A, 70_001), Cut::NONE), Err(DropReason::Late));
    assert_eq!(rewriter.switch(packet(A, 70_002), 2920, Cut::NONE).sequence, first + 2);
    assert_eq!(rewriter.locate(first + 1), None);
    assert_eq!(rewriter.extend((first + 1) as u16), first + 1);
}

#[derive(Clone, Debug)]
enum Step {
    /// The next packet arrives.
    Arrive,
    /// It is lost, and comes this many steps later (0 = never).
    Lose(usize),
    Skip,
    Switch,
    Generate,
    /// What is left out around packets changes.
    Cut(u8),
    /// The next packet arrives and is shown at another time.
    Retime,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Arrive),
        2 => (0usize..20).prop_map(Step::Lose),
        2 => Just(Step::Skip),
        1 => Just(Step::Switch),
        1 => Just(Step::Generate),
        1 => (0u8..3).prop_map(Step::Cut),
        1 => Just(Step::Retime),
    ]
}

proptest! {
    #[test]
    fn one_unbroken_stream(first in any::<u16>(), steps in proptest::collection::vec(step(), 1..400)) {
        let mut rewriter = Rewriter::new(first, MediaKind::Video);
        let mut heads = [70_000u64, 4_000_000];
        let mut source = A;
        let mut timestamp = 0u32;
        rewriter.switch(packet(A, 69_999), 0, Cut::NONE);
        // Every number shown, with what it stands for: None = a place left, or generated.
        let mut shown: HashMap<u64, Option<Incoming>> = HashMap::new();
        let mut highest = (1 << 16) + u64::from(first);
        shown.insert(highest, Some(packet(A, 69_999)));
        let mut waiting: Vec<(usize, Incoming)> = Vec::new();
        let mut restart = false;
        let mut cut = Cut::NONE;
        let mut cuts: HashMap<u64, Cut> = HashMap::new();
        // Of picture ids to sequence numbers, and of frame numbers to the publisher's, since the last switch.
        let mut pictures = packet(A, 69_999).picture.picture_id.wrapping_sub(highest as u16);
        let mut frames = 0u16;
        let mut ids = HashMap::from([(highest, packet(A, 69_999).picture.picture_id)]);
        cuts.insert(highest, cut);
        for (at, step) in steps.into_iter().enumerate() {
            let head = &mut heads[usize::from(source.encoding)];
            let next = packet(source, *head);
            timestamp = timestamp.wrapping_add(3000);
            match step {
                Step::Cut(spatial) => cut = Cut::at(Layer { spatial, temporal: 3 }),
                Step::Arrive | Step::Lose(_) | Step::Skip | Step::Retime if restart => {
                    let numbers = rewriter.switch(next, timestamp, cut);
                    prop_assert_eq!(numbers.sequence, highest + 1);
                    prop_assert_eq!(numbers.timestamp, timestamp);
                    prop_assert!(shown.insert(numbers.sequence, Some(next)).is_none());
                    pictures = numbers.picture.picture_id.wrapping_sub(numbers.sequence as u16);
                    frames = rewriter.offsets().unwrap().1.frame_number;
                    prop_assert!(!ids.values().any(|id| *id == numbers.picture.picture_id), "a picture id shown twice");
                    ids.insert(numbers.sequence, numbers.picture.picture_id);
                    cuts.insert(numbers.sequence, cut);
                    highest = numbers.sequence;
                    *head += 1;
                    restart = false;
                }
                Step::Arrive | Step::Retime => {
                    let numbers = if matches!(step, Step::Arrive) {
                        let (numbers, shown_cut) = rewriter.rewrite(next, cut).unwrap();
                        prop_assert_eq!(shown_cut, cut);
                        numbers
                    } else {
                        timestamp = timestamp.wrapping_add(7);
                        let numbers = rewriter.retime(next, timestamp, cut).unwrap();
                        prop_assert_eq!(numbers.timestamp, timestamp);
                        numbers
                    };
                    cuts.insert(numbers.sequence, cut);
                    prop_assert!(numbers.sequence > highest);
                    // Each packet is a picture here: ids go with the numbers, frames with the publisher's.
                    let picture = numbers.picture.picture_id;
                    prop_assert_eq!(picture, (numbers.sequence as u16).wrapping_add(pictures) & 0x7fff);
                    prop_assert!(ids.insert(numbers.sequence, picture).is_none());
                    prop_assert_eq!(rewriter.offsets().unwrap().1.frame_number, frames);
                    // Exactly the lost ones since are left out.
                    let places = waiting_places(&waiting, &shown, highest, numbers.sequence);
                    prop_assert!(places, "a hole that no packet can fill");
                    prop_assert!(shown.insert(numbers.sequence, Some(next)).is_none());
                    highest = numbers.sequence;
                    timestamp = numbers.timestamp;
                    *head += 1;
                }
                Step::Lose(after) => {
                    waiting.push((at + after.max(1), next));
                    *head += 1;
                }
                Step::Skip => {
                    rewriter.leave_out(next, true);
                    *head += 1;
                }
                Step::Switch => {
                    source = if source == A { B } else { A };
                    restart = true;
                    rewriter.interrupt();
                }
                Step::Generate => {
                    let numbers = rewriter.generate(timestamp, false);
                    prop_assert!(shown.insert(numbers.sequence, None).is_none());
                    highest = highest.max(numbers.sequence);
                    restart = true;
                }
            }
            highest = highest.max(rewriter.next - 1);
            let (due, rest): (Vec<_>, Vec<_>) = waiting.iter().partition(|(when, _)| *when == at);
            waiting = rest;
            for (_, packet) in due {
                if let Ok((numbers, late_cut)) = rewriter.rewrite(packet, cut) {
                    let id = numbers.picture.picture_id;
                    prop_assert!(!ids.values().any(|shown| *shown == id), "a late picture under an id of another");
                    ids.insert(numbers.sequence, id);
                    cuts.insert(numbers.sequence, late_cut);
                    prop_assert!(shown.insert(numbers.sequence, Some(packet)).is_none(), "a number shown twice");
                    highest = highest.max(numbers.sequence);
                }
            }
            for (sequence, incoming) in &shown {
                if let Some(located) = rewriter.locate(*sequence) {
                    let incoming = incoming.expect("a generated packet is not in any ring");
                    prop_assert_eq!((located.source, located.sequence), (incoming.source, incoming.sequence));
                    prop_assert_eq!(located.cut, cuts[sequence]);
                    prop_assert_eq!(located.offsets.picture(incoming.picture).picture_id, ids[sequence]);
                }
            }
        }
    }
}

/// Between two shown numbers only places of packets that are still missing.
fn waiting_places(waiting: &[(usize, Incoming)], shown: &HashMap<u64, Option<Incoming>>, from: u64, to: u64) -> bool {
    let holes = (from + 1..to).filter(|number| !shown.contains_key(number)).count();
    holes <= waiting.len()
}
