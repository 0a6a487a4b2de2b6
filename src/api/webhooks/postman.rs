//! Makes letters of what happens, and brings what is in the outbox to every URL: in order within a room, side by side
//! between rooms.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

use super::client::Client;
use super::event::write;
use super::{STOP_LIMIT, WebhookCounters, WebhookSettings};
use crate::node::{Happening, Node, new_id};
use crate::proto::claims::{Claims, sign};
use crate::store::{NewLetter, SharedDatabase, Waiting};

/// Letters in the outbox; a receiver that is away for a day at ten a second. Further ones are lost, and counted.
const MAX_WAITING: usize = 1_000_000;
/// Exchanges under way at a time.
const MAX_UNDER_WAY: usize = 128;
/// The longest wait between two tries.
const MAX_RETRY: Duration = Duration::from_secs(300);
/// The life of a signature; LiveKit's.
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// What arrives in order: one room's events at one URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Lane {
    /// Index of the URL.
    target: usize,
    room: Arc<str>,
}

/// A letter in the outbox.
#[derive(Clone, Copy, Debug)]
struct Letter {
    id: i64,
    created_ms: u64,
    attempts: u32,
    due_ms: u64,
}

#[derive(Debug)]
enum Fate {
    Delivered,
    /// Another try would end the same.
    Rejected(StatusCode),
    Expired,
    /// To be tried again at `due_ms`.
    Failed {
        error: String,
        due_ms: u64,
    },
}

#[derive(Debug)]
struct Outcome {
    lane: Lane,
    fate: Fate,
}

#[derive(Debug)]
pub(super) struct Postman {
    shared: Arc<Shared>,
    lanes: HashMap<Lane, VecDeque<Letter>>,
    /// When the first letter of a lane may leave (UNIX milliseconds), for lanes of which none is under way.
    due: BTreeSet<(u64, Lane)>,
    under_way: JoinSet<Outcome>,
    counters: Arc<WebhookCounters>,
}

/// What an exchange needs.
#[derive(Debug)]
struct Shared {
    settings: WebhookSettings,
    client: Client,
    database: SharedDatabase,
    node: Node,
}

/// The letters about a happening, one for each URL.
pub(super) fn composer(
    settings: &WebhookSettings,
    node: Node,
    counters: Arc<WebhookCounters>,
) -> Box<dyn FnMut(Happening) -> Vec<NewLetter> + Send> {
    let urls: Vec<String> = settings.targets.iter().map(|target| target.url.clone()).collect();
    let (filter, full_room) = (settings.filter.clone(), settings.full_room);
    Box::new(move |happening| {
        let written = write(happening, new_id("EV_"), node.unix().as_secs(), full_room);
        if !filter.passes(written.event) {
            return Vec::new();
        }
        let count = urls.len() as u64;
        if counters.waiting.load(Ordering::Relaxed) + count > MAX_WAITING as u64 {
            tracing::error!(count, "the outbox is full: webhooks are lost");
            counters.lost.fetch_add(count, Ordering::Relaxed);
            return Vec::new();
        }
        let before = counters.waiting.fetch_add(count, Ordering::Relaxed);
        counters.queue.record(before);
        let letter = |url: &String| NewLetter {
            url: url.clone(),
            lane: written.room.clone(),
            body: written.body.clone().into_bytes(),
        };
        urls.iter().map(letter).collect()
    })
}

impl Postman {
    pub(super) fn new(
        settings: WebhookSettings,
        client: Client,
        database: SharedDatabase,
        node: Node,
        counters: Arc<WebhookCounters>,
    ) -> Self {
        let shared = Shared {
            settings,
            client,
            database,
            node,
        };
        let mut postman = Self {
            shared: Arc::new(shared),
            lanes: HashMap::new(),
            due: BTreeSet::new(),
            under_way: JoinSet::new(),
            counters,
        };
        postman.load();
        postman
    }

