//! What of a container moves beside its processes: changed files, the volumes that its image declares, the pod's emptyDir
//! volumes, the sandbox's /dev/shm, and the addresses that its sockets may be bound to. Found in the engine's bundle, in the
//! kubelet's folder of the pod and in /proc. Does I/O.
//!
//! Guarantees: the container's and the pod's own files and nothing of the node or of volumes that outlive the pod; how much
//! it is can be told before it is copied.

mod addresses;
mod deleted;
mod links;
mod places;
mod sparse;
mod survey;
mod tree;

pub use tree::TreeError;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::addresses::addresses;
use self::places::{Place, Volumes, found, shown};
use rustix::process::Pid;
use serde::Deserialize;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use crate::agent::failure::Failure;
use crate::agent::node::containers::{Container, POD_UID};
use crate::agent::node::host::Host;
use crate::agent::store::{self, Durability};
use crate::agent::transfer::archive::LAYER;
use crate::api::{
    CARRIED_FILE, Carried, IMAGE_VOLUMES, IMAGE_VOLUMES_CAP, Objection, Reason, Refusal, SHM_FILE, VOLUMES,
    empty_dir, image_volume, is_image_volume, is_sandbox_shm, pod_folder,
};
use crate::criu::ImageError;
use crate::runtime::TreeKind;

/// On its target a volume is in the archive, in the shadow's folder and in the replacement's at a time.
const PLACES_OF_A_VOLUME: u64 = 3;

/// What is to be carried could not be found, read or written.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("{}: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    #[error(
        "the image declares {0} volumes, more than the {IMAGE_VOLUMES_CAP} that are carried: let it declare fewer"
    )]
    TooManyVolumes(usize),
    #[error("{} shows a part of emptyDir volume {volume} that is no folder: mount a folder, or all of it", at.display())]
    NoFolder { at: PathBuf, volume: String },
}

impl From<CarryError> for Failure {
    fn from(error: CarryError) -> Self {
        let message = error.to_string();
        match error {
            CarryError::TooManyVolumes(_) | CarryError::NoFolder { .. } => {
                Self::objecting(Objection { reason: Reason::ForeignMount, message, passes: false })
            }
            CarryError::Io { .. } | CarryError::Tree(_) | CarryError::Image { .. } => {
                Self::new(Refusal::RuntimeFailed, message)
            }
        }
    }
}

/// So many volumes of an image can be, or an error.
pub fn may_be_carried(image_volumes: usize) -> Result<(), CarryError> {
    if image_volumes > IMAGE_VOLUMES_CAP { Err(CarryError::TooManyVolumes(image_volumes)) } else { Ok(()) }
}

/// A folder of the container or of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// As we reach it.
    pub root: PathBuf,
    pub kind: TreeKind,
    /// Its name in the archive.
    pub file: String,
}

/// All that one container carries.
#[derive(Clone, Debug)]
pub struct Load {
    trees: Vec<Tree>,
    places: Vec<Place>,
    facts: Carried,
    /// Names in the container that an earlier CRIU has left.
    stale: Vec<PathBuf>,
    bytes: u64,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    mounts: Vec<Mount>,
}

impl Config {
    /// The kubelet's folder of the pod, by what it has mounted from there.
    fn pod_folder(&self) -> Option<PathBuf> {
        let pod = self.annotations.get(POD_UID)?;
        self.mounts.iter().find_map(|mount| pod_folder(&mount.source, pod))
    }
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    #[serde(default)]
    source: PathBuf,
}

