//! Twenty pods of three nodes are evicted at the same moment: two at a time come into a node, two leave one, five are
//! under way, and all arrive with their memory. Also while one leading operator after the other is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use shadow::api::{Phase, SYSTEM_NAMESPACE, StatefulMigration};
use tokio::sync::watch;

use super::nodes::{deploy_on, three};
use crate::lab::{App, Lab, Result, Snapshot, eventually, fail, kill_leader, on_cluster, status_of};

const PODS: usize = 20;
const ALL: Duration = Duration::from_secs(240);

#[test]
fn no_limit_is_broken_and_all_arrive_with_their_memory() -> Result {
    on_cluster("many", async |lab| {
        let most = all_arrive(lab, async |_| Ok(())).await?;
        println!("at most {} at a time, {} out of a node, {} into one", most.cluster, most.out, most.into);
        assert!(most.cluster > 2, "they did move at the same time: {most:?}");
        Ok(())
    })
}

#[test]
fn no_limit_is_broken_while_leaders_are_killed() -> Result {
    on_cluster("many-leaders", async |lab| {
        let most = all_arrive(lab, async |mut arrived| {
            for moved in [1, 5, 10, 15] {
                arrived.wait_for(|now| *now >= moved).await?;
                let killed = kill_leader(&lab.cluster, &lab.client).await?;
                println!("{killed} killed after {moved} had moved");
                lab.cluster.kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pod", &killed]).await?;
                lab.product_ready().await?;
            }
            Ok(())
        });
        most.await.map(drop)
    })
}

/// Evicts them all at once; `meanwhile` is told how many have arrived.
async fn all_arrive(
    lab: &Lab,
    meanwhile: impl AsyncFnOnce(watch::Receiver<usize>) -> Result,
) -> Result<Most> {
    let nodes = three(lab).await?;
    let apps: Vec<App> =
        (0..PODS).map(|n| App::counter(&format!("c{n:02}")).annotated("deadline", "590s")).collect();
    let mut pods: Vec<Snapshot> = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let own: Vec<App> = apps.iter().skip(n).step_by(nodes.len()).cloned().collect();
        pods.extend(deploy_on(lab, node, &own).await?);
    }
    assert_eq!(pods.len(), PODS);
    let mut cookies = BTreeMap::new();
    for pod in &pods {
        cookies.insert(pod.name.clone(), (pod.node.clone(), pod.state().await?.cookie));
    }
    let (arrived, progress) = watch::channel(0);
    let watched = tokio::time::timeout(ALL, watch_limits(lab, &arrived));
    let evicted = join_all(pods.iter().map(|pod| evict(lab, pod)));
    let disturbed = tokio::time::timeout(ALL, meanwhile(progress));
    let (most, _, ()) = tokio::try_join!(
        async { watched.await.map_err(|_| "not all twenty were moved in time")? },
        async { evicted.await.into_iter().collect::<Result<Vec<()>>>() },
        async { disturbed.await.map_err(|_| "what was to happen meanwhile did not end")? },
    )?;
    for app in &apps {
        let now = lab.only_pod(app).await?;
        let (node, cookie) = &cookies[&now.name];
        assert_ne!(&now.node, node, "{}", now.name);
        assert_eq!(&now.state().await?.cookie, cookie, "{}", now.name);
    }
    Ok(most)
}

/// Asked again until it is under way: that is what an evictor does.
async fn evict(lab: &Lab, pod: &Snapshot) -> Result {
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let api: Api<StatefulMigration> = Api::namespaced(lab.client.clone(), &lab.namespace);
    eventually(
        &format!("the eviction of {} starts its migration", pod.name),
        Duration::from_secs(60),
        async || {
            let _ = pods.evict(&pod.name, &EvictParams::default()).await; // 429 for as long as it moves
            let all = api.list(&kube::api::ListParams::default()).await?.items;
            Ok(all.iter().any(|one| one.spec.source_pod == pod.name).then_some(()))
        },
    )
    .await
}

#[derive(Debug, Default)]
struct Most {
    cluster: usize,
    out: usize,
    into: usize,
}

/// Until all twenty have moved; an error as soon as a limit is broken. Every status is seen, in the order of its writing.
async fn watch_limits(lab: &Lab, arrived: &watch::Sender<usize>) -> Result<Most> {
    let api: Api<StatefulMigration> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let mut changes =
        std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    let mut all: BTreeMap<String, StatefulMigration> = BTreeMap::new();
    let mut most = Most::default();
    while let Some(change) = changes.next().await {
        let Ok(change) = change else { continue };
        let phase = status_of(&change).phase;
        if phase == Phase::Failed {
            return fail(format!("{} failed: {:?}", change.name_any(), status_of(&change).message));
        }
        all.insert(change.name_any(), change);
        let under_way: Vec<_> =
            all.values().map(status_of).filter(|status| moves(status.step.as_deref())).collect();
        let crowd = |of: fn(&shadow::api::StatefulMigrationStatus) -> Option<String>| {
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for node in under_way.iter().filter_map(of) {
                *counts.entry(node).or_default() += 1;
            }
            counts.into_values().max().unwrap_or_default()
        };
        most.cluster = most.cluster.max(under_way.len());
        most.out = most.out.max(crowd(|status| status.source_node.clone()));
        most.into = most.into.max(crowd(|status| status.target_node.clone()));
        if most.cluster > 5 || most.out > 2 || most.into > 2 {
            let under_way: Vec<_> =
                all.values().filter(|one| moves(status_of(one).step.as_deref())).collect();
            let told = under_way.iter().map(|one| {
                let status = status_of(one);
                format!(
                    "{} {:?} {:?} -> {:?}",
                    one.spec.source_pod, status.step, status.source_node, status.target_node
                )
            });
            return fail(format!("a limit is broken: {most:?}: {}", told.collect::<Vec<_>>().join(", ")));
        }
        let done = all.values().filter(|one| status_of(one).phase == Phase::Completed).count();
        arrived.send_replace(done);
        if done == PODS {
            return Ok(most);
        }
    }
    fail("the watch ended")
}

/// It holds a slot: memory moves, and no machine, person or turn is waited for.
fn moves(step: Option<&str>) -> bool {
    let waits = ["Accepted", "BackingOff", "Spending", "Stranded", "Cleaning", "Completed"];
    step.is_some_and(|step| !waits.contains(&step))
}
