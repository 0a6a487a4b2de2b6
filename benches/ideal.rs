//! What forwarding costs, as a ratio of one run: this server under `patchbay load-test`, and the least that the kernel and
//! AES let anybody spend on the same packets, measured in turns.
//!
//! The ideal loop is one thread that receives with recvmmsg, opens each packet once, and for every subscriber copies it,
//! rewrites its header and seals it (AES-256-GCM, as server and tester agree on) into a batch that leaves with sendmmsg, with or without GSO. It knows
//! nothing of rooms, estimates, retransmissions or DTLS. Around it everything is as around the server: the publishers of
//! `patchbay::load::model` with their sizes and pace, one socket for each subscriber on another core, read in rounds as the
//! load tester reads its own (`patchbay::load::sink`), with or without GRO as there, and sealed RTCP of the usual size from
//! each subscriber ten times a second, which the loop opens.
//! So it wakes as often as a server has to, which a saturated loop does not show.
//!
//! ```sh
//! cargo bench --bench ideal -- --profile livestream --scale 0.75 --rounds 3 --duration 10s
//! ```

#![allow(
    unsafe_code,
    reason = "sendmmsg with GSO and poll have no safe wrapper; the loop may not use the server's"
)]

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    mem,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd,
    process::{Command, Stdio},
    ptr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use clap::Parser;
use patchbay::{
    io::{DatagramBatch, Offload, UdpSocket},
    load::{
        Options, Scenario,
        model::{self, FrameSizes, Pacer},
        sink,
    },
};

/// Fixed header, and extensions as a browser sends them: media id and transport-wide sequence.
const HEADER: usize = 12 + 4 + 8;
const TAG: usize = 16;
/// A transport-wide feedback for 100 ms of a 2 Mbit/s stream, with SRTCP's index: about what a browser sends.
const FEEDBACK: usize = 64;
const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const SETTLING: Duration = Duration::from_secs(2);
const ARENA: usize = 256 << 10;
const MESSAGES: usize = 64;
const MAX_SEGMENTS: usize = 64;
/// A frame's packets differ by a byte, and padding of so much makes them one group.
const PADDING: usize = 8;
/// In the SSRC: this packet is not the layer that subscribers get.
const NOT_FORWARDED: u32 = 1 << 31;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
    /// How often server and loop take turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only the ideal loop
    #[arg(long)]
    no_server: bool,
    /// The loop seals with AES-128-GCM instead of what the server has agreed on with the tester's clients
    #[arg(long)]
    aes128: bool,
    /// What cargo passes to benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

/// One way of being ideal.
#[derive(Clone, Copy, Debug)]
struct Way {
    name: &'static str,
    /// How long packets are gathered after the first, as the server gathers under load.
    hold: Duration,
    gso: bool,
}

const WAYS: [Way; 3] = [
    Way {
        name: "ideal: GSO, gathered 2 ms",
        hold: Duration::from_millis(2),
        gso: true,
    },
    Way {
        name: "ideal: GSO, not gathered",
        hold: Duration::ZERO,
        gso: true,
    },
    Way {
        name: "ideal: sendmmsg, not gathered",
        hold: Duration::ZERO,
        gso: false,
    },
];

#[derive(Clone, Copy, Debug, Default)]
struct Figure {
    ns_per_packet: f64,
    packets_per_second: f64,
    /// Of the one core that the server, or the loop, has.
    cores: f64,
    /// Datagrams of one send.
    segments: f64,
    lost: f64,
}

