//! All of a pod stands still while it is dumped, and goes on afterwards. Asks the runtime's records, writes to freezers.
//!
//! Guarantees: a container of the pod that is not among those that stand still is noticed before the dump counts; letting go on
//! reaches all of them, also where one does not.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::agent::context::{Node, find_all};
use crate::agent::failure::Failure;
use crate::agent::node::containers::{Container, Containers};
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

/// Nobody has let it go since it was frozen. That is enough of one that was dumped: whatever joins its cgroup, its own processes
/// stand still. It is not frozen once more, for that may let it go for a moment.
pub fn was_not_let_go(wanted: &PodContainers, name: &str, container: &Container) -> Result<(), Failure> {
    if container.freezer.is_thawed()? {
        let what = format!("container {name} of pod {} does not stand still any more", wanted.pod.name);
        return Err(Failure::new(Refusal::NotAsDumped, what));
    }
    Ok(())
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

/// A running container of that name is the one that stood still for a dump, or one that is started anew with the replacement too.
pub fn was_dumped(wanted: &PodContainers, name: &str, id: &str, frozen: &[String]) -> bool {
    wanted.fresh.iter().any(|fresh| fresh == name) || frozen.iter().any(|known| known == id)
}

/// Why what runs of a pod is not what was dumped: a volume that outlives the pod may be ahead of its archive, or be so soon.
/// `frozen` is known where an agent has written the dump that notes it.
pub fn unlike_its_dump(
    wanted: &PodContainers,
    running: &[(&str, &str)],
    frozen: Option<&[String]>,
) -> Result<(), Failure> {
    let pod = &wanted.pod.name;
    let Some(frozen) = frozen else {
        let what = format!("which processes of pod {pod} were dumped is not known here any more");
        return Err(Failure::new(Refusal::NotAsDumped, what));
    };
    if let Some((name, _)) = running.iter().find(|(name, id)| !was_dumped(wanted, name, id, frozen)) {
        let what = format!("container {name} of pod {pod} was started since it was dumped");
        return Err(Failure::new(Refusal::NotAsDumped, what));
    }
    let is_there = |name: &str| running.iter().any(|(running, _)| *running == name);
    match wanted.carried().map(|of| of.container).find(|name| !is_there(name)) {
        Some(gone) => {
            let what = format!("container {gone} of pod {pod} has ended since it was dumped");
            Err(Failure::new(Refusal::ContainerNotFound, what))
        }
        None => Ok(()),
    }
}

/// All of them have stood still since their dump, and nobody else of the pod runs.
pub async fn stands_still(
    node: &Node,
    wanted: &PodContainers,
    running: &[(String, Container)],
) -> Result<(), Failure> {
    for (name, container) in running.iter().filter(|(name, _)| !wanted.fresh.contains(name)) {
        was_not_let_go(wanted, name, container)?;
    }
    let others = none_is_left_out(node, wanted).await;
    others.map_err(|failure| match failure.objection {
        Some(_) => Failure::new(Refusal::NotAsDumped, failure.message),
        None => failure,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PodIdentity;

    #[test]
    fn what_was_started_since_a_dump_is_told_from_what_was_dumped() {
        let pod = PodIdentity { namespace: "d".into(), name: "web-0".into(), uid: "u".into() };
        let (beside, fresh) = (vec!["log".to_owned()], vec!["ship".to_owned()]);
        let wanted = PodContainers { pod, container: "app".into(), beside, fresh };
        let frozen = ["a1", "l1", "s1"].map(str::to_owned);
        let told = |running: &[(&str, &str)]| {
            unlike_its_dump(&wanted, running, Some(&frozen)).map_err(|failure| failure.refusal)
        };
        assert_eq!(told(&[("app", "a1"), ("log", "l1"), ("ship", "s1")]), Ok(()));
        assert_eq!(told(&[("app", "a1"), ("log", "l1"), ("ship", "s2")]), Ok(()), "not carried");
        for running in [vec![("app", "a1"), ("log", "l2")], vec![("log", "l2")]] {
            assert_eq!(told(&running), Err(Refusal::NotAsDumped), "started anew, whatever has ended");
        }
        for running in [vec![("app", "a1")], vec![]] {
            assert_eq!(told(&running), Err(Refusal::ContainerNotFound));
        }
        assert!(unlike_its_dump(&wanted, &[("app", "a1"), ("log", "l1")], None).is_err());
        assert!(was_dumped(&wanted, "app", "a1", &frozen) && !was_dumped(&wanted, "app", "a2", &frozen));
        assert!(was_dumped(&wanted, "ship", "s2", &frozen));
    }
}
