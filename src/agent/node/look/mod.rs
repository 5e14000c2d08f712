//! What is in a container, without touching it: the order `POST /v1/look`, and the same look once everybody stands still,
//! before CRIU is called.
//!
//! Guarantees: read only, no process is stopped, traced or entered (`/proc`, the bundle, the sandbox's folders; threads
//! of our own visit its IPC and network namespaces); bounded in time and in what it tells. A look that fails is no objection: CRIU has
//! the last word.

mod descriptors;
mod gather;
mod ipc;
mod kept;
pub mod mounts;
mod namespace;
mod proc;
mod process;
mod sizes;
mod sockets;
mod strangers;
mod unix;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::Semaphore;

use self::gather::{Depth, Scene, gather};
use self::mounts::Config;
use self::proc::Proc;
use super::containers::Container;
use crate::agent::context::Node;
use crate::agent::dump::carry::{Located, may_be_carried};
use crate::agent::failure::Failure;
use crate::api::{ContainerRef, Findings, MountKind, PodContainers, Refusal};
use crate::judgement::{Circumstances, judge_pod};

/// For a look at a pod that runs on.
const LIMIT: Duration = Duration::from_secs(2);
/// While everybody stands still.
const LIMIT_FROZEN: Duration = Duration::from_millis(500);
/// A call of the kernel that does not come back is not waited for any longer than that.
const GRACE: Duration = Duration::from_secs(1);
/// At a time.
static LOOKS: Semaphore = Semaphore::const_new(4);

/// What is in the container.
pub async fn look(node: &Arc<Node>, wanted: &ContainerRef) -> Result<Findings, Failure> {
    let located = node.locate(wanted).await?;
    look_at(node, &located.container, wanted, Depth::Full, LIMIT).await
}

/// Does something stand against a dump of these containers of a pod, which stand still?
pub async fn before_dump(node: &Arc<Node>, of: &PodContainers, located: &[Located]) -> Result<(), Failure> {
    let looks = located.iter().map(async |Located { name, container, .. }| {
        let wanted = ContainerRef { pod: of.pod.clone(), container: name.clone() };
        let looked = look_at(node, container, &wanted, Depth::Obstacles, LIMIT_FROZEN).await;
        let looked = looked.inspect_err(|error| {
            tracing::warn!(%error, container = container.id, "not looked at before its dump");
        });
        (name.clone(), looked.unwrap_or_default())
    });
    let found = join_all(looks).await;
    match judge_pod(&found, !of.fresh.is_empty(), &Circumstances::default()).refusals.into_iter().next() {
        Some(objection) => Err(Failure::objecting(objection)),
        None => Ok(()),
    }
}

async fn look_at(
    node: &Arc<Node>,
    container: &Container,
    wanted: &ContainerRef,
    depth: Depth,
    limit: Duration,
) -> Result<Findings, Failure> {
    let deadline = Instant::now() + limit;
    let late =
        || Failure::new(Refusal::TimedOut, format!("a look at container {} took too long", container.id));
    let slot = tokio::time::timeout(limit, LOOKS.acquire()).await.map_err(|_| late())?;
    let (node, container, pod) = (Arc::clone(node), container.clone(), wanted.pod.uid.to_string());
    let looking = tokio::task::spawn_blocking(move || -> Result<Findings, Failure> {
        let _slot = slot; // one that does not come back keeps its place
        let scene = scene(&node, &container, pod)?;
        Ok(gather(&Proc::real(), &scene, depth, deadline))
    });
    let looked = tokio::time::timeout(limit + GRACE, looking).await;
    let looked = looked.map_err(|_| late())?;
    looked.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))?
}

fn scene(node: &Node, container: &Container, pod: String) -> Result<Scene, Failure> {
    let path = node.host.path(&container.bundle).join("config.json");
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Refusal::RuntimeFailed, format!("{error}: {}", path.display()))
    };
    let text = fs::read_to_string(&path).map_err(|error| failed(&error))?;
    let config: Config = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    let is_image_volume = |mount: &&mounts::Mount| mounts::kind(mount, &pod) == Some(MountKind::ImageVolume);
    may_be_carried(config.mounts.iter().filter(is_image_volume).count())?;
    let (host, freezer) = (node.host.clone(), container.freezer.clone());
    freezer.members()?; // what cannot be read now is no empty container
    Ok(Scene {
        init: container.pid,
        members: Box::new(move || freezer.members().unwrap_or_default()),
        pod,
        config,
        upper: node.containers.upper_dir(container)?,
        reach: Box::new(move |path| host.path(path)),
    })
}
