//! A room, its clients and a shard that answers commands at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{
    AddTrackRequest, ClientInfo, Job, JoinResponse, LeaveRequest, ParticipantInfo, SessionDescription, SignalRequest,
    SimulcastCodec, TrackInfo, TrackSource, TrackType, VideoLayer, VideoQuality,
};

use crate::control::{
    ConnectionHandle, Join, JoinError, Output, Room, RoomEvent, RoomExplanation, RoomSettings, Signer, Wait,
};
use crate::media::edge::{Command, Event, Publish};
use crate::proto::claims::{Claims, VideoGrant};
use crate::proto::join_request::JoinParameters;
use crate::types::{ParticipantHandle, RoomHandle, SrtpProfile, TrackHandle, TransportHandle, WallClock};

pub(super) struct World {
    pub room: Room,
    pub now: Instant,
    pub clients: BTreeMap<ConnectionHandle, Client>,
    /// Every command so far.
    pub media: Vec<Command>,
    pub happened: Vec<RoomEvent>,
    pub waits: Vec<Wait>,
    pub explained: Vec<RoomExplanation>,
    /// Ends of calls: payload, or the number of the error.
    pub answers: Vec<(String, Result<String, u32>)>,
    /// Agents that were asked for, and jobs that ended (with a failure).
    pub jobs: Vec<Job>,
    pub ended_jobs: Vec<(String, bool)>,
    pub followed: Vec<String>,
    pub over: bool,
    /// False: transports stay unconnected.
    pub network: bool,
    next_connection: u64,
}

pub(super) struct Client {
    pub handle: ParticipantHandle,
    pub single: bool,
    pub inbox: Vec<Message>,
    pub closed: bool,
    /// Answers offers and requirements by itself.
    pub responsive: bool,
    sections: Vec<Section>,
    receives: &'static str,
    /// Dual form: what it answered last.
    pub mids: BTreeMap<String, String>,
    ice: u32,
    offer_id: u32,
}

#[derive(Clone)]
struct Section {
    kind: &'static str,
    direction: &'static str,
    cid: Option<String>,
    simulcast: bool,
    /// The video codecs of the m-line, payload types 96, 98, …
    codec: &'static str,
}

/// How somebody comes in.
pub(super) struct Entry {
    pub identity: String,
    pub single: bool,
    pub grant: VideoGrant,
    pub kind: &'static str,
    pub parameters: JoinParameters,
    /// Video codecs that its m-lines take, most preferred first.
    pub receives: &'static str,
    pub attributes: BTreeMap<String, String>,
}

pub(super) fn entry(identity: &str) -> Entry {
    Entry {
        identity: identity.into(),
        single: true,
        receives: "VP8",
        attributes: BTreeMap::new(),
        kind: "",
        grant: VideoGrant {
            room_join: true,
            room: "room".into(),
            can_update_own_metadata: Some(true),
            ..Default::default()
        },
        parameters: JoinParameters {
            auto_subscribe: true,
            client_info: ClientInfo {
                sdk: livekit_protocol::client_info::Sdk::Js as i32,
                version: "2.23.0".into(),
                protocol: 17,
                ..Default::default()
            },
            ..Default::default()
        },
    }
}

impl Entry {
    pub(super) fn dual(mut self) -> Self {
        self.single = false;
        self
    }

    pub(super) fn receiving(mut self, codecs: &'static str) -> Self {
        self.receives = codecs;
        self
    }

    pub(super) fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }

    pub(super) fn grant(mut self, change: impl FnOnce(&mut VideoGrant)) -> Self {
        change(&mut self.grant);
        self
    }

    pub(super) fn parameters(mut self, change: impl FnOnce(&mut JoinParameters)) -> Self {
        change(&mut self.parameters);
        self
    }
}

