//! Twenty pods of three nodes are evicted at the same moment: two at a time come into a node, two leave one, five are
//! under way, and all arrive with their memory.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use shadow::api::{Phase, StatefulMigration};

use super::nodes::{deploy_on, three};
use crate::lab::{App, Lab, Result, Snapshot, eventually, fail, on_cluster, status_of};

const PODS: usize = 20;
const ALL: Duration = Duration::from_secs(240);

#[test]
fn no_limit_is_broken_and_all_arrive_with_their_memory() -> Result {
    on_cluster("many", async |lab| {
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
        let watched = tokio::time::timeout(ALL, watch_limits(lab));
        let evicted = join_all(pods.iter().map(|pod| evict(lab, pod)));
        let (most, evicted) = tokio::join!(watched, evicted);
        evicted.into_iter().collect::<Result<Vec<()>>>()?;
        let most = most.map_err(|_| "not all twenty were moved in time")??;
        println!("at most {} at a time, {} out of a node, {} into one", most.cluster, most.out, most.into);
        assert!(most.cluster > 2, "they did move at the same time: {most:?}");
        for app in &apps {
            let now = lab.only_pod(app).await?;
            let (node, cookie) = &cookies[&now.name];
            assert_ne!(&now.node, node, "{}", now.name);
            assert_eq!(&now.state().await?.cookie, cookie, "{}", now.name);
        }
        Ok(())
    })
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
async fn watch_limits(lab: &Lab) -> Result<Most> {
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
            return fail(format!("a limit is broken: {most:?}"));
        }
        if all.len() == PODS && all.values().all(|one| status_of(one).phase == Phase::Completed) {
            return Ok(most);
        }
    }
    fail("the watch ended")
}

/// It holds a slot.
fn moves(step: Option<&str>) -> bool {
    !matches!(step, None | Some("Accepted" | "Cleaning" | "Completed" | "BackingOff"))
}
