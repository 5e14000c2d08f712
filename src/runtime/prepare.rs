//! Prepares a container for being moved later, before runc sees its bundle: no MPTCP in the pod's network, no io_uring in
//! its processes. Neither can be checkpointed, and programs do without by themselves.
//!
//! Guarantees: only bundles of pods that the webhook has marked are touched; `config.json` is replaced as a whole or not
//! at all, and everything else in it stays; whatever goes wrong is written into runc's log as a warning, and runc goes on
//! with what there is. Doing it again changes nothing.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::cmdline::CommandLine;
use super::{bundle, runc, seccomp};
use crate::api::{ANNOTATION_PREPARED, PREPARED, PREPARED_RESTORED};

const MPTCP: &str = "net.mptcp.enabled";

/// Why a bundle is as it was.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: serde_json::Error },
}

/// What the node's kernel has.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    mptcp: bool,
    seccomp: bool,
    architecture: &'static str,
}

impl Kernel {
    fn of_this_node() -> Self {
        let actions = fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
        Self {
            mptcp: Path::new("/proc/sys/net/mptcp/enabled").exists(),
            seccomp: actions.split_whitespace().any(|action| action == "errno"),
            architecture: std::env::consts::ARCH,
        }
    }
}

/// Prepares the bundle in `dir` if its pod is to be. Costs one read of its `config.json`.
pub fn prepare(line: &CommandLine, dir: &Path) {
    if let Err(error) = rewrite(&dir.join("config.json"), Kernel::of_this_node()) {
        runc::report_warning(line, &format!("container is not prepared for being moved: {error}"));
    }
}

fn rewrite(path: &Path, kernel: Kernel) -> Result<(), PrepareError> {
    let at = |source| PrepareError::File { path: path.to_owned(), source };
    let text = fs::read_to_string(path).map_err(at)?;
    if !text.contains(ANNOTATION_PREPARED) {
        return Ok(());
    }
    let mut config: Value = serde_json::from_str(&text)
        .map_err(|source| PrepareError::Unreadable { path: path.to_owned(), source })?;
    if change(&mut config, kernel, is_hosts_network) {
        replace(path, &config.to_string()).map_err(at)
    } else {
        Ok(())
    }
}

/// Makes the configuration what it is to be; true if it was not. Pure but for `is_hosts`, which tells a network namespace
/// that is the node's own.
fn change(config: &mut Value, kernel: Kernel, is_hosts: impl Fn(&str) -> bool) -> bool {
    let annotation = |keys: &[&str]| {
        let annotations = config.get("annotations")?;
        keys.iter().find_map(|key| annotations.get(key)?.as_str()).map(ToOwned::to_owned)
    };
    let mark = annotation(&[ANNOTATION_PREPARED]);
    if !matches!(mark.as_deref(), Some(PREPARED | PREPARED_RESTORED)) {
        return false;
    }
    let kind = annotation(&bundle::TYPE);
    let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) else { return false };
    match kind.as_deref() {
        Some("sandbox") => kernel.mptcp && has_own_network(linux, is_hosts) && switch_mptcp_off(linux),
        Some("container") => kernel.seccomp && seccomp::forbid_io_uring(linux, kernel.architecture),
        _ => false,
    }
}

/// A network namespace that is not the node's, in the node's user namespace: runc refuses settings of any other.
fn has_own_network(linux: &Map<String, Value>, is_hosts: impl Fn(&str) -> bool) -> bool {
    let namespaces = linux.get("namespaces").and_then(Value::as_array);
    let of = |kind: &str| namespaces.into_iter().flatten().find(|one| one["type"] == kind);
    let network = of("network").map(|network| network["path"].as_str().unwrap_or_default());
    network.is_some_and(|path| path.is_empty() || !is_hosts(path)) && of("user").is_none()
}

/// What the user has set himself stays.
fn switch_mptcp_off(linux: &mut Map<String, Value>) -> bool {
    let settings = linux.entry("sysctl").or_insert(Value::Null);
    if settings.is_null() {
        *settings = Value::Object(Map::new());
    }
    match settings.as_object_mut() {
        Some(settings) if !settings.contains_key(MPTCP) => {
            settings.insert(MPTCP.to_owned(), "0".into());
            true
        }
        _ => false,
    }
}

/// Also where it cannot be told.
fn is_hosts_network(path: &str) -> bool {
    let namespace = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    match (namespace(path), namespace("/proc/self/ns/net")) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    }
}