fn main() {
    let line = Line::parse();
    let scenario = line.options.scenario().unwrap_or_else(|failure| {
        eprintln!("{failure}");
        std::process::exit(i32::from(failure.exit_code()));
    });
    let cores = cores();
    pin(std::process::id(), "-ap", cores - 1);
    println!("{scenario:?}");
    let mut figures: Vec<(&str, Vec<Figure>)> = vec![("patchbay", Vec::new())];
    figures.extend(WAYS.map(|way| (way.name, Vec::new())));
    for _ in 0..line.rounds {
        for (at, (_, figures)) in figures.iter_mut().enumerate() {
            let figure = match at.checked_sub(1) {
                Some(way) => ideal(&scenario, WAYS[way], Cipher::new(line.aes128)),
                None if line.no_server => continue,
                None => server(&line.options, &scenario, cores),
            };
            figures.push(figure);
        }
    }
    println!(
        "{:32} {:>10} {:>18} {:>10} {:>7} {:>9} {:>8} {:>10}",
        "median of rounds", "ns/packet", "(least, most)", "packets/s", "cores", "segments", "lost", "patchbay ÷"
    );
    let median = |figures: &[Figure], of: fn(&Figure) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let ours = median(&figures[0].1, |figure| figure.ns_per_packet);
    for (name, figures) in &figures {
        let cost = median(figures, |figure| figure.ns_per_packet);
        let costs = figures.iter().map(|figure| figure.ns_per_packet);
        println!(
            "{name:32} {cost:10.0} {:>18} {:10.0} {:7.3} {:9.2} {:8.0} {:10.2}",
            format!(
                "({:.0}, {:.0})",
                costs.clone().fold(f64::INFINITY, f64::min),
                costs.fold(0.0, f64::max)
            ),
            median(figures, |figure| figure.packets_per_second),
            median(figures, |figure| figure.cores),
            median(figures, |figure| figure.segments),
            median(figures, |figure| figure.lost),
            ours / cost,
        );
    }
}

/// One run of the load test against a server of its own.
fn server(options: &Options, scenario: &Scenario, cores: usize) -> Figure {
    let program = std::env::var("PATCHBAY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_patchbay").into());
    let value = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let video = match scenario.video {
        patchbay::load::Video::P720 => "720p".to_owned(),
        other => value(&other),
    };
    // This process is on one core; the test puts server and clients on two.
    let mut command = Command::new("taskset");
    command
        .args(["-c", &format!("0-{}", cores - 1)])
        .arg(program)
        .args(["load-test", "--json", "--max-loss", "100", "--video", &video])
        .args(["--publishers", &scenario.publishers.to_string()])
        .args(["--subscribers", &scenario.subscribers.to_string()])
        .args(["--codec", &value(&scenario.codec)])
        .args(["--verify", "0", "--duration", &scenario.duration.as_secs().to_string()])
        .args(["--ramp", &options.ramp.to_string()])
        .stdin(Stdio::null());
    if !scenario.gro {
        command.arg("--no-gro");
    }
    if scenario.audio {
        command.arg("--audio");
    }
    let output = command.output().expect("the program");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
    Figure {
        ns_per_packet: number(&report["server"]["ns_per_packet"]),
        packets_per_second: number(&report["packets_out"]) / number(&report["seconds"]),
        cores: number(&report["server"]["cores"]),
        segments: number(&report["server"]["segments_per_send"]),
        lost: number(&report["packets_lost"]),
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn pin(id: u32, flags: &str, core: usize) {
    let _ = Command::new("taskset")
        .args([&format!("{flags}c"), &core.to_string(), &id.to_string()])
        .stdout(Stdio::null())
        .status();
}

#[derive(Clone, Copy)]
struct Cipher(&'static Algorithm);

impl Cipher {
    fn new(aes128: bool) -> Self {
        Self(if aes128 { &AES_128_GCM } else { &AES_256_GCM })
    }

    fn key(self, number: usize) -> LessSafeKey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        LessSafeKey::new(UnboundKey::new(self.0, &bytes[..self.0.key_len()]).expect("a key"))
    }
}

/// As SRTP makes it: from the stream and the packet's index. (Keys here are no secret.)
fn nonce(ssrc: u32, index: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&ssrc.to_be_bytes());
    bytes[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Header and payload of a packet that is in clear, and room for the tag behind it.
fn seal(key: &LessSafeKey, ssrc: u32, index: u64, packet: &mut [u8]) {
    let end = packet.len() - TAG;
    let (clear, tag) = packet.split_at_mut(end);
    let (header, payload) = clear.split_at_mut(HEADER);
    let made = key
        .seal_in_place_separate_tag(nonce(ssrc, index), Aad::from(&*header), payload)
        .expect("sealed");
    tag.copy_from_slice(made.as_ref());
}

fn socket(gro: bool) -> UdpSocket {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    UdpSocket::bind(address, Offload { gso: true, gro }).expect("a socket")
}

// What is around the loop: publishers and sinks, on one thread and another core.

struct Around {
    loop_address: SocketAddr,
    batch: RefCell<DatagramBatch>,
    received: Cell<u64>,
    due: Cell<u64>,
    fan_out: u64,
    measuring: Cell<bool>,
}

fn ideal(scenario: &Scenario, way: Way, cipher: Cipher) -> Figure {
    let (subscribers, publishers): (Vec<_>, Vec<_>) = (
        (0..scenario.subscribers).map(|_| socket(scenario.gro)).collect(),
        (0..scenario.publishers).map(|_| socket(false)).collect(),
    );
    let loop_socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Offload::ALL).expect("a socket");
    let loop_address = loop_socket.local();
    let counters = Arc::new(Counters::default());
    let (started, thread_id) = mpsc::channel();
    let thread = {
        let senders = publishers.iter().map(UdpSocket::local).collect();
        let sinks = subscribers.iter().map(UdpSocket::local).collect();
        let counters = counters.clone();
        std::thread::spawn(move || {
            let link = std::fs::read_link("/proc/thread-self").expect("/proc");
            let id: u32 = link
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok())
                .expect("an id");
            pin(id, "-p", 0);
            started.send(id).expect("the main thread");
            Loop::new(loop_socket, senders, sinks, way, cipher).run(&counters);
        })
    };
    let thread_id = thread_id.recv().expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let around = Rc::new(Around {
        loop_address,
        batch: RefCell::default(),
        received: Cell::new(0),
        due: Cell::new(0),
        fan_out: subscribers.len() as u64,
        measuring: Cell::new(false),
    });
    let local = tokio::task::LocalSet::new();
    let figure = local.block_on(&runtime, async {
        tokio::task::spawn_local(sinks(around.clone(), subscribers, cipher));
        for (index, socket) in publishers.into_iter().enumerate() {
            tokio::task::spawn_local(publisher(around.clone(), scenario.clone(), (index, socket), cipher));
        }
        tokio::time::sleep(SETTLING).await;
        around.measuring.set(true);
        let (began, before) = (Instant::now(), thread_cpu(thread_id));
        let (sent, sends) = (counters.packets.load(Relaxed), counters.sends.load(Relaxed));
        tokio::time::sleep(scenario.duration).await;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = thread_cpu(thread_id) - before;
        around.measuring.set(false);
        let received = around.received.get() as f64;
        Figure {
            ns_per_packet: cpu * 1e9 / received,
            packets_per_second: received / seconds,
            cores: cpu / seconds,
            segments: (counters.packets.load(Relaxed) - sent) as f64 / (counters.sends.load(Relaxed) - sends) as f64,
            // Packets on their way at either end do not matter here.
            lost: (around.due.get() as f64 - received).max(0.0),
        }
    });
    counters.stop.store(true, Relaxed);
    thread.join().expect("the loop ends");
    figure
}

