//! Backup codecs under the three policies.

use std::collections::BTreeMap;
use std::time::Duration;

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{AddTrackRequest, BackupCodecPolicy, SimulcastCodec, SubscriptionError, TrackInfo};

use super::world::{World, camera, entry};
use crate::control::{ConnectionHandle, RoomSettings};
use crate::media::edge::Command;
use crate::types::{Codec, SubscriptionHandle};

fn codec(name: &str, cid: &str) -> SimulcastCodec {
    SimulcastCodec {
        codec: name.into(),
        cid: cid.into(),
        ..Default::default()
    }
}

/// A camera in `primary` that can be sent in VP8 too.
fn with_backup(primary: &str, policy: BackupCodecPolicy) -> AddTrackRequest {
    AddTrackRequest {
        simulcast_codecs: vec![codec(primary, "cam"), codec("vp8", "")],
        backup_codec_policy: policy as i32,
        ..camera("cam")
    }
}

fn publish_primary(
    world: &mut World,
    publisher: ConnectionHandle,
    name: &'static str,
    policy: BackupCodecPolicy,
) -> TrackInfo {
    world.send(publisher, Request::AddTrack(with_backup(&name.to_lowercase(), policy)));
    let told = world.client(publisher).told();
    let track = told.into_iter().rev().find_map(|message| match message {
        Message::TrackPublished(published) => published.track,
        _ => None,
    });
    world.client(publisher).add_video(name, "cam");
    world.offer(publisher);
    see_newest(world);
    world.after_ms(1000);
    track.expect("track_published")
}

/// What a client does that is asked for a codec it does not send yet.
fn publish_backup(world: &mut World, publisher: ConnectionHandle, track: &TrackInfo) {
    let request = AddTrackRequest {
        sid: track.sid.clone(),
        simulcast_codecs: vec![codec("vp8", "cam-vp8")],
        ..camera("cam-vp8")
    };
    world.send(publisher, Request::AddTrack(request));
    world.client(publisher).add_video("VP8", "cam-vp8");
    world.offer(publisher);
    see_newest(world);
    world.after_ms(1000);
}

/// The first packet of the track that was published last.
fn see_newest(world: &mut World) {
    let newest = world.commands(|command| match command {
        Command::Publish(publish) => Some(publish.track),
        _ => None,
    });
    if let Some(track) = newest.last() {
        world.encoding_seen(*track, 0, 77);
    }
}

/// What the shard sends: subscriber's handle → codec of the published track it gets.
fn sent(world: &World) -> BTreeMap<u64, Codec> {
    let mut tracks = BTreeMap::new();
    let mut sent: BTreeMap<SubscriptionHandle, (u64, Codec)> = BTreeMap::new();
    for command in &world.media {
        match command {
            Command::Publish(publish) => {
                tracks.insert(publish.track, publish.codecs[0].codec);
            }
            Command::Unpublish { track } => {
                tracks.remove(track);
            }
            Command::Subscribe(subscribe) => {
                let codec = tracks[&subscribe.track];
                sent.insert(subscribe.subscription, (subscribe.participant.0, codec));
            }
            Command::Unsubscribe { subscription } => {
                sent.remove(subscription);
            }
            _ => {}
        }
    }
    sent.into_values().collect()
}

/// Best wanted quality by codec, as the publisher was told last: how many are enabled.
fn wanted(world: &mut World, publisher: ConnectionHandle) -> BTreeMap<String, usize> {
    let told = &world.client(publisher).inbox;
    let newest = told.iter().rev().find_map(|message| match message {
        Message::SubscribedQualityUpdate(update) => Some(update.subscribed_codecs.clone()),
        _ => None,
    });
    let enabled = |codec: livekit_protocol::SubscribedCodec| {
        let count = codec.qualities.iter().filter(|quality| quality.enabled).count();
        (codec.codec, count)
    };
    newest.unwrap_or_default().into_iter().map(enabled).collect()
}

fn told(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs
        .iter()
        .map(|(codec, count)| ((*codec).to_owned(), *count))
        .collect()
}

#[test]
fn with_simulcast_everybody_gets_the_best_codec_it_takes() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").receiving("VP9 VP8"));
    let carol = world.join(entry("carol"));
    let track = publish_primary(&mut world, alice, "VP9", BackupCodecPolicy::Simulcast);
    assert_eq!(wanted(&mut world, alice), told(&[("vp9", 3), ("vp8", 3)]));
    publish_backup(&mut world, alice, &track);
    let (bob, carol) = (world.client(bob).handle.0, world.client(carol).handle.0);
    assert_eq!(sent(&world), BTreeMap::from([(bob, Codec::Vp9), (carol, Codec::Vp8)]));
    world.after(Duration::from_secs(20));
    assert_eq!(wanted(&mut world, alice), told(&[("vp9", 3), ("vp8", 3)]));
}

