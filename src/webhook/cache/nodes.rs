//! Nodes: whether pods are meant to leave them, which pods may come to them, and the label by which one is bound to
//! one. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::Index;
use crate::api::LABEL_NODE_READY;
use crate::placement::Place;

/// Label that a node selector names.
pub const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
const LABEL_OS: &str = "kubernetes.io/os";
/// Of nodes that are made when pods wait for them, by what the pods ask for.
const LABELS_ON_DEMAND: [&str; 2] = ["karpenter.sh/nodepool", "karpenter.sh/provisioner-name"];
/// A cordon.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taints by which an autoscaler says that a node is to be emptied.
const DRAIN_TAINTS: [&str; 4] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    UNSCHEDULABLE,
    "node.kubernetes.io/out-of-service",
];

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    pub name: String,
    /// Value of the label `kubernetes.io/hostname`.
    pub hostname: Option<String>,
    /// Cordoned, or tainted so that pods must go.
    pub leaving: bool,
    pub labels: BTreeMap<String, String>,
    /// All but a cordon, which passes.
    pub taints: Vec<Taint>,
}

impl NodeFacts {
    /// The runtime of RuntimeClass `shadow` is on it.
    pub fn is_ready(&self) -> bool {
        self.labels.get(LABEL_NODE_READY).is_some_and(|value| value == "true")
    }

    /// More like it are made when pods wait.
    fn is_made_on_demand(&self) -> bool {
        LABELS_ON_DEMAND.iter().any(|label| self.labels.contains_key(*label))
    }

    pub fn runs_linux(&self) -> bool {
        self.labels.get(LABEL_OS).is_none_or(|os| os == "linux")
    }

    /// For who asks whether a pod may come to it, be it cordoned or not.
    pub fn place(&self) -> Place<'_> {
        Place { name: &self.name, labels: Some(&self.labels), taints: &self.taints }
    }
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let labels = node.metadata.labels.unwrap_or_default();
        let tainted = spec
            .taints
            .iter()
            .flatten()
            .any(|taint| DRAIN_TAINTS.contains(&taint.key.as_str()) || taint.effect == "NoExecute");
        Self {
            name: node.metadata.name.unwrap_or_default(),
            hostname: labels.get(LABEL_HOSTNAME).cloned(),
            leaving: tainted
                || spec.unschedulable == Some(true)
                || node.metadata.deletion_timestamp.is_some(),
            labels,
            taints: spec.taints.into_iter().flatten().filter(|taint| taint.key != UNSCHEDULABLE).collect(),
        }
    }
}

/// Nodes by name.
#[derive(Default)]
pub struct Nodes {
    by_name: HashMap<String, Arc<NodeFacts>>,
    /// Names of those that are not ready, or made on demand: few or none, so that thousands need not be looked through.
    doubtful: BTreeSet<String>,
}

impl Nodes {
    pub fn get(&self, name: &str) -> Option<Arc<NodeFacts>> {
        self.by_name.get(name).cloned()
    }

    /// Those on which a pod that needs our runtime might not run, or the next of their kind, in the order of their names.
    pub fn doubtful(&self) -> impl Iterator<Item = &NodeFacts> {
        self.doubtful.iter().filter_map(|name| self.by_name.get(name)).map(AsRef::as_ref)
    }

    pub fn any(&self, is_meant: impl Fn(&NodeFacts) -> bool) -> bool {
        self.by_name.values().any(|node| is_meant(node))
    }
}

impl Index for Nodes {
    type Object = NodeFacts;

    fn insert(&mut self, node: NodeFacts) {
        if !node.is_ready() || node.is_made_on_demand() {
            self.doubtful.insert(node.name.clone());
        } else {
            self.doubtful.remove(&node.name);
        }
        self.by_name.insert(node.name.clone(), Arc::new(node));
    }

    fn remove(&mut self, node: &NodeFacts) {
        self.doubtful.remove(&node.name);
        self.by_name.remove(&node.name);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_is_cordoned_or_being_emptied_is_left() {
        let leaving = |spec: serde_json::Value| {
            let node: Node =
                serde_json::from_value(json!({ "metadata": { "name": "n" }, "spec": spec })).unwrap();
            NodeFacts::from(node).leaving
        };
        assert!(!leaving(json!({})));
        assert!(!leaving(json!({ "taints": [{ "key": "dedicated", "effect": "NoSchedule" }] })));
        assert!(!leaving(
            json!({ "taints": [{ "key": "DeletionCandidateOfClusterAutoscaler", "effect": "PreferNoSchedule" }] })
        ));
        assert!(leaving(json!({ "unschedulable": true })));
        assert!(leaving(
            json!({ "taints": [{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }] })
        ));
        assert!(leaving(json!({ "taints": [{ "key": "karpenter.sh/disrupted", "effect": "NoSchedule" }] })));
        assert!(leaving(
            json!({ "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoExecute" }] })
        ));
    }
}
