//! The end of a migration on this node: its tickets are spent, its archives removed or kept for a person, its UID is
//! remembered.
//!
//! Guarantees: a tombstone is on the disk before anything goes; what was restored and never let go does not outlive it;
//! what is kept for a person is kept a day and no longer.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::ticket::PartState;
use super::Tickets;
use crate::agent::dump::written::is_written;
use crate::agent::failure::Failure;
use crate::agent::node::containers::Containers;
use crate::agent::store::{self, Durability, Store, StoreError};
use crate::api::{Epoch, Kept, MigrationReport, MigrationUid, PodUid, TicketId};

/// Tombstones are kept at least this long, and as long as a pod that could show its ticket is on the node.
pub(super) const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 3600);
/// Archives that a person may still want.
const KEPT_AGE: Duration = Duration::from_secs(24 * 3600);

/// What is left of a closed migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tombstone {
    pub epoch: Epoch,
    pub at: Timestamp,
    /// Pods that held its tickets.
    pub pods: Vec<PodUid>,
    /// Containers that were restored by them and let go: their processes live on, whether their `create` has heard it or
    /// not.
    #[serde(default)]
    pub restored: Vec<String>,
    /// Containers that were restored by them and never let go: they are killed.
    #[serde(default)]
    pub held: Vec<String>,
    /// Pods that must not start fresh.
    #[serde(default)]
    pub barred: Vec<PodUid>,
    /// The archive of its last epoch is kept for a person.
    #[serde(default)]
    pub keep: bool,
}

impl Tombstone {
    /// As it lies on disk; one that nobody needs any more is removed, with what else is left of its migration.
    pub fn reviewed(
        store: &Store,
        containers: &Containers,
        uid: &MigrationUid,
    ) -> Result<Option<Self>, StoreError> {
        let path = store.tombstone(uid);
        let Some(tombstone) = store::read::<Self>(&path)? else { return Ok(None) };
        let young = tombstone.at + TOMBSTONE_AGE > Timestamp::now();
        if young || tombstone.pods.iter().any(|pod| containers.knows_pod(pod)) {
            return Ok(Some(tombstone));
        }
        store::remove(&path)?;
        store::remove(&store.epochs(uid))?;
        Ok(None)
    }
}

impl Tickets {
    /// Ends everything up to that epoch: tickets are spent, archives and dumps removed, the migration remembered. With
    /// `keep` the archive of that epoch is put aside for a day.
    pub fn close(&self, uid: &MigrationUid, epoch: Epoch, keep: bool) -> Result<(), Failure> {
        let mut book = self.book.lock();
        let mut fence = book.fences.get(uid).copied().unwrap_or_default();
        fence.close(epoch)?;
        let closed = fence.closed.unwrap_or(epoch);
        let path = self.store.tombstone(uid);
        let mut tombstone = store::read::<Tombstone>(&path)?.unwrap_or_else(|| Tombstone {
            epoch: closed,
            at: Timestamp::now(),
            pods: Vec::new(),
            restored: Vec::new(),
            held: Vec::new(),
            barred: Vec::new(),
            keep: false,
        });
        (tombstone.epoch, tombstone.at) = (closed, Timestamp::now());
        tombstone.keep |= keep;
        let spent: Vec<TicketId> = book
            .tickets
            .keys()
            .filter(|id| id.migration == *uid && fence.is_closed(id.epoch))
            .cloned()
            .collect();
        for id in &spent {
            let Some(ticket) = book.tickets.get(id).map(|entry| &entry.ticket) else { continue };
            let Some(holder) = &ticket.holder else { continue };
            if let Some(pod) = ticket.barred().filter(|pod| !tombstone.barred.contains(pod)) {
                tombstone.barred.push(pod.clone());
            }
            tombstone.pods.push(holder.pod.clone());
            for (_, part) in ticket.lives_in() {
                let of_their_kind = match part.state {
                    PartState::Started => &mut tombstone.restored,
                    _ => &mut tombstone.held,
                };
                of_their_kind.push(part.container_id.clone());
            }
            tombstone.held.extend(ticket.ending().map(str::to_owned));
        }
        tombstone.pods.sort();
        tombstone.pods.dedup();
        // Before anything goes: a crash in between must not let a ticket wait for an archive that is gone.
        store::write(&path, &tombstone, Durability::Disk)?;
        book.to_kill.extend(tombstone.held);
        book.barred.extend(tombstone.barred);
        book.fences.insert(uid.clone(), fence);
        for id in spent {
            book.tickets.remove(&id);
            store::remove(&self.store.ticket(&id))?;
        }
        drop(book);
        self.changed();
        self.sweep_archives()?;
        Ok(())
    }

