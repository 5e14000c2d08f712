//! Pods with claims. Databases on disks that one node at a time can mount, under a client that writes all the time; and programs
//! that write down numbers, one after the other: in their memory is which is the next. Where several nodes can mount the volume
//! two of them write, each into a file of its own.

use std::time::Duration;

use serde_json::json;
use shadow::api::Reason;

use super::image::{PROGRAMS, ensure};
use super::tour::on_tour;
use super::variants::{self, Variant};
use super::{postgres, redis};
use crate::lab::{
    App, DrainOptions, Lab, Result, Snapshot, Volume, capture, eventually, fail, mounts, on_cluster,
    status_of,
};

const AT: &str = "/claimed";
const MOVED: Duration = Duration::from_secs(90);
/// In the moment in which all of a dump is written.
const ENDED_ONCE_DUMPED: &str = "end=$(($(date +%s) + 60)); until it=$(ls /var/lib/shadow/dumps/*/written 2>/dev/null); do \
     [ $(date +%s) -lt $end ] || exit 9; sleep 0.005; done; \
     exec runc --root /run/containerd/runc/k8s.io kill $(grep -oE '[0-9a-f]{64}' $it) KILL";
/// So many that whoever runs for a millisecond writes one.
const BUSY: &str = "while :; do n=$((n + 1)); [ $((n % 200)) = 0 ] && i=$((i + 1)) && echo $i >>/claimed/$(hostname); done; ";
/// Until somebody has joined in the tenth of a second that there is.
const MOVES: usize = 4;
const CONTAINER_ID: &str = "jsonpath={.status.containerStatuses[0].containerID}";
const JOINS_FROZEN: &str = include_str!("joins_frozen.py");
/// Numbers that are written while nothing moves.
const SOME: usize = 20;

#[test]
fn databases_on_disks_that_one_node_can_mount() -> Result {
    let postgres = Variant::Root;
    let variants = [postgres, Variant::Hardened { read_only: true }];
    on_tour("on-disk", &variants, async |tour, variant| {
        let claim = variants::name("on-disk", variant);
        tour.lab.claim(&claim, Volume::Disk, None).await?;
        if variant == postgres {
            let app = postgres::server("on-disk", variant).env("PGDATA", "/claimed/data");
            postgres::loses_nothing(tour, variant, app.pod(mounts(&claim, AT))).await
        } else {
            let command =
                "redis-server /programs/redis.conf --dir /claimed --appendonly yes --appendfsync always";
            let app = variants::app("on-disk", command, variant);
            redis::keeps_all(tour, variant, &app.pod(mounts(&claim, AT)), true).await
        }
    })
}

/// Of a disk that comes along, with a lock on a file of it; of a folder with two writers; of a disk that only its node can
/// have.
#[test]
fn a_volume_comes_with_its_pod_or_the_pod_stays_where_it_is() -> Result {
    on_cluster("claims", async |lab| {
        ensure(&lab.cluster).await?;
        let node = lab.cluster.nodes.first().ok_or("no node")?.clone();
        lab.claim("disk", Volume::Disk, None).await?;
        lab.claim("folder", Volume::Folder, None).await?;
        lab.claim("bound", Volume::Disk, Some(&node)).await?;
        let locked = format!("exec 9>{AT}/lock; flock -n 9 || exit 1; ");
        let disk = writer("disk", &locked);
        let folder = writer("folder", "").replicas(2);
        let bound = writer("bound", "").annotated("policy", "MigrateOrBlock");
        tokio::try_join!(lab.deploy(&disk), lab.deploy(&folder), lab.deploy(&bound))?;
        stays(lab, &bound, &node).await?;
        back_and_forth(lab, &disk, async { Ok(()) }).await?;
        lab.cluster.volume("disk", "stick").await?;
        back_and_forth(lab, &disk, comes_loose(lab)).await?;
        for name in ["folder-0", "folder-1"] {
            let before = lab.pod(name).await?; // the other's drain may have moved it
            drained(lab, &folder, &before).await?;
        }
        for app in [&disk, &folder, &bound] {
            for pod in lab.pods(app).await? {
                is_whole(lab, &pod).await?;
            }
        }
        Ok(())
    })
}

/// Its container is ended on its node once it is dumped, and its kubelet starts it anew on the same disk, before the move is
/// committed: its memory is not restored over what the new one writes.
#[test]
fn what_was_started_anew_on_its_volume_since_the_dump_is_dumped_once_more() -> Result {
    on_cluster("claims-anew", async |lab| {
        ensure(&lab.cluster).await?;
        lab.claim("anew", Volume::Disk, None).await?;
        // So that it is on its way for a while.
        let app = writer("anew", &format!(": >>{AT}/$(hostname); head -c 300000000 /dev/urandom >/fill; "));
        lab.deploy(&app).await?;
        let before = lab.only_pod(&app).await?;
        let watch = lab.watch();
        let script = ["sh", "-c", ENDED_ONCE_DUMPED];
        let (ended, after) =
            tokio::try_join!(lab.cluster.exec(&before.node, &script), drained(lab, &app, &before))?;
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        assert_ne!(after.node, before.node);
        let sightings = watch.sightings();
        let told = sightings.iter().any(|one| one.reason == Reason::VolumeChanged.as_str());
        assert!(told, "{sightings:#?}");
        let found = written(lab, &after).await?;
        let runs: Vec<&[usize]> = found.chunk_by(|one, next| *next == one + 1).collect();
        let begin_at_one = runs.iter().all(|run| run.first() == Some(&1));
        if runs.len() == 2 && begin_at_one { Ok(()) } else { fail(format!("{found:?}")) }
    })
}

