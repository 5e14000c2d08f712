//! Volumes that come along: that they still can, that they are the same, and how long they took. Reads the API server.
//!
//! Guarantees: nothing is restored over another volume than the source had. How long a replacement waited is only told, by
//! Kubernetes' own times in whole seconds: whatever cannot be read of it is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerState, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{EffectError, Performer};
use crate::api::{NodeName, Reason};
use crate::operator::check::claims::{Known, refusals};
use crate::operator::drive::subject::Journal;
use crate::operator::drive::volumes::{known, mounts};

/// For what is only told.
const LIMIT: Duration = Duration::from_secs(2);
/// Until the attach/detach controller had them off the node before.
const DETACHED: &str = "Replacing.detach";
/// From then on until they were attached and mounted, and the pod had its sandbox.
const ATTACHED: &str = "Replacing.attach";

impl Performer {
    /// Notes it, for the status to tell.
    pub(super) async fn note_volumes(&self, journal: &Journal) {
        let (Some(node), Some(replacement)) = (&journal.state.target, &journal.state.replacement) else {
            return;
        };
        if journal.subject.one_node_volumes().next().is_none() {
            return;
        }
        let (pod, found) = (&replacement.name, self.waited_for_volumes(journal, node, &replacement.name));
        match timeout(LIMIT, found).await {
            Ok(Ok(found)) => self.waited.lock().extend(found),
            Ok(Err(error)) => tracing::warn!(pod, %error, "how long its volumes took is not known"),
            Err(_) => tracing::warn!(pod, "how long its volumes took was not told in time"),
        }
    }

    /// Fails where the next pod's claims are not bound to what the source's were: its memory is of those.
    pub(super) async fn same_volumes(&self, journal: &Journal) -> Result<(), EffectError> {
        let namespace = &journal.subject.source.namespace;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.ctx.client.clone(), namespace);
        self.is_nobody_elses(journal).await?;
        let bound =
            journal.subject.claims.iter().filter_map(|claim| Some((&claim.claim, claim.bound.as_ref()?)));
        for (name, wanted) in bound {
            let found = claims.get_opt(name).await.map_err(EffectError::api("get claim"))?;
            let now = found.and_then(|claim| claim.spec).and_then(|spec| spec.volume_name);
            if now.as_ref() != Some(wanted) {
                let now = now.unwrap_or_else(|| "none".to_owned());
                let why =
                    format!("claim {name} has volume {now} now, and had {wanted} when its pod was stopped");
                return Err(EffectError::terminal(Reason::VolumeChanged, why));
            }
        }
        Ok(())
    }

    /// No other pod has come to hold what one node can mount, as one does that was made without a ticket.
    async fn is_nobody_elses(&self, journal: &Journal) -> Result<(), EffectError> {
        let one_node = || journal.subject.claims.iter().filter(|claim| claim.one_node);
        if one_node().next().is_none() {
            return Ok(());
        }
        let source = &journal.subject.source;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &source.namespace);
        let pods = pods.list(&ListParams::default()).await.map_err(EffectError::api("list pods"))?.items;
        let is_ours = |pod: &Pod| {
            let shown = self.shown_life(journal, pod);
            pod.uid().as_deref() == Some(source.uid.as_str())
                || shown.is_some_and(|ticket| ticket.epoch == journal.state.epoch)
        };
        // What runs where it was attached may not be told yet.
        let may_run = |pod: &Pod| {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            has_run(pod) || node.is_some() && node == journal.state.target.as_ref().map(NodeName::as_str)
        };
        for pod in pods.iter().filter(|pod| !is_ours(pod) && may_run(pod)) {
            if let Some(claim) = one_node().find(|claim| mounts(pod, &claim.claim)) {
                let why = format!(
                    "pod {} has claim {} mounted, and may have written to it since the other was stopped",
                    pod.name_any(),
                    claim.claim
                );
                return Err(EffectError::terminal(Reason::VolumeChanged, why));
            }
        }
        Ok(())
    }

    /// Its volumes can still come along: looked at once more before the commit.
    pub(super) async fn volumes_come_along(&self, journal: &Journal) -> Result<(), EffectError> {
        if journal.subject.claims.is_empty() {
            return Ok(());
        }
        let Some(live) = self.live_source(journal).await? else {
            // The next of its name may be there, and write, before anything of this one is.
            let source = &journal.subject.source.name;
            let why = format!("pod {source} is gone before its migration was committed");
            return Err(EffectError::terminal(Reason::SourceGone, why));
        };
        let known = known(&self.ctx.client, &live).await.map_err(EffectError::api("get the pod's claims"))?;
        stand_against(&live, &known)
    }

    async fn waited_for_volumes(
        &self,
        journal: &Journal,
        node: &NodeName,
        replacement: &str,
    ) -> Result<BTreeMap<String, u64>, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &journal.subject.source.namespace);
        let pod = pods.get(replacement).await?;
        let Known::All(claims) = known(&self.ctx.client, &pod).await? else { return Ok(BTreeMap::new()) };
        let attachments: Api<VolumeAttachment> = Api::all(self.ctx.client.clone());
        let mut begun = Vec::new();
        for volume in claims.values().filter_map(|claimed| claimed.volume.as_ref()) {
            let Some(name) = attachment(volume, node) else { continue };
            begun.extend(attachments.get_opt(&name).await?.and_then(|found| found.creation_timestamp()));
        }
        let attaching = begun.into_iter().map(|time| time.0).max();
        Ok(split(since(&pod, "PodScheduled"), attaching, since(&pod, "PodReadyToStartContainers")))
    }
}

