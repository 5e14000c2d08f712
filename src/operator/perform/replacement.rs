//! The replacement: the pod that the owner makes again and the webhook turns into a restore. It is waited for as long as
//! it may come; where it cannot come on this node, that is the end of this way, and the protocol takes another.

use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::ticket::{archive, awaiting, has_come, not_restored, on_node, opening};
use super::trouble::Trouble;
use super::{EffectError, Performer, limits, target};
use crate::api::{
    ANNOTATION_TICKET, AwaitedTicket, Life, NodeName, OpenTicketOrder, PodUid, Purpose, Reason, Refusal,
    RestoreFault, Role, StatefulMigration, TicketId, TicketState,
};
use crate::operator::agents::client::AgentError;
use crate::operator::drive::subject::{Journal, OwnerKind};
use crate::protocol::{Outcome, Restored};

/// Longer than a restore that nothing stands against; after each such wait its pod is looked at.
const ROUND: Duration = Duration::from_millis(1500);
/// So many rounds before it is told that it is not there yet.
const ROUNDS: u32 = 3;

/// A slot that is free is there by then.
const MOMENT: Duration = Duration::from_secs(1);

/// Why a ticket did not get further.
enum Unredeemed {
    /// The agent did not do as it was asked.
    Unanswered(AgentError),
    /// It is not to be restored on this node.
    NotHere(EffectError),
}

impl From<AgentError> for Unredeemed {
    fn from(error: AgentError) -> Self {
        Self::Unanswered(error)
    }
}

/// What was found of the replacement's pod.
enum Found {
    /// It shows the ticket of this life, or is still to be made.
    Awaited(Option<Box<Pod>>),
    /// It showed the ticket of an earlier life and was deleted.
    Outdated,
    /// A pod without our ticket has a StatefulSet's name: it started fresh and consumes already.
    Stranger,
    /// Nobody makes it: its owner is gone or was scaled down, or the migration itself was deleted with its namespace.
    NeverComes,
}

impl Performer {
    pub(super) async fn restore_replacement(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let node = target(journal)?;
        if journal.state.life > Life::FIRST {
            // The one before shows a ticket that is spent, and has the name.
            self.find_replacement(journal).await?.must_come(journal)?;
        }
        if !self.has_slot_within(MOMENT).await {
            return self.without_slot(journal, node).await;
        }
        let order = opening(journal, journal.state.life, Purpose::Live)?;
        let limit = limits::opening(journal.state.life, archive(journal)?.bytes);
        let mut why = None;
        for _ in 0..ROUNDS {
            let ticket = match self.redeem(journal, node, &order, limit).await {
                Ok(ticket) if has_come(&ticket, TicketState::Started) => {
                    return self.restored(journal, ticket, Outcome::ReplacementRestored).await;
                }
                Ok(ticket) => ticket,
                Err(Unredeemed::Unanswered(error)) => {
                    return Err(self.unanswered(journal, node, error).await?);
                }
                Err(Unredeemed::NotHere(error)) => return Err(error),
            };
            why = Some(self.look_after(journal, node, &ticket).await?);
        }
        Err(why.unwrap_or_else(|| EffectError::transient(Reason::RestoreFailed, "not there yet")))
    }

    /// Opens the ticket of this life and waits for one round. Where the image may be another one than the source's, it opens
    /// only once a container waits for it that is made from the same; where volumes outlive the pod, once they are there.
    async fn redeem(
        &self,
        journal: &Journal,
        node: &NodeName,
        order: &OpenTicketOrder,
        limit: Duration,
    ) -> Result<AwaitedTicket, Unredeemed> {
        let agent = self.ctx.agents.on(node)?;
        let another_image = Self::may_be_another_image(journal);
        if another_image || journal.state.plan.outlived {
            let claimed = awaiting(journal, order.life, TicketState::Waiting, ROUND);
            let ticket = agent.await_ticket(&self.uid, Role::Replacement, &claimed).await?;
            let has_failed = ticket.fault.is_some_and(|fault| fault != RestoreFault::BrokenOff);
            if ticket.state < TicketState::Waiting || has_failed {
                return Ok(ticket);
            }
            // Later than that it was opened, and compared, before.
            if another_image
                && ticket.state == TicketState::Waiting
                && let Some(error) = self.not_the_sources_image(journal, node, &agent, &ticket).await?
            {
                return Err(Unredeemed::NotHere(error));
            }
        }
        self.same_volumes(journal).await.map_err(Unredeemed::NotHere)?;
        agent.open_ticket(&self.uid, Role::Replacement, order, limit).await?;
        let order = awaiting(journal, order.life, TicketState::Started, ROUND);
        Ok(agent.await_ticket(&self.uid, Role::Replacement, &order).await?)
    }

