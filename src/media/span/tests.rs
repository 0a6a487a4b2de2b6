//! One shard sees what control says; several see each its part, in an order that they can follow.

use super::*;
use crate::media::edge::{DataRights, Reception, SubscriptionSettings, TrackReport};
use crate::types::{ExtensionMap, IceCredentials, MediaKind, Mid, Ssrc};

const ROOM: RoomHandle = RoomHandle(1);
const HOME: ShardIndex = ShardIndex(0);
const FAR: ShardIndex = ShardIndex(2);
const ALICE: ParticipantHandle = ParticipantHandle(1);
const BOB: ParticipantHandle = ParticipantHandle(2);

fn open_room() -> Command {
    Command::OpenRoom {
        room: ROOM,
        sif_trailer: b"sif".to_vec(),
        audio_last_n: 3,
    }
}

/// The transport has the participant's number.
fn open_transport(participant: ParticipantHandle) -> Command {
    Command::OpenTransport(Box::new(OpenTransport {
        room: ROOM,
        participant,
        transport: TransportHandle(participant.0),
        local: IceCredentials {
            ufrag: "u".into(),
            pwd: "p".into(),
        },
        ice_lite: true,
        ice_controlling: false,
        open_channels: Vec::new(),
        reception: Reception::default(),
    }))
}

fn set_participant(participant: ParticipantHandle) -> Command {
    Command::SetParticipant(Box::new(DataParticipant {
        room: ROOM,
        participant,
        sid: format!("PA_{participant}"),
        identity: format!("p{participant}"),
        transport: TransportHandle(participant.0),
        rights: DataRights::default(),
    }))
}

fn publish(participant: ParticipantHandle, track: u64) -> Command {
    Command::Publish(Box::new(Publish {
        room: ROOM,
        participant,
        track: TrackHandle(track),
        transport: TransportHandle(participant.0),
        mid: Mid::new("0").unwrap(),
        kind: MediaKind::Audio,
        codecs: Vec::new(),
        extensions: ExtensionMap::default(),
        encodings: Vec::new(),
        muted: false,
        is_screen: false,
        encrypted: false,
    }))
}

fn subscribe(participant: ParticipantHandle, track: u64, subscription: u64) -> Command {
    Command::Subscribe(Box::new(Subscribe {
        room: ROOM,
        participant,
        subscription: SubscriptionHandle(subscription),
        track: TrackHandle(track),
        transport: TransportHandle(participant.0),
        mid: Mid::new("1").unwrap(),
        codecs: Vec::new(),
        extensions: ExtensionMap::default(),
        ssrc: Ssrc(1),
        rtx_ssrc: None,
        cname: String::new(),
        strip_packet_trailer: false,
        settings: SubscriptionSettings::default(),
    }))
}

fn all(span: &mut Span) -> Vec<(u16, String)> {
    std::iter::from_fn(|| span.poll_command())
        .map(|(shard, command)| {
            let text = format!("{command:?}");
            let end = text.find(['(', ' ']).unwrap_or(text.len());
            (shard.0, text[..end].to_owned())
        })
        .collect()
}

fn told(span: &mut Span, command: Command) -> Vec<(u16, String)> {
    span.handle_command(command);
    all(span)
}

fn named(commands: &[(u16, &str)]) -> Vec<(u16, String)> {
    commands
        .iter()
        .map(|(shard, name)| (*shard, (*name).to_owned()))
        .collect()
}

/// Alice at home, Bob elsewhere, and nothing published.
fn spanned() -> Span {
    let mut span = Span::new(HOME);
    span.handle_command(open_room());
    span.place(BOB, FAR);
    for participant in [ALICE, BOB] {
        span.handle_command(open_transport(participant));
        span.handle_command(set_participant(participant));
    }
    all(&mut span);
    span
}

