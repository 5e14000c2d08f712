//! What a bundle's `config.json` says about its container. Reads the bundle and the pod's hosts file, writes nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{CreateError, hosts};
use crate::api::{
    ANNOTATION_AT_ONCE, ANNOTATION_FRESH_CONTAINERS, ANNOTATION_INIT_CONTAINERS, ANNOTATION_TICKET,
    ClaimRequest, InitRun, InitRuns, TicketId, pod_folder,
};

/// Annotations of containerd, then of CRI-O.
pub(super) const TYPE: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
const POD_UID: [&str; 2] = ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];
const CONTAINER_NAME: [&str; 2] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name"];
/// CRI-O keeps the kubelet's labels as one JSON object in this annotation.
const CRIO_LABELS: &str = "io.kubernetes.cri-o.Labels";

/// A bundle whose container shows a ticket.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    config: Config,
}

#[derive(Debug, Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    process: Process,
    root: Root,
    #[serde(default)]
    mounts: Vec<Mount>,
    #[serde(default)]
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: PathBuf,
}

#[derive(Debug, Default, Deserialize)]
struct Process {
    #[serde(default)]
    env: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(default)]
    source: PathBuf,
}

impl Bundle {
    /// The bundle in `dir`, if it is of a container (no sandbox) with a ticket. A file that cannot be read or
    /// understood is no business of ours: runc will say what is wrong with it.
    pub fn with_ticket(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join("config.json")).ok()?;
        if !text.contains(ANNOTATION_TICKET) {
            return None;
        }
        let config: Config = serde_json::from_str(&text).ok()?;
        let is_ours = config.annotations.contains_key(ANNOTATION_TICKET)
            && config.annotation(&TYPE).as_deref() == Some("container");
        is_ours.then(|| Self { dir: dir.to_owned(), config })
    }

    /// Its `config.json`, as it is.
    pub fn config_text(&self) -> std::io::Result<String> {
        fs::read_to_string(self.dir.join("config.json"))
    }

    /// Root file system of the container, mounted by the caller of the runtime.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join(&self.config.root.path)
    }

    /// Folder for CRIU's log and statistics.
    pub fn work_dir(&self) -> PathBuf {
        self.dir.join("criu")
    }

    /// Destination and source of each mount, as the engine made them.
    pub fn mounts(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.config.mounts.iter().map(|mount| (mount.destination.as_path(), mount.source.as_path()))
    }

    /// The kubelet's folder of the pod, by what it has mounted from there.
    pub fn pod_folder(&self) -> Option<PathBuf> {
        let pod = self.config.annotation(&POD_UID)?;
        self.config.mounts.iter().find_map(|mount| pod_folder(&mount.source, &pod))
    }

    /// The sandbox's namespace that the container joins, `network` or `ipc`; nothing where it has its own or the node's.
    pub fn namespace(&self, kind: &str) -> Option<&Path> {
        let found = self.config.linux.namespaces.iter().find(|namespace| namespace.kind == kind)?;
        Some(found.path.as_path()).filter(|path| path.is_absolute())
    }

    /// It gets a cgroup namespace of its own.
    pub fn has_own_cgroup_namespace(&self) -> bool {
        let mut namespaces = self.config.linux.namespaces.iter();
        namespaces.any(|namespace| namespace.kind == "cgroup" && namespace.path.as_os_str().is_empty())
    }

    /// An annotation of the container, by the first of these names that it has.
    pub fn annotation(&self, keys: &[&str]) -> Option<String> {
        self.config.annotation(keys)
    }

    /// What becomes of it, if it is an init container.
    pub fn init_run(&self) -> Option<InitRun> {
        let runs = self.config.annotation(&[ANNOTATION_INIT_CONTAINERS])?;
        let runs: InitRuns = serde_json::from_str(&runs).ok()?;
        runs.get(&self.container()?).copied()
    }

    /// It is in the list that this annotation holds.
    fn is_named_in(&self, key: &str) -> bool {
        let (Some(list), Some(own)) = (self.config.annotation(&[key]), self.container()) else {
            return false;
        };
        list.split(',').any(|name| name == own)
    }

    /// Its name in the pod.
    pub fn container(&self) -> Option<String> {
        self.config.annotation(&CONTAINER_NAME)
    }

    /// What the agent needs to know to hand out the archive.
    pub fn claim(&self, id: &OsStr) -> Result<ClaimRequest, CreateError> {
        let missing = |what: &str| CreateError::Ticket(format!("config.json does not say the {what}"));
        let text = self.config.annotations.get(ANNOTATION_TICKET).map_or("", String::as_str);
        let ticket: TicketId =
            text.parse().map_err(|e| CreateError::Ticket(format!("annotation {ANNOTATION_TICKET}: {e}")))?;
        Ok(ClaimRequest {
            ticket,
            pod: self.config.annotation(&POD_UID).ok_or_else(|| missing("UID of the pod"))?.into(),
            container: self
                .config
                .annotation(&CONTAINER_NAME)
                .ok_or_else(|| missing("name of the container"))?,
            container_id: id.to_str().ok_or_else(|| missing("id of the container in UTF-8"))?.to_owned(),
            pod_ip: self.pod_ip(),
            init: self.init_run() == Some(InitRun::Skip),
            fresh: self.is_named_in(ANNOTATION_FRESH_CONTAINERS),
            at_once: self.is_named_in(ANNOTATION_AT_ONCE),
        })
    }

    /// As the kubelet wrote it into the pod's hosts file, if it did.
    pub fn pod_ip(&self) -> Option<String> {
        let mount = self.config.mounts.iter().find(|m| m.destination == Path::new("/etc/hosts"))?;
        let hosts = fs::read_to_string(&mount.source).ok()?;
        hosts::pod_ip(&hosts, self.config.hostname()?)
    }
}