/// AddTrack as livekit-client sends it for a simulcast camera.
pub(super) fn camera(cid: &str) -> AddTrackRequest {
    let layer = |quality: VideoQuality, width, height| VideoLayer {
        quality: quality as i32,
        width,
        height,
        ..Default::default()
    };
    AddTrackRequest {
        cid: cid.into(),
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
            cid: cid.into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(super) fn microphone(cid: &str) -> AddTrackRequest {
    AddTrackRequest {
        cid: cid.into(),
        r#type: TrackType::Audio as i32,
        source: TrackSource::Microphone as i32,
        ..Default::default()
    }
}

/// The messages' names, in order: what a transcript shows.
pub(super) fn name(message: &Message) -> &'static str {
    match message {
        Message::Join(_) => "join",
        Message::Answer(_) => "answer",
        Message::Offer(_) => "offer",
        Message::Trickle(_) => "trickle",
        Message::Update(_) => "update",
        Message::TrackPublished(_) => "track_published",
        Message::Leave(_) => "leave",
        Message::Mute(_) => "mute",
        Message::SpeakersChanged(_) => "speakers_changed",
        Message::RoomUpdate(_) => "room_update",
        Message::ConnectionQuality(_) => "connection_quality",
        Message::StreamStateUpdate(_) => "stream_state_update",
        Message::SubscribedQualityUpdate(_) => "subscribed_quality_update",
        Message::SubscriptionPermissionUpdate(_) => "subscription_permission_update",
        Message::RefreshToken(_) => "refresh_token",
        Message::TrackUnpublished(_) => "track_unpublished",
        Message::Reconnect(_) => "reconnect",
        Message::SubscriptionResponse(_) => "subscription_response",
        Message::RequestResponse(_) => "request_response",
        Message::TrackSubscribed(_) => "track_subscribed",
        Message::MediaSectionsRequirement(_) => "media_sections_requirement",
        Message::PublishDataTrackResponse(_) => "publish_data_track_response",
        Message::UnpublishDataTrackResponse(_) => "unpublish_data_track_response",
        Message::DataTrackSubscriberHandles(_) => "data_track_subscriber_handles",
        Message::RoomMoved(_) => "room_moved",
        _ => "other",
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(RoomSettings::default())
    }

    pub(super) fn with(settings: RoomSettings) -> Self {
        Self::of("room", settings)
    }

    /// Another room of the same shard; its connections have other numbers.
    pub(super) fn second() -> Self {
        let mut world = Self::of("other", RoomSettings::default());
        world.next_connection = 100;
        world
    }

    fn of(name: &str, settings: RoomSettings) -> Self {
        let now = Instant::now();
        let settings = RoomSettings {
            udp_candidates: vec!["192.0.2.1:7882".parse().unwrap()],
            tcp_candidates: vec!["192.0.2.1:7881".parse().unwrap()],
            ..settings
        };
        let wall = WallClock::new(now, Duration::from_secs(1_795_236_973));
        let room = Room::new(name.into(), RoomHandle(1), settings, wall, 42, now);
        let mut world = Self {
            room,
            now,
            clients: BTreeMap::new(),
            media: Vec::new(),
            happened: Vec::new(),
            waits: Vec::new(),
            explained: Vec::new(),
            answers: Vec::new(),
            jobs: Vec::new(),
            ended_jobs: Vec::new(),
            followed: Vec::new(),
            over: false,
            network: true,
            next_connection: 0,
        };
        world.pump();
        world
    }

    pub(super) fn try_join(&mut self, entry: Entry) -> Result<ConnectionHandle, JoinError> {
        self.next_connection += 1;
        let connection = ConnectionHandle(self.next_connection);
        let reconnect = entry.parameters.reconnect;
        let mut client = Client::new(entry.single);
        client.receives = entry.receives;
        let mut parameters = entry.parameters;
        parameters.single_connection = entry.single;
        if entry.single && !reconnect && parameters.publisher_offer.is_none() {
            for kind in ["audio", "audio", "audio", "video", "video", "video"] {
                client.add_section(kind, "recvonly", None);
            }
            client.add_section("application", "", None);
            parameters.publisher_offer = Some(client.offer());
        }
        let join = Join {
            connection,
            claims: Claims {
                api_key: "key".into(),
                identity: entry.identity,
                kind: entry.kind.into(),
                attributes: entry.attributes,
                video: Some(entry.grant),
                expires_at: 1_795_240_000,
                ..Default::default()
            },
            signer: Signer {
                api_key: "key".into(),
                secret: "secret".into(),
            },
            parameters,
            media: None,
        };
        client.handle = self.room.handle_join(self.now, join)?;
        self.clients.insert(connection, client);
        self.pump();
        Ok(connection)
    }

    /// Comes in and is ACTIVE a moment later; data channels are offered in dual form too.
    pub(super) fn join(&mut self, entry: Entry) -> ConnectionHandle {
        let single = entry.single;
        let reconnect = entry.parameters.reconnect;
        let connection = self.try_join(entry).expect("joins");
        if !single && !reconnect {
            self.client(connection).add_section("application", "", None);
            self.offer(connection);
        }
        connection
    }

    pub(super) fn client(&mut self, connection: ConnectionHandle) -> &mut Client {
        self.clients.get_mut(&connection).expect("a client")
    }

    pub(super) fn send(&mut self, connection: ConnectionHandle, message: Request) {
        let request = SignalRequest { message: Some(message) };
        self.room.handle_request(self.now, connection, request);
        self.pump();
    }

    pub(super) fn offer(&mut self, connection: ConnectionHandle) {
        let offer = self.client(connection).offer();
        self.send(connection, Request::Offer(offer));
    }

    /// The peer connection outlives its socket: its m-lines go on under the new one.
    pub(super) fn move_sections(&mut self, from: ConnectionHandle, to: ConnectionHandle) {
        let sections = self.client(from).sections.clone();
        self.client(to).sections = sections;
    }

    /// The subscriptions the shard was told to start: subscriber's m-line and the published track it carries.
    pub(super) fn forwarded(&self) -> Vec<(String, TrackHandle)> {
        self.commands(|command| match command {
            Command::Subscribe(subscribe) => Some((subscribe.mid.to_string(), subscribe.track)),
            _ => None,
        })
    }

    pub(super) fn leave(&mut self, connection: ConnectionHandle) {
        let leave = LeaveRequest {
            reason: livekit_protocol::DisconnectReason::ClientInitiated as i32,
            ..Default::default()
        };
        self.send(connection, Request::Leave(leave));
    }

    /// Announces, offers, and sends the first packets. Returns the track as the room answered it.
    pub(super) fn publish(&mut self, connection: ConnectionHandle, request: AddTrackRequest) -> TrackInfo {
        let kind = if request.r#type == TrackType::Audio as i32 {
            "audio"
        } else {
            "video"
        };
        let cid = request.cid.clone();
        self.send(connection, Request::AddTrack(request));
        let track = self.client(connection).published(&cid).expect("track_published");
        self.client(connection).add_section(kind, "sendonly", Some(&cid));
        self.offer(connection);
        self.packets();
        track
    }

    /// The m-line of a track goes away.
    pub(super) fn unpublish(&mut self, connection: ConnectionHandle, cid: &str) {
        for section in &mut self.client(connection).sections {
            if section.cid.as_deref() == Some(cid) {
                section.direction = "inactive";
                section.cid = None;
            }
        }
        self.offer(connection);
    }

    /// The first packet of every encoding of the tracks that are bound.
    fn packets(&mut self) {
        let publishes: Vec<Publish> = self
            .media
            .iter()
            .filter_map(|command| match command {
                Command::Publish(publish) => Some(publish.as_ref().clone()),
                _ => None,
            })
            .collect();
        if let Some(publish) = publishes.last() {
            for (index, encoding) in publish.encodings.iter().enumerate() {
                let ssrc = encoding.ssrc.map_or(1000 + index as u32, |ssrc| ssrc.0);
                self.encoding_seen(publish.track, index, ssrc);
            }
        }
    }

    pub(super) fn encoding_seen(&mut self, track: TrackHandle, encoding: usize, ssrc: u32) {
        let codec = self
            .media
            .iter()
            .rev()
            .find_map(|command| match command {
                Command::Publish(publish) if publish.track == track => publish.codecs.first().cloned(),
                _ => None,
            })
            .expect("a published codec");
        self.event(Event::EncodingSeen {
            track,
            encoding: encoding as u8,
            ssrc: crate::types::Ssrc(ssrc),
            rtx_ssrc: None,
            pt: codec.pt,
            codec: codec.codec,
        });
    }

    pub(super) fn event(&mut self, event: Event) {
        self.room.handle_event(self.now, event);
        self.pump();
    }

    /// The process has ended without a word, and another has made the room from what was written down.
    pub(super) fn restart(&mut self) {
        let record = self.room.take_record().expect("something new");
        let (settings, wall) = (self.room.settings.clone(), self.room.wall);
        self.room = Room::restore(record, RoomHandle(2), settings, wall, 43, self.now);
        self.clients.clear();
        self.pump();
    }

    pub(super) fn drop_socket(&mut self, connection: ConnectionHandle) {
        self.client(connection).closed = true;
        self.room.handle_connection_closed(self.now, connection);
        self.pump();
    }

    /// Time passes, with every deadline met on time.
    pub(super) fn after(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.room.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.room.handle_timeout(self.now);
            self.pump();
        }
        self.now = until;
    }

    pub(super) fn after_ms(&mut self, ms: u64) {
        self.after(Duration::from_millis(ms));
    }

    /// Delivers outputs until nothing more comes of them.
    pub(super) fn pump(&mut self) {
        while let Some(output) = self.room.poll_output() {
            assert!(!self.over, "nothing follows Closed: {output:?}");
            match output {
                Output::Signal { connection, message } => self.deliver(connection, message.message.expect("a message")),
                Output::CloseConnection { connection } => {
                    if let Some(client) = self.clients.get_mut(&connection) {
                        client.closed = true;
                    }
                }
                Output::Media(command) => self.command(command),
                Output::Happened(event) => self.happened.push(event),
                Output::Waited(wait) => self.waits.push(wait),
                Output::Explained { explanation, .. } => self.explained.push(*explanation),
                Output::RpcAnswered { call, answer } => self.answers.push((call, answer.map_err(|error| error.code))),
                Output::LaunchJob(job) => self.jobs.push(*job),
                Output::EndJob { job, failed } => self.ended_jobs.push((job, failed)),
                Output::FollowJob(job) => self.followed.push(job.id),
                Output::WithdrawJobs { .. } => {}
                Output::Closed => self.over = true,
            }
        }
    }

    fn deliver(&mut self, connection: ConnectionHandle, message: Message) {
        let Some(client) = self.clients.get_mut(&connection) else {
            // The first messages of a join that is still being handled.
            return;
        };
        assert!(!client.closed, "a message for a closed connection: {message:?}");
        client.inbox.push(message.clone());
        if !client.responsive {
            return;
        }
        let reply = match message {
            Message::Offer(offer) => Some(Request::Answer(client.answer(&offer))),
            Message::MediaSectionsRequirement(needed) => {
                for _ in 0..needed.num_audios {
                    client.add_section("audio", "recvonly", None);
                }
                for _ in 0..needed.num_videos {
                    client.add_section("video", "recvonly", None);
                }
                Some(Request::Offer(client.offer()))
            }
            Message::Answer(answer) if client.single => {
                client.mids = answer.mid_to_track_id.into_iter().collect();
                None
            }
            _ => None,
        };
        if let Some(reply) = reply {
            let request = SignalRequest { message: Some(reply) };
            self.room.handle_request(self.now, connection, request);
        }
    }

    fn command(&mut self, command: Command) {
        let event = match &command {
            Command::SetRemote { transport, .. } if self.network => Some(connected(*transport)),
            Command::Subscribe(subscribe) => Some(Event::SubscriptionStarted {
                subscription: subscribe.subscription,
            }),
            _ => None,
        };
        self.media.push(command);
        if let Some(event) = event {
            self.room.handle_event(self.now, event);
        }
    }

    pub(super) fn commands<T>(&self, pick: impl Fn(&Command) -> Option<T>) -> Vec<T> {
        self.media.iter().filter_map(pick).collect()
    }

    /// Everybody's state by identity, as the API sees it.
    pub(super) fn states(&self) -> Vec<(String, State)> {
        let info = |info: ParticipantInfo| (info.identity.clone(), info.state());
        self.room.participants().into_iter().map(info).collect()
    }
}