    /// What an earlier process did not bring to its end. Letters to URLs that are no longer configured are thrown away.
    fn load(&mut self) {
        let database = self.shared.database.clone();
        let waiting = match database.with(|database| database.waiting(MAX_WAITING)) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(%error, "cannot read the outbox");
                return;
            }
        };
        let count = waiting.len();
        let is_known = |letter: &Waiting| {
            self.shared
                .settings
                .targets
                .iter()
                .any(|target| target.url == letter.url)
        };
        let (found, unknown): (Vec<Waiting>, Vec<Waiting>) = waiting.into_iter().partition(is_known);
        for letter in &unknown {
            if let Err(error) = database.with(|database| database.remove(letter.id)) {
                tracing::error!(%error, "cannot remove from the outbox");
            }
        }
        if count > 0 {
            tracing::info!(
                waiting = found.len(),
                discarded = unknown.len(),
                "webhooks from before this start"
            );
        }
        found.into_iter().for_each(|letter| {
            self.counters.waiting.fetch_add(1, Ordering::Relaxed);
            self.take(letter);
        });
    }

    /// A letter that is in the outbox, and counted as waiting.
    fn take(&mut self, letter: Waiting) {
        let targets = &self.shared.settings.targets;
        let Some(target) = targets.iter().position(|target| target.url == letter.url) else {
            return;
        };
        let lane = Lane {
            target,
            room: letter.lane.into(),
        };
        self.add(
            lane,
            Letter {
                id: letter.id,
                created_ms: letter.created_ms,
                attempts: letter.attempts,
                due_ms: letter.due_ms,
            },
        );
    }

    fn add(&mut self, lane: Lane, letter: Letter) {
        let letters = self.lanes.entry(lane.clone()).or_default();
        letters.push_back(letter);
        // A lane with letters is either due or under way.
        if letters.len() == 1 {
            self.due.insert((letter.due_ms, lane));
        }
    }

    /// Until the journal ends.
    pub(super) async fn run(mut self, mut letters: mpsc::Receiver<Vec<Waiting>>) {
        loop {
            self.start_due();
            let next_due = self.next_due();
            tokio::select! {
                written = letters.recv() => match written {
                    Some(written) => written.into_iter().for_each(|letter| self.take(letter)),
                    None => break,
                },
                Some(outcome) = self.under_way.join_next() => self.settle(outcome),
                () = until(next_due) => {}
            }
        }
        let _ = tokio::time::timeout(STOP_LIMIT, self.finish()).await;
    }

    /// Sends what is due now.
    async fn finish(&mut self) {
        loop {
            self.start_due();
            match self.under_way.join_next().await {
                Some(outcome) => self.settle(outcome),
                None => return,
            }
        }
    }

    fn start_due(&mut self) {
        let now_ms = millis(self.shared.node.unix());
        while self.under_way.len() < MAX_UNDER_WAY {
            let Some((due_ms, lane)) = self.due.first().cloned() else {
                return;
            };
            if due_ms > now_ms {
                return;
            }
            self.due.pop_first();
            let Some(letter) = self.lanes.get(&lane).and_then(|letters| letters.front().copied()) else {
                continue;
            };
            let shared = Arc::clone(&self.shared);
            self.under_way.spawn(async move {
                let fate = shared.deliver(lane.target, letter).await;
                Outcome { lane, fate }
            });
        }
    }

    /// None: nothing waits, or nothing more can be started.
    fn next_due(&self) -> Option<Instant> {
        if self.under_way.len() >= MAX_UNDER_WAY {
            return None;
        }
        let (due_ms, _) = self.due.first()?;
        let wait = due_ms.saturating_sub(millis(self.shared.node.unix()));
        Some(Instant::now() + Duration::from_millis(wait))
    }

    fn settle(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        let Outcome { lane, fate } = match outcome {
            Ok(outcome) => outcome,
            // Its lane is not known any more: it goes on after the next start.
            Err(error) => return tracing::error!(%error, "an exchange has panicked"),
        };
        let Some(letters) = self.lanes.get_mut(&lane) else {
            return;
        };
        let url = &self.shared.settings.targets[lane.target].url;
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match fate {
            Fate::Failed { error, due_ms } => {
                count(&self.counters.failures);
                if let Some(letter) = letters.front_mut() {
                    tracing::warn!(%url, room = %lane.room, attempts = letter.attempts + 1, error, "a webhook did not arrive");
                    // As the outbox has it by now.
                    letter.attempts += 1;
                    letter.due_ms = due_ms;
                    self.due.insert((letter.due_ms, lane));
                }
                return;
            }
            Fate::Delivered => count(&self.counters.delivered),
            Fate::Rejected(status) => {
                tracing::warn!(%url, room = %lane.room, %status, "a webhook was refused by its receiver");
                count(&self.counters.rejected)
            }
            Fate::Expired => {
                tracing::error!(%url, room = %lane.room, "a webhook never arrived and is given up");
                count(&self.counters.expired)
            }
        };
        letters.pop_front();
        self.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        match letters.front() {
            Some(next) => {
                self.due.insert((next.due_ms, lane));
            }
            None => {
                self.lanes.remove(&lane);
            }
        }
    }
}

