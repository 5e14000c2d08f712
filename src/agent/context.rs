//! What all orders of this agent share. Holds no state of its own but locks and running dumps.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::dump::carry::Located;
use super::dump::jobs::Jobs;
use super::failure::Failure;
use super::node::capacity::Meter;
use super::node::containers::{Container, Containers};
use super::node::engine::Engine;
use super::node::host::Host;
use super::restore::tickets::Tickets;
use super::store::Store;
use crate::api::{ContainerRef, Objection, PodContainers, PodUid, Reason, Refusal};
use crate::kit::tls::TlsStore;

/// The agent of one node.
pub struct Node {
    pub host: Host,
    pub engine: Engine,
    pub store: Store,
    pub containers: Containers,
    pub tickets: Arc<Tickets>,
    pub tls: TlsStore,
    /// Port of the agents on the other nodes.
    pub peer_port: u16,
    pub jobs: Jobs,
    pub locks: Locks,
    pub meter: Arc<Meter>,
}

impl Node {
    /// The container, if it runs.
    pub async fn find(&self, wanted: &ContainerRef) -> Result<Option<Container>, Failure> {
        find(&self.containers, wanted).await
    }

    /// Those of the pod's containers that run, by their names.
    pub async fn find_all(&self, wanted: &PodContainers) -> Result<Vec<(String, Container)>, Failure> {
        find_all(&self.containers, wanted).await
    }

    /// All containers that move with the pod.
    pub async fn locate_all(&self, wanted: &PodContainers) -> Result<Vec<Located>, Failure> {
        let mut located = Vec::new();
        for container in wanted.carried() {
            located.push(self.locate(&container).await?);
        }
        Ok(located)
    }

    /// The container and where its changed files lie; why it cannot be dumped, where that is already clear.
    pub async fn locate(&self, wanted: &ContainerRef) -> Result<Located, Failure> {
        let Some(container) = self.find(wanted).await? else {
            let elsewhere = self.containers.is_under_another_runtime(wanted)?;
            return Err(if elsewhere { another_runtime(wanted) } else { not_here(wanted) });
        };
        match self.containers.upper_dir(&container)? {
            Some(upper) => Ok(Located { name: wanted.container.clone(), container, upper, image: None }),
            None => Err(lasting(format!(
                "root file system of container {} is no overlay: its changed files cannot be told; let containerd use its overlayfs snapshotter",
                wanted.container
            ))),
        }
    }
}

fn lasting(message: String) -> Failure {
    Failure::objecting(Objection { reason: Reason::RuntimeNotSupported, message, passes: false })
}

fn another_runtime(wanted: &ContainerRef) -> Failure {
    lasting(format!(
        "container {} runs under another runtime than runc, its node's default: only runc's can be moved; let a RuntimeClass of runc run it",
        wanted.container
    ))
}

fn not_here(wanted: &ContainerRef) -> Failure {
    let (pod, container) = (&wanted.pod, &wanted.container);
    let what =
        format!("no container {container} of pod {}/{} ({}) runs here", pod.namespace, pod.name, pod.uid);
    Failure::new(Refusal::ContainerNotFound, what)
}

/// Those of the pod's containers that run, by their names.
pub async fn find_all(
    containers: &Containers,
    wanted: &PodContainers,
) -> Result<Vec<(String, Container)>, Failure> {
    let mut found = Vec::new();
    for wanted in wanted.all() {
        let name = wanted.container.clone();
        found.extend(find(containers, &wanted).await?.map(|container| (name, container)));
    }
    Ok(found)
}

/// The container, if it runs.
pub async fn find(containers: &Containers, wanted: &ContainerRef) -> Result<Option<Container>, Failure> {
    let (containers, wanted) = (containers.clone(), wanted.clone());
    let found = tokio::task::spawn_blocking(move || containers.find(&wanted)).await;
    Ok(found.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))??)
}

/// One order at a time for each pod.
#[derive(Default)]
pub struct Locks {
    pods: Mutex<HashMap<PodUid, Arc<tokio::sync::Mutex<()>>>>,
}

impl Locks {
    /// Waits for the pod's lock until the deadline.
    pub async fn lock(
        &self,
        pod: &PodUid,
        deadline: Instant,
    ) -> Result<tokio::sync::OwnedMutexGuard<()>, Failure> {
        let lock = {
            let mut pods = self.pods.lock();
            pods.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(pods.entry(pod.clone()).or_default())
        };
        timeout_at(deadline, lock.lock_owned()).await.map_err(|_| {
            Failure::new(Refusal::TimedOut, format!("another order on pod {pod} has not ended yet"))
        })
    }
}
