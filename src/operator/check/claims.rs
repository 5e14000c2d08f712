//! Which volumes of a pod are claims, which of them several nodes can mount at the same time, and what stands against moving
//! a pod with them. Pure: what the cluster says of them is an argument.
//!
//! Guarantees: a claim whose volume cannot come to another node is refused by name; one of which nothing is known counts as
//! one that a single node can mount.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, NodeSelector, PersistentVolume, PersistentVolumeSpec, PodSpec, Volume,
};
use serde::{Deserialize, Serialize};

use super::containers::is_sidecar;
use crate::api::{ANNOTATION_INIT, ANNOTATION_RESTART_FRESH, InitRun, InitRuns, Reason, init_run};
use crate::placement::{Place, Wishes, admits};

/// A claim that the pod mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// What the pod calls it.
    pub volume: String,
    pub claim: String,
    /// It can be mounted on the target only once the source's node has let go of it.
    pub one_node: bool,
    /// The volume that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<String>,
}

/// What is known of the claims of a pod.
#[derive(Clone, Debug, Default)]
pub enum Known {
    /// There is only a pod.
    #[default]
    Nothing,
    /// There is only a manifest: the access modes that claims ask for, by their names.
    Written(BTreeMap<String, Vec<String>>),
    /// Of each by its name; those that are not among them do not exist.
    All(BTreeMap<String, Claimed>),
}

/// What the cluster says of a claim.
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// What it is bound to.
    pub volume: Option<PersistentVolume>,
    /// Its driver needs it attached to a node before it is mounted there.
    pub attaches: bool,
    /// Another pod that mounts it, and does not end with this one.
    pub also_of: Option<String>,
    /// It goes once no pod mounts it.
    pub is_deleted: bool,
}

impl Claimed {
    fn spec(&self) -> Option<&PersistentVolumeSpec> {
        self.volume.as_ref()?.spec.as_ref()
    }

    /// Whether nodes can mount it at the same time, and why it must stay where it is.
    fn reach(&self) -> Result<Reach, String> {
        let Some(spec) = self.spec() else { return Err("bound to no volume".to_owned()) };
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let has = |wanted: &str| modes.iter().any(|mode| mode == wanted);
        let stays = match () {
            () if spec.host_path.is_some() => "a hostPath volume, another folder on another node",
            () if spec.local.is_some() => "a local volume, a disk of its node",
            () if spec.volume_mode.as_deref() == Some("Block") => "a block device",
            () if over_the_network(spec) || are_shared(modes) => return Ok(Reach::Several),
            // Kubernetes would attach it to both nodes at the same time.
            () if has("ReadOnlyMany") => {
                "a disk that lists ReadOnlyMany beside the mode in which it is written"
            }
            () if is_attached(spec, self.attaches) => return Ok(Reach::One),
            // Nothing would keep two nodes from mounting one disk.
            () => {
                "mounted without being attached, by a driver that may or may not share it: make it ReadWriteMany"
            }
        };
        Err(stays.to_owned())
    }
}

/// How many nodes mount a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Several,
    /// The attach/detach controller gives it to one after the other.
    One,
}

fn over_the_network(spec: &PersistentVolumeSpec) -> bool {
    spec.nfs.is_some() || spec.cephfs.is_some() || spec.glusterfs.is_some()
}

/// Kinds of Kubernetes' own that are attached, most of them by the driver that they were moved to.
fn is_attached(spec: &PersistentVolumeSpec, driver_attaches: bool) -> bool {
    let of_kubernetes = spec.aws_elastic_block_store.is_some()
        || spec.azure_disk.is_some()
        || spec.cinder.is_some()
        || spec.fc.is_some()
        || spec.gce_persistent_disk.is_some()
        || spec.iscsi.is_some()
        || spec.rbd.is_some()
        || spec.vsphere_volume.is_some();
    of_kubernetes || (spec.csi.is_some() && driver_attaches)
}

/// To whom it is mounted for writing where it can be, a volume is one node's if it could be many readers'.
fn are_shared(modes: &[String]) -> bool {
    let has = |wanted: &str| modes.iter().any(|mode| mode == wanted);
    has("ReadWriteMany") || (has("ReadOnlyMany") && !has("ReadWriteOnce"))
}

