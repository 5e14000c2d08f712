//! Tickets and epochs of this node: who may restore what, and what is over. Keeps them in memory and on disk.
//!
//! Guarantees: a change is on disk before anybody is told; restarting the agent loses no ticket and no tombstone; every
//! wait ends with a change or its deadline. What becomes of restored processes is in `lives`, the end of a migration in
//! `closing`.

mod awaiting;
mod closing;
mod lives;
mod whole;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::fence::{Fence, Stale};
use super::processes::Processes;
use super::settle;
use super::ticket::{NotOpened, Opening, PartState, Ticket, Verdict, without_restore};
use crate::agent::failure::Failure;
use crate::agent::node::containers::Containers;
use crate::agent::store::{self, Durability, Store, StoreError};
use crate::agent::transfer::archive::{MANIFEST, Manifest};
use crate::api::{
    ClaimRequest, Epoch, Life, MigrationUid, OpenTicketOrder, PodUid, Refusal, RestoreFault, RestoreOutcome,
    Role, TicketId, TicketState,
};
use closing::Tombstone;
pub use whole::CalledOff;

/// That a pod has left the node, or that a file was cut short, is no event: it is looked for this often.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A restore is not put on record.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its ticket was spent meanwhile")]
    Spent,
}

/// The node's tickets.
pub struct Tickets {
    store: Store,
    containers: Containers,
    processes: Arc<dyn Processes>,
    book: Mutex<Book>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    fences: HashMap<MigrationUid, Fence>,
    tickets: HashMap<TicketId, Entry>,
    /// Restored containers of closed migrations that were never let go.
    to_kill: Vec<String>,
    /// Pods of closed migrations that must not start fresh.
    barred: BTreeSet<PodUid>,
}

struct Entry {
    ticket: Ticket,
    /// Restores that failed since the agent started, and how many of them an `await` has told.
    failures: u64,
    told: u64,
    /// Containers that somebody restores, as far as we have heard, whatever became of the ticket meanwhile.
    restoring: BTreeSet<String>,
    /// When the last of its containers was let go, or all were found running by this agent.
    runs_since: Option<Instant>,
}

impl Entry {
    fn new(ticket: Ticket) -> Self {
        let runs_since = (ticket.state() == TicketState::Started).then(Instant::now);
        Self { ticket, failures: 0, told: 0, restoring: BTreeSet::new(), runs_since }
    }
}

impl Tickets {
    /// Reads what is on disk and sweeps what nobody needs any more.
    pub fn open(store: Store, containers: Containers) -> Result<Self, StoreError> {
        let processes = Arc::new(containers.clone());
        Self::over(store, containers, processes)
    }

    /// As [`Self::open`], with other hands to touch processes with.
    pub fn over(
        store: Store,
        containers: Containers,
        processes: Arc<dyn Processes>,
    ) -> Result<Self, StoreError> {
        store.sweep_partial()?;
        settle::remove_unsettled(&store)?;
        let mut book = Book::default();
        for uid in store.fences()? {
            // Not forced to the disk: of a machine that lost its power no process is left that a late order could move.
            let fence = store::read_intact(&store.epochs(&uid))?.unwrap_or_default();
            book.fences.insert(uid.clone(), fence);
        }
        for uid in store.tombstones()? {
            let Some(tombstone) = Tombstone::reviewed(&store, &containers, &uid)? else {
                book.fences.remove(&uid);
                continue;
            };
            book.fences.entry(uid).or_default().closed = Some(tombstone.epoch);
            book.to_kill.extend(tombstone.held);
            book.barred.extend(tombstone.barred);
        }
        for id in store.tickets()? {
            let path = store.ticket(&id);
            if book.fences.get(&id.migration).is_some_and(|fence| fence.is_closed(id.epoch)) {
                store::remove(&path)?;
                continue;
            }
            // Not forced to the disk: one that is lost is opened anew by the operator.
            let Some(mut ticket) = store::read_intact::<Ticket>(&path)? else { continue };
            let is_gone = ticket.holder.as_ref().is_none_or(|holder| !containers.knows_pod(&holder.pod));
            let lasts = ticket.opened.is_some() || ticket.spent;
            if ticket.is_forgettable() || (is_gone && !lasts) {
                // Whoever waits for it asks again; whoever is gone leaves nothing behind.
                store::remove(&path)?;
                continue;
            }
            // Whoever restores reports again, or asks again.
            ticket.broken_off();
            book.tickets.insert(id, Entry::new(ticket));
        }
        let changes = watch::Sender::new(0);
        let tickets = Self { store, containers, processes, book: Mutex::new(book), changes };
        tickets.sweep_archives()?;
        tickets.sweep_kept()?;
        Ok(tickets)
    }

    /// What is known of a migration's epochs.
    pub fn fence(&self, uid: &MigrationUid) -> Fence {
        self.book.lock().fences.get(uid).copied().unwrap_or_default()
    }

