//! A participant with real media: str0m over UDP, in each of the three forms in which clients come.
//!
//! A task of its own drives it; a story waits for what it has [`Seen`] and asks it to do something.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use patchbay::proto::claims::VideoGrant;
use patchbay::proto::livekit::signal_request::Message as Ask;
use patchbay::proto::livekit::signal_response::Message as Say;
use patchbay::proto::livekit::{AddTrackRequest, SessionDescription, SignalRequest, SignalResponse, TrackType};
use prost::Message as _;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::media::{Direction, Frequency, MediaKind, MediaTime, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{LIMIT, Signalling, join_request};
use crate::process::Process;

pub const FORMS: [Form; 3] = [Form::Address, Form::Request, Form::V1];
pub const ROOM: &str = "media";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Parameters in the address: two peer connections.
    Address,
    /// A join request on the same path: one.
    Request,
    V1,
}

/// Everything that has come to a participant.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub sid: String,
    /// Of the connection that it publishes on.
    pub is_connected: bool,
    pub has_reliable: bool,
    /// Messages of the reliable channel.
    pub data: Vec<Vec<u8>>,
    /// Frames of sound.
    pub sounds: usize,
    /// The latest word on each participant's connection.
    pub qualities: BTreeMap<String, (i32, f32)>,
    /// The server has sent it away.
    pub left: Option<i32>,
    /// Bytes that it wants to send and may not yet.
    pub waiting: usize,
    /// Its channel would not take more at some time.
    pub was_held_back: bool,
}

enum Wish {
    Send(Vec<Vec<u8>>),
    /// Datagrams that it takes from its sockets in ten milliseconds; None = all.
    Read(Option<usize>),
}