/// User + system seconds of a thread, by the same clock as the server's.
fn thread_cpu(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).expect("/proc");
    let fields = stat.rsplit_once(") ").expect("fields").1.split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("ticks"))
        .sum();
    ticks as f64 / 100.0
}

struct Sink {
    socket: UdpSocket,
    key: LessSafeKey,
    reporter: u32,
    number: u64,
    feedback_at: Instant,
}

/// Reads as the load tester does, and reports as a browser does.
async fn sinks(around: Rc<Around>, sockets: Vec<UdpSocket>, cipher: Cipher) {
    let now = Instant::now();
    let mut sinks: Vec<Sink> = (0..)
        .zip(sockets)
        .map(|(index, socket)| Sink {
            socket,
            key: cipher.key(1_000_000 + index as usize),
            reporter: index,
            number: 0,
            feedback_at: now + FEEDBACK_EVERY * (index % 100) / 100,
        })
        .collect();
    let mut ticks = tokio::time::interval(sink::ROUND / sink::STEPS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut step = 0;
    loop {
        ticks.tick().await;
        step = (step + 1) % sink::STEPS as usize;
        let now = Instant::now();
        for sink in sinks.iter_mut().skip(step).step_by(sink::STEPS as usize) {
            let mut count = 0;
            let mut batch = around.batch.borrow_mut();
            while batch.receive(&sink.socket, |_, _, _| count += 1).expect("a socket") {}
            if around.measuring.get() {
                around.received.set(around.received.get() + count);
            }
            if sink.feedback_at <= now {
                sink.feedback_at += FEEDBACK_EVERY;
                sink.number += 1;
                let mut packet = [0x55; FEEDBACK + HEADER + TAG];
                packet[0] = 0x80;
                packet[4..12].copy_from_slice(&u64::to_be_bytes(sink.number));
                seal(&sink.key, sink.reporter, sink.number, &mut packet);
                let _ = sink.socket.send_to(&packet, around.loop_address);
            }
        }
    }
}

/// A stream as the load tester's publishers send it.
struct Stream {
    ssrc: u32,
    frames: Option<Vec<FrameSizes>>,
    next_at: Instant,
    every: Duration,
    index: u64,
    first: bool,
}

async fn publisher(around: Rc<Around>, scenario: Scenario, (number, socket): (usize, UdpSocket), cipher: Cipher) {
    let key = cipher.key(number);
    let layers = model::layers(scenario.video);
    let mut pacer = Pacer::new(layers.iter().map(|layer| layer.bits_per_second).sum());
    let now = Instant::now();
    let mut streams = Vec::new();
    let simulcast = scenario.video == patchbay::load::Video::Simulcast;
    let sizes = layers
        .iter()
        .enumerate()
        .map(|(at, layer)| FrameSizes::new(layer.bits_per_second, (number << 8 | at) as u64));
    let video: Vec<Vec<FrameSizes>> = match simulcast {
        true => sizes.map(|sizes| vec![sizes]).collect(),
        false if layers.is_empty() => Vec::new(),
        false => vec![sizes.collect()],
    };
    let count = video.len();
    for (at, frames) in video.into_iter().enumerate() {
        let unwanted = if at + 1 == count { 0 } else { NOT_FORWARDED };
        let every = Duration::from_secs(1) / model::FRAMES_PER_SECOND;
        streams.push(Stream {
            ssrc: (number << 4 | at) as u32 | unwanted,
            frames: Some(frames),
            next_at: now + every * (number as u32 % 16) / 16,
            every,
            index: 0,
            first: true,
        });
    }
    if scenario.audio {
        streams.push(Stream {
            ssrc: (number << 4 | 15) as u32,
            frames: None,
            next_at: now + model::VOICE_EVERY * (number as u32 % 16) / 16,
            every: model::VOICE_EVERY,
            index: 0,
            first: true,
        });
    }
    let mut queue = std::collections::VecDeque::new();
    let mut packet = vec![0x55; 2048];
    loop {
        let now = Instant::now();
        let mut send = |stream: &mut Stream, size: usize| {
            let packet = &mut packet[..HEADER + size + TAG];
            stream.index += 1;
            packet[0] = 0x90;
            packet[2..4].copy_from_slice(&(stream.index as u16).to_be_bytes());
            packet[8..12].copy_from_slice(&stream.ssrc.to_be_bytes());
            packet[16..24].copy_from_slice(&stream.index.to_be_bytes());
            seal(&key, stream.ssrc, stream.index, packet);
            let _ = socket.send_to(packet, around.loop_address);
            if around.measuring.get() && stream.ssrc & NOT_FORWARDED == 0 {
                around.due.set(around.due.get() + around.fan_out);
            }
        };
        for (at, stream) in streams.iter_mut().enumerate() {
            if stream.next_at > now {
                continue;
            }
            stream.next_at += stream.every;
            let first = mem::take(&mut stream.first);
            let Some(mut layers) = stream.frames.take() else {
                send(stream, model::VOICE_BYTES);
                continue;
            };
            for layer in &mut layers {
                queue.extend(model::split(layer.next(first), model::MAX_PAYLOAD - 40, 1).map(|size| (at, size)));
            }
            stream.frames = Some(layers);
        }
        while pacer.next_at(now) <= now
            && let Some((at, size)) = queue.pop_front()
        {
            pacer.sent(now, size + 50);
            send(&mut streams[at], size);
        }
        let queued = (!queue.is_empty()).then(|| pacer.next_at(now));
        let next = streams.iter().map(|stream| stream.next_at).chain(queued).min();
        tokio::time::sleep_until(next.unwrap_or(now + Duration::from_secs(1)).into()).await;
    }
}

// The loop.

#[derive(Default)]
struct Counters {
    packets: AtomicU64,
    sends: AtomicU64,
    stop: AtomicBool,
}

struct Loop {
    socket: UdpSocket,
    senders: HashMap<SocketAddr, LessSafeKey>,
    reporters: HashMap<SocketAddr, (u32, LessSafeKey)>,
    sinks: Vec<(libc::sockaddr_in, LessSafeKey)>,
    way: Way,
    /// Packets of this turn in clear, one behind the other.
    ring: Vec<u8>,
    packets: Vec<(usize, usize)>,
    index: u64,
    batch: Batch,
}

impl Loop {
    fn new(socket: UdpSocket, senders: Vec<SocketAddr>, sinks: Vec<SocketAddr>, way: Way, cipher: Cipher) -> Self {
        let address = |address: &SocketAddr| match address {
            SocketAddr::V4(v4) => raw(*v4),
            SocketAddr::V6(_) => panic!("loopback is IPv4 here"),
        };
        Self {
            senders: senders
                .into_iter()
                .enumerate()
                .map(|(at, address)| (address, cipher.key(at)))
                .collect(),
            reporters: sinks
                .iter()
                .enumerate()
                .map(|(at, address)| (*address, (at as u32, cipher.key(1_000_000 + at))))
                .collect(),
            sinks: sinks
                .iter()
                .enumerate()
                .map(|(at, sink)| (address(sink), cipher.key(2_000_000 + at)))
                .collect(),
            batch: Batch::new(socket.as_raw_fd()),
            socket,
            way,
            ring: Vec::with_capacity(1 << 20),
            packets: Vec::with_capacity(1024),
            index: 0,
        }
    }

    fn run(mut self, counters: &Counters) {
        let mut arena = DatagramBatch::default();
        while !counters.stop.load(Relaxed) {
            if !readable(self.socket.as_raw_fd()) {
                continue;
            }
            if !self.way.hold.is_zero() {
                std::thread::sleep(self.way.hold);
            }
            loop {
                let Self {
                    socket,
                    senders,
                    reporters,
                    ring,
                    packets,
                    ..
                } = &mut self;
                let more = arena
                    .receive(socket, |_, from, datagram| {
                        take(senders, reporters, ring, packets, from, datagram)
                    })
                    .expect("a socket");
                if !more {
                    break;
                }
            }
            self.forward();
            counters.packets.store(self.batch.packets, Relaxed);
            counters.sends.store(self.batch.sends, Relaxed);
        }
    }

    fn forward(&mut self) {
        for (address, key) in &self.sinks {
            let mut rest = self.packets.as_slice();
            while !rest.is_empty() {
                let (count, payload) = group(rest, self.way.gso);
                let segment = HEADER + payload + TAG;
                let start = self.batch.room(count * segment);
                for (number, (at, length)) in rest[..count].iter().enumerate() {
                    self.index += 1;
                    let packet = &mut self.batch.arena[start + number * segment..][..segment];
                    packet[..*length].copy_from_slice(&self.ring[*at..at + length]);
                    // Rewrite: sequence, timestamp, stream, transport-wide sequence, padding.
                    let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]) ^ 0x0055_0000;
                    packet[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
                    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
                    packet[16..24].copy_from_slice(&self.index.to_be_bytes());
                    let padding = segment - TAG - length;
                    if padding > 0 {
                        packet[0] |= 0x20;
                        packet[segment - TAG - 1] = padding as u8;
                    }
                    seal(key, ssrc, self.index, packet);
                }
                self.batch.push(*address, start, count, segment);
                rest = &rest[count..];
            }
        }
        self.batch.flush();
        self.packets.clear();
        self.ring.clear();
    }
}

