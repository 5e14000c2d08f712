//! The Services by which a pod is reached, as a bridge needs them. Pure.

use k8s_openapi::api::core::v1::{Pod, PodSpec, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;

use super::containers::running;
use crate::operator::drive::subject::{Bridge, BridgePort};

/// Those that select it, with the ports that they lead to.
pub fn of(pod: &Pod, spec: &PodSpec, services: &[Service]) -> Vec<Bridge> {
    let labels = pod.labels();
    services
        .iter()
        .filter_map(|service| {
            let service_spec = service.spec.as_ref()?;
            let selector = service_spec.selector.as_ref().filter(|s| !s.is_empty())?;
            selector.iter().all(|(key, value)| labels.get(key) == Some(value)).then_some(())?;
            let ports =
                service_spec.ports.iter().flatten().filter_map(|port| bridge_port(port, spec)).collect();
            let name = service.name_any();
            let hostname = spec.hostname.clone().filter(|_| spec.subdomain.as_ref() == Some(&name));
            Some(Bridge { service: name, ports, hostname })
        })
        .collect()
}

fn bridge_port(port: &ServicePort, spec: &PodSpec) -> Option<BridgePort> {
    let number = match &port.target_port {
        None => port.port,
        Some(IntOrString::Int(number)) if *number == 0 => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(wanted)) => running(spec)
            .flat_map(|c| c.ports.iter().flatten())
            .find(|p| p.name.as_ref() == Some(wanted))
            .map(|p| p.container_port)?,
    };
    Some(BridgePort {
        name: port.name.clone(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        port: number,
    })
}
