//! The operator: drives every `StatefulMigration` through the protocol.
//!
//! `preflight` accepts, `supervisor` (the leader's loop) starts a `driver` each and hands out `slots`, a driver feeds
//! `protocol::step` and writes the `journal`, `perform` does what the protocol asks for. Holds no state that is not in
//! the object.

mod agents;
mod announce;
mod context;
mod driver;
mod journal;
mod metrics;
mod perform;
mod preflight;
mod shadow_pod;
mod slots;
mod status;
mod subject;
mod supervisor;

/// Flags of the role.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// The role could not start or ended early.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RunError(String);

/// Runs until asked to stop.
pub async fn run(args: Args) -> Result<(), RunError> {
    let Args {} = args;
    Err(RunError("not wired".into()))
}
