//! Whether the pods of a manifest could be moved, before there are any: the judgement of a running pod, as far as a manifest
//! tells. Pure: documents in, answers out. What nobody can know yet (nodes, budgets, what a program opens) is not told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::claims::Known;
use super::preflight::{Accepted, Refused, examine};
use super::{documents, policies, properties};
use crate::api::{
    ANNOTATION_POLICY, ANNOTATION_QUEUE, Check, CheckRefusal, Findings, ManifestCheck, Meanwhile,
    MigrationUid, PodUid, Policy, Prepare, Reason, StatefulMigrationSpec, pod_policy, sentence,
};
use crate::judgement::judge;
use crate::operator::drive::look::circumstances;
use crate::operator::shadow_pod::{kept_labels, shadow_labels};
use crate::protocol::Failure;

/// Stands for what a pod gets when it is made.
const LATER: &str = "later";
const DEFAULT_NAMESPACE: &str = "default";
/// The volume that every pod gets for its token.
const TOKEN: &str = "kube-api-access-0";

/// The text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    Yaml(#[from] documents::NotYaml),
    #[error("{0} is not what Kubernetes takes: {1}")]
    Shape(String, serde_json::Error),
}

/// A workload, and one pod as it would be made of it.
struct Workload {
    kind: String,
    namespace: Option<String>,
    name: String,
    annotations: BTreeMap<String, String>,
    pod: Pod,
    /// What the claims of its pod ask for.
    claims: Known,
}

/// Every StatefulSet, Deployment, ReplicaSet and pod of a stream of YAML or JSON documents, in their order; of others with a
/// template of pods those that are annotated.
pub fn check_manifest(text: &str) -> Result<Vec<ManifestCheck>, ManifestError> {
    let documents = documents::of(text)?;
    let services: Vec<Service> = all_of(&documents, "v1", "Service")?;
    let policies: Vec<NetworkPolicy> = all_of(&documents, "networking.k8s.io/v1", "NetworkPolicy")?;
    let mut checks = Vec::new();
    for document in &documents {
        if let Some(mut workload) = workload(document)? {
            workload.claims = claims(document, &documents);
            checks.push(check(&workload, &services, &policies));
        }
    }
    Ok(checks)
}

fn word<'a>(document: &'a Value, key: &str) -> &'a str {
    document[key].as_str().unwrap_or_default()
}

fn named(document: &Value) -> String {
    let name =
        document["metadata"]["name"].as_str().or_else(|| document["metadata"]["generateName"].as_str());
    format!("{} {}", word(document, "kind"), name.unwrap_or("without a name"))
}

fn read<T: DeserializeOwned>(document: &Value) -> Result<T, ManifestError> {
    read_as(document, document)
}

/// What was made of a document, for which it is named where that is wrong.
fn read_as<T: DeserializeOwned>(made: &Value, document: &Value) -> Result<T, ManifestError> {
    serde_json::from_value(made.clone()).map_err(|error| ManifestError::Shape(named(document), error))
}

fn all_of<T: DeserializeOwned>(
    documents: &[Value],
    version: &str,
    kind: &str,
) -> Result<Vec<T>, ManifestError> {
    let is_one =
        |document: &&Value| (word(document, "apiVersion"), word(document, "kind")) == (version, kind);
    documents.iter().filter(is_one).map(read).collect()
}

fn workload(document: &Value) -> Result<Option<Workload>, ManifestError> {
    let kind = word(document, "kind");
    let is_pod = kind == "Pod" && word(document, "apiVersion") == "v1";
    let is_apps = word(document, "apiVersion").starts_with("apps/");
    let template = &document["spec"]["template"];
    if !is_pod && !template["spec"]["containers"].is_array() {
        return Ok(None);
    }
    let mut made = if is_pod { document.clone() } else { of_template(document, template) };
    // Else Kubernetes would not take it, and says so itself.
    if !made["metadata"].is_object() || !made["spec"].is_object() {
        return read_as::<Pod>(&made, document).map(|_| None);
    }
    made["metadata"]["uid"] = LATER.into();
    if made["metadata"]["namespace"].is_null() {
        made["metadata"]["namespace"] = DEFAULT_NAMESPACE.into();
    }
    made["spec"]["nodeName"] = LATER.into();
    if made["spec"]["automountServiceAccountToken"] != false {
        push(&mut made["spec"]["volumes"], json!({ "name": TOKEN, "projected": {} }));
    }
    let pod: Pod = read_as(&made, document)?;
    let annotations: BTreeMap<String, String> =
        document["metadata"]["annotations"].as_object().map(texts).unwrap_or_default();
    let ours = is_pod
        || (is_apps && ["StatefulSet", "Deployment", "ReplicaSet"].contains(&kind))
        || [ANNOTATION_POLICY, ANNOTATION_QUEUE]
            .iter()
            .any(|key| annotations.contains_key(*key) || pod.annotations().contains_key(*key));
    let name = named(document).split_off(kind.len() + 1);
    let namespace = document["metadata"]["namespace"].as_str().map(str::to_owned);
    let claims = Known::Nothing;
    Ok(ours.then(|| Workload { kind: kind.to_owned(), namespace, name, annotations, pod, claims }))
}

