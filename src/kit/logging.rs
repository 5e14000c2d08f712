//! Structured logs on standard error. Bodies, secrets and memory contents are never logged, by anybody.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::KitError;

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Levels by module, e.g. `info,shadow=debug`.
const FILTER_VARIABLE: &str = "SHADOW_LOG_FILTER";
/// A channel that the broker closes is how it answers questions: we say ourselves what it means.
const DEFAULT_FILTER: &str = "info,kube_client=warn,lapin=warn,lapin::channel=off";

/// Starts logging for the process; a second call leaves the first one's settings.
pub fn init_tracing(format: LogFormat) -> Result<(), KitError> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.to_owned());
    let levels = EnvFilter::try_new(&filter)
        .map_err(|error| KitError::LogFilter { filter, problem: error.to_string() })?;
    let lines = tracing_subscriber::fmt().with_env_filter(levels).with_writer(std::io::stderr);
    // An error means that a subscriber is there already (tests): keep it.
    let _ = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}
