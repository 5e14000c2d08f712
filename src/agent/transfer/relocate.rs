//! What lies here of a dump is brought to where it can be restored: it becomes a verified archive of this node itself (the
//! source's own, its home), or of another one.
//!
//! Guarantees: only what has the ordered digest is carried, computed anew from every byte; nothing is ever seen under an
//! archive's name that is not whole; repeating it is harmless; it ends within the order's time limit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use tokio::time::{Instant, timeout_at};

use super::archive::{self, MANIFEST, Manifest, Origin, WriteError};
use super::peer::Peer;
use super::receive::Partial;
use crate::agent::context::Node;
use crate::agent::dump::written::written_of;
use crate::agent::failure::Failure;
use crate::agent::restore::settle::Unsettled;
use crate::agent::store::{self, Durability, StoreError};
use crate::api::{CarryOrder, DumpReport, DumpTarget, MigrationUid, Refusal};

/// Does what is ordered.
pub async fn carry(node: &Arc<Node>, uid: &MigrationUid, order: &CarryOrder) -> Result<DumpReport, Failure> {
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(order.timeout_ms);
    node.tickets.pass(uid, |fence| fence.admit_forward(order.epoch))?;
    let found = find(node, uid, order)?;
    let manifest = match &order.target {
        Some(target) => send(node, &found, order, target, deadline).await?,
        None => keep(node, &found, order, deadline).await?,
    };
    let total_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let to = order.target.as_ref().map_or("here", |target| target.node.as_str());
    tracing::info!(migration = %uid, epoch = %order.epoch, to, bytes = manifest.bytes, total_ms, "archive carried");
    Ok(DumpReport::arrived(manifest.digest, manifest.bytes, total_ms))
}

/// What lies here of an epoch.
struct Found {
    dir: PathBuf,
    origin: Origin,
    /// It is a verified archive already.
    verified: Option<Manifest>,
}

/// The verified archive, or else the dump.
fn find(node: &Node, uid: &MigrationUid, order: &CarryOrder) -> Result<Found, Failure> {
    if let Some(manifest) = node.tickets.archive(uid, order.epoch)?
        && manifest.digest == order.digest
    {
        let dir = node.store.archive(uid, order.epoch);
        return Ok(Found { dir, origin: Origin::from(&manifest), verified: Some(manifest) });
    }
    let dir = node.store.dump(uid, order.epoch);
    let Some(containers) = written_of(&dir)? else {
        let what = format!("neither archive nor dump of migration {uid}, epoch {} lies here", order.epoch);
        return Err(Failure::new(Refusal::NoArchive, what));
    };
    let origin = Origin::of(uid, order.epoch, containers);
    Ok(Found { dir, origin, verified: None })
}

async fn send(
    node: &Node,
    found: &Found,
    order: &CarryOrder,
    target: &DumpTarget,
    deadline: Instant,
) -> Result<Manifest, Failure> {
    let peer = Peer::new(&node.tls, target, node.peer_port)?;
    let names = archive::names(&found.dir).map_err(unreadable)?;
    let sizes = names.iter().map(|name| fs::metadata(found.dir.join(name)).map(|file| file.len()));
    let bytes: u64 =
        sizes.sum::<io::Result<_>>().map_err(|source| StoreError { path: found.dir.clone(), source })?;
    peer.reserve(&found.origin.migration, found.origin.epoch, bytes, deadline).await?;
    // What is read is known only at its end: the other side keeps nothing else, and what it has stays.
    let sent = peer.send_only(&found.dir, &found.origin, Some(&order.digest), deadline).await?;
    is_ordered(&sent, order)?;
    Ok(sent)
}

async fn keep(
    node: &Node,
    found: &Found,
    order: &CarryOrder,
    deadline: Instant,
) -> Result<Manifest, Failure> {
    if let Some(manifest) = &found.verified {
        return Ok(manifest.clone());
    }
    let (uid, epoch) = (&found.origin.migration, found.origin.epoch);
    if node.tickets.is_opened(uid, epoch) {
        let what = format!("a ticket of {uid}.{epoch} is open already on the archive that is here");
        return Err(Failure::new(Refusal::StaleEpoch, what));
    }
    let partial = Partial::of(&node.store, uid, epoch);
    let writing = tokio::task::spawn_blocking({
        let (from, to, origin) = (found.dir.clone(), partial.path().to_owned(), found.origin.clone());
        move || gather(&from, &to, &origin)
    });
    let written = timeout_at(deadline, writing).await;
    let written = written.map_err(|_| {
        Failure::new(Refusal::TimedOut, "reading the dump here takes longer than the order allows")
    })?;
    let manifest = written.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))??;
    is_ordered(&manifest, order)?;
    store::write(&partial.path().join(MANIFEST), &manifest, Durability::Process)?;
    node.tickets.pass(uid, |fence| fence.admit_forward(epoch))?; // closed meanwhile?
    let unsettled = Unsettled::hold(partial.path())?;
    let place = node.store.archive(uid, epoch);
    store::remove(&place)?;
    fs::rename(partial.path(), &place).map_err(|source| StoreError { path: place, source })?;
    unsettled.settle_behind();
    Ok(manifest)
}

/// An archive's folder of the same files: nothing is written twice, and the dump stays what it is.
fn gather(from: &Path, to: &Path, origin: &Origin) -> Result<Manifest, Failure> {
    let names = archive::names(from).map_err(unreadable)?;
    let linked = (|| {
        let mut folders = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(folders.recursive(true), 0o700);
        for name in &names {
            let place = to.join(name);
            folders.create(place.parent().unwrap_or(to))?;
            fs::hard_link(from.join(name), place)?;
        }
        Ok(())
    })();
    linked.map_err(|source| StoreError { path: to.to_owned(), source })?;
    archive::write(to, origin, &mut |_| true).map_err(unreadable)
}

fn unreadable(error: WriteError) -> Failure {
    Failure::new(Refusal::RuntimeFailed, error.to_string())
}

fn is_ordered(manifest: &Manifest, order: &CarryOrder) -> Result<(), Failure> {
    if manifest.digest == order.digest {
        return Ok(());
    }
    let what = format!("what lies here has digest {}, not {}", manifest.digest, order.digest);
    Err(Failure::new(Refusal::DigestMismatch, what))
}
