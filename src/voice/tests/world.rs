//! A town of users and a fleet of media servers in virtual time: gateway clients that speak JSON, LiveKit servers that do
//! as they are told and tell what happens.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value, json};

use crate::voice::*;

pub const GUILD: &str = "900";
pub const EVERYONE: u64 = (1 << 9) | (1 << 10) | (1 << 20) | (1 << 21) | (1 << 25);
pub const US: &str = "us";
pub const EU: &str = "eu";

/// The claim itself, as JSON.
struct Plain;

impl Signer for Plain {
    fn sign(&self, claim: &Claim) -> String {
        let metadata: Value = serde_json::from_str(&claim.metadata).unwrap();
        json!({
            "sub": claim.identity,
            "room": claim.room,
            "iss": claim.api_key,
            "metadata": metadata,
            "subscribe": claim.grant.subscribe,
            "publish": claim.grant.can_publish(),
            "sources": claim.grant.sources(),
        })
        .to_string()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct InRoom {
    pub participant: String,
    pub nonce: Option<String>,
    pub sources: Vec<&'static str>,
    pub subscribe: bool,
}

pub type Place = (ServerKey, String);

pub struct World {
    pub voice: Voice,
    pub now: UnixMillis,
    /// Frames not looked at yet.
    pub inbox: HashMap<SocketId, Vec<Value>>,
    pub closed: HashMap<SocketId, u16>,
    pub rooms: BTreeMap<Place, BTreeMap<String, InRoom>>,
    pub asked: Vec<(Place, RoomAction)>,
    pub kept: BTreeMap<(Table, String), String>,
    /// Clients answer heartbeats by themselves, and show nothing of it.
    pub alive: bool,
    next: u64,
    version: u64,
}

pub fn fresh(now: UnixMillis) -> Voice {
    seeded(now, 7)
}

pub fn seeded(now: UnixMillis, seed: u64) -> Voice {
    Voice::new(now, VoiceSettings::default(), Box::new(Plain), seed)
}

/// A gateway client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub socket: SocketId,
}

/// What a VOICE_SERVER_UPDATE said.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub place: Place,
    pub identity: String,
    pub connection: String,
    pub token: Value,
    pub whole: Value,
}

impl World {
    pub fn empty() -> Self {
        let now = UnixMillis(1_700_000_000_000);
        Self {
            voice: fresh(now),
            now,
            inbox: HashMap::new(),
            closed: HashMap::new(),
            rooms: BTreeMap::new(),
            asked: Vec::new(),
            kept: BTreeMap::new(),
            alive: true,
            next: 0,
            version: 0,
        }
    }

    /// Guild 900 of owner 1 with voice channels 10 and 11, text channel 12, hidden channel 13; members 1 to 6; role 70
    /// of moderators (member 2); conversation 20 of 3 and 4; group 21 of 3, 4 and 5. Regions us (default) and eu.
    pub fn new() -> Self {
        let mut world = Self::empty();
        for (region, latitude, longitude) in [(US, 39.8, -98.5), (EU, 50.0, 14.4)] {
            let record = json!({"id": region, "name": region, "latitude": latitude, "longitude": longitude,
                "is_default": region == US});
            world.voice.put_region(serde_json::from_value(record).unwrap()).unwrap();
            world.put_server(region, json!({}));
        }
        let channel = |id: &str, kind: u16, overwrites: Value| {
            json!({"kind": "channel", "id": id, "guild_id": GUILD, "type": kind,
            "permission_overwrites": overwrites})
        };
        let mut facts = vec![
            json!({"kind": "guild", "id": GUILD, "owner_id": "1", "name": "Town"}),
            json!({"kind": "role", "guild_id": GUILD, "id": GUILD, "permissions": EVERYONE.to_string()}),
            json!({"kind": "role", "guild_id": GUILD, "id": "70", "permissions": (0x7u64 << 22 | 1 << 53).to_string()}),
            channel("10", 2, json!([])),
            channel("11", 2, json!([])),
            channel("12", 0, json!([])),
            channel(
                "13",
                2,
                json!([{"id": GUILD, "type": 0, "deny": (1u64 << 10).to_string()}]),
            ),
            json!({"kind": "channel", "id": "20", "type": 1, "recipients": ["3", "4"]}),
            json!({"kind": "channel", "id": "21", "type": 3, "recipients": ["3", "4", "5"]}),
        ];
        for user in 1..=7u64 {
            facts.push(json!({"kind": "user", "id": user.to_string(), "username": format!("user{user}")}));
            if user <= 6 {
                facts.push(member(user, json!({})));
            }
        }
        world.sync(facts);
        world
    }

    pub fn put_server(&mut self, region: &str, more: Value) {
        let mut record = json!({"region_id": region, "server_id": "a", "endpoint": format!("wss://{region}-a.test"),
            "api_key": format!("key-{region}"), "api_secret": "secret"});
        merge(&mut record, more);
        let now = self.now;
        self.voice
            .put_server(now, serde_json::from_value(record).unwrap())
            .unwrap();
        self.settle();
    }

