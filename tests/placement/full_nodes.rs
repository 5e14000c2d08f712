//! A node without room for the archive gets no shadow, and while no node has room nothing is touched.

use std::time::Duration;

use super::nodes::{clear, deploy_on, fill, freed_and_scheduled, migration, no_node, three};
use crate::lab::{App, Drain, DrainOptions, Lab, Load, Result, Scene, eventually, on_cluster};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn a_full_node_is_passed_over_time_after_time() -> Result {
    on_cluster("full-node", async |lab| {
        let [first, second, third] = three(lab).await?;
        fill(lab, &second).await?;
        let (app, load) = (App::consumer("consumer"), Load::steady(60));
        deploy_on(lab, &first, std::slice::from_ref(&app)).await?;
        let scene = Scene::open(lab, app, &load, None).await?;
        for _ in 0..4 {
            let before = lab.only_pod(&scene.app).await?;
            scene.drain(&load, &DrainOptions::of(&scene.app.name)).await?.must_be_exact()?;
            let after = lab.only_pod(&scene.app).await?;
            assert_ne!(after.node, before.node);
            assert!([&first, &third].contains(&&after.node), "{after:?}");
        }
        clear(lab, &second).await
    })
}

/// The source goes on as if nothing had been asked; once a node has room, its shadow is there within two seconds.
#[test]
fn while_every_node_is_full_the_source_is_untouched_and_moves_once_one_has_room() -> Result {
    on_cluster("no-room", async |lab| {
        let [first, second, third] = three(lab).await?;
        let (app, load) = (App::consumer("consumer").annotated("deadline", "120s"), Load::steady(60));
        let pod = deploy_on(lab, &first, std::slice::from_ref(&app)).await?.remove(0);
        let scene = Scene::open(lab, app, &load, None).await?;
        let queues = lab.broker.queues().await?;
        fill(lab, &second).await?;
        fill(lab, &third).await?;
        scene.producer.burst(200, load.rate).await?;
        let drain = Drain::start(&lab.cluster, &first, &DrainOptions::of(&scene.app.name))?;
        let waiting = migration(lab, &pod, Duration::from_secs(20), |found| no_node(found).is_some()).await?;
        let why = no_node(&waiting).unwrap_or_default();
        for node in [&second, &third] {
            assert!(why.contains(&format!("{node}: archive ")) && why.contains(", free 0.0 MiB"), "{why}");
        }
        // Events come behind the status.
        eventually("an Event tells why", Duration::from_secs(10), async || {
            let told = lab.events_of(&pod.name).await?;
            Ok(told.iter().any(|(reason, _)| reason == "NoNodeFits").then_some(()))
        })
        .await?;
        untouched(lab, &scene, &pod.uid, &queues).await?;

        let timing = async {
            let freed = freed_and_scheduled(lab, &third);
            let (times, cleared) = tokio::join!(freed, clear(lab, &third));
            cleared?;
            times
        };
        let (freed, scheduled) = timing.await?;
        let took = scheduled.saturating_duration_since(freed);
        println!("scheduled {} ms after its node was published to have room", took.as_millis());
        assert!(took <= SOON, "{took:?}");
        let drained = drain.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        let now = lab.only_pod(&scene.app).await?;
        assert_eq!(now.node, third);
        lab.uncordon(&first).await?;
        crate::lab::unhurt(&scene, &now, &queues).await?;
        clear(lab, &second).await
    })
}

/// Five seconds long: it consumes, nobody was ordered to park, no shadow was made.
async fn untouched(lab: &Lab, scene: &Scene<'_>, uid: &str, queues: &[String]) -> Result {
    let before = lab.only_pod(&scene.app).await?;
    let first = before.state().await?;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(500)).await; // a window to look through, not a wait
        let state = before.state().await?;
        assert!(!state.parked && state.connected, "{state:?}");
        assert_eq!(lab.broker.queues().await?, queues);
    }
    let state = before.state().await?;
    assert!(state.count > first.count && state.cookie == scene.cookie, "{first:?} {state:?}");
    let pods = lab.cluster.kubectl(&["-n", &lab.namespace, "get", "pods", "-o", "name"]).await?;
    assert!(!pods.contains("-shadow-"), "{pods}");
    assert_eq!(before.uid, uid);
    Ok(())
}
