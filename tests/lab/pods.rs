//! Pods as the API server and their own HTTP port show them.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;

use super::http::get;
use super::{Result, fail};

const READ: Duration = Duration::from_secs(2);

/// GET /state of the examples. The counter knows only the first three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateView {
    pub count: u64,
    pub chain: String,
    pub cookie: String,
    pub last_id: Option<u64>,
    pub parked: bool,
    pub connected: bool,
    pub pod: String,
    pub duplicates: u64,
    pub out_of_order: u64,
    pub missing: u64,
    pub redelivered: u64,
    pub skipped: u64,
}

/// What must stay, or must change, when a pod moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub name: String,
    pub uid: String,
    pub node: String,
    pub ip: String,
    pub owner_uid: String,
    /// controller-revision-hash or pod-template-hash.
    pub revision: String,
    pub restarts: i32,
}

impl Snapshot {
    fn of(pod: &Pod) -> Self {
        let label = |key: &str| pod.labels().get(key).cloned();
        let status = pod.status.as_ref();
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
            ip: status.and_then(|status| status.pod_ip.clone()).unwrap_or_default(),
            owner_uid: pod.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default(),
            revision: label("controller-revision-hash")
                .or_else(|| label("pod-template-hash"))
                .unwrap_or_default(),
            restarts: status
                .and_then(|status| status.container_statuses.as_ref())
                .map_or(0, |list| list.iter().map(|container| container.restart_count).sum()),
        }
    }

    /// Its state, asked at its own address.
    pub async fn state(&self) -> Result<StateView> {
        state_at(&format!("{}:8080", self.ip)).await
    }
}

/// The state that a reader sees at `address`.
pub async fn state_at(address: &str) -> Result<StateView> {
    get(address, "/state", READ).await?.json()
}

pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
            conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
        })
}

/// Pods of the workload `app` that are ready and not on their way out.
pub async fn ready_pods(client: &Client, namespace: &str, app: &str) -> Result<Vec<Snapshot>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = pods.list(&ListParams::default().labels(&format!("app={app}"))).await?;
    let mut found: Vec<_> = list.items.iter().filter(|pod| is_ready(pod)).map(Snapshot::of).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// One pod by name, in whatever condition.
pub async fn pod(client: &Client, namespace: &str, name: &str) -> Result<Snapshot> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    match pods.get_opt(name).await? {
        Some(pod) => Ok(Snapshot::of(&pod)),
        None => fail(format!("pod {namespace}/{name} is not there")),
    }
}
