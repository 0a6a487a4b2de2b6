//! Layers from publisher to subscriber: whatever is left out, a receiver sees one stream.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::layers_source::*;
use super::repair::nack;
use super::world::*;
use crate::media::edge::{Command, EncodingParameters, SubscriptionSettings};
use crate::media::layers::EVERYTHING;
use crate::media::track::Track;
use crate::rtp::rtcp;
use crate::types::{Bitrate, Codec, Extension, Layer, MediaKind, Pt, Rid, Ssrc, SubscriptionHandle, TrackHandle};

fn layer(spatial: u8, temporal: u8) -> Layer {
    Layer { spatial, temporal }
}

fn at_most(world: &mut World, subscription: SubscriptionHandle, max_layer: Layer) {
    let settings = SubscriptionSettings {
        max_layer,
        ..Default::default()
    };
    world.command(Command::UpdateSubscription { subscription, settings });
}

fn pli(packet: &rtcp::Packet<'_>) -> bool {
    matches!(packet, rtcp::Packet::Pli { .. })
}

/// What comes when `peer` asks for each of these packets of a subscription.
fn ask_again(world: &mut World, peer: usize, subscription: SubscriptionHandle, packets: &[Got]) -> Vec<Got> {
    let ssrc = Ssrc(subscription.0 as u32);
    for packet in packets {
        let pairs = nack(packet.sequence());
        world.send_rtcp(peer, |writer| writer.nack(Ssrc(1), ssrc, &pairs));
    }
    world.deliver();
    world.take(peer)
}

fn track(world: &World, track: TrackHandle) -> &Track {
    let place = world.shard.index.tracks[&track];
    world
        .shard
        .rooms
        .get(place.room)
        .unwrap()
        .tracks
        .get(place.slot)
        .unwrap()
}

fn current(world: &World, subscription: SubscriptionHandle) -> Option<Layer> {
    let place = world.shard.index.subscriptions[&subscription];
    let room = world.shard.rooms.get(place.room).unwrap();
    room.subscriptions.get(place.slot).unwrap().current()
}

/// A track whose packets have `codec` under `SVC`, and bob who takes it.
fn scalable(world: &mut World, codecs: Codec, rids: &[&str]) -> (usize, usize, TrackHandle, SubscriptionHandle) {
    let (alice, bob) = (world.join(), world.join());
    let mut encodings: Vec<_> = rids.iter().map(|rid| encoding(rid)).collect();
    if encodings.is_empty() {
        encodings.push(EncodingParameters::default());
    }
    let codecs = vec![codec(codecs, SVC, Some(Pt(99)))];
    let camera = world.publish(alice, "1", MediaKind::Video, codecs.clone(), encodings);
    let mut subscribe = world.subscription(bob, camera, 900);
    subscribe.codecs = codecs;
    world.command(Command::Subscribe(Box::new(subscribe)));
    (alice, bob, camera, SubscriptionHandle(900))
}

fn encoding(rid: &str) -> EncodingParameters {
    EncodingParameters {
        rid: Rid::new(rid),
        ..Default::default()
    }
}

/// Sends pictures for `count` frame times; a request is answered by the next one.
fn film(world: &mut World, source: &mut Scalable, alice: usize, count: u32) {
    for _ in 0..count {
        let key = world.take_rtcp(alice, pli) > 0;
        source.send(world, alice, key);
        world.pass(33);
    }
}

