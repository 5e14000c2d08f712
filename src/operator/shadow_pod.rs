//! The shadow pod: the source's spec, so that the restored process finds the same mounts, limits and identity, but
//! none of its labels (PDBs, Services and adoption must not see it) and nothing that would run or restart it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerRestartRule, ContainerRestartRuleOnExitCodes, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::check::containers::is_sidecar;
use super::drive::subject::Subject;
use super::{shadow_init, shadow_volumes};
use crate::api::{
    ANNOTATION_ARCHIVE_BYTES, ANNOTATION_PLACED_ON, ANNOTATION_SOURCE_NODE, ANNOTATION_TICKET, Epoch, GROUP,
    LABEL_MIGRATION, LABEL_ROLE, LABELS_REVISION, MigrationUid, NodeName, RESOURCE_CHECKPOINT, RUNTIME_CLASS,
    Role, TicketId,
};

pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
const HOSTNAME_LIMIT: usize = 63;
/// Kubernetes puts this volume into every pod by itself, under a random name.
const TOKEN_VOLUME_PREFIX: &str = "kube-api-access-";

/// Name of the shadow of `source` in this attempt. Never `<set>-<number>`, so no StatefulSet adopts it.
pub fn shadow_name(source: &str, epoch: Epoch) -> String {
    let mut suffix = format!("-shadow-{epoch}");
    // A pod's name has at most 253 characters, its host name 63: keep the latter, so that DNS and /etc/hostname agree.
    if source.len() + suffix.len() <= HOSTNAME_LIMIT {
        return format!("{source}{suffix}");
    }
    // What is cut off is what tells the pods of a set apart.
    suffix = format!("-{}{suffix}", &hex::encode(Sha256::digest(source))[..8]);
    let keep = HOSTNAME_LIMIT.saturating_sub(suffix.len());
    format!("{}{suffix}", source[..keep].trim_end_matches(['-', '.']))
}

/// By these pods opt out of containers that others would put into them, or of being routed through a proxy.
const OPT_OUTS: [&str; 9] = [
    "admission.datadoghq.com/enabled",
    "consul.hashicorp.com/connect-inject",
    "istio.io/dataplane-mode",
    "kuma.io/sidecar-injection",
    "linkerd.io/inject",
    "openservicemesh.io/sidecar-injection",
    "sidecar.istio.io/inject",
    "sidecar.opentelemetry.io/inject",
    "vault.hashicorp.com/agent-inject",
];

/// Keys of labels and annotations that shadows have from their pods. Never our own, nor one that an owner knows its pods
/// by.
pub fn kept_labels(more: Vec<String>) -> Arc<[String]> {
    let ours = |key: &String| key.split_once('/').is_some_and(|(prefix, _)| prefix == GROUP);
    let all = OPT_OUTS.iter().map(|key| (*key).to_owned()).chain(more);
    all.filter(|key| !ours(key) && !LABELS_REVISION.contains(&key.as_str())).collect()
}

/// Labels of the shadow of this pod.
pub fn shadow_labels(source: &Pod, migration: &MigrationUid, kept: &[String]) -> BTreeMap<String, String> {
    let mut labels = only(source.labels(), kept);
    labels.insert(LABEL_MIGRATION.to_owned(), migration.to_string());
    labels.insert(LABEL_ROLE.to_owned(), Role::Shadow.to_string());
    labels
}

fn only(of: &BTreeMap<String, String>, kept: &[String]) -> BTreeMap<String, String> {
    kept.iter().filter_map(|key| Some((key.clone(), of.get(key)?.clone()))).collect()
}

/// Where the shadow may come to, who decides, and what it has from its pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placement<'a> {
    /// A node that was asked for.
    pub wanted: Option<&'a str>,
    /// Nodes that it is not to come to.
    pub avoided: &'a [NodeName],
    /// Labels of a node that it must share with the source's.
    pub alike: &'a [(&'static str, String)],
    /// A scheduler that asks the extender.
    pub scheduler: Option<&'a str>,
    /// It keeps its ports of the host, so that only nodes are found on which they are free. Not beside a replacement,
    /// which needs them on the same node.
    pub host_ports: bool,
    /// Keys of labels and annotations, see [`kept_labels`].
    pub kept: &'a [String],
    /// Where the volumes of its pod can be.
    pub within: &'a [NodeSelector],
}

