//! One long call, step by step as LiveKit's own server was recorded in it with its JS client: everything the server says
//! is kept in tests/golden, and the order of messages compared with LiveKit's.
//!
//! `UPDATE_GOLDEN=1 cargo test --lib transcripts` writes the files anew; what changes in them is then looked at.

use std::collections::BTreeMap;

use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    DisconnectReason, MuteTrackRequest, ParticipantPermission, SignalResponse, SimulateScenario, SyncState,
    UpdateParticipantMetadata, UpdateSubscription, UpdateTrackSettings, simulate_scenario,
};

use super::world::{Entry, World, camera, entry, microphone, name};
use crate::control::ConnectionHandle;
use crate::types::{Identity, TrackId};

/// What LiveKit's server said to whom in each step, in order: names only. `*2` = twice in a row.
mod theirs {
    pub const SINGLE: &str = "\
01-join a#1: join refresh_token answer trickle*4 answer\n\
01-join b#2: join refresh_token answer trickle*4 answer\n\
02-publish-simulcast a#1: track_published answer track_published update*2 answer update*2 track_subscribed subscribed_quality_update track_subscribed update\n\
02-publish-simulcast b#2: update*2 subscription_permission_update media_sections_requirement update subscription_permission_update update answer update\n\
06-late-joiner a#1: room_update\n\
06-late-joiner b#2: room_update\n\
06-late-joiner c#3: join subscription_permission_update*2 room_update refresh_token answer trickle*4 answer media_sections_requirement answer\n\
08-quality-360 a#1: update\n\
08-quality-360 b#2: update\n\
08-quality-360 c#3: update\n\
16-mute a#1: update*2\n\
16-mute b#2: update*2\n\
16-mute c#3: update*2\n\
17-unsubscribe b#2: media_sections_requirement answer subscription_permission_update media_sections_requirement answer\n\
18-metadata a#1: update refresh_token request_response update refresh_token request_response update refresh_token request_response\n\
18-metadata b#2: update*3\n\
18-metadata c#3: update*3\n\
19-both-publish a#1: update*2 room_update subscription_permission_update media_sections_requirement update subscription_permission_update update answer media_sections_requirement answer speakers_changed\n\
19-both-publish b#2: track_published answer track_published update*2 answer room_update update track_subscribed subscribed_quality_update track_subscribed update speakers_changed\n\
19-both-publish c#3: update*2 room_update subscription_permission_update media_sections_requirement update subscription_permission_update answer update media_sections_requirement answer speakers_changed\n\
23-server-mute a#1: mute update\n\
23-server-mute b#2: update\n\
23-server-mute c#3: update\n\
24-server-permission a#1: update*3\n\
24-server-permission b#2: update track_unpublished update track_unpublished update refresh_token\n\
24-server-permission c#3: update*3\n\
26-signal-reconnect a#1: answer media_sections_requirement answer\n\
26-signal-reconnect b#2: answer\n\
26-signal-reconnect c#3: close\n\
26-signal-reconnect c#4: reconnect update room_update refresh_token answer trickle*4\n\
28-full-reconnect a#1: update connection_quality update\n\
28-full-reconnect b#2: update connection_quality update\n\
28-full-reconnect c#6: close\n\
28-full-reconnect c#7: join refresh_token update subscription_permission_update*2 answer trickle*4 media_sections_requirement answer connection_quality update\n\
29-server-leave a#1: update room_update\n\
29-server-leave b#2: update room_update\n\
29-server-leave c#7: leave close\n\
29-server-leave c#8: join refresh_token subscription_permission_update*2 room_update answer trickle*4 answer\n\
30-kick c#8: leave close\n\
31-leave a#1: leave close\n\
31-leave b#2: update\n\
32-delete-room b#2: leave close\n\
";
    pub const DUAL: &str = "\
01-join a#1: join refresh_token offer trickle*4 answer trickle*4\n\
01-join b#2: join refresh_token offer trickle*4 answer trickle*4\n\
02-publish-simulcast a#1: track_published answer track_published answer update*2 track_subscribed update*3 subscribed_quality_update track_subscribed\n\
02-publish-simulcast b#2: update*2 subscription_permission_update offer update subscription_permission_update update offer update stream_state_update\n\
06-late-joiner a#1: room_update\n\
06-late-joiner b#2: room_update\n\
06-late-joiner c#3: join room_update refresh_token offer trickle*4 subscription_permission_update*2 answer trickle*4 offer stream_state_update\n\
08-quality-360 a#1: update\n\
08-quality-360 b#2: update\n\
08-quality-360 c#3: update\n\
16-mute a#1: update*2\n\
16-mute b#2: update*2\n\
16-mute c#3: update*2\n\
17-unsubscribe b#2: offer subscription_permission_update offer stream_state_update\n\
18-metadata a#1: update refresh_token request_response update refresh_token request_response update refresh_token request_response\n\
18-metadata b#2: update*3\n\
18-metadata c#3: update*3\n\
19-both-publish a#1: update*2 room_update subscription_permission_update offer update subscription_permission_update update*2 offer stream_state_update\n\
19-both-publish b#2: track_published answer track_published answer update*2 room_update track_subscribed update*3 subscribed_quality_update track_subscribed\n\
19-both-publish c#3: update*2 room_update subscription_permission_update offer update subscription_permission_update update*2 offer stream_state_update\n\
23-server-mute a#1: mute update\n\
23-server-mute b#2: update\n\
23-server-mute c#3: update\n\
24-server-permission a#1: update*3\n\
24-server-permission b#2: update track_unpublished update track_unpublished update refresh_token answer\n\
24-server-permission c#3: update*3\n\
26-signal-reconnect a#1: update offer*2\n\
26-signal-reconnect b#2: update offer\n\
26-signal-reconnect c#3: close\n\
26-signal-reconnect c#4: reconnect update room_update refresh_token offer trickle*4 answer trickle*4\n\
28-full-reconnect a#1: update\n\
28-full-reconnect b#2: update\n\
28-full-reconnect c#6: close\n\
28-full-reconnect c#7: join refresh_token update offer trickle*4 subscription_permission_update*2 answer trickle*4 offer stream_state_update\n\
29-server-leave a#1: update\n\
29-server-leave b#2: update\n\
29-server-leave c#7: leave close\n\
29-server-leave c#8: join offer subscription_permission_update trickle*4 refresh_token subscription_permission_update answer trickle*4 offer stream_state_update\n\
30-kick c#8: leave close\n\
31-leave a#1: leave close\n\
31-leave b#2: room_update update\n\
32-delete-room b#2: leave close\n\
";
}

