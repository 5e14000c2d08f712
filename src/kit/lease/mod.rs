//! Leader election over a `coordination.k8s.io` Lease.
//!
//! Guarantees: every write is a compare-and-swap on resourceVersion, so of two candidates one succeeds; a lease is
//! taken only when it is released or was seen unchanged for its whole duration by the local monotonic clock (remote
//! timestamps decide nothing); the holder stops before others may take over; each leadership has a larger epoch.
//! A lease alone never prevents two writers: effects are fenced by the epoch and by resourceVersions.

mod candidate;
#[cfg(test)]
pub(crate) mod fake;
mod observation;

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use super::Shutdown;

/// Who may act, and under which fencing number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leadership {
    /// Larger than that of every former leader.
    pub epoch: u32,
}

/// One role's lease, as one candidate sees it.
#[derive(Clone, Debug)]
pub struct Lease {
    pub namespace: String,
    pub name: String,
    /// Unique among candidates and kept over a restart of the container: the pod's name.
    pub identity: String,
    pub duration: Duration,
}

impl Lease {
    /// Long enough for a slow API server, short enough that a crash costs little.
    pub const DURATION: Duration = Duration::from_secs(5);

    /// Takes part until shutdown; the receiver holds the leadership while this process has it. On the beginning of
    /// the drain the lease is released, and another candidate has it within milliseconds.
    ///
    /// `calls` must have a request timeout, `watches` none.
    pub fn campaign(
        self,
        calls: Client,
        watches: Client,
        shutdown: Shutdown,
    ) -> watch::Receiver<Option<Leadership>> {
        let (leadership, receiver) = watch::channel(None);
        tokio::spawn(candidate::Candidate::new(self, calls, watches, leadership).run(shutdown));
        receiver
    }
}
