//! After a drain that could not move its pod: the pod is the same, serves and consumes as before, and nothing that the
//! attempt made is left.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use shadow::api::{LABEL_ROLE, MANAGER, Reason, StatefulMigration};

use super::migrations::status_of;
use super::scene::consuming;
use super::{Lab, Result, Scene, Snapshot, Verdict, eventually, fail};

const PATIENCE: Duration = Duration::from_secs(60);

/// The migration's status and an Event about the pod name the cause.
pub async fn cause_is_told(lab: &Lab, ended: &StatefulMigration, pod: &str, causes: &[Reason]) -> Result {
    let status = status_of(ended);
    let said = format!("{} {}", status.reason.unwrap_or_default(), status.message.unwrap_or_default());
    if !causes.iter().any(|cause| said.contains(cause.as_str())) {
        return fail(format!("status does not name {causes:?}, but says: {said}"));
    }
    let condition = status.conditions.iter().find(|condition| condition.type_ == "Succeeded");
    if condition.is_none_or(|condition| condition.status == "True" || condition.message.is_empty()) {
        return fail(format!("no condition that says why: {:?}", status.conditions));
    }
    eventually(&format!("an Event about {pod} that names {causes:?}"), Duration::from_secs(10), async || {
        let events = lab.events_of(pod).await?;
        let named = |(reason, note): &(String, String)| {
            causes.iter().any(|cause| reason == cause.as_str() || note.contains(cause.as_str()))
        };
        if events.iter().any(named) { Ok(Some(())) } else { fail(format!("there are {events:?}")) }
    })
    .await
}

/// Same pod, same memory, every message applied exactly once, nothing left behind.
pub async fn unhurt(scene: &Scene<'_>, before: &Snapshot, queues: &[String]) -> Result {
    let lab = scene.lab;
    let now = lab.pod(&before.name).await?;
    if now.uid != before.uid || now.restarts != before.restarts {
        return fail(format!("the pod is not the same: {before:?}, now {now:?}"));
    }
    consuming(&now).await?;
    let (ledger, state) = scene.quiesce().await?;
    let verdict = Verdict::of(&ledger, &state, &scene.cookie);
    if !verdict.is_exact() {
        return fail(format!("not exact: {verdict:?}"));
    }
    nothing_left(lab, queues).await
}

/// No shadow, no bridge, no queue but those that were there before.
pub async fn nothing_left(lab: &Lab, queues: &[String]) -> Result {
    let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let slices: Api<EndpointSlice> = Api::namespaced(lab.client.clone(), &lab.namespace);
    eventually("nothing is left of the attempt", PATIENCE, async || {
        let shadows = pods.list(&ListParams::default().labels(LABEL_ROLE)).await?;
        let bridges = slices
            .list(&ListParams::default().labels(&format!("endpointslice.kubernetes.io/managed-by={MANAGER}")))
            .await?;
        let mut left: Vec<String> = shadows.items.iter().map(kube::ResourceExt::name_any).collect();
        left.extend(bridges.items.iter().map(kube::ResourceExt::name_any));
        left.extend(lab.broker.queues().await?.into_iter().filter(|queue| !queues.contains(queue)));
        if left.is_empty() { Ok(Some(())) } else { fail(format!("there is still {left:?}")) }
    })
    .await?;
    no_files_left(lab).await
}

/// No archive of a memory on any node, no dump, no ticket.
async fn no_files_left(lab: &Lab) -> Result {
    for node in &lab.cluster.nodes {
        eventually(&format!("no file is left on {node}"), PATIENCE, async || {
            let list = "cd /var/lib/shadow && ls -A archives dumps tickets | grep -v ':$' | grep .";
            let listed = lab.cluster.exec(node, &["sh", "-c", list]).await?;
            let names = listed.stdout.trim();
            if names.is_empty() { Ok(Some(())) } else { fail(names.to_owned()) }
        })
        .await?;
    }
    Ok(())
}
