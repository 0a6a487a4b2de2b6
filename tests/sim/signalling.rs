//! The control side in the loop: a real room between clients' signalling and the shard. Clients speak the dual form with
//! str0m's own descriptions: one peer connection that they offer on, one on which they answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use livekit_protocol::{
    AddTrackRequest, ClientInfo, SessionDescription, SignalRequest, SimulcastCodec, TrackInfo, TrackSource, TrackType,
    VideoLayer, VideoQuality, client_info, signal_request::Message as Request, signal_response::Message,
};
use patchbay::{
    control::{ConnectionHandle, Join, Output, Room, RoomSettings, Signer},
    media::edge::Span,
    proto::{
        claims::{Claims, VideoGrant},
        join_request::JoinParameters,
    },
    types::{Codec, ParticipantHandle, ShardIndex, TransportHandle, WallClock},
};
use rand::RngExt;
use str0m::{
    Candidate,
    change::{SdpAnswer, SdpOffer, SdpPendingOffer},
    media::{Direction, MediaKind, Simulcast, SimulcastLayer},
};

use crate::{
    media::{Shape, Source},
    peer::{Feedback, Peer},
    world::{SIGNALLED_ROOM, World},
};

const RIDS: [&str; 3] = ["q", "h", "f"];

pub struct Signalling {
    pub room: Room,
    pub clients: Vec<Client>,
}

pub struct Client {
    connection: ConnectionHandle,
    /// Peers of the world.
    pub publisher: usize,
    pub subscriber: usize,
    pub told: Vec<(Instant, Message)>,
    pending: Option<SdpPendingOffer>,
    /// Whether layers that nobody wants are switched off, as browsers do.
    pub obeys: bool,
}

impl Client {
    /// When something was first told from `since` on.
    pub fn first<T>(&self, since: Instant, pick: impl Fn(&Message) -> Option<T>) -> Option<(Instant, T)> {
        let told = self.told.iter().filter(|(at, _)| *at >= since);
        told.filter_map(|(at, message)| Some((*at, pick(message)?))).next()
    }

    pub fn published(&self) -> Option<TrackInfo> {
        let (_, track) = self.first(self.told.first()?.0, |message| match message {
            Message::TrackPublished(published) => published.track.clone(),
            _ => None,
        })?;
        Some(track)
    }
}

/// As a client of JavaScript joins, with two connections.
fn joining(connection: ConnectionHandle, identity: &str) -> Join {
    Join {
        connection,
        claims: Claims {
            api_key: "key".into(),
            identity: identity.into(),
            video: Some(VideoGrant {
                room_join: true,
                room: "room".into(),
                ..VideoGrant::default()
            }),
            expires_at: 1_890_000_000,
            ..Claims::default()
        },
        signer: Signer {
            api_key: "key".into(),
            secret: "secret".into(),
        },
        parameters: JoinParameters {
            auto_subscribe: true,
            adaptive_stream: true,
            client_info: ClientInfo {
                sdk: client_info::Sdk::Js as i32,
                version: "2.23.0".into(),
                protocol: 17,
                ..ClientInfo::default()
            },
            ..JoinParameters::default()
        },
        media: None,
    }
}

impl World {
    /// A world with a room that is signalled to.
    pub fn signalled(seed: u64) -> Self {
        let mut world = Self::new(seed);
        let settings = RoomSettings {
            udp_candidates: vec![world.server],
            fingerprint: world.fingerprint(),
            ..RoomSettings::default()
        };
        let wall = WallClock::new(world.now, Duration::from_secs(1_790_000_000));
        world.span = Span::new(ShardIndex(0));
        let room = Room::new("room".into(), SIGNALLED_ROOM, settings, wall, seed, world.now);
        world.signalling = Some(Box::new(Signalling {
            room,
            clients: Vec::new(),
        }));
        world.signal();
        world
    }

    pub fn signalling(&mut self) -> &mut Signalling {
        self.signalling.as_mut().expect("a signalled world")
    }

