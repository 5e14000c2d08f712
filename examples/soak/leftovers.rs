//! What there is before a run, and what is there afterwards that was not, or is no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use shadow::api::{ANNOTATION_PLACED_ON, ANNOTATION_TICKET, GROUP, LABEL_ROLE, MANAGER};

use crate::lab::{App, Lab, Result, fail};

/// The kubelet takes its time to put the last things of a pod away: what it lost sight of while it was killed, it looks for
/// once a minute.
const PATIENCE: Duration = Duration::from_secs(100);
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
        survey.objects(lab, app).await?;
        for node in &lab.cluster.nodes {
            survey.node(lab, node).await?;
        }
        Ok(survey)
    }

    async fn broker(&mut self, lab: &Lab) -> Result {
        self.things.extend(lab.broker.queues().await?.into_iter().map(|name| format!("queue {name}")));
        self.things.extend(lab.broker.bindings().await?.into_iter().map(|name| format!("binding {name}")));
        Ok(())
    }

    async fn objects(&mut self, lab: &Lab, app: &App) -> Result {
        let pods: Api<Pod> = Api::namespaced(lab.client.clone(), &lab.namespace);
        for pod in pods.list(&ListParams::default()).await? {
            let role = pod.labels().get(LABEL_ROLE).map(|role| format!(" ({role})")).unwrap_or_default();
            self.things.insert(format!("pod {}{role}", pod.name_any()));
            for key in pod.annotations().keys().filter(|key| key.starts_with(GROUP)) {
                // A pod that was restored shows by what: they go with it.
                if ![ANNOTATION_TICKET, ANNOTATION_PLACED_ON].contains(&key.as_str()) {
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
        Ok(())
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
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let found = match Self::take(lab, app).await {
                Ok(now) => self.against(&now),
                Err(error) => vec![format!("the cluster cannot be looked at: {error}")],
            };
            if found.is_empty() || tokio::time::Instant::now() > until {
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
        // Fewer is nothing that a run leaves: the kubelet puts away what was dead before it began.
        for (kind, after) in &now.mounts {
            let before = self.mounts.get(kind).unwrap_or(&0);
            if after > before {
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