    pub(super) async fn restored(
        &self,
        journal: &Journal,
        ticket: AwaitedTicket,
        outcome: impl FnOnce(Restored) -> Outcome,
    ) -> Result<Outcome, EffectError> {
        let pod = ticket.pod.ok_or_else(|| {
            EffectError::transient(Reason::RestoreFailed, "the restored container's pod is not known")
        })?;
        let name = match self.replacement_name(journal, &pod).await? {
            Some(name) => name,
            // It is not restored a second time, so that it is gone is seen when it is to be confirmed.
            None if journal.state.plan.outlived => journal.subject.source.name.clone(),
            None => {
                let why = format!("pod {pod} is gone again");
                return Err(EffectError::transient(Reason::RestoreFailed, why));
            }
        };
        Ok(outcome(Restored { pod, name, ip: ticket.pod_ip }))
    }

    /// Its slot was given to another while its machine was silent. What ends this way by itself is seen all the same, and what
    /// lives by an order that the machine had before.
    async fn without_slot(&self, journal: &Journal, node: &NodeName) -> Result<Outcome, EffectError> {
        let look = awaiting(journal, journal.state.life, TicketState::Unclaimed, Duration::ZERO);
        if let Ok(agent) = self.ctx.agents.on(node)
            && let Ok(ticket) = agent.await_ticket(&self.uid, Role::Replacement, &look).await
            && has_come(&ticket, TicketState::Started)
        {
            return self.restored(journal, ticket, Outcome::ReplacementRestored).await;
        }
        self.must_not_be_lost(node).await?;
        let found = self.find_replacement(journal).await?;
        found.must_come(journal)?;
        if let Found::Awaited(pod) = &found {
            let (trouble, said) = Trouble::of(pod.as_deref(), &Self::awaited_volumes(journal));
            if trouble.moves_nothing() {
                return Err(self.bear(journal, node, None, trouble, said)?);
            }
        }
        self.moves_nothing.store(false, Ordering::Relaxed);
        self.patience.lock().start_anew();
        let why = format!("node {node}: its restore waits for a slot that another migration has");
        Err(EffectError::transient(Reason::Queued, why))
    }

    /// The agent did not do as it was asked. A node that is merely silent may run the pod: it is waited for.
    pub(super) async fn unanswered(
        &self,
        journal: &Journal,
        node: &NodeName,
        error: AgentError,
    ) -> Result<EffectError, EffectError> {
        self.must_not_be_lost(node).await?;
        self.find_replacement(journal).await?.must_come(journal)?;
        match error.refusal() {
            None => {
                self.patience.lock().start_anew();
                Ok(error.into())
            }
            Some(Refusal::DigestMismatch | Refusal::NoArchive) => {
                Ok(EffectError::failed(Reason::ArchiveDamaged, error.to_string()))
            }
            Some(_) => self.bear(journal, node, None, Trouble::Stalled, error.to_string()),
        }
    }

    /// Claims whose volumes come from the node that had the pod before.
    fn awaited_volumes(journal: &Journal) -> Vec<&str> {
        let claims = journal.subject.claims.iter().filter(|claim| claim.one_node);
        claims.map(|claim| claim.claim.as_str()).collect()
    }

    /// It is not there after a round: is it still worth waiting? An error that is not transient: no.
    pub(super) async fn look_after(
        &self,
        journal: &Journal,
        node: &NodeName,
        ticket: &AwaitedTicket,
    ) -> Result<EffectError, EffectError> {
        let why = not_restored(Role::Replacement, node, ticket);
        if !why.transient {
            return Err(why);
        }
        self.must_not_be_lost(node).await?;
        let found = self.find_replacement(journal).await?;
        found.must_come(journal)?;
        let Found::Awaited(pod) = found else { return Ok(why) };
        let (trouble, said) = Trouble::of(pod.as_deref(), &Self::awaited_volumes(journal));
        if trouble == Trouble::Room && journal.state.plan.bridge {
            let pod = &journal.subject.source.name;
            tracing::warn!(pod, "the replacement needs its shadow's room: bridge dropped");
            self.withdraw_shadow(journal).await?;
        }
        let said = ticket.failure.clone().filter(|_| trouble == Trouble::Stalled).unwrap_or(said);
        self.bear(journal, node, Some(ticket.state), trouble, said)
    }

    /// What to say as long as the trouble is borne; an error that is not transient when it has stood too long.
    fn bear(
        &self,
        journal: &Journal,
        node: &NodeName,
        state: Option<TicketState>,
        trouble: Trouble,
        said: String,
    ) -> Result<EffectError, EffectError> {
        self.moves_nothing.store(trouble.moves_nothing(), Ordering::Relaxed);
        let stands = self.patience.lock().stands(journal.state.life, state, trouble, Instant::now());
        let said = on_node(node, &said);
        if stands > trouble.patience(archive(journal)?.bytes) {
            let said = format!("{said} (for {} s)", stands.as_secs());
            return Err(EffectError::failed(Reason::RestoreFailed, said));
        }
        Ok(EffectError::transient(Reason::RestoreFailed, said))
    }

    async fn must_not_be_lost(&self, node: &NodeName) -> Result<(), EffectError> {
        if self.is_out_of_service(node).await? {
            let why = format!("node {node} is down for good: it is gone, or tainted out-of-service");
            return Err(EffectError::failed(Reason::TargetLost, why));
        }
        Ok(())
    }

