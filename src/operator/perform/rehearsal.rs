//! Nothing is committed that has not lived: the shadow is restored from the very archive, on the node that is to carry
//! on. Where it may answer readers it is let go, and must still live when the commit is written; elsewhere it is a
//! rehearsal: restored, checked, never let go, killed at the commit. A pod with a volume that only one node can mount has
//! none: its files are not there before the source's node has let go of them. Its archive was verified on the target, whose
//! shadow still waits for its ticket.

use std::time::Duration;

use super::ticket::{archive, awaiting, has_come, not_restored, opening, patience_of, until_there};
use super::{EffectError, Performer, limits, target};
use crate::api::{AwaitOrder, Life, OpenTicketOrder, Purpose, Role, TicketState};
use crate::operator::drive::subject::Journal;
use crate::protocol::Outcome;

/// For the look whether it lives.
const PATIENCE: Duration = Duration::from_secs(5);
/// A consumer that ends when it finds its connection gone has done so by then.
pub(super) const LIVED: Duration = Duration::from_millis(150);

impl Performer {
    pub(super) async fn restore_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        if journal.subject.one_node_volumes().next().is_some() {
            return self.still_waits(journal).await;
        }
        let (purpose, wanted) = if journal.state.plan.bridge {
            (Purpose::Live, TicketState::Started)
        } else {
            (Purpose::Rehearsal, TicketState::Held)
        };
        let node = target(journal)?;
        let agent = self.ctx.agents.on(node)?;
        let order: OpenTicketOrder = opening(journal, Life::FIRST, purpose)?;
        let bytes = archive(journal)?.bytes;
        agent.open_ticket(&self.uid, Role::Shadow, &order, limits::opening(Life::FIRST, bytes)).await?;
        // Whatever fails is told at once.
        let agent = &agent;
        let ticket = until_there(wanted, limits::restore(bytes), |patience| {
            let order = awaiting(journal, Life::FIRST, wanted, patience);
            async move { agent.await_ticket(&self.uid, Role::Shadow, &order).await }
        });
        let ticket = ticket.await?;
        if has_come(&ticket, wanted) {
            Ok(Outcome::ShadowRestored)
        } else {
            Err(not_restored(Role::Shadow, node, &ticket))
        }
    }

    /// Sandbox, images and room are there for the one that comes in its place.
    async fn still_waits(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        let order = awaiting(journal, Life::FIRST, TicketState::Waiting, PATIENCE);
        let ticket = self.ctx.agents.on(node)?.await_ticket(&self.uid, Role::Shadow, &order).await?;
        if ticket.fault.is_none() && has_come(&ticket, TicketState::Waiting) {
            Ok(Outcome::ShadowRestored)
        } else {
            Err(not_restored(Role::Shadow, node, &ticket))
        }
    }

    pub(super) async fn confirm_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        let waits = awaiting(journal, Life::FIRST, TicketState::Started, PATIENCE);
        let order = AwaitOrder { lived_ms: patience_of(LIVED), ..waits };
        let ticket = self.ctx.agents.on(node)?.await_ticket(&self.uid, Role::Shadow, &order).await?;
        if ticket.fault.is_none() && has_come(&ticket, TicketState::Started) {
            Ok(Outcome::ShadowConfirmed)
        } else {
            Err(not_restored(Role::Shadow, node, &ticket))
        }
    }
}