/// Another file in its place, with its mode and owner.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let present = fs::metadata(path)?;
    let new = path.with_extension("json.shadow-new");
    let written = (|| {
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        std::os::unix::fs::fchown(&file, Some(present.uid()), Some(present.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(present.mode() & 0o7777))?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new); // what is left of it goes with the bundle
    }
    written
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KERNEL: Kernel = Kernel { mptcp: true, seccomp: true, architecture: "x86_64" };

    fn config(kind: &str, mark: &str, linux: Value) -> Value {
        json!({ "ociVersion": "1.2.0", "annotations": { "io.kubernetes.cri.container-type": kind,
            "migration.ms2m.io/prepared": mark }, "linux": linux, "kept": [1, 18_446_744_073_709_551_615_u64] })
    }

    fn sandbox(namespaces: Value) -> Value {
        config("sandbox", "true", json!({ "namespaces": namespaces, "sysctl": { "net.ipv4.x": "1" } }))
    }

    fn changed(config: &Value, kernel: Kernel) -> Option<Value> {
        let mut config = config.clone();
        change(&mut config, kernel, |path| path == "/host").then_some(config)
    }

    #[test]
    fn a_sandbox_with_a_network_of_its_own_gets_it_without_mptcp() {
        for namespaces in [
            json!([{ "type": "network", "path": "/run/netns/x" }, { "type": "ipc" }]),
            json!([{ "type": "network" }]),
        ] {
            let done = changed(&sandbox(namespaces), KERNEL).unwrap();
            assert_eq!(done["linux"]["sysctl"], json!({ "net.ipv4.x": "1", "net.mptcp.enabled": "0" }));
            assert!(done["linux"].get("seccomp").is_none());
            assert!(changed(&done, KERNEL).is_none());
        }
        let bare = config("sandbox", "restored", json!({ "namespaces": [{ "type": "network" }] }));
        assert_eq!(changed(&bare, KERNEL).unwrap()["linux"]["sysctl"]["net.mptcp.enabled"], "0");
    }

    #[test]
    fn where_runc_would_refuse_it_or_the_user_says_otherwise_the_network_stays_as_it_is() {
        for namespaces in [
            json!([]),
            json!([{ "type": "network", "path": "/host" }]),
            json!([{ "type": "network" }, { "type": "user" }]),
            Value::Null,
        ] {
            assert!(changed(&sandbox(namespaces.clone()), KERNEL).is_none(), "{namespaces}");
        }
        let network = json!([{ "type": "network" }]);
        assert!(changed(&sandbox(network.clone()), Kernel { mptcp: false, ..KERNEL }).is_none());
        let mut wanted = sandbox(network);
        wanted["linux"]["sysctl"]["net.mptcp.enabled"] = "1".into();
        assert!(changed(&wanted, KERNEL).is_none());
    }

    #[test]
    fn a_container_gets_a_profile_without_io_uring_and_the_rest_stays() {
        let plain = config("container", "true", json!({ "namespaces": [{ "type": "network" }] }));
        let done = changed(&plain, KERNEL).unwrap();
        assert_eq!(done["linux"]["seccomp"]["syscalls"][0]["errnoRet"], 38);
        assert!(done["linux"].get("sysctl").is_none());
        assert_eq!(done["kept"], plain["kept"]);
        assert!(changed(&plain, Kernel { seccomp: false, ..KERNEL }).is_none());
    }

    #[test]
    fn whoever_is_not_marked_or_not_known_is_left_alone() {
        for (kind, mark) in
            [("container", "false: node n3"), ("container", ""), ("", "true"), ("other", "true")]
        {
            let linux = json!({ "namespaces": [{ "type": "network" }] });
            assert!(changed(&config(kind, mark, linux), KERNEL).is_none(), "{kind} {mark}");
        }
        assert!(changed(&json!({}), KERNEL).is_none());
        assert!(changed(&config("container", "true", Value::Null), KERNEL).is_none());
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, config("container", "true", json!({})).to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap().ino();
        rewrite(&path, KERNEL).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_ne!(after.ino(), before);
        assert_eq!(after.mode() & 0o777, 0o640);
        let read: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(read["kept"][1], 18_446_744_073_709_551_615_u64);
        assert!(read["linux"]["seccomp"].is_object());
        rewrite(&path, KERNEL).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), after.ino(), "written once");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_left_to_runc() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(rewrite(&path, KERNEL).is_err());
        fs::write(&path, "{\"migration.ms2m.io/prepared\"").unwrap();
        assert!(rewrite(&path, KERNEL).unwrap_err().to_string().contains("config.json"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"migration.ms2m.io/prepared\"");
    }
}
