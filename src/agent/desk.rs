//! Tickets and epochs of this node: who may restore what, and what is over. Keeps them in memory and on disk.
//!
//! Guarantees: a change is on disk before anybody is told; restarting the agent loses no ticket and no tombstone; every
//! wait ends with a change or its deadline.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::archive::{MANIFEST, Manifest};
use super::containers::Containers;
use super::failure::Failure;
use super::fence::{Fence, Stale};
use super::settle;
use super::store::{self, Durability, Store, StoreError};
use super::ticket::{Holder, Opening, Ticket, Verdict, without_restore};
use crate::api::{
    AwaitOrder, AwaitedTicket, ClaimRequest, Epoch, Kept, MigrationReport, MigrationUid, OpenTicketOrder,
    PodUid, Refusal, RestoreOutcome, Role, TicketId, TicketState,
};

/// Tombstones are kept at least this long, and as long as a pod that could show its ticket is on the node.
const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 3600);
/// That a pod has left the node is no event: waiting claims look again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Nor is it one that the engine has started a container.
const LOOK_FOR_START: Duration = Duration::from_millis(5);

/// What is left of a closed migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tombstone {
    epoch: Epoch,
    at: Timestamp,
    /// Pods that held its tickets.
    pods: Vec<PodUid>,
    /// Containers that were restored by them: their processes live on, whether their `create` has heard it or not.
    #[serde(default)]
    restored: Vec<String>,
}

/// The node's tickets.
pub struct Desk {
    store: Store,
    containers: Containers,
    book: Mutex<Book>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Book {
    fences: HashMap<MigrationUid, Fence>,
    tickets: HashMap<TicketId, Entry>,
}

struct Entry {
    ticket: Ticket,
    /// Restores that failed since the agent started, and how many of them an `await` has told.
    failures: u64,
    told: u64,
}

impl Entry {
    fn new(ticket: Ticket) -> Self {
        Self { ticket, failures: 0, told: 0 }
    }
}

impl Desk {
    /// Reads what is on disk and sweeps what nobody needs any more.
    pub fn open(store: Store, containers: Containers) -> Result<Self, StoreError> {
        store.sweep_partial()?;
        settle::remove_unsettled(&store)?;
        let mut book = Book::default();
        for uid in store.fences()? {
            // Not forced to the disk: of a machine that lost its power no process is left that a late order could move.
            let fence = store::read_intact(&store.epochs(&uid))?.unwrap_or_default();
            book.fences.insert(uid.clone(), fence);
        }
        for uid in store.tombstones()? {
            let path = store.tombstone(&uid);
            let Some(tombstone) = store::read::<Tombstone>(&path)? else { continue };
            let young = tombstone.at + TOMBSTONE_AGE > Timestamp::now();
            if young || tombstone.pods.iter().any(|pod| containers.knows_pod(pod)) {
                book.fences.entry(uid).or_default().closed = Some(tombstone.epoch);
            } else {
                store::remove(&path)?;
                store::remove(&store.epochs(&uid))?;
                book.fences.remove(&uid);
            }
        }
        for id in store.tickets()? {
            let path = store.ticket(&id);
            if book.fences.get(&id.migration).is_some_and(|fence| fence.is_closed(id.epoch)) {
                store::remove(&path)?;
                continue;
            }
            // Not forced to the disk: one that is lost is opened anew by the operator.
            let Some(mut ticket) = store::read_intact::<Ticket>(&path)? else { continue };
            if ticket.opened.is_none() {
                // Whoever waits for it asks again; whoever is gone leaves nothing behind.
                store::remove(&path)?;
                continue;
            }
            // Whoever restores reports again, or asks again.
            ticket.failed("the agent was restarted meanwhile".into());
            book.tickets.insert(id, Entry::new(ticket));
        }
        let desk = Self { store, containers, book: Mutex::new(book), changes: watch::Sender::new(0) };
        desk.sweep_archives()?;
        Ok(desk)
    }

    fn sweep_archives(&self) -> Result<(), StoreError> {
        for (uid, epoch) in self.store.archives()? {
            if self.fence(&uid).is_closed(epoch) {
                store::remove(&self.store.archive(&uid, epoch))?;
            }
        }
        for (uid, epoch) in self.store.dumps()? {
            if self.fence(&uid).is_closed(epoch) {
                store::remove(&self.store.dump(&uid, epoch))?;
            }
        }
        Ok(())
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

    /// True if a ticket was opened on the archive of that epoch: it must not be replaced any more.
    pub fn is_opened(&self, uid: &MigrationUid, epoch: Epoch) -> bool {
        let book = self.book.lock();
        let mut tickets = book.tickets.iter();
        tickets.any(|(id, e)| id.migration == *uid && id.epoch == epoch && e.ticket.opened.is_some())
    }

    /// Lets a ticket be redeemed.
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
        let opening = Opening { container: order.container.clone(), digest: order.digest.clone() };
        let id = TicketId { migration: uid.clone(), epoch: order.epoch, role };
        self.change(&id, |ticket| ticket.open(opening))?
            .map_err(|error| Failure::new(Refusal::StaleEpoch, format!("ticket {id}: {error}")))
    }