#[test]
fn temporal_layers_are_left_out_and_taken_in_without_a_trace() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    let subscription = world.subscribe(bob, camera);
    let mut sequence = 500u16;
    let mut rng = SmallRng::seed_from_u64(1);
    for at in 0..400u32 {
        if at % 23 == 11 {
            at_most(&mut world, subscription, layer(2, rng.random_range(0..4)));
        }
        let parts = rng.random_range(1..4);
        for part in 0..parts {
            let header = header(VP8, 7, sequence, at, part + 1 == parts);
            world.send(
                alice,
                header,
                &[(Extension::Mid, b"1")],
                &vp8_layered(at, at == 0, part),
            );
            sequence = sequence.wrapping_add(1);
        }
        world.pass(33);
    }
    let got = world.take(bob);
    let frames = check_vp8(&got, false);
    check_decodable(&frames, &[0]);
    assert!(frames.len() < 350 && frames.len() > 150, "{}", frames.len());
    // A subscriber asks for the last second's packets: each is found, under what has been left out.
    let recent = &got[got.len() - 20..];
    let again = ask_again(&mut world, bob, subscription, recent);
    assert_eq!(again.len(), recent.len());
    for (packet, original) in again.iter().zip(recent) {
        assert_eq!(
            packet.rtp().payload()[2..],
            *original.rtp().payload(),
            "the same picture"
        );
        assert_eq!(packet.rtp().marker(), original.rtp().marker());
    }
    let place = world.shard.index.subscriptions[&subscription];
    let room = world.shard.rooms.get(place.room).unwrap();
    let subscription = room.subscriptions.get(place.slot).unwrap();
    let bytes = size_of_val(subscription) + subscription.heap_bytes();
    assert!(bytes <= 4096, "{bytes}");
}

#[test]
fn loss_and_reordering_on_the_way_in_leave_only_their_own_gaps() {
    for seed in 0..20 {
        let mut world = World::new();
        let (alice, bob) = (world.join(), world.join());
        let camera = world.publish_video(alice, "1", &[]);
        let subscription = world.subscribe(bob, camera);
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut sequence = 65_400u16;
        let mut late = Vec::new();
        for at in 0..200u32 {
            if rng.random_range(0..15) == 0 {
                at_most(&mut world, subscription, layer(2, rng.random_range(0..4)));
            }
            let parts = rng.random_range(1..4);
            for part in 0..parts {
                let packet = (
                    header(VP8, 7, sequence, at, part + 1 == parts),
                    vp8_layered(at, at == 0, part),
                );
                sequence = sequence.wrapping_add(1);
                // Some come up to four frames late, some not at all.
                match rng.random_range(0..20) {
                    0 if at > 0 => {}
                    1 if at > 0 => late.push((at + rng.random_range(0..5), packet)),
                    _ => world.send(alice, packet.0, &[(Extension::Mid, b"1")], &packet.1),
                }
            }
            let (due, rest): (Vec<_>, Vec<_>) = late.into_iter().partition(|(when, _)| *when <= at);
            late = rest;
            for (_, (header, payload)) in due {
                world.send(alice, header, &[(Extension::Mid, b"1")], &payload);
            }
            world.pass(33);
        }
        check_vp8(&world.take(bob), true);
    }
}

#[test]
fn spatial_and_temporal_layers_of_one_described_stream() {
    let mut world = World::new();
    let (alice, bob, camera, subscription) = scalable(&mut world, Codec::Av1, &[]);
    let mut source = Scalable::new(3, 3, false);
    film(&mut world, &mut source, alice, 90);
    let offered = track(&world, camera).offered(world.now);
    assert_eq!((offered.spatial, offered.temporal), (3, 3));
    assert!(offered.rate(layer(0, 0)) > Bitrate::ZERO);
    assert!(
        offered.rate(layer(0, 2)).0 > offered.rate(layer(0, 0)).0 * 2,
        "{offered:?}"
    );
    assert!(
        offered.rate(layer(2, 2)).0 > offered.rate(layer(1, 2)).0 * 3 / 2,
        "lower ones included"
    );

    for target in [layer(1, 1), layer(0, 0), layer(0, 3), layer(2, 0), EVERYTHING] {
        at_most(&mut world, subscription, target);
        // Less is given at once; more when it has been allocated and can be entered.
        for _ in 0..15 {
            film(&mut world, &mut source, alice, 12);
            if current(&world, subscription) == Some(target) {
                break;
            }
        }
        assert_eq!(current(&world, subscription), Some(target));
        film(&mut world, &mut source, alice, 12);
    }
    let got = world.take(bob);
    let frames = check_described(&got);
    let of = |s: u8, t: u8| frames.iter().filter(|f| f.spatial == s && f.temporal == t).count();
    assert!(of(0, 0) > of(0, 1) && of(0, 0) > of(1, 0));
    // What is left is said: targets are (s, t) in order, three temporal ones each.
    let masks: Vec<u32> = frames.iter().filter_map(|frame| frame.mask).collect();
    for mask in [0b000_011_011, 0b000_000_001, 0b000_000_111, 0b001_001_001] {
        assert!(masks.contains(&mask), "{mask:b} of {masks:?}");
    }
}

