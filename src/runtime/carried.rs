//! Puts in place what moves beside processes and changed files: the image's volumes, the pod's emptyDir volumes, the sandbox's
//! /dev/shm, and the images for CRIU with the new pod's address. Does I/O.
//!
//! Guarantees: only folders are filled that the engine made for this container or this sandbox, or the kubelet for this pod,
//! whatever the archive says; it may be done again, and what an earlier attempt left in the sandbox is gone before. What
//! is of the pod is put in place before the first of its containers and left alone from then on.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::bundle::Bundle;
use super::images::Images;
use super::layer::{self, LayerError};
use super::sandbox;
use crate::api::{
    CARRIED_FILE, Carried, PodPart, SHM_FILE, empty_dir, empty_dirs, image_volume, is_image_volume,
    is_sandbox_shm, is_volume_name, subpath_volume,
};
use crate::criu::{ImageError, Moves};

/// What the source carries could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum CarriedError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("{}: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    #[error("the source's image has a volume at {}, this one has not: is it another image?", .0.display())]
    NoVolume(PathBuf),
    #[error("the source had a /dev/shm of its own, this pod has not: were its volumes changed?")]
    NoShm,
    #[error("the source had an emptyDir volume {0}, this pod has not: were its volumes changed?")]
    NoEmptyDir(String),
    #[error(
        "nothing of emptyDir volume {0} came with the archive: is the agent on the source's node of an earlier version?"
    )]
    LeftBehind(String),
    #[error("{} would show a part of emptyDir volume {volume} that is no folder: mount a folder, or all of it", at.display())]
    NoFolder { at: PathBuf, volume: String },
}

/// Fills the sandbox and the volumes, and gives the images that CRIU is to read. `archive` is the container's part.
pub fn put_in_place(
    bundle: &Bundle,
    id: &OsStr,
    archive: &Path,
    pod: &PodPart,
) -> Result<Images, CarriedError> {
    let carried = read(&archive.join(CARRIED_FILE))?;
    for (number, at) in carried.image_volumes.iter().enumerate() {
        let mut mounts = bundle.mounts().filter(|(to, from)| to == at && is_image_volume(from, id));
        let (_, folder) = mounts.next().ok_or_else(|| CarriedError::NoVolume(at.clone()))?;
        layer::replace(&archive.join(image_volume(number)), folder)?;
    }
    let shm = bundle.mounts().any(|(to, from)| is_sandbox_shm(to, from));
    if carried.shm && !shm {
        return Err(CarriedError::NoShm);
    }
    put_pod_in_place(bundle, pod)?;
    let is_empty = bundle.namespace("ipc").is_some_and(sandbox::is_empty);
    if is_empty && let Some(ipc) = bundle.namespace("ipc") {
        sandbox::clear_ipc(ipc);
    }
    let moves = Moves::between(&carried.addresses, &addresses(bundle));
    let mut own = OsString::from("restore-");
    own.push(id);
    Images::of(&archive.join("images"), &archive.join(own), &moves)
}

/// The pod's volumes, and its shared memory if this container shows it, unless somebody uses them already. Whether that is
/// in place now.
pub fn put_pod_in_place(bundle: &Bundle, pod: &PodPart) -> Result<bool, CarriedError> {
    let archive = Path::new(&pod.archive);
    let carried = read(&archive.join(CARRIED_FILE))?;
    if !pod.filled && pod.back.is_empty() {
        fill_volumes(bundle, archive, &carried)?;
    }
    shows_its_volumes(bundle, &carried)?;
    // Not every container shows it: the first of those that do finds it empty.
    let mut mounts = bundle.mounts().filter(|(to, from)| is_sandbox_shm(to, from));
    let (Some((_, folder)), shm) = (mounts.next(), archive.join(SHM_FILE)) else { return Ok(pod.shm_filled) };
    let back = pod.back.iter().map(|folder| read(&Path::new(folder).join(CARRIED_FILE)));
    let back = back.collect::<Result<Vec<_>, _>>()?;
    if !pod.shm_filled && back.iter().all(|other| !other.shm) && shm.exists() {
        layer::replace(&shm, folder)?;
    }
    Ok(true)
}

