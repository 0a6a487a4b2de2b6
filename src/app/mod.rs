//! L4: configuration, command line, wiring, shutdown order.

mod acme;
mod addresses;
pub mod cli;
pub mod config;
mod doctor;
pub mod document;
mod external;
pub mod http;
mod keeping;
mod late;
mod lease;
pub mod load;
pub mod logging;
mod metrics;
mod relay;
mod relay_health;
pub mod reload;
pub mod schema;
pub mod serve;
#[cfg(feature = "otel")]
mod traces;
pub mod voice;

use std::process::ExitCode;

pub use config::Config;

use cli::{Action, CliError};
use load::Notice;
use reload::Reload;

/// The program: reads arguments and environment, then either answers at once or hands the checked configuration to
/// `serve`, with logging set up.
pub fn main<E: std::fmt::Display>(serve: impl FnOnce(Config, Reload) -> Result<(), E>) -> ExitCode {
    match cli::run(std::env::args()) {
        Ok(Action::Print(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Examine(loaded)) => doctor::run(&loaded.config),
        #[cfg(feature = "load-test")]
        Ok(Action::Load(options)) => match crate::load::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::from(failure.exit_code())
            }
        },
        Ok(Action::Serve(loaded)) => {
            logging::init(&loaded.config.logging);
            for notice in loaded.notices {
                match notice {
                    Notice::Info(text) => tracing::info!("{text}"),
                    Notice::Warning(text) => tracing::warn!("{text}"),
                    Notice::Error(text) => tracing::error!("{text}"),
                }
            }
            let reload = Reload {
                files: loaded.files,
                load: Box::new(|| match cli::run(std::env::args())? {
                    Action::Serve(loaded) => Ok(*loaded),
                    Action::Print(text) => Err(CliError::Other(text)),
                    #[cfg(feature = "load-test")]
                    Action::Load(_) => Err(CliError::Other("not serving".to_owned())),
                    Action::Examine(_) => Err(CliError::Other("not serving".to_owned())),
                }),
            };
            match serve(loaded.config, reload) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(CliError::Arguments(error)) => {
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
