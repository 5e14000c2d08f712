//! What Kubernetes' own scheduler has against a node, for people who ask before anything is made. It follows three of its
//! filters: TaintToleration, NodeAffinity (with `nodeSelector`) and NodeResourcesFit. What depends on other pods' names,
//! labels or volumes is not looked at, and nothing is decided here: the scheduler decides. Pure.

mod quantity;
mod requests;

use std::fmt;

use k8s_openapi::api::core::v1::{Node, PodSpec};

use crate::placement::{self, Constraint};
use quantity::Amount;
pub use requests::fits;

/// Why the scheduler will not take a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    Constraint(Constraint),
    Requests { resource: String, needed: Amount, free: Amount },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constraint(constraint) => constraint.fmt(f),
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
