//! A pod moves as a whole: a consumer under load, a log sidecar, a native sidecar that the kubelet waits for, what an init
//! container has left in a volume; and a container that its user wants to have started anew.

use serde_json::json;
use shadow::api::Reason;

use super::after::{After, BREAK_CRIU};
use crate::lab::{App, DrainOptions, Load, Result, Scene, give, held, on_cluster, sidecar, state_at, whole};

/// If nothing else is said.
const DRAINS: usize = 10;
/// Port of the sidecar whose memory does not move.
const SHIP: u16 = 8083;

fn app() -> App {
    let ship = json!({ "containers": [{}, {}, sidecar("ship", SHIP)] });
    whole(App::consumer("consumer")).annotated("restart-fresh", "ship").pod(ship)
}

#[test]
fn a_pod_of_several_containers_moves_as_a_whole() -> Result {
    on_cluster("whole-pod", async |lab| {
        let times = std::env::var("DRAINS").map_or(Ok(DRAINS), |times| times.parse())?;
        let (app, load) = (app(), Load::steady(60));
        let scene = Scene::open(lab, app.clone(), &load, None).await?;
        let mut totals = Vec::new();
        for round in 1..=times {
            let before = lab.only_pod(&app).await?;
            give(&before, &format!("{round};")).await?;
            let before_it = held(&before).await?;
            let shipped = state_at(&format!("{}:{SHIP}", before.ip)).await?;
            // Else kubectl leaves pods with an emptyDir alone.
            let options = DrainOptions { delete_empty_dir: true, ..DrainOptions::of(&app.name) };
            let figures = scene.drain(&load, &options).await?;
            figures.must_be_exact()?;
            let after = lab.only_pod(&app).await?;
            assert_ne!((&after.node, &after.uid), (&before.node, &before.uid), "round {round}");
            assert_eq!(held(&after).await?, before_it, "round {round}: what the sidecars hold is kept");
            let fresh = state_at(&format!("{}:{SHIP}", after.ip)).await?;
            assert_ne!(fresh.cookie, shipped.cookie, "round {round}: that one is started anew");
            assert_eq!(after.restarts, 0, "round {round}");
            let log = lab.cluster.kubectl(&["-n", &lab.namespace, "logs", &after.name, "-c", "fill"]).await?;
            assert_eq!(log, "", "the init container did not run again");
            let steps: Vec<_> = figures.steps.iter().map(|one| format!("{} {}", one.step, one.ms)).collect();
            println!(
                "round {round}: total {} ms, pause {} ms ({})",
                figures.total_ms,
                figures.pause_ms,
                steps.join(", ")
            );
            totals.push(figures.total_ms);
        }
        totals.sort_unstable();
        println!("median of {times}: {} ms", totals[times / 2]);
        Ok(())
    })
}

/// The sidecar that the kubelet waits for is back, and the others are still to come.
const ONCE_ONE_IS_BACK: &str = "until grep -q '\"state\":\"started\"' /var/lib/shadow/tickets/*.replacement.json; do \
     [ $(date +%s) -lt $end ] || exit 9; sleep 0.005; done; ";

#[test]
fn where_one_container_cannot_be_restored_the_whole_pod_is_at_home_again() -> Result {
    on_cluster("whole-pod-home", async |lab| {
        let after = After::ahead(lab, app()).await?;
        give(&after.trouble.pod, "x").await?;
        let before = held(&after.trouble.pod).await?;
        let drain = after.drained_with(&format!("{ONCE_ONE_IS_BACK}{BREAK_CRIU}")).await?;
        let status = after.is_home(&[Reason::RestoreFailed]).await?;
        drain.finish().await?;
        let now = lab.only_pod(&after.trouble.scene.app).await?;
        assert_eq!(held(&now).await?, before, "its sidecars came home with it");
        println!("one of three fails: {} ms in all", status.total_ms.unwrap_or_default());
        lab.cluster.mend().await
    })
}