impl Load {
    /// Looks through what belongs to the container; `upper` holds its changed files, `pids` are its processes. Blocking: it
    /// counts them.
    pub fn of(host: &Host, container: &Container, upper: PathBuf, pids: &[Pid]) -> Result<Self, CarryError> {
        let path = host.path(&container.bundle.join("config.json"));
        let text =
            fs::read_to_string(&path).map_err(|source| CarryError::Io { path: path.clone(), source })?;
        let config: Config =
            serde_json::from_str(&text).map_err(|error| CarryError::Io { path, source: error.into() })?;
        let mut load = Self::found(host, &container.id, &config, upper)?;
        load.facts.addresses = addresses(Path::new("/proc"), container.pid)?;
        for (number, tree) in load.trees.iter().enumerate() {
            let found = survey::survey(&tree.root);
            let found = found.map_err(|source| CarryError::Io { path: tree.root.clone(), source })?;
            let laid_out = if load.is_volume(number) { PLACES_OF_A_VOLUME } else { 1 };
            load.bytes = load.bytes.saturating_add(found.bytes.saturating_mul(laid_out));
            load.stale.extend(found.stale.iter().filter_map(|name| shown(&load.places, number, name)));
        }
        load.bytes = load.bytes.saturating_add(deleted::bytes(&deleted::deleted(pids)));
        Ok(load)
    }

    fn found(host: &Host, id: &str, config: &Config, upper: PathBuf) -> Result<Self, CarryError> {
        let mut trees = vec![Tree { root: upper, kind: TreeKind::Layer, file: LAYER.to_owned() }];
        let mut places = vec![Place::whole("/".into(), Some(0))];
        let mut facts = Carried::default();
        let plain = |root: PathBuf, file: String| Tree { root, kind: TreeKind::Plain, file };
        let pod = config.pod_folder();
        let volumes = pod.as_ref().map(|pod| Volumes::of(host, pod)).transpose()?.unwrap_or_default();
        let first_volume = trees.len();
        for name in volumes.names() {
            trees.push(plain(volumes.root(name), empty_dir(name)));
            facts.empty_dirs.push(name.to_owned());
        }
        for Mount { destination, source } in &config.mounts {
            if let Some((volume, below)) = volumes.find(host, source, destination)? {
                places.push(Place { at: destination.clone(), tree: Some(first_volume + volume), below });
                continue;
            }
            let file = if is_sandbox_shm(destination, source) && !facts.shm {
                facts.shm = true;
                SHM_FILE.to_owned()
            } else if is_image_volume(source, OsStr::new(id)) {
                facts.image_volumes.push(destination.clone());
                image_volume(facts.image_volumes.len() - 1)
            } else {
                places.push(Place::whole(destination.clone(), None));
                continue;
            };
            places.push(Place::whole(destination.clone(), Some(trees.len())));
            trees.push(plain(host.path(source), file));
        }
        may_be_carried(facts.image_volumes.len())?;
        Ok(Self { trees, places, facts, stale: Vec::new(), bytes: 0 })
    }

    fn is_volume(&self, tree: usize) -> bool {
        self.trees[tree].file.starts_with(VOLUMES)
    }

    /// Names of the pod's emptyDir volumes.
    pub fn empty_dirs(&self) -> &[String] {
        &self.facts.empty_dirs
    }

    /// That the files would take in an archive, roughly, and those of volumes where they are laid out beside it. What lies in /dev/shm counts as memory of the container too, if it
    /// made it itself and was not restored with it: an archive that is smaller than was said harms less than one that is
    /// larger, and an engine makes /dev/shm no larger than 64 MiB.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes away what would stop CRIU. The container must stand still.
    pub fn clear(&self, container: &Container) -> Result<(), CarryError> {
        let root = PathBuf::from(format!("/proc/{}/root", container.pid));
        links::remove_stale(&root, &self.stale)
    }