    /// After a restart: with versions from `version` on.
    pub fn sync_at(&mut self, version: u64, facts: Vec<Value>) {
        self.version = version;
        self.sync(facts);
    }

    /// Newer than all before.
    pub fn sync(&mut self, facts: Vec<Value>) {
        self.version += 1;
        let version = self.version;
        let entries = facts.into_iter().map(|mut fact| {
            fact["version"] = json!(version);
            serde_json::from_value(fact).unwrap()
        });
        let entries = entries.collect();
        self.voice.handle_sync(self.now, entries).unwrap();
        self.settle();
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(due) = self.voice.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.voice.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    pub fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    pub fn open(&mut self) -> SocketId {
        self.next += 1;
        let socket = SocketId(self.next);
        self.inbox.insert(socket, Vec::new());
        self.voice.handle_socket_opened(self.now, socket, Some("1"));
        self.settle();
        socket
    }

    /// Tokens are user ids.
    pub fn client(&mut self, user: u64) -> Client {
        let socket = self.open();
        let properties = json!({"os": "", "browser": "", "device": ""});
        self.send(
            socket,
            json!({"op": 2, "d": {"token": user.to_string(), "properties": properties}}),
        );
        Client { socket }
    }

    pub fn send(&mut self, socket: SocketId, frame: Value) {
        self.text(socket, &frame.to_string());
    }

    pub fn text(&mut self, socket: SocketId, text: &str) {
        self.voice.handle_frame(self.now, socket, text);
        self.settle();
    }

    pub fn state(&mut self, client: Client, update: Value) {
        self.send(client.socket, json!({"op": 4, "d": update}));
    }

    /// Everything since the last look.
    pub fn frames(&mut self, client: Client) -> Vec<Value> {
        std::mem::take(self.inbox.get_mut(&client.socket).unwrap())
    }

    /// Data of the dispatches of one kind since the last look; everything is taken.
    pub fn events(&mut self, client: Client, event: &str) -> Vec<Value> {
        let frames = self.frames(client).into_iter();
        frames
            .filter(|frame| frame["t"] == event)
            .map(|frame| frame["d"].clone())
            .collect()
    }

    /// Codes of the errors since the last look; everything is taken.
    pub fn errors(&mut self, client: Client) -> Vec<String> {
        let frames = self.frames(client).into_iter();
        frames
            .filter(|frame| frame["op"] == 12)
            .map(|frame| frame["d"]["code"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn invitations(&mut self, client: Client) -> Vec<Invitation> {
        self.events(client, "VOICE_SERVER_UPDATE")
            .into_iter()
            .map(invitation)
            .collect()
    }

    pub fn ask_in(&mut self, client: Client, guild: Option<&str>, channel: &str) {
        self.state(
            client,
            json!({"guild_id": guild, "channel_id": channel, "connection_id": null}),
        );
    }

    /// Asks, and connects to the room.
    pub fn join(&mut self, client: Client, channel: &str) -> Invitation {
        let guild = (channel.len() == 2 && channel.starts_with('1')).then_some(GUILD);
        self.ask_in(client, guild, channel);
        let frames = self.frames(client);
        let update = frames.iter().find(|frame| frame["t"] == "VOICE_SERVER_UPDATE");
        let update = update.unwrap_or_else(|| panic!("no invitation: {frames:?}"));
        let invitation = invitation(update["d"].clone());
        self.connect(&invitation);
        invitation
    }

    /// The client connects to LiveKit with its token.
    pub fn connect(&mut self, invitation: &Invitation) -> bool {
        self.next += 1;
        let participant = format!("PA_{}", self.next);
        let nonce = invitation.token["metadata"]["token_nonce"].as_str().map(str::to_owned);
        let known = ["microphone", "camera", "screen_share", "screen_share_audio"];
        let sources = invitation.token["sources"].as_array().unwrap();
        let there = InRoom {
            participant: participant.clone(),
            nonce: nonce.clone(),
            sources: known
                .into_iter()
                .filter(|name| sources.contains(&json!(name)))
                .collect(),
            subscribe: invitation.token["subscribe"] == true,
        };
        self.rooms
            .entry(invitation.place.clone())
            .or_default()
            .insert(invitation.identity.clone(), there);
        let seen = Seen {
            identity: invitation.identity.clone(),
            participant,
            nonce,
        };
        let (server, room) = &invitation.place;
        self.voice.handle_participant_joined(self.now, server, room, &seen);
        self.settle();
        self.is_in(invitation)
    }

    pub fn is_in(&self, invitation: &Invitation) -> bool {
        self.rooms
            .get(&invitation.place)
            .is_some_and(|room| room.contains_key(&invitation.identity))
    }

    pub fn in_room(&self, invitation: &Invitation) -> &InRoom {
        &self.rooms[&invitation.place][&invitation.identity]
    }

    /// The client, or its network, goes.
    pub fn disconnect(&mut self, invitation: &Invitation) {
        self.leave_room(&invitation.place.clone(), &invitation.identity.clone());
        self.settle();
    }

    fn leave_room(&mut self, place: &Place, identity: &str) {
        let Some(gone) = self.rooms.get_mut(place).and_then(|room| room.remove(identity)) else {
            return;
        };
        let seen = Seen {
            identity: identity.to_owned(),
            participant: gone.participant,
            nonce: gone.nonce,
        };
        self.voice.handle_participant_left(self.now, &place.0, &place.1, &seen);
    }

    /// The empty room closes.
    pub fn finish(&mut self, place: &Place) {
        self.rooms.remove(place);
        self.voice.handle_room_finished(self.now, &place.0, &place.1);
        self.settle();
    }

    pub fn settle(&mut self) {
        while let Some(effect) = self.voice.poll_effect() {
            match effect {
                Effect::Authenticate { socket, token } => {
                    let user = token.parse().ok();
                    self.voice.handle_authenticated(self.now, socket, user);
                }
                Effect::Frame {
                    socket,
                    frame: Frame::HeartbeatRequest,
                } if self.alive => self.voice.handle_frame(self.now, socket, r#"{"op":1,"d":null}"#),
                Effect::Frame {
                    frame: Frame::HeartbeatAck,
                    ..
                } if self.alive => {}
                Effect::Frame { socket, frame } => {
                    let frame = serde_json::from_str(&frame.to_json()).unwrap();
                    self.inbox.entry(socket).or_default().push(frame);
                }
                Effect::Close { socket, code } => {
                    self.closed.insert(socket, code.number());
                }
                Effect::Room { server, room, action } => {
                    let place = (server, room);
                    self.asked.push((place.clone(), action.clone()));
                    self.act(place, action);
                }
                Effect::Keep(change) => {
                    let key = (change.table, change.id);
                    match change.body {
                        Some(body) => self.kept.insert(key, body),
                        None => self.kept.remove(&key),
                    };
                }
            }
        }
    }

    fn act(&mut self, place: Place, action: RoomAction) {
        match action {
            RoomAction::Permit { identity, grant } => {
                let there = self.rooms.get_mut(&place).and_then(|room| room.get_mut(&identity));
                if let Some(there) = there {
                    (there.sources, there.subscribe) = (grant.sources(), grant.subscribe);
                }
            }
            RoomAction::MuteMicrophone { .. } => {}
            RoomAction::Remove { identity } => self.leave_room(&place, &identity),
            RoomAction::Delete => {
                let all: Vec<String> = self
                    .rooms
                    .get(&place)
                    .into_iter()
                    .flatten()
                    .map(|(id, _)| id.clone())
                    .collect();
                for identity in all {
                    self.leave_room(&place, &identity);
                }
                self.rooms.remove(&place);
                self.voice.handle_room_finished(self.now, &place.0, &place.1);
            }
            RoomAction::List => {
                let seen: Vec<Seen> = self
                    .rooms
                    .get(&place)
                    .into_iter()
                    .flatten()
                    .map(|(identity, there)| Seen {
                        identity: identity.clone(),
                        participant: there.participant.clone(),
                        nonce: there.nonce.clone(),
                    })
                    .collect();
                self.voice.handle_participants(self.now, &place.0, &place.1, &seen);
            }
        }
    }

    /// Channel, user and connection of every state, as the domain believes.
    pub fn present(&self) -> Vec<(u64, u64)> {
        let mut all: Vec<(u64, u64)> = self
            .voice
            .states()
            .all()
            .map(|connection| (connection.room.channel().0, connection.user.0))
            .collect();
        all.sort_unstable();
        all
    }
}

fn invitation(whole: Value) -> Invitation {
    let token: Value = serde_json::from_str(whole["token"].as_str().unwrap()).unwrap();
    let field = |value: &Value| value.as_str().unwrap().to_owned();
    let metadata = &token["metadata"];
    let server = ServerKey {
        region: field(&metadata["region_id"]),
        server: field(&metadata["server_id"]),
    };
    Invitation {
        place: (server, field(&token["room"])),
        identity: field(&token["sub"]),
        connection: field(&whole["connection_id"]),
        token,
        whole,
    }
}

/// A member of the guild; moderators (2) have their role.
pub fn member(user: u64, more: Value) -> Value {
    let roles: &[&str] = if user == 2 { &["70"] } else { &[] };
    let mut fact = json!({"kind": "member", "guild_id": GUILD, "user_id": user.to_string(), "roles": roles});
    merge(&mut fact, more);
    fact
}

fn merge(into: &mut Value, more: Value) {
    for (name, value) in more.as_object().unwrap() {
        into[name] = value.clone();
    }
}
