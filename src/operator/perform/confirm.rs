//! Does the replacement live on once it was let go? Where there is no bridge nobody knows that before: the rehearsal stood
//! still, and a process that ends when it finds its connections closed has not had the chance to. Network I/O.
//!
//! Guarantees: its ticket is not closed before it has lived for a while; an end, a lost machine and a pod that does not come
//! back end the way, each with its reason; a node that is merely silent is waited for.

use std::time::Duration;

use tokio::time::Instant;

use super::super::subject::Journal;
use super::rehearsal::LIVED;
use super::ticket::{awaiting, has_come, patience_of};
use super::{EffectError, Performer, target};
use crate::api::{AwaitOrder, Reason, Role, TicketState};
use crate::protocol::Outcome;

/// Longest wait for one look; afterwards its pod is looked at.
const ROUND: Duration = Duration::from_secs(2);

impl Performer {
    pub(super) async fn confirm_replacement(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        let waits = awaiting(journal, journal.state.life, TicketState::Started, ROUND);
        let order = AwaitOrder { lived_ms: patience_of(LIVED), ..waits };
        let asked_at = Instant::now();
        let asked = match self.ctx.agents.on(node) {
            Ok(agent) => agent.await_ticket(&self.uid, Role::Replacement, &order).await,
            Err(error) => Err(error),
        };
        match asked {
            // What comes at the end of a round may not have lived long yet.
            Ok(ticket) if has_come(&ticket, TicketState::Started) && asked_at.elapsed() >= ROUND => {
                Err(EffectError::transient(Reason::RestoreFailed, "it was restored once more just now"))
            }
            Ok(ticket) if has_come(&ticket, TicketState::Started) => Ok(Outcome::ReplacementConfirmed),
            Ok(ticket) => Err(self.look_after(journal, node, &ticket).await?),
            Err(error) => Err(self.unanswered(journal, node, error).await?),
        }
    }
}
