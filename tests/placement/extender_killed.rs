//! The extender is killed: ordinary pods are scheduled as ever, shadows wait, nothing is lost.

use std::time::Duration;

use super::nodes::{deploy_on, three};
use crate::lab::{App, Drain, DrainOptions, Lab, Load, Result, Scene, eventually, on_cluster};

const SCHEDULER: [&str; 4] = ["-n", "shadow-system", "scale", "deployment/shadow-scheduler"];

#[test]
fn killed_in_the_middle_of_a_drain_it_is_waited_for() -> Result {
    on_cluster("extender-killed", async |lab| {
        let [first, ..] = three(lab).await?;
        let (app, load) = (App::consumer("consumer"), Load::steady(60));
        deploy_on(lab, &first, std::slice::from_ref(&app)).await?;
        let scene = Scene::open(lab, app, &load, None).await?;
        let options = DrainOptions::of(&scene.app.name);
        for _ in 0..2 {
            let before = lab.only_pod(&scene.app).await?;
            let watch = lab.watch();
            let (figures, killed) = tokio::join!(scene.drain(&load, &options), async {
                watch.reaches(&before.uid, &["Preparing"], Duration::from_secs(20)).await?;
                kill_extenders(lab).await
            });
            assert!(killed? > 0, "there is no extender to be killed");
            figures?.must_be_exact()?;
        }
        lab.recycle_product().await
    })
}

async fn kill_extenders(lab: &Lab) -> Result<usize> {
    let kills = lab.cluster.nodes.iter().map(|node| lab.cluster.kill_program(node, &["shadow", "extender"]));
    let killed = futures::future::join_all(kills).await.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(killed.into_iter().flatten().count())
}

#[test]
fn while_there_is_none_ordinary_pods_are_scheduled_and_the_source_consumes() -> Result {
    on_cluster("no-extender", async |lab| {
        let [first, ..] = three(lab).await?;
        let (app, load) = (App::consumer("consumer").annotated("deadline", "200s"), Load::steady(60));
        let pod = deploy_on(lab, &first, std::slice::from_ref(&app)).await?.remove(0);
        let scene = Scene::open(lab, app, &load, None).await?;
        scene.producer.burst(100, load.rate).await?;
        lab.cluster.kubectl(&[&SCHEDULER[..], &["--replicas=0"]].concat()).await?;
        eventually("no scheduler of ours is left", Duration::from_secs(60), async || {
            let of = [
                "-n",
                "shadow-system",
                "get",
                "pods",
                "-l",
                "app.kubernetes.io/name=shadow-scheduler",
                "-o",
                "name",
            ];
            Ok(lab.cluster.kubectl(&of).await?.is_empty().then_some(()))
        })
        .await?;
        let options = DrainOptions::of(&scene.app.name).timeout(Duration::from_secs(180));
        let drain = Drain::start(&lab.cluster, &first, &options)?;
        scene.watch().reaches(&pod.uid, &["Preparing"], Duration::from_secs(20)).await?;
        // An ordinary pod, in the meantime.
        lab.deploy(&App::counter("ordinary").unannotated()).await?;
        scene.watch().reaches(&pod.uid, &["BackingOff"], Duration::from_secs(60)).await?;
        let state = pod.state().await?;
        assert!(state.cookie == scene.cookie && state.connected && !state.parked, "{state:?}");
        assert!(!scene.watch().has_reached(&pod.uid, "Parking"));
        lab.cluster.kubectl(&[&SCHEDULER[..], &["--replicas=2"]].concat()).await?;
        let drained = drain.finish().await?;
        assert_eq!(drained.code, 0, "{}", drained.text());
        lab.uncordon(&first).await?;
        let (ledger, state) = scene.quiesce().await?;
        let verdict = crate::lab::Verdict::of(&ledger, &state, &scene.cookie);
        assert!(verdict.is_exact(), "{verdict:?}");
        lab.product_ready().await
    })
}
