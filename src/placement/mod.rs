//! Which nodes can take a pod's checkpoint, which of them best, and why not the others. Pure: the extender, the operator
//! and `kubectl shadow check` ask the same functions. Only [`watch`] does I/O.

mod constraints;
mod evaluate;
mod listed;
mod score;
mod snapshot;
mod views;
mod watch;

pub use constraints::{Constraint, Place, Wishes, admits};
pub use evaluate::{Evaluator, Need, Refusal, Room};
pub use score::{HIGHEST_SCORE, score};
pub use snapshot::{NodeView, Nodes, Reservation, Snapshot};
pub use views::{Stale, View, Views};
pub use watch::watch;
