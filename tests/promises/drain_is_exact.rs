//! A drain moves the pod with its memory, its name and every message, exactly once: back and forth, at three rates,
//! with a backlog; nobody changes the StatefulSet, and readers never see an older state. `make drains` does more of them.

use serde_json::Value;

use crate::lab::{App, DrainOptions, Lab, Load, QueueType, Result, Scene, fail, on_cluster};

/// In `make test`; `make drains` makes ten.
const DRAINS: usize = 3;

#[test]
fn drains_back_and_forth_at_10_messages_a_second_are_exact() -> Result {
    on_cluster("exact-10", async |lab| some_drains(lab, &Load::steady(10)).await)
}

#[test]
fn drains_back_and_forth_at_60_messages_a_second_are_exact() -> Result {
    on_cluster("exact-60", async |lab| some_drains(lab, &Load::steady(60)).await)
}

#[test]
fn drains_back_and_forth_at_120_messages_a_second_are_exact() -> Result {
    on_cluster("exact-120", async |lab| some_drains(lab, &Load::steady(120)).await)
}

#[test]
fn a_quorum_queue_keeps_its_order_over_drains() -> Result {
    let load = Load { queue_type: QueueType::Quorum, ..Load::steady(60) };
    on_cluster("exact-quorum", async |lab| drains(lab, &load, 3).await)
}

async fn some_drains(lab: &Lab, load: &Load) -> Result {
    let times = std::env::var("DRAINS").map_or(Ok(DRAINS), |times| times.parse())?;
    drains(lab, load, times).await
}

async fn drains(lab: &Lab, load: &Load, times: usize) -> Result {
    let app = App::consumer("consumer");
    let scene = Scene::open(lab, app.clone(), load, None).await?;
    let first = lab.only_pod(&app).await?;
    let set = lab.workload(&app).await?;
    let queues = lab.broker.queues().await?;
    for round in 1..=times {
        let before = lab.only_pod(&app).await?;
        let figures = scene.drain(load, &DrainOptions::of(&app.name)).await?;
        figures.must_be_exact()?;
        let after = lab.only_pod(&app).await?;
        assert_eq!(after.name, first.name, "round {round}");
        assert_ne!(after.uid, before.uid, "round {round}: it is a new pod object");
        assert_ne!(after.node, before.node, "round {round}: it is on another node");
        assert_eq!(after.owner_uid, first.owner_uid, "round {round}: the same owner");
        assert_eq!(after.revision, first.revision, "round {round}: the same revision");
        assert_eq!(after.restarts, 0, "round {round}");
        println!(
            "round {round}: {} -> {}, total {} ms, pause {} ms, read gap {} ms, {} applied",
            before.node,
            after.node,
            figures.total_ms,
            figures.pause_ms,
            figures.read_gap_ms,
            figures.verdict.applied
        );
    }
    let set_after = lab.workload(&app).await?;
    unchanged(&set, &set_after)?;
    assert_eq!(lab.broker.queues().await?, queues, "no queue stays behind, none is gone");
    Ok(())
}

/// `generation` counts every change of the spec, one that was taken back too.
fn unchanged(before: &Value, after: &Value) -> Result {
    for at in ["/metadata/generation", "/spec"] {
        if before.pointer(at) != after.pointer(at) {
            return fail(format!("{at} of the StatefulSet changed: {before:#} to {after:#}"));
        }
    }
    Ok(())
}
