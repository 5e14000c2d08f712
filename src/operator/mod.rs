//! The operator: drives every `StatefulMigration` through the protocol.
//!
//! `lead` is the leader's: its `supervisor` starts a driver for each migration, `slots` and `placing` say which may move and
//! whether there is room, `bookings` keep a node from being given away twice. `drive` is one migration's: it is accepted, fed
//! to `protocol::step`, written down in the `journal` and told. `perform` does what the protocol asks for, `agents` carries
//! orders to the nodes. `check` holds a pod against all that is known before anything is begun, for a migration and for
//! people who ask. Holds no state that is not in the objects.

mod agents;
mod check;
mod context;
mod drive;
mod lead;
mod metrics;
mod perform;
mod serve;
mod shadow_init;
mod shadow_pod;
mod shadow_volumes;

pub mod certificates;

// What [`lead`] is made of, for whoever runs it in a world of his own.
pub use agents::client::Agents;
pub use agents::transport::{OrderAnswer, Transport};
pub use context::{Brokers, Context};
pub use lead::bookings::Bookings;
pub use lead::slots::Limits;
pub use lead::supervisor::lead;
pub use metrics::Metrics;

// For whoever asks before there is a pod.
pub use check::manifest::{ManifestError, check_manifest};

pub use serve::{Args, RunError, run};