pub(super) fn connected(transport: TransportHandle) -> Event {
    Event::TransportConnected {
        transport,
        srtp_profile: SrtpProfile::AeadAes256Gcm,
        remote: "198.51.100.1:5000".parse().unwrap(),
        protocol: crate::types::NetProtocol::Udp,
    }
}

impl Client {
    fn new(single: bool) -> Self {
        Self {
            handle: ParticipantHandle(0),
            single,
            inbox: Vec::new(),
            closed: false,
            responsive: true,
            sections: Vec::new(),
            receives: "VP8",
            mids: BTreeMap::new(),
            ice: 0,
            offer_id: 0,
        }
    }

    pub(super) fn add_section(&mut self, kind: &'static str, direction: &'static str, cid: Option<&str>) {
        self.sections.push(Section {
            kind,
            direction,
            cid: cid.map(str::to_owned),
            simulcast: kind == "video" && cid.is_some(),
            codec: if cid.is_some() { "VP8" } else { self.receives },
        });
    }

    /// One stream, named by its SSRC, in one codec.
    pub(super) fn add_video(&mut self, codec: &'static str, cid: &str) {
        self.add_section("video", "sendonly", Some(cid));
        if let Some(section) = self.sections.last_mut() {
            section.codec = codec;
            section.simulcast = false;
        }
    }

