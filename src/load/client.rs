//! One participant on the wire: a socket, str0m, the signalling connection, and its role.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, Reliability};
use str0m::crypto::CryptoProvider;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::Extension;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::watch;

use super::failure::Failure;
use super::options::{Scenario, Video, VideoCodec};
use super::publisher::Publisher;
use super::signalling::{Join, Signalling, Target, description};
use super::sink::Sink;
use super::subscriber::{Counting, Streams, verify};
use super::tally::Tally;
use super::way::{Way, media_address};
use super::{keys, wall_clock};
use crate::io::{DatagramBatch, Offload, UdpSocket};
use crate::proto::livekit::{self, signal_request, signal_response};

const PING_EVERY: Duration = Duration::from_secs(5);
/// recvmmsg calls for one client before the others have their turn.
const MAX_CALLS: usize = 4;

/// What all clients share.
pub struct Shared {
    pub scenario: Scenario,
    pub target: Target,
    pub crypto: Arc<CryptoProvider>,
    pub tally: RefCell<Tally>,
    pub batch: RefCell<DatagramBatch>,
    /// Those that are read in rounds.
    pub sinks: RefCell<Vec<Rc<Sink>>>,
    pub stop: watch::Receiver<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Publisher,
    Verifying,
    Counting,
}

enum Role {
    Publisher(Box<Publisher>),
    Verifying(Streams),
    Counting(Rc<Sink>),
}

/// Joins, takes part until it is told to stop, leaves.
pub async fn take_part(shared: Rc<Shared>, part: Part, index: u32, token: String, who: String) -> Result<(), Failure> {
    let began = Instant::now();
    let (pipe, local) = shared.target.reach().await?;
    let mut client = Client::new(&shared, part, index, local, who.clone(), began)?;
    let mut stop = shared.stop.clone();
    let offer = client.first_offer()?;
    let join = Join {
        offer,
        tracks: match part {
            Part::Publisher => Publisher::announcements(&shared.scenario),
            _ => Vec::new(),
        },
        subscribe: part != Part::Publisher,
        resumed: None,
    };
    let mut signalling = Signalling::join(&shared.target, pipe, &token, &who, join).await?;
    let mut ping_at = began + PING_EVERY;
    let resume_every = shared.scenario.resume_every;
    let mut resume_at = resume_every.map(|every| began + every);
    let mut wake_at = client.drain()?;
    let sleep = tokio::time::sleep_until(wake_at.into());
    tokio::pin!(sleep);
    let machine = |error: std::io::Error| Failure::Machine(error.to_string());
    let mut watch = Some(watched(client.way.socket.clone()).map_err(machine)?);
    loop {
        let wake = resume_at.map_or(wake_at, |at| at.min(wake_at)).min(ping_at).into();
        if sleep.deadline() != wake {
            sleep.as_mut().reset(wake);
        }
        tokio::select! {
            biased;
            _ = stop.changed() => {
                signalling.leave().await;
                return Ok(());
            }
            ready = readable(watch.as_ref()) => {
                let mut ready = ready.map_err(machine)?;
                if !client.receive()? {
                    ready.clear_ready();
                }
            }
            () = client.news(), if watch.is_none() => client.take_letters()?,
            () = &mut sleep => {
                client.handle_time()?;
                if Instant::now() >= ping_at {
                    ping_at = Instant::now() + PING_EVERY;
                    let now = wall_clock().as_millis() as i64;
                    let ping = livekit::Ping { timestamp: now, rtt: 0 };
                    signalling.send(signal_request::Message::PingReq(ping)).await?;
                }
                if let (Some(at), Some(every)) = (resume_at, resume_every)
                    && Instant::now() >= at
                {
                    resume_at = Some(Instant::now() + every);
                    if let Some(session) = client.session() {
                        drop(signalling);
                        let (pipe, _) = shared.target.reach().await?;
                        let join = Join { resumed: Some(session), ..Join::default() };
                        signalling = Signalling::join(&shared.target, pipe, &token, &who, join).await?;
                    }
                }
            }
            message = signalling.next() => {
                if let Some(answer) = client.handle_signal(message?)? {
                    signalling.send(answer).await?;
                }
            }
        }
        wake_at = client.drain()?;
        if watch.is_some()
            && client.joined
            && let Role::Counting(sink) = &client.role
        {
            watch = None;
            shared.sinks.borrow_mut().push(sink.clone());
        }
    }
}

