//! What Kubernetes' own scheduler has against a node, for people who ask before anything is made. It follows four of its
//! filters: TaintToleration, NodeAffinity (with `nodeSelector`), NodePorts and NodeResourcesFit. What depends on other pods' names,
//! labels or volumes is not looked at, and nothing is decided here: the scheduler decides. Pure.

mod ports;
mod quantity;
mod requests;

use std::fmt;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::containers::has_ended;
use crate::placement::{self, Constraint};
pub use quantity::Amount;

/// Does the pod fit beside those that are bound to the node?
pub fn fits(spec: &PodSpec, node: &Node, there: &[Pod]) -> Result<(), Misfit> {
    let works: Vec<&Pod> = there.iter().filter(|pod| !has_ended(pod)).collect();
    ports::fit(spec, &works)?;
    requests::fit(spec, node, &works)
}

/// Why the scheduler will not take a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    Constraint(Constraint),
    /// Another pod has this port of the host.
    Port {
        port: i32,
        pod: String,
    },
    Requests {
        resource: String,
        needed: Amount,
        free: Amount,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constraint(constraint) => constraint.fmt(f),
            Self::Port { port, pod } => write!(f, "hostPort {port} is taken by pod {pod}"),
            Self::Requests { resource, needed, free } => {
                write!(f, "requests {needed} {resource}, free {free}")
            }
        }
    }
}

/// Does the scheduler take the node for a pod like this, whatever else runs there?
pub fn admits(spec: &PodSpec, node: &Node) -> Result<(), Misfit> {
    placement::admits(&spec.into(), &node.into()).map_err(Misfit::Constraint)
}