/// Why these are left out on both sides. Of what comes several times in a row once counts.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("speakers_changed", "nobody speaks here"),
    (
        "connection_quality",
        "every 5 s by the clock, of paths that do not exist here",
    ),
    ("stream_state_update", "no media flows here"),
    (
        "trickle",
        "one for each address of the machine, all in the description as well",
    ),
    (
        "room_update",
        "every 5 s by the clock: a recorded step ends before or after",
    ),
];

const BATCH: &str =
    "that somebody without tracks is ACTIVE, or has left, is told in a batch within 3 s: recorded in the step after";
const ONE_BY_ONE: &str = "the scripted client publishes its second track when the first is shown, a browser both at once; and the \
                          wish for the best layer of a picture is told again when its first packet has come";
const DYNACAST: &str =
    "a publisher is told 5 s later what nobody wants any more; LiveKit's told its layers' measured sizes";
const FREED: &str = "a subscriber's m-lines are freed 10 to 150 ms after a track ends: recorded in the step after";
const NO_EMPTY_OFFERS: &str = "LiveKit asks for an offer (0 audio, 0 video) although the answer has bound everything; and batches \
                               as above";
const FREE_ORDER: &str =
    "what follows a JoinResponse comes in no fixed order from LiveKit either; and batches as above";
const OWN_OFFER: &str = "the browser makes an offer of its own when its tracks are taken away, which is answered";
const SOCKET: &str = "the recorded client had closed its socket before it came back";

/// Where the lines differ, and why. `both` forms, or one.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("both", "01-join a#1", BATCH),
    ("both", "01-join b#2", BATCH),
    ("both", "02-publish-simulcast a#1", ONE_BY_ONE),
    ("both", "02-publish-simulcast b#2", ONE_BY_ONE),
    ("both", "06-late-joiner a#1", BATCH),
    ("both", "06-late-joiner b#2", BATCH),
    ("dual", "06-late-joiner c#3", BATCH),
    ("single", "06-late-joiner c#3", NO_EMPTY_OFFERS),
    ("both", "08-quality-360 a#1", DYNACAST),
    ("both", "08-quality-360 b#2", DYNACAST),
    ("both", "08-quality-360 c#3", DYNACAST),
    ("both", "17-unsubscribe a#1", DYNACAST),
    ("both", "19-both-publish a#1", ONE_BY_ONE),
    ("both", "19-both-publish b#2", ONE_BY_ONE),
    ("both", "19-both-publish c#3", ONE_BY_ONE),
    ("both", "24-server-permission a#1", FREED),
    ("dual", "24-server-permission b#2", OWN_OFFER),
    ("both", "24-server-permission c#3", FREED),
    ("both", "26-signal-reconnect a#1", FREED),
    ("both", "26-signal-reconnect b#2", FREED),
    ("both", "28-full-reconnect c#4", SOCKET),
    ("dual", "28-full-reconnect c#7", FREE_ORDER),
    ("single", "28-full-reconnect c#7", NO_EMPTY_OFFERS),
    ("dual", "29-server-leave c#8", FREE_ORDER),
    ("single", "29-server-leave c#8", BATCH),
    ("both", "30-kick a#1", BATCH),
    ("both", "30-kick b#2", BATCH),
    ("both", "31-leave b#2", FREED),
];

