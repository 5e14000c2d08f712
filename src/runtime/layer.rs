//! Puts a tar of the source's files in place: a layer (changed files, with OCI whiteouts) over a mounted root file system, or
//! a plain tree as all that a folder holds.
//!
//! Guarantees: nothing outside that root is touched, whatever names and links the tar or the root hold: every name is
//! resolved beneath the root and through no symbolic link. Holes of files take no room.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use tar::{Archive, Entry, EntryType};

use super::sparse::{self, SPARSE_MAJOR, SPARSE_MINOR, SPARSE_SIZE};

/// `.wh.NAME`: NAME is gone.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Everything that lies below in this folder is gone.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
const XATTR_KEY: &str = "SCHILY.xattr.";

/// The tree could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct LayerError {
    path: PathBuf,
    source: io::Error,
}

impl LayerError {
    /// The tar itself is damaged or missing, and no other try will find it whole.
    pub fn is_of_the_layer(&self) -> bool {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        matches!(self.source.kind(), InvalidData | UnexpectedEof)
            || (self.source.kind() == NotFound && self.path.extension().is_some_and(|kind| kind == "tar"))
    }
}

/// What a tar holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeKind {
    /// What has changed over an image; some names mean that something is gone.
    Layer,
    /// All that a folder holds; names mean nothing.
    Plain,
}

/// Puts the tar file `tree` in place at `root`; what was there stays, but for what the tar has under the same name.
pub fn apply(tree: &Path, root: &Path, kind: TreeKind) -> Result<(), LayerError> {
    let file = File::open(tree).map_err(|e| at(tree, e))?;
    let root = open_root(root)?;
    let mut archive = Archive::new(io::BufReader::with_capacity(1 << 18, file));
    for entry in archive.entries().map_err(|e| at(tree, e))? {
        let mut entry = entry.map_err(|e| at(tree, e))?;
        let path = entry.path().map_err(|e| at(tree, e))?.into_owned();
        place(root.as_fd(), &path, &mut entry, kind).map_err(|e| at(&path, e))?;
    }
    Ok(())
}

/// Puts the tar file `tree` in place of all that the folder `root` holds.
pub fn replace(tree: &Path, root: &Path) -> Result<(), LayerError> {
    empty(open_root(root)?.as_fd()).map_err(|e| at(root, e))?;
    apply(tree, root, TreeKind::Plain)
}

/// Puts the tar file `tree` in place of all that the folder `root` holds; folders that both have stay the folders that they
/// are, for a part of it may be mounted elsewhere already (`subPath`).
pub fn fill(tree: &Path, root: &Path) -> Result<(), LayerError> {
    let folders = folders(tree)?;
    clear(open_root(root)?.as_fd(), Path::new(""), &folders).map_err(|e| at(root, e))?;
    apply(tree, root, TreeKind::Plain)
}

/// Names of all folders in a tar.
fn folders(tree: &Path) -> Result<HashSet<PathBuf>, LayerError> {
    let file = File::open(tree).map_err(|e| at(tree, e))?;
    let mut archive = Archive::new(io::BufReader::with_capacity(1 << 18, file));
    let mut found = HashSet::new();
    for entry in archive.entries_with_seek().map_err(|e| at(tree, e))? {
        let entry = entry.map_err(|e| at(tree, e))?;
        if entry.header().entry_type() == EntryType::Directory {
            let path = entry.path().map_err(|e| at(tree, e))?;
            if let Some((parent, name)) = split(&path).map_err(|e| at(&path, e))? {
                found.insert(
                    parent.join(name).components().filter(|part| *part != Component::CurDir).collect(),
                );
            }
        }
    }
    Ok(found)
}

/// Removes everything but folders of these names.
fn clear(folder: BorrowedFd<'_>, path: &Path, folders: &HashSet<PathBuf>) -> io::Result<()> {
    let readable = rustix::fs::openat(folder, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&readable)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
        let below = path.join(name);
        match rustix::fs::openat(&readable, name, flags, Mode::empty()) {
            Ok(kept) if folders.contains(&below) => clear(kept.as_fd(), &below, folders)?,
            _ => remove(readable.as_fd(), name)?,
        }
    }
    Ok(())
}

fn at(path: &Path, source: io::Error) -> LayerError {
    LayerError { path: path.to_owned(), source }
}

fn open_root(root: &Path) -> Result<OwnedFd, LayerError> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(|e| at(root, e.into()))
}

/// Folder and name of an entry; nothing for the root itself.
fn split(path: &Path) -> io::Result<Option<(PathBuf, &OsStr)>> {
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => parts.push(name),
            Component::CurDir => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "name leads out of the layer")),
        }
    }
    let Some(name) = parts.pop() else { return Ok(None) };
    let parent = if parts.is_empty() { PathBuf::from(".") } else { parts.iter().collect() };
    Ok(Some((parent, name)))
}

fn open_beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