#[test]
fn on_one_shard_everything_goes_through_as_it_is() {
    let mut span = Span::new(HOME);
    let (participant, track, call) = (ALICE, DataTrackHandle(5), "call".to_owned());
    let commands = vec![
        open_room(),
        open_transport(ALICE),
        set_participant(ALICE),
        publish(ALICE, 7),
        subscribe(ALICE, 7, 8),
        Command::MuteTrack {
            track: TrackHandle(7),
            muted: true,
        },
        Command::RequestKeyframe { track: TrackHandle(7) },
        Command::UpdateSubscription {
            subscription: SubscriptionHandle(8),
            settings: SubscriptionSettings::default(),
        },
        Command::PublishDataTrack {
            room: ROOM,
            publisher: ALICE,
            track,
            publisher_handle: 1,
        },
        Command::SubscribeDataTrack {
            track,
            subscriber: ALICE,
            subscriber_handle: 2,
        },
        Command::SendData {
            room: ROOM,
            to: vec![ALICE, BOB],
            reliable: true,
            packet: vec![1],
        },
        Command::SendData {
            room: ROOM,
            to: Vec::new(),
            reliable: false,
            packet: vec![2],
        },
        Command::AwaitRpc {
            room: ROOM,
            call: call.clone(),
        },
        Command::EndRpc { room: ROOM, call },
        Command::Explain {
            room: ROOM,
            participant: None,
            query: 3,
        },
        Command::UnsubscribeDataTrack {
            track,
            subscriber: ALICE,
        },
        Command::UnpublishDataTrack { track },
        Command::Unsubscribe {
            subscription: SubscriptionHandle(8),
        },
        Command::Unpublish { track: TrackHandle(7) },
        Command::RemoveParticipant {
            room: ROOM,
            participant,
        },
        Command::CloseTransport {
            transport: TransportHandle(1),
        },
        // What names nothing is for the shard to refuse.
        Command::CloseTransport {
            transport: TransportHandle(99),
        },
        Command::CloseRoom { room: ROOM },
    ];
    let given: Vec<String> = commands.iter().map(|command| format!("{command:?}")).collect();
    commands.into_iter().for_each(|command| span.handle_command(command));
    let taken = std::iter::from_fn(|| span.poll_command());
    let taken: Vec<String> = taken
        .map(|(shard, command)| {
            assert_eq!(shard, HOME);
            format!("{command:?}")
        })
        .collect();
    assert_eq!(taken, given);
    let report = Box::default();
    let event = Event::Explanation {
        room: ROOM,
        query: 3,
        report,
    };
    assert!(span.handle_event(HOME, event).is_some());
}

#[test]
fn a_shard_has_the_room_before_anything_of_it_and_all_of_its_tracks() {
    let mut span = Span::new(HOME);
    assert_eq!(told(&mut span, open_room()), named(&[(0, "OpenRoom")]));
    assert_eq!(span.place(BOB, FAR), FAR);
    assert_eq!(span.place(BOB, HOME), FAR, "once placed it stays");
    told(&mut span, open_transport(ALICE));
    told(&mut span, publish(ALICE, 7));
    let opened = told(&mut span, open_transport(BOB));
    let expected = [
        (2, "OpenRoom"),
        // The new one first: what the home relays on hearing of it must find the room there.
        (2, "SpanRoom"),
        (0, "SpanRoom"),
        (2, "MirrorTrack"),
        (2, "OpenTransport"),
    ];
    assert_eq!(opened, named(&expected));
    assert_eq!(span.shards(), [HOME, FAR]);
    assert_eq!(
        told(&mut span, publish(BOB, 8)),
        named(&[(2, "Publish"), (0, "MirrorTrack")])
    );
    assert_eq!(told(&mut span, subscribe(BOB, 7, 9)), named(&[(2, "Subscribe")]));
    let mute = Command::MuteTrack {
        track: TrackHandle(8),
        muted: true,
    };
    assert_eq!(told(&mut span, mute), named(&[(0, "MuteTrack"), (2, "MuteTrack")]));
    let keyframe = Command::RequestKeyframe { track: TrackHandle(8) };
    assert_eq!(told(&mut span, keyframe), named(&[(2, "RequestKeyframe")]));
    let unsubscribe = Command::Unsubscribe {
        subscription: SubscriptionHandle(9),
    };
    assert_eq!(told(&mut span, unsubscribe), named(&[(2, "Unsubscribe")]));
    // The last one there takes the room along.
    let leave = Command::RemoveParticipant {
        room: ROOM,
        participant: BOB,
    };
    let expected = [
        (0, "RemoveParticipant"),
        (2, "RemoveParticipant"),
        (2, "CloseRoom"),
        (0, "SpanRoom"),
    ];
    assert_eq!(told(&mut span, leave), named(&expected));
    assert_eq!(span.shards(), [HOME]);
}

