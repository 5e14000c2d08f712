//! One candidate: follows the lease until it may take it, leads while it can renew it. Calls the Kubernetes API.

use std::{pin::pin, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::{api::coordination::v1::Lease as Object, jiff::Timestamp};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Leadership, Lease,
    observation::{Observation, claimed, epoch, holder, released, renewed},
};
use crate::kit::Shutdown;

/// After a failed claim or renewal.
const RETRY: Duration = Duration::from_millis(300);

pub(super) struct Candidate {
    terms: Lease,
    calls: Api<Object>,
    watches: Api<Object>,
    leadership: watch::Sender<Option<Leadership>>,
}

impl Candidate {
    pub fn new(
        terms: Lease,
        calls: Client,
        watches: Client,
        leadership: watch::Sender<Option<Leadership>>,
    ) -> Self {
        let calls = Api::namespaced(calls, &terms.namespace);
        let watches = Api::namespaced(watches, &terms.namespace);
        Self { terms, calls, watches, leadership }
    }

    pub async fn run(self, shutdown: Shutdown) {
        while let Some((lease, since)) = self.follow(&shutdown).await {
            let epoch = epoch(&lease);
            tracing::info!(lease = self.terms.name, epoch, "leading");
            self.leadership.send_replace(Some(Leadership { epoch }));
            let last = self.lead(lease, since, &shutdown).await;
            self.leadership.send_replace(None);
            tracing::info!(lease = self.terms.name, epoch, "no longer leading");
            if shutdown.is_draining() {
                self.release(&last).await;
            }
        }
    }

    /// Watches until the lease could be claimed; with it the instant before the claim. `None`: shutdown.
    async fn follow(&self, shutdown: &Shutdown) -> Option<(Object, Instant)> {
        let mut states =
            pin!(watcher::watch_object(self.watches.clone(), &self.terms.name).default_backoff());
        let mut seen: Option<Observation> = None;
        let mut not_before = Instant::now();
        loop {
            let claim_at = seen.as_ref().map(|seen| seen.claimable_at(&self.terms.identity).max(not_before));
            tokio::select! {
                biased;
                () = shutdown.drain_started() => return None,
                state = states.next() => match state? {
                    Ok(lease) => match &mut seen {
                        Some(seen) => seen.update(lease, Instant::now()),
                        None => seen = Some(Observation::first(lease, Instant::now())),
                    },
                    Err(error) => tracing::debug!(%error, "lease watch interrupted"),
                },
                () = sleep_until(claim_at.unwrap_or_else(Instant::now)), if claim_at.is_some() => {
                    let begun = Instant::now();
                    let lease = seen.as_ref().and_then(|seen| seen.lease.as_ref());
                    match self.claim(lease).await {
                        Some(lease) => return Some((lease, begun)),
                        None => {
                            not_before = Instant::now() + RETRY;
                            // A watch may be silent for minutes where its API server died.
                            if let (Some(seen), Some(live)) = (&mut seen, self.live().await) {
                                seen.update(Some(live), Instant::now());
                            }
                        }
                    }
                }
            }
        }
    }

    async fn claim(&self, seen: Option<&Object>) -> Option<Object> {
        let wanted = claimed(&self.terms, seen, Timestamp::now());
        let parameters = PostParams::default();
        let call = async {
            match seen {
                Some(_) => self.calls.replace(&self.terms.name, &parameters, &wanted).await,
                None => self.calls.create(&parameters, &wanted).await,
            }
        };
        match timeout(self.interval(), call).await {
            Ok(Ok(lease)) => Some(lease),
            Ok(Err(error)) => {
                tracing::debug!(%error, "lease not claimed"); // mostly: another candidate was faster
                None
            }
            Err(_) => None, // if it was claimed all the same, the watch says so
        }
    }

    async fn live(&self) -> Option<Object> {
        match timeout(self.interval(), self.calls.get_opt(&self.terms.name)).await {
            Ok(Ok(live)) => live,
            Ok(Err(error)) => {
                tracing::debug!(%error, "lease not read");
                None
            }
            Err(_) => None,
        }
    }

    /// Renews until that fails for too long, somebody else holds it, or shutdown. Gives the last version seen.
    async fn lead(&self, mut lease: Object, mut renewed_at: Instant, shutdown: &Shutdown) -> Object {
        let mut next = renewed_at + self.interval();
        loop {
            let deadline = renewed_at + self.patience();
            tokio::select! {
                biased;
                () = shutdown.drain_started() => return lease,
                () = sleep_until(next.min(deadline)) => {}
            }
            let begun = Instant::now();
            if begun >= deadline {
                tracing::warn!(lease = self.terms.name, "not renewed in time");
                return lease;
            }
            match timeout(deadline - begun, self.renew(&lease)).await {
                Ok(Ok(current)) => {
                    let still_ours = holder(Some(&current)) == Some(&self.terms.identity)
                        && epoch(&current) == epoch(&lease);
                    lease = current;
                    if !still_ours {
                        return lease;
                    }
                    renewed_at = begun;
                    next = begun + self.interval();
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, lease = self.terms.name, "lease not renewed, trying again");
                    next = Instant::now() + RETRY;
                }
                Err(_) => {} // the deadline has come
            }
        }
    }

    /// Renews, or after a conflict gives what is there now: then it was not renewed but is fresh in our hands.
    async fn renew(&self, lease: &Object) -> Result<Object, kube::Error> {
        let wanted = renewed(lease, Timestamp::now());
        match self.calls.replace(&self.terms.name, &PostParams::default(), &wanted).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let current = self.calls.get(&self.terms.name).await?;
                if holder(Some(&current)) != Some(&self.terms.identity) || epoch(&current) != epoch(lease) {
                    return Ok(current);
                }
                let wanted = renewed(&current, Timestamp::now());
                self.calls.replace(&self.terms.name, &PostParams::default(), &wanted).await
            }
            answer => answer,
        }
    }

    async fn release(&self, lease: &Object) {
        if holder(Some(lease)) != Some(&self.terms.identity) {
            return;
        }
        let free = released(lease);
        let parameters = PostParams::default();
        let call = self.calls.replace(&self.terms.name, &parameters, &free);
        match timeout(self.interval(), call).await {
            Ok(Ok(_)) => tracing::info!(lease = self.terms.name, "released"),
            Ok(Err(error)) => tracing::warn!(%error, "lease not released, it will expire"),
            Err(_) => tracing::warn!("lease not released in time, it will expire"),
        }
    }

    /// Between renewals.
    fn interval(&self) -> Duration {
        self.terms.duration / 3
    }

    /// From a renewal on the holder acts for so long; others wait for the whole duration.
    fn patience(&self) -> Duration {
        self.terms.duration * 4 / 5
    }
}
