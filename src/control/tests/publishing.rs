//! From AddTrack to the first packet, to the end.

use std::time::Duration;

use livekit_protocol::client_info::Sdk;
use livekit_protocol::request_response::Reason;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{AddTrackRequest, MuteTrackRequest, SessionDescription, SimulcastCodec, TrackSource, TrackType};

use super::world::{World, camera, connected, entry, microphone, name};
use crate::control::{ConnectionHandle, Waiting};
use crate::media::edge::Command;

#[test]
fn a_simulcast_camera_is_shown_with_its_first_packet() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.client(bob).told();
    let cid = "cam";
    world.send(alice, Request::AddTrack(camera(cid)));
    let track = match world.client(alice).told().pop() {
        Some(Message::TrackPublished(published)) => published.track.unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(track.sid.starts_with("TR_VC"));
    assert!(track.simulcast && track.mime_type.is_empty() && track.mid.is_empty() && track.version.is_none());
    assert_eq!(track.codecs[0].mime_type, "video/vp8");
    assert_eq!(track.stream, "camera");

    world.client(alice).add_section("video", "sendonly", Some(cid));
    world.offer(alice);
    assert!(world.client(bob).update_about("alice").is_none(), "no packet yet");
    let publish = world
        .commands(|command| match command {
            Command::Publish(publish) => Some(publish.as_ref().clone()),
            _ => None,
        })
        .pop()
        .expect("published");
    assert_eq!(publish.mid.as_str(), "7");
    let rids: Vec<String> = publish
        .encodings
        .iter()
        .map(|encoding| encoding.rid.unwrap().to_string())
        .collect();
    assert_eq!(rids, ["q", "h", "f"]);

    world.encoding_seen(publish.track, 0, 1000);
    let info = world.client(bob).update_about("alice").expect("an update");
    assert!(info.is_publisher);
    let shown = &info.tracks[0];
    assert_eq!((shown.mime_type.as_str(), shown.mid.as_str()), ("video/VP8", "7"));
    assert_eq!(shown.layers[0].ssrc, 1000);
    assert_eq!(
        (
            shown.layers[1].ssrc,
            shown.layers[1].rid.as_str(),
            shown.layers[1].spatial_layer
        ),
        (0, "h", 1)
    );
    assert!(shown.version.is_some());
    world.encoding_seen(publish.track, 1, 1001);
    let later = world.client(bob).update_about("alice").expect("an update");
    assert_eq!(later.version, info.version + 1);
    assert_eq!(later.tracks[0].layers[1].ssrc, 1001);

    // The subscriber is asked to offer, and the publisher hears that somebody watches.
    world.client(alice).told();
    world.after_ms(200);
    assert!(
        world
            .client(bob)
            .names()
            .ends_with(&["media_sections_requirement", "answer"])
    );
    assert_eq!(
        world.client(alice).names(),
        ["subscribed_quality_update", "track_subscribed"]
    );
}

#[test]
fn audio_is_shown_with_the_answer_and_is_red() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.send(alice, Request::AddTrack(microphone("mic")));
    world.client(alice).add_section("audio", "sendonly", Some("mic"));
    world.offer(alice);
    let track = world.client(bob).update_about("alice").expect("an update").tracks[0].clone();
    assert_eq!((track.mime_type.as_str(), track.mid.as_str()), ("audio/red", "7"));
    assert!(track.sid.starts_with("TR_AM"));
    assert_eq!(track.backup_codec_policy, 1);
}

#[test]
fn mute_reaches_everyone_and_the_shard() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    let track = world.publish(alice, microphone("mic"));
    for muted in [true, false] {
        world.send(
            alice,
            Request::Mute(MuteTrackRequest {
                sid: track.sid.clone(),
                muted,
            }),
        );
        for client in [alice, bob] {
            let info = world.client(client).update_about("alice").expect("an update");
            assert_eq!(info.tracks[0].muted, muted);
        }
    }
    let mutes = world.commands(|command| match command {
        Command::MuteTrack { muted, .. } => Some(*muted),
        _ => None,
    });
    assert_eq!(mutes, [true, false]);
    world.client(alice).told();
    world.send(
        alice,
        Request::Mute(MuteTrackRequest {
            sid: "TR_x".into(),
            muted: true,
        }),
    );
    let told = world.client(alice).told();
    assert!(matches!(&told[..], [Message::RequestResponse(response)] if response.reason() == Reason::NotFound));
}

