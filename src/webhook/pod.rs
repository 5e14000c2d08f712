//! What becomes of a pod that is being created: whether it is a replacement, and who may wear the marks of one. Pure.
//!
//! Guarantees: a pod gets a ticket only of a migration in its namespace that is committed and waits for a pod of that
//! very owner and revision (and, from a StatefulSet, of that very name); a ticket that was already there is accepted
//! only where it is the one that would be put there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, PodSecurityContext, Toleration, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde::Deserialize;

use super::cache::{MigrationFacts, OwnerKind, OwnerRef};
use super::containers::{Container, InitContainer};
use super::review::User;
use crate::api::{
    ANNOTATION_PLACED_ON, ANNOTATION_PREPARED, ANNOTATION_TICKET, RUNTIME_CLASS, TicketId, revision_of,
};

/// The kubelet then leaves the files of a volume alone whose root is as it wants it: CRIU restores no file that is open and has
/// another mode than it had.
pub const ON_ROOT_MISMATCH: &str = "OnRootMismatch";

/// The parts of a pod under creation that are read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NewPod {
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    runtime_class_name: Option<String>,
    #[serde(default)]
    node_selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    tolerations: Option<Vec<Toleration>>,
    #[serde(default)]
    node_name: Option<String>,
    #[serde(default)]
    affinity: Option<Affinity>,
    #[serde(default)]
    containers: Option<Vec<Container>>,
    #[serde(default)]
    init_containers: Option<Vec<InitContainer>>,
    #[serde(default)]
    security_context: Option<PodSecurityContext>,
    #[serde(default)]
    volumes: Option<Vec<Volume>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affinity {
    #[serde(default)]
    node_affinity: Option<NodeAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeAffinity {
    #[serde(default)]
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

/// What the pod looks like so far, in the words of the decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Empty where the API server makes the name.
    pub name: String,
    /// The StatefulSet or ReplicaSet that makes it.
    pub owner: Option<OwnerRef>,
    /// Which template of its owner it is made from.
    pub revision: Option<String>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub runtime_class: Option<String>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub tolerations: Option<Vec<Toleration>>,
    /// Where it is bound to a node from the start.
    pub node_name: Option<String>,
    pub required_affinity: Option<NodeSelector>,
    /// Commands of postStart hooks by container.
    pub post_start: BTreeMap<String, Vec<String>>,
    pub init_containers: Vec<InitContainer>,
    /// The kubelet would give all files of its claims to a group, and change their modes.
    pub owners_change: bool,
}

impl From<NewPod> for Wanted {
    fn from(pod: NewPod) -> Self {
        let (meta, spec) = (pod.metadata.unwrap_or_default(), pod.spec.unwrap_or_default());
        let owner = OwnerRef::controller(meta.owner_references.as_ref());
        let of_sidecars = spec.init_containers.iter().flatten().filter_map(InitContainer::post_start);
        let of_others = spec.containers.into_iter().flatten().filter_map(Container::post_start);
        let post_start = of_sidecars.chain(of_others).collect();
        let is_claim = |volume: &Volume| volume.persistent_volume_claim.is_some();
        let has_claim = spec.volumes.iter().flatten().any(is_claim);
        Self {
            name: meta.name.unwrap_or_default(),
            revision: meta.labels.as_ref().and_then(revision_of).cloned(),
            owner: owner.filter(|o| matches!(o.kind, OwnerKind::StatefulSet | OwnerKind::ReplicaSet)),
            annotations: meta.annotations,
            runtime_class: spec.runtime_class_name,
            node_selector: spec.node_selector,
            tolerations: spec.tolerations,
            node_name: spec.node_name,
            required_affinity: spec
                .affinity
                .and_then(|affinity| affinity.node_affinity)
                .and_then(|node| node.required_during_scheduling_ignored_during_execution),
            post_start,
            owners_change: spec.security_context.is_some_and(|security| {
                security.fs_group.is_some()
                    && security.fs_group_change_policy.as_deref() != Some(ON_ROOT_MISMATCH)
            }) && has_claim,
            init_containers: spec.init_containers.unwrap_or_default(),
        }
    }
}

impl Wanted {
    fn ticket(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(ANNOTATION_TICKET).map(String::as_str)
    }

    fn placed_on(&self) -> Option<&str> {
        self.annotations.as_ref()?.get(ANNOTATION_PLACED_ON).map(String::as_str)
    }

    /// A copy of a pod that was prepared, or our own patch, seen again.
    fn says_prepared(&self) -> bool {
        self.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ANNOTATION_PREPARED))
    }

    /// The ticket that the pod brings along, if it is one.
    pub fn brings(&self) -> Option<TicketId> {
        self.ticket().and_then(|text| text.parse().ok())
    }
}

