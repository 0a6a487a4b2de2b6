//! API keys and the log level are read again on SIGHUP and when their files change; everything else needs a restart.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::cli::CliError;
use super::load::Loaded;
use super::logging;
use crate::io::Tls;
use crate::node::Node;

/// How often files are looked at. Asking for their times works for every kind of file, mounted secrets included.
const LOOK: Duration = Duration::from_secs(5);

/// What to read again, and how.
pub struct Reload {
    pub files: Vec<PathBuf>,
    pub load: Box<dyn Fn() -> Result<Loaded, CliError> + Send>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Runs until it is dropped.
///
/// # Errors
/// When the signal cannot be listened to.
pub async fn watch(reload: Reload, node: Node) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut look = tokio::time::interval(LOOK);
    let mut seen = stamps(&reload.files);
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = look.tick() => {
                let now = stamps(&reload.files);
                if now == seen {
                    continue;
                }
                seen = now;
            }
        }
        apply(&reload, &node);
    }
}

/// Takes new certificates as they are written, until `stopping` becomes true.
pub(super) async fn watch_certificates(tls: Tls, mut stopping: watch::Receiver<bool>) {
    let files = tls.files();
    let mut look = tokio::time::interval(LOOK);
    let mut seen = stamps(&files);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let now = stamps(&files);
        if now == seen {
            continue;
        }
        seen = now;
        match tls.reload() {
            Ok(()) => tracing::info!("the certificates have been read again"),
            Err(error) => tracing::error!(%error, "new certificates cannot be used; the old ones stay"),
        }
    }
}

fn apply(reload: &Reload, node: &Node) {
    match (reload.load)() {
        Ok(loaded) => {
            logging::reload(&loaded.config.logging);
            let keys = loaded.config.keys;
            node.replace_keys(keys.clone());
            tracing::info!(?keys, "keys and log level have been read again");
        }
        // A file in the middle of being written, too: it is looked at again when it has changed.
        Err(error) => tracing::error!(%error, "the configuration cannot be read again; what was read before stays"),
    }
}

/// What changes when a file is written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: u64,
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some(Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            size: metadata.size(),
            inode: metadata.ino(),
        })
    };
    files.iter().map(stamp).collect()
}
