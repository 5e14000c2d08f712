//! Are the host ports that a pod wants free on the node (NodePorts)?

use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodSpec};
use kube::ResourceExt as _;

use super::Misfit;
use crate::operator::check::containers::running;

/// `there`: the pods on the node that have not ended.
pub(super) fn fit(spec: &PodSpec, there: &[&Pod]) -> Result<(), Misfit> {
    for wanted in of(spec) {
        let takes = |pod: &&&Pod| pod.spec.iter().flat_map(of).any(|taken| collide(wanted, taken));
        if let Some(pod) = there.iter().find(takes) {
            let port = wanted.host_port.unwrap_or_default();
            return Err(Misfit::Port {
                port,
                pod: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
            });
        }
    }
    Ok(())
}

/// Of everything that runs at the same time.
fn of(spec: &PodSpec) -> impl Iterator<Item = &ContainerPort> {
    running(spec)
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.host_port.is_some_and(|port| port > 0))
}

/// The same port of the same protocol, where one of them takes every address or both take the same.
fn collide(one: &ContainerPort, other: &ContainerPort) -> bool {
    let protocol = |port: &ContainerPort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let address = |port: &ContainerPort| {
        port.host_ip.clone().filter(|ip| !ip.is_empty() && ip != "0.0.0.0" && ip != "::")
    };
    let apart = matches!((address(one), address(other)), (Some(one), Some(other)) if one != other);
    one.host_port == other.host_port && protocol(one) == protocol(other) && !apart
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(ports: Value) -> PodSpec {
        serde_json::from_value(json!({ "containers": [{ "name": "app", "ports": ports }] })).unwrap()
    }

    #[test]
    fn a_port_of_the_host_is_taken_by_whoever_has_it_on_an_address_of_both() {
        let there = Pod {
            spec: Some(spec(json!([{ "containerPort": 1, "hostPort": 80, "hostIP": "10.0.0.1" }]))),
            ..Pod::default()
        };
        let fits = |port: Value| fit(&spec(json!([port])), &[&there]).is_ok();
        assert!(!fits(json!({ "containerPort": 2, "hostPort": 80 })));
        assert!(!fits(json!({ "containerPort": 2, "hostPort": 80, "hostIP": "10.0.0.1" })));
        assert!(fits(json!({ "containerPort": 2, "hostPort": 80, "hostIP": "10.0.0.2" })));
        assert!(fits(json!({ "containerPort": 2, "hostPort": 80, "protocol": "UDP" })));
        assert!(fits(json!({ "containerPort": 80 })) && fits(json!({ "containerPort": 1, "hostPort": 81 })));
    }
}
