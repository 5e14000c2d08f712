//! What there is before a run, and what is there afterwards that was not, or is no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use shadow::api::{
    ANNOTATION_AT_ONCE, ANNOTATION_INIT_CONTAINERS, ANNOTATION_PLACED_ON, ANNOTATION_TICKET, GROUP,
    LABEL_ROLE, MANAGER,
};

use crate::lab::{App, Kind, Lab, Result, fail};

/// They stay on a pod that was restored, and mean nothing once its ticket is closed.
const OF_RESTORED: [&str; 4] =
    [ANNOTATION_TICKET, ANNOTATION_PLACED_ON, ANNOTATION_INIT_CONTAINERS, ANNOTATION_AT_ONCE];
/// For what SHADOW has to take away.
const PATIENCE: Duration = Duration::from_secs(45);
/// For the kubelet's own mounts: what it lost sight of while it was killed, it looks for once a minute.
const HOUSEKEEPING: Duration = Duration::from_secs(100);
/// Of every pod one.
const SANDBOX: &str = "mount /run/containerd/io.containerd.grpc.v1.cri/sandboxes/ID/shm";
/// Where the kubelet and containerd mount for pods.
const KUBELETS: [&str; 3] = ["mount /run/containerd/", "mount /run/netns/", "mount /var/lib/kubelet/"];
const LOOK: Duration = Duration::from_millis(500);

/// On a node: what SHADOW keeps there for a migration, what restores and dumps with it, the consumer's processes, and
/// every mount point.
const ON_NODE: &str = "cd /var/lib/shadow && test -d archives && test -d dumps && test -d tickets || exit 1; \
    for d in archives dumps tickets; do for f in $(ls -A $d); do echo \"file $d/$f\"; done; done; \
    for c in criu runc shadow-runc consumer; do for p in $(ps -C $c -o pid=); do echo \"process $c\"; done; done; \
    awk '{print \"mount \" $5}' /proc/1/mountinfo";

/// Everything that a run must leave as it was.
pub struct Survey {
    things: BTreeSet<String>,
    consumers: usize,
    /// How many there are of each kind.
    mounts: BTreeMap<String, usize>,
}

impl Survey {
    pub async fn take(lab: &Lab, app: &App) -> Result<Self> {
        let mut survey = Self { things: BTreeSet::new(), consumers: 0, mounts: BTreeMap::new() };
        survey.broker(lab).await?;
        let pods = survey.objects(lab, app).await?;
        if app.kind == Kind::Deployment
            && let [pod] = pods.as_slice()
        {
            // Its name changes with every move. Of two pods none is called that: then one is left.
            survey.things = survey.things.iter().map(|thing| thing.replace(pod.as_str(), "POD")).collect();
        }
        for node in &lab.cluster.nodes {
            survey.node(lab, node).await?;
        }
        Ok(survey)
    }

