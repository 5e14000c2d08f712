//! The patch that makes a pod under creation the replacement. Pure.
//!
//! Guarantees: what the user wrote stays; what is right already is not patched again.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::{Value, json};

use super::cache::LABEL_HOSTNAME;
use super::containers::InitContainer;
use super::pod::{ON_ROOT_MISMATCH, Wanted};
use crate::api::{
    ANNOTATION_AT_ONCE, ANNOTATION_FRESH_CONTAINERS, ANNOTATION_INIT_CONTAINERS, ANNOTATION_PLACED_ON,
    ANNOTATION_PREPARED, ANNOTATION_SKIP_POST_START, ANNOTATION_TICKET, InitRuns, NodeName,
    PREPARED_RESTORED, Policy, Prepare, RUNTIME_CLASS, TicketId,
};

/// Taint of a node that takes no new pods.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// Makes the pod the replacement: ticket, runtime, node, as its user's policy has it prepared for a fresh start later, and
/// what becomes of its containers; `fresh` are those that its migration has started anew. Empty where everything is as it
/// must be.
pub fn replacement_patch(
    wanted: &Wanted,
    ticket: &TicketId,
    target: &NodeName,
    hostname: &str,
    policy: &Policy,
    fresh: &[String],
) -> Patch {
    let mut patch = Vec::new();
    let mut annotations =
        vec![(ANNOTATION_TICKET, ticket.to_string()), (ANNOTATION_PLACED_ON, target.to_string())];
    if policy.prepare != Prepare::Never {
        annotations.push((ANNOTATION_PREPARED, PREPARED_RESTORED.to_owned()));
    }
    if !wanted.post_start.is_empty() {
        annotations.push((ANNOTATION_SKIP_POST_START, json!(wanted.post_start).to_string()));
    }
    let runs: InitRuns = wanted.init_containers.iter().filter_map(|init| init.run(&policy.init)).collect();
    let waited_for: Vec<_> = wanted.init_containers.iter().filter_map(InitContainer::is_waited_for).collect();
    // What a template says of it is not believed.
    let is_told = |key: &str| wanted.annotations.as_ref().is_some_and(|all| all.contains_key(key));
    for (key, is_any, text) in [
        (ANNOTATION_INIT_CONTAINERS, !runs.is_empty(), json!(runs).to_string()),
        (ANNOTATION_FRESH_CONTAINERS, !fresh.is_empty(), fresh.join(",")),
        (ANNOTATION_AT_ONCE, !waited_for.is_empty(), waited_for.join(",")),
    ] {
        if is_any || is_told(key) {
            annotations.push((key, text));
        }
    }
    put(&mut patch, &["metadata", "annotations"], wanted.annotations.as_ref(), &annotations);
    if wanted.runtime_class.as_deref() != Some(RUNTIME_CLASS) {
        patch.push(add(&["spec", "runtimeClassName"], json!(RUNTIME_CLASS)));
    }
    if wanted.owners_change {
        patch.push(add(&["spec", "securityContext", "fsGroupChangePolicy"], json!(ON_ROOT_MISMATCH)));
    }
    let selector = [(LABEL_HOSTNAME, hostname.to_owned())];
    put(&mut patch, &["spec", "nodeSelector"], wanted.node_selector.as_ref(), &selector);
    // Its memory is on that node and nowhere else: a cordon that came meanwhile is for pods that have a choice.
    let toleration = json!({ "key": CORDONED, "operator": "Exists", "effect": "NoSchedule" });
    match &wanted.tolerations {
        None => patch.push(add(&["spec", "tolerations"], json!([toleration]))),
        Some(all) if all.iter().any(|t| t.key.as_deref() == Some(CORDONED)) => {}
        Some(_) => patch.push(add(&["spec", "tolerations", "-"], toleration)),
    }
    Patch(patch)
}

/// Puts entries into a map that may not exist.
pub(super) fn put(
    patch: &mut Vec<PatchOperation>,
    parent: &[&str; 2],
    present: Option<&BTreeMap<String, String>>,
    entries: &[(&str, String)],
) {
    match present {
        None => {
            let all: serde_json::Map<String, Value> =
                entries.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            patch.push(add(parent, Value::Object(all)));
        }
        Some(present) => {
            for (key, value) in entries.iter().filter(|(key, value)| present.get(*key) != Some(value)) {
                patch.push(add(&[parent[0], parent[1], key], json!(value)));
            }
        }
    }
}

