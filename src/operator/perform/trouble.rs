//! What keeps a replacement from coming back, and how long each kind of it is borne before another way is taken. Pure:
//! the clock is an argument.
//!
//! What cannot pass by itself (a restore that failed, a machine that is down for good) is not among it: it is borne for no
//! moment. Neither is an agent that is silent: its node may run the pod, so nobody else may.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::api::{Life, TicketState};
use crate::operator::check::containers::is_sidecar;

/// Reasons of a waiting container whose image the kubelet cannot get.
const IMAGE_REASONS: [&str; 2] = ["ErrImagePull", "ImagePullBackOff"];
/// Those for which it does not even try.
const NO_IMAGE_REASONS: [&str; 2] = ["ErrImageNeverPull", "InvalidImageName"];
/// A registry that is restarted is back by then.
const IMAGE_PATIENCE: Duration = Duration::from_secs(20);
/// Whoever is preempted or drained has gone by then.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);
const STALL_PATIENCE: Duration = Duration::from_secs(60);
/// A volume is released, detached and attached again within that, also where the attach/detach controller waits six minutes
/// for a node that tells nothing before it takes the volume from it. No other node could have it sooner.
const VOLUME_PATIENCE: Duration = Duration::from_secs(7 * 60);
/// A control plane is brought up to date, a quota raised or an earlier pod of the set mended within that; and what an init
/// container does is done.
const OWNER_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Images are read and written no slower than that, in bytes a second.
const SLOWEST: u64 = 20 << 20;

const NOT_MADE: &str = "its owner has not made the pod yet: is an earlier pod of it not ready, or does a quota or a webhook refuse it?";

/// Trouble that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// The node does not have the image and will not fetch it: that does not pass.
    NoImage,
    /// The node cannot get the image.
    Image,
    /// The pod is not scheduled.
    Room,
    /// Nothing is known against it, and it does not come.
    Stalled,
    /// A volume that only one node can mount is not there yet.
    Volume,
    /// An init container that runs again has not ended. Another node would not help.
    Init,
    /// Its owner wants the pod and has not made it. Another node would not help, nor is the archive to blame.
    NotMade,
}

impl Trouble {
    /// For an archive of so many bytes.
    pub fn patience(self, bytes: u64) -> Duration {
        match self {
            Self::NoImage => Duration::ZERO,
            Self::Image => IMAGE_PATIENCE,
            Self::Room => ROOM_PATIENCE,
            Self::Stalled => STALL_PATIENCE + transfer_time(bytes),
            Self::Volume => VOLUME_PATIENCE,
            Self::Init | Self::NotMade => OWNER_PATIENCE,
        }
    }

    /// Nothing of the pod moves meanwhile: others may.
    pub fn moves_nothing(self) -> bool {
        matches!(self, Self::Init | Self::NotMade | Self::Volume)
    }

    /// Of a pod that was made; the second is what Kubernetes says about it. `volumes`: claims whose volumes come from another
    /// node.
    pub fn of(pod: Option<&Pod>, volumes: &[&str]) -> (Self, String) {
        let Some(pod) = pod else { return (Self::NotMade, NOT_MADE.to_owned()) };
        let status = pod.status.as_ref();
        let conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut unscheduled = conditions.filter(|c| c.type_ == "PodScheduled" && c.status == "False");
        if let Some(condition) = unscheduled.next() {
            return (Self::Room, condition.message.clone().unwrap_or_else(|| "not scheduled".to_owned()));
        }
        let containers = status.into_iter().flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        let mut waiting = containers
            .filter_map(|container| Some((&container.image, container.state.as_ref()?.waiting.as_ref()?)));
        let missing = waiting.find_map(|(image, waiting)| {
            let reason = waiting.reason.as_deref()?;
            let kind = match reason {
                _ if IMAGE_REASONS.contains(&reason) => Self::Image,
                _ if NO_IMAGE_REASONS.contains(&reason) => Self::NoImage,
                _ => return None,
            };
            let message = waiting.message.as_deref().unwrap_or(reason);
            Some((kind, format!("image {image} is not there: {message}")))
        });
        let running = status
            .into_iter()
            .flat_map(|status| status.init_container_statuses.iter().flatten())
            .filter(|init| !is_sidecar_named(pod, &init.name) || init.started == Some(false))
            .find(|init| init.state.as_ref().is_some_and(|state| state.running.is_some()));
        match (missing, running) {
            (Some(found), _) => found,
            (None, Some(init)) if init.started == Some(false) && is_sidecar_named(pod, &init.name) => {
                (Self::Init, format!("sidecar `{}` has not passed its startup probe", init.name))
            }
            (None, Some(init)) => (Self::Init, format!("init container `{}` runs", init.name)),
            // The kubelet makes the sandbox once they are there.
            (None, None) if !volumes.is_empty() && !has_sandbox(pod) => (
                Self::Volume,
                format!(
                    "it waits for its sandbox, or for its volumes to be attached and mounted: {}",
                    volumes.join(", ")
                ),
            ),
            (None, None) => (Self::Stalled, "its container has not got to its restore yet".to_owned()),
        }
    }
}

fn has_sandbox(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "PodReadyToStartContainers" && condition.status == "True")
}

/// One that stays is waited for only until it has started.
fn is_sidecar_named(pod: &Pod, name: &str) -> bool {
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    inits.into_iter().any(|init| init.name == name && is_sidecar(init))
}

