//! The manifests say what the code says, and ask for no more rights than they promise.

#![allow(clippy::unwrap_used, clippy::panic)] // a test

use std::{fs, path::Path};

use clap::Parser;
use serde::Deserialize as _;
use serde_json::Value;
use shadow::api::ANNOTATION_BROKER_SECRET;

fn documents(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/base").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn named<'a>(documents: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = documents.iter().find(|d| d["kind"] == kind && d["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn the_committed_crds_are_those_that_the_code_speaks() {
    let generated = shadow::api::manifests().unwrap();
    assert!(documents("crd.yaml") == generated, "deploy/base/crd.yaml is out of date: run `make crds`");
}

#[test]
fn no_role_has_wildcards_and_none_reads_secrets_it_does_not_name() {
    for file in ["rbac/operator.yaml", "rbac/webhook.yaml", "rbac/users.yaml"] {
        for role in documents(file) {
            for rule in role["rules"].as_array().into_iter().flatten() {
                for part in ["apiGroups", "resources", "verbs"] {
                    assert!(!strings(&rule[part]).contains(&"*"), "{file}: {rule}");
                }
                if strings(&rule["resources"]).contains(&"secrets") {
                    let reads = strings(&rule["verbs"]).iter().any(|verb| *verb != "create");
                    let of_the_users_choice = role["metadata"]["name"] == "shadow-broker-secrets";
                    assert!(
                        !reads || rule["resourceNames"].is_array() || of_the_users_choice,
                        "{file}: {rule}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_agent_writes_its_capacity_and_its_lease_and_reads_nothing_but_whose_turn_it_is() {
    let bound =
        |file: &str| documents(file).iter().any(|d| d["subjects"].to_string().contains("shadow-agent"));
    assert!(!["rbac/operator.yaml", "rbac/webhook.yaml", "rbac/users.yaml"].into_iter().any(bound));
    let own = documents("rbac/agent.yaml");
    for rule in own.iter().flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        assert!(
            [["nodecapacities"], ["leases"]].contains(&strings(&rule["resources"]).try_into().unwrap()),
            "{rule}"
        );
        // The one thing that all share: whose turn it is to restart containerd.
        if rule["resourceNames"].is_array() {
            assert_eq!(strings(&rule["resourceNames"]), [shadow::api::LEASE_RESTART], "{rule}");
            assert_eq!(strings(&rule["verbs"]), ["get", "list", "watch", "update"], "{rule}");
        } else {
            assert_eq!(strings(&rule["verbs"]), ["create", "patch"], "{rule}");
        }
    }
    assert!(!own.iter().any(|role| role["kind"] == "ClusterRole" && role.to_string().contains("leases")));
}

#[test]
fn the_webhook_writes_nothing_but_migrations_and_events() {
    let documents = documents("rbac/webhook.yaml");
    for rule in named(&documents, "ClusterRole", "shadow-webhook")["rules"].as_array().unwrap() {
        let writes = strings(&rule["verbs"]).iter().any(|verb| !["get", "list", "watch"].contains(verb));
        let resources = strings(&rule["resources"]);
        let allowed = [["statefulmigrations"], ["subjectaccessreviews"]];
        assert!(!writes || allowed.iter().any(|one| resources == *one), "{rule}");
    }
}

#[test]
fn no_webhook_sees_the_systems_own_namespaces() {
    for configuration in documents("admission.yaml") {
        for webhook in configuration["webhooks"].as_array().unwrap() {
            let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array().unwrap();
            let excluding = expressions.iter().find(|e| e["operator"] == "NotIn").unwrap();
            assert_eq!(
                strings(&excluding["values"]),
                ["shadow-system", "kube-system"],
                "{}",
                webhook["name"]
            );
            assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5);
        }
    }
}

#[test]
fn what_is_drained_away_comes_up_elsewhere_first() {
    for (file, name) in [("operator.yaml", "shadow-operator"), ("webhook.yaml", "shadow-webhook")] {
        let documents = documents(file);
        let deployment = named(&documents, "Deployment", name);
        assert_eq!(deployment["spec"]["replicas"], 2);
        assert_eq!(named(&documents, "PodDisruptionBudget", name)["spec"]["minAvailable"], 1);
        let grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > shadow::kit::DRAIN_LAG.as_secs() + 10, "too short to drain and finish");
    }
}

#[derive(Parser)]
struct Agent {
    #[command(flatten)]
    args: shadow::agent::Args,
}

/// Flags that a component adds to the agent's.
fn flags(component: &str) -> Vec<String> {
    let kustomization = documents(&format!("../components/{component}/kustomization.yaml"));
    let mut flags = Vec::new();
    for patch in kustomization[0]["patches"].as_array().unwrap() {
        assert_eq!(patch["target"]["kind"], "DaemonSet", "{component}");
        assert_eq!(patch["target"]["name"], "shadow-agent", "{component}");
        let operations: Vec<Value> = serde_yaml_ng::from_str(patch["patch"].as_str().unwrap()).unwrap();
        for operation in operations {
            assert_eq!(operation["path"], "/spec/template/spec/containers/0/args/-", "{component}");
            flags.push(operation["value"].as_str().unwrap().to_owned());
        }
    }
    flags
}

#[test]
fn what_a_distribution_has_elsewhere_is_told_by_flags_that_the_agent_knows() {
    let agent = &documents("agent.yaml")[0]["spec"]["template"]["spec"]["containers"][0];
    let usual = format!("{:?}", Agent::parse_from(strings(&agent["args"])).args);
    for component in ["eks", "k3s", "rke2"] {
        let flags = flags(component);
        let parsed = Agent::try_parse_from(["agent"].into_iter().chain(flags.iter().map(String::as_str)));
        let parsed = parsed.map_err(|error| error.to_string()).unwrap();
        assert_ne!(format!("{:?}", parsed.args), usual, "{component}");
    }
}

#[test]
fn the_samples_let_shadow_read_the_secret_that_they_name() {
    let samples = |file: &str| documents(&format!("../samples/{file}"));
    let resources = &samples("kustomization.yaml")[0]["resources"];
    assert!(strings(resources).contains(&"broker-access.yaml"));
    let access = samples("broker-access.yaml");
    let role = named(&documents("rbac/users.yaml"), "ClusterRole", "shadow-broker-secrets").clone();
    let binding = named(&access, "RoleBinding", "shadow-broker-secrets");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    let operator = documents("rbac/operator.yaml");
    let account = named(&operator, "ServiceAccount", "shadow-operator");
    for part in ["name", "namespace"] {
        assert_eq!(binding["subjects"][0][part], account["metadata"][part]);
    }
    let consumer = samples("consumer.yaml");
    let secret =
        &named(&consumer, "StatefulSet", "consumer")["metadata"]["annotations"][ANNOTATION_BROKER_SECRET];
    named(&samples("broker.yaml"), "Secret", secret.as_str().unwrap());
}
