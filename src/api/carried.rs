//! What an archive holds beside CRIU's images and the container's changed files, and which mounts that is. Pure.
//!
//! The agent of the source writes it, `shadow-runc` puts it in place.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// In an archive: a [`Carried`].
pub const CARRIED_FILE: &str = "carried.json";
/// In an archive: what lay in the sandbox's /dev/shm.
pub const SHM_FILE: &str = "shm.tar";
/// In an archive: folder of what lay in the image's volumes.
pub const IMAGE_VOLUMES: &str = "image-volumes";
/// In an archive: folder of what lay in the pod's emptyDir volumes.
pub const VOLUMES: &str = "volumes";
/// No image declares more volumes.
pub const IMAGE_VOLUMES_CAP: usize = 100;

/// Where the sandbox's shared memory is mounted.
const SHM: &str = "/dev/shm";
/// Below it lie the volumes of pods, which are no part of a container.
const PODS: &str = "pods";
/// In the kubelet's folder of a pod: its emptyDir volumes, each by its name.
const EMPTY_DIRS: &str = "volumes/kubernetes.io~empty-dir";
/// In the kubelet's folder of a pod: what it mounts for a `subPath`, by volume, container and number.
const SUBPATHS: &str = "volume-subpaths";
/// Of a name (RFC 1123 label).
const LONGEST_NAME: usize = 63;
/// containerd's folder for what belongs to the kubelet's containers.
const CRI_PLUGIN: &str = "io.containerd.grpc.v1.cri";

/// What was found beside processes and files of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// Of the source's network namespace, without loopback.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The archive has a [`SHM_FILE`].
    #[serde(default)]
    pub shm: bool,
    /// Where the image's volumes are mounted; what lay in the n-th is in [`image_volume`] n.
    #[serde(default)]
    pub image_volumes: Vec<PathBuf>,
    /// Names of the pod's emptyDir volumes; what lay in each is in [`empty_dir`] of that name. Told of the container by which
    /// the archive is named.
    #[serde(default)]
    pub empty_dirs: Vec<String>,
    /// What it was made from, of a pod with several containers and as far as its engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Name of an image volume's file in an archive.
pub fn image_volume(number: usize) -> String {
    format!("{IMAGE_VOLUMES}/{number}.tar")
}

/// Name of an emptyDir volume's file in an archive.
pub fn empty_dir(name: &str) -> String {
    format!("{VOLUMES}/{name}.tar")
}

/// A volume can have this name: a DNS label (RFC 1123).
pub fn is_volume_name(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.bytes().all(is_inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The kubelet's folder of the pod, if this is the source of a mount that it made for it: `.../pods/UID`.
pub fn pod_folder(source: &Path, pod: &str) -> Option<PathBuf> {
    let parts: Vec<Component<'_>> = source.components().collect();
    let at = parts
        .windows(2)
        .position(|two| two[0].as_os_str() == PODS && two[1] == Component::Normal(OsStr::new(pod)))?;
    source.is_absolute().then(|| parts[..at + 2].iter().collect())
}

/// Where the kubelet has the emptyDir volumes of the pod of that folder.
pub fn empty_dirs(pod_folder: &Path) -> PathBuf {
    pod_folder.join(EMPTY_DIRS)
}

/// Of which volume this is the source of a `subPath` mount.
pub fn subpath_volume(pod_folder: &Path, source: &Path) -> Option<String> {
    let below = source.strip_prefix(pod_folder.join(SUBPATHS)).ok()?;
    below.components().next().and_then(|name| name.as_os_str().to_str()).map(str::to_owned)
}

/// This mount is the sandbox's own /dev/shm: neither the node's nor a volume of the pod.
pub fn is_sandbox_shm(destination: &Path, source: &Path) -> bool {
    let is_volume = source.components().any(|part| part.as_os_str() == PODS);
    destination == Path::new(SHM)
        && source != Path::new(SHM)
        && source.is_absolute()
        && source.file_name() == Some(OsStr::new("shm"))
        && !is_volume
}

/// This mount is a volume that the image declares: a folder that containerd made for this very container.
pub fn is_image_volume(source: &Path, container_id: &OsStr) -> bool {
    let parts: Option<Vec<&OsStr>> = source
        .components()
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            Component::RootDir => Some(OsStr::new("/")),
            _ => None,
        })
        .collect();
    let Some([.., plugin, containers, id, volumes, _]) = parts.as_deref() else { return false };
    *plugin == CRI_PLUGIN && *containers == "containers" && *id == container_id && *volumes == "volumes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandboxs_shared_memory_is_told_from_the_nodes_and_from_volumes() {
        let is = |source: &str| is_sandbox_shm(Path::new("/dev/shm"), Path::new(source));
        assert!(is("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/ab/shm"));
        assert!(is("/run/containers/storage/overlay-containers/ab/userdata/shm"));
        assert!(!is("/dev/shm"), "the node's");
        assert!(!is("/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/shm"));
        assert!(!is("shm") && !is(""));
        assert!(!is_sandbox_shm(Path::new("/x"), Path::new("/run/sandboxes/ab/shm")));
    }

    #[test]
    fn the_kubelets_folder_of_a_pod_is_found_wherever_the_kubelet_keeps_it() {
        let of = |source: &str| pod_folder(Path::new(source), "u-1");
        for root in ["/var/lib/kubelet", "/var/lib/k0s/kubelet"] {
            let folder = format!("{root}/pods/u-1");
            for below in ["etc-hosts", "volumes/kubernetes.io~empty-dir/tmp", "volume-subpaths/tmp/app/0"] {
                assert_eq!(of(&format!("{folder}/{below}")), Some(folder.clone().into()));
            }
        }
        assert_eq!(of("/var/lib/kubelet/pods/u-10/etc-hosts"), None);
        assert_eq!(of("pods/u-1/etc-hosts"), None);
        let subpath = |source: &str| subpath_volume(Path::new("/k/pods/u-1"), Path::new(source));
        assert_eq!(subpath("/k/pods/u-1/volume-subpaths/tmp/app/0").as_deref(), Some("tmp"));
        assert_eq!(subpath("/k/pods/u-1/volumes/x"), None);
    }

    #[test]
    fn a_volumes_name_is_a_dns_label() {
        for name in ["tmp", "a", "9-b", &"x".repeat(63)] {
            assert!(is_volume_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "A", "a.b", "-a", "a-", "a_b", &"x".repeat(64)] {
            assert!(!is_volume_name(name), "{name}");
        }
    }

    #[test]
    fn only_what_containerd_made_for_this_container_is_an_image_volume() {
        let is = |source: &str| is_image_volume(Path::new(source), OsStr::new("ab"));
        assert!(is("/var/lib/containerd/io.containerd.grpc.v1.cri/containers/ab/volumes/0f3a"));
        for source in [
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/cd/volumes/0f3a",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/ab/volumes",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/ab/volumes/0f3a/x",
            "/var/lib/containerd/io.containerd.grpc.v1.cri/containers/ab/volumes/..",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/data",
            "/var/lib/kubelet/pods/containers/ab/volumes/x",
            "/",
            "",
        ] {
            assert!(!is(source), "{source}");
        }
    }
}
