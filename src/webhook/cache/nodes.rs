//! Nodes: whether pods are meant to leave them, and the label by which a pod is bound to one. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;

use super::Index;

/// Label that a node selector names.
pub const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
/// Taints by which an autoscaler says that a node is to be emptied.
const DRAIN_TAINTS: [&str; 4] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/out-of-service",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    /// Value of the label `kubernetes.io/hostname`.
    pub hostname: Option<String>,
    /// Cordoned, or tainted so that pods must go.
    pub leaving: bool,
}

impl From<Node> for NodeFacts {
    fn from(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let tainted = spec
            .taints
            .iter()
            .flatten()
            .any(|taint| DRAIN_TAINTS.contains(&taint.key.as_str()) || taint.effect == "NoExecute");
        Self {
            name: node.metadata.name.unwrap_or_default(),
            hostname: node.metadata.labels.and_then(|mut labels| labels.remove(LABEL_HOSTNAME)),
            leaving: tainted
                || spec.unschedulable == Some(true)
                || node.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// Nodes by name.
#[derive(Default)]
pub struct Nodes {
    by_name: HashMap<String, Arc<NodeFacts>>,
}

impl Nodes {
    pub fn get(&self, name: &str) -> Option<Arc<NodeFacts>> {
        self.by_name.get(name).cloned()
    }
}

impl Index for Nodes {
    type Object = NodeFacts;

    fn insert(&mut self, node: NodeFacts) {
        self.by_name.insert(node.name.clone(), Arc::new(node));
    }

    fn remove(&mut self, node: &NodeFacts) {
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