/// Opens what came; keeps what is to be forwarded.
fn take(
    senders: &HashMap<SocketAddr, LessSafeKey>,
    reporters: &HashMap<SocketAddr, (u32, LessSafeKey)>,
    ring: &mut Vec<u8>,
    packets: &mut Vec<(usize, usize)>,
    from: SocketAddr,
    datagram: &mut [u8],
) {
    if let Some(key) = senders.get(&from) {
        let ssrc = u32::from_be_bytes(datagram[8..12].try_into().expect("four bytes"));
        let index = u64::from_be_bytes(datagram[16..24].try_into().expect("eight bytes"));
        let (header, body) = datagram.split_at_mut(HEADER);
        let length = key
            .open_in_place(nonce(ssrc, index), Aad::from(&*header), body)
            .expect("opened")
            .len();
        if ssrc & NOT_FORWARDED == 0 {
            packets.push((ring.len(), HEADER + length));
            ring.extend_from_slice(&datagram[..HEADER + length]);
        }
    } else if let Some((reporter, key)) = reporters.get(&from) {
        let number = u64::from_be_bytes(datagram[4..12].try_into().expect("eight bytes"));
        let (header, body) = datagram.split_at_mut(HEADER);
        let clear = key.open_in_place(nonce(*reporter, number), Aad::from(&*header), body);
        std::hint::black_box(clear.expect("opened"));
    }
}

