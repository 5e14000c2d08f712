//! A Deployment's pod moves as well: another name, the same memory, the same ReplicaSet, no replica more or less.

use std::time::Duration;

use crate::lab::{App, DrainOptions, Kind, Load, Result, Scene, Verdict, on_cluster};

#[test]
fn the_pod_of_a_deployment_moves_with_its_memory() -> Result {
    on_cluster("deployment", async |lab| {
        let app = App::consumer("consumer").kind(Kind::Deployment);
        let load = Load::steady(60);
        let scene = Scene::open(lab, app.clone(), &load, None).await?;
        let deployment = lab.workload(&app).await?;
        for round in 1..=2 {
            let before = lab.only_pod(&app).await?;
            scene.drain(&load, &DrainOptions::of(&app.name)).await?.must_be_exact()?;
            let after = lab.only_pod(&app).await?;
            assert_ne!(after.node, before.node, "round {round}");
            assert_ne!(after.name, before.name, "round {round}: a ReplicaSet gives a new name");
            assert_eq!(after.owner_uid, before.owner_uid, "round {round}: the same ReplicaSet");
            assert_eq!(after.revision, before.revision, "round {round}: the same pod template");
            assert_eq!(after.state().await?.pod, after.name, "round {round}: it knows its new name");
        }
        assert_eq!(lab.workload(&app).await?["metadata"]["generation"], deployment["metadata"]["generation"]);
        // Not a wait: a second pod would have to come within this.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(lab.pods(&app).await?.len(), 1, "no pod too many");
        let (ledger, state) = scene.quiesce().await?;
        assert!(Verdict::of(&ledger, &state, &scene.cookie).is_exact());
        Ok(())
    })
}
