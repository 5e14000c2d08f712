//! Whose each mount of a container is: of the pod's spec, the engine, the image, or nobody's that carries it. Pure.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::api::MountKind;

/// An entry of the bundle's `config.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type", default)]
    pub fs_type: String,
    #[serde(default)]
    pub source: PathBuf,
    #[serde(default)]
    pub options: Vec<String>,
}

/// What of it matters here.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Config {
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    linux: Linux,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Process {
    selinux_label: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

#[derive(Clone, Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
}

impl Config {
    pub fn selinux_label(&self) -> Option<&str> {
        Some(self.process.selinux_label.as_str()).filter(|label| !label.is_empty())
    }

    pub fn has_user_namespace(&self) -> bool {
        self.linux.namespaces.iter().any(|namespace| namespace.kind == "user")
    }
}

/// A line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub id: u32,
    /// As the kernel numbers it, and `fdinfo` shows it.
    pub device: u32,
    pub at: String,
    pub fs_type: String,
    pub options: String,
}

/// Folders of the CRI plugin, wherever containerd's root is, and of CRI-O.
const ENGINE: [&str; 4] = [
    "/io.containerd.grpc.v1.cri/sandboxes/",
    "/io.containerd.grpc.v1.cri/image-volumes/",
    "/io.containerd.mount-manager",
    "/overlay-containers/",
];
const CONTAINERS: &str = "/io.containerd.grpc.v1.cri/containers/";
/// Kinds of mounts that a runtime makes for every container.
const MADE_FOR_ALL: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];
/// CRIU carries what is in them, or there is nothing in them.
const HARMLESS: [&str; 9] =
    ["proc", "sysfs", "tmpfs", "ramfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"];

/// What a mount is that is not simply the pod's or the engine's.
pub fn kind(mount: &Mount, pod: &str) -> Option<MountKind> {
    if MADE_FOR_ALL.contains(&mount.fs_type.as_str()) {
        return None;
    }
    let source = mount.source.to_string_lossy();
    let is_kubelets = source.contains(&format!("/pods/{pod}/"));
    if is_kubelets || ENGINE.iter().any(|folder| source.contains(folder)) {
        return None;
    }
    if source.split_once(CONTAINERS).is_some_and(|(_, rest)| rest.split('/').nth(1) == Some("volumes")) {
        return Some(MountKind::ImageVolume);
    }
    let is_read_only = mount.options.iter().any(|option| option == "ro" || option == "rro");
    Some(if is_read_only { MountKind::ForeignReadOnly } else { MountKind::Foreign })
}

