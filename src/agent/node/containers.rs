//! Which containers run on this node: derived from the runtime's own folders, never kept. Reads files only.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::engine::Engine;
use super::freezer::Freezer;
use super::host::Host;
use super::memory::Memory;
use super::overlay::upper_dir;
use crate::api::{ContainerRef, PodContainers, PodUid};

/// A running container.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    /// Folder given to runc as `--root` (path on the node).
    pub runc_root: PathBuf,
    /// Its bundle (path on the node).
    pub bundle: PathBuf,
    pub freezer: Freezer,
    /// Its first process, as we see it.
    pub pid: u32,
    /// To guess the size of a dump.
    pub memory: Memory,
    started: u64,
}

/// The runtime's folders could not be read or understood.
#[derive(Debug, thiserror::Error)]
#[error("containers of this node: {}: {source}", path.display())]
pub struct ScanError {
    path: PathBuf,
    source: io::Error,
}

/// Where a container runtime keeps its bundles and runc's state (paths on the node).
#[derive(Clone, Debug)]
struct Layout {
    bundles: PathBuf,
    /// Folder with a folder for each container, in which the engine keeps what it knows of it.
    records: PathBuf,
}

/// Given to runc as `--root` by containerd's shim, wherever containerd's own folders are.
const RUNC_ROOT: &str = "/run/containerd/runc/k8s.io";
const CONFIG: &str = "config.json";
/// Annotation of a bundle.
pub const POD_UID: &str = "io.kubernetes.cri.sandbox-uid";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// The kubelet's folder of a pod; it outlives a reboot of the node.
const KUBELET_PODS: &str = "/var/lib/kubelet/pods";

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// What the engine has put on record, times in nanoseconds.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Record {
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    started_at: i64,
    #[serde(default)]
    finished_at: i64,
    #[serde(default)]
    exit_code: i32,
}

#[derive(Deserialize)]
struct RuncState {
    init_process_pid: u32,
    init_process_start: u64,
    #[serde(default)]
    cgroup_paths: BTreeMap<String, PathBuf>,
}

/// The containers of this node.
#[derive(Clone, Debug)]
pub struct Containers {
    host: Host,
    layout: Layout,
}

impl Containers {
    /// Those of a containerd whose folders are where they usually are.
    pub fn new(host: Host) -> Self {
        Self::of(host, &Engine::default())
    }

    pub fn of(host: Host, engine: &Engine) -> Self {
        Self { host, layout: Layout { bundles: engine.bundles(), records: engine.records() } }
    }

    /// The newest running container of that name in that pod object. `None` is certain: it does not run.
    pub fn find(&self, wanted: &ContainerRef) -> Result<Option<Container>, ScanError> {
        let mut newest: Option<Container> = None;
        for (id, config) in self.of_pod(&wanted.pod.uid)? {
            if config.annotations.get(CONTAINER_NAME) != Some(&wanted.container) {
                continue;
            }
            if let Some(container) = self.by_id(&id)?
                && newest.as_ref().is_none_or(|newest| newest.started < container.started)
            {
                newest = Some(container);
            }
        }
        Ok(newest)
    }

    /// Names of further containers of the pod that run here.
    pub fn others(&self, of: &PodContainers) -> Result<Vec<String>, ScanError> {
        let is_of = |name: &&String| of.all().any(|one| one.container == **name);
        let mut found = Vec::new();
        for (id, config) in self.of_pod(&of.pod.uid)? {
            let name = config.annotations.get(CONTAINER_NAME).filter(|name| !is_of(name));
            if let Some(name) = name
                && self.by_id(&id)?.is_some()
            {
                found.push(name.clone());
            }
        }
        Ok(found)
    }

