//! What becomes of restored processes: they are let go once the engine has them on record, watched, and killed where their
//! ticket is spent.
//!
//! Guarantees: the intent to let go is on disk before the first process is woken, so that a restarted agent finishes it;
//! a rehearsal is never let go; it happens whether anybody waits for it or not, within milliseconds; an end is noticed by
//! itself; a spent ticket is confirmed only when nothing restored by it lives.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::super::ticket::Ticket;
use super::Tickets;
use crate::agent::failure::Failure;
use crate::agent::metrics;
use crate::api::{
    ClaimRequest, MigrationUid, PodUid, Purpose, Refusal, RestoreFault, Role, SpendOrder, TicketId,
    TicketState,
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

    /// Tickets by which something lives, and in which container.
    fn restored(&self) -> Vec<(TicketId, String)> {
        let book = self.book.lock();
        let lives = book.tickets.iter().filter_map(|(id, entry)| {
            entry.ticket.lives_in().map(|container_id| (id.clone(), container_id.to_owned()))
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
            let is_live = ticket.opened.as_ref().is_some_and(|opened| opened.purpose == Purpose::Live);
            let waits = is_live && ticket.state == TicketState::Held;
            let goes = waits && (ticket.letting_go || self.processes.has_started(container_id));
            if goes && self.let_go(id, container_id).await {
                continue;
            }
            let look_again = async {
                match (waits, goes) {
                    (_, true) => sleep(TRY_AGAIN).await,
                    (true, _) => sleep(LOOK_FOR_START).await,
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

    /// The ticket, as long as what lives by it is in that container.
    fn ticket_of(&self, id: &TicketId, container_id: &str) -> Option<Ticket> {
        let book = self.book.lock();
        let ticket = &book.tickets.get(id)?.ticket;
        (ticket.lives_in() == Some(container_id)).then(|| ticket.clone())
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
        // First, so that nobody sees it started and does not know since when.
        if let Some(entry) = self.book.lock().tickets.get_mut(id) {
            entry.runs_since.get_or_insert_with(Instant::now);
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
            let was_let_go = ticket.state == TicketState::Started || ticket.letting_go;
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
        let is_unheard = ticket.state == TicketState::Held && !ticket.letting_go;
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
            ticket.state == TicketState::Restoring
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
            let runs = ticket.state == TicketState::Started || ticket.letting_go;
            let lives =
                runs && ticket.lives_in().is_some_and(|container_id| self.processes.lives(container_id));
            if !lives {
                ticket.spend();
            }
            !lives
        })?;
        if !is_spent {
            let what = format!("what was restored by ticket {id} was let go and lives: it carries on");
            return Err(Failure::new(Refusal::StillLives, what));
        }
        let mut changes = self.changes.subscribe();
        let holder = loop {
            changes.borrow_and_update();
            let entry = {
                let book = self.book.lock();
                book.tickets.get(&id).map(|entry| (entry.restoring, entry.ticket.holder.clone()))
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
                Some((false, holder)) => break holder,
                None => break None, // closed meanwhile
            }
        };
        match holder {
            Some(holder) => self.processes.kill(&holder.container_id).await,
            None => Ok(()),
        }
    }
}

/// The container in which something lives by this ticket, where the request is for its successor in the same pod.
fn succeeded<'a>(ticket: &'a Ticket, request: &ClaimRequest) -> Option<&'a str> {
    let holder = ticket.holder.as_ref()?;
    let is_same = (&holder.pod, &holder.container) == (&request.pod, &request.container);
    ticket.lives_in().filter(|id| is_same && *id != request.container_id)
}

fn ended(after: Option<Duration>, code: Option<i32>) -> String {
    let after = after.map_or_else(String::new, |after| format!(" {} ms", after.as_millis()));
    let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    format!(
        "its process ended{after} after it was let go (exit code {code}): does it end when its connections are closed?"
    )
}
