//! `shadow <role>`: every part of SHADOW that runs in a pod.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use shadow::{agent, api, extender, operator, webhook};

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
    Agent(Box<agent::Args>),
    /// Tells kube-scheduler which nodes can take a checkpoint.
    Extender(extender::Args),
    /// Prints the CRDs.
    Crd,
}

impl Role {
    /// kube-scheduler asks one thing at a time: a second thread would only take the processor from it.
    fn threads(&self) -> Option<usize> {
        matches!(self, Self::Extender(_)).then_some(extender::THREADS)
    }
}

fn main() -> ExitCode {
    // Entering the node's namespaces needs a process with one thread: before anything else exists.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == agent::HOST_EXEC) {
        return agent::host_exec(&args.collect::<Vec<_>>());
    }
    let role = Cli::parse().role;
    shadow::kit::start(role.threads(), async {
        match role {
            Role::Webhook(args) => webhook::run(args).await.map_err(Into::into),
            Role::Operator(args) => operator::run(args).await.map_err(Into::into),
            Role::Agent(args) => agent::run(*args).await.map_err(Into::into),
            Role::Extender(args) => extender::run(args).await.map_err(Into::into),
            Role::Crd => print_crd(),
        }
    })
}

fn print_crd() -> Result<(), Box<dyn std::error::Error>> {
    let documents: Result<Vec<_>, _> = api::manifests()?.iter().map(serde_yaml_ng::to_string).collect();
    print!("{}", documents?.join("---\n"));
    Ok(())
}