/// A claim that cannot move any more, or that another pod has come to hold.
pub(super) fn stand_against(source: &Pod, known: &Known) -> Result<(), EffectError> {
    match source.spec.iter().flat_map(|spec| refusals(spec, known)).next() {
        Some((reason, why)) => {
            Err(EffectError::terminal(reason, format!("pod {}: {why}", source.name_any())))
        }
        None => Ok(()),
    }
}

/// One of its containers was started.
fn has_run(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let all =
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.into_iter().any(|one| {
        let begun = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
        one.restart_count > 0 || one.state.as_ref().is_some_and(begun)
    })
}

/// As the attach/detach controller names it.
fn attachment(volume: &PersistentVolume, node: &NodeName) -> Option<String> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    let of = format!("{}{}{node}", csi.volume_handle, csi.driver);
    Some(format!("csi-{}", hex::encode(Sha256::digest(of))))
}

fn since(pod: &Pod, condition: &str) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|one| one.type_ == condition && one.status == "True")?;
    found.last_transition_time.as_ref().map(|time| time.0)
}

/// Milliseconds of each part; what is not known is left out.
fn split(
    scheduled: Option<Timestamp>,
    attaching: Option<Timestamp>,
    sandbox: Option<Timestamp>,
) -> BTreeMap<String, u64> {
    let between = |from: Option<Timestamp>, to: Option<Timestamp>| {
        u64::try_from(to?.as_millisecond() - from?.as_millisecond()).ok()
    };
    let parts = [(DETACHED, between(scheduled, attaching)), (ATTACHED, between(attaching, sandbox))];
    parts.into_iter().filter_map(|(name, ms)| Some((name.to_owned(), ms?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attachment_has_the_name_that_the_controller_gives_it() {
        let volume: PersistentVolume = serde_json::from_value(json!({ "metadata": { "name": "pv" },
            "spec": { "csi": { "driver": "d", "volumeHandle": "h" } } }))
        .unwrap();
        let expected = format!("csi-{}", hex::encode(Sha256::digest("hdn2")));
        assert_eq!(attachment(&volume, &"n2".into()), Some(expected));
        assert_eq!(attachment(&PersistentVolume::default(), &"n2".into()), None);
    }

    #[test]
    fn a_pod_has_run_once_one_of_its_containers_was_started() {
        let pod = |state: serde_json::Value| -> Pod {
            let container = json!({ "name": "app", "image": "i", "imageID": "", "ready": false,
                "restartCount": 0, "state": state });
            serde_json::from_value(json!({ "metadata": {}, "status": { "containerStatuses": [container] } }))
                .unwrap()
        };
        assert!(has_run(&pod(json!({ "running": {} }))));
        assert!(has_run(&pod(json!({ "terminated": { "exitCode": 1 } }))));
        assert!(!has_run(&pod(json!({ "waiting": {} }))) && !has_run(&Pod::default()));
    }

    #[test]
    fn who_was_waited_for_is_told_apart() {
        let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
        let found = split(at(10), at(14), at(16));
        assert_eq!((found[DETACHED], found[ATTACHED]), (4000, 2000));
        assert!(split(at(10), None, at(16)).is_empty());
        assert_eq!(split(at(15), at(14), at(16)).len(), 1, "attached before it was scheduled: no wait");
    }
}