/// One client's connections by the names of the recording: `a#1`.
struct Call {
    world: World,
    single: bool,
    names: BTreeMap<ConnectionHandle, String>,
    /// `01-join a#1`, and what was said.
    lines: Vec<(String, Vec<Message>)>,
}

impl Call {
    fn new(single: bool) -> Self {
        Self {
            world: World::new(),
            single,
            names: BTreeMap::new(),
            lines: Vec::new(),
        }
    }

    fn entry(&self, identity: &str) -> Entry {
        let mut entry = entry(identity).parameters(|parameters| parameters.adaptive_stream = true);
        entry.single = self.single;
        entry
    }

    fn join(&mut self, identity: &str, label: &str) -> ConnectionHandle {
        let entry = self.entry(identity);
        let connection = self.world.join(entry);
        self.names.insert(connection, label.to_owned());
        connection
    }

    /// Long enough for everything that follows from it.
    fn step(&mut self, step: &str) {
        self.world.after_ms(6_000);
        for (connection, label) in &self.names {
            let client = self.world.client(*connection);
            let said = client.told();
            if !said.is_empty() {
                self.lines.push((format!("{step} {label}"), said));
            }
        }
    }

    fn send(&mut self, connection: ConnectionHandle, request: Request) {
        self.world.send(connection, request);
    }
}

fn the_call(single: bool) -> Call {
    let mut call = Call::new(single);
    let a = call.join("a", "a#1");
    let b = call.join("b", "b#2");
    call.step("01-join");

    let voice = call.world.publish(a, microphone("mic")).sid;
    let picture = call.world.publish(a, camera("cam")).sid;
    call.step("02-publish-simulcast");

    let c = call.join("c", "c#3");
    call.step("06-late-joiner");

    let settings = UpdateTrackSettings {
        track_sids: vec![picture.clone()],
        quality: 1,
        ..Default::default()
    };
    call.send(b, Request::TrackSetting(settings));
    call.step("08-quality-360");

    for muted in [true, false] {
        let sid = voice.clone();
        call.send(a, Request::Mute(MuteTrackRequest { sid, muted }));
    }
    call.step("16-mute");

    for subscribe in [false, true] {
        let update = UpdateSubscription {
            track_sids: vec![picture.clone()],
            subscribe,
            ..Default::default()
        };
        call.send(b, Request::Subscription(update));
        call.world.after_ms(1_000);
    }
    call.step("17-unsubscribe");

    for (request_id, name) in [(1, "Anna"), (2, "Ann"), (3, "A")] {
        let update = UpdateParticipantMetadata {
            name: name.into(),
            request_id,
            ..Default::default()
        };
        call.send(a, Request::UpdateMetadata(update));
    }
    call.step("18-metadata");

    call.world.publish(b, microphone("bmic"));
    call.world.publish(b, camera("bcam"));
    call.step("19-both-publish");

    call.world
        .room
        .mute_track(&Identity("a".into()), &TrackId(voice.clone()), true)
        .unwrap();
    call.world.pump();
    // The client obeys.
    let sid = voice.clone();
    call.send(a, Request::Mute(MuteTrackRequest { sid, muted: true }));
    call.step("23-server-mute");

    let permission = ParticipantPermission {
        can_subscribe: true,
        can_publish: false,
        can_publish_data: true,
        ..Default::default()
    };
    let now = call.world.now;
    let none = Default::default();
    call.world
        .room
        .update_participant(now, &Identity("b".into()), "", "", &none, Some(&permission))
        .unwrap();
    call.world.pump();
    call.step("24-server-permission");

    call.world.drop_socket(c);
    let mut back = call.entry("c");
    back.parameters.reconnect = true;
    let resumed = call.world.join(back);
    call.names.insert(resumed, "c#4".to_owned());
    call.world.move_sections(c, resumed);
    call.send(resumed, Request::SyncState(SyncState::default()));
    call.world.client(resumed).restart_ice();
    call.world.offer(resumed);
    call.step("26-signal-reconnect");

    let restarted = call.join("c", "c#7");
    call.step("28-full-reconnect");

    let scenario = Some(simulate_scenario::Scenario::ServerLeave(true));
    call.send(restarted, Request::Simulate(SimulateScenario { scenario }));
    call.world.after_ms(6_000);
    let again = call.join("c", "c#8");
    call.step("29-server-leave");

    call.world
        .room
        .remove_participant(call.world.now, &Identity("c".into()))
        .unwrap();
    call.world.pump();
    assert!(call.world.client(again).closed);
    call.step("30-kick");

    call.world.leave(a);
    call.step("31-leave");

    call.world.room.close(call.world.now, DisconnectReason::RoomDeleted);
    call.world.pump();
    call.step("32-delete-room");
    call
}