    /// Begins to write all trees into the folder of a dump, at the same time. The container must stand still.
    pub fn write(self: &Arc<Self>, dir: &Path) -> Writing {
        let begun = Instant::now();
        let folders = [
            (IMAGE_VOLUMES, self.facts.image_volumes.is_empty()),
            (VOLUMES, self.facts.empty_dirs.is_empty()),
        ];
        let made = folders.into_iter().filter(|(_, is_empty)| !is_empty).try_for_each(|(folder, _)| {
            let path = dir.join(folder);
            let made = fs::DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|source| CarryError::Io { path, source })
        });
        let writers = (0..self.trees.len()).map(|number| {
            let (load, dir) = (Arc::clone(self), dir.to_owned());
            spawn_blocking(move || {
                let Tree { root, kind, file, .. } = &load.trees[number];
                Ok((tree::write(root, *kind, &dir.join(file))?, begun.elapsed()))
            })
        });
        Writing { load: Arc::clone(self), dir: dir.to_owned(), made, writers: writers.collect() }
    }

    /// The tree that a file of the container is in, and its name there; nothing for one in a mount that is not carried.
    fn tree_of(&self, file: &Path) -> Option<(usize, &Tree, PathBuf)> {
        let (number, name) = found(&self.places, file)?;
        Some((number, &self.trees[number], name))
    }
}

/// Trees that are being written.
#[must_use = "the writers go on by themselves"]
pub struct Writing {
    load: Arc<Load>,
    dir: PathBuf,
    made: Result<(), CarryError>,
    writers: Vec<JoinHandle<Result<(tree::Open, Duration), TreeError>>>,
}

/// Trees that are written but for what is known only when CRIU has ended.
pub struct Written {
    load: Arc<Load>,
    dir: PathBuf,
    open: Vec<tree::Open>,
    /// How long the slowest took.
    pub took: Duration,
}

impl Writing {
    /// Waits for all of them, also where one fails.
    pub async fn written(self) -> Result<Written, Failure> {
        let (mut open, mut took, mut failed) =
            (Vec::new(), Duration::ZERO, self.made.err().map(Failure::from));
        for writer in self.writers {
            match writer.await {
                Ok(Ok((tree, time))) => {
                    open.push(tree);
                    took = took.max(time);
                }
                Ok(Err(error)) => failed = failed.or(Some(CarryError::from(error).into())),
                Err(error) => {
                    failed = failed.or(Some(Failure::new(Refusal::RuntimeFailed, error.to_string())));
                }
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Written { load: self.load, dir: self.dir, open, took }),
        }
    }
}

impl Written {
    /// Adds what CRIU's images ask for and ends the files. The container must still stand still, with these processes.
    pub async fn finish(self, images: &Path, pids: Vec<Pid>) -> Result<(), Failure> {
        let images = images.to_owned();
        let finished = spawn_blocking(move || self.finish_blocking(&images, &pids)).await;
        finished.map_err(|error| Failure::new(Refusal::RuntimeFailed, error.to_string()))?
    }

