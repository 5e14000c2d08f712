//! Dump orders: stop a pod's containers, dump them by runc and CRIU, let them go on or not, stream the archive.
//!
//! Guarantees: one job for each migration and epoch, however often it is ordered, and its report outlives the agent;
//! after a failure at any point the containers run again, all of them, and nothing is left of the dump; CRIU itself is never cut
//! short by an order's time limit (a process whose dump is broken off may not survive it): the order fails in time, the
//! job winds up behind it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::carry::{Load, Located};
use super::jobs::Outcome;
use super::standstill::{THAW, all_stand_still, freeze_all, none_is_left_out, thaw, was_not_let_go};
use super::synced::synced;
use super::written::{JOB, Job, WRITTEN, Written};
use crate::agent::context::Node;
use crate::agent::failure::Failure;
use crate::agent::metrics;
use crate::agent::node::containers::{Container, Containers};
use crate::agent::node::cri;
use crate::agent::node::look::before_dump;
use crate::agent::store::{self, Durability, Store};
use crate::agent::transfer::archive::{IMAGES, Origin};
use crate::agent::transfer::peer::Peer;
use crate::agent::transfer::receive::room_for;
use crate::api::{
    ArchiveSize, DumpOrder, DumpReport, Hold, MigrationUid, Objection, PodContainers, Refusal, sentence,
};
use crate::judgement::{cause, objection};
use crate::runtime::CRIU_CONFIG_VARIABLE;

/// For another that counts the same files.
const SIZE_WAIT: Duration = Duration::from_secs(2);
/// Beside memory and files.
const IMAGES_OVERHEAD: u64 = 16 << 20;
/// How long CRIU may go on after the order's time limit before it is killed.
const WIND_UP: Duration = Duration::from_secs(30);
/// CRIU's log and statistics of a dump.
const WORK: &str = "work";
/// In a dump's folder: how it ended.
const REPORT: &str = "report.json";

/// Does what is ordered, or joins whoever does, and answers within the order's time limit.
pub async fn dump(node: &Arc<Node>, uid: &MigrationUid, order: DumpOrder) -> Outcome {
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(order.timeout_ms);
    node.tickets.pass(uid, |fence| fence.admit_forward(order.epoch))?;
    let mut job = {
        let mut jobs = node.jobs.jobs.lock();
        match jobs.get(&(uid.clone(), order.epoch)) {
            Some(job) => job.clone(),
            None => {
                if let Some(report) = store::read_intact(&node.store.dump(uid, order.epoch).join(REPORT))? {
                    return Ok(report);
                }
                let (sender, receiver) = watch::channel(None);
                jobs.insert((uid.clone(), order.epoch), receiver.clone());
                let (node, uid) = (Arc::clone(node), uid.clone());
                tokio::spawn(async move {
                    let outcome = run(&node, &uid, &order, begun, deadline).await;
                    log(&uid, &order, &outcome);
                    sender.send_replace(Some(outcome));
                });
                receiver
            }
        }
    };
    let ended = timeout_at(deadline, job.wait_for(Option::is_some)).await;
    match ended {
        Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(broken_off())),
        Ok(Err(_)) => Err(broken_off()),
        Err(_) => Err(Failure::new(Refusal::TimedOut, "the dump has not ended in time; it winds up")),
    }
}

fn broken_off() -> Failure {
    Failure::new(Refusal::RuntimeFailed, "the dump broke off")
}

fn log(uid: &MigrationUid, order: &DumpOrder, outcome: &Outcome) {
    let (epoch, pod) = (order.epoch, &order.containers.pod.uid);
    match outcome {
        Ok(report) => {
            metrics::dump_ended("done");
            tracing::info!(
                migration = %uid, %epoch, %pod, target = %order.target.node, bytes = report.bytes,
                frozen_ms = report.frozen_ms, total_ms = report.total_ms, "dumped"
            );
        }
        Err(failure) => {
            metrics::dump_ended(&format!("{:?}", failure.refusal));
            tracing::warn!(migration = %uid, %epoch, %pod, target = %order.target.node, error = %failure, "not dumped");
        }
    }
}

/// How large an archive of the pod would be now. Its files are counted by one at a time, also where whoever asked has given up.
pub async fn size(node: &Arc<Node>, containers: &PodContainers) -> Result<ArchiveSize, Failure> {
    let lock = node.locks.lock(&containers.pod.uid, Instant::now() + SIZE_WAIT).await?;
    let located = node.locate_all(containers).await?;
    let counted = tokio::spawn({
        let node = Arc::clone(node);
        async move {
            let found = what_is_carried(&node, &located).await;
            drop(lock);
            found.map(|(_, bytes)| bytes)
        }
    });
    let bytes = counted.await.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))??;
    Ok(ArchiveSize { bytes })
}

