//! A test from beginning to end: joins at the asked pace, waits until every track arrives, measures, judges.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::LocalSet;

use super::client::{Part, Shared, take_part};
use super::failure::Failure;
use super::metrics::Counters;
use super::options::{Options, Scenario};
use super::process::{self, Sample};
use super::report::Report;
use super::server::{self, Server};
use super::signalling::Target;
use super::tally::Tally;
use super::{garbage, keys, sink, wall_clock};
use crate::io::DatagramBatch;
use crate::proto::claims::{self, Claims, VideoGrant};

/// Everybody who joins in time has media this long after the last join at the latest.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between the last track and the measurement: joins and their key frames are another matter.
const SETTLING: Duration = Duration::from_secs(3);
/// For the server to take leave of everybody.
const PARTING: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(20);
const TOKEN_LIFE: Duration = Duration::from_secs(48 * 3600);
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Runs the test and prints its report; an error says why it failed, after the report when there is one.
pub fn run(options: &Options) -> Result<(), Failure> {
    let scenario = options.scenario()?;
    let own_server = match &options.url {
        Some(_) => None,
        None => {
            // Before anything is on another core: the server's is one that this process leaves.
            let core = server::step_aside();
            Some(Server::start(core)?)
        }
    };
    let url = match (&options.url, &own_server) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => server.url(),
        (None, None) => return Err(Failure::Usage("--url is missing".into())),
    };
    let pid = options.server_pid.or(own_server.as_ref().map(Server::pid));
    let (key, secret) = match own_server {
        Some(_) => (server::KEY, server::SECRET),
        None => (options.api_key.as_str(), options.api_secret.as_str()),
    };
    let target = Target::parse(&url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Machine(error.to_string()))?;
    let (stop, stopping) = watch::channel(false);
    let shared = Rc::new(Shared {
        scenario,
        target,
        crypto: keys::provider(),
        tally: RefCell::default(),
        batch: RefCell::new(DatagramBatch::default()),
        sinks: RefCell::default(),
        stop: stopping,
    });
    let test = Test {
        shared: shared.clone(),
        failure: Rc::default(),
        progress: Progress::new(),
        pid,
        metrics: own_server.as_ref().map(Server::metrics_port),
    };
    let local = LocalSet::new();
    local.spawn_local(sink::make_rounds(shared.clone()));
    let report = local.block_on(&runtime, test.conduct(key, secret));
    if report.is_ok() {
        let _ = stop.send(true);
        local.block_on(&runtime, async { tokio::time::sleep(PARTING).await });
    }
    let report = report?;
    let text = if options.json { report.json() } else { report.table() };
    println!("{text}");
    report.judge(options.max_loss)
}

struct Test {
    shared: Rc<Shared>,
    /// The first that befell any client.
    failure: Rc<RefCell<Option<Failure>>>,
    progress: Progress,
    pid: Option<u32>,
    /// Of a server that was started for the test.
    metrics: Option<u16>,
}

impl Test {
    async fn conduct(mut self, key: &str, secret: &str) -> Result<Report, Failure> {
        let scenario = self.shared.scenario.clone();
        if scenario.garbage > 0 {
            let (shared, failure) = (self.shared.clone(), self.failure.clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = garbage::flood(shared).await {
                    failure.borrow_mut().get_or_insert(error);
                }
            });
        }
        let idle = self.sample()?;
        let mut index = 0;
        for room in 0..scenario.rooms {
            for publisher in 0..scenario.publishers {
                self.spawn(
                    Part::Publisher,
                    index,
                    room,
                    &format!("publisher-{publisher}"),
                    key,
                    secret,
                );
                index += 1;
                self.pause(scenario.join_every).await?;
            }
        }
        let publishers = scenario.rooms * scenario.publishers;
        self.wait("tracks published", publishers, |tally| tally.published)
            .await?;
        for room in 0..scenario.rooms {
            for subscriber in 0..scenario.subscribers {
                let part = if subscriber < scenario.verify {
                    Part::Verifying
                } else {
                    Part::Counting
                };
                self.spawn(part, index, room, &format!("subscriber-{subscriber}"), key, secret);
                index += 1;
                self.pause(scenario.join_every).await?;
            }
        }
        self.wait("tracks received", scenario.tracks_expected(), |tally| tally.tracks)
            .await?;
        self.pause(SETTLING).await?;

