//! What becomes of restored processes: they are let go once the engine has them on record, watched, and killed where their
//! ticket is spent.
//!
//! Guarantees: the intent to let go is on disk before the first process is woken, so that a restarted agent finishes it;
//! a rehearsal is never let go; it happens whether anybody waits for it or not, within milliseconds; an end is noticed by
//! itself; a spent ticket is confirmed only when nothing restored by it lives; a pod of which a container ends as soon as it
//! was let go has ended: no part of it lives on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::ticket::{PartState, Ticket};
use super::Tickets;
use crate::agent::failure::Failure;
use crate::agent::metrics;
use crate::api::{
    ClaimRequest, MigrationUid, PodUid, Refusal, RestoreFault, Role, SpendOrder, TicketId, TicketState,
};

/// That the engine has started a container is no event.
const LOOK_FOR_START: Duration = Duration::from_millis(5);
/// After a failure to note or to do something.
const TRY_AGAIN: Duration = Duration::from_millis(100);

impl Tickets {
    /// Looks after all restored processes, for ever.
    pub async fn look_after(self: Arc<Self>) {
        let mut changes = self.changes.subscribe();
        let mut tasks = JoinSet::new();
        let mut attended: HashMap<(TicketId, String), AbortHandle> = HashMap::new();
        loop {
            changes.borrow_and_update();
            while tasks.try_join_next().is_some() {}
            attended.retain(|_, task| !task.is_finished());
            for (id, container_id) in self.restored() {
                attended.entry((id.clone(), container_id.clone())).or_insert_with(|| {
                    let tickets = Arc::clone(&self);
                    tasks.spawn(async move { tickets.attend(&id, &container_id).await })
                });
            }
            let to_kill = std::mem::take(&mut self.book.lock().to_kill);
            for container_id in to_kill {
                let tickets = Arc::clone(&self);
                tasks.spawn(async move {
                    while let Err(error) = tickets.processes.kill(&container_id).await {
                        tracing::warn!(%error, container = container_id, "a restored container is not killed yet");
                        sleep(TRY_AGAIN).await;
                    }
                });
            }
            // Never closed: we hold the other end.
            let _ = changes.changed().await;
        }
    }

    /// Tickets by which something lives or is to be killed, and in which container.
    fn restored(&self) -> Vec<(TicketId, String)> {
        let book = self.book.lock();
        let lives = book.tickets.iter().flat_map(|(id, entry)| {
            let lives = entry.ticket.lives_in().map(|(_, part)| part.container_id.as_str());
            lives.chain(entry.ticket.ending()).map(|container_id| (id.clone(), container_id.to_owned()))
        });
        lives.collect()
    }

