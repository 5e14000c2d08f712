//! The kubectl plugin: `kubectl shadow migrate | check | status | abort`. Talks to the API server with the user's own rights.

mod args;
mod check;
mod commands;

pub use args::Args;
pub use commands::{CliError, run};