#[test]
fn unpublishing_takes_the_track_from_everyone() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    let bob = world.join(entry("bob"));
    world.publish(alice, camera("cam"));
    world.after_ms(500);
    assert_eq!(world.client(bob).mids.len(), 1);
    world.client(alice).told();
    world.unpublish(alice, "cam");
    let info = world.client(bob).update_about("alice").expect("an update");
    assert!(info.tracks.is_empty() && info.is_publisher);
    assert!(!world.client(alice).names().contains(&"track_unpublished"));
    world.after_ms(500);
    assert!(world.client(bob).mids.is_empty());
    assert!(
        world
            .media
            .iter()
            .any(|command| matches!(command, Command::Unpublish { .. }))
    );

    // The same source again, on another m-line.
    world.publish(alice, camera("cam2"));
    world.after_ms(500);
    assert_eq!(world.client(bob).mids.len(), 1);
}

#[test]
fn what_may_not_be_published_is_refused() {
    let mut world = World::new();
    let only_audio =
        |grant: &mut crate::proto::claims::VideoGrant| grant.can_publish_sources = vec!["microphone".into()];
    let alice = world.join(entry("alice").grant(only_audio));
    world.client(alice).told();
    world.send(alice, Request::AddTrack(camera("cam")));
    let told = world.client(alice).told();
    assert!(matches!(&told[..], [Message::RequestResponse(response)] if response.reason() == Reason::NotAllowed));
    // Media without an accepted announcement is bound to nothing.
    world.client(alice).add_section("video", "sendonly", Some("cam"));
    world.offer(alice);
    assert!(!world.media.iter().any(|command| matches!(command, Command::Publish(_))));
}

#[test]
fn the_twenty_first_pending_track_is_too_many_and_a_used_cid_waits() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    for index in 0..20 {
        world.send(alice, Request::AddTrack(microphone(&format!("mic{index}"))));
    }
    let reason = |world: &mut World, request| {
        world.client(alice).told();
        world.send(alice, Request::AddTrack(request));
        match world.client(alice).told().pop() {
            Some(Message::RequestResponse(response)) => Some(response.reason()),
            _ => None,
        }
    };
    assert_eq!(reason(&mut world, microphone("more")), Some(Reason::LimitExceeded));

    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.publish(alice, microphone("mic"));
    let reason = |world: &mut World| {
        world.client(alice).told();
        world.send(alice, Request::AddTrack(microphone("mic")));
        match world.client(alice).told().pop() {
            Some(Message::RequestResponse(response)) => Some(response.reason()),
            _ => None,
        }
    };
    for _ in 0..3 {
        assert_eq!(reason(&mut world), Some(Reason::Queued));
    }
    assert_eq!(reason(&mut world), Some(Reason::LimitExceeded));
    world.unpublish(alice, "mic");
    assert!(
        world
            .client(alice)
            .told()
            .iter()
            .any(|message| name(message) == "track_published")
    );
}

#[test]
fn a_disabled_codec_is_replaced_and_the_client_is_told() {
    let settings = crate::control::RoomSettings {
        enabled_codecs: vec![crate::types::Codec::Opus, crate::types::Codec::Vp8],
        ..Default::default()
    };
    let mut world = World::with(settings);
    let alice = world.join(entry("alice"));
    let mut request = camera("cam");
    request.simulcast_codecs[0].codec = "av1".into();
    request.source = TrackSource::ScreenShare as i32;
    let track = world.publish(alice, request);
    assert_eq!(track.codecs[0].mime_type, "video/vp8");
    assert_eq!(track.stream, "screen");
    assert!(track.sid.starts_with("TR_VS"));
}

fn vp9_with_backup() -> AddTrackRequest {
    let mut request = camera("cam");
    request.simulcast_codecs[0].codec = "vp9".into();
    request.simulcast_codecs.push(SimulcastCodec {
        codec: "vp8".into(),
        ..Default::default()
    });
    request
}