/// The claims of a pod.
pub fn of(spec: &PodSpec, known: &Known) -> Vec<Claim> {
    let one_node = |claim: &str| match known {
        Known::Nothing => true,
        Known::Written(modes) => modes.get(claim).is_none_or(|modes| !are_shared(modes)),
        Known::All(all) => all.get(claim).is_none_or(|claimed| claimed.reach() != Ok(Reach::Several)),
    };
    let bound = |claim: &str| match known {
        Known::Nothing | Known::Written(_) => None,
        Known::All(all) => all.get(claim)?.volume.as_ref()?.metadata.name.clone(),
    };
    let claims = names(spec).map(|(volume, claim)| Claim {
        volume: volume.to_owned(),
        claim: claim.to_owned(),
        one_node: one_node(claim),
        bound: bound(claim),
    });
    claims.collect()
}

/// Volumes that are claims: the pod's name for each, and the claim's.
pub fn names(spec: &PodSpec) -> impl Iterator<Item = (&str, &str)> {
    spec.volumes.iter().flatten().filter_map(|volume| {
        let claim = volume.persistent_volume_claim.as_ref()?;
        Some((volume.name.as_str(), claim.claim_name.as_str()))
    })
}

/// What stands against a move of the pod.
pub fn refusals(spec: &PodSpec, known: &Known) -> Vec<(Reason, String)> {
    let Known::All(all) = known else { return Vec::new() };
    let against = names(spec).filter_map(|(_, claim)| {
        let lasts = |why: String| Some((Reason::VolumeNotSharable, why));
        let Some(claimed) = all.get(claim) else { return lasts(format!("claim `{claim}` is not there")) };
        if claimed.is_deleted {
            return lasts(format!("claim `{claim}` is being deleted: the next pod gets another volume"));
        }
        let reach = match claimed.reach() {
            Ok(reach) => reach,
            Err(what) if claimed.volume.is_none() => return lasts(format!("claim `{claim}` is {what}")),
            Err(what) => return lasts(format!("claim `{claim}` is {what}: use a volume that another node can mount")),
        };
        let other = claimed.also_of.as_ref().filter(|_| reach == Reach::One)?;
        let why = format!(
            "pod {other} mounts claim `{claim}` too, and its volume is one node's at a time: move or end that pod first"
        );
        Some((Reason::VolumeInUse, why))
    });
    against.collect()
}

/// Whether the pod may write to a volume that outlives it: a claim or NFS that is not mounted for reading only.
pub fn outlived(spec: &PodSpec) -> bool {
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.into_iter().any(|container| writes_to(spec, container).is_some())
}

/// Such a volume that this container may write to.
fn writes_to<'a>(spec: &'a PodSpec, container: &Container) -> Option<&'a str> {
    let outlives = |volume: &&Volume| {
        let claim = volume.persistent_volume_claim.as_ref().map(|claim| claim.read_only);
        let nfs = volume.nfs.as_ref().map(|nfs| nfs.read_only);
        claim.or(nfs).is_some_and(|read_only| read_only != Some(true))
    };
    let mounts = |volume: &&Volume| {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.into_iter().any(|mount| mount.name == volume.name && mount.read_only != Some(true))
    };
    let found = spec.volumes.iter().flatten().filter(outlives).find(mounts)?;
    Some(found.name.as_str())
}

/// Containers that would write to such a volume before the pod is back as a whole.
pub fn forerunners(spec: &PodSpec, init: &InitRuns, fresh: &[String]) -> Vec<(Reason, String)> {
    let is_fresh = |container: &Container| fresh.contains(&container.name);
    let runs_before = |container: &&Container| {
        if is_fresh(container) {
            return true;
        }
        if is_sidecar(container) {
            return container.startup_probe.is_some();
        }
        init_run(init, &container.name, container.security_context.as_ref()) == InitRun::Run
    };
    let anew = spec.containers.iter().filter(|container| is_fresh(container));
    let all = spec.init_containers.iter().flatten().filter(runs_before).chain(anew);
    let found = all.filter_map(|container| {
        let (name, volume) = (&container.name, writes_to(spec, container)?);
        let remedy = if is_fresh(container) {
            format!("take it out of {ANNOTATION_RESTART_FRESH}, or mount that volume read-only")
        } else if is_sidecar(container) {
            "leave its startup probe out".to_owned()
        } else {
            format!("set {ANNOTATION_INIT}: {name}=Skip")
        };
        let why = format!(
            "`{name}` runs before the others are restored, and writes to volume `{volume}`, which they know as it was: {remedy}"
        );
        Some((Reason::VolumeNotSharable, why))
    });
    found.collect()
}

