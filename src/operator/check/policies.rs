//! What NetworkPolicies make of a shadow: it has few of its pod's labels, and where a policy tells the two apart, readers
//! that are led to it would wait in vain. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;

use super::selectors::selects;

type Labels = BTreeMap<String, String>;

/// The first policy that selects one of the two and not the other, be it as its subject or as a peer.
pub fn telling_apart<'a>(
    policies: &'a [NetworkPolicy],
    source: &Labels,
    shadow: &Labels,
) -> Option<&'a NetworkPolicy> {
    let apart = |selector: &LabelSelector| selects(selector, source) != selects(selector, shadow);
    policies.iter().find(|policy| selectors(policy).any(apart))
}

fn selectors(policy: &NetworkPolicy) -> impl Iterator<Item = &LabelSelector> {
    let spec = policy.spec.as_ref();
    let from = spec
        .into_iter()
        .flat_map(|spec| spec.ingress.iter().flatten())
        .flat_map(|rule| rule.from.iter().flatten());
    let to = spec
        .into_iter()
        .flat_map(|spec| spec.egress.iter().flatten())
        .flat_map(|rule| rule.to.iter().flatten());
    let peers = from.chain(to).filter_map(|peer: &NetworkPolicyPeer| peer.pod_selector.as_ref());
    spec.and_then(|spec| spec.pod_selector.as_ref()).into_iter().chain(peers)
}

/// What the user is told.
pub fn warning(policy: &NetworkPolicy) -> String {
    format!(
        "no shadow answers reads meanwhile: NetworkPolicy {} tells it from its pod by a label; see --shadow-labels",
        policy.name_any()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(spec: Value) -> bool {
        let policy: NetworkPolicy =
            serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap();
        let labels =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let source = labels(&[("app", "web"), ("team", "a")]);
        let shadow = labels(&[("team", "a"), ("migration.ms2m.io/role", "shadow")]);
        telling_apart(&[policy], &source, &shadow).is_some()
    }

    #[test]
    fn a_policy_that_selects_by_a_label_which_the_shadow_lacks_is_found() {
        let app = || json!({ "matchLabels": { "app": "web" } });
        assert!(found(json!({ "podSelector": app() })));
        assert!(found(json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": app() }] }] })));
        assert!(found(
            json!({ "podSelector": { "matchLabels": { "app": "db" } }, "egress": [{ "to": [{ "podSelector": app() }] }] })
        ));
    }

    #[test]
    fn one_that_means_everybody_nobody_or_a_label_that_both_have_is_not() {
        for spec in [
            json!({ "podSelector": {}, "policyTypes": ["Ingress"] }),
            json!({ "podSelector": { "matchLabels": { "team": "a" } } }),
            json!({ "podSelector": { "matchLabels": { "app": "db" } }, "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.0.0.0/8" } }] }] }),
        ] {
            assert!(!found(spec.clone()), "{spec}");
        }
    }
}
