//! Which volumes of a pod are claims, which of them several nodes can mount at the same time, and what stands against moving
//! a pod with them. Pure: what the cluster says of them is an argument.
//!
//! Guarantees: a claim whose volume cannot come to another node is refused by name; one of which nothing is known counts as
//! one that a single node can mount.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeSpec, PodSpec};
use serde::{Deserialize, Serialize};

use crate::api::Reason;
use crate::placement::{Place, Wishes, admits};

/// Modes in which several nodes mount a volume.
const SHARED: [&str; 2] = ["ReadWriteMany", "ReadOnlyMany"];
/// One pod and no other, whatever the driver could.
const ONE_POD: &str = "ReadWriteOncePod";

/// A claim that the pod mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// What the pod calls it.
    pub volume: String,
    pub claim: String,
    /// It can be mounted on the target only once the source's node has let go of it.
    pub one_node: bool,
}

/// What is known of the claims of a pod.
#[derive(Clone, Debug, Default)]
pub enum Known {
    /// There is only a manifest.
    #[default]
    Nothing,
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
}

impl Claimed {
    fn spec(&self) -> Option<&PersistentVolumeSpec> {
        self.volume.as_ref()?.spec.as_ref()
    }

    fn is_one_nodes(&self) -> bool {
        let Some(spec) = self.spec() else { return true };
        let has =
            |wanted: &[&str]| spec.access_modes.iter().flatten().any(|mode| wanted.contains(&mode.as_str()));
        if has(&[ONE_POD]) {
            return true;
        }
        let over_the_network = spec.nfs.is_some() || spec.cephfs.is_some() || spec.glusterfs.is_some();
        !(has(&SHARED) || over_the_network || (spec.csi.is_some() && !self.attaches))
    }

    /// What keeps its volume on the node that it is on.
    fn stays(&self) -> Option<&'static str> {
        let spec = self.spec()?;
        match () {
            () if spec.host_path.is_some() => Some("a hostPath volume, another folder on another node"),
            () if spec.local.is_some() => Some("a local volume, a disk of its node"),
            () if spec.volume_mode.as_deref() == Some("Block") => Some("a block device"),
            () => None,
        }
    }
}

/// The claims of a pod.
pub fn of(spec: &PodSpec, known: &Known) -> Vec<Claim> {
    let one_node = |claim: &str| match known {
        Known::Nothing => true,
        Known::All(all) => all.get(claim).is_none_or(Claimed::is_one_nodes),
    };
    let claims = names(spec).map(|(volume, claim)| Claim {
        volume: volume.to_owned(),
        claim: claim.to_owned(),
        one_node: one_node(claim),
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
        if claimed.volume.is_none() {
            return lasts(format!("claim `{claim}` is bound to no volume"));
        }
        if let Some(what) = claimed.stays() {
            return lasts(format!("claim `{claim}` is {what}: use a volume that another node can mount"));
        }
        let other = claimed.also_of.as_ref().filter(|_| claimed.is_one_nodes())?;
        let why = format!(
            "pod {other} mounts claim `{claim}` too, and its volume is one node's at a time: move or end that pod first"
        );
        Some((Reason::VolumeInUse, why))
    });
    against.collect()
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
        Known::Nothing => ", unless several nodes can mount it",
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
        Claimed { volume: Some(volume), attaches, also_of: None }
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
    fn what_several_nodes_can_mount_is_told_from_mode_driver_and_kind() {
        let nfs = json!({ "accessModes": ["ReadWriteOnce"], "nfs": { "server": "s", "path": "/" } });
        for (claimed, one_node) in [
            (claimed(csi("ReadWriteOnce"), true), true),
            (claimed(csi("ReadWriteOnce"), false), false),
            (claimed(csi("ReadWriteMany"), true), false),
            (claimed(csi(ONE_POD), false), true),
            (claimed(nfs, true), false),
            (Claimed::default(), true),
        ] {
            let found = of(&pod(), &known(claimed.clone()));
            let wanted = Claim { volume: "data".into(), claim: "data-web-0".into(), one_node };
            assert_eq!(found, [wanted], "{claimed:?}");
        }
        assert!(of(&pod(), &Known::Nothing)[0].one_node, "of a manifest nobody knows");
    }

    #[test]
    fn what_cannot_leave_its_node_is_refused_by_name() {
        let local = json!({ "accessModes": ["ReadWriteOnce"], "local": { "path": "/d" } });
        let host = json!({ "accessModes": ["ReadWriteMany"], "hostPath": { "path": "/d" } });
        let mut block = csi("ReadWriteOnce");
        block["volumeMode"] = "Block".into();
        for (claimed, word) in [
            (claimed(local, false), "local volume"),
            (claimed(host, false), "hostPath"),
            (claimed(block, true), "block device"),
            (Claimed::default(), "bound to no volume"),
        ] {
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