pub fn lines(mountinfo: &str) -> Vec<Line> {
    mountinfo.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Line> {
    let (head, tail) = text.split_once(" - ")?;
    let mut head = head.split(' ');
    let id = head.next()?.parse().ok()?;
    let (major, minor) = head.nth(1)?.split_once(':')?;
    let device = (major.parse::<u32>().ok()? << 20) | minor.parse::<u32>().ok()?;
    let at = head.nth(1)?.to_owned();
    let mut tail = tail.split(' ');
    let fs_type = tail.next()?.to_owned();
    let options = tail.nth(1).unwrap_or_default().to_owned();
    Some(Line { id, device, at, fs_type, options })
}

/// The device of the container's overlay, if its files cannot be opened by handle, as CRIU opens what is watched.
pub fn overlay_without_handles(lines: &[Line]) -> Option<u32> {
    let root = lines.iter().rev().find(|line| line.at == "/" && line.fs_type == "overlay")?;
    (!root.options.split(',').any(|option| option == "nfs_export=on")).then_some(root.device)
}

/// Mounts that are in no configuration: made by the container's own processes.
pub fn made_within<'a>(lines: &'a [Line], config: &Config) -> Vec<&'a Line> {
    let configured: HashSet<&Path> = config.mounts.iter().map(|mount| mount.destination.as_path()).collect();
    // Masked and read-only paths, terminals, cgroups.
    let is_elsewhere = |at: &Path| {
        at != Path::new("/") && !["/proc", "/sys", "/dev"].into_iter().any(|own| at.starts_with(own))
    };
    let is_real =
        |line: &&Line| is_elsewhere(Path::new(&line.at)) && !HARMLESS.contains(&line.fs_type.as_str());
    let binds =
        |mount: &&Mount| is_elsewhere(&mount.destination) && !MADE_FOR_ALL.contains(&mount.fs_type.as_str());
    // The kernel shows a destination that leads over links by another name: no more mounts than were ordered are none.
    if lines.iter().filter(is_real).count() <= config.mounts.iter().filter(binds).count() {
        return Vec::new();
    }
    let is_new = |line: &&Line| {
        let at = Path::new(&line.at);
        is_real(line)
            && !configured.contains(at)
            // What a bind mount brought along below it.
            && !configured.iter().any(|known| *known != Path::new("/") && at.starts_with(known))
            // /var/run is a link in many images: the kernel shows where it leads.
            && !configured.iter().any(|known| known.file_name() == at.file_name())
    };
    lines.iter().filter(is_new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fs_type: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            destination: "/x".into(),
            fs_type: fs_type.into(),
            source: source.into(),
            options: options.iter().map(|one| (*one).to_owned()).collect(),
        }
    }

    fn of(mounts: Vec<Mount>) -> Config {
        Config { mounts, ..Config::default() }
    }

    #[test]
    fn label_and_user_namespace_are_read_from_the_bundle() {
        let config = |text: &str| serde_json::from_str::<Config>(text).unwrap();
        let plain =
            config(r#"{"process": {"selinuxLabel": ""}, "linux": {"namespaces": [{"type": "ipc"}]}}"#);
        assert_eq!((plain.selinux_label(), plain.has_user_namespace()), (None, false));
        let labelled = config(
            r#"{"process": {"selinuxLabel": "u:r:t:s0"}, "linux": {"namespaces": [{"type": "user"}]}}"#,
        );
        assert_eq!((labelled.selinux_label(), labelled.has_user_namespace()), (Some("u:r:t:s0"), true));
        assert_eq!(config("{}").selinux_label(), None);
    }

    #[test]
    fn what_the_pod_the_engine_and_the_runtime_have_is_nobodys_trouble() {
        let pod = "0a1b";
        for source in [
            "/var/lib/kubelet/pods/0a1b/volumes/kubernetes.io~configmap/c",
            "/var/lib/k0s/kubelet/pods/0a1b/etc-hosts",
            "/var/lib/kubelet/pods/0a1b/containers/app/6c",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/77/resolv.conf",
            "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/77/shm",
        ] {
            assert_eq!(kind(&mount("bind", source, &["rbind", "rw"]), pod), None, "{source}");
        }
        assert_eq!(kind(&mount("tmpfs", "tmpfs", &["nosuid"]), pod), None);
        assert_eq!(kind(&mount("cgroup", "cgroup", &["ro"]), pod), None);
    }

    #[test]
    fn an_image_volume_is_known_by_its_place_and_all_else_is_foreign() {
        let volume = "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/9f/volumes/5d";
        assert_eq!(kind(&mount("bind", volume, &["rbind"]), "0a1b"), Some(MountKind::ImageVolume));
        let other = "/var/lib/kubelet/pods/ffff/volumes/kubernetes.io~empty-dir/e";
        assert_eq!(kind(&mount("bind", other, &["rbind", "rw"]), "0a1b"), Some(MountKind::Foreign));
        assert_eq!(
            kind(&mount("bind", "/opt/lib", &["rbind", "ro"]), "0a1b"),
            Some(MountKind::ForeignReadOnly)
        );
        assert_eq!(kind(&mount("bind", "/opt/lib", &["rbind"]), "0a1b"), Some(MountKind::Foreign));
    }

    const INFO: &str = "700 600 0:58 / / rw,relatime master:9 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w\n\
        701 700 0:60 / /proc rw,nosuid - proc proc rw\n\
        702 701 0:61 / /proc/acpi ro - tmpfs tmpfs ro\n\
        703 700 254:1 /x /etc/hosts rw,relatime - ext4 /dev/vda1 rw\n\
        704 700 0:70 / /mnt/far rw - fuse.sshfs host:/ rw\n\
        705 700 0:71 / /scratch rw - tmpfs tmpfs rw\n\
        706 700 254:1 /r /run/secrets/kubernetes.io/serviceaccount ro - tmpfs tmpfs rw\n";

    #[test]
    fn what_a_container_mounts_itself_is_found() {
        let config = of(vec![Mount { destination: "/etc/hosts".into(), ..mount("bind", "/h", &[]) }]);
        let lines = lines(INFO);
        let made: Vec<_> = made_within(&lines, &config).into_iter().map(|line| line.at.as_str()).collect();
        assert_eq!(made, ["/mnt/far"]);
        let by_another_name = of(vec![config.mounts[0].clone(), mount("bind", "/h", &[])]);
        assert_eq!(made_within(&lines, &by_another_name), Vec::<&Line>::new());
    }

    #[test]
    fn the_overlay_is_found_with_the_number_that_fdinfo_shows() {
        assert_eq!(overlay_without_handles(&lines(INFO)), Some(58));
        assert_eq!(lines(INFO)[3].device, (254 << 20) | 1);
        let exported = INFO.replace("workdir=/w", "workdir=/w,nfs_export=on");
        assert_eq!(overlay_without_handles(&lines(&exported)), None);
    }
}
