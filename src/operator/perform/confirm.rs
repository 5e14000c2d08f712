//! Does the replacement live on once it was let go? Where there is no bridge nobody knows that before: the rehearsal stood
//! still, and a process that ends when it finds its connections closed has not had the chance to. Network I/O.
//!
//! Guarantees: its ticket is not closed before it has lived for a while, or somebody has deleted its pod; an end, a lost
//! machine and a restore that does not come again end the way, each with its reason; a node that is merely silent is waited
//! for.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::rehearsal::LIVED;
use super::ticket::{awaiting, has_come, on_node, patience_of};
use super::{EffectError, Performer, target};
use crate::api::{AwaitOrder, Reason, Role, TicketState};
use crate::operator::drive::subject::Journal;
use crate::protocol::{Outcome, Restored};

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
        let ticket = match asked {
            // What comes at the end of a round may not have lived long yet.
            Ok(ticket) if has_come(&ticket, TicketState::Started) && asked_at.elapsed() >= ROUND => {
                return Err(EffectError::transient(Reason::RestoreFailed, "it was restored again just now"));
            }
            Ok(ticket) if has_come(&ticket, TicketState::Started) => {
                return Ok(match ticket.failure {
                    None => Outcome::ReplacementConfirmed,
                    Some(why) => Outcome::ReplacementStartedAnew { message: on_node(node, &why) },
                });
            }
            Ok(ticket) => ticket,
            Err(error) => return Err(self.unanswered(journal, node, error).await?),
        };
        if let Some(replacement) = &journal.state.replacement
            && self.is_taken_away(journal, replacement).await?
        {
            return Ok(Outcome::ReplacementConfirmed);
        }
        Err(self.look_after(journal, node, &ticket).await?)
    }

    /// Somebody has deleted the pod since it was let go: its state goes with it, as whenever a pod is deleted.
    async fn is_taken_away(&self, journal: &Journal, restored: &Restored) -> Result<bool, EffectError> {
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        let live = pods.get_opt(&restored.name).await.map_err(EffectError::api("get replacement"))?;
        Ok(live.is_none_or(|pod| {
            pod.uid().as_deref() != Some(restored.pod.as_str()) || pod.metadata.deletion_timestamp.is_some()
        }))
    }
}
