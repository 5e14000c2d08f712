//! Pods, pruned to what an answer needs. No I/O.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{Index, ours};
use crate::api::{
    ANNOTATION_TICKET, LABEL_MIGRATION, LABEL_ROLE, MigrationUid, NodeName, PodUid, Role, TicketId,
};

const ROLE_SHADOW: &str = "shadow";
const LABEL_REVISION: &str = "controller-revision-hash";

/// What an answer needs to know of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    pub uid: PodUid,
    pub node: Option<NodeName>,
    pub phase: PodPhase,
    pub deleting: bool,
    pub created: Option<Timestamp>,
    pub owner: Option<OwnerRef>,
    /// SHADOW's own only.
    pub annotations: BTreeMap<String, String>,
    /// The ticket it was created with.
    pub ticket: Option<TicketId>,
    /// It is the shadow of this migration.
    pub shadow_of: Option<MigrationUid>,
    /// Revision of the StatefulSet it was made from.
    pub revision: Option<String>,
}

impl PodFacts {
    /// A pod of which nothing else is known yet: pending, on no node, nobody's.
    pub fn new(namespace: &str, name: &str, uid: PodUid) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid,
            node: None,
            phase: PodPhase::Pending,
            deleting: false,
            created: None,
            owner: None,
            annotations: BTreeMap::new(),
            ticket: None,
            shadow_of: None,
            revision: None,
        }
    }

    /// Nothing of it runs any more.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, PodPhase::Succeeded | PodPhase::Failed)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    #[default]
    Pending,
    Running,
    Succeeded,
    Failed,
    /// Its node does not answer.
    Unknown,
}

/// The controller of a pod or ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRef {
    pub kind: OwnerKind,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerKind {
    StatefulSet,
    ReplicaSet,
    Deployment,
    Other,
}

impl OwnerRef {
    /// The reference that is the controller, if there is one.
    pub fn controller(references: Option<&Vec<OwnerReference>>) -> Option<Self> {
        let reference = references?.iter().find(|r| r.controller == Some(true))?;
        let kind = match (reference.api_version.split('/').next(), reference.kind.as_str()) {
            (Some("apps"), "StatefulSet") => OwnerKind::StatefulSet,
            (Some("apps"), "ReplicaSet") => OwnerKind::ReplicaSet,
            (Some("apps"), "Deployment") => OwnerKind::Deployment,
            _ => OwnerKind::Other,
        };
        Some(Self { kind, name: reference.name.clone(), uid: reference.uid.clone() })
    }
}

impl From<Pod> for PodFacts {
    fn from(pod: Pod) -> Self {
        let (meta, spec, status) =
            (pod.metadata, pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        let annotations = ours(meta.annotations.as_ref());
        Self {
            ticket: annotations.get(ANNOTATION_TICKET).and_then(|text| text.parse().ok()),
            shadow_of: label(LABEL_ROLE)
                .filter(|role| role == ROLE_SHADOW)
                .and_then(|_| label(LABEL_MIGRATION))
                .map(MigrationUid::from),
            revision: label(LABEL_REVISION),
            annotations,
            namespace: meta.namespace.unwrap_or_default(),
            name: meta.name.unwrap_or_default(),
            uid: meta.uid.unwrap_or_default().into(),
            node: spec.node_name.filter(|name| !name.is_empty()).map(NodeName::from),
            phase: match status.phase.as_deref() {
                Some("Running") => PodPhase::Running,
                Some("Succeeded") => PodPhase::Succeeded,
                Some("Failed") => PodPhase::Failed,
                Some("Unknown") => PodPhase::Unknown,
                _ => PodPhase::Pending,
            },
            deleting: meta.deletion_timestamp.is_some(),
            created: meta.creation_timestamp.map(|time| time.0),
            owner: OwnerRef::controller(meta.owner_references.as_ref()),
        }
    }
}

/// Pods by namespace and name, and who holds which ticket.
#[derive(Default)]
pub struct Pods {
    by_name: HashMap<String, HashMap<String, Arc<PodFacts>>>,
    /// Pods that were created with a replacement's ticket of this migration.
    claims: HashMap<MigrationUid, HashSet<(String, String)>>,
}

impl Pods {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<PodFacts>> {
        self.by_name.get(namespace)?.get(name).cloned()
    }