    /// Claims a ticket, as often as needed, until there is a verdict or the deadline passes (then it is `Wait`).
    pub async fn claim(&self, request: &ClaimRequest, deadline: Instant) -> Result<Verdict, StoreError> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let verdict = self.claim_once(request)?;
            if verdict != Verdict::Wait || Instant::now() >= deadline {
                return Ok(verdict);
            }
            let _ = timeout_at(deadline.min(Instant::now() + LOOK_AGAIN), changes.changed()).await;
        }
    }

    fn claim_once(&self, request: &ClaimRequest) -> Result<Verdict, StoreError> {
        let id = &request.ticket;
        if self.fence(&id.migration).is_over(id.epoch) {
            let tombstone = store::read::<Tombstone>(&self.store.tombstone(&id.migration))?;
            if tombstone.is_some_and(|tombstone| tombstone.restored.contains(&request.container_id)) {
                return Ok(Verdict::Recorded);
            }
            let reason = format!("epoch {} of migration {} is over", id.epoch, id.migration);
            return Ok(without_restore(id.role, reason));
        }
        let earlier = self.book.lock().tickets.get(id).and_then(|entry| entry.ticket.holder.clone());
        let gone = earlier.is_some_and(|h| h.pod != request.pod && !self.containers.has_task(&h.pod));
        self.change(id, |ticket| ticket.claim(id.role, &Holder::from(request), gone))
    }

    /// A claimant went away while it waited. A ticket that was not opened is then as if nobody had asked: its attempt
    /// may end without anybody knowing that it was shown on this node. Others who wait for it ask again by themselves.
    pub fn left(&self, id: &TicketId) -> Result<(), StoreError> {
        let mut book = self.book.lock();
        if book.tickets.get(id).is_none_or(|entry| entry.ticket.opened.is_some()) {
            return Ok(());
        }
        store::remove(&self.store.ticket(id))?;
        book.tickets.remove(id);
        drop(book);
        self.changed();
        Ok(())
    }

    /// Notes how a restore ended. Where the ticket was closed meanwhile there is nothing to note.
    pub fn ended(&self, id: &TicketId, outcome: &RestoreOutcome) -> Result<(), StoreError> {
        if !self.book.lock().tickets.contains_key(id) {
            return Ok(());
        }
        match outcome {
            RestoreOutcome::Restored => self.change(id, Ticket::restored),
            RestoreOutcome::Failed { reason } => self.gave_back(id, reason),
        }
    }

    /// In memory first, and also where the disk is full: else nobody would ever restore by this ticket. To the next life
    /// of the agent the older record on disk means the same.
    fn gave_back(&self, id: &TicketId, reason: &str) -> Result<(), StoreError> {
        let mut book = self.book.lock();
        let Some(entry) = book.tickets.get_mut(id) else { return Ok(()) };
        entry.ticket.failed(reason.to_owned());
        entry.failures += 1;
        let written = store::write(&self.store.ticket(id), &entry.ticket, Durability::Process);
        drop(book);
        self.changed();
        written
    }

    /// Waits until the ticket is as far as ordered, a restore failed that was not told yet, or time is up.
    pub async fn await_ticket(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &AwaitOrder,
    ) -> Result<AwaitedTicket, Failure> {
        let deadline = Instant::now() + Duration::from_millis(order.timeout_ms);
        let id = TicketId { migration: uid.clone(), epoch: order.epoch, role };
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            self.pass(
                uid,
                |fence| if fence.is_closed(order.epoch) { Ok(()) } else { fence.admit(order.epoch) },
            )?;
            let (ticket, news) = self.look(&id);
            if ticket.state >= order.at_least || news || Instant::now() >= deadline {
                return Ok(ticket);
            }
            let look_again = match ticket.state {
                TicketState::Restored => deadline.min(Instant::now() + LOOK_FOR_START),
                _ => deadline,
            };
            let _ = timeout_at(look_again, changes.changed()).await;
        }
    }

    fn look(&self, id: &TicketId) -> (AwaitedTicket, bool) {
        let mut book = self.book.lock();
        let closed = book.fences.get(&id.migration).is_some_and(|fence| fence.is_closed(id.epoch));
        let entry = book.tickets.get_mut(id);
        let news = entry.as_ref().is_some_and(|entry| entry.failures > entry.told);
        let ticket = entry.map_or_else(Ticket::default, |entry| {
            entry.told = entry.failures;
            entry.ticket.clone()
        });
        drop(book);
        let state = match (ticket.state, &ticket.holder) {
            _ if closed => TicketState::Closed,
            (TicketState::Restored, Some(holder)) if self.containers.has_started(&holder.container_id) => {
                TicketState::Started
            }
            (state, _) => state,
        };
        let (pod, pod_ip) = ticket.holder.map_or((None, None), |holder| (Some(holder.pod), holder.pod_ip));
        (AwaitedTicket { state, pod, pod_ip, failure: ticket.failure }, news)
    }

    /// Ends everything up to that epoch: tickets are spent, archives and dumps removed, the migration remembered.
    pub fn close(&self, uid: &MigrationUid, epoch: Epoch) -> Result<(), Failure> {
        let mut book = self.book.lock();
        let mut fence = book.fences.get(uid).copied().unwrap_or_default();
        fence.close(epoch)?;
        let path = self.store.tombstone(uid);
        let earlier = store::read::<Tombstone>(&path)?;
        let (mut pods, mut restored) =
            earlier.map_or_else(Default::default, |earlier| (earlier.pods, earlier.restored));
        let spent: Vec<TicketId> = book
            .tickets
            .keys()
            .filter(|id| id.migration == *uid && fence.is_closed(id.epoch))
            .cloned()
            .collect();
        for id in &spent {
            let ticket = book.tickets.get(id).map(|entry| &entry.ticket);
            let Some(holder) = ticket.and_then(|ticket| ticket.holder.as_ref()) else { continue };
            pods.push(holder.pod.clone());
            if ticket.is_some_and(|ticket| ticket.state == TicketState::Restored) {
                restored.push(holder.container_id.clone());
            }
        }
        pods.sort();
        pods.dedup();
        let closed = fence.closed.unwrap_or(epoch);
        // Before anything goes: a crash in between must not let a ticket wait for an archive that is gone.
        let tombstone = Tombstone { epoch: closed, at: Timestamp::now(), pods, restored };
        store::write(&path, &tombstone, Durability::Disk)?;
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

    /// What this node knows of a migration.
    pub fn report(&self, uid: &MigrationUid) -> Result<MigrationReport, StoreError> {
        let fence = self.fence(uid);
        let book = self.book.lock();
        let of_epoch = |id: &TicketId| id.migration == *uid && id.epoch == fence.seen;
        let tickets = book.tickets.iter().filter(|(id, _)| of_epoch(id));
        Ok(MigrationReport {
            epoch: fence.seen,
            archive: self.archive(uid, fence.seen)?.map(|manifest| manifest.digest),
            tickets: tickets.map(|(id, entry)| (id.role.to_string(), entry.ticket.state)).collect(),
            closed: fence.is_closed(fence.seen) && fence.closed.is_some(),
        })
    }

    /// What lies here and was not closed.
    pub fn kept(&self) -> Result<Kept, StoreError> {
        let tickets = self.store.tickets()?.into_iter().map(|id| (id.migration, id.epoch));
        let mut kept = Kept::default();
        for (uid, epoch) in self.store.archives()?.into_iter().chain(self.store.dumps()?).chain(tickets) {
            // Closed is everything up to what was seen, or nothing.
            let seen = self.fence(&uid).seen;
            let largest = kept.migrations.entry(uid).or_insert(epoch);
            *largest = epoch.max(*largest).max(seen);
        }
        Ok(kept)
    }

    /// Changes a ticket, on disk first; one that does not exist is made.
    fn change<T>(&self, id: &TicketId, change: impl FnOnce(&mut Ticket) -> T) -> Result<T, StoreError> {
        let mut book = self.book.lock();
        let known = book.tickets.get(id).map(|entry| entry.ticket.clone());
        let mut ticket = known.clone().unwrap_or_default();
        let result = change(&mut ticket);
        if known.as_ref() != Some(&ticket) {
            store::write(&self.store.ticket(id), &ticket, Durability::Process)?;
            book.tickets.entry(id.clone()).or_insert_with(|| Entry::new(Ticket::default())).ticket = ticket;
            drop(book);
            self.changed();
        }
        Ok(result)
    }

    fn changed(&self) {
        self.changes.send_modify(|version| *version += 1);
    }
}

#[cfg(test)]
mod tests;
