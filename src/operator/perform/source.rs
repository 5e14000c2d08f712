//! Effects on the source: freeze, delete, kill, thaw, evict.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::{EffectError, Performer};
use crate::api::{NodeName, PodOrder, Reason, Refusal};
use crate::operator::agents::client::AgentError;
use crate::operator::check::containers::has_ended;
use crate::operator::drive::subject::Journal;
use crate::protocol::Outcome;

/// By this taint an administrator vouches that a node is down for good (Kubernetes' non-graceful node shutdown).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

impl Performer {
    pub(super) async fn freeze_source(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        self.frozen_as_dumped(journal).await?;
        Ok(Outcome::SourceFrozen)
    }

    /// It stands still for good, or it is gone and nobody starts it anew. What was started anew on volumes that outlive it is an
    /// error: one that is tried again with the new one, unless its pod is about to go.
    async fn frozen_as_dumped(&self, journal: &Journal) -> Result<(), EffectError> {
        let frozen = self.freeze(journal).await;
        let refusal = frozen.as_ref().err().and_then(AgentError::refusal);
        let has_ended = refusal == Some(Refusal::ContainerNotFound);
        if !journal.state.plan.outlived || !(has_ended || refusal == Some(Refusal::NotAsDumped)) {
            return self.or_gone(&journal.subject.node, frozen).await;
        }
        let ends = self.is_source_ending(journal).await?;
        match frozen {
            Err(error) if !(has_ended && ends) => {
                let mut failed = EffectError::failed(Reason::VolumeChanged, error.to_string());
                failed.failure.retry = !ends;
                Err(failed)
            }
            _ => Ok(()),
        }
    }

    /// Its pod, as the API server has it; none where it is gone or another has its name.
    pub(super) async fn live_source(&self, journal: &Journal) -> Result<Option<Pod>, EffectError> {
        let source = &journal.subject.source;
        let pods = Api::<Pod>::namespaced(self.ctx.client.clone(), &source.namespace);
        let live = pods.get_opt(&source.name).await.map_err(EffectError::api("get source pod"))?;
        Ok(live.filter(|pod| pod.uid().as_deref() == Some(source.uid.as_str())))
    }