    /// One restored container, until it has ended or is no more of our concern.
    async fn attend(&self, id: &TicketId, container_id: &str) {
        let mut changes = self.changes.subscribe();
        let mut ended = std::pin::pin!(self.processes.ended(container_id));
        loop {
            changes.borrow_and_update();
            let Some(ticket) = self.ticket_of(id, container_id) else { return };
            if ticket.ending().any(|ending| ending == container_id) {
                return self.end(id, container_id).await;
            }
            let on_record = ticket.must_be_on_record(container_id);
            let was_meant = ticket.part_in(container_id).is_some_and(|(_, part)| part.letting_go);
            let waits = !on_record.is_empty();
            let goes = waits && (was_meant || on_record.iter().all(|id| self.processes.has_started(id)));
            let again = goes && !self.let_go(id, container_id).await;
            let look_again = async {
                match (waits, goes) {
                    (_, true) if again => sleep(TRY_AGAIN).await,
                    (true, false) => sleep(LOOK_FOR_START).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                code = &mut ended => return self.note_end(id, container_id, code),
                _ = changes.changed() => {}
                () = look_again => {}
            }
        }
    }

    /// The ticket, as long as something in that container lives by it or is to be killed.
    fn ticket_of(&self, id: &TicketId, container_id: &str) -> Option<Ticket> {
        let book = self.book.lock();
        let ticket = &book.tickets.get(id)?.ticket;
        let is_there = ticket.part_in(container_id).is_some() || ticket.ending().any(|id| id == container_id);
        is_there.then(|| ticket.clone())
    }

    /// Kills what is left of a pod of which another container has ended.
    async fn end(&self, id: &TicketId, container_id: &str) {
        while let Err(error) = self.processes.kill(container_id).await {
            tracing::warn!(ticket = %id, %error, container = container_id, "not ended with its pod yet");
            sleep(TRY_AGAIN).await;
        }
        while let Err(error) = self.change_known(id, |ticket| ticket.is_dead(container_id)) {
            tracing::warn!(ticket = %id, %error, "that it has ended cannot be noted");
            sleep(TRY_AGAIN).await;
        }
        tracing::warn!(ticket = %id, container = container_id, "ended with its pod");
    }

    /// False where it is to be tried again.
    async fn let_go(&self, id: &TicketId, container_id: &str) -> bool {
        let begun = Instant::now();
        match self.change(id, |ticket| ticket.let_go(container_id)) {
            Ok(true) => {}
            Ok(false) => return true, // spent, or another's meanwhile
            Err(error) => {
                tracing::warn!(ticket = %id, %error, "that it is to be let go cannot be noted");
                return false;
            }
        }
        if let Err(error) = self.processes.let_go(container_id).await {
            tracing::warn!(ticket = %id, %error, "not let go yet");
            return false;
        }
        if !self.processes.lives(container_id) {
            return true; // its end is noted in a moment
        }
        if let Err(error) = self.change(id, |ticket| ticket.started(container_id)) {
            tracing::warn!(ticket = %id, %error, "that it was let go cannot be noted");
            return false;
        }
        metrics::let_go(begun.elapsed());
        tracing::info!(ticket = %id, container = container_id, took_us = begun.elapsed().as_micros(), "let go");
        true
    }

    fn note_end(&self, id: &TicketId, container_id: &str, code: Option<i32>) {
        let runs_since = self.book.lock().tickets.get(id).and_then(|entry| entry.runs_since);
        let noted = self.gave_back(id, |ticket| {
            let part = ticket.part_in(container_id).map(|(_, part)| part.clone()).unwrap_or_default();
            let was_let_go = part.has_run();
            let (fault, reason) = if was_let_go {
                (RestoreFault::Ended, ended(runs_since.map(|since| since.elapsed()), code))
            } else {
                let reason = "the engine ended its container before it was let go";
                (RestoreFault::BrokenOff, reason.to_owned())
            };
            tracing::warn!(ticket = %id, container = container_id, reason, "ended");
            ticket.ended(container_id, fault, reason)
        });
        if let Err(error) = noted {
            tracing::warn!(ticket = %id, %error, "that it has ended cannot be noted");
        }
    }

    /// The same pod asks for its container once more. What was restored for it before and stands still is forgotten by the
    /// engine, and must not be there beside the next; what has ended is noted before the next takes its place.
    pub(super) async fn end_unheard(&self, request: &ClaimRequest) {
        let ticket = self.book.lock().tickets.get(&request.ticket).map(|entry| entry.ticket.clone());
        let Some(ticket) = ticket else { return };
        let Some(container_id) = succeeded(&ticket, request) else { return };
        let part = ticket.part_in(container_id).map(|(_, part)| part);
        let is_unheard = part.is_some_and(|part| part.state == PartState::Held && !part.letting_go);
        if is_unheard
            && self.processes.lives(container_id)
            && let Err(error) = self.processes.kill(container_id).await
        {
            tracing::warn!(ticket = %request.ticket, %error, "what was restored before is not killed yet");
        }
        if !self.processes.lives(container_id) {
            self.note_end(&request.ticket, container_id, None);
        }
    }

    /// What was restored for this pod before still lives: the next must wait for its end.
    pub(super) fn lives_elsewhere(&self, ticket: &Ticket, request: &ClaimRequest) -> bool {
        succeeded(ticket, request).is_some_and(|container_id| self.processes.lives(container_id))
    }

    /// Spends the ticket by which that pod is being restored, if there is one: what is to be killed must not come to life
    /// afterwards, and nobody waits for a restore that nobody wants.
    pub fn call_off(&self, uid: &MigrationUid, pod: &PodUid) -> Result<(), Failure> {
        let restores = |ticket: &Ticket| {
            let restores = ticket.parts.values().any(|part| part.state == PartState::Restoring);
            !ticket.spent
                && (restores || ticket.state() == TicketState::Restoring)
                && ticket.holder.as_ref().is_some_and(|holder| holder.pod == *pod)
        };
        let called_off: Vec<TicketId> = {
            let book = self.book.lock();
            let of_pod =
                book.tickets.iter().filter(|(id, entry)| id.migration == *uid && restores(&entry.ticket));
            of_pod.map(|(id, _)| id.clone()).collect()
        };
        for id in called_off {
            self.change(&id, |ticket| {
                if restores(ticket) {
                    ticket.spend();
                }
            })?;
        }
        Ok(())
    }

    /// Ends a ticket for good: nothing is restored by it any more, and what was restored by it is dead. Refused where that
    /// was let go and lives: it may have acted, and is then the pod that carries on.
    pub async fn spend(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &SpendOrder,
        deadline: Instant,
    ) -> Result<(), Failure> {
        self.pass(uid, |fence| fence.admit_spend(order.epoch))?;
        let id = TicketId { migration: uid.clone(), epoch: order.epoch, role, life: order.life };
        let is_spent = self.change(&id, |ticket| {
            let lives = ticket.lives_in().any(|(_, part)| {
                // Whom the kubelet waits for has run before there was a pod.
                let counts = part.has_run() && (!part.at_once || ticket.proven);
                counts && self.processes.lives(&part.container_id)
            });
            let stays = lives || ticket.lived;
            if !stays {
                ticket.spend();
            }
            !stays
        })?;
        if !is_spent {
            let what = format!("what was restored by ticket {id} was let go: it carries on");
            return Err(Failure::new(Refusal::StillLives, what));
        }
        let mut changes = self.changes.subscribe();
        let restored = loop {
            changes.borrow_and_update();
            let entry = {
                let book = self.book.lock();
                book.tickets.get(&id).map(|entry| (!entry.restoring.is_empty(), entry.ticket.parts.clone()))
            };
            match entry {
                // Whoever restores is told to break off.
                Some((true, _)) if Instant::now() < deadline => {
                    let _ = timeout_at(deadline, changes.changed()).await;
                }
                Some((true, _)) => {
                    let what = format!("ticket {id} is spent, but a restore by it has not ended yet");
                    return Err(Failure::new(Refusal::TimedOut, what));
                }
                Some((false, parts)) => break parts,
                None => return Ok(()), // closed meanwhile
            }
        };
        for part in restored.values() {
            self.processes.kill(&part.container_id).await?;
        }
        Ok(())
    }
}

/// The container in which something lives by this ticket, where the request is for its successor in the same pod.
fn succeeded<'a>(ticket: &'a Ticket, request: &ClaimRequest) -> Option<&'a str> {
    ticket.holder.as_ref().filter(|holder| holder.pod == request.pod)?;
    let (_, part) = ticket.lives_in().find(|(name, _)| *name == request.container)?;
    Some(part.container_id.as_str()).filter(|id| *id != request.container_id)
}

fn ended(after: Option<Duration>, code: Option<i32>) -> String {
    let after = after.map_or_else(String::new, |after| format!(" {} ms", after.as_millis()));
    let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    format!(
        "its process ended{after} after it was let go (exit code {code}): does it end when its connections are closed?"
    )
}
