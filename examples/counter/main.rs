//! A pod without a queue: its state lives in memory and changes by requests.
//!
//! POST /add applies the body and answers with the new count and chain; whoever got an answer may rely on it.
//! GET /state shows count, chain and the cookie that was made once at start; GET /probe what the kernel lets this process
//! have of what cannot be checkpointed. `counter note FILE` adds a line to a file: a hook to count.

mod obstacles;

use std::error::Error;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::{Parser, Subcommand};
use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, ipproto, socket};
use serde::Serialize;
use sha2::{Digest, Sha256};

#[derive(Parser)]
struct Options {
    /// Memory to hold besides the state, so that a checkpoint has a size.
    #[arg(long, env = "BALLAST_MB", default_value_t = 20)]
    ballast_mb: usize,
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    listen: String,
    /// What it is to hold that stands against a move, see `obstacles`.
    #[arg(long, env = "HOLD", default_value = "")]
    hold: String,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Adds a line to a file.
    Note { file: PathBuf },
    /// Waits for so many seconds.
    Wait { seconds: u64 },
}

struct Counter {
    count: u64,
    chain: [u8; 32],
    cookie: String,
    ballast: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    count: u64,
    chain: String,
    cookie: String,
    ballast_bytes: usize,
}

impl Counter {
    fn start(ballast_mb: usize) -> std::io::Result<Self> {
        let mut random = std::fs::File::open("/dev/urandom")?;
        let mut cookie = [0; 16];
        random.read_exact(&mut cookie)?;
        let mut ballast = vec![0; ballast_mb << 20];
        random.read_exact(&mut ballast)?;
        Ok(Self { count: 0, chain: [0; 32], cookie: hex::encode(cookie), ballast })
    }

    fn add(&mut self, body: &[u8]) {
        self.count += 1;
        self.chain = Sha256::new().chain_update(self.chain).chain_update(body).finalize().into();
    }

    fn view(&self) -> View {
        View {
            count: self.count,
            chain: hex::encode(self.chain),
            cookie: self.cookie.clone(),
            ballast_bytes: self.ballast.len(),
        }
    }
}

type Shared = Arc<Mutex<Counter>>;

fn main() -> ExitCode {
    shadow::kit::start(None, until_stopped(run(Options::parse())))
}

/// The errors that an MPTCP socket and an io_uring end with; nothing where they are to be had.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    mptcp: Option<i32>,
    io_uring: Option<i32>,
}

impl Probe {
    fn of_this_process() -> Self {
        let mptcp = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP));
        let io_uring = io_uring::IoUring::new(2);
        Self {
            mptcp: mptcp.err().map(rustix::io::Errno::raw_os_error),
            io_uring: io_uring.err().and_then(|error| error.raw_os_error()),
        }
    }
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
    match options.command {
        Some(Command::Note { file }) => {
            let mut file = std::fs::File::options().append(true).create(true).open(file)?;
            return Ok(writeln!(file, "noted")?);
        }
        Some(Command::Wait { seconds }) => {
            tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
            return Ok(());
        }
        None => {}
    }
    let _held = obstacles::hold(&options.hold)?;
    let counter = Arc::new(Mutex::new(Counter::start(options.ballast_mb)?));
    let router = Router::new()
        .route("/add", post(add))
        .route("/state", get(async |State(counter): State<Shared>| Json(counter.lock().view())))
        .route("/probe", get(async || Json(Probe::of_this_process())))
        .route("/healthz", get(async || "ok"))
        .with_state(counter);
    let listener = tokio::net::TcpListener::bind(&options.listen).await?;
    Ok(axum::serve(listener, router).await?)
}

async fn add(State(counter): State<Shared>, body: Bytes) -> Json<View> {
    let mut counter = counter.lock();
    counter.add(&body);
    Json(counter.view())
}
