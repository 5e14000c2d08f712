//! Do the pod's requests fit beside what runs on the node (NodeResourcesFit)?

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Misfit;
use super::quantity::Amount;

const PODS: &str = "pods";

type Amounts = BTreeMap<String, Amount>;

/// `there`: the pods on the node that have not ended.
pub(super) fn fit(spec: &PodSpec, node: &Node, there: &[&Pod]) -> Result<(), Misfit> {
    let mut taken = Amounts::new();
    for spec in there.iter().filter_map(|pod| pod.spec.as_ref()) {
        add(&mut taken, requests(spec));
    }
    let status = node.status.as_ref();
    let allocatable = amounts(status.and_then(|status| status.allocatable.as_ref()));
    for (resource, needed) in requests(spec).into_iter().filter(|(_, needed)| *needed > Amount::default()) {
        let of = |amounts: &Amounts| amounts.get(&resource).copied().unwrap_or_default();
        let free = of(&allocatable).saturating_sub(of(&taken));
        if needed > free {
            return Err(Misfit::Requests { resource, needed, free });
        }
    }
    Ok(())
}

/// What a pod counts as: what runs at the same time, at its most (KEP-753), or what is said of the pod as a whole
/// (KEP-2837); its overhead; and itself as one pod.
fn requests(spec: &PodSpec) -> Amounts {
    let mut running = Amounts::new();
    let mut starting = Amounts::new();
    for init in spec.init_containers.iter().flatten() {
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut running, of_container(init)); // a sidecar stays
            raise(&mut starting, running.clone());
        } else {
            let mut meanwhile = running.clone();
            add(&mut meanwhile, of_container(init));
            raise(&mut starting, meanwhile);
        }
    }
    for container in &spec.containers {
        add(&mut running, of_container(container));
    }
    raise(&mut running, starting);
    let whole = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    running.extend(amounts(whole));
    add(&mut running, amounts(spec.overhead.as_ref()));
    running.insert(PODS.to_owned(), Amount::ONE);
    running
}

fn of_container(container: &Container) -> Amounts {
    amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()))
}

fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let readable = |(name, quantity): (&String, _)| Some((name.clone(), Amount::of(quantity)?));
    quantities.into_iter().flatten().filter_map(readable).collect()
}

fn add(to: &mut Amounts, more: Amounts) {
    for (resource, amount) in more {
        let sum = to.entry(resource).or_default();
        *sum = *sum + amount;
    }
}

fn raise(to: &mut Amounts, least: Amounts) {
    for (resource, amount) in least {
        let most = to.entry(resource).or_default();
        *most = (*most).max(amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(fields: Value) -> PodSpec {
        serde_json::from_value(fields).unwrap()
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } })
    }

    fn node() -> Node {
        let allocatable = json!({ "cpu": "2", "memory": "4Gi", "pods": "3" });
        serde_json::from_value(json!({ "status": { "allocatable": allocatable } })).unwrap()
    }

    fn running(cpu: &str, phase: &str) -> Pod {
        let spec = json!({ "containers": [asks(cpu, "1Gi")] });
        serde_json::from_value(json!({ "spec": spec, "status": { "phase": phase } })).unwrap()
    }

    fn found(wanted: Value, there: &[Pod]) -> String {
        super::super::fits(&spec(wanted), &node(), there)
            .map_or_else(|misfit| misfit.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn it_fits_to_the_last_bit_and_not_beyond() {
        let there = [running("1500m", "Running"), running("9", "Succeeded"), running("9", "Failed")];
        assert_eq!(found(json!({ "containers": [asks("0.5", "3Gi")] }), &there), "fits");
        assert_eq!(
            found(json!({ "containers": [asks("501m", "1Gi")] }), &there),
            "requests 0.501 cpu, free 0.500"
        );
        assert_eq!(
            found(json!({ "containers": [asks("0", "3073Mi")] }), &there),
            "requests 3.0 Gi memory, free 3.0 Gi"
        );
    }

    #[test]
    fn one_that_asks_for_nothing_still_is_one_pod() {
        let there = [running("0", "Running"), running("0", "Pending"), running("0", "Running")];
        assert_eq!(found(json!({ "containers": [{ "name": "c" }] }), &there[..2]), "fits");
        assert_eq!(found(json!({ "containers": [{ "name": "c" }] }), &there), "requests 1 pods, free 0");
    }

    #[test]
    fn a_resource_that_the_node_has_none_of_is_not_free_and_none_of_it_is_no_request() {
        let asks = |amount: &str| json!({ "containers": [{ "name": "c", "resources": { "requests": { "x/gpu": amount } } }] });
        assert_eq!(found(asks("1"), &[]), "requests 1 x/gpu, free 0");
        assert_eq!(found(asks("0"), &[]), "fits");
    }

    #[test]
    fn what_runs_at_the_same_time_counts_at_its_most() {
        let sidecar = |cpu| {
            let mut container = asks(cpu, "0");
            container["restartPolicy"] = "Always".into();
            container
        };
        let cpu = |fields| requests(&spec(fields))["cpu"].to_string();
        let containers = json!([asks("300m", "0"), asks("200m", "0")]);
        let with = |init: Value| json!({ "initContainers": init, "containers": containers });
        assert_eq!(cpu(with(json!([asks("400m", "0")]))), "0.500");
        assert_eq!(cpu(with(json!([asks("1", "0"), asks("700m", "0")]))), "1");
        assert_eq!(cpu(with(json!([sidecar("100m"), asks("450m", "0")]))), "0.600");
        assert_eq!(cpu(with(json!([asks("450m", "0"), sidecar("100m")]))), "0.600");
        assert_eq!(cpu(with(json!([sidecar("100m"), asks("800m", "0")]))), "0.900");
        let overhead = json!({ "containers": containers, "overhead": { "cpu": "250m" } });
        assert_eq!(cpu(overhead), "0.750");
        let whole = json!({ "containers": containers, "resources": { "requests": { "cpu": "2" } } });
        assert_eq!(cpu(whole), "2");
    }
}