/// The active decode targets of a stream are those of its publisher that its receiver is given; said with every frame where
/// layers are left out, also when a packet is sent again.
#[test]
fn who_is_given_fewer_layers_is_told_which_are_left() {
    let mut world = World::new();
    let (alice, bob, camera, subscription) = scalable(&mut world, Codec::Av1, &[]);
    let carol = world.join();
    let mut whole = world.subscription(carol, camera, 901);
    whole.codecs = vec![codec(Codec::Av1, SVC, Some(Pt(99)))];
    world.command(Command::Subscribe(Box::new(whole)));
    let mut source = Scalable::new(3, 2, false);
    film(&mut world, &mut source, alice, 10);
    at_most(&mut world, subscription, layer(1, 3));
    film(&mut world, &mut source, alice, 10);
    // The publisher sends less by itself: targets are (s, t) in order, two temporal ones each.
    source.active = Some(0b01_01_11);
    source.send(&mut world, alice, true);
    world.pass(33);
    film(&mut world, &mut source, alice, 10);

    let got = world.take(bob);
    let masks = |packets: &[Got]| {
        let mut masks: Vec<_> = check_described(packets).iter().map(|frame| frame.mask).collect();
        masks.dedup();
        masks
    };
    // None: as the last said. A structure makes all targets active.
    let all = Some(0b11_11_11);
    assert_eq!(masks(&got), [all, None, Some(0b00_11_11), Some(0b00_01_11)]);
    assert_eq!(masks(&world.take(carol)), [all, None, source.active, None]);

    let recent = &got[got.len() - 12..];
    let again = ask_again(&mut world, bob, subscription, recent);
    assert_eq!(again.len(), recent.len());
    for (packet, original) in again.iter().zip(recent) {
        assert_eq!(
            packet.rtp().extension(12),
            original.rtp().extension(12),
            "the same descriptor"
        );
    }
}

#[test]
fn layers_that_depend_on_each_other_at_key_frames_only() {
    let mut world = World::new();
    let (alice, bob, _, subscription) = scalable(&mut world, Codec::Av1, &[]);
    let mut source = Scalable::new(3, 1, true);
    film(&mut world, &mut source, alice, 10);
    world.take_rtcp(alice, pli);
    at_most(&mut world, subscription, layer(0, 3));
    assert_eq!(
        current(&world, subscription),
        Some(EVERYTHING),
        "its base was not sent: a key frame is needed"
    );
    film(&mut world, &mut source, alice, 10);
    assert_eq!(current(&world, subscription), Some(layer(0, 3)));
    at_most(&mut world, subscription, layer(1, 3));
    world.pass(1000);
    film(&mut world, &mut source, alice, 20);
    assert_eq!(current(&world, subscription), Some(layer(1, 3)));
    let frames = check_described(&world.take(bob));
    let deltas: Vec<u8> = frames[3..9].iter().map(|frame| frame.spatial).collect();
    assert_eq!(deltas, [2; 6], "lower ones are not sent in between");
}

