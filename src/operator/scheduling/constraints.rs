//! Taints, `nodeSelector` and required node affinity.

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use kube::ResourceExt as _;

use super::Misfit;

/// Does the scheduler take the node for a pod like this, whatever else runs there?
pub fn admits(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let keeps_away = |taint: &&Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    if let Some(taint) = taints.iter().find(keeps_away) {
        let value = taint.value.as_deref().filter(|value| !value.is_empty());
        let value = value.map(|value| format!("={value}")).unwrap_or_default();
        return Err(Misfit::Taint(format!("{}{value}:{}", taint.key, taint.effect)));
    }
    for (key, value) in spec.node_selector.iter().flatten() {
        if node.labels().get(key) != Some(value) {
            return Err(Misfit::Label(format!("{key}={value}")));
        }
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    match required {
        Some(required) if !required.node_selector_terms.iter().any(|term| matches_term(term, node)) => {
            Err(Misfit::Affinity)
        }
        _ => Ok(()),
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let empty_or =
        |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted.is_empty() || wanted == is);
    if !empty_or(toleration.effect.as_deref(), &taint.effect)
        || !empty_or(toleration.key.as_deref(), &taint.key)
    {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let is = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => wanted == is,
        // KEP-5471: the taint's number is larger, or smaller, than the toleration's.
        "Gt" => as_numbers(is, wanted).is_some_and(|(is, wanted)| is > wanted),
        "Lt" => as_numbers(is, wanted).is_some_and(|(is, wanted)| is < wanted),
        _ => false,
    }
}

/// A term that asks for nothing matches nothing.
fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |wanted: &NodeSelectorRequirement| {
        matches(wanted, node.labels().get(&wanted.key).map(String::as_str))
    };
    let field = |wanted: &NodeSelectorRequirement| {
        let name = node.name_any();
        matches(wanted, (wanted.key == "metadata.name").then_some(name.as_str()))
    };
    !(labels.is_empty() && fields.is_empty()) && labels.iter().all(label) && fields.iter().all(field)
}

fn matches(wanted: &NodeSelectorRequirement, is: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let named = || is.is_some_and(|is| values.iter().any(|value| value == is));
    let number = || as_numbers(is?, values.first()?);
    match wanted.operator.as_str() {
        "In" => named(),
        "NotIn" => !named(),
        "Exists" => is.is_some(),
        "DoesNotExist" => is.is_none(),
        "Gt" => number().is_some_and(|(is, wanted)| is > wanted),
        "Lt" => number().is_some_and(|(is, wanted)| is < wanted),
        _ => false,
    }
}

fn as_numbers(is: &str, wanted: &str) -> Option<(i64, i64)> {
    Some((is.parse().ok()?, wanted.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(taints: Value) -> Node {
        let labels = json!({ "disk": "ssd", "generation": "7" });
        let object = json!({ "metadata": { "name": "n2", "labels": labels }, "spec": { "taints": taints } });
        serde_json::from_value(object).unwrap()
    }

    fn found(spec: Value, node: &Node) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        admits(&spec, node).map_or_else(|misfit| misfit.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn taints_keep_away_who_does_not_tolerate_them() {
        let tainted = node(json!([
            { "key": "soft", "effect": "PreferNoSchedule" },
            { "key": "for", "value": "5", "effect": "NoSchedule" },
        ]));
        let against = "taint for=5:NoSchedule is not tolerated";
        assert_eq!(found(json!({}), &tainted), against);
        let with = |toleration: Value| found(json!({ "tolerations": [toleration] }), &tainted);
        for tolerated in [
            json!({ "operator": "Exists" }),
            json!({ "key": "for", "operator": "Exists", "effect": "NoSchedule" }),
            json!({ "key": "for", "value": "5" }),
            json!({ "key": "for", "operator": "Equal", "value": "5" }),
            json!({ "key": "for", "operator": "Gt", "value": "4" }),
            json!({ "key": "for", "operator": "Lt", "value": "6" }),
        ] {
            assert_eq!(with(tolerated.clone()), "fits", "{tolerated}");
        }
        for not in [
            json!({ "key": "for", "value": "6" }),
            json!({ "key": "for" }),
            json!({ "key": "other", "operator": "Exists" }),
            json!({ "key": "for", "operator": "Exists", "effect": "NoExecute" }),
            json!({ "key": "for", "operator": "Gt", "value": "5" }),
            json!({ "key": "for", "operator": "Lt", "value": "x" }),
        ] {
            assert_eq!(with(not.clone()), against, "{not}");
        }
        let leaving = node(json!([{ "key": "gone", "effect": "NoExecute" }]));
        assert_eq!(found(json!({}), &leaving), "taint gone:NoExecute is not tolerated");
    }

    #[test]
    fn every_label_of_the_node_selector_must_be_there() {
        let node = node(json!([]));
        assert_eq!(found(json!({ "nodeSelector": { "disk": "ssd" } }), &node), "fits");
        assert_eq!(
            found(json!({ "nodeSelector": { "disk": "ssd", "zone": "a" } }), &node),
            "nodeSelector zone=a does not match"
        );
    }

    #[test]
    fn one_term_of_the_affinity_must_match_whole() {
        let node = node(json!([]));
        let with = |terms: Value| {
            let required =
                json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
            found(json!({ "affinity": { "nodeAffinity": required } }), &node) == "fits"
        };
        let label = |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
        let expressions = |all: Value| json!([{ "matchExpressions": all }]);
        for wanted in [
            label("disk", "In", &["hdd", "ssd"]),
            label("disk", "NotIn", &["hdd"]),
            label("zone", "NotIn", &["a"]),
            label("disk", "Exists", &[]),
            label("zone", "DoesNotExist", &[]),
            label("generation", "Gt", &["6"]),
            label("generation", "Lt", &["8"]),
        ] {
            assert!(with(expressions(json!([wanted]))), "{wanted}");
        }
        for not in [
            label("disk", "In", &["hdd"]),
            label("disk", "NotIn", &["ssd"]),
            label("zone", "In", &["a"]),
            label("zone", "Exists", &[]),
            label("disk", "DoesNotExist", &[]),
            label("generation", "Gt", &["7"]),
            label("disk", "Lt", &["8"]),
            label("disk", "Alike", &["ssd"]),
        ] {
            assert!(!with(expressions(json!([not]))), "{not}");
            assert!(!with(expressions(json!([label("disk", "Exists", &[]), not]))), "all of a term");
            let either = json!([{ "matchExpressions": [not] }, { "matchExpressions": [label("disk", "Exists", &[])] }]);
            assert!(with(either), "one of the terms");
        }
        assert!(with(json!([{ "matchFields": [label("metadata.name", "In", &["n2"])] }])));
        assert!(!with(json!([{ "matchFields": [label("metadata.name", "NotIn", &["n2"])] }])));
        assert!(!with(json!([{}])) && !with(json!([])));
    }
}
