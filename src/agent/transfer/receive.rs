//! Receives an archive from another agent.
//!
//! Guarantees: what is not whole and verified is never seen under an archive's name; memory is bounded; a sender that
//! falls silent is dropped; an archive on which a ticket was opened is never replaced; how fast it came is metered, also of
//! what broke off.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::archive::{MANIFEST, Manifest, ReadError, Reader};
use crate::agent::failure::Failure;
use crate::agent::node::capacity::Meter;
use crate::agent::restore::settle::Unsettled;
use crate::agent::restore::tickets::Tickets;
use crate::agent::store::{self, Durability, Store};
use crate::api::{ArchiveDigest, DumpReport, Epoch, MigrationUid, Refusal};

/// Chunks that wait to be written.
const QUEUE: usize = 8;
/// A sender must show life this often.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the rest of a refused stream is read for nothing.
const DRAIN: Duration = Duration::from_secs(5);
/// Room that must be left beside an archive, for everybody else on the node.
pub const SPARE: u64 = 64 << 20;

/// Is there room for an archive of that size?
pub fn room_for(store: &Store, bytes: u64) -> Result<(), Failure> {
    let free = store.free_bytes()?;
    if free >= bytes.saturating_add(SPARE) {
        return Ok(());
    }
    let what = format!("{free} bytes free for archives, {bytes} and {SPARE} spare needed");
    Err(Failure::new(Refusal::NoSpace, what))
}

/// Takes the stream in `body`; done when the archive is verified and in its place.
pub async fn receive(
    tickets: &Tickets,
    store: &Store,
    meter: &Meter,
    uid: &MigrationUid,
    epoch: Epoch,
    body: Body,
) -> Result<DumpReport, Failure> {
    receive_only(tickets, store, meter, uid, epoch, None, body).await
}

/// As [`receive`], but nothing takes an archive's place that is not the `expected` one.
pub async fn receive_only(
    tickets: &Tickets,
    store: &Store,
    meter: &Meter,
    uid: &MigrationUid,
    epoch: Epoch,
    expected: Option<&ArchiveDigest>,
    body: Body,
) -> Result<DumpReport, Failure> {
    let mut body = body.into_data_stream();
    let mut progress = Progress::new();
    let received = take(tickets, store, uid, epoch, expected, &mut body, &mut progress).await;
    match &received {
        Ok(report) => meter.arrived(report.bytes, Duration::from_millis(report.total_ms)),
        Err(failure) if failure.refusal == Refusal::TransferFailed => {
            meter.broke_off(progress.bytes, progress.took());
        }
        Err(_) => {}
    }
    if received.is_err() {
        // A sender that is cut off while it sends may never read why.
        let _ = timeout(DRAIN, async { while let Some(Ok(_)) = body.next().await {} }).await;
    }
    received
}

/// How far a stream has come.
struct Progress {
    begun: Instant,
    moved: Instant,
    bytes: u64,
}

impl Progress {
    fn new() -> Self {
        let begun = Instant::now();
        Self { begun, moved: begun, bytes: 0 }
    }

    fn came(&mut self, bytes: &Bytes) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.moved = Instant::now();
    }

    /// Until the last bytes came: that then nothing did is not the line's rate.
    fn took(&self) -> Duration {
        self.moved.duration_since(self.begun)
    }
}

async fn take(
    tickets: &Tickets,
    store: &Store,
    uid: &MigrationUid,
    epoch: Epoch,
    expected: Option<&ArchiveDigest>,
    body: &mut BodyDataStream,
    progress: &mut Progress,
) -> Result<DumpReport, Failure> {
    let begun = Instant::now();
    admit(tickets, uid, epoch)?;
    let partial = Partial::of(store, uid, epoch);
    let manifest = write(partial.path.clone(), body, progress).await?;
    if manifest.migration != *uid || manifest.epoch != epoch {
        let what = format!("sent as {uid}.{epoch}, but is of {}.{}", manifest.migration, manifest.epoch);
        return Err(Failure::new(Refusal::DigestMismatch, what));
    }
    if let Some(expected) = expected.filter(|expected| **expected != manifest.digest) {
        let what = format!("what was sent has digest {}, not {expected}", manifest.digest);
        return Err(Failure::new(Refusal::DigestMismatch, what));
    }
    store::write(&partial.path.join(MANIFEST), &manifest, Durability::Process)?;
    admit(tickets, uid, epoch)?; // closed meanwhile?
    let unsettled = Unsettled::hold(&partial.path)?;
    let place = store.archive(uid, epoch);
    store::remove(&place)?; // of an earlier dump of this epoch whose report got lost
    std::fs::rename(&partial.path, &place).map_err(|source| store::StoreError { path: place, source })?;
    unsettled.settle_behind();
    let total_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(migration = %uid, %epoch, bytes = manifest.bytes, total_ms, "archive received");
    Ok(DumpReport::arrived(manifest.digest, manifest.bytes, total_ms))
}

fn admit(tickets: &Tickets, uid: &MigrationUid, epoch: Epoch) -> Result<(), Failure> {
    tickets.pass(uid, |fence| fence.admit_forward(epoch))?;
    if tickets.is_opened(uid, epoch) {
        let what = format!("a ticket of {uid}.{epoch} is open already on the archive that is here");
        return Err(Failure::new(Refusal::StaleEpoch, what));
    }
    Ok(())
}

/// A folder that goes away unless it was renamed.
pub struct Partial {
    path: PathBuf,
}

impl Partial {
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn of(store: &Store, uid: &MigrationUid, epoch: Epoch) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0); // two streams of one archive must not meet
        Self { path: store.partial(uid, epoch, NUMBER.fetch_add(1, Ordering::Relaxed)) }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = store::remove(&self.path) {
            tracing::warn!(%error, "an archive that did not arrive is left");
        }
    }
}

async fn write(
    dir: PathBuf,
    body: &mut BodyDataStream,
    progress: &mut Progress,
) -> Result<Manifest, Failure> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
    let writer = tokio::task::spawn_blocking(move || -> Result<Manifest, ReadError> {
        let mut reader = Reader::new(&dir)?;
        while let Some(bytes) = receiver.blocking_recv() {
            reader.feed(&bytes)?;
        }
        reader.finish()
    });
    let mut broken = None;
    loop {
        match timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(bytes))) => {
                progress.came(&bytes);
                if sender.send(bytes).await.is_err() {
                    break; // the writer has failed and says why
                }
            }
            Ok(Some(Err(error))) => {
                broken = Some(error.to_string());
                break;
            }
            Ok(None) => break,
            Err(_) => {
                broken = Some(format!("nothing came for {} s", SILENCE.as_secs()));
                break;
            }
        }
    }
    drop(sender);
    let written = writer.await.map_err(|error| Failure::new(Refusal::TransferFailed, error.to_string()))?;
    written.map_err(|error| {
        let refusal = match &error {
            _ if error.is_no_space() => Refusal::NoSpace,
            ReadError::Io { .. } => Refusal::RuntimeFailed,
            ReadError::CutOff => Refusal::TransferFailed,
            ReadError::Damaged(_) | ReadError::Digest { .. } => Refusal::DigestMismatch,
        };
        let cause = broken.map_or_else(String::new, |cause| format!(": {cause}"));
        Failure::new(refusal, format!("{error}{cause}"))
    })
}
