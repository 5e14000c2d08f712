//! SHADOW in the cluster, installed as a user installs it; again only where its image or manifests have changed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use shadow::api::SYSTEM_NAMESPACE;

use super::cluster::root;
use super::{Cluster, Result, eventually, fail};

const OVERLAY: &str = "deploy/overlays/test";
const IMAGES: [&str; 3] =
    ["target/image/shadow.tar", "target/image/examples.tar", "target/image/scheduler.tar"];
const DEPLOYMENTS: [&str; 3] = ["shadow-operator", "shadow-webhook", "shadow-scheduler"];
const DAEMON_SET: &str = "shadow-agent";
const LOADED: Duration = Duration::from_secs(120);
const ROLLED_OUT: Duration = Duration::from_secs(150);
/// What is installed, as a digest; and on which nodes the images are.
const MARK: &str = "lab-installed";

/// Installs what is not installed in this very version, and waits until it is ready.
pub async fn ensure(cluster: &Cluster, client: &Client) -> Result {
    let images: Vec<PathBuf> = IMAGES.iter().map(|image| root().join(image)).collect();
    for image in &images {
        if !image.is_file() {
            return fail(format!(
                "{} is not there: make image examples-image scheduler-image",
                image.display()
            ));
        }
    }
    let wanted = fingerprint(cluster, &images)?;
    if installed(client).await?.as_deref() != Some(&wanted) {
        eprintln!("installing SHADOW in the cluster");
        let paths: Vec<&Path> = images.iter().map(PathBuf::as_path).collect();
        // On a new node the agent restarts containerd as soon as it has the first of them.
        eventually("every node has the images", LOADED, async || cluster.load_images(&paths).await.map(Some))
            .await?;
        let overlay = root().join(OVERLAY).display().to_string();
        cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "-k", &overlay]).await?;
        for kind in ["deployment", "daemonset"] {
            cluster.kubectl(&["-n", SYSTEM_NAMESPACE, "rollout", "restart", kind]).await?;
        }
        wait_until_ready(client).await?;
        let mark = json!({ "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": MARK, "namespace": SYSTEM_NAMESPACE }, "data": { "version": wanted } });
        cluster.apply(&[mark]).await?;
    }
    wait_until_ready(client).await
}

/// The application's image, whatever became of it.
pub async fn load_examples(cluster: &Cluster) -> Result {
    cluster.load_images(&[&root().join(IMAGES[1])]).await
}

/// All parts are rolled out; an agent is ready only when its node can restore. As `kubectl rollout status` sees it.
pub async fn wait_until_ready(client: &Client) -> Result {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    eventually("SHADOW is rolled out", ROLLED_OUT, async || {
        for name in DEPLOYMENTS {
            if !deployment_is_ready(&deployments.get(name).await?) {
                return fail(format!("deployment {name} is not rolled out"));
            }
        }
        if daemon_set_is_ready(&daemon_sets.get(DAEMON_SET).await?) {
            Ok(Some(()))
        } else {
            fail(format!("daemonset {DAEMON_SET} is not rolled out"))
        }
    })
    .await
}

fn deployment_is_ready(of: &Deployment) -> bool {
    let wanted = of.spec.replicas;
    of.status.as_ref().is_some_and(|status| {
        status.observed_generation >= of.metadata.generation
            && [status.replicas, status.updated_replicas, status.available_replicas] == [wanted; 3]
    })
}

fn daemon_set_is_ready(of: &DaemonSet) -> bool {
    of.status.as_ref().is_some_and(|status| {
        let wanted = Some(status.desired_number_scheduled);
        status.observed_generation >= of.metadata.generation
            && [status.updated_number_scheduled, status.number_available] == [wanted; 2]
    })
}

