//! What the tests of placement share: three nodes, what their agents publish, and a pod on the first of them.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use shadow::api::{NodeCapacity, NodeCapacitySpec, StatefulMigration, StatefulMigrationSpec};

use crate::lab::{App, Lab, Result, Snapshot, eventually, fail, status_of};

/// An agent looks at its node twice a second, and again where a write failed.
pub const PUBLISHED: Duration = Duration::from_secs(15);
/// Where an agent finds fields of the vector to publish in place of what it found out.
const OVERRIDE: &str = "/var/lib/shadow/compatibility.json";
const MIB: u64 = 1 << 20;

/// The first three nodes, made whole and known to be so.
pub async fn three(lab: &Lab) -> Result<[String; 3]> {
    let [first, second, third] = lab.cluster.nodes.get(..3).unwrap_or_default() else {
        return fail("three nodes are needed: tests/cluster/cluster up --nodes 3");
    };
    let nodes = [first.clone(), second.clone(), third.clone()];
    for node in &nodes {
        published(lab, node, |now| now.free_bytes > 1024 * MIB).await?;
    }
    Ok(nodes)
}

/// Room again, and the vector that the agent finds out; the laboratory does the same before and after every test.
pub async fn clear(lab: &Lab, node: &str) -> Result {
    lab.cluster.spoil("heal", node, &[]).await?;
    let removed = lab.cluster.exec(node, &["rm", "-f", OVERRIDE]).await?;
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    Ok(())
}

/// No room for archives, and published so.
pub async fn fill(lab: &Lab, node: &str) -> Result {
    lab.cluster.spoil("fill", node, &[]).await?;
    published(lab, node, |now| now.free_bytes == 0).await.map(drop)
}

/// The agent publishes these fields in place of what it found out.
pub async fn pretend(lab: &Lab, node: &str, fields: &str) -> Result {
    let before = capacity(lab, node).await?.compatibility;
    let write = format!("echo '{fields}' > {OVERRIDE}.new && mv {OVERRIDE}.new {OVERRIDE}");
    let written = lab.cluster.exec(node, &["sh", "-c", &write]).await?;
    assert_eq!(written.code, 0, "{}", written.stderr);
    published(lab, node, |now| now.compatibility != before).await.map(drop)
}

pub async fn capacity(lab: &Lab, node: &str) -> Result<NodeCapacitySpec> {
    let api: Api<NodeCapacity> = Api::all(lab.client.clone());
    Ok(api.get(node).await?.spec)
}

pub async fn published(
    lab: &Lab,
    node: &str,
    wanted: impl Fn(&NodeCapacitySpec) -> bool,
) -> Result<NodeCapacitySpec> {
    eventually(&format!("the agent on {node} publishes it"), PUBLISHED, async || {
        Ok(Some(capacity(lab, node).await?).filter(&wanted))
    })
    .await
}

/// Deploys with every other node cordoned for so long; its pods are ready on that node.
pub async fn deploy_on(lab: &Lab, node: &str, apps: &[App]) -> Result<Vec<Snapshot>> {
    let others: Vec<_> = lab.cluster.nodes.iter().filter(|other| *other != node).collect();
    for other in &others {
        lab.cluster.kubectl(&["cordon", other]).await?;
    }
    let objects: Vec<_> = apps.iter().flat_map(|app| app.objects(&lab.namespace)).collect();
    lab.cluster.apply(&objects).await?;
    let mut pods = Vec::new();
    for app in apps {
        pods.push(lab.only_pod(app).await?);
    }
    for other in &others {
        lab.uncordon(other).await?;
    }
    Ok(pods)
}

/// The pod's migration, once its status is as wanted.
pub async fn migration(
    lab: &Lab,
    pod: &Snapshot,
    limit: Duration,
    wanted: impl Fn(&StatefulMigration) -> bool,
) -> Result<StatefulMigration> {
    let api: Api<StatefulMigration> = Api::namespaced(lab.client.clone(), &lab.namespace);
    eventually(&format!("the migration of {} is as wanted", pod.name), limit, async || {
        let is_its = |spec: &StatefulMigrationSpec| {
            spec.source_pod_uid.as_ref().is_some_and(|uid| uid.as_str() == pod.uid)
        };
        let all = api.list(&kube::api::ListParams::default()).await?.items;
        match all.into_iter().find(|one| is_its(&one.spec)) {
            Some(found) if wanted(&found) => Ok(Some(found)),
            Some(found) => fail(format!("{:?}", status_of(&found).message)),
            None => Ok(None),
        }
    })
    .await
}

/// Message of the condition that says that no node can take it.
pub fn no_node(migration: &StatefulMigration) -> Option<String> {
    let status = status_of(migration);
    let condition = status.conditions.iter().find(|c| c.type_ == "Placeable" && c.status == "False")?;
    (condition.reason == "NoNodeFits").then(|| condition.message.clone())
}

/// Tells when the agent on a node has published room again, and when a shadow was bound to it.
pub async fn freed_and_scheduled(lab: &Lab, node: &str) -> Result<(Instant, Instant)> {
    let capacities: Api<NodeCapacity> = Api::all(lab.client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={node}"));
    let mut capacities = std::pin::pin!(watcher(capacities, config).default_backoff().applied_objects());
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let shadows = watcher::Config::default().labels("migration.ms2m.io/role=shadow");
    let mut shadows = std::pin::pin!(watcher(pods, shadows).default_backoff().applied_objects());
    let (mut freed, mut scheduled) = (None, None);
    let both = async {
        while freed.is_none() || scheduled.is_none() {
            tokio::select! {
                Some(Ok(capacity)) = capacities.next() => {
                    if capacity.spec.free_bytes > 1024 * MIB && freed.is_none() {
                        freed = Some(Instant::now());
                    }
                }
                Some(Ok(pod)) = shadows.next() => {
                    if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node) {
                        eprintln!("{} is bound to {node}", pod.name_any());
                        scheduled.get_or_insert_with(Instant::now);
                    }
                }
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), both).await;
    match (freed, scheduled) {
        (Some(freed), Some(scheduled)) => Ok((freed, scheduled)),
        other => fail(format!("freed and scheduled within a minute: {other:?}")),
    }
}