/// How long it takes to move so many bytes at the slowest.
pub fn transfer_time(bytes: u64) -> Duration {
    Duration::from_secs(bytes / SLOWEST)
}

/// Since when which trouble has stood, by this operator's clock; one that takes over is patient anew.
#[derive(Debug, Default)]
pub struct Patience {
    life: Option<Life>,
    state: Option<TicketState>,
    since: BTreeMap<Trouble, Instant>,
}

impl Patience {
    /// How long this trouble has stood in this life, while its ticket got no further.
    pub fn stands(
        &mut self,
        life: Life,
        state: Option<TicketState>,
        trouble: Trouble,
        now: Instant,
    ) -> Duration {
        if self.life != Some(life) || state > self.state {
            *self = Self { life: Some(life), state, since: BTreeMap::new() };
        }
        now.duration_since(*self.since.entry(trouble).or_insert(now))
    }

    /// Nothing can be said of it now: what has passed does not count.
    pub fn start_anew(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-0"}, "status": status})).unwrap()
    }

    fn waiting(reason: &str) -> Pod {
        pod(&json!({"containerStatuses": [{"name": "app", "image": "shop:1", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": reason, "message": "not found"}}}]}))
    }

    #[test]
    fn an_image_that_is_missing_and_a_pod_without_a_node_are_known_by_what_kubernetes_says() {
        let may_come = IMAGE_REASONS.map(|reason| (reason, Trouble::Image));
        let never_comes = NO_IMAGE_REASONS.map(|reason| (reason, Trouble::NoImage));
        for (reason, expected) in may_come.into_iter().chain(never_comes) {
            let (trouble, why) = Trouble::of(Some(&waiting(reason)), &[]);
            assert_eq!(trouble, expected, "{reason}");
            assert!(why.starts_with("image shop:1") && why.ends_with("not found"), "{why}");
        }
        let init = pod(
            &json!({"initContainerStatuses": [{"name": "migrate", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"running": {}}}]}),
        );
        assert_eq!(
            Trouble::of(Some(&init), &[]),
            (Trouble::Init, "init container `migrate` runs".to_owned())
        );
        let sidecar = |started: bool| -> Pod {
            let status = json!({"initContainerStatuses": [{"name": "proxy", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "started": started, "state": {"running": {}}}]});
            let init = json!([{"name": "proxy", "restartPolicy": "Always"}]);
            serde_json::from_value(
                json!({"spec": {"containers": [], "initContainers": init}, "status": status}),
            )
            .unwrap()
        };
        let (trouble, why) = Trouble::of(Some(&sidecar(false)), &[]);
        assert!(trouble == Trouble::Init && why.contains("startup probe"), "{why}");
        assert_eq!(Trouble::of(Some(&sidecar(true)), &[]).0, Trouble::Stalled, "it stays");
        let unscheduled = pod(&json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]}));
        assert_eq!(
            Trouble::of(Some(&unscheduled), &[]),
            (Trouble::Room, "0/2 nodes are available".to_owned())
        );
        for pod in [waiting("ContainerCreating"), waiting("CreateContainerError")] {
            assert_eq!(Trouble::of(Some(&pod), &[]).0, Trouble::Stalled);
        }
        assert_eq!(Trouble::of(None, &[]).0, Trouble::NotMade);
        let (trouble, why) = Trouble::of(Some(&waiting("ContainerCreating")), &["data"]);
        assert!(trouble == Trouble::Volume && why.ends_with(": data"), "{why}");
        let sandboxed =
            pod(&json!({"conditions": [{"type": "PodReadyToStartContainers", "status": "True"}]}));
        assert_eq!(Trouble::of(Some(&sandboxed), &["data"]).0, Trouble::Stalled);
    }

    #[test]
    fn each_kind_has_a_patience_of_its_own_and_it_ends() {
        let mut patience = Patience::default();
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut stands = |life, state, trouble, at| patience.stands(Life(life), state, trouble, at);
        let unclaimed = Some(TicketState::Unclaimed);
        assert_eq!(stands(1, unclaimed, Trouble::Stalled, after(0)), Duration::ZERO);
        assert_eq!(stands(1, unclaimed, Trouble::Image, after(50)), Duration::ZERO, "seen just now");
        assert_eq!(stands(1, unclaimed, Trouble::Stalled, after(61)), Duration::from_secs(61));
        let waiting = Some(TicketState::Waiting);
        assert_eq!(stands(1, waiting, Trouble::Stalled, after(62)), Duration::ZERO, "it has got further");
        assert_eq!(stands(1, unclaimed, Trouble::Stalled, after(90)), Duration::from_secs(28), "and back");
        assert_eq!(stands(2, unclaimed, Trouble::Stalled, after(91)), Duration::ZERO, "another life");
    }

    #[test]
    fn large_pods_may_take_longer() {
        assert_eq!(Trouble::Stalled.patience(0), STALL_PATIENCE);
        assert!(Trouble::Stalled.patience(1 << 30) > STALL_PATIENCE + Duration::from_secs(50));
        assert_eq!(Trouble::Image.patience(1 << 30), IMAGE_PATIENCE);
    }

    #[test]
    fn a_pod_that_its_owner_has_not_made_is_no_reason_to_look_for_another_node() {
        assert!(Trouble::NotMade.patience(0) > 10 * Trouble::Stalled.patience(0));
    }
}