struct Client {
    shared: Rc<Shared>,
    rtc: Rtc,
    way: Rc<Way>,
    servers: Vec<livekit::IceServer>,
    address: SocketAddr,
    role: Role,
    who: String,
    began: Instant,
    pending: Option<SdpPendingOffer>,
    /// The server needs another offer as soon as the one under way is answered.
    offer_again: bool,
    sections: (u32, u32),
    offers: u32,
    published: usize,
    joined: bool,
    sid: String,
    /// ICE was restarted and has not connected yet.
    resuming: bool,
    /// When the datagram that is being handled came, since 1970.
    arrived: Duration,
}

impl Client {
    fn new(
        shared: &Rc<Shared>,
        part: Part,
        index: u32,
        local: IpAddr,
        who: String,
        began: Instant,
    ) -> Result<Self, Failure> {
        let machine = |error: std::io::Error| Failure::Machine(format!("a UDP socket: {error}"));
        let offload = Offload {
            gso: true,
            gro: shared.scenario.gro,
        };
        let socket = Rc::new(UdpSocket::bind(SocketAddr::new(local, 0), offload).map_err(machine)?);
        let address = socket.local();
        let way = Way::direct(socket);
        let mut config = Rtc::builder()
            .set_crypto_provider(shared.crypto.clone())
            .clear_codecs()
            .enable_opus(true, false)
            .set_rtp_mode(true)
            .set_reordering_size_video(1);
        let codec = shared.scenario.codec;
        if shared.scenario.video != Video::None || part != Part::Publisher {
            config = match codec {
                VideoCodec::Vp8 => config.enable_vp8(true),
                VideoCodec::Vp9 => config.enable_vp9(true),
                VideoCodec::H264 => config.enable_h264(true),
                VideoCodec::Av1 => config.enable_av1(true),
            };
        }
        let wide = config
            .extension_map()
            .iter_video()
            .find(|(_, extension)| **extension == Extension::TransportSequenceNumber)
            .map(|(id, _)| id);
        let mut rtc = config.build(began);
        let candidate = Candidate::host(address, "udp").map_err(|error| Failure::Machine(error.to_string()))?;
        rtc.add_local_candidate(candidate);
        let role = match part {
            Part::Publisher => Role::Publisher(Box::new(Publisher::new(&shared.scenario, index))),
            Part::Verifying => Role::Verifying(Streams::new(&rtc)),
            Part::Counting => {
                // Any SSRC that str0m does not use: with the same key, two senders must not share one.
                let own = 0x7b00_0000 | index;
                let counting = Counting::new(shared.crypto.clone(), own, wide, began, wall_clock());
                Role::Counting(Sink::new(way.clone(), counting, Streams::new(&rtc)))
            }
        };
        Ok(Self {
            shared: shared.clone(),
            rtc,
            way,
            servers: Vec::new(),
            address,
            role,
            who,
            began,
            pending: None,
            offer_again: false,
            sections: (0, 0),
            offers: 0,
            published: 0,
            joined: false,
            sid: String::new(),
            resuming: false,
            arrived: Duration::ZERO,
        })
    }

    fn vanished(&self, reason: impl Into<String>) -> Failure {
        Failure::Vanished {
            who: self.who.clone(),
            reason: reason.into(),
        }
    }