/// What moves beside the processes, and how large an archive will be. Page cache is not dumped.
async fn what_is_carried(node: &Arc<Node>, located: &[Located]) -> Result<(Arc<Load>, u64), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(Refusal::RuntimeFailed, format!("size of {what}: {error}"))
    };
    let (host, of) = (node.host.clone(), located.to_vec());
    let counted = tokio::task::spawn_blocking(move || Load::of(&host, &of)).await;
    let load = counted.map_err(|error| failed("the files", &error))??;
    let mut bytes = load.bytes();
    for Located { container, .. } in located {
        let what = format!("the memory of container {}", container.id);
        let memory = container.memory.bytes().map_err(|error| failed(&what, &error))?;
        bytes = bytes.saturating_add(memory).saturating_add(IMAGES_OVERHEAD);
    }
    Ok((Arc::new(load), bytes))
}

/// What each of them was made from, for the node that restores to compare: of several containers the operator sees the first
/// that waits only.
async fn with_images(node: &Node, order: &DumpOrder, mut located: Vec<Located>) -> Vec<Located> {
    if order.containers.beside.is_empty() && order.containers.fresh.is_empty() {
        return located;
    }
    for (one, of) in located.iter_mut().zip(order.containers.carried()) {
        let image = cri::image(&node.host, &node.engine, &of).await;
        let image = image.inspect_err(|error| tracing::warn!(%error, "image not noted, so not compared"));
        one.image = image.ok().flatten();
    }
    located
}

async fn run(
    node: &Arc<Node>,
    uid: &MigrationUid,
    order: &DumpOrder,
    begun: Instant,
    deadline: Instant,
) -> Outcome {
    let peer = Peer::new(&node.tls, &order.target, node.peer_port)?;
    let located = with_images(node, order, node.locate_all(&order.containers).await?).await;
    let (load, expected) = what_is_carried(node, &located).await?;
    room_for(&node.store, expected)?;
    let located_ms = millis(begun.elapsed());
    peer.reserve(uid, order.epoch, expected, deadline).await?;
    tracing::debug!(migration = %uid, located_ms, reserved_ms = millis(begun.elapsed()), expected, "room is there");
    // Most of it while all runs; what comes meanwhile once all stands still.
    synced(&node.host, &located, deadline).await?;
    let dir = node.store.dump(uid, order.epoch);
    let outcome = dump_and_send(node, uid, order, &located, &load, &dir, &peer, begun, deadline).await;
    if outcome.is_err()
        && let Err(error) = store::remove(&dir)
    {
        tracing::warn!(%error, "a failed dump is left");
    }
    outcome
}

#[expect(clippy::too_many_arguments, reason = "one dump's whole context, used once")]
async fn dump_and_send(
    node: &Arc<Node>,
    uid: &MigrationUid,
    order: &DumpOrder,
    located: &[Located],
    load: &Arc<Load>,
    dir: &Path,
    peer: &Peer,
    begun: Instant,
    deadline: Instant,
) -> Outcome {
    let lock = node.locks.lock(&order.containers.pod.uid, deadline).await?;
    // A thaw that came meanwhile has called this attempt off: it must not be frozen after that.
    node.tickets.pass(uid, |fence| fence.admit_forward(order.epoch))?;
    store::remove(dir)?;
    for number in 0..located.len() {
        for part in [IMAGES, WORK].map(|part| dir.join(load.folder(number)).join(part)) {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&part);
            made.map_err(|source| store::StoreError { path: part, source })?;
        }
    }
    // From here on containers may stand still: a restarted agent must know.
    store::write(&dir.join(JOB), &Job { containers: order.containers.clone() }, Durability::Process)?;
    let frozen_at = Instant::now();
    let images = stop_and_dump(node, &order.containers, located, load, dir, deadline).await;
    let dumped_in = frozen_at.elapsed();
    let images = images.and_then(|frozen| {
        let written = Written { frozen, held: order.hold == Hold::Frozen };
        if written.held {
            located
                .iter()
                .try_for_each(|one| was_not_let_go(&order.containers, &one.name, &one.container))?;
        }
        store::write(&dir.join(WRITTEN), &written, Durability::Process).map_err(Failure::from)
    });
    let mut stands_still = order.hold == Hold::Frozen && images.is_ok();
    let thawed = if stands_still { Ok(()) } else { thaw(&node.containers, &order.containers).await };
    let frozen_for = frozen_at.elapsed();
    drop(lock);
    let sent = match images.and(thawed) {
        Ok(()) => {
            let origin = Origin::of(uid, order.epoch, order.containers.clone());
            let streaming = Instant::now();
            let sent = peer.send(dir, &origin, deadline).await;
            sent.inspect(|manifest| {
                metrics::streamed(streaming.elapsed(), manifest.bytes);
                let stream_ms = millis(streaming.elapsed());
                tracing::debug!(migration = %uid, dump_ms = millis(dumped_in), stream_ms, "streamed");
            })
        }
        Err(failure) => Err(failure),
    };
    let report = sent.and_then(|manifest| {
        let report = DumpReport {
            digest: manifest.digest,
            bytes: manifest.bytes,
            frozen_ms: millis(frozen_for),
            total_ms: millis(begun.elapsed()),
            empty_dirs: load.empty_dirs().to_vec(),
            beside: order.containers.beside.clone(),
        };
        store::write(&dir.join(REPORT), &report, Durability::Process)?;
        Ok(report)
    });
    // Whoever has called it off since thaws by himself, and a later attempt may have frozen it again.
    let is_ours = || node.tickets.pass(uid, |fence| fence.admit_kill(order.epoch)).is_ok();
    if report.is_err() && std::mem::take(&mut stands_still) {
        let _lock = node.locks.lock(&order.containers.pod.uid, Instant::now() + THAW).await;
        if is_ours()
            && let Err(error) = thaw(&node.containers, &order.containers).await
        {
            tracing::error!(%error, pod = %order.containers.pod.uid, "a pod stands still after a failed dump");
        }
    }
    if report.is_ok() {
        metrics::dumped(frozen_for, dumped_in);
    }
    report
}