/// Builds the shadow.
pub fn shadow_pod(
    source: &Pod,
    subject: &Subject,
    migration: &MigrationUid,
    owner: OwnerReference,
    epoch: Epoch,
    placement: &Placement<'_>,
) -> Pod {
    let name = shadow_name(&subject.source.name, epoch);
    let ticket = TicketId::shadow(migration.clone(), epoch);
    let mut spec = source.spec.clone().unwrap_or_default();
    strip(&mut spec);
    stay_together(&mut spec);
    shadow_volumes::take_away(&mut spec, subject);
    let completed = shadow_init::complete(&mut spec, subject);
    if !placement.host_ports {
        spec.containers
            .iter_mut()
            .flat_map(|c| c.ports.iter_mut().flatten())
            .for_each(|port| port.host_port = None);
    }
    if source.annotations().contains_key(ANNOTATION_PLACED_ON)
        && let Some(selector) = &mut spec.node_selector
    {
        selector.remove(HOSTNAME_LABEL);
    }
    // Away from the source's node, which a drain cordons but other migrations do not.
    let field = |operator, node| requirement("metadata.name", operator, node);
    let mut fields = vec![field("NotIn", subject.node.as_str())];
    fields.extend(placement.wanted.map(|node| field("In", node)));
    fields.extend(placement.avoided.iter().map(|node| field("NotIn", node.as_str())));
    let labels = placement.alike.iter().map(|(key, value)| requirement(key, "In", value));
    require(&mut spec, &fields, &labels.collect::<Vec<_>>());
    shadow_volumes::stay_within(&mut spec, placement.within);
    if let Some(scheduler) = placement.scheduler {
        ask_extender(&mut spec, scheduler);
    }
    let mut annotations = only(source.annotations(), placement.kept);
    annotations.extend(completed);
    annotations.extend([
        (ANNOTATION_TICKET.to_owned(), ticket.to_string()),
        (ANNOTATION_SOURCE_NODE.to_owned(), subject.node.to_string()),
        (ANNOTATION_ARCHIVE_BYTES.to_owned(), subject.archive_bytes.unwrap_or_default().to_string()),
    ]);
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(subject.source.namespace.clone()),
            labels: Some(shadow_labels(source, migration, placement.kept)),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn strip(spec: &mut PodSpec) {
    spec.node_name = None;
    spec.runtime_class_name = Some(RUNTIME_CLASS.to_owned());
    spec.overhead = None;
    spec.ephemeral_containers = None; // ended; no pod may be created with any
    spec.restart_policy = Some("Never".to_owned());
    spec.termination_grace_period_seconds = Some(0);
    spec.hostname = None;
    spec.subdomain = None;
    spec.readiness_gates = None;
    spec.topology_spread_constraints = None;
    // Set from the priority class again at admission; both together are refused.
    if spec.priority_class_name.is_some() {
        spec.priority = None;
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
        container.lifecycle = None;
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| !mount.name.starts_with(TOKEN_VOLUME_PREFIX));
        }
    }
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !volume.name.starts_with(TOKEN_VOLUME_PREFIX));
    }
}

/// Native sidecars are containers like the others: nothing waits for them, and nothing starts them again.
fn stay_together(spec: &mut PodSpec) {
    let (sidecars, init): (Vec<_>, Vec<_>) =
        spec.init_containers.take().into_iter().flatten().partition(is_sidecar);
    spec.init_containers = Some(init).filter(|init| !init.is_empty());
    spec.containers.extend(sidecars);
    spec.containers.iter_mut().for_each(wait_again);
}

/// What the engine says of a container whose `create` failed.
const NOT_STARTED: i32 = 128;

/// The kubelet does not let a `create` wait as long as a large dump takes. One that has waited in vain is made again;
/// a process that ended, or was killed to be fenced, is not.
fn wait_again(container: &mut Container) {
    container.restart_policy = Some("Never".to_owned());
    container.restart_policy_rules = Some(vec![ContainerRestartRule {
        action: "Restart".to_owned(),
        exit_codes: Some(ContainerRestartRuleOnExitCodes {
            operator: "In".to_owned(),
            values: Some(vec![NOT_STARTED]),
        }),
    }]);
}