/// The pod's emptyDir volumes: all that the kubelet has made, and no other.
fn fill_volumes(bundle: &Bundle, archive: &Path, carried: &Carried) -> Result<(), CarriedError> {
    let pod = bundle.pod_folder();
    let there = pod.as_ref().map(|pod| names(&empty_dirs(pod))).transpose()?.unwrap_or_default();
    if let Some(name) = there.iter().find(|name| !carried.empty_dirs.contains(name)) {
        return Err(CarriedError::LeftBehind(name.clone()));
    }
    for name in &carried.empty_dirs {
        let folder = pod.as_ref().filter(|_| is_volume_name(name) && there.contains(name));
        let folder = folder.ok_or_else(|| CarriedError::NoEmptyDir(name.clone()))?;
        layer::fill(&archive.join(empty_dir(name)), &empty_dirs(folder).join(name))?;
    }
    Ok(())
}

/// What a `subPath` mount shows was made by the kubelet while the volume was empty, and must be there still.
fn shows_its_volumes(bundle: &Bundle, carried: &Carried) -> Result<(), CarriedError> {
    let pod = bundle.pod_folder();
    for (at, source) in bundle.mounts() {
        let volume = pod.as_ref().and_then(|pod| subpath_volume(pod, source));
        let Some(volume) = volume.filter(|volume| carried.empty_dirs.contains(volume)) else { continue };
        let shown = fs::metadata(source)
            .map_err(|error| CarriedError::Io { path: source.to_owned(), source: error })?;
        if shown.nlink() == 0 {
            return Err(CarriedError::NoFolder { at: at.to_owned(), volume });
        }
    }
    Ok(())
}

/// What lies in a folder, which may not be there.
fn names(folder: &Path) -> Result<Vec<String>, CarriedError> {
    let at = |source| CarriedError::Io { path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()
            .map_err(at),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(at(error)),
    }
}

/// An archive of an agent that knew none of this has no such file.
fn read(path: &Path) -> Result<Carried, CarriedError> {
    let at = |source| CarriedError::Io { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| at(error.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Carried::default()),
        Err(error) => Err(at(error)),
    }
}