    pub fn client(&self, client: usize) -> &Client {
        &self.signalling.as_ref().expect("a signalled world").clients[client]
    }

    /// Joins and is connected when this returns.
    pub fn enter(&mut self, identity: &str) -> usize {
        let now = self.now;
        let peer = |address, server| {
            let nobody = (ParticipantHandle(0), TransportHandle(0));
            Peer::new(address, server, nobody.0, nobody.1, Feedback::TransportWide, now)
        };
        let (publisher, subscriber) = (self.add_peer(peer), self.add_peer(peer));
        let index = self.signalling().clients.len();
        let connection = ConnectionHandle(index as u64 + 1);
        let join = joining(connection, identity);
        self.signalling().clients.push(Client {
            connection,
            publisher,
            subscriber,
            told: Vec::new(),
            pending: None,
            obeys: true,
        });
        self.signalling().room.handle_join(now, join).expect("joins");
        self.signal();
        self.run(Duration::from_secs(2));
        let drops: Vec<_> = self.shard.stats().drops().filter(|(_, count)| *count > 0).collect();
        let events = &self.events;
        assert!(
            self.peers[subscriber].connected,
            "{identity} connects; {drops:?} {events:?}"
        );
        index
    }

    /// Everybody there and their tracks, as clients were told last.
    pub fn population(&self) -> Vec<String> {
        let room = &self.signalling.as_ref().expect("a signalled world").room;
        let mut known: Vec<String> = room
            .participants()
            .into_iter()
            .flat_map(|info| {
                let tracks = info.tracks.into_iter().map(|track| track.sid);
                [info.sid].into_iter().chain(tracks)
            })
            .collect();
        known.sort();
        known
    }