pub(super) fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::pod::NewPod;

    fn pod(value: &Value) -> Wanted {
        serde_json::from_value::<NewPod>(value.clone()).unwrap().into()
    }

    fn ticket() -> TicketId {
        "ab.2.replacement".parse().unwrap()
    }

    fn patched(mut value: Value) -> Value {
        let init = crate::api::parse_init_runs("asked=Run").unwrap();
        let policy = Policy { init, ..Policy::default() };
        let patch =
            replacement_patch(&pod(&value), &ticket(), &"n2".into(), "host-2", &policy, &["ship".to_owned()]);
        json_patch::patch(&mut value, &patch).unwrap();
        value
    }

    #[test]
    fn a_bare_pod_gets_ticket_runtime_and_node_and_needs_nothing_more_the_second_time() {
        for value in [
            json!({ "metadata": {}, "spec": {} }),
            json!({ "metadata": { "annotations": null }, "spec": { "nodeSelector": null } }),
        ] {
            let once = patched(value);
            assert_eq!(once["metadata"]["annotations"][ANNOTATION_TICKET], "ab.2.replacement");
            assert_eq!(once["metadata"]["annotations"][ANNOTATION_PLACED_ON], "n2");
            assert_eq!(once["spec"]["runtimeClassName"], "shadow");
            assert_eq!(once["spec"]["nodeSelector"], json!({ "kubernetes.io/hostname": "host-2" }));
            assert_eq!(once["spec"]["tolerations"][0]["key"], "node.kubernetes.io/unschedulable");
            let again = replacement_patch(
                &pod(&once),
                &ticket(),
                &"n2".into(),
                "host-2",
                &Policy::default(),
                &["ship".to_owned()],
            );
            assert!(again.is_empty());
        }
    }

    #[test]
    fn a_hook_that_the_restored_process_has_been_through_is_told() {
        let hooked = json!({ "metadata": { "annotations": {} }, "spec": { "containers": [
            { "name": "a", "lifecycle": { "postStart": { "exec": { "command": ["/x", "y z"] } } } },
            { "name": "b", "lifecycle": { "postStart": { "sleep": { "seconds": 1 } }, "preStop": null } },
            { "name": "c" },
        ] } });
        let annotations = patched(hooked)["metadata"]["annotations"].take();
        assert_eq!(annotations[ANNOTATION_SKIP_POST_START], r#"{"a":["/x","y z"]}"#);
        assert_eq!(annotations[ANNOTATION_PREPARED], "restored");
    }

    #[test]
    fn init_containers_that_have_done_their_work_are_told() {
        let network = json!({ "capabilities": { "add": ["NET_ADMIN"] } });
        let value = json!({ "metadata": {}, "spec": { "initContainers": [
            { "name": "fill" },
            { "name": "asked" },
            { "name": "network", "securityContext": network },
            { "name": "sidecar", "restartPolicy": "Always" },
            { "name": "proxy", "restartPolicy": "Always", "startupProbe": { "exec": { "command": ["x"] } },
                "lifecycle": { "postStart": { "exec": { "command": ["y"] } } } },
        ] } });
        let annotations = patched(value)["metadata"]["annotations"].clone();
        assert_eq!(annotations[ANNOTATION_AT_ONCE], "proxy", "the kubelet waits for it");
        assert_eq!(annotations[ANNOTATION_FRESH_CONTAINERS], "ship");
        assert_eq!(annotations[ANNOTATION_SKIP_POST_START], r#"{"proxy":["y"]}"#);
        let told = annotations[ANNOTATION_INIT_CONTAINERS].clone();
        let told: Value = serde_json::from_str(told.as_str().unwrap()).unwrap();
        assert_eq!(told, json!({ "fill": "Skip", "asked": "Run", "network": "Run" }));
    }

    #[test]
    fn what_a_template_says_of_init_containers_is_not_believed() {
        let value = json!({ "metadata": { "annotations": { ANNOTATION_INIT_CONTAINERS: r#"{"app":"Run"}"#,
            ANNOTATION_AT_ONCE: "app", ANNOTATION_FRESH_CONTAINERS: "app" } }, "spec": {} });
        let annotations = patched(value)["metadata"]["annotations"].clone();
        assert_eq!(annotations[ANNOTATION_INIT_CONTAINERS], "{}");
        assert_eq!(
            (&annotations[ANNOTATION_AT_ONCE], &annotations[ANNOTATION_FRESH_CONTAINERS]),
            (&json!(""), &json!("ship"))
        );
    }

    #[test]
    fn the_kubelet_does_not_give_the_files_of_a_claim_to_another_group() {
        let pod = |volume: Value| {
            patched(
                json!({ "metadata": {}, "spec": { "securityContext": { "fsGroup": 7 }, "volumes": [volume] } }),
            )
        };
        let claim = pod(json!({ "name": "data", "persistentVolumeClaim": { "claimName": "d" } }));
        assert_eq!(
            claim["spec"]["securityContext"],
            json!({ "fsGroup": 7, "fsGroupChangePolicy": ON_ROOT_MISMATCH })
        );
        let empty = pod(json!({ "name": "tmp", "emptyDir": {} }));
        assert_eq!(empty["spec"]["securityContext"], json!({ "fsGroup": 7 }), "filled later");
    }

    #[test]
    fn what_the_user_wrote_stays() {
        let value = json!({
            "metadata": { "annotations": { "a": "b" } },
            "spec": { "nodeSelector": { "disk": "ssd" }, "tolerations": [{ "key": "own" }], "containers": [] }
        });
        let done = patched(value);
        assert_eq!(done["metadata"]["annotations"]["a"], "b");
        assert_eq!(done["spec"]["tolerations"][0], json!({ "key": "own" }));
        assert_eq!(done["spec"]["tolerations"].as_array().unwrap().len(), 2);
        assert_eq!(
            done["spec"]["nodeSelector"],
            json!({ "disk": "ssd", "kubernetes.io/hostname": "host-2" })
        );
    }
}
