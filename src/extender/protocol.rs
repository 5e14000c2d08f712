//! What kube-scheduler and an extender say to each other (`k8s.io/kube-scheduler/extender/v1`): Go structs without JSON
//! tags, so names are written as in Go. The same from Kubernetes 1.30 on. Pure.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::api::{ANNOTATION_ARCHIVE_BYTES, ANNOTATION_SOURCE_NODE, LABEL_MIGRATION, MigrationUid, NodeName};
use crate::placement::{Need, Refusal};

/// A pod and the nodes in question. The pod has everything in it, environment too: only what is needed is read.
/// Borrows the thousands of names from the body; none needs an escape in JSON (RFC 1123).
#[derive(Debug, Deserialize)]
pub struct ExtenderArgs<'a> {
    #[serde(rename = "Pod")]
    pod: Option<Pod>,
    /// Whole nodes: a scheduler that was not told `nodeCacheCapable`.
    #[serde(rename = "Nodes", default)]
    nodes: Option<serde::de::IgnoredAny>,
    #[serde(rename = "NodeNames", default, borrow)]
    node_names: Option<Vec<&'a str>>,
}

#[derive(Debug, Default, Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

/// Answer to `filter`. Borrows from request and view: with thousands of nodes, copying is what takes time.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilterResult<'a> {
    #[serde(rename = "Nodes")]
    pub nodes: Option<()>,
    /// Never null: that would mean the other way of answering.
    #[serde(rename = "NodeNames")]
    pub node_names: Vec<&'a str>,
    /// Evicting pods frees neither disk nor changes a processor: nothing that preemption could do.
    #[serde(rename = "FailedAndUnresolvableNodes", serialize_with = "with_reasons")]
    pub failed_and_unresolvable_nodes: Vec<(&'a str, Refusal)>,
    #[serde(rename = "FailedNodes", serialize_with = "with_reasons")]
    pub failed_nodes: Vec<(&'a str, Refusal)>,
    #[serde(rename = "Error")]
    pub error: String,
}

/// An object: node and sentence.
fn with_reasons<S: Serializer>(nodes: &[(&str, Refusal)], to: S) -> Result<S::Ok, S::Error> {
    struct Sentence<'a>(&'a Refusal);
    impl Serialize for Sentence<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(self.0)
        }
    }
    to.collect_map(nodes.iter().map(|(node, refusal)| (node, Sentence(refusal))))
}

/// Answer to `prioritize`: one a node.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HostPriority<'a> {
    #[serde(rename = "Host")]
    pub host: &'a str,
    /// 0 to 10; kube-scheduler does not check.
    #[serde(rename = "Score")]
    pub score: i64,
}

/// The request cannot be answered as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("not the JSON of kube-scheduler's ExtenderArgs: {0}")]
    Malformed(String),
    #[error(
        "set nodeCacheCapable: true for this extender: nodes are sent whole, and answers to that are scored wrongly"
    )]
    WholeNodes,
    #[error("no NodeNames")]
    NoNodeNames,
    #[error("the pod is no shadow of SHADOW's: it lacks {0}")]
    NoShadow(&'static str),
}

impl<'a> ExtenderArgs<'a> {
    pub fn from_slice(body: &'a [u8]) -> Result<Self, ProtocolError> {
        serde_json::from_slice(body).map_err(|error| ProtocolError::Malformed(error.to_string()))
    }

    /// The nodes in question.
    pub fn names(&self) -> Result<&[&'a str], ProtocolError> {
        if self.nodes.is_some() {
            return Err(ProtocolError::WholeNodes);
        }
        self.node_names.as_deref().ok_or(ProtocolError::NoNodeNames)
    }

    /// What the pod needs.
    pub fn need(&self) -> Result<Need, ProtocolError> {
        let missing = ProtocolError::NoShadow;
        let metadata = &self.pod.as_ref().ok_or(missing("Pod"))?.metadata;
        let label = |key| metadata.labels.as_ref().and_then(|labels| labels.get(key));
        let annotation = |key| metadata.annotations.as_ref().and_then(|all| all.get(key));
        let migration = label(LABEL_MIGRATION).ok_or(missing(LABEL_MIGRATION))?;
        let source = annotation(ANNOTATION_SOURCE_NODE).ok_or(missing(ANNOTATION_SOURCE_NODE))?;
        let bytes = annotation(ANNOTATION_ARCHIVE_BYTES).and_then(|bytes| bytes.parse().ok());
        Ok(Need {
            migration: MigrationUid::from(migration.as_str()),
            source: NodeName::from(source.as_str()),
            bytes: bytes.ok_or(missing(ANNOTATION_ARCHIVE_BYTES))?,
        })
    }
}