#[test]
fn a_regression_moves_everybody_and_ends_when_nobody_needs_it() {
    for policy in [BackupCodecPolicy::Regression, BackupCodecPolicy::PreferRegression] {
        for primary in ["VP9", "AV1", "H265"] {
            let name = primary.to_lowercase();
            let codec = Codec::parse(primary).unwrap();
            let mut world = World::new();
            let alice = world.join(entry("alice"));
            let receives = match primary {
                "VP9" => "VP9 VP8",
                "AV1" => "AV1 VP8",
                _ => "H265 VP8",
            };
            let bob = world.join(entry("bob").receiving(receives));
            let bob_handle = world.client(bob).handle.0;
            let track = publish_primary(&mut world, alice, primary, policy);
            assert_eq!(sent(&world), BTreeMap::from([(bob_handle, codec)]));
            assert_eq!(wanted(&mut world, alice), told(&[(&name, 3)]));

            let carol = world.join(entry("carol"));
            let carol_handle = world.client(carol).handle.0;
            world.after_ms(1000);
            assert_eq!(wanted(&mut world, alice), told(&[(&name, 3), ("vp8", 3)]));
            let mids = world.client(bob).mids.clone();
            publish_backup(&mut world, alice, &track);
            let both = BTreeMap::from([(bob_handle, Codec::Vp8), (carol_handle, Codec::Vp8)]);
            assert_eq!(sent(&world), both);
            assert_eq!(world.client(bob).mids, mids, "on the same m-line");
            world.after(Duration::from_secs(5));
            assert_eq!(wanted(&mut world, alice), told(&[(&name, 0), ("vp8", 3)]));

            // Another one that takes both has no choice.
            let dave = world.join(entry("dave").receiving(receives));
            let dave_handle = world.client(dave).handle.0;
            world.after_ms(1000);
            assert_eq!(sent(&world).get(&dave_handle), Some(&Codec::Vp8));

            world.leave(carol);
            world.after_ms(4900);
            assert_eq!(wanted(&mut world, alice), told(&[(&name, 0), ("vp8", 3)]));
            world.after_ms(200);
            assert_eq!(wanted(&mut world, alice), told(&[(&name, 3), ("vp8", 3)]));
            assert_eq!(
                sent(&world).get(&bob_handle),
                Some(&Codec::Vp8),
                "until the primary is there"
            );
            world.after_ms(2500);
            let both = BTreeMap::from([(bob_handle, codec), (dave_handle, codec)]);
            assert_eq!(sent(&world), both);
            world.after(Duration::from_secs(5));
            assert_eq!(wanted(&mut world, alice), told(&[(&name, 3), ("vp8", 0)]));

            // And again.
            let erin = world.join(entry("erin"));
            world.after_ms(1000);
            let all: Vec<Codec> = sent(&world).into_values().collect();
            assert_eq!(all, [Codec::Vp8; 3]);
            world.leave(erin);
        }
    }
}

#[test]
fn a_large_room_does_not_regress_where_that_is_only_preferred() {
    let small = RoomSettings {
        codec_regression_threshold: 3,
        ..RoomSettings::default()
    };
    for (policy, codec) in [
        (BackupCodecPolicy::PreferRegression, Codec::Vp9),
        (BackupCodecPolicy::Regression, Codec::Vp8),
    ] {
        let mut world = World::with(small.clone());
        let alice = world.join(entry("alice"));
        let bob = world.join(entry("bob").receiving("VP9 VP8"));
        world.join(entry("carol"));
        let track = publish_primary(&mut world, alice, "VP9", policy);
        publish_backup(&mut world, alice, &track);
        let bob = world.client(bob).handle.0;
        assert_eq!(sent(&world).get(&bob), Some(&codec), "{policy:?}");
    }
}

#[test]
fn without_the_backups_m_line_everybody_who_can_goes_back() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").receiving("VP9 VP8"));
    world.join(entry("carol"));
    let track = publish_primary(&mut world, alice, "VP9", BackupCodecPolicy::Regression);
    publish_backup(&mut world, alice, &track);
    world.unpublish(alice, "cam-vp8");
    world.after_ms(1000);
    let bob = world.client(bob).handle.0;
    assert_eq!(sent(&world).get(&bob), Some(&Codec::Vp9));
}

#[test]
fn who_takes_neither_codec_is_told_so() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob").receiving("H264"));
    publish_primary(&mut world, alice, "VP9", BackupCodecPolicy::Simulcast);
    let told = world.client(bob).told();
    let errors: Vec<SubscriptionError> = told
        .iter()
        .filter_map(|message| match message {
            Message::SubscriptionResponse(response) => Some(response.err()),
            _ => None,
        })
        .collect();
    assert_eq!(errors, [SubscriptionError::SeCodecUnsupported]);
}
