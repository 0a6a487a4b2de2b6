//! Where the server keeps what outlives it.

use std::path::{Path, PathBuf};

use super::config::Config;
use super::serve::ServeError;
use crate::store::{Database, StoreError};

pub(super) struct Kept {
    pub(super) database: Database,
    /// It is in a file.
    pub(super) durable: bool,
}

/// A file that was asked for must open. Without one, a place to write is looked for, and done without if need be.
pub(super) fn open_database(config: &Config) -> Result<Kept, ServeError> {
    let kept = |database| Kept {
        database,
        durable: true,
    };
    if !config.database.is_empty() {
        let opened = Database::open(Path::new(&config.database));
        return opened.map(kept).map_err(|error| database_error(config, error));
    }
    let in_memory = || {
        let database = Database::in_memory().map_err(|error| database_error(config, error))?;
        Ok(Kept {
            database,
            durable: false,
        })
    };
    if config.development {
        return in_memory();
    }
    // systemd: the unit's own directory.
    let directory = std::env::var_os("STATE_DIRECTORY")
        .map(PathBuf::from)
        .unwrap_or_default();
    Database::open(&directory.join("patchbay.db")).map(kept).or_else(|error| {
        tracing::warn!(%error, "rooms, and webhooks that have not arrived, are lost at a restart: `database` names a file to keep them");
        in_memory()
    })
}

pub(super) fn database_error(config: &Config, error: StoreError) -> ServeError {
    ServeError::Database {
        path: PathBuf::from(&config.database),
        error,
    }
}
