//! What the voice system costs with many gateway sessions: one update told to a thousand and to ten thousand of them, with
//! two thousand people in voice, and the memory of a session.
//!
//! ```sh
//! cargo bench --bench voice_gateway
//! ```
//!
//! `stored`: as `domain`, with what another node needs to go on with the sessions made ready for Redis after each update.
//! `domain`: virtual time, no sockets: from an op 4 to the last frame as text, ready to be written; memory is what sessions
//! hold when they are new, and when each has as much to replay as it keeps. `sockets`: a server process with a WebSocket for
//! every session: from a moderator's request to the last client that has read what it led to; memory is the process's growth.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[path = "voice_gateway/sockets.rs"]
mod sockets;

use patchbay::voice::{
    ChannelId, Claim, Effect, GuildId, Join, RoomAction, Seen, SelfState, ServerKey, Signer, SocketId, StateUpdate,
    UnixMillis, UserId, Voice, VoiceSettings,
};
use serde_json::{Value, json};

const START: UnixMillis = UnixMillis(1_700_000_000_000);
/// In the sessions' own guild, and in one of their own.
const NEAR: u64 = 50;
const FAR: u64 = 1950;
/// More than are kept for replay.
const UPDATES: usize = 300;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "the allocator's own interface: counts and passes on")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Identity;

impl Signer for Identity {
    fn sign(&self, claim: &Claim) -> String {
        claim.identity.clone()
    }
}

fn main() {
    println!("          sessions  p50 ms  p99 ms  bytes/session  with replay");
    for (what, is_shared) in [("domain", false), ("stored", true)] {
        for sessions in [1000, 10_000] {
            let (times, bytes, full) = measure(sessions, is_shared);
            println!("{what}    {sessions:>8}  {}  {bytes:>13}  {full:>11}", spread(times));
        }
    }
    for sessions in [1000, 10_000] {
        let (times, bytes, full) = sockets::measure(sessions);
        println!("sockets   {sessions:>8}  {}  {bytes:>13}  {full:>11}", spread(times));
    }
}

/// p50 and p99 in ms.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    format!("{:>6.1}  {:>6.1}", at(50), at(99))
}

fn measure(sessions: u64, is_shared: bool) -> (Vec<Duration>, usize, usize) {
    let mut voice = town(sessions);
    if is_shared {
        voice.share_sessions();
    }
    let before = HELD.load(Ordering::Relaxed);
    for user in 1..=sessions {
        let socket = SocketId(user);
        voice.handle_socket_opened(START, socket, Some("1"));
        let properties = json!({"os": "", "browser": "", "device": ""});
        let identify = json!({"op": 2, "d": {"token": user.to_string(), "properties": properties}});
        voice.handle_frame(START, socket, &identify.to_string());
        settle(&mut voice);
    }
    voice.take_session_batch();
    let held = || (HELD.load(Ordering::Relaxed) - before) / sessions as usize;
    let bytes = held();
    let connection = voice
        .states()
        .all()
        .find(|connection| connection.user == UserId(1))
        .unwrap()
        .id
        .clone();
    let mut times = Vec::new();
    for index in 0..UPDATES {
        let now = START.after(Duration::from_millis(200 * index as u64));
        let update =
            json!({"guild_id": "900", "channel_id": "10", "connection_id": connection, "self_mute": index % 2 == 0});
        let frame = json!({"op": 4, "d": update}).to_string();
        // 120 frames a minute for one client: the sessions of its friends take turns.
        let began = Instant::now();
        if index < 100 {
            voice.handle_frame(now, SocketId(1), &frame);
        } else {
            let update = StateUpdate {
                guild: Some(GuildId(900)),
                channel: Some(ChannelId(10)),
                connection: Some(connection.clone()),
                own: SelfState::default(),
                coordinates: None,
            };
            voice.handle_update(now, UserId(1), None, update).unwrap();
        }
        let told = settle(&mut voice);
        std::hint::black_box(voice.take_session_batch());
        times.push(began.elapsed());
        assert_eq!(told, sessions as usize);
    }
    (times, bytes, held())
}

/// Everybody with a session is a member of guild 900, and fifty are in its channel; guild 901 has the other talkers.
fn town(users: u64) -> Voice {
    let mut voice = Voice::new(START, VoiceSettings::default(), Box::new(Identity), 1);
    let region = json!({"id": "us", "name": "us"});
    voice.put_region(serde_json::from_value(region).unwrap()).unwrap();
    let server = json!({"region_id": "us", "server_id": "a", "endpoint": "ws://a", "api_key": "k", "api_secret": "s"});
    voice
        .put_server(START, serde_json::from_value(server).unwrap())
        .unwrap();
    let strangers = 1_000_001..=1_000_000 + FAR;
    let mut facts = Vec::new();
    for (guild, channel, members) in [("900", "10", 1..=users), ("901", "11", strangers.clone())] {
        facts.push(json!({"kind": "guild", "version": 1, "id": guild}));
        facts.push(json!({"kind": "role", "version": 1, "guild_id": guild, "id": guild, "permissions": "3146752"}));
        facts.push(json!({"kind": "channel", "version": 1, "id": channel, "guild_id": guild, "type": 2}));
        for user in members {
            facts.push(json!({"kind": "user", "version": 1, "id": user.to_string()}));
            facts.push(json!({"kind": "member", "version": 1, "guild_id": guild, "user_id": user.to_string()}));
        }
    }
    let facts = serde_json::from_value(Value::Array(facts)).unwrap();
    voice.handle_sync(START, facts).unwrap();
    settle(&mut voice);
    for user in 1..=NEAR {
        talk(&mut voice, user, 10, "guild_900_channel_10");
    }
    for user in strangers {
        talk(&mut voice, user, 11, "guild_901_channel_11");
    }
    voice
}

fn talk(voice: &mut Voice, user: u64, channel: u64, room: &str) {
    let server = ServerKey {
        region: "us".into(),
        server: "a".into(),
    };
    let ticket = voice
        .join(START, Join::new(UserId(user), None, ChannelId(channel)))
        .unwrap();
    let seen = Seen {
        identity: ticket.token,
        participant: String::new(),
        nonce: Some(ticket.token_nonce),
    };
    voice.handle_participant_joined(START, &server, room, &seen);
    settle(voice);
}

/// Frames that were made.
fn settle(voice: &mut Voice) -> usize {
    let mut frames = 0;
    while let Some(effect) = voice.poll_effect() {
        match effect {
            Effect::Authenticate { socket, token } => {
                voice.handle_authenticated(START, socket, Some(UserId(token.parse().unwrap())));
            }
            Effect::Frame { frame, .. } => {
                std::hint::black_box(frame.to_json());
                frames += 1;
            }
            Effect::Room {
                action: RoomAction::Remove { identity },
                ..
            } => panic!("{identity} was sent out"),
            _ => {}
        }
    }
    frames
}
