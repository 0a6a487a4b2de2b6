//! Sets up logging from the configuration; once per process. Levels can be changed later.

use std::sync::OnceLock;

use tracing_subscriber::Layer as _;
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
    let subscriber = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match config.json {
        true => layer.json().with_filter(filter).boxed(),
        false => layer.with_filter(filter).boxed(),
    };
    let subscriber = subscriber.with(layer);
    // Not under the log's levels.
    #[cfg(feature = "otel")]
    let subscriber = subscriber.with(super::traces::layer());
    // A second set-up in one process (tests) keeps the first.
    let started = subscriber.try_init();
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
