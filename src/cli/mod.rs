//! The kubectl plugin: `kubectl shadow migrate | check | status | abort | retry | give-up`. Talks to the API server with the
//! user's own rights.

mod args;
mod check;
mod check_manifest;
mod commands;
mod decide;

pub use args::Args;
pub use commands::{CliError, run};