    fn first_offer(&mut self) -> Result<String, Failure> {
        let scenario = &self.shared.scenario;
        let mut api = self.rtc.sdp_api();
        match &mut self.role {
            Role::Publisher(publisher) => publisher.offer(&mut api, scenario),
            _ => {
                // As many as there will be, so that one offer does.
                for _ in 0..scenario.publishers {
                    if scenario.video != Video::None {
                        api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
                    }
                    if scenario.audio {
                        api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
                    }
                }
            }
        }
        api.add_channel_with_config(ChannelConfig {
            label: "_reliable".into(),
            ..ChannelConfig::default()
        });
        api.add_channel_with_config(ChannelConfig {
            label: "_lossy".into(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            ..ChannelConfig::default()
        });
        self.offers = 1;
        let (offer, pending) = api.apply().ok_or_else(|| Failure::Machine("nothing to offer".into()))?;
        self.pending = Some(pending);
        Ok(offer.to_sdp_string())
    }

    /// Another offer, with as many sections more as the server asked for; when it asked for none, it only wants an offer,
    /// which here needs a change: one section to spare.
    fn next_offer(&mut self) -> Option<signal_request::Message> {
        let (audio, video) = std::mem::take(&mut self.sections);
        let spare = u32::from(audio + video == 0);
        let mut api = self.rtc.sdp_api();
        for _ in 0..audio {
            api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        }
        for _ in 0..video + spare {
            api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = api.apply()?;
        self.pending = Some(pending);
        self.offers += 1;
        let offer = description("offer", offer.to_sdp_string(), self.offers);
        Some(signal_request::Message::Offer(offer))
    }

    /// The session to be taken up again, once it is a whole one and nothing is under way.
    fn session(&self) -> Option<String> {
        let is_whole = self.joined && self.pending.is_none() && !self.resuming;
        (is_whole && !self.sid.is_empty()).then(|| self.sid.clone())
    }

    fn restart_offer(&mut self) -> Option<signal_request::Message> {
        let mut api = self.rtc.sdp_api();
        api.ice_restart(true);
        let (offer, pending) = api.apply()?;
        self.pending = Some(pending);
        self.offers += 1;
        self.resuming = true;
        let offer = description("offer", offer.to_sdp_string(), self.offers);
        Some(signal_request::Message::Offer(offer))
    }

    /// What is to be answered.
    fn handle_signal(&mut self, message: signal_response::Message) -> Result<Option<signal_request::Message>, Failure> {
        use signal_response::Message;
        match message {
            Message::Join(join) => {
                self.servers = join.ice_servers;
                self.sid = join.participant.unwrap_or_default().sid;
            }
            Message::Reconnect(_) => return Ok(self.restart_offer()),
            Message::Answer(answer) => {
                if self.shared.scenario.relay && self.offers == 1 {
                    self.use_relay(&answer.sdp)?;
                }
                if let Some(pending) = self.pending.take() {
                    let answer = SdpAnswer::from_sdp_string(&answer.sdp)
                        .map_err(|error| self.vanished(format!("its answer cannot be read: {error}")))?;
                    self.rtc
                        .sdp_api()
                        .accept_answer(pending, answer)
                        .map_err(|error| self.vanished(format!("its answer does not fit: {error}")))?;
                }
                if std::mem::take(&mut self.offer_again) {
                    return Ok(self.next_offer());
                }
            }
            Message::MediaSectionsRequirement(needed) => {
                // Bounded: a request for more than any room has is no request.
                let limit = |count: u32| count.min(1000);
                self.sections.0 += limit(needed.num_audios);
                self.sections.1 += limit(needed.num_videos);
                if self.pending.is_some() {
                    self.offer_again = true;
                } else {
                    return Ok(self.next_offer());
                }
            }
            Message::Trickle(trickle) => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init).unwrap_or_default();
                if let Ok(candidate) = Candidate::from_sdp_string(init["candidate"].as_str().unwrap_or_default()) {
                    self.rtc.add_remote_candidate(candidate);
                }
            }
            Message::TrackPublished(_) => {
                self.published += 1;
                self.count_published();
            }
            Message::RequestResponse(response) if response.reason != 0 && response.reason != 4 => {
                return Err(Failure::Refused {
                    who: self.who.clone(),
                    reason: format!("{} ({})", response.message, response.reason().as_str_name()),
                });
            }
            Message::Leave(leave) => {
                return Err(self.vanished(format!("it sent us away: {}", leave.reason().as_str_name())));
            }
            _ => {}
        }
        Ok(None)
    }

    fn use_relay(&mut self, answer: &str) -> Result<(), Failure> {
        let media = media_address(answer).ok_or_else(|| self.vanished("its answer names no address"))?;
        let mut batch = self.shared.batch.borrow_mut();
        let relayed = self.way.relay(&self.servers, media, &mut batch);
        relayed.map_err(|error| self.vanished(format!("its relay cannot be used: {error}")))
    }

    fn count_published(&mut self) {
        if let Role::Publisher(publisher) = &self.role
            && self.joined
            && self.published == publisher.tracks()
        {
            // Only once.
            self.published += 1;
            self.shared.tally.borrow_mut().published += 1;
        }
    }

