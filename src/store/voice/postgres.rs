//! PostgreSQL: one connection, made again when it is lost.

mod tls;

use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, NoTls, Socket};

use super::{DONE, ENTER, LOAD, MIGRATIONS, PUT, REMOVE, VERSIONS, change};
use crate::store::StoreError;
use crate::voice::Change;
use tls::Tls;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For one transaction; a server that hangs is as good as away.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Two processes that start at once make the tables one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7014257)";

pub struct Postgres {
    config: Config,
    /// None: in the clear, as the URL asks.
    tls: Option<Tls>,
    client: Option<Client>,
}

/// The password must not reach a log.
impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres")
            .field("hosts", &self.config.get_hosts())
            .finish_non_exhaustive()
    }
}

impl Postgres {
    pub(super) fn new(url: &str, authority: &str) -> Result<Self, StoreError> {
        let mut config: Config = url.parse()?;
        config.connect_timeout(CONNECT_LIMIT);
        let tls = match config.get_ssl_mode() {
            SslMode::Require => Some(Tls::trusting(authority).map_err(StoreError::Certificates)?),
            _ => {
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        Ok(Self {
            config,
            tls,
            client: None,
        })
    }

    pub(super) async fn load(&mut self) -> Result<Vec<Change>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(LOAD, &[]).await?;
        let read = |row: &tokio_postgres::Row| {
            let kind: String = row.get(0);
            change(&kind, row.get(1), row.get(2))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    pub(super) async fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let written = tokio::time::timeout(WRITE_LIMIT, self.write_now(changes)).await;
        let written = written.unwrap_or(Err(StoreError::Late));
        if written.is_err() {
            // Whatever state it is in: the next try begins with a new one.
            self.client = None;
        }
        written
    }

    async fn write_now(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.client().await?.transaction().await?;
        for change in changes {
            let kind = change.table.name();
            match &change.body {
                Some(body) => transaction.execute(PUT, &[&kind, &change.id, body]).await?,
                None => transaction.execute(REMOVE, &[&kind, &change.id]).await?,
            };
        }
        Ok(transaction.commit().await?)
    }

    async fn client(&mut self) -> Result<&mut Client, StoreError> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let mut client = match &self.tls {
                Some(tls) => connect(&self.config, tls.clone()).await?,
                None => connect(&self.config, NoTls).await?,
            };
            migrate(&mut client).await?;
            self.client = Some(client);
        }
        self.client.as_mut().ok_or(StoreError::Late)
    }
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client, StoreError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(%error, "the connection to PostgreSQL has ended");
        }
    });
    Ok(client)
}

async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK).await?;
    transaction.batch_execute(VERSIONS).await?;
    let done: i64 = transaction.query_one(DONE, &[]).await?.get(0);
    let done = usize::try_from(done).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(StoreError::TooNew);
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(done) {
        transaction.batch_execute(migration).await?;
        // INTEGER is 32 bits there.
        let version = i32::try_from(index).unwrap_or(i32::MAX);
        transaction.execute(ENTER, &[&version]).await?;
    }
    Ok(transaction.commit().await?)
}