    /// Taken once every sandbox belongs to a pod: one that was dead before the run is none of its leftovers, and would
    /// hide one by going.
    pub async fn settled(lab: &Lab, app: &App) -> Result<Self> {
        let until = tokio::time::Instant::now() + HOUSEKEEPING;
        let pods: Api<Pod> = Api::all(lab.client.clone());
        loop {
            let survey = Self::take(lab, app).await?;
            let (sandboxes, pods) = (
                survey.mounts.get(SANDBOX).copied().unwrap_or_default(),
                pods.list(&ListParams::default()).await?.items.len(),
            );
            if sandboxes == pods {
                return Ok(survey);
            }
            if tokio::time::Instant::now() > until {
                return fail(format!("there are {sandboxes} sandboxes of {pods} pods before the run"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn broker(&mut self, lab: &Lab) -> Result {
        self.things.extend(lab.broker.queues().await?.into_iter().map(|name| format!("queue {name}")));
        self.things.extend(lab.broker.bindings().await?.into_iter().map(|name| format!("binding {name}")));
        Ok(())
    }

    /// Gives the names of the pods.
    async fn objects(&mut self, lab: &Lab, app: &App) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
        let mut names = Vec::new();
        for pod in pods.list(&ListParams::default()).await? {
            names.push(pod.name_any());
            let role = pod.labels().get(LABEL_ROLE).map(|role| format!(" ({role})")).unwrap_or_default();
            self.things.insert(format!("pod {}{role}", pod.name_any()));
            for key in pod.annotations().keys().filter(|key| key.starts_with(GROUP)) {
                // A pod that was restored shows by what: they go with it.
                if !OF_RESTORED.contains(&key.as_str()) {
                    self.things.insert(format!("annotation {key} of pod {}", pod.name_any()));
                }
            }
        }
        let slices: Api<EndpointSlice> = Api::namespaced(lab.client.clone(), &lab.namespace);
        let ours = format!("endpointslice.kubernetes.io/managed-by={MANAGER}");
        for slice in slices.list(&ListParams::default().labels(&ours)).await? {
            self.things.insert(format!("slice {}", slice.name_any()));
        }
        let nodes: Api<Node> = Api::all(lab.client.clone());
        for node in nodes.list(&ListParams::default()).await? {
            let (labels, notes) = (node.labels().iter(), node.annotations().iter());
            for (key, value) in labels.chain(notes).filter(|(key, _)| key.starts_with(GROUP)) {
                self.things.insert(format!("{key}={value} of node {}", node.name_any()));
            }
            for taint in node.spec.and_then(|spec| spec.taints).unwrap_or_default() {
                self.things.insert(format!("taint {} of a node", taint.key));
            }
        }
        let set = lab.workload(app).await?;
        let what =
            serde_json::json!([set["metadata"]["annotations"], set["metadata"]["generation"], set["spec"]]);
        self.things.insert(format!("workload {what}"));
        Ok(names)
    }

    async fn node(&mut self, lab: &Lab, node: &str) -> Result {
        let seen = lab.cluster.exec(node, &["sh", "-c", ON_NODE]).await?;
        if seen.code != 0 {
            return fail(format!("{node} cannot be looked at: {}", seen.stderr));
        }
        for line in seen.stdout.lines() {
            match line {
                "process consumer" => self.consumers += 1,
                line if line.starts_with("mount ") => *self.mounts.entry(kind(line)).or_default() += 1,
                line => {
                    self.things.insert(format!("{line} on {node}"));
                }
            }
        }
        Ok(())
    }

    /// What is left, or gone, compared with this; empty as soon as all is as it was.
    pub async fn differences(&self, lab: &Lab, app: &App) -> Vec<String> {
        let begun = tokio::time::Instant::now();
        loop {
            let found = match Self::take(lab, app).await {
                Ok(now) => self.against(&now),
                Err(error) => vec![format!("the cluster cannot be looked at: {error}")],
            };
            let kubelets = found.iter().all(|thing| KUBELETS.iter().any(|mount| thing.contains(mount)));
            if found.is_empty() || begun.elapsed() > if kubelets { HOUSEKEEPING } else { PATIENCE } {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn against(&self, now: &Self) -> Vec<String> {
        let mut found: Vec<String> =
            now.things.difference(&self.things).map(|thing| format!("left: {thing}")).collect();
        found.extend(self.things.difference(&now.things).map(|thing| format!("gone: {thing}")));
        if now.consumers != self.consumers {
            found.push(format!("{} consumer processes, not {}", now.consumers, self.consumers));
        }
        let kinds: BTreeSet<&String> = self.mounts.keys().chain(now.mounts.keys()).collect();
        for kind in kinds {
            let (before, after) = (self.mounts.get(kind).unwrap_or(&0), now.mounts.get(kind).unwrap_or(&0));
            if before != after {
                found.push(format!("{after} of {kind}, not {before}"));
            }
        }
        found
    }
}

/// A mount point with its IDs and random names left out: those change with every pod.
fn kind(mount: &str) -> String {
    let parts = mount.split('/').map(|part| {
        let is_id = part.len() >= 32 && part.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        match part {
            _ if is_id => "ID",
            _ if part.starts_with("cni-") => "cni-ID",
            _ if part.starts_with("kube-api-access-") => "kube-api-access-ID",
            _ if part.starts_with(".criu.mntns.") => ".criu.mntns.ID",
            part => part,
        }
    });
    parts.collect::<Vec<_>>().join("/")
}