/// The first pod that its controllers would make.
fn of_template(document: &Value, template: &Value) -> Value {
    let (kind, name) = (word(document, "kind"), document["metadata"]["name"].as_str().unwrap_or_default());
    let is_set = kind == "StatefulSet";
    let metadata = if template["metadata"].is_null() { json!({}) } else { template["metadata"].clone() };
    let mut pod = json!({ "metadata": metadata, "spec": template["spec"] });
    if !pod["metadata"].is_object() {
        return pod;
    }
    let owner = if kind == "Deployment" { "ReplicaSet" } else { kind };
    pod["metadata"]["name"] = if is_set { format!("{name}-0") } else { name.to_owned() }.into();
    pod["metadata"]["namespace"] = document["metadata"]["namespace"].clone();
    pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": document["apiVersion"], "kind": owner,
        "name": name, "uid": LATER, "controller": true }]);
    if is_set {
        pod["spec"]["hostname"] = pod["metadata"]["name"].clone();
        pod["spec"]["subdomain"] = document["spec"]["serviceName"].clone();
        for claim in document["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let of = &claim["metadata"]["name"];
            let claim = of_first(of.as_str().unwrap_or_default(), name);
            push(
                &mut pod["spec"]["volumes"],
                json!({ "name": of, "persistentVolumeClaim": { "claimName": claim } }),
            );
        }
    }
    pod
}

