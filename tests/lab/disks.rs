//! Volumes that pods claim: disks that one node at a time can have, and folders that all can mount, by the cluster's own
//! drivers, with Kubernetes' attach/detach controller between.

use serde_json::{Value, json};

use super::{Lab, Result};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// Attached to one node.
    Disk,
    /// Mounted by any node.
    Folder,
}

impl Lab {
    /// A new, empty volume and a claim of that name that is bound to it; only on this node, if one is named.
    pub async fn claim(&self, name: &str, volume: Volume, only: Option<&str>) -> Result {
        self.cluster.volume(name, "new").await?;
        // Of an earlier run, which has no claim any more.
        let argv = ["delete", "persistentvolume", name, "--ignore-not-found", "--timeout=60s"];
        self.cluster.kubectl(&argv).await?;
        self.cluster.apply(&objects(name, volume, only, &self.namespace)).await
    }
}

fn objects(name: &str, volume: Volume, only: Option<&str>, namespace: &str) -> [Value; 2] {
    let (driver, mode) = match volume {
        Volume::Disk => ("disks.csi.test", "ReadWriteOnce"),
        Volume::Folder => ("folders.csi.test", "ReadWriteMany"),
    };
    let mut made = json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": {
        "accessModes": [mode], "capacity": { "storage": "1Gi" }, "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "", "csi": { "driver": driver, "volumeHandle": name },
        "claimRef": { "name": name, "namespace": namespace } } });
    if volume == Volume::Disk {
        made["spec"]["csi"]["fsType"] = "ext4".into();
    }
    if let Some(node) = only {
        made["spec"]["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [
            { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }] } });
    }
    let claim = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": name, "namespace": namespace }, "spec": { "accessModes": [mode], "storageClassName": "",
            "volumeName": name, "resources": { "requests": { "storage": "1Gi" } } } });
    [made, claim]
}

/// A pod's spec that mounts this claim there.
pub fn mounts(claim: &str, at: &str) -> Value {
    json!({ "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": claim } }],
        "containers": [{ "volumeMounts": [{ "name": "data", "mountPath": at }] }] })
}
