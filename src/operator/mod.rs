//! The operator role.

pub mod certificates;

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
