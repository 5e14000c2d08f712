//! Annotations of a pod's owner: what the user wrote there is meant for its pods. Does I/O.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt as _};

/// The owner could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{owner}: {source}")]
pub struct OwnerError {
    owner: String,
    source: kube::Error,
}

/// Annotations of the StatefulSet or Deployment that the pod belongs to; none where it belongs to none.
pub async fn owner_annotations(client: &Client, pod: &Pod) -> Result<BTreeMap<String, String>, OwnerError> {
    let Some(owner) = pod.owner_references().iter().find(|owner| owner.controller == Some(true)) else {
        return Ok(BTreeMap::new());
    };
    let namespace = pod.namespace().unwrap_or_default();
    let failed = |kind: &str, name: &str| {
        let owner = format!("{kind} {name}");
        move |source| OwnerError { owner, source }
    };
    Ok(match owner.kind.as_str() {
        "StatefulSet" => {
            let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &namespace);
            sets.get(&owner.name).await.map_err(failed(&owner.kind, &owner.name))?.annotations().clone()
        }
        "ReplicaSet" => {
            let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &namespace);
            let set = sets.get(&owner.name).await.map_err(failed(&owner.kind, &owner.name))?;
            match set.owner_references().iter().find(|owner| owner.kind == "Deployment") {
                Some(owner) => {
                    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
                    let found = deployments.get(&owner.name).await;
                    found.map_err(failed(&owner.kind, &owner.name))?.annotations().clone()
                }
                None => set.annotations().clone(),
            }
        }
        _ => BTreeMap::new(),
    })
}