    /// Its signalling is back after it was lost: it takes up its session and restarts ICE of what it publishes on; the server
    /// does so of the rest.
    pub fn come_back(&mut self, client: usize, identity: &str) {
        let now = self.now;
        let connection = ConnectionHandle(1000 + self.signalling().clients[client].connection.0);
        let joined = self.client(client).told.iter().find_map(|(_, message)| match message {
            Message::Join(join) => join.participant.clone(),
            _ => None,
        });
        let mut join = joining(connection, identity);
        join.parameters.reconnect = true;
        join.parameters.participant_sid = joined.expect("it has joined").sid;
        self.signalling().clients[client].connection = connection;
        self.signalling().room.handle_join(now, join).expect("resumes");
        self.signal();
        let publisher = self.client(client).publisher;
        if self.peers[publisher].outgoing.is_empty() {
            return;
        }
        let mut changes = self.peers[publisher].rtc.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply().expect("a restart");
        self.peers[publisher].has_output = true;
        self.signalling().clients[client].pending = Some(pending);
        let description = SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            ..SessionDescription::default()
        };
        self.request(client, Request::Offer(description));
    }

    pub fn request(&mut self, client: usize, message: Request) {
        let (now, connection) = (self.now, self.client(client).connection);
        let request = SignalRequest { message: Some(message) };
        self.signalling().room.handle_request(now, connection, request);
        self.signal();
    }

    /// Announces a 720p camera, offers it and sends once the answer is there.
    pub fn enter_camera(&mut self, client: usize) -> TrackInfo {
        let layer = |quality: VideoQuality, width, height| VideoLayer {
            quality: quality as i32,
            width,
            height,
            ..VideoLayer::default()
        };
        let cid = format!("camera-of-{client}");
        let announcement = AddTrackRequest {
            cid: cid.clone(),
            r#type: TrackType::Video as i32,
            source: TrackSource::Camera as i32,
            width: 1280,
            height: 720,
            layers: vec![
                layer(VideoQuality::Low, 320, 180),
                layer(VideoQuality::Medium, 640, 360),
                layer(VideoQuality::High, 1280, 720),
            ],
            simulcast_codecs: vec![SimulcastCodec {
                codec: "vp8".into(),
                cid: cid.clone(),
                ..SimulcastCodec::default()
            }],
            ..AddTrackRequest::default()
        };
        self.request(client, Request::AddTrack(announcement));
        let publisher = self.client(client).publisher;
        let peer = &mut self.peers[publisher];
        let mut changes = peer.rtc.sdp_api();
        let simulcast = Simulcast {
            send: RIDS.map(SimulcastLayer::new).to_vec(),
            recv: Vec::new(),
        };
        let stream = Some("stream".to_owned());
        let mid = changes.add_media(
            MediaKind::Video,
            Direction::SendOnly,
            stream,
            Some(cid),
            Some(simulcast),
        );
        let (offer, pending) = changes.apply().expect("changes");
        peer.has_output = true;
        let connection = &mut self.signalling().clients[client];
        connection.pending = Some(pending);
        let description = SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            ..SessionDescription::default()
        };
        self.request(client, Request::Offer(description));
        self.run(Duration::from_millis(100));
        let now = self.now;
        for (encoding, rid) in (0..).zip(RIDS) {
            let source = Source::shaped(Codec::Vp8, encoding, Shape::camera(encoding), self.rng.random());
            self.peers[publisher].send_on(mid, Some(rid.into()), source, now);
        }
        self.run(Duration::from_secs(2));
        assert!(self.peers[publisher].connected, "the publisher's connection is up");
        self.client(client).published().expect("track_published")
    }

    /// Delivers what the room has to say until nothing more comes of it.
    pub fn signal(&mut self) {
        while let Some(output) = self.signalling.as_mut().and_then(|it| it.room.poll_output()) {
            match output {
                Output::Media(command) => self.command(command),
                Output::Signal { connection, message } => {
                    let clients = &self.signalling().clients;
                    let client = clients.iter().position(|client| client.connection == connection);
                    if let (Some(client), Some(message)) = (client, message.message) {
                        self.tell(client, message);
                    }
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, client: usize, message: Message) {
        let now = self.now;
        self.signalling().clients[client].told.push((now, message.clone()));
        let (publisher, subscriber) = (self.client(client).publisher, self.client(client).subscriber);
        match message {
            Message::Offer(offer) => {
                let peer = &mut self.peers[subscriber];
                peer.has_output = true;
                // Browsers answer as the active side; str0m would choose the other.
                let sdp = offer.sdp.replace("a=setup:actpass", "a=setup:passive");
                let described = SdpOffer::from_sdp_string(&sdp).expect("a description that str0m reads");
                let answer = peer.rtc.sdp_api().accept_offer(described).expect("an offer it takes");
                let answer = SessionDescription {
                    r#type: "answer".into(),
                    sdp: answer.to_sdp_string(),
                    id: offer.id,
                    ..SessionDescription::default()
                };
                self.request(client, Request::Answer(answer));
            }
            Message::Answer(answer) => {
                let pending = self.signalling().clients[client]
                    .pending
                    .take()
                    .expect("an offer was made");
                let peer = &mut self.peers[publisher];
                peer.has_output = true;
                let described = SdpAnswer::from_sdp_string(&answer.sdp).expect("a description that str0m reads");
                peer.rtc
                    .sdp_api()
                    .accept_answer(pending, described)
                    .expect("an answer it takes");
            }
            Message::Trickle(trickle) => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init).expect("JSON");
                let candidate = init["candidate"].as_str().unwrap_or_default();
                let target = if trickle.target == 0 { publisher } else { subscriber };
                if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
                    self.peers[target].rtc.add_remote_candidate(candidate);
                    self.peers[target].has_output = true;
                }
            }
            Message::SubscribedQualityUpdate(update) if self.client(client).obeys => {
                let wanted: BTreeMap<i32, bool> = update
                    .subscribed_codecs
                    .iter()
                    .flat_map(|codec| &codec.qualities)
                    .map(|quality| (quality.quality, quality.enabled))
                    .collect();
                for (quality, outgoing) in (0..).zip(&mut self.peers[publisher].outgoing) {
                    outgoing.active = wanted.get(&quality).copied().unwrap_or(outgoing.active);
                }
            }
            _ => {}
        }
    }
}