/// The access modes of its templates' claims and of those beside it.
fn claims(document: &Value, documents: &[Value]) -> Known {
    let modes = |claim: &Value| -> Vec<String> {
        let modes = claim["spec"]["accessModes"].as_array().into_iter().flatten();
        modes.filter_map(|mode| Some(mode.as_str()?.to_owned())).collect()
    };
    let name_of = |of: &Value| of["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let templates = document["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
    let of_templates = templates.map(|claim| (of_first(&name_of(claim), &name_of(document)), modes(claim)));
    let is_beside = |claim: &&Value| {
        word(claim, "kind") == "PersistentVolumeClaim"
            && claim["metadata"]["namespace"] == document["metadata"]["namespace"]
    };
    let beside = documents.iter().filter(is_beside).map(|claim| (name_of(claim), modes(claim)));
    Known::Written(of_templates.chain(beside).collect())
}

/// The claim of a set's first pod.
fn of_first(template: &str, set: &str) -> String {
    format!("{template}-{set}-0")
}

fn push(list: &mut Value, one: Value) {
    match list {
        Value::Array(list) => list.push(one),
        Value::Null => *list = json!([one]),
        _ => {} // Kubernetes would not take it
    }
}

fn texts(map: &serde_json::Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn check(workload: &Workload, services: &[Service], policies: &[NetworkPolicy]) -> ManifestCheck {
    let Workload { kind, namespace, name, annotations, pod, claims } = workload;
    let told =
        |failure: Failure| CheckRefusal { reason: failure.reason, message: sentence(&failure.message) };
    let answer = ManifestCheck {
        kind: kind.clone(),
        namespace: namespace.clone(),
        name: name.clone(),
        ..ManifestCheck::default()
    };
    let (policy, wrong) = match pod_policy(pod.annotations(), annotations) {
        Ok(Some(policy)) => (policy, None),
        Ok(None) => {
            let says_none =
                [pod.annotations(), annotations].iter().any(|all| all.contains_key(ANNOTATION_POLICY));
            let why = if says_none { "its policy is None" } else { "it is not annotated" };
            (Policy::default(), Some(format!("{why}: set {ANNOTATION_POLICY}: MigrateOrEvict")))
        }
        Err(error) => (Policy::default(), Some(error.to_string())),
    };
    let wrong = wrong
        .map(|message| Failure::terminal(Reason::WrongPolicy, format!("pod {}: {message}", pod.name_any())));
    let advice = properties::warnings(pod, Prepare::Never, &policy.init);
    let spec = StatefulMigrationSpec::of(policy, &pod.name_any(), PodUid(LATER.to_owned()));
    let beside = |of: Option<String>| {
        of.as_deref().unwrap_or(DEFAULT_NAMESPACE) == pod.namespace().unwrap_or_default()
    };
    let services: Vec<Service> =
        services.iter().filter(|service| beside(service.namespace())).cloned().collect();
    let (accepted, against) = match examine(pod, &spec, &services, claims) {
        Ok(accepted) => (Some(accepted), Vec::new()),
        Err(Refused { first, further }) => (None, [vec![first], further].concat()),
    };
    let mut refusals = wrong.into_iter().chain(against).map(told);
    if let Some(refusal) = refusals.next() {
        let check = Check { refusal: Some(refusal), further: refusals.collect(), ..Check::default() };
        return ManifestCheck { check, ..answer };
    }
    let Some(Accepted { subject, mut plan, mut warnings, costs }) = accepted else { return answer };
    if plan.bridge {
        let near: Vec<_> = policies.iter().filter(|policy| beside(policy.namespace())).cloned().collect();
        let shadow = shadow_labels(pod, &MigrationUid(LATER.to_owned()), &kept_labels(Vec::new()));
        if let Some(policy) = policies::telling_apart(&near, pod.labels(), &shadow) {
            plan.bridge = false;
            warnings.push(policies::warning(policy));
        }
    }
    warnings.extend(costs);
    warnings.extend(advice);
    warnings.extend(judge(&Findings::default(), &circumstances(pod, &subject)).warnings);
    let meanwhile = Some(if plan.bridge { Meanwhile::ReadsGoOn } else { Meanwhile::StandsStill });
    let warnings = warnings.iter().map(|one| sentence(one)).collect();
    let check = Check { movable: true, warnings, ..Check::default() };
    ManifestCheck { check, meanwhile, ..answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, annotations: {migration.ms2m.io/queue: orders}}
spec:
  serviceName: web
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: i}], automountServiceAccountToken: false}
---
# nothing
---
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: page, namespace: shop, annotations: {migration.ms2m.io/policy: MigrateOrEvict}}
  spec: {template: {spec: {containers: [{name: app, image: i}]}}}