#[test]
fn a_layered_stream_by_its_vp9_header() {
    let mut world = World::new();
    let (alice, bob, _, subscription) = scalable(&mut world, Codec::Vp9, &[]);
    let mut sequence = 0u16;
    let mut picture = 0u16;
    let mut film = |world: &mut World, count: u32| {
        for _ in 0..count {
            let key = world.take_rtcp(alice, pli) > 0;
            picture += 1;
            for s in 0..3u8 {
                for part in 0..2u8 {
                    // I P L F=0 B E, a long picture id, T0 S, TL0PICIDX.
                    let first = 0xa0 | u8::from(!key) << 6 | u8::from(part == 0) << 3 | u8::from(part == 1) << 2;
                    let [high, low] = (picture | 0x8000).to_be_bytes();
                    let mut payload = vec![first, high, low, s << 1 | u8::from(s > 0), picture as u8];
                    payload.resize(100, s);
                    let header = header(SVC, 7, sequence, u32::from(picture), s == 2 && part == 1);
                    world.send(alice, header, &[(Extension::Mid, b"1")], &payload);
                    sequence += 1;
                }
            }
            world.pass(33);
        }
    };
    film(&mut world, 10);
    for (target, count) in [(layer(0, 3), 10), (layer(1, 3), 30), (EVERYTHING, 30)] {
        at_most(&mut world, subscription, target);
        film(&mut world, count);
        assert_eq!(current(&world, subscription), Some(target));
    }
    let mut last: Option<(i64, u32, bool)> = None;
    let mut sizes = [0; 3];
    for (number, packet) in ordered(&world.take(bob)) {
        let rtp = packet.rtp();
        if let Some((before, timestamp, marker)) = last {
            assert_eq!(number, before + 1);
            assert_eq!(marker, timestamp != rtp.timestamp(), "the marker ends each picture");
        }
        last = Some((number, rtp.timestamp(), rtp.marker()));
        sizes[usize::from(rtp.payload()[50])] += 1;
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2] && sizes[2] > 20, "{sizes:?}");
}

#[test]
fn encodings_with_layers_inside_are_told_apart_by_rid() {
    let mut world = World::new();
    let (alice, bob, camera, subscription) = scalable(&mut world, Codec::Av1, &["q", "f"]);
    let mut sources = [Scalable::new(2, 1, false), Scalable::new(1, 3, false)];
    for (source, (ssrc, rid)) in sources.iter_mut().zip([(70, "q"), (71, "f")]) {
        (source.ssrc, source.rid) = (ssrc, rid);
    }
    let mut film = |world: &mut World, count: u32| {
        for _ in 0..count {
            let asked = world.take_rtcp(alice, pli) > 0;
            for source in &mut sources {
                source.send(world, alice, asked);
            }
            world.pass(33);
        }
    };
    film(&mut world, 20);
    assert_eq!(
        current(&world, subscription),
        Some(EVERYTHING).map(|all| Layer { spatial: 1, ..all })
    );
    at_most(&mut world, subscription, layer(0, 3));
    film(&mut world, 20);
    assert_eq!(current(&world, subscription), Some(layer(0, 3)));
    at_most(&mut world, subscription, layer(1, 0));
    film(&mut world, 40);
    assert_eq!(current(&world, subscription), Some(layer(1, 0)));
    let frames = check_described(&world.take(bob));
    // The whole of the lower encoding, both of its spatial layers.
    assert!(frames.iter().any(|frame| frame.spatial == 1));
    let offered = track(&world, camera).offered(world.now);
    assert_eq!((offered.spatial, offered.temporal), (2, 3));
    assert!(
        offered.rate(layer(0, 0)) > offered.rate(layer(1, 0)),
        "each encoding alone"
    );
}

#[test]
fn a_key_frame_that_has_just_come_is_shown_to_who_comes_after_it() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, camera);
    world.take_rtcp(alice, pli);
    for at in 0..3u16 {
        world.video(alice, 7, at, "", &vp8(at == 0, true, at, 500));
        world.pass(33);
    }
    world.take_rtcp(alice, pli);
    world.subscribe(carol, camera);
    world.deliver();
    let got = world.take(carol);
    assert_eq!(got.len(), 3, "the key frame and what followed it");
    assert_eq!(
        (world.take_rtcp(alice, pli), world.shard.stats().replayed_keyframes),
        (0, 1)
    );
    world.video(alice, 7, 3, "", &vp8(false, true, 3, 500));
    world.deliver();
    let next = world.take(carol);
    assert_eq!(next[0].sequence(), got[2].sequence().wrapping_add(1));
    // A fourth frame later it is too much.
    let dave = world.join();
    world.subscribe(dave, camera);
    world.deliver();
    assert_eq!((world.take(dave).len(), world.take_rtcp(alice, pli)), (0, 1));
}