/// A claim whose volume none of these nodes can have, of which there are some; the source's is not among them.
pub fn bound_to_source<'a>(known: &'a Known, others: &[Place<'_>]) -> Option<&'a str> {
    let Known::All(all) = known else { return None };
    let fits = |selector: &NodeSelector| {
        let wishes = Wishes { required: Some(selector), ..Wishes::default() };
        // Taints are another matter, and come and go.
        others.iter().any(|node| admits(&wishes, &Place { taints: &[], ..*node }).is_ok())
    };
    let stays = |claimed: &Claimed| required(claimed).is_some_and(|selector| !fits(selector));
    let bound = all.iter().find(|(_, claimed)| stays(claimed)).map(|(name, _)| name.as_str());
    bound.filter(|_| !others.is_empty())
}

fn required(claimed: &Claimed) -> Option<&NodeSelector> {
    claimed.spec()?.node_affinity.as_ref()?.required.as_ref()
}

/// What its move costs a pod with this claim, which one node can mount at a time.
pub fn cost(claim: &str, known: &Known) -> String {
    let unless = match known {
        // A driver may do more than is asked of it.
        Known::Nothing | Known::Written(_) => ", unless several nodes can mount it",
        Known::All(_) => "",
    };
    format!(
        "claim `{claim}`: the pod stands still while its volume is detached from one node and attached to the other{unless}"
    )
}

/// Where the volumes of a pod can be: a node must fit each of them.
pub fn whereabouts(known: &Known) -> Vec<NodeSelector> {
    let Known::All(all) = known else { return Vec::new() };
    all.values().filter_map(required).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claimed(spec: Value, attaches: bool) -> Claimed {
        let volume = serde_json::from_value(json!({ "metadata": { "name": "pv" }, "spec": spec })).unwrap();
        Claimed { volume: Some(volume), attaches, ..Claimed::default() }
    }

    fn csi(mode: &str) -> Value {
        json!({ "accessModes": [mode], "csi": { "driver": "d", "volumeHandle": "h" } })
    }

    fn pod() -> PodSpec {
        serde_json::from_value(json!({ "containers": [], "volumes": [{ "name": "data",
            "persistentVolumeClaim": { "claimName": "data-web-0" } }, { "name": "tmp", "emptyDir": {} }] }))
        .unwrap()
    }

    fn known(claimed: Claimed) -> Known {
        Known::All([("data-web-0".to_owned(), claimed)].into())
    }

    #[test]
    fn what_several_nodes_can_mount_is_told_from_mode_and_kind() {
        let nfs = json!({ "accessModes": ["ReadWriteOnce"], "nfs": { "server": "s", "path": "/" } });
        let disk = json!({ "accessModes": ["ReadWriteOnce"],
            "awsElasticBlockStore": { "volumeID": "vol-1" } });
        for (source, attaches, one_node) in [
            (csi("ReadWriteOnce"), true, true),
            (csi("ReadWriteOncePod"), true, true),
            (csi("ReadWriteMany"), true, false),
            (csi("ReadWriteMany"), false, false),
            (csi("ReadOnlyMany"), true, false),
            (nfs, true, false),
            (disk, true, true),
        ] {
            let claimed = claimed(source, attaches);
            let known = known(claimed.clone());
            let bound = Some("pv".into());
            let wanted = Claim { volume: "data".into(), claim: "data-web-0".into(), one_node, bound };
            assert_eq!((of(&pod(), &known), refusals(&pod(), &known)), (vec![wanted], vec![]), "{claimed:?}");
        }
        assert!(of(&pod(), &Known::Nothing)[0].one_node, "nobody knows");
        let written = |modes: &[&str]| {
            let modes = modes.iter().map(|mode| (*mode).to_owned()).collect();
            of(&pod(), &Known::Written([("data-web-0".to_owned(), modes)].into()))[0].one_node
        };
        assert!(!written(&["ReadWriteMany"]) && !written(&["ReadOnlyMany"]));
        assert!(written(&["ReadWriteOnce", "ReadOnlyMany"]), "many may read it, and it writes");
    }

    #[test]
    fn what_cannot_leave_its_node_or_is_kept_apart_by_nobody_is_refused_by_name() {
        let local = json!({ "accessModes": ["ReadWriteOnce"], "local": { "path": "/d" } });
        let host = json!({ "accessModes": ["ReadWriteMany"], "hostPath": { "path": "/d" } });
        let (mut block, mut both) = (csi("ReadWriteOnce"), csi("ReadWriteOnce"));
        block["volumeMode"] = "Block".into();
        both["accessModes"] = json!(["ReadWriteOnce", "ReadOnlyMany"]);
        let all: [(&dyn Fn() -> Claimed, &str); 7] = [
            (&|| claimed(local.clone(), false), "local volume"),
            (&|| claimed(host.clone(), false), "hostPath"),
            (&|| claimed(block.clone(), true), "block device"),
            (&|| claimed(both.clone(), true), "lists ReadOnlyMany"),
            (&|| claimed(csi("ReadWriteOnce"), false), "without being attached"),
            (&|| Claimed { is_deleted: true, ..claimed(csi("ReadWriteOnce"), true) }, "being deleted"),
            (&Claimed::default, "bound to no volume"),
        ];
        for (claimed, word) in all {
            let claimed = claimed();
            let against = refusals(&pod(), &known(claimed));
            assert_eq!(against.len(), 1, "{word}");
            let (reason, why) = &against[0];
            assert_eq!(*reason, Reason::VolumeNotSharable);
            assert!(why.contains("`data-web-0`") && why.contains(word), "{why}");
        }
        assert_eq!(refusals(&pod(), &Known::All(BTreeMap::new()))[0].1, "claim `data-web-0` is not there");
        assert_eq!(refusals(&pod(), &Known::Nothing), []);
    }

    #[test]
    fn whoever_writes_to_such_a_volume_before_the_others_are_back_is_refused() {
        let spec = |init: Value, read_only: bool| -> PodSpec {
            let mut init = init;
            init["volumeMounts"] = json!([{ "name": "data", "mountPath": "/d", "readOnly": read_only }]);
            let mut spec = pod();
            spec.init_containers = serde_json::from_value(json!([init])).unwrap();
            spec
        };
        let setup = json!({ "name": "own", "securityContext": { "privileged": true } });
        let sidecar = json!({ "name": "proxy", "restartPolicy": "Always", "startupProbe": {} });
        let told = |spec: &PodSpec, init| -> Vec<String> {
            forerunners(spec, init, &["ship".to_owned()]).into_iter().map(|(_, why)| why).collect()
        };
        let none = InitRuns::new();
        assert!(told(&spec(setup.clone(), false), &none)[0].contains("migration.ms2m.io/init: own=Skip"));
        assert!(told(&spec(sidecar, false), &none)[0].contains("startup probe"));
        assert!(told(&spec(setup.clone(), true), &none).is_empty());
        let mut ship = spec(setup.clone(), true);
        let mounts = json!([{ "name": "data", "mountPath": "/d" }]);
        ship.containers
            .push(serde_json::from_value(json!({ "name": "ship", "volumeMounts": mounts })).unwrap());
        assert!(told(&ship, &none)[0].contains("take it out of migration.ms2m.io/restart-fresh"));
        assert!(told(&spec(json!({ "name": "fill" }), false), &none).is_empty(), "it does not run again");
        assert!(told(&spec(setup.clone(), false), &[("own".to_owned(), InitRun::Skip)].into()).is_empty());
        assert!(outlived(&spec(setup.clone(), false)) && !outlived(&spec(setup, true)) && !outlived(&pod()));
    }

    #[test]
    fn one_that_another_pod_holds_too_does_not_come_along() {
        let also = |claimed| Claimed { also_of: Some("web-1".into()), ..claimed };
        let against = refusals(&pod(), &known(also(claimed(csi("ReadWriteOnce"), true))));
        assert!(against[0].0 == Reason::VolumeInUse && against[0].1.contains("pod web-1"));
        assert_eq!(refusals(&pod(), &known(also(claimed(csi("ReadWriteMany"), true)))), []);
    }

    #[test]
    fn a_volume_that_is_bound_to_a_zone_says_so() {
        let mut zoned = csi("ReadWriteOnce");
        zoned["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] }] } });
        let zoned = known(claimed(zoned, true));
        let found = whereabouts(&zoned);
        let labels = |zone: &str| [("zone".to_owned(), zone.to_owned())].into();
        let (in_a, in_b) = (labels("a"), labels("b"));
        let place = |labels| Place { name: "n", labels: Some(labels), ..Place::default() };
        assert_eq!(bound_to_source(&zoned, &[place(&in_b)]), Some("data-web-0"));
        assert_eq!(bound_to_source(&zoned, &[place(&in_b), place(&in_a)]), None);
        assert_eq!(bound_to_source(&zoned, &[]), None, "nobody knows where the next node will be");
        assert_eq!(found[0].node_selector_terms.len(), 1);
        assert!(whereabouts(&known(claimed(csi("ReadWriteOnce"), true))).is_empty());
    }
}
