//! Whom a label selector selects, as Kubernetes means it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// An empty selector selects everybody; so does an operator that is not known.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|wanted| {
            let is = labels.get(&wanted.key);
            let named = || is.is_some_and(|is| wanted.values.iter().flatten().any(|value| value == is));
            match wanted.operator.as_str() {
                "In" => named(),
                "NotIn" => !named(),
                "Exists" => is.is_some(),
                "DoesNotExist" => is.is_none(),
                _ => true,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn labels_and_expressions_must_all_match() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let is = |selector: Value| selects(&serde_json::from_value(selector).unwrap(), &labels);
        let expression = |key: &str, operator: &str, values: Value| json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        assert!(is(json!({})) && is(json!({ "matchLabels": { "app": "web" } })));
        assert!(!is(json!({ "matchLabels": { "app": "web", "tier": "x" } })));
        assert!(
            is(expression("app", "In", json!(["web"]))) && !is(expression("app", "NotIn", json!(["web"])))
        );
        assert!(is(expression("tier", "NotIn", json!(["x"]))) && !is(expression("tier", "In", json!(["x"]))));
        assert!(
            is(expression("app", "Exists", json!(null)))
                && is(expression("tier", "DoesNotExist", json!(null)))
        );
    }
}
