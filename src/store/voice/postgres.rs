//! PostgreSQL: one connection, made again when it is lost.

use std::time::Duration;

use tokio_postgres::{Client, Config, NoTls};

use super::{DONE, ENTER, LOAD, MIGRATIONS, PUT, REMOVE, VERSIONS, change};
use crate::store::StoreError;
use crate::voice::Change;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For one transaction; a server that hangs is as good as away.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// Two processes that start at once make the tables one after the other.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7014257)";

#[derive(Debug)]
pub struct Postgres {
    config: Config,
    client: Option<Client>,
}

impl Postgres {
    pub(super) fn new(url: &str) -> Result<Self, StoreError> {
        let mut config: Config = url.parse()?;
        config.connect_timeout(CONNECT_LIMIT);
        Ok(Self { config, client: None })
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
            let (mut client, connection) = self.config.connect(NoTls).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::warn!(%error, "the connection to PostgreSQL has ended");
                }
            });
            migrate(&mut client).await?;
            self.client = Some(client);
        }
        self.client.as_mut().ok_or(StoreError::Late)
    }
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
