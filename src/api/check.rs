//! The answer to "can this pod move, where to, and if not, why": `GET /v1/check/NAMESPACE/POD?to=NODE` of the operator.

use serde::{Deserialize, Serialize};

use super::{NodeName, Reason};

/// Whether a pod can be moved now. Nothing was touched to find out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Nothing about the pod is against it, and some node has room, can restore it, and is none that the scheduler would
    /// pass over for its taints, the pod's selectors and required affinity, or its requests (looked at on 32 nodes at most).
    pub movable: bool,
    /// What about the pod is against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<CheckRefusal>,
    /// What else is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub further: Vec<CheckRefusal>,
    /// It can be moved, but the user may want to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_node: Option<NodeName>,
    /// Expected size of its archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// Every node, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<CheckedNode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckRefusal {
    pub reason: Reason,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedNode {
    pub node: NodeName,
    /// Why it cannot come here; nothing where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes free for archives, what is reserved taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// 0 to 10, the best has 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<i64>,
}

/// What `kubectl shadow check -f` says of a workload in a manifest, before it is deployed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ManifestCheck {
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    /// As of a pod that is there, but for what nobody knows yet: its node, its size and where it could go.
    #[serde(flatten)]
    pub check: Check,
    /// What its users see of a move, where it can be moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meanwhile: Option<Meanwhile>,
}

/// What the users of a pod see while it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Meanwhile {
    /// A shadow answers requests from the dump on; messages wait until the replacement takes them.
    ReadsGoOn,
    /// Nobody answers from the dump on, until the replacement is restored; messages wait.
    StandsStill,
}
