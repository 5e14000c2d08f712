//! A program that writes down numbers, one after the other, into a file of a claim: in its memory is which is the next. Where
//! several nodes can mount the volume two of them write, each into a file of its own.

use std::time::Duration;

use serde_json::json;
use shadow::api::Reason;

use super::image::{PROGRAMS, ensure};
use crate::lab::{
    App, DrainOptions, Lab, Result, Snapshot, Volume, eventually, fail, mounts, on_cluster, status_of,
};

const AT: &str = "/claimed";
const DRAINS: usize = 2;
const MOVED: Duration = Duration::from_secs(90);
/// Numbers that are written while nothing moves.
const SOME: usize = 20;

fn writer(name: &str) -> App {
    let script = format!(
        "exec 3>>{AT}/$(hostname); while :; do i=$((i + 1)); echo $i >&3; echo $i > {AT}/last-$(hostname); sleep 0.05; done"
    );
    let probe = json!({ "httpGet": null, "exec": { "command": ["test", "-d", AT] } });
    App::counter(name)
        .pod(json!({ "containers": [{ "image": PROGRAMS, "command": ["/bin/sh", "-c", script],
            "readinessProbe": probe }] }))
        .pod(mounts(name, AT))
}

#[test]
fn a_disk_that_one_node_can_mount_comes_with_its_pod() -> Result {
    on_cluster("disk", async |lab| {
        ensure(&lab.cluster).await?;
        lab.claim("disk", Volume::Disk, None).await?;
        let app = writer("disk");
        let mut pod = lab.deploy(&app).await?.remove(0);
        for round in 1..=DRAINS {
            goes_on(lab, &pod).await?;
            pod = drained(lab, &app, &pod).await?;
            println!("| disk | {round} | {} |", pod.node);
        }
        goes_on(lab, &pod).await?;
        is_whole(lab, &pod).await
    })
}

#[test]
fn a_folder_that_all_nodes_can_mount_has_two_writers_all_the_time() -> Result {
    on_cluster("folder", async |lab| {
        ensure(&lab.cluster).await?;
        lab.claim("folder", Volume::Folder, None).await?;
        let app = writer("folder").replicas(2);
        let pods = lab.deploy(&app).await?;
        for pod in &pods {
            goes_on(lab, pod).await?;
        }
        for name in pods.iter().map(|pod| pod.name.as_str()) {
            let now = lab.pod(name).await?;
            let moved = drained_named(lab, &app, &now).await?;
            goes_on(lab, &moved).await?;
        }
        for pod in lab.pods(&app).await? {
            is_whole(lab, &pod).await?;
        }
        Ok(())
    })
}

/// Nobody is stopped for a volume that cannot come along.
#[test]
fn a_disk_that_only_one_node_can_reach_keeps_its_pod_there() -> Result {
    on_cluster("disk-zone", async |lab| {
        ensure(&lab.cluster).await?;
        let node = lab.cluster.nodes.first().ok_or("no node")?.clone();
        lab.claim("disk-zone", Volume::Disk, Some(&node)).await?;
        let app = writer("disk-zone").annotated("policy", "MigrateOrBlock").annotated("deadline", "15s");
        let pod = lab.deploy(&app).await?.remove(0);
        assert_eq!(pod.node, node);
        let watch = lab.watch();
        let options = DrainOptions::of(&app.name).timeout(Duration::from_secs(10));
        let drained = lab.drain(&pod.node, &options).await?;
        assert_ne!(drained.code, 0, "{}", drained.text());
        let status = status_of(&watch.ended(&pod.uid, MOVED).await?);
        assert_eq!(status.reason.as_deref(), Some(Reason::NoNodeFits.as_str()), "{status:#?}");
        assert!(!status.phase_timings.contains_key("Dumping"), "nobody was stopped: {status:#?}");
        assert_eq!(lab.only_pod(&app).await?, pod, "it was not touched");
        goes_on(lab, &pod).await?;
        is_whole(lab, &pod).await
    })
}

/// The only pod of the app is elsewhere, the same as it was.
async fn drained(lab: &Lab, app: &App, before: &Snapshot) -> Result<Snapshot> {
    let after = drained_named(lab, app, before).await?;
    assert_ne!(after.node, before.node);
    Ok(after)
}

async fn drained_named(lab: &Lab, app: &App, before: &Snapshot) -> Result<Snapshot> {
    let watch = lab.watch();
    let drained = lab.drain(&before.node, &DrainOptions::of(&app.name)).await?;
    lab.uncordon(&before.node).await?;
    assert_eq!(drained.code, 0, "{}", drained.text());
    let status = status_of(&watch.ended(&before.uid, MOVED).await?);
    if status.phase.as_str() != "Completed" {
        return fail(format!("{}: {status:#?}", before.name));
    }
    println!("{}: pause {:?} ms, {:?}", before.name, status.pause_ms, status.phase_timings);
    lab.ready(app, MOVED).await?;
    let after = lab.pod(&before.name).await?;
    assert_ne!(after.uid, before.uid);
    assert_eq!(after.restarts, 0);
    Ok(after)
}

async fn in_pod(lab: &Lab, pod: &Snapshot, argv: &[&str]) -> Result<String> {
    let head = ["-n", &lab.namespace, "exec", &pod.name, "--"];
    lab.cluster.kubectl(&[&head[..], argv].concat()).await
}

async fn written(lab: &Lab, pod: &Snapshot) -> Result<Vec<usize>> {
    let text = in_pod(lab, pod, &["cat", &format!("{AT}/{}", pod.name)]).await?;
    text.lines().map(|line| Ok(line.parse()?)).collect()
}

/// It writes more numbers.
async fn goes_on(lab: &Lab, pod: &Snapshot) -> Result {
    let before = written(lab, pod).await?.len();
    eventually(&format!("{} writes on", pod.name), MOVED, async || {
        Ok((written(lab, pod).await?.len() >= before + SOME).then_some(()))
    })
    .await
}

/// None is missing and none is there twice.
async fn is_whole(lab: &Lab, pod: &Snapshot) -> Result {
    let found = written(lab, pod).await?;
    let wanted: Vec<usize> = (1..=found.len()).collect();
    if found == wanted { Ok(()) } else { fail(format!("{}: {found:?}", pod.name)) }
}
