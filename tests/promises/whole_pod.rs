//! A pod moves as a whole: a consumer under load, a log sidecar, a native sidecar that the kubelet waits for, what an init
//! container has left in a volume; and a container that its user wants to have started anew. `make drains` does more of them.

use std::time::Duration;

use serde_json::{Value, json};
use shadow::api::Reason;

use super::after::{After, BREAK_CRIU};
use crate::lab::{
    App, DrainOptions, IMAGE, Load, Result, Scene, Snapshot, StateView, on_cluster, request, state_at,
};

/// In `make test`; `make drains` makes ten.
const DRAINS: usize = 3;
const LIMIT: Duration = Duration::from_secs(5);
const FILLED: &str = "localhost/shadow-carried:1";
/// Ports of the sidecars whose memory moves.
const KEPT: [(&str, u16); 2] = [("proxy", 8081), ("log", 8082)];
/// And of the one whose does not.
const SHIP: u16 = 8083;

/// One more program beside the consumer, with a state in memory.
fn sidecar(name: &str, port: u16) -> Value {
    json!({
        "name": name, "image": IMAGE, "command": ["/counter"],
        "env": [{ "name": "LISTEN", "value": format!("0.0.0.0:{port}") }, { "name": "BALLAST_MB", "value": "4" }],
        "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
    })
}

fn app() -> App {
    let init = json!({ "name": "fill", "image": FILLED, "command": ["/carried", "--append", "/scratch/appended"],
        "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }] });
    let mut proxy = sidecar("proxy", KEPT[0].1);
    proxy["restartPolicy"] = "Always".into();
    proxy["startupProbe"] = json!({ "httpGet": { "path": "/state", "port": KEPT[0].1 }, "periodSeconds": 1 });
    // It looks into the volume that the init container has filled.
    let mut log = sidecar("log", KEPT[1].1);
    log["livenessProbe"] = json!({ "httpGet": { "path": "/state", "port": KEPT[1].1 }, "periodSeconds": 1, "failureThreshold": 10 });
    App::consumer("consumer").annotated("restart-fresh", "ship").pod(json!({
        "initContainers": [init, proxy],
        "containers": [{}, log, sidecar("ship", SHIP)],
        "volumes": [{ "name": "scratch", "emptyDir": {} }],
    }))
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
            for (_, port) in KEPT {
                add(&before, port, &format!("{round};")).await?;
            }
            let held = states(&before).await?;
            let shipped = state_at(&format!("{}:{SHIP}", before.ip)).await?;
            // Else kubectl leaves pods with an emptyDir alone.
            let options = DrainOptions { delete_empty_dir: true, ..DrainOptions::of(&app.name) };
            let figures = scene.drain(&load, &options).await?;
            figures.must_be_exact()?;
            let after = lab.only_pod(&app).await?;
            assert_ne!((&after.node, &after.uid), (&before.node, &before.uid), "round {round}");
            assert_eq!(states(&after).await?, held, "round {round}: what the sidecars hold is kept");
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

async fn states(pod: &Snapshot) -> Result<Vec<StateView>> {
    let mut found = Vec::new();
    for (_, port) in KEPT {
        found.push(state_at(&format!("{}:{port}", pod.ip)).await?);
    }
    Ok(found)
}

async fn add(pod: &Snapshot, port: u16, text: &str) -> Result {
    let answer = request(&format!("{}:{port}", pod.ip), "POST", "/add", "", text.as_bytes(), LIMIT).await?;
    assert_eq!(answer.status, 200);
    Ok(())
}

/// The sidecar that the kubelet waits for is back, and the others are still to come.
const ONCE_ONE_IS_BACK: &str = "until grep -q '\"state\":\"started\"' /var/lib/shadow/tickets/*.replacement.json; do \
     [ $(date +%s) -lt $end ] || exit 9; sleep 0.005; done; ";

#[test]
fn where_one_container_cannot_be_restored_the_whole_pod_is_at_home_again() -> Result {
    on_cluster("whole-pod-home", async |lab| {
        let after = After::ahead(lab, app()).await?;
        add(&after.trouble.pod, KEPT[1].1, "x").await?;
        let held = states(&after.trouble.pod).await?;
        let drain = after.drained_with(&format!("{ONCE_ONE_IS_BACK}{BREAK_CRIU}")).await?;
        let status = after.is_home(&[Reason::RestoreFailed]).await?;
        drain.finish().await?;
        let now = lab.only_pod(&after.trouble.scene.app).await?;
        assert_eq!(states(&now).await?, held, "its sidecars came home with it");
        println!("one of three fails: {} ms in all", status.total_ms.unwrap_or_default());
        lab.cluster.mend().await
    })
}