    /// A later offer restarts ICE.
    pub(super) fn restart_ice(&mut self) {
        self.ice += 1;
    }

    pub(super) fn offer(&mut self) -> SessionDescription {
        self.offer_id += 1;
        let sections: Vec<String> = self
            .sections
            .iter()
            .enumerate()
            .map(|(mid, section)| section.describe(&mid.to_string(), "actpass", self.ice))
            .collect();
        SessionDescription {
            r#type: "offer".into(),
            sdp: session(sections.len(), &sections.concat()),
            id: self.offer_id,
            ..Default::default()
        }
    }

    /// Dual form: takes whatever the server sends.
    fn answer(&mut self, offer: &SessionDescription) -> SessionDescription {
        self.mids = offer.mid_to_track_id.clone().into_iter().collect();
        let mut sections = Vec::new();
        for (index, media) in offer.sdp.split("\r\nm=").skip(1).enumerate() {
            let kind = ["audio", "video", "application"]
                .into_iter()
                .find(|kind| media.starts_with(kind))
                .expect("a known kind");
            let direction = if media.contains("a=sendrecv") || media.contains("a=sendonly") {
                "recvonly"
            } else {
                "inactive"
            };
            let section = Section {
                kind,
                direction,
                cid: None,
                simulcast: false,
                codec: "VP8",
            };
            sections.push(section.describe(&index.to_string(), "active", self.ice));
        }
        SessionDescription {
            r#type: "answer".into(),
            sdp: session(sections.len(), &sections.concat()),
            id: offer.id,
            ..Default::default()
        }
    }