#[test]
fn a_backup_codec_is_asked_for_when_a_subscriber_needs_it() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    // The scripted clients' own m-lines take VP8 only.
    let bob = world.join(entry("bob"));
    world.send(alice, Request::AddTrack(vp9_with_backup()));
    let track = match world.client(alice).told().pop() {
        Some(Message::TrackPublished(published)) => published.track.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(track.codecs.len(), 2);
    assert!(!track.simulcast, "VP9 is one stream of several layers");
    assert_eq!(track.codecs[0].video_layer_mode, 2);
    world.client(alice).add_video("VP9", "cam");
    world.offer(alice);
    let info = world.client(bob).update_about("alice").expect("an update");
    assert_eq!(info.tracks[0].mime_type, "video/VP9");
    world.after_ms(1000);
    assert!(
        world.forwarded().is_empty(),
        "no codec of the track is there for bob yet"
    );
    let wanted = world
        .client(alice)
        .told()
        .into_iter()
        .find_map(|message| match message {
            Message::SubscribedQualityUpdate(update) => Some(update.subscribed_codecs),
            _ => None,
        });
    let wanted = wanted.expect("the backup is asked for");
    assert_eq!((wanted.len(), wanted[0].codec.as_str()), (1, "vp8"));

    let backup = AddTrackRequest {
        sid: track.sid.clone(),
        cid: "cam-vp8".into(),
        simulcast_codecs: vec![SimulcastCodec {
            codec: "vp8".into(),
            cid: "cam-vp8".into(),
            ..Default::default()
        }],
        ..camera("cam-vp8")
    };
    world.send(alice, Request::AddTrack(backup));
    assert!(
        world
            .client(alice)
            .told()
            .iter()
            .any(|message| name(message) == "track_published")
    );
    world.client(alice).add_video("VP8", "cam-vp8");
    world.offer(alice);
    let published = world.commands(|command| match command {
        Command::Publish(publish) => Some(publish.track),
        _ => None,
    });
    assert_eq!(published.len(), 2);
    assert_eq!(
        world.forwarded().iter().map(|(_, track)| *track).collect::<Vec<_>>(),
        published[1..]
    );
    // Without the backup's m-line the track goes on, without bob.
    world.unpublish(alice, "cam-vp8");
    assert_eq!(world.room.participants()[0].tracks.len(), 1);
}

#[test]
fn a_real_browser_publishes_camera_and_microphone() {
    let golden = |sdp: &str, id| {
        Some(SessionDescription {
            r#type: "offer".into(),
            sdp: sdp.into(),
            id,
            ..Default::default()
        })
    };
    let join = golden(include_str!("../../../tests/golden/chromium-single-join-offer.sdp"), 1);
    let publish = golden(
        include_str!("../../../tests/golden/chromium-single-publish-offer.sdp"),
        3,
    );
    let mut world = World::new();
    let bob = world.join(entry("bob"));
    let alice = world.join(entry("alice").parameters(|it| it.publisher_offer = join));
    world.send(alice, Request::AddTrack(camera("1b95bc50-c157-d62c-759f-67e139e85c44")));
    world.send(
        alice,
        Request::AddTrack(microphone("ecde2b6f-7973-31ce-1a2a-dd07e546ffdb")),
    );
    world.send(alice, Request::Offer(publish.unwrap()));
    let published = world.commands(|command| match command {
        Command::Publish(publish) => Some(publish.as_ref().clone()),
        _ => None,
    });
    let mids: Vec<&str> = published.iter().map(|publish| publish.mid.as_str()).collect();
    assert_eq!(mids, ["7", "8"]);
    assert_eq!(published[0].encodings.len(), 3);
    let shown = |world: &mut World| -> Vec<String> {
        let info = world.client(bob).update_about("alice").expect("an update");
        info.tracks.iter().map(|track| track.mime_type.clone()).collect()
    };
    assert_eq!(shown(&mut world), ["audio/red"]);
    world.encoding_seen(published[0].track, 0, 5);
    let mut mimes = shown(&mut world);
    mimes.sort();
    assert_eq!(mimes, ["audio/red", "video/VP8"]);
    let told = world.client(alice).told();
    let answer = told.iter().rev().find_map(|message| match message {
        Message::Answer(answer) => Some(answer.clone()),
        _ => None,
    });
    let answer = answer.expect("an answer");
    assert_eq!(answer.id, 3);
    assert!(answer.sdp.contains("a=simulcast:recv q;h;f"));
}

