//! Whether the source's owner will make its pod again, and from the same template. Network I/O, but for the decision.

use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::ListParams;
use kube::core::Selector;
use kube::{Api, Client, ResourceExt as _};

use super::{EffectError, Performer};
use crate::api::Reason;
use crate::kit::{Rollout, ordinal};
use crate::operator::drive::subject::{Journal, OwnerKind, Subject};

/// What the owner would make of the pod if it went now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Again {
    AsItIs,
    /// The owner is gone or going, or was scaled down so that this pod is none of its pods any more.
    Never,
    /// Of this revision.
    FromAnother(String),
    /// The owner was changed a moment ago, and its controller has not said yet what that means.
    NotTold,
}

impl Performer {
    /// True where nobody makes the pod again. Its state then goes with it, as whenever a pod is scaled away.
    pub(super) async fn is_pod_unwanted(&self, journal: &Journal) -> Result<bool, EffectError> {
        Ok(again(&self.ctx.client, &journal.subject).await? == Again::Never)
    }
}

/// Fails where the pod's state would have nowhere to go: nobody would make the pod again, or from another template.
pub async fn owner_keeps(client: &Client, subject: &Subject) -> Result<(), EffectError> {
    let Subject { source, revision, .. } = subject;
    let pod = &source.name;
    match again(client, subject).await? {
        Again::AsItIs => Ok(()),
        Again::Never => {
            let message =
                format!("the owner of pod {pod} is gone or was scaled down: nobody would make the pod again");
            Err(EffectError::terminal(Reason::OwnerChanged, message))
        }
        Again::FromAnother(now) => {
            let was = revision.as_deref().unwrap_or_default();
            let message = format!(
                "its StatefulSet would make pod {pod} from revision {now} now, it is of {was}: roll back, or let it start fresh"
            );
            Err(EffectError::terminal(Reason::OwnerChanged, message))
        }
        Again::NotTold => {
            let message = format!("the StatefulSet of pod {pod} was changed a moment ago: tried again");
            Err(EffectError::transient(Reason::OwnerChanged, message))
        }
    }
}

/// Fails, as long as that stands, where the StatefulSet would not make the pod again at once, because an earlier one is not
/// ready.
pub async fn owner_makes_at_once(client: &Client, subject: &Subject) -> Result<(), EffectError> {
    let pod = &subject.source.name;
    let Some(Owner::StatefulSet(set)) = owner(client, subject).await? else { return Ok(()) };
    let earlier = earlier_pods(&set, pod);
    if earlier.is_empty() {
        return Ok(());
    }
    let pods = Api::<Pod>::namespaced(client.clone(), &subject.source.namespace);
    // One that this version does not understand selects all: the names decide.
    let selected = Selector::try_from(set.spec.selector.clone()).unwrap_or_default();
    let there = pods.list(&ListParams::default().labels_from(&selected)).await;
    let there = there.map_err(EffectError::api("list the StatefulSet's pods"))?.items;
    let is_there = |name: &String| there.iter().any(|pod| pod.name_any() == *name && is_ready(pod));
    match earlier.iter().find(|name| !is_there(name)) {
        None => Ok(()),
        Some(name) => {
            let message = format!(
                "pod {name} is not ready, and its StatefulSet makes {pod} again only when it is (podManagementPolicy OrderedReady): waits"
            );
            Err(EffectError::transient(Reason::Queued, message))
        }
    }
}

/// What its owner makes pods from; nothing where that is gone.
pub(super) async fn template(client: &Client, subject: &Subject) -> Result<Option<PodSpec>, EffectError> {
    Ok(owner(client, subject).await?.and_then(|owner| match owner {
        Owner::StatefulSet(set) => set.spec.template.spec,
        Owner::ReplicaSet(set) => set.spec.template?.spec,
    }))
}

enum Owner {
    StatefulSet(Box<StatefulSet>),
    ReplicaSet(Box<ReplicaSet>),
}

/// The object of that UID, whatever its name.
async fn owner(client: &Client, subject: &Subject) -> Result<Option<Owner>, EffectError> {
    let (namespace, uid) = (&subject.source.namespace, &subject.owner_uid);
    let all = ListParams::default();
    match subject.owner_kind {
        OwnerKind::StatefulSet => {
            let sets = Api::<StatefulSet>::namespaced(client.clone(), namespace).list(&all).await;
            let sets = sets.map_err(EffectError::api("list StatefulSets"))?.items;
            Ok(sets
                .into_iter()
                .find(|set| set.uid().as_ref() == Some(uid))
                .map(Box::new)
                .map(Owner::StatefulSet))
        }
        OwnerKind::ReplicaSet => {
            let sets = Api::<ReplicaSet>::namespaced(client.clone(), namespace).list(&all).await;
            let sets = sets.map_err(EffectError::api("list ReplicaSets"))?.items;
            Ok(sets
                .into_iter()
                .find(|set| set.uid().as_ref() == Some(uid))
                .map(Box::new)
                .map(Owner::ReplicaSet))
        }
    }
}

async fn again(client: &Client, subject: &Subject) -> Result<Again, EffectError> {
    Ok(match owner(client, subject).await? {
        Some(Owner::StatefulSet(set)) => of_stateful_set(&set, subject),
        Some(Owner::ReplicaSet(set)) => of_replica_set(&set),
        None => Again::Never,
    })
}

