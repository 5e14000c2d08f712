//! What the webhook knows of the cluster without asking: small facts about pods, their owners, nodes and migrations.
//!
//! Each index is filled by one watch ([`follow`]) and read through a lock held for one look-up; every look-up is by
//! hash. Facts may be some milliseconds old: whoever decides on them must stay right if they are.

mod follow;
mod migrations;
mod nodes;
mod owners;
mod pods;
mod table;

pub use follow::follow;
pub use migrations::{MigrationFacts, Migrations};
pub use nodes::{LABEL_HOSTNAME, NodeFacts, Nodes};
pub use owners::{OwnerFacts, Owners};
pub use pods::{OwnerKind, OwnerRef, PodFacts, PodPhase, Pods};
pub use table::{Index, Table};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{GROUP, PodUid};

/// Everything that is watched.
#[derive(Default)]
pub struct Cache {
    pub pods: Table<Pods>,
    pub stateful_sets: Table<Owners>,
    pub replica_sets: Table<Owners>,
    pub deployments: Table<Owners>,
    pub nodes: Table<Nodes>,
    pub migrations: Table<Migrations>,
}

/// What is known of a pod's workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// The pod has no owner that can carry annotations for it.
    None,
    /// It has one, but it has not been seen yet.
    Unseen,
    Seen(Arc<OwnerFacts>),
}

impl Cache {
    /// True once every index has been filled.
    pub fn is_synced(&self) -> bool {
        self.missing().is_empty()
    }

    /// Names of what has not been read yet.
    pub fn missing(&self) -> Vec<&'static str> {
        [
            ("pods", self.pods.is_synced()),
            ("statefulsets", self.stateful_sets.is_synced()),
            ("replicasets", self.replica_sets.is_synced()),
            ("deployments", self.deployments.is_synced()),
            ("nodes", self.nodes.is_synced()),
            ("statefulmigrations", self.migrations.is_synced()),
        ]
        .into_iter()
        .filter_map(|(name, synced)| (!synced).then_some(name))
        .collect()
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<PodFacts>> {
        self.pods.read().get(namespace, name)
    }

    pub fn node(&self, name: &str) -> Option<Arc<NodeFacts>> {
        self.nodes.read().get(name)
    }

    /// The StatefulSet, or the Deployment behind the ReplicaSet, or the ReplicaSet where it stands alone.
    pub fn workload(&self, namespace: &str, owner: Option<&OwnerRef>) -> Workload {
        let Some(owner) = owner else { return Workload::None };
        let found = match owner.kind {
            OwnerKind::StatefulSet => self.stateful_sets.read().get(namespace, owner),
            OwnerKind::ReplicaSet => match self.replica_sets.read().get(namespace, owner) {
                None => None,
                Some(set) => match &set.owner {
                    Some(above) if above.kind == OwnerKind::Deployment => {
                        self.deployments.read().get(namespace, above)
                    }
                    _ => Some(set),
                },
            },
            OwnerKind::Deployment | OwnerKind::Other => return Workload::None,
        };
        found.map_or(Workload::Unseen, Workload::Seen)
    }

    /// The youngest migration that moves this pod object.
    pub fn migration_from(&self, pod: &PodUid) -> Option<Arc<MigrationFacts>> {
        self.migrations.read().from_pod(pod)
    }

    /// The youngest migration that this pod object carries on, or is the shadow of.
    pub fn migration_to(&self, pod: &PodFacts) -> Option<Arc<MigrationFacts>> {
        let migrations = self.migrations.read();
        let by_mark = pod.ticket.as_ref().map(|t| &t.migration).or(pod.shadow_of.as_ref());
        by_mark
            .and_then(|uid| migrations.by_uid(uid))
            .or_else(|| migrations.to_pod(&pod.uid))
            .filter(|m| m.namespace == pod.namespace)
    }
}

/// Only the annotations that are SHADOW's: nothing else is ever asked for.
fn ours(annotations: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/')))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::api::StatefulMigration;

    fn cache() -> Cache {
        let cache = Cache::default();
        let owned = |name: &str, uid: &str, kind: &str, by: &str| {
            json!({ "metadata": { "name": name, "namespace": "ns", "uid": uid, "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": kind, "name": by, "uid": format!("uid-{by}"), "controller": true }
            ]}})
        };
        let pod: Pod = serde_json::from_value(owned("web-x", "p", "ReplicaSet", "web")).unwrap();
        cache.pods.replace([pod.into()]);
        cache.replica_sets.replace([OwnerFacts {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "uid-web".into(),
            owner: Some(OwnerRef { kind: OwnerKind::Deployment, name: "top".into(), uid: "uid-top".into() }),
            ..OwnerFacts::default()
        }]);
        cache
    }

    #[test]
    fn a_replica_sets_pod_has_the_annotations_of_its_deployment() {
        let cache = cache();
        let pod = cache.pod("ns", "web-x").unwrap();
        assert_eq!(
            cache.workload("ns", pod.owner.as_ref()),
            Workload::Unseen,
            "the Deployment is not known yet"
        );
        let top = OwnerFacts {
            namespace: "ns".into(),
            name: "top".into(),
            uid: "uid-top".into(),
            ..OwnerFacts::default()
        };
        cache.deployments.replace([top.clone()]);
        assert_eq!(cache.workload("ns", pod.owner.as_ref()), Workload::Seen(Arc::new(top)));
    }

    #[test]
    fn an_owner_of_the_same_name_but_another_uid_is_not_the_owner() {
        let cache = cache();
        let other = OwnerRef { kind: OwnerKind::ReplicaSet, name: "web".into(), uid: "another".into() };
        assert_eq!(cache.workload("ns", Some(&other)), Workload::Unseen);
    }

    #[test]
    fn the_migration_of_a_pod_is_found_from_both_ends() {
        let cache = cache();
        let migration: StatefulMigration = serde_json::from_value(json!({
            "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": { "name": "m", "namespace": "ns", "uid": "ab-1" },
            "spec": { "sourcePod": "web-x", "sourcePodUid": "p" },
            "status": { "replacementPodUid": "q" }
        }))
        .unwrap();
        cache.migrations.replace([migration.into()]);
        assert_eq!(cache.migration_from(&"p".into()).unwrap().name, "m");
        let moved = PodFacts::new("ns", "web-y", "q".into());
        assert_eq!(cache.migration_to(&moved).unwrap().name, "m");
        let elsewhere = PodFacts::new("other", "web-y", "q".into());
        assert!(cache.migration_to(&elsewhere).is_none(), "a ticket is worth nothing in another namespace");
    }
}
