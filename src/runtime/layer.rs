//! Applies a layer tar (changed files of the source, with OCI whiteouts) to a mounted root file system.
//!
//! Guarantees: nothing outside that root is touched, whatever names and links the tar or the root hold: every name is
//! resolved beneath the root and through no symbolic link.

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

/// `.wh.NAME`: NAME is gone.
pub const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Everything that lies below in this folder is gone.
pub const OPAQUE: &[u8] = b".wh..wh..opq";
const XATTR_KEY: &str = "SCHILY.xattr.";

/// The layer could not be applied.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct LayerError {
    path: PathBuf,
    source: io::Error,
}

/// Applies the tar file `layer` to `root`.
pub fn apply(layer: &Path, root: &Path) -> Result<(), LayerError> {
    let at = |path: &Path, source: io::Error| LayerError { path: path.to_owned(), source };
    let file = File::open(layer).map_err(|e| at(layer, e))?;
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(|e| at(root, e.into()))?;
    let mut archive = Archive::new(io::BufReader::with_capacity(1 << 18, file));
    for entry in archive.entries().map_err(|e| at(layer, e))? {
        let mut entry = entry.map_err(|e| at(layer, e))?;
        let path = entry.path().map_err(|e| at(layer, e))?.into_owned();
        place(root.as_fd(), &path, &mut entry).map_err(|e| at(&path, e))?;
    }
    Ok(())
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

fn place(root: BorrowedFd<'_>, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let Some((parent, name)) = split(path)? else {
        return dress(&open_beneath(root, Path::new("."), OFlags::DIRECTORY)?, entry);
    };
    let parent = open_beneath(root, &parent, OFlags::DIRECTORY | OFlags::PATH)?;
    let parent = parent.as_fd();
    if name.as_bytes() == OPAQUE {
        return empty(parent);
    }
    if let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
        return remove(parent, OsStr::from_bytes(gone));
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
            io::copy(entry, &mut file)?;
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

fn invalid(what: &str) -> io::Error {
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
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use tar::{Builder, Header};

    struct Layer(Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Self {
            Self(Builder::new(Vec::new()))
        }

        /// Names are written raw: `Builder` itself would refuse the bad ones.
        fn entry(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o640 });
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            header.set_uid(uid.into());
            header.set_gid(gid.into());
            header.set_mtime(1_000_000);
            header.set_cksum();
            self.0.append(&header, content).unwrap();
            self
        }

        fn file(self, name: &str, content: &str) -> Self {
            self.entry(EntryType::Regular, name, "", content.as_bytes())
        }

        fn dir(self, name: &str) -> Self {
            self.entry(EntryType::Directory, name, "", b"")
        }

        fn apply(self, root: &Path) -> Result<(), LayerError> {
            let layer = tempfile::NamedTempFile::new().unwrap();
            fs::write(layer.path(), self.0.into_inner().unwrap()).unwrap();
            apply(layer.path(), root)
        }
    }

    #[test]
    fn files_folders_and_links_are_put_in_place() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("old"), "old").unwrap();
        Layer::new()
            .dir("d")
            .file("d/f", "new")
            .file("old", "newer")
            .entry(EntryType::Symlink, "s", "/nowhere", b"")
            .entry(EntryType::Link, "h", "d/f", b"")
            .entry(EntryType::Fifo, "p", "", b"")
            .apply(root.path())
            .unwrap();
        let at = |name: &str| root.path().join(name);
        assert_eq!(fs::read_to_string(at("d/f")).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("old")).unwrap(), "newer");
        assert_eq!(fs::read_link(at("s")).unwrap(), Path::new("/nowhere"));
        let file = fs::metadata(at("h")).unwrap();
        assert_eq!((file.nlink(), file.mtime(), file.permissions().mode() & 0o7777), (2, 1_000_000, 0o640));
        assert_eq!(fs::symlink_metadata(at("p")).unwrap().mode() & 0o170_000, 0o010_000);
    }

    #[test]
    fn whiteouts_remove_and_opaque_folders_start_empty() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("gone/deep")).unwrap();
        fs::write(at("gone/deep/x"), "").unwrap();
        fs::create_dir_all(at("opaque/sub")).unwrap();
        fs::write(at("opaque/sub/x"), "").unwrap();
        Layer::new()
            .file(".wh.gone", "")
            .file(".wh.never-was", "")
            .dir("opaque")
            .file("opaque/.wh..wh..opq", "")
            .file("opaque/new", "n")
            .apply(root.path())
            .unwrap();
        assert!(!at("gone").exists());
        let left: Vec<_> = fs::read_dir(at("opaque")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["new"]);
    }

    #[test]
    fn a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_link() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        symlink(outside.path(), root.path().join("l")).unwrap();
        Layer::new().file("a", "file").dir("l").file("l/x", "in").apply(root.path()).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("a")).unwrap(), "file");
        assert_eq!(fs::read_to_string(root.path().join("l/x")).unwrap(), "in");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_leaves_the_root() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("keep"), "").unwrap();
        let out = outside.path().to_str().unwrap();
        for layer in [
            Layer::new().file("../x", "x"),
            Layer::new().file("/../x", "x"),
            Layer::new().file("l/x", "x"),
            Layer::new().file("l/.wh.keep", ""),
            Layer::new().file("l/.wh..wh..opq", ""),
            Layer::new().file(".wh...", ""),
            Layer::new().entry(EntryType::Link, "h", "l/keep", b""),
            Layer::new().entry(EntryType::Link, "h", "../keep", b""),
            Layer::new().entry(EntryType::Symlink, "n", out, b"").file("n/x", "x"),
        ] {
            let root = tempfile::tempdir().unwrap();
            symlink(outside.path(), root.path().join("l")).unwrap();
            assert!(layer.apply(root.path()).is_err());
            let left: Vec<_> =
                fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["keep"]);
        }
    }
}