    /// True if a pod that lives was created with this very ticket.
    pub fn is_claimed(&self, ticket: &TicketId) -> bool {
        let holders = self.claims.get(&ticket.migration).into_iter().flatten();
        holders
            .filter_map(|(namespace, name)| self.by_name.get(namespace)?.get(name))
            .any(|pod| pod.ticket.as_ref() == Some(ticket) && !pod.deleting && !pod.is_finished())
    }

    pub fn len(&self) -> usize {
        self.by_name.values().map(HashMap::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn forget(&mut self, namespace: &str, name: &str) {
        let Some(pods) = self.by_name.get_mut(namespace) else { return };
        let Some(former) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.by_name.remove(namespace);
        }
        if let Some(TicketId { migration, .. }) = &former.ticket
            && let Some(holders) = self.claims.get_mut(migration)
        {
            holders.remove(&(namespace.to_owned(), name.to_owned()));
            if holders.is_empty() {
                self.claims.remove(migration);
            }
        }
    }
}

impl Index for Pods {
    type Object = PodFacts;

    fn insert(&mut self, pod: PodFacts) {
        self.forget(&pod.namespace, &pod.name);
        if let Some(TicketId { migration, role: Role::Replacement, .. }) = &pod.ticket {
            let holder = (pod.namespace.clone(), pod.name.clone());
            self.claims.entry(migration.clone()).or_default().insert(holder);
        }
        self.by_name.entry(pod.namespace.clone()).or_default().insert(pod.name.clone(), Arc::new(pod));
    }

    /// A pod of that name with another UID stays: the deletion is older than it.
    fn remove(&mut self, pod: &PodFacts) {
        if self.get(&pod.namespace, &pod.name).is_some_and(|known| known.uid == pod.uid) {
            self.forget(&pod.namespace, &pod.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, ticket: Option<&str>) -> PodFacts {
        PodFacts { ticket: ticket.map(|text| text.parse().unwrap()), ..PodFacts::new("ns", name, uid.into()) }
    }

    #[test]
    fn a_pod_keeps_what_is_needed_and_nothing_else() {
        let full: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "web-0", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": "web", "controller-revision-hash": "web-1" },
                "annotations": { "migration.ms2m.io/queue": "q", "migration.ms2m.iox/queue": "no", "other": "x" },
                "ownerReferences": [
                    { "apiVersion": "x/v1", "kind": "Y", "name": "y", "uid": "y" },
                    { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "w", "controller": true }
                ]
            },
            "spec": { "nodeName": "n1", "containers": [] },
            "status": { "phase": "Running" }
        }))
        .unwrap();
        let facts = PodFacts::from(full);
        assert_eq!(facts.annotations.len(), 1);
        assert_eq!(facts.phase, PodPhase::Running);
        assert_eq!(facts.node, Some("n1".into()));
        assert_eq!(facts.revision.as_deref(), Some("web-1"));
        assert_eq!(facts.owner.unwrap().kind, OwnerKind::StatefulSet);
        assert!(facts.shadow_of.is_none() && facts.ticket.is_none() && !facts.deleting);
    }

    #[test]
    fn a_ticket_is_claimed_as_long_as_its_pod_lives() {
        let ticket: TicketId = "ab.1.replacement".parse().unwrap();
        let mut pods = Pods::default();
        assert!(!pods.is_claimed(&ticket));
        pods.insert(pod("a", "1", Some("ab.1.replacement")));
        assert!(pods.is_claimed(&ticket));
        assert!(!pods.is_claimed(&"ab.2.replacement".parse().unwrap()), "another attempt");
        pods.insert(PodFacts { deleting: true, ..pod("a", "1", Some("ab.1.replacement")) });
        assert!(!pods.is_claimed(&ticket));
        pods.remove(&pod("a", "1", None));
        assert!(pods.is_empty() && pods.claims.is_empty());
    }

    #[test]
    fn a_late_deletion_does_not_take_the_successor_away() {
        let mut pods = Pods::default();
        pods.insert(pod("web-0", "new", None));
        pods.remove(&pod("web-0", "old", None));
        assert_eq!(pods.get("ns", "web-0").unwrap().uid, "new".into());
    }
}
