//! Publishes numbered messages at a steady rate or in bursts, and keeps a ledger of what the broker has confirmed:
//! who holds the ledger against the consumer's state sees every lost, doubled or reordered message.
//!
//! `publisher.rs` publishes, `ledger.rs` keeps the book. GET /ledger; POST /pause (answers when nothing is under
//! way), /resume, /rate/N, /reconnect (for a producer that is paused).

mod ledger;
mod publisher;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use tokio::sync::watch;

use crate::ledger::{Shared, View};
use crate::publisher::{Config, Control, publish};

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    config: Config,
    /// Messages a second.
    #[arg(long, env = "RATE", default_value_t = 20)]
    rate: u32,
    /// Wait for POST /resume before the first message.
    #[arg(long, env = "START_PAUSED")]
    start_paused: bool,
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: String,
}

#[derive(Clone)]
struct App {
    ledger: Shared,
    control: Arc<watch::Sender<Control>>,
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
    let ledger = Shared::default();
    let (control, orders) =
        watch::channel(Control { rate: options.rate.max(1), paused: options.start_paused, connection: 0 });
    let app = App { ledger: ledger.clone(), control: Arc::new(control) };
    let router = Router::new()
        .route("/ledger", get(async |State(app): State<App>| Json(app.ledger.view())))
        .route("/healthz", get(async || "ok"))
        .route("/pause", post(pause))
        .route("/resume", post(async |State(app): State<App>| set(&app, |control| control.paused = false)))
        .route("/rate/{rate}", post(rate))
        .route(
            "/reconnect",
            post(async |State(app): State<App>| set(&app, |control| control.connection += 1)),
        )
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    let readers = tokio::spawn(axum::serve(listener, router).into_future());
    if let Err(error) = publish(&options.config, &ledger, orders).await {
        // The ledger is what somebody came for: it stays readable.
        tracing::error!(%error, "stopped");
        ledger.stop(&error.to_string());
    }
    Ok(readers.await??)
}

fn set(app: &App, change: impl FnOnce(&mut Control)) -> Json<View> {
    app.control.send_modify(change);
    Json(app.ledger.view())
}

async fn pause(State(app): State<App>) -> Json<View> {
    app.control.send_modify(|control| control.paused = true);
    app.ledger.settled().await;
    Json(app.ledger.view())
}

async fn rate(State(app): State<App>, Path(rate): Path<u32>) -> Result<Json<View>, StatusCode> {
    if rate == 0 {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(set(&app, |control| control.rate = rate))
}
