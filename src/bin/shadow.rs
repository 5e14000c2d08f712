//! `shadow <role>`: every part of SHADOW that runs in a pod.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shadow::{agent, api, operator, webhook};

#[derive(Parser)]
#[command(version, about = "Moves stateful pods between nodes with their memory")]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Answers evictions and pod creations.
    Webhook(webhook::Args),
    /// Drives migrations.
    Operator(operator::Args),
    /// Checkpoints, streams and keeps archives on its node.
    Agent(agent::Args),
    /// Prints the CRD.
    Crd,
}

fn main() -> ExitCode {
    // Entering the node's namespaces needs a process with one thread: before anything else exists.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == agent::HOST_EXEC) {
        return agent::host_exec(&args.collect::<Vec<_>>());
    }
    shadow::kit::start(async {
        match Cli::parse().role {
            Role::Webhook(args) => webhook::run(args).await.map_err(Into::into),
            Role::Operator(args) => operator::run(args).await.map_err(Into::into),
            Role::Agent(args) => agent::run(args).await.map_err(Into::into),
            Role::Crd => print_crd(),
        }
    })
}

fn print_crd() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", serde_yaml_ng::to_string(&api::manifest()?)?);
    Ok(())
}
