//! Effects on archives and tickets, through the agents.

use std::time::Duration;

use super::super::subject::Journal;
use super::{EffectError, Performer, limits, target};
use crate::api::{
    AwaitOrder, AwaitedTicket, DumpOrder, DumpTarget, Life, NodeName, OpenTicketOrder, Purpose, Reason,
    Refusal, Role, TicketState,
};
use crate::protocol::{Archive, Outcome};

/// One long poll after the commit; asked again and again.
const TICKET_PATIENCE: Duration = Duration::from_secs(5);

impl Performer {
    pub(super) async fn dump(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        let address = self.ctx.agents.address(node).ok_or_else(|| {
            EffectError::transient(Reason::NoAgent, format!("no ready agent on node {node}"))
        })?;
        let limit = limits::dump(journal.subject.archive_bytes.unwrap_or_default(), self.stream_rate(node));
        let order = DumpOrder {
            epoch: journal.state.epoch,
            container: journal.subject.source_container(),
            target: DumpTarget { node: node.clone(), address: address.to_string() },
            hold: journal.state.plan.hold,
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        };
        let report = self.ctx.agents.on(&journal.subject.node)?.dump(&self.uid, &order).await?;
        Ok(Outcome::Dumped(Archive {
            digest: report.digest,
            bytes: report.bytes,
            frozen_ms: report.frozen_ms,
        }))
    }

    /// Opens the ticket of `role` on the target and waits until its process lives for good.
    pub(super) async fn redeem(&self, journal: &Journal, role: Role) -> Result<AwaitedTicket, EffectError> {
        let archive = journal
            .state
            .archive
            .as_ref()
            .ok_or_else(|| EffectError::failed(Reason::ArchiveDamaged, "no archive in the journal"))?;
        let agent = self.ctx.agents.on(target(journal)?)?;
        let order = OpenTicketOrder {
            epoch: journal.state.epoch,
            container: journal.subject.container.clone(),
            digest: archive.digest.clone(),
            life: Life::FIRST,
            purpose: Purpose::Live,
        };
        agent.open_ticket(&self.uid, role, &order).await?;
        let patience = match role {
            Role::Shadow => limits::restore(archive.bytes),
            Role::Replacement => TICKET_PATIENCE,
        };
        let order = AwaitOrder::first(journal.state.epoch, TicketState::Started, patience);
        let waited = agent.await_ticket(&self.uid, role, &order);
        let ticket = match role {
            Role::Shadow => waited.await?,
            Role::Replacement => self.making_room(journal, waited).await??,
        };
        if ticket.state == TicketState::Started {
            return Ok(ticket);
        }
        let why = ticket.failure.unwrap_or_else(|| format!("its ticket is {:?}", ticket.state));
        Err(EffectError::transient(Reason::RestoreFailed, format!("{role} is not there yet: {why}")))
    }

    pub(super) async fn restore_shadow(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        self.redeem(journal, Role::Shadow).await?;
        Ok(Outcome::ShadowRestored)
    }

    pub(super) async fn close_archives(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let on_source = self.close_on(journal, &journal.subject.node, Waits::WhileReporting);
        // After the commit an open ticket on the target could bring the old state back: nobody resumes before it is
        // closed for sure. In a rollback there is nothing that it could harm.
        let waits =
            if journal.state.step.is_committed() { Waits::UntilClosed } else { Waits::WhileReporting };
        let on_target = async {
            match &journal.state.target {
                Some(node) => self.close_on(journal, node, waits).await,
                None => Ok(()),
            }
        };
        futures::future::try_join(on_source, on_target).await?;
        Ok(Outcome::ArchivesClosed)
    }

    async fn close_on(&self, journal: &Journal, node: &NodeName, waits: Waits) -> Result<(), EffectError> {
        let closed = match self.ctx.agents.on(node) {
            Ok(agent) => agent.close(&self.uid, journal.state.epoch).await,
            Err(error) => Err(error),
        };
        match closed {
            Ok(()) => Ok(()),
            Err(error) if error.refusal() == Some(Refusal::StaleEpoch) => Ok(()),
            Err(error) if error.refusal().is_none() && self.need_not_wait(node, waits).await? => {
                tracing::warn!(%node, %error, "archives left to the node's own sweeping");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn need_not_wait(&self, node: &NodeName, waits: Waits) -> Result<bool, EffectError> {
        let silent = waits == Waits::WhileReporting && !self.is_reporting(node);
        Ok(silent || self.is_out_of_service(node).await?)
    }
}

/// How long an order to close is repeated to a node whose agent does not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Until the node counts as down.
    WhileReporting,
    /// Until the agent has done it, or the machine is gone for good.
    UntilClosed,
}
