//! The operator: drives every `StatefulMigration` through the protocol.
//!
//! `preflight` accepts, `supervisor` (the leader's loop) starts a `driver` each and hands out `slots`, a driver feeds
//! `protocol::step` and writes the `journal`, `perform` does what the protocol asks for. What a migration holds is its
//! `claim` (its own `slot` may be given back meanwhile); `placing` finds out whether a node has room, `bookings` keep one from being given away twice. `check` answers
//! people (`scheduling`: what the scheduler would say); `surroundings` are a pod's queue and the NetworkPolicies of its
//! namespace. Holds no state that is not in the objects.

pub mod agents;
pub mod check;
mod context;
pub mod drive;
pub mod lead;
mod metrics;
mod perform;
mod serve;
mod shadow_pod;

pub mod certificates;

// What [`lead`] is made of, for whoever runs it in a world of his own.
pub use agents::client::Agents;
pub use agents::transport::{OrderAnswer, Transport};
pub use context::{Brokers, Context};
pub use lead::bookings::Bookings;
pub use lead::slots::Limits;
pub use lead::supervisor::lead;
pub use metrics::Metrics;

pub use serve::{Args, RunError, run};
