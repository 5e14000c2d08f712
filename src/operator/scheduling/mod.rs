//! What Kubernetes' own scheduler has against a node, for people who ask before anything is made. It follows three of its
//! filters: TaintToleration, NodeAffinity (with `nodeSelector`) and NodeResourcesFit. What depends on other pods' names,
//! labels or volumes is not looked at, and nothing is decided here: the scheduler decides. Pure.

mod constraints;
mod quantity;
mod requests;

use std::fmt;

pub use constraints::admits;
use quantity::Amount;
pub use requests::fits;

/// Why the scheduler will not take a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// `key=value:effect`
    Taint(String),
    /// A label that `nodeSelector` asks for.
    Label(String),
    /// No term of the required node affinity.
    Affinity,
    Requests {
        resource: String,
        needed: Amount,
        free: Amount,
    },
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taint(taint) => write!(f, "taint {taint} is not tolerated"),
            Self::Label(label) => write!(f, "nodeSelector {label} does not match"),
            Self::Affinity => f.write_str("required node affinity does not match"),
            Self::Requests { resource, needed, free } => {
                write!(f, "requests {needed} {resource}, free {free}")
            }
        }
    }
}