    /// Looks for the pod; deletes the ones of earlier lives, whose tickets are spent: the next one comes in a new sandbox.
    async fn find_replacement(&self, journal: &Journal) -> Result<Found, EffectError> {
        let source = &journal.subject.source;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let shown = |pod: &Pod| self.shown_life(journal, pod);
        let found: Vec<Pod> = match journal.subject.owner_kind {
            OwnerKind::StatefulSet => {
                let found = pods.get_opt(&source.name).await.map_err(EffectError::api("get replacement"))?;
                found.into_iter().filter(|pod| pod.uid().as_deref() != Some(source.uid.as_str())).collect()
            }
            // Under a name that only its ticket tells.
            OwnerKind::ReplicaSet => {
                let list = pods.list(&ListParams::default()).await;
                let list = list.map_err(EffectError::api("list pods"))?.items;
                list.into_iter().filter(|pod| shown(pod).is_some()).collect()
            }
        };
        let by_name = journal.subject.owner_kind == OwnerKind::StatefulSet;
        let mut outdated = false;
        let mut awaited = None;
        for pod in found {
            match shown(&pod).filter(|ticket| ticket.epoch == journal.state.epoch) {
                Some(ticket) if ticket.life >= journal.state.life => awaited = Some(Box::new(pod)),
                Some(ticket) => {
                    tracing::info!(pod = pod.name_any(), %ticket, "its ticket is spent: deleted, so that a new one comes");
                    let uid = pod.uid().unwrap_or_default();
                    self.delete_pod(&source.namespace, &pod.name_any(), &uid).await?;
                    outdated = true;
                }
                None if by_name => return Ok(Found::Stranger),
                // Its ticket is of an earlier attempt, which was given up: it started fresh, as another replica.
                None => {}
            }
        }
        if awaited.is_none() && outdated {
            return Ok(Found::Outdated);
        }
        if awaited.is_none() && (self.is_deleted().await? || self.is_pod_unwanted(journal).await?) {
            return Ok(Found::NeverComes);
        }
        Ok(Found::Awaited(awaited))
    }

    /// The replacement's ticket of this migration that the pod shows.
    pub(super) fn shown_life(&self, journal: &Journal, pod: &Pod) -> Option<TicketId> {
        let ticket: TicketId = pod.annotations().get(ANNOTATION_TICKET)?.parse().ok()?;
        let ours = ticket.migration == self.uid
            && ticket.role == Role::Replacement
            && ticket.epoch <= journal.state.epoch;
        ours.then_some(ticket)
    }

    pub(super) async fn is_deleted(&self) -> Result<bool, EffectError> {
        let namespace = self.migration.namespace().unwrap_or_default();
        let migrations: Api<StatefulMigration> = Api::namespaced(self.ctx.client.clone(), &namespace);
        let live = migrations
            .get_opt(&self.migration.name_any())
            .await
            .map_err(EffectError::api("get migration"))?;
        Ok(live.is_none_or(|migration| migration.metadata.deletion_timestamp.is_some()))
    }

    /// True where the pod that was restored is gone again, or another one has its name.
    pub(super) async fn is_replacement_gone(&self, journal: &Journal) -> Result<bool, EffectError> {
        let Some(replacement) = &journal.state.replacement else { return Ok(false) };
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        let live = pods.get_opt(&replacement.name).await.map_err(EffectError::api("get replacement"))?;
        Ok(live.is_none_or(|pod| pod.uid().as_deref() != Some(replacement.pod.as_str())))
    }

    /// A StatefulSet gives the name back, a ReplicaSet makes up a new one; none where the pod is gone.
    async fn replacement_name(&self, journal: &Journal, uid: &PodUid) -> Result<Option<String>, EffectError> {
        let source = &journal.subject.source;
        if journal.subject.owner_kind == OwnerKind::StatefulSet {
            return Ok(Some(source.name.clone()));
        }
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let list = pods.list(&ListParams::default()).await.map_err(EffectError::api("list pods"))?;
        let found = list.items.iter().find(|pod| pod.uid().as_deref() == Some(uid.as_str()));
        Ok(found.map(ResourceExt::name_any))
    }
}

impl Found {
    /// Somebody else saw to it that it never will.
    fn must_come(&self, journal: &Journal) -> Result<(), EffectError> {
        let why = match self {
            Self::Awaited(_) | Self::Outdated => return Ok(()),
            Self::Stranger => "a fresh pod took the place",
            Self::NeverComes => "its owner makes it no more",
        };
        let pod = &journal.subject.source.name;
        let message = format!("pod {pod} will not be restored: {why} after the commit of its migration");
        let has_run = matches!(self, Self::Stranger) && journal.state.plan.outlived;
        let reason = if has_run { Reason::VolumeChanged } else { Reason::SourceGone };
        Err(EffectError::terminal(reason, message))
    }
}
