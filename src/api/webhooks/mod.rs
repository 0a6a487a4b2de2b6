//! Webhooks: what happens on the node, told to the operator's URLs, signed as LiveKit signs.
//!
//! Owns what an event says, the order in which events of one room arrive, retries and the judgement of addresses. Every
//! event is in the outbox (`store`) before it is sent and until its receiver has taken it, so that neither a restart
//! nor a receiver that is away loses one; what is sent twice has the same id. Driven by the
//! node's journal, for which it makes letters of happenings; never touches a room.

mod client;
mod event;
mod postman;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use client::{Target, UrlError};
pub use event::{EVENTS, Filter};

use self::client::Client;
use self::postman::Postman;
use crate::node::{Histogram, Letterbox, Node};
use crate::store::SharedDatabase;

/// Batches of letters on the way from the journal; it waits while there are more.
const WRITTEN: usize = 64;

/// How long an event is tried for, where the configuration does not say. LiveKit: 30 s.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// The wait after the first failure; each further one doubles it.
pub const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How long the last events may take when the server stops; what is left is sent after the next start.
const STOP_LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct WebhookSettings {
    pub targets: Vec<Target>,
    /// One of the node's keys; its secret signs.
    pub api_key: String,
    pub filter: Filter,
    /// Events about tracks have the whole room too.
    pub full_room: bool,
    /// Addresses of this machine and its networks are not refused.
    pub allow_private: bool,
    pub max_age: Duration,
    pub first_retry: Duration,
}

impl WebhookSettings {
    pub fn new(targets: Vec<Target>, api_key: String) -> Self {
        Self {
            targets,
            api_key,
            filter: Filter::default(),
            full_room: false,
            allow_private: false,
            max_age: DEFAULT_MAX_AGE,
            first_retry: FIRST_RETRY,
        }
    }
}

/// Of events that wait. LiveKit says it as a histogram too.
const QUEUE_LENGTHS: &[u64] = &[0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000, 100_000];

/// Since start, one for each event and URL.
#[derive(Debug)]
pub struct WebhookCounters {
    waiting: AtomicU64,
    /// How many waited when another one came.
    queue: Histogram,
    delivered: AtomicU64,
    rejected: AtomicU64,
    failures: AtomicU64,
    expired: AtomicU64,
    lost: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookTotals {
    /// Not yet taken by their receivers.
    pub waiting: u64,
    /// Answered with 2xx.
    pub delivered: u64,
    /// Answered with a status that no further try would change.
    pub rejected: u64,
    /// Tries that failed and are repeated.
    pub failures: u64,
    /// Given up after `max_age`.
    pub expired: u64,
    /// Never written down: the outbox was full, or its disk.
    pub lost: u64,
}

impl Default for WebhookCounters {
    fn default() -> Self {
        Self {
            waiting: AtomicU64::default(),
            queue: Histogram::new(QUEUE_LENGTHS),
            delivered: AtomicU64::default(),
            rejected: AtomicU64::default(),
            failures: AtomicU64::default(),
            expired: AtomicU64::default(),
            lost: AtomicU64::default(),
        }
    }
}

impl WebhookCounters {
    /// How many events waited when another one came, as Prometheus lines.
    pub fn write_queue(&self, out: &mut String, name: &str, labels: &str) {
        self.queue.write(out, name, labels);
    }

    pub fn totals(&self) -> WebhookTotals {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WebhookTotals {
            waiting: read(&self.waiting),
            delivered: read(&self.delivered),
            rejected: read(&self.rejected),
            failures: read(&self.failures),
            expired: read(&self.expired),
            lost: read(&self.lost),
        }
    }
}

/// The running service.
#[derive(Debug)]
pub struct Webhooks {
    counters: Arc<WebhookCounters>,
    task: JoinHandle<()>,
}

impl Webhooks {
    /// Goes on with what the outbox holds from before; what happens from now on is to come through the letterbox. Reads
    /// certificates and the outbox: blocks for milliseconds.
    pub fn start(settings: WebhookSettings, database: SharedDatabase, node: Node) -> (Self, Letterbox) {
        let counters = Arc::<WebhookCounters>::default();
        let client = Client::new(settings.allow_private);
        let (written, letters) = mpsc::channel(WRITTEN);
        let lost = Arc::clone(&counters);
        let letterbox = Letterbox {
            compose: postman::composer(&settings, node.clone(), Arc::clone(&counters)),
            written,
            lost: Box::new(move |count| {
                lost.waiting.fetch_sub(count, Ordering::Relaxed);
                lost.lost.fetch_add(count, Ordering::Relaxed);
            }),
        };
        let postman = Postman::new(settings, client, database, node, Arc::clone(&counters));
        let webhooks = Self {
            counters,
            task: tokio::spawn(postman.run(letters)),
        };
        (webhooks, letterbox)
    }

    pub fn counters(&self) -> &Arc<WebhookCounters> {
        &self.counters
    }

    /// Sends what can be sent within two seconds. To be called when the letterbox is closed.
    pub async fn stop(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "webhooks have ended early");
        }
    }
}
