//! A bad network for programs that know nothing of it: the simulator's impairment, in real time, on real packets.
//!
//! ```sh
//! impaired_link 'rate=10M queue=300ms delay=20ms; at=10s rate=800k; at=30s rate=10M'
//! nsenter --net=/proc/<its pid>/ns/net chromium …
//! ```
//!
//! Makes a network namespace with one interface whose packets come out of an interface here, and the other way round, through
//! `tests/sim/impairment.rs`. *up* is from the namespace. Needs root, `/dev/net/tun` and iproute2. First prints where it is:
//! `{"pid":1,"here":"198.18.0.1","there":"198.18.0.2"}`. From standard input: a line in the form above takes effect at once,
//! its times counted from then; `report` prints what became of the packets since the report before, and when what came
//! first since the last change; `rebind` gives every flow of the namespace another port, as an address translator that starts
//! anew does. Ends, and leaves nothing behind, when standard input does.

// The simulator uses all of it.
#[allow(dead_code)]
#[path = "../sim/impairment.rs"]
mod impairment;
mod interface;
mod packet;
#[path = "../sim/schedule.rs"]
mod schedule;

use std::{
    fs::File,
    io::{Read, Write},
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use impairment::{Conditions, Counts, HEADERS, Impairment};
use packet::{Marks, Translator};
use schedule::Step;
use serde_json::{Value, json};

/// Packets and lines that the threads have read and the link has not: as much as a TUN device keeps itself. Readers wait.
const INPUTS: usize = 512;

/// No interface here takes longer packets.
const PACKET: usize = 65_536;

/// How long nothing can be due.
const IDLE: Duration = Duration::from_secs(3600);

const CLEAN: Step = Step {
    at: Duration::ZERO,
    up: Conditions::CLEAN,
    down: Conditions::CLEAN,
};

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

enum Input {
    Packet(Way, Instant, Vec<u8>),
    Line(String),
    /// Standard input or a device has ended.
    End,
}

/// One direction, and the device that it ends in.
struct Direction {
    link: Impairment<Vec<u8>>,
    out: File,
    /// As it was at the last report.
    reported: Counts,
}

struct Relay {
    up: Direction,
    down: Direction,
    /// What was said last, and what it began with; by time.
    steps: Vec<(Instant, Step)>,
    translator: Translator,
    marks: Marks,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("impaired_link: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let text = std::env::args().nth(1).unwrap_or_default();
    let seed = match std::env::args().nth(2) {
        Some(seed) => seed.parse().map_err(|_| format!("{seed:?} is no seed"))?,
        None => 1,
    };
    let pair = interface::open_pair()?;
    let copy = |file: &File| file.try_clone().map_err(|error| error.to_string());
    let (up_out, down_out) = (copy(&pair.here)?, copy(&pair.there)?);
    let (inputs, arriving) = mpsc::sync_channel(INPUTS);
    let now = Instant::now();
    let mut relay = Relay::new(up_out, down_out, seed, now);
    relay.follow(now, &text)?;
    for (way, device) in [(Way::Up, pair.there), (Way::Down, pair.here)] {
        let inputs = inputs.clone();
        thread::spawn(move || read_packets(way, device, &inputs));
    }
    thread::spawn(move || read_lines(&inputs));
    let place = json!({ "pid": std::process::id(), "here": pair.here_address, "there": pair.there_address });
    println!("{place}");

    loop {
        let now = Instant::now();
        let due = relay.pass(now);
        let wait = due.map_or(IDLE, |due| due.saturating_duration_since(now));
        match arriving.recv_timeout(wait) {
            Ok(Input::Packet(way, at, packet)) => relay.offer(way, at, packet),
            Ok(Input::Line(line)) if line == "report" => println!("{}", relay.report()),
            Ok(Input::Line(line)) if line == "rebind" => relay.rebind(Instant::now()),
            // Whoever steers a run must not believe in a change that did not come.
            Ok(Input::Line(line)) => relay.follow(Instant::now(), &line)?,
            Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn read_packets(way: Way, mut device: File, inputs: &SyncSender<Input>) {
    let mut buffer = vec![0; PACKET];
    while let Ok(length) = device.read(&mut buffer) {
        // IPv6 is only the neighbours' chatter of a device that has no address of it.
        let packet = buffer
            .get(..length)
            .filter(|packet| packet.first().is_some_and(|byte| byte >> 4 == 4));
        let Some(packet) = packet else { continue };
        if inputs
            .send(Input::Packet(way, Instant::now(), packet.to_vec()))
            .is_err()
        {
            return;
        }
    }
    let _ = inputs.send(Input::End);
}

fn read_lines(inputs: &SyncSender<Input>) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if inputs.send(Input::Line(line)).is_err() {
            return;
        }
    }
    let _ = inputs.send(Input::End);
}

impl Relay {
    fn new(up_out: File, down_out: File, seed: u64, now: Instant) -> Self {
        let direction = |out, index| Direction {
            link: Impairment::new(Conditions::CLEAN, seed.wrapping_mul(2).wrapping_add(index), now),
            out,
            reported: Counts::default(),
        };
        Self {
            up: direction(up_out, 0),
            down: direction(down_out, 1),
            steps: Vec::new(),
            translator: Translator::default(),
            marks: Marks::new(now),
        }
    }

    fn rebind(&mut self, now: Instant) {
        self.translator.forget();
        self.marks.renew(now);
    }

    /// The steps of `text` from `now` on, in place of those that are still to come.
    fn follow(&mut self, now: Instant, text: &str) -> Result<(), String> {
        let current = self.steps.iter().rev().find(|(at, _)| *at <= now);
        let current = current.map_or(CLEAN, |(_, step)| *step);
        let steps = schedule::parse(text, current)?;
        self.marks.renew(now);
        self.up.link.set(now, current.up);
        self.down.link.set(now, current.down);
        self.steps = vec![(now, current)];
        for step in steps {
            let at = now + step.at;
            self.up.link.plan(at, step.up);
            self.down.link.plan(at, step.down);
            self.steps.push((at, step));
        }
        Ok(())
    }

    fn offer(&mut self, way: Way, at: Instant, mut packet: Vec<u8>) {
        let direction = match way {
            Way::Up => {
                self.translator.up(&mut packet);
                &mut self.up
            }
            Way::Down => {
                self.marks.down(at, &packet);
                &mut self.down
            }
        };
        // A link adds the headers, which these packets have.
        direction.link.offer(at, packet.len().saturating_sub(HEADERS), packet);
    }

    /// Lets out what is due. When there is more.
    fn pass(&mut self, now: Instant) -> Option<Instant> {
        // A device that is going away loses packets as a cable does.
        while let Some(packet) = self.up.link.take(now) {
            self.marks.up(now, &packet);
            let _ = self.up.out.write(&packet);
        }
        while let Some(mut packet) = self.down.link.take(now) {
            if self.translator.down(&mut packet) {
                let _ = self.down.out.write(&packet);
            }
        }
        [self.up.link.next_due(), self.down.link.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn report(&mut self) -> Value {
        json!({ "up": self.up.report(), "down": self.down.report(), "first": self.marks.report() })
    }
}

impl Direction {
    fn report(&mut self) -> Value {
        let (now, before) = (self.link.counts, self.reported);
        self.reported = now;
        let mut queued: Vec<Duration> = self.link.passages.drain(..).map(|passage| passage.queued).collect();
        queued.sort_unstable();
        let ms = |share: f64| {
            let at = (queued.len() as f64 * share) as usize;
            let queued = queued.get(at.min(queued.len().saturating_sub(1)));
            queued.map(|queued| (queued.as_secs_f64() * 1000.0).round())
        };
        json!({
            "offered": now.offered - before.offered,
            "delivered": now.delivered - before.delivered,
            "bytes": now.delivered_bytes - before.delivered_bytes,
            "lost": now.lost - before.lost,
            "overflowed": now.overflowed - before.overflowed,
            "reordered": now.reordered - before.reordered,
            "duplicated": now.duplicated - before.duplicated,
            "queued_p95_ms": ms(0.95),
            "queued_max_ms": ms(1.0),
        })
    }
}
