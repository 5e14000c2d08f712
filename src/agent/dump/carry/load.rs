//! What the containers of a pod carry: found in the engine's bundles, in the kubelet's folder of the pod and in /proc, and
//! counted. Reads only, but for what an earlier CRIU has left.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::addresses::addresses;
use super::places::{Place, Volumes, found, shown};
use super::{CarryError, Tree, deleted, links, may_be_carried, survey};
use crate::agent::node::containers::{Container, POD_UID};
use crate::agent::node::host::Host;
use crate::agent::transfer::archive::{LAYER, container_folder};
use crate::api::{
    Carried, SHM_FILE, VOLUMES, empty_dir, image_volume, is_image_volume, is_sandbox_shm, pod_folder,
};
use crate::runtime::TreeKind;

/// On its target a volume is in the archive, in the shadow's folder and in the replacement's at a time.
const PLACES_OF_A_VOLUME: u64 = 3;

/// One container that runs here.
#[derive(Clone, Debug)]
pub struct Located {
    pub name: String,
    pub container: Container,
    /// Its changed files, as we reach them.
    pub upper: PathBuf,
    /// What it was made from, where that is to be told.
    pub image: Option<String>,
}

/// All that the containers of a pod carry.
#[derive(Clone, Debug)]
pub struct Load {
    pub(super) trees: Vec<Tree>,
    pub(super) members: Vec<Member>,
    bytes: u64,
}

/// One of the containers.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    /// Of its part, in the archive.
    pub folder: PathBuf,
    places: Vec<Place>,
    pub facts: Carried,
    /// Names in the container that an earlier CRIU has left.
    stale: Vec<PathBuf>,
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

/// What is read of a container to find what it carries.
struct Source<'a> {
    id: &'a str,
    config: Config,
    upper: PathBuf,
}

impl Load {
    /// Looks through what belongs to these containers of one pod. Blocking: it counts them.
    pub fn of(host: &Host, located: &[Located]) -> Result<Self, CarryError> {
        let mut sources = Vec::new();
        for Located { container, upper, .. } in located {
            let path = host.path(&container.bundle.join("config.json"));
            let text =
                fs::read_to_string(&path).map_err(|source| CarryError::Io { path: path.clone(), source })?;
            let config =
                serde_json::from_str(&text).map_err(|error| CarryError::Io { path, source: error.into() })?;
            sources.push(Source { id: &container.id, config, upper: upper.clone() });
        }
        let mut load = Self::found(host, sources)?;
        for (member, Located { container, image, .. }) in load.members.iter_mut().zip(located) {
            member.facts.addresses = addresses(Path::new("/proc"), container.pid)?;
            member.facts.image.clone_from(image);
        }
        for (number, tree) in load.trees.iter().enumerate() {
            let found = survey::survey(&tree.root);
            let found = found.map_err(|source| CarryError::Io { path: tree.root.clone(), source })?;
            let laid_out = if tree.file.starts_with(VOLUMES) { PLACES_OF_A_VOLUME } else { 1 };
            load.bytes = load.bytes.saturating_add(found.bytes.saturating_mul(laid_out));
            for name in &found.stale {
                // Whichever of them shows it.
                let seen = |member: &&mut Member| shown(&member.places, number, name).is_some();
                let Some(member) = load.members.iter_mut().find(seen) else { continue };
                member.stale.extend(shown(&member.places, number, name));
            }
        }
        let mut pids = Vec::new();
        for Located { container, .. } in located {
            let path = container.bundle.clone();
            let of = container.freezer.pids();
            pids.extend(of.map_err(|error| CarryError::Io { path, source: io::Error::other(error) })?);
        }
        load.bytes = load.bytes.saturating_add(deleted::bytes(&deleted::deleted(&pids)));
        Ok(load)
    }

    fn found(host: &Host, sources: Vec<Source<'_>>) -> Result<Self, CarryError> {
        let plain = |root: PathBuf, file: String| Tree { root, kind: TreeKind::Plain, file };
        let pod = sources.iter().find_map(|source| source.config.pod_folder());
        let volumes = pod.as_ref().map(|pod| Volumes::of(host, pod)).transpose()?.unwrap_or_default();
        let mut trees: Vec<Tree> =
            volumes.names().map(|name| plain(volumes.root(name), empty_dir(name))).collect();
        let mut shm = None;
        let mut members: Vec<Member> = Vec::new();
        for Source { id, config, upper } in sources {
            let folder =
                members.len().checked_sub(1).map_or_else(PathBuf::new, |n| container_folder(n).into());
            let below = |name: &str| folder.join(name).to_string_lossy().into_owned();
            let (mut places, mut facts) =
                (vec![Place::whole("/".into(), Some(trees.len()))], Carried::default());
            trees.push(Tree { root: upper, kind: TreeKind::Layer, file: below(LAYER) });
            for Mount { destination, source } in config.mounts {
                if let Some((volume, below)) = volumes.find(host, &source, &destination)? {
                    places.push(Place { at: destination, tree: Some(volume), below });
                } else if is_sandbox_shm(&destination, &source) {
                    facts.shm = true;
                    let tree = *shm.get_or_insert_with(|| {
                        trees.push(plain(host.path(&source), SHM_FILE.to_owned()));
                        trees.len() - 1
                    });
                    places.push(Place::whole(destination, Some(tree)));
                } else if is_image_volume(&source, OsStr::new(id)) {
                    let file = below(&image_volume(facts.image_volumes.len()));
                    places.push(Place::whole(destination.clone(), Some(trees.len())));
                    trees.push(plain(host.path(&source), file));
                    facts.image_volumes.push(destination);
                } else {
                    places.push(Place::whole(destination, None));
                }
            }
            may_be_carried(facts.image_volumes.len())?;
            members.push(Member { folder, places, facts, stale: Vec::new() });
        }
        // What is of the pod is told where its archive is named.
        if let Some(first) = members.first_mut() {
            first.facts.empty_dirs = volumes.names().map(str::to_owned).collect();
        }
        Ok(Self { trees, members, bytes: 0 })
    }

    /// Names of the pod's emptyDir volumes.
    pub fn empty_dirs(&self) -> &[String] {
        self.members.first().map_or(&[], |first| &first.facts.empty_dirs)
    }

    /// Where the part of the n-th container lies in the archive.
    pub fn folder(&self, number: usize) -> &Path {
        self.members.get(number).map_or(Path::new(""), |member| &member.folder)
    }

    /// That the files would take in an archive, roughly, and those of volumes where they are laid out beside it. What lies in /dev/shm counts as memory of the container too, if it
    /// made it itself and was not restored with it: an archive that is smaller than was said harms less than one that is
    /// larger, and an engine makes /dev/shm no larger than 64 MiB.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes away what would stop CRIU. The containers, those that it is of, must stand still.
    pub fn clear(&self, located: &[Located]) -> Result<(), CarryError> {
        self.members.iter().zip(located).try_for_each(|(member, Located { container, .. })| {
            let root = PathBuf::from(format!("/proc/{}/root", container.pid));
            links::remove_stale(&root, &member.stale)
        })
    }

    /// The tree that a file of that container is in, and its name there; nothing for one in a mount that is not carried.
    pub(super) fn tree_of(&self, member: &Member, file: &Path) -> Option<(usize, &Tree, PathBuf)> {
        let (number, name) = found(&member.places, file)?;
        Some((number, &self.trees[number], name))
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
