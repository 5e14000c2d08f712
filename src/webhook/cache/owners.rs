//! Owners of pods: their annotations, and for a StatefulSet what it would make of a pod that goes. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::core::PartialObjectMeta;

use super::{Index, OwnerRef, ours};

/// A StatefulSet, ReplicaSet or Deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnerFacts {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// SHADOW's own only.
    pub annotations: BTreeMap<String, String>,
    /// What controls it in turn: a Deployment its ReplicaSets.
    pub owner: Option<OwnerRef>,
    pub deleting: bool,
    /// StatefulSets only.
    pub rollout: Option<Rollout>,
}

/// What a StatefulSet wants its pods to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    pub first: i64,
    pub replicas: i64,
    /// Pods below this ordinal are made from the current revision, those from it on from the update revision.
    pub partition: i64,
    pub current: Option<String>,
    pub update: Option<String>,
    /// The status is about the spec as it stands.
    pub observed: bool,
}

impl Rollout {
    /// The set is to have a pod of this ordinal.
    pub fn wants(&self, ordinal: i64) -> bool {
        (self.first..self.first.saturating_add(self.replicas)).contains(&ordinal)
    }

    /// The set would make this pod from another revision than it is of: it would come back with another template,
    /// and its state is no longer the state of that program.
    pub fn would_change(&self, ordinal: i64, revision: &str) -> bool {
        let of_current = ordinal < self.first.saturating_add(self.partition);
        let wanted = if of_current { &self.current } else { &self.update };
        self.observed && wanted.as_deref().is_some_and(|wanted| wanted != revision)
    }
}

impl From<StatefulSet> for OwnerFacts {
    fn from(set: StatefulSet) -> Self {
        let (meta, spec, status) = (set.metadata, set.spec, set.status.unwrap_or_default());
        let rolling = spec.update_strategy.and_then(|strategy| strategy.rolling_update);
        let rollout = Rollout {
            first: spec.ordinals.and_then(|o| o.start).unwrap_or(0).into(),
            replicas: spec.replicas.unwrap_or(1).into(),
            partition: rolling.and_then(|r| r.partition).unwrap_or(0).into(),
            current: status.current_revision,
            update: status.update_revision,
            observed: status.observed_generation >= meta.generation,
        };
        Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            annotations: ours(meta.annotations.as_ref()),
            owner: OwnerRef::controller(meta.owner_references.as_ref()),
            deleting: meta.deletion_timestamp.is_some(),
            rollout: Some(rollout),
        }
    }
}

impl<K> From<PartialObjectMeta<K>> for OwnerFacts {
    fn from(object: PartialObjectMeta<K>) -> Self {
        let meta = object.metadata;
        Self {
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default(),
            annotations: ours(meta.annotations.as_ref()),
            owner: OwnerRef::controller(meta.owner_references.as_ref()),
            deleting: meta.deletion_timestamp.is_some(),
            rollout: None,
        }
    }
}

/// Owners of one kind by namespace and name.
#[derive(Default)]
pub struct Owners {
    by_name: HashMap<String, HashMap<String, Arc<OwnerFacts>>>,
}

impl Owners {
    /// The very object that is referred to: same UID.
    pub fn get(&self, namespace: &str, owner: &OwnerRef) -> Option<Arc<OwnerFacts>> {
        self.by_name.get(namespace)?.get(&owner.name).filter(|found| found.uid == owner.uid).cloned()
    }
}

impl Index for Owners {
    type Object = OwnerFacts;

    fn insert(&mut self, owner: OwnerFacts) {
        self.by_name.entry(owner.namespace.clone()).or_default().insert(owner.name.clone(), Arc::new(owner));
    }

    fn remove(&mut self, owner: &OwnerFacts) {
        if let Some(owners) = self.by_name.get_mut(&owner.namespace) {
            owners.remove(&owner.name);
            if owners.is_empty() {
                self.by_name.remove(&owner.namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout(spec: &serde_json::Value) -> Rollout {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": { "name": "web", "generation": 3 },
            "spec": spec,
            "status": { "replicas": 3, "observedGeneration": 3, "currentRevision": "a", "updateRevision": "b" }
        }))
        .unwrap();
        OwnerFacts::from(set).rollout.unwrap()
    }

    fn spec(rest: serde_json::Value) -> serde_json::Value {
        let mut spec = json!({ "replicas": 3, "selector": {}, "serviceName": "web", "template": {} });
        spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        spec
    }

    #[test]
    fn ordinals_are_counted_from_their_start() {
        let rollout = rollout(&spec(json!({ "ordinals": { "start": 2 } })));
        assert_eq!([1, 2, 4, 5].map(|n| rollout.wants(n)), [false, true, true, false]);
    }

    #[test]
    fn a_pod_of_an_older_revision_would_come_back_different_unless_the_partition_keeps_it() {
        let all = rollout(&spec(json!({})));
        assert!(all.would_change(0, "a") && !all.would_change(0, "b"));
        let upper = rollout(&spec(json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } })));
        assert!(!upper.would_change(1, "a"), "below the partition the current revision is kept");
        assert!(upper.would_change(2, "a"));
        assert!(!Rollout { observed: false, ..all }.would_change(0, "a"), "the status is of an older spec");
    }
}
