//! What every role needs: Kubernetes client, TLS, HTTP server, lease, shutdown, metrics, Events.

use std::process::ExitCode;

/// Installs the crypto provider, starts the async runtime, runs the role; a failure is logged and ends with 1.
pub fn start(role: impl Future<Output = Result<(), Box<dyn std::error::Error>>>) -> ExitCode {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
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
