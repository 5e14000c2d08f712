//! The operator: drives every `StatefulMigration` through the protocol.
//!
//! `preflight` accepts, `supervisor` (the leader's loop) starts a `driver` each and hands out `slots`, a driver feeds
//! `protocol::step` and writes the `journal`, `perform` does what the protocol asks for. What a migration holds is its
//! `claim` (its own `slot` may be given back meanwhile); `placing` finds out whether a node has room, `bookings` keep one from being given away twice. `check` answers
//! people (`scheduling`: what the scheduler would say); `surroundings` are a pod's queue and the NetworkPolicies of its
//! namespace. Holds no state that is not in the objects.

mod accept;
mod admission;
mod agents;
mod announce;
mod attempt;
mod bookings;
mod check;
mod claim;
mod context;
mod courier;
mod driver;
mod due;
mod journal;
mod look;
mod measured;
mod metrics;
mod node_labels;
mod orphans;
mod perform;
mod placing;
mod policies;
mod preflight;
mod properties;
mod retention;
mod scheduling;
mod selectors;
mod serve;
mod shadow_pod;
mod slot;
mod slots;
mod source_watch;
mod status;
mod subject;
mod supervisor;
mod surroundings;

pub mod certificates;

// What [`lead`] is made of, for whoever runs it in a world of his own.
pub use agents::Agents;
pub use bookings::Bookings;
pub use context::{Brokers, Context};
pub use courier::{Courier, OrderAnswer};
pub use metrics::Metrics;
pub use slots::Limits;
pub use supervisor::lead;

pub use serve::{Args, RunError, run};