#[test]
fn a_switch_to_a_replayed_key_frame_never_goes_back_in_time() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &["q", "f"]);
    let subscription = world.subscribe(bob, camera);
    at_most(&mut world, subscription, layer(0, 3));
    let frame = |world: &mut World, at: u16, keys: [bool; 2]| {
        for (index, rid) in ["q", "f"].into_iter().enumerate() {
            let payload = vp8(keys[index], true, at, 300 + index * 200);
            world.video(alice, 70 + index as u32, at, rid, &payload);
        }
        world.pass(33);
    };
    for at in 0..10 {
        frame(&mut world, at, [at == 0, at == 8]);
    }
    // Both count the same moment as the same timestamp.
    for ssrc in [70, 71] {
        let info = rtcp::SenderInfo {
            ssrc: Ssrc(ssrc),
            ntp: 0xe000_0000_0000_0000,
            rtp_timestamp: 30_000,
            packets: 10,
            octets: 5000,
        };
        world.send_rtcp(alice, |writer| writer.sender_report(&info, &[]));
    }
    let before = world.take(bob).pop().unwrap();
    world.take_rtcp(alice, pli);
    at_most(&mut world, subscription, EVERYTHING);
    world.deliver();
    let replayed = world.take(bob);
    assert_eq!(replayed.len(), 2, "frames 8 and 9 of the upper encoding");
    assert_eq!(world.take_rtcp(alice, pli), 0);
    for at in 10..14 {
        frame(&mut world, at, [false; 2]);
    }
    let live = world.take(bob);
    let mut last = before.clone();
    for packet in replayed.iter().chain(&live) {
        assert_eq!(packet.rtp().payload().len(), 500);
        assert_eq!(packet.sequence(), last.sequence().wrapping_add(1));
        assert!((packet.rtp().timestamp().wrapping_sub(last.rtp().timestamp()) as i32) > 0);
        last = packet.clone();
    }
    // From the next live frame on at its own moment again: frame 10 is one frame behind frame 9.
    assert_eq!(live[0].rtp().timestamp().wrapping_sub(before.rtp().timestamp()), 3000);
    assert_eq!(world.shard.stats().switches_by_arrival, 0);
}

#[test]
fn a_subscriber_that_asks_all_the_time_costs_two_key_frames_a_second() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.join(), world.join(), world.join());
    let camera = world.publish_video(alice, "1", &["q", "f"]);
    let subscription = world.subscribe(bob, camera);
    world.subscribe(carol, camera);
    let mut asked = 0;
    let mut sent = 0;
    for ms in 0..10_000u32 {
        if ms % 3 == 0 {
            world.send_rtcp(bob, |writer| writer.pli(Ssrc(1), Ssrc(subscription.0 as u32)));
        }
        if ms % 33 == 0 {
            let wanted = world.take_rtcp(alice, pli);
            asked += wanted;
            for (index, rid) in ["q", "f"].into_iter().enumerate() {
                let payload = vp8(wanted > 0, true, sent, 300);
                world.video(alice, 70 + index as u32, sent, rid, &payload);
            }
            sent += 1;
        }
        world.pass(1);
    }
    assert!(asked <= 2 * 10 * 2, "two layers, ten seconds: {asked}");
    let got = world.take(carol);
    assert!(
        got.len() >= usize::from(sent) - 5,
        "nobody else loses anything: {} of {sent}",
        got.len()
    );
}

