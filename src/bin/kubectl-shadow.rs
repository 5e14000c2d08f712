//! `kubectl shadow`: put it into the PATH and kubectl finds it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let args = shadow::cli::Args::parse();
    shadow::kit::start(None, async { shadow::cli::run(args).await.map_err(Into::into) })
}
