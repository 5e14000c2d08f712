//! The kubectl plugin: `kubectl shadow migrate | status | abort`. Talks to the API server with the user's own rights.

mod args;
mod commands;

pub use args::Args;
pub use commands::{CliError, run};
