//! The state could be restored nowhere: it is kept for a person, and the owner makes an ordinary pod.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::archive::{Keeps, Waits, others};
use super::{EffectError, Performer};
use crate::operator::drive::subject::{Journal, OwnerKind};
use crate::protocol::Outcome;

/// A webhook that has not heard of it yet may still hand out a ticket: the pods are looked at so often.
const LOOKS: u32 = 10;
const LOOK: Duration = Duration::from_millis(300);

impl Performer {
    /// The ticket of the last way is spent already, so nobody waits for a node that is silent.
    pub(super) async fn keep_archive(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let nodes = journal.state.target.iter().chain(others(journal));
        let kept = nodes.map(|node| self.close_on(journal, node, Waits::WhileReporting, Keeps::Archive));
        try_join_all(kept).await?;
        Ok(Outcome::ArchiveKept)
    }

    /// Pods that show a ticket and do not run are tied to a node and a runtime for nothing. Done when an ordinary pod has
    /// the place, or nobody has made one within a few seconds.
    pub(super) async fn release_replacement(&self, journal: &Journal) -> Result<Outcome, EffectError> {
        let source = &journal.subject.source;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        for _ in 0..LOOKS {
            let list = pods.list(&ListParams::default()).await.map_err(EffectError::api("list pods"))?.items;
            let tied: Vec<_> = list
                .iter()
                .filter(|pod| {
                    self.shown_life(journal, pod).is_some() && !runs(pod, &journal.subject.container)
                })
                .collect();
            for pod in &tied {
                let uid = pod.uid().unwrap_or_default();
                self.delete_pod(&source.namespace, &pod.name_any(), &uid).await?;
            }
            let is_there = match journal.subject.owner_kind {
                OwnerKind::StatefulSet => list.iter().any(|pod| pod.name_any() == source.name),
                OwnerKind::ReplicaSet => true,
            };
            if tied.is_empty() && is_there {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Outcome::ReplacementReleased)
    }
}

/// Its program does: others of its containers may stand still, restored, and are about to be killed.
fn runs(pod: &Pod, container: &str) -> bool {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .filter(|status| status.name == container)
        .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_runs_once_its_program_does() {
        let pod = |state: serde_json::Value| -> Pod {
            let container = json!({"name": "app", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "state": state});
            serde_json::from_value(json!({"metadata": {}, "status": {"containerStatuses": [container]}}))
                .unwrap()
        };
        assert!(runs(&pod(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})), "app"));
        assert!(!runs(&pod(json!({"waiting": {"reason": "CreateContainerError"}})), "app"));
        assert!(!runs(&pod(json!({"running": {}})), "other") && !runs(&Pod::default(), "app"));
    }
}