/// How a migration stands to a pod that is being created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// It moves another pod, or is over, or has its replacement.
    No,
    /// It moves this pod, and is not committed as far as is known: what is known must be fresh.
    NotYet,
    /// It waits for this pod.
    Awaits,
}

/// Whether `migration` waits for this pod.
pub fn matches(wanted: &Wanted, migration: &MigrationFacts) -> Match {
    let Some(owner) = &wanted.owner else { return Match::No };
    let same_owner = migration.owner_uid.as_ref().is_none_or(|uid| *uid == owner.uid);
    // Made from another template, it is another program: what the old one had in memory is not for it.
    let other_revision =
        matches!((&wanted.revision, &migration.source_revision), (Some(is), Some(was)) if is != was);
    let same_name = owner.kind == OwnerKind::ReplicaSet || wanted.name == migration.source_pod;
    if !same_owner || !same_name || other_revision || !migration.is_running() {
        Match::No
    } else if !migration.committed {
        Match::NotYet
    } else if migration.replacing && migration.owner_uid.is_some() && migration.target_node.is_some() {
        Match::Awaits
    } else {
        Match::No
    }
}

/// A mark that only SHADOW puts on pods, put there by someone else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reserved {
    #[error(
        "annotation {ANNOTATION_TICKET} is reserved: it is put on pods by SHADOW while it migrates them; remove it \
         from the pod or the template that the pod is made from"
    )]
    Ticket,
    #[error(
        "annotation {ANNOTATION_PLACED_ON} is reserved: it is put on pods by SHADOW while it migrates them; remove \
         it from the pod or the template that the pod is made from"
    )]
    PlacedOn,
    #[error(
        "spec.runtimeClassName: `{RUNTIME_CLASS}` is reserved: SHADOW sets it on the pods that it prepares and \
         restores; leave it out, nothing has to be set to be migrated"
    )]
    RuntimeClass,
}

