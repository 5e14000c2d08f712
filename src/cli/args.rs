//! What a user types.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::api::SYSTEM_NAMESPACE;

/// Moves stateful pods between nodes with their memory.
#[derive(Parser)]
#[command(name = "kubectl-shadow", bin_name = "kubectl shadow", version)]
pub struct Args {
    /// Namespace; that of the current context where it is missing.
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Moves a pod now and tells how it goes.
    Migrate {
        pod: String,
        /// Node to move to; the scheduler's choice where it is missing.
        #[arg(long)]
        to: Option<String>,
        /// Do not wait for the end.
        #[arg(long)]
        no_wait: bool,
    },
    /// Tells whether a pod can be moved, where to, and if not, why; touches nothing. Exits with 1 if it cannot.
    ///
    /// With -f: whether the pods of a manifest could be moved, before it is deployed; needs no cluster.
    Check {
        #[arg(required_unless_present = "filename")]
        pod: Option<String>,
        /// StatefulSets, Deployments and pods in files of YAML or JSON; - is standard input.
        #[arg(short, long, conflicts_with_all = ["pod", "to"])]
        filename: Vec<PathBuf>,
        /// Only this node.
        #[arg(long)]
        to: Option<String>,
        /// Namespace that SHADOW is installed in.
        #[arg(long, default_value = SYSTEM_NAMESPACE)]
        operator_namespace: String,
        #[arg(short, long)]
        output: Option<Output>,
    },
    /// Lists migrations, or tells all about one.
    Status { migration: Option<String> },
    /// Calls a migration off, as long as it is not committed.
    Abort { migration: String },
    /// Tries all places again for a pod that could be restored nowhere.
    Retry { pod: String },
    /// Starts a pod fresh that could be restored nowhere; what was saved of it is kept for a day.
    GiveUp { pod: String },
}

/// How an answer is printed, unless it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
}

/// Every call ends within this.
pub const CALL_LIMIT: Duration = Duration::from_secs(15);