#[test]
fn a_track_that_is_muted_meanwhile_is_mirrored_as_muted() {
    let mut span = Span::new(HOME);
    span.handle_command(open_room());
    span.handle_command(open_transport(ALICE));
    span.handle_command(publish(ALICE, 7));
    span.handle_command(Command::MuteTrack {
        track: TrackHandle(7),
        muted: true,
    });
    span.place(BOB, FAR);
    all(&mut span);
    span.handle_command(open_transport(BOB));
    let mirrored = std::iter::from_fn(|| span.poll_command()).find_map(|(_, command)| match command {
        Command::MirrorTrack { publish, home } => Some((publish.muted, home)),
        _ => None,
    });
    assert_eq!(mirrored, Some((true, HOME)));
}

#[test]
fn data_of_the_server_goes_where_its_receivers_are() {
    let mut span = spanned();
    let send = |to: &[ParticipantHandle]| Command::SendData {
        room: ROOM,
        to: to.to_vec(),
        reliable: true,
        packet: vec![1],
    };
    assert_eq!(told(&mut span, send(&[BOB])), named(&[(2, "SendData")]));
    assert_eq!(told(&mut span, send(&[])), named(&[(0, "SendData"), (2, "SendData")]));
    span.handle_command(send(&[BOB, ALICE]));
    let parts: Vec<_> = std::iter::from_fn(|| span.poll_command())
        .map(|(shard, command)| match command {
            Command::SendData { to, .. } => (shard, to),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts, [(HOME, vec![ALICE]), (FAR, vec![BOB])]);
}

#[test]
fn a_data_track_crosses_while_it_has_subscribers_there() {
    let mut span = spanned();
    let track = DataTrackHandle(5);
    let published = Command::PublishDataTrack {
        room: ROOM,
        publisher: ALICE,
        track,
        publisher_handle: 1,
    };
    assert_eq!(told(&mut span, published), named(&[(0, "PublishDataTrack")]));
    let subscribed = Command::SubscribeDataTrack {
        track,
        subscriber: BOB,
        subscriber_handle: 2,
    };
    let expected = [
        (2, "PublishDataTrack"),
        (0, "RelayDataTrack"),
        (2, "SubscribeDataTrack"),
    ];
    assert_eq!(told(&mut span, subscribed), named(&expected));
    let unsubscribed = Command::UnsubscribeDataTrack { track, subscriber: BOB };
    let expected = [
        (2, "UnsubscribeDataTrack"),
        (2, "UnpublishDataTrack"),
        (0, "RelayDataTrack"),
    ];
    assert_eq!(told(&mut span, unsubscribed), named(&expected));
}

#[test]
fn an_explanation_is_whole_when_every_shard_has_answered() {
    let mut span = spanned();
    let explain = Command::Explain {
        room: ROOM,
        participant: None,
        query: 3,
    };
    assert_eq!(told(&mut span, explain), named(&[(0, "Explain"), (2, "Explain")]));
    let track = |is_mirrored: bool, subscribers: u32| TrackReport {
        track: TrackHandle(7),
        publisher: ALICE,
        is_mirrored,
        kind: MediaKind::Audio,
        is_screen: false,
        muted: false,
        subscribers,
        score: crate::media::edge::ConnectionScore { mos: 4.0, lost: false },
        encodings: Vec::new(),
    };
    let answer = |tracks: Vec<TrackReport>| Event::Explanation {
        room: ROOM,
        query: 3,
        report: Box::new(Explanation {
            tracks,
            ..Explanation::default()
        }),
    };
    assert!(span.handle_event(FAR, answer(vec![track(true, 2)])).is_none());
    let Some(Event::Explanation { report, .. }) = span.handle_event(HOME, answer(vec![track(false, 3)])) else {
        panic!("an answer");
    };
    let tracks: Vec<_> = report
        .tracks
        .iter()
        .map(|track| (track.is_mirrored, track.subscribers))
        .collect();
    assert_eq!(tracks, [(false, 5)]);
    // Nobody has asked any more.
    assert!(span.handle_event(HOME, answer(Vec::new())).is_none());
}

#[test]
fn a_room_that_has_panicked_on_one_shard_ends_on_all() {
    let mut span = spanned();
    assert!(span.handle_event(FAR, Event::RoomPanicked { room: ROOM }).is_some());
    assert_eq!(all(&mut span), named(&[(0, "CloseRoom")]));
}
