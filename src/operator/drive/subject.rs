//! What a migration is about: everything the effects need to know of the source, read once when it is accepted and
//! kept in the journal, because the source pod itself will be gone half-way. Pure.

use serde::{Deserialize, Serialize};

use crate::api::{ContainerRef, MessageQueue, NodeName, PodContainers, PodIdentity};
use crate::operator::check::claims::Claim;
use crate::protocol::State;

/// Who controls the source and will make its replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerKind {
    StatefulSet,
    ReplicaSet,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    pub source: PodIdentity,
    pub node: NodeName,
    /// The one by which its archive is named.
    pub container: String,
    /// The others that move with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// Those that are started anew with its replacement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fresh: Vec<String>,
    pub owner_kind: OwnerKind,
    pub owner_uid: String,
    /// Which of the owner's templates it was made from, if that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    pub queue: Option<MessageQueue>,
    /// Services that readers reach the source through.
    pub bridges: Vec<Bridge>,
    /// How large its archive will be, as its agent expected before the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_bytes: Option<u64>,
    /// Names of the emptyDir volumes that its container mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_dirs: Vec<String>,
    /// Volumes that are claims.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// It has init containers, which are not to run again.
    #[serde(default)]
    pub has_init: bool,
}

/// One Service that selects the source, with what an `EndpointSlice` for it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    pub service: String,
    pub ports: Vec<BridgePort>,
    /// Host name under the Service, where the pod has one (headless Service of a StatefulSet).
    pub hostname: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BridgePort {
    pub name: Option<String>,
    pub protocol: String,
    pub port: i32,
}

#[cfg(test)]
impl Subject {
    /// For tests: the container `app` of this pod of a StatefulSet on node n1.
    pub fn example(pod: &str) -> Self {
        Self {
            source: crate::api::PodIdentity { namespace: "demo".into(), name: pod.into(), uid: "u".into() },
            node: "n1".into(),
            container: "app".into(),
            beside: Vec::new(),
            fresh: Vec::new(),
            owner_kind: OwnerKind::StatefulSet,
            owner_uid: "o".into(),
            revision: None,
            queue: None,
            bridges: Vec::new(),
            archive_bytes: None,
            empty_dirs: Vec::new(),
            claims: Vec::new(),
            has_init: false,
        }
    }
}

impl Subject {
    /// The source's containers.
    pub fn containers(&self) -> PodContainers {
        PodContainers {
            pod: self.source.clone(),
            container: self.container.clone(),
            beside: self.beside.clone(),
            fresh: self.fresh.clone(),
        }
    }

    /// Names of its volumes that the target gets only once the source's node has let go of them.
    pub fn one_node_volumes(&self) -> impl Iterator<Item = &str> {
        self.claims.iter().filter(|claim| claim.one_node).map(|claim| claim.volume.as_str())
    }

    /// The one by which its archive is named, in the source.
    pub fn source_container(&self) -> ContainerRef {
        ContainerRef { pod: self.source.clone(), container: self.container.clone() }
    }
}

/// The journal in `status.journal`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    pub subject: Subject,
    pub state: State,
}