    /// Checks an order's epoch, and keeps what it teaches.
    pub fn pass(
        &self,
        uid: &MigrationUid,
        check: impl FnOnce(&mut Fence) -> Result<(), Stale>,
    ) -> Result<(), Failure> {
        let mut book = self.book.lock();
        let known = book.fences.get(uid).copied();
        let mut fence = known.unwrap_or_default();
        check(&mut fence)?;
        if known != Some(fence) {
            store::write(&self.store.epochs(uid), &fence, Durability::Process)?;
            book.fences.insert(uid.clone(), fence);
            drop(book);
            self.changed();
        }
        Ok(())
    }

    /// The verified archive of that epoch, if it lies here.
    pub fn archive(&self, uid: &MigrationUid, epoch: Epoch) -> Result<Option<Manifest>, StoreError> {
        store::read(&self.store.archive(uid, epoch).join(MANIFEST))
    }

    /// True if a ticket is open on the archive of that epoch: it must not be replaced any more.
    pub fn is_opened(&self, uid: &MigrationUid, epoch: Epoch) -> bool {
        let book = self.book.lock();
        let is_open = |ticket: &Ticket| ticket.opened.is_some() && !ticket.spent;
        let mut tickets = book.tickets.iter();
        tickets.any(|(id, entry)| id.migration == *uid && id.epoch == epoch && is_open(&entry.ticket))
    }

    /// Lets a ticket be redeemed. From the second life on it reads the whole archive: the first may have failed by it.
    pub fn open_ticket(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &OpenTicketOrder,
    ) -> Result<(), Failure> {
        self.pass(uid, |fence| fence.admit_forward(order.epoch))?;
        let Some(manifest) = self.archive(uid, order.epoch)? else {
            let what = format!("no archive of migration {uid}, epoch {} on this node", order.epoch);
            return Err(Failure::new(Refusal::DigestMismatch, what));
        };
        if manifest.digest != order.digest || manifest.container != order.container {
            let what = format!(
                "the archive here is of container {} with digest {}, not of {} with {}",
                manifest.container, manifest.digest, order.container, order.digest
            );
            return Err(Failure::new(Refusal::DigestMismatch, what));
        }
        self.whole(&manifest).map_err(|what| Failure::new(Refusal::DigestMismatch, what))?;
        let (containers, digest) = (manifest.containers().cloned().collect(), order.digest.clone());
        let opening = Opening { containers, digest, purpose: order.purpose, once: order.once };
        let id = TicketId { migration: uid.clone(), epoch: order.epoch, role, life: order.life };
        let known = self.book.lock().tickets.get(&id).and_then(|entry| entry.ticket.opened.clone());
        if order.life > Life::FIRST && known.is_none() {
            self.verify(&manifest)?;
        }
        let opened = self.change(&id, |ticket| ticket.open(opening))?;
        opened.map_err(|error: NotOpened| Failure::new(Refusal::StaleEpoch, format!("ticket {id}: {error}")))
    }