fn place(
    root: BorrowedFd<'_>,
    path: &Path,
    entry: &mut Entry<'_, impl Read>,
    kind: TreeKind,
) -> io::Result<()> {
    let Some((parent, name)) = split(path)? else {
        return dress(&open_beneath(root, Path::new("."), OFlags::DIRECTORY)?, entry);
    };
    let parent = open_beneath(root, &parent, OFlags::DIRECTORY | OFlags::PATH)?;
    let parent = parent.as_fd();
    if kind == TreeKind::Layer {
        if name.as_bytes() == OPAQUE {
            return empty(parent);
        }
        if let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            return remove(parent, OsStr::from_bytes(gone));
        }
    }
    let header = entry.header().clone();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let node = |kind| -> io::Result<()> {
        remove(parent, name)?;
        let device = match kind {
            FileType::Fifo => 0,
            _ => {
                let (major, minor) = (header.device_major()?, header.device_minor()?);
                rustix::fs::makedev(major.unwrap_or(0), minor.unwrap_or(0))
            }
        };
        rustix::fs::mknodat(parent, name, kind, mode, device)?;
        own(parent, name, &header)?;
        Ok(rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?)
    };
    match header.entry_type() {
        EntryType::Directory => {
            match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
                _ => {
                    remove(parent, name)?;
                    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                }
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dress(&rustix::fs::openat(parent, name, flags, Mode::empty())?, entry)
        }
        EntryType::Regular => {
            remove(parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            match sparse_size(entry)? {
                Some(size) => sparse::fill(entry, size, &mut file)?,
                None => {
                    io::copy(entry, &mut file)?;
                }
            }
            let fd = OwnedFd::from(file);
            dress(&fd, entry)?;
            let modified = i64::try_from(header.mtime()?).unwrap_or_default();
            let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let last_modification = Timespec { tv_sec: modified, tv_nsec: 0 };
            Ok(rustix::fs::futimens(&fd, &Timestamps { last_access, last_modification })?)
        }
        EntryType::Symlink => {
            let target = entry.link_name()?.ok_or_else(|| invalid("symbolic link without target"))?;
            remove(parent, name)?;
            rustix::fs::symlinkat(target.as_ref(), parent, name)?;
            own(parent, name, &header)
        }
        EntryType::Link => {
            let target = entry.link_name()?.ok_or_else(|| invalid("hard link without target"))?;
            let (folder, file) = split(&target)?.ok_or_else(|| invalid("hard link to the root"))?;
            let folder = open_beneath(root, &folder, OFlags::DIRECTORY | OFlags::PATH)?;
            remove(parent, name)?;
            Ok(rustix::fs::linkat(&folder, file, parent, name, AtFlags::empty())?)
        }
        EntryType::Fifo => node(FileType::Fifo),
        EntryType::Char => node(FileType::CharacterDevice),
        EntryType::Block => node(FileType::BlockDevice),
        other => Err(invalid(&format!("entry of unknown kind {other:?}"))),
    }
}

pub fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn ids(header: &tar::Header) -> io::Result<(Option<Uid>, Option<Gid>)> {
    let id = |id: u64| u32::try_from(id).map_err(|_| invalid("owner out of range"));
    Ok((Some(Uid::from_raw(id(header.uid()?)?)), Some(Gid::from_raw(id(header.gid()?)?))))
}

fn own(parent: BorrowedFd<'_>, name: &OsStr, header: &tar::Header) -> io::Result<()> {
    let (uid, gid) = ids(header)?;
    Ok(rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Owner, mode (after the owner, whose change clears set-user-id) and extended attributes.
fn dress(fd: &OwnedFd, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let (uid, gid) = ids(entry.header())?;
    rustix::fs::fchown(fd, uid, gid)?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.header().mode()? & 0o7777))?;
    let Some(extensions) = entry.pax_extensions()? else { return Ok(()) };
    for extension in extensions {
        let extension = extension?;
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR_KEY)) {
            rustix::fs::fsetxattr(fd, name, extension.value_bytes(), XattrFlags::empty())?;
        }
    }
    Ok(())
}

/// Length of a file with holes; nothing for one without.
fn sparse_size(entry: &mut Entry<'_, impl Read>) -> io::Result<Option<u64>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(None) };
    let (mut version, mut size) = ([None, None], None);
    for extension in extensions {
        let extension = extension?;
        let Ok(value) = extension.value() else { continue };
        match extension.key() {
            Ok(SPARSE_MAJOR) => version[0] = value.parse::<u32>().ok(),
            Ok(SPARSE_MINOR) => version[1] = value.parse::<u32>().ok(),
            Ok(SPARSE_SIZE) => size = value.parse().ok(),
            _ => {}
        }
    }
    match (version, size) {
        ([None, None], None) => Ok(None),
        ([Some(1), Some(0)], Some(size)) => Ok(Some(size)),
        _ => Err(invalid("file with holes in an unknown form")),
    }
}

/// Removes `name` and what is in it; success if it is not there.
fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    if matches!(name.as_bytes(), b"" | b"." | b"..") {
        return Err(invalid("whiteout of no name"));
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    empty(rustix::fs::openat(parent, name, flags, Mode::empty())?.as_fd())?;
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

fn empty(folder: BorrowedFd<'_>) -> io::Result<()> {
    let readable = rustix::fs::openat(folder, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&readable)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove(readable.as_fd(), name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