#[test]
fn a_layer_that_stops_is_left_and_taken_again() {
    for announced in [false, true] {
        let mut world = World::new();
        let (alice, bob) = (world.join(), world.join());
        let camera = world.publish_video(alice, "1", &["q", "h", "f"]);
        let subscription = world.subscribe(bob, camera);
        let mut at = 0u16;
        let mut asked = [false; 3];
        let mut film = |world: &mut World, count: u32, flowing: u8, fresh: u8| {
            for frame in 0..count {
                for layer in 0..3u8 {
                    let ssrc = 70 + u32::from(layer);
                    asked[usize::from(layer)] |= world.peers[alice].rtcp.iter().any(|compound| {
                        rtcp::parse(compound)
                            .flatten()
                            .any(|packet| matches!(packet, rtcp::Packet::Pli { media, .. } if media == Ssrc(ssrc)))
                    });
                }
                world.peers[alice].rtcp.clear();
                at += 1;
                for layer in (0..3u8).filter(|layer| flowing >> layer & 1 == 1) {
                    let key = std::mem::take(&mut asked[usize::from(layer)]) || frame == 0 && fresh >> layer & 1 == 1;
                    let payload = vp8(key, true, at, 300 + usize::from(layer) * 100);
                    let header = header(VP8, 70 + u32::from(layer), at, u32::from(at), true);
                    let rid = [["q", "h", "f"][usize::from(layer)].as_bytes()][0];
                    // Stream `layer` of three, each with a mask of its own, one temporal layer and a rate each.
                    let masks = [
                        u8::from(flowing & 1 == 1) << 4 | u8::from(flowing >> 1 & 1 == 1),
                        (flowing >> 2 & 1) << 4,
                    ];
                    let mut allocation = vec![layer << 6 | 0x20, masks[0], masks[1], 0];
                    allocation.extend(vec![100; flowing.count_ones() as usize]);
                    let mut elements = vec![(Extension::Mid, &b"1"[..]), (Extension::Rid, rid)];
                    if announced && frame == 0 {
                        elements.push((Extension::VideoLayersAllocation, &allocation));
                    }
                    world.send(alice, header, &elements, &payload);
                }
                world.pass(33);
            }
        };
        film(&mut world, 30, 0b111, 0b111);
        assert_eq!(current(&world, subscription).map(|layer| layer.spatial), Some(2));
        assert!(track(&world, camera).offered(world.now).rate(layer(2, 0)) > Bitrate::ZERO);
        // A third of a second, or the next frame where it is said.
        film(&mut world, if announced { 2 } else { 10 }, 0b011, 0);
        assert_eq!(
            track(&world, camera).offered(world.now).rate(layer(2, 0)),
            Bitrate::ZERO
        );
        film(&mut world, 3, 0b011, 0);
        assert_eq!(
            current(&world, subscription).map(|layer| layer.spatial),
            Some(1),
            "announced: {announced}"
        );
        film(&mut world, 60, 0b011, 0);
        // Its first key frame is taken where it is said to come; else it is waited whether more follows.
        film(&mut world, 4, 0b111, 0b100);
        let spatial = current(&world, subscription).map(|layer| layer.spatial);
        assert_eq!(spatial, Some(1 + u8::from(announced)), "announced: {announced}");
        film(&mut world, 16, 0b111, 0);
        assert_eq!(current(&world, subscription).map(|layer| layer.spatial), Some(2));
        let mut last: Option<Got> = None;
        for packet in world.take(bob) {
            if let Some(last) = &last {
                assert_eq!(packet.sequence(), last.sequence().wrapping_add(1));
                assert!((packet.rtp().timestamp().wrapping_sub(last.rtp().timestamp()) as i32) > 0);
            }
            last = Some(packet);
        }
    }
}

#[test]
fn announced_layers_inside_a_stream_are_known_at_once() {
    let mut world = World::new();
    let (alice, _, camera, _) = scalable(&mut world, Codec::Av1, &[]);
    let mut source = Scalable::new(3, 1, false);
    film(&mut world, &mut source, alice, 30);
    let offers = |world: &World| {
        let offered = track(world, camera).offered(world.now);
        [0, 1, 2].map(|spatial| offered.rate(layer(spatial, 0)) > Bitrate::ZERO)
    };
    assert_eq!(offers(&world), [true; 3]);
    let mut sends = |world: &mut World, sent: u32, announced: bool| {
        source.sent = sent;
        // One stream, a bit for each spatial layer, one temporal layer and a rate each.
        let mut value = vec![(1 << sent) - 1, 0];
        value.extend(vec![100; sent as usize]);
        source.announcement = announced.then_some(value);
        source.send(world, alice, false);
        world.pass(33);
        offers(world)
    };
    assert_eq!(sends(&mut world, 1, true), [true, false, false]);
    assert_eq!(sends(&mut world, 3, true), [true; 3]);
    assert_eq!(sends(&mut world, 2, false), [true; 3], "a frame may be late");
    (0..9).for_each(|_| {
        sends(&mut world, 2, false);
    });
    assert_eq!(sends(&mut world, 2, false), [true, true, false], "by silence");
    assert_eq!(
        sends(&mut world, 3, false),
        [true, true, false],
        "it may be a single frame"
    );
    assert_eq!(
        sends(&mut world, 3, true),
        [true, true, false],
        "a layer that comes and goes says so each time"
    );
}

