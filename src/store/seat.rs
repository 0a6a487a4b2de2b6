//! The seat of the voice system: which of the nodes that share a Redis serves it, and which server each of its rooms is on.
//! (What its gateway sessions have been told is in `sessions`.)
//!
//! A key with a short life, renewed for as long as its holder serves, names the node that the others lead to. Pins are
//! written by the holder and by nobody else: a node that was cut off and comes back changes nothing. Owned by `app`,
//! which starts and ends the voice system by it. Never decides where a room is.

use std::time::Duration;

use tokio::time::timeout;

use super::StoreError;
use super::redis::{Redis, RedisError, RedisSettings, Reply};
use super::sessions::SharedSessions;
use crate::voice::{Change, Table};

// The braces keep them together in a cluster.
pub(super) const SEAT: &str = "{patchbay:voice}:seat";
const LAST: &str = "{patchbay:voice}:last";
const PINS: &str = "{patchbay:voice}:pins";

/// How long a node that was killed keeps the others waiting.
const LIFE: Duration = Duration::from_secs(6);
/// Between two looks, which renew it or find it free.
pub const SEAT_LOOK: Duration = Duration::from_secs(1);
/// A Redis that is away lets it end by itself.
const RELEASE_LIMIT: Duration = Duration::from_millis(500);
/// Pins in one command.
const BATCH: usize = 100;
/// Bytes of pins that are believed: of 100,000 rooms.
const MAX_PINS: usize = 128 << 20;
/// What a dead node has written is there for the next one at least this long: until the seat is free, and a while.
const TAKEOVER: Duration = Duration::from_secs(10);

const TAKE: &str = "local held=redis.call('get',KEYS[1]) if held and held~=ARGV[1] then return held end \
                    redis.call('set',KEYS[1],ARGV[1],'px',ARGV[2]) local last=redis.call('get',KEYS[2]) \
                    redis.call('set',KEYS[2],ARGV[1]) if last and last~=ARGV[1] then return 'anew' end return 'still'";
const RELEASE: &str = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0";
const WRITE: &str = "if redis.call('get',KEYS[1])~=ARGV[1] then return 0 end for i=2,#ARGV,2 do if ARGV[i+1]=='' then \
                     redis.call('hdel',KEYS[2],ARGV[i]) else redis.call('hset',KEYS[2],ARGV[i],ARGV[i+1]) end end return 1";
const READ: &str = "local found=redis.call('hscan',KEYS[1],ARGV[1],'count',200) table.insert(found[2],1,found[1]) \
                    return found[2]";

/// What a look at the seat has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sat {
    /// Ours, and nobody else has had it since.
    Still,
    /// Ours, after somebody else has had it.
    Anew,
    /// The node that has it is at this URL.
    Elsewhere(String),
}

#[derive(Debug)]
pub struct Seat {
    redis: Redis,
    settings: RedisSettings,
    /// Who we are, unique to this process, and where.
    holder: String,
}

impl Seat {
    /// `id` has no space in it. Connects when it is first looked at.
    pub fn new(settings: RedisSettings, id: &str, url: &str) -> Self {
        Self {
            redis: Redis::new(settings.clone()),
            settings,
            holder: format!("{id} {url}"),
        }
    }

    /// Takes the seat where it is free, and keeps it where it is ours.
    ///
    /// # Errors
    /// Redis does not say. After more than 6 s of that another node may have it.
    pub async fn look(&mut self) -> Result<Sat, RedisError> {
        let life = LIFE.as_millis().to_string();
        let take = ["EVAL", TAKE, "2", SEAT, LAST, &self.holder, &life];
        match self.redis.call(&take).await? {
            Reply::Text(text) if text == "still" => Ok(Sat::Still),
            Reply::Text(text) if text == "anew" => Ok(Sat::Anew),
            Reply::Text(text) => match text.split_once(' ') {
                Some((_, url)) => Ok(Sat::Elsewhere(url.to_owned())),
                None => Err(RedisError::NotRedis),
            },
            _ => Err(RedisError::NotRedis),
        }
    }

    /// The next node need not wait.
    pub async fn release(&mut self) {
        let release = ["EVAL", RELEASE, "1", SEAT, &self.holder];
        let _ = timeout(RELEASE_LIMIT, self.redis.call(&release)).await;
    }

    /// Where gateway sessions are kept, for as long as the seat is ours and for a client's `window` after it.
    pub fn sessions(&self, window: Duration) -> SharedSessions {
        let redis = Redis::new(self.settings.clone());
        SharedSessions::new(redis, self.holder.clone(), window.max(TAKEOVER))
    }

    /// Where pins are kept, for as long as the seat is ours.
    pub fn pins(&self) -> SharedPins {
        SharedPins {
            redis: Redis::new(self.settings.clone()),
            holder: self.holder.clone(),
        }
    }
}

/// The pins that all nodes share.
#[derive(Debug)]
pub struct SharedPins {
    redis: Redis,
    holder: String,
}

impl SharedPins {
    pub(super) async fn load(&mut self) -> Result<Vec<Change>, StoreError> {
        let found = read_hash(&mut self.redis, PINS, MAX_PINS).await?;
        let pin = |(id, body)| Change {
            table: Table::Pins,
            id,
            body: Some(body),
        };
        Ok(found.into_iter().map(pin).collect())
    }

    pub(super) async fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        for batch in changes.chunks(BATCH) {
            let mut write = vec!["EVAL", WRITE, "2", SEAT, PINS, &self.holder];
            for change in batch {
                write.extend([change.id.as_str(), change.body.as_deref().unwrap_or_default()]);
            }
            match self.redis.call(&write).await? {
                Reply::Number(1) => {}
                _ => return Err(StoreError::Unseated),
            }
        }
        Ok(())
    }
}

/// Names and values of a hash that nobody writes meanwhile, up to `limit` bytes.
pub(super) async fn read_hash(redis: &mut Redis, key: &str, limit: usize) -> Result<Vec<(String, String)>, RedisError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let mut cursor = "0".to_owned();
    loop {
        let Reply::List(list) = redis.call(&["EVAL", READ, "1", key, &cursor]).await? else {
            return Err(RedisError::NotRedis);
        };
        let mut texts = list.into_iter().map(|reply| match reply {
            Reply::Text(text) => Ok(text),
            _ => Err(RedisError::NotRedis),
        });
        cursor = texts.next().ok_or(RedisError::NotRedis)??;
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            let (name, value) = (name?, value?);
            bytes += name.len() + value.len();
            found.push((name, value));
        }
        if bytes > limit {
            return Err(RedisError::NotRedis);
        }
        if cursor == "0" {
            return Ok(found);
        }
    }
}
