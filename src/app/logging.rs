//! Sets up logging from the configuration; once per process. Levels can be changed later.

use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{Handle, Layer};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::config::LoggingConfig;

/// Of the subscriber that was set up.
static FILTER: OnceLock<Handle<EnvFilter, Registry>> = OnceLock::new();

/// `RUST_LOG` wins over the configuration, as it does in every Rust program.
pub fn init(config: &LoggingConfig) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(config));
    let (filter, handle) = Layer::new(filter);
    let subscriber = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second set-up in one process (tests) keeps the first.
    let started = if config.json {
        subscriber.with(layer.json()).try_init()
    } else {
        subscriber.with(layer).try_init()
    };
    if started.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Takes over the levels of another configuration, unless `RUST_LOG` has set them.
pub fn reload(config: &LoggingConfig) {
    if let (Some(set), Err(_)) = (FILTER.get(), EnvFilter::try_from_default_env()) {
        let _ = set.reload(filter(config));
    }
}

/// `level` for the server, and one level per module of it; other crates only report what is wrong.
fn filter(config: &LoggingConfig) -> EnvFilter {
    let level = if config.level.is_empty() { "info" } else { &config.level };
    // It warns of every malformed message, which anybody may send.
    let mut directives = format!("warn,stun_types=off,patchbay={level}");
    for (component, level) in &config.component_levels {
        directives += &format!(",patchbay::{}={level}", component.replace('.', "::"));
    }
    EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"))
}