    /// Takes what waits in the socket; true when there may be more.
    fn receive(&mut self) -> Result<bool, Failure> {
        let shared = self.shared.clone();
        let way = self.way.clone();
        let mut batch = shared.batch.borrow_mut();
        let mut failure = None;
        for _ in 0..MAX_CALLS {
            let more = batch
                .receive(&way.socket, |at, source, datagram| {
                    let (source, datagram) = way.open(source, datagram);
                    if let Err(error) = self.handle_datagram(at, source, datagram) {
                        failure.get_or_insert(error);
                    }
                })
                .map_err(|error| Failure::Machine(error.to_string()))?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn handle_datagram(&mut self, at: Duration, source: SocketAddr, datagram: &mut [u8]) -> Result<(), Failure> {
        if let Role::Counting(sink) = &self.role {
            let mut tally = self.shared.tally.borrow_mut();
            if sink.take(at, source, datagram, &mut tally) {
                if !self.joined && sink.has_media() {
                    self.joined = true;
                    tally.joined += 1;
                    tally.join_times.add(self.began.elapsed());
                }
                return Ok(());
            }
        }
        self.arrived = at;
        if let Ok(receive) = Receive::new(Protocol::Udp, source, self.address, datagram) {
            let input = Input::Receive(Instant::now(), receive);
            self.rtc
                .handle_input(input)
                .map_err(|error| self.vanished(format!("not to be understood: {error}")))?;
            // One packet in, everything out: str0m holds a single received packet.
            self.drain()?;
        }
        Ok(())
    }

    fn handle_time(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        self.advance(now)?;
        if let Role::Publisher(_) = self.role {
            while self.send_one(now) {
                self.advance(now)?;
                self.drain()?;
            }
        }
        Ok(())
    }

    /// Waits for what is left to str0m by the rounds.
    async fn news(&self) {
        match &self.role {
            Role::Counting(sink) => sink.news().await,
            _ => std::future::pending().await,
        }
    }

    fn take_letters(&mut self) -> Result<(), Failure> {
        let Role::Counting(sink) = &self.role else {
            return Ok(());
        };
        let sink = sink.clone();
        while let Some(mut letter) = sink.letter()? {
            self.handle_datagram(letter.at, letter.from, &mut letter.datagram)?;
        }
        Ok(())
    }

    fn send_one(&mut self, now: Instant) -> bool {
        match &mut self.role {
            Role::Publisher(publisher) => publisher.send_one(now, &mut self.rtc, &mut self.shared.tally.borrow_mut()),
            _ => false,
        }
    }

    fn advance(&mut self, now: Instant) -> Result<(), Failure> {
        self.rtc
            .handle_input(Input::Timeout(now))
            .map_err(|error| self.vanished(error.to_string()))
    }

    /// Takes everything that str0m has to say; the time at which it is to be asked again.
    fn drain(&mut self) -> Result<Instant, Failure> {
        let wake = loop {
            match self
                .rtc
                .poll_output()
                .map_err(|error| self.vanished(error.to_string()))?
            {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => {
                    self.way.send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(event) => self.handle_event(event)?,
            }
        };
        if let Some(exported) = keys::take()
            && let Role::Counting(sink) = &self.role
        {
            sink.set_keys(&exported);
        }
        Ok(match &self.role {
            Role::Publisher(publisher) => publisher.wake_at(Instant::now()).map_or(wake, |at| at.min(wake)),
            _ => wake,
        })
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Connected => {
                if let Role::Publisher(publisher) = &mut self.role {
                    publisher.start(Instant::now(), &mut self.rtc, &self.shared.scenario);
                    self.joined = true;
                    let mut tally = self.shared.tally.borrow_mut();
                    tally.joined += 1;
                    tally.join_times.add(self.began.elapsed());
                    drop(tally);
                    self.count_published();
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Connected | IceConnectionState::Completed)
                if self.resuming =>
            {
                self.resuming = false;
                self.shared.tally.borrow_mut().resumed += 1;
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) if !self.resuming => {
                return Err(self.vanished("no answer on the media connection"));
            }
            Event::ChannelOpen(id, label) => {
                if let Role::Publisher(publisher) = &mut self.role {
                    publisher.open_channel(id, &label);
                }
            }
            Event::ChannelData(_) => {
                let mut tally = self.shared.tally.borrow_mut();
                tally.messages_received += u64::from(tally.measuring);
            }
            Event::KeyframeRequest(request) => {
                if let Role::Publisher(publisher) = &mut self.role {
                    publisher.handle_key_frame_request(request.mid, request.rid);
                    self.shared.tally.borrow_mut().key_frames_asked += 1;
                }
            }
            Event::RtpPacket(packet) => {
                if let Role::Verifying(streams) = &mut self.role {
                    let mut tally = self.shared.tally.borrow_mut();
                    verify(streams, &packet, self.arrived, &mut tally);
                    if !self.joined && !streams.is_empty() {
                        self.joined = true;
                        tally.joined += 1;
                        tally.join_times.add(self.began.elapsed());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that change their descriptor; a `UdpSocket` has one for life"
)]
fn watched(socket: Rc<UdpSocket>) -> std::io::Result<AsyncFd<Rc<UdpSocket>>> {
    AsyncFd::new(socket)
}

/// Never, of a socket that is not watched.
async fn readable(watch: Option<&AsyncFd<Rc<UdpSocket>>>) -> std::io::Result<AsyncFdReadyGuard<'_, Rc<UdpSocket>>> {
    match watch {
        Some(watch) => watch.readable().await,
        None => std::future::pending().await,
    }
}
