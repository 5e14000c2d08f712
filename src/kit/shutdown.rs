//! Two-stage end of a process: first nothing new is wanted, then stop.
//!
//! Between the stages lies the drain lag: whoever found this pod in an EndpointSlice or Lease needs a moment to
//! notice that it goes, so work is still accepted. Reads signals, no other I/O.

use std::{sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::KitError;

/// How long a draining server still accepts connections: endpoints reach every proxy within this time.
pub const DRAIN_LAG: Duration = Duration::from_secs(5);

/// The process's end, as every part of it sees it. Cloning gives another view of the same end.
#[derive(Clone, Debug)]
pub struct Shutdown {
    stages: Arc<Stages>,
}

#[derive(Debug)]
struct Stages {
    draining: CancellationToken,
    stopped: CancellationToken,
    lag: Duration,
}

impl Shutdown {
    /// Nothing triggers it but [`Shutdown::begin`] and [`Shutdown::stop_now`].
    pub fn with_lag(lag: Duration) -> Self {
        let (draining, stopped) = (CancellationToken::new(), CancellationToken::new());
        Self { stages: Arc::new(Stages { draining, stopped, lag }) }
    }

    /// SIGTERM or SIGINT begins the drain with the default lag, a second one stops at once.
    pub fn on_signals() -> Result<Self, KitError> {
        Self::on_signals_with_lag(DRAIN_LAG)
    }

    /// As [`Shutdown::on_signals`]; roles that nobody finds through a Service need no lag.
    pub fn on_signals_with_lag(lag: Duration) -> Result<Self, KitError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(KitError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(KitError::Signals)?;
        let shutdown = Self::with_lag(lag);
        let of_task = shutdown.clone();
        tokio::spawn(async move {
            let mut signalled = async || {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            };
            signalled().await;
            tracing::info!(lag_ms = of_task.stages.lag.as_millis(), "asked to stop, draining");
            of_task.begin();
            signalled().await;
            tracing::warn!("asked to stop again, stopping at once");
            of_task.stop_now();
        });
        Ok(shutdown)
    }

    /// Begins the drain; `stopped` follows after the lag. Repeating it changes nothing.
    pub fn begin(&self) {
        if self.stages.draining.is_cancelled() {
            return;
        }
        self.stages.draining.cancel();
        let stages = Arc::clone(&self.stages);
        tokio::spawn(async move {
            tokio::time::sleep(stages.lag).await;
            stages.stopped.cancel();
        });
    }

    /// Ends both stages now.
    pub fn stop_now(&self) {
        self.stages.draining.cancel();
        self.stages.stopped.cancel();
    }

    /// Resolves when nothing new should be begun.
    pub async fn drain_started(&self) {
        self.stages.draining.cancelled().await;
    }

    /// Resolves when it is time to stop: finish what runs, accept nothing.
    pub async fn stopped(&self) {
        self.stages.stopped.cancelled().await;
    }

    pub fn is_draining(&self) -> bool {
        self.stages.draining.is_cancelled()
    }

    pub fn is_stopped(&self) -> bool {
        self.stages.stopped.is_cancelled()
    }

    /// Cancelled when stopped; for libraries that take a token.
    pub fn token(&self) -> CancellationToken {
        self.stages.stopped.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_follows_the_drain_after_the_lag() {
        let lag = Duration::from_millis(50);
        let shutdown = Shutdown::with_lag(lag);
        let begun = std::time::Instant::now();
        shutdown.begin();
        shutdown.drain_started().await;
        assert!(!shutdown.is_stopped());
        shutdown.stopped().await;
        assert!(begun.elapsed() >= lag);
    }

    #[tokio::test]
    async fn stopping_at_once_ends_both_stages() {
        let shutdown = Shutdown::with_lag(Duration::from_secs(600));
        shutdown.begin();
        shutdown.stop_now();
        assert!(shutdown.is_draining() && shutdown.is_stopped() && shutdown.token().is_cancelled());
    }
}
