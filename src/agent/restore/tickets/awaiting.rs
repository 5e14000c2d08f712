//! What the operator hears of a ticket, as soon as there is something to hear.
//!
//! Guarantees: every wait ends by its deadline; a failure is told at once, and once; whoever has heard that a pod runs may close
//! its ticket, so that is on disk before it is said.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::super::ticket::Ticket;
use super::{Entry, Tickets};
use crate::agent::failure::Failure;
use crate::api::{AwaitOrder, AwaitedTicket, MigrationUid, Role, TicketId, TicketState};

impl Tickets {
    /// Waits until the ticket is as far as ordered, a restore failed that was not told yet, or time is up.
    pub async fn await_ticket(
        &self,
        uid: &MigrationUid,
        role: Role,
        order: &AwaitOrder,
    ) -> Result<AwaitedTicket, Failure> {
        let deadline = Instant::now() + Duration::from_millis(order.timeout_ms);
        let lived = Duration::from_millis(order.lived_ms);
        let id = TicketId { migration: uid.clone(), epoch: order.epoch, role, life: order.life };
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            self.pass(
                uid,
                |fence| if fence.is_closed(order.epoch) { Ok(()) } else { fence.admit(order.epoch) },
            )?;
            let (ticket, runs_since, news) = self.look(&id);
            let has_lived_at = match (ticket.state, order.at_least, runs_since) {
                (TicketState::Started, TicketState::Started, Some(since)) => since + lived,
                _ => Instant::now(),
            };
            let is_so_far = ticket.state >= order.at_least && has_lived_at <= Instant::now();
            if is_so_far || news || Instant::now() >= deadline {
                if role == Role::Replacement && ticket.state == TicketState::Started {
                    // Whoever hears it may close the ticket.
                    self.change_known(&id, Ticket::proves)?;
                }
                return Ok(ticket);
            }
            let look_again = if ticket.state >= order.at_least { has_lived_at } else { deadline };
            let _ = timeout_at(look_again.min(deadline), changes.changed()).await;
        }
    }

    /// The ticket, since when its processes run, and whether a failure was not told yet.
    pub(super) fn look(&self, id: &TicketId) -> (AwaitedTicket, Option<Instant>, bool) {
        let mut book = self.book.lock();
        let closed = book.fences.get(&id.migration).is_some_and(|fence| fence.is_closed(id.epoch));
        let entry = book.tickets.get_mut(id);
        // One that a later restore has made up for is none.
        let is_news = |entry: &Entry| entry.failures > entry.told && entry.ticket.failure().is_some();
        let news = entry.as_deref().is_some_and(is_news);
        let (ticket, runs_since) = entry.map_or_else(Default::default, |entry| {
            entry.told = entry.failures;
            (entry.ticket.clone(), entry.runs_since)
        });
        drop(book);
        let state = if closed { TicketState::Closed } else { ticket.state() };
        let (fault, failure) = ticket.failure().unzip();
        let (pod, pod_ip) = ticket.holder.map_or((None, None), |holder| (Some(holder.pod), holder.pod_ip));
        (AwaitedTicket { state, pod, pod_ip, failure, fault }, runs_since, news)
    }
}