";

    #[test]
    fn each_workload_says_what_happens_meanwhile() {
        let found = check_manifest(SHOP).unwrap();
        let short: Vec<_> = found
            .iter()
            .map(|one| (one.kind.as_str(), one.namespace.as_deref(), one.name.as_str(), one.meanwhile))
            .collect();
        assert_eq!(
            short,
            [
                ("StatefulSet", None, "web", Some(Meanwhile::ReadsGoOn)),
                ("Deployment", Some("shop"), "page", Some(Meanwhile::StandsStill))
            ]
        );
        assert!(found.iter().all(|one| one.check.movable));
        assert!(found[0].check.warnings.is_empty(), "{:?}", found[0].check.warnings);
        assert!(
            found[1].check.warnings[0].contains("service account token"),
            "{:?}",
            found[1].check.warnings
        );
    }

    #[test]
    fn a_policy_that_tells_a_shadow_apart_takes_the_reads_away() {
        let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: only-web}\n\
                      spec: {podSelector: {matchLabels: {app: web}}}\n";
        let found = check_manifest(&format!("{SHOP}{policy}")).unwrap();
        assert_eq!(found[0].meanwhile, Some(Meanwhile::StandsStill));
        assert!(found[0].check.warnings[0].contains("only-web"), "{:?}", found[0].check.warnings);
        let elsewhere = policy.replace("only-web", "only-web, namespace: other");
        let found = check_manifest(&format!("{SHOP}{elsewhere}")).unwrap();
        assert_eq!(found[0].meanwhile, Some(Meanwhile::ReadsGoOn));
    }

    #[test]
    fn everything_against_it_is_told_and_what_a_claim_of_a_template_costs() {
        let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db}\nspec:\n  template: {spec: \
                   {hostNetwork: true, containers: [{name: app}]}}\n  volumeClaimTemplates: [{metadata: {name: data}}]\n";
        let [found] = &check_manifest(set).unwrap()[..] else { panic!("one workload") };
        let reasons: Vec<_> =
            found.check.refusal.iter().chain(&found.check.further).map(|one| one.reason).collect();
        assert_eq!(reasons, [Reason::WrongPolicy, Reason::HostNetwork]);
        assert!(found.check.refusal.as_ref().unwrap().message.contains("not annotated"));
        let annotated = set
            .replace("{name: db}", "{name: db, annotations: {migration.ms2m.io/policy: MigrateOrEvict}}")
            .replace("hostNetwork: true, ", "");
        let [found] = &check_manifest(&annotated).unwrap()[..] else { panic!("one workload") };
        assert_eq!(found.meanwhile, Some(Meanwhile::StandsStill));
        assert!(found.check.warnings[0].starts_with("claim `data-db-0`: the pod stands still"), "{found:?}");
        let shared = annotated.replace(
            "{metadata: {name: data}}",
            "{metadata: {name: data}, spec: {accessModes: [ReadWriteMany]}}",
        );
        let [found] = &check_manifest(&shared).unwrap()[..] else { panic!("one workload") };
        assert!(!found.check.warnings.iter().any(|one| one.contains("data-db-0")), "{found:?}");
    }

    #[test]
    fn nobody_makes_a_bare_pod_again_and_other_workloads_are_passed_over() {
        let all = "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {migration.ms2m.io/policy: \
                   MigrateOrEvict}}, spec: {containers: [{name: a}]}}\n---\n{apiVersion: batch/v1, kind: Job, metadata: \
                   {name: j}, spec: {template: {spec: {containers: [{name: a}]}}}}\n";
        let found = check_manifest(all).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].check.refusal.as_ref().unwrap().reason, Reason::NotManaged);
    }

    #[test]
    fn yaml_is_read_as_kubectl_reads_it() {
        let odd = "base: &base\n  hostNetwork: yes\n---\n";
        assert_eq!(check_manifest(odd).unwrap().len(), 0);
        let set = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, annotations: {migration.ms2m.io/policy: \
                   MigrateOrEvict}}\nspec:\n  other: &base {hostNetwork: yes}\n  template:\n    spec:\n      <<: *base\n      \
                   containers: [{name: app}]\n      volumes: [{name: c, configMap: {name: c, defaultMode: 0755}}]\n";
        let [found] = &check_manifest(set).unwrap()[..] else { panic!("one workload") };
        assert_eq!(
            found.check.refusal.as_ref().map(|one| one.reason),
            Some(Reason::HostNetwork),
            "{found:?}"
        );
    }

    #[test]
    fn what_kubernetes_would_not_take_is_told_and_what_is_not_its_own_is_passed_over() {
        for wrong in [
            "{apiVersion: v1, kind: Pod, metadata: x}",
            "{apiVersion: v1, kind: Pod, metadata: {}, spec: [1]}",
            "{apiVersion: apps/v1, kind: Deployment, spec: {template: {metadata: x, spec: {containers: []}}}}",
        ] {
            assert!(matches!(check_manifest(wrong), Err(ManifestError::Shape(..))), "{wrong}");
        }
        let foreign = "{apiVersion: serving.knative.dev/v1, kind: Service, spec: {template: {spec: 7}}}\n---\n\
                       {apiVersion: crd.projectcalico.org/v1, kind: NetworkPolicy, spec: {selector: all()}}";
        assert_eq!(check_manifest(foreign).unwrap().len(), 0);
    }

    #[test]
    fn what_is_no_manifest_says_where() {
        assert_eq!(check_manifest("").unwrap().len(), 0);
        let error = check_manifest("a: 1\n---\n[").unwrap_err().to_string();
        assert!(error.starts_with("document 2 is no YAML"), "{error}");
        let wrong = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {template: {spec: {containers: \
                     [{name: 7}]}}}}";
        let error = check_manifest(wrong).unwrap_err().to_string();
        assert!(error.starts_with("Deployment d is not what Kubernetes takes"), "{error}");
    }
}
