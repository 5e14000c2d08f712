//! Taints, `nodeSelector` and required node affinity: does the scheduler take a node for a pod like this, whatever else
//! runs there? Follows its filters TaintToleration and NodeAffinity. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// What a pod says of the nodes that it may come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    pub tolerations: &'a [Toleration],
    pub selector: Option<&'a BTreeMap<String, String>>,
    /// Its required node affinity.
    pub required: Option<&'a NodeSelector>,
}

/// What a node says of the pods that may come to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place<'a> {
    pub name: &'a str,
    pub labels: Option<&'a BTreeMap<String, String>>,
    pub taints: &'a [Taint],
}

/// What keeps a pod away from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// `key=value:effect`
    Taint(String),
    /// A label that `nodeSelector` asks for.
    Label(String),
    /// No term of the required node affinity.
    Affinity,
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taint(taint) => write!(f, "taint {taint} is not tolerated"),
            Self::Label(label) => write!(f, "nodeSelector {label} does not match"),
            Self::Affinity => f.write_str("required node affinity does not match"),
        }
    }
}

impl<'a> From<&'a PodSpec> for Wishes<'a> {
    fn from(spec: &'a PodSpec) -> Self {
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        Self {
            tolerations: spec.tolerations.as_deref().unwrap_or_default(),
            selector: spec.node_selector.as_ref(),
            required: affinity
                .and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref()),
        }
    }
}

impl<'a> From<&'a Node> for Place<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            name: node.metadata.name.as_deref().unwrap_or_default(),
            labels: node.metadata.labels.as_ref(),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default(),
        }
    }
}

impl Place<'_> {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels?.get(key).map(String::as_str)
    }
}

/// Does the scheduler take the node for a pod like this?
///
/// # Errors
/// The first thing that keeps it away.
pub fn admits(pod: &Wishes<'_>, node: &Place<'_>) -> Result<(), Constraint> {
    let keeps_away = |taint: &&Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !pod.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    if let Some(taint) = node.taints.iter().find(keeps_away) {
        let value = taint.value.as_deref().filter(|value| !value.is_empty());
        let value = value.map(|value| format!("={value}")).unwrap_or_default();
        return Err(Constraint::Taint(format!("{}{value}:{}", taint.key, taint.effect)));
    }
    for (key, value) in pod.selector.into_iter().flatten() {
        if node.label(key) != Some(value) {
            return Err(Constraint::Label(format!("{key}={value}")));
        }
    }
    match pod.required {
        Some(required) if !required.node_selector_terms.iter().any(|term| matches_term(term, node)) => {
            Err(Constraint::Affinity)
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
fn matches_term(term: &NodeSelectorTerm, node: &Place<'_>) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |wanted: &NodeSelectorRequirement| matches(wanted, node.label(&wanted.key));
    let field = |wanted: &NodeSelectorRequirement| {
        matches(wanted, (wanted.key == "metadata.name").then_some(node.name))
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
        admits(&(&spec).into(), &node.into())
            .map_or_else(|against| against.to_string(), |()| "fits".to_owned())
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