    /// Claims a ticket, as often as needed, until there is a verdict or the deadline passes (then it is `Wait`).
    pub async fn claim(&self, request: &ClaimRequest, deadline: Instant) -> Result<Verdict, StoreError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            self.end_unheard(request).await;
            let verdict = self.claim_once(request)?;
            if verdict != Verdict::Wait || Instant::now() >= deadline {
                return Ok(verdict);
            }
            let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), changes.changed()).await;
        }
    }

    fn claim_once(&self, request: &ClaimRequest) -> Result<Verdict, StoreError> {
        let id = &request.ticket;
        let fence = self.fence(&id.migration);
        if fence.is_closed(id.epoch) {
            let tombstone = store::read::<Tombstone>(&self.store.tombstone(&id.migration))?;
            if tombstone.is_some_and(|tombstone| tombstone.restored.contains(&request.container_id)) {
                return Ok(Verdict::Recorded);
            }
            if self.book.lock().barred.contains(&request.pod) {
                let reason = "its init containers have not run, as it was to be restored: delete the pod";
                return Ok(Verdict::Refuse(reason.to_owned()));
            }
            let reason = format!("epoch {} of migration {} is closed", id.epoch, id.migration);
            return Ok(without_restore(id.role, reason));
        }
        if fence.is_over(id.epoch) {
            // Its state may still be restored by a later ticket: starting fresh would be a second life beside it.
            let reason =
                format!("epoch {} of migration {} is over, and another has begun", id.epoch, id.migration);
            return Ok(Verdict::Refuse(reason));
        }
        let earlier = self.book.lock().tickets.get(id).map(|entry| entry.ticket.clone()).unwrap_or_default();
        if self.lives_elsewhere(&earlier, request) {
            return Ok(Verdict::Wait);
        }
        let gone = earlier.holder.is_some_and(|h| h.pod != request.pod && !self.containers.has_task(&h.pod));
        let verdict = self.change(id, |ticket| ticket.claim(id.role, request, gone))?;
        if verdict == Verdict::Complete && self.fence(&id.migration).is_closed(id.epoch) {
            // Closed since it was looked at: either with this pod among the barred, or before its ticket was there.
            self.book.lock().tickets.remove(id);
            store::remove(&self.store.ticket(id))?;
            return self.claim_once(request);
        }
        if verdict == Verdict::Restore {
            let manifest = self.archive(&id.migration, id.epoch)?;
            let whole = manifest.map_or_else(|| Err("its archive is gone".to_owned()), |it| self.whole(&it));
            if let Err(reason) = whole {
                let outcome =
                    RestoreOutcome::Failed { reason: reason.clone(), fault: RestoreFault::ArchiveDamaged };
                return match self.ended(id, &request.container, &outcome) {
                    Ok(()) | Err(NotRecorded::Spent) => Ok(Verdict::Refuse(reason)),
                    Err(NotRecorded::Store(error)) => Err(error),
                };
            }
        }
        Ok(verdict)
    }

    /// A claimant went away while it waited. A ticket that was not opened is then as if nobody had asked: its attempt
    /// may end without anybody knowing that it was shown on this node. Others who wait for it ask again by themselves.
    pub fn left(&self, id: &TicketId) -> Result<(), StoreError> {
        let mut book = self.book.lock();
        if book.tickets.get(id).is_none_or(|entry| !entry.ticket.is_forgettable()) {
            return Ok(());
        }
        store::remove(&self.store.ticket(id))?;
        book.tickets.remove(id);
        drop(book);
        self.changed();
        Ok(())
    }

    /// Notes how a restore of that container ended.
    pub fn ended(&self, id: &TicketId, container: &str, outcome: &RestoreOutcome) -> Result<(), NotRecorded> {
        let is_known = self.book.lock().tickets.contains_key(id);
        let noted = match outcome {
            RestoreOutcome::Restored | RestoreOutcome::Filled { .. } if !is_known => Ok(false),
            RestoreOutcome::Restored => Ok(self.change(id, |ticket| ticket.restored(container))?),
            RestoreOutcome::Filled { shm } => Ok(self.change(id, |ticket| ticket.filled(container, *shm))?),
            RestoreOutcome::Failed { reason, fault } => {
                let gave_back = self.gave_back(id, |ticket| {
                    let was = ticket.parts.get(container).map(|part| part.state);
                    ticket.failed(container, *fault, reason.clone());
                    was == Some(PartState::Restoring)
                });
                gave_back.map(|()| true)
            }
        };
        if let Some(entry) = self.book.lock().tickets.get_mut(id) {
            entry.restoring.remove(container);
        }
        self.changed();
        if noted? { Ok(()) } else { Err(NotRecorded::Spent) }
    }

    /// In memory first, and also where the disk is full: else nobody would ever restore by this ticket. To the next life
    /// of the agent the older record on disk means the same. `change` says whether that is news.
    fn gave_back(&self, id: &TicketId, change: impl FnOnce(&mut Ticket) -> bool) -> Result<(), StoreError> {
        let mut book = self.book.lock();
        let Some(entry) = book.tickets.get_mut(id) else { return Ok(()) };
        if !change(&mut entry.ticket) {
            return Ok(());
        }
        entry.failures += 1;
        let written = store::write(&self.store.ticket(id), &entry.ticket, durability(&entry.ticket));
        drop(book);
        self.changed();
        written
    }

    /// Changes a ticket, on disk first; one that does not exist is made.
    fn change<T>(&self, id: &TicketId, change: impl FnOnce(&mut Ticket) -> T) -> Result<T, StoreError> {
        self.change_in(self.book.lock(), id, change)
    }

    /// The same, but none is made: it may have been closed meanwhile.
    fn change_known(&self, id: &TicketId, change: impl FnOnce(&mut Ticket)) -> Result<(), StoreError> {
        let book = self.book.lock();
        if book.tickets.contains_key(id) { self.change_in(book, id, change) } else { Ok(()) }
    }

    fn change_in<T>(
        &self,
        mut book: MutexGuard<'_, Book>,
        id: &TicketId,
        change: impl FnOnce(&mut Ticket) -> T,
    ) -> Result<T, StoreError> {
        let known = book.tickets.get(id).map(|entry| entry.ticket.clone());
        let mut ticket = known.clone().unwrap_or_default();
        let result = change(&mut ticket);
        if known.as_ref() != Some(&ticket) {
            store::write(&self.store.ticket(id), &ticket, durability(&ticket))?;
            let entry = book.tickets.entry(id.clone()).or_insert_with(|| Entry::new(Ticket::default()));
            let restoring = ticket.parts.iter().filter(|(_, part)| part.state == PartState::Restoring);
            entry.restoring.extend(restoring.map(|(name, _)| name.clone()));
            match ticket.state() {
                TicketState::Started => drop(entry.runs_since.get_or_insert_with(Instant::now)),
                TicketState::Closed => {}
                _ => entry.runs_since = None,
            }
            entry.ticket = ticket;
            drop(book);
            self.changed();
        }
        Ok(result)
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }
}

/// What has run on its volumes has written what outlasts a power failure: that it has run must outlast it too.
fn durability(ticket: &Ticket) -> Durability {
    if ticket.lived { Durability::Disk } else { Durability::Process }
}

#[cfg(test)]
mod tests;