/// What comes several times in a row once, and without what is not compared.
fn collapsed<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut words: Vec<&str> = Vec::new();
    for name in names {
        let compared = !NOT_COMPARED.iter().any(|(known, _)| *known == name);
        if compared && words.last() != Some(&name) {
            words.push(name);
        }
    }
    words.join(" ")
}

/// As a text frame has it, without what differs from run to run or is kept elsewhere.
fn written(message: Message) -> String {
    let response = SignalResponse { message: Some(message) };
    let text = crate::proto::json::to_json(&response).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    normalise(&mut value);
    value.to_string()
}

fn normalise(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                let text = field.as_str().map(str::to_owned);
                match (name.as_str(), text) {
                    ("sdp", Some(sdp)) => *field = format!("<{} m-lines>", sdp.matches("\r\nm=").count()).into(),
                    ("refreshToken" | "token", Some(_)) => *field = "<token>".into(),
                    ("sifTrailer" | "turnPassword", Some(_)) => *field = "<secret>".into(),
                    ("version", Some(version)) if version == env!("CARGO_PKG_VERSION") => *field = "<version>".into(),
                    _ => normalise(field),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(normalise),
        _ => {}
    }
}

fn check(single: bool, theirs: &str, golden: &str) {
    let form = if single { "single" } else { "dual" };
    let call = the_call(single);
    let mut transcript = String::new();
    let mut ours = BTreeMap::new();
    for (at, said) in call.lines {
        transcript += &format!("# {at}\n");
        ours.insert(at, collapsed(said.iter().map(name)));
        for message in said {
            transcript += &written(message);
            transcript.push('\n');
        }
    }
    let path = format!("{}/tests/golden/signalling-{form}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &transcript).unwrap();
    } else {
        let changed = transcript.lines().zip(golden.lines()).find(|(now, then)| now != then);
        assert_eq!(changed, None, "of {path}: this run, and what was kept");
        assert_eq!(transcript.lines().count(), golden.lines().count(), "{path}");
    }

    let mut faults = Vec::new();
    let mut expected = BTreeMap::new();
    for line in theirs.lines() {
        let (at, said) = line.split_once(": ").unwrap();
        let said = said.split_whitespace().filter(|word| *word != "close");
        let said = said.map(|word| word.split_once('*').map_or(word, |(name, _)| name));
        expected.insert(at.to_owned(), collapsed(said));
    }
    for at in ours
        .keys()
        .chain(expected.keys())
        .collect::<std::collections::BTreeSet<_>>()
    {
        let of = |said: &BTreeMap<String, String>| said.get(at).cloned().unwrap_or_default();
        let (our, their) = (of(&ours), of(&expected));
        let key = format!("{form} {at}");
        let listed = DIFFERENCES
            .iter()
            .any(|(forms, known, _)| (*forms == "both" || *forms == form) && known == at);
        match (our == their, listed) {
            (false, false) => faults.push(format!("{key}\n   ours:   {our}\n   theirs: {their}")),
            (true, true) => faults.push(format!("{key}: listed as a difference, and is none")),
            _ => {}
        }
    }
    assert!(faults.is_empty(), "not listed:\n{}", faults.join("\n"));
}

#[test]
fn a_call_over_one_connection() {
    let golden = include_str!("../../../tests/golden/signalling-single.txt");
    check(true, theirs::SINGLE, golden);
}

#[test]
fn a_call_over_two_connections() {
    let golden = include_str!("../../../tests/golden/signalling-dual.txt");
    check(false, theirs::DUAL, golden);
}