#[test]
fn a_picture_that_came_before_the_unmute_is_not_asked_for_again() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, camera);
    for at in 0..10u16 {
        world.video(alice, 7, at, "", &vp8(at == 0, true, at, 500));
        world.pass(33);
    }
    world.command(Command::MuteTrack {
        track: camera,
        muted: true,
    });
    world.pass(5000);
    world.take(bob);
    world.take_rtcp(alice, pli);
    // Media overtakes the signal that announces it.
    world.video(alice, 7, 10, "", &vp8(true, true, 10, 500));
    world.pass(20);
    assert_eq!(world.take(bob).len(), 0);
    world.command(Command::MuteTrack {
        track: camera,
        muted: false,
    });
    world.deliver();
    assert_eq!(
        (world.take(bob).len(), world.take_rtcp(alice, pli)),
        (1, 0),
        "the picture is there at once"
    );
}

#[test]
fn a_picture_that_came_just_after_the_mute_is_never_shown() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let camera = world.publish_video(alice, "1", &[]);
    world.subscribe(bob, camera);
    world.video(alice, 7, 0, "", &vp8(true, true, 0, 500));
    world.pass(33);
    let mute = |muted| Command::MuteTrack { track: camera, muted };
    world.command(mute(true));
    world.pass(50);
    // Not all have heard of it: one more picture is on its way.
    world.video(alice, 7, 1, "", &vp8(true, true, 1, 500));
    world.pass(200);
    world.take(bob);
    world.take_rtcp(alice, pli);
    world.command(mute(false));
    world.deliver();
    assert_eq!((world.take(bob).len(), world.take_rtcp(alice, pli)), (0, 1));
    world.video(alice, 7, 2, "", &vp8(true, true, 2, 500));
    world.pass(2000);
    // Nor one that came just before it, with what came behind it and after the mute.
    world.video(alice, 7, 3, "", &vp8(true, true, 3, 500));
    world.pass(10);
    world.command(mute(true));
    world.video(alice, 7, 4, "", &vp8(false, true, 4, 500));
    world.pass(100);
    world.take(bob);
    world.take_rtcp(alice, pli);
    world.command(mute(false));
    world.deliver();
    assert_eq!((world.take(bob).len(), world.take_rtcp(alice, pli)), (0, 1));
}

#[test]
fn pauses_of_a_voice_are_kept() {
    let mut world = World::new();
    let (alice, bob) = (world.join(), world.join());
    let voice = world.publish_audio(alice, "0");
    world.subscribe(bob, voice);
    // Discontinuous transmission: numbers go on, time jumps.
    for (sequence, moment) in [(1u16, 0u32), (2, 960), (3, 20 * 960), (4, 40 * 960)] {
        let header = crate::rtp::RtpHeader {
            marker: sequence == 3,
            pt: OPUS,
            sequence,
            timestamp: moment,
            ssrc: Ssrc(5),
        };
        world.send(alice, header, &[(Extension::Mid, b"0")], &[1, 2, 3]);
        world.pass(20);
    }
    let got = world.take(bob);
    let first = got[0].rtp().timestamp();
    let moments: Vec<u32> = got
        .iter()
        .map(|packet| packet.rtp().timestamp().wrapping_sub(first))
        .collect();
    assert_eq!(moments, [0, 960, 19_200, 38_400]);
    let numbers: Vec<u16> = got
        .iter()
        .map(|packet| packet.sequence().wrapping_sub(got[0].sequence()))
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert!(got[2].rtp().marker(), "a talkspurt begins");
}