/// Freezes the containers, and gives their IDs; then, at the same time, CRIU dumps their processes and we copy their files.
async fn stop_and_dump(
    node: &Arc<Node>,
    wanted: &PodContainers,
    located: &[Located],
    load: &Arc<Load>,
    dir: &Path,
    deadline: Instant,
) -> Result<Vec<String>, Failure> {
    // Frozen by us first: CRIU would wait for a cgroup v1 freezer in steps of 100 ms. Each its own cgroup: CRIU lets a
    // process of a container run for its own work, which it could not below a pod's that is frozen.
    let begun = Instant::now();
    let frozen = freeze_all(node, wanted, deadline).await?;
    let freeze_ms = millis(begun.elapsed());
    tokio::try_join!(before_dump(node, wanted, located), none_is_left_out(node, wanted))?;
    load.clear(located)?;
    let patience = deadline.saturating_duration_since(Instant::now()) + WIND_UP;
    let files = load.write(dir);
    let dumps = located
        .iter()
        .enumerate()
        .map(|(number, one)| dump_container(node, &one.container, dir.join(load.folder(number)), patience));
    let (dumped, files, synced) =
        tokio::join!(join_all(dumps), files.written(), synced(&node.host, located, deadline));
    for (one, dumped) in located.iter().zip(dumped) {
        dumped.map_err(|failure| named(failure, located, &one.name))?;
    }
    synced?;
    let files = files?;
    let (files_ms, dumped) = (millis(files.took), Instant::now());
    let pids = located.iter().map(|one| one.container.freezer.pids()).collect::<Result<_, _>>()?;
    files.finish(pids).await?;
    all_stand_still(node, wanted, &frozen).await?;
    let (finish_ms, all_ms) = (millis(dumped.elapsed()), millis(begun.elapsed()));
    tracing::debug!(freeze_ms, files_ms, finish_ms, all_ms, "dump written");
    if Instant::now() >= deadline {
        return Err(Failure::new(Refusal::TimedOut, "CRIU took longer than the order allows"));
    }
    Ok(frozen)
}

/// By CRIU, into that folder.
async fn dump_container(
    node: &Arc<Node>,
    container: &Container,
    folder: PathBuf,
    patience: Duration,
) -> Result<(), Failure> {
    let (images, work) = (folder.join(IMAGES), folder.join(WORK));
    let args: [&OsStr; 11] = [
        "--root".as_ref(),
        container.runc_root.as_ref(),
        "checkpoint".as_ref(),
        "--leave-running".as_ref(),
        "--manage-cgroups-mode".as_ref(),
        "ignore".as_ref(),
        "--image-path".as_ref(),
        images.as_ref(),
        "--work-path".as_ref(),
        work.as_ref(),
        container.id.as_ref(),
    ];
    let settings = node.store.criu_config();
    let environment = [(CRIU_CONFIG_VARIABLE, settings.as_os_str())];
    let dumped = node.host.run("runc", &args, &environment, patience).await;
    dumped.map_err(|error| {
        let log = fs::read(work.join("dump.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let plain = || Failure::new(Refusal::RuntimeFailed, format!("CRIU: {}; {error}", cause(&log)));
        objection(&log).map_or_else(plain, Failure::objecting)
    })?;
    Ok(())
}

/// Of a pod with several containers a failure says which.
fn named(failure: Failure, located: &[Located], name: &str) -> Failure {
    if located.len() == 1 {
        return failure;
    }
    let said = |message: &str| format!("container `{name}`: {message}");
    let objection = failure.objection.map(|objection| {
        let message = sentence(&said(&objection.message));
        Box::new(Objection { message, ..*objection })
    });
    Failure { message: said(&failure.message), objection, ..failure }
}

/// After a restart: containers that stood still for a dump nobody finishes go on.
pub async fn recover(store: &Store, containers: &Containers) -> Result<(), Failure> {
    for (uid, epoch) in store.dumps()? {
        let dir = store.dump(&uid, epoch);
        if dir.join(REPORT).exists() {
            continue;
        }
        if let Some(job) = store::read_intact::<Job>(&dir.join(JOB))? {
            thaw(containers, &job.containers).await?;
            let pod = &job.containers.pod.uid;
            tracing::warn!(migration = %uid, %epoch, %pod, "dump of an earlier agent given up");
        }
        store::remove(&dir)?;
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