/// Those that must be ready before this one is made.
fn earlier_pods(set: &StatefulSet, pod: &str) -> Vec<String> {
    let in_order = set.spec.pod_management_policy.as_deref() != Some("Parallel");
    match (pod.rsplit_once('-'), ordinal(pod)) {
        (Some((set_name, _)), Some(ordinal)) if in_order => {
            (Rollout::from(set).first..ordinal).map(|earlier| format!("{set_name}-{earlier}")).collect()
        }
        _ => Vec::new(),
    }
}

fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && says_ready(pod)
}

/// By its condition.
pub(super) fn says_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

fn of_stateful_set(set: &StatefulSet, subject: &Subject) -> Again {
    if set.metadata.deletion_timestamp.is_some() {
        return Again::Never;
    }
    let (rollout, ordinal) = (Rollout::from(set), ordinal(&subject.source.name));
    let wanted = ordinal.map_or(rollout.replicas > 0, |ordinal| rollout.wants(ordinal));
    let seen = set.status.as_ref().and_then(|status| status.observed_generation);
    match (ordinal, &subject.revision) {
        _ if !wanted => Again::Never,
        _ if seen.is_some() && seen < set.metadata.generation => Again::NotTold,
        (Some(ordinal), Some(revision)) if rollout.would_change(ordinal, revision) => {
            Again::FromAnother(rollout.revision_of(ordinal).unwrap_or_default().to_owned())
        }
        _ => Again::AsItIs,
    }
}

/// It has one template in all its life.
fn of_replica_set(set: &ReplicaSet) -> Again {
    let makes = set.metadata.deletion_timestamp.is_none() && set.spec.replicas.unwrap_or(1) > 0;
    if makes { Again::AsItIs } else { Again::Never }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn subject(pod: &str, revision: Option<&str>) -> Subject {
        Subject { revision: revision.map(Into::into), ..Subject::example(pod) }
    }

    fn set(spec: Value, status: Value) -> StatefulSet {
        let mut all = json!({ "replicas": 2, "selector": {}, "serviceName": "web", "template": {} });
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(
            json!({ "metadata": { "uid": "o", "generation": 2 }, "spec": all, "status": status }),
        )
        .unwrap()
    }

    #[test]
    fn a_stateful_set_wants_the_pods_of_its_ordinals() {
        let is = |spec, pod| of_stateful_set(&set(spec, json!(null)), &subject(pod, None));
        assert_eq!(is(json!({}), "web-1"), Again::AsItIs);
        assert_eq!(is(json!({ "ordinals": { "start": 5 } }), "web-5"), Again::AsItIs);
        assert_eq!(is(json!({}), "web-2"), Again::Never);
        assert_eq!(is(json!({ "ordinals": { "start": 5 } }), "web-4"), Again::Never);
        assert_eq!(is(json!({ "replicas": 0 }), "web-0"), Again::Never);
    }

    #[test]
    fn a_set_that_makes_its_pods_in_order_makes_none_before_the_earlier_ones_are_ready() {
        let earlier = |spec, pod| earlier_pods(&set(spec, json!(null)), pod);
        assert_eq!(earlier(json!({}), "my-web-2"), ["my-web-0", "my-web-1"]);
        assert_eq!(earlier(json!({ "ordinals": { "start": 5 } }), "web-6"), ["web-5"]);
        assert_eq!(earlier(json!({ "podManagementPolicy": "OrderedReady" }), "web-1"), ["web-0"]);
        assert!(earlier(json!({}), "web-0").is_empty());
        assert!(earlier(json!({ "podManagementPolicy": "Parallel" }), "web-2").is_empty());
    }

    #[test]
    fn a_pod_on_its_way_out_is_not_ready() {
        let pod = |going: Option<&str>| -> Pod {
            serde_json::from_value(json!({ "metadata": { "deletionTimestamp": going },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }))
            .unwrap()
        };
        assert!(
            is_ready(&pod(None))
                && !is_ready(&pod(Some("2026-01-01T00:00:00Z")))
                && !is_ready(&Pod::default())
        );
    }

    #[test]
    fn a_pod_that_would_come_back_from_another_template_is_not_kept() {
        let status = |seen| json!({ "replicas": 2, "observedGeneration": seen, "currentRevision": "a", "updateRevision": "b" });
        let is =
            |spec, seen, revision| of_stateful_set(&set(spec, status(seen)), &subject("web-0", revision));
        let on_delete = || json!({ "updateStrategy": { "type": "OnDelete" } });
        assert_eq!(is(on_delete(), 2, Some("a")), Again::FromAnother("b".into()));
        assert_eq!(is(on_delete(), 2, Some("b")), Again::AsItIs);
        assert_eq!(is(on_delete(), 1, Some("a")), Again::NotTold, "asked again in a moment");
        let below = || json!({ "updateStrategy": { "rollingUpdate": { "partition": 1 } } });
        assert_eq!(is(below(), 2, Some("a")), Again::AsItIs);
        assert_eq!(is(below(), 2, Some("b")), Again::FromAnother("a".into()));
        assert_eq!(is(on_delete(), 2, None), Again::AsItIs, "accepted before revisions were noted");
    }

    #[test]
    fn a_replica_set_wants_any_pod_unless_it_is_scaled_to_none() {
        let is = |replicas| {
            let set: ReplicaSet =
                serde_json::from_value(json!({ "spec": { "replicas": replicas, "selector": {} } })).unwrap();
            of_replica_set(&set)
        };
        assert_eq!((is(1), is(0)), (Again::AsItIs, Again::Never));
    }
}