pub struct MediaClient {
    seen: watch::Receiver<Seen>,
    wishes: mpsc::UnboundedSender<Wish>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for MediaClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MediaClient {
    /// Joins; with a voice when it `speaks`. It is connected when this returns.
    pub async fn join(server: &Process, form: Form, identity: &str, speaks: bool) -> Self {
        let (told, seen) = watch::channel(Seen::default());
        let (wishes, wished) = mpsc::unbounded_channel();
        let grant = VideoGrant {
            room_join: true,
            room: ROOM.into(),
            ..VideoGrant::default()
        };
        let token = server.token(identity, grant);
        let driver = Driver::start(server.address, form, &token, speaks, told).await;
        let task = tokio::spawn(driver.run(wished));
        let client = Self { seen, wishes, task };
        client.until(LIMIT, |seen| seen.is_connected && seen.has_reliable).await;
        client
    }

    pub async fn until(&self, limit: Duration, wanted: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let found = tokio::time::timeout(limit, seen.wait_for(wanted)).await;
        match found {
            Ok(Ok(found)) => found.clone(),
            other => {
                let why = match other {
                    Err(_) => "not in time",
                    _ => "its task has ended",
                };
                let seen = self.seen.borrow();
                panic!(
                    "{why}: {} messages, {:?}",
                    seen.data.len(),
                    Seen {
                        data: Vec::new(),
                        ..seen.clone()
                    }
                );
            }
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Reliably, one after the other as the channel takes them.
    pub fn send(&self, messages: Vec<Vec<u8>>) {
        self.wishes.send(Wish::Send(messages)).expect("it is there");
    }

    pub fn read(&self, datagrams: Option<usize>) {
        self.wishes.send(Wish::Read(datagrams)).expect("it is there");
    }
}

struct Connection {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    pending: Option<SdpPendingOffer>,
    labels: BTreeMap<String, ChannelId>,
    wake_at: Instant,
}

impl Connection {
    async fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder().build(Instant::now());
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            socket,
            address,
            pending: None,
            labels: BTreeMap::new(),
            wake_at: Instant::now(),
        }
    }

    fn offer(&mut self, change: impl FnOnce(&mut str0m::change::SdpApi<'_>)) -> Option<SessionDescription> {
        let mut api = self.rtc.sdp_api();
        change(&mut api);
        let (offer, pending) = api.apply()?;
        self.pending = Some(pending);
        Some(described("offer", offer.to_sdp_string(), 1))
    }

    fn add_candidate(&mut self, init: &str) {
        let init: serde_json::Value = serde_json::from_str(init).unwrap();
        if let Ok(candidate) = Candidate::from_sdp_string(init["candidate"].as_str().unwrap_or_default()) {
            self.rtc.add_remote_candidate(candidate);
        }
    }

    fn advance(&mut self) {
        let _ = self.rtc.handle_input(Input::Timeout(Instant::now()));
    }
}

fn described(kind: &str, sdp: String, id: u32) -> SessionDescription {
    SessionDescription {
        r#type: kind.into(),
        sdp,
        id,
        ..Default::default()
    }
}

fn channel(label: &str) -> ChannelConfig {
    ChannelConfig {
        label: label.into(),
        ..ChannelConfig::default()
    }
}

struct Driver {
    told: watch::Sender<Seen>,
    signalling: Signalling,
    /// The one connection, or the one for publishing; and then the other one.
    publisher: Connection,
    subscriber: Option<Connection>,
    voice: Option<Mid>,
    sounds_sent: u64,
    sound_at: Option<Instant>,
    unsent: std::collections::VecDeque<Vec<u8>>,
    /// May be read in this turn, of so many.
    reads: Option<(usize, usize)>,
    offers_again: (u32, u32),
}

const SOUND_EVERY: Duration = Duration::from_millis(20);
const TURN: Duration = Duration::from_millis(10);
const CID: &str = "voice";

impl Driver {
    async fn start(server: SocketAddr, form: Form, token: &str, speaks: bool, told: watch::Sender<Seen>) -> Self {
        let mut publisher = Connection::new().await;
        let mut voice = None;
        let offer = publisher.offer(|api| {
            api.add_channel_with_config(channel("_reliable"));
            // Who lacks one of the two is still connecting.
            api.add_channel_with_config(channel("_lossy"));
            if speaks {
                let stream = Some("stream".to_owned());
                voice = Some(api.add_media(MediaKind::Audio, Direction::SendOnly, stream, Some(CID.into()), None));
            }
        });
        let announced = speaks.then(|| AddTrackRequest {
            cid: CID.into(),
            r#type: TrackType::Audio as i32,
            source: 2,
            ..Default::default()
        });
        let request = join_request(|request| {
            request.add_track_requests = announced.iter().cloned().collect();
            request.publisher_offer = offer.clone();
        });
        let (target, subscriber) = match form {
            Form::Address => (
                "/rtc?protocol=17&sdk=js&version=2.23.0&auto_subscribe=1".to_owned(),
                Some(Connection::new().await),
            ),
            Form::Request => (format!("/rtc?join_request={request}"), None),
            Form::V1 => (format!("/rtc/v1?join_request={request}"), None),
        };
        let mut signalling = Signalling::open(server, &target, token).await.unwrap();
        if form == Form::Address {
            if let Some(announced) = announced {
                signalling.send(Ask::AddTrack(announced)).await;
            }
            signalling.send(Ask::Offer(offer.unwrap())).await;
        }
        Self {
            told,
            signalling,
            publisher,
            subscriber,
            voice,
            sounds_sent: 0,
            sound_at: None,
            unsent: Default::default(),
            reads: None,
            offers_again: (0, 0),
        }
    }

    async fn run(mut self, mut wished: mpsc::UnboundedReceiver<Wish>) {
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.send_sounds();
            self.send_data();
            for of_publisher in [true, false] {
                self.drain(of_publisher);
            }
            let others = self.subscriber.as_ref().map(|its| its.wake_at);
            let wake = [Some(self.publisher.wake_at), others, self.sound_at]
                .into_iter()
                .flatten()
                .min();
            let wake = wake.unwrap_or_else(Instant::now);
            let reads = self.reads.is_none_or(|(_, left)| left > 0);
            let subscriber = self.subscriber.as_ref();
            tokio::select! {
                wish = wished.recv() => match wish {
                    None => return,
                    Some(Wish::Send(messages)) => self.unsent.extend(messages),
                    Some(Wish::Read(datagrams)) => self.reads = datagrams.map(|datagrams| (datagrams, datagrams)),
                },
                frame = self.signalling.socket.next() => match frame {
                    Some(Ok(Message::Binary(bytes))) => {
                        let response = SignalResponse::decode(bytes.as_ref()).unwrap();
                        self.hear(response.message.unwrap()).await;
                    }
                    Some(Ok(_)) => {}
                    _ => return self.remain().await,
                },
                _ = self.publisher.socket.readable(), if reads => self.receive(true),
                Some(()) = readable(subscriber), if reads && subscriber.is_some() => self.receive(false),
                _ = turns.tick(), if self.reads.is_some() => {
                    self.reads = self.reads.map(|(each, _)| (each, each));
                }
                () = tokio::time::sleep_until(wake.into()) => {
                    self.publisher.advance();
                    self.subscriber.iter_mut().for_each(Connection::advance);
                }
            }
        }
    }

    /// Sent away, it says nothing more; what it has seen can still be asked for.
    async fn remain(self) {
        std::future::pending::<()>().await;
    }

    fn connection(&mut self, of_publisher: bool) -> Option<&mut Connection> {
        match of_publisher {
            true => Some(&mut self.publisher),
            false => self.subscriber.as_mut(),
        }
    }

    /// One datagram.
    fn receive(&mut self, of_publisher: bool) {
        let mut buffer = [0; 2000];
        let Some(connection) = self.connection(of_publisher) else {
            return;
        };
        let Ok((len, from)) = connection.socket.try_recv_from(&mut buffer) else {
            return;
        };
        if let Ok(receive) = Receive::new(Protocol::Udp, from, connection.address, &buffer[..len]) {
            let _ = connection.rtc.handle_input(Input::Receive(Instant::now(), receive));
        }
        if let Some((_, left)) = &mut self.reads {
            *left = left.saturating_sub(1);
        }
    }

    fn drain(&mut self, of_publisher: bool) {
        let mut events = Vec::new();
        let is_only = self.subscriber.is_none();
        let Some(connection) = self.connection(of_publisher) else {
            return;
        };
        loop {
            match connection.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    connection.wake_at = at;
                    break;
                }
                Ok(Output::Transmit(transmit)) => {
                    let _ = connection.socket.try_send_to(&transmit.contents, transmit.destination);
                }
                Ok(Output::Event(Event::ChannelOpen(id, label))) => {
                    connection.labels.insert(label.clone(), id);
                    events.push(Event::ChannelOpen(id, label));
                }
                Ok(Output::Event(event)) => events.push(event),
                Err(_) => {
                    connection.wake_at = Instant::now() + LIMIT;
                    break;
                }
            }
        }
        if events.is_empty() {
            return;
        }
        let has_voice = self.voice.is_some();
        let mut speaks = false;
        self.told.send_if_modified(|seen| {
            let before = (seen.data.len(), seen.sounds);
            let mut other = false;
            for event in events {
                match event {
                    Event::Connected if of_publisher => {
                        (seen.is_connected, other) = (true, true);
                        speaks = has_voice;
                    }
                    // Of two connections, the one that data comes on is the server's to open.
                    Event::ChannelOpen(_, label) if label == "_reliable" => {
                        other = true;
                        seen.has_reliable |= is_only || !of_publisher;
                    }
                    Event::ChannelData(data) => seen.data.push(data.data),
                    Event::MediaData(_) => seen.sounds += 1,
                    _ => {}
                }
            }
            other || before != (seen.data.len(), seen.sounds)
        });
        if speaks {
            self.sound_at = Some(Instant::now());
        }
    }

    fn send_sounds(&mut self) {
        let (Some(at), Some(mid)) = (self.sound_at, self.voice) else {
            return;
        };
        let now = Instant::now();
        if now < at {
            return;
        }
        self.sound_at = Some((at + SOUND_EVERY).max(now));
        let time = MediaTime::new(self.sounds_sent * 960, Frequency::FORTY_EIGHT_KHZ);
        self.sounds_sent += 1;
        let Some(writer) = self.publisher.rtc.writer(mid) else {
            return;
        };
        let pt = writer.payload_params().next().map(|params| params.pt());
        if let Some(pt) = pt {
            let _ = writer.write(pt, now, time, vec![0xfc; 60]);
        }
    }

    fn send_data(&mut self) {
        let Some(id) = self.publisher.labels.get("_reliable").copied() else {
            return;
        };
        if self.unsent.is_empty() {
            return;
        }
        let mut is_full = false;
        while let Some(message) = self.unsent.front() {
            let taken = self
                .publisher
                .rtc
                .channel(id)
                .is_some_and(|mut channel| channel.write(true, message).unwrap_or(false));
            if !taken {
                is_full = true;
                break;
            }
            self.unsent.pop_front();
        }
        self.publisher.advance();
        let waiting = self.unsent.iter().map(Vec::len).sum();
        self.told.send_modify(|seen| {
            seen.was_held_back |= is_full;
            seen.waiting = waiting;
        });
        if is_full {
            // Asked again soon.
            self.publisher.wake_at = self.publisher.wake_at.min(Instant::now() + TURN);
        }
    }

    async fn ask(&mut self, message: Ask) {
        let request = SignalRequest { message: Some(message) };
        let frame = Message::Binary(request.encode_to_vec().into());
        let _ = self.signalling.socket.send(frame).await;
    }

    async fn hear(&mut self, message: Say) {
        match message {
            Say::Join(join) => {
                let sid = join.participant.unwrap().sid;
                self.told.send_modify(|seen| seen.sid = sid);
            }
            Say::Offer(offer) => {
                let subscriber = self.subscriber.as_mut().expect("two connections");
                // Browsers answer as the active side; str0m would choose the other.
                let sdp = offer.sdp.replace("a=setup:actpass", "a=setup:passive");
                let described_offer = SdpOffer::from_sdp_string(&sdp).unwrap();
                let answer = subscriber.rtc.sdp_api().accept_offer(described_offer).unwrap();
                self.ask(Ask::Answer(described("answer", answer.to_sdp_string(), offer.id)))
                    .await;
            }
            Say::Answer(answer) => {
                if let Some(pending) = self.publisher.pending.take() {
                    let answer = SdpAnswer::from_sdp_string(&answer.sdp).unwrap();
                    self.publisher.rtc.sdp_api().accept_answer(pending, answer).unwrap();
                }
                self.offer_sections().await;
            }
            Say::MediaSectionsRequirement(needed) => {
                self.offers_again.0 += needed.num_audios;
                self.offers_again.1 += needed.num_videos;
                self.offer_sections().await;
            }
            Say::Trickle(trickle) => {
                if let Some(connection) = self.connection(trickle.target == 0) {
                    connection.add_candidate(&trickle.candidate_init);
                }
            }
            Say::ConnectionQuality(update) => self.told.send_modify(|seen| {
                for info in update.updates {
                    seen.qualities.insert(info.participant_sid, (info.quality, info.score));
                }
            }),
            Say::Leave(leave) => self.told.send_modify(|seen| seen.left = Some(leave.reason)),
            _ => {}
        }
    }

    async fn offer_sections(&mut self) {
        if self.publisher.pending.is_some() || self.offers_again == (0, 0) {
            return;
        }
        let (audios, videos) = std::mem::take(&mut self.offers_again);
        let offer = self.publisher.offer(|api| {
            for _ in 0..audios {
                api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
            }
            for _ in 0..videos {
                api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
            }
        });
        if let Some(offer) = offer {
            self.ask(Ask::Offer(offer)).await;
        }
    }
}

/// None: there is no such connection.
async fn readable(connection: Option<&Connection>) -> Option<()> {
    connection?.socket.readable().await.ok()
}
