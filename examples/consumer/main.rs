//! A RabbitMQ consumer whose state lives in memory only, and which can be moved between nodes.
//!
//! Copy `session.rs`: it is the consumer's side of the control protocol. `state.rs` is what this example does with
//! its messages, `http.rs` lets readers look at it. Everything is configured by environment variables or flags.

mod http;
mod session;
mod state;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::session::{Config, Consumer};
use crate::state::State;

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    config: Config,
    /// Memory to hold besides the state, so that a checkpoint has a size.
    #[arg(long, env = "BALLAST_MB", default_value_t = 20)]
    ballast_mb: usize,
    /// Do not apply a message that this memory holds and that the broker says it delivers again: after a crash of the
    /// broker, acknowledgements may be lost.
    #[arg(long, env = "SKIP_REDELIVERED")]
    skip_redelivered: bool,
    /// Where readers ask: GET /state, GET /healthz.
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: String,
}

fn main() -> ExitCode {
    shadow::kit::start(None, until_stopped(run(Options::parse())))
}

/// Process 1 of a container gets SIGTERM only if it asks for it.
async fn until_stopped(work: impl Future<Output = Result<(), Box<dyn Error>>>) -> Result<(), Box<dyn Error>> {
    let shutdown = shadow::kit::Shutdown::on_signals_with_lag(std::time::Duration::ZERO)?;
    tokio::select! {
        ended = work => ended,
        () = shutdown.drain_started() => Ok(()),
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let state = State::shared(options.ballast_mb, options.skip_redelivered)?;
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    let readers = tokio::spawn(axum::serve(listener, http::router(state.clone())).into_future());
    tokio::select! {
        never = Consumer::new(options.config, state).run() => match never {},
        ended = readers => Ok(ended??),
    }
}