        let overruns = process::receive_overruns();
        let (server_before, own_before) = (self.sample()?, Sample::of(std::process::id()));
        let counters = self.metrics.and_then(Counters::read);
        self.shared.tally.borrow_mut().open();
        let began = Instant::now();
        let measured = self.pause(scenario.duration).await;
        let elapsed = began.elapsed();
        let server = self.sample();
        let own = Sample::of(std::process::id());
        self.shared.tally.borrow_mut().measuring = false;
        let counters = counters.zip(self.metrics.and_then(Counters::read));
        self.progress.end();
        measured?;
        let tally = std::mem::take(&mut *self.shared.tally.borrow_mut());
        Ok(Report::new(
            &scenario,
            &tally,
            elapsed,
            process::receive_overruns().saturating_sub(overruns),
            own_before.zip(own),
            idle.zip(server_before).zip(server?),
            counters,
        ))
    }

    /// None when no process was named.
    fn sample(&self) -> Result<Option<Sample>, Failure> {
        match self.pid {
            None => Ok(None),
            Some(pid) => Sample::of(pid).map(Some).ok_or_else(|| Failure::Vanished {
                who: format!("process {pid}"),
                reason: "it is not running".into(),
            }),
        }
    }

    fn spawn(&self, part: Part, index: u32, room: usize, identity: &str, key: &str, secret: &str) {
        let room = format!("load-{}-{room}", std::process::id());
        let claims = Claims {
            identity: identity.to_owned(),
            video: Some(VideoGrant {
                room_join: true,
                room: room.clone(),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        let token = claims::sign(&claims, key, secret, wall_clock(), TOKEN_LIFE);
        let (shared, failure) = (self.shared.clone(), self.failure.clone());
        let who = format!("{identity} in {room}");
        tokio::task::spawn_local(async move {
            if let Err(error) = take_part(shared, part, index, token, who).await {
                failure.borrow_mut().get_or_insert(error);
            }
        });
    }

    /// Lets the clients work for so long, unless one fails.
    async fn pause(&mut self, length: Duration) -> Result<(), Failure> {
        let until = Instant::now() + length;
        loop {
            if let Some(failure) = self.failure.borrow_mut().take() {
                self.progress.end();
                return Err(failure);
            }
            let now = Instant::now();
            self.progress.show(&self.shared.tally.borrow(), &self.shared.scenario);
            if now >= until {
                return Ok(());
            }
            tokio::time::sleep(STEP.min(until - now)).await;
        }
    }

    async fn wait(&mut self, what: &str, wanted: usize, have: impl Fn(&Tally) -> usize) -> Result<(), Failure> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let reached = have(&self.shared.tally.borrow());
            if reached >= wanted {
                return Ok(());
            }
            if Instant::now() >= limit {
                self.progress.end();
                return Err(Failure::NothingArrived(format!(
                    "{what}: {reached} of {wanted} within {} s of the last join",
                    PATIENCE.as_secs()
                )));
            }
            self.pause(STEP).await?;
        }
    }
}

/// What goes on, on standard error: one line that changes on a terminal, a line every 5 s elsewhere.
struct Progress {
    began: Instant,
    shown: Option<Instant>,
    terminal: bool,
    received: u64,
}

impl Progress {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            shown: None,
            terminal: std::io::stderr().is_terminal(),
            received: 0,
        }
    }

    fn show(&mut self, tally: &Tally, scenario: &Scenario) {
        let every = if self.terminal {
            Duration::from_millis(500)
        } else {
            PROGRESS_EVERY
        };
        let since = self.shown.map_or(every, |shown| shown.elapsed());
        if since < every {
            return;
        }
        self.shown = Some(Instant::now());
        let new = tally.received.saturating_sub(self.received);
        self.received = tally.received;
        let phase = match tally.measuring {
            true => format!(
                "{:.0} packets/s, {} lost",
                new as f64 / since.as_secs_f64(),
                tally.lost()
            ),
            false => "joining".to_owned(),
        };
        let (start, end) = if self.terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let mut out = std::io::stderr().lock();
        let _ = write!(
            out,
            "{start}{:4.0} s  {}/{} clients  {}/{} tracks  {phase}{end}",
            self.began.elapsed().as_secs_f64(),
            tally.joined,
            scenario.clients(),
            tally.tracks,
            scenario.tracks_expected(),
        );
        let _ = out.flush();
    }

    fn end(&self) {
        if self.terminal && self.shown.is_some() {
            eprintln!();
        }
    }
}