impl Shared {
    /// One try. What it ends in is in the outbox when this returns.
    async fn deliver(&self, target: usize, letter: Letter) -> Fate {
        let now = self.node.unix();
        let age = millis(now).saturating_sub(letter.created_ms);
        let fate = if u128::from(age) > self.settings.max_age.as_millis() {
            Fate::Expired
        } else {
            match self.database.call(move |database| database.body(letter.id)).await {
                Ok(Some(body)) => match self.send(target, now, body.into()).await {
                    Ok(fate) => fate,
                    Err(error) => self.failed(letter, error),
                },
                Ok(None) => Fate::Delivered,
                Err(error) => self.failed(letter, error.to_string()),
            }
        };
        let kept = match &fate {
            Fate::Failed { due_ms, .. } => {
                let (attempts, due_ms) = (letter.attempts + 1, *due_ms);
                self.database
                    .call(move |database| database.postpone(letter.id, attempts, due_ms))
                    .await
            }
            _ => self.database.call(move |database| database.remove(letter.id)).await,
        };
        if let Err(error) = kept {
            tracing::error!(%error, "cannot write to the outbox: a webhook may be sent again after the next start");
        }
        fate
    }

    fn failed(&self, letter: Letter, error: String) -> Fate {
        let due_ms = self.due_again(letter.attempts + 1);
        Fate::Failed { error, due_ms }
    }

    /// An error is for the log, and passes.
    async fn send(&self, target: usize, now: Duration, body: Bytes) -> Result<Fate, String> {
        let target = &self.settings.targets[target];
        let keys = self.node.keys();
        let Some(secret) = keys.secret(&self.settings.api_key) else {
            return Err("the API key that signs is not known any more".to_owned());
        };
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
        let claims = Claims {
            sha256: STANDARD.encode(digest),
            ..Claims::default()
        };
        let token = sign(&claims, &self.settings.api_key, secret, now, TOKEN_TTL);
        let span = tracing::trace_span!(target: "patchbay::trace", "webhook", url = target.url);
        match self.client.post(target, &token, body).instrument(span).await {
            Ok(status) if status.is_success() => Ok(Fate::Delivered),
            // LiveKit: a receiver that does not want it is not asked again; one that is in trouble is.
            Ok(status) if is_passing(status) => Err(status.to_string()),
            Ok(status) => Ok(Fate::Rejected(status)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// UNIX milliseconds of the next try after so many have failed: doubling, with half of it left to chance, so that
    /// what failed together does not come back together.
    fn due_again(&self, attempts: u32) -> u64 {
        let doublings = attempts.saturating_sub(1).min(20);
        let longest = self.settings.first_retry.saturating_mul(1 << doublings).min(MAX_RETRY);
        let wait = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        millis(self.node.unix() + wait)
    }
}

fn is_passing(status: StatusCode) -> bool {
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    passing.contains(&status) || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn millis(unix: Duration) -> u64 {
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
}
