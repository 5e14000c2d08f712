//! What a StatefulSet would make of a pod that goes: whether it wants one of that ordinal, and from which revision. No I/O.

use k8s_openapi::api::apps::v1::StatefulSet;

/// What a StatefulSet wants its pods to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    pub first: i64,
    pub replicas: i64,
    /// Pods below this ordinal are made from the current revision, those from it on from the update revision. Under
    /// `OnDelete` there is none: every pod that is made is of the update revision.
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
        self.observed && self.revision_of(ordinal).is_some_and(|wanted| wanted != revision)
    }

    /// What a pod of this ordinal would be made from, if the set says so.
    pub fn revision_of(&self, ordinal: i64) -> Option<&str> {
        let of_current = ordinal < self.first.saturating_add(self.partition);
        if of_current { self.current.as_deref() } else { self.update.as_deref() }
    }
}

impl From<&StatefulSet> for Rollout {
    fn from(set: &StatefulSet) -> Self {
        let (spec, status) = (&set.spec, set.status.as_ref());
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        Self {
            first: spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).into(),
            replicas: spec.replicas.unwrap_or(1).into(),
            partition: rolling.and_then(|rolling| rolling.partition).unwrap_or(0).into(),
            current: status.and_then(|status| status.current_revision.clone()),
            update: status.and_then(|status| status.update_revision.clone()),
            observed: status.and_then(|status| status.observed_generation) >= set.metadata.generation,
        }
    }
}

/// The number at the end of a StatefulSet's pod's name.
pub fn ordinal(pod: &str) -> Option<i64> {
    pod.rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse().ok())
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
        Rollout::from(&set)
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
        assert_eq!((ordinal("web-1-12"), ordinal("web-x")), (Some(12), None));
    }

    #[test]
    fn a_pod_of_an_older_revision_would_come_back_different_unless_the_partition_keeps_it() {
        let all = rollout(&spec(json!({})));
        assert!(all.would_change(0, "a") && !all.would_change(0, "b"));
        let upper = rollout(&spec(json!({ "updateStrategy": { "rollingUpdate": { "partition": 2 } } })));
        assert!(!upper.would_change(1, "a"), "below the partition the current revision is kept");
        assert!(upper.would_change(2, "a"));
        let on_delete = rollout(&spec(json!({ "updateStrategy": { "type": "OnDelete" } })));
        assert!(on_delete.would_change(0, "a"), "whatever is deleted comes back as the template is now");
        assert!(!Rollout { observed: false, ..all }.would_change(0, "a"), "the status is of an older spec");
    }
}