/// How many of the next packets go as one send, and the payload they are padded to.
fn group(packets: &[(usize, usize)], gso: bool) -> (usize, usize) {
    let payload = |(_, length): &(usize, usize)| length - HEADER;
    let (mut least, mut most) = (payload(&packets[0]), payload(&packets[0]));
    if !gso {
        return (1, most);
    }
    let mut count = 1;
    for packet in packets.iter().skip(1).take(MAX_SEGMENTS - 1) {
        let size = payload(packet);
        let (lower, upper) = (least.min(size), most.max(size));
        if upper - lower > PADDING || (count + 1) * (HEADER + upper + TAG) > 65_000 {
            break;
        }
        (least, most, count) = (lower, upper, count + 1);
    }
    (count, most)
}

fn raw(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*address.ip()).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn readable(fd: i32) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 100) > 0 }
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 24]);

/// Packets that are being written, and the sends they make up.
struct Batch {
    fd: i32,
    arena: Vec<u8>,
    used: usize,
    groups: Vec<(libc::sockaddr_in, usize, usize, usize)>,
    packets: u64,
    sends: u64,
}

impl Batch {
    fn new(fd: i32) -> Self {
        Self {
            fd,
            arena: vec![0; ARENA + 65_536],
            used: 0,
            groups: Vec::with_capacity(MESSAGES),
            packets: 0,
            sends: 0,
        }
    }

