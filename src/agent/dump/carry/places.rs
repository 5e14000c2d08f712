//! Where in the container each tree is to be seen, and the emptyDir volumes of its pod. Reads the kubelet's folder of the pod.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::CarryError;
use crate::agent::node::host::Host;
use crate::api::{empty_dirs, is_volume_name, subpath_volume};

/// A mount of the container, or its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// In the container.
    pub at: PathBuf,
    /// Number of the tree that it shows; nothing where that is not carried.
    pub tree: Option<usize>,
    /// The part of the tree that it shows.
    pub below: PathBuf,
}

impl Place {
    /// Shows all of a tree.
    pub fn whole(at: PathBuf, tree: Option<usize>) -> Self {
        Self { at, tree, below: PathBuf::new() }
    }
}

/// Number of the tree that a file of the container is in, and its name there.
pub fn found(places: &[Place], file: &Path) -> Option<(usize, PathBuf)> {
    let around = places.iter().filter(|place| file.starts_with(&place.at));
    let place = around.max_by_key(|place| place.at.components().count())?;
    let name = file.strip_prefix(&place.at).ok()?;
    Some((place.tree?, place.below.join(name)))
}

/// Where in the container a file of that tree is to be seen, if it is.
pub fn shown(places: &[Place], tree: usize, name: &Path) -> Option<PathBuf> {
    let mut places = places.iter().filter(|place| place.tree == Some(tree));
    places.find_map(|place| Some(place.at.join(name.strip_prefix(&place.below).ok()?)))
}

/// The emptyDir volumes of a pod.
#[derive(Debug, Default)]
pub struct Volumes {
    /// The kubelet's folder of the pod, on the node.
    pod: PathBuf,
    /// As we reach it.
    folder: PathBuf,
    names: Vec<String>,
}

impl Volumes {
    /// `pod` is the kubelet's folder of the pod, on the node.
    pub fn of(host: &Host, pod: &Path) -> Result<Self, CarryError> {
        let folder = host.path(&empty_dirs(pod));
        let at = |source| CarryError::Io { path: folder.clone(), source };
        let mut names = match fs::read_dir(&folder) {
            Ok(entries) => entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
                .map_err(at)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(at(error)),
        };
        names.retain(|name| is_volume_name(name));
        names.sort();
        Ok(Self { pod: pod.to_owned(), folder, names })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// As we reach it.
    pub fn root(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The volume that the mount at `shown_at` shows, by its place among the names, and which part of it.
    pub fn find(
        &self,
        host: &Host,
        source: &Path,
        shown_at: &Path,
    ) -> Result<Option<(usize, PathBuf)>, CarryError> {
        if self.names.is_empty() {
            return Ok(None);
        }
        let number = |name: &str| self.names.iter().position(|known| known == name);
        if let Ok(below) = source.strip_prefix(empty_dirs(&self.pod)) {
            let mut parts = below.components();
            let name = parts.next().and_then(|name| number(&name.as_os_str().to_string_lossy()));
            return Ok(name.map(|name| (name, parts.as_path().to_owned())));
        }
        let Some(volume) = subpath_volume(&self.pod, source).and_then(|name| number(&name)) else {
            return Ok(None);
        };
        let at = |source| CarryError::Io { path: self.root(&self.names[volume]), source };
        let shown = fs::metadata(host.path(source)).map_err(at)?;
        let below = same_folder(&self.root(&self.names[volume]), Path::new(""), (shown.dev(), shown.ino()));
        match below.map_err(at)? {
            Some(below) => Ok(Some((volume, below))),
            // The kubelet of the new pod makes a folder of that name before there is anything in the volume.
            None => Err(CarryError::NoFolder { at: shown_at.to_owned(), volume: self.names[volume].clone() }),
        }
    }
}

/// The folder below `root` that is this inode; what vanishes meanwhile is not there.
fn same_folder(root: &Path, folder: &Path, wanted: (u64, u64)) -> io::Result<Option<PathBuf>> {
    let read = fs::symlink_metadata(root.join(folder))
        .and_then(|metadata| Ok(((metadata.dev(), metadata.ino()), fs::read_dir(root.join(folder))?)));
    let (inode, entries) = match read {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    if inode == wanted {
        return Ok(Some(folder.to_owned()));
    }
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir()
            && let Some(found) = same_folder(root, &folder.join(entry.file_name()), wanted)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_where_the_innermost_mount_shows_it() {
        let place = |at: &str, tree, below: &str| Place { at: at.into(), tree, below: below.into() };
        let places = [place("/", Some(0), ""), place("/a", Some(1), "x/y"), place("/a/b", None, "")];
        let of = |file: &str| found(&places, Path::new(file));
        assert_eq!(of("/etc/f"), Some((0, "etc/f".into())));
        assert_eq!(of("/a/f"), Some((1, "x/y/f".into())));
        assert_eq!(of("/a/b/f"), None);
        assert_eq!(shown(&places, 1, Path::new("x/y/f")), Some("/a/f".into()));
        assert_eq!(shown(&places, 1, Path::new("x/f")), None, "no mount shows it");
    }
}