    /// It runs, and not under runc: by the engine's records it has a process, and runc knows nothing of it.
    pub fn is_under_another_runtime(&self, wanted: &ContainerRef) -> Result<bool, ScanError> {
        for (id, config) in self.of_pod(&wanted.pod.uid)? {
            let is_wanted = config.annotations.get(CONTAINER_NAME) == Some(&wanted.container);
            let runs = |record: Record| {
                record.started_at > 0 && record.finished_at == 0 && start_time(record.pid).is_some()
            };
            if is_wanted && self.record(&id).is_some_and(runs) && self.on_record(&id)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Something of this pod may still be on the node.
    pub fn knows_pod(&self, pod: &PodUid) -> bool {
        self.has_task(pod) || self.host.path(Path::new(KUBELET_PODS)).join(pod.as_str()).exists()
    }

    /// A sandbox or container of this pod may still have a bundle.
    pub fn has_task(&self, pod: &PodUid) -> bool {
        self.of_pod(pod).map_or(true, |bundles| !bundles.is_empty())
    }

    /// The engine has started it for good. Until it has put that on record it kills what it started if its client goes
    /// away: a kubelet that dies takes containers with it whose `create` has long succeeded. An engine that keeps its
    /// records elsewhere is taken at its word: it makes them before the bundle.
    pub fn has_started(&self, id: &str) -> bool {
        let records = self.host.path(&self.layout.records);
        if !records.join(id).is_dir() {
            return !records.is_dir() || self.host.path(&self.layout.bundles).join(id).is_dir();
        }
        self.record(id).is_some_and(|record| record.started_at > 0 && record.finished_at == 0)
    }

    /// How it ended, if the engine has put that on record.
    pub fn exit_code(&self, id: &str) -> Option<i32> {
        self.record(id).filter(|record| record.finished_at > 0).map(|record| record.exit_code)
    }

    fn record(&self, id: &str) -> Option<Record> {
        let record = self.host.path(&self.layout.records).join(id).join("status");
        serde_json::from_str(&fs::read_to_string(record).ok()?).ok()
    }

    /// The container of that ID, if its first process lives. `None` is certain.
    pub fn by_id(&self, id: &str) -> Result<Option<Container>, ScanError> {
        let Some(container) = self.on_record(id)? else { return Ok(None) };
        // Gone, and perhaps another process has that PID by now?
        Ok(container.lives().then_some(container))
    }

    /// The container of that ID, as long as runc knows it: something of it may be left when its first process is gone.
    pub fn on_record(&self, id: &str) -> Result<Option<Container>, ScanError> {
        if id.is_empty() || id.contains('/') {
            return Ok(None); // the ID of no container, and no way to another folder
        }
        let runc_root = PathBuf::from(RUNC_ROOT);
        let path = self.host.path(&runc_root).join(id).join("state.json");
        let Some(text) = existing(&path)? else { return Ok(None) };
        let state: RuncState = parsed(&path, &text)?;
        let cgroup = |name: &str| state.cgroup_paths.get(name).map(|path| self.host.path(path));
        let freezer = cgroup("freezer").map(Freezer::V1).or_else(|| cgroup("").map(Freezer::V2));
        let freezer = freezer.ok_or_else(|| ScanError {
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, "names no freezer cgroup"),
        })?;
        Ok(Some(Container {
            bundle: self.layout.bundles.join(id),
            id: id.to_owned(),
            runc_root,
            freezer,
            pid: state.init_process_pid,
            memory: Memory { memory: cgroup("memory").or_else(|| cgroup("")), hugetlb: cgroup("hugetlb") },
            started: state.init_process_start,
        }))
    }

    fn of_pod(&self, pod: &PodUid) -> Result<Vec<(String, Config)>, ScanError> {
        let dir = self.host.path(&self.layout.bundles);
        let at = |source| ScanError { path: dir.clone(), source };
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(at)? {
            let entry = entry.map_err(at)?;
            let path = entry.path().join(CONFIG);
            let Some(text) = existing(&path)? else { continue };
            if !text.contains(pod.as_str()) {
                continue; // most of them: spares the parsing
            }
            let config: Config = parsed(&path, &text)?;
            if config.annotations.get(POD_UID).map(String::as_str) == Some(pod.as_str()) {
                found.push((entry.file_name().to_string_lossy().into_owned(), config));
            }
        }
        Ok(found)
    }

    /// Where the container's changed files lie, as we reach it; nothing without an overlay.
    pub fn upper_dir(&self, container: &Container) -> Result<Option<PathBuf>, ScanError> {
        let path = PathBuf::from("/proc/1/mountinfo");
        let text = existing(&path)?.unwrap_or_default();
        Ok(upper_dir(&text, &container.bundle.join("rootfs")).map(|upper| self.host.path(&upper)))
    }
}

/// The file's text; nothing if it is not there (any more).
fn existing(path: &Path) -> Result<Option<String>, ScanError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ScanError { path: path.to_owned(), source }),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ScanError> {
    serde_json::from_str(text).map_err(|error| ScanError { path: path.to_owned(), source: error.into() })
}

