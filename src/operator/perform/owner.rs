//! Whether the source's owner will make its pod again. Network I/O, but for the decision.

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::super::subject::{Journal, OwnerKind};
use super::{EffectError, Performer};

/// What an owner wants: pods numbered from `first`, so many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    first: i32,
    pods: i32,
}

impl Performer {
    /// True where nobody makes the pod again: the owner is gone or going, or was scaled down so that this pod is none of
    /// its pods any more. Its state then goes with it, as whenever a pod is scaled away.
    pub(super) async fn is_pod_unwanted(&self, journal: &Journal) -> Result<bool, EffectError> {
        let subject = &journal.subject;
        let namespace = &subject.source.namespace;
        let all = ListParams::default();
        let wanted = match subject.owner_kind {
            OwnerKind::StatefulSet => {
                let sets: Api<StatefulSet> = Api::namespaced(self.ctx.client.clone(), namespace);
                let sets = sets.list(&all).await.map_err(EffectError::api("list StatefulSets"))?;
                let owner = sets.items.into_iter().find(|set| set.uid().as_ref() == Some(&subject.owner_uid));
                owner.filter(|set| set.metadata.deletion_timestamp.is_none()).map(|set| Wanted {
                    first: set.spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0),
                    pods: set.spec.replicas.unwrap_or(1),
                })
            }
            OwnerKind::ReplicaSet => {
                let sets: Api<ReplicaSet> = Api::namespaced(self.ctx.client.clone(), namespace);
                let sets = sets.list(&all).await.map_err(EffectError::api("list ReplicaSets"))?;
                let owner = sets.items.into_iter().find(|set| set.uid().as_ref() == Some(&subject.owner_uid));
                owner
                    .filter(|set| set.metadata.deletion_timestamp.is_none())
                    .map(|set| Wanted { first: 0, pods: set.spec.replicas.unwrap_or(1) })
            }
        };
        Ok(!wanted.is_some_and(|wanted| wants(wanted, subject.owner_kind, &subject.source.name)))
    }
}

fn wants(Wanted { first, pods }: Wanted, kind: OwnerKind, pod: &str) -> bool {
    let ordinal = pod.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse::<i32>().ok());
    match (kind, ordinal) {
        (OwnerKind::StatefulSet, Some(ordinal)) => (first..first.saturating_add(pods)).contains(&ordinal),
        _ => pods > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stateful_set_wants_the_pods_of_its_ordinals() {
        let wanted = |first, pods| Wanted { first, pods };
        let is = |wanted, pod| wants(wanted, OwnerKind::StatefulSet, pod);
        assert!(is(wanted(0, 2), "web-1") && is(wanted(5, 1), "web-5"));
        assert!(!is(wanted(0, 2), "web-2") && !is(wanted(5, 1), "web-4") && !is(wanted(0, 0), "web-0"));
    }

    #[test]
    fn a_replica_set_wants_any_pod_unless_it_is_scaled_to_none() {
        let is = |pods| wants(Wanted { first: 0, pods }, OwnerKind::ReplicaSet, "web-5d9c-x2x1z");
        assert!(is(1) && !is(0));
    }
}