#[test]
fn the_answer_waits_for_a_client_that_still_applies_its_join_offer() {
    let offer = SessionDescription {
        r#type: "offer".into(),
        sdp: include_str!("../../../tests/golden/chromium-single-join-offer.sdp").into(),
        id: 1,
        ..Default::default()
    };
    let mut world = World::new();
    let alice = world.join(entry("alice").parameters(|it| {
        it.client_info.sdk = livekit_protocol::client_info::Sdk::Go as i32;
        it.publisher_offer = Some(offer);
    }));
    let answers = |world: &mut World| {
        let told = world.client(alice).told();
        told.iter()
            .filter(|message| matches!(message, Message::Answer(_)))
            .count()
    };
    assert_eq!(answers(&mut world), 0);
    world.after_ms(50);
    assert_eq!(answers(&mut world), 1);
    world.after_ms(500);
    assert_eq!(answers(&mut world), 0, "once");
}

/// Up to its transport, which is not up yet, and with a microphone in its second offer.
fn publishes_too_early(sdk: Sdk) -> (World, ConnectionHandle) {
    let mut world = World::new();
    world.network = false;
    let alice = world.join(entry("alice").parameters(|it| it.client_info.sdk = sdk as i32));
    assert_eq!(answers(&mut world, alice), 1, "the connection begins");
    world.send(alice, Request::AddTrack(microphone("mic")));
    world.client(alice).add_section("audio", "sendonly", Some("mic"));
    world.offer(alice);
    (world, alice)
}

/// How many it has been told since the last look.
fn answers(world: &mut World, connection: ConnectionHandle) -> usize {
    let told = world.client(connection).told();
    let is_answer = |message: &&Message| matches!(message, Message::Answer(_));
    told.iter().filter(is_answer).count()
}

#[test]
fn a_client_that_looks_for_its_connection_after_publishing_finds_it_up() {
    let (mut world, alice) = publishes_too_early(Sdk::Js);
    assert_eq!(answers(&mut world, alice), 0);
    world.after_ms(300);
    let transport = world.commands(|command| match command {
        Command::SetRemote { transport, .. } => Some(*transport),
        _ => None,
    })[0];
    let now = world.now;
    world.room.handle_event(now, connected(transport));
    world.pump();
    assert_eq!(answers(&mut world, alice), 1);
    world.after_ms(2_000);
    assert_eq!(answers(&mut world, alice), 0, "once");
    // 300 ms were waited for the transport.
    let waits: Vec<_> = world.waits.iter().map(|wait| (wait.waiting, wait.duration)).collect();
    assert_eq!(waits, [(Waiting::Publish, Duration::from_millis(300))]);
}

#[test]
fn an_answer_does_not_wait_for_ever_nor_for_clients_that_do_not_care() {
    let (mut world, alice) = publishes_too_early(Sdk::Js);
    world.after_ms(999);
    assert_eq!(answers(&mut world, alice), 0);
    world.after_ms(1);
    assert_eq!(answers(&mut world, alice), 1);
    // Another offer takes the one before along.
    let (mut world, alice) = publishes_too_early(Sdk::Js);
    world.offer(alice);
    assert_eq!(answers(&mut world, alice), 2);
    let (mut world, alice) = publishes_too_early(Sdk::Rust);
    assert_eq!(answers(&mut world, alice), 1);
}

#[test]
fn waits_for_media_are_told_once() {
    let mut world = World::new();
    let alice = world.join(entry("alice"));
    world.join(entry("bob"));
    world.publish(alice, camera("cam"));
    world.after_ms(500);
    let waits: Vec<_> = world
        .waits
        .iter()
        .map(|wait| (wait.waiting, wait.source, wait.kind))
        .collect();
    let picture = (TrackSource::Camera, TrackType::Video);
    assert_eq!(
        waits,
        [
            (Waiting::Publish, picture.0, picture.1),
            (Waiting::Subscribe, picture.0, picture.1)
        ]
    );
    assert!(world.waits.iter().all(|wait| wait.sdk == Sdk::Js));
    world.after_ms(5_000);
    world.offer(alice);
    assert_eq!(world.waits.len(), 2);
}