    pub(super) fn sweep_archives(&self) -> Result<(), StoreError> {
        for (uid, epoch) in self.store.archives()? {
            if self.fence(&uid).is_closed(epoch) {
                self.put_away(&uid, epoch, true)?;
            }
        }
        for (uid, epoch) in self.store.dumps()? {
            if self.fence(&uid).is_closed(epoch) {
                // One whose stream broke off is whole all the same.
                self.put_away(&uid, epoch, is_written(&self.store.dump(&uid, epoch)))?;
            }
        }
        Ok(())
    }

    fn put_away(&self, uid: &MigrationUid, epoch: Epoch, whole: bool) -> Result<(), StoreError> {
        let tombstone = store::read::<Tombstone>(&self.store.tombstone(uid))?;
        let is_kept = tombstone.is_some_and(|tombstone| tombstone.keep && tombstone.epoch == epoch);
        let kept = self.store.kept_archive(uid, epoch);
        for place in [self.store.archive(uid, epoch), self.store.dump(uid, epoch)] {
            if place.exists() && is_kept && whole && !kept.exists() {
                store::write(&self.store.kept_since(&place), &Timestamp::now(), Durability::Disk)?;
                std::fs::rename(&place, &kept)
                    .map_err(|source| StoreError { path: place.clone(), source })?;
                tracing::info!(migration = %uid, %epoch, place = %kept.display(), "kept for a day");
            }
            store::remove(&place)?;
        }
        Ok(())
    }

    /// Removes what was kept for a person long enough.
    pub fn sweep_kept(&self) -> Result<(), StoreError> {
        for place in self.store.kept_archives()? {
            let since = store::read_intact::<Timestamp>(&self.store.kept_since(&place))?;
            if since.is_none_or(|since| since + KEPT_AGE <= Timestamp::now()) {
                store::remove(&place)?;
            }
        }
        Ok(())
    }

    /// What this node knows of a migration.
    pub fn report(&self, uid: &MigrationUid) -> Result<MigrationReport, StoreError> {
        let fence = self.fence(uid);
        let book = self.book.lock();
        let of_epoch = |id: &TicketId| id.migration == *uid && id.epoch == fence.seen;
        let tickets = book.tickets.iter().filter(|(id, _)| of_epoch(id));
        Ok(MigrationReport {
            epoch: fence.seen,
            archive: self.archive(uid, fence.seen)?.map(|manifest| manifest.digest),
            tickets: tickets.map(|(id, entry)| (id.part(), entry.ticket.state())).collect(),
            closed: fence.is_closed(fence.seen) && fence.closed.is_some(),
        })
    }

    /// What lies here and was not closed, and the pods here that nothing starts any more.
    pub fn kept(&self) -> Result<Kept, StoreError> {
        let tickets = self.store.tickets()?.into_iter().map(|id| (id.migration, id.epoch));
        let mut kept = Kept::default();
        for (uid, epoch) in self.store.archives()?.into_iter().chain(self.store.dumps()?).chain(tickets) {
            // Closed is everything up to what was seen, or nothing.
            let seen = self.fence(&uid).seen;
            let largest = kept.migrations.entry(uid).or_insert(epoch);
            *largest = epoch.max(*largest).max(seen);
        }
        let barred = self.book.lock().barred.clone();
        kept.barred = barred.into_iter().filter(|pod| self.containers.knows_pod(pod)).collect();
        Ok(kept)
    }
}
