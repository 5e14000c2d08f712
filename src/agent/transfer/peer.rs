//! Another node's agent (or our own): asks for room, streams an archive, hears whether it arrived whole.
//!
//! Guarantees: bounded memory; reading, hashing and sending overlap; a dump that cannot be read to its end reaches the
//! other side as a broken stream, never as a short archive.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::poll_fn;
use reqwest::{Body, Client, RequestBuilder};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::archive::{self, Manifest, Origin, WriteError};
use crate::agent::failure::Failure;
use crate::api::{
    ArchiveDigest, DumpReport, DumpTarget, Epoch, MigrationUid, OrderError, Refusal, tls_name_agent,
};
use crate::kit::peer_client;
use crate::kit::tls::TlsStore;

/// Chunks that wait to be sent.
const QUEUE: usize = 8;
/// A peer that takes nothing and answers nothing this long is gone: a dead node sends no farewell.
const STALL: Duration = Duration::from_secs(5);

/// The agent that receives an archive.
#[derive(Clone, Debug)]
pub struct Peer {
    client: Client,
    node: String,
    base: String,
}

impl Peer {
    /// Opens no connection yet.
    pub fn new(tls: &TlsStore, target: &DumpTarget, port: u16) -> Result<Self, Failure> {
        let node = target.node.to_string();
        let address = target.address.parse().map_err(|error| {
            Failure::new(Refusal::Malformed, format!("address {:?} of node {node}: {error}", target.address))
        })?;
        let name = tls_name_agent(&node);
        let client = peer_client(tls, &name, SocketAddr::new(address, port))
            .map_err(|error| Failure::new(Refusal::TransferFailed, error.to_string()))?;
        Ok(Self { client, base: format!("https://{name}:{port}"), node })
    }

    /// Asks for room for `bytes` before anything is stopped; opens the connection that the archive will use.
    pub async fn reserve(
        &self,
        uid: &MigrationUid,
        epoch: Epoch,
        bytes: u64,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let url = format!("{}/v1/migrations/{uid}/archive?epoch={epoch}&bytes={bytes}", self.base);
        self.answer(self.client.post(url), deadline.min(Instant::now() + STALL)).await.map(drop)
    }

    /// Streams the dump in `dir`; done when the other side has verified it.
    pub async fn send(&self, dir: &Path, origin: &Origin, deadline: Instant) -> Result<Manifest, Failure> {
        self.send_only(dir, origin, None, deadline).await
    }

    /// As [`Self::send`], but the other side keeps only what has the `expected` digest.
    pub async fn send_only(
        &self,
        dir: &Path,
        origin: &Origin,
        expected: Option<&ArchiveDigest>,
        deadline: Instant,
    ) -> Result<Manifest, Failure> {
        let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(QUEUE);
        let writer = tokio::task::spawn_blocking({
            let (dir, origin) = (dir.to_owned(), origin.clone());
            let runtime = tokio::runtime::Handle::current();
            move || {
                // With a limit: a connection to a dead node holds on to the other end of the queue.
                let taken = |bytes| runtime.block_on(sender.send_timeout(Ok(bytes), 2 * STALL)).is_ok();
                let written = archive::write(&dir, &origin, &mut |bytes| taken(bytes));
                if let Err(error) = &written {
                    let broken = Err(io::Error::other(error.to_string()));
                    let _ = runtime.block_on(sender.send_timeout(broken, 2 * STALL));
                }
                written
            }
        });
        let mut url =
            format!("{}/v1/migrations/{}/archive?epoch={}", self.base, origin.migration, origin.epoch);
        if let Some(expected) = expected {
            url = format!("{url}&digest={expected}");
        }
        let (moved, progress) = watch::channel(Instant::now());
        let body = Body::wrap_stream(poll_fn(move |context| {
            moved.send_replace(Instant::now());
            receiver.poll_recv(context)
        }));
        let answer = tokio::select! {
            answer = self.answer(self.client.put(url).body(body), deadline) => answer,
            // The writer is not waited for: it gives up by itself.
            () = stalled(progress) => return Err(self.failed(format!("took nothing for {STALL:?}"))),
        };
        let written = writer.await.map_err(|error| self.failed(error))?;
        let (answer, sent) = match (answer, written) {
            (answer, Ok(sent)) => (answer?, sent),
            // The other side's reason is the cause, ours only that nobody listened any more.
            (Err(failure), Err(WriteError::BrokenOff)) => return Err(failure),
            (_, Err(error)) => return Err(Failure::new(Refusal::RuntimeFailed, error.to_string())),
        };
        let report: DumpReport = serde_json::from_slice(&answer).map_err(|error| self.failed(error))?;
        if report.digest != sent.digest {
            let what = format!("sent {}, but {} says {}", sent.digest, self.node, report.digest);
            return Err(Failure::new(Refusal::DigestMismatch, what));
        }
        Ok(sent)
    }

    async fn answer(&self, request: RequestBuilder, deadline: Instant) -> Result<Bytes, Failure> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let response = request.timeout(left).send().await.map_err(|error| self.failed(error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.failed(error))?;
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<OrderError>(&body) {
            Ok(error) => {
                Err(Failure::new(error.refusal, format!("agent of node {}: {}", self.node, error.message)))
            }
            Err(_) => Err(self.failed(format!("HTTP {status}"))),
        }
    }

    fn failed(&self, error: impl ToString + 'static) -> Failure {
        let mut message = format!("agent of node {}: {}", self.node, error.to_string());
        // reqwest keeps the interesting part in its sources.
        if let Some(error) = (&error as &dyn std::any::Any).downcast_ref::<reqwest::Error>() {
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                message = format!("{message}: {cause}");
                source = cause.source();
            }
        }
        Failure::new(Refusal::TransferFailed, message)
    }
}

/// Resolves when there was no progress for [`STALL`].
async fn stalled(progress: watch::Receiver<Instant>) {
    loop {
        let last = *progress.borrow();
        tokio::time::sleep_until(last + STALL).await;
        if *progress.borrow() == last {
            return;
        }
    }
}
