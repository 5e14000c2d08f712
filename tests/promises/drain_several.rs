//! Several pods leave one node at once: two StatefulSets, and two ordinals of one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use shadow::api::Phase;

use crate::lab::{
    App, DrainOptions, Lab, Producer, QueueType, Result, Snapshot, Verdict, consuming, eventually,
    on_cluster, quiesce, status_of,
};

const READY_AFTER: Duration = Duration::from_secs(15);

#[test]
fn two_stateful_sets_leave_at_once_and_both_are_exact() -> Result {
    on_cluster("several-sets", async |lab| {
        let apps = ["alpha", "beta"].map(|name| App::consumer(name).queue(name).env("WORK_MS", "1"));
        let mut producers = Vec::new();
        for app in &apps {
            let producer = Producer::start(&lab.broker.url(), &app.queue, QueueType::Classic).await?;
            producer.resume(60).await?;
            producers.push(producer);
        }
        let node = all_on_one_node(lab, &apps).await?;
        let before = states(lab, &apps).await?;
        let watch = lab.watch();
        let drained = lab.drain(&node, &DrainOptions::default()).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        for (pod, _) in before.values() {
            let ended = watch.ended(&pod.uid, Duration::from_secs(60)).await?;
            assert_eq!(ended.status.map(|s| s.phase.as_str()), Some("Completed"), "{}", pod.name);
        }
        for (app, producer) in apps.iter().zip(&producers) {
            let pod = lab.only_pod(app).await?;
            assert_ne!(pod.node, node);
            let (ledger, state) = quiesce(producer, &format!("{}:8080", pod.ip)).await?;
            let verdict = Verdict::of(&ledger, &state, &before[&pod.name].1);
            assert!(verdict.is_exact(), "{}: {verdict:?}", pod.name);
        }
        Ok(())
    })
}

/// Both ordinals take from one queue, so the ledger is held against the sum of what they applied.
#[test]
fn two_ordinals_of_one_stateful_set_leave_at_once_and_keep_what_each_has() -> Result {
    on_cluster("several-ordinals", async |lab| {
        let app = App::consumer("consumer").replicas(2);
        let apps = [app.clone()];
        let producer = Producer::start(&lab.broker.url(), &app.queue, QueueType::Classic).await?;
        producer.resume(60).await?;
        let node = all_on_one_node(lab, &apps).await?;
        let set = lab.workload(&app).await?;
        let before = states(lab, &apps).await?;
        let watch = lab.watch();
        let drained = lab.drain(&node, &DrainOptions::default()).await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        for (pod, _) in before.values() {
            let ended = watch.ended(&pod.uid, Duration::from_secs(60)).await?;
            assert_eq!(ended.status.map(|s| s.phase.as_str()), Some("Completed"), "{}", pod.name);
        }
        let ledger = producer.pause().await?;
        let applied = eventually("everything is applied", Duration::from_secs(60), async || {
            let now = states_of(lab, &apps).await?;
            let sum: u64 = now.values().map(|(_, state)| state.count).sum();
            Ok((sum >= ledger.published).then_some(now))
        })
        .await?;
        // Not a wait: what is applied twice would have to come within this.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sum: u64 = states_of(lab, &apps).await?.values().map(|(_, state)| state.count).sum();
        assert_eq!(sum, ledger.published, "each message once, by one of the two");
        for (name, (pod, state)) in &applied {
            assert_ne!(pod.node, node, "{name}");
            assert_eq!(state.cookie, before[name].1, "{name} has its own memory, not the other's");
            assert_eq!((state.duplicates, state.out_of_order), (0, 0), "{name}");
        }
        assert_eq!(lab.workload(&app).await?["metadata"]["generation"], set["metadata"]["generation"]);
        Ok(())
    })
}

/// The second is made only while the first is ready, which takes its time after a move: it is not stopped before. Without a
/// bridge, whose removal would wait for that too.
#[test]
fn ordinals_that_are_made_in_order_leave_one_after_the_other_and_keep_what_each_has() -> Result {
    on_cluster("several-in-order", async |lab| {
        let slow =
            json!({ "containers": [{ "readinessProbe": { "initialDelaySeconds": READY_AFTER.as_secs() } }] });
        let app =
            App::consumer("consumer").replicas(2).in_order().pod(slow).annotated("strategy", "Sequential");
        let apps = [app.clone()];
        let _queue = Producer::start(&lab.broker.url(), &app.queue, QueueType::Classic).await?;
        let node = all_on_one_node(lab, &apps).await?;
        let before = states(lab, &apps).await?;
        let watch = lab.watch();
        for index in 0..2 {
            let selector = Some(format!("apps.kubernetes.io/pod-index={index}"));
            let drained = lab.drain(&node, &DrainOptions { selector, ..DrainOptions::default() }).await?;
            assert_eq!(drained.code, 0, "{}", drained.text());
        }
        assert!(watch.sightings().iter().any(|one| one.message.contains("OrderedReady")), "nobody waited");
        for (pod, _) in before.values() {
            let status = status_of(&watch.ended(&pod.uid, Duration::from_secs(60)).await?);
            assert_eq!(status.phase, Phase::Completed, "{}: {status:#?}", pod.name);
            let pause = Duration::from_millis(status.pause_ms.ok_or("no pause")?);
            assert!(pause < READY_AFTER, "{} was stopped before it could be made again: {pause:?}", pod.name);
        }
        for (name, (pod, state)) in states_of(lab, &apps).await? {
            assert_ne!(pod.node, node, "{name}");
            assert_eq!(state.cookie, before[&name].1, "{name} has its memory");
        }
        Ok(())
    })
}

/// Deploys with every other node cordoned.
async fn all_on_one_node(lab: &Lab, apps: &[App]) -> Result<String> {
    let (node, others) = lab.cluster.nodes.split_first().ok_or("no node")?;
    for other in others {
        lab.cluster.kubectl(&["cordon", other]).await?;
    }
    for app in apps {
        for pod in lab.deploy(app).await? {
            consuming(&pod).await?;
        }
    }
    for other in others {
        lab.uncordon(other).await?;
    }
    Ok(node.clone())
}

/// Pod and cookie of each pod, by name.
async fn states(lab: &Lab, apps: &[App]) -> Result<BTreeMap<String, (Snapshot, String)>> {
    let states = states_of(lab, apps).await?;
    Ok(states.into_iter().map(|(name, (pod, state))| (name, (pod, state.cookie))).collect())
}

async fn states_of(lab: &Lab, apps: &[App]) -> Result<BTreeMap<String, (Snapshot, crate::lab::StateView)>> {
    let mut all = BTreeMap::new();
    for app in apps {
        for pod in lab.ready(app, Duration::from_secs(30)).await? {
            let state = pod.state().await?;
            all.insert(pod.name.clone(), (pod, state));
        }
    }
    Ok(all)
}
