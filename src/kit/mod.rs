//! What every role needs: Kubernetes client, TLS, HTTP server, lease, shutdown, metrics, Events.

pub mod certificate_exchange;
mod client;
mod credentials;
mod error;
pub mod events;
mod health;
pub mod lease;
mod logging;
pub mod metrics;
mod owner;
mod peer;
mod rollout;
mod secret;
mod server;
#[cfg(test)]
mod server_tests;
mod shutdown;
pub mod tls;

pub use certificate_exchange::{AgentIdentity, agent_certificate};
pub use client::{WATCH_SECONDS, kube_client, kube_watch_client};
pub use error::KitError;
pub use health::{Gate, Readiness, health_router};
pub use logging::{LogFormat, init_tracing};
pub use owner::{OwnerError, owner_annotations};
pub use peer::peer_client;
pub use rollout::{Rollout, ordinal};
pub use secret::secret_credentials;
pub use server::{PeerName, serve_plain, serve_tls};
pub use shutdown::{DRAIN_LAG, Shutdown};

use std::process::ExitCode;

/// Installs the crypto provider, starts the async runtime, runs the role; a failure is logged and ends with 1. One thread
/// a processor, unless `threads` says how many.
pub fn start(
    threads: Option<usize>,
    role: impl Future<Output = Result<(), Box<dyn std::error::Error>>>,
) -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads);
    }
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("shadow: no async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shadow: {error}");
            ExitCode::FAILURE
        }
    }
}