/// The scheduler asks the extender for pods that name this resource. None of it is asked for: so no node must have it,
/// and a scheduler that does not know the extender places the pod as any other.
fn ask_extender(spec: &mut PodSpec, scheduler: &str) {
    spec.scheduler_name = Some(scheduler.to_owned());
    if let Some(container) = spec.containers.first_mut() {
        let resources = container.resources.get_or_insert_default();
        for of in [&mut resources.requests, &mut resources.limits] {
            of.get_or_insert_default().insert(RESOURCE_CHECKPOINT.to_owned(), Quantity("0".to_owned()));
        }
    }
}

fn requirement(key: &str, operator: &str, value: &str) -> NodeSelectorRequirement {
    NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: Some(vec![value.to_owned()]),
    }
}

fn require(spec: &mut PodSpec, fields: &[NodeSelectorRequirement], labels: &[NodeSelectorRequirement]) {
    let selector = spec
        .affinity
        .get_or_insert_with(Affinity::default)
        .node_affinity
        .get_or_insert_with(NodeAffinity::default)
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(NodeSelector::default);
    if selector.node_selector_terms.is_empty() {
        selector.node_selector_terms.push(NodeSelectorTerm::default());
    }
    // Terms are alternatives: each of them must ask for it.
    for term in &mut selector.node_selector_terms {
        term.match_fields.get_or_insert_default().extend_from_slice(fields);
        if !labels.is_empty() {
            term.match_expressions.get_or_insert_default().extend_from_slice(labels);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject() -> Subject {
        Subject { archive_bytes: Some(7), ..Subject::example("web-0") }
    }

    fn source() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "demo", "labels": {"app": "web", "sidecar.istio.io/inject": "false"},
                "annotations": {"migration.ms2m.io/placed-on": "n1"}},
            "spec": {"nodeName": "n1", "hostname": "web-0", "subdomain": "web",
                "nodeSelector": {"kubernetes.io/hostname": "n1", "disk": "ssd"},
                "priority": 7, "priorityClassName": "p",
                "containers": [{"name": "app", "image": "i", "ports": [{"containerPort": 1, "hostPort": 18080}], "livenessProbe": {"httpGet": {"port": 1}},
                    "lifecycle": {"postStart": {"exec": {"command": ["x"]}}},
                    "volumeMounts": [{"name": "kube-api-access-abc", "mountPath": "/t"}, {"name": "c", "mountPath": "/c"}]}],
                "volumes": [{"name": "kube-api-access-abc", "projected": {}}, {"name": "c", "configMap": {"name": "c"}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"matchExpressions": [{"key": "b", "operator": "Exists"}]}]}}}}
        }))
        .unwrap()
    }

    fn build() -> Pod {
        let alike = [("example/xsave", "2440".to_owned())];
        made(&Placement { alike: &alike, scheduler: Some("asks"), ..Placement::default() })
    }

    fn made(placement: &Placement<'_>) -> Pod {
        shadow_pod(&source(), &subject(), &"m1".into(), OwnerReference::default(), Epoch(2), placement)
    }

    #[test]
    fn no_selector_of_the_application_finds_the_shadow() {
        let shadow = build();
        assert!(!shadow.labels().contains_key("app"));
        assert_eq!(shadow.labels()[LABEL_MIGRATION], "m1");
        assert_eq!(shadow.annotations()[ANNOTATION_TICKET], "m1.2.shadow");
        assert_eq!(shadow.name_any(), "web-0-shadow-2");
    }

    #[test]
    fn what_its_pod_opts_out_of_the_shadow_opts_out_of() {
        let kept = kept_labels(vec!["team".to_owned(), "migration.ms2m.io/placed-on".to_owned()]);
        let shadow = made(&Placement { kept: &kept, ..Placement::default() });
        assert_eq!(shadow.labels()["sidecar.istio.io/inject"], "false");
        assert_eq!((shadow.labels().len(), shadow.annotations().len()), (3, 3), "{shadow:?}");
        assert!(!kept.iter().any(|key| key.starts_with(GROUP)), "our own marks are never copied");
    }

    #[test]
    fn the_extender_is_asked_and_told_what_it_needs_to_know() {
        let shadow = build();
        assert_eq!(shadow.annotations()[ANNOTATION_SOURCE_NODE], "n1");
        assert_eq!(shadow.annotations()[ANNOTATION_ARCHIVE_BYTES], "7");
        let spec = shadow.spec.unwrap();
        assert_eq!(spec.scheduler_name.as_deref(), Some("asks"));
        let resources = spec.containers[0].resources.as_ref().unwrap();
        for of in [&resources.requests, &resources.limits] {
            assert_eq!(of.as_ref().unwrap()[RESOURCE_CHECKPOINT].0, "0");
        }
        assert_eq!(made(&Placement::default()).spec.unwrap().scheduler_name, None);
    }

    #[test]
    fn nothing_runs_it_restarts_it_or_ties_it_to_the_node_it_must_leave() {
        let spec = build().spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
        assert_eq!((spec.node_name, spec.hostname, spec.priority), (None, None, None));
        assert_eq!(spec.node_selector.unwrap(), [("disk".to_owned(), "ssd".to_owned())].into());
        let container = &spec.containers[0];
        assert!(container.liveness_probe.is_none() && container.lifecycle.is_none());
        let terms = spec
            .affinity
            .unwrap()
            .node_affinity
            .unwrap()
            .required_during_scheduling_ignored_during_execution
            .unwrap()
            .node_selector_terms;
        assert_eq!(terms.len(), 2);
        for term in terms {
            assert_eq!(term.match_fields.unwrap()[0].values, Some(vec!["n1".to_owned()]));
        }
    }

    #[test]
    fn sidecars_stay_with_the_others_and_what_starts_anew_comes_to_nothing() {
        let mut source = source();
        let spec = source.spec.as_mut().unwrap();
        spec.init_containers = serde_json::from_value(json!([{ "name": "fill" },
            { "name": "proxy", "image": "p", "restartPolicy": "Always", "startupProbe": { "httpGet": { "port": 1 } } },
            { "name": "ship", "restartPolicy": "Always" }]))
        .unwrap();
        let subject = Subject { beside: vec!["proxy".into()], fresh: vec!["ship".into()], ..subject() };
        let owner = OwnerReference::default();
        let shadow = shadow_pod(&source, &subject, &"m1".into(), owner, Epoch(2), &Placement::default());
        let completed = &shadow.annotations()[crate::api::ANNOTATION_INIT_CONTAINERS];
        assert_eq!(completed, r#"{"fill":"Skip","shadow-image-1":"Skip","ship":"Skip"}"#);
        let spec = shadow.spec.unwrap();
        let names = |of: &[Container]| of.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&spec.containers), ["app", "proxy", "ship"]);
        assert_eq!(names(spec.init_containers.as_deref().unwrap()), ["fill", "shadow-image-1"]);
        for one in &spec.containers {
            assert_eq!((one.restart_policy.as_deref(), &one.startup_probe), (Some("Never"), &None));
            assert!(one.restart_policy_rules.is_some());
        }
    }

    #[test]
    fn nodes_that_are_to_be_avoided_are_kept_away_from_beside_its_own() {
        let avoided = ["n2".into(), "n4".into()];
        let spec = made(&Placement { avoided: &avoided, ..Placement::default() }).spec.unwrap();
        let affinity = spec.affinity.unwrap().node_affinity.unwrap();
        for term in affinity.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms
        {
            let fields = term.match_fields.unwrap();
            let away: Vec<_> =
                fields.iter().map(|field| (field.operator.as_str(), field.values.clone().unwrap())).collect();
            assert_eq!(away, ["n1", "n2", "n4"].map(|node| ("NotIn", vec![node.to_owned()])));
        }
    }

    #[test]
    fn ports_of_the_host_are_kept_where_nothing_answers_beside_its_replacement() {
        let port = |host_ports| {
            let shadow = made(&Placement { host_ports, ..Placement::default() });
            shadow.spec.unwrap().containers[0].ports.as_ref().unwrap()[0].host_port
        };
        assert_eq!((port(true), port(false)), (Some(18080), None));
    }

    #[test]
    fn only_the_token_volume_is_left_to_kubernetes() {
        let spec = build().spec.unwrap();
        assert_eq!(spec.volumes.unwrap().iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["c"]);
        assert_eq!(spec.containers[0].volume_mounts.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn the_name_fits_a_host_name() {
        let [first, second] = [0, 1].map(|n| shadow_name(&format!("{}-{n}", "x".repeat(80)), Epoch(12)));
        assert!(first.len() <= 63 && first.ends_with("-shadow-12"), "{first}");
        assert_ne!(first, second, "each ordinal has its own");
    }
}
