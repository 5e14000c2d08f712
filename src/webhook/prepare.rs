//! Whether a pod that starts afresh is prepared for being moved later: made under RuntimeClass `shadow`, whose runtime
//! keeps what cannot be moved (MPTCP sockets, io_uring) away from it. Pure.
//!
//! Guarantees: a pod that is prepared runs only where the runtime is; one that could not run everywhere then where it
//! can now is left as it is, and says why in its annotation. What is right already is not patched again.

use json_patch::Patch;
use serde_json::json;

use super::cache::{NodeFacts, Nodes};
use super::pod::Wanted;
use super::replacement::{add, put};
use crate::api::{
    ANNOTATION_PREPARE, ANNOTATION_PREPARED, LABEL_NODE_READY, NOT_PREPARED, PREPARED, Prepare, RUNTIME_CLASS,
};
use crate::placement::{Wishes, admits};

/// Why a pod is left as it is. The text is for its annotation and for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unprepared {
    #[error("it has runtimeClassName {0}")]
    OwnRuntime(String),
    #[error("node {0} has no runtime handler")]
    NoHandler(String),
    #[error("there is no node yet that it may run on")]
    NoNode,
    #[error(
        "node {0} is Karpenter's: give its NodePool the label {LABEL_NODE_READY}=true and set {ANNOTATION_PREPARE} to \
         \"true\""
    )]
    MadeOnDemand(String),
}

/// Whether the pod can be made under our RuntimeClass and run wherever it may run without it.
///
/// # Errors
/// What is against it. With [`Prepare::Always`] the user wants it to run on nodes that have the runtime only.
pub fn judge(wanted: &Wanted, prepare: Prepare, nodes: &Nodes) -> Result<(), Unprepared> {
    match wanted.runtime_class.as_deref().filter(|class| !class.is_empty()) {
        // Seen again, or copied from a pod that was prepared: where it may run was settled with that.
        Some(RUNTIME_CLASS) => return Ok(()),
        Some(other) => return Err(Unprepared::OwnRuntime(other.to_owned())),
        None if prepare == Prepare::Always => return Ok(()),
        None => {}
    }
    let wishes = Wishes {
        tolerations: wanted.tolerations.as_deref().unwrap_or_default(),
        selector: wanted.node_selector.as_ref(),
        required: wanted.required_affinity.as_ref(),
    };
    let may_come = |node: &NodeFacts| {
        let named = wanted.node_name.as_deref().filter(|name| !name.is_empty());
        named.is_none_or(|name| name == node.name)
            && node.runs_linux()
            && admits(&wishes, &node.place()).is_ok()
    };
    if let Some(node) = nodes.doubtful().find(|node| may_come(node)) {
        let name = node.name.clone();
        return Err(if node.is_ready() {
            Unprepared::MadeOnDemand(name)
        } else {
            Unprepared::NoHandler(name)
        });
    }
    // What makes nodes when pods wait for them may not know that the new ones will have our label.
    if nodes.any(may_come) { Ok(()) } else { Err(Unprepared::NoNode) }
}

