//! All of a pod stands still while it is dumped, and goes on afterwards. Asks the runtime's records, writes to freezers.
//!
//! Guarantees: a container of the pod that is not among those that stand still is noticed before the dump counts; letting go on
//! reaches all of them, also where one does not.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::agent::context::{Node, find_all};
use crate::agent::failure::Failure;
use crate::agent::node::containers::Containers;
use crate::api::{Objection, PodContainers, Reason, Refusal};

/// For letting a pod go on after a failure.
pub const THAW: Duration = Duration::from_secs(10);

/// Freezes all containers of a pod, also those that were started meanwhile, as the kubelet starts what has crashed again. Gives
/// their IDs.
pub async fn freeze_all(
    node: &Node,
    wanted: &PodContainers,
    deadline: Instant,
) -> Result<Vec<String>, Failure> {
    let mut frozen: Vec<String> = Vec::new();
    loop {
        let running = node.find_all(wanted).await?;
        let new = |id: &String| !frozen.contains(id);
        if !running.iter().any(|(_, container)| new(&container.id)) {
            return Ok(frozen);
        }
        let freezes = running.iter().map(|(_, container)| container.freezer.freeze(deadline));
        join_all(freezes).await.into_iter().collect::<Result<(), _>>()?;
        frozen = running.into_iter().map(|(_, container)| container.id).collect();
        if wanted.beside.is_empty() && wanted.fresh.is_empty() {
            return Ok(frozen);
        }
    }
}

/// None that is started anew has come up while its pod's volumes were copied.
pub async fn all_stand_still(node: &Node, wanted: &PodContainers, frozen: &[String]) -> Result<(), Failure> {
    if wanted.fresh.is_empty() {
        return Ok(());
    }
    match node.find_all(wanted).await?.into_iter().find(|(_, container)| !frozen.contains(&container.id)) {
        None => Ok(()),
        Some((name, _)) => {
            let what = format!("container {name} was started while its pod was dumped");
            Err(Failure::new(Refusal::RuntimeFailed, what))
        }
    }
}

/// Another container of the pod does not stand still: a debug container that was started just now. It may change files of
/// the pod's volumes while they are copied.
pub async fn none_is_left_out(node: &Node, wanted: &PodContainers) -> Result<(), Failure> {
    let (containers, of) = (node.containers.clone(), wanted.clone());
    let others = tokio::task::spawn_blocking(move || containers.others(&of)).await;
    let others = others.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))??;
    match others.first() {
        None => Ok(()),
        Some(other) => Err(Failure::objecting(Objection {
            reason: Reason::SeveralContainers,
            message: format!(
                "container `{other}` of pod {} is running beside those that move: end its program",
                wanted.pod.name
            ),
            passes: true,
        })),
    }
}

/// Lets all of them go on, also where one does not.
pub async fn thaw(containers: &Containers, wanted: &PodContainers) -> Result<(), Failure> {
    let found = find_all(containers, wanted).await?;
    let thaws = found.iter().map(|(_, container)| container.freezer.thaw(Instant::now() + THAW));
    let thawed: Result<(), _> = join_all(thaws).await.into_iter().collect();
    Ok(thawed?)
}