/// An `exec` that was under way when its pod was frozen keeps a cgroup v1 from being FROZEN. What was dumped is not let go for
/// another try: it would go on where it was restored, and what it writes meanwhile would be there twice.
#[test]
fn what_was_dumped_stands_still_whoever_joins_it() -> Result {
    on_cluster("claims-joined", async |lab| {
        ensure(&lab.cluster).await?;
        lab.claim("joined", Volume::Folder, None).await?;
        let app = writer("joined", BUSY);
        lab.deploy(&app).await?;
        for _ in 0..MOVES {
            let before = lab.only_pod(&app).await?;
            let argv = ["-n", &lab.namespace, "get", "pod", &before.name, "-o", CONTAINER_ID];
            let id = lab.cluster.kubectl(&argv).await?.replace("containerd://", "");
            let argv = ["python3", "-c", JOINS_FROZEN, &id];
            let (joined, after) = tokio::try_join!(capture(&argv, None, MOVED), drained(lab, &app, &before))?;
            is_whole(lab, &after).await?;
            if joined.stdout.trim() == "FREEZING" {
                return Ok(());
            }
            println!("it did not join in time: {}{}", joined.stdout, joined.stderr);
        }
        fail("it never joined in time".to_owned())
    })
}

/// Moved while something happens to its disk.
async fn back_and_forth(lab: &Lab, disk: &App, meanwhile: impl Future<Output = Result>) -> Result {
    let before = lab.only_pod(disk).await?;
    let (after, ()) = tokio::try_join!(drained(lab, disk, &before), meanwhile)?;
    assert_ne!(after.node, before.node);
    assert!(is_locked(lab, &after).await?, "its lock is held again");
    Ok(())
}

/// The disk is not detached when that is asked for, but later.
async fn comes_loose(lab: &Lab) -> Result {
    eventually("the disk is to be detached", MOVED, async || {
        let argv = ["get", "volumeattachments", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}"];
        Ok((!lab.cluster.kubectl(&argv).await?.trim().is_empty()).then_some(()))
    })
    .await?;
    lab.cluster.volume("disk", "free").await
}

fn writer(name: &str, first: &str) -> App {
    let script =
        format!("{first}exec 3>>{AT}/$(hostname); while :; do i=$((i + 1)); echo $i >&3; sleep 0.05; done");
    let probe = json!({ "httpGet": null, "exec": { "command": ["test", "-d", AT] } });
    App::counter(name)
        .pod(json!({ "containers": [{ "image": PROGRAMS, "command": ["/bin/sh", "-c", script],
            "readinessProbe": probe }] }))
        .pod(mounts(name, AT))
}

/// Nobody is stopped for a volume that cannot come along.
async fn stays(lab: &Lab, app: &App, node: &str) -> Result {
    let pod = lab.only_pod(app).await?;
    assert_eq!(pod.node, *node);
    goes_on(lab, &pod).await?;
    let watch = lab.watch();
    let options = DrainOptions::of(&app.name).timeout(Duration::from_secs(5));
    let drained = lab.drain(&pod.node, &options).await?;
    lab.uncordon(&pod.node).await?;
    assert_ne!(drained.code, 0, "{}", drained.text());
    let status = status_of(&watch.ended(&pod.uid, MOVED).await?);
    assert_eq!(status.reason.as_deref(), Some(Reason::VolumeNotSharable.as_str()), "{status:#?}");
    assert!(status.phase_timings.is_empty(), "nothing was begun: {status:#?}");
    assert_eq!(lab.only_pod(app).await?, pod, "it was not touched");
    goes_on(lab, &pod).await
}

/// The pod is elsewhere, the same as it was, and goes on.
async fn drained(lab: &Lab, app: &App, before: &Snapshot) -> Result<Snapshot> {
    goes_on(lab, before).await?;
    let watch = lab.watch();
    let drained = lab.drain(&before.node, &DrainOptions::of(&app.name)).await?;
    lab.uncordon(&before.node).await?;
    assert_eq!(drained.code, 0, "{}", drained.text());
    let status = status_of(&watch.ended(&before.uid, MOVED).await?);
    if status.phase.as_str() != "Completed" {
        return fail(format!("{}: {status:#?}", before.name));
    }
    let parts = status.phase_timings.iter().filter(|(name, _)| name.starts_with("Replacing"));
    let parts: Vec<_> = parts.collect();
    println!("| {} | {} | {parts:?} |", before.name, status.pause_ms.unwrap_or_default());
    lab.ready(app, MOVED).await?;
    let after = lab.pod(&before.name).await?;
    assert_eq!(after.restarts, 0);
    goes_on(lab, &after).await?;
    Ok(after)
}

async fn in_pod(lab: &Lab, pod: &Snapshot, argv: &[&str]) -> Result<String> {
    let head = ["-n", &lab.namespace, "exec", &pod.name, "--"];
    lab.cluster.kubectl(&[&head[..], argv].concat()).await
}

/// Nobody else gets it.
async fn is_locked(lab: &Lab, pod: &Snapshot) -> Result<bool> {
    let script = format!("flock -n {AT}/lock true && echo free || echo held");
    Ok(in_pod(lab, pod, &["/bin/sh", "-c", &script]).await?.trim() == "held")
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