impl Container {
    /// Its first process lives.
    pub fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }
}

/// Start time of a process in clock ticks, as runc records it; nothing for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; after it come state and 18 more fields before the start time.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PodIdentity;

    fn wanted(uid: &str, container: &str) -> ContainerRef {
        let pod = PodIdentity { namespace: "d".into(), name: "web-0".into(), uid: uid.into() };
        ContainerRef { pod, container: container.into() }
    }

    fn add(root: &Path, id: &str, uid: &str, name: Option<&str>, start: u64) {
        let bundle = Host::at(root).path(&Engine::default().bundles()).join(id);
        fs::create_dir_all(&bundle).unwrap();
        let mut annotations = serde_json::json!({POD_UID: uid});
        if let Some(name) = name {
            annotations[CONTAINER_NAME] = name.into();
        }
        fs::write(bundle.join("config.json"), serde_json::json!({"annotations": annotations}).to_string())
            .unwrap();
        let state = root.join(&RUNC_ROOT[1..]).join(id);
        fs::create_dir_all(&state).unwrap();
        let text = serde_json::json!({
            "init_process_pid": std::process::id(), "init_process_start": start,
            "cgroup_paths": {"freezer": "/sys/fs/cgroup/freezer/x", "memory": "/sys/fs/cgroup/memory/x"},
        });
        fs::write(state.join("state.json"), text.to_string()).unwrap();
    }

    #[test]
    fn the_running_container_of_that_pod_and_name_is_found() {
        let root = tempfile::tempdir().unwrap();
        let now = start_time(std::process::id()).unwrap();
        add(root.path(), "sandbox", "u1", None, now);
        add(root.path(), "app", "u1", Some("app"), now);
        add(root.path(), "dead", "u1", Some("app"), now + 1);
        add(root.path(), "other", "u2", Some("app"), now);
        let containers = Containers::new(Host::at(root.path()));
        let found = containers.find(&wanted("u1", "app")).unwrap().unwrap();
        assert_eq!(found.id, "app");
        assert_eq!(found.freezer, Freezer::V1(root.path().join("sys/fs/cgroup/freezer/x")));
        assert!(containers.find(&wanted("u1", "web")).unwrap().is_none());
        add(root.path(), "debug", "u1", Some("debug"), now);
        add(root.path(), "log", "u1", Some("log"), now);
        let others = |uid| {
            let ContainerRef { pod, container } = wanted(uid, "app");
            let (beside, fresh) = (vec!["log".into()], Vec::new());
            containers.others(&PodContainers { pod, container, beside, fresh })
        };
        assert_eq!(others("u1").unwrap(), ["debug"], "no sandbox, and none that is dead");
        assert!(others("u2").unwrap().is_empty());
        assert!(containers.find(&wanted("u", "app")).unwrap().is_none());
        assert!(containers.knows_pod(&"u2".into()) && !containers.knows_pod(&"u3".into()));
    }

    #[test]
    fn containers_are_found_where_the_engine_keeps_them() {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), "app", "u1", Some("app"), start_time(std::process::id()).unwrap());
        let engine = Engine { state: "/run/k3s/containerd".into(), ..Engine::default() };
        let moved = root.path().join("run/k3s/containerd/io.containerd.runtime.v2.task");
        fs::create_dir_all(&moved).unwrap();
        fs::rename(Host::at(root.path()).path(&Engine::default().bundles()), moved.join("k8s.io")).unwrap();
        let found =
            Containers::of(Host::at(root.path()), &engine).find(&wanted("u1", "app")).unwrap().unwrap();
        assert_eq!(found.bundle, engine.bundles().join("app"));
        assert!(Containers::new(Host::at(root.path())).find(&wanted("u1", "app")).is_err());
    }

    #[test]
    fn a_node_whose_folders_cannot_be_read_is_not_a_node_without_containers() {
        let root = tempfile::tempdir().unwrap();
        let containers = Containers::new(Host::at(root.path()));
        assert!(containers.find(&wanted("u1", "app")).is_err());
        assert!(containers.has_task(&"u1".into()));
        add(root.path(), "app", "u1", Some("app"), 1);
        fs::write(root.path().join(&RUNC_ROOT[1..]).join("app/state.json"), "{").unwrap();
        assert!(containers.find(&wanted("u1", "app")).is_err());
    }

    #[test]
    fn a_container_is_started_once_the_engine_says_so_and_as_long_as_it_has_not_ended() {
        let root = tempfile::tempdir().unwrap();
        let containers = Containers::new(Host::at(root.path()));
        assert!(containers.has_started("c"), "no records: taken at its word");
        let record = Host::at(root.path()).path(&Engine::default().records()).join("c");
        fs::create_dir_all(record.with_file_name("other")).unwrap();
        assert!(!containers.has_started("c"), "it is gone");
        add(root.path(), "c", "u1", Some("app"), 1);
        assert!(containers.has_started("c"), "the records are an earlier engine's");
        fs::create_dir_all(&record).unwrap();
        assert!(!containers.has_started("c"));
        for (text, started) in [
            (r#"{"Version":"v1","Pid":0,"CreatedAt":1,"StartedAt":0,"FinishedAt":0}"#, false),
            (r#"{"Version":"v1","Pid":7,"CreatedAt":1,"StartedAt":2,"FinishedAt":0}"#, true),
            (r#"{"Version":"v1","Pid":7,"CreatedAt":1,"StartedAt":2,"FinishedAt":3}"#, false),
            ("{", false),
        ] {
            fs::write(record.join("status"), text).unwrap();
            assert_eq!(containers.has_started("c"), started, "{text}");
        }
    }

    #[test]
    fn a_container_that_runs_under_another_runtime_is_told_from_one_that_does_not_run() {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), "app", "u1", Some("app"), start_time(std::process::id()).unwrap());
        let containers = Containers::new(Host::at(root.path()));
        let elsewhere = || containers.is_under_another_runtime(&wanted("u1", "app")).unwrap();
        let record = Host::at(root.path()).path(&Engine::default().records()).join("app");
        fs::create_dir_all(&record).unwrap();
        let write = |pid: u32, finished: i64| {
            let text = format!(r#"{{"Pid":{pid},"StartedAt":2,"FinishedAt":{finished}}}"#);
            fs::write(record.join("status"), text).unwrap();
        };
        write(std::process::id(), 0);
        assert!(!elsewhere(), "runc knows it");
        fs::remove_dir_all(root.path().join(&RUNC_ROOT[1..]).join("app")).unwrap();
        assert!(elsewhere());
        write(std::process::id(), 3);
        assert!(!elsewhere(), "it has ended");
        write(u32::MAX, 0);
        assert!(!elsewhere(), "it has ended, and the engine has not noted it yet");
    }
}