/// Makes the pod what it was judged to be. Empty where it is that already.
pub fn prepare_patch(wanted: &Wanted, judgement: &Result<(), Unprepared>) -> Patch {
    let mut patch = Vec::new();
    let told = match judgement {
        Ok(()) => PREPARED.to_owned(),
        Err(why) => format!("{NOT_PREPARED}{why}"),
    };
    put(
        &mut patch,
        &["metadata", "annotations"],
        wanted.annotations.as_ref(),
        &[(ANNOTATION_PREPARED, told)],
    );
    if judgement.is_ok() {
        if wanted.runtime_class.as_deref() != Some(RUNTIME_CLASS) {
            patch.push(add(&["spec", "runtimeClassName"], json!(RUNTIME_CLASS)));
        }
        // The RuntimeClass says the same, but only where its admission plugin is on and looks at the pod once more.
        let ready = [(LABEL_NODE_READY, "true".to_owned())];
        put(&mut patch, &["spec", "nodeSelector"], wanted.node_selector.as_ref(), &ready);
    }
    Patch(patch)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::Value;

    use super::*;
    use crate::webhook::cache::Index as _;
    use crate::webhook::pod::NewPod;

    fn nodes(all: &[(&str, Value, Value)]) -> Nodes {
        let mut nodes = Nodes::default();
        for (name, labels, taints) in all {
            let node =
                json!({ "metadata": { "name": name, "labels": labels }, "spec": { "taints": taints } });
            nodes.insert(serde_json::from_value::<Node>(node).unwrap().into());
        }
        nodes
    }

    fn pod(spec: Value) -> Wanted {
        serde_json::from_value::<NewPod>(json!({ "metadata": {}, "spec": spec })).unwrap().into()
    }

    fn judged(spec: Value, prepare: Prepare, nodes: &Nodes) -> String {
        judge(&pod(spec), prepare, nodes).map_or_else(|why| why.to_string(), |()| "prepared".to_owned())
    }

    fn ready(labels: Value) -> Value {
        let mut labels = labels;
        labels[LABEL_NODE_READY] = "true".into();
        labels
    }

    fn mixed() -> Nodes {
        nodes(&[
            ("n1", ready(json!({ "disk": "ssd" })), json!([])),
            ("n2", ready(json!({})), json!([])),
            ("n3", json!({ "zone": "b" }), json!([])),
            ("cp", json!({}), json!([{ "key": "control-plane", "effect": "NoSchedule" }])),
            ("w", json!({ "kubernetes.io/os": "windows" }), json!([])),
        ])
    }

    #[test]
    fn a_pod_is_prepared_only_where_every_node_that_may_take_it_has_the_runtime() {
        let none = "node n3 has no runtime handler";
        for (spec, expected) in [
            (json!({}), none),
            (json!({ "nodeSelector": { "disk": "ssd" } }), "prepared"),
            (json!({ "nodeSelector": { "disk": "tape" } }), "there is no node yet that it may run on"),
            (json!({ "nodeName": "n2" }), "prepared"),
            (json!({ "nodeName": "n3" }), none),
            (json!({ "nodeSelector": { "zone": "b" }, "tolerations": [{ "operator": "Exists" }] }), none),
            (json!({ "runtimeClassName": "gvisor" }), "it has runtimeClassName gvisor"),
            (json!({ "runtimeClassName": "shadow" }), "prepared"),
        ] {
            assert_eq!(judged(spec.clone(), Prepare::Auto, &mixed()), expected, "{spec}");
        }
        let affinity = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "zone", "operator": "DoesNotExist" }] }] } } } });
        assert_eq!(judged(affinity, Prepare::Auto, &mixed()), "prepared");
        let tolerant =
            json!({ "nodeSelector": {}, "tolerations": [{ "key": "control-plane", "operator": "Exists" }] });
        assert_eq!(judged(tolerant, Prepare::Auto, &mixed()), "node cp has no runtime handler");
        assert_eq!(judged(json!({}), Prepare::Auto, &Nodes::default()), Unprepared::NoNode.to_string());
    }

    #[test]
    fn a_cordon_passes_and_so_its_node_counts() {
        let cordoned = json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }]);
        let all = nodes(&[("n1", ready(json!({})), json!([])), ("n3", json!({}), cordoned)]);
        assert_eq!(judged(json!({}), Prepare::Auto, &all), "node n3 has no runtime handler");
    }

    #[test]
    fn where_nodes_are_made_on_demand_the_user_must_answer_for_the_new_ones() {
        let all = nodes(&[("k1", ready(json!({ "karpenter.sh/nodepool": "default" })), json!([]))]);
        let why = judged(json!({}), Prepare::Auto, &all);
        assert!(why.starts_with("node k1 is Karpenter's: give its NodePool"), "{why}");
        assert!(why.len() < 150, "it is quoted in sentences of 200 characters");
        assert_eq!(judged(json!({}), Prepare::Always, &all), "prepared");
        assert_eq!(judged(json!({}), Prepare::Always, &mixed()), "prepared", "bound to nodes that have it");
        let foreign = json!({ "runtimeClassName": "gvisor" });
        assert_eq!(judged(foreign, Prepare::Always, &all), "it has runtimeClassName gvisor");
    }

    #[test]
    fn the_patch_makes_it_so_and_is_empty_the_second_time() {
        let cases = [Ok(()), Err(Unprepared::NoNode)];
        for judgement in &cases {
            let mut value = json!({ "metadata": { "annotations": { "a": "b" } }, "spec": { "nodeSelector": { "d": "e" } } });
            let read = |value: &Value| serde_json::from_value::<NewPod>(value.clone()).unwrap().into();
            let patch = prepare_patch(&read(&value), judgement);
            json_patch::patch(&mut value, &patch).unwrap();
            assert_eq!(
                (&value["metadata"]["annotations"]["a"], &value["spec"]["nodeSelector"]["d"]),
                (&json!("b"), &json!("e"))
            );
            let told = value["metadata"]["annotations"][ANNOTATION_PREPARED].as_str().unwrap();
            if judgement.is_ok() {
                assert_eq!((told, &value["spec"]["runtimeClassName"]), ("true", &json!("shadow")));
                assert_eq!(value["spec"]["nodeSelector"][LABEL_NODE_READY], "true");
            } else {
                assert_eq!(told, "false: there is no node yet that it may run on");
                assert!(value["spec"].get("runtimeClassName").is_none());
            }
            assert!(prepare_patch(&read(&value), judgement).is_empty());
        }
    }
}