impl Config {
    fn annotation(&self, keys: &[&str]) -> Option<String> {
        let direct = keys.iter().find_map(|key| self.annotations.get(*key)).cloned();
        direct.or_else(|| {
            let labels = self.annotations.get(CRIO_LABELS)?;
            let labels: BTreeMap<String, String> = serde_json::from_str(labels).ok()?;
            keys.iter().find_map(|key| labels.get(*key)).cloned()
        })
    }

    /// CRI-O writes it, containerd leaves it to the sandbox and tells the process only.
    fn hostname(&self) -> Option<&str> {
        let told = || self.process.env.iter().find_map(|e| e.strip_prefix("HOSTNAME="));
        Some(self.hostname.as_str()).filter(|h| !h.is_empty()).or_else(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(annotations: &serde_json::Value) -> (tempfile::TempDir, Option<Bundle>) {
        let dir = tempfile::tempdir().unwrap();
        let hosts = dir.path().join("hosts");
        fs::write(&hosts, "# Kubernetes-managed hosts file.\n127.0.0.1 localhost\n10.1.2.3 web-0\n").unwrap();
        let config = serde_json::json!({
            "ociVersion": "1.2.0", "annotations": annotations, "root": {"path": "rootfs"},
            "process": {"env": ["PATH=/bin", "HOSTNAME=web-0"]},
            "mounts": [{"destination": "/proc"}, {"destination": "/etc/hosts", "source": hosts}],
        });
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let bundle = Bundle::with_ticket(dir.path());
        (dir, bundle)
    }

    #[test]
    fn a_container_of_containerd_with_a_ticket_claims_it() {
        let (dir, bundle) = bundle(&serde_json::json!({
            "migration.ms2m.io/ticket": "0b5c.2.shadow", "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-uid": "u-1", "io.kubernetes.cri.container-name": "app",
        }));
        let bundle = bundle.unwrap();
        let claim = bundle.claim(OsStr::new("abc")).unwrap();
        assert_eq!(claim.ticket.to_string(), "0b5c.2.shadow");
        assert_eq!(
            (claim.pod.as_str(), claim.container.as_str(), claim.container_id.as_str()),
            ("u-1", "app", "abc")
        );
        assert_eq!(claim.pod_ip.as_deref(), Some("10.1.2.3"));
        assert_eq!(bundle.rootfs(), dir.path().join("rootfs"));
    }

    #[test]
    fn a_container_of_cri_o_says_the_same_in_its_labels() {
        let (_dir, bundle) = bundle(&serde_json::json!({
            "migration.ms2m.io/ticket": "0b5c.2.replacement", "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.Labels": r#"{"io.kubernetes.pod.uid":"u-2","io.kubernetes.container.name":"app"}"#,
        }));
        let claim = bundle.unwrap().claim(OsStr::new("abc")).unwrap();
        assert_eq!((claim.pod.as_str(), claim.container.as_str()), ("u-2", "app"));
    }

    #[test]
    fn sandboxes_and_containers_without_a_ticket_are_none_of_our_business() {
        for annotations in [
            serde_json::json!({"migration.ms2m.io/ticket": "0b5c.2.shadow", "io.kubernetes.cri.container-type": "sandbox"}),
            serde_json::json!({"migration.ms2m.io/ticket": "0b5c.2.shadow"}),
            serde_json::json!({"io.kubernetes.cri.container-type": "container"}),
            serde_json::json!({}),
        ] {
            assert!(bundle(&annotations).1.is_none(), "{annotations}");
        }
    }

    #[test]
    fn an_unreadable_bundle_is_none_of_our_business() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Bundle::with_ticket(dir.path()).is_none());
        fs::write(dir.path().join("config.json"), "{\"migration.ms2m.io/ticket\"").unwrap();
        assert!(Bundle::with_ticket(dir.path()).is_none());
    }

    #[test]
    fn a_broken_ticket_is_refused_and_not_ignored() {
        let (_dir, bundle) = bundle(&serde_json::json!({
            "migration.ms2m.io/ticket": "../x.1.shadow", "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-uid": "u-1", "io.kubernetes.cri.container-name": "app",
        }));
        let error = bundle.unwrap().claim(OsStr::new("abc")).unwrap_err();
        assert!(error.to_string().contains("../x.1.shadow"), "{error}");
    }
}
