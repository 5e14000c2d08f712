//! Between two ways there are never two lives: before another is tried, the ticket of this one is spent.

use std::time::Duration;

use super::ticket::{awaiting, has_come};
use super::{EffectError, Performer, target};
use crate::api::{AwaitedTicket, Reason, Role, SpendOrder, TicketState};
use crate::operator::agents::client::{Agent, AgentError};
use crate::operator::drive::subject::Journal;
use crate::protocol::Outcome;

impl Performer {
    /// What was let go meanwhile and lives may have acted: it is the replacement, late. Else done when the node's agent vouches that nothing restored by this ticket lives or ever will, or when the machine is
    /// known to be down. A node that is silent may run the pod: it is waited for, and people are told what helps.
    pub(super) async fn spend_ticket(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        let spent = match self.ctx.agents.on(node) {
            Ok(agent) => self.spend_with(&agent, journal).await,
            Err(error) => Err(error),
        };
        let spent = match spent {
            Ok(Some(ticket)) => return self.restored(journal, ticket, Outcome::ReplacementLives).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        let answered = spent.is_ok();
        let silent = matches!(&spent, Err(AgentError::NoAgent(_) | AgentError::Unreachable { .. }));
        match self.or_gone(node, spent).await {
            Ok(()) if !answered && journal.state.plan.outlived => {
                let why = format!(
                    "node {node} is down for good, and the pod may have run there and written to its volumes"
                );
                Err(EffectError::terminal(Reason::VolumeChanged, why))
            }
            Ok(()) => Ok(Outcome::TicketSpent),
            Err(error) if silent => {
                tracing::debug!(%node, %error, "its ticket is not known to be spent");
                let why = format!(
                    "node {node} is silent and may run the pod; if its machine is down for good: \
                     kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
                );
                Err(EffectError::transient(Reason::NoAgent, why))
            }
            Err(error) => Err(error),
        }
    }

    /// The ticket, where something lives by it.
    async fn spend_with(
        &self,
        agent: &Agent,
        journal: &Journal,
    ) -> Result<Option<AwaitedTicket>, AgentError> {
        let (epoch, life) = (journal.state.epoch, journal.state.life);
        let look = awaiting(journal, life, TicketState::Unclaimed, Duration::ZERO);
        let ticket = agent.await_ticket(&self.uid, Role::Replacement, &look).await?;
        if has_come(&ticket, TicketState::Started) {
            return Ok(Some(ticket));
        }
        agent.spend(&self.uid, Role::Replacement, &SpendOrder { epoch, life }).await.map(|()| None)
    }
}
