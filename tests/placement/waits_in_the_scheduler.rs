//! The operator sees room on a node that the scheduler has reasons of its own against; the other node is full. The shadow
//! waits in the scheduler, which knows nothing of capacities and must be woken.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::nodes::{clear, deploy_on, fill, freed_and_scheduled, three};
use crate::lab::{App, Drain, DrainOptions, Load, Result, Scene, TAINT, eventually, on_cluster};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_shadow_that_waits_is_scheduled_within_two_seconds_of_a_node_having_room() -> Result {
    on_cluster("waits", async |lab| {
        let [first, second, third] = three(lab).await?;
        let (app, load) = (App::consumer("consumer").annotated("deadline", "120s"), Load::steady(60));
        deploy_on(lab, &first, std::slice::from_ref(&app)).await?;
        let scene = Scene::open(lab, app, &load, None).await?;
        fill(lab, &third).await?;
        let taint = format!("{TAINT}=other:NoSchedule");
        lab.cluster.kubectl(&["taint", "node", &second, &taint, "--overwrite"]).await?;
        scene.producer.burst(100, load.rate).await?;
        let drain = Drain::start(&lab.cluster, &first, &DrainOptions::of(&scene.app.name))?;
        let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
        let shadows = ListParams::default().labels("migration.ms2m.io/role=shadow");
        let why = eventually("a shadow waits", Duration::from_secs(20), async || {
            let waiting = pods.list(&shadows).await?.items.into_iter().next();
            let conditions = waiting.and_then(|pod| pod.status?.conditions).unwrap_or_default();
            let refused = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
            Ok(refused.and_then(|condition| condition.message))
        })
        .await?;
        assert!(why.contains("untolerated taint") && why.contains("archive "), "both speak: {why}");
        let (times, cleared) = tokio::join!(freed_and_scheduled(lab, &third), clear(lab, &third));
        cleared?;
        let (freed, scheduled) = times?;
        let took = scheduled.saturating_duration_since(freed);
        println!("scheduled {} ms after its node was published to have room", took.as_millis());
        assert!(took <= SOON, "{took:?}");
        let drained = drain.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        assert_eq!(lab.only_pod(&scene.app).await?.node, third);
        lab.uncordon(&first).await?;
        let (ledger, state) = scene.quiesce().await?;
        let verdict = crate::lab::Verdict::of(&ledger, &state, &scene.cookie);
        assert!(verdict.is_exact(), "{verdict:?}");
        Ok(())
    })
}
