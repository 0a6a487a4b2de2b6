//! The lease of the one node that serves with a Redis: a key with a short life, renewed for as long as the node runs.
//!
//! LiveKit's configuration for several nodes names a Redis. Until rooms can be found across nodes, two of them would each
//! make a room of the same name; so the second one does not start. Owned by `app`, which ends the server when the lease
//! is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::redis::{Redis, RedisError, RedisSettings, Reply};

/// Beside LiveKit's own keys, of which it is none.
const KEY: &str = "patchbay:single_node";
/// How long a node that was killed keeps the next one waiting.
const LIFE: Duration = Duration::from_secs(6);
/// Two renewals may fail before the lease ends.
const RENEWAL: Duration = Duration::from_secs(2);
/// Between looks at a lease whose holder may be dead.
const LOOK: Duration = Duration::from_millis(500);

const RENEW: &str = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('pexpire',KEYS[1],ARGV[2]) \
                     elseif redis.call('exists',KEYS[1])==0 then redis.call('set',KEYS[1],ARGV[1],'px',ARGV[2]) return 1 \
                     else return 0 end";
const RELEASE: &str = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("cannot use the Redis at {address}: {error}")]
    Redis { address: String, error: RedisError },
    #[error(
        "another server, {holder}, serves with the Redis at {address}. This version serves with one node: with two, a room \
         would be split between them without anybody noticing. Stop the other one, or take the `redis` section out of one \
         configuration"
    )]
    Taken { address: String, holder: String },
}

/// Held from `take` to `release`; a process that is killed holds it for 6 s more.
#[derive(Debug)]
pub struct Lease {
    redis: Redis,
    /// Who we are; unique to this process.
    holder: String,
}

impl Lease {
    /// Waits for as long as a dead node's lease may live.
    ///
    /// # Errors
    /// A living node has it, or there is no such Redis.
    pub async fn take(settings: RedisSettings, holder: String) -> Result<Self, LeaseError> {
        let mut lease = Self {
            redis: Redis::new(settings),
            holder,
        };
        let address = lease.redis.address();
        let failed = |error| LeaseError::Redis {
            address: address.clone(),
            error,
        };
        let life = LIFE.as_millis().to_string();
        let mut taken_until = None;
        loop {
            let holder = lease.holder.clone();
            let set = ["SET", KEY, &holder, "NX", "PX", &life];
            if lease.redis.call(&set).await.map_err(failed)? != Reply::Nil {
                return Ok(lease);
            }
            let left = lease.redis.call(&["PTTL", KEY]).await.map_err(failed)?;
            let Reply::Number(left) = left else { continue };
            let until = Instant::now() + Duration::from_millis(u64::try_from(left).unwrap_or(0));
            // Its end has moved: somebody is alive to move it.
            if taken_until.is_some_and(|before| until > before + LOOK) {
                let holder = match lease.redis.call(&["GET", KEY]).await.map_err(failed)? {
                    Reply::Text(holder) => holder,
                    _ => continue,
                };
                return Err(LeaseError::Taken { address, holder });
            }
            if taken_until.is_none() {
                tracing::info!(%address, "another server has had the Redis lately; waiting for it to go or to show itself");
            }
            taken_until.get_or_insert(until);
            sleep(LOOK).await;
        }
    }

    /// Renews the lease until somebody else has it. A Redis that does not answer is waited for: it gives the lease to
    /// nobody else meanwhile.
    pub async fn lost(&mut self) -> LeaseError {
        let life = LIFE.as_millis().to_string();
        loop {
            sleep(RENEWAL).await;
            let renew = ["EVAL", RENEW, "1", KEY, &self.holder, &life];
            match self.redis.call(&renew).await {
                Ok(Reply::Number(0)) => break,
                Ok(_) => {}
                Err(error) => tracing::warn!(address = self.redis.address(), %error, "cannot renew the lease"),
            }
        }
        let holder = match self.redis.call(&["GET", KEY]).await {
            Ok(Reply::Text(holder)) => holder,
            _ => "unknown".to_owned(),
        };
        LeaseError::Taken {
            address: self.redis.address(),
            holder,
        }
    }

    /// The next node need not wait.
    pub async fn release(mut self) {
        let release = ["EVAL", RELEASE, "1", KEY, &self.holder];
        // A Redis that is away lets it end by itself.
        let _ = timeout(LOOK, self.redis.call(&release)).await;
    }
}
