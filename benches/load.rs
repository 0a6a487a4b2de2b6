//! One publisher, many subscribers, over loopback: what a forwarded packet costs the server, and whether any is lost.
//!
//! Clients are str0m behind LiveKit's own signalling (`/rtc/v1`), so the same program measures any server that speaks it.
//! Without `--url` it starts this repository's binary, pinned to core 0, with the clients on core 1.
//!
//! ```sh
//! cargo bench --bench load -- --subscribers 200 --seconds 60
//! cargo bench --bench load -- --url ws://127.0.0.1:7880 --pid 1234 --key devkey --secret secret
//! ```
//!
//! CPU is the server process's user + system time over the steady window, divided by the datagrams that reached the
//! subscribers. Receivers in this process share the machine: their kernel's receive work on loopback is part of the
//! server's send, as in every same-machine load test.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol::{
    AddTrackRequest, ClientInfo, ConnectionSettings, JoinRequest, SessionDescription, SignalRequest, SignalResponse,
    TrackSource, TrackType, WrappedJoinRequest, signal_request, signal_response,
};
use patchbay::proto::claims::{self, Claims, VideoGrant};
use prost::Message as _;
use str0m::{
    Candidate, Event, Input, Output, Rtc,
    change::{SdpAnswer, SdpPendingOffer},
    channel::ChannelConfig,
    format::Codec,
    media::{Direction, MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::{RtpWrite, SeqNo},
};
use tokio::net::UdpSocket;
use tokio_tungstenite::tungstenite::Message;

const FRAMES_PER_SECOND: u32 = 30;
const PACKETS_PER_FRAME: usize = 7;

struct Options {
    url: Option<String>,
    pid: Option<u32>,
    key: String,
    secret: String,
    subscribers: usize,
    seconds: u64,
    kilobits: usize,
}

impl Options {
    fn parse() -> Self {
        let mut options = Self {
            url: None,
            pid: None,
            key: "devkey".into(),
            secret: "a-development-secret-of-32-bytes-or-more".into(),
            subscribers: 200,
            seconds: 60,
            kilobits: 2_000,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
            match argument.as_str() {
                "--url" => options.url = Some(value()),
                "--pid" => options.pid = Some(value().parse().expect("a process id")),
                "--key" => options.key = value(),
                "--secret" => options.secret = value(),
                "--subscribers" => options.subscribers = value().parse().expect("a number"),
                "--seconds" => options.seconds = value().parse().expect("a number"),
                "--kilobits" => options.kilobits = value().parse().expect("a number"),
                "--bench" => {}
                other => panic!("unknown argument {other}"),
            }
        }
        options
    }
}

/// What all clients count into; one thread, so no lock.
#[derive(Default)]
struct Counts {
    received: u64,
    /// Sequence numbers skipped and not (yet) filled by a retransmission.
    missing: u64,
    sent: u64,
    connected: usize,
    receiving: usize,
    counting: bool,
}

type Shared = Rc<RefCell<Counts>>;

fn main() {
    let options = Options::parse();
    // The clients' core; the server's is set when it is started.
    let _ = Command::new("taskset")
        .args(["-apc", "1", &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status();
    let server = options.url.is_none().then(|| start_server(&options));
    let pid = options.pid.or_else(|| server.as_ref().map(Child::id));
    let url = options.url.clone().unwrap_or_else(|| "ws://127.0.0.1:17880".into());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(&options, &url, pid));
    if let Some(mut server) = server {
        let _ = server.kill();
        let _ = server.wait();
    }
}

fn start_server(options: &Options) -> Child {
    let body = format!(
        "port: 17880\nbind_addresses: ['127.0.0.1']\nrtc:\n  udp_port: 17882\n  tcp_port: 0\n  node_ip: 127.0.0.1\n  \
         enable_loopback_candidate: true\nkeys:\n  {}: {}\nlogging:\n  level: warn\n",
        options.key, options.secret
    );
    let binary = std::env::var("PATCHBAY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_patchbay").into());
    let child = Command::new("taskset")
        .args(["-c", "0", &binary, "--config-body", &body])
        .spawn()
        .expect("taskset and the server's binary");
    let limit = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect("127.0.0.1:17880").is_err() {
        assert!(Instant::now() < limit, "the server starts");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

async fn run(options: &Options, url: &str, pid: Option<u32>) {
    let counts = Shared::default();
    let idle_rss = pid.map(resident_kib);
    let room = format!("load-{}", std::process::id());
    tokio::task::spawn_local(client(
        url.into(),
        token(options, &room, "publisher"),
        Some(options.kilobits),
        counts.clone(),
    ));
    wait_until(&counts, "the publisher connects", |counts| counts.connected == 1).await;
    for index in 0..options.subscribers {
        let token = token(options, &room, &format!("subscriber-{index}"));
        tokio::task::spawn_local(client(url.into(), token, None, counts.clone()));
        // A crowd, not a herd: handshakes are not what is measured.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = options.subscribers;
    wait_until(&counts, "every subscriber gets media", |counts| counts.receiving == all).await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    let errors = receive_buffer_errors();
    *counts.borrow_mut() = Counts {
        counting: true,
        connected: all + 1,
        receiving: all,
        ..Counts::default()
    };
    let (started, cpu) = (Instant::now(), pid.map(cpu_seconds));
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let elapsed = started.elapsed().as_secs_f64();
    let counts = counts.borrow();
    println!("subscribers            {}", options.subscribers);
    println!("seconds                {elapsed:.1}");
    println!(
        "packets in             {} ({:.0}/s)",
        counts.sent,
        counts.sent as f64 / elapsed
    );
    println!(
        "packets out            {} ({:.0}/s)",
        counts.received,
        counts.received as f64 / elapsed
    );
    println!("never arrived          {}", counts.missing);
    println!("UDP receive overruns   {}", receive_buffer_errors() - errors);
    if let (Some(pid), Some(before), Some(idle)) = (pid, cpu, idle_rss) {
        let spent = cpu_seconds(pid) - before;
        println!("server CPU             {:.3} cores", spent / elapsed);
        println!("server CPU per packet  {:.2} µs", spent * 1e6 / counts.received as f64);
        println!(
            "server RSS above idle  {:.1} MiB",
            (resident_kib(pid) - idle) as f64 / 1024.0
        );
    }
}

async fn wait_until(counts: &Shared, what: &str, done: impl Fn(&Counts) -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done(&counts.borrow()) {
        if Instant::now() >= limit {
            let counts = counts.borrow();
            panic!(
                "{what}: {} connected, {} receiving after a minute",
                counts.connected, counts.receiving
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn token(options: &Options, room: &str, identity: &str) -> String {
    let claims = Claims {
        identity: identity.into(),
        video: Some(VideoGrant {
            room_join: true,
            room: room.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    claims::sign(&claims, &options.key, &options.secret, now, Duration::from_secs(3600))
}

/// User + system time of a process, in seconds (clock ticks of 10 ms).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a live server");
    let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    ticks as f64 / 100.0
}

fn resident_kib(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a live server");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace()
        .nth(1)
        .expect("a size")
        .parse()
        .expect("a number")
}

/// Datagrams that this machine's sockets had no room for: a loss that is not the server's.
fn receive_buffer_errors() -> i64 {
    let snmp = std::fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut lines = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let at = names.split(' ').position(|name| name == "RcvbufErrors").unwrap_or(0);
    values
        .split(' ')
        .nth(at)
        .and_then(|value| value.parse().ok())
        .unwrap_or(0)
}

/// A participant: signalling, ICE, DTLS, SRTP. With `publish` it sends that many kilobits a second of VP8.
async fn client(url: String, token: String, publish: Option<usize>, counts: Shared) {
    let socket = bind_socket();
    let address = socket.local_addr().expect("an address");
    let mut rtc = Rtc::builder()
        .clear_codecs()
        .enable_opus(true, false)
        .enable_vp8(true)
        .set_rtp_mode(true)
        .set_reordering_size_video(1)
        .build(Instant::now());
    rtc.add_local_candidate(Candidate::host(address, "udp").expect("a host candidate"));
    let mut api = rtc.sdp_api();
    let mid = match publish {
        Some(_) => api.add_media(
            MediaKind::Video,
            Direction::SendOnly,
            Some("stream".into()),
            Some("camera".into()),
            None,
        ),
        None => api.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None),
    };
    api.add_channel_with_config(ChannelConfig {
        label: "_reliable".into(),
        ..Default::default()
    });
    api.add_channel_with_config(ChannelConfig {
        label: "_lossy".into(),
        ordered: false,
        ..Default::default()
    });
    let (offer, pending) = api.apply().expect("an offer");

    let join = JoinRequest {
        client_info: Some(ClientInfo {
            sdk: 8,
            protocol: 16,
            version: "0.0.1".into(),
            ..Default::default()
        }),
        connection_settings: Some(ConnectionSettings {
            auto_subscribe: true,
            ..Default::default()
        }),
        add_track_requests: publish.map(|_| camera()).into_iter().collect(),
        publisher_offer: Some(SessionDescription {
            r#type: "offer".into(),
            sdp: offer.to_sdp_string(),
            id: 1,
            ..Default::default()
        }),
        ..Default::default()
    };
    let wrapped = WrappedJoinRequest {
        compression: 0,
        join_request: join.encode_to_vec(),
    };
    let encoded = base64::engine::general_purpose::URL_SAFE
        .encode(wrapped.encode_to_vec())
        .replace('=', "%3D");
    let url = format!("{url}/rtc/v1?access_token={token}&join_request={encoded}");
    let (mut signal, _) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
    let mut client = Client {
        rtc,
        socket,
        address,
        mid,
        pending: Some(pending),
        publish,
        counts,
        sequence: 1_000,
        frame: 0,
        keyframe_wanted: true,
        connected_at: None,
        highest: None,
        receiving: false,
    };
    let mut wake_at = client.drain();
    loop {
        tokio::select! {
            biased;
            ready = client.socket.readable() => {
                ready.expect("a socket");
                client.receive();
            }
            () = tokio::time::sleep_until(wake_at.into()) => client.handle_time(),
            message = signal.next() => {
                let Some(Ok(message)) = message else { panic!("the server closed the signalling connection") };
                if let Message::Binary(bytes) = message {
                    client.handle_signal(SignalResponse::decode(bytes.as_ref()).expect("a signal response"));
                }
            }
            () = tokio::time::sleep(Duration::from_secs(5)) => {
                let ping = SignalRequest { message: Some(signal_request::Message::Ping(1)) };
                signal.send(Message::Binary(ping.encode_to_vec().into())).await.expect("a ping");
            }
        }
        wake_at = client.drain();
    }
}

/// Receive buffers like a browser's: a burst of one frame per subscriber must not be lost here.
fn bind_socket() -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
    socket.set_recv_buffer_size(1 << 20).expect("a receive buffer");
    socket.set_nonblocking(true).expect("nonblocking");
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .expect("a port");
    UdpSocket::from_std(socket.into()).expect("a tokio socket")
}

fn camera() -> AddTrackRequest {
    AddTrackRequest {
        cid: "camera".into(),
        name: "camera".into(),
        r#type: TrackType::Video as i32,
        source: TrackSource::Camera as i32,
        width: 1280,
        height: 720,
        ..Default::default()
    }
}

struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    mid: Mid,
    pending: Option<SdpPendingOffer>,
    publish: Option<usize>,
    counts: Shared,
    sequence: u64,
    frame: u32,
    keyframe_wanted: bool,
    connected_at: Option<Instant>,
    highest: Option<HashMap<u32, u64>>,
    receiving: bool,
}

impl Client {
    fn handle_signal(&mut self, response: SignalResponse) {
        match response.message {
            Some(signal_response::Message::Answer(answer)) => {
                if let Some(pending) = self.pending.take() {
                    let answer = SdpAnswer::from_sdp_string(&answer.sdp).expect("an answer");
                    self.rtc
                        .sdp_api()
                        .accept_answer(pending, answer)
                        .expect("an acceptable answer");
                }
            }
            Some(signal_response::Message::Trickle(trickle)) => {
                let init: serde_json::Value = serde_json::from_str(&trickle.candidate_init).expect("a candidate init");
                let text = init["candidate"].as_str().unwrap_or_default();
                if let Ok(candidate) = Candidate::from_sdp_string(text) {
                    self.rtc.add_remote_candidate(candidate);
                }
            }
            Some(signal_response::Message::Leave(leave)) => panic!("the server sent us away: {leave:?}"),
            _ => {}
        }
    }

    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        // Bounded, so that one client cannot keep the thread.
        for _ in 0..64 {
            let Ok((length, source)) = self.socket.try_recv_from(&mut buffer) else {
                return;
            };
            let Ok(receive) = Receive::new(Protocol::Udp, source, self.address, &buffer[..length]) else {
                continue;
            };
            self.rtc
                .handle_input(Input::Receive(Instant::now(), receive))
                .expect("acceptable input");
            // One packet in, everything out: str0m holds a single received packet.
            self.drain();
        }
    }

    fn handle_time(&mut self) {
        let now = Instant::now();
        if let (Some(connected_at), Some(kilobits)) = (self.connected_at, self.publish)
            && now >= connected_at + Duration::from_secs(1) * self.frame / FRAMES_PER_SECOND
        {
            self.send_frame(now, kilobits);
        }
        self.rtc.handle_input(Input::Timeout(now)).expect("time passes");
    }

    /// Split evenly as Chromium does: packets of s bytes, then of s + 1.
    fn send_frame(&mut self, now: Instant, kilobits: usize) {
        let frame_bytes = kilobits * 1_000 / 8 / FRAMES_PER_SECOND as usize;
        let keyframe = std::mem::take(&mut self.keyframe_wanted);
        let packets = if keyframe {
            3 * PACKETS_PER_FRAME
        } else {
            PACKETS_PER_FRAME
        };
        let size = frame_bytes / PACKETS_PER_FRAME;
        for index in 0..packets {
            let picture = (self.frame & 0x7fff) as u16 | 0x8000;
            let mut payload = vec![if index == 0 { 0x90 } else { 0x80 }, 0x80];
            payload.extend_from_slice(&picture.to_be_bytes());
            if index == 0 {
                payload.push(if keyframe { 0x10 } else { 0x11 });
                payload.extend_from_slice(&[0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
            }
            payload.resize(size + usize::from(index * 2 > packets), 0x55);
            let pt = self
                .rtc
                .codec_config()
                .find(|params| params.spec().codec == Codec::Vp8)
                .expect("VP8")
                .pt();
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx_by_mid(self.mid, None).expect("a sending stream");
            stream.set_unpaced(true);
            let write = RtpWrite::new(
                pt,
                SeqNo::from(self.sequence),
                self.frame.wrapping_mul(3_000),
                now,
                payload,
            )
            .marker(index + 1 == packets)
            .nackable(true);
            stream.write_rtp(write);
            self.sequence += 1;
            self.counts.borrow_mut().sent += 1;
            self.rtc.handle_input(Input::Timeout(now)).expect("time passes");
            self.drain();
        }
        self.frame += 1;
    }

    fn drain(&mut self) -> Instant {
        let rtc_wake = loop {
            match self.rtc.poll_output().expect("output") {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => {
                    let _ = self.socket.try_send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(event) => self.handle_event(event),
            }
        };
        match (self.connected_at, self.publish) {
            (Some(connected_at), Some(_)) => {
                rtc_wake.min(connected_at + Duration::from_secs(1) * self.frame / FRAMES_PER_SECOND)
            }
            _ => rtc_wake,
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.connected_at = Some(Instant::now());
                self.counts.borrow_mut().connected += 1;
            }
            Event::KeyframeRequest(_) => self.keyframe_wanted = true,
            Event::RtpPacket(packet) => {
                let mut counts = self.counts.borrow_mut();
                if !std::mem::replace(&mut self.receiving, true) {
                    counts.receiving += 1;
                }
                if !counts.counting {
                    self.highest = None;
                    return;
                }
                counts.received += 1;
                let highest = self.highest.get_or_insert_default();
                let sequence = *packet.seq_no;
                match highest.get_mut(&packet.header.ssrc) {
                    None => drop(highest.insert(*packet.header.ssrc, sequence)),
                    Some(before) if sequence > *before => {
                        counts.missing += sequence - *before - 1;
                        *before = sequence;
                    }
                    // Late or retransmitted: it was counted as missing.
                    Some(_) => counts.missing = counts.missing.saturating_sub(1),
                }
            }
            _ => {}
        }
    }
}