    fn room(&mut self, bytes: usize) -> usize {
        if self.used + bytes > ARENA || self.groups.len() == MESSAGES {
            self.flush();
        }
        self.used
    }

    fn push(&mut self, address: libc::sockaddr_in, start: usize, count: usize, segment: usize) {
        self.groups.push((address, start, count, segment));
        self.used = start + count * segment;
    }

    fn flush(&mut self) {
        let count = self.groups.len();
        if count == 0 {
            return;
        }
        // SAFETY: zero is a value for the integers and pointers of these structures. Every header points at a name, a
        // vector and a control buffer of this frame and at bytes of the arena, all of which outlive the call.
        unsafe {
            let mut headers: [libc::mmsghdr; MESSAGES] = mem::zeroed();
            let mut vectors: [libc::iovec; MESSAGES] = mem::zeroed();
            let mut controls = [Control([0; 24]); MESSAGES];
            for (at, (address, start, segments, segment)) in self.groups.iter().enumerate() {
                vectors[at] = libc::iovec {
                    iov_base: self.arena.as_mut_ptr().add(*start).cast(),
                    iov_len: segments * segment,
                };
                let header = &mut headers[at].msg_hdr;
                header.msg_name = ptr::from_ref(address).cast_mut().cast();
                header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                header.msg_iov = &raw mut vectors[at];
                header.msg_iovlen = 1;
                if *segments > 1 {
                    header.msg_control = (&raw mut controls[at]).cast();
                    header.msg_controllen = libc::CMSG_SPACE(2) as _;
                    let control = libc::CMSG_FIRSTHDR(header);
                    (*control).cmsg_level = libc::SOL_UDP;
                    (*control).cmsg_type = libc::UDP_SEGMENT;
                    (*control).cmsg_len = libc::CMSG_LEN(2) as _;
                    libc::CMSG_DATA(control).cast::<u16>().write_unaligned(*segment as u16);
                }
            }
            let mut done = 0;
            while done < count {
                let sent = libc::sendmmsg(self.fd, headers.as_mut_ptr().add(done), (count - done) as u32, 0);
                if sent <= 0 {
                    // A full buffer: what is left is lost, and shows in the figures.
                    break;
                }
                done += sent as usize;
            }
            self.sends += done as u64;
            self.packets += self.groups.iter().take(done).map(|group| group.2 as u64).sum::<u64>();
        }
        self.groups.clear();
        self.used = 0;
    }
}