    /// What it was told since the last call.
    pub(super) fn told(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.inbox)
    }

    pub(super) fn names(&mut self) -> Vec<&'static str> {
        self.told().iter().map(name).collect()
    }

    pub(super) fn join_response(&self) -> JoinResponse {
        match self.inbox.first() {
            Some(Message::Join(join)) => join.clone(),
            other => panic!("the first message is {other:?}"),
        }
    }

    fn published(&self, cid: &str) -> Option<TrackInfo> {
        self.inbox.iter().rev().find_map(|message| match message {
            Message::TrackPublished(published) if published.cid == cid => published.track.clone(),
            _ => None,
        })
    }

    /// The newest update about somebody.
    pub(super) fn update_about(&self, identity: &str) -> Option<ParticipantInfo> {
        let updates = self.inbox.iter().rev().filter_map(|message| match message {
            Message::Update(update) => Some(update),
            _ => None,
        });
        updates
            .flat_map(|update| update.participants.iter())
            .find(|info| info.identity == identity)
            .cloned()
    }

    pub(super) fn leave_received(&self) -> Option<LeaveRequest> {
        self.inbox.iter().find_map(|message| match message {
            Message::Leave(leave) => Some(leave.clone()),
            _ => None,
        })
    }
}

fn session(sections: usize, media: &str) -> String {
    let mids: Vec<String> = (0..sections).map(|mid| mid.to_string()).collect();
    let fingerprint = ["AB"; 32].join(":");
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=extmap-allow-mixed\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n{media}",
        mids.join(" ")
    )
}

impl Section {
    fn describe(&self, mid: &str, setup: &str, ice: u32) -> String {
        let transport = format!(
            "c=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=ice-ufrag:ufrag{ice}\r\na=ice-pwd:password-of-24-characters{ice}\r\n\
             a=setup:{setup}\r\n"
        );
        if self.kind == "application" {
            return format!(
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{transport}a=sctp-port:5000\r\n\
                 a=max-message-size:262144\r\n"
            );
        }
        let codecs = match self.kind {
            "audio" => {
                "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n{T}a=rtpmap:111 opus/48000/2\r\n\
                 a=fmtp:111 minptime=10;useinbandfec=1\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"
            }
            _ => return self.describe_video(&transport),
        };
        self.describe_direction(codecs.replace("{T}", &transport))
    }

    fn describe_video(&self, transport: &str) -> String {
        let (mut formats, mut lines) = (String::new(), String::new());
        for (pt, codec) in (96..).step_by(2).zip(self.codec.split(' ')) {
            formats += &format!(" {pt} {}", pt + 1);
            lines += &format!("a=rtpmap:{pt} {codec}/90000\r\na=rtpmap:{} rtx/90000\r\n", pt + 1);
            lines += &format!("a=fmtp:{} apt={pt}\r\n", pt + 1);
            for feedback in ["ccm fir", "nack", "nack pli", "goog-remb", "transport-cc"] {
                lines += &format!("a=rtcp-fb:{pt} {feedback}\r\n");
            }
        }
        self.describe_direction(format!("m=video 9 UDP/TLS/RTP/SAVPF{formats}\r\n{transport}{lines}"))
    }

    fn describe_direction(&self, mut text: String) -> String {
        text += "a=rtcp-mux\r\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
        text += "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n";
        text += &format!("a={}\r\n", self.direction);
        if let Some(cid) = &self.cid {
            text += &format!("a=msid:- {cid}\r\n");
            if self.simulcast {
                text += "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n";
            } else {
                text += &format!("a=ssrc:77 cname:c\r\na=ssrc:77 msid:- {cid}\r\n");
            }
        }
        text
    }
}
