//! `strategy: Sequential`: no shadow answers meanwhile, so reads pause; the messages are as exact as ever. The shadow is a
//! rehearsal: restored before the commit, and never let go.

use crate::lab::{App, DrainOptions, Load, Result, Scene, on_cluster, status_of};

#[test]
fn a_sequential_drain_is_exact_and_makes_no_bridge() -> Result {
    on_cluster("sequential", async |lab| {
        let app = App::consumer("consumer").annotated("strategy", "Sequential");
        let load = Load::steady(60);
        let scene = Scene::open(lab, app.clone(), &load, None).await?;
        for round in 1..=2 {
            let before = lab.only_pod(&app).await?;
            scene.drain(&load, &DrainOptions::of(&app.name)).await?.must_be_exact()?;
            let after = lab.only_pod(&app).await?;
            assert_eq!(after.name, before.name, "round {round}");
            assert_ne!(after.node, before.node, "round {round}");
            let ended = scene.watch().ended(&before.uid, std::time::Duration::from_secs(30)).await?;
            let timings = status_of(&ended).phase_timings;
            for there in ["RestoringShadow", "Freezing"] {
                assert!(timings.contains_key(there), "round {round}: {there}: {timings:?}");
            }
            assert!(
                !timings.contains_key("Bridging"),
                "round {round}: nothing answers in between: {timings:?}"
            );
        }
        Ok(())
    })
}
