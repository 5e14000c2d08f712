//! PodDisruptionBudgets. A move with a bridge keeps answering; one without is a disruption like an eviction, and asks as
//! one would, before anything is stopped. Network I/O, but for the decision.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::EffectError;
use crate::api::Reason;
use crate::operator::check::selectors::selects;
use crate::protocol::Plan;

/// Fails, to be tried again, while a budget allows no disruption of the pod, if the move is one.
pub async fn budget_allows(client: &Client, plan: &Plan, pod: &Pod) -> Result<(), EffectError> {
    if plan.bridge {
        return Ok(());
    }
    let namespace = pod.namespace().unwrap_or_default();
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &namespace);
    let budgets = budgets.list(&ListParams::default()).await;
    let budgets = budgets.map_err(EffectError::api("list PodDisruptionBudgets"))?;
    match exhausted(&budgets.items, pod) {
        Some(budget) => {
            let message = format!(
                "PodDisruptionBudget {} allows no disruption now, and without a bridge the move is one: waits for others to be ready",
                budget.name_any()
            );
            Err(EffectError::failed(Reason::BudgetExhausted, message))
        }
        None => Ok(()),
    }
}

/// A budget that nobody has counted yet allows nothing, as with evictions.
fn exhausted<'a>(budgets: &'a [PodDisruptionBudget], pod: &Pod) -> Option<&'a PodDisruptionBudget> {
    budgets.iter().find(|budget| {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
        selector.is_some_and(|selector| selects(selector, pod.labels())) && allowed < 1
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_that_selects_the_pod_and_allows_nothing_is_found() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "labels": { "app": "web" } } })).unwrap();
        let found = |app: &str, allowed: i32| {
            let status = json!({ "disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 });
            let budget =
                json!({ "spec": { "selector": { "matchLabels": { "app": app } } }, "status": status });
            exhausted(&[serde_json::from_value(budget).unwrap()], &pod).is_some()
        };
        assert!(found("web", 0) && !found("web", 1) && !found("db", 0));
        let unseen: PodDisruptionBudget =
            serde_json::from_value(json!({ "spec": { "selector": {} } })).unwrap();
        assert!(
            exhausted(&[unseen], &pod).is_some(),
            "it selects everybody, and its controller has not counted yet"
        );
    }
}