    fn finish_blocking(mut self, images: &Path, pids: &[Pid]) -> Result<(), Failure> {
        links::add(images, pids, |file| self.load.tree_of(file), &mut self.open)?;
        for tree in self.open {
            tree.finish().map_err(CarryError::from)?;
        }
        Ok(store::write(&self.dir.join(CARRIED_FILE), &self.load.facts, Durability::Process)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRI: &str = "/var/lib/containerd/io.containerd.grpc.v1.cri";

    fn load(root: &Path, mounts: &[(&str, &str)]) -> Load {
        let mounts =
            mounts.iter().map(|(to, from)| Mount { destination: to.into(), source: from.into() }).collect();
        let annotations = BTreeMap::from([(POD_UID.to_owned(), "u".to_owned())]);
        Load::found(&Host::at(root), "ab", &Config { annotations, mounts }, "/upper".into()).unwrap()
    }

    #[test]
    fn what_belongs_to_the_container_is_found_among_its_mounts() {
        let root = tempfile::tempdir().unwrap();
        let pod = "/var/lib/kubelet/pods/u";
        let (scratch, unused) = (
            format!("{pod}/volumes/kubernetes.io~empty-dir/scratch"),
            format!("{pod}/volumes/kubernetes.io~empty-dir/unused"),
        );
        let (part, claim) = (
            format!("{pod}/volume-subpaths/scratch/app/1"),
            format!("{pod}/volumes/kubernetes.io~csi/c/mount"),
        );
        let host = Host::at(root.path());
        for folder in [&format!("{scratch}/a/b"), &unused, &claim] {
            fs::create_dir_all(host.path(Path::new(folder))).unwrap();
        }
        // Bind mounts have the inode of what they show.
        let subpaths = host.path(Path::new(&part));
        fs::create_dir_all(subpaths.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(host.path(Path::new(&format!("{scratch}/a/b"))), &subpaths).unwrap();
        let load = load(
            root.path(),
            &[
                ("/proc", "proc"),
                ("/dev/shm", "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm"),
                ("/data", &format!("{CRI}/containers/ab/volumes/1")),
                ("/scratch", &scratch),
                ("/part", &part),
                ("/claim", &claim),
                ("/log", &format!("{CRI}/containers/ab/volumes/2")),
            ],
        );
        assert!(load.facts.shm);
        assert_eq!(load.facts.image_volumes, [Path::new("/data"), Path::new("/log")]);
        assert_eq!(load.facts.empty_dirs, ["scratch", "unused"]);
        let trees: Vec<_> = load.trees.iter().map(|tree| (tree.file.as_str(), tree.root.clone())).collect();
        let at = |path: &str| host.path(Path::new(path));
        assert_eq!(
            trees,
            [
                ("rootfs.tar", "/upper".into()),
                ("volumes/scratch.tar", at(&scratch)),
                ("volumes/unused.tar", at(&unused)),
                ("shm.tar", at("/run/containerd/io.containerd.grpc.v1.cri/sandboxes/s/shm")),
                ("image-volumes/0.tar", at(&format!("{CRI}/containers/ab/volumes/1"))),
                ("image-volumes/1.tar", at(&format!("{CRI}/containers/ab/volumes/2"))),
            ]
        );
        let of = |file: &str| {
            let found = load.tree_of(Path::new(file));
            found.map(|(_, tree, name)| (tree.file.clone(), name.display().to_string()))
        };
        let is = |file: &str, name: &str| Some((file.to_owned(), name.to_owned()));
        assert_eq!(of("/tmp/link_remap.1"), is("rootfs.tar", "tmp/link_remap.1"));
        assert_eq!(of("/data/d/link_remap.1"), is("image-volumes/0.tar", "d/link_remap.1"));
        assert_eq!(of("/dev/shm/link_remap.1"), is("shm.tar", "link_remap.1"));
        assert_eq!(of("/scratch/a/link_remap.1"), is("volumes/scratch.tar", "a/link_remap.1"));
        assert_eq!(of("/part/link_remap.1"), is("volumes/scratch.tar", "a/b/link_remap.1"));
        assert_eq!(of("/claim/link_remap.1"), None);
    }

    #[test]
    fn a_part_of_a_volume_that_is_no_folder_is_named() {
        let root = tempfile::tempdir().unwrap();
        let pod = "/var/lib/kubelet/pods/u";
        let part = format!("{pod}/volume-subpaths/conf/app/0");
        let host = Host::at(root.path());
        let volume = host.path(Path::new(&format!("{pod}/volumes/kubernetes.io~empty-dir/conf")));
        fs::create_dir_all(&volume).unwrap();
        fs::write(volume.join("app.conf"), "").unwrap();
        fs::create_dir_all(host.path(Path::new(&part)).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(volume.join("app.conf"), host.path(Path::new(&part))).unwrap();
        let mounts = vec![Mount { destination: "/app.conf".into(), source: part.into() }];
        let annotations = BTreeMap::from([(POD_UID.to_owned(), "u".to_owned())]);
        let found = Load::found(&host, "ab", &Config { annotations, mounts }, "/upper".into());
        let told = found.unwrap_err().to_string();
        assert!(told.starts_with("/app.conf shows a part of emptyDir volume conf"), "{told}");
    }
}