/// Refuses the marks of a replacement on a pod that is none. `awaited` is the ticket of the migration that waits for
/// the pod; `operator` is true for the operator, which makes shadows.
pub fn check_marks(
    wanted: &Wanted,
    awaited: Option<&TicketId>,
    user: &User,
    operator: bool,
) -> Result<(), Reserved> {
    if operator {
        return Ok(());
    }
    if wanted.ticket().is_some() && (awaited.is_none() || wanted.brings().as_ref() != awaited) {
        return Err(Reserved::Ticket);
    }
    if awaited.is_some() {
        return Ok(()); // our own patch, seen again
    }
    if wanted.placed_on().is_some() {
        return Err(Reserved::PlacedOn);
    }
    // Without a ticket the runtime is plain runc: harmless from a template that was written before SHADOW was installed,
    // and in a copy of a pod that was prepared. Elsewhere somebody expects of it what it does not do.
    let may_have_class = user.is_cluster_controller() || wanted.says_prepared();
    if wanted.runtime_class.as_deref() == Some(RUNTIME_CLASS) && !may_have_class {
        return Err(Reserved::RuntimeClass);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::webhook::cache::MigrationFacts;

    fn pod(value: &Value) -> Wanted {
        serde_json::from_value::<NewPod>(value.clone()).unwrap().into()
    }

    fn owned(kind: &str, name: &str) -> Value {
        json!({ "metadata": { "name": name, "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": "owner", "controller": true }
        ]}, "spec": {} })
    }

    fn migration(step: &str, committed: bool) -> MigrationFacts {
        let migration: crate::api::StatefulMigration = serde_json::from_value(json!({
            "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
            "metadata": { "name": "m", "namespace": "ns", "uid": "ab" },
            "spec": { "sourcePod": "web-0", "sourcePodUid": "source" },
            "status": { "phase": "Finalizing", "step": step, "committed": committed, "epoch": 2,
                        "ownerUid": "owner", "targetNode": "n2" }
        }))
        .unwrap();
        migration.into()
    }

    fn ticket() -> TicketId {
        migration("Replacing", true).replacement_ticket()
    }

    fn user(name: &str) -> User {
        User { username: Some(name.into()), ..User::default() }
    }

    #[test]
    fn a_stateful_sets_pod_must_have_the_name_and_a_replica_sets_may_have_any() {
        let m = migration("Replacing", true);
        assert_eq!(matches(&pod(&owned("StatefulSet", "web-0")), &m), Match::Awaits);
        assert_eq!(matches(&pod(&owned("StatefulSet", "web-1")), &m), Match::No);
        assert_eq!(matches(&pod(&owned("ReplicaSet", "")), &m), Match::Awaits);
        assert_eq!(matches(&pod(&json!({ "metadata": { "name": "web-0" } })), &m), Match::No, "nobody's pod");
        let other = MigrationFacts { owner_uid: Some("another".into()), ..m };
        assert_eq!(matches(&pod(&owned("StatefulSet", "web-0")), &other), Match::No);
    }

    #[test]
    fn a_pod_of_another_revision_starts_fresh() {
        let of = |revision: &str| {
            let mut value = owned("StatefulSet", "web-0");
            value["metadata"]["labels"] = json!({ "controller-revision-hash": revision });
            pod(&value)
        };
        let m = MigrationFacts { source_revision: Some("a".into()), ..migration("Replacing", true) };
        assert_eq!(matches(&of("a"), &m), Match::Awaits);
        assert_eq!(matches(&of("b"), &m), Match::No);
        assert_eq!(matches(&pod(&owned("StatefulSet", "web-0")), &m), Match::Awaits, "not told");
        let older = MigrationFacts { source_revision: None, ..m };
        assert_eq!(matches(&of("b"), &older), Match::Awaits, "accepted before revisions were noted");
    }

    #[test]
    fn before_the_commit_it_must_be_asked_again_and_after_the_restore_nothing_is_awaited() {
        let web0 = pod(&owned("StatefulSet", "web-0"));
        assert_eq!(matches(&web0, &migration("Bridging", false)), Match::NotYet);
        assert_eq!(matches(&web0, &migration("Freezing", true)), Match::Awaits);
        assert_eq!(matches(&web0, &migration("Switching", true)), Match::No);
        let ended = MigrationFacts { phase: crate::api::Phase::Failed, ..migration("Bridging", false) };
        assert_eq!(matches(&web0, &ended), Match::No);
    }

    #[test]
    fn the_marks_of_a_replacement_are_refused_on_any_other_pod() {
        let with = |annotation: &str, value: &str| {
            pod(&json!({ "metadata": { "annotations": { annotation: value } } }))
        };
        let controller = user("system:serviceaccount:kube-system:statefulset-controller");
        let ours = ticket();
        let forged = with(ANNOTATION_TICKET, "ab.2.replacement");
        assert_eq!(check_marks(&forged, None, &controller, false), Err(Reserved::Ticket));
        assert_eq!(
            check_marks(&forged, Some(&ours), &controller, false),
            Ok(()),
            "our own patch, seen again"
        );
        let of_other_attempt = with(ANNOTATION_TICKET, "ab.1.replacement");
        assert_eq!(check_marks(&of_other_attempt, Some(&ours), &controller, false), Err(Reserved::Ticket));
        assert_eq!(
            check_marks(&with(ANNOTATION_TICKET, ""), None, &user("eve"), false),
            Err(Reserved::Ticket)
        );
        assert_eq!(
            check_marks(&with(ANNOTATION_PLACED_ON, "n"), None, &user("eve"), false),
            Err(Reserved::PlacedOn)
        );
        let class = pod(&json!({ "spec": { "runtimeClassName": "shadow" } }));
        assert_eq!(check_marks(&class, None, &user("eve"), false), Err(Reserved::RuntimeClass));
        assert_eq!(check_marks(&class, None, &controller, false), Ok(()));
        let copied = pod(&json!({ "metadata": { "annotations": { ANNOTATION_PREPARED: "true" } },
            "spec": { "runtimeClassName": "shadow" } }));
        assert_eq!(check_marks(&copied, None, &user("eve"), false), Ok(()), "a copy of a prepared pod");
        assert_eq!(check_marks(&forged, None, &user("operator"), true), Ok(()), "the operator makes shadows");
    }
}
