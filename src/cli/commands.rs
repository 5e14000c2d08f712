//! What the plugin does. Does I/O: calls the API server, prints to standard output.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::args::{Args, CALL_LIMIT, Command};
use super::check::{CheckError, check};
use super::check_manifest::{CheckManifestError, check_manifests};
use super::decide::{DecideError, decide, waiting};
use crate::api::{
    EvictionPolicy, Phase, PodUid, Policy, PolicyError, Reason, StatefulMigration, StatefulMigrationSpec,
    migration_name, pod_policy,
};
use crate::kit::{KitError, OwnerError, kube_client, kube_watch_client, owner_annotations};

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error(transparent)]
    Kit(#[from] KitError),
    #[error("{what}: {source}")]
    Api { what: String, source: kube::Error },
    #[error("pod {0} is not annotated: set migration.ms2m.io/policy on it or on its owner")]
    NotAnnotated(String),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    CheckManifest(#[from] CheckManifestError),
    #[error(transparent)]
    Decide(#[from] DecideError),
    #[error("migration {name} brought it back: {message}")]
    WentHome { name: String, message: String },
    #[error("migration {name} failed: {reason}: {message}")]
    Failed { name: String, reason: String, message: String },
    #[error("the watch of migration {0} ended early")]
    WatchEnded(String),
}

/// Does what was asked.
pub async fn run(args: Args) -> Result<(), CliError> {
    if let Command::Check { filename, output, .. } = &args.command
        && !filename.is_empty()
    {
        return Ok(check_manifests(filename, output.is_some())?);
    }
    let client = kube_client(CALL_LIMIT).await?;
    let namespace = args.namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let migrations: Api<StatefulMigration> = Api::namespaced(client.clone(), &namespace);
    match args.command {
        Command::Migrate { pod, to, no_wait } => {
            let name = start(&client, &migrations, &namespace, &pod, to).await?;
            println!("migration {namespace}/{name}");
            if no_wait { Ok(()) } else { follow(&namespace, &name).await }
        }
        Command::Check { pod, to, operator_namespace, output, .. } => {
            let (pod, json) = (pod.unwrap_or_default(), output.is_some());
            Ok(check(&client, &operator_namespace, &namespace, &pod, to.as_deref(), json).await?)
        }
        Command::Status { migration: None } => list(&migrations).await,
        Command::Status { migration: Some(name) } => {
            let migration = migrations.get(&name).await.map_err(api(format!("migration {name}")))?;
            print_one(&migration);
            Ok(())
        }
        Command::Abort { migration } => {
            let patch = json!({"spec": {"abort": true}});
            let params = PatchParams::default();
            migrations
                .patch(&migration, &params, &Patch::Merge(&patch))
                .await
                .map_err(api(format!("abort migration {migration}")))?;
            println!("migration {namespace}/{migration} is called off if it is not committed yet");
            Ok(())
        }
        Command::Retry { pod } => {
            let migration = waiting(&migrations, &namespace, &pod).await?;
            decide(&migrations, &migration, &json!({"retry": migration.spec.retry + 1})).await?;
            println!("all places are tried again: kubectl shadow status {}", migration.name_any());
            Ok(())
        }
        Command::GiveUp { pod } => {
            let migration = waiting(&migrations, &namespace, &pod).await?;
            decide(&migrations, &migration, &json!({"giveUp": true})).await?;
            println!("pod {namespace}/{pod} starts fresh; what was saved of it is kept for a day");
            Ok(())
        }
    }
}

fn api(what: String) -> impl FnOnce(kube::Error) -> CliError {
    move |source| CliError::Api { what, source }
}

/// Creates the migration; one that is there already is joined.
async fn start(
    client: &Client,
    migrations: &Api<StatefulMigration>,
    namespace: &str,
    pod_name: &str,
    to: Option<String>,
) -> Result<String, CliError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(pod_name).await.map_err(api(format!("pod {pod_name}")))?;
    let uid = PodUid(pod.uid().unwrap_or_default());
    let owner = owner_annotations(client, &pod).await?;
    let policy: Policy =
        pod_policy(pod.annotations(), &owner)?.ok_or_else(|| CliError::NotAnnotated(pod_name.to_owned()))?;
    let spec = StatefulMigrationSpec {
        target_node: to,
        // Nobody drains: a pod that cannot be moved stays where it is.
        policy: EvictionPolicy::MigrateOrBlock,
        requested_by: Some("kubectl shadow".to_owned()),
        ..StatefulMigrationSpec::of(policy, pod_name, uid.clone())
    };
    let name = migration_name(&uid);
    match migrations.create(&PostParams::default(), &StatefulMigration::new(&name, spec)).await {
        Ok(_) => Ok(name),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(name),
        Err(error) => Err(api(format!("create migration {name}"))(error)),
    }
}

/// Prints each step as it comes; ends with the migration.
async fn follow(namespace: &str, name: &str) -> Result<(), CliError> {
    let migrations: Api<StatefulMigration> = Api::namespaced(kube_watch_client().await?, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = std::pin::pin!(watcher(migrations, config).default_backoff().applied_objects());
    let mut last = String::new();
    while let Some(change) = changes.next().await {
        let Ok(migration) = change else { continue };
        let Some(status) = &migration.status else { continue };
        let step = status.step.clone().unwrap_or_default();
        if step != last {
            println!("{step:<16} {}", status.message.as_deref().unwrap_or_default());
            last = step;
        }
        match status.phase {
            Phase::Completed => {
                print_one(&migration);
                if status.reason.as_deref() != Some(Reason::ReturnedHome.as_str()) {
                    return Ok(());
                }
                let message = status.message.clone().unwrap_or_default();
                return Err(CliError::WentHome { name: name.to_owned(), message });
            }
            Phase::Failed => {
                return Err(CliError::Failed {
                    name: name.to_owned(),
                    reason: status.reason.clone().unwrap_or_default(),
                    message: status.message.clone().unwrap_or_default(),
                });
            }
            _ => {}
        }
    }
    Err(CliError::WatchEnded(name.to_owned()))
}

async fn list(migrations: &Api<StatefulMigration>) -> Result<(), CliError> {
    let list = migrations.list(&ListParams::default()).await.map_err(api("list migrations".to_owned()))?;
    println!(
        "{:<44} {:<24} {:<14} {:<16} {:<16} {:>8} {:>8}",
        "NAME", "POD", "PHASE", "FROM", "TO", "TOTAL", "PAUSE"
    );
    for migration in list {
        let status = migration.status.clone().unwrap_or_default();
        let node = |node: Option<String>| node.unwrap_or_else(|| "-".to_owned());
        let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
        println!(
            "{:<44} {:<24} {:<14} {:<16} {:<16} {:>8} {:>8}",
            migration.name_any(),
            migration.spec.source_pod,
            status.phase.as_str(),
            node(status.source_node),
            node(status.target_node),
            time(status.total_ms),
            time(status.pause_ms),
        );
    }
    Ok(())
}

fn print_one(migration: &StatefulMigration) {
    let status = migration.status.clone().unwrap_or_default();
    println!("{} {}: {}", migration.name_any(), status.phase.as_str(), status.message.unwrap_or_default());
    for (step, ms) in &status.phase_timings {
        println!("  {step:<16} {ms:>7} ms");
    }
    for (what, ms) in [("total", status.total_ms), ("pause", status.pause_ms)] {
        if let Some(ms) = ms {
            println!("  {what:<16} {ms:>7} ms");
        }
    }
}