    /// Its kubelet starts nothing of it any more.
    async fn is_source_ending(&self, journal: &Journal) -> Result<bool, EffectError> {
        let live = self.live_source(journal).await?;
        Ok(live.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some() || has_ended(&pod)))
    }

    /// As we do: its kubelet kills what stands still, and starts nothing.
    async fn is_deleted_at_once(&self, journal: &Journal) -> Result<bool, EffectError> {
        let live = self.live_source(journal).await?;
        Ok(live.is_none_or(|pod| pod.metadata.deletion_grace_period_seconds == Some(0)))
    }

    async fn freeze(&self, journal: &Journal) -> Result<(), AgentError> {
        self.ctx.agents.on(&journal.subject.node)?.freeze(&self.uid, &order(journal)).await
    }

    /// A pod whose volumes outlive it stands still since its dump, and nothing of it was started anew: a container that its
    /// kubelet ends and starts meanwhile writes what the archive does not know.
    pub(super) async fn stands_as_dumped(&self, journal: &Journal) -> Result<(), EffectError> {
        if !journal.state.plan.outlived {
            return Ok(());
        }
        match self.freeze(journal).await {
            Err(error) if error.refusal() == Some(Refusal::ContainerNotFound) => {
                Err(EffectError::failed(Reason::VolumeChanged, error.to_string()))
            }
            frozen => Ok(frozen?),
        }
    }

    pub(super) async fn kill_source(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let subject = &journal.subject;
        // Also of one that a finalizer keeps: its kubelet would kill it otherwise, one process after the other.
        if !self.is_deleted_at_once(journal).await? {
            let what =
                format!("pod {} is still there, and its kubelet would start it anew", subject.source.name);
            return Err(EffectError::transient(Reason::StepTimedOut, what));
        }
        let killed = match self.ctx.agents.on(&subject.node) {
            Ok(agent) => agent.kill(&self.uid, &order(journal)).await,
            Err(error) => Err(error),
        };
        self.or_gone(&subject.node, killed).await.map_err(|mut error| {
            // There is no source to try it again with.
            error.failure.retry &= error.failure.reason != Reason::VolumeChanged;
            error
        })?;
        Ok(Outcome::SourceKilled)
    }

    pub(super) async fn thaw_source(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let subject = &journal.subject;
        let thawed = match self.ctx.agents.on(&subject.node) {
            Ok(agent) => agent.thaw(&self.uid, &order(journal)).await,
            Err(error) => Err(error),
        };
        self.or_gone(&subject.node, thawed).await?;
        Ok(Outcome::SourceThawed)
    }

    pub(super) async fn delete_source(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let source = &journal.subject.source;
        // An operator that comes later finds what happened since the freeze.
        if journal.state.plan.outlived && !self.is_deleted_at_once(journal).await? {
            self.frozen_as_dumped(journal).await?;
        }
        self.delete_pod(&source.namespace, &source.name, source.uid.as_str()).await?;
        Ok(Outcome::SourceDeleted)
    }

    /// Deletes exactly this pod object, at once. Gone, or replaced by another of that name, is success.
    pub(super) async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), EffectError> {
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        match Api::<Pod>::namespaced(self.ctx.client.clone(), namespace).delete(name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(EffectError::api("delete pod")(error)),
        }
    }

    /// True where the source's pod object is gone or another pod has its name.
    pub(super) async fn is_source_gone(&self, journal: &Journal) -> Result<bool, EffectError> {
        Ok(self.live_source(journal).await?.is_none())
    }

    /// A real eviction, which the webhook lets pass because the operator asks.
    pub(super) async fn evict_source(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let source = &journal.subject.source;
        let params = EvictParams {
            delete_options: Some(DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(source.uid.to_string()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            }),
            ..EvictParams::default()
        };
        match Api::<Pod>::namespaced(self.ctx.client.clone(), &source.namespace)
            .evict(&source.name, &params)
            .await
        {
            Ok(_) => Ok(Outcome::SourceEvicted),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                Ok(Outcome::SourceEvicted)
            }
            Err(error) => {
                Err(EffectError::transient(Reason::DeadlineExceeded, format!("evict the pod: {error}")))
            }
        }
    }

    /// An order to an agent that is as good as carried out where the container, the node, or by an administrator's
    /// word the machine, is gone.
    pub(super) async fn or_gone(
        &self,
        node: &NodeName,
        result: Result<(), AgentError>,
    ) -> Result<(), EffectError> {
        match result {
            Ok(()) => Ok(()),
            Err(error) if error.refusal() == Some(Refusal::ContainerNotFound) => Ok(()),
            Err(AgentError::NoAgent(_) | AgentError::Unreachable { .. })
                if self.is_out_of_service(node).await? =>
            {
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The machine is down for good: the API server, not a cache, says that there is no such node, or that an
    /// administrator vouches for it.
    pub(super) async fn is_out_of_service(&self, node: &NodeName) -> Result<bool, EffectError> {
        let nodes: Api<Node> = Api::all(self.ctx.client.clone());
        let live = nodes.get_opt(node.as_str()).await.map_err(EffectError::api("get node"))?;
        Ok(live.is_none_or(|node| {
            let taints = node.spec.into_iter().flat_map(|spec| spec.taints.unwrap_or_default());
            taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
        }))
    }

    /// True while the API server says that the node's kubelet reports.
    pub(super) fn is_reporting(&self, node: &NodeName) -> bool {
        self.ctx.nodes.get(&ObjectRef::<Node>::new(node.as_str())).is_some_and(|node| {
            node.status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten())
                .any(|c| c.type_ == "Ready" && c.status == "True")
        })
    }
}

/// To the source's agent. What may write to volumes that outlive it is told apart from what was dumped.
fn order(journal: &Journal) -> PodOrder {
    let containers = journal.subject.containers();
    PodOrder { epoch: journal.state.epoch, containers, as_dumped: journal.state.plan.outlived }
}
