//! Volumes of the shadow: what only one node can mount is the source's as long as that runs, so the shadow keeps room where
//! it can come to and goes without. Pure.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorTerm, PodSpec};

use super::drive::subject::Subject;

/// As the webhook does for a replacement: the kubelet is not to go through all files of a volume that was prepared before.
const ON_MISMATCH: &str = "OnRootMismatch";

/// Takes the volumes away that only one node can mount, with all that mounts them.
pub fn take_away(spec: &mut PodSpec, subject: &Subject) {
    let gone: Vec<&str> = subject.one_node_volumes().collect();
    let is_gone = |name: &str| gone.contains(&name);
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !is_gone(&volume.name));
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| !is_gone(&mount.name));
        }
    }
    if let Some(security) = spec.security_context.as_mut().filter(|security| security.fs_group.is_some()) {
        security.fs_group_change_policy = Some(ON_MISMATCH.to_owned());
    }
}

/// Only where all of these fit. A node must match one of the terms of each.
pub fn stay_within(spec: &mut PodSpec, within: &[NodeSelector]) {
    // A term that asks for nothing fits nowhere.
    if within.is_empty() {
        return;
    }
    let selector = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default()
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_default();
    if selector.node_selector_terms.is_empty() {
        selector.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for volume in within {
        let terms = &selector.node_selector_terms;
        selector.node_selector_terms =
            terms.iter().flat_map(|one| volume.node_selector_terms.iter().map(|of| both(one, of))).collect();
    }
}

fn both(one: &NodeSelectorTerm, other: &NodeSelectorTerm) -> NodeSelectorTerm {
    let mut both = one.clone();
    both.match_expressions.get_or_insert_default().extend(other.match_expressions.iter().flatten().cloned());
    both.match_fields.get_or_insert_default().extend(other.match_fields.iter().flatten().cloned());
    both
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::check::claims::Claim;

    #[test]
    fn what_one_node_can_mount_is_left_to_the_replacement() {
        let mount = |name: &str| json!({ "name": name, "mountPath": format!("/{name}") });
        let mut spec: PodSpec = serde_json::from_value(json!({
            "securityContext": { "fsGroup": 7 },
            "containers": [{ "name": "app", "volumeMounts": [mount("data"), mount("shared")] }],
            "initContainers": [{ "name": "fill", "volumeMounts": [mount("data")] }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "d" } },
                { "name": "shared", "persistentVolumeClaim": { "claimName": "s" } }]
        }))
        .unwrap();
        let claim = |volume: &str, one_node| Claim {
            volume: volume.into(),
            claim: "c".into(),
            one_node,
            bound: None,
        };
        let claims = vec![claim("data", true), claim("shared", false)];
        take_away(&mut spec, &Subject { claims, ..Subject::example("web-0") });
        let text = serde_json::to_string(&spec).unwrap();
        assert!(!text.contains("data") && text.contains("/shared"), "{text}");
        assert!(text.contains(ON_MISMATCH), "{text}");
    }

    #[test]
    fn a_pod_whose_volumes_are_everywhere_stays_as_it_is() {
        let mut spec = PodSpec::default();
        stay_within(&mut spec, &[]);
        assert_eq!(spec, PodSpec::default());
    }

    #[test]
    fn a_node_must_fit_the_pod_and_every_volume() {
        let selector = |values: &[&str]| -> NodeSelector {
            let term = |value: &&str| json!({ "matchExpressions": [{ "key": value, "operator": "Exists" }] });
            let terms: Vec<_> = values.iter().map(term).collect();
            serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap()
        };
        let mut spec = PodSpec::default();
        stay_within(&mut spec, &[selector(&["a", "b"]), selector(&["c"])]);
        let affinity = spec.affinity.unwrap().node_affinity.unwrap();
        let found = affinity.required_during_scheduling_ignored_during_execution.unwrap();
        let keys = |term: &NodeSelectorTerm| -> Vec<String> {
            term.match_expressions.iter().flatten().map(|one| one.key.clone()).collect()
        };
        let all: Vec<_> = found.node_selector_terms.iter().map(keys).collect();
        assert_eq!(all, [["a", "c"], ["b", "c"]]);
    }
}
