//! Owners of pods: their annotations, and for a StatefulSet what it would make of a pod that goes. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::core::PartialObjectMeta;

use super::{Index, OwnerRef, ours};
use crate::kit::Rollout;

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
    /// StatefulSets only: what it would make of a pod that goes.
    pub rollout: Option<Rollout>,
}

impl From<StatefulSet> for OwnerFacts {
    fn from(set: StatefulSet) -> Self {
        let rollout = Rollout::from(&set);
        let meta = set.metadata;
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