/// Pod and node of the operator that leads.
pub async fn leader(client: &Client) -> Result<(String, String)> {
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    eventually("an operator leads", Duration::from_secs(60), async || {
        let lease = leases.get("shadow-operator").await?;
        let Some(holder) = lease.spec.and_then(|spec| spec.holder_identity).filter(|id| !id.is_empty())
        else {
            return Ok(None);
        };
        let list = pods.list(&ListParams::default().labels("app.kubernetes.io/name=shadow-operator")).await?;
        Ok(list.items.into_iter().find(|pod| holder.starts_with(&pod.name_any())).and_then(|pod| {
            let node = pod.spec.as_ref()?.node_name.clone()?;
            Some((pod.name_any(), node))
        }))
    })
    .await
}

/// SIGKILL to the leading operator: no shutdown, no released lease. The name of its pod.
pub async fn kill_leader(cluster: &Cluster, client: &Client) -> Result<String> {
    let (pod, node) = leader(client).await?;
    // The process that has this pod's name in its environment.
    let find = format!(
        "for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ 2>/dev/null | grep -qx POD_NAME={pod} && \
         kill -9 ${{p#/proc/}}; done; true"
    );
    let killed = cluster.exec(&node, &["sh", "-c", &find]).await?;
    if killed.code == 0 { Ok(pod) } else { fail(killed.stderr) }
}

/// Operators, webhooks and schedulers run elsewhere, so that the loss of this node is nothing but the loss of this node.
pub async fn keep_off(cluster: &Cluster, client: &Client, node: &str) -> Result {
    cluster.kubectl(&["cordon", node]).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let own = ListParams::default()
        .labels("app.kubernetes.io/name in (shadow-operator,shadow-webhook,shadow-scheduler)")
        .fields(&format!("spec.nodeName={node}"));
    for pod in pods.list(&own).await?.items {
        cluster.kubectl(&["-n", SYSTEM_NAMESPACE, "delete", "pod", &pod.name_any()]).await?;
        wait_until_ready(client).await?;
    }
    cluster.kubectl(&["uncordon", node]).await.map(drop)
}

/// Pods of SHADOW whose program was killed are replaced: the kubelet would wait longer and longer before it starts it
/// again.
pub async fn recycle(cluster: &Cluster, client: &Client) -> Result {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let restarted = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.into_iter().flatten().any(|container| container.restart_count > 0)
    };
    let list = pods.list(&ListParams::default()).await?.items;
    let names: Vec<String> =
        list.iter().filter(|pod| restarted(pod)).map(kube::ResourceExt::name_any).collect();
    if !names.is_empty() {
        let mut argv = vec!["-n", SYSTEM_NAMESPACE, "delete", "pod", "--timeout=90s", "--grace-period=1"];
        argv.extend(names.iter().map(String::as_str));
        cluster.kubectl(&argv).await?;
    }
    wait_until_ready(client).await
}

/// The nodes that run a webhook.
pub async fn webhooks(client: &Client) -> Result<Vec<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let list = pods.list(&ListParams::default().labels("app.kubernetes.io/name=shadow-webhook")).await?;
    Ok(list.items.into_iter().filter_map(|pod| pod.spec?.node_name).collect())
}

async fn installed(client: &Client) -> Result<Option<String>> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SYSTEM_NAMESPACE);
    let Some(map) = maps.get_opt(MARK).await? else { return Ok(None) };
    Ok(map.data.and_then(|data| data.get("version").cloned()))
}

/// Of the images, the manifests and the nodes they are on.
fn fingerprint(cluster: &Cluster, images: &[PathBuf]) -> Result<String> {
    // They stay what they are while a program of tests runs.
    static FILES: OnceLock<String> = OnceLock::new();
    let files = match FILES.get() {
        Some(files) => files,
        None => {
            let made = of_files(images)?;
            FILES.get_or_init(|| made)
        }
    };
    Ok(format!("{files} {}", cluster.nodes.join(" ")))
}

fn of_files(images: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for image in images {
        hash.update(std::fs::read(image)?);
    }
    let mut folders = vec![root().join("deploy"), root().join("webhook-certs")];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?
            .collect::<std::io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                hash.update(std::fs::read(entry.path())?);
            }
        }
    }
    Ok(hex::encode(hash.finalize()))
}