/// Of the new pod: what its network namespace has, or else what the kubelet says. A pod on the node's network has none of
/// its own.
fn addresses(bundle: &Bundle) -> Vec<IpAddr> {
    let Some(network) = bundle.namespace("network") else { return Vec::new() };
    let found = sandbox::addresses(network).unwrap_or_default();
    if !found.is_empty() {
        return found;
    }
    bundle.pod_ip().and_then(|address| address.parse().ok()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(archive: &Path) -> PodPart {
        PodPart { archive: archive.display().to_string(), back: Vec::new(), filled: false, shm_filled: false }
    }

    const TICKET: &str = "0b5c.2.shadow";

    fn bundle(dir: &Path, mounts: &serde_json::Value) -> Bundle {
        let config = serde_json::json!({
            "root": {"path": "rootfs"}, "mounts": mounts,
            "annotations": {
                crate::api::ANNOTATION_TICKET: TICKET, "io.kubernetes.cri.container-type": "container",
                "io.kubernetes.cri.sandbox-uid": "u-1",
            },
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/no-such"}]},
        });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        Bundle::with_ticket(dir).unwrap()
    }

    fn archive(dir: &Path, carried: &Carried) -> PathBuf {
        let archive = dir.join("archive");
        fs::create_dir_all(archive.join("images")).unwrap();
        fs::create_dir_all(archive.join("image-volumes")).unwrap();
        fs::write(archive.join(CARRIED_FILE), serde_json::to_vec(carried).unwrap()).unwrap();
        let tar = tar::Builder::new(Vec::new()).into_inner().unwrap();
        fs::write(archive.join(image_volume(0)), tar).unwrap();
        archive
    }

    #[test]
    fn only_the_containers_own_volumes_are_filled() {
        let dir = tempfile::tempdir().unwrap();
        let carried = Carried { image_volumes: vec!["/data".into()], ..Carried::default() };
        let archive = archive(dir.path(), &carried);
        let volume = dir.path().join("io.containerd.grpc.v1.cri/containers/ab/volumes/1");
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("of-the-image"), "").unwrap();
        let bundle = bundle(dir.path(), &serde_json::json!([{"destination": "/data", "source": &volume}]));
        let error = put_in_place(&bundle, OsStr::new("cd"), &archive, &pod(&archive)).unwrap_err();
        assert!(matches!(&error, CarriedError::NoVolume(_)), "{error}");
        assert!(volume.join("of-the-image").exists());
        put_in_place(&bundle, OsStr::new("ab"), &archive, &pod(&archive)).unwrap();
        assert!(!volume.join("of-the-image").exists());
    }

    #[test]
    fn only_the_pods_own_empty_dirs_are_filled() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path(), &Carried { empty_dirs: vec!["tmp".into()], ..Carried::default() });
        fs::create_dir_all(archive.join("volumes")).unwrap();
        fs::copy(archive.join(image_volume(0)), archive.join(empty_dir("tmp"))).unwrap();
        let folder = dir.path().join("pods/u-1");
        let volume = folder.join("volumes/kubernetes.io~empty-dir/tmp");
        let hosts = folder.join("etc-hosts");
        let bundle = bundle(dir.path(), &serde_json::json!([{"destination": "/etc/hosts", "source": hosts}]));
        let fill = || put_in_place(&bundle, OsStr::new("ab"), &archive, &pod(&archive));
        assert!(matches!(fill().unwrap_err(), CarriedError::NoEmptyDir(name) if name == "tmp"));
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("of-an-earlier-attempt"), "").unwrap();
        fill().unwrap();
        assert!(!volume.join("of-an-earlier-attempt").exists());
        fs::write(volume.join("of-another-container"), "").unwrap();
        for used in [
            PodPart { filled: true, ..pod(&archive) },
            PodPart { back: vec![archive.display().to_string()], ..pod(&archive) },
        ] {
            put_in_place(&bundle, OsStr::new("ab"), &archive, &used).unwrap();
        }
        assert!(volume.join("of-another-container").exists(), "somebody uses it");
        fs::create_dir(volume.with_file_name("more")).unwrap();
        assert!(matches!(fill().unwrap_err(), CarriedError::LeftBehind(name) if name == "more"));
    }

    #[test]
    fn an_archive_of_an_earlier_agent_is_restored_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path(), &Carried::default());
        fs::remove_file(archive.join(CARRIED_FILE)).unwrap();
        let bundle = bundle(dir.path(), &serde_json::json!([]));
        assert_eq!(
            put_in_place(&bundle, OsStr::new("ab"), &archive, &pod(&archive)).unwrap().dir(),
            archive.join("images")
        );
        fs::write(archive.join(CARRIED_FILE), "{").unwrap();
        assert!(put_in_place(&bundle, OsStr::new("ab"), &archive, &pod(&archive)).is_err());
    }

    #[test]
    fn a_pod_that_has_no_shared_memory_of_its_own_is_no_place_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let archive = archive(dir.path(), &Carried { shm: true, ..Carried::default() });
        let mounts = serde_json::json!([{"destination": "/dev/shm", "source": "/dev/shm"}]);
        let error = put_in_place(&bundle(dir.path(), &mounts), OsStr::new("ab"), &archive, &pod(&archive))
            .unwrap_err();
        assert!(matches!(error, CarriedError::NoShm));
    }
}
