//! Sets up logging from the configuration; once per process.

use tracing_subscriber::EnvFilter;

use super::config::LoggingConfig;

/// `RUST_LOG` wins over the configuration, as it does in every Rust program.
pub fn init(config: &LoggingConfig) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(config));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second set-up in one process (tests) keeps the first.
    let _ = if config.json {
        subscriber.json().try_init()
    } else {
        subscriber.try_init()
    };
}

/// `level` for the server, and one level per module of it; other crates only report what is wrong.
fn filter(config: &LoggingConfig) -> EnvFilter {
    let level = if config.level.is_empty() { "info" } else { &config.level };
    let mut directives = format!("warn,patchbay={level}");
    for (component, level) in &config.component_levels {
        directives += &format!(",patchbay::{}={level}", component.replace('.', "::"));
    }
    EnvFilter::try_new(&directives).unwrap_or_else(|_| EnvFilter::new("info"))
}
