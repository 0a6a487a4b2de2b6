//! Gateway sessions in Redis: what the node that has the voice system's seat writes down, for the one that takes it next.
//!
//! A hash of records and a list of dispatches, written together by scripts that ask for the seat first, with a life of their
//! own: what nobody renews is gone. What is in them is the domain's; whether it is believed too.

use std::time::Duration;

use super::StoreError;
use super::redis::{Redis, RedisError, Reply};
use super::seat::{SEAT, read_hash};
use crate::voice::{SessionBatch, StoredSessions};

// The braces keep them with the seat in a cluster.
const RECORDS: &str = "{patchbay:voice}:sessions";
const DISPATCHES: &str = "{patchbay:voice}:dispatches";

/// Records of one step where everything is written anew, so that Redis never stands still for long.
const STEP: usize = 500;
/// Dispatches read at a time; each has up to 96 KiB.
const PAGE: usize = 32;
/// Bytes that are believed: 100,000 sessions with 64 KiB of names and connections for every hundred, and the dispatches.
const MAX_BYTES: usize = 128 << 20;

/// ARGV: holder, life, "1" = instead of all, dispatches that stay, records, names of removed ones; then those, then the
/// dispatches.
const WRITE: &str = "if redis.call('get',KEYS[1])~=ARGV[1] then return 0 end \
                     if ARGV[3]=='1' then redis.call('del',KEYS[2],KEYS[3]) end local at=7 \
                     for i=1,tonumber(ARGV[5]) do redis.call('hset',KEYS[2],ARGV[at],ARGV[at+1]) at=at+2 end \
                     for i=1,tonumber(ARGV[6]) do redis.call('hdel',KEYS[2],ARGV[at]) at=at+1 end \
                     if ARGV[at] then while ARGV[at] do redis.call('rpush',KEYS[3],ARGV[at]) at=at+1 end \
                     redis.call('ltrim',KEYS[3],-tonumber(ARGV[4]),-1) end \
                     redis.call('pexpire',KEYS[2],ARGV[2]) redis.call('pexpire',KEYS[3],ARGV[2]) return 1";

/// The sessions that all nodes share.
#[derive(Debug)]
pub struct SharedSessions {
    redis: Redis,
    holder: String,
    /// Milliseconds.
    life: String,
}

impl SharedSessions {
    pub(super) fn new(redis: Redis, holder: String, life: Duration) -> Self {
        Self {
            redis,
            holder,
            life: life.as_millis().to_string(),
        }
    }

    /// # Errors
    /// Redis does not say, or what is there is nothing of ours.
    pub async fn load(&mut self) -> Result<StoredSessions, StoreError> {
        let records = read_hash(&mut self.redis, RECORDS, MAX_BYTES).await?;
        let (mut dispatches, mut bytes) = (Vec::new(), 0);
        loop {
            let (from, to) = (dispatches.len(), dispatches.len() + PAGE - 1);
            let range = ["LRANGE", DISPATCHES, &from.to_string(), &to.to_string()];
            let Reply::List(page) = self.redis.call(&range).await? else {
                return Err(RedisError::NotRedis.into());
            };
            let is_last = page.len() < PAGE;
            for reply in page {
                let Reply::Text(text) = reply else {
                    return Err(RedisError::NotRedis.into());
                };
                bytes += text.len();
                dispatches.push(text);
            }
            if bytes > MAX_BYTES {
                return Err(RedisError::NotRedis.into());
            }
            if is_last {
                return Ok(StoredSessions { records, dispatches });
            }
        }
    }

    /// All of it or nothing; what replaces everything in steps, the last record with the last. An empty batch keeps what
    /// is there from running out.
    ///
    /// # Errors
    /// Redis does not say; another node has the seat; or somebody else has written under our names.
    pub async fn write(&mut self, batch: &SessionBatch) -> Result<(), StoreError> {
        if !batch.whole {
            return self.step(batch, false, &batch.put).await;
        }
        let nothing = SessionBatch::default();
        for (number, put) in batch.put.chunks(STEP).enumerate() {
            self.step(&nothing, number == 0, put).await?;
        }
        Ok(())
    }

    async fn step(&mut self, batch: &SessionBatch, first: bool, put: &[(String, String)]) -> Result<(), StoreError> {
        let counts = [batch.keep, put.len(), batch.removed.len()].map(|count| count.to_string());
        let [keep, records, removed] = &counts;
        let instead = if first { "1" } else { "" };
        let mut write = vec![
            "EVAL",
            WRITE,
            "3",
            SEAT,
            RECORDS,
            DISPATCHES,
            &self.holder,
            &self.life,
            instead,
        ];
        write.extend([keep.as_str(), records, removed]);
        for (name, body) in put {
            write.extend([name.as_str(), body]);
        }
        write.extend(batch.removed.iter().chain(&batch.dispatches).map(String::as_str));
        match self.redis.call(&write).await? {
            Reply::Number(1) => Ok(()),
            _ => Err(StoreError::Unseated),
        }
    }
}
